/* A parameter struct with an option of every type, and its table. */
#ifndef MHP_TESTS_UNIT_CORE_OPTION_SAMPLE_H
#define MHP_TESTS_UNIT_CORE_OPTION_SAMPLE_H

#include "core/option.h"

enum { SAMPLE_ADAMW = 3, SAMPLE_SGD = 7, SAMPLE_LION = 1 };

typedef struct sample_optimizer {
    int kind;
    double learning_rate;
    mhp_float_list betas;
} sample_optimizer;

typedef struct sample_train {
    int64_t steps;
    bool resume;
    sample_optimizer optimizer;
} sample_train;

typedef struct sample {
    char *name;
    int64_t hidden_size;
    int64_t any_integer;
    double any_number;
    mhp_int_list sizes;
    mhp_string_list files;
    sample_train train;
} sample;

static const mhp_option_choice sample_kinds[] = {
    {"adamw", SAMPLE_ADAMW}, {"sgd", SAMPLE_SGD}, {"lion", SAMPLE_LION}, {NULL, 0}};

static const mhp_option sample_optimizer_table[] = {
    {.key = "kind",
     .type = MHP_OPTION_ENUM,
     .offset = offsetof(sample_optimizer, kind),
     .default_text = "adamw",
     .help = "the rule of updates",
     .choices = sample_kinds},
    {.key = "learning_rate",
     .type = MHP_OPTION_FLOAT,
     .offset = offsetof(sample_optimizer, learning_rate),
     .default_text = "3e-4",
     .minimum = 1e-9,
     .maximum = 10,
     .help = "the highest rate"},
    {.key = "betas",
     .type = MHP_OPTION_FLOAT_LIST,
     .offset = offsetof(sample_optimizer, betas),
     .default_text = "[0.9, 0.95]",
     .minimum = -1,
     .maximum = 1,
     .help = "decays of the moments"},
    {0},
};

static const mhp_option sample_train_table[] = {
    {.key = "steps",
     .type = MHP_OPTION_INT,
     .offset = offsetof(sample_train, steps),
     .minimum = 1,
     .maximum = 1e9,
     .unit = "steps",
     .help = "how many updates"},
    {.key = "resume",
     .type = MHP_OPTION_BOOL,
     .offset = offsetof(sample_train, resume),
     .default_text = "true",
     .help = "whether to go on"},
    {.key = "optimizer",
     .type = MHP_OPTION_SECTION,
     .offset = offsetof(sample_train, optimizer),
     .help = "the optimizer",
     .section = sample_optimizer_table},
    {0},
};

static const mhp_option sample_table[] = {
    {.key = "name",
     .type = MHP_OPTION_STRING,
     .offset = offsetof(sample, name),
     .default_text = "run 1",
     .help = "what the run is called"},
    {.key = "hidden_size",
     .type = MHP_OPTION_INT,
     .offset = offsetof(sample, hidden_size),
     .default_text = "0x40",
     .minimum = 8,
     .maximum = 65536,
     .unit = "elements",
     .help = "width of the residual stream"},
    {.key = "any_integer",
     .type = MHP_OPTION_INT,
     .offset = offsetof(sample, any_integer),
     .default_text = "-3",
     .help = "an integer without bounds"},
    {.key = "any_number",
     .type = MHP_OPTION_FLOAT,
     .offset = offsetof(sample, any_number),
     .default_text = "0",
     .help = "a number without bounds"},
    {.key = "sizes",
     .type = MHP_OPTION_INT_LIST,
     .offset = offsetof(sample, sizes),
     .default_text = "[]",
     .minimum = -5,
     .maximum = 1e12,
     .unit = "bytes",
     .help = "integers"},
    {.key = "files",
     .type = MHP_OPTION_STRING_LIST,
     .offset = offsetof(sample, files),
     .default_text = "[a.txt, \"b c\"]",
     .help = "strings"},
    {.key = "train",
     .type = MHP_OPTION_SECTION,
     .offset = offsetof(sample, train),
     .help = "how to train",
     .section = sample_train_table},
    {0},
};

/* The least that is a whole configuration. */
#define SAMPLE_LEAST "train:\n  steps: 5\n"

#endif
