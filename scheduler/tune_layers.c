/* Halves of layers, which are sublayers, move from stages of the ranks that work most to those of the ranks that work
 * least, as long as that shortens the step. */
#include <float.h>
#include <string.h>

#include "core/memory.h"
#include "scheduler/tune_internal.h"

enum { ENDS_TRIED = 3 }; /* of the ranks with most work, and of those with least */

static const double MOVED = 0.5; /* layers at a time */

/* How much work each stage gives each of its ranks. */
typedef struct loads {
    const tune_point *point;
    double *rank_us; /* [rank] */
    int *count;      /* [rank][stage]: micro-batches */
} loads;

static mhp_status create_loads(const tune_point *point, loads *out)
{
    const mhp_plan *plan = point->order;
    size_t ranks = (size_t)plan->rank_count, stages = (size_t)plan->stage_count;

    *out = (loads){.point = point};
    MHP_RETURN_IF_ERROR(mhp_calloc(&out->rank_us, ranks, sizeof *out->rank_us));
    MHP_RETURN_IF_ERROR(mhp_calloc(&out->count, ranks * stages, sizeof *out->count));
    for (int s = 0; s < plan->stage_count; s++) {
        for (int m = 0; m < plan->microbatch_count; m++) {
            out->count[(size_t)mhp_plan_owner(plan, s, m) * stages + (size_t)s]++;
        }
    }
    return MHP_OK;
}

static void destroy_loads(loads *l)
{
    mhp_free(l->rank_us);
    mhp_free(l->count);
}

static void weigh(loads *l)
{
    const mhp_plan *plan = l->point->order;

    for (int r = 0; r < plan->rank_count; r++) {
        l->rank_us[r] = 0;
        for (int s = 0; s < plan->stage_count; s++) {
            l->rank_us[r] +=
                l->count[r * plan->stage_count + s] * mhp_stage_work_us(mhp_costs_stage(&l->point->costs, s));
        }
    }
}

/* The n-th rank by work: n = 0 has the most, or with `least` the least. Ties by number. */
static int nth_rank(const loads *l, int n, bool least)
{
    int rank_count = l->point->order->rank_count;

    for (int r = 0; r < rank_count; r++) {
        int before = 0;

        for (int other = 0; other < rank_count; other++) {
            bool more = least ? l->rank_us[other] < l->rank_us[r] : l->rank_us[other] > l->rank_us[r];

            before += more || (l->rank_us[other] == l->rank_us[r] && other < r);
        }
        if (before == n) {
            return r;
        }
    }
    return 0;
}

/* DBL_MAX if it does not fit. */
static mhp_status time_of(const tune *t, tune_point *point, double *makespan_us_out)
{
    mhp_simulation simulation = {0};
    bool fits = false;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_tune_cost(t, point));
    MHP_TRY(out, mhp_tune_simulate(t, point, &simulation, &fits));
    *makespan_us_out = fits ? simulation.makespan_us : DBL_MAX;
out:
    mhp_simulation_release(&simulation);
    return status;
}

typedef struct move {
    int from, to;
    double makespan_us;
} move;

/* Tries half a layer of each stage of rank `from` on each stage of rank `to`. */
static mhp_status try_moves(const tune *t, tune_point *point, const loads *l, int from, int to, move *best)
{
    int stages = point->order->stage_count;

    for (int a = 0; a < stages; a++) {
        for (int b = 0; b < stages; b++) {
            move tried = {.from = a, .to = b};

            if (a == b || point->layers[a] <= MOVED || l->count[from * stages + a] == 0 || l->count[to * stages + b] == 0) {
                continue;
            }
            point->layers[a] -= MOVED;
            point->layers[b] += MOVED;
            MHP_RETURN_IF_ERROR(time_of(t, point, &tried.makespan_us));
            point->layers[a] += MOVED;
            point->layers[b] -= MOVED;
            *best = tried.makespan_us < best->makespan_us ? tried : *best;
        }
    }
    return MHP_OK;
}

static mhp_status best_move(const tune *t, tune_point *point, loads *l, move *best)
{
    int rank_count = point->order->rank_count;

    weigh(l);
    for (int i = 0; i < ENDS_TRIED && i < rank_count; i++) {
        for (int j = 0; j < ENDS_TRIED && j < rank_count; j++) {
            int from = nth_rank(l, i, false), to = nth_rank(l, j, true);

            if (from != to) {
                MHP_RETURN_IF_ERROR(try_moves(t, point, l, from, to, best));
            }
        }
    }
    return MHP_OK;
}

mhp_status mhp_tune_layers(const tune *t, tune_point *point)
{
    mhp_status status = MHP_OK;
    loads l = {0};
    double makespan_us;

    MHP_TRY(out, create_loads(point, &l));
    MHP_TRY(out, time_of(t, point, &makespan_us));
    for (;;) {
        move best = {.makespan_us = DBL_MAX};

        MHP_TRY(out, best_move(t, point, &l, &best));
        if (best.makespan_us >= makespan_us * (1 - 1e-9)) {
            break;
        }
        point->layers[best.from] -= MOVED;
        point->layers[best.to] += MOVED;
        makespan_us = best.makespan_us;
        MHP_TRY(out, mhp_tune_cost(t, point));
    }
    MHP_TRY(out, mhp_tune_cost(t, point));
    MHP_TRY(out, mhp_tune_measure(t, point));
out:
    destroy_loads(&l);
    return status;
}
