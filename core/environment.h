/* Variables by which CUDA and NCCL are told how to work with many streams. They read them at their first call, so they are set before. */
#ifndef MHP_CORE_ENVIRONMENT_H
#define MHP_CORE_ENVIRONMENT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct mhp_variable {
    const char *name, *value;
    const char *reason;             /* what goes wrong otherwise */
    int minimum;                    /* of a number that somebody else set; 0: any value is fine */
} mhp_variable;

const mhp_variable *mhp_environment_variables(size_t *count_out);
/* Whether `text` is a number below the variable's minimum. */
bool mhp_environment_too_little(const mhp_variable *variable, const char *text);
/* Sets those that are not set, or too little. Before another thread reads the environment. */
void mhp_environment_set(void);

#endif
