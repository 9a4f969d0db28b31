/* mhcpipe config: the resolved configuration, and the documentation of its keys. */
#include <stdio.h>

#include "launch/command.h"
#include "launch/config.h"

enum { PRINT_KEY = 'p', LIST_KEY = 'l' };

typedef struct arguments {
    const char *path;
    bool print, list;
    mhp_overrides overrides;
} arguments;

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case PRINT_KEY:
        given->print = true;
        return 0;
    case LIST_KEY:
        given->list = true;
        return 0;
    case MHP_SET_KEY:
        mhp_overrides_add(&given->overrides, text, state);
        return 0;
    case ARGP_KEY_ARG:
        mhp_take_argument(state, "FILE", text, &given->path);
        return 0;
    case ARGP_KEY_END:
        if (!given->path && !given->list) {
            argp_error(state, "a FILE expected, or --list");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"print", PRINT_KEY, NULL, 0, "Print the whole configuration with every default", 0},
    {"list", LIST_KEY, NULL, 0, "Document every key", 0},
    MHP_SET_OPTION,
    {0},
};

static const struct argp parser = {
    options, parse_option, "[FILE]",
    "Checks a configuration; with --print writes it as it is resolved.", NULL, NULL, NULL};

int mhp_command_config(int argc, char **argv)
{
    arguments given = {0};
    mhp_config config = {0};
    mhp_status status = MHP_OK;

    mhp_parse_arguments(&parser, "config", argc, argv, &given);
    if (given.list) {
        status = mhp_options_list(mhp_config_options, stdout);
    }
    if (given.path && status == MHP_OK) {
        status =
            mhp_config_load(&config, given.path, given.overrides.items, given.overrides.count);
        if (status == MHP_OK && given.print) {
            status = mhp_options_print(mhp_config_options, &config, stdout);
        }
    }
    mhp_config_release(&config);
    return status == MHP_OK ? 0 : mhp_print_error();
}
