#include "runtime/checkpoint/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/folder.h"
#include "core/memory.h"

#define STEP_PREFIX "step-"
#define WORK_PREFIX "." STEP_PREFIX

enum { STEP_DIGITS_MIN = 8, STEP_DIGITS_MAX = 18, LATEST_BYTES_MAX = 256 };

mhp_status mhp_catalog_path(const char *run, int64_t step, char **path_out)
{
    return mhp_asprintf(path_out, "%s/checkpoints/" STEP_PREFIX "%0*lld", run, STEP_DIGITS_MIN, (long long)step);
}

mhp_status mhp_catalog_work_path(const char *run, int64_t step, char **path_out)
{
    return mhp_asprintf(path_out, "%s/checkpoints/" WORK_PREFIX "%0*lld.tmp", run, STEP_DIGITS_MIN, (long long)step);
}

/* The step of a name that this module would give, or -1. */
static int64_t step_of_name(const char *name)
{
    const char *digits = name + sizeof STEP_PREFIX - 1;
    size_t length;

    if (strncmp(name, STEP_PREFIX, sizeof STEP_PREFIX - 1) != 0) {
        return -1;
    }
    length = strspn(digits, "0123456789");
    if (length < STEP_DIGITS_MIN || length > STEP_DIGITS_MAX || digits[length] != '\0' || (length > STEP_DIGITS_MIN && digits[0] == '0')) {
        return -1;
    }
    return strtoll(digits, NULL, 10);
}

static int order_of_steps(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;

    return (a > b) - (a < b);
}

static bool has_manifest(const char *folder, const char *name)
{
    char *path = NULL;
    bool found = mhp_asprintf(&path, "%s/%s/manifest.json", folder, name) == MHP_OK && mhp_file_exists(path);

    mhp_free(path);
    return found;
}

mhp_status mhp_catalog_steps(const char *run, int64_t **steps_out, size_t *count_out)
{
    mhp_status status = MHP_OK;
    mhp_folder_list list = {0};
    char *folder = NULL;
    int64_t *steps = NULL;
    size_t count = 0;

    MHP_TRY(out, mhp_asprintf(&folder, "%s/checkpoints", run));
    MHP_TRY(out, mhp_folder_read(folder, &list));
    MHP_TRY(out, mhp_calloc(&steps, list.count, sizeof *steps));
    for (size_t i = 0; i < list.count; i++) {
        int64_t step = step_of_name(list.names[i]);

        if (step >= 0 && has_manifest(folder, list.names[i])) {
            steps[count++] = step;
        }
    }
    if (count > 1) {
        qsort(steps, count, sizeof *steps, order_of_steps);
    }
    *steps_out = steps;
    *count_out = count;
    steps = NULL;
out:
    mhp_free(steps);
    mhp_folder_release(&list);
    mhp_free(folder);
    return status;
}

mhp_status mhp_catalog_clean(const char *run)
{
    mhp_status status = MHP_OK;
    mhp_folder_list list = {0};
    char *folder = NULL;
    char *path = NULL;

    MHP_TRY(out, mhp_asprintf(&folder, "%s/checkpoints", run));
    MHP_TRY(out, mhp_mkdirs(folder));
    MHP_TRY(out, mhp_folder_read(folder, &list));
    for (size_t i = 0; i < list.count; i++) {
        if (strncmp(list.names[i], WORK_PREFIX, sizeof WORK_PREFIX - 1) == 0) {
            MHP_TRY(out, mhp_asprintf(&path, "%s/%s", folder, list.names[i]));
            MHP_TRY(out, mhp_folder_remove(path));
            mhp_free(path);
            path = NULL;
        }
    }
out:
    mhp_free(path);
    mhp_folder_release(&list);
    mhp_free(folder);
    return status;
}

mhp_status mhp_catalog_begin(const char *run, int64_t step)
{
    mhp_status status = MHP_OK;
    char *path = NULL;

    MHP_TRY(out, mhp_catalog_work_path(run, step, &path));
    MHP_TRY(out, mhp_folder_remove(path));
    MHP_TRY(out, mhp_mkdirs(path));
out:
    mhp_free(path);
    return status;
}

/* First out of the way under a hidden name, so that a crash leaves no half checkpoint under a good one. */
static mhp_status remove_step(const char *run, int64_t step)
{
    mhp_status status = MHP_OK;
    char *path = NULL;
    char *hidden = NULL;

    MHP_TRY(out, mhp_catalog_path(run, step, &path));
    MHP_TRY(out, mhp_asprintf(&hidden, "%s/checkpoints/" WORK_PREFIX "%0*lld.old", run, STEP_DIGITS_MIN, (long long)step));
    if (mhp_file_exists(path)) {
        MHP_TRY(out, mhp_folder_remove(hidden));
        MHP_TRY(out, mhp_folder_rename(path, hidden));
        MHP_TRY(out, mhp_folder_remove(hidden));
    }
out:
    mhp_free(hidden);
    mhp_free(path);
    return status;
}

mhp_status mhp_catalog_commit(const char *run, int64_t step, mhp_hash checksum)
{
    mhp_status status = MHP_OK;
    char *work = NULL;
    char *path = NULL;

    MHP_TRY(out, mhp_catalog_work_path(run, step, &work));
    MHP_TRY(out, mhp_catalog_path(run, step, &path));
    MHP_TRY(out, mhp_folder_sync(work));
    MHP_TRY(out, remove_step(run, step));
    MHP_TRY(out, mhp_folder_rename(work, path));
    MHP_TRY(out, mhp_catalog_set_latest(run, step, checksum));
out:
    mhp_free(path);
    mhp_free(work);
    return status;
}

mhp_status mhp_catalog_set_latest(const char *run, int64_t step, mhp_hash checksum)
{
    mhp_status status = MHP_OK;
    char digits[MHP_HASH_TEXT_MAX];
    char *path = NULL;
    char *text = NULL;

    mhp_hash_print(checksum, digits);
    MHP_TRY(out, mhp_asprintf(&path, "%s/checkpoints/latest", run));
    MHP_TRY(out, mhp_asprintf(&text, STEP_PREFIX "%0*lld %s\n", STEP_DIGITS_MIN, (long long)step, digits));
    MHP_TRY(out, mhp_file_write_atomic(path, text, strlen(text)));
out:
    mhp_free(text);
    mhp_free(path);
    return status;
}

/* "step-NNNNNNNN DIGITS\n" */
static mhp_status parse_latest(const char *path, char *text, size_t size, int64_t *step_out, mhp_hash *checksum_out)
{
    char *space = memchr(text, ' ', size);
    size_t rest = space ? size - (size_t)(space + 1 - text) : 0;

    if (space) {
        *space = '\0';
        *step_out = step_of_name(text);
    }
    if (!space || *step_out < 0 || rest != MHP_HASH_TEXT_MAX || space[rest] != '\n' || !mhp_hash_parse(space + 1, checksum_out)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s is corrupt: expected a line of a checkpoint's name and checksum", path);
    }
    return MHP_OK;
}

mhp_status mhp_catalog_latest(const char *run, int64_t *step_out)
{
    mhp_status status = MHP_OK;
    mhp_manifest manifest = {0};
    char *path = NULL, *folder = NULL, *manifest_path = NULL, *text = NULL;
    mhp_hash expected, found;
    size_t size = 0;

    MHP_TRY(out, mhp_asprintf(&path, "%s/checkpoints/latest", run));
    MHP_TRY(out, mhp_file_read_all(path, LATEST_BYTES_MAX, &text, &size));
    MHP_TRY(out, parse_latest(path, text, size, step_out, &expected));
    MHP_TRY(out, mhp_catalog_path(run, *step_out, &folder));
    MHP_TRY(out, mhp_asprintf(&manifest_path, "%s/manifest.json", folder));
    if (!mhp_file_exists(manifest_path)) {
        MHP_RAISE(out, MHP_ERR_FORMAT, "%s names %s, where there is no manifest.json", path, folder);
    }
    MHP_TRY(out, mhp_manifest_read(manifest_path, &manifest, &found));
    if (!mhp_hash_equal(expected, found)) {
        MHP_RAISE(out, MHP_ERR_FORMAT, "%s does not name the checkpoint in %s: their checksums differ", path, folder);
    }
out:
    mhp_manifest_release(&manifest);
    mhp_free(text);
    mhp_free(manifest_path);
    mhp_free(folder);
    mhp_free(path);
    return status;
}

mhp_status mhp_catalog_retain(const char *run, int64_t keep_last, int64_t keep_every)
{
    mhp_status status = MHP_OK;
    int64_t *steps = NULL;
    size_t count = 0;

    if (keep_last == 0) {
        return MHP_OK;
    }
    MHP_TRY(out, mhp_catalog_steps(run, &steps, &count));
    for (size_t i = 0; i + (size_t)keep_last < count; i++) {
        if (keep_every == 0 || steps[i] % keep_every != 0) {
            MHP_TRY(out, remove_step(run, steps[i]));
        }
    }
out:
    mhp_free(steps);
    return status;
}
