/* golden_pieces DIR: the kernels of one connection against DIR/piece_*.safetensors, in F64 and F32, for every instruction set of
 * this machine. Exit status 1 if an output or gradient is off by more than 1e-9 (F64) or 1e-4 (F32). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "model/cpu/tables.h"
#include "tests/golden/golden.h"

typedef struct piece {
    const mhp_safetensors *file;
    const mhp_kernels *kernels;
    mhp_connection_kind kind;
    int tokens, streams, hidden, iterations;
    double hc_epsilon, norm_epsilon;
    double worst;               /* relative error so far */
    const char *worst_name;
} piece;

static void *checked(mhp_status status, void *memory)
{
    if (status < 0) {
        fprintf(stderr, "%s\n", mhp_error_text());
        exit(EXIT_FAILURE);
    }
    return memory;
}

/* Memory of `count` elements full of NaN: what a kernel leaves out shows. */
static void *poisoned(const piece *p, size_t count)
{
    void *memory;

    checked(mhp_calloc(&memory, count, mhp_dtype_bytes(p->kernels->dtype)), NULL);
    memset(memory, 0xff, count * mhp_dtype_bytes(p->kernels->dtype));
    return memory;
}

static void *zeroed(const piece *p, size_t count)
{
    void *memory;

    checked(mhp_calloc(&memory, count, mhp_dtype_bytes(p->kernels->dtype)), NULL);
    return memory;
}

static void *input(const piece *p, const char *name)
{
    size_t count;
    double *values = golden_tensor(p->file, name, &count);
    void *memory = poisoned(p, count);

    golden_to_dtype(values, count, p->kernels->dtype, memory);
    mhp_free(values);
    return memory;
}

static void compare(piece *p, const char *name, const void *computed)
{
    size_t count;
    double *expected = golden_tensor(p->file, name, &count);
    double error = golden_error(computed, p->kernels->dtype, expected, count);

    if (!(error <= p->worst)) {
        p->worst = error;
        p->worst_name = name;
    }
    mhp_free(expected);
}

typedef struct piece_memory {
    void *x, *y, *fn, *base, *scale, *g, *dz;                        /* inputs */
    void *pre, *post, *comb, *projection, *rrms, *z, *x_next;        /* forward */
    void *dy, *dpost, *dcomb, *dx, *dfn, *dbase, *dscale, *workspace; /* gradient */
} piece_memory;

static piece_memory allocate(const piece *p)
{
    size_t t = (size_t)p->tokens, n = (size_t)p->streams, c = (size_t)p->hidden;
    size_t fn_count = p->kind == MHP_CONNECTION_HC ? (n + 2) * c : (n * n + 2 * n) * n * c;
    int64_t workspace = p->kernels->connection_workspace(p->kind, p->tokens, p->hidden, p->streams, 64);

    return (piece_memory){
        .x = input(p, "x"), .y = input(p, "y"), .fn = input(p, "fn"), .base = input(p, "base"),
        .scale = input(p, "scale"), .g = input(p, "grad_x_next"), .dz = input(p, "grad_z"),
        .pre = poisoned(p, t * n), .post = poisoned(p, t * n), .comb = poisoned(p, t * n * n),
        .projection = poisoned(p, t * (n * n + 2 * n)), .rrms = poisoned(p, t * n),
        .z = poisoned(p, t * c), .x_next = poisoned(p, t * n * c),
        .dy = poisoned(p, t * c), .dpost = poisoned(p, t * n), .dcomb = poisoned(p, t * n * n),
        .dx = poisoned(p, t * n * c), .dfn = zeroed(p, fn_count),
        .dbase = zeroed(p, n * n + 2 * n), .dscale = zeroed(p, 3),
        .workspace = poisoned(p, (size_t)workspace),
    };
}

static void release(piece_memory *m)
{
    void **all = (void **)m;

    for (size_t i = 0; i < sizeof *m / sizeof *all; i++) {
        mhp_free(all[i]);
    }
}

static void run_forward(piece *p, piece_memory *m)
{
    mhp_connection_args connection = {
        .kind = p->kind, .tokens = p->tokens, .hidden = p->hidden, .streams = p->streams,
        .sinkhorn_iterations = p->iterations, .norm_epsilon = p->norm_epsilon,
        .hc_epsilon = p->hc_epsilon, .x = m->x, .fn = m->fn, .base = m->base, .scale = m->scale,
        .pre = m->pre, .post = m->post, .comb = m->comb, .projection = m->projection,
        .rrms = m->rrms, .z = m->z,
    };
    mhp_merge_args merge = {
        .kind = p->kind, .tokens = p->tokens, .hidden = p->hidden, .streams = p->streams, .x = m->x, .y = m->y,
        .post = m->post, .comb = m->comb, .x_next = m->x_next,
    };

    checked(p->kernels->connection(NULL, &connection), NULL);
    checked(p->kernels->merge(NULL, &merge), NULL);
    compare(p, "pre", m->pre);
    compare(p, "post", m->post);
    compare(p, "comb", m->comb);
    compare(p, "z", m->z);
    compare(p, "x_next", m->x_next);
}

static void run_gradient(piece *p, piece_memory *m)
{
    mhp_merge_gradient_args merge = {
        .kind = p->kind, .tokens = p->tokens, .hidden = p->hidden, .streams = p->streams, .g = m->g, .x = m->x,
        .y = m->y, .post = m->post, .comb = m->comb, .dy = m->dy, .dpost = m->dpost,
        .dcomb = m->dcomb,
    };
    mhp_connection_gradient_args connection = {
        .kind = p->kind, .tokens = p->tokens, .hidden = p->hidden, .streams = p->streams,
        .sinkhorn_iterations = p->iterations, .norm_epsilon = p->norm_epsilon,
        .hc_epsilon = p->hc_epsilon, .g = m->g, .x = m->x, .dz = m->dz, .dpost = m->dpost,
        .dcomb = m->dcomb, .pre = m->pre, .post = m->post, .comb = m->comb,
        .projection = m->projection, .rrms = m->rrms, .fn = m->fn, .base = m->base,
        .scale = m->scale, .dx = m->dx, .dfn = m->dfn, .dbase = m->dbase, .dscale = m->dscale,
        .workspace = m->workspace,
    };

    checked(p->kernels->merge_gradient(NULL, &merge), NULL);
    checked(p->kernels->connection_gradient(NULL, &connection), NULL);
    compare(p, "grad_x", m->dx);
    compare(p, "grad_y", m->dy);
    compare(p, "grad_fn", m->dfn);
    compare(p, "grad_base", m->dbase);
    compare(p, "grad_scale", m->dscale);
    connection.dx = m->g; /* in place */
    checked(p->kernels->connection_gradient(NULL, &connection), NULL);
    compare(p, "grad_x", m->g);
}

static bool check_table(const mhp_safetensors *file, const char *path, const mhp_kernels *kernels)
{
    double limit = kernels->dtype == MHP_DTYPE_F64 ? 1e-9 : 1e-4;
    piece p = {
        .file = file, .kernels = kernels,
        .kind = strcmp(golden_text(file, "kind"), "hc") == 0 ? MHP_CONNECTION_HC : MHP_CONNECTION_MHC,
        .tokens = (int)golden_number(file, "T"), .streams = (int)golden_number(file, "n"),
        .hidden = (int)golden_number(file, "C"),
        .iterations = (int)golden_number(file, "sinkhorn_iters"),
        .hc_epsilon = golden_number(file, "hc_eps"), .norm_epsilon = golden_number(file, "norm_eps"),
        .worst_name = "none",
    };
    piece_memory memory = allocate(&p);
    bool good;

    run_forward(&p, &memory);
    run_gradient(&p, &memory);
    release(&memory);
    good = p.worst <= limit;
    printf("%-4s %-28s %-24s largest error %.2e (%s), limit %.0e\n", good ? "ok" : "FAIL",
           golden_name(path), kernels->name, p.worst, p.worst_name, limit);
    return good;
}

static bool check_file(const char *path)
{
    static const mhp_dtype dtypes[] = {MHP_DTYPE_F64, MHP_DTYPE_F32};
    mhp_safetensors *file = NULL;
    bool good = true;

    checked(mhp_safetensors_open(path, &file), NULL);
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++) {
        const mhp_kernels *kernels;

        for (int i = 0; (kernels = mhp_cpu_kernels(dtypes[d], i)) != NULL; i++) {
            good = check_table(file, path, kernels) && good;
        }
    }
    mhp_safetensors_close(file);
    return good;
}

int main(int argc, char **argv)
{
    static golden_files files;
    bool good = true;

    if (argc != 2) {
        fprintf(stderr, "usage: golden_pieces DIR\n");
        return 2;
    }
    if (!golden_list(argv[1], "piece_", &files)) {
        return EXIT_FAILURE;
    }
    for (int i = 0; i < files.count; i++) {
        good = check_file(files.paths[i]) && good;
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
