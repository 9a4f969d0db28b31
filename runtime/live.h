/* What a rank does now, in a small file that others may read at any time: RUN_DIR/live/rank-N, mapped into memory.
 *
 * The rank's own threads store what they do with plain writes to memory; a thread of the file's own copies that into the mapping a few
 * times a second, with a sign of life and the power. Nobody waits for a reader: a sequence number, odd while the file changes, tells
 * readers to look again. */
#ifndef MHP_RUNTIME_LIVE_H
#define MHP_RUNTIME_LIVE_H

#include "core/device.h"
#include "core/energy.h"
#include "scheduler/plan.h"

typedef struct mhp_live mhp_live;

enum {
    MHP_LIVE_VERSION = 2,
    MHP_LIVE_BYTES = 512,
    MHP_LIVE_NAME_MAX = 64,
    MHP_LIVE_PERIOD_MS = 200,
};

/* Stopped: ended on request before its last step, with a checkpoint. */
typedef enum mhp_live_phase {
    MHP_LIVE_RUNNING, MHP_LIVE_FINISHED, MHP_LIVE_FAILED, MHP_LIVE_STOPPED, MHP_LIVE_PHASE_COUNT
} mhp_live_phase;
typedef enum mhp_live_place {
    MHP_LIVE_STARTING, MHP_LIVE_STEP, MHP_LIVE_EVALUATION, MHP_LIVE_BETWEEN, MHP_LIVE_PLACE_COUNT
} mhp_live_place;

/* As it lies in the file, behind its header. Numbers that are not known are NaN. */
typedef struct mhp_live_state {
    int32_t rank, size, process;
    int32_t phase, place;           /* mhp_live_phase, mhp_live_place */
    int32_t cuda;                   /* whether a card computes: then `action` is the one that was last given to it */
    uint64_t node;                  /* tells machines apart */
    uint64_t processes;             /* tells apart, on one machine, what processes see each other; 0: not known */
    uint64_t start_ns, beat_ns;     /* Unix time: of the run's start, and of the last copy */
    uint64_t action;                /* mhp_live_unpack; 0: none */
    int64_t first_step, done, total;        /* steps: before this start, by now, in all */
    double step_s, bubble;          /* of the last step; of this rank */
    double loss, tokens_per_s;
    double arena_bytes, power_w;
    char host[MHP_LIVE_NAME_MAX];
    char schedule[MHP_LIVE_NAME_MAX];
} mhp_live_state;

typedef struct mhp_live_params {
    const char *directory;          /* the run's; its folder live is there */
    mhp_live_state state;           /* what is known at the start; the identity is filled in by open */
    /* Meters whose power is shown, as a sum; NULL: none. The live file's once it is open. */
    mhp_energy_meter *meters[2];
    int64_t period_ns;              /* between two copies; 0: MHP_LIVE_PERIOD_MS */
} mhp_live_params;

/* Makes RUN_DIR/live without any ranks in it; before any rank opens its file. */
mhp_status mhp_live_prepare(const char *directory);
/* Makes the file and starts its thread. */
mhp_status mhp_live_open(const mhp_live_params *params, mhp_live **live_out);
/* The last state; the file stays. NULL is allowed, as in all below. What was submitted may still use the rest, until close releases it. */
void mhp_live_end(mhp_live *live, mhp_live_phase phase);
void mhp_live_close(mhp_live *live, mhp_live_phase phase);

/* Appends to `compute` the note that it comes to an action. Messages are not noted. */
mhp_status mhp_live_action(mhp_live *live, mhp_stream *compute, const mhp_action *action);
/* The host's thread goes somewhere else. */
void mhp_live_enter(mhp_live *live, mhp_live_place place);
/* A step is done. */
void mhp_live_step(mhp_live *live, int64_t done, double step_s, double bubble, double loss, double tokens_per_s);

/* An action in 8 bytes; 0 is none. */
uint64_t mhp_live_pack(const mhp_action *action);
bool mhp_live_unpack(uint64_t packed, mhp_action *action_out);

/* Reads a rank's file. MHP_ERR_NOT_FOUND; MHP_ERR_FORMAT for one that is cut off, of another version or no such file, or whose rank
 * ended while it wrote. */
mhp_status mhp_live_read(const char *path, mhp_live_state *state_out);

typedef enum mhp_live_health { MHP_LIVE_ALIVE, MHP_LIVE_SILENT, MHP_LIVE_DEAD, MHP_LIVE_ENDED } mhp_live_health;

/* What is known of the rank from here at `now_ns`, Unix time: alive; silent for more than `silence_s`; dead, for its process is not there
 * (known on its own machine alone, among processes that see it), however fresh its last sign of life; ended in order or with an error. A
 * state that was read before its process ended in order is judged dead: read again, for then it is the last. */
mhp_live_health mhp_live_judge(const mhp_live_state *state, uint64_t now_ns, double silence_s);

/* This machine, as in `node`; 0 if that cannot be told. */
uint64_t mhp_live_node(void);
/* The processes that this one sees, as in `processes`. */
uint64_t mhp_live_processes(void);

#endif
