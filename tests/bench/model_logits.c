/* model_logits DIR LENGTH OUT: runs a model folder over the tokens (7 t + 3) mod vocab_size, t < LENGTH, and writes the logits
 * [LENGTH, V] as F32 to OUT. */
#include <stdio.h>
#include <stdlib.h>

#include "core/file.h"
#include "core/memory.h"
#include "runtime/batch.h"
#include "runtime/local_model.h"
#include "runtime/model_file.h"

typedef struct logits_run {
    mhp_model_params params;
    mhp_device *device;
    mhp_local_model *model;
    mhp_safetensors *file;
    char *path;
    int32_t *tokens, *targets;
} logits_run;

static mhp_status write_logits(logits_run *self, const char *directory, int length, const char *out)
{
    mhp_device_params device = {.kind = MHP_DEVICE_CPU, .threads = 1};
    mhp_local_model_params local = {.model = &self->params, .length = length, .threads = 1};
    const void *logits;
    double loss;

    MHP_RETURN_IF_ERROR(mhp_model_config_read(directory, &self->params));
    MHP_RETURN_IF_ERROR(mhp_asprintf(&self->path, "%s/model.safetensors", directory));
    MHP_RETURN_IF_ERROR(mhp_safetensors_open(self->path, &self->file));
    MHP_RETURN_IF_ERROR(mhp_device_open(&device, &self->device));
    local.device = self->device;
    MHP_RETURN_IF_ERROR(mhp_local_model_create(&local, &self->model));
    MHP_RETURN_IF_ERROR(mhp_local_model_load(self->model, self->file, ""));
    MHP_RETURN_IF_ERROR(mhp_calloc(&self->tokens, (size_t)length, sizeof *self->tokens));
    MHP_RETURN_IF_ERROR(mhp_calloc(&self->targets, (size_t)length, sizeof *self->targets));
    for (int t = 0; t < length; t++) {
        self->tokens[t] = (int32_t)((7 * t + 3) % self->params.vocab_size);
        self->targets[t] = MHP_TARGET_MASKED;
    }
    MHP_RETURN_IF_ERROR(mhp_local_model_forward(self->model, self->tokens, self->targets, &loss, &logits));
    return mhp_file_write_atomic(out, logits, (size_t)length * (size_t)self->params.vocab_size * sizeof(float));
}

int main(int argc, char **argv)
{
    logits_run self = {0};
    mhp_status status;

    if (argc != 4 || atoi(argv[2]) < 1) {
        fprintf(stderr, "usage: model_logits DIR LENGTH OUT\n");
        return 2;
    }
    status = write_logits(&self, argv[1], atoi(argv[2]), argv[3]);
    if (status != MHP_OK) {
        fprintf(stderr, "model_logits: %s\n", mhp_error_text());
    }
    mhp_local_model_destroy(self.model);
    mhp_device_close(self.device);
    mhp_safetensors_close(self.file);
    mhp_free(self.targets);
    mhp_free(self.tokens);
    mhp_free(self.path);
    return status == MHP_OK ? 0 : 1;
}
