/* Plans as CSV: what is accepted must lower to a plan that is valid, or be refused. */
#include <stdio.h>
#include <stdlib.h>

#include "scheduler/csv.h"
#include "scheduler/lower.h"
#include "scheduler/table.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mhp_plan *plan = NULL;
    FILE *sink;

    if (mhp_plan_parse_csv("fuzz", (const char *)data, size, &plan) == MHP_OK && mhp_plan_lower(plan, NULL) == MHP_OK) {
        if (mhp_plan_validate(plan) != MHP_OK) {
            fprintf(stderr, "%s\n", mhp_error_text());
            abort();
        }
        sink = fopen("/dev/null", "w");
        if (sink) {
            if (mhp_plan_write_table(plan, sink) != MHP_OK) {
                fprintf(stderr, "%s\n", mhp_error_text());
                abort();
            }
            fclose(sink);
        }
    }
    mhp_plan_destroy(plan);
    return 0;
}
