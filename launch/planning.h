/* What plan, check and tune share: where the schedule comes from and what it costs. */
#ifndef MHP_LAUNCH_PLANNING_H
#define MHP_LAUNCH_PLANNING_H

#include <stdio.h>

#include "launch/command.h"
#include "launch/config.h"
#include "runtime/layout.h"
#include "scheduler/cost_model.h"
#include "scheduler/generator.h"
#include "scheduler/report.h"

/* As the command line has it; what was not given is NULL or 0. */
typedef struct mhp_planning_request {
    const char *kind;  /* a generator's name ... */
    mhp_schedule_shape shape;
    const char *file;  /* ... or a configuration, or a schedule as CSV or YAML */
    const char *costs; /* a cost file */
    int costs_layers;  /* of the model that it was measured on, in even stages; the configuration's has more, and any number of ranks */
    mhp_overrides overrides;
    bool may_rebuild;  /* sizes serve stages with R and without, whatever the configuration has */
} mhp_planning_request;

typedef struct mhp_planning {
    bool has_config;
    mhp_config config;
    mhp_layout layout;     /* with a configuration */
    mhp_plan *plan;        /* lowered and proved */
    bool measured;         /* the costs come from a file */
    mhp_costs costs;       /* those of the plan's stages; sizes come from a configuration if there is
                              one and the file has none */
    const char *time_unit; /* "us" for measured costs, else "" */
} mhp_planning;

/* --costs-layers, for the commands that take --costs. */
#define MHP_COSTS_LAYERS_KEY 0x300
#define MHP_COSTS_LAYERS_OPTION                                                                                        \
    {                                                                                                                  \
        "costs-layers", MHP_COSTS_LAYERS_KEY, "L", 0,                                                                  \
            "The costs are of a model with L layers in even stages; the configuration's has more of its middle "       \
            "ones, on any number of ranks",                                                                            \
            0                                                                                                          \
    }
enum { MHP_COSTS_LAYERS_MAX = 65536 };

/* Reads or generates the plan, lowers it, and finds its costs. Release in every case. */
mhp_status mhp_planning_load(const mhp_planning_request *request, mhp_planning *planning_out);
void mhp_planning_release(mhp_planning *planning);

/* Whether a file is a configuration: YAML with the section `model`. */
bool mhp_is_configuration(const char *path);

/* A report by the runtime's rule for measured costs, and the published formulas' for others; see
 * early_gradient in scheduler/simulate.h. `gradient` overrides it: MHP_GRADIENT_EARLY or _LATE. */
enum { MHP_GRADIENT_DEFAULT, MHP_GRADIENT_EARLY, MHP_GRADIENT_LATE };
mhp_status mhp_planning_report(const mhp_planning *planning, const mhp_plan *plan,
                               const mhp_costs *costs, int gradient, mhp_plan_report *report_out);

/* The length of each of the plan's stages, in layers of the configuration; without one 1 each. To be released with mhp_free. */
mhp_status mhp_planning_lengths(const mhp_planning *planning, double **lengths_out);

/* The costs of a plan of the same model with another number of stages. */
mhp_status mhp_planning_cut(const mhp_planning *planning, int stage_count, mhp_costs *costs_out);

/* Calls `write` with a stream whose contents then go to `path`, whole or not at all, or to stdout
 * if that is NULL. */
typedef mhp_status (*mhp_write_fn)(void *context, FILE *stream);
mhp_status mhp_write_output(const char *path, mhp_write_fn write, void *context);

#endif
