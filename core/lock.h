/* One process at a time in a folder: FOLDER/.lock is locked by the process that holds the folder, and tells others who that is. The
 * kernel releases it when the process ends, in whatever way. The file stays: without a lock on it, it means nothing. */
#ifndef MHP_CORE_LOCK_H
#define MHP_CORE_LOCK_H

#include "core/status.h"

typedef struct mhp_lock mhp_lock;

/* Makes the folder if need be, and takes it. One that another process holds is waited for, `patience_s` at most, with a warning in the log
 * behind the first second; then MHP_ERR_TIMEOUT, with host, process and start of the holder in the text. Where the file system has no
 * locks a warning is all, and *lock_out is NULL. MHP_ERR_IO if FOLDER/.lock cannot be opened or written. */
mhp_status mhp_folder_lock(const char *folder, double patience_s, mhp_lock **lock_out);
/* NULL is allowed. */
void mhp_folder_unlock(mhp_lock *lock);

#endif
