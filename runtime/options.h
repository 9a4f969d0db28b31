/* Parameters of a run: how it is laid out over ranks, its schedule, optimizer, length, evaluation, checkpoints, log and profile. */
#ifndef MHP_RUNTIME_OPTIONS_H
#define MHP_RUNTIME_OPTIONS_H

#include "comm/comm.h"
#include "core/device.h"
#include "core/option.h"

typedef enum mhp_verify { MHP_VERIFY_NONE, MHP_VERIFY_MESSAGES } mhp_verify;

/* What the program may decide by the machines it runs on, or must leave as it finds it. */
typedef enum mhp_automatic { MHP_AUTO, MHP_AUTO_NONE } mhp_automatic;

typedef struct mhp_parallel_params {
    int64_t pipeline;               /* ranks of one replica */
    int64_t data;                   /* replicas; the world has pipeline * data ranks */
    int device;                     /* mhp_device_kind */
    int64_t gpu;                    /* card of every rank; -1: by the rank's number on its host */
    int transport;                  /* mhp_transport_kind */
    int64_t threads;                /* of a rank's products */
    int bind, map;                  /* mhp_automatic */
    int64_t memory_limit;           /* bytes of device memory of a rank; 0: none */
    int verify;                     /* mhp_verify */
} mhp_parallel_params;

typedef struct mhp_recompute_params {
    int what;                       /* mhp_recompute */
    int64_t block;                  /* sublayers; 0: the optimum of each stage */
} mhp_recompute_params;

/* How the two halves of an overlapped pair share the device: their steps take turns on one stream, each has a stream, each has a stream
 * and a part of the card, or F comes before B. What is best on the device: mhp_lanes_pair. */
typedef enum mhp_pair_mode { MHP_PAIR_AUTO, MHP_PAIR_INTERLEAVE, MHP_PAIR_STREAMS, MHP_PAIR_PARTS, MHP_PAIR_OFF } mhp_pair_mode;

typedef struct mhp_overlap_params {
    bool critical_stream;           /* what a message waits for runs on streams of high priority */
    int64_t slices;                 /* parts of a state on its way; 0: by its size */
    int pair;                       /* mhp_pair_mode */
    int64_t part;                   /* multiprocessors of the forward half with MHP_PAIR_PARTS; 0: a third of the card's */
    int64_t spare;                  /* multiprocessors of a card that compute and partner leave to the other streams */
} mhp_overlap_params;

typedef struct mhp_schedule_params {
    char *kind;                     /* a generator's name */
    int64_t microbatches;           /* of one replica and step */
    int64_t chunks;
    char *file;                     /* a plan as CSV; "" for the generator */
    mhp_float_list layers_per_stage;    /* multiples of 1/2; empty: as even as whole ones allow */
    mhp_recompute_params recompute;
    int weight_gradients;           /* mhp_weight_placement */
    mhp_overlap_params overlap;
} mhp_schedule_params;

typedef enum mhp_rate_decay { MHP_DECAY_CONSTANT, MHP_DECAY_COSINE, MHP_DECAY_STEP } mhp_rate_decay;

typedef struct mhp_optimizer_params {
    double lr, beta1, beta2, eps, weight_decay, clip;
    int64_t warmup_steps;
    int decay;                      /* mhp_rate_decay */
    double min_lr_ratio;            /* cosine: where it ends, over lr */
    mhp_float_list step_at;         /* step: fractions of train.steps ... */
    mhp_float_list step_factor;     /* ... from which lr is multiplied by this */
} mhp_optimizer_params;

/* What no single key says: MHP_ERR_CONFIG unless step_at and step_factor are of one length. */
mhp_status mhp_optimizer_params_check(const mhp_optimizer_params *params);

typedef enum mhp_bad_step_policy { MHP_BAD_STEP_STOP, MHP_BAD_STEP_SKIP, MHP_BAD_STEP_ROLLBACK } mhp_bad_step_policy;

typedef struct mhp_non_finite_params {
    int policy;                     /* mhp_bad_step_policy */
    double max_gradient_norm, max_gain;         /* 0: any finite one */
    double max_loss_ratio;          /* over the mean of the steps before; 0: any finite loss */
    int64_t patience;               /* bad steps in a row, or rollbacks to one checkpoint, behind which the run stops in any case */
} mhp_non_finite_params;

typedef struct mhp_train_params {
    int64_t steps;
    int64_t seed;
    int64_t sequence_length;        /* tokens of a sequence */
    int64_t micro_batch_size;       /* sequences of a micro-batch */
    mhp_non_finite_params non_finite;
    int64_t verify_replay;          /* steps from one that is run twice to the next; 0: none is */
} mhp_train_params;

/* Seconds after which the run is given up: within a section, without a sign of life of a rank; and between the signal that announces
 * the end and the end. */
typedef struct mhp_watch_params {
    int64_t start_seconds, step_seconds, save_seconds;
    int64_t silence_seconds;
    int64_t term_seconds;
} mhp_watch_params;

typedef struct mhp_eval_params {
    int64_t every;                  /* steps; 0: only at the end */
    int64_t sequences;              /* of the held-out part that one evaluation reads, at most; 0: all */
} mhp_eval_params;

typedef struct mhp_checkpoint_params {
    int64_t every;                  /* steps; 0: only at the end */
    int64_t keep_last;              /* newest checkpoints that stay; 0: all */
    int64_t keep_every;             /* and those of steps that are multiples of this; 0: none */
} mhp_checkpoint_params;

typedef struct mhp_log_params {
    char *dir;                      /* the run's folder */
    int64_t every;                  /* steps between lines where there is no terminal */
    bool tensorboard;
    char *prometheus;               /* path of a text file; "" for none */
} mhp_log_params;

typedef struct mhp_emissions_params {
    double grams_per_kwh;           /* CO2 equivalents of the electricity; 0: not known */
    double pue;                     /* power of the whole site over that of its computers */
} mhp_emissions_params;

typedef struct mhp_report_params {
    mhp_emissions_params emissions;
} mhp_report_params;

typedef struct mhp_profile_params {
    int64_t steps;                  /* that are recorded; 0: none */
    int64_t start;                  /* steps of this start of the program before the first of them */
    bool kernels;                   /* a card's kernels and copies too, by its driver's records */
} mhp_profile_params;

extern const mhp_option mhp_parallel_options[];
extern const mhp_option mhp_schedule_options[];
extern const mhp_option mhp_optimizer_options[];
extern const mhp_option mhp_train_options[];
extern const mhp_option mhp_watch_options[];
extern const mhp_option mhp_eval_options[];
extern const mhp_option mhp_checkpoint_options[];
extern const mhp_option mhp_log_options[];
extern const mhp_option mhp_report_options[];
extern const mhp_option mhp_profile_options[];

#endif
