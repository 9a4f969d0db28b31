/* What core/file.c and core/folder.c share. Private to them. */
#ifndef MHP_CORE_FILE_INTERNAL_H
#define MHP_CORE_FILE_INTERNAL_H

#include "core/file.h"

/* Before a system call: whether the fault hook lets it fail, with errno set then. `bytes` as in mhp_file_fault_fn, or NULL. */
bool mhp_file_fails(mhp_file_call call, const char *path, size_t *bytes);

/* Syncs a folder, so that names made or changed in it stay; what cannot be synced counts as synced. */
int mhp_sync_folder_fd(const char *path);

#endif
