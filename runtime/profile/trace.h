/* What a rank recorded: spans of some steps, how its clock stands to rank 0's, and the file that keeps it.
 *
 * The spans of a step on a lane (groups, waits, phases) stand in the order of its stream, each beginning where the one
 * before it ended: those of the compute stream together fill the time from the first to the last without a gap.
 * Transfers follow them. docs/profiling.md. */
#ifndef MHP_RUNTIME_PROFILE_TRACE_H
#define MHP_RUNTIME_PROFILE_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "comm/clock.h"
#include "core/hash.h"
#include "core/records.h"
#include "model/stage.h"
#include "runtime/lanes.h"

typedef enum mhp_trace_kind {
    MHP_TRACE_STEP,       /* the host's: from the begin of a step to its last result */
    MHP_TRACE_GROUP,      /* compute: one step of a pass's cursor (model/stage.h) */
    MHP_TRACE_WAIT,       /* the lane stood still before what follows on it */
    MHP_TRACE_PHASE,      /* compute: what stands around the plan */
    MHP_TRACE_MESSAGE,    /* a state or gradient that this rank received: from the post of the receive to its arrival */
    MHP_TRACE_COLLECTIVE, /* a reduction or gathering: from this rank's entry to its end */
    MHP_TRACE_KIND_COUNT,
} mhp_trace_kind;

/* What a wait is for, what kind a message or collective is of. */
typedef enum mhp_trace_cause {
    MHP_CAUSE_STATE,
    MHP_CAUSE_GRADIENT,
    MHP_CAUSE_REDUCE,     /* of a stage's gradients over its holders */
    MHP_CAUSE_GATHER,     /* of its parameters */
    MHP_CAUSE_NORM,       /* the gradient's norm, over the world */
    MHP_CAUSE_STATISTICS, /* of the step, over the world */
    MHP_CAUSE_COUNT,
} mhp_trace_cause;

typedef enum mhp_trace_phase {
    MHP_TRACE_PREPARE, /* upload of the batch, zeroing */
    MHP_TRACE_NORM,    /* squares of gradients, clipping */
    MHP_TRACE_UPDATE,  /* AdamW, copies of weights */
    MHP_TRACE_REPORT,  /* the step's statistics */
    MHP_TRACE_PHASE_COUNT,
} mhp_trace_phase;

typedef struct mhp_trace_span {
    uint8_t kind;              /* mhp_trace_kind */
    uint8_t pass;              /* mhp_pass: of a group; of a wait before a pass */
    uint8_t part;              /* mhp_step_part of a group; mhp_trace_phase of a phase */
    uint8_t cause;             /* of a wait, a message, a collective */
    int32_t step;              /* from the trace's first */
    int32_t action;            /* place in the rank's list; -1 outside of it */
    int32_t stage, microbatch; /* -1 where they mean nothing */
    int32_t slot; /* of a message: that it arrived in. Of a wait: the output slot that the pass fills for a message;
                     else -1 */
    int32_t peer; /* of a message: world rank of the sender; else -1 */
    int32_t lane; /* mhp_lane: the stream of a group, a wait or a phase */
    int64_t bytes;            /* of a message or collective */
    int64_t start_ns, end_ns; /* this rank's clock */
} mhp_trace_span;

typedef enum mhp_trace_kernels {
    MHP_TRACE_KERNELS_UNASKED,
    MHP_TRACE_KERNELS_OFF, /* asked for, but not to be had */
    MHP_TRACE_KERNELS_ON,
    MHP_TRACE_KERNELS_COUNT,
} mhp_trace_kernels;

enum { MHP_TRACE_REASON_MAX = 160 };

typedef struct mhp_trace {
    int rank, world_size, pipeline_ranks; /* world rank = replica * pipeline ranks + pipeline rank */
    int streams;                          /* residual streams n of every state */
    int device;                           /* mhp_device_kind */
    mhp_hash identity;                    /* of what was trained how (identity.h) */
    int64_t first_step;                   /* number of the first recorded step, from 0 */
    int step_count;
    mhp_clock_reading before, after; /* the recorded steps */
    double mark_ns;                  /* what one mark costs its stream, measured before the first step */
    int64_t mark_count;              /* most marks of a step */
    int64_t resolve_ns;              /* host time between steps that went into reading the marks, all steps together */
    mhp_trace_span *spans;           /* in the order of steps */
    size_t span_count;
    int kernels;                            /* mhp_trace_kernels */
    char no_kernels[MHP_TRACE_REASON_MAX];  /* why they are off */
    mhp_record_list records;                /* what the rank's card ran in the recorded steps; owned */
} mhp_trace;

enum { MHP_TRACE_SPANS_MAX = 1 << 24 }; /* of a rank: 1.1 GB; so with records, of 40 bytes */
enum { MHP_TRACE_NAMES_BYTES_MAX = 1 << 20 };
enum { MHP_TRACE_STEPS_MAX = 10000 };
#define MHP_TRACE_FIRST_STEP_MAX ((int64_t)1 << 53)

/* Writes the file, whole or not at all. */
mhp_status mhp_trace_write(const mhp_trace *trace, const char *path);
/* MHP_ERR_FORMAT for what is no trace, is cut off, was changed, or holds a value out of range; MHP_ERR_LIMIT for one
 * that is too large. All name the path. Release in every case; zeroed is allowed there. */
mhp_status mhp_trace_read(const char *path, mhp_trace *trace_out);
/* The same from memory; `path` stands for the file. */
mhp_status mhp_trace_parse(const char *path, const void *data, size_t size, mhp_trace *trace_out);
/* Without spans and records, and without a look at the checksum, which is over all of the file. */
mhp_status mhp_trace_read_head(const char *path, mhp_trace *trace_out);
void mhp_trace_release(mhp_trace *trace);

/* The spans of a step. */
const mhp_trace_span *mhp_trace_step(const mhp_trace *trace, int step, size_t *count_out);

/* The traces of all ranks of a run. */
typedef struct mhp_trace_set {
    mhp_trace *ranks; /* [world] */
    int count;
} mhp_trace_set;

/* "FOLDER/rank-0003.trace", to be freed. */
mhp_status mhp_trace_path(const char *folder, int rank, char **path_out);
/* Reads every rank's file in a run's profile folder. MHP_ERR_NOT_FOUND without any; MHP_ERR_FORMAT also for files that
 * are not of one run. Release in every case. */
mhp_status mhp_trace_set_read(const char *folder, mhp_trace_set *set_out);
void mhp_trace_set_release(mhp_trace_set *set);

/* Words for a person. */
const char *mhp_trace_cause_text(mhp_trace_cause cause);
const char *mhp_trace_phase_text(mhp_trace_phase phase);
/* "F", "R", "I", "W"; "forward" ...; "connection" ... */
const char *mhp_pass_letter(mhp_pass pass);
const char *mhp_pass_text(mhp_pass pass);
const char *mhp_part_text(mhp_step_part part);
/* "forward connection": of a group. */
enum { MHP_GROUP_TEXT_MAX = 64 };
void mhp_group_format(mhp_pass pass, mhp_step_part part, char text[MHP_GROUP_TEXT_MAX]);

#endif
