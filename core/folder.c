#include "core/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file_internal.h"
#include "core/memory.h"

static mhp_status add_name(mhp_folder_list *list, size_t *capacity, const char *path, const char *name)
{
    if (list->count == MHP_FOLDER_NAMES_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "%s holds more than %d names, the limit", path, MHP_FOLDER_NAMES_MAX);
    }
    if (list->count == *capacity) {
        *capacity = *capacity ? 2 * *capacity : 16;
        MHP_RETURN_IF_ERROR(mhp_realloc(&list->names, *capacity, sizeof *list->names));
    }
    MHP_RETURN_IF_ERROR(mhp_strdup(&list->names[list->count], name));
    list->count++;
    return MHP_OK;
}

static int order_of_names(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

mhp_status mhp_folder_read(const char *path, mhp_folder_list *list_out)
{
    mhp_status status = MHP_OK;
    size_t capacity = 0;
    const struct dirent *entry;
    DIR *folder = opendir(path);

    *list_out = (mhp_folder_list){0};
    if (!folder && errno == ENOENT) {
        return MHP_OK;
    }
    if (!folder) {
        return mhp_error_set(MHP_ERR_IO, "cannot read folder %s: %s", path, strerror(errno));
    }
    while (errno = 0, (entry = readdir(folder)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            MHP_TRY(out, add_name(list_out, &capacity, path, entry->d_name));
        }
    }
    if (errno != 0) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot read folder %s: %s", path, strerror(errno));
    }
    if (list_out->count > 1) {
        qsort(list_out->names, list_out->count, sizeof *list_out->names, order_of_names);
    }
out:
    closedir(folder);
    return status;
}

void mhp_folder_release(mhp_folder_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        mhp_free(list->names[i]);
    }
    mhp_free(list->names);
    *list = (mhp_folder_list){0};
}

mhp_status mhp_folder_sync(const char *path)
{
    if (mhp_sync_folder_fd(path) != 0) {
        return mhp_error_set(MHP_ERR_IO, "cannot sync folder %s: %s", path, strerror(errno));
    }
    return MHP_OK;
}

mhp_status mhp_folder_rename(const char *from, const char *to)
{
    mhp_status status = MHP_OK;
    const char *slash = strrchr(to, '/');
    char *parent = NULL;

    MHP_TRY(out, mhp_asprintf(&parent, "%.*s", slash ? (int)(slash - to) + 1 : 1, slash ? to : "."));
    if (mhp_file_fails(MHP_FILE_RENAME, to, NULL) || rename(from, to) != 0) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot rename %s to %s: %s", from, to, strerror(errno));
    }
    MHP_TRY(out, mhp_folder_sync(parent));
out:
    mhp_free(parent);
    return status;
}

static mhp_status remove_entry(const FTSENT *entry)
{
    if (entry->fts_info == FTS_D) {
        return MHP_OK;                  /* comes again behind what is in it */
    }
    if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR) {
        return mhp_error_set(MHP_ERR_IO, "cannot read folder %s: %s", entry->fts_path, strerror(entry->fts_errno));
    }
    if (entry->fts_info == FTS_NS && entry->fts_errno == ENOENT) {
        return MHP_OK;
    }
    if ((mhp_file_fails(MHP_FILE_REMOVE, entry->fts_path, NULL) || remove(entry->fts_accpath) != 0) && errno != ENOENT) {
        return mhp_error_set(MHP_ERR_IO, "cannot remove %s: %s", entry->fts_path, strerror(errno));
    }
    return MHP_OK;
}

mhp_status mhp_folder_remove(const char *path)
{
    mhp_status status = MHP_OK;
    char *copy = NULL;
    char *paths[] = {NULL, NULL};
    const FTSENT *entry;
    FTS *tree = NULL;

    MHP_TRY(out, mhp_strdup(&copy, path));
    paths[0] = copy;
    tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (!tree) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot read folder %s: %s", path, strerror(errno));
    }
    while ((entry = fts_read(tree)) != NULL) {
        MHP_TRY(out, remove_entry(entry));
    }
out:
    if (tree) {
        fts_close(tree);
    }
    mhp_free(copy);
    return status;
}

mhp_status mhp_folder_remove_names(const char *folder, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mhp_status status;
        char *path = NULL;

        MHP_RETURN_IF_ERROR(mhp_asprintf(&path, "%s/%s", folder, names[i]));
        status = mhp_folder_remove(path);
        mhp_free(path);
        MHP_RETURN_IF_ERROR(status);
    }
    return MHP_OK;
}
