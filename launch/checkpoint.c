/* mhcpipe checkpoint: what a checkpoint holds, once every byte of it is checked. */
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "launch/command.h"
#include "runtime/checkpoint/restore.h"

enum { TENSORS_KEY = 't' };

typedef struct arguments {
    const char *path;
    bool tensors;
} arguments;

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case TENSORS_KEY:
        given->tensors = true;
        return 0;
    case ARGP_KEY_ARG:
        mhp_take_argument(state, "PATH", text, &given->path);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a PATH expected");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"tensors", TENSORS_KEY, NULL, 0,
     "One line for each part of a tensor: name, first element, elements, rank that wrote it, "
     "checksum",
     0},
    {0},
};

static const struct argp parser = {
    options, parse_option, "PATH",
    "Checks every byte of a checkpoint, or of the latest one of a run's folder, against its "
    "manifest, and says what it is.",
    NULL, NULL, NULL};

static void print_tensors(const mhp_manifest *manifest)
{
    for (size_t i = 0; i < manifest->tensor_count; i++) {
        const mhp_manifest_tensor *tensor = &manifest->tensors[i];
        char digits[MHP_HASH_TEXT_MAX];

        mhp_hash_print(tensor->hash, digits);
        printf("%s %lld %lld %d %s\n", tensor->info.name, (long long)tensor->first,
               (long long)tensor->count, tensor->owner, digits);
    }
}

static mhp_status show(const arguments *given)
{
    mhp_status status = MHP_OK;
    mhp_manifest manifest = {0};
    char *directory = NULL;

    MHP_TRY(out, mhp_checkpoint_find((mhp_resume){MHP_RESUME_PATH, given->path}, NULL, &directory));
    MHP_TRY(out, mhp_checkpoint_verify(directory, &manifest));
    if (given->tensors) {
        print_tensors(&manifest);
        goto out;
    }
    printf("%s is intact: %lld steps done, next sample %llu, seed %lld, written by %d ranks, %zu "
           "tensor parts in %d files\n",
           directory, (long long)manifest.state.step,
           (unsigned long long)manifest.state.next_sample, (long long)manifest.state.seed,
           manifest.rank_count, manifest.tensor_count, manifest.file_count);
out:
    mhp_manifest_release(&manifest);
    mhp_free(directory);
    return status;
}

int mhp_command_checkpoint(int argc, char **argv)
{
    arguments given = {0};

    mhp_parse_arguments(&parser, "checkpoint", argc, argv, &given);
    return show(&given) == MHP_OK ? 0 : mhp_print_error();
}
