/* Reading live files, from another process and maybe another machine: by copies, so that a file that shrinks ends nobody. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/memory.h"
#include "runtime/live_file.h"

/* A second in all: where ranks are more than cores, one may be held up in the middle of a copy for long. */
enum { TRIES = 1000, PAUSE_NS = 1000000 };
enum { BOOT_ID_MAX = 64, PROC_STAT_MAX = 512 };

#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"

/* ---- actions ---- */

enum { KIND_BITS = 4, STAGE_BITS = 13, MICROBATCH_BITS = 17 };

_Static_assert(MHP_ACTION_KIND_COUNT < 1 << KIND_BITS && MHP_STAGES_MAX < 1 << STAGE_BITS && MHP_MICROBATCHES_MAX < 1 << MICROBATCH_BITS &&
                   KIND_BITS + 2 * STAGE_BITS + 2 * MICROBATCH_BITS == 64,
               "an action has 8 bytes");

/* Numbers are kept from 1, since -1 is one of theirs. */
static void push(uint64_t *packed, int bits, int value)
{
    *packed = *packed << bits | (uint64_t)(uint32_t)value;
}

static int pop(uint64_t *packed, int bits)
{
    int value = (int)(*packed & ((UINT64_C(1) << bits) - 1));

    *packed >>= bits;
    return value;
}

uint64_t mhp_live_pack(const mhp_action *action)
{
    uint64_t packed = 0;

    push(&packed, KIND_BITS, (int)action->kind);
    push(&packed, STAGE_BITS, action->stage + 1);
    push(&packed, MICROBATCH_BITS, action->microbatch + 1);
    push(&packed, STAGE_BITS, action->backward_stage + 1);
    push(&packed, MICROBATCH_BITS, action->backward_microbatch + 1);
    return packed;
}

bool mhp_live_unpack(uint64_t packed, mhp_action *action_out)
{
    uint64_t rest = packed;

    action_out->backward_microbatch = pop(&rest, MICROBATCH_BITS) - 1;
    action_out->backward_stage = pop(&rest, STAGE_BITS) - 1;
    action_out->microbatch = pop(&rest, MICROBATCH_BITS) - 1;
    action_out->stage = pop(&rest, STAGE_BITS) - 1;
    action_out->kind = (mhp_action_kind)rest;
    return packed != 0 && rest < MHP_ACTION_KIND_COUNT;
}

/* ---- files ---- */

/* Containers on one machine have hosts' names of their own, but one kernel. */
uint64_t mhp_live_node(void)
{
    char *text = NULL;
    size_t size = 0;
    uint64_t node = mhp_file_read_all(BOOT_ID_PATH, BOOT_ID_MAX, &text, &size) == MHP_OK ? mhp_hash_bytes(text, size).low : 0;

    mhp_free(text);
    return node;
}

/* Containers on one machine do not see each other's processes. */
uint64_t mhp_live_processes(void)
{
    struct stat found;

    return stat("/proc/self/ns/pid", &found) == 0 ? (uint64_t)found.st_ino : 0;
}

static mhp_status check_header(const char *path, const mhp_live_file *file, ssize_t length)
{
    if (length < 0) {
        return mhp_error_set(MHP_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    }
    if (length < (ssize_t)sizeof file->magic || memcmp(file->magic, MHP_LIVE_MAGIC, sizeof file->magic) != 0) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s is no live file of a rank", path);
    }
    if (length >= (ssize_t)offsetof(mhp_live_file, sequence) && file->version != MHP_LIVE_VERSION) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s is of version %u: expected %d, so use the mhcpipe that writes it", path, file->version,
                             MHP_LIVE_VERSION);
    }
    if (length != MHP_LIVE_BYTES || file->bytes != MHP_LIVE_BYTES) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s has %s%zd bytes: expected %d", path, length > MHP_LIVE_BYTES ? "at least " : "", length,
                             MHP_LIVE_BYTES);
    }
    return MHP_OK;
}

/* Ends, and has nothing that a terminal would obey. */
static bool is_text(const char text[MHP_LIVE_NAME_MAX])
{
    for (int i = 0; i < MHP_LIVE_NAME_MAX; i++) {
        if (text[i] == '\0') {
            return true;
        }
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            return false;
        }
    }
    return false;
}

static mhp_status check_state(const char *path, const mhp_live_state *state)
{
    mhp_action action;
    bool is_placed = state->size > 0 && state->size <= MHP_RANKS_MAX && state->rank >= 0 && state->rank < state->size && state->process > 0;
    bool is_known = state->phase >= 0 && state->phase < MHP_LIVE_PHASE_COUNT && state->place >= 0 && state->place < MHP_LIVE_PLACE_COUNT &&
                    (state->action == 0 || mhp_live_unpack(state->action, &action));

    if (!is_placed || !is_known || !is_text(state->host) || !is_text(state->schedule) || state->done < 0 || state->total < 0) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s is damaged: rank %d of %d, phase %d, place %d", path, state->rank, state->size,
                             state->phase, state->place);
    }
    return MHP_OK;
}

/* One byte more is asked for than there should be. */
typedef union live_bytes {
    mhp_live_file file;
    char bytes[MHP_LIVE_BYTES + 1];
} live_bytes;

static mhp_status read_file(const char *path, int descriptor, live_bytes *bytes_out)
{
    ssize_t length = pread(descriptor, bytes_out, sizeof *bytes_out, 0);

    return check_header(path, &bytes_out->file, length);
}

/* MHP_IN_PROGRESS: it changed meanwhile, or nothing is said yet. Within one read the bytes come in any order, so the sequence is taken from
 * a read before the state's and from one after it. */
static mhp_status read_once(const char *path, int descriptor, mhp_live_state *state_out)
{
    live_bytes before, found, after;

    MHP_RETURN_IF_ERROR(read_file(path, descriptor, &before));
    MHP_RETURN_IF_ERROR(read_file(path, descriptor, &found));
    MHP_RETURN_IF_ERROR(read_file(path, descriptor, &after));
    if (before.file.sequence % 2 != 0 || before.file.sequence == 0 || after.file.sequence != before.file.sequence) {
        return MHP_IN_PROGRESS;
    }
    MHP_RETURN_IF_ERROR(check_state(path, &found.file.state));
    *state_out = found.file.state;
    return MHP_OK;
}

mhp_status mhp_live_read(const char *path, mhp_live_state *state_out)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    mhp_status status = MHP_IN_PROGRESS;

    if (descriptor < 0) {
        return mhp_error_set(errno == ENOENT ? MHP_ERR_NOT_FOUND : MHP_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    }
    for (int i = 0; i < TRIES && status == MHP_IN_PROGRESS; i++) {
        struct timespec pause = {0, i > 0 ? PAUSE_NS : 0};

        nanosleep(&pause, NULL);
        status = read_once(path, descriptor, state_out);
    }
    close(descriptor);
    if (status == MHP_IN_PROGRESS) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s is half written: its rank ended meanwhile", path);
    }
    return status;
}

/* ---- judging ---- */

/* Not there, or waiting for its parent to notice that it ended. */
static bool is_gone(int32_t process)
{
    char path[64], text[PROC_STAT_MAX] = "";
    const char *name_end;
    FILE *file;

    if (kill(process, 0) != 0 && errno == ESRCH) {
        return true;
    }
    snprintf(path, sizeof path, "/proc/%d/stat", (int)process);
    file = fopen(path, "re");
    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
    }
    name_end = strrchr(text, ')');      /* "PID (NAME) STATE ...", where a name may hold anything */
    return name_end && name_end[1] == ' ' && (name_end[2] == 'Z' || name_end[2] == 'X');
}

mhp_live_health mhp_live_judge(const mhp_live_state *state, uint64_t now_ns, double silence_s)
{
    bool is_here = state->node != 0 && state->node == mhp_live_node() && state->processes != 0 &&
                   state->processes == mhp_live_processes();
    double silent_s = now_ns > state->beat_ns ? (double)(now_ns - state->beat_ns) * 1e-9 : 0;

    if (state->phase != MHP_LIVE_RUNNING) {
        return MHP_LIVE_ENDED;
    }
    if (is_here && is_gone(state->process)) {
        return MHP_LIVE_DEAD;
    }
    return silent_s > silence_s ? MHP_LIVE_SILENT : MHP_LIVE_ALIVE;
}
