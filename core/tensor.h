/* Element types and tensor descriptions, shared by files, parameters and kernels. */
#ifndef MHP_CORE_TENSOR_H
#define MHP_CORE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#define MHP_DTYPE_LIST(X)      \
    X(MHP_DTYPE_F32, "F32", 4) \
    X(MHP_DTYPE_F64, "F64", 8) \
    X(MHP_DTYPE_BF16, "BF16", 2) \
    X(MHP_DTYPE_F16, "F16", 2) \
    X(MHP_DTYPE_I64, "I64", 8) \
    X(MHP_DTYPE_I32, "I32", 4) \
    X(MHP_DTYPE_I16, "I16", 2) \
    X(MHP_DTYPE_I8, "I8", 1)   \
    X(MHP_DTYPE_U64, "U64", 8) \
    X(MHP_DTYPE_U32, "U32", 4) \
    X(MHP_DTYPE_U16, "U16", 2) \
    X(MHP_DTYPE_U8, "U8", 1)   \
    X(MHP_DTYPE_BOOL, "BOOL", 1)

#define MHP_DTYPE_ENUM(name, text, bytes) name,
typedef enum mhp_dtype { MHP_DTYPE_LIST(MHP_DTYPE_ENUM) MHP_DTYPE_COUNT } mhp_dtype;
#undef MHP_DTYPE_ENUM

enum { MHP_TENSOR_RANK_MAX = 8, MHP_TENSOR_NAME_MAX = 256 };

/* Bytes of one element. */
size_t mhp_dtype_bytes(mhp_dtype dtype);
/* The safetensors name ("F32"); static storage. */
const char *mhp_dtype_text(mhp_dtype dtype);
/* The type of parameters, gradients and statistics beside activations of `dtype`: F32 for BF16, else the same. */
mhp_dtype mhp_dtype_full(mhp_dtype dtype);
/* Element `index` of an array of F32, F64 or BF16 as double. */
double mhp_dtype_load(mhp_dtype dtype, const void *array, int64_t index);
/* Sets it, rounded to nearest even. */
void mhp_dtype_store(mhp_dtype dtype, void *array, int64_t index, double value);
/* The type of that name, or MHP_DTYPE_COUNT. */
mhp_dtype mhp_dtype_from_text(const char *text);

/* A name with a type and a row-major shape; rank 0 is a scalar. */
typedef struct mhp_tensor_info {
    char name[MHP_TENSOR_NAME_MAX];
    mhp_dtype dtype;
    int rank;
    int64_t shape[MHP_TENSOR_RANK_MAX];
} mhp_tensor_info;

/* Elements of a shape (1 for a scalar). The caller guarantees that the product fits. */
int64_t mhp_tensor_elements(const mhp_tensor_info *info);

#endif
