/* mhcpipe generate: lets a byte-level model continue a prompt. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/device.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/safetensors.h"
#include "launch/command.h"
#include "runtime/batch.h"
#include "runtime/data/tokenize.h"
#include "runtime/local_model.h"
#include "runtime/model_file.h"

enum {
    MODEL_KEY = 'm',
    PROMPT_KEY = 'p',
    BYTES_KEY = 'n',
    TEMPERATURE_KEY = 't',
    SEED_KEY = 's',
    CONTEXT_KEY = 'c',
    SAMPLE_STREAM = 7,
};

typedef struct arguments {
    const char *model, *prompt;
    int bytes, context, seed;
    double temperature;
} arguments;

static double parse_temperature(struct argp_state *state, const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= 0 && value <= 100)) {
        argp_error(state, "--temperature %s: expected a number from 0 to 100", text);
    }
    return value;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case MODEL_KEY:
        given->model = text;
        return 0;
    case PROMPT_KEY:
        given->prompt = text;
        return 0;
    case BYTES_KEY:
        given->bytes = mhp_parse_integer(state, "--bytes", text, 1, 1 << 20);
        return 0;
    case CONTEXT_KEY:
        given->context = mhp_parse_integer(state, "--context", text, 1, 1 << 16);
        return 0;
    case SEED_KEY:
        given->seed = mhp_parse_integer(state, "--seed", text, 0, 1 << 30);
        return 0;
    case TEMPERATURE_KEY:
        given->temperature = parse_temperature(state, text);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "no argument \"%s\" expected", text);
        return 0;
    case ARGP_KEY_END:
        if (!given->model) {
            argp_error(state, "--model expected");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"model", MODEL_KEY, "DIR", 0, "Folder with model.safetensors and config.json", 0},
    {"prompt", PROMPT_KEY, "TEXT", 0, "Text to continue (the start of a document)", 0},
    {"bytes", BYTES_KEY, "N", 0, "Bytes to print at most (400); ends with the document", 0},
    {"temperature", TEMPERATURE_KEY, "T", 0, "0: always the likeliest byte (0.7)", 0},
    {"context", CONTEXT_KEY, "N", 0, "Bytes that the model looks back at most (256)", 0},
    {"seed", SEED_KEY, "N", 0, "Another text for another number (1)", 0},
    {0},
};

static const struct argp parser = {options, parse_option, NULL,
                                   "Prints a prompt and what a byte-level model makes of it.",
                                   NULL, NULL, NULL};

typedef struct generator {
    const arguments *given;
    mhp_model_params params;
    mhp_device *device;
    mhp_local_model *model;
    int32_t *tokens, *targets; /* [context]; targets are masked */
    int count;                 /* of tokens in the window */
    double *weights;           /* [vocabulary] */
} generator;

/* ---- set-up ---- */

static mhp_status load_model(generator *self)
{
    mhp_status status = MHP_OK;
    mhp_safetensors *file = NULL;
    mhp_device_params device = {.kind = MHP_DEVICE_CPU, .threads = 1};
    mhp_local_model_params local = {.model = &self->params, .length = self->given->context, .threads = 1};

    MHP_TRY(out, mhp_model_config_read(self->given->model, &self->params));
    if (self->params.vocab_size != MHP_BYTE_VOCABULARY) {
        MHP_RAISE(out, MHP_ERR_UNSUPPORTED,
                  "%s has a vocabulary of %lld tokens: text can be made only with that of bytes, %d",
                  self->given->model, (long long)self->params.vocab_size, MHP_BYTE_VOCABULARY);
    }
    MHP_TRY(out, mhp_model_open(self->given->model, &file));
    MHP_TRY(out, mhp_device_open(&device, &self->device));
    local.device = self->device;
    MHP_TRY(out, mhp_local_model_create(&local, &self->model));
    MHP_TRY(out, mhp_local_model_load(self->model, file, ""));
out:
    mhp_safetensors_close(file);
    return status;
}

/* Drops the older half of a full window: the bytes behind it keep at least half the context. */
static void push(generator *self, int32_t token)
{
    int context = self->given->context;

    if (self->count == context) {
        int kept = context / 2;

        memmove(self->tokens, self->tokens + self->count - kept, (size_t)kept * sizeof *self->tokens);
        self->count = kept;
    }
    self->tokens[self->count++] = token;
}

static mhp_status create_window(generator *self)
{
    size_t context = (size_t)self->given->context;
    const char *prompt = self->given->prompt;

    MHP_RETURN_IF_ERROR(mhp_calloc(&self->tokens, context, sizeof *self->tokens));
    MHP_RETURN_IF_ERROR(mhp_calloc(&self->targets, context, sizeof *self->targets));
    MHP_RETURN_IF_ERROR(mhp_calloc(&self->weights, MHP_BYTE_VOCABULARY, sizeof *self->weights));
    for (size_t t = 0; t < context; t++) {
        self->targets[t] = MHP_TARGET_MASKED;
    }
    if (prompt[0] == '\0') {
        push(self, MHP_BYTE_END_OF_DOCUMENT);
    }
    for (size_t i = 0; prompt[i] != '\0'; i++) {
        push(self, (unsigned char)prompt[i]);
    }
    return MHP_OK;
}

/* ---- sampling ---- */

static double logit(const generator *self, const void *logits, int token)
{
    return mhp_dtype_load((mhp_dtype)self->params.dtype, logits, (int64_t)(self->count - 1) * MHP_BYTE_VOCABULARY + token);
}

static int sample(const generator *self, const void *logits, int step)
{
    double temperature = self->given->temperature;
    double rest, sum = 0;
    int best = 0;

    for (int i = 1; i < MHP_BYTE_VOCABULARY; i++) {
        best = logit(self, logits, i) > logit(self, logits, best) ? i : best;
    }
    if (temperature == 0) {
        return best;
    }
    for (int i = 0; i < MHP_BYTE_VOCABULARY; i++) {
        self->weights[i] = exp((logit(self, logits, i) - logit(self, logits, best)) / temperature);
        sum += self->weights[i];
    }
    rest = sum * mhp_random_uniform((uint64_t)self->given->seed, SAMPLE_STREAM, (uint64_t)step);
    for (int i = 0; i < MHP_BYTE_VOCABULARY; i++) {
        rest -= self->weights[i];
        if (rest < 0) {
            return i;
        }
    }
    return best;
}

static mhp_status generate(generator *self)
{
    fputs(self->given->prompt, stdout);
    for (int step = 0; step < self->given->bytes; step++) {
        const void *logits;
        double loss;
        int token;

        MHP_RETURN_IF_ERROR(mhp_local_model_forward(self->model, self->tokens, self->targets, &loss, &logits));
        token = sample(self, logits, step);
        if (token == MHP_BYTE_END_OF_DOCUMENT) {
            break;
        }
        putchar(token);
        if (fflush(stdout) != 0) {
            break;
        }
        push(self, token);
    }
    putchar('\n');
    return MHP_OK;
}

int mhp_command_generate(int argc, char **argv)
{
    arguments given = {.prompt = "", .bytes = 400, .context = 256, .temperature = 0.7, .seed = 1};
    generator self = {.given = &given};
    mhp_status status;

    mhp_parse_arguments(&parser, "generate", argc, argv, &given);
    status = load_model(&self);
    if (status == MHP_OK) {
        status = create_window(&self);
    }
    if (status == MHP_OK) {
        status = generate(&self);
    }
    mhp_local_model_destroy(self.model);
    mhp_device_close(self.device);
    mhp_free(self.weights);
    mhp_free(self.targets);
    mhp_free(self.tokens);
    return status == MHP_OK ? 0 : mhp_print_error();
}
