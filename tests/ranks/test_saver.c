/* mpirun -n P test_saver FOLDER: every system call of a save fails once in turn, on each rank: the save ends with an error that names
 * the cause, and the checkpoint before it stays the latest and intact. Where a failure may not harm (a write that is cut short, a file
 * system that refuses to be written past the cache), the save is complete and intact. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "runtime/checkpoint/catalog.h"
#include "runtime/checkpoint/restore.h"
#include "runtime/checkpoint/saver.h"
#include "runtime/trainer.h"
#include "tests/ranks/check.h"

enum { CALLS_MAX = 200 };

typedef struct world {
    mhp_comm *comm;
    mhp_trainer *trainer;
    const char *folder;
    int rank, size;
} world;

typedef enum harm {
    HARM_FULL,                      /* ENOSPC */
    HARM_INVALID,                   /* EINVAL of a write: what a file system says that does not like the block past the cache */
    HARM_SHORT,                     /* half a write */
    HARM_COUNT
} harm;

/* The call with that number is harmed; all are counted. */
static atomic_int calls_seen, harmed_call, harm_done;
static atomic_int harm_kind;        /* of harm */

static int harm_one(void *context, mhp_file_call call, const char *path, size_t *bytes)
{
    int kind = atomic_load(&harm_kind);

    (void)context;
    (void)path;
    if ((kind != HARM_FULL && call != MHP_FILE_WRITE) || atomic_fetch_add(&calls_seen, 1) != atomic_load(&harmed_call)) {
        return 0;
    }
    atomic_store(&harm_done, 1 + (int)call);
    if (kind == HARM_SHORT) {
        *bytes = (*bytes + 1) / 2;
        return 0;
    }
    return kind == HARM_FULL ? ENOSPC : EINVAL;
}

static int refuse_direct(void *context, mhp_file_call call, const char *path, size_t *bytes)
{
    (void)context;
    (void)path;
    (void)bytes;
    return call == MHP_FILE_DIRECT ? EINVAL : 0;
}

static mhp_saver *make_saver(world *w)
{
    mhp_saver *saver = NULL;
    mhp_saver_params params = {.store = mhp_trainer_store(w->trainer), .optimizer = mhp_trainer_optimizer(w->trainer), .run = w->folder};

    CHECK_OK(mhp_saver_create(&params, &saver));
    return saver;
}

static mhp_status save(world *w, mhp_saver *saver, int64_t step)
{
    mhp_checkpoint_state state = {.step = step, .next_sample = (uint64_t)step, .samples_per_step = 1, .best_loss = 1};
    mhp_status status = mhp_saver_begin(saver, &state);

    (void)w;
    return status == MHP_OK ? mhp_saver_wait(saver) : status;
}

/* What `latest` names is intact. */
static int64_t intact_latest(world *w)
{
    mhp_manifest manifest = {0};
    int64_t step = -1;
    char *path = NULL;

    CHECK_OK(mhp_catalog_latest(w->folder, &step));
    CHECK_OK(mhp_catalog_path(w->folder, step, &path));
    CHECK_OK(mhp_checkpoint_verify(path, &manifest));
    CHECK(manifest.state.step == step);
    mhp_manifest_release(&manifest);
    mhp_free(path);
    return step;
}

/* A save under a hook; all ranks together. */
static mhp_status save_with(world *w, mhp_file_fault_fn fault, int64_t step)
{
    mhp_saver *saver = make_saver(w);
    mhp_status status;

    CHECK_OK(mhp_comm_agree(w->comm, MHP_OK, NULL));
    mhp_file_set_fault(fault, NULL);
    status = save(w, saver, step);
    mhp_file_set_fault(NULL, NULL);
    mhp_saver_destroy(saver);
    mhp_comm_forget_failure(w->comm);
    return status;
}

/* What the harmed rank's call was, for all ranks; -1 if it made no such call. */
static int harmed(world *w, int rank)
{
    mhp_store *store = mhp_trainer_store(w->trainer);
    double call = w->rank == rank ? atomic_load(&harm_done) - 1 : 0;
    mhp_event *summed = NULL;

    CHECK_OK(mhp_event_create(store->device, &summed));
    CHECK_OK(mhp_group_all_reduce(store->world, &call, 1, MHP_DTYPE_F64, MHP_REDUCE_SUM, NULL, summed));
    CHECK_OK(mhp_event_synchronize(summed, 0));
    mhp_event_destroy(summed);
    return (int)call;
}

/* Harms each call of one rank until a save makes no more; returns how many were. */
static int harm_each_call(world *w, harm kind, int rank, int64_t *step)
{
    static const char *const words[HARM_COUNT] = {"No space left on device", "Invalid argument", ""};

    for (int call = 0; call < CALLS_MAX; call++) {
        int64_t before = intact_latest(w), after;
        mhp_status status;
        int which;

        atomic_store(&harm_kind, (int)kind);
        atomic_store(&calls_seen, 0);
        atomic_store(&harm_done, 0);
        atomic_store(&harmed_call, w->rank == rank ? call : -1);
        status = save_with(w, harm_one, ++*step);
        which = harmed(w, rank);
        after = intact_latest(w);
        if (status == MHP_OK) {
            CHECK(after == *step);
            CHECK(which < 0 || kind != HARM_FULL || which == MHP_FILE_DIRECT);
        } else {
            CHECK(which >= 0 && kind != HARM_SHORT && which != MHP_FILE_DIRECT);
            CHECK(status == MHP_ERR_IO && strstr(mhp_error_text(), words[kind]));
            CHECK(after == before || after == *step);    /* the latter if only the last sync of the folder failed */
        }
        if (which < 0) {
            return call;
        }
    }
    CHECK(false);
    return 0;
}

static mhp_status no_sample(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start)
{
    (void)context;
    (void)sample;
    (void)token;
    (void)target;
    (void)document_start;
    return MHP_ERR_INTERNAL;
}

static const mhp_option sections[] = {
    {.key = "model", .type = MHP_OPTION_SECTION, .offset = 0, .section = mhp_model_options},
    {.key = NULL},
};

static void run_cases(world *w)
{
    mhp_saver *saver = make_saver(w);
    int64_t step = 1;
    int total = 0;

    CHECK_OK(mhp_store_initialize(mhp_trainer_store(w->trainer), 1));
    CHECK_OK(save(w, saver, step));
    mhp_saver_destroy(saver);
    for (int rank = 0; rank < w->size; rank++) {
        int failed = harm_each_call(w, HARM_FULL, rank, &step);

        CHECK(failed >= 15);                             /* open, writes, sync, close, rename, folder of each of three files */
        CHECK(harm_each_call(w, HARM_INVALID, rank, &step) >= 3);
        CHECK(harm_each_call(w, HARM_SHORT, rank, &step) >= 3);
        total += failed;
    }
    CHECK_OK(save_with(w, refuse_direct, ++step));
    CHECK(intact_latest(w) == step);
    if (w->rank == 0) {
        printf("%d calls failed once each on %d ranks\n", total, w->size);
    }
}

int main(int argc, char **argv)
{
    char *settings[] = {"model={hidden_size: 16, num_hidden_layers: 4, num_attention_heads: 2, intermediate_size: 32, vocab_size: 64}"};
    mhp_device_params device_params = {.kind = MHP_DEVICE_CPU, .threads = 1};
    world world_of_rank = {0}, *w = &world_of_rank;
    mhp_model_params model = {0};
    mhp_parallel_params parallel = {.pipeline = 1, .data = 1, .threads = 1};
    mhp_schedule_params schedule = {.kind = "1f1b", .microbatches = 4, .chunks = 2, .file = ""};
    mhp_optimizer_params optimizer = {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.9, .eps = 1e-8};
    mhp_train_params train = {.steps = 1, .sequence_length = 16, .micro_batch_size = 1};
    mhp_trainer_params params = {.model = &model, .parallel = &parallel, .schedule = &schedule, .optimizer = &optimizer, .train = &train,
                                 .samples = {no_sample, NULL}};
    mhp_device *device = NULL;

    if (argc != 2 || mhp_device_open(&device_params, &device) != MHP_OK || mhp_comm_open(device, &w->comm) != MHP_OK) {
        fprintf(stderr, "usage: test_saver FOLDER (%s)\n", mhp_error_text());
        return 2;
    }
    w->folder = argv[1];
    w->rank = mhp_comm_rank(w->comm);
    w->size = mhp_comm_size(w->comm);
    parallel.pipeline = w->size;
    CHECK_OK(mhp_options_load(sections, &model, NULL, settings, 1));
    CHECK_OK(mhp_model_params_resolve(&model));
    params.comm = w->comm;
    CHECK_OK(mhp_trainer_create(&params, &w->trainer));
    run_cases(w);
    mhp_trainer_destroy(w->trainer);
    mhp_options_release(sections, &model);
    mhp_comm_close(w->comm);
    mhp_device_close(device);
    return 0;
}
