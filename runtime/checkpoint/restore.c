#include "runtime/checkpoint/restore.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"
#include "runtime/checkpoint/aside.h"
#include "runtime/checkpoint/catalog.h"
#include "runtime/checkpoint/parts.h"
#include "runtime/checkpoint/reader.h"

enum { ROOT = 0 };

mhp_resume mhp_resume_parse(const char *text)
{
    if (!text || strcmp(text, "never") == 0) {
        return (mhp_resume){.kind = MHP_RESUME_NEVER};
    }
    if (strcmp(text, "auto") == 0) {
        return (mhp_resume){.kind = MHP_RESUME_AUTO};
    }
    if (strcmp(text, "latest") == 0) {
        return (mhp_resume){.kind = MHP_RESUME_LATEST};
    }
    return (mhp_resume){.kind = MHP_RESUME_PATH, .path = text};
}

/* ---- candidates ---- */

/* Checkpoint folders in the order in which they are tried. */
typedef struct candidates {
    char **paths;
    size_t count;
} candidates;

static void release(candidates *list)
{
    for (size_t i = 0; i < list->count; i++) {
        mhp_free(list->paths[i]);
    }
    mhp_free(list->paths);
    *list = (candidates){0};
}

static mhp_status list_latest(const char *run, candidates *list)
{
    int64_t step;

    MHP_RETURN_IF_ERROR(mhp_calloc(&list->paths, 1, sizeof *list->paths));
    MHP_RETURN_IF_ERROR(mhp_catalog_latest(run, &step));
    MHP_RETURN_IF_ERROR(mhp_catalog_path(run, step, &list->paths[0]));
    list->count = 1;
    return MHP_OK;
}

/* Newest first. What `latest` names is the newest of them, unless the run ended between the two steps that complete a checkpoint. */
static mhp_status list_all(const char *run, candidates *list)
{
    mhp_status status = MHP_OK;
    int64_t *steps = NULL;
    int64_t latest;
    size_t count = 0;

    MHP_TRY(out, mhp_catalog_steps(run, &steps, &count));
    if (count > 0 && mhp_catalog_latest(run, &latest) < 0) {
        mhp_log_warn("%s; taking the newest checkpoint there is", mhp_error_text());
    }
    MHP_TRY(out, mhp_calloc(&list->paths, count, sizeof *list->paths));
    for (size_t i = count; i > 0; i--) {
        MHP_TRY(out, mhp_catalog_path(run, steps[i - 1], &list->paths[list->count]));
        list->count++;
    }
out:
    mhp_free(steps);
    return status;
}

static mhp_status list_path(const char *path, candidates *list)
{
    mhp_status status = MHP_OK;
    char *manifest = NULL;
    char *latest = NULL;

    MHP_TRY(out, mhp_asprintf(&manifest, "%s/manifest.json", path));
    MHP_TRY(out, mhp_asprintf(&latest, "%s/checkpoints/latest", path));
    if (mhp_file_exists(manifest)) {
        MHP_TRY(out, mhp_calloc(&list->paths, 1, sizeof *list->paths));
        MHP_TRY(out, mhp_strdup(&list->paths[0], path));
        list->count = 1;
    } else if (mhp_file_exists(latest)) {
        MHP_TRY(out, list_latest(path, list));
    } else {
        MHP_RAISE(out, MHP_ERR_NOT_FOUND, "%s is no checkpoint: expected manifest.json in it, or a run's folder with checkpoints/latest",
                  path);
    }
out:
    mhp_free(latest);
    mhp_free(manifest);
    return status;
}

static mhp_status list_candidates(mhp_resume resume, const char *run, candidates *list)
{
    switch (resume.kind) {
    case MHP_RESUME_AUTO:
        return list_all(run, list);
    case MHP_RESUME_LATEST:
        return list_latest(run, list);
    case MHP_RESUME_PATH:
        return list_path(resume.path, list);
    case MHP_RESUME_NEVER:
        break;
    }
    return MHP_OK;
}

mhp_status mhp_checkpoint_find(mhp_resume resume, const char *run, char **directory_out)
{
    candidates list = {0};
    mhp_status status = list_candidates(resume, run, &list);

    *directory_out = NULL;
    if (status == MHP_OK && list.count > 0) {
        *directory_out = list.paths[0];
        list.paths[0] = NULL;
    }
    release(&list);
    return status;
}

/* ---- loading ---- */

static mhp_status load_range(mhp_store *store, mhp_checkpoint_reader *reader, const mhp_parameter_layout *layout, const char *prefix,
                             int64_t begin, int64_t end, char *image)
{
    size_t size = mhp_dtype_bytes(store->kernels->full_dtype);

    for (int p = 0; p < layout->count; p++) {
        const mhp_parameter *parameter = &layout->items[p];
        int64_t first = parameter->offset > begin ? parameter->offset : begin;
        int64_t last = parameter->offset + parameter->elements < end ? parameter->offset + parameter->elements : end;
        mhp_tensor_info expected = parameter->info;

        if (first >= last) {
            continue;
        }
        snprintf(expected.name, sizeof expected.name, "%s%.*s", prefix, MHP_TENSOR_NAME_MAX - 32, parameter->info.name);
        MHP_RETURN_IF_ERROR(mhp_checkpoint_reader_copy(reader, &expected, first - parameter->offset, last - first,
                                                       image + (size_t)(first - begin) * size));
    }
    return MHP_OK;
}

static mhp_status load_array(mhp_store *store, const mhp_held_stage *held, mhp_checkpoint_reader *reader, const char *prefix, int64_t begin,
                             int64_t count, void *target, mhp_stream *stream)
{
    mhp_status status = MHP_OK;
    size_t bytes = (size_t)count * mhp_dtype_bytes(store->kernels->full_dtype);
    char *image = NULL;

    MHP_TRY(out, mhp_calloc(&image, bytes, 1));
    MHP_TRY(out, load_range(store, reader, mhp_stage_layout(held->stage), prefix, begin, begin + count, image));
    MHP_TRY(out, mhp_stream_copy(stream, target, image, bytes));
    MHP_TRY(out, mhp_stream_synchronize(stream));
out:
    mhp_free(image);
    return status;
}

static mhp_status load_stage(mhp_store *store, mhp_optimizer *optimizer, const mhp_held_stage *held, mhp_checkpoint_reader *reader,
                             mhp_stream *stream)
{
    void *moments[MHP_MOMENT_COUNT];

    mhp_optimizer_moments(optimizer, held, &moments[0], &moments[1]);
    MHP_RETURN_IF_ERROR(load_array(store, held, reader, "", 0, held->chunk * mhp_group_size(held->group), held->parameters, stream));
    for (int k = 0; k < MHP_MOMENT_COUNT; k++) {
        MHP_RETURN_IF_ERROR(load_array(store, held, reader, mhp_moment_prefixes[k], held->chunk * mhp_group_index(held->group), held->chunk,
                                       moments[k], stream));
    }
    MHP_RETURN_IF_ERROR(mhp_store_cast_weights(store, held, stream));
    return mhp_stream_synchronize(stream);
}

/* Every rank by itself. */
static mhp_status load(mhp_store *store, mhp_optimizer *optimizer, const char *directory, mhp_checkpoint_state *state_out)
{
    mhp_status status = MHP_OK;
    mhp_checkpoint_reader *reader = NULL;
    mhp_stream *stream = NULL;

    MHP_TRY(out, mhp_checkpoint_reader_open(directory, &reader));
    MHP_TRY(out, mhp_stream_create(store->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "load", &stream));
    for (int i = 0; i < store->held_count; i++) {
        MHP_TRY(out, load_stage(store, optimizer, &store->held[i], reader, stream));
    }
    *state_out = mhp_checkpoint_reader_manifest(reader)->state;
out:
    mhp_stream_destroy(stream);
    mhp_checkpoint_reader_close(reader);
    return status;
}

/* Tells every rank the path of a candidate that rank 0 has, "" for none. */
static mhp_status share_path(mhp_store *store, const candidates *list, size_t index, char path[PATH_MAX])
{
    mhp_status status = MHP_OK;
    mhp_event *arrived = NULL;
    char *told = NULL;

    if (store->world_rank == ROOT) {
        snprintf(path, PATH_MAX, "%s", index < list->count ? list->paths[index] : "");
    }
    if (store->world_size == 1) {
        return MHP_OK;
    }
    MHP_TRY(out, mhp_calloc(&told, PATH_MAX, 1));
    memcpy(told, path, PATH_MAX);
    MHP_TRY(out, mhp_event_create(store->device, &arrived));
    MHP_TRY(out, mhp_group_broadcast(store->world, told, PATH_MAX, ROOT, NULL, arrived));
    MHP_TRY(out, mhp_event_synchronize(arrived, 0));
    memcpy(path, told, PATH_MAX);
out:
    if (mhp_comm_may_release(store->params.comm, status)) {
        mhp_event_destroy(arrived);
        mhp_free(told);
    }
    return status;
}

static bool is_damage(mhp_status status)
{
    return status == MHP_ERR_FORMAT || status == MHP_ERR_NOT_FOUND || status == MHP_ERR_IO || status == MHP_ERR_LIMIT;
}

/* Loads the first candidate that is intact; `path` is then its folder, "" if there is no candidate at all. */
static mhp_status load_candidates(mhp_store *store, mhp_optimizer *optimizer, const candidates *list, mhp_checkpoint_state *state_out,
                                  char path[PATH_MAX])
{
    for (size_t i = 0;; i++) {
        char next[PATH_MAX] = "";
        mhp_status status;

        MHP_RETURN_IF_ERROR(share_path(store, list, i, path));
        if (path[0] == '\0') {
            return MHP_OK;
        }
        status = mhp_comm_agree(store->params.comm, load(store, optimizer, path, state_out), NULL);
        if (!is_damage(status)) {
            return status;
        }
        MHP_RETURN_IF_ERROR(share_path(store, list, i + 1, next));
        if (next[0] == '\0') {
            return status;
        }
        mhp_log_warn("%s; trying %s", mhp_error_text(), next);
        mhp_comm_forget_failure(store->params.comm);
    }
}

static mhp_status offer_auto(mhp_status status)
{
    char text[MHP_ERROR_TEXT_MAX];

    snprintf(text, sizeof text, "%s", mhp_error_text());
    return mhp_error_set(status, "%s (--resume auto takes the newest intact checkpoint of the run's folder)", text);
}

/* The warnings before said what is wrong with each but the last. Rank 0 has the list. */
static mhp_status refuse_all(mhp_status status, const candidates *list, const char *run)
{
    char text[MHP_ERROR_TEXT_MAX];

    if (list->count == 0) {
        return status;
    }
    snprintf(text, sizeof text, "%s", mhp_error_text());
    if (list->count == 1) {
        return mhp_error_set(status, "the one checkpoint in %s/checkpoints is not intact: remove it, or start without --resume (%s)", run, text);
    }
    return mhp_error_set(status, "none of the %zu checkpoints in %s/checkpoints is intact: remove them, or start without --resume (%s)",
                         list->count, run, text);
}

mhp_status mhp_checkpoint_restore(mhp_store *store, mhp_optimizer *optimizer, mhp_resume resume, const char *run,
                                  mhp_checkpoint_state *state_out, char **directory_out)
{
    mhp_status status = MHP_OK;
    candidates list = {0};
    char path[PATH_MAX] = "";

    *directory_out = NULL;
    MHP_TRY(out, mhp_comm_agree(store->params.comm, store->world_rank == ROOT ? list_candidates(resume, run, &list) : MHP_OK, NULL));
    MHP_TRY(out, load_candidates(store, optimizer, &list, state_out, path));
    if (path[0] != '\0') {
        MHP_TRY(out, mhp_strdup(directory_out, path));
    }
out:
    if (is_damage(status)) {
        status = resume.kind == MHP_RESUME_AUTO ? refuse_all(status, &list, run) : offer_auto(status);
    }
    release(&list);
    return status;
}

/* ---- what the folder holds besides ---- */

static const char *plural(size_t count)
{
    return count == 1 ? "" : "s";
}

/* Whether `directory` is a checkpoint of the run in `run`. */
static bool is_own(const char *run, const char *directory, int64_t step)
{
    char *path = NULL, *own = NULL, *given = NULL;
    bool same = false;

    if (mhp_catalog_path(run, step, &path) == MHP_OK) {
        own = realpath(path, NULL);
        given = realpath(directory, NULL);
        same = own && given && strcmp(own, given) == 0;
    }
    free(given);
    free(own);
    mhp_free(path);
    return same;
}

static mhp_status make_latest(const char *run, const char *directory, int64_t step)
{
    mhp_status status = MHP_OK;
    mhp_manifest manifest = {0};
    mhp_aside aside = {0};
    mhp_hash checksum;
    char *path = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/manifest.json", directory));
    MHP_TRY(out, mhp_manifest_read(path, &manifest, &checksum));
    MHP_TRY(out, mhp_put_aside_after(run, step, &aside));
    MHP_TRY(out, mhp_catalog_set_latest(run, step, checksum));
    if (aside.any) {
        mhp_log_warn("%s: %zu checkpoint%s behind step %lld put aside as checkpoints/abandoned-step-*%s", run, aside.checkpoints,
                     plural(aside.checkpoints), (long long)step, aside.suffix);
    }
out:
    mhp_manifest_release(&manifest);
    mhp_free(path);
    return status;
}

/* None of it may be taken for this run's. */
static mhp_status leave_behind(mhp_resume resume, const char *run)
{
    mhp_aside aside;
    char *path = NULL;

    MHP_RETURN_IF_ERROR(mhp_put_aside_run(run, &aside));
    if (aside.checkpoints == 0) {
        if (aside.any) {
            mhp_log_warn("%s: metrics and best model of an earlier run, which left no checkpoint, put aside as abandoned-*%s", run,
                         aside.suffix);
        }
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_catalog_path(run, aside.newest, &path));
    mhp_log_warn("%s: %zu checkpoint%s of an earlier run put aside as abandoned-*%s, with its metrics and best model; %s"
                 "--resume %s/checkpoints/abandoned-%s%s continues it", run, aside.checkpoints, plural(aside.checkpoints), aside.suffix,
                 resume.kind == MHP_RESUME_NEVER ? "--resume auto would have continued it, and " : "", run, strrchr(path, '/') + 1,
                 aside.suffix);
    mhp_free(path);
    return MHP_OK;
}

mhp_status mhp_checkpoint_adopt(mhp_resume resume, const char *run, const char *directory, int64_t step)
{
    return directory && is_own(run, directory, step) ? make_latest(run, directory, step) : leave_behind(resume, run);
}

mhp_status mhp_checkpoint_verify(const char *directory, mhp_manifest *manifest_out)
{
    mhp_status status = MHP_OK;
    mhp_checkpoint_reader *reader = NULL;
    char *path = NULL;

    *manifest_out = (mhp_manifest){0};
    MHP_TRY(out, mhp_checkpoint_reader_open(directory, &reader));
    MHP_TRY(out, mhp_checkpoint_reader_verify(reader));
    MHP_TRY(out, mhp_asprintf(&path, "%s/manifest.json", directory));
    MHP_TRY(out, mhp_manifest_read(path, manifest_out, NULL));
out:
    mhp_free(path);
    mhp_checkpoint_reader_close(reader);
    return status;
}
