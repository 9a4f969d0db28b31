/* Plans as YAML; and plans from either kind of file. docs/custom-schedules.md teaches the format:
 *
 *     name: mine                      # optional
 *     microbatches: 4                 # optional; checked
 *     placement: [[0], [1]]           # optional; the stages of every rank; checked
 *     actions:                        # of every rank: a list, or text, of actions in the grammar of docs/schedules.md
 *       - [0F0, 0F1, 0B0, 0B1]
 *       - 1F0 1B0 1F1 1B1
 */
#ifndef MHP_SCHEDULER_YAML_H
#define MHP_SCHEDULER_YAML_H

#include <stdio.h>

#include "scheduler/plan.h"

/* Reads a plan from a file: as CSV if it is called .csv, as YAML if .yaml or .yml, else as what its first letters look like.
 * Ranks, stages, micro-batches and owners follow from its actions. Not validated. Errors name file, line, and cell or column;
 * MHP_ERR_NOT_FOUND, MHP_ERR_LIMIT for more than MHP_CSV_BYTES_MAX bytes. */
mhp_status mhp_plan_read(const char *path, mhp_plan **plan_out);

/* From memory; `name` stands for the file. */
mhp_status mhp_plan_parse_yaml(const char *name, const char *text, size_t length, mhp_plan **plan_out);

/* Writes name, micro-batches, placement and every rank's actions. */
mhp_status mhp_plan_write_yaml(const mhp_plan *plan, FILE *stream);

#endif
