/* The composed configuration: every folder's parameters in one document. */
#ifndef MHP_LAUNCH_CONFIG_H
#define MHP_LAUNCH_CONFIG_H

#include "core/hash.h"
#include "model/options.h"
#include "runtime/data/options.h"
#include "runtime/fault.h"
#include "runtime/options.h"

typedef struct mhp_config {
    mhp_model_params model; /* resolved */
    mhp_data_params data;
    mhp_parallel_params parallel;
    mhp_schedule_params schedule;
    mhp_optimizer_params optimizer;
    mhp_train_params train;
    mhp_watch_params watch;
    mhp_eval_params eval;
    mhp_checkpoint_params checkpoint;
    mhp_log_params log;
    mhp_report_params report;
    mhp_profile_params profile;
    mhp_section_list fault; /* of mhp_fault */
} mhp_config;

extern const mhp_option mhp_config_options[];

/* Reads `path`, then the --set overrides. The configuration starts zeroed and is to be released in
 * every case. Errors: see mhp_options_load. */
mhp_status mhp_config_load(mhp_config *config, const char *path, char *const *overrides,
                           size_t override_count);
void mhp_config_release(mhp_config *config);

/* Checksum of the resolved configuration as it is printed. */
mhp_status mhp_config_checksum(const mhp_config *config, char text[MHP_HASH_TEXT_MAX]);

/* Writes config.resolved.yaml into `directory`, whole or not at all; and, for tools that look at the run later and from elsewhere, a
 * copy of schedule.file into its folder `schedule.resolved`, which has nothing else in it. */
mhp_status mhp_config_save(const mhp_config *config, const char *directory);
/* Reads what was saved; schedule.file is the copy. Like load otherwise; MHP_ERR_NOT_FOUND for what is no run's folder. */
mhp_status mhp_config_load_saved(mhp_config *config, const char *directory);

#endif
