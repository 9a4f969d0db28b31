/* Files that survive a crash: whole, or not there at all. Every failure is MHP_ERR_IO unless said
 * otherwise, and its text names the path, the bytes at stake and the system's words. */
#ifndef MHP_CORE_FILE_H
#define MHP_CORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct mhp_file mhp_file;

/* Opens `path`.tmp for writing, emptied; `path` itself stays as it is until mhp_file_finish. One
 * writer at a time for a path. What is there already and is no regular file (a pipe, /dev/stdout)
 * is written in place, for it cannot be replaced. */
mhp_status mhp_file_create(const char *path, mhp_file **file_out);

/* Appends all `bytes`; short writes of the system are carried on. */
mhp_status mhp_file_write(mhp_file *file, const void *data, size_t bytes);

/* For files of many bytes that nobody reads soon: from here on mhp_file_write keeps storage busy
 * instead of leaving all to the end, and what lies at a multiple of MHP_FILE_BLOCK in the file and
 * in memory goes past the system's cache, which takes the copy's processor time off it. A file
 * system that refuses that, or memory that cannot be given to a disk, is written through the cache.
 */
enum { MHP_FILE_BLOCK = 4096 };
void mhp_file_stream(mhp_file *file);

/* Writes all `bytes` at `offset`; the position of mhp_file_write does not move. Not for pipes. */
mhp_status mhp_file_pwrite(mhp_file *file, const void *data, size_t bytes, uint64_t offset);

/* Syncs the bytes, gives the file its name and syncs the folder. Releases the file in every case;
 * after a failure `path` holds what it held before, unless only the last step, the folder, failed.
 */
mhp_status mhp_file_finish(mhp_file *file);

/* Removes the temporary file and releases; NULL is allowed. The calling thread's error text stays.
 */
void mhp_file_abandon(mhp_file *file);

/* Writes a whole file in the way of create, write, finish. */
mhp_status mhp_file_write_atomic(const char *path, const void *data, size_t bytes);

/* Reads a whole file, or a pipe to its end, into *text_out (released with mhp_free), which a NUL
 * byte follows that *size_out does not count. MHP_ERR_NOT_FOUND if there is no such file,
 * MHP_ERR_LIMIT if it holds more than `limit_bytes`. */
mhp_status mhp_file_read_all(const char *path, size_t limit_bytes, char **text_out,
                             size_t *size_out);

/* Whether something of that name is there and can be looked at. */
bool mhp_file_exists(const char *path);

/* Makes a folder and all that are missing above it; one that is there already is fine. */
mhp_status mhp_mkdirs(const char *path);

typedef struct mhp_map {
    const void *data; /* never NULL after mhp_map_file, also for an empty file */
    size_t size;      /* bytes */
} mhp_map;

/* Maps a regular file read-only. Nobody may shorten the file while it is mapped: touching lost
 * pages ends the process. MHP_ERR_NOT_FOUND if there is no such file. */
mhp_status mhp_map_file(const char *path, mhp_map *map_out);
/* Releases and zeroes; a zeroed map is allowed. */
void mhp_unmap(mhp_map *map);

/* For tests and injected faults: what a failing disk does. */
typedef enum mhp_file_call {
    MHP_FILE_OPEN,
    MHP_FILE_WRITE,
    MHP_FILE_SYNC,
    MHP_FILE_CLOSE,
    MHP_FILE_RENAME,
    MHP_FILE_SYNC_FOLDER,
    MHP_FILE_MAKE_FOLDER,
    MHP_FILE_REMOVE,
    MHP_FILE_DIRECT, /* going past the cache; a failure costs speed alone */
    MHP_FILE_CALL_COUNT
} mhp_file_call;

/* Called before each system call that changes files or folders: 0 to let it happen, or the errno
 * that it fails with. *bytes is what a write is asked to write and may be lowered to shorten it;
 * NULL elsewhere. Any thread. */
typedef int (*mhp_file_fault_fn)(void *context, mhp_file_call call, const char *path,
                                 size_t *bytes);

/* Sets the hook of the process, NULL for none; before the threads that write files start. */
void mhp_file_set_fault(mhp_file_fault_fn fault, void *context);
/* "open", "write", "sync", "close", "rename", "sync-folder", "make-folder", "remove",
 * "direct". */
const char *mhp_file_call_text(mhp_file_call call);

#endif
