#include "runtime/local_model.h"

#include <stdio.h>
#include <string.h>

#include "core/memory.h"

/* Of the int32 inputs, [T] each. */
enum { TOKEN, TARGET, POSITION, DOCUMENT_START, INPUT_COUNT };

static const mhp_lifetime forward_lifetimes[] = {MHP_LIFE_ACTIVATION, MHP_LIFE_PRODUCT_INPUT, MHP_LIFE_FORWARD};

struct mhp_local_model {
    mhp_local_model_params params;
    const mhp_kernels *kernels;
    mhp_stage *stage;
    mhp_stream *stream;
    void *parameters, *weights; /* device; weights may be the parameters */
    void *memory[MHP_LIFE_COUNT];                               /* device */
    int32_t *inputs;                                            /* device */
    double *loss_sum;                                           /* device */
    int32_t *host_inputs;
    void *host_parameters, *host_logits;
    double host_loss_sum;
};

static size_t parameter_bytes(const mhp_local_model *model)
{
    return (size_t)mhp_stage_layout(model->stage)->elements * mhp_dtype_bytes(model->kernels->full_dtype);
}

static bool weights_apart(const mhp_local_model *model)
{
    return model->kernels->dtype != model->kernels->full_dtype;
}

static size_t logits_bytes(const mhp_local_model *model)
{
    return (size_t)model->params.length * (size_t)model->params.model->vocab_size *
           mhp_dtype_bytes(model->kernels->dtype);
}

static mhp_status create_stage(mhp_local_model *model)
{
    const mhp_local_model_params *params = &model->params;
    mhp_stage_params stage = {
        .model = params->model,
        .kernels = model->kernels,
        .extent = mhp_stage_whole(params->model),
        .sequences = 1,
        .length = params->length,
        .threads = params->threads,
    };

    return mhp_stage_create(&stage, &model->stage);
}

static mhp_status allocate(mhp_local_model *model)
{
    mhp_device *device = model->params.device;
    const mhp_stage_sizes *sizes = mhp_stage_get_sizes(model->stage);
    size_t input_bytes = INPUT_COUNT * (size_t)model->params.length * sizeof(int32_t);

    MHP_RETURN_IF_ERROR(mhp_device_alloc(device, parameter_bytes(model), &model->parameters));
    model->weights = model->parameters;
    if (weights_apart(model)) {
        size_t bytes = (size_t)mhp_stage_layout(model->stage)->elements * mhp_dtype_bytes(model->kernels->dtype);

        model->weights = NULL;
        MHP_RETURN_IF_ERROR(mhp_device_alloc(device, bytes, &model->weights));
    }
    for (size_t i = 0; i < sizeof forward_lifetimes / sizeof *forward_lifetimes; i++) {
        mhp_lifetime lifetime = forward_lifetimes[i];

        MHP_RETURN_IF_ERROR(mhp_device_alloc(device, sizes->bytes[lifetime], &model->memory[lifetime]));
    }
    MHP_RETURN_IF_ERROR(mhp_device_alloc(device, input_bytes, (void **)&model->inputs));
    MHP_RETURN_IF_ERROR(mhp_device_alloc(device, sizeof(double), (void **)&model->loss_sum));
    MHP_RETURN_IF_ERROR(mhp_device_alloc_host(device, input_bytes, (void **)&model->host_inputs));
    MHP_RETURN_IF_ERROR(
        mhp_device_alloc_host(device, parameter_bytes(model), &model->host_parameters));
    return mhp_device_alloc_host(device, logits_bytes(model), &model->host_logits);
}

mhp_status mhp_local_model_create(const mhp_local_model_params *params, mhp_local_model **model_out)
{
    mhp_status status = MHP_OK;
    mhp_local_model *model = NULL;

    MHP_TRY(out, mhp_calloc(&model, 1, sizeof *model));
    model->params = *params;
    model->kernels = mhp_kernels_find(mhp_device_get_kind(params->device), (mhp_dtype)params->model->dtype);
    if (!model->kernels) {
        MHP_RAISE(out, MHP_ERR_UNSUPPORTED, "model.dtype: this device has no kernels for %s",
                  mhp_dtype_text((mhp_dtype)params->model->dtype));
    }
    MHP_TRY(out, create_stage(model));
    MHP_TRY(out, allocate(model));
    MHP_TRY(out, mhp_stream_create(params->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "local",
                                   &model->stream));
    mhp_stage_bind(model->stage, model->parameters, model->weights, NULL);
    for (int t = 0; t < params->length; t++) {
        model->host_inputs[POSITION * params->length + t] = t;
        model->host_inputs[DOCUMENT_START * params->length + t] = 0;
    }
    *model_out = model;
    model = NULL;
out:
    mhp_local_model_destroy(model);
    return status;
}

void mhp_local_model_destroy(mhp_local_model *model)
{
    if (!model) {
        return;
    }
    mhp_stream_destroy(model->stream);
    if (model->kernels && weights_apart(model)) {
        mhp_device_free(model->params.device, model->weights);
    }
    mhp_device_free(model->params.device, model->parameters);
    for (int lifetime = 0; lifetime < MHP_LIFE_COUNT; lifetime++) {
        mhp_device_free(model->params.device, model->memory[lifetime]);
    }
    mhp_device_free(model->params.device, model->inputs);
    mhp_device_free(model->params.device, model->loss_sum);
    mhp_device_free_host(model->params.device, model->host_inputs);
    mhp_device_free_host(model->params.device, model->host_parameters);
    mhp_device_free_host(model->params.device, model->host_logits);
    mhp_stage_destroy(model->stage);
    mhp_free(model);
}

mhp_status mhp_local_model_load(mhp_local_model *model, const mhp_safetensors *file,
                                const char *prefix)
{
    const mhp_parameter_layout *layout = mhp_stage_layout(model->stage);
    size_t element = mhp_dtype_bytes(model->kernels->full_dtype);
    mhp_cast_args cast = {.count = layout->elements, .source = model->parameters, .target = model->weights};

    memset(model->host_parameters, 0, parameter_bytes(model));
    for (int i = 0; i < layout->count; i++) {
        mhp_tensor_info expected = layout->items[i].info;
        char *image = (char *)model->host_parameters + (size_t)layout->items[i].offset * element;

        if (snprintf(expected.name, sizeof expected.name, "%s%s", prefix,
                     layout->items[i].info.name) >= (int)sizeof expected.name) {
            return mhp_error_set(MHP_ERR_LIMIT, "tensor name %s%s exceeds %zu bytes", prefix,
                                 layout->items[i].info.name, sizeof expected.name);
        }
        MHP_RETURN_IF_ERROR(mhp_safetensors_read(file, &expected, image));
    }
    MHP_RETURN_IF_ERROR(mhp_stream_copy(model->stream, model->parameters, model->host_parameters,
                                        parameter_bytes(model)));
    if (weights_apart(model)) {
        MHP_RETURN_IF_ERROR(mhp_stream_submit(model->stream, model->kernels->cast, &cast, sizeof cast));
    }
    return mhp_stream_synchronize(model->stream);
}

static mhp_status run_forward(mhp_local_model *model, const mhp_microbatch *microbatch)
{
    mhp_cursor cursor;

    mhp_cursor_begin(&cursor, model->stage, MHP_PASS_FORWARD, microbatch);
    while (!mhp_cursor_done(&cursor)) {
        MHP_RETURN_IF_ERROR(mhp_cursor_step(&cursor, model->stream));
    }
    return MHP_OK;
}

mhp_status mhp_local_model_forward(mhp_local_model *model, const int32_t *token,
                                   const int32_t *target, double *loss_sum_out,
                                   const void **logits_out)
{
    size_t length = (size_t)model->params.length;
    mhp_microbatch microbatch = {
        .token = model->inputs + TOKEN * length,
        .target = model->inputs + TARGET * length,
        .position = model->inputs + POSITION * length,
        .one_document = true,
        .document_start = model->inputs + DOCUMENT_START * length,
        .loss_sum = model->loss_sum,
        .evaluate = true,
    };

    memcpy(microbatch.memory, model->memory, sizeof microbatch.memory);
    memcpy(model->host_inputs + TOKEN * length, token, length * sizeof *token);
    memcpy(model->host_inputs + TARGET * length, target, length * sizeof *target);
    MHP_RETURN_IF_ERROR(mhp_stream_copy(model->stream, model->inputs, model->host_inputs,
                                        INPUT_COUNT * length * sizeof(int32_t)));
    MHP_RETURN_IF_ERROR(run_forward(model, &microbatch));
    MHP_RETURN_IF_ERROR(mhp_stream_copy(model->stream, &model->host_loss_sum, model->loss_sum,
                                        sizeof model->host_loss_sum));
    MHP_RETURN_IF_ERROR(mhp_stream_copy(model->stream, model->host_logits,
                                        mhp_stage_logits(model->stage, &microbatch),
                                        logits_bytes(model)));
    MHP_RETURN_IF_ERROR(mhp_stream_synchronize(model->stream));
    *loss_sum_out = model->host_loss_sum;
    *logits_out = model->host_logits;
    return MHP_OK;
}
