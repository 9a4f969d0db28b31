#include "launch/top_hidden.h"

#include <math.h>
#include <sys/stat.h>

#include "core/memory.h"
#include "runtime/profile/analyse.h"

/* When the folder's traces were written, Unix time; 0: there are none. */
static uint64_t find_time(const char *folder)
{
    char *path = NULL;
    struct stat file;
    uint64_t time_ns = 0;

    if (mhp_trace_path(folder, 0, &path) == MHP_OK && stat(path, &file) == 0) {
        time_ns = (uint64_t)file.st_mtim.tv_sec * 1000000000u + (uint64_t)file.st_mtim.tv_nsec;
    }
    mhp_free(path);
    return time_ns;
}

/* Traces that are being written, or do not fit together, are no error here: mhcpipe report says what is wrong. */
static mhp_status read_shares(mhp_top_hidden *hidden, const char *folder)
{
    mhp_status status = MHP_OK;
    mhp_trace_set set = {0};
    mhp_analysis analysis = {0};

    MHP_TRY(out, mhp_trace_set_read(folder, &set));
    MHP_TRY(out, mhp_analyse(&set, &analysis));
    MHP_TRY(out, mhp_calloc(&hidden->shares, (size_t)set.count, sizeof *hidden->shares));
    hidden->count = set.count;
    for (int rank = 0; rank < set.count; rank++) {
        hidden->shares[rank] = mhp_figures_hidden_share(&analysis.mean[rank]);
    }
out:
    mhp_analysis_release(&analysis);
    mhp_trace_set_release(&set);
    return status;
}

static bool is_of_run(const mhp_live_run *run, uint64_t written_ns)
{
    return written_ns > 0 && run->count > 0 && run->ranks[0].is_known && written_ns >= run->ranks[0].state.start_ns;
}

void mhp_top_hidden_fill(mhp_top_hidden *hidden, const char *directory, mhp_live_run *run)
{
    char *folder = NULL;
    uint64_t written_ns = mhp_asprintf(&folder, "%s/profile", directory) == MHP_OK ? find_time(folder) : 0;

    if (written_ns != hidden->written_ns || !is_of_run(run, written_ns)) {
        mhp_top_hidden_release(hidden);
    }
    if (hidden->written_ns == 0 && is_of_run(run, written_ns) && read_shares(hidden, folder) == MHP_OK) {
        hidden->written_ns = written_ns;
    }
    for (int rank = 0; rank < run->count; rank++) {
        run->ranks[rank].hidden = hidden->count == run->count ? hidden->shares[rank] : (double)NAN;
    }
    mhp_free(folder);
}

void mhp_top_hidden_release(mhp_top_hidden *hidden)
{
    mhp_free(hidden->shares);
    *hidden = (mhp_top_hidden){0};
}
