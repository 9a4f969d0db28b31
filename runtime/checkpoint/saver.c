#include "runtime/checkpoint/saver.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/file.h"
#include "core/folder.h"
#include "core/memory.h"
#include "runtime/checkpoint/catalog.h"
#include "runtime/checkpoint/parts.h"
#include "runtime/model_file.h"

enum { ROOT = 0, POLL_NS = 2000000, MOMENT_NS = 50000000, SECOND_NS = 1000000000 };

typedef enum saver_phase {
    PHASE_IDLE,
    PHASE_WRITING,                  /* this rank's part */
    PHASE_COMPLETING,               /* rank 0: waits for the others and puts everything together */
} saver_phase;

struct mhp_saver {
    mhp_saver_params params;
    mhp_checkpoint_parts *parts;
    mhp_checkpoint_state state;     /* of the checkpoint under way */
    char *work;                     /* its folder */
    mhp_manifest own;               /* this rank's part of the manifest; the thread's */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;           /* of all below */
    pthread_cond_t changed;
    saver_phase phase;
    bool stopping, cancelled;
    mhp_status status;              /* of the last checkpoint on this rank */
    char error[MHP_ERROR_TEXT_MAX];
    mhp_saver_stats stats;
};

static int rank_of(const mhp_saver *saver)
{
    return saver->params.store->world_rank;
}

static mhp_status agree(const mhp_saver *saver, mhp_status status)
{
    return mhp_comm_agree(saver->params.store->params.comm, status, NULL);
}

/* ---- the thread: this rank's files ---- */

static void file_name(int kind, int rank, int rank_count, char name[MHP_MANIFEST_NAME_MAX])
{
    static const char *const stems[MHP_PART_KINDS] = {"model", "optimizer"};

    snprintf(name, MHP_MANIFEST_NAME_MAX, "%s-%05d-of-%05d.safetensors", stems[kind], rank + 1, rank_count);
}

static size_t piece_bytes(const mhp_checkpoint_piece *piece)
{
    return (size_t)piece->tensor.count * mhp_dtype_bytes(piece->tensor.info.dtype);
}

static mhp_status hash_pieces(mhp_saver *saver, int kind)
{
    size_t count;
    const mhp_checkpoint_piece *pieces = mhp_checkpoint_parts_pieces(saver->parts, &count);

    for (size_t i = 0; i < count; i++) {
        mhp_manifest_tensor tensor = pieces[i].tensor;

        if (pieces[i].kind != kind) {
            continue;
        }
        tensor.file = saver->own.file_count - 1;
        tensor.hash = mhp_hash_bytes(pieces[i].data, piece_bytes(&pieces[i]));
        MHP_RETURN_IF_ERROR(mhp_manifest_add_tensor(&saver->own, &tensor));
    }
    return MHP_OK;
}

static mhp_status write_file(mhp_saver *saver, int kind)
{
    static const char *const metadata[] = {"format", "pt", NULL};
    mhp_status status = MHP_OK;
    mhp_safetensors_writer *writer = NULL;
    mhp_tensor_info *infos = NULL;
    char name[MHP_MANIFEST_NAME_MAX];
    char *path = NULL;
    size_t count, bytes, info_count = 0;
    const mhp_checkpoint_piece *pieces = mhp_checkpoint_parts_pieces(saver->parts, &count);
    const char *image = mhp_checkpoint_parts_image(saver->parts, kind, &bytes);

    MHP_TRY(out, mhp_calloc(&infos, count, sizeof *infos));
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].kind == kind) {
            MHP_TRY(out, mhp_manifest_stored_info(&pieces[i].tensor, &infos[info_count++]));
        }
    }
    file_name(kind, rank_of(saver), saver->params.store->world_size, name);
    MHP_TRY(out, mhp_asprintf(&path, "%s/%s", saver->work, name));
    MHP_TRY(out, mhp_safetensors_create(path, infos, info_count, metadata, &writer));
    MHP_TRY(out, mhp_manifest_add_file(&saver->own, name, mhp_safetensors_writer_header_hash(writer)));
    MHP_TRY(out, hash_pieces(saver, kind));
    MHP_TRY(out, mhp_safetensors_write(writer, image, bytes));
    saver->stats.bytes += bytes;
    status = mhp_safetensors_finish(writer);
    writer = NULL;
out:
    mhp_safetensors_abandon(writer);
    mhp_free(path);
    mhp_free(infos);
    return status;
}

static mhp_status part_path(const mhp_saver *saver, int rank, char **path_out)
{
    return mhp_asprintf(path_out, "%s/rank-%05d.json", saver->work, rank);
}

static mhp_status write_part(mhp_saver *saver)
{
    mhp_status status = MHP_OK;
    char *path = NULL;

    mhp_manifest_release(&saver->own);
    saver->own.state = saver->state;
    saver->own.rank_count = saver->params.store->world_size;
    for (int kind = 0; kind < MHP_PART_KINDS; kind++) {
        MHP_TRY(out, write_file(saver, kind));
    }
    MHP_TRY(out, part_path(saver, rank_of(saver), &path));
    MHP_TRY(out, mhp_manifest_write(&saver->own, path, NULL));
out:
    mhp_free(path);
    return status;
}

/* ---- the thread of rank 0: the whole ---- */

static bool is_cancelled(mhp_saver *saver)
{
    bool cancelled;

    pthread_mutex_lock(&saver->lock);
    cancelled = saver->cancelled || saver->stopping;
    pthread_mutex_unlock(&saver->lock);
    return cancelled;
}

/* Waits for a rank's part, merges and removes it. */
static mhp_status merge_part(mhp_saver *saver, int rank, mhp_manifest *whole)
{
    const struct timespec pause = {0, POLL_NS};
    mhp_status status = MHP_OK;
    mhp_manifest part = {0};
    char *path = NULL;

    MHP_TRY(out, part_path(saver, rank, &path));
    while (!mhp_file_exists(path)) {
        if (is_cancelled(saver)) {
            MHP_RAISE(out, MHP_ERR_PEER, "the checkpoint of step %lld was given up", (long long)saver->state.step);
        }
        nanosleep(&pause, NULL);
    }
    MHP_TRY(out, mhp_manifest_read(path, &part, NULL));
    MHP_TRY(out, mhp_manifest_merge(whole, &part));
    MHP_TRY(out, mhp_folder_remove(path));
out:
    mhp_manifest_release(&part);
    mhp_free(path);
    return status;
}

/* Adds a small file that lies in the work folder already. */
static mhp_status add_plain_file(mhp_saver *saver, mhp_manifest *whole, const char *name)
{
    mhp_status status = MHP_OK;
    char *path = NULL;
    char *text = NULL;
    size_t size = 0;

    MHP_TRY(out, mhp_asprintf(&path, "%s/%s", saver->work, name));
    MHP_TRY(out, mhp_file_read_all(path, MHP_MANIFEST_BYTES_MAX, &text, &size));
    MHP_TRY(out, mhp_manifest_add_file(whole, name, mhp_hash_bytes(text, size)));
out:
    mhp_free(text);
    mhp_free(path);
    return status;
}

/* Hugging Face's index of a model in several files. */
static mhp_status write_index(mhp_saver *saver, const mhp_manifest *whole)
{
    mhp_status status = MHP_OK;
    json_t *map = json_object();
    json_t *root = NULL;
    char *text = NULL;
    char *path = NULL;
    int64_t bytes = 0;

    for (size_t i = 0; map && i < whole->tensor_count; i++) {
        const mhp_manifest_tensor *tensor = &whole->tensors[i];

        if (strncmp(whole->files[tensor->file].name, "model-", 6) == 0) {
            json_object_set_new(map, tensor->info.name, json_string(whole->files[tensor->file].name));
            bytes += tensor->count * (int64_t)mhp_dtype_bytes(tensor->info.dtype);
        }
    }
    root = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)bytes, "weight_map", map);
    text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    if (!text) {
        MHP_RAISE(out, MHP_ERR_NO_MEMORY, "cannot build the index of %s", saver->work);
    }
    MHP_TRY(out, mhp_asprintf(&path, "%s/" MHP_MODEL_INDEX_NAME, saver->work));
    MHP_TRY(out, mhp_file_write_atomic(path, text, strlen(text)));
out:
    json_decref(root);
    free(text);
    mhp_free(path);
    return status;
}

static mhp_status complete(mhp_saver *saver)
{
    mhp_status status = MHP_OK;
    const mhp_store *store = saver->params.store;
    mhp_manifest whole = {.state = saver->state, .rank_count = store->world_size};
    mhp_hash checksum;
    char *path = NULL;

    for (int rank = 0; rank < store->world_size; rank++) {
        MHP_TRY(out, merge_part(saver, rank, &whole));
    }
    MHP_TRY(out, mhp_model_config_write(saver->work, store->params.model));
    MHP_TRY(out, write_index(saver, &whole));
    MHP_TRY(out, add_plain_file(saver, &whole, "config.json"));
    MHP_TRY(out, add_plain_file(saver, &whole, MHP_MODEL_INDEX_NAME));
    MHP_TRY(out, mhp_asprintf(&path, "%s/manifest.json", saver->work));
    MHP_TRY(out, mhp_manifest_write(&whole, path, &checksum));
    MHP_TRY(out, mhp_catalog_commit(saver->params.run, saver->state.step, checksum));
out:
    mhp_free(path);
    mhp_manifest_release(&whole);
    return status;
}

/* ---- the thread ---- */

static void set_phase(mhp_saver *saver, saver_phase phase, mhp_status status)
{
    pthread_mutex_lock(&saver->lock);
    saver->phase = phase;
    if (status < 0) {
        saver->status = status;
        snprintf(saver->error, sizeof saver->error, "%s", mhp_error_text());
    }
    pthread_cond_broadcast(&saver->changed);
    pthread_mutex_unlock(&saver->lock);
}

/* Processor time of the calling thread. */
static double cpu_seconds(void)
{
    struct timespec used = {0, 0};

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / SECOND_NS;
}

static void write_checkpoint(mhp_saver *saver)
{
    uint64_t start_ns = mhp_time_ns();
    double start_cpu_s = cpu_seconds();
    mhp_status status = write_part(saver);

    if (status == MHP_OK && rank_of(saver) == ROOT) {
        set_phase(saver, PHASE_COMPLETING, MHP_OK);
        status = complete(saver);
    }
    saver->stats.write_s = (double)(mhp_time_ns() - start_ns) * 1e-9;
    if (status == MHP_OK && rank_of(saver) == ROOT) {
        status = mhp_catalog_retain(saver->params.run, saver->params.keep_last, saver->params.keep_every);
    }
    saver->stats.remove_s = (double)(mhp_time_ns() - start_ns) * 1e-9 - saver->stats.write_s;
    saver->stats.cpu_s = cpu_seconds() - start_cpu_s;
    set_phase(saver, PHASE_IDLE, status);
}

static void *run_thread(void *context)
{
    mhp_saver *saver = context;

    pthread_mutex_lock(&saver->lock);
    while (!saver->stopping) {
        if (saver->phase != PHASE_WRITING) {
            pthread_cond_wait(&saver->changed, &saver->lock);
            continue;
        }
        pthread_mutex_unlock(&saver->lock);
        write_checkpoint(saver);
        pthread_mutex_lock(&saver->lock);
    }
    pthread_mutex_unlock(&saver->lock);
    return NULL;
}

static mhp_status start_thread(mhp_saver *saver)
{
    int error = pthread_create(&saver->thread, NULL, run_thread, saver);

    if (error != 0) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot start the thread that writes checkpoints: %s", strerror(error));
    }
    saver->started = true;
    return MHP_OK;
}

mhp_status mhp_saver_create(const mhp_saver_params *params, mhp_saver **saver_out)
{
    mhp_status status = MHP_OK;
    mhp_saver *saver = NULL;

    MHP_RETURN_IF_ERROR(mhp_calloc(&saver, 1, sizeof *saver));
    saver->params = *params;
    pthread_mutex_init(&saver->lock, NULL);
    pthread_cond_init(&saver->changed, NULL);
    status = mhp_checkpoint_parts_create(params->store, params->optimizer, &saver->parts);
    if (status == MHP_OK && rank_of(saver) == ROOT) {
        status = mhp_catalog_clean(params->run);
    }
    if (status == MHP_OK) {
        status = start_thread(saver);
    }
    MHP_TRY(out, agree(saver, status));
    *saver_out = saver;
    saver = NULL;
out:
    mhp_saver_destroy(saver);
    return status;
}

void mhp_saver_destroy(mhp_saver *saver)
{
    if (!saver) {
        return;
    }
    if (saver->started) {
        pthread_mutex_lock(&saver->lock);
        saver->stopping = true;
        pthread_cond_broadcast(&saver->changed);
        pthread_mutex_unlock(&saver->lock);
        pthread_join(saver->thread, NULL);
    }
    pthread_cond_destroy(&saver->changed);
    pthread_mutex_destroy(&saver->lock);
    mhp_manifest_release(&saver->own);
    mhp_checkpoint_parts_destroy(saver->parts);
    mhp_free(saver->work);
    mhp_free(saver);
}

/* ---- the host thread ---- */

/* The last checkpoint's status with its text; the lock is held. */
static mhp_status surface(const mhp_saver *saver)
{
    return saver->status < 0 ? mhp_error_set(saver->status, "%s", saver->error) : MHP_OK;
}

mhp_status mhp_saver_check(mhp_saver *saver)
{
    mhp_status status;

    pthread_mutex_lock(&saver->lock);
    status = surface(saver);
    pthread_mutex_unlock(&saver->lock);
    return status;
}

/* Waits at most a moment for a change; the lock is held. */
static void wait_a_moment(mhp_saver *saver)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += MOMENT_NS;
    if (until.tv_nsec >= SECOND_NS) {
        until.tv_sec++;
        until.tv_nsec -= SECOND_NS;
    }
    (void)pthread_cond_timedwait(&saver->changed, &saver->lock, &until);
}

/* Also ends when another rank is known to have failed, for its part would never come. */
static mhp_status wait_while(mhp_saver *saver, saver_phase first, saver_phase second)
{
    mhp_status status = MHP_OK;

    pthread_mutex_lock(&saver->lock);
    while (status == MHP_OK && (saver->phase == first || saver->phase == second)) {
        wait_a_moment(saver);
        status = mhp_comm_check(saver->params.store->params.comm);
    }
    status = status == MHP_OK ? surface(saver) : status;
    pthread_mutex_unlock(&saver->lock);
    return status;
}

/* In two rounds: if a rank's part failed, rank 0 would wait for it in vain. */
mhp_status mhp_saver_wait(mhp_saver *saver)
{
    mhp_status status = agree(saver, wait_while(saver, PHASE_WRITING, PHASE_WRITING));

    if (status < 0) {
        pthread_mutex_lock(&saver->lock);
        saver->cancelled = true;
        pthread_mutex_unlock(&saver->lock);
        return status;
    }
    return agree(saver, wait_while(saver, PHASE_WRITING, PHASE_COMPLETING));
}

static mhp_status prepare(mhp_saver *saver, const mhp_checkpoint_state *state)
{
    saver->state = *state;
    mhp_free(saver->work);
    saver->work = NULL;
    MHP_RETURN_IF_ERROR(mhp_catalog_work_path(saver->params.run, state->step, &saver->work));
    if (rank_of(saver) == ROOT) {
        MHP_RETURN_IF_ERROR(mhp_catalog_begin(saver->params.run, state->step));
    }
    return mhp_checkpoint_parts_stage(saver->parts);
}

mhp_status mhp_saver_begin(mhp_saver *saver, const mhp_checkpoint_state *state)
{
    uint64_t start_ns;

    MHP_RETURN_IF_ERROR(mhp_saver_wait(saver));
    start_ns = mhp_time_ns();
    saver->stats.bytes = 0;
    MHP_RETURN_IF_ERROR(agree(saver, prepare(saver, state)));
    saver->stats.stage_s = (double)(mhp_time_ns() - start_ns) * 1e-9;
    set_phase(saver, PHASE_WRITING, MHP_OK);
    return MHP_OK;
}

void mhp_saver_get_stats(mhp_saver *saver, mhp_saver_stats *stats_out)
{
    pthread_mutex_lock(&saver->lock);
    *stats_out = saver->stats;
    pthread_mutex_unlock(&saver->lock);
}
