/* The configuration reader: whatever it accepts it must print, and read back to the same text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/options.h"
#include "runtime/data/options.h"
#include "runtime/options.h"
#include "tests/fuzz/fuzz.h"

typedef struct fuzz_config {
    mhp_model_params model;
    mhp_data_params data;
    mhp_optimizer_params optimizer;
} fuzz_config;

static const mhp_option options[] = {
    {.key = "model", .type = MHP_OPTION_SECTION, .offset = offsetof(fuzz_config, model), .section = mhp_model_options, .help = ""},
    {.key = "data", .type = MHP_OPTION_SECTION, .offset = offsetof(fuzz_config, data), .section = mhp_data_options, .help = ""},
    {.key = "optimizer", .type = MHP_OPTION_SECTION, .offset = offsetof(fuzz_config, optimizer), .section = mhp_optimizer_options,
     .help = ""},
    {.key = NULL},
};

/* NULL if it cannot be written, which is so of strings that are not text. */
static char *print(const fuzz_config *config, size_t *length)
{
    char *text = NULL;
    FILE *stream = open_memstream(&text, length);
    mhp_status status;

    if (!stream) {
        abort();
    }
    status = mhp_options_print(options, config, stream);
    fclose(stream);
    if (status != MHP_OK) {
        free(text);
        return NULL;
    }
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_config config = {0}, again = {0};
    size_t length = 0, length_again = 0;
    char *text = NULL, *text_again = NULL;

    if (mhp_options_read_text(options, &config, "fuzz", (const char *)data, size) == MHP_OK) {
        text = print(&config, &length);
    }
    if (text) {
        if (mhp_options_read_text(options, &again, "printed", text, length) != MHP_OK) {
            fprintf(stderr, "%s\n%s", mhp_error_text(), text);
            abort();
        }
        text_again = print(&again, &length_again);
        if (!text_again || length != length_again || memcmp(text, text_again, length) != 0) {
            fprintf(stderr, "printed and read back:\n%s\n%s\n", text, text_again);
            abort();
        }
    }
    free(text);
    free(text_again);
    mhp_options_release(options, &config);
    mhp_options_release(options, &again);
    return 0;
}
