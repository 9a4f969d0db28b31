#include "runtime/data/sampler.h"

#include <assert.h>
#include <math.h>

#include "core/memory.h"
#include "core/random.h"
#include "runtime/data/sampler_source.h"

enum {
    BLEND_ROUND_MAX = 1 << 16, /* slots: shares are exact to 1 in that many */
    SEQUENCE_LENGTH_MAX = 1 << 20,
};

#define WEIGHT_MAX      1e9
#define SHARE_TOLERANCE 1e-9 /* of a slot: what rounding leaves of weights such as 0.1 and 0.9 */

#define HELD_OUT_SEED   UINT64_C(0)
#define HELD_OUT_STREAM UINT64_C(0x68656c646f757400) /* "heldout" */
#define EPOCH_STREAM    UINT64_C(0x65706f6368000000) /* "epoch", plus the number of the source */

/* Samples are dealt in rounds of round_slots; every round deals the same slots in the same order,
 * so that which source a sample comes from, and how many came from it before, are one lookup. */
typedef struct blend_slot {
    uint32_t source;
    uint32_t turn; /* how many slots of this source come before it in the round */
} blend_slot;

struct mhp_dataset {
    mhp_data_rules rules;
    size_t source_count;
    mhp_data_source *sources;
    uint64_t held_out_windows;
    uint64_t round_slots;
    blend_slot *slots;   /* [round_slots] */
    uint64_t *turns;     /* [source_count] slots of each source in a round */
};

/* ---- blending ---- */

static double weight_of(const mhp_data_params *params, size_t source)
{
    return params->weights.count > 0 ? params->weights.items[source] : 1.0;
}

/* Deals `round` slots by the weights; whether the shares are whole numbers. Rounding the sums of
 * weights, not the weights, makes the turns add up to the round. */
static bool deal_turns(const mhp_data_params *params, double weight_sum, uint64_t round,
                       uint64_t *turns)
{
    double sum = 0, before = 0;
    bool whole = true;

    for (size_t i = 0; i < params->path.count; i++) {
        double share = weight_of(params, i) / weight_sum * (double)round;
        double end;

        sum += weight_of(params, i);
        end = rint(sum / weight_sum * (double)round);
        turns[i] = (uint64_t)(end - before);
        whole = whole && fabs(share - (end - before)) <= SHARE_TOLERANCE;
        before = end;
    }
    return whole;
}

/* The shortest round that gives the weights exactly, or else the longest one that is allowed. */
static mhp_status choose_round(mhp_dataset *dataset, const mhp_data_params *params)
{
    double sum = 0;
    uint64_t round = params->path.count;

    for (size_t i = 0; i < params->path.count; i++) {
        sum += weight_of(params, i);
    }
    while (!deal_turns(params, sum, round, dataset->turns) && round < BLEND_ROUND_MAX) {
        round++;
    }
    for (size_t i = 0; i < params->path.count; i++) {
        if (dataset->turns[i] == 0) {
            return mhp_error_set(MHP_ERR_CONFIG,
                                 "data.weights: %g for %s is %g of their sum: expected at least 1 "
                                 "in %d",
                                 weight_of(params, i), params->path.items[i],
                                 weight_of(params, i) / sum, BLEND_ROUND_MAX);
        }
    }
    dataset->round_slots = round;
    return MHP_OK;
}

/* Turn k of a source with n turns in a round of r slots lies in the slots floor(k r / n) ..
 * ceil((k + 1) r / n) - 1; of the turns that may come, the one that must come first does. Then every
 * source has had, before each slot, its exact share rounded down or up (Baruah, Cohen, Plaxton,
 * Varvel, "Proportionate progress: a notion of fairness in resource allocation", 1996). */
static mhp_status fill_slots(mhp_dataset *dataset)
{
    mhp_status status = MHP_OK;
    uint64_t *taken = NULL;
    uint64_t round = dataset->round_slots;

    MHP_TRY(out, mhp_calloc(&taken, dataset->source_count, sizeof *taken));
    MHP_TRY(out, mhp_calloc(&dataset->slots, round, sizeof *dataset->slots));
    for (uint64_t slot = 0; slot < round; slot++) {
        uint64_t first_deadline = UINT64_MAX;
        size_t next = 0;

        for (size_t i = 0; i < dataset->source_count; i++) {
            uint64_t turns = dataset->turns[i];
            uint64_t deadline = ((taken[i] + 1) * round + turns - 1) / turns;

            if (taken[i] * round / turns <= slot && deadline < first_deadline) {
                first_deadline = deadline;
                next = i;
            }
        }
        dataset->slots[slot] = (blend_slot){(uint32_t)next, (uint32_t)taken[next]++};
    }
out:
    mhp_free(taken);
    return status;
}

/* ---- opening ---- */

static mhp_status check_weights(const mhp_data_params *params)
{
    if (params->weights.count > 0 && params->weights.count != params->path.count) {
        return mhp_error_set(MHP_ERR_CONFIG,
                             "data.weights has %zu items: expected %zu, one for each data.path, or "
                             "none",
                             params->weights.count, params->path.count);
    }
    for (size_t i = 0; i < params->weights.count; i++) {
        double weight = params->weights.items[i];

        if (!(weight > 0 && weight <= WEIGHT_MAX)) {
            return mhp_error_set(MHP_ERR_CONFIG,
                                 "data.weights: %g for %s: expected more than 0 and at most %g",
                                 weight, params->path.items[i], WEIGHT_MAX);
        }
    }
    return MHP_OK;
}

static mhp_status check_params(const mhp_data_params *params, int64_t sequence_length,
                               int64_t vocabulary_size)
{
    if (params->path.count < 1 || params->path.count > MHP_DATA_SOURCES_MAX) {
        return mhp_error_set(MHP_ERR_CONFIG,
                             "data.path has %zu items: expected 1 .. %d, prefixes of .bin/.idx "
                             "(mhcpipe data tokenize, Megatron) or .bin files of llm.c",
                             params->path.count, MHP_DATA_SOURCES_MAX);
    }
    if (!(params->split.held_out >= 0 && params->split.held_out < 1)) {
        return mhp_error_set(MHP_ERR_CONFIG,
                             "data.split.held_out is %g: expected at least 0 and less than 1",
                             params->split.held_out);
    }
    if (sequence_length < 1 || sequence_length > SEQUENCE_LENGTH_MAX) {
        return mhp_error_set(MHP_ERR_CONFIG, "sequence length %lld: expected 1 .. %d",
                             (long long)sequence_length, SEQUENCE_LENGTH_MAX);
    }
    if (vocabulary_size < 1 || vocabulary_size > INT32_MAX) {
        return mhp_error_set(MHP_ERR_CONFIG, "vocabulary of %lld tokens: expected 1 .. %d",
                             (long long)vocabulary_size, INT32_MAX);
    }
    if (params->end_of_document < -1 || params->end_of_document >= vocabulary_size) {
        return mhp_error_set(MHP_ERR_CONFIG,
                             "data.end_of_document is %lld: expected -1, or a token id 0 .. %lld",
                             (long long)params->end_of_document, (long long)vocabulary_size - 1);
    }
    return check_weights(params);
}

static mhp_status open_sources(mhp_dataset *dataset, const mhp_data_params *params)
{
    MHP_RETURN_IF_ERROR(
        mhp_calloc(&dataset->sources, params->path.count, sizeof *dataset->sources));
    for (size_t i = 0; i < params->path.count; i++) {
        mhp_data_source *source = &dataset->sources[i];

        dataset->source_count = i + 1;
        MHP_RETURN_IF_ERROR(
            mhp_data_source_open(source, params->path.items[i], i, &dataset->rules));
        dataset->held_out_windows += source->parts[MHP_SPLIT_HELD_OUT].windows;
    }
    return MHP_OK;
}

mhp_status mhp_dataset_open(const mhp_data_params *params, int64_t sequence_length, uint64_t seed,
                            int64_t vocabulary_size, mhp_dataset **dataset_out)
{
    mhp_status status = MHP_OK;
    mhp_dataset *dataset = NULL;

    MHP_TRY(out, check_params(params, sequence_length, vocabulary_size));
    MHP_TRY(out, mhp_calloc(&dataset, 1, sizeof *dataset));
    dataset->rules = (mhp_data_rules){.sequence_length = sequence_length,
                                      .vocabulary_size = vocabulary_size,
                                      .end_of_document = params->end_of_document,
                                      .cross_documents = params->cross_documents,
                                      .held_out = params->split.held_out,
                                      .seed = seed};
    MHP_TRY(out, mhp_calloc(&dataset->turns, params->path.count, sizeof *dataset->turns));
    MHP_TRY(out, choose_round(dataset, params));
    MHP_TRY(out, open_sources(dataset, params));
    MHP_TRY(out, fill_slots(dataset));
    *dataset_out = dataset;
    dataset = NULL;
out:
    mhp_dataset_close(dataset);
    return status;
}

void mhp_dataset_close(mhp_dataset *dataset)
{
    if (!dataset) {
        return;
    }
    for (size_t i = 0; i < dataset->source_count; i++) {
        mhp_data_source_close(&dataset->sources[i]);
    }
    mhp_free(dataset->sources);
    mhp_free(dataset->slots);
    mhp_free(dataset->turns);
    mhp_free(dataset);
}

/* ---- samples ---- */

static size_t locate_training(const mhp_dataset *dataset, uint64_t sample, uint64_t *window_out)
{
    blend_slot slot = dataset->slots[sample % dataset->round_slots];
    uint64_t round = sample / dataset->round_slots;
    uint64_t of_source = round * dataset->turns[slot.source] + slot.turn;
    uint64_t windows = dataset->sources[slot.source].parts[MHP_SPLIT_TRAIN].windows;
    uint64_t seed = dataset->rules.seed;
    uint64_t stream = mhp_random_u64(seed, EPOCH_STREAM + slot.source, of_source / windows);

    *window_out = mhp_random_permute(seed, stream, of_source % windows, windows);
    return slot.source;
}

static size_t locate_held_out(const mhp_dataset *dataset, uint64_t sample, uint64_t *window_out)
{
    size_t source = 0;
    uint64_t window =
        mhp_random_permute(HELD_OUT_SEED, HELD_OUT_STREAM, sample, dataset->held_out_windows);

    while (window >= dataset->sources[source].parts[MHP_SPLIT_HELD_OUT].windows) {
        window -= dataset->sources[source].parts[MHP_SPLIT_HELD_OUT].windows;
        source++;
    }
    *window_out = window;
    return source;
}

mhp_status mhp_dataset_sample(const mhp_dataset *dataset, mhp_data_split split, uint64_t sample,
                              int32_t *tokens, int32_t *targets, int32_t *document_start)
{
    uint64_t window = 0;
    size_t source;

    assert(split == MHP_SPLIT_TRAIN || sample < dataset->held_out_windows);
    source = split == MHP_SPLIT_TRAIN ? locate_training(dataset, sample, &window)
                                      : locate_held_out(dataset, sample, &window);
    return mhp_data_source_window(&dataset->sources[source], &dataset->rules, split, window, tokens,
                                  targets, document_start);
}

uint64_t mhp_dataset_held_out_count(const mhp_dataset *dataset)
{
    return dataset->held_out_windows;
}

uint64_t mhp_dataset_documents(const mhp_dataset *dataset, mhp_data_split split)
{
    uint64_t documents = 0;

    for (size_t i = 0; i < dataset->source_count; i++) {
        documents += dataset->sources[i].parts[split].documents;
    }
    return documents;
}

uint64_t mhp_dataset_tokens(const mhp_dataset *dataset, mhp_data_split split)
{
    uint64_t tokens = 0;

    for (size_t i = 0; i < dataset->source_count; i++) {
        tokens += dataset->sources[i].parts[split].tokens;
    }
    return tokens;
}

uint64_t mhp_dataset_epoch(const mhp_dataset *dataset, size_t source)
{
    assert(source < dataset->source_count);
    return dataset->sources[source].parts[MHP_SPLIT_TRAIN].windows;
}
