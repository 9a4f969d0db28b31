#include "runtime/profile/identity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/folder.h"
#include "core/memory.h"
#include "model/options.h"
#include "runtime/profile/trace.h"
#include "scheduler/yaml.h"

static mhp_status print(const mhp_memory_params *params, FILE *stream)
{
    mhp_schedule_params schedule = *params->schedule;
    mhp_train_params train = *params->train;
    mhp_plan plan = *params->layout->plan;
    char nothing[] = "";

    schedule.file = nothing; /* wherever it lies, and what it is called */
    plan.name[0] = '\0';
    train.steps = 1;
    MHP_RETURN_IF_ERROR(mhp_options_print(mhp_model_options, params->model, stream));
    MHP_RETURN_IF_ERROR(mhp_options_print(mhp_parallel_options, params->parallel, stream));
    MHP_RETURN_IF_ERROR(mhp_options_print(mhp_schedule_options, &schedule, stream));
    MHP_RETURN_IF_ERROR(mhp_options_print(mhp_train_options, &train, stream));
    return mhp_plan_write_yaml(&plan, stream);
}

mhp_status mhp_profile_identity(const mhp_memory_params *params, mhp_hash *identity_out)
{
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    mhp_status status;

    if (!stream) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot print the configuration: %s", strerror(errno));
    }
    status = print(params, stream);
    if (fclose(stream) != 0 && status == MHP_OK) {
        status = mhp_error_set(MHP_ERR_NO_MEMORY, "cannot print the configuration: %s", strerror(errno));
    }
    if (status == MHP_OK) {
        *identity_out = mhp_hash_bytes(text, length);
    }
    free(text);
    return status;
}

mhp_status mhp_profile_remove(const char *directory)
{
    static const char *const names[] = {"profile", "report.json", "report.html"};

    return mhp_folder_remove_names(directory, names, sizeof names / sizeof *names);
}

/* Whether rank 0's trace, which stands for all, is the run's own. One that cannot be read is not. */
static bool is_own(const char *path, mhp_hash identity, int64_t first_step)
{
    mhp_trace trace = {0};
    bool own = mhp_trace_read_head(path, &trace) == MHP_OK && mhp_hash_equal(trace.identity, identity) &&
               trace.first_step + trace.step_count <= first_step;

    mhp_trace_release(&trace);
    return own;
}

mhp_status mhp_profile_begin(const char *directory, mhp_hash identity, int64_t first_step)
{
    char *folder = NULL, *path = NULL;
    mhp_status status;

    MHP_TRY(out, mhp_asprintf(&folder, "%s/profile", directory));
    MHP_TRY(out, mhp_trace_path(folder, 0, &path));
    if (!is_own(path, identity, first_step)) {
        MHP_TRY(out, mhp_profile_remove(directory));
    }
out:
    mhp_free(path);
    mhp_free(folder);
    return status;
}
