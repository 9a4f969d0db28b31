#include "comm/ipc/combine.h"

#define PICK(op, a, b) ((op) == MHP_COMBINE_SUM ? (a) + (b) : (op) == MHP_COMBINE_MAX ? ((b) > (a) ? (b) : (a)) : ((b) < (a) ? (b) : (a)))

#define COMBINE(type, args)                                                               \
    for (int64_t i = 0; i < (args)->count; i++) {                                         \
        type value = ((const type *)(args)->sources[0])[i];                               \
        for (int s = 1; s < (args)->source_count; s++) {                                  \
            value = PICK((args)->op, value, ((const type *)(args)->sources[s])[i]);       \
        }                                                                                 \
        ((type *)(args)->target)[i] = value;                                              \
    }

mhp_status mhp_combine_on_host(void *native, const void *argument)
{
    const mhp_combine_args *args = argument;

    (void)native;
    switch (args->dtype) {
    case MHP_DTYPE_F32:
        COMBINE(float, args)
        return MHP_OK;
    case MHP_DTYPE_F64:
        COMBINE(double, args)
        return MHP_OK;
    case MHP_DTYPE_I64:
        COMBINE(int64_t, args)
        return MHP_OK;
    default:
        return mhp_error_set(MHP_ERR_INTERNAL, "no sums of %s", mhp_dtype_text(args->dtype));
    }
}
