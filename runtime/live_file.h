/* The bytes of a live file. Private to runtime/live*.c. */
#ifndef MHP_RUNTIME_LIVE_FILE_H
#define MHP_RUNTIME_LIVE_FILE_H

#include <stdatomic.h>

#include "runtime/live.h"

#define MHP_LIVE_MAGIC "MHPLIVE"    /* with its NUL byte */

typedef struct mhp_live_file {
    char magic[8];
    uint32_t version, bytes;
    _Atomic uint32_t sequence;      /* odd while the state changes */
    uint32_t reserved;
    mhp_live_state state;
    char rest[MHP_LIVE_BYTES - 24 - sizeof(mhp_live_state)];
} mhp_live_file;

_Static_assert(sizeof(mhp_live_file) == MHP_LIVE_BYTES, "a change of this layout is another version");
_Static_assert(offsetof(mhp_live_file, state) == 24 && sizeof(mhp_live_state) == 264,
               "a change of this layout is another version");

#endif
