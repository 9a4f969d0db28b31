/* Which rank waits for what from whom, and at which one the chain ends, in one sentence. Pure. */
#ifndef MHP_RUNTIME_DIAGNOSIS_H
#define MHP_RUNTIME_DIAGNOSIS_H

#include "runtime/place.h"

typedef enum mhp_rank_state {
    MHP_RANK_PRESENT,
    MHP_RANK_UNKNOWN,               /* nothing was ever heard of it */
    MHP_RANK_SILENT,                /* stopped, or its host or network hangs; `place` is the last that was heard */
    MHP_RANK_LOST,                  /* its process ended; likewise */
} mhp_rank_state;

enum { MHP_RANK_NAME_MAX = 128, MHP_DIAGNOSIS_TEXT_MAX = 960 };

typedef struct mhp_rank_view {
    mhp_rank_state state;
    double silent_s;                /* MHP_RANK_SILENT */
    mhp_place place;
    char name[MHP_RANK_NAME_MAX];   /* "rank 2 (host a, pid 4711)" */
} mhp_rank_view;

/* `ranks` [count] by world rank. Returns the rank that the others wait for, -1 if there is none to blame. A circle of waits, or waits
 * that end nowhere, count only if each of them has lasted for a second: the places of ranks are never of one moment. */
int mhp_diagnose(const mhp_rank_view *ranks, int count, char text[MHP_DIAGNOSIS_TEXT_MAX]);

#endif
