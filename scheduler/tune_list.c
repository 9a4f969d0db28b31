/* List scheduling with look-ahead: the rank that can go on soonest takes the most urgent of what it could begin now or,
 * within its patience, a little later; while it waits it runs a weight gradient if one fits. A grid of rules is tried
 * on one placement. */
#include <float.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "scheduler/tune_internal.h"

/* Which of the ready micro-batches of one pass comes first. */
typedef enum list_order {
    ORDER_ARRIVAL, /* the one that came first */
    ORDER_DEEP,    /* the one that is nearest to the end of its way */
    ORDER_COUNT,
} list_order;

typedef struct list_rules {
    bool forward_first; /* else input gradients */
    bool pairs;         /* run F beside a backward where both are ready */
    list_order order;
    double patience_us;
    int slack; /* activations above the start's; INT_MAX: no limit */
} list_rules;

/* What a rank could run: cells with the time from which they may. */
typedef struct ready_cell {
    int stage, microbatch;
    double ready_us;
    int sequence; /* of coming */
} ready_cell;

typedef struct ready_pool {
    ready_cell *items;
    int count, capacity;
} ready_pool;

enum { POOL_FORWARD, POOL_GRADIENT, POOL_WEIGHT, POOLS };

typedef struct list_rank {
    ready_pool pools[POOLS];
    double free_us;
    int activations, cap;
    int64_t bytes;
} list_rank;

typedef struct list_run {
    const tune *t;
    const tune_point *point;
    const mhp_plan *plan; /* the start: its placement */
    const list_rules *rules;
    const unsigned char *rebuilt; /* [stage] */
    const mhp_link_time *links;
    mhp_plan *order; /* what is made */
    list_rank *ranks;
    double *link_free_us;   /* [from][to] */
    double *forward_end_us; /* [cell] */
    int sequence;
    bool relaxed; /* a cap was passed because nothing else could run */
} list_run;

/* ---- pools ---- */

static mhp_status add_ready(list_run *run, int rank, int pool_index, int stage, int microbatch, double ready_us)
{
    ready_pool *pool = &run->ranks[rank].pools[pool_index];

    if (pool->count == pool->capacity) {
        pool->capacity = pool->capacity ? 2 * pool->capacity : 16;
        MHP_RETURN_IF_ERROR(mhp_realloc(&pool->items, (size_t)pool->capacity, sizeof *pool->items));
    }
    pool->items[pool->count++] = (ready_cell){stage, microbatch, ready_us, run->sequence++};
    return MHP_OK;
}

static ready_cell take(ready_pool *pool, int i)
{
    ready_cell cell = pool->items[i];

    pool->items[i] = pool->items[--pool->count];
    return cell;
}

static bool comes_before(const list_run *run, int pool, const ready_cell *a, const ready_cell *b)
{
    if (run->rules->order == ORDER_DEEP && pool != POOL_WEIGHT && a->stage != b->stage) {
        return pool == POOL_FORWARD ? a->stage > b->stage : a->stage < b->stage;
    }
    if (a->ready_us != b->ready_us) {
        return a->ready_us < b->ready_us;
    }
    return a->sequence < b->sequence;
}

/* The first by the rules among what may begin by `limit_us`; -1 if nothing. */
static int first_ready(const list_run *run, const list_rank *rank, int pool_index, double limit_us)
{
    const ready_pool *pool = &rank->pools[pool_index];
    int best = -1;

    for (int i = 0; i < pool->count; i++) {
        if (pool->items[i].ready_us <= limit_us &&
            (best < 0 || comes_before(run, pool_index, &pool->items[i], &pool->items[best]))) {
            best = i;
        }
    }
    return best;
}

static double soonest_us(const ready_pool *pool)
{
    double soonest = DBL_MAX;

    for (int i = 0; i < pool->count; i++) {
        soonest = fmin(soonest, pool->items[i].ready_us);
    }
    return soonest;
}

/* ---- memory ---- */

/* Whether one more activation is within the rank's cap and bytes. */
static bool may_forward(const list_run *run, const list_rank *rank)
{
    int64_t limit = run->t->params->memory_bytes, most = 0;

    for (int i = 0; limit > 0 && i < rank->pools[POOL_FORWARD].count; i++) {
        int64_t bytes = mhp_costs_stage(&run->point->costs, rank->pools[POOL_FORWARD].items[i].stage)->bytes.activation;

        most = bytes > most ? bytes : most;
    }
    return rank->activations < rank->cap && (limit == 0 || rank->bytes + most + run->point->slots_bytes <= limit);
}

static void keep(list_run *run, list_rank *rank, int stage, int activations, int held)
{
    const mhp_stage_bytes *bytes = &mhp_costs_stage(&run->point->costs, stage)->bytes;
    bool rebuilt = run->rebuilt[stage]; /* thrown away at once, up to what it keeps */

    rank->activations += rebuilt ? 0 : activations;
    rank->bytes += activations * (rebuilt ? bytes->rebuild_keeps : bytes->activation) + held * bytes->held_weight_gradient;
}

/* ---- running ---- */

/* What the end of a pass makes ready: the neighbour's pass, by a message if it lives elsewhere. */
static mhp_status pass_on(list_run *run, int rank, int pool, int target, int microbatch, double end_us)
{
    int owner;

    if (target < 0 || target >= run->plan->stage_count) {
        return MHP_OK;
    }
    owner = mhp_plan_owner(run->plan, target, microbatch);
    if (owner != rank) {
        size_t link = (size_t)rank * (size_t)run->plan->rank_count + (size_t)owner;

        run->link_free_us[link] = fmax(run->link_free_us[link], end_us) + run->links[link].busy_us;
        end_us = run->link_free_us[link] + run->links[link].latency_us;
    }
    return add_ready(run, owner, pool, target, microbatch, end_us);
}

static mhp_status end_forward(list_run *run, int rank, const ready_cell *cell, double end_us)
{
    keep(run, &run->ranks[rank], cell->stage, 1, 0);
    if (cell->stage + 1 == run->plan->stage_count) {
        return add_ready(run, rank, POOL_GRADIENT, cell->stage, cell->microbatch, end_us);
    }
    return pass_on(run, rank, POOL_FORWARD, cell->stage + 1, cell->microbatch, end_us);
}

static mhp_status end_gradient(list_run *run, int rank, const ready_cell *cell, double end_us, bool full)
{
    keep(run, &run->ranks[rank], cell->stage, -1, full ? 0 : 1);
    if (!full) {
        MHP_RETURN_IF_ERROR(add_ready(run, rank, POOL_WEIGHT, cell->stage, cell->microbatch, end_us));
    }
    return pass_on(run, rank, POOL_GRADIENT, cell->stage - 1, cell->microbatch, end_us);
}

static mhp_status emit(list_run *run, int rank, mhp_action_kind kind, const ready_cell *cell)
{
    return mhp_plan_append(run->order, rank, (mhp_action){kind, cell->stage, cell->microbatch, -1, -1});
}

static mhp_status run_forward(list_run *run, int rank, int i)
{
    list_rank *at = &run->ranks[rank];
    ready_cell cell = take(&at->pools[POOL_FORWARD], i);

    at->free_us = fmax(at->free_us, cell.ready_us) + mhp_costs_stage(&run->point->costs, cell.stage)->forward_us;
    MHP_RETURN_IF_ERROR(emit(run, rank, MHP_ACTION_FORWARD, &cell));
    return end_forward(run, rank, &cell, at->free_us);
}

static mhp_status rebuild(list_run *run, int rank, const ready_cell *cell)
{
    if (!run->rebuilt[cell->stage]) {
        return MHP_OK;
    }
    run->ranks[rank].free_us += mhp_stage_rebuild_us(mhp_costs_stage(&run->point->costs, cell->stage));
    return emit(run, rank, MHP_ACTION_REBUILD, cell);
}

static mhp_status run_gradient(list_run *run, int rank, int i)
{
    list_rank *at = &run->ranks[rank];
    ready_cell cell = take(&at->pools[POOL_GRADIENT], i);

    MHP_RETURN_IF_ERROR(rebuild(run, rank, &cell));
    at->free_us = fmax(at->free_us, cell.ready_us) + mhp_costs_stage(&run->point->costs, cell.stage)->input_gradient_us;
    MHP_RETURN_IF_ERROR(emit(run, rank, MHP_ACTION_INPUT_GRADIENT, &cell));
    return end_gradient(run, rank, &cell, at->free_us, false);
}

static mhp_status run_weight(list_run *run, int rank)
{
    list_rank *at = &run->ranks[rank];
    ready_cell cell = take(&at->pools[POOL_WEIGHT], first_ready(run, at, POOL_WEIGHT, DBL_MAX));

    at->free_us =
        fmax(at->free_us, cell.ready_us) + mhp_costs_stage(&run->point->costs, cell.stage)->weight_gradient_us;
    keep(run, at, cell.stage, 0, -1);
    return emit(run, rank, MHP_ACTION_WEIGHT_GRADIENT, &cell);
}

static mhp_status run_pair(list_run *run, int rank, int forward_index, int gradient_index)
{
    list_rank *at = &run->ranks[rank];
    ready_cell forward = take(&at->pools[POOL_FORWARD], forward_index);
    ready_cell gradient = take(&at->pools[POOL_GRADIENT], gradient_index);
    mhp_action pair = {MHP_ACTION_OVERLAP_F_B, forward.stage, forward.microbatch, gradient.stage, gradient.microbatch};

    MHP_RETURN_IF_ERROR(rebuild(run, rank, &gradient));
    at->free_us = fmax(at->free_us, fmax(forward.ready_us, gradient.ready_us)) +
                  mhp_pair_us(mhp_costs_stage(&run->point->costs, forward.stage),
                              mhp_costs_stage(&run->point->costs, gradient.stage));
    MHP_RETURN_IF_ERROR(mhp_plan_append(run->order, rank, pair));
    MHP_RETURN_IF_ERROR(end_forward(run, rank, &forward, at->free_us));
    return end_gradient(run, rank, &gradient, at->free_us, true);
}

/* ---- decisions ---- */

/* When the rank could begin something; DBL_MAX if it has nothing that it may run. */
static double next_start_us(const list_run *run, const list_rank *rank)
{
    double soonest = fmin(soonest_us(&rank->pools[POOL_GRADIENT]), soonest_us(&rank->pools[POOL_WEIGHT]));

    if (may_forward(run, rank) || run->relaxed) {
        soonest = fmin(soonest, soonest_us(&rank->pools[POOL_FORWARD]));
    }
    return soonest == DBL_MAX ? DBL_MAX : fmax(soonest, rank->free_us);
}

static int next_rank(const list_run *run, double *start_us_out)
{
    int best = -1;

    *start_us_out = DBL_MAX;
    for (int r = 0; r < run->plan->rank_count; r++) {
        double start_us = next_start_us(run, &run->ranks[r]);

        if (start_us < *start_us_out) {
            *start_us_out = start_us;
            best = r;
        }
    }
    return best;
}

/* Whether the oldest waiting weight gradient would be done by then. */
static bool weight_fits(const list_run *run, const list_rank *rank, double until_us)
{
    int i = first_ready(run, rank, POOL_WEIGHT, DBL_MAX);
    const ready_cell *cell = i < 0 ? NULL : &rank->pools[POOL_WEIGHT].items[i];

    return cell &&
           fmax(rank->free_us, cell->ready_us) + mhp_costs_stage(&run->point->costs, cell->stage)->weight_gradient_us <=
               until_us;
}

static mhp_status decide(list_run *run, int rank, double start_us)
{
    const list_rules *rules = run->rules;
    list_rank *at = &run->ranks[rank];
    double limit_us = start_us + rules->patience_us;
    int forward = may_forward(run, at) || run->relaxed ? first_ready(run, at, POOL_FORWARD, limit_us) : -1;
    int gradient = first_ready(run, at, POOL_GRADIENT, limit_us);
    bool takes_forward = forward >= 0 && (gradient < 0 || rules->forward_first);
    double begin_us;

    if (forward < 0 && gradient < 0) {
        return run_weight(run, rank);
    }
    begin_us =
        (takes_forward ? at->pools[POOL_FORWARD].items[forward] : at->pools[POOL_GRADIENT].items[gradient]).ready_us;
    if (begin_us > start_us && weight_fits(run, at, begin_us)) {
        return run_weight(run, rank);
    }
    run->relaxed = false;
    if (forward >= 0 && gradient >= 0 && rules->pairs) {
        return run_pair(run, rank, forward, gradient);
    }
    return takes_forward ? run_forward(run, rank, forward) : run_gradient(run, rank, gradient);
}

static mhp_status start_run(list_run *run)
{
    const mhp_plan *plan = run->plan;
    size_t ranks = (size_t)plan->rank_count;

    MHP_RETURN_IF_ERROR(mhp_plan_create(plan->rank_count, plan->stage_count, plan->microbatch_count, &run->order));
    memcpy(run->order->owner, plan->owner,
           (size_t)plan->stage_count * (size_t)plan->microbatch_count * sizeof *plan->owner);
    memcpy(run->order->name, plan->name, sizeof plan->name);
    MHP_RETURN_IF_ERROR(mhp_calloc(&run->link_free_us, ranks * ranks, sizeof *run->link_free_us));
    for (int m = 0; m < plan->microbatch_count; m++) {
        MHP_RETURN_IF_ERROR(add_ready(run, mhp_plan_owner(plan, 0, m), POOL_FORWARD, 0, m, 0));
    }
    return MHP_OK;
}

/* One run over all micro-batches; order_out is NULL if it came to nothing within the memory. */
static mhp_status make_order(list_run *run, mhp_plan **order_out)
{
    mhp_status status = MHP_OK;
    double start_us = 0;

    *order_out = NULL;
    MHP_TRY(out, start_run(run));
    for (;;) {
        int rank = next_rank(run, &start_us);

        if (rank < 0 && !run->relaxed) {
            run->relaxed = true; /* only forwards beyond a cap are left: one of them has to go */
            rank = next_rank(run, &start_us);
        }
        if (rank < 0) {
            break;
        }
        MHP_TRY(out, decide(run, rank, start_us));
    }
    *order_out = run->order;
    run->order = NULL;
out:
    mhp_plan_destroy(run->order);
    run->order = NULL;
    mhp_free(run->link_free_us);
    run->link_free_us = NULL;
    return status;
}

/* ---- the grid ---- */

typedef struct grid {
    const tune *t;
    tune_point *point;
    tune_point best; /* by the quick simulation */
    double best_us;
    mhp_simulation start;
    unsigned char *rebuilt;
    mhp_link_time *links;
} grid;

static mhp_status prepare(grid *g)
{
    const mhp_plan *plan = g->point->order;
    bool fits;

    MHP_RETURN_IF_ERROR(mhp_tune_simulate(g->t, g->point, &g->start, &fits));
    g->best_us = g->start.makespan_us;
    MHP_RETURN_IF_ERROR(mhp_calloc(&g->rebuilt, (size_t)plan->stage_count, sizeof *g->rebuilt));
    for (int r = 0; r < plan->rank_count; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            const mhp_action *action = &plan->ranks[r].actions.items[i];

            g->rebuilt[action->stage] = g->rebuilt[action->stage] || action->kind == MHP_ACTION_REBUILD;
        }
    }
    return mhp_costs_link_times(&g->point->costs, plan->rank_count, &g->links);
}

static mhp_status create_ranks(const grid *g, const list_rules *rules, list_rank **ranks_out)
{
    int rank_count = g->point->order->rank_count;

    MHP_RETURN_IF_ERROR(mhp_calloc(ranks_out, (size_t)rank_count, sizeof **ranks_out));
    for (int r = 0; r < rank_count; r++) {
        (*ranks_out)[r].cap = rules->slack == INT_MAX ? INT_MAX : g->start.ranks[r].activations_peak + rules->slack;
        (*ranks_out)[r].bytes = g->start.ranks[r].bytes_base;
    }
    return MHP_OK;
}

static void destroy_ranks(list_rank *ranks, int rank_count)
{
    for (int r = 0; ranks && r < rank_count; r++) {
        for (int p = 0; p < POOLS; p++) {
            mhp_free(ranks[r].pools[p].items);
        }
    }
    mhp_free(ranks);
}

/* Takes the order. */
static mhp_status keep_if_better(grid *g, mhp_plan *order)
{
    tune_point tried = {0};
    mhp_simulation simulation = {0};
    bool fits = false;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_tune_point_copy(g->point, &tried));
    mhp_plan_destroy(tried.order);
    tried.order = order;
    order = NULL;
    MHP_TRY(out, mhp_tune_simulate(g->t, &tried, &simulation, &fits));
    if (fits && simulation.makespan_us < g->best_us * (1 - 1e-9)) {
        tune_point old = g->best;

        g->best_us = simulation.makespan_us;
        g->best = tried;
        tried = old;
    }
out:
    mhp_simulation_release(&simulation);
    mhp_tune_point_destroy(&tried);
    mhp_plan_destroy(order);
    return status;
}

static mhp_status try_rules(grid *g, const list_rules *rules)
{
    mhp_status status = MHP_OK;
    mhp_plan *order = NULL;
    list_run run = {.t = g->t,
                    .point = g->point,
                    .plan = g->point->order,
                    .rules = rules,
                    .rebuilt = g->rebuilt,
                    .links = g->links};

    MHP_TRY(out, create_ranks(g, rules, &run.ranks));
    MHP_TRY(out, make_order(&run, &order));
    MHP_TRY(out, keep_if_better(g, order));
out:
    destroy_ranks(run.ranks, g->point->order->rank_count);
    return status;
}

static bool pairs_save_time(const tune_point *point)
{
    for (int s = 0; s < point->order->stage_count; s++) {
        if (mhp_pair_share(mhp_costs_stage(&point->costs, s)) < 1) {
            return true;
        }
    }
    return false;
}

static mhp_status try_grid(grid *g)
{
    static const double patience[] = {0, 0.3, 1}; /* of a typical pass */
    static const int slack[] = {0, 1, 3, INT_MAX};
    double unit_us = g->start.ranks[0].busy_us / (3.0 * g->point->order->microbatch_count);
    int pair_choices = pairs_save_time(g->point) ? 2 : 1;

    for (size_t p = 0; p < sizeof patience / sizeof *patience; p++) {
        for (size_t c = 0; c < sizeof slack / sizeof *slack; c++) {
            for (int i = 0; i < 2 * ORDER_COUNT * pair_choices; i++) {
                list_rules rules = {.forward_first = i % 2,
                                    .order = (list_order)(i / 2 % ORDER_COUNT),
                                    .pairs = i / 2 / ORDER_COUNT,
                                    .patience_us = patience[p] * unit_us,
                                    .slack = slack[c]};

                MHP_RETURN_IF_ERROR(try_rules(g, &rules));
            }
        }
    }
    return MHP_OK;
}

mhp_status mhp_tune_list(const tune *t, tune_point *point)
{
    mhp_status status = MHP_OK;
    grid g = {.t = t, .point = point};

    MHP_TRY(out, prepare(&g));
    MHP_TRY(out, try_grid(&g));
    if (g.best.order) {
        MHP_TRY(out, mhp_tune_measure(t, &g.best));
        if (g.best.row.fits && g.best.row.makespan_us < point->row.makespan_us) {
            tune_point old = *point;

            *point = g.best;
            g.best = old;
        }
    }
out:
    mhp_tune_point_destroy(&g.best);
    mhp_simulation_release(&g.start);
    mhp_free(g.rebuilt);
    mhp_free(g.links);
    return status;
}
