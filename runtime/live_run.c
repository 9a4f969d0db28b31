#include "runtime/live_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/folder.h"
#include "core/memory.h"

static const char rank_prefix[] = "rank-";

const char *mhp_live_verdict_text(mhp_live_verdict verdict)
{
    static const char *const texts[] = {"running", "finished", "stopped", "incomplete", "silent", "dead", "failed"};

    return texts[verdict];
}

static mhp_status read_rank(const char *directory, int rank, mhp_live_state *state_out)
{
    mhp_status status;
    char *path = NULL;

    MHP_RETURN_IF_ERROR(mhp_asprintf(&path, "%s/live/%s%d", directory, rank_prefix, rank));
    status = mhp_live_read(path, state_out);
    mhp_free(path);
    return status;
}

/* The rank that a file's name says, or -1. */
static int rank_of_name(const char *name)
{
    const char *digits = name + sizeof rank_prefix - 1;
    char *end;
    long rank;

    if (strncmp(name, rank_prefix, sizeof rank_prefix - 1) != 0 || *digits < '0' || *digits > '9') {
        return -1;
    }
    rank = strtol(digits, &end, 10);
    return *end == '\0' && rank < MHP_RANKS_MAX ? (int)rank : -1;
}

/* How many ranks there are, by the lowest one that says so; else the first error. */
static mhp_status find_size(const char *directory, const mhp_folder_list *list, int *size_out)
{
    mhp_status status = MHP_ERR_NOT_FOUND, found;
    char text[MHP_ERROR_TEXT_MAX];
    mhp_live_state state;
    int lowest = MHP_RANKS_MAX;

    snprintf(text, sizeof text, "%s/live has no rank's file: expected the folder of a run of mhcpipe train", directory);
    for (size_t i = 0; i < list->count; i++) {
        int rank = rank_of_name(list->names[i]);

        if (rank < 0 || rank >= lowest) {
            continue;
        }
        found = read_rank(directory, rank, &state);
        if (found == MHP_OK) {
            lowest = rank;
            *size_out = state.size;
        } else if (status == MHP_ERR_NOT_FOUND) {
            status = found;
            snprintf(text, sizeof text, "%s", mhp_error_text());
        }
    }
    return lowest < MHP_RANKS_MAX ? MHP_OK : mhp_error_set(status, "%s", text);
}

static void judge_rank(double silence_s, mhp_live_rank *rank)
{
    struct timespec now;
    uint64_t now_ns;

    clock_gettime(CLOCK_REALTIME, &now);
    now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    rank->silent_s = now_ns > rank->state.beat_ns ? (double)(now_ns - rank->state.beat_ns) * 1e-9 : 0;
    rank->health = mhp_live_judge(&rank->state, now_ns, silence_s);
}

static void look_at_rank(const char *directory, int number, int size, double silence_s, mhp_live_rank *rank)
{
    rank->hidden = NAN;
    for (int look = 0; look < 2; look++) {
        if (read_rank(directory, number, &rank->state) != MHP_OK) {
            snprintf(rank->problem, sizeof rank->problem, "%s", mhp_error_text());
            return;
        }
        if (rank->state.rank != number || rank->state.size != size) {
            snprintf(rank->problem, sizeof rank->problem, "%s/live/%s%d is of another run: rank %d of %d, expected %d of %d", directory,
                     rank_prefix, number, rank->state.rank, rank->state.size, number, size);
            return;
        }
        judge_rank(silence_s, rank);
        if (rank->health != MHP_LIVE_DEAD) {    /* else it may have ended in order behind the first look */
            break;
        }
    }
    rank->is_known = true;
}

static mhp_live_verdict verdict_of(const mhp_live_rank *rank)
{
    static const mhp_live_verdict of_health[] = {
        [MHP_LIVE_ALIVE] = MHP_LIVE_RUN_RUNNING, [MHP_LIVE_SILENT] = MHP_LIVE_RUN_SILENT, [MHP_LIVE_DEAD] = MHP_LIVE_RUN_DEAD};
    static const mhp_live_verdict of_phase[] = {
        [MHP_LIVE_FINISHED] = MHP_LIVE_RUN_FINISHED, [MHP_LIVE_FAILED] = MHP_LIVE_RUN_FAILED, [MHP_LIVE_STOPPED] = MHP_LIVE_RUN_STOPPED};

    if (!rank->is_known) {
        return MHP_LIVE_RUN_INCOMPLETE;
    }
    return rank->health == MHP_LIVE_ENDED ? of_phase[rank->state.phase] : of_health[rank->health];
}

/* Ranks do not finish or stop at the same moment: a run has when all of them have. */
static void judge(mhp_live_run *run)
{
    bool is_running = false;

    for (int i = 0; i < run->count; i++) {
        mhp_live_verdict verdict = verdict_of(&run->ranks[i]);

        is_running |= verdict == MHP_LIVE_RUN_RUNNING;
        if (!run->culprit || verdict > run->verdict) {
            run->verdict = verdict;
            run->culprit = &run->ranks[i];
        }
    }
    if (is_running && (run->verdict == MHP_LIVE_RUN_FINISHED || run->verdict == MHP_LIVE_RUN_STOPPED)) {
        run->verdict = MHP_LIVE_RUN_RUNNING;
    }
}

mhp_status mhp_live_run_read(const char *directory, double silence_s, mhp_live_run *run_out)
{
    mhp_status status = MHP_OK;
    mhp_folder_list list = {0};
    char *path = NULL;

    *run_out = (mhp_live_run){0};
    MHP_TRY(out, mhp_asprintf(&path, "%s/live", directory));
    MHP_TRY(out, mhp_folder_read(path, &list));
    MHP_TRY(out, find_size(directory, &list, &run_out->count));
    MHP_TRY(out, mhp_calloc(&run_out->ranks, (size_t)run_out->count, sizeof *run_out->ranks));
    for (int i = 0; i < run_out->count; i++) {
        look_at_rank(directory, i, run_out->count, silence_s, &run_out->ranks[i]);
    }
    judge(run_out);
out:
    mhp_folder_release(&list);
    mhp_free(path);
    return status;
}

void mhp_live_run_release(mhp_live_run *run)
{
    mhp_free(run->ranks);
    *run = (mhp_live_run){0};
}
