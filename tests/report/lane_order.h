/* Whether a trace's groups on the lanes beside compute begin where those lanes could: a lane that waits does not work. */
#ifndef MHP_TESTS_REPORT_LANE_ORDER_H
#define MHP_TESTS_REPORT_LANE_ORDER_H

#include <inttypes.h>
#include <stdio.h>

#include "runtime/profile/trace.h"

static inline bool lane_order_is_beside(int lane)
{
    return lane == MHP_LANE_PARTNER || lane == MHP_LANE_LEADER;
}

static inline bool lane_order_same_pass(const mhp_trace_span *a, const mhp_trace_span *b)
{
    return a->pass == b->pass && a->stage == b->stage && a->microbatch == b->microbatch;
}

/* Whether a group comes behind a span that was submitted before it: what its own pass did, on whatever lane; of a half beside also what
 * compute waited for in its stead, and all that compute had before the pair's first group, which stands at `pair`. */
static inline bool lane_order_is_behind(const mhp_trace_span *group, const mhp_trace_span *span, const mhp_trace_span *pair)
{
    if (span->kind == MHP_TRACE_GROUP && lane_order_same_pass(span, group)) {
        return true;
    }
    return lane_order_is_beside(group->lane) && span->lane == MHP_LANE_COMPUTE &&
           (span < pair || (span->kind == MHP_TRACE_WAIT && lane_order_same_pass(span, group)));
}

/* Of the spans of one step; -1 if there is none. Counts the groups beside compute. */
static inline long lane_order_find(const mhp_trace_span *spans, size_t count, size_t *behind_out, size_t *beside_count)
{
    const mhp_trace_span *pair = spans;

    for (size_t i = 0; i < count; i++) {
        if (spans[i].kind != MHP_TRACE_GROUP) {
            continue;
        }
        pair = pair->kind != MHP_TRACE_GROUP || pair->action != spans[i].action ? &spans[i] : pair;
        *beside_count += lane_order_is_beside(spans[i].lane);
        for (size_t j = 1; j < i; j++) {        /* the first is the step itself */
            if (spans[i].start_ns < spans[j].end_ns && lane_order_is_behind(&spans[i], &spans[j], pair)) {
                *behind_out = j;
                return (long)i;
            }
        }
    }
    return -1;
}

enum { LANE_ORDER_TEXT_MAX = 256 };

/* The first group of a trace that begins before the end of what it comes behind, in words; "" if none does. */
static inline size_t lane_order_check(const mhp_trace *trace, char text[LANE_ORDER_TEXT_MAX])
{
    size_t beside_count = 0;

    text[0] = '\0';
    for (int step = 0; step < trace->step_count && !text[0]; step++) {
        size_t count, behind;
        const mhp_trace_span *spans = mhp_trace_step(trace, step, &count);
        long early = lane_order_find(spans, count, &behind, &beside_count);

        if (early >= 0) {
            char name[MHP_GROUP_TEXT_MAX];

            mhp_group_format((mhp_pass)spans[early].pass, (mhp_step_part)spans[early].part, name);
            snprintf(text, LANE_ORDER_TEXT_MAX,
                     "rank %d, step %d, action %d: %s on %s begins %" PRId64 " ns before span %zu ends, which it comes behind",
                     trace->rank, step, spans[early].action, name, mhp_lane_text((mhp_lane)spans[early].lane),
                     spans[behind].end_ns - spans[early].start_ns, behind);
        }
    }
    return beside_count;
}

#endif
