#include "launch/run_report.h"

#include "core/file.h"
#include "core/memory.h"
#include "runtime/memory_costs.h"
#include "runtime/profile/identity.h"

static mhp_status read_config(mhp_run_report *run)
{
    MHP_RETURN_IF_ERROR(mhp_config_load_saved(&run->config, run->directory));
    return mhp_layout_create(&run->config.model, &run->config.parallel, &run->config.schedule,
                             &run->layout);
}

static mhp_status read_metrics(mhp_run_report *run)
{
    const mhp_trace *trace = &run->traces.ranks[0];

    MHP_RETURN_IF_ERROR(mhp_run_metrics_read(run->directory, trace->first_step + 1, trace->step_count, &run->metrics));
    return mhp_report_energy_create(&run->analysis, &run->metrics, run->directory, &run->energy);
}

static mhp_status read_traces(mhp_run_report *run, const mhp_memory_params *params)
{
    mhp_status status = MHP_OK;
    char *folder = NULL;
    mhp_hash identity;

    MHP_TRY(out, mhp_asprintf(&folder, "%s/profile", run->directory));
    MHP_TRY(out, mhp_profile_identity(params, &identity));
    MHP_TRY(out, mhp_trace_set_read(folder, &run->traces));
    if (!mhp_hash_equal(run->traces.ranks[0].identity, identity)) {
        MHP_RAISE(out, MHP_ERR_FORMAT,
                  "the traces in %s are of another model, layout, schedule or batch than "
                  "%s/config.resolved.yaml: expected those of its own run",
                  folder, run->directory);
    }
    MHP_TRY(out, mhp_error_prefix(mhp_analyse(&run->traces, &run->analysis), "%s: ", folder));
out:
    mhp_free(folder);
    return status;
}

mhp_status mhp_run_report_read(const char *directory, mhp_run_report *run)
{
    mhp_memory_params memory = {&run->layout, &run->config.model, &run->config.parallel,
                                &run->config.schedule, &run->config.train};

    *run = (mhp_run_report){.directory = directory};
    MHP_RETURN_IF_ERROR(read_config(run));
    MHP_RETURN_IF_ERROR(read_traces(run, &memory));
    MHP_RETURN_IF_ERROR(mhp_memory_costs(&memory, false, &run->sizes));
    MHP_RETURN_IF_ERROR(read_metrics(run));
    MHP_RETURN_IF_ERROR(mhp_error_prefix(
        mhp_profile_report_create(&run->analysis, run->layout.plan, &run->sizes, &run->report),
        "%s: ", run->directory));
    run->report.energy = &run->energy;
    return MHP_OK;
}

void mhp_run_report_release(mhp_run_report *run)
{
    mhp_report_energy_release(&run->energy);
    mhp_run_metrics_release(&run->metrics);
    mhp_profile_report_release(&run->report);
    mhp_analysis_release(&run->analysis);
    mhp_trace_set_release(&run->traces);
    mhp_costs_release(&run->sizes);
    mhp_layout_release(&run->layout);
    mhp_config_release(&run->config);
}

mhp_status mhp_run_report_write(mhp_run_report *run, const char *name, mhp_write_fn write)
{
    mhp_status status = MHP_OK;
    char *path = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/%s", run->directory, name));
    MHP_TRY(out, mhp_write_output(path, write, run));
out:
    mhp_free(path);
    return status;
}

mhp_status mhp_run_report_write_page(void *context, FILE *stream)
{
    const mhp_run_report *run = context;

    return mhp_profile_report_page(&run->report, &run->metrics, stream);
}

mhp_status mhp_run_report_write_costs(void *context, FILE *stream)
{
    const mhp_run_report *run = context;

    return mhp_costs_write(&run->report.measured.costs, stream);
}
