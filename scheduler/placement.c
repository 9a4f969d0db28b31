#include "scheduler/placement.h"

#include "core/memory.h"

/* Calls for every (rank, stage) once, stages ascending: counts if `stages` is NULL, else fills. `seen` [rank]. */
static void visit(const mhp_plan *plan, int *seen, int *next, int *stages)
{
    for (int r = 0; r < plan->rank_count; r++) {
        seen[r] = -1;
    }
    for (int s = 0; s < plan->stage_count; s++) {
        for (int m = 0; m < plan->microbatch_count; m++) {
            int owner = mhp_plan_owner(plan, s, m);

            if (owner < 0 || seen[owner] == s) {
                continue;
            }
            seen[owner] = s;
            if (stages) {
                stages[next[owner]] = s;
            }
            next[owner]++;
        }
    }
}

mhp_status mhp_placement_create(const mhp_plan *plan, mhp_placement *placement_out)
{
    mhp_status status = MHP_OK;
    mhp_placement placement = {NULL, NULL};
    size_t ranks = (size_t)plan->rank_count;
    int *seen = NULL, *next = NULL;

    MHP_TRY(out, mhp_calloc(&seen, ranks, sizeof *seen));
    MHP_TRY(out, mhp_calloc(&next, ranks, sizeof *next));
    MHP_TRY(out, mhp_calloc(&placement.first, ranks + 1, sizeof *placement.first));
    visit(plan, seen, next, NULL);
    for (size_t r = 0; r < ranks; r++) {
        placement.first[r + 1] = placement.first[r] + next[r];
        next[r] = placement.first[r];
    }
    MHP_TRY(out, mhp_calloc(&placement.stages, (size_t)placement.first[ranks], sizeof *placement.stages));
    visit(plan, seen, next, placement.stages);
    *placement_out = placement;
    placement = (mhp_placement){NULL, NULL};
out:
    mhp_placement_destroy(&placement);
    mhp_free(next);
    mhp_free(seen);
    return status;
}

void mhp_placement_destroy(mhp_placement *placement)
{
    mhp_free(placement->first);
    mhp_free(placement->stages);
    *placement = (mhp_placement){NULL, NULL};
}

int mhp_placement_count(const mhp_placement *placement, int rank)
{
    return placement->first[rank + 1] - placement->first[rank];
}

int mhp_placement_find(const mhp_placement *placement, int rank, int stage)
{
    int low = placement->first[rank];
    int high = placement->first[rank + 1];

    while (low < high) {
        int middle = low + (high - low) / 2;

        if (placement->stages[middle] == stage) {
            return middle - placement->first[rank];
        }
        if (placement->stages[middle] < stage) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return -1;
}
