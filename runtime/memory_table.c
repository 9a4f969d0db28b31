#include "runtime/memory_table.h"

#include <string.h>

#include "core/memory.h"
#include "scheduler/lower.h"

enum { SETTINGS_TEXT_MAX = 256 };

static double mib(size_t bytes)
{
    return (double)bytes / (1024.0 * 1024.0);
}

/* ---- table ---- */

static void print_rank(const mhp_memory_plan *plan, FILE *stream)
{
    fprintf(stream, "%4d %6g %11lld", plan->rank, plan->layers, (long long)plan->elements);
    for (int k = 0; k < MHP_MEMORY_KIND_COUNT; k++) {
        fprintf(stream, " %11.2f", mib(plan->fullest[k]));
    }
    fprintf(stream, " %8.2f %9.2f %9.2f\n", mib(plan->gaps), mib(plan->bytes), mib(plan->most[MHP_MEMORY_HELD]));
}

static void print_stages(const mhp_memory_plan *plan, FILE *stream)
{
    for (int i = 0; i < plan->stage_count; i++) {
        const mhp_stage_memory *memory = &plan->stages[i];
        const size_t *bytes = memory->sizes.bytes;
        size_t held = bytes[MHP_LIFE_PRODUCT_INPUT] + bytes[MHP_LIFE_REBUILT_INPUT] + bytes[MHP_LIFE_PRODUCT_GRADIENT];

        fprintf(stream, "%5d %4d %9d %9d %11.2f %9.2f %9.2f %9.2f\n", memory->stage, plan->rank, memory->in_flight, memory->block,
                mib(bytes[MHP_LIFE_ACTIVATION]), mib(held), mib(bytes[MHP_LIFE_BLOCK]), mib(memory->sizes.state_bytes));
    }
}

typedef void (*print_fn)(const mhp_memory_plan *plan, FILE *stream);

static mhp_status print_ranks(const mhp_memory_params *params, print_fn print, FILE *stream)
{
    for (int rank = 0; rank < params->layout->plan->rank_count; rank++) {
        mhp_memory_plan *plan = NULL;

        MHP_RETURN_IF_ERROR(mhp_memory_plan_create(params, rank, &plan));
        print(plan, stream);
        mhp_memory_plan_destroy(plan);
    }
    return MHP_OK;
}

mhp_status mhp_memory_print(const mhp_memory_params *params, FILE *stream)
{
    fprintf(stream, "memory of a rank at the fullest moment of a step, MiB\n%4s %6s %11s", "rank", "layers", "parameters");
    for (int k = 0; k < MHP_MEMORY_KIND_COUNT; k++) {
        fprintf(stream, " %11s", mhp_memory_kind_text((mhp_memory_kind)k));
    }
    fprintf(stream, " %8s %9s %9s\n", "gaps", "total", "held most");
    MHP_RETURN_IF_ERROR(print_ranks(params, print_rank, stream));
    fprintf(stream, "\na micro-batch on a stage, MiB\n%5s %4s %9s %9s %11s %9s %9s %9s\n", "stage", "rank", "in flight", "block",
            "activations", "held", "blocks", "message");
    return print_ranks(params, print_stages, stream);
}

/* ---- limit ---- */

/* What may be changed to save memory. */
typedef struct settings {
    int what, weight_gradients;
    int64_t block, micro_batch_size, pipeline;
} settings;

static settings settings_of(const mhp_memory_params *params)
{
    return (settings){params->schedule->recompute.what, params->schedule->weight_gradients, params->schedule->recompute.block,
                      params->train->micro_batch_size, params->parallel->pipeline};
}

/* The plan of the rank that needs most. */
static mhp_status fullest_rank(const mhp_memory_params *params, mhp_memory_plan **plan_out)
{
    mhp_memory_plan *fullest = NULL;

    for (int rank = 0; rank < params->layout->plan->rank_count; rank++) {
        mhp_memory_plan *plan = NULL;
        mhp_status status = mhp_memory_plan_create(params, rank, &plan);

        if (status < 0) {
            mhp_memory_plan_destroy(fullest);
            return status;
        }
        if (!fullest || plan->bytes > fullest->bytes) {
            mhp_memory_plan *other = fullest;

            fullest = plan;
            plan = other;
        }
        mhp_memory_plan_destroy(plan);
    }
    *plan_out = fullest;
    return MHP_OK;
}

/* Bytes of the fullest rank with other settings; 0 if they cannot be laid out. */
static size_t bytes_with(const mhp_memory_params *params, const settings *other)
{
    mhp_layout layout = {0};
    mhp_memory_plan *plan = NULL;
    mhp_parallel_params parallel = *params->parallel;
    mhp_schedule_params schedule = *params->schedule;
    mhp_train_params train = *params->train;
    mhp_memory_params changed = {&layout, params->model, &parallel, &schedule, &train};
    size_t bytes = 0;

    schedule.recompute = (mhp_recompute_params){other->what, other->block};
    schedule.weight_gradients = other->weight_gradients;
    train.micro_batch_size = other->micro_batch_size;
    parallel.pipeline = other->pipeline;
    if (mhp_layout_create(params->model, &parallel, &schedule, &layout) == MHP_OK && fullest_rank(&changed, &plan) == MHP_OK) {
        bytes = plan->bytes;
    }
    mhp_memory_plan_destroy(plan);
    mhp_layout_release(&layout);
    return bytes;
}

static void add_text(char text[SETTINGS_TEXT_MAX], const char *key, const char *value)
{
    size_t length = strlen(text);

    snprintf(text + length, SETTINGS_TEXT_MAX - length, "%s--set %s=%s", length > 0 ? " " : "", key, value);
}

static void describe(const settings *now, const settings *other, char text[SETTINGS_TEXT_MAX])
{
    static const char *const whats[] = {"none", "connections", "full"};
    char number[24];

    text[0] = '\0';
    if (other->what != now->what) {
        add_text(text, "schedule.recompute.what", whats[other->what]);
    }
    if (other->block != now->block) {
        add_text(text, "schedule.recompute.block", "auto");
    }
    if (other->weight_gradients != now->weight_gradients) {
        add_text(text, "schedule.weight_gradients", "shallow");
    }
    if (other->micro_batch_size != now->micro_batch_size) {
        snprintf(number, sizeof number, "%lld", (long long)other->micro_batch_size);
        add_text(text, "train.micro_batch_size", number);
    }
    if (other->pipeline != now->pipeline) {
        snprintf(number, sizeof number, "%lld", (long long)other->pipeline);
        add_text(text, "parallel.pipeline", number);
    }
}

/* The next thing to try, dearer than the last: what costs no time, then some, then smaller products, then more ranks. */
static bool try_next(const mhp_memory_params *params, const settings *now, int attempt, settings *other)
{
    static const struct { int what, weight_gradients; } cheap[] = {
        {MHP_RECOMPUTE_NONE, MHP_WEIGHTS_SHALLOW},        {MHP_RECOMPUTE_CONNECTIONS, MHP_WEIGHTS_DEEP},
        {MHP_RECOMPUTE_CONNECTIONS, MHP_WEIGHTS_SHALLOW}, {MHP_RECOMPUTE_FULL, MHP_WEIGHTS_DEEP},
        {MHP_RECOMPUTE_FULL, MHP_WEIGHTS_SHALLOW},
    };
    int count = (int)(sizeof cheap / sizeof *cheap);

    if (attempt < count) {
        *other = *now;
        other->what = cheap[attempt].what > now->what ? cheap[attempt].what : now->what;
        other->weight_gradients = cheap[attempt].weight_gradients > now->weight_gradients ? cheap[attempt].weight_gradients
                                                                                          : now->weight_gradients;
        other->block = attempt == 0 ? now->block : 0;
        return true;
    }
    if (other->micro_batch_size > 1) {
        other->micro_batch_size /= 2;
        return true;
    }
    other->pipeline *= 2;
    return other->pipeline <= params->model->num_hidden_layers && params->schedule->file[0] == '\0' &&
           params->schedule->layers_per_stage.count == 0;
}

static bool find_advice(const mhp_memory_params *params, char text[SETTINGS_TEXT_MAX], size_t *bytes_out)
{
    settings now = settings_of(params);
    settings other = now;

    for (int attempt = 0; try_next(params, &now, attempt, &other); attempt++) {
        *bytes_out = bytes_with(params, &other);
        if (*bytes_out > 0 && *bytes_out <= (size_t)params->parallel->memory_limit) {
            describe(&now, &other, text);
            return true;
        }
    }
    return false;
}

/* The three largest kinds, largest first. */
static void describe_largest(const mhp_memory_plan *plan, char *text, size_t size)
{
    bool taken[MHP_MEMORY_KIND_COUNT] = {false};
    size_t length = 0;

    text[0] = '\0';
    for (int i = 0; i < 3 && length < size; i++) {
        int largest = -1;

        for (int k = 0; k < MHP_MEMORY_KIND_COUNT; k++) {
            if (!taken[k] && (largest < 0 || plan->fullest[k] > plan->fullest[largest])) {
                largest = k;
            }
        }
        taken[largest] = true;
        length += (size_t)snprintf(text + length, size - length, "%s%s %.2f", i == 0 ? "" : ", ",
                                   mhp_memory_kind_text((mhp_memory_kind)largest), mib(plan->fullest[largest]));
    }
}

static mhp_status refuse(const mhp_memory_params *params, const mhp_memory_plan *plan)
{
    char largest[128], advice[SETTINGS_TEXT_MAX];
    size_t bytes = 0;
    double limit = mib((size_t)params->parallel->memory_limit);

    describe_largest(plan, largest, sizeof largest);
    if (find_advice(params, advice, &bytes)) {
        return mhp_error_set(MHP_ERR_LIMIT,
                             "rank %d needs %.2f MiB (%s): expected at most %.2f, parallel.memory_limit; %s would take %.2f", plan->rank,
                             mib(plan->bytes), largest, limit, advice, mib(bytes));
    }
    return mhp_error_set(MHP_ERR_LIMIT,
                         "rank %d needs %.2f MiB (%s): expected at most %.2f, parallel.memory_limit; neither recompute nor smaller "
                         "micro-batches nor more pipeline ranks would fit", plan->rank, mib(plan->bytes), largest, limit);
}

mhp_status mhp_memory_check(const mhp_memory_params *params)
{
    mhp_status status = MHP_OK;
    mhp_memory_plan *plan = NULL;

    if (params->parallel->memory_limit == 0) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(fullest_rank(params, &plan));
    if (plan->bytes > (size_t)params->parallel->memory_limit) {
        status = refuse(params, plan);
    }
    mhp_memory_plan_destroy(plan);
    return status;
}

mhp_status mhp_memory_check_device(const mhp_memory_plan *plan, mhp_device *device, size_t bytes, int ranks)
{
    char largest[128], sharing[96] = "";
    size_t left, total;

    MHP_RETURN_IF_ERROR(mhp_device_memory(device, &left, &total));
    if (bytes <= left) {
        return MHP_OK;
    }
    describe_largest(plan, largest, sizeof largest);
    if (ranks > 1) {
        snprintf(sharing, sizeof sharing, " for the %d ranks that share it, %.2f MiB for this one", ranks, mib(plan->bytes));
    }
    return mhp_error_set(MHP_ERR_NO_MEMORY,
                         "the run needs %.2f MiB on the card%s (%s) and %.2f of its %.2f MiB are free, the rest being in use by other "
                         "processes: expected schedule.recompute, a smaller train.micro_batch_size, more ranks on other cards, or a card "
                         "to itself; mhcpipe plan CONFIG --memory-table --memory-limit %zu says what fits",
                         mib(bytes), sharing, largest, mib(left), mib(total), left / (size_t)ranks);
}
