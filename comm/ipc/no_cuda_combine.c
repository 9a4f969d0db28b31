/* In place of cuda_combine.cu in a build without CUDA. */
#include "comm/ipc/combine.h"

mhp_task_fn mhp_combine_on_card(void)
{
    return NULL;
}
