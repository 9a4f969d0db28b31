#include "launch/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/folder.h"
#include "core/memory.h"
#include "scheduler/csv.h"

#define SECTION(name, table_of, text)                                                              \
    {                                                                                              \
        .key = #name, .type = MHP_OPTION_SECTION, .offset = offsetof(mhp_config, name),            \
        .section = (table_of), .help = (text)                                                      \
    }

const mhp_option mhp_config_options[] = {
    SECTION(model, mhp_model_options, "the architecture, under Hugging Face's names"),
    SECTION(data, mhp_data_options, "what is trained on"),
    SECTION(parallel, mhp_parallel_options, "how the run is laid out over ranks"),
    SECTION(schedule, mhp_schedule_options, "the order of forward and backward passes"),
    SECTION(optimizer, mhp_optimizer_options, "AdamW and the learning rate"),
    SECTION(train, mhp_train_options, "length and size of the run"),
    SECTION(watch, mhp_watch_options, "when a run that stands still is ended"),
    SECTION(eval, mhp_eval_options, "the held-out loss"),
    SECTION(checkpoint, mhp_checkpoint_options, "when the run's state is saved"),
    SECTION(log, mhp_log_options, "where the run's files go and what is printed"),
    SECTION(report, mhp_report_options, "what is told of the run"),
    SECTION(profile, mhp_profile_options, "recording of some steps"),
    {.key = "fault", .type = MHP_OPTION_SECTION_LIST, .offset = offsetof(mhp_config, fault), .default_text = "[]",
     .section = mhp_fault_options, .section_bytes = sizeof(mhp_fault), .help = "faults on order, for tests"},
    {.key = NULL},
};

/* What is counted in int, kernels' workspaces among it, has room for these. */
enum { MICROBATCH_TOKENS_MAX = 1 << 23 };

static mhp_status check_microbatch(const mhp_train_params *train)
{
    int64_t tokens = train->micro_batch_size * train->sequence_length;

    if (tokens > MICROBATCH_TOKENS_MAX) {
        return mhp_error_set(MHP_ERR_CONFIG, "train.micro_batch_size x train.sequence_length is %lld tokens: expected at most %d",
                             (long long)tokens, MICROBATCH_TOKENS_MAX);
    }
    return MHP_OK;
}

static mhp_status check_log(const mhp_log_params *log)
{
    return log->dir[0] != '\0' ? MHP_OK : mhp_error_set(MHP_ERR_CONFIG, "log.dir is \"\": expected the path of a folder");
}

enum { CUDA_HEAD_DIM_MAX = 256 };       /* of the kernels of attention */

/* What a device computes in, and which widths. */
static mhp_status check_device(const mhp_config *config)
{
    const mhp_model_params *model = &config->model;
    bool cuda = config->parallel.device == MHP_DEVICE_CUDA;

    if (!cuda && model->dtype == MHP_DTYPE_BF16) {
        return mhp_error_set(MHP_ERR_CONFIG, "model.dtype is bf16 and parallel.device a CPU: expected "
                                             "f32 or f64, or parallel.device: cuda");
    }
    if (cuda && model->dtype == MHP_DTYPE_F64) {
        return mhp_error_set(MHP_ERR_CONFIG, "model.dtype is f64 and parallel.device is cuda: expected "
                                             "bf16 or f32, or parallel.device: cpu");
    }
    if (cuda && model->hidden_size % 8 != 0) {
        return mhp_error_set(MHP_ERR_CONFIG, "model.hidden_size is %lld and parallel.device is cuda: "
                                             "expected a multiple of 8",
                             (long long)model->hidden_size);
    }
    if (cuda && model->head_dim > CUDA_HEAD_DIM_MAX) {
        return mhp_error_set(MHP_ERR_CONFIG, "model.head_dim is %lld and parallel.device is cuda: expected at most %d",
                             (long long)model->head_dim, CUDA_HEAD_DIM_MAX);
    }
    return MHP_OK;
}

mhp_status mhp_config_load(mhp_config *config, const char *path, char *const *overrides,
                           size_t override_count)
{
    MHP_RETURN_IF_ERROR(
        mhp_options_load(mhp_config_options, config, path, overrides, override_count));
    MHP_RETURN_IF_ERROR(mhp_error_prefix(mhp_model_params_resolve(&config->model), "%s: ", path));
    MHP_RETURN_IF_ERROR(mhp_error_prefix(check_microbatch(&config->train), "%s: ", path));
    MHP_RETURN_IF_ERROR(mhp_error_prefix(mhp_optimizer_params_check(&config->optimizer), "%s: ", path));
    MHP_RETURN_IF_ERROR(mhp_error_prefix(check_log(&config->log), "%s: ", path));
    return mhp_error_prefix(check_device(config), "%s: ", path);
}

void mhp_config_release(mhp_config *config)
{
    mhp_options_release(mhp_config_options, config);
}

/* The text is released with free. */
static mhp_status print_to_text(const mhp_config *config, char **text_out, size_t *length_out)
{
    mhp_status status = MHP_OK;
    FILE *stream = open_memstream(text_out, length_out);

    if (!stream) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot print the configuration: %s",
                             strerror(errno));
    }
    status = mhp_options_print(mhp_config_options, config, stream);
    if (fclose(stream) != 0 && status == MHP_OK) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot print the configuration: %s",
                             strerror(errno));
    }
    return status;
}

mhp_status mhp_config_checksum(const mhp_config *config, char text[MHP_HASH_TEXT_MAX])
{
    mhp_status status = MHP_OK;
    char *printed = NULL;
    size_t length = 0;

    MHP_TRY(out, print_to_text(config, &printed, &length));
    mhp_hash_print(mhp_hash_bytes(printed, length), text);
out:
    free(printed);
    return status;
}

/* Under its own name, which is the plan's if it has no other. */
static mhp_status copy_path(const char *file, const char *directory, char **path_out)
{
    const char *slash = strrchr(file, '/');

    return mhp_asprintf(path_out, "%s/schedule.resolved/%s", directory, slash ? slash + 1 : file);
}

/* The file may be an earlier copy: it is read before that goes. */
static mhp_status save_schedule(const char *file, const char *directory)
{
    mhp_status status;
    char *folder = NULL, *path = NULL, *text = NULL;
    size_t length = 0;

    MHP_TRY(out, mhp_asprintf(&folder, "%s/schedule.resolved", directory));
    if (file[0] != '\0') {
        MHP_TRY(out, mhp_file_read_all(file, MHP_CSV_BYTES_MAX, &text, &length));
    }
    MHP_TRY(out, mhp_folder_remove(folder));
    if (file[0] != '\0') {
        MHP_TRY(out, copy_path(file, directory, &path));
        MHP_TRY(out, mhp_mkdirs(folder));
        MHP_TRY(out, mhp_file_write_atomic(path, text, length));
    }
out:
    mhp_free(text);
    mhp_free(path);
    mhp_free(folder);
    return status;
}

mhp_status mhp_config_save(const mhp_config *config, const char *directory)
{
    mhp_status status = MHP_OK;
    char *path = NULL, *text = NULL;
    size_t length = 0;

    MHP_TRY(out, print_to_text(config, &text, &length));
    MHP_TRY(out, mhp_mkdirs(directory));
    MHP_TRY(out, save_schedule(config->schedule.file, directory));
    MHP_TRY(out, mhp_asprintf(&path, "%s/config.resolved.yaml", directory));
    MHP_TRY(out, mhp_file_write_atomic(path, text, length));
out:
    free(text);
    mhp_free(path);
    return status;
}

mhp_status mhp_config_load_saved(mhp_config *config, const char *directory)
{
    mhp_status status;
    char *path = NULL, *copy = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/config.resolved.yaml", directory));
    if (!mhp_file_exists(path)) {
        MHP_RAISE(out, MHP_ERR_NOT_FOUND, "there is no %s: expected the folder of a run (log.dir)", path);
    }
    MHP_TRY(out, mhp_config_load(config, path, NULL, 0));
    if (config->schedule.file[0] != '\0') {
        MHP_TRY(out, copy_path(config->schedule.file, directory, &copy));
        mhp_free(config->schedule.file);
        config->schedule.file = copy;
        copy = NULL;
    }
out:
    mhp_free(copy);
    mhp_free(path);
    return status;
}
