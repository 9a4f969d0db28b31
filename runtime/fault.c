#include "runtime/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"

enum { FAULTS_MAX = 64 };

static const mhp_option_choice kinds[] = {
    {"kill", MHP_FAULT_KILL},       {"hang", MHP_FAULT_HANG},
    {"slow", MHP_FAULT_SLOW},       {"corrupt", MHP_FAULT_CORRUPT},
    {"nan", MHP_FAULT_NAN},         {"short_write", MHP_FAULT_SHORT_WRITE},
    {"disk_full", MHP_FAULT_DISK_FULL}, {"sync_fails", MHP_FAULT_SYNC_FAILS},
    {NULL, 0}};

const mhp_option mhp_fault_options[] = {
    {.key = "kind", .type = MHP_OPTION_ENUM, .offset = offsetof(mhp_fault, kind), .choices = kinds, .help = "what happens"},
    {.key = "rank", .type = MHP_OPTION_INT, .offset = offsetof(mhp_fault, rank), .default_text = "0", .minimum = 0, .maximum = 1e6,
     .help = "to which rank of the world"},
    {.key = "step", .type = MHP_OPTION_INT, .offset = offsetof(mhp_fault, step), .default_text = "0", .minimum = 0, .maximum = 1e12,
     .help = "at which step, from 1; at a file: from which on; 0: at every step"},
    {.key = "action", .type = MHP_OPTION_STRING, .offset = offsetof(mhp_fault, action), .default_text = "",
     .help = "at which action, as mhcpipe plan --csv writes it; empty: at the first of the step"},
    {.key = "file", .type = MHP_OPTION_STRING, .offset = offsetof(mhp_fault, file), .default_text = "",
     .help = "part of a path: at a change of such a file in place of an action"},
    {.key = "seconds", .type = MHP_OPTION_FLOAT, .offset = offsetof(mhp_fault, seconds), .default_text = "1", .minimum = 0,
     .maximum = 1e6, .unit = "seconds", .help = "slow: for how long"},
    {.key = NULL},
};

typedef struct ordered_fault {
    const mhp_fault *fault;
    int64_t done_step;              /* the last step that it was done in; 0: none */
    atomic_int fired;               /* at a file: it was done */
} ordered_fault;

struct mhp_faults {
    int count;
    atomic_int_fast64_t step;
    ordered_fault items[FAULTS_MAX];
};

/* ---- what happens ---- */

static void die(void)
{
    (void)kill(getpid(), SIGKILL);
    for (;;) {
        pause();
    }
}

static void sleep_for(double seconds)
{
    struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static void happen(const mhp_fault *fault)
{
    switch ((mhp_fault_kind)fault->kind) {
    case MHP_FAULT_KILL:
        die();
        break;
    case MHP_FAULT_HANG:
        for (;;) {
            pause();
        }
        break;
    case MHP_FAULT_SLOW:
        sleep_for(fault->seconds);
        break;
    default:
        break;
    }
}

static mhp_status call_fault(void *native, const void *argument)
{
    const mhp_fault *fault;

    (void)native;
    memcpy(&fault, argument, sizeof fault);
    happen(fault);
    return MHP_OK;
}

mhp_status mhp_fault_submit(const mhp_fault *fault, mhp_stream *stream)
{
    if (fault->kind > MHP_FAULT_SLOW) {
        return MHP_OK;
    }
    return mhp_stream_host_call(stream, call_fault, &fault, sizeof fault);
}

/* All bits set are no number in every format of floats. */
mhp_status mhp_fault_spoil(mhp_stream *stream, void *target, mhp_dtype dtype)
{
    static const unsigned char ones[] = {255, 255, 255, 255, 255, 255, 255, 255};

    return mhp_stream_copy(stream, target, ones, mhp_dtype_bytes(dtype));
}

/* ---- at files ---- */

static int fail_call(ordered_fault *item, mhp_file_call call, size_t *bytes)
{
    switch ((mhp_fault_kind)item->fault->kind) {
    case MHP_FAULT_SHORT_WRITE:
        if (call == MHP_FILE_WRITE && *bytes > 1 && !atomic_exchange(&item->fired, 1)) {
            *bytes /= 2;
        }
        return 0;
    case MHP_FAULT_DISK_FULL:
        return call == MHP_FILE_WRITE ? ENOSPC : 0;
    case MHP_FAULT_SYNC_FAILS:
        return call == MHP_FILE_SYNC || call == MHP_FILE_SYNC_FOLDER ? EIO : 0;
    default:
        if (!atomic_exchange(&item->fired, 1)) {
            happen(item->fault);
        }
        return 0;
    }
}

static int file_fault(void *context, mhp_file_call call, const char *path, size_t *bytes)
{
    mhp_faults *faults = context;
    int error = 0;

    for (int i = 0; i < faults->count && error == 0; i++) {
        ordered_fault *item = &faults->items[i];

        if (item->fault->file[0] != '\0' && strstr(path, item->fault->file) && atomic_load(&faults->step) >= item->fault->step) {
            error = fail_call(item, call, bytes);
        }
    }
    return error;
}

/* ---- the list ---- */

static mhp_status check_fault(const mhp_fault *fault, size_t number)
{
    bool at_file = fault->file[0] != '\0';

    if (fault->kind >= MHP_FAULT_SHORT_WRITE && !at_file) {
        return mhp_error_set(MHP_ERR_CONFIG, "fault, item %zu: %s happens at files: expected a file", number,
                             kinds[fault->kind].name);
    }
    if ((fault->kind == MHP_FAULT_CORRUPT || fault->kind == MHP_FAULT_NAN) && at_file) {
        return mhp_error_set(MHP_ERR_CONFIG, "fault, item %zu: %s happens at actions: expected no file", number,
                             kinds[fault->kind].name);
    }
    if (at_file && fault->action[0] != '\0') {
        return mhp_error_set(MHP_ERR_CONFIG, "fault, item %zu: expected a file or an action, not both", number);
    }
    return MHP_OK;
}

mhp_status mhp_faults_create(const mhp_section_list *list, int rank, mhp_faults **faults_out)
{
    mhp_status status = MHP_OK;
    mhp_faults *faults = NULL;
    const mhp_fault *items = list->items;
    bool at_file = false;

    *faults_out = NULL;
    if (list->count > FAULTS_MAX) {
        MHP_RAISE(out, MHP_ERR_LIMIT, "fault: %zu items, expected at most %d", list->count, FAULTS_MAX);
    }
    MHP_TRY(out, mhp_calloc(&faults, 1, sizeof *faults));
    for (size_t i = 0; i < list->count; i++) {
        MHP_TRY(out, check_fault(&items[i], i + 1));
        if (items[i].rank == rank) {
            faults->items[faults->count++].fault = &items[i];
            at_file = at_file || items[i].file[0] != '\0';
        }
    }
    if (faults->count == 0) {
        goto out;
    }
    if (at_file) {
        mhp_file_set_fault(file_fault, faults);
    }
    *faults_out = faults;
    faults = NULL;
out:
    mhp_free(faults);
    return status;
}

void mhp_faults_destroy(mhp_faults *faults)
{
    if (faults) {
        mhp_file_set_fault(NULL, NULL);
        mhp_free(faults);
    }
}

void mhp_faults_enter(mhp_faults *faults, int64_t step)
{
    if (faults) {
        atomic_store(&faults->step, step);
    }
}

const mhp_fault *mhp_faults_due(mhp_faults *faults, size_t index, const char *action)
{
    int64_t step = faults ? atomic_load(&faults->step) : 0;

    for (int i = 0; faults && i < faults->count; i++) {
        ordered_fault *item = &faults->items[i];
        const mhp_fault *fault = item->fault;
        bool is_here = fault->action[0] == '\0' ? index == 0 : strcmp(fault->action, action) == 0;

        if (fault->file[0] == '\0' && (fault->step == 0 || fault->step == step) && item->done_step != step && is_here) {
            item->done_step = step;
            return fault;
        }
    }
    return NULL;
}
