/* The counter of filled message slots, found again: filled when a message arrives, until the last input gradient's group of its stage and
 * micro-batch ends, on whatever thread; the forward pass's where nothing goes backward. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "core/memory.h"
#include "tests/report/check_report.h"

typedef struct pass_end {
    int rank, step, stage, microbatch;
    int64_t end_ns;
} pass_end;

/* A message that arrives or a slot that is free again, +1 or -1; or the counter from there on. */
typedef struct moment {
    int rank;
    int64_t time_ns;
    int64_t order; /* of those at one time */
    int value;
} moment;

typedef struct found {
    pass_end *ends;
    moment *changes, *counts;
    size_t end_count, change_count, count_count;
} found;

static int64_t ns_at(const json_t *event, const char *key)
{
    return llround(1e3 * number_at(event, key));
}

static const char *text_at(const json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));

    return text ? text : "";
}

static pass_end end_of(const json_t *event)
{
    const json_t *args = json_object_get(event, "args");

    return (pass_end){(int)number_at(event, "pid"), (int)number_at(args, "step"), (int)number_at(args, "stage"),
                      (int)number_at(args, "microbatch"), ns_at(event, "ts") + ns_at(event, "dur")};
}

/* By key, the last one first. */
static int compare_ends(const void *left, const void *right)
{
    const pass_end *a = left, *b = right;
    int difference = a->rank != b->rank     ? a->rank - b->rank
                     : a->step != b->step   ? a->step - b->step
                     : a->stage != b->stage ? a->stage - b->stage
                                            : a->microbatch - b->microbatch;

    return difference ? difference : (a->end_ns < b->end_ns) - (a->end_ns > b->end_ns);
}

static int compare_moments(const void *left, const void *right)
{
    const moment *a = left, *b = right;

    if (a->rank != b->rank || a->time_ns != b->time_ns) {
        return a->rank != b->rank ? a->rank - b->rank : (a->time_ns > b->time_ns) - (a->time_ns < b->time_ns);
    }
    return (a->order > b->order) - (a->order < b->order);
}

static void find_ends(const json_t *events, const char *pass, found *out)
{
    json_t *event;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)events, i, event)
    {
        if (*text_at(event, "ph") == 'X' && strncmp(text_at(event, "name"), pass, strlen(pass)) == 0 &&
            json_object_get(json_object_get(event, "args"), "microbatch")) {
            out->ends[out->end_count++] = end_of(event);
        }
    }
    qsort(out->ends, out->end_count, sizeof *out->ends, compare_ends);
}

static void add_message(const json_t *event, found *out)
{
    pass_end arrived = end_of(event), wanted = arrived;
    size_t low = 0, high = out->end_count;

    wanted.end_ns = INT64_MAX;
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare_ends(&out->ends[middle], &wanted) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    wanted.end_ns = low < out->end_count ? out->ends[low].end_ns : 0;
    CHECK(low < out->end_count && compare_ends(&out->ends[low], &wanted) == 0,
          "rank %d, step %d: nothing takes up the message for stage %d, micro-batch %d", arrived.rank, arrived.step, arrived.stage,
          arrived.microbatch);
    out->changes[out->change_count++] = (moment){arrived.rank, arrived.end_ns, 0, 1};
    out->changes[out->change_count++] = (moment){arrived.rank, wanted.end_ns, 0, -1};
}

/* A message stands on a thread of the rank that receives it, and on one of the sender. */
static void find_moments(const json_t *events, found *out)
{
    enum { RANKS_MAX = 64, THREADS_MAX = 4096 };
    static bool receives[RANKS_MAX][THREADS_MAX];
    json_t *event;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)events, i, event)
    {
        size_t rank = (size_t)number_at(event, "pid"), thread = (size_t)number_at(event, "tid");
        const char *name = text_at(event, "name"), *phase = text_at(event, "ph");

        if (*phase == 'M' && strncmp(text_at(json_object_get(event, "args"), "name"), "receive ", 8) == 0) {
            CHECK(rank < RANKS_MAX && thread < THREADS_MAX, "rank %zu, thread %zu: more than expected", rank, thread);
            receives[rank][thread] = true;
        } else if (*phase == 'X' && strcmp(text_at(event, "cat"), "transfer") == 0 && receives[rank][thread]) {
            add_message(event, out);
        } else if (*phase == 'C' && strcmp(name, "filled message slots") == 0) {
            out->counts[out->count_count++] = (moment){(int)rank, ns_at(event, "ts"), (int64_t)i,
                                                       (int)number_at(json_object_get(event, "args"), "slots")};
        }
    }
    qsort(out->changes, out->change_count, sizeof *out->changes, compare_moments);
    qsort(out->counts, out->count_count, sizeof *out->counts, compare_moments);
}

/* Changes at one time may be counted in any order: the last count holds. */
static void compare_all(const found *all)
{
    int filled = 0;

    CHECK(all->change_count == all->count_count, "%zu counts of filled slots, expected %zu", all->count_count, all->change_count);
    for (size_t i = 0; i < all->change_count; i++) {
        const moment *change = &all->changes[i], *count = &all->counts[i];
        bool last = i + 1 == all->change_count || change[1].rank != change->rank || change[1].time_ns != change->time_ns;

        filled += change->value;
        CHECK(count->rank == change->rank && count->time_ns == change->time_ns,
              "rank %d: filled slots are counted at %.3f us of rank %d, expected %.3f", change->rank, 1e-3 * (double)count->time_ns,
              count->rank, 1e-3 * (double)change->time_ns);
        CHECK(!last || count->value == filled, "rank %d: %d slots are filled from %.3f us on, expected %d", change->rank, count->value,
              1e-3 * (double)change->time_ns, filled);
    }
}

size_t check_slots(const json_t *events)
{
    size_t size = json_array_size(events);
    found all = {0};

    CHECK(mhp_calloc(&all.ends, size, sizeof *all.ends) == MHP_OK, "%s", mhp_error_text());
    CHECK(mhp_calloc(&all.changes, 2 * size, sizeof *all.changes) == MHP_OK, "%s", mhp_error_text());
    CHECK(mhp_calloc(&all.counts, size, sizeof *all.counts) == MHP_OK, "%s", mhp_error_text());
    find_ends(events, "input gradient", &all);
    if (all.end_count == 0) {
        find_ends(events, "forward", &all);
    }
    find_moments(events, &all);
    compare_all(&all);
    mhp_free(all.ends);
    mhp_free(all.changes);
    mhp_free(all.counts);
    return all.change_count;
}
