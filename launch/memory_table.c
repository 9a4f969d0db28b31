#include "launch/memory_table.h"

void mhp_overrides_add_memory_limit(mhp_overrides *overrides, const char *text,
                                    struct argp_state *state)
{
    static char override[64]; /* one command line a process */

    snprintf(override, sizeof override, "parallel.memory_limit=%lld",
             (long long)mhp_parse_bytes(state, "--memory-limit", text));
    mhp_overrides_add(overrides, override, state);
}

mhp_status mhp_print_memory_table(const mhp_config *config, const mhp_layout *layout, FILE *stream)
{
    mhp_memory_params memory = {layout, &config->model, &config->parallel, &config->schedule,
                                &config->train};

    MHP_RETURN_IF_ERROR(mhp_memory_print(&memory, stream));
    return mhp_memory_check(&memory);
}

int mhp_memory_table_command(const char *path, const mhp_overrides *overrides)
{
    mhp_status status = MHP_OK;
    mhp_config config = {0};
    mhp_layout layout = {0};

    MHP_TRY(out, mhp_config_load(&config, path, overrides->items, overrides->count));
    MHP_TRY(out, mhp_layout_create(&config.model, &config.parallel, &config.schedule, &layout));
    MHP_TRY(out, mhp_print_memory_table(&config, &layout, stdout));
out:
    mhp_layout_release(&layout);
    mhp_config_release(&config);
    return status == MHP_OK ? 0 : mhp_print_error();
}
