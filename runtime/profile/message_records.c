#include "runtime/profile/message_records.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

/* The next best stream's kernels must be more than so many times as far from a channel's messages as the best one's. */
enum { CLEARLY = 4 };

const char *mhp_message_mover_text(mhp_message_mover mover)
{
    static const char *const words[MHP_MOVER_COUNT] = {"copies", "NCCL kernels"};

    return words[mover];
}

/* ---- copies ---- */

/* The size of a message, 0 if there is none; and of all of them. */
static int64_t sum_messages(const mhp_trace_set *set, uint64_t *sum_out)
{
    int64_t bytes = 0;

    *sum_out = 0;
    for (int rank = 0; rank < set->count; rank++) {
        for (size_t i = 0; i < set->ranks[rank].span_count; i++) {
            const mhp_trace_span *span = &set->ranks[rank].spans[i];

            if (span->kind == MHP_TRACE_MESSAGE) {
                bytes = span->bytes;
                *sum_out += (uint64_t)span->bytes;
            }
        }
    }
    return bytes;
}

/* A message or a slice of one: reductions and what goes to the host and back are smaller, or on lanes. */
static bool may_be_message(const mhp_record *record, int64_t message_bytes)
{
    return record->kind == MHP_RECORD_COPY_CARD && record->lane < 0 && record->bytes >= message_bytes / MHP_SLICES_MAX;
}

static uint64_t sum_copies(const mhp_trace_set *set, int64_t message_bytes, double *took_ns_out)
{
    uint64_t bytes = 0;

    *took_ns_out = 0;
    for (int rank = 0; rank < set->count; rank++) {
        const mhp_record_list *records = &set->ranks[rank].records;

        for (size_t i = 0; i < records->count; i++) {
            if (may_be_message(&records->items[i], message_bytes)) {
                bytes += (uint64_t)records->items[i].bytes;
                *took_ns_out += (double)(records->items[i].end_ns - records->items[i].start_ns);
            }
        }
    }
    return bytes;
}

/* Why kernels could not be found for all messages; NULL if they may be. */
static const char *what_is_missing(const mhp_trace_set *set)
{
    for (int rank = 0; rank < set->count; rank++) {
        if (set->ranks[rank].kernels != MHP_TRACE_KERNELS_ON) {
            return "not every rank has its card's records";
        }
        if (set->ranks[rank].records.lost > 0) {
            return "records were lost";
        }
    }
    return NULL;
}

void mhp_message_records_begin(const mhp_trace_set *set, mhp_message_records *messages_out)
{
    uint64_t all_bytes;
    int64_t bytes = sum_messages(set, &all_bytes);
    double took_ns;

    *messages_out = (mhp_message_records){.mover = MHP_MOVED_BY_NCCL};
    if (all_bytes == 0) {
        messages_out->unknown = "there were no messages";
    } else if (sum_copies(set, bytes, &took_ns) == all_bytes) {
        messages_out->mover = MHP_MOVED_BY_COPIES;
        messages_out->records_us = 1e-3 * took_ns / set->ranks[0].step_count;
    } else {
        messages_out->unknown = what_is_missing(set);
    }
}

/* ---- NCCL's kernels ---- */

typedef struct kernel {
    int rank;
    uint32_t stream;
    double start_us, end_us;
} kernel;

/* What one stream of a rank ran, in its order. */
typedef struct stream_run {
    const kernel *kernels;
    size_t count;
    bool taken;
} stream_run;

typedef struct step_pairs {
    kernel *kernels;
    size_t kernel_count;
    stream_run *runs;
    size_t run_count;
    const mhp_transfer **messages; /* channel by channel, in the order of each */
    size_t message_count;
} step_pairs;

static void free_pairs(step_pairs *pairs)
{
    mhp_free(pairs->kernels);
    mhp_free(pairs->runs);
    mhp_free(pairs->messages);
}

/* NCCL names its kernels by what they do: ncclDevKernel_SendRecv, ncclDevKernel_AllReduce_... */
static bool passes_messages(const mhp_record_list *list, const mhp_record *record)
{
    const char *name = list->names + record->name;

    return record->kind == MHP_RECORD_KERNEL && record->lane < 0 && strncmp(name, "nccl", 4) == 0 &&
           strstr(name, "SendRecv");
}

static size_t count_kernels(const mhp_trace_set *set)
{
    size_t count = 0;

    for (int rank = 0; rank < set->count; rank++) {
        const mhp_record_list *list = &set->ranks[rank].records;

        for (size_t i = 0; i < list->count; i++) {
            count += passes_messages(list, &list->items[i]);
        }
    }
    return count;
}

static int compare_kernels(const void *left, const void *right)
{
    const kernel *a = left, *b = right;

    if (a->rank != b->rank || a->stream != b->stream) {
        return a->rank != b->rank ? a->rank - b->rank : (a->stream > b->stream) - (a->stream < b->stream);
    }
    return (a->start_us > b->start_us) - (a->start_us < b->start_us);
}

static void find_kernels(const mhp_trace_set *set, const mhp_clocks *clocks, const mhp_timeline *timeline, int rank,
                         step_pairs *pairs)
{
    const mhp_record_list *list = &set->ranks[rank].records;
    const mhp_timed_rank *timed = &timeline->ranks[rank];

    for (size_t i = 0; i < list->count; i++) {
        const mhp_record *record = &list->items[i];
        double start_us;

        if (!passes_messages(list, record)) {
            continue;
        }
        start_us = mhp_timeline_us(set, clocks, timeline, rank, record->start_ns);
        if (start_us >= timed->begin_us && start_us < timed->end_us) {
            pairs->kernels[pairs->kernel_count++] =
                (kernel){rank, record->stream, start_us, mhp_timeline_us(set, clocks, timeline, rank, record->end_ns)};
        }
    }
}

static void find_runs(step_pairs *pairs)
{
    qsort(pairs->kernels, pairs->kernel_count, sizeof *pairs->kernels, compare_kernels);
    for (size_t i = 0; i < pairs->kernel_count; i++) {
        const kernel *one = &pairs->kernels[i];

        if (i == 0 || one->rank != one[-1].rank || one->stream != one[-1].stream) {
            pairs->runs[pairs->run_count++] = (stream_run){.kernels = one};
        }
        pairs->runs[pairs->run_count - 1].count++;
    }
}

static int compare_channels(const mhp_transfer *a, const mhp_transfer *b)
{
    return a->target != b->target ? a->target - b->target
           : a->source != b->source ? a->source - b->source
           : a->stage != b->stage   ? a->stage - b->stage
                                    : (int)a->cause - (int)b->cause;
}

/* A channel's messages stand in its order among the transfers. */
static int compare_messages(const void *left, const void *right)
{
    const mhp_transfer *a = *(const mhp_transfer *const *)left, *b = *(const mhp_transfer *const *)right;
    int difference = compare_channels(a, b);

    return difference ? difference : (a > b) - (a < b);
}

static void find_messages(const mhp_timeline *timeline, step_pairs *pairs)
{
    for (size_t i = 0; i < timeline->transfer_count; i++) {
        const mhp_transfer *transfer = &timeline->transfers[i];

        if (transfer->cause == MHP_CAUSE_STATE || transfer->cause == MHP_CAUSE_GRADIENT) {
            pairs->messages[pairs->message_count++] = transfer;
        }
    }
    qsort(pairs->messages, pairs->message_count, sizeof *pairs->messages, compare_messages);
}

static mhp_status find_all(const mhp_trace_set *set, const mhp_clocks *clocks, const mhp_timeline *timeline,
                           step_pairs *pairs)
{
    size_t kernels = count_kernels(set);

    MHP_RETURN_IF_ERROR(mhp_calloc(&pairs->kernels, kernels, sizeof *pairs->kernels));
    MHP_RETURN_IF_ERROR(mhp_calloc(&pairs->runs, kernels, sizeof *pairs->runs));
    MHP_RETURN_IF_ERROR(mhp_calloc(&pairs->messages, timeline->transfer_count, sizeof *pairs->messages));
    for (int rank = 0; rank < set->count; rank++) {
        find_kernels(set, clocks, timeline, rank, pairs);
    }
    find_runs(pairs);
    find_messages(timeline, pairs);
    return MHP_OK;
}

/* What moves before a message is made is no transfer, and records do not tell when that was. */
static const char *compare_counts(const step_pairs *pairs)
{
    size_t expected = 2 * pairs->message_count;

    if (pairs->kernel_count == 0) {
        return "neither copies nor kernels of NCCL are the messages";
    }
    if (pairs->kernel_count > expected && expected > 0 && pairs->kernel_count % expected == 0) {
        return "messages left in slices, also before they were made";
    }
    return pairs->kernel_count == expected ? NULL : "the messages have not two kernels of NCCL each";
}

/* By events a sender's kernel begins when its message is made, a receiver's when that is posted; or later, up to the arrival of the
 * message before it. And a receiver's ends when its message has arrived. How far a stream's kernels are from that, all together. */
static double distance_us(const stream_run *run, const mhp_transfer *const *messages, bool sends)
{
    double sum_us = 0;

    for (size_t i = 0; i < run->count; i++) {
        const kernel *one = &run->kernels[i];
        double first_us = sends ? messages[i]->made_us : messages[i]->posted_us;
        double last_us = i > 0 ? fmax(first_us, messages[i - 1]->arrived_us) : first_us;

        sum_us += fmax(0, fmax(first_us - one->start_us, one->start_us - last_us));
        sum_us += sends ? 0 : fabs(one->end_us - messages[i]->arrived_us);
    }
    return sum_us;
}

/* The stream of a channel at one of its ends; NULL if that is not clear. */
static const stream_run *take_run(step_pairs *pairs, const mhp_transfer *const *messages, size_t count, bool sends)
{
    int rank = sends ? messages[0]->source : messages[0]->target;
    double best_us = INFINITY, next_us = INFINITY;
    stream_run *best = NULL;

    for (size_t i = 0; i < pairs->run_count; i++) {
        stream_run *run = &pairs->runs[i];
        double apart_us;

        if (run->kernels->rank != rank || run->count != count) {
            continue;
        }
        apart_us = distance_us(run, messages, sends);
        next_us = fmin(next_us, fmax(apart_us, best_us));
        if (apart_us < best_us) {
            best_us = apart_us;
            best = run;
        }
    }
    if (!best || best->taken || CLEARLY * best_us >= next_us) {
        return NULL;
    }
    best->taken = true;
    return best;
}

/* NULL, or why what the channel's messages took is not known. */
static const char *add_channel(step_pairs *pairs, const mhp_transfer *const *messages, size_t count, double *sum_us)
{
    const stream_run *sender = take_run(pairs, messages, count, true);
    const stream_run *receiver = sender ? take_run(pairs, messages, count, false) : NULL;

    if (!receiver) {
        return "which of NCCL's streams is which channel's is not clear";
    }
    for (size_t i = 0; i < count; i++) {
        const kernel *from = &sender->kernels[i], *to = &receiver->kernels[i];
        double took_us = to->end_us - fmax(from->start_us, to->start_us);

        if (took_us <= 0) {
            return "a message's kernel ends before the other one begins";
        }
        *sum_us += took_us;
    }
    return NULL;
}

mhp_status mhp_message_records_add(const mhp_trace_set *set, const mhp_clocks *clocks, const mhp_timeline *timeline,
                                   mhp_message_records *messages)
{
    mhp_status status = MHP_OK;
    step_pairs pairs = {0};
    double sum_us = 0;

    if (messages->unknown || messages->mover == MHP_MOVED_BY_COPIES) {
        return MHP_OK;
    }
    MHP_TRY(out, find_all(set, clocks, timeline, &pairs));
    messages->unknown = compare_counts(&pairs);
    for (size_t first = 0, end; first < pairs.message_count && !messages->unknown; first = end) {
        for (end = first + 1; end < pairs.message_count && compare_channels(pairs.messages[first], pairs.messages[end]) == 0;) {
            end++;
        }
        messages->unknown = add_channel(&pairs, pairs.messages + first, end - first, &sum_us);
    }
    messages->records_us += sum_us / set->ranks[0].step_count;
out:
    free_pairs(&pairs);
    return status;
}
