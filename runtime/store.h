/* The part of the model that this rank holds: its stages with parameters, gradients and workspaces in device memory, and for each
 * the group of ranks that hold a copy (the two owners of a DualPipe stage, and data-parallel replicas).
 *
 * World rank = replica * pipeline ranks + pipeline rank. */
#ifndef MHP_RUNTIME_STORE_H
#define MHP_RUNTIME_STORE_H

#include "comm/group.h"
#include "core/safetensors.h"
#include "model/stage.h"
#include "runtime/arena.h"
#include "runtime/memory_plan.h"

typedef struct mhp_store_params {
    mhp_comm *comm;
    const mhp_plan *plan;           /* its placement decides who holds what; must outlive the store */
    int replica_count;
    const mhp_model_params *model;  /* resolved; must outlive the store */
    const mhp_stage_extent *extents;        /* [plan->stage_count], copied */
    int sequences, length;          /* of a micro-batch */
    int threads;
    int slices;                     /* of mhp_stage_params */
    const mhp_memory_plan *memory;  /* of this rank; must outlive the store, as must the arena */
    mhp_arena *arena;
} mhp_store_params;

typedef struct mhp_held_stage {
    int index;                      /* global number of the stage */
    mhp_stage *stage;
    mhp_group *group;               /* all holders of this stage */
    int64_t chunk;                  /* elements of a member's part: group size * chunk >= layout elements */
    void *parameters, *gradients;   /* [group size * chunk] of full */
    void *weights;                  /* the same of real, a copy of the parameters; they themselves where full is real */
    const mhp_stage_memory *memory;
} mhp_held_stage;

typedef struct mhp_store {
    mhp_store_params params;
    mhp_device *device;
    const mhp_kernels *kernels;
    mhp_stage_extent *extents;
    int replica, pipeline_rank;
    int world_rank, world_size;
    mhp_group *world;               /* every rank */
    mhp_held_stage *held;
    int held_count;
} mhp_store;

/* Opens groups (collective over the world); parameters are undefined. Destroy before the comm; NULL is allowed. */
mhp_status mhp_store_create(const mhp_store_params *params, mhp_store **store_out);
void mhp_store_destroy(mhp_store *store);

/* The held stage of that number, or NULL. */
mhp_held_stage *mhp_store_find(mhp_store *store, int stage);

/* The world ranks that hold a stage, ascending; at most 2 * replicas in a DualPipe. Returns how many; `ranks` has room for the world. */
int mhp_store_holders(const mhp_store *store, int stage, int *ranks);

/* Room for the image of any stage, planned for pipeline rank 0, while no plan runs. */
void *mhp_store_saving_memory(const mhp_store *store, size_t bytes);

/* Start values from the seed. The same on every holder without communication. */
mhp_status mhp_store_initialize(mhp_store *store, uint64_t seed);

/* Reads this rank's parameters by name (`prefix` before each name, "" usually) from an open file; every tensor must be there with the
 * right shape. */
mhp_status mhp_store_load(mhp_store *store, const mhp_safetensors *file, const char *prefix);

/* Submits the copy of a held stage's parameters to its weights, if they are apart. */
mhp_status mhp_store_cast_weights(const mhp_store *store, const mhp_held_stage *held, mhp_stream *stream);

/* Elements of parameters of the whole model, each once. */
int64_t mhp_store_model_elements(const mhp_store *store);

#endif
