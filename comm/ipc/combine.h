/* Sums and extremes over memory of several ranks. */
#ifndef MHP_COMM_IPC_COMBINE_H
#define MHP_COMM_IPC_COMBINE_H

#include "core/device.h"
#include "core/tensor.h"

enum { MHP_COMBINE_SOURCES_MAX = 16 };

/* As mhp_reduce_op of comm/group.h. */
typedef enum mhp_combine_op { MHP_COMBINE_SUM, MHP_COMBINE_MAX, MHP_COMBINE_MIN } mhp_combine_op;

/* target[i] = sources[0][i] op sources[1][i] op ..., from left to right: the same bits wherever it is done. target may be one of the
 * sources. F32, F64, I64. */
typedef struct mhp_combine_args {
    void *target;
    const void *sources[MHP_COMBINE_SOURCES_MAX];
    int source_count;
    int64_t count;
    mhp_dtype dtype;
    mhp_combine_op op;
} mhp_combine_args;

/* Tasks for mhp_stream_submit: on the host, and on a card (NULL in a build without CUDA). */
mhp_status mhp_combine_on_host(void *native, const void *argument);
mhp_task_fn mhp_combine_on_card(void);

#endif
