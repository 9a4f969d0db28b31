/* In place of cuda_range.c in a build without CUDA. */
#include "core/range.h"

bool mhp_range_available(void)
{
    return false;
}

void mhp_range_push(const char *name)
{
    (void)name;
}

void mhp_range_pop(void)
{
}
