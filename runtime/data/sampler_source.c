#include "runtime/data/sampler_source.h"

#include <assert.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"

/* The split draws from a seed of its own, so that no seed of a run moves a document across. */
#define SPLIT_SEED   UINT64_C(0)
#define SPLIT_STREAM UINT64_C(0x73706c6974000000) /* "split" */
#define ORDER_STREAM UINT64_C(0x6f72646572000000) /* "order", plus the number of the source */

static const char *const part_names[MHP_SPLIT_COUNT] = {"training", "held-out"};

/* ---- which document belongs to which part ---- */

static double hash_document(uint64_t document)
{
    return mhp_random_uniform(SPLIT_SEED, SPLIT_STREAM, document);
}

static uint64_t count_tokens(const mhp_indexed *file, uint64_t document)
{
    uint64_t first, count;

    mhp_indexed_document(file, document, &first, &count);
    return count;
}

/* Documents whose hash is below the threshold are held out. It is the fraction itself unless that
 * leaves a part without a document: then it moves just so far that one changes sides, the one that
 * a slightly other fraction would have moved too. */
static mhp_status find_threshold(const mhp_indexed *file, double held_out, double *threshold_out)
{
    mhp_indexed_info info = mhp_indexed_describe(file);
    uint64_t with_tokens = 0, held = 0;
    double lowest = 1, highest = 0;

    for (uint64_t i = 0; i < info.documents && held_out > 0; i++) {
        double hash = hash_document(i);

        if (count_tokens(file, i) > 0) {
            with_tokens++;
            held += hash < held_out;
            lowest = hash < lowest ? hash : lowest;
            highest = hash > highest ? hash : highest;
        }
    }
    *threshold_out = held_out;
    if (held_out > 0 && with_tokens == 1) {
        return mhp_error_set(MHP_ERR_CONFIG,
                             "%s has 1 document with tokens: expected at least 2 to hold out a "
                             "fraction of %g; data.split.held_out 0 trains on all of it",
                             info.path, held_out);
    }
    if (held == 0 && with_tokens > 0) {
        *threshold_out = lowest + 0x1p-53; /* hashes are multiples of that */
    } else if (held == with_tokens && with_tokens > 0) {
        *threshold_out = highest;
    }
    return MHP_OK;
}

static mhp_data_part *part_of(mhp_data_source *source, double threshold, uint64_t document)
{
    bool held = hash_document(document) < threshold;

    return &source->parts[held ? MHP_SPLIT_HELD_OUT : MHP_SPLIT_TRAIN];
}

static mhp_status number_documents(mhp_data_source *source, double threshold)
{
    uint64_t documents = mhp_indexed_describe(source->file).documents;

    for (uint64_t i = 0; i < documents; i++) {
        part_of(source, threshold, i)->documents += count_tokens(source->file, i) > 0;
    }
    for (int split = 0; split < MHP_SPLIT_COUNT; split++) {
        mhp_data_part *part = &source->parts[split];

        MHP_RETURN_IF_ERROR(mhp_calloc(&part->numbers, part->documents, sizeof *part->numbers));
        MHP_RETURN_IF_ERROR(mhp_calloc(&part->starts, part->documents + 1, sizeof *part->starts));
        part->documents = 0;
    }
    for (uint64_t i = 0; i < documents; i++) {
        mhp_data_part *part = part_of(source, threshold, i);

        if (count_tokens(source->file, i) > 0) {
            part->numbers[part->documents++] = i;
        }
    }
    return MHP_OK;
}

/* ---- how a part is laid out ---- */

/* `starts` lends its room: it is filled only afterwards. */
static void shuffle(mhp_data_part *part, uint64_t seed, size_t number)
{
    memcpy(part->starts, part->numbers, part->documents * sizeof *part->numbers);
    for (uint64_t i = 0; i < part->documents; i++) {
        uint64_t from = mhp_random_permute(seed, ORDER_STREAM + number, i, part->documents);

        part->numbers[i] = part->starts[from];
    }
}

/* With the end of document that is appended to it. */
static uint64_t document_length(const mhp_indexed *file, uint64_t document, int64_t end)
{
    uint64_t first, count;

    mhp_indexed_document(file, document, &first, &count);
    return count + (end >= 0 && mhp_indexed_token(file, first + count - 1) != end);
}

static void measure(const mhp_indexed *file, const mhp_data_rules *rules, mhp_data_part *part)
{
    uint64_t length = (uint64_t)rules->sequence_length;
    uint64_t at = 0;

    for (uint64_t i = 0; i < part->documents; i++) {
        part->starts[i] = at;
        at += document_length(file, part->numbers[i], rules->end_of_document);
    }
    part->starts[part->documents] = at;
    part->tokens = at;
    part->windows = at / length + (at % length > 0);
}

static mhp_status check_part(const mhp_data_source *source, const mhp_data_rules *rules, int split)
{
    const mhp_data_part *part = &source->parts[split];
    const char *path = mhp_indexed_describe(source->file).path;
    uint64_t without_target = rules->cross_documents ? 1 : part->documents;

    if (split == MHP_SPLIT_HELD_OUT && rules->held_out == 0) {
        return MHP_OK;
    }
    if (part->tokens == 0) {
        return mhp_error_set(MHP_ERR_CONFIG, "%s has no tokens: expected at least 2", path);
    }
    if (part->tokens <= without_target) {
        return mhp_error_set(MHP_ERR_CONFIG,
                             "the %s part of %s has %llu tokens in %llu documents, none with a "
                             "token behind it to predict: expected a document of at least 2%s",
                             part_names[split], path, (unsigned long long)part->tokens,
                             (unsigned long long)part->documents,
                             rules->end_of_document < 0 ? ", or data.end_of_document" : "");
    }
    return MHP_OK;
}

mhp_status mhp_data_source_open(mhp_data_source *source, const char *path, size_t number,
                                const mhp_data_rules *rules)
{
    double threshold = 0;

    MHP_RETURN_IF_ERROR(mhp_indexed_open(path, &source->file));
    MHP_RETURN_IF_ERROR(find_threshold(source->file, rules->held_out, &threshold));
    MHP_RETURN_IF_ERROR(number_documents(source, threshold));
    shuffle(&source->parts[MHP_SPLIT_TRAIN], rules->seed, number);
    for (int split = 0; split < MHP_SPLIT_COUNT; split++) {
        measure(source->file, rules, &source->parts[split]);
        MHP_RETURN_IF_ERROR(check_part(source, rules, split));
    }
    return MHP_OK;
}

void mhp_data_source_close(mhp_data_source *source)
{
    for (int split = 0; split < MHP_SPLIT_COUNT; split++) {
        mhp_free(source->parts[split].starts);
        mhp_free(source->parts[split].numbers);
    }
    mhp_indexed_close(source->file);
}

/* ---- filling a sample ---- */

/* The document of the part that holds a token; no document there is empty. */
static uint64_t find_document(const mhp_data_part *part, uint64_t position)
{
    uint64_t low = 0, high = part->documents; /* starts[low] <= position < starts[high] */

    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;

        if (part->starts[middle] <= position) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Tokens offset .. offset + count - 1 of a document of the file; one behind its last is the end of
 * document that was appended. */
static mhp_status read_tokens(const mhp_indexed *file, const mhp_data_rules *rules,
                              uint64_t document, uint64_t offset, uint64_t count, int32_t *tokens)
{
    uint64_t first, in_file;

    mhp_indexed_document(file, document, &first, &in_file);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = offset + i;
        int64_t id = at < in_file ? mhp_indexed_token(file, first + at) : rules->end_of_document;

        if (id < 0 || id >= rules->vocabulary_size) {
            return mhp_error_set(MHP_ERR_FORMAT,
                                 "%s, token %llu (number %llu of document %llu): id %lld: expected "
                                 "0 .. %lld, a vocabulary of %lld",
                                 mhp_indexed_describe(file).path, (unsigned long long)(first + at),
                                 (unsigned long long)at, (unsigned long long)document,
                                 (long long)id, (long long)rules->vocabulary_size - 1,
                                 (long long)rules->vocabulary_size);
        }
        tokens[i] = (int32_t)id;
    }
    return MHP_OK;
}

/* What the last token of a run is to predict: the run ends before token `offset` of the part's
 * document `at`. */
static mhp_status read_target_behind(const mhp_data_source *source, const mhp_data_rules *rules,
                                     const mhp_data_part *part, uint64_t at, uint64_t offset,
                                     int32_t *target)
{
    *target = MHP_DATA_MASKED;
    if (part->starts[at] + offset == part->starts[at + 1]) {
        at++;
        offset = 0;
        if (!rules->cross_documents || at == part->documents) {
            return MHP_OK;
        }
    }
    return read_tokens(source->file, rules, part->numbers[at], offset, 1, target);
}

static void pad(const mhp_data_rules *rules, uint64_t from, int32_t *tokens, int32_t *targets,
                int32_t *document_start)
{
    for (uint64_t t = from; t < (uint64_t)rules->sequence_length; t++) {
        tokens[t] = 0;
        targets[t] = MHP_DATA_MASKED;
        document_start[t] = rules->cross_documents ? 0 : (int32_t)from;
    }
}

mhp_status mhp_data_source_window(const mhp_data_source *source, const mhp_data_rules *rules,
                                  mhp_data_split split, uint64_t window, int32_t *tokens,
                                  int32_t *targets, int32_t *document_start)
{
    const mhp_data_part *part = &source->parts[split];
    uint64_t length = (uint64_t)rules->sequence_length;
    uint64_t position = window * length;
    uint64_t at = find_document(part, position);
    uint64_t t = 0;

    assert(window < part->windows);
    while (t < length && at < part->documents) {
        uint64_t offset = position + t - part->starts[at];
        uint64_t rest = part->starts[at + 1] - (position + t);
        uint64_t run = rest < length - t ? rest : length - t;

        MHP_RETURN_IF_ERROR(
            read_tokens(source->file, rules, part->numbers[at], offset, run, tokens + t));
        memcpy(targets + t, tokens + t + 1, (run - 1) * sizeof *targets);
        MHP_RETURN_IF_ERROR(read_target_behind(source, rules, part, at, offset + run,
                                               targets + t + run - 1));
        for (uint64_t i = t; i < t + run; i++) {
            document_start[i] = rules->cross_documents ? 0 : (int32_t)t;
        }
        t += run;
        at++;
    }
    pad(rules, t, tokens, targets, document_start);
    return MHP_OK;
}
