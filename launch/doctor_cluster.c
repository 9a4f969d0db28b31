#include "launch/doctor_cluster.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/group.h"
#include "core/file.h"
#include "core/memory.h"
#include "launch/line.h"
#include "launch/session.h"
#include "runtime/layout.h"
#include "scheduler/edges.h"

enum { GROUP_ID = MHP_STAGES_MAX + 1, HEX_SHOWN = 8, MARK_TEXT_MAX = 128 };

static const size_t program_bytes_max = (size_t)1 << 30;
static const double slow_factor = 2, clock_off_s = 0.1;

/* What each rank adds to its card. */
typedef struct rank_facts {
    char program[MHP_HASH_TEXT_MAX];
    char cpus[MHP_CPUS_TEXT_MAX];
    int64_t card;                   /* -1: none */
    int64_t started, far;
    double clock_s, clock_error_s;  /* ahead of rank 0's */
} rank_facts;

typedef enum edge_kind { EDGE_SAME_HOST, EDGE_BETWEEN_HOSTS, EDGE_KINDS } edge_kind;

typedef struct cluster {
    mhp_session session;
    int size;
    mhp_group *world;
    rank_facts *facts;              /* [size] */
    mhp_edge_list edges;
    mhp_line_report *lines;         /* [edges.count] */
    bool differs;
} cluster;

/* ---- facts ---- */

static mhp_status add_checksum(const char *path, mhp_hash *hash)
{
    char *data = NULL;
    size_t length = 0;
    mhp_hash own;

    MHP_RETURN_IF_ERROR(mhp_file_read_all(path, program_bytes_max, &data, &length));
    own = mhp_hash_bytes(data, length);
    hash->high ^= own.high;
    hash->low ^= own.low;
    mhp_free(data);
    return MHP_OK;
}

/* Of the program's file and, where it is one of its own, of its library's. */
static mhp_status checksum_program(char text[MHP_HASH_TEXT_MAX])
{
    mhp_hash hash = {0};
    Dl_info program, library;
    const void *symbols[2];
    int (*own)(const char *, const mhp_overrides *) = mhp_doctor_cluster;
    const char *(*theirs)(mhp_status) = mhp_status_text;

    memcpy(&symbols[0], &own, sizeof own);
    memcpy(&symbols[1], &theirs, sizeof theirs);
    MHP_RETURN_IF_ERROR(add_checksum("/proc/self/exe", &hash));
    if (dladdr(symbols[0], &program) && dladdr(symbols[1], &library) && program.dli_fbase != library.dli_fbase) {
        MHP_RETURN_IF_ERROR(add_checksum(library.dli_fname, &hash));
    }
    mhp_hash_print(hash, text);
    return MHP_OK;
}

static mhp_status state_facts(const cluster *x, rank_facts *own)
{
    const mhp_session *session = &x->session;

    own->card = session->config.parallel.device == MHP_DEVICE_CUDA ? session->seat.card : -1;
    own->started = mhp_launched_rank();
    own->far = session->seat.far;
    snprintf(own->cpus, sizeof own->cpus, "%s", session->seat.cpus);
    return checksum_program(own->program);
}

/* ---- measuring ---- */

static mhp_status list_edges(cluster *x, bool configured)
{
    mhp_status status = MHP_OK;
    const mhp_config *config = &x->session.config;
    mhp_layout layout = {0};

    if (configured) {
        MHP_TRY(out, mhp_layout_create(&config->model, &config->parallel, &config->schedule, &layout));
        MHP_TRY(out, mhp_edges_create(layout.plan, (int)config->parallel.data, &x->edges));
        if (x->size != layout.plan->rank_count * (int)config->parallel.data) {
            MHP_RAISE(out, MHP_ERR_CONFIG, "started with %d ranks: expected parallel.pipeline x parallel.data = %d x %lld", x->size,
                      layout.plan->rank_count, (long long)config->parallel.data);
        }
        goto out;
    }
    MHP_TRY(out, mhp_calloc(&x->edges.items, (size_t)x->size, sizeof *x->edges.items));
    for (int r = 0; r + 1 < x->size; r++) {         /* a plain pipeline */
        x->edges.items[x->edges.count++] = (mhp_edge){r, r + 1, 1, 0};
    }
out:
    mhp_layout_release(&layout);
    return status;
}

/* One after the other, so that no two share a wire. */
static mhp_status measure_one(cluster *x, int measuring, int peer, mhp_line_what what, mhp_line_report *report)
{
    int rank = mhp_comm_rank(x->session.comm);

    if (rank == measuring || rank == peer) {
        MHP_RETURN_IF_ERROR(mhp_line_measure(x->session.comm, measuring, peer, what, report));
    }
    return mhp_group_barrier(x->world);
}

/* Sums what one rank has and the others have as zeros. */
static mhp_status share_lines(cluster *x, mhp_line_report *lines, size_t count)
{
    mhp_status status = MHP_OK;
    mhp_event *done = NULL;

    MHP_TRY(out, mhp_event_create(x->session.device, &done));
    MHP_TRY(out, mhp_group_all_reduce(x->world, lines, (int64_t)(count * sizeof *lines / sizeof(double)), MHP_DTYPE_F64,
                                      MHP_REDUCE_SUM, NULL, done));
    MHP_TRY(out, mhp_event_synchronize(done, 0));
out:
    if (mhp_comm_may_release(x->session.comm, status)) {
        mhp_event_destroy(done);
    }
    return status;
}

static mhp_status measure_clocks(cluster *x)
{
    mhp_status status = MHP_OK;
    mhp_line_report *lines = NULL;

    MHP_TRY(out, mhp_calloc(&lines, (size_t)x->size, sizeof *lines));
    for (int r = 1; r < x->size; r++) {
        MHP_TRY(out, measure_one(x, 0, r, MHP_LINE_CLOCK, &lines[r]));
    }
    MHP_TRY(out, share_lines(x, lines, (size_t)x->size));
    for (int r = 0; r < x->size; r++) {
        x->facts[r].clock_s = lines[r].clock_s;
        x->facts[r].clock_error_s = lines[r].clock_error_s;
    }
out:
    if (mhp_comm_may_release(x->session.comm, status)) {
        mhp_free(lines);
    }
    return status;
}

static mhp_status measure_edges(cluster *x)
{
    MHP_RETURN_IF_ERROR(mhp_calloc(&x->lines, x->edges.count, sizeof *x->lines));
    for (size_t i = 0; i < x->edges.count; i++) {
        MHP_RETURN_IF_ERROR(measure_one(x, x->edges.items[i].a, x->edges.items[i].b, MHP_LINE_SPEED, &x->lines[i]));
    }
    for (size_t i = 0; i < x->edges.count; i++) {   /* the peer's is empty */
        if (mhp_comm_rank(x->session.comm) != x->edges.items[i].a) {
            x->lines[i] = (mhp_line_report){0};
        }
    }
    return x->edges.count > 0 ? share_lines(x, x->lines, x->edges.count) : MHP_OK;
}

static mhp_status examine(cluster *x, bool configured)
{
    mhp_status status = MHP_OK;
    int *members = NULL;
    rank_facts own = {.card = -1};

    x->size = mhp_comm_size(x->session.comm);
    MHP_TRY(out, mhp_calloc(&members, (size_t)x->size, sizeof *members));
    for (int r = 0; r < x->size; r++) {
        members[r] = r;
    }
    MHP_TRY(out, mhp_calloc(&x->facts, (size_t)x->size, sizeof *x->facts));
    MHP_TRY(out, mhp_comm_agree(x->session.comm, state_facts(x, &own), NULL));
    MHP_TRY(out, mhp_comm_share(x->session.comm, &own, sizeof own, x->facts));
    MHP_TRY(out, mhp_group_open(x->session.comm, "cluster", GROUP_ID, members, x->size, &x->world));
    MHP_TRY(out, measure_clocks(x));
    x->differs = mhp_rank_cards_check(x->session.ranks, x->size) != MHP_OK;
    if (!x->differs) {                              /* else ranks may not agree on the edges */
        MHP_TRY(out, mhp_comm_agree(x->session.comm, list_edges(x, configured), NULL));
        MHP_TRY(out, measure_edges(x));
    }
    for (int r = 1; r < x->size; r++) {
        x->differs = x->differs || strcmp(x->facts[r].program, x->facts[0].program) != 0;
    }
out:
    mhp_free(members);
    return status;
}

/* ---- report ---- */

static int host_width(const cluster *x)
{
    size_t width = strlen("host");

    for (int r = 0; r < x->size; r++) {
        size_t length = strlen(x->session.ranks[r].host);

        width = length > width ? length : width;
    }
    return (int)width;
}

static void print_ranks(const cluster *x)
{
    int width = host_width(x);

    printf("ranks\n  rank started %-*s %-8s %-*s %-13s %-12s card  clock, ms from rank 0's\n", width, "host", "version", HEX_SHOWN,
           "program", "configuration", "cores");
    for (int r = 0; r < x->size; r++) {
        const mhp_rank_card *card = &x->session.ranks[r];
        const rank_facts *facts = &x->facts[r];
        char number[24] = "-";

        if (facts->card >= 0) {
            snprintf(number, sizeof number, "%lld", (long long)facts->card);
        }
        printf("  %4d %7lld %-*s %-8s %.*s %-13.*s %-12s %-5s %+.3f +-%.3f%s%s\n", r, (long long)facts->started, width, card->host,
               card->version, HEX_SHOWN, facts->program, HEX_SHOWN, card->configuration[0] ? card->configuration : "-",
               facts->cpus[0] ? facts->cpus : "all", number, facts->clock_s * 1e3, facts->clock_error_s * 1e3,
               fabs(facts->clock_s) > clock_off_s + facts->clock_error_s ? "  OFF" : "",
               facts->far ? "  FAR: its cores are not beside its card" : "");
    }
}

static edge_kind kind_of(const cluster *x, const mhp_edge *edge)
{
    const mhp_rank_card *ranks = x->session.ranks;

    return strcmp(ranks[edge->a].host, ranks[edge->b].host) == 0 ? EDGE_SAME_HOST : EDGE_BETWEEN_HOSTS;
}

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

static double median(double *values, size_t count)
{
    if (count == 0) {
        return 0;
    }
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

typedef struct medians {
    double latency_s, speed;        /* of both directions */
} medians;

static mhp_status find_medians(const cluster *x, medians *of)
{
    mhp_status status = MHP_OK;
    double *latency = NULL, *speed = NULL;

    MHP_TRY(out, mhp_calloc(&latency, x->edges.count, sizeof *latency));
    MHP_TRY(out, mhp_calloc(&speed, 2 * x->edges.count, sizeof *speed));
    for (int kind = 0; kind < EDGE_KINDS; kind++) {
        size_t count = 0;

        for (size_t i = 0; i < x->edges.count; i++) {
            if ((int)kind_of(x, &x->edges.items[i]) == kind) {
                speed[2 * count] = x->lines[i].there;
                speed[2 * count + 1] = x->lines[i].back;
                latency[count++] = x->lines[i].latency_s;
            }
        }
        of[kind] = (medians){median(latency, count), median(speed, 2 * count)};
    }
out:
    mhp_free(speed);
    mhp_free(latency);
    return status;
}

/* What is slow about a line, as far as `usual` says; "" if nothing. */
static void mark(const mhp_line_report *line, const medians *usual, char text[MARK_TEXT_MAX])
{
    const struct {
        const char *name;
        double times;               /* worse than the median by */
    } parts[] = {{"latency", line->latency_s / usual->latency_s}, {"there", usual->speed / line->there}, {"back", usual->speed / line->back}};
    size_t length = 0;

    text[0] = '\0';
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].times > slow_factor) {
            length += (size_t)snprintf(text + length, MARK_TEXT_MAX - length, "%s%s %.1f times", length > 0 ? ", " : "  SLOW: ",
                                       parts[i].name, parts[i].times);
        }
    }
    if (length > 0) {
        snprintf(text + length, MARK_TEXT_MAX - length, " worse than the median");
    }
}

static mhp_status print_edges(const cluster *x)
{
    static const char *const kinds[] = {"same host", "between hosts"};
    int width = host_width(x);
    medians usual[EDGE_KINDS];

    MHP_RETURN_IF_ERROR(find_medians(x, usual));
    printf("\nlines that the plan uses\n  %-11s %-*s   %-*s %-13s %-19s latency, us  there, MB/s   back, MB/s\n", "ranks", width, "hosts",
           width, "", "kind", "carries");
    for (size_t i = 0; i < x->edges.count; i++) {
        const mhp_edge *edge = &x->edges.items[i];
        const mhp_line_report *line = &x->lines[i];
        char ranks[32], text[MARK_TEXT_MAX];

        snprintf(ranks, sizeof ranks, "%d - %d", edge->a, edge->b);
        mark(line, &usual[kind_of(x, edge)], text);
        printf("  %-11s %-*s - %-*s %-13s %-19s %11.1f  %11.1f  %11.1f%s\n", ranks, width, x->session.ranks[edge->a].host, width,
               x->session.ranks[edge->b].host, kinds[kind_of(x, edge)],
               edge->messages == 0 ? "gradients' sums" : edge->copies == 0 ? "messages" : "messages and sums",
               line->latency_s * 1e6, line->there * 1e-6, line->back * 1e-6, text);
    }
    if (x->edges.count == 0) {
        printf("  none\n");
    }
    return MHP_OK;
}

static void print_differences(const cluster *x)
{
    printf("\ndifferences\n");
    if (mhp_rank_cards_check(x->session.ranks, x->size) != MHP_OK) {
        printf("  %s\n", mhp_error_text());
    }
    for (int r = 1; r < x->size; r++) {
        if (strcmp(x->facts[r].program, x->facts[0].program) != 0) {
            printf("  the programs of rank 0 on %s and rank %d on %s differ (checksums %.*s and %.*s): expected the same build on every "
                   "host\n",
                   x->session.ranks[0].host, r, x->session.ranks[r].host, HEX_SHOWN, x->facts[0].program, HEX_SHOWN, x->facts[r].program);
            break;
        }
    }
    if (!x->differs) {
        printf("  none\n");
    }
}

static mhp_status print_report(const cluster *x)
{
    printf("mhcpipe %s on %d ranks\n\n", MHP_VERSION, x->size);
    print_ranks(x);
    if (x->lines) {
        MHP_RETURN_IF_ERROR(print_edges(x));
    } else {
        printf("\nlines that the plan uses\n  not measured: the ranks differ\n");
    }
    print_differences(x);
    return MHP_OK;
}

int mhp_doctor_cluster(const char *path, const mhp_overrides *overrides)
{
    cluster x = {0};
    mhp_status status;
    int exit_status;

    MHP_TRY(out, mhp_session_join(&x.session, path, overrides));
    MHP_TRY(out, examine(&x, path != NULL));
    MHP_TRY(out, mhp_comm_agree(x.session.comm, x.session.root ? print_report(&x) : MHP_OK, NULL));
out:
    if (x.world && mhp_group_may_release(x.world, status)) {
        mhp_group_close(x.world);
    }
    x.session.exit_status = x.differs ? MHP_EXIT_ERROR : 0;
    exit_status = mhp_session_close(&x.session, status);
    mhp_edges_release(&x.edges);
    mhp_free(x.lines);
    mhp_free(x.facts);
    return exit_status;
}
