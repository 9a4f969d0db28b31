/* The whole model on one device, forward alone and without a plan: what generates text, and what a pipeline is compared with. */
#ifndef MHP_RUNTIME_LOCAL_MODEL_H
#define MHP_RUNTIME_LOCAL_MODEL_H

#include "core/safetensors.h"
#include "model/stage.h"

typedef struct mhp_local_model mhp_local_model;

typedef struct mhp_local_model_params {
    mhp_device *device;                 /* these two must outlive the model */
    const mhp_model_params *model;      /* resolved */
    int length;                         /* tokens of a sequence, T */
    int threads;
} mhp_local_model_params;

/* Parameters are undefined until they are loaded. NULL is allowed in destroy. */
mhp_status mhp_local_model_create(const mhp_local_model_params *params, mhp_local_model **model_out);
void mhp_local_model_destroy(mhp_local_model *model);

/* Reads every parameter by name, `prefix` before each ("" usually). */
mhp_status mhp_local_model_load(mhp_local_model *model, const mhp_safetensors *file,
                                const char *prefix);

/* Runs one sequence: token and target [T]; targets of -100 do not count. *loss_sum_out is the sum
 * over the others; *logits_out [T,V] in the model's dtype, host memory, valid until the next call. Blocks. */
mhp_status mhp_local_model_forward(mhp_local_model *model, const int32_t *token,
                                   const int32_t *target, double *loss_sum_out,
                                   const void **logits_out);

#endif
