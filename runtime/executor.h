/* Walks a plan: submits every action of this rank to the compute stream and the channels, and waits for nothing.
 *
 * The executor has no branch for a schedule's name. Memory of every slot is allocated when it is created, from the plan's counts.
 * Several executors (training, evaluation) may share one store; they may not run at the same time. */
#ifndef MHP_RUNTIME_EXECUTOR_H
#define MHP_RUNTIME_EXECUTOR_H

#include "comm/channel.h"
#include "runtime/store.h"

typedef struct mhp_executor mhp_executor;

/* Called when the last weight gradient of a held stage has been submitted (REDUCE_GRAD). */
typedef mhp_status (*mhp_reduce_fn)(void *context, mhp_held_stage *held);

typedef struct mhp_executor_params {
    mhp_store *store;
    const mhp_plan *plan;           /* lowered; must outlive the executor */
    mhp_stream *compute;
    int channel_space;              /* executors of one store differ in it: 0 or 1 */
    mhp_reduce_fn reduce;           /* may be NULL */
    void *reduce_context;
} mhp_executor_params;

/* What a run works on; device memory, [microbatch][T] each unless said otherwise. */
typedef struct mhp_executor_inputs {
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

/* Submits one run of the plan. Errors of tasks surface at the next synchronization of the compute stream. */
mhp_status mhp_executor_run(mhp_executor *executor, const mhp_executor_inputs *inputs);

/* Product operations of this rank in one run; bytes of its slots; bytes it sends to other ranks in one run. */
double mhp_executor_flops(const mhp_executor *executor);
size_t mhp_executor_slot_bytes(const mhp_executor *executor);
size_t mhp_executor_message_bytes(const mhp_executor *executor);

/* Where the last run left the logits of a micro-batch [T,V], if its owner is this rank and the plan was forward only; else NULL. */
const void *mhp_executor_logits(const mhp_executor *executor, int microbatch);

/* Bytes of one slot of a class, and of the place that an executor gives it. `sizes` are the stage's. */
size_t mhp_slot_class_bytes(const mhp_stage_sizes *sizes, mhp_slot_class class_);
size_t mhp_slot_class_stride(const mhp_stage_sizes *sizes, mhp_slot_class class_);

#endif
