/* Subcommands of the program, one file each, and what they share. */
#ifndef MHP_LAUNCH_COMMAND_H
#define MHP_LAUNCH_COMMAND_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/status.h"

typedef struct mhp_command {
    const char *name;
    const char *help; /* one line */
    /* Gets the arguments behind the program's name, its own name first; returns the exit status. */
    int (*run)(int argc, char **argv);
} mhp_command;

int mhp_command_train(int argc, char **argv);
int mhp_command_eval(int argc, char **argv);
int mhp_command_generate(int argc, char **argv);
int mhp_command_plan(int argc, char **argv);
int mhp_command_check(int argc, char **argv);
int mhp_command_tune(int argc, char **argv);
int mhp_command_config(int argc, char **argv);
int mhp_command_data(int argc, char **argv);
int mhp_command_bench(int argc, char **argv);
int mhp_command_doctor(int argc, char **argv);
int mhp_command_checkpoint(int argc, char **argv);
int mhp_command_top(int argc, char **argv);
int mhp_command_report(int argc, char **argv);
int mhp_command_diagnose(int argc, char **argv);

enum { MHP_EXIT_ERROR = 1, MHP_EXIT_USAGE = 2, MHP_OVERRIDES_MAX = 256 };

/* --set section.key=value, as often as wanted. */
typedef struct mhp_overrides {
    char *items[MHP_OVERRIDES_MAX];
    size_t count;
} mhp_overrides;

#define MHP_SET_KEY 's'
#define MHP_SET_OPTION                                                                             \
    {                                                                                              \
        "set", MHP_SET_KEY, "SECTION.KEY=VALUE", 0, "Overrides a key of the configuration", 0      \
    }

/* Adds an override; a usage error if there are too many. */
void mhp_overrides_add(mhp_overrides *overrides, char *text, struct argp_state *state);

/* Parses by argp; of the ranks of one launch only the first prints usage errors and help. On a
 * usage error the process exits with MHP_EXIT_USAGE. */
void mhp_parse_arguments(const struct argp *parser, const char *name, int argc, char **argv,
                         void *arguments);

/* Takes the command's one argument, which errors call `what`; another one is a usage error. */
void mhp_take_argument(struct argp_state *state, const char *what, char *text, const char **value);

/* Reads a whole number of an option, or ends with a usage error that names the range. */
int mhp_parse_integer(struct argp_state *state, const char *option, const char *text, int minimum,
                      int maximum);

/* 80GiB, 512M or a plain number of bytes; k, M, G and T are powers of 1024. */
int64_t mhp_parse_bytes(struct argp_state *state, const char *option, const char *text);

/* Writes `text` so that a shell takes it as one word that is this text. */
void mhp_write_shell_word(const char *text, FILE *stream);

/* "mhcpipe: error: text" on stderr; returns MHP_EXIT_ERROR. */
int mhp_print_error(void);

/* This process's number among those that a launcher started, as its environment says before MPI
 * is initialised; 0 without a launcher. */
int mhp_launched_rank(void);

/* Its number among those on this machine, likewise. */
int mhp_launched_local_rank(void);

/* How many there are on this machine, likewise; 0 if nothing says so. */
int mhp_launched_local_size(void);

/* The number for node `node` of Slurm's list of tasks per node, "4(x2),3"; 0 if it says nothing. */
int mhp_slurm_tasks_of_node(const char *list, int node);

/* Whether a person's terminal shows stdout; behind mpirun, whether mpirun's stdout is one. */
bool mhp_stdout_is_terminal(void);

#endif
