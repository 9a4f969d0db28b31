#include "launch/planning.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "runtime/memory_costs.h"
#include "runtime/partition.h"
#include "scheduler/yaml.h"
#include "scheduler/lower.h"

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);

    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

bool mhp_is_configuration(const char *path)
{
    static const char section[] = "model:";
    char *text = NULL;
    size_t size = 0;
    bool found = false;

    if (ends_with(path, ".csv")) {
        return false;
    }
    if (mhp_file_read_all(path, MHP_OPTION_TEXT_MAX, &text, &size) != MHP_OK) {
        return false;
    }
    for (const char *line = text; line && !found; line = strchr(line, '\n')) {
        line += *line == '\n';
        found = strncmp(line, section, sizeof section - 1) == 0;
    }
    mhp_free(text);
    return found;
}

/* ---- plans ---- */

static mhp_status load_config(const mhp_planning_request *request, mhp_planning *planning)
{
    planning->has_config = true;
    MHP_RETURN_IF_ERROR(mhp_config_load(&planning->config, request->file, request->overrides.items,
                                        request->overrides.count));
    return mhp_layout_create(&planning->config.model, &planning->config.parallel,
                             &planning->config.schedule, &planning->layout);
}

static mhp_status load_plan(const mhp_planning_request *request, mhp_planning *planning)
{
    if (request->file && mhp_is_configuration(request->file)) {
        MHP_RETURN_IF_ERROR(load_config(request, planning));
        planning->plan = planning->layout.plan;
        planning->layout.plan = NULL;
        return MHP_OK;
    }
    if (request->overrides.count > 0) {
        return mhp_error_set(MHP_ERR_CONFIG, "--set %s: expected a configuration to change",
                             request->overrides.items[0]);
    }
    if (request->file) {
        MHP_RETURN_IF_ERROR(mhp_plan_read(request->file, &planning->plan));
    } else {
        MHP_RETURN_IF_ERROR(
            mhp_schedule_generate(request->kind, &request->shape, &planning->plan));
    }
    return mhp_plan_lower(planning->plan, NULL);
}

/* ---- costs ---- */

static bool knows_bytes(const mhp_costs *costs)
{
    const mhp_stage_costs *stages = costs->stages.items;

    for (size_t i = 0; i < costs->stages.count; i++) {
        const mhp_stage_bytes *bytes = &stages[i].bytes;

        if (bytes->weights || bytes->activation || bytes->held_weight_gradient || bytes->slot) {
            return true;
        }
    }
    return false;
}

/* One entry for every stage. */
static mhp_status spread(mhp_costs *costs, int stage_count)
{
    mhp_stage_costs one, *stages = NULL;

    if (costs->stages.count != 1 || stage_count == 1) {
        return MHP_OK;
    }
    one = *mhp_costs_stage(costs, 0);
    one.ends = (mhp_stage_ends){0};             /* of all stages together it says nothing of the ends of each */
    MHP_RETURN_IF_ERROR(mhp_costs_create_stages(costs, (size_t)stage_count, &stages));
    for (int s = 0; s < stage_count; s++) {
        stages[s] = one;
    }
    return MHP_OK;
}

/* What the configuration's stages keep. Another recompute than the plan's own needs another plan. */
static mhp_status measure(const mhp_planning *planning, int what, bool held_once, mhp_costs *sizes_out)
{
    const mhp_config *config = &planning->config;
    mhp_schedule_params schedule = config->schedule;
    mhp_layout own = planning->layout, other = {0};
    bool is_own = what == schedule.recompute.what;
    mhp_memory_params memory = {is_own ? &own : &other, &config->model, &config->parallel,
                                &schedule, &config->train};
    mhp_status status = MHP_OK;

    own.plan = planning->plan;
    schedule.recompute.what = what;
    if (!is_own) {
        MHP_TRY(out, mhp_layout_create(&config->model, &config->parallel, &schedule, &other));
    }
    MHP_TRY(out, mhp_memory_costs(&memory, held_once, sizes_out));
out:
    mhp_layout_release(&other);
    return status;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Activations as they are without R, and what stays of them with it. */
static mhp_status measure_both(const mhp_planning *planning, mhp_costs *sizes_out)
{
    int what = planning->config.schedule.recompute.what;
    mhp_costs rebuilt = {0};
    mhp_status status;

    MHP_TRY(out, measure(planning, MHP_RECOMPUTE_NONE, true, sizes_out));
    MHP_TRY(out, measure(planning, what == MHP_RECOMPUTE_NONE ? MHP_RECOMPUTE_FULL : what, true,
                         &rebuilt));
    for (size_t s = 0; s < sizes_out->stages.count; s++) {
        mhp_stage_bytes *bytes = &((mhp_stage_costs *)sizes_out->stages.items)[s].bytes;
        const mhp_stage_bytes *other = &mhp_costs_stage(&rebuilt, (int)s)->bytes;

        bytes->rebuild_keeps = other->rebuild_keeps;
        bytes->weights = larger(bytes->weights, other->weights);
        bytes->activation = larger(bytes->activation, other->activation);
        bytes->held_weight_gradient = larger(bytes->held_weight_gradient, other->held_weight_gradient);
    }
out:
    mhp_costs_release(&rebuilt);
    return status;
}

/* What the file leaves open and the configuration says. */
static mhp_status add_sizes(const mhp_planning_request *request, mhp_planning *planning)
{
    int what = planning->config.schedule.recompute.what;
    mhp_costs sizes = {0};
    mhp_status status;

    MHP_TRY(out, request->may_rebuild ? measure_both(planning, &sizes)
                                      : measure(planning, what, false, &sizes));
    if (planning->costs.message_bytes == 0) {
        planning->costs.message_bytes = sizes.message_bytes;
    }
    if (!knows_bytes(&planning->costs)) {
        MHP_TRY(out, spread(&planning->costs, planning->plan->stage_count));
        for (int s = 0; s < planning->plan->stage_count; s++) {
            ((mhp_stage_costs *)planning->costs.stages.items)[s].bytes =
                mhp_costs_stage(&sizes, s)->bytes;
        }
    }
out:
    mhp_costs_release(&sizes);
    return status;
}

/* One link for all pairs of ranks: the mean of those that were measured. */
static mhp_status level_links(mhp_costs *costs)
{
    const mhp_link_costs *links = costs->links.items;
    size_t count = costs->links.count;
    mhp_link_costs mean = {.is_default = true, .from = -1, .to = -1}, *only = NULL;

    for (size_t i = 0; i < count; i++) {
        mean.bandwidth_gb_s += links[i].bandwidth_gb_s / (double)count;
        mean.latency_us += links[i].latency_us / (double)count;
    }
    if (count == 0) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_costs_create_links(costs, 1, &only));
    *only = mean;
    return MHP_OK;
}

mhp_status mhp_planning_lengths(const mhp_planning *planning, double **lengths_out)
{
    int stage_count = planning->plan->stage_count;

    MHP_RETURN_IF_ERROR(mhp_calloc(lengths_out, (size_t)stage_count, sizeof **lengths_out));
    for (int s = 0; s < stage_count; s++) {
        (*lengths_out)[s] = planning->has_config ? mhp_stage_layers(&planning->layout.extents[s]) : 1;
    }
    return MHP_OK;
}

/* Of an even cut of so many layers, in whole ones. */
static mhp_status even_lengths(int64_t layers, int stage_count, double **lengths_out)
{
    mhp_stage_extent *extents = NULL;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_calloc(lengths_out, (size_t)stage_count, sizeof **lengths_out));
    MHP_TRY(out, mhp_calloc(&extents, (size_t)stage_count, sizeof *extents));
    MHP_TRY(out, mhp_partition_layers(layers, stage_count, NULL, extents));
    for (int s = 0; s < stage_count; s++) {
        (*lengths_out)[s] = mhp_stage_layers(&extents[s]);
    }
out:
    mhp_free(extents);
    return status;
}

/* Costs of the configuration's stages from those of a model with fewer layers. */
static mhp_status deepen(int from_layers, mhp_planning *planning)
{
    mhp_costs *costs = &planning->costs, cut = {0};
    int64_t layers = planning->has_config ? planning->config.model.num_hidden_layers : 0;
    int stage_count = planning->plan->stage_count;
    double *from = NULL, *own = NULL;
    mhp_cost_model *model = NULL;
    mhp_status status = MHP_OK;

    if (from_layers > layers) {
        MHP_RAISE(out, MHP_ERR_CONFIG, "--costs-layers %d: expected at most the layers of a configuration, %lld", from_layers,
                  (long long)layers);
    }
    MHP_TRY(out, even_lengths(from_layers, (int)costs->stages.count, &from));
    MHP_TRY(out, mhp_planning_lengths(planning, &own));
    MHP_TRY(out, level_links(costs));
    MHP_TRY(out, mhp_cost_model_create(costs, from, (int)costs->stages.count, &model));
    MHP_TRY(out, from_layers < layers ? mhp_cost_model_deepen(model, (double)(layers - from_layers)) : MHP_OK);
    MHP_TRY(out, mhp_cost_model_cut(model, own, stage_count, &cut));
    mhp_costs_release(costs);
    *costs = cut;
    cut = (mhp_costs){0};
out:
    mhp_costs_release(&cut);
    mhp_cost_model_destroy(model);
    mhp_free(own);
    mhp_free(from);
    return status;
}

static mhp_status load_costs(const mhp_planning_request *request, mhp_planning *planning)
{
    planning->measured = request->costs != NULL;
    planning->time_unit = planning->measured ? "us" : "";
    if (request->costs) {
        MHP_RETURN_IF_ERROR(mhp_costs_read(request->costs, &planning->costs));
        MHP_RETURN_IF_ERROR(request->costs_layers > 0
                                ? mhp_error_prefix(deepen(request->costs_layers, planning), "%s: ", request->costs)
                                : MHP_OK);
    } else {
        MHP_RETURN_IF_ERROR(mhp_costs_default(&planning->costs));
    }
    MHP_RETURN_IF_ERROR(mhp_costs_check(&planning->costs, planning->plan->rank_count,
                                        planning->plan->stage_count));
    return planning->has_config ? add_sizes(request, planning) : MHP_OK;
}

mhp_status mhp_planning_load(const mhp_planning_request *request, mhp_planning *planning_out)
{
    *planning_out = (mhp_planning){0};
    MHP_RETURN_IF_ERROR(load_plan(request, planning_out));
    return load_costs(request, planning_out);
}

void mhp_planning_release(mhp_planning *planning)
{
    mhp_costs_release(&planning->costs);
    mhp_plan_destroy(planning->plan);
    mhp_layout_release(&planning->layout);
    mhp_config_release(&planning->config);
}

mhp_status mhp_planning_report(const mhp_planning *planning, const mhp_plan *plan,
                               const mhp_costs *costs, int gradient, mhp_plan_report *report_out)
{
    mhp_simulate_params params = {.costs = costs,
                                  .early_gradient = gradient == MHP_GRADIENT_DEFAULT
                                                        ? planning->measured
                                                        : gradient == MHP_GRADIENT_EARLY};

    return mhp_plan_report_create(plan, &params, planning->time_unit, report_out);
}

/* ---- other cuts ---- */

mhp_status mhp_planning_cut(const mhp_planning *planning, int stage_count, mhp_costs *costs_out)
{
    int own_count = planning->plan->stage_count;
    double *own = NULL, *other = NULL;
    mhp_cost_model *model = NULL;
    mhp_status status = MHP_OK;

    *costs_out = (mhp_costs){0};
    MHP_TRY(out, mhp_planning_lengths(planning, &own));
    MHP_TRY(out, mhp_cost_model_create(&planning->costs, own, own_count, &model));
    if (stage_count == own_count) {
        MHP_TRY(out, mhp_cost_model_cut(model, own, own_count, costs_out));
    } else if (planning->has_config) {
        MHP_TRY(out, even_lengths(planning->config.model.num_hidden_layers, stage_count, &other));
        MHP_TRY(out, mhp_cost_model_cut(model, other, stage_count, costs_out));
    } else {
        MHP_TRY(out, mhp_cost_model_cut_evenly(model, stage_count, costs_out));
    }
out:
    mhp_cost_model_destroy(model);
    mhp_free(own);
    mhp_free(other);
    return status;
}

/* ---- output ---- */

static mhp_status write_file(const char *path, mhp_write_fn write, void *context)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    mhp_status status;

    if (!stream) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot write %s: %s", path, strerror(errno));
    }
    status = write(context, stream);
    if (fclose(stream) != 0 && status == MHP_OK) {
        status = mhp_error_set(MHP_ERR_NO_MEMORY, "cannot write %s: %s", path, strerror(errno));
    }
    if (status == MHP_OK) {
        status = mhp_file_write_atomic(path, text, size);
    }
    free(text);
    return status;
}

mhp_status mhp_write_output(const char *path, mhp_write_fn write, void *context)
{
    return path ? write_file(path, write, context) : write(context, stdout);
}
