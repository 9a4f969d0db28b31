/* Folders as a whole: listed, renamed, removed. Errors are MHP_ERR_IO unless said otherwise and name the path. */
#ifndef MHP_CORE_FOLDER_H
#define MHP_CORE_FOLDER_H

#include "core/file.h"

/* Names in a folder without "." and "..", in the order of their bytes; NULL and 0 for a folder that is not there. */
typedef struct mhp_folder_list {
    char **names;
    size_t count;
} mhp_folder_list;

enum { MHP_FOLDER_NAMES_MAX = 1 << 20 };

/* MHP_ERR_LIMIT for more than MHP_FOLDER_NAMES_MAX names. Release in every case; a zeroed list is allowed there. */
mhp_status mhp_folder_read(const char *path, mhp_folder_list *list_out);
void mhp_folder_release(mhp_folder_list *list);

/* Makes the names in a folder last. */
mhp_status mhp_folder_sync(const char *path);
/* Renames a file or folder within one folder and makes the new name last. What has the new name already is replaced if rename(2)
 * does so: a folder only if it is empty. */
mhp_status mhp_folder_rename(const char *from, const char *to);
/* Removes a file, or a folder with all that is in it, without following links; what is not there is fine. */
mhp_status mhp_folder_remove(const char *path);
/* Likewise `count` names within a folder. */
mhp_status mhp_folder_remove_names(const char *folder, const char *const *names, size_t count);

#endif
