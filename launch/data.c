/* mhcpipe data: tokenize makes token files, info looks into them. */
#include <stdio.h>
#include <string.h>

#include "launch/command.h"
#include "runtime/data/indexed.h"
#include "runtime/data/tokenize.h"

enum { OUTPUT_KEY = 'o', SUFFIX_KEY = 'x', PATHS_MAX = 4096, SUFFIXES_MAX = 64 };

typedef struct arguments {
    char *paths[PATHS_MAX];
    size_t path_count;
    char *suffixes[SUFFIXES_MAX];
    size_t suffix_count;
    const char *prefix;
} arguments;

static void add(struct argp_state *state, char **items, size_t *count, size_t maximum, char *text)
{
    if (*count == maximum) {
        argp_error(state, "more than %zu of \"%s\" and its like", maximum, text);
        return;
    }
    items[(*count)++] = text;
}

static error_t parse_tokenize(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case OUTPUT_KEY:
        given->prefix = text;
        return 0;
    case SUFFIX_KEY:
        add(state, given->suffixes, &given->suffix_count, SUFFIXES_MAX, text);
        return 0;
    case ARGP_KEY_ARG:
        add(state, given->paths, &given->path_count, PATHS_MAX, text);
        return 0;
    case ARGP_KEY_END:
        if (given->path_count == 0 || !given->prefix) {
            argp_error(state, "PATHs and -o PREFIX expected");
        } else if (given->prefix[0] == '\0' || given->prefix[strlen(given->prefix) - 1] == '/') {
            argp_error(state, "-o \"%s\": expected the name of files behind the folder, for .bin and .idx are added to it", given->prefix);
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option tokenize_options[] = {
    {"output", OUTPUT_KEY, "PREFIX", 0, "PREFIX.bin and PREFIX.idx are written", 0},
    {"suffix", SUFFIX_KEY, "TEXT", 0,
     "Take from folders only files whose names end like this, as often as wanted", 0},
    {0},
};

static const struct argp tokenize_parser = {
    tokenize_options, parse_tokenize, "PATH...",
    "Makes Megatron's .bin/.idx of text files and of folders of them: a token a byte, 256 behind "
    "every file. Files that are not text are left out.",
    NULL, NULL, NULL};

static int run_tokenize(int argc, char **argv)
{
    static arguments given;
    mhp_tokenize_report report;
    mhp_tokenize_params params;

    mhp_parse_arguments(&tokenize_parser, "data tokenize", argc, argv, &given);
    params = (mhp_tokenize_params){given.paths, given.path_count, given.suffixes, given.suffix_count,
                                   given.prefix};
    if (mhp_tokenize(&params, &report) != MHP_OK) {
        return mhp_print_error();
    }
    printf("%s.bin: %llu tokens in %llu documents of %llu files (left out: %llu binary, %llu empty, "
           "%llu of another suffix, %llu unreadable, %llu links to folders)\n",
           given.prefix, (unsigned long long)report.tokens, (unsigned long long)report.documents,
           (unsigned long long)report.files, (unsigned long long)report.binary,
           (unsigned long long)report.empty, (unsigned long long)report.suffix,
           (unsigned long long)report.unreadable, (unsigned long long)report.folder_links);
    return 0;
}

static error_t parse_info(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case ARGP_KEY_ARG:
        add(state, given->paths, &given->path_count, PATHS_MAX, text);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a PATH expected");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp info_parser = {
    NULL, parse_info, "PATH...",
    "Checks token files (a prefix of .bin/.idx, or a .bin of llm.c) and says what is in them.",
    NULL, NULL, NULL};

static int print_info(const char *path)
{
    mhp_indexed *file = NULL;
    mhp_indexed_info info;
    int64_t highest = -1, lowest = INT64_MAX;

    if (mhp_indexed_open(path, &file) != MHP_OK) {
        return mhp_print_error();
    }
    info = mhp_indexed_describe(file);
    for (uint64_t i = 0; i < info.tokens; i++) {
        int64_t token = mhp_indexed_token(file, i);

        highest = token > highest ? token : highest;
        lowest = token < lowest ? token : lowest;
    }
    printf("%s: %s, %s, %llu documents, %llu sequences, %llu tokens", info.path, info.format,
           mhp_token_type_text(info.type), (unsigned long long)info.documents,
           (unsigned long long)info.sequences, (unsigned long long)info.tokens);
    if (info.tokens > 0) {
        printf(", ids %lld to %lld", (long long)lowest, (long long)highest);
    }
    printf("\n");
    mhp_indexed_close(file);
    return 0;
}

static int run_info(int argc, char **argv)
{
    static arguments given;
    int result = 0;

    mhp_parse_arguments(&info_parser, "data info", argc, argv, &given);
    for (size_t i = 0; i < given.path_count && result == 0; i++) {
        result = print_info(given.paths[i]);
    }
    return result;
}

int mhp_command_data(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    if (strcmp(name, "tokenize") == 0) {
        return run_tokenize(argc - 1, argv + 1);
    }
    if (strcmp(name, "info") == 0) {
        return run_info(argc - 1, argv + 1);
    }
    fprintf(strcmp(name, "--help") == 0 ? stdout : stderr,
            "usage: mhcpipe data tokenize PATH... -o PREFIX\n"
            "       mhcpipe data info PATH...\n");
    return strcmp(name, "--help") == 0 ? 0 : MHP_EXIT_USAGE;
}
