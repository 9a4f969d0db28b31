#include "runtime/live.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/folder.h"
#include "core/memory.h"
#include "runtime/live_file.h"

enum { POWER_EVERY = 5, NANOSECONDS = 1000000000 };     /* copies between two looks at the meters */

struct mhp_live {
    mhp_live_file *file;            /* mapped */
    mhp_energy_meter *meters[2];
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping;                  /* under the lock, as is the state */
    mhp_live_state state;
    _Atomic uint64_t action;        /* of the compute stream */
    int64_t period_ns;
    uint64_t power_ns;              /* the file's thread alone */
};

static uint64_t unix_time_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * NANOSECONDS + (uint64_t)now.tv_nsec;
}

/* ---- the file's thread ---- */

/* Watts since the last look. */
static double measure_power(mhp_live *live)
{
    uint64_t now_ns = mhp_time_ns();
    double joules = NAN, seconds = (double)(now_ns - live->power_ns) * 1e-9;

    for (size_t i = 0; i < sizeof live->meters / sizeof *live->meters; i++) {
        if (live->meters[i]) {
            double part = mhp_energy_read(live->meters[i], now_ns);

            joules = isnan(joules) ? part : isnan(part) ? joules : joules + part;
        }
    }
    live->power_ns = now_ns;
    return joules / seconds;
}

/* The lock is held. Readers that see the same even number before and after have seen no half of this. */
static void copy_state(mhp_live *live)
{
    uint32_t sequence = atomic_load_explicit(&live->file->sequence, memory_order_relaxed);

    live->state.action = atomic_load_explicit(&live->action, memory_order_relaxed);
    live->state.beat_ns = unix_time_ns();
    atomic_store_explicit(&live->file->sequence, sequence + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    memcpy(&live->file->state, &live->state, sizeof live->state);
    atomic_store_explicit(&live->file->sequence, sequence + 2, memory_order_release);
}

static void *run_thread(void *context)
{
    mhp_live *live = context;

    pthread_mutex_lock(&live->lock);
    for (unsigned i = 1; !live->stopping; i++) {
        struct timespec until;

        copy_state(live);
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += live->period_ns;
        until.tv_sec += until.tv_nsec / NANOSECONDS;
        until.tv_nsec %= NANOSECONDS;
        (void)pthread_cond_timedwait(&live->wake, &live->lock, &until);
        if (i % POWER_EVERY == 0 && (live->meters[0] || live->meters[1])) {
            double power_w;

            pthread_mutex_unlock(&live->lock);
            power_w = measure_power(live);
            pthread_mutex_lock(&live->lock);
            live->state.power_w = power_w;
        }
    }
    pthread_mutex_unlock(&live->lock);
    return NULL;
}

/* Signals are for the other threads. */
static mhp_status start_thread(mhp_live *live)
{
    sigset_t all, before;
    int code;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    code = pthread_create(&live->thread, NULL, run_thread, live);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        return mhp_error_set(MHP_ERR_DEVICE, "cannot start the thread of the live file: %s", strerror(code));
    }
    live->started = true;
    return MHP_OK;
}

/* ---- opening and closing ---- */

mhp_status mhp_live_prepare(const char *directory)
{
    mhp_status status = MHP_OK;
    char *path = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/live", directory));
    MHP_TRY(out, mhp_folder_remove(path));
    MHP_TRY(out, mhp_mkdirs(path));
out:
    mhp_free(path);
    return status;
}

/* The blocks are taken now: a disk that is full must not end the process when the mapping is written. */
static mhp_status map_file(mhp_live *live, const char *path)
{
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int code = file < 0 ? errno : posix_fallocate(file, 0, MHP_LIVE_BYTES);
    void *mapping = code == 0 ? mmap(NULL, MHP_LIVE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;

    code = code == 0 && mapping == MAP_FAILED ? errno : code;
    if (file >= 0) {
        close(file);
    }
    if (code != 0) {
        return mhp_error_set(MHP_ERR_IO, "cannot map %s: %s", path, strerror(code));
    }
    live->file = mapping;
    memcpy(live->file->magic, MHP_LIVE_MAGIC, sizeof live->file->magic);
    live->file->version = MHP_LIVE_VERSION;
    live->file->bytes = MHP_LIVE_BYTES;
    return MHP_OK;
}

static void identify(mhp_live_state *state)
{
    state->process = (int32_t)getpid();
    state->node = mhp_live_node();
    state->processes = mhp_live_processes();
    state->start_ns = unix_time_ns();
    state->phase = MHP_LIVE_RUNNING;
    state->step_s = state->bubble = state->loss = state->tokens_per_s = state->power_w = NAN;
    if (gethostname(state->host, sizeof state->host - 1) != 0) {
        state->host[0] = '\0';
    }
}

static void init_lock(mhp_live *live)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&live->lock, NULL);
    pthread_cond_init(&live->wake, &attributes);
    pthread_condattr_destroy(&attributes);
}

mhp_status mhp_live_open(const mhp_live_params *params, mhp_live **live_out)
{
    mhp_status status = MHP_OK;
    mhp_live *live = NULL;
    char *path = NULL;

    MHP_RETURN_IF_ERROR(mhp_calloc(&live, 1, sizeof *live));
    init_lock(live);
    live->state = params->state;
    identify(&live->state);
    live->power_ns = mhp_time_ns();
    live->period_ns = params->period_ns > 0 ? params->period_ns : MHP_LIVE_PERIOD_MS * 1000000L;
    MHP_TRY(out, mhp_asprintf(&path, "%s/live/rank-%d", params->directory, params->state.rank));
    MHP_TRY(out, map_file(live, path));
    memcpy(live->meters, params->meters, sizeof live->meters);
    MHP_TRY(out, start_thread(live));
    *live_out = live;
    live = NULL;
out:
    if (live) {
        memset(live->meters, 0, sizeof live->meters);
    }
    mhp_live_close(live, MHP_LIVE_FAILED);
    mhp_free(path);
    return status;
}

void mhp_live_end(mhp_live *live, mhp_live_phase phase)
{
    if (!live || !live->started) {
        return;
    }
    pthread_mutex_lock(&live->lock);
    live->stopping = true;
    live->state.phase = (int32_t)phase;
    atomic_store(&live->action, 0);
    pthread_cond_signal(&live->wake);
    pthread_mutex_unlock(&live->lock);
    pthread_join(live->thread, NULL);
    live->started = false;
    copy_state(live);
}

void mhp_live_close(mhp_live *live, mhp_live_phase phase)
{
    if (!live) {
        return;
    }
    mhp_live_end(live, phase);
    if (live->file) {
        munmap(live->file, MHP_LIVE_BYTES);
    }
    for (size_t i = 0; i < sizeof live->meters / sizeof *live->meters; i++) {
        mhp_energy_close(live->meters[i]);
    }
    pthread_cond_destroy(&live->wake);
    pthread_mutex_destroy(&live->lock);
    mhp_free(live);
}

/* ---- what the rank does ---- */

typedef struct action_note {
    mhp_live *live;
    uint64_t action;
} action_note;

static mhp_status note_action(void *native, const void *argument)
{
    const action_note *note = argument;

    (void)native;
    atomic_store_explicit(&note->live->action, note->action, memory_order_relaxed);
    return MHP_OK;
}

static bool is_computed(mhp_action_kind kind)
{
    switch (kind) {
    case MHP_ACTION_FORWARD:
    case MHP_ACTION_BACKWARD:
    case MHP_ACTION_INPUT_GRADIENT:
    case MHP_ACTION_WEIGHT_GRADIENT:
    case MHP_ACTION_REBUILD:
    case MHP_ACTION_OVERLAP_F_B:
        return true;
    default:
        return false;
    }
}

mhp_status mhp_live_action(mhp_live *live, mhp_stream *compute, const mhp_action *action)
{
    action_note note;

    if (!live || !is_computed(action->kind)) {
        return MHP_OK;
    }
    note = (action_note){live, mhp_live_pack(action)};
    return mhp_stream_submit(compute, note_action, &note, sizeof note);
}

void mhp_live_enter(mhp_live *live, mhp_live_place place)
{
    if (!live) {
        return;
    }
    pthread_mutex_lock(&live->lock);
    live->state.place = (int32_t)place;
    pthread_mutex_unlock(&live->lock);
    atomic_store_explicit(&live->action, 0, memory_order_relaxed);
}

void mhp_live_step(mhp_live *live, int64_t done, double step_s, double bubble, double loss, double tokens_per_s)
{
    if (!live) {
        return;
    }
    pthread_mutex_lock(&live->lock);
    live->state.done = done;
    live->state.step_s = step_s;
    live->state.bubble = bubble;
    live->state.loss = loss;
    live->state.tokens_per_s = tokens_per_s;
    live->state.place = MHP_LIVE_BETWEEN;
    pthread_mutex_unlock(&live->lock);
    atomic_store_explicit(&live->action, 0, memory_order_relaxed);
}
