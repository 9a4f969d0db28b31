#include "runtime/checkpoint.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

enum { STATE_BYTES_MAX = 1 << 16, STATE_VERSION = 1 };

static mhp_status write_state(const char *directory, const mhp_checkpoint_state *state)
{
    mhp_status status = MHP_OK;
    char *path = NULL;
    char *text = NULL;
    json_t *root = json_pack("{s:i, s:I, s:I, s:I}", "version", STATE_VERSION, "step", (json_int_t)state->step, "next_sample",
                             (json_int_t)state->next_sample, "seed", (json_int_t)state->seed);

    if (root && isfinite(state->best_loss)) {
        json_object_set_new(root, "best_loss", json_real(state->best_loss));
    }
    text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    if (!text) {
        MHP_RAISE(out, MHP_ERR_NO_MEMORY, "cannot build state.json for %s", directory);
    }
    MHP_TRY(out, mhp_asprintf(&path, "%s/state.json", directory));
    MHP_TRY(out, mhp_file_write_atomic(path, text, strlen(text)));
out:
    json_decref(root);
    free(text);
    mhp_free(path);
    return status;
}

static mhp_status write_latest(const char *run_directory, int64_t step)
{
    mhp_status status = MHP_OK;
    char *path = NULL;
    char *text = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/checkpoints/latest", run_directory));
    MHP_TRY(out, mhp_asprintf(&text, "step-%08lld\n", (long long)step));
    MHP_TRY(out, mhp_file_write_atomic(path, text, strlen(text)));
out:
    mhp_free(text);
    mhp_free(path);
    return status;
}

mhp_status mhp_checkpoint_save(mhp_store *store, mhp_optimizer *optimizer, const char *run_directory, const mhp_checkpoint_state *state)
{
    mhp_status status = MHP_OK;
    char *directory = NULL;

    MHP_TRY(out, mhp_asprintf(&directory, "%s/checkpoints/step-%08lld", run_directory, (long long)state->step));
    MHP_TRY(out, mhp_model_save(store, directory));
    MHP_TRY(out, mhp_moments_save(store, optimizer, directory));
    if (store->world_rank == 0) {
        status = write_state(directory, state);
        if (status == MHP_OK) {
            status = write_latest(run_directory, state->step);
        }
    }
    status = mhp_comm_agree(store->params.comm, status, NULL);
out:
    mhp_free(directory);
    return status;
}

static bool is_checkpoint(const char *directory)
{
    char *path = NULL;
    bool found = mhp_asprintf(&path, "%s/state.json", directory) == MHP_OK && mhp_file_exists(path);

    mhp_free(path);
    return found;
}

mhp_status mhp_checkpoint_find(const char *path, char **directory_out)
{
    mhp_status status = MHP_OK;
    char *latest = NULL;
    char *name = NULL;
    char *directory = NULL;
    size_t size = 0;

    if (is_checkpoint(path)) {
        return mhp_strdup(directory_out, path);
    }
    MHP_TRY(out, mhp_asprintf(&latest, "%s/checkpoints/latest", path));
    if (!mhp_file_exists(latest)) {
        MHP_RAISE(out, MHP_ERR_NOT_FOUND, "%s is no checkpoint: expected state.json in it, or a run's folder with checkpoints/latest", path);
    }
    MHP_TRY(out, mhp_file_read_all(latest, STATE_BYTES_MAX, &name, &size));
    MHP_TRY(out, mhp_asprintf(&directory, "%s/checkpoints/%.*s", path, (int)strcspn(name, "\n"), name));
    if (!is_checkpoint(directory)) {
        MHP_RAISE(out, MHP_ERR_FORMAT, "%s names %s, where there is no state.json", latest, directory);
    }
    *directory_out = directory;
    directory = NULL;
out:
    mhp_free(directory);
    mhp_free(name);
    mhp_free(latest);
    return status;
}

static mhp_status read_count(const char *path, const json_t *root, const char *key, json_int_t *value_out)
{
    const json_t *value = json_object_get(root, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: key \"%s\" is missing or no count: expected an integer of at least 0", path, key);
    }
    *value_out = json_integer_value(value);
    return MHP_OK;
}

static mhp_status state_from_json(const char *path, const json_t *root, mhp_checkpoint_state *state)
{
    json_int_t version = 0, step = 0, next_sample = 0, seed = 0;
    const json_t *best = json_object_get(root, "best_loss");

    MHP_RETURN_IF_ERROR(read_count(path, root, "version", &version));
    if (version != STATE_VERSION) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s has version %lld: expected %d", path, (long long)version, STATE_VERSION);
    }
    MHP_RETURN_IF_ERROR(read_count(path, root, "step", &step));
    MHP_RETURN_IF_ERROR(read_count(path, root, "next_sample", &next_sample));
    MHP_RETURN_IF_ERROR(read_count(path, root, "seed", &seed));
    *state = (mhp_checkpoint_state){.step = step, .next_sample = (uint64_t)next_sample, .seed = seed,
                                    .best_loss = json_is_number(best) ? json_number_value(best) : INFINITY};
    return MHP_OK;
}

static mhp_status read_state(const char *directory, mhp_checkpoint_state *state_out)
{
    mhp_status status = MHP_OK;
    json_error_t error;
    json_t *root = NULL;
    char *path = NULL;
    char *text = NULL;
    size_t size = 0;

    MHP_TRY(out, mhp_asprintf(&path, "%s/state.json", directory));
    MHP_TRY(out, mhp_file_read_all(path, STATE_BYTES_MAX, &text, &size));
    root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        MHP_RAISE(out, MHP_ERR_FORMAT, "%s:%d:%d: %s: expected a JSON object", path, error.line, error.column, error.text);
    }
    MHP_TRY(out, state_from_json(path, root, state_out));
out:
    json_decref(root);
    mhp_free(text);
    mhp_free(path);
    return status;
}

mhp_status mhp_checkpoint_load(mhp_store *store, mhp_optimizer *optimizer, const char *directory, mhp_checkpoint_state *state_out)
{
    MHP_RETURN_IF_ERROR(read_state(directory, state_out));
    MHP_RETURN_IF_ERROR(mhp_model_load(store, directory));
    return mhp_moments_load(store, optimizer, directory);
}
