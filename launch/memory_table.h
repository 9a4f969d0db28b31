/* What plan and train say about memory before a run. */
#ifndef MHP_LAUNCH_MEMORY_TABLE_H
#define MHP_LAUNCH_MEMORY_TABLE_H

#include "launch/command.h"
#include "launch/config.h"
#include "runtime/memory_table.h"

#define MHP_MEMORY_LIMIT_KEY 'L'
#define MHP_MEMORY_LIMIT_OPTION                                                                    \
    {                                                                                              \
        "memory-limit", MHP_MEMORY_LIMIT_KEY, "BYTES", 0,                                          \
            "Device memory that a rank may take (parallel.memory_limit)", 0                        \
    }

/* --memory-limit: an override of parallel.memory_limit. */
void mhp_overrides_add_memory_limit(mhp_overrides *overrides, const char *text,
                                    struct argp_state *state);

/* Prints the table of a configuration, then refuses it if it is over its limit. */
mhp_status mhp_print_memory_table(const mhp_config *config, const mhp_layout *layout, FILE *stream);

/* plan --memory-table: the table of a configuration file; returns the exit status. */
int mhp_memory_table_command(const char *path, const mhp_overrides *overrides);

#endif
