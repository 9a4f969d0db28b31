/* The architecture's parameters, under Hugging Face's names where it has them. */
#ifndef MHP_MODEL_OPTIONS_H
#define MHP_MODEL_OPTIONS_H

#include "core/option.h"
#include "core/tensor.h"
#include "model/kernels.h"

typedef enum mhp_pre_init { MHP_PRE_INIT_UNIFORM, MHP_PRE_INIT_ROTATE } mhp_pre_init;

typedef struct mhp_connection_params {
    int kind;                       /* mhp_connection_kind */
    int64_t streams;                /* n; 1 for residual after resolving */
    int64_t sinkhorn_iterations;
    double eps;                     /* hc_eps */
    int readout;                    /* mhp_readout_kind */
    double init_scale;              /* scale of the input-dependent part */
    int init_pre;                   /* mhp_pre_init */
    double init_pre_gain;           /* sum over streams of pre at the start */
    double init_comb_diagonal;      /* logit of comb's diagonal over the rest */
} mhp_connection_params;

typedef struct mhp_model_params {
    int64_t hidden_size;            /* C */
    int64_t num_hidden_layers;      /* L */
    int64_t num_attention_heads;    /* H */
    int64_t num_key_value_heads;    /* K; 0 stands for H until resolved */
    int64_t head_dim;               /* D; 0 stands for C / H until resolved */
    int64_t intermediate_size;      /* I */
    int64_t vocab_size;             /* V */
    double rms_norm_eps;
    double rope_theta;
    double initializer_range;       /* standard deviation of the matrices at the start */
    int dtype;                      /* mhp_dtype: F32, F64 or BF16 */
    mhp_connection_params connections;
} mhp_model_params;

extern const mhp_option mhp_model_options[];

/* Fills what 0 stands for and checks what one key alone cannot say; MHP_ERR_CONFIG names the key, the value and what is expected. */
mhp_status mhp_model_params_resolve(mhp_model_params *params);

#endif
