/* Matrix products by cuBLASLt. A row-major product c = op(a) op(b) is the column-major product c^T = op(b)^T op(a)^T of the same
 * memory, so a and b change places and nothing is copied.
 *
 * A plan (descriptors and algorithm) is made at a shape's first use and kept. The algorithm is the first that the library proposes,
 * not the fastest that a trial finds: trials would choose differently from run to run, and runs and ranks must agree to the bit.
 * Reductions over k that depend on the order of blocks are excluded. */
#include <cublasLt.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "core/device/cuda_partition.h"
#include "model/cuda/cuda.h"
#include "model/cuda/scratch.h"

enum { PLANS_MAX = 512, ALIGNMENT_MAX = 256 };

typedef struct plan_key {
    int device, processors;     /* 0 processors: all of the card */
    int m, n, k, lda, ldb, ldc;
    int transpose_a, transpose_b;
    int type_ab, type_c;        /* cudaDataType */
    int alignment_a, alignment_b, alignment_c;
} plan_key;

typedef struct gemm_plan {
    plan_key key;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
} gemm_plan;

static struct {
    pthread_mutex_t lock;
    cublasLtHandle_t handle[MHP_CUDA_STREAMS_MAX];      /* by device */
    gemm_plan plans[PLANS_MAX];
    int count;
} library = {.lock = PTHREAD_MUTEX_INITIALIZER};

static mhp_status check(cublasStatus_t status, const char *call)
{
    return status == CUBLAS_STATUS_SUCCESS ? MHP_OK
                                           : mhp_error_set(MHP_ERR_DEVICE, "gemm: %s: %s", call, cublasLtGetStatusString(status));
}

/* The largest power of two up to ALIGNMENT_MAX that divides the address. */
static int alignment_of(const void *pointer)
{
    uintptr_t lowest = (uintptr_t)pointer & -(uintptr_t)pointer;

    return lowest == 0 || lowest > ALIGNMENT_MAX ? ALIGNMENT_MAX : (int)lowest;
}

static plan_key plan_key_of(const mhp_gemm_args *args, int device, int processors, cudaDataType type)
{
    plan_key key;

    memset(&key, 0, sizeof key);        /* keys are compared as bytes */
    key.device = device;
    key.processors = processors;
    key.m = args->m;
    key.n = args->n;
    key.k = args->k;
    key.lda = args->lda;
    key.ldb = args->ldb;
    key.ldc = args->ldc;
    key.transpose_a = args->transpose_a;
    key.transpose_b = args->transpose_b;
    key.type_ab = (int)type;
    key.type_c = (int)(args->full_c ? CUDA_R_32F : type);
    key.alignment_a = alignment_of(args->a);
    key.alignment_b = alignment_of(args->b);
    key.alignment_c = alignment_of(args->c);
    return key;
}

static void plan_release(gemm_plan *plan)
{
    (void)cublasLtMatrixLayoutDestroy(plan->c);
    (void)cublasLtMatrixLayoutDestroy(plan->b);
    (void)cublasLtMatrixLayoutDestroy(plan->a);
    (void)cublasLtMatmulDescDestroy(plan->product);
}

/* Row-major [rows, columns] with the given stride, as the library sees it. */
static mhp_status layout_create(cublasLtMatrixLayout_t *layout, int type, int rows, int columns, int stride)
{
    return check(cublasLtMatrixLayoutCreate(layout, (cudaDataType)type, (uint64_t)columns, (uint64_t)rows, stride),
                 "cublasLtMatrixLayoutCreate");
}

/* F32 means F32: neither TF32 nor emulation. An algorithm that keeps every multiprocessor busy once must know of how many there are. */
static mhp_status describe(gemm_plan *plan)
{
    const plan_key *key = &plan->key;
    cublasOperation_t operation_a = key->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t operation_b = key->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    int32_t processors = key->processors;

    MHP_RETURN_IF_ERROR(check(cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate"));
    MHP_RETURN_IF_ERROR(check(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &operation_b,
                                                             sizeof operation_b),
                              "cublasLtMatmulDescSetAttribute"));
    MHP_RETURN_IF_ERROR(check(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &operation_a,
                                                             sizeof operation_a),
                              "cublasLtMatmulDescSetAttribute"));
    MHP_RETURN_IF_ERROR(check(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &processors,
                                                             sizeof processors),
                              "cublasLtMatmulDescSetAttribute"));
    MHP_RETURN_IF_ERROR(layout_create(&plan->a, key->type_ab, key->transpose_a ? key->k : key->m,
                                      key->transpose_a ? key->m : key->k, key->lda));
    MHP_RETURN_IF_ERROR(layout_create(&plan->b, key->type_ab, key->transpose_b ? key->n : key->k,
                                      key->transpose_b ? key->k : key->n, key->ldb));
    return layout_create(&plan->c, key->type_c, key->m, key->n, key->ldc);
}

static mhp_status set_preferences(cublasLtMatmulPreference_t preference, const plan_key *key)
{
    uint64_t workspace = MHP_CUDA_SCRATCH_BYTES;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    uint32_t alignment_a = (uint32_t)key->alignment_b;          /* they change places */
    uint32_t alignment_b = (uint32_t)key->alignment_a;
    uint32_t alignment_c = (uint32_t)key->alignment_c;
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t bytes;
    } settings[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment_a, sizeof alignment_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment_b, sizeof alignment_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment_c, sizeof alignment_c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment_c, sizeof alignment_c},
    };

    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        MHP_RETURN_IF_ERROR(check(cublasLtMatmulPreferenceSetAttribute(preference, settings[i].attribute, settings[i].value,
                                                                       settings[i].bytes),
                                  "cublasLtMatmulPreferenceSetAttribute"));
    }
    return MHP_OK;
}

static mhp_status choose(gemm_plan *plan, cublasLtHandle_t handle)
{
    mhp_status status = MHP_OK;
    const plan_key *key = &plan->key;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;

    MHP_TRY(out, check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate"));
    MHP_TRY(out, set_preferences(preference, key));
    MHP_TRY(out, check(cublasLtMatmulAlgoGetHeuristic(handle, plan->product, plan->b, plan->a, plan->c, plan->c, preference, 1,
                                                      &result, &found),
                       "cublasLtMatmulAlgoGetHeuristic"));
    if (found == 0) {
        MHP_RAISE(out, MHP_ERR_UNSUPPORTED, "gemm: cuBLASLt has no algorithm for [%d,%d] x [%d,%d]", key->m, key->k, key->k, key->n);
    }
    plan->algorithm = result.algo;
out:
    (void)cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

/* The plan of `key`, made if there is none; `library.lock` is held. */
static mhp_status plan_find(const plan_key *key, gemm_plan **plan_out)
{
    mhp_status status = MHP_OK;
    gemm_plan *fresh = &library.plans[library.count];

    for (int i = 0; i < library.count; i++) {
        if (memcmp(&library.plans[i].key, key, sizeof *key) == 0) {
            *plan_out = &library.plans[i];
            return MHP_OK;
        }
    }
    if (library.count == PLANS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "gemm: more than %d different products", PLANS_MAX);
    }
    memset(fresh, 0, sizeof *fresh);
    fresh->key = *key;
    MHP_TRY(out, describe(fresh));
    MHP_TRY(out, choose(fresh, library.handle[key->device]));
    library.count++;
    *plan_out = fresh;
    return MHP_OK;
out:
    plan_release(fresh);
    return status;
}

static mhp_status plan_of(const mhp_gemm_args *args, int processors, cudaDataType type, gemm_plan **plan_out,
                          cublasLtHandle_t *handle_out)
{
    mhp_status status = MHP_OK;
    int device = 0;
    plan_key key;

    if (cudaGetDevice(&device) != cudaSuccess || device >= MHP_CUDA_STREAMS_MAX) {
        return mhp_error_set(MHP_ERR_DEVICE, "gemm: no current CUDA device");
    }
    key = plan_key_of(args, device, processors, type);
    (void)pthread_mutex_lock(&library.lock);
    if (!library.handle[device]) {
        MHP_TRY(out, check(cublasLtCreate(&library.handle[device]), "cublasLtCreate"));
    }
    MHP_TRY(out, plan_find(&key, plan_out));
    *handle_out = library.handle[device];
out:
    (void)pthread_mutex_unlock(&library.lock);
    return status;
}

static mhp_status gemm(void *native, const mhp_gemm_args *args, cudaDataType type)
{
    cudaStream_t stream = native;
    float alpha = (float)args->alpha;
    float beta = (float)args->beta;
    mhp_cuda_scratch scratch;
    cublasLtHandle_t handle = NULL;
    gemm_plan *plan = NULL;

    MHP_RETURN_IF_ERROR(plan_of(args, mhp_cuda_stream_processors(native), type, &plan, &handle));
    MHP_RETURN_IF_ERROR(mhp_cuda_scratch_get(stream, &scratch));
    return check(cublasLtMatmul(handle, plan->product, &alpha, args->b, plan->b, args->a, plan->a, &beta, args->c, plan->c, args->c,
                                plan->c, &plan->algorithm, scratch.memory, MHP_CUDA_SCRATCH_BYTES, stream),
                 "cublasLtMatmul");
}

mhp_status mhp_cuda_gemm_f32(void *native, const void *argument)
{
    return gemm(native, argument, CUDA_R_32F);
}

mhp_status mhp_cuda_gemm_bf16(void *native, const void *argument)
{
    return gemm(native, argument, CUDA_R_16BF);
}
