#include "runtime/options.h"

#include "model/stage.h"
#include "scheduler/lower.h"
#include "scheduler/plan.h"

#define PARALLEL(name) offsetof(mhp_parallel_params, name)
#define SCHEDULE(name) offsetof(mhp_schedule_params, name)
#define OPTIMIZER(name) offsetof(mhp_optimizer_params, name)
#define TRAIN(name) offsetof(mhp_train_params, name)
#define NON_FINITE(name) offsetof(mhp_non_finite_params, name)

static const mhp_option_choice devices[] = {{"cpu", MHP_DEVICE_CPU}, {"test", MHP_DEVICE_TEST}, {"cuda", MHP_DEVICE_CUDA}, {NULL, 0}};
static const mhp_option_choice transports[] = {{"auto", MHP_TRANSPORT_AUTO}, {"ipc", MHP_TRANSPORT_IPC}, {"nccl", MHP_TRANSPORT_NCCL},
                                               {"mpi", MHP_TRANSPORT_MPI}, {NULL, 0}};
static const mhp_option_choice recomputes[] = {
    {"none", MHP_RECOMPUTE_NONE}, {"connections", MHP_RECOMPUTE_CONNECTIONS}, {"full", MHP_RECOMPUTE_FULL}, {NULL, 0}};
static const mhp_option_choice automatic[] = {{"auto", 0}, {NULL, 0}};
static const mhp_option_choice auto_or_none[] = {{"auto", MHP_AUTO}, {"none", MHP_AUTO_NONE}, {NULL, 0}};
static const mhp_option_choice placements[] = {{"deep", MHP_WEIGHTS_DEEP}, {"shallow", MHP_WEIGHTS_SHALLOW}, {NULL, 0}};
static const mhp_option_choice pairs[] = {
    {"auto", MHP_PAIR_AUTO}, {"interleave", MHP_PAIR_INTERLEAVE}, {"streams", MHP_PAIR_STREAMS}, {"parts", MHP_PAIR_PARTS}, {"off", MHP_PAIR_OFF}, {NULL, 0}};
static const mhp_option_choice verifications[] = {{"none", MHP_VERIFY_NONE}, {"messages", MHP_VERIFY_MESSAGES}, {NULL, 0}};
static const mhp_option_choice policies[] = {
    {"stop", MHP_BAD_STEP_STOP}, {"skip", MHP_BAD_STEP_SKIP}, {"rollback", MHP_BAD_STEP_ROLLBACK}, {NULL, 0}};
static const mhp_option_choice decays[] = {
    {"constant", MHP_DECAY_CONSTANT}, {"cosine", MHP_DECAY_COSINE}, {"step", MHP_DECAY_STEP}, {NULL, 0}};

const mhp_option mhp_parallel_options[] = {
    {.key = "pipeline", .type = MHP_OPTION_INT, .offset = PARALLEL(pipeline), .default_text = "1", .minimum = 1,
     .maximum = MHP_RANKS_MAX, .unit = "ranks", .help = "pipeline ranks of one replica"},
    {.key = "data", .type = MHP_OPTION_INT, .offset = PARALLEL(data), .default_text = "1", .minimum = 1, .maximum = MHP_RANKS_MAX,
     .help = "replicas of the pipeline; the world has pipeline x data ranks"},
    {.key = "device", .type = MHP_OPTION_ENUM, .offset = PARALLEL(device), .default_text = "cpu", .choices = devices,
     .help = "what computes; test is the CPU running every task at the worst allowed moment"},
    {.key = "gpu", .type = MHP_OPTION_INT, .offset = PARALLEL(gpu), .default_text = "-1", .minimum = -1, .maximum = 1023,
     .help = "cuda: number of the card for every rank; -1: the cards of a host go round its ranks"},
    {.key = "bind", .type = MHP_OPTION_ENUM, .offset = PARALLEL(bind), .default_text = "auto", .choices = auto_or_none,
     .help = "auto: every rank keeps to its part of the host's cores, near its card, unless the launcher bound it; none: no binding"},
    {.key = "map", .type = MHP_OPTION_ENUM, .offset = PARALLEL(map), .default_text = "auto", .choices = auto_or_none,
     .help = "auto: ranks that exchange messages share a host where they can; none: the ranks are the launcher's"},
    {.key = "transport", .type = MHP_OPTION_ENUM, .offset = PARALLEL(transport), .default_text = "auto", .choices = transports,
     .help = "what carries messages: ipc between ranks of a host, nccl between cards, mpi by way of the host; auto: ipc where it "
     "works, else nccl where every rank has a card to itself, else mpi"},
    {.key = "threads", .type = MHP_OPTION_INT, .offset = PARALLEL(threads), .default_text = "1", .minimum = 1, .maximum = 1024,
     .help = "threads of a rank's matrix products"},
    {.key = "memory_limit", .type = MHP_OPTION_INT, .offset = PARALLEL(memory_limit), .default_text = "0", .minimum = 0,
     .maximum = 1e15, .unit = "bytes", .help = "device memory that a rank may take; more is refused before anything is allocated; 0: no limit"},
    {.key = "verify", .type = MHP_OPTION_ENUM, .offset = PARALLEL(verify), .default_text = "none", .choices = verifications,
     .help = "messages: those between stages carry checksums, which their receivers check"},
    {.key = NULL},
};

static const mhp_option recompute_options[] = {
    {.key = "what", .type = MHP_OPTION_ENUM, .offset = offsetof(mhp_recompute_params, what), .default_text = "none",
     .choices = recomputes, .help = "what is thrown away after the forward pass and made again: nothing, all between the sublayers' "
     "functions, or these functions too"},
    {.key = "block", .type = MHP_OPTION_INT, .offset = offsetof(mhp_recompute_params, block), .default_text = "auto", .minimum = 1,
     .maximum = 8192, .unit = "sublayers", .choices = automatic, .help = "sublayers of which one state is kept; auto: the least memory"},
    {.key = NULL},
};

#define OVERLAP(name) offsetof(mhp_overlap_params, name)

static const mhp_option overlap_options[] = {
    {.key = "critical_stream", .type = MHP_OPTION_BOOL, .offset = OVERLAP(critical_stream), .default_text = "true",
     .help = "whether the kernels that a message waits for run on a stream of high priority, beside what follows them"},
    {.key = "slices", .type = MHP_OPTION_INT, .offset = OVERLAP(slices), .default_text = "auto", .minimum = 1,
     .maximum = MHP_SLICES_MAX, .choices = automatic,
     .help = "parts in which a state leaves its stage as they are made, and in which the next one takes it up; auto: by its size"},
    {.key = "pair", .type = MHP_OPTION_ENUM, .offset = OVERLAP(pair), .default_text = "auto", .choices = pairs,
     .help = "forward and backward of a pair: their steps in turns on one stream, each on a stream of its own, each on a part of the "
     "card of its own, or one after the other; auto: streams on a card, else interleave"},
    {.key = "part", .type = MHP_OPTION_INT, .offset = OVERLAP(part), .default_text = "auto", .minimum = 1, .maximum = 1024,
     .choices = automatic, .unit = "multiprocessors",
     .help = "with pair: parts, what a card's forward half has, or some more; auto: a third, as backward has twice the work"},
    {.key = "spare", .type = MHP_OPTION_INT, .offset = OVERLAP(spare), .default_text = "0", .minimum = 0, .maximum = 1024,
     .unit = "multiprocessors", .help = "of a card, or some more: left to the kernels that a message waits for and to messages, but not amid pairs on parts; 0: none"},
    {.key = NULL},
};

const mhp_option mhp_schedule_options[] = {
    {.key = "kind", .type = MHP_OPTION_STRING, .offset = SCHEDULE(kind), .default_text = "1f1b",
     .help = "name of the schedule, which mhcpipe plan --help lists; or custom, for that of schedule.file"},
    {.key = "microbatches", .type = MHP_OPTION_INT, .offset = SCHEDULE(microbatches), .default_text = "8", .minimum = 1,
     .maximum = MHP_MICROBATCHES_MAX, .help = "micro-batches of one replica and step"},
    {.key = "chunks", .type = MHP_OPTION_INT, .offset = SCHEDULE(chunks), .default_text = "2", .minimum = 1, .maximum = 64,
     .help = "stages a rank, for the interleaved schedules"},
    {.key = "file", .type = MHP_OPTION_STRING, .offset = SCHEDULE(file), .default_text = "",
     .help = "a schedule as YAML or CSV in place of a named one"},
    {.key = "layers_per_stage", .type = MHP_OPTION_FLOAT_LIST, .offset = SCHEDULE(layers_per_stage), .default_text = "[]", .minimum = 0.5,
     .maximum = 4096, .unit = "layers",
     .help = "length of every stage, in whole or half layers: half a layer is one sublayer; empty: as even as whole layers allow"},
    {.key = "weight_gradients", .type = MHP_OPTION_ENUM, .offset = SCHEDULE(weight_gradients), .default_text = "deep",
     .choices = placements, .help = "when those that a schedule puts off are done: where it puts them, or as soon as delays no message"},
    {.key = "recompute", .type = MHP_OPTION_SECTION, .offset = SCHEDULE(recompute), .section = recompute_options,
     .help = "trades time for memory"},
    {.key = "overlap", .type = MHP_OPTION_SECTION, .offset = SCHEDULE(overlap), .section = overlap_options,
     .help = "what may run beside what"},
    {.key = NULL},
};

const mhp_option mhp_optimizer_options[] = {
    {.key = "lr", .type = MHP_OPTION_FLOAT, .offset = OPTIMIZER(lr), .default_text = "3e-4", .minimum = 0, .maximum = 10,
     .help = "highest learning rate"},
    {.key = "beta1", .type = MHP_OPTION_FLOAT, .offset = OPTIMIZER(beta1), .default_text = "0.9", .minimum = 0, .maximum = 0.999999,
     .help = "decay of AdamW's first moment"},
    {.key = "beta2", .type = MHP_OPTION_FLOAT, .offset = OPTIMIZER(beta2), .default_text = "0.95", .minimum = 0, .maximum = 0.999999,
     .help = "decay of AdamW's second moment"},
    {.key = "eps", .type = MHP_OPTION_FLOAT, .offset = OPTIMIZER(eps), .default_text = "1e-8", .minimum = 0, .maximum = 1,
     .help = "added to the root of the second moment"},
    {.key = "weight_decay", .type = MHP_OPTION_FLOAT, .offset = OPTIMIZER(weight_decay), .default_text = "0.1", .minimum = 0,
     .maximum = 10, .help = "decoupled weight decay of the matrices"},
    {.key = "clip", .type = MHP_OPTION_FLOAT, .offset = OPTIMIZER(clip), .default_text = "1.0", .minimum = 0, .maximum = 1e9,
     .help = "largest global gradient norm; 0: no clipping"},
    {.key = "warmup_steps", .type = MHP_OPTION_INT, .offset = OPTIMIZER(warmup_steps), .default_text = "0", .minimum = 0,
     .maximum = 1e9, .unit = "steps", .help = "linear rise of the rate from 0"},
    {.key = "decay", .type = MHP_OPTION_ENUM, .offset = OPTIMIZER(decay), .default_text = "cosine", .choices = decays,
     .help = "what the rate does after warm-up"},
    {.key = "min_lr_ratio", .type = MHP_OPTION_FLOAT, .offset = OPTIMIZER(min_lr_ratio), .default_text = "0.1", .minimum = 0,
     .maximum = 1, .help = "cosine: the last rate over lr"},
    {.key = "step_at", .type = MHP_OPTION_FLOAT_LIST, .offset = OPTIMIZER(step_at), .default_text = "[0.8, 0.9]", .minimum = 0,
     .maximum = 1, .help = "step: fractions of train.steps at which the rate falls"},
    {.key = "step_factor", .type = MHP_OPTION_FLOAT_LIST, .offset = OPTIMIZER(step_factor), .default_text = "[0.316, 0.1]",
     .minimum = 0, .maximum = 1, .help = "step: the rate from there on, over lr"},
    {.key = NULL},
};

static const mhp_option non_finite_options[] = {
    {.key = "policy", .type = MHP_OPTION_ENUM, .offset = NON_FINITE(policy), .default_text = "stop", .choices = policies,
     .help = "after a bad step, whose update is left out in any case: end the run, go on with the next step, or go back to the newest "
     "checkpoint and on from there with the data behind the bad step's"},
    {.key = "max_gradient_norm", .type = MHP_OPTION_FLOAT, .offset = NON_FINITE(max_gradient_norm), .default_text = "0", .minimum = 0,
     .maximum = 1e300, .help = "a step is bad above this global gradient norm, before clipping; 0: only if it is not finite"},
    {.key = "max_gain", .type = MHP_OPTION_FLOAT, .offset = NON_FINITE(max_gain), .default_text = "0", .minimum = 0, .maximum = 1e300,
     .help = "a step is bad above this composed gain, forward or backward; 0: only if it is not finite"},
    {.key = "max_loss_ratio", .type = MHP_OPTION_FLOAT, .offset = NON_FINITE(max_loss_ratio), .default_text = "0", .minimum = 0,
     .maximum = 1e300, .help = "a step is bad if its loss is above this times the mean of the good steps before; 0: only if it is not finite"},
    {.key = "patience", .type = MHP_OPTION_INT, .offset = NON_FINITE(patience), .default_text = "10", .minimum = 0, .maximum = 1e9,
     .help = "bad steps in a row that are skipped, or times that the run goes back to one checkpoint; one more ends it"},
    {.key = NULL},
};

const mhp_option mhp_train_options[] = {
    {.key = "steps", .type = MHP_OPTION_INT, .offset = TRAIN(steps), .default_text = "1000", .minimum = 1, .maximum = 1e12,
     .help = "optimizer steps of the whole run"},
    {.key = "seed", .type = MHP_OPTION_INT, .offset = TRAIN(seed), .default_text = "1", .minimum = 0, .maximum = 9e15,
     .help = "start values and sample order are pure functions of it"},
    {.key = "sequence_length", .type = MHP_OPTION_INT, .offset = TRAIN(sequence_length), .default_text = "256", .minimum = 1,
     .maximum = 1048576, .unit = "tokens", .help = "length of a sequence"},
    {.key = "micro_batch_size", .type = MHP_OPTION_INT, .offset = TRAIN(micro_batch_size), .default_text = "1", .minimum = 1,
     .maximum = 65535, .unit = "sequences", .help = "size of a micro-batch"},
    {.key = "verify_replay", .type = MHP_OPTION_INT, .offset = TRAIN(verify_replay), .default_text = "0", .minimum = 0, .maximum = 1e12,
     .unit = "steps", .help = "every so many steps losses and gradients are computed twice and compared bit by bit; 0: never"},
    {.key = "non_finite", .type = MHP_OPTION_SECTION, .offset = TRAIN(non_finite), .section = non_finite_options,
     .help = "what a bad step is, and what follows it"},
    {.key = NULL},
};

#define SECONDS(name, default_, help_)                                                                                              \
    {                                                                                                                              \
        .key = #name, .type = MHP_OPTION_INT, .offset = offsetof(mhp_watch_params, name), .default_text = default_, .minimum = 1,   \
        .maximum = 604800, .unit = "seconds", .help = help_                                                                        \
    }

const mhp_option mhp_watch_options[] = {
    SECONDS(start_seconds, "1800", "longest time from the first connection between ranks to the first step"),
    SECONDS(step_seconds, "600", "longest time of a step, and of a batch of an evaluation"),
    SECONDS(save_seconds, "1800", "longest time that a step waits for a checkpoint"),
    SECONDS(silence_seconds, "60", "longest time without a sign of life of a rank, and of the ranks' leaving at the end; a warning names "
                                   "a silent one at a quarter of it"),
    SECONDS(term_seconds, "2", "what a launcher leaves between SIGTERM and SIGKILL: 2 of Open MPI, KillWait of Slurm"),
    {.key = NULL},
};

const mhp_option mhp_eval_options[] = {
    {.key = "every", .type = MHP_OPTION_INT, .offset = offsetof(mhp_eval_params, every), .default_text = "0", .minimum = 0,
     .maximum = 1e12, .unit = "steps", .help = "steps between evaluations of the held-out loss; 0: only at the end"},
    {.key = "sequences", .type = MHP_OPTION_INT, .offset = offsetof(mhp_eval_params, sequences), .default_text = "256",
     .minimum = 0, .maximum = 1e12, .unit = "sequences", .help = "held-out sequences that an evaluation reads at most; 0: all"},
    {.key = NULL},
};

const mhp_option mhp_checkpoint_options[] = {
    {.key = "every", .type = MHP_OPTION_INT, .offset = offsetof(mhp_checkpoint_params, every), .default_text = "0", .minimum = 0,
     .maximum = 1e12, .unit = "steps", .help = "steps between checkpoints; 0: only at the end"},
    {.key = "keep_last", .type = MHP_OPTION_INT, .offset = offsetof(mhp_checkpoint_params, keep_last), .default_text = "0", .minimum = 0,
     .maximum = 1e6, .help = "newest checkpoints that stay when another is complete; 0: all"},
    {.key = "keep_every", .type = MHP_OPTION_INT, .offset = offsetof(mhp_checkpoint_params, keep_every), .default_text = "0",
     .minimum = 0, .maximum = 1e12, .unit = "steps", .help = "checkpoints of steps that are multiples of this stay as well; 0: none"},
    {.key = NULL},
};

const mhp_option mhp_log_options[] = {
    {.key = "dir", .type = MHP_OPTION_STRING, .offset = offsetof(mhp_log_params, dir), .default_text = "runs/latest",
     .help = "the run's folder: metrics, resolved configuration, checkpoints"},
    {.key = "every", .type = MHP_OPTION_INT, .offset = offsetof(mhp_log_params, every), .default_text = "10", .minimum = 1,
     .maximum = 1e9, .unit = "steps", .help = "steps between printed lines where there is no terminal"},
    {.key = "tensorboard", .type = MHP_OPTION_BOOL, .offset = offsetof(mhp_log_params, tensorboard), .default_text = "false",
     .help = "whether every step's numbers go to event files in tensorboard/ of the run's folder as well"},
    {.key = "prometheus", .type = MHP_OPTION_STRING, .offset = offsetof(mhp_log_params, prometheus), .default_text = "",
     .help = "path of a text file for Prometheus, replaced every log.every steps; empty: none"},
    {.key = NULL},
};

static const mhp_option emissions_options[] = {
    {.key = "grams_per_kwh", .type = MHP_OPTION_FLOAT, .offset = offsetof(mhp_emissions_params, grams_per_kwh), .default_text = "0",
     .minimum = 0, .maximum = 10000, .unit = "grams", .help = "CO2 equivalents of a kilowatt-hour; 0: not known, and no emissions are told"},
    {.key = "pue", .type = MHP_OPTION_FLOAT, .offset = offsetof(mhp_emissions_params, pue), .default_text = "1.0", .minimum = 1,
     .maximum = 10, .help = "power usage effectiveness: the whole site's energy over that of its computers"},
    {.key = NULL},
};

const mhp_option mhp_report_options[] = {
    {.key = "emissions", .type = MHP_OPTION_SECTION, .offset = offsetof(mhp_report_params, emissions), .section = emissions_options,
     .help = "what the energy of the run emits"},
    {.key = NULL},
};

const mhp_option mhp_profile_options[] = {
    {.key = "steps", .type = MHP_OPTION_INT, .offset = offsetof(mhp_profile_params, steps), .default_text = "0", .minimum = 0,
     .maximum = 10000, .unit = "steps", .help = "steps whose spans are recorded for mhcpipe report; 0: none"},
    {.key = "start", .type = MHP_OPTION_INT, .offset = offsetof(mhp_profile_params, start), .default_text = "3", .minimum = 0,
     .maximum = 1e12, .unit = "steps", .help = "steps that run before the first recorded one, counted from where this run starts; "
     "fewer if there are not so many"},
    {.key = "kernels", .type = MHP_OPTION_BOOL, .offset = offsetof(mhp_profile_params, kernels), .default_text = "false",
     .help = "also record every kernel and copy of a card by CUPTI, from the start until the last recorded step"},
    {.key = NULL},
};

mhp_status mhp_optimizer_params_check(const mhp_optimizer_params *params)
{
    if (params->step_at.count != params->step_factor.count) {
        return mhp_error_set(MHP_ERR_CONFIG, "optimizer.step_factor has %zu entries: expected as many as optimizer.step_at, %zu",
                             params->step_factor.count, params->step_at.count);
    }
    return MHP_OK;
}
