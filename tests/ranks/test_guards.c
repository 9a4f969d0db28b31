/* mpirun -n P test_guards FOLDER [test]: runs with a bad step against runs that never had it, bit by bit: skipped, gone back over to
 * a checkpoint or to the start, resumed behind that; and runs that end, by policy, patience or limit. Steps that are run twice, and one
 * whose second run differs. Messages with checksums.
 *
 * mpirun -n P test_guards FOLDER corrupt KIND: flips a bit of a message of that kind, "state" or "gradient", of step 4; ends as mhcpipe
 * does.
 *
 * A check that fails ends its rank, and with it the whole launch: the others may wait for it. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/seal.h"
#include "core/file.h"
#include "core/memory.h"
#include "runtime/data/indexed.h"
#include "runtime/run.h"
#include "tests/ranks/check.h"

enum { STEPS = 8, LENGTH = 12, VOCABULARY = 19, DOCUMENTS = 40, DOCUMENT_TOKENS = 50, CHECKPOINT_EVERY = 3, PATH_BYTES = 256 };
enum { EVERY_STEP = -1, NO_STEP = -2 };

typedef struct world {
    mhp_device *device;
    mhp_comm *comm;
    const char *folder;
    int rank, size;
    mhp_model_params model;
    mhp_parallel_params parallel;
    mhp_schedule_params schedule;
    mhp_optimizer_params optimizer;
    mhp_train_params train;
    mhp_data_params data;
    mhp_eval_params eval;
    mhp_checkpoint_params checkpoint;
    mhp_trainer *trainer;           /* of the run that is tampered with */
    int64_t bad_step;
    int bad_times;                  /* how often it is still to be bad */
    float bad_value;
} world;

/* The last rank puts the value into its part of the gradients. */
static mhp_status tamper(void *context, int64_t step)
{
    world *w = context;
    const mhp_held_stage *held = &mhp_trainer_store(w->trainer)->held[0];

    if ((step != w->bad_step && w->bad_step != EVERY_STEP) || w->bad_times == 0) {
        return MHP_OK;
    }
    w->bad_times--;
    if (w->rank != w->size - 1) {
        return MHP_OK;
    }
    return mhp_stream_copy(mhp_trainer_compute(w->trainer), (float *)held->gradients + held->chunk * mhp_group_index(held->group),
                           &w->bad_value, sizeof w->bad_value);
}

/* ---- data ---- */

static void write_data(world *w, const char *prefix)
{
    mhp_indexed_writer *writer = NULL;

    if (w->rank == 0) {
        CHECK_OK(mhp_mkdirs(w->folder));
        CHECK_OK(mhp_indexed_create(prefix, &writer));
        for (int d = 0; d < DOCUMENTS; d++) {
            uint16_t tokens[DOCUMENT_TOKENS];

            for (int t = 0; t < DOCUMENT_TOKENS; t++) {
                tokens[t] = (uint16_t)((d * 7 + t * t + t / 3) % VOCABULARY);
            }
            CHECK_OK(mhp_indexed_append(writer, tokens, DOCUMENT_TOKENS));
            CHECK_OK(mhp_indexed_end_document(writer));
        }
        CHECK_OK(mhp_indexed_finish(writer));
    }
    CHECK_OK(mhp_comm_agree(w->comm, MHP_OK, NULL));
}

static mhp_status fill(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start)
{
    return mhp_dataset_sample(context, MHP_SPLIT_TRAIN, sample, token, target, document_start);
}

/* ---- what a run leaves on this rank ---- */

typedef struct image {
    char *bytes;
    size_t size;
} image;

static void append(world *w, mhp_trainer *trainer, image *all, const void *memory, size_t bytes)
{
    CHECK_OK(mhp_realloc(&all->bytes, all->size + bytes, 1));
    CHECK_OK(mhp_stream_copy(mhp_trainer_compute(trainer), all->bytes + all->size, memory, bytes));
    CHECK_OK(mhp_stream_synchronize(mhp_trainer_compute(trainer)));
    all->size += bytes;
}

/* Parameters and moments. */
static image take(world *w, mhp_trainer *trainer)
{
    image result = {NULL, 0};
    mhp_store *store = mhp_trainer_store(trainer);

    for (int i = 0; i < store->held_count; i++) {
        const mhp_held_stage *held = &store->held[i];
        size_t part = (size_t)held->chunk * sizeof(float);
        void *moments[2];

        mhp_optimizer_moments(mhp_trainer_optimizer(trainer), held, &moments[0], &moments[1]);
        append(w, trainer, &result, held->parameters, part * (size_t)mhp_group_size(held->group));
        append(w, trainer, &result, moments[0], part);
        append(w, trainer, &result, moments[1], part);
    }
    return result;
}

static bool is_same(image *a, image *b)
{
    bool same = a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;

    mhp_free(a->bytes);
    mhp_free(b->bytes);
    return same;
}

/* ---- runs ---- */

static mhp_trainer_params trainer_params(world *w)
{
    return (mhp_trainer_params){
        .comm = w->comm, .model = &w->model, .parallel = &w->parallel, .schedule = &w->schedule, .optimizer = &w->optimizer,
        .train = &w->train};
}

/* Steps with the step of the data that each reads; a step may be left out. */
typedef struct reference_step {
    int64_t step, data;
} reference_step;

static image reference(world *w, const reference_step *steps, int count)
{
    mhp_trainer_params params = trainer_params(w);
    mhp_dataset *dataset = NULL;
    mhp_trainer *trainer = NULL;
    image result;

    w->train.non_finite = (mhp_non_finite_params){.policy = MHP_BAD_STEP_STOP};
    CHECK_OK(mhp_dataset_open(&w->data, LENGTH, (uint64_t)w->train.seed, VOCABULARY, &dataset));
    params.samples = (mhp_sample_source){fill, dataset};
    CHECK_OK(mhp_trainer_create(&params, &trainer));
    CHECK_OK(mhp_store_initialize(mhp_trainer_store(trainer), (uint64_t)w->train.seed));
    for (int i = 0; i < count; i++) {
        mhp_step_report report;

        mhp_trainer_seek(trainer, steps[i].step, (uint64_t)(steps[i].data * mhp_trainer_batch_samples(trainer)));
        CHECK_OK(mhp_trainer_step(trainer, steps[i].step, &report));
        CHECK(report.fault == MHP_STEP_GOOD);
    }
    result = take(w, trainer);
    mhp_trainer_destroy(trainer);
    mhp_dataset_close(dataset);
    return result;
}

static char *run_path(const world *w, const char *name)
{
    static char path[PATH_BYTES];

    snprintf(path, sizeof path, "%s/%s-%lld", w->folder, name, (long long)w->parallel.data);
    return path;
}

/* A run with a bad step. */
static mhp_status tampered(world *w, const char *name, const char *resume, image *result_out)
{
    mhp_run_params params = {.trainer = trainer_params(w), .data = &w->data, .eval = &w->eval, .checkpoint = &w->checkpoint,
                             .directory = run_path(w, name), .resume = mhp_resume_parse(resume)};
    mhp_run_result result;
    mhp_run *run = NULL;
    mhp_status status;

    params.trainer.tamper = tamper;
    params.trainer.tamper_context = w;
    CHECK_OK(mhp_run_create(&params, &run));
    w->trainer = mhp_run_trainer(run);
    status = mhp_run_train(run, &result);
    CHECK(status < 0 || result.steps == STEPS);
    *result_out = take(w, w->trainer);
    mhp_run_destroy(run);
    mhp_comm_forget_failure(w->comm);
    return status;
}

static void set_bad(world *w, int64_t step, int times, double value, int policy)
{
    w->bad_step = step;
    w->bad_times = times;
    w->bad_value = (float)value;
    w->train.non_finite = (mhp_non_finite_params){.policy = policy, .patience = 2};
}

/* ---- metrics.jsonl ---- */

/* How many lines there are of steps, each once and in order, and of events; the last event is kept. */
typedef struct lines {
    int steps, events;
    char event[16], fault[32];
    int64_t step, first_sample, to_step;
} lines;

static void read_event(lines *found, const json_t *root)
{
    found->events++;
    snprintf(found->event, sizeof found->event, "%s", json_string_value(json_object_get(root, "event")));
    snprintf(found->fault, sizeof found->fault, "%s", json_string_value(json_object_get(root, "fault")));
    found->step = json_integer_value(json_object_get(root, "step"));
    found->first_sample = json_integer_value(json_object_get(root, "first_sample"));
    found->to_step = json_object_get(root, "to_step") ? json_integer_value(json_object_get(root, "to_step")) : -1;
}

static lines read_lines(world *w, const char *name)
{
    lines found = {.steps = 0};
    char path[PATH_BYTES + 16], line[4096];
    FILE *file;

    snprintf(path, sizeof path, "%s/metrics.jsonl", run_path(w, name));
    file = fopen(path, "r");
    CHECK(file);
    while (fgets(line, sizeof line, file)) {
        json_t *root = json_loads(line, 0, NULL);

        CHECK(json_is_object(root));
        if (json_object_get(root, "event")) {
            read_event(&found, root);
        } else {
            CHECK(json_integer_value(json_object_get(root, "step")) == ++found.steps);
        }
        json_decref(root);
    }
    fclose(file);
    return found;
}

static void check_lines(world *w, const char *name, int steps, const char *event, int events, int64_t step, int64_t to_step)
{
    lines found;

    CHECK_OK(mhp_comm_agree(w->comm, MHP_OK, NULL));
    if (w->rank > 0) {
        return;
    }
    found = read_lines(w, name);
    CHECK(found.steps == steps && found.events == events && strcmp(found.event, event) == 0);
    CHECK(found.step == step + 1 && found.to_step == to_step);
}

/* ---- cases ---- */

static void skips(world *w, double value, double limit)
{
    const reference_step steps[] = {{0, 0}, {1, 1}, {2, 2}, {3, 3}, {5, 5}, {6, 6}, {7, 7}};
    image expected = reference(w, steps, 7), found;

    set_bad(w, 4, 1, value, MHP_BAD_STEP_SKIP);
    w->train.non_finite.max_gradient_norm = limit;
    CHECK_OK(tampered(w, limit > 0 ? "limited" : "skipped", NULL, &found));
    CHECK(w->bad_times == 0);
    CHECK(is_same(&expected, &found));
    check_lines(w, limit > 0 ? "limited" : "skipped", STEPS, "skip", 1, 4, -1);
}

/* The data of the steps that are undone are not read again, nor those of the bad one. */
static void goes_back_to_a_checkpoint(world *w)
{
    const reference_step steps[] = {{0, 0}, {1, 1}, {2, 2}, {3, 5}, {4, 6}, {5, 7}, {6, 8}, {7, 9}};
    image expected = reference(w, steps, STEPS), found, resumed, again = reference(w, steps, STEPS);
    char path[PATH_BYTES + 64];

    set_bad(w, 4, 1, NAN, MHP_BAD_STEP_ROLLBACK);
    CHECK_OK(tampered(w, "back", NULL, &found));
    CHECK(is_same(&expected, &found));
    check_lines(w, "back", STEPS, "rollback", 1, 4, 3);
    set_bad(w, NO_STEP, 0, 0, MHP_BAD_STEP_STOP);
    snprintf(path, sizeof path, "%s/checkpoints/step-00000006", run_path(w, "back"));
    CHECK_OK(tampered(w, "back", path, &resumed));
    CHECK(is_same(&again, &resumed));
    check_lines(w, "back", STEPS, "rollback", 1, 4, 3);
}

static void goes_back_to_the_start(world *w)
{
    const reference_step steps[] = {{0, 2}, {1, 3}, {2, 4}, {3, 5}, {4, 6}, {5, 7}, {6, 8}, {7, 9}};
    image expected = reference(w, steps, STEPS), found;

    set_bad(w, 1, 1, INFINITY, MHP_BAD_STEP_ROLLBACK);
    CHECK_OK(tampered(w, "start", NULL, &found));
    CHECK(is_same(&expected, &found));
    check_lines(w, "start", STEPS, "rollback", 1, 1, 0);
}

static void stops(world *w)
{
    const reference_step steps[] = {{0, 0}, {1, 1}, {2, 2}, {3, 3}};
    image expected = reference(w, steps, 4), found;

    set_bad(w, 4, 1, NAN, MHP_BAD_STEP_STOP);
    CHECK(tampered(w, "stopped", NULL, &found) == MHP_ERR_NOT_FINITE);
    CHECK(strstr(mhp_error_text(), "step 5: the gradient norm is ") && strstr(mhp_error_text(), "expected a finite number"));
    CHECK(is_same(&expected, &found));
    check_lines(w, "stopped", 4, "stop", 1, 4, -1);
}

static void loses_patience(world *w)
{
    image found;

    set_bad(w, EVERY_STEP, 1000, NAN, MHP_BAD_STEP_SKIP);
    CHECK(tampered(w, "impatient", NULL, &found) == MHP_ERR_NOT_FINITE);
    CHECK(strstr(mhp_error_text(), "step 3: ") && strstr(mhp_error_text(), "train.non_finite.patience"));
    mhp_free(found.bytes);
    check_lines(w, "impatient", 2, "stop", 3, 2, -1);
    set_bad(w, 4, 1000, NAN, MHP_BAD_STEP_ROLLBACK);
    CHECK(tampered(w, "impatient-back", NULL, &found) == MHP_ERR_NOT_FINITE);
    CHECK(strstr(mhp_error_text(), "step 5: ") && strstr(mhp_error_text(), "train.non_finite.patience"));
    mhp_free(found.bytes);
    check_lines(w, "impatient-back", 4, "stop", 3, 4, -1);
}

/* The gain is about 1. */
static void watches_the_gain(world *w)
{
    image found;

    set_bad(w, NO_STEP, 0, 0, MHP_BAD_STEP_STOP);
    w->train.non_finite.max_gain = 0.5;
    CHECK(tampered(w, "gain", NULL, &found) == MHP_ERR_NOT_FINITE);
    CHECK(strstr(mhp_error_text(), "step 1: the composed gain forward is ") &&
          strstr(mhp_error_text(), "expected at most 0.5 (train.non_finite.max_gain)"));
    mhp_free(found.bytes);
    check_lines(w, "gain", 0, "stop", 1, 0, -1);
}

static void runs_steps_twice(world *w)
{
    const reference_step steps[] = {{0, 0}, {1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}, {6, 6}, {7, 7}};
    image expected = reference(w, steps, STEPS), found;

    set_bad(w, NO_STEP, 0, 0, MHP_BAD_STEP_STOP);
    w->train.verify_replay = 1;
    CHECK_OK(tampered(w, "replayed", NULL, &found));
    CHECK(is_same(&expected, &found));
    w->train.verify_replay = 0;
}

/* The value stands in the first of the two runs only, or in a step that is not run twice. */
static void notices_a_difference(world *w)
{
    char start[64] = "step 4: run twice, the gradient of model.";
    image found;

    if (w->size > 1) {              /* whose rank is named, unless all have it */
        snprintf(start, sizeof start, "rank %d: step 4: run twice, the gradient of model.", w->size - 1);
    }
    w->train.verify_replay = 2;
    set_bad(w, 3, 1, 0.125, MHP_BAD_STEP_SKIP);
    CHECK(tampered(w, "different", NULL, &found) == MHP_ERR_DEVICE);
    CHECK(strncmp(mhp_error_text(), start, strlen(start)) == 0);
    CHECK(strstr(mhp_error_text(), "came to 0.125 and to ") && strstr(mhp_error_text(), "expected the same bits"));
    mhp_free(found.bytes);
    set_bad(w, 2, 1, 0.125, MHP_BAD_STEP_SKIP);
    CHECK_OK(tampered(w, "unnoticed", NULL, &found));
    mhp_free(found.bytes);
    w->train.verify_replay = 0;
}

static void seals_change_nothing(world *w)
{
    const reference_step steps[] = {{0, 0}, {1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}, {6, 6}, {7, 7}};
    image expected = reference(w, steps, STEPS), found;

    set_bad(w, NO_STEP, 0, 0, MHP_BAD_STEP_STOP);
    w->parallel.verify = MHP_VERIFY_MESSAGES;
    CHECK_OK(tampered(w, "sealed", NULL, &found));
    CHECK(is_same(&expected, &found));
    w->parallel.verify = MHP_VERIFY_NONE;
}

static void run_cases(world *w)
{
    skips(w, NAN, 0);
    skips(w, 1e6, 1e3);
    goes_back_to_a_checkpoint(w);
    goes_back_to_the_start(w);
    stops(w);
    loses_patience(w);
    watches_the_gain(w);
    runs_steps_twice(w);
    notices_a_difference(w);
    seals_change_nothing(w);
}

/* Of the fourth step, the third micro-batch. */
static void flip_a_bit(void *context, const char *name, uint64_t label, void *bytes, size_t size)
{
    const char *kind = context;

    if (strncmp(name, kind, strlen(kind)) == 0 && label == ((uint64_t)4 << 20 | 2)) {
        ((char *)bytes)[size / 2] ^= 4;
    }
}

/* As the program ends: one rank tells the others and prints. Does not return. */
static void end_by_corruption(world *w, char *kind)
{
    mhp_run_params params = {.trainer = trainer_params(w), .data = &w->data, .eval = &w->eval, .checkpoint = &w->checkpoint};
    mhp_run_result result;
    mhp_run *run = NULL;
    mhp_status status;

    w->parallel.verify = MHP_VERIFY_MESSAGES;
    mhp_seals_set_fault(flip_a_bit, kind);
    CHECK_OK(mhp_run_create(&params, &run));
    status = mhp_run_train(run, &result);
    CHECK(status < 0);
    if (mhp_comm_fail(w->comm, status)) {
        fprintf(stderr, "error: rank %d: %s\n", w->rank, mhp_error_text());
    }
    mhp_comm_abort(w->comm);
}

static void configure(world *w, int kind)
{
    static char no_file[] = "", schedule[] = "1f1b";

    w->model = (mhp_model_params){
        .hidden_size = 24, .num_hidden_layers = 4, .num_attention_heads = 3, .num_key_value_heads = 1, .head_dim = 8,
        .intermediate_size = 20, .vocab_size = VOCABULARY, .rms_norm_eps = 1e-6, .rope_theta = 1e4, .initializer_range = 0.1,
        .dtype = MHP_DTYPE_F32,
        .connections = {.kind = MHP_CONNECTION_MHC, .streams = 4, .sinkhorn_iterations = 8, .eps = 1e-6, .readout = MHP_READOUT_HEAD,
                        .init_scale = 0.3, .init_pre_gain = 1, .init_comb_diagonal = 2},
    };
    w->parallel = (mhp_parallel_params){.pipeline = w->size, .data = 1, .device = kind, .threads = 1};
    w->schedule = (mhp_schedule_params){.kind = schedule, .microbatches = 4, .chunks = 2, .file = no_file};
    w->optimizer = (mhp_optimizer_params){.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1, .decay = MHP_DECAY_CONSTANT};
    w->train = (mhp_train_params){.steps = STEPS, .seed = 1, .sequence_length = LENGTH, .micro_batch_size = 1};
    w->data = (mhp_data_params){.end_of_document = -1, .cross_documents = true};
    w->checkpoint = (mhp_checkpoint_params){.every = CHECKPOINT_EVERY};
}

int main(int argc, char **argv)
{
    bool test = argc > 2 && strcmp(argv[2], "test") == 0;
    mhp_device_params params = {.kind = test ? MHP_DEVICE_TEST : MHP_DEVICE_CPU, .threads = 1, .seed = 3};
    world world_of_rank = {.rank = -1}, *w = &world_of_rank;
    char prefix[PATH_BYTES], *paths[] = {prefix};

    if (argc < 2 || mhp_device_open(&params, &w->device) != MHP_OK || mhp_comm_open(w->device, &w->comm) != MHP_OK) {
        fprintf(stderr, "usage: test_guards FOLDER [test] (%s)\n", mhp_error_text());
        return 2;
    }
    w->rank = mhp_comm_rank(w->comm);
    w->size = mhp_comm_size(w->comm);
    w->folder = argv[1];
    snprintf(prefix, sizeof prefix, "%s/data", w->folder);
    configure(w, (int)params.kind);
    w->data.path = (mhp_string_list){.items = paths, .count = 1};
    write_data(w, prefix);
    if (argc > 3) {
        end_by_corruption(w, argv[3]);
    }
    run_cases(w);
    if (w->size % 2 == 0) {         /* holders share a stage's gradients and moments */
        w->parallel.pipeline = w->size / 2;
        w->parallel.data = 2;
        run_cases(w);
    }
    mhp_comm_close(w->comm);
    mhp_device_close(w->device);
    return 0;
}
