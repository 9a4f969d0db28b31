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
     .help = "at which action, as mhcpipe plan --format csv writes it; empty: at the first of the step that suits the kind"},
    {.key = "file", .type = MHP_OPTION_STRING, .offset = offsetof(mhp_fault, file), .default_text = "",
     .help = "part of a path: at a change of such a file in place of an action"},
    {.key = "seconds", .type = MHP_OPTION_FLOAT, .offset = offsetof(mhp_fault, seconds), .default_text = "1", .minimum = 0,
     .maximum = 1e6, .unit = "seconds", .help = "slow: for how long"},
    {.key = NULL},
};

typedef struct ordered_fault {
    const mhp_fault *fault;
    mhp_action action;              /* with an action */
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

/* ---- at actions ---- */

static bool suits(const mhp_fault *fault, mhp_action_kind action)
{
    bool is_message = action == MHP_ACTION_SEND_F || action == MHP_ACTION_SEND_B;

    switch (action) {
    case MHP_ACTION_UNSHARD:        /* nothing is done there */
    case MHP_ACTION_RESHARD:
        return false;
    case MHP_ACTION_SEND_F:
    case MHP_ACTION_SEND_B:
    case MHP_ACTION_RECV_F:
    case MHP_ACTION_RECV_B:
    case MHP_ACTION_REDUCE_GRAD:
        return fault->kind == MHP_FAULT_CORRUPT ? is_message : fault->kind != MHP_FAULT_NAN;
    default:
        return fault->kind != MHP_FAULT_CORRUPT;
    }
}

/* Where a fault of this kind can be, for errors. */
static const char *place_of(const mhp_fault *fault)
{
    return fault->kind == MHP_FAULT_CORRUPT ? "at a SEND, such as 1SEND_F2"
           : fault->kind == MHP_FAULT_NAN   ? "at an action that computes, such as 1F2"
                                            : "at an action that does something, such as 1F2";
}

static bool is_same(const mhp_action *a, const mhp_action *b)
{
    return a->kind == b->kind && a->stage == b->stage && a->microbatch == b->microbatch &&
           (a->kind != MHP_ACTION_OVERLAP_F_B ||
            (a->backward_stage == b->backward_stage && a->backward_microbatch == b->backward_microbatch));
}

/* Whether an action is the one, or one of those, that a fault is ordered at. */
static bool is_at(const mhp_fault *fault, const mhp_action *ordered, const mhp_action *action)
{
    return fault->action[0] == '\0' ? suits(fault, action->kind) : is_same(ordered, action);
}

static mhp_status parse_place(const mhp_fault *fault, size_t number, mhp_action *action_out)
{
    if (fault->action[0] == '\0') {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_error_prefix(mhp_action_parse(fault->action, action_out), "fault, item %zu: ", number));
    if (!suits(fault, action_out->kind)) {
        return mhp_error_set(MHP_ERR_CONFIG, "fault, item %zu: action is \"%.64s\" and kind %s: expected it %s", number, fault->action,
                             kinds[fault->kind].name, place_of(fault));
    }
    return MHP_OK;
}

static bool has_place(const mhp_fault *fault, const mhp_action *ordered, const mhp_rank_plan *rank)
{
    for (size_t i = 0; i < rank->actions.count; i++) {
        if (is_at(fault, ordered, &rank->actions.items[i])) {
            return true;
        }
    }
    return false;
}

static mhp_status raise_no_place(const mhp_fault *fault, size_t number, const mhp_action *ordered, const mhp_plan *plan)
{
    if (fault->action[0] == '\0') {
        return mhp_error_set(MHP_ERR_CONFIG, "fault, item %zu: %s is %s: expected a rank that has one, rank %lld of %s has none", number,
                             kinds[fault->kind].name, place_of(fault), (long long)fault->rank, plan->name);
    }
    for (int rank = 0; rank < plan->rank_count; rank++) {
        if (has_place(fault, ordered, &plan->ranks[rank])) {
            return mhp_error_set(MHP_ERR_CONFIG, "fault, item %zu: action is \"%.64s\" and rank %lld: expected rank %d, which has it in %s",
                                 number, fault->action, (long long)fault->rank, rank, plan->name);
        }
    }
    return mhp_error_set(MHP_ERR_CONFIG, "fault, item %zu: action is \"%.64s\", which no rank of %s has: expected one of rank %lld's, as "
                         "mhcpipe plan --format csv writes them", number, fault->action, plan->name, (long long)fault->rank);
}

static mhp_status check_place(const mhp_fault *fault, size_t number, const mhp_plan *plan, int world_size, int64_t steps)
{
    mhp_action ordered = {0};

    if (fault->rank >= world_size) {
        return mhp_error_set(MHP_ERR_CONFIG, "fault, item %zu: rank is %lld: expected 0 to %d, a rank of the run", number,
                             (long long)fault->rank, world_size - 1);
    }
    if (fault->file[0] != '\0') {
        return MHP_OK;
    }
    if (fault->step > steps) {
        return mhp_error_set(MHP_ERR_CONFIG, "fault, item %zu: step is %lld: expected at most train.steps, %lld", number,
                             (long long)fault->step, (long long)steps);
    }
    MHP_RETURN_IF_ERROR(parse_place(fault, number, &ordered));
    return has_place(fault, &ordered, &plan->ranks[fault->rank % plan->rank_count]) ? MHP_OK
                                                                                   : raise_no_place(fault, number, &ordered, plan);
}

mhp_status mhp_faults_check(const mhp_section_list *list, const mhp_plan *plan, int world_size, int64_t steps)
{
    const mhp_fault *items = list->items;

    for (size_t i = 0; i < list->count; i++) {
        MHP_RETURN_IF_ERROR(check_place(&items[i], i + 1, plan, world_size, steps));
    }
    return MHP_OK;
}

/* ---- the list ---- */

static mhp_status check_fault(const mhp_fault *fault, size_t number, mhp_action *action_out)
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
    return parse_place(fault, number, action_out);
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
        mhp_action action = {0};

        MHP_TRY(out, check_fault(&items[i], i + 1, &action));
        if (items[i].rank == rank) {
            faults->items[faults->count].action = action;
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

const mhp_fault *mhp_faults_due(mhp_faults *faults, const mhp_action *action)
{
    int64_t step = faults ? atomic_load(&faults->step) : 0;

    for (int i = 0; faults && i < faults->count; i++) {
        ordered_fault *item = &faults->items[i];
        const mhp_fault *fault = item->fault;

        if (fault->file[0] == '\0' && (fault->step == 0 || fault->step == step) && item->done_step != step &&
            is_at(fault, &item->action, action)) {
            item->done_step = step;
            return fault;
        }
    }
    return NULL;
}
