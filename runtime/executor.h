/* Walks a plan: submits every action of this rank to the compute stream and the channels, and waits for nothing.
 *
 * The executor has no branch for a schedule's name. Everything lies where the store's memory plan has it for the phase. Several executors (training, evaluation) may share one store; they may not run at the same time. */
#ifndef MHP_RUNTIME_EXECUTOR_H
#define MHP_RUNTIME_EXECUTOR_H

#include "comm/channel.h"
#include "runtime/live.h"
#include "runtime/profile/recorder.h"
#include "runtime/fault.h"
#include "runtime/flight.h"
#include "runtime/lanes.h"
#include "runtime/store.h"

typedef struct mhp_executor mhp_executor;

/* Called when the last weight gradient of a held stage has been submitted (REDUCE_GRAD). */
typedef mhp_status (*mhp_reduce_fn)(void *context, mhp_held_stage *held);

typedef struct mhp_executor_params {
    mhp_store *store;
    const mhp_plan *plan;           /* lowered; must outlive the executor */
    const mhp_lanes *lanes;         /* outlive the executor */
    mhp_pair_mode pair;             /* streams: with a partner among the lanes */
    mhp_memory_phase phase;         /* whose memory it uses; executors of one store differ in it */
    mhp_reduce_fn reduce;           /* may be NULL */
    void *reduce_context;
    mhp_recorder *recorder;         /* not ready yet; may be NULL */
    bool verify_messages;           /* they carry checksums; on every rank alike */
    mhp_flight *flight;             /* gets a mark at every pass and wait; NULL: none */
    mhp_faults *faults;             /* done where they are due; NULL: none */
} mhp_executor_params;

/* What a run works on; device memory, [microbatch][T] each unless said otherwise. */
typedef struct mhp_executor_inputs {
    int64_t step;                   /* from 0, or -1 for an evaluation; for errors */
    const int32_t *token, *target, *document_start;
    const int32_t *position;        /* [T], shared by all micro-batches */
    bool one_document;              /* every document_start is 0 */
    double loss_scale;
    double *loss_sum;               /* [microbatch], written by the last stage's owner */
    double *gain;                   /* [microbatch][2], likewise; NULL: not computed */
    double *worst_gain;             /* [2], running maxima; NULL with gain */
} mhp_executor_inputs;

/* Opens the channels; every rank of the replica. NULL is allowed in destroy. */
mhp_status mhp_executor_create(const mhp_executor_params *params, mhp_executor **executor_out);
void mhp_executor_destroy(mhp_executor *executor);

/* Submits every pass of each stage once, on whatever the memory holds, without messages: what a card's libraries load at their first call
 * is loaded before a stream waits for a message, for such a load may wait for all streams. Inputs must hold valid tokens; gradients and
 * what `inputs` has for losses and gains are garbage afterwards. */
mhp_status mhp_executor_warm_up(mhp_executor *executor, const mhp_executor_inputs *inputs);

/* Notes every action in `live` from now on; NULL: nowhere. */
void mhp_executor_watch(mhp_executor *executor, mhp_live *live);

/* Submits one run of the plan; what comes behind it on the compute stream comes behind all of it. Errors of tasks surface at the next
 * synchronization of that stream. */
mhp_status mhp_executor_run(mhp_executor *executor, const mhp_executor_inputs *inputs);

/* Product operations of this rank in one run; bytes it sends to other ranks in one run. */
double mhp_executor_flops(const mhp_executor *executor);
size_t mhp_executor_message_bytes(const mhp_executor *executor);

#endif
