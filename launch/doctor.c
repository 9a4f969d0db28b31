/* mhcpipe doctor: what this machine has, what is missing, and what that costs. */
#include <cblas.h>
#include <dlfcn.h>
#include <hwloc.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/device.h"
#include "core/environment.h"
#include "core/library.h"
#include "launch/command.h"
#include "launch/doctor_cards.h"
#include "launch/doctor_cluster.h"
#include "model/kernels.h"

extern char **environ;

enum { DEVICE_KEY = 'd', CLUSTER_KEY = 'c', MISSING_MAX = 16, MISSING_TEXT_MAX = 256, NAME_WIDTH = 10 };

/* The build's own: version, architectures; "" without the backend. */
static const char built_cuda[] = MHP_BUILT_CUDA;
static const char built_cudnn[] = MHP_BUILT_CUDNN;

typedef struct doctor {
    bool needs_card; /* --device cuda */
    bool failed;     /* something that is required is missing */
    bool cluster;    /* --cluster */
    const char *path;
    mhp_overrides overrides;
    int missing_count;
    char missing[MISSING_MAX][MISSING_TEXT_MAX];
} doctor;

static void print_fact(const char *name, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void add_missing(doctor *self, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void print_fact(const char *name, const char *format, ...)
{
    va_list arguments;

    printf("  %-*s ", NAME_WIDTH, name);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

static void add_missing(doctor *self, const char *format, ...)
{
    va_list arguments;

    if (self->missing_count == MISSING_MAX) {
        return;
    }
    va_start(arguments, format);
    vsnprintf(self->missing[self->missing_count++], MISSING_TEXT_MAX, format, arguments);
    va_end(arguments);
}

/* ---- the machine ---- */

static void check_topology(void)
{
    hwloc_topology_t topology;
    unsigned version = hwloc_get_api_version();

    if (hwloc_topology_init(&topology) != 0 || hwloc_topology_load(topology) != 0) {
        print_fact("hwloc", "%u.%u.%u, which cannot read this machine", version >> 16,
                   version >> 8 & 0xff, version & 0xff);
        return;
    }
    print_fact("hwloc", "%u.%u.%u: %d packages, %d NUMA nodes, %d cores, %d threads, %.1f GiB",
               version >> 16, version >> 8 & 0xff, version & 0xff,
               hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE),
               hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE),
               hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE),
               hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU),
               (double)hwloc_get_root_obj(topology)->total_memory / (1 << 30));
    hwloc_topology_destroy(topology);
}

static bool is_on_path(const char *program)
{
    const char *path = getenv("PATH");

    while (path && *path) {
        size_t length = strcspn(path, ":");
        char file[4096];

        snprintf(file, sizeof file, "%.*s/%s", (int)length, path, program);
        if (access(file, X_OK) == 0) {
            return true;
        }
        path += length + (path[length] == ':');
    }
    return false;
}

static void check_machine(doctor *self)
{
    const mhp_kernels *kernels = mhp_kernels_find(MHP_DEVICE_CPU, MHP_DTYPE_F32);
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;

    printf("machine\n");
    check_topology();
    MPI_Get_library_version(mpi, &length);
    mpi[strcspn(mpi, ",\n")] = '\0';
    print_fact("MPI", "%s%s", mpi, is_on_path("mpirun") ? "" : "; no mpirun on the PATH");
    if (!is_on_path("mpirun")) {
        add_missing(self, "mpirun: only one rank can be started (Debian: openmpi-bin)");
    }
    print_fact("BLAS", "%s", openblas_get_config());
    print_fact("kernels", "%s", kernels ? kernels->name : "none");
    if (!kernels) {
        self->failed = true;
        add_missing(self, "kernels for this processor: nothing can be computed on the cpu device");
    }
}

/* ---- CUDA ---- */

/* The first of the names that can be loaded, or that is loaded already; NULL if none. */
static void *open_library(const char *const *names)
{
    for (; *names; names++) {
        void *library = dlopen(*names, RTLD_LAZY | RTLD_LOCAL);

        if (library) {
            return library;
        }
    }
    return NULL;
}

/* Calls `size_t function(void)` of a library; 0 if there is none. */
static size_t library_version(const char *const *names, const char *function)
{
    void *library = open_library(names);
    size_t (*version)(void);
    const mhp_library_symbol symbol = {function, &version};

    return library && !mhp_library_bind(library, &symbol, 1) ? version() : 0;
}

static void check_cublas(void)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};
    size_t version = library_version(names, "cublasLtGetVersion");

    if (version > 0) {
        print_fact("cuBLASLt", "%zu.%zu.%zu", version / 10000, version / 100 % 100, version % 100);
    } else {
        print_fact("cuBLASLt", "not found");
    }
}

static void check_cudnn(doctor *self)
{
    static const char *const names[] = {"libcudnn.so.9", NULL};
    size_t version = library_version(names, "cudnnGetVersion");

    if (version > 0) {
        print_fact("cuDNN", "%zu.%zu.%zu, %s", version / 10000, version / 100 % 100, version % 100,
                   *built_cudnn ? "which this build uses for attention" : "which this build does not use");
    } else {
        print_fact("cuDNN", "not found");
    }
    if (*built_cuda && !*built_cudnn) {
        add_missing(self, "cuDNN in this build: attention runs by own kernels, which are slower. Build "
                          "with cuDNN 9 and the headers of the PyPI package nvidia-cudnn-frontend");
    }
}

static void check_nccl(doctor *self, int card_count)
{
    static const char *const names[] = {"libnccl.so.2", MHP_NCCL_LIBRARY, NULL};
    void *library = open_library(names);
    int (*get_version)(int *version);
    const mhp_library_symbol symbol = {"ncclGetVersion", &get_version};
    int version = 0;

    if (library && !mhp_library_bind(library, &symbol, 1)) {
        (void)get_version(&version);
        print_fact("NCCL", "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
        return;
    }
    print_fact("NCCL", "not found");
    if (card_count > 1) {
        add_missing(self, "NCCL: messages between cards of two hosts are staged in host memory and sent by MPI");
    }
}

static void print_peers(const mhp_cards *cards, int i)
{
    bool any = false;

    for (int j = 0; j < cards->count; j++) {
        if (cards->peers[i][j]) {
            printf("%s %d", any ? "," : "; NVLink to", j);
            any = true;
        }
    }
}

static void print_cards(const mhp_cards *cards)
{
    const double gib = 1024.0 * 1024.0 * 1024.0;

    for (int i = 0; i < cards->count; i++) {
        const mhp_card *card = &cards->cards[i];

        printf("  card %-*d %s, %.1f GiB (%.1f free), compute capability %d.%d, %d NVLinks", NAME_WIDTH - 5, i,
               card->name, (double)card->bytes / gib, (double)card->free_bytes / gib, card->major, card->minor, card->links);
        print_peers(cards, i);
        printf("\n");
    }
}

/* Opens every visible card as a run would. */
static void try_cards(doctor *self)
{
    int count = mhp_device_count(MHP_DEVICE_CUDA);
    int usable = 0;

    for (int i = 0; i < (count > 0 ? count : 1); i++) {
        mhp_device_params params = {.kind = MHP_DEVICE_CUDA, .index = i, .threads = 1};
        mhp_device *device = NULL;

        if (mhp_device_open(&params, &device) == MHP_OK) {
            usable++;
        } else {
            add_missing(self, "a card: %s", mhp_error_text());
        }
        mhp_device_close(device);
    }
    print_fact("usable", "%d of %d visible cards", usable, count);
    self->failed = self->failed || (self->needs_card && usable == 0);
}

static void check_cuda(doctor *self)
{
    static mhp_cards cards; /* large */

    mhp_cards_find(&cards);
    printf("\nCUDA\n");
    print_fact("backend", "%s", *built_cuda ? built_cuda : "not in this build");
    if (cards.failure[0]) {
        print_fact("driver", "unknown: NVML says: %s", cards.failure);
    } else {
        print_fact("driver", "%s, for CUDA up to %d.%d", cards.driver, cards.cuda / 1000, cards.cuda % 1000 / 10);
    }
    print_cards(&cards);
    check_cublas();
    check_cudnn(self);
    check_nccl(self, cards.count);
    if (*built_cuda) {
        try_cards(self);
    } else if (cards.count > 0 || self->needs_card) {
        self->failed = self->failed || self->needs_card;
        add_missing(self, "the CUDA backend: this build computes on the processor alone. Build with CUDA's "
                          "toolkit, 12.0 or newer, and -DMHP_CUDA=on");
    }
}

/* ---- environment ---- */

/* Those that a run sets where they are not set. */
static void print_variables(void)
{
    size_t count;
    const mhp_variable *variables = mhp_environment_variables(&count);

    for (size_t i = 0; i < count; i++) {
        const mhp_variable *variable = &variables[i];
        const char *text = getenv(variable->name);

        if (!text) {
            print_fact(variable->name, "not set: mhcpipe sets %s", variable->value);
            continue;
        }
        if (mhp_environment_too_little(variable, text)) {
            print_fact(variable->name, "%s: mhcpipe sets %s, else %s", text, variable->value, variable->reason);
        } else {
            print_fact(variable->name, "%s", text);
        }
    }
}

static bool is_set_by_us(const char *text)
{
    size_t count;
    const mhp_variable *variables = mhp_environment_variables(&count);

    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(variables[i].name);

        if (strncmp(text, variables[i].name, length) == 0 && text[length] == '=') {
            return true;
        }
    }
    return false;
}

static void check_environment(doctor *self)
{
    static const char *const prefixes[] = {"CUDA_VISIBLE_DEVICES=", "CUDA_LAUNCH_BLOCKING=", "NCCL_",
                                           "OMP_NUM_THREADS=", "OPENBLAS_NUM_THREADS=", "OMPI_MCA_", "UCX_"};
    const char *blocking = getenv("CUDA_LAUNCH_BLOCKING");

    printf("\nenvironment\n");
    if (*built_cuda) {
        print_variables();
        print_fact("cards", "a rank takes the one of its number on its host, in turns, or parallel.gpu");
    }
    for (char **variable = environ; *variable; variable++) {
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
            if (strncmp(*variable, prefixes[i], strlen(prefixes[i])) == 0 && !is_set_by_us(*variable)) {
                printf("  %s\n", *variable);
            }
        }
    }
    if (blocking && strcmp(blocking, "0") != 0) {
        add_missing(self, "CUDA_LAUNCH_BLOCKING is %s: every kernel is waited for, nothing overlaps, and a run "
                          "of several ranks may hang. Unset it", blocking);
    }
}

/* ---- command ---- */

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    doctor *self = state->input;

    switch (key) {
    case DEVICE_KEY:
        if (strcmp(text, "cuda") != 0 && strcmp(text, "cpu") != 0) {
            argp_error(state, "--device %s: expected cpu or cuda", text);
        }
        self->needs_card = strcmp(text, "cuda") == 0;
        return 0;
    case CLUSTER_KEY:
        self->cluster = true;
        return 0;
    case MHP_SET_KEY:
        mhp_overrides_add(&self->overrides, text, state);
        return 0;
    case ARGP_KEY_ARG:
        mhp_take_argument(state, "CONFIG", text, &self->path);
        return 0;
    case ARGP_KEY_END:
        if (!self->cluster && (self->path || self->overrides.count > 0)) {
            argp_error(state, "a configuration is for --cluster alone");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"device", DEVICE_KEY, "KIND", 0, "What has to work: cpu (the default), or cuda as well", 0},
    {"cluster", CLUSTER_KEY, NULL, 0, "Under mpirun: check from every rank that hosts fit together, and measure the lines between "
     "the ranks that CONFIG's plan uses", 0},
    MHP_SET_OPTION,
    {0},
};

static const struct argp parser = {
    options, parse_option, "[CONFIG]",
    "Says what this machine has, what is missing and what that costs. Exit status 1 if what has to work "
    "does not, or if --cluster finds versions, programs or configurations that differ.",
    NULL, NULL, NULL};

int mhp_command_doctor(int argc, char **argv)
{
    doctor self = {0};

    mhp_parse_arguments(&parser, "doctor", argc, argv, &self);
    if (self.cluster) {
        return mhp_doctor_cluster(self.path, &self.overrides);
    }
    if (mhp_launched_rank() > 0) {
        return 0;
    }
    printf("mhcpipe %s\n\n", MHP_VERSION);
    check_machine(&self);
    check_environment(&self);   /* before CUDA's first call, which sets what is not set */
    check_cuda(&self);
    printf("\nmissing\n");
    for (int i = 0; i < self.missing_count; i++) {
        printf("  %s\n", self.missing[i]);
    }
    if (self.missing_count == 0) {
        printf("  nothing\n");
    }
    return self.failed ? MHP_EXIT_ERROR : 0;
}
