/* What a plan's actions cost: times of every stage, links between ranks, bytes. Read from a YAML file, written by
 * reports, used by the simulator and the tuner. Times are microseconds, 1 GB/s is 1e9 bytes a second.
 *
 *   stages:                         # one entry for all stages, or one for each
 *     - {forward_us: 100, input_gradient_us: 110, weight_gradient_us: 90, bytes: {activation: 1000000}}
 *   links:                          # directed; without any, messages take no time
 *     - {default: true, bandwidth_gb_s: 50, latency_us: 10}
 *     - {from: 0, to: 1, bandwidth_gb_s: 300, latency_us: 4}
 *   message_bytes: 8388608
 *   all_reduce_us: 200
 *   optimizer_us: 300
 */
#ifndef MHP_SCHEDULER_COSTS_H
#define MHP_SCHEDULER_COSTS_H

#include <stdio.h>

#include "core/option.h"

typedef struct mhp_stage_bytes {
    int64_t weights;    /* for the whole step, with gradients and optimizer state as the file's author counts them */
    int64_t activation; /* of a micro-batch, from F to the end of I */
    int64_t rebuild_keeps; /* of `activation`, where it is rebuilt: what stays between F and R */
    int64_t held_weight_gradient; /* of a micro-batch, from I to the end of W */
    int64_t slot;                 /* of one message slot; 0: message_bytes */
} mhp_stage_bytes;

/* What embedding and head take of a stage's times; all 0: not known. */
typedef struct mhp_stage_ends {
    double forward_us, input_gradient_us, weight_gradient_us;
} mhp_stage_ends;

typedef struct mhp_stage_costs {
    double forward_us, input_gradient_us, weight_gradient_us;
    mhp_stage_ends ends;
    double rebuild_us; /* 0: forward_us */
    double pair_us;    /* F beside a full backward of this stage; 0: the sum of the three */
    mhp_stage_bytes bytes;
} mhp_stage_costs;

typedef struct mhp_link_costs {
    bool is_default;       /* of every pair of ranks that has no entry; then without from and to */
    int64_t from, to;      /* pipeline ranks, -1 if not given */
    double bandwidth_gb_s; /* 0: unlimited */
    double latency_us;
} mhp_link_costs;

typedef struct mhp_costs {
    mhp_section_list stages; /* of mhp_stage_costs */
    mhp_section_list links;  /* of mhp_link_costs */
    int64_t message_bytes;   /* of one state or gradient */
    double all_reduce_us;    /* of one stage's gradients over its holders */
    double optimizer_us;     /* of a rank, behind the last reduction of all ranks */
    char *name;              /* the file, for errors */
} mhp_costs;

extern const mhp_option mhp_costs_options[];

enum { MHP_COSTS_US_MAX = 1000000000 };

/* F = I = W = 1, free messages, no bytes: the unit costs of the published formulas. Release in every case; zeroed is
 * allowed. */
mhp_status mhp_costs_default(mhp_costs *costs_out);
void mhp_costs_release(mhp_costs *costs);
/* Release copy_out in every case. */
mhp_status mhp_costs_copy(const mhp_costs *costs, mhp_costs *copy_out);

/* Reads a file, or text that `name` stands for. MHP_ERR_CONFIG with file:line:column, the value and what was expected:
 * see core/option.h; also no stage at all, a link from a rank to itself, two entries for one link. The costs are to be
 * released in every case. */
mhp_status mhp_costs_read(const char *path, mhp_costs *costs_out);
mhp_status mhp_costs_parse(const char *name, const char *text, size_t length, mhp_costs *costs_out);

/* Whether the costs suit a plan of this size: one entry of `stages` or stage_count, links between ranks that exist.
 * MHP_ERR_CONFIG. */
mhp_status mhp_costs_check(const mhp_costs *costs, int rank_count, int stage_count);

/* YAML that reads back to the same values. MHP_ERR_IO, MHP_ERR_INVALID (a number that is not finite). */
mhp_status mhp_costs_write(const mhp_costs *costs, FILE *stream);

/* Replaces the list by `count` zeroed entries, for whoever makes costs rather than reads them. */
mhp_status mhp_costs_create_stages(mhp_costs *costs, size_t count, mhp_stage_costs **stages_out);
mhp_status mhp_costs_create_links(mhp_costs *costs, size_t count, mhp_link_costs **links_out);

/* The entry that serves a stage. */
const mhp_stage_costs *mhp_costs_stage(const mhp_costs *costs, int stage);

/* A message between two ranks: how long it occupies the link, and what passes beside that until it has arrived. */
typedef struct mhp_link_time {
    double busy_us, latency_us;
} mhp_link_time;

/* For all pairs, [from][to]; released with mhp_free. */
mhp_status mhp_costs_link_times(const mhp_costs *costs, int rank_count, mhp_link_time **times_out);

/* F, I and W of a stage one after the other. */
double mhp_stage_work_us(const mhp_stage_costs *stage);
double mhp_stage_rebuild_us(const mhp_stage_costs *stage);
/* What a pair takes of the time of its parts: 1 if pair_us is not given. */
double mhp_pair_share(const mhp_stage_costs *stage);
/* The forward of one stage beside the full backward of another: their times one after the other, shortened by the mean
 * of what pair_us saves on each of the two. */
double mhp_pair_us(const mhp_stage_costs *forward, const mhp_stage_costs *backward);
/* Of one message slot of the stage. */
int64_t mhp_costs_slot_bytes(const mhp_costs *costs, int stage);

#endif
