/* Uses the installed library: makes a schedule, lowers it and reads a device. */
#include <stdio.h>

#include <core/device.h>
#include <scheduler/generator.h>
#include <scheduler/lower.h>

int main(void)
{
    mhp_schedule_shape shape = {.ranks = 4, .microbatches = 8};
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1};
    mhp_device *device = NULL;
    mhp_plan *plan = NULL;
    int failed = 1;

    if (mhp_schedule_generate("dualpipe", &shape, &plan) == MHP_OK && mhp_plan_lower(plan, NULL) == MHP_OK &&
        mhp_device_open(&params, &device) == MHP_OK) {
        printf("%s: %d stages on %d ranks\n", plan->name, plan->stage_count, plan->rank_count);
        failed = plan->stage_count != 4 || plan->rank_count != 4;
    } else {
        printf("%s\n", mhp_error_text());
    }
    mhp_device_close(device);
    mhp_plan_destroy(plan);
    return failed;
}
