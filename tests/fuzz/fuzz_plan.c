/* Plans as YAML: what is accepted must lower to a plan that is valid, or be refused; what was lowered is written and read back the
 * same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/lower.h"
#include "scheduler/yaml.h"
#include "tests/fuzz/fuzz.h"

static void demand(mhp_status status)
{
    if (status != MHP_OK) {
        fprintf(stderr, "%s\n", mhp_error_text());
        abort();
    }
}

static char *print(const mhp_plan *plan, size_t *size)
{
    char *text = NULL;
    FILE *stream = open_memstream(&text, size);

    if (!stream) {
        abort();
    }
    demand(mhp_plan_write_yaml(plan, stream));
    fclose(stream);
    return text;
}

static void check_written(const mhp_plan *plan)
{
    size_t size = 0, size_again = 0;
    char *text = print(plan, &size), *text_again;
    mhp_plan *again = NULL;

    demand(mhp_plan_parse_yaml("printed", text, size, &again));
    text_again = print(again, &size_again);
    if (size != size_again || memcmp(text, text_again, size) != 0) {
        fprintf(stderr, "printed and read back:\n%s\n%s\n", text, text_again);
        abort();
    }
    demand(mhp_plan_lower(again, NULL));
    mhp_plan_destroy(again);
    free(text);
    free(text_again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* The first byte picks how it is lowered. */
    mhp_lower_params params = {.rebuild = size > 0 && data[0] & 1,
                               .weight_gradients = size > 0 && data[0] & 2 ? MHP_WEIGHTS_SHALLOW : MHP_WEIGHTS_DEEP};
    mhp_plan *plan = NULL;

    if (mhp_plan_parse_yaml("fuzz", (const char *)data, size, &plan) == MHP_OK && mhp_plan_lower(plan, &params) == MHP_OK) {
        demand(mhp_plan_validate(plan));
        check_written(plan);
    }
    mhp_plan_destroy(plan);
    return 0;
}
