#include "scheduler/costs.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "scheduler/plan.h"

#define BYTES(name) offsetof(mhp_stage_bytes, name)
#define STAGE(name) offsetof(mhp_stage_costs, name)
#define ENDS(name)  offsetof(mhp_stage_ends, name)
#define LINK(name)  offsetof(mhp_link_costs, name)
#define COSTS(name) offsetof(mhp_costs, name)

#define TIME(key_, offset_, default_, help_)                                                                           \
    {                                                                                                                  \
        .key = (key_), .type = MHP_OPTION_FLOAT, .offset = (offset_), .default_text = (default_), .minimum = 0,        \
        .maximum = MHP_COSTS_US_MAX, .unit = "us", .help = (help_)                                                     \
    }
#define SIZE(key_, offset_, help_)                                                                                     \
    {                                                                                                                  \
        .key = (key_), .type = MHP_OPTION_INT, .offset = (offset_), .default_text = "0", .minimum = 0,                 \
        .maximum = 1e15, .unit = "bytes", .help = (help_)                                                              \
    }

static const mhp_option bytes_options[] = {
    SIZE("weights", BYTES(weights), "that the stage keeps for the whole step"),
    SIZE("activation", BYTES(activation), "of a micro-batch from F to the end of I"),
    SIZE("rebuild_keeps", BYTES(rebuild_keeps), "of activation where it is rebuilt: what stays between F and R"),
    SIZE("held_weight_gradient", BYTES(held_weight_gradient), "of a micro-batch from I to the end of W"),
    SIZE("slot", BYTES(slot), "of a message slot; 0: message_bytes"),
    {.key = NULL},
};

static const mhp_option ends_options[] = {
    TIME("forward_us", ENDS(forward_us), "0", "of F"),
    TIME("input_gradient_us", ENDS(input_gradient_us), "0", "of I"),
    TIME("weight_gradient_us", ENDS(weight_gradient_us), "0", "of W"),
    {.key = NULL},
};

static const mhp_option stage_options[] = {
    TIME("forward_us", STAGE(forward_us), NULL, "F of a micro-batch"),
    TIME("input_gradient_us", STAGE(input_gradient_us), NULL, "I of a micro-batch"),
    TIME("weight_gradient_us", STAGE(weight_gradient_us), NULL, "W of a micro-batch"),
    TIME("rebuild_us", STAGE(rebuild_us), "0", "R of a micro-batch; 0: forward_us"),
    TIME("pair_us", STAGE(pair_us), "0", "F beside a full backward; 0: the sum of F, I and W"),
    {.key = "ends",
     .type = MHP_OPTION_SECTION,
     .offset = STAGE(ends),
     .section = ends_options,
     .help = "what embedding and head take of these times; 0: not known"},
    {.key = "bytes",
     .type = MHP_OPTION_SECTION,
     .offset = STAGE(bytes),
     .section = bytes_options,
     .help = "memory of the stage"},
    {.key = NULL},
};

static const mhp_option link_options[] = {
    {.key = "default",
     .type = MHP_OPTION_BOOL,
     .offset = LINK(is_default),
     .default_text = "false",
     .help = "whether this serves all pairs of ranks without an entry of their own"},
    {.key = "from",
     .type = MHP_OPTION_INT,
     .offset = LINK(from),
     .default_text = "-1",
     .minimum = -1,
     .maximum = MHP_RANKS_MAX - 1,
     .help = "pipeline rank that sends"},
    {.key = "to",
     .type = MHP_OPTION_INT,
     .offset = LINK(to),
     .default_text = "-1",
     .minimum = -1,
     .maximum = MHP_RANKS_MAX - 1,
     .help = "pipeline rank that receives"},
    {.key = "bandwidth_gb_s",
     .type = MHP_OPTION_FLOAT,
     .offset = LINK(bandwidth_gb_s),
     .default_text = "0",
     .minimum = 0,
     .maximum = 1e9,
     .unit = "GB/s",
     .help = "in one direction; 0: unlimited"},
    TIME("latency_us", LINK(latency_us), "0", "of one message, beside its bytes"),
    {.key = NULL},
};

const mhp_option mhp_costs_options[] = {
    {.key = "stages",
     .type = MHP_OPTION_SECTION_LIST,
     .offset = COSTS(stages),
     .section = stage_options,
     .section_bytes = sizeof(mhp_stage_costs),
     .help = "times and bytes; one entry for all stages, or one for each"},
    {.key = "links",
     .type = MHP_OPTION_SECTION_LIST,
     .offset = COSTS(links),
     .default_text = "[]",
     .section = link_options,
     .section_bytes = sizeof(mhp_link_costs),
     .help = "between ranks, one direction each; empty: messages take no time"},
    SIZE("message_bytes", COSTS(message_bytes), "of one state or gradient between two stages"),
    TIME("all_reduce_us", COSTS(all_reduce_us), "0", "reduction of one stage's gradients over its holders"),
    TIME("optimizer_us", COSTS(optimizer_us), "0", "of a rank, behind the reductions of all ranks"),
    {.key = NULL},
};

mhp_status mhp_costs_create_stages(mhp_costs *costs, size_t count, mhp_stage_costs **stages_out)
{
    mhp_free(costs->stages.items);
    costs->stages = (mhp_section_list){0};
    MHP_RETURN_IF_ERROR(mhp_calloc(&costs->stages.items, count, sizeof(mhp_stage_costs)));
    costs->stages.count = count;
    *stages_out = costs->stages.items;
    return MHP_OK;
}

mhp_status mhp_costs_create_links(mhp_costs *costs, size_t count, mhp_link_costs **links_out)
{
    mhp_free(costs->links.items);
    costs->links = (mhp_section_list){0};
    MHP_RETURN_IF_ERROR(mhp_calloc(&costs->links.items, count, sizeof(mhp_link_costs)));
    costs->links.count = count;
    *links_out = costs->links.items;
    return MHP_OK;
}

mhp_status mhp_costs_default(mhp_costs *costs_out)
{
    mhp_stage_costs *stage = NULL;

    *costs_out = (mhp_costs){0};
    MHP_RETURN_IF_ERROR(mhp_strdup(&costs_out->name, "unit costs"));
    MHP_RETURN_IF_ERROR(mhp_costs_create_stages(costs_out, 1, &stage));
    *stage = (mhp_stage_costs){.forward_us = 1, .input_gradient_us = 1, .weight_gradient_us = 1};
    return MHP_OK;
}

void mhp_costs_release(mhp_costs *costs)
{
    mhp_options_release(mhp_costs_options, costs);
    mhp_free(costs->name);
    costs->name = NULL;
}

mhp_status mhp_costs_copy(const mhp_costs *costs, mhp_costs *copy_out)
{
    mhp_stage_costs *stages = NULL;
    mhp_link_costs *links = NULL;

    *copy_out = (mhp_costs){.message_bytes = costs->message_bytes,
                            .all_reduce_us = costs->all_reduce_us,
                            .optimizer_us = costs->optimizer_us};
    MHP_RETURN_IF_ERROR(mhp_strdup(&copy_out->name, costs->name));
    MHP_RETURN_IF_ERROR(mhp_costs_create_stages(copy_out, costs->stages.count, &stages));
    memcpy(stages, costs->stages.items, costs->stages.count * sizeof *stages);
    MHP_RETURN_IF_ERROR(mhp_costs_create_links(copy_out, costs->links.count, &links));
    for (size_t i = 0; i < costs->links.count; i++) {
        links[i] = ((const mhp_link_costs *)costs->links.items)[i];
    }
    return MHP_OK;
}

/* ---- what one key alone cannot say ---- */

static mhp_status link_error(const mhp_costs *costs, size_t i, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static mhp_status link_error(const mhp_costs *costs, size_t i, const char *format, ...)
{
    va_list arguments;
    mhp_status status;

    va_start(arguments, format);
    status = mhp_error_vset(MHP_ERR_CONFIG, format, arguments);
    va_end(arguments);
    return mhp_error_prefix(status, "%s:%zu:%zu: links[%zu] ", costs->name, costs->links.line, costs->links.column, i);
}

static mhp_status check_link(const mhp_costs *costs, size_t i)
{
    const mhp_link_costs *link = (const mhp_link_costs *)costs->links.items + i;

    if (link->is_default && (link->from >= 0 || link->to >= 0)) {
        return link_error(costs, i, "is the default and goes from %lld to %lld: expected one or the other",
                          (long long)link->from, (long long)link->to);
    }
    if (!link->is_default && (link->from < 0 || link->to < 0)) {
        return link_error(costs, i, "goes from %lld to %lld: expected two ranks, or default: true",
                          (long long)link->from, (long long)link->to);
    }
    if (!link->is_default && link->from == link->to) {
        return link_error(costs, i, "goes from rank %lld to itself: expected another rank", (long long)link->from);
    }
    return MHP_OK;
}

/* By (from, to), defaults (-1, -1) first. */
static int compare_links(const void *left, const void *right)
{
    const mhp_link_costs *a = *(const mhp_link_costs *const *)left;
    const mhp_link_costs *b = *(const mhp_link_costs *const *)right;

    if (a->from != b->from) {
        return a->from < b->from ? -1 : 1;
    }
    if (a->to != b->to) {
        return a->to < b->to ? -1 : 1;
    }
    return a < b ? -1 : 1;
}

static mhp_status check_links(const mhp_costs *costs)
{
    const mhp_link_costs *links = costs->links.items;
    const mhp_link_costs **sorted = NULL;
    size_t count = costs->links.count;
    mhp_status status = MHP_OK;

    MHP_RETURN_IF_ERROR(mhp_calloc(&sorted, count, sizeof *sorted));
    for (size_t i = 0; i < count; i++) {
        MHP_TRY(out, check_link(costs, i));
        sorted[i] = &links[i];
    }
    if (count > 1) {
        qsort(sorted, count, sizeof *sorted, compare_links);
    }
    for (size_t i = 1; i < count; i++) {
        if (sorted[i]->from == sorted[i - 1]->from && sorted[i]->to == sorted[i - 1]->to) {
            status = sorted[i]->is_default
                         ? link_error(costs, (size_t)(sorted[i] - links), "is a second default: expected one")
                         : link_error(costs, (size_t)(sorted[i] - links),
                                      "is a second entry from %lld to %lld: expected one", (long long)sorted[i]->from,
                                      (long long)sorted[i]->to);
            goto out;
        }
    }
out:
    mhp_free(sorted);
    return status;
}

static mhp_status check_ends(const mhp_costs *costs)
{
    const mhp_stage_costs *stages = costs->stages.items;

    for (size_t s = 0; s < costs->stages.count; s++) {
        const mhp_stage_ends *ends = &stages[s].ends;
        const double parts[] = {ends->forward_us, ends->input_gradient_us, ends->weight_gradient_us};
        const double wholes[] = {stages[s].forward_us, stages[s].input_gradient_us, stages[s].weight_gradient_us};
        static const char *const names[] = {"forward_us", "input_gradient_us", "weight_gradient_us"};

        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            if (parts[i] > wholes[i] * (1 + 1e-9)) {          /* both are sums of measured times */
                return mhp_error_set(MHP_ERR_CONFIG, "%s:%zu:%zu: stages[%zu].ends.%s is %g: expected at most the stage's, %g",
                                     costs->name, costs->stages.line, costs->stages.column, s, names[i], parts[i], wholes[i]);
            }
        }
    }
    return MHP_OK;
}

mhp_status mhp_costs_parse(const char *name, const char *text, size_t length, mhp_costs *costs_out)
{
    *costs_out = (mhp_costs){0};
    MHP_RETURN_IF_ERROR(mhp_strdup(&costs_out->name, name));
    MHP_RETURN_IF_ERROR(mhp_options_read_text(mhp_costs_options, costs_out, name, text, length));
    if (costs_out->stages.count == 0) {
        return mhp_error_set(MHP_ERR_CONFIG, "%s:%zu:%zu: stages is empty: expected one entry, or one for each stage",
                             name, costs_out->stages.line, costs_out->stages.column);
    }
    MHP_RETURN_IF_ERROR(check_ends(costs_out));
    return check_links(costs_out);
}

mhp_status mhp_costs_read(const char *path, mhp_costs *costs_out)
{
    char *text = NULL;
    size_t length = 0;
    mhp_status status;

    *costs_out = (mhp_costs){0};
    MHP_RETURN_IF_ERROR(mhp_file_read_all(path, MHP_OPTION_TEXT_MAX, &text, &length));
    status = mhp_costs_parse(path, text, length, costs_out);
    mhp_free(text);
    return status;
}

mhp_status mhp_costs_check(const mhp_costs *costs, int rank_count, int stage_count)
{
    const mhp_link_costs *links = costs->links.items;

    if (costs->stages.count != 1 && costs->stages.count != (size_t)stage_count) {
        return mhp_error_set(
            MHP_ERR_CONFIG, "%s:%zu:%zu: stages has %zu entries: expected one, or one for each of the plan's %d stages",
            costs->name, costs->stages.line, costs->stages.column, costs->stages.count, stage_count);
    }
    for (size_t i = 0; i < costs->links.count; i++) {
        if (links[i].from >= rank_count || links[i].to >= rank_count) {
            return link_error(costs, i, "goes from %lld to %lld: expected ranks of the plan, 0 to %d",
                              (long long)links[i].from, (long long)links[i].to, rank_count - 1);
        }
    }
    return MHP_OK;
}

mhp_status mhp_costs_write(const mhp_costs *costs, FILE *stream)
{
    return mhp_options_print(mhp_costs_options, costs, stream);
}

/* ---- what things cost ---- */

const mhp_stage_costs *mhp_costs_stage(const mhp_costs *costs, int stage)
{
    const mhp_stage_costs *stages = costs->stages.items;

    return &stages[costs->stages.count == 1 ? 0 : stage];
}

static mhp_link_time link_time(const mhp_costs *costs, const mhp_link_costs *link)
{
    double busy_us = link->bandwidth_gb_s > 0 ? (double)costs->message_bytes / (link->bandwidth_gb_s * 1e3) : 0;

    return (mhp_link_time){busy_us, link->latency_us};
}

mhp_status mhp_costs_link_times(const mhp_costs *costs, int rank_count, mhp_link_time **times_out)
{
    const mhp_link_costs *links = costs->links.items;
    size_t pairs = (size_t)rank_count * (size_t)rank_count;
    mhp_link_time *times = NULL;

    MHP_RETURN_IF_ERROR(mhp_calloc(&times, pairs, sizeof *times));
    for (size_t i = 0; i < costs->links.count; i++) {
        for (size_t pair = 0; links[i].is_default && pair < pairs; pair++) {
            times[pair] = link_time(costs, &links[i]);
        }
    }
    for (size_t i = 0; i < costs->links.count; i++) {
        if (!links[i].is_default) {
            times[(size_t)links[i].from * (size_t)rank_count + (size_t)links[i].to] = link_time(costs, &links[i]);
        }
    }
    *times_out = times;
    return MHP_OK;
}

double mhp_stage_work_us(const mhp_stage_costs *stage)
{
    return stage->forward_us + stage->input_gradient_us + stage->weight_gradient_us;
}

double mhp_stage_rebuild_us(const mhp_stage_costs *stage)
{
    return stage->rebuild_us > 0 ? stage->rebuild_us : stage->forward_us;
}

double mhp_pair_share(const mhp_stage_costs *stage)
{
    double work = mhp_stage_work_us(stage);

    return stage->pair_us > 0 && work > 0 ? stage->pair_us / work : 1.0;
}

double mhp_pair_us(const mhp_stage_costs *forward, const mhp_stage_costs *backward)
{
    double apart = forward->forward_us + backward->input_gradient_us + backward->weight_gradient_us;

    return apart * 0.5 * (mhp_pair_share(forward) + mhp_pair_share(backward));
}

int64_t mhp_costs_slot_bytes(const mhp_costs *costs, int stage)
{
    int64_t bytes = mhp_costs_stage(costs, stage)->bytes.slot;

    return bytes > 0 ? bytes : costs->message_bytes;
}
