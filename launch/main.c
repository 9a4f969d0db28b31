/* mhcpipe: finds the subcommand and hands over. */
#include <cblas.h>
#include <errno.h>
#include <hwloc.h>
#include <jansson.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include <yaml.h>

#include "launch/command.h"

static const mhp_command commands[] = {
    {"train", "trains a model, under mpirun", mhp_command_train},
    {"eval", "held-out loss of a trained model, under mpirun", mhp_command_eval},
    {"generate", "prints text that a byte-level model continues", mhp_command_generate},
    {"plan", "proves, simulates and draws a schedule", mhp_command_plan},
    {"check", "checks a schedule's file on its own", mhp_command_check},
    {"tune", "finds a faster schedule for measured costs", mhp_command_tune},
    {"config", "prints a configuration with all defaults, or documents every key",
     mhp_command_config},
    {"data", "makes and inspects token files", mhp_command_data},
    {"bench", "times a model's step, or kernels, on this machine", mhp_command_bench},
    {"doctor", "says what this machine has, what is missing and what that costs", mhp_command_doctor},
    {"top", "shows a running job: what every rank does", mhp_command_top},
    {"report", "says where a profiled run's time went, in a table and a page", mhp_command_report},
    {"checkpoint", "checks a checkpoint and says what it is", mhp_command_checkpoint},
    {"diagnose", "says which rank of a run that stood still waits for what from whom", mhp_command_diagnose},
};

static void print_usage(FILE *stream)
{
    fprintf(stream, "usage: mhcpipe COMMAND [ARGUMENTS]\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        fprintf(stream, "  %-10s %s\n", commands[i].name, commands[i].help);
    }
    fprintf(stream, "\n  mhcpipe COMMAND --help   what a command takes\n"
                    "  mhcpipe --version        this version and the libraries it runs with\n");
}

/* The libraries as they are loaded, not as they were compiled against. */
static void print_version(void)
{
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    unsigned xxhash = XXH_versionNumber();
    unsigned hwloc = hwloc_get_api_version();
    int length;

    MPI_Get_library_version(mpi, &length);
    mpi[strcspn(mpi, ",\n")] = '\0';
    printf("mhcpipe %s\n", MHP_VERSION);
    printf("  MPI       %s\n", mpi);
    printf("  BLAS      %s\n", openblas_get_config());
    printf("  libyaml   %s\n", yaml_get_version_string());
    printf("  jansson   %s\n", jansson_version_str());
    printf("  xxHash    %u.%u.%u\n", xxhash / 10000, xxhash / 100 % 100, xxhash % 100);
    printf("  hwloc     %u.%u.%u\n", hwloc >> 16, hwloc >> 8 & 0xff, hwloc & 0xff);
}

/* What a command printed may not have arrived: an error, unless it failed for a reason of its own. Other statuses than these are of
 * runs that were stopped, and mean what they mean to a batch system. */
static int check_output(int exit_status)
{
    bool was_lost = ferror(stdout) != 0;
    int reason = 0;

    errno = 0;
    if (fflush(stdout) != 0) {
        was_lost = true;
        reason = errno;
    }
    if (!was_lost || exit_status == MHP_EXIT_ERROR || exit_status == MHP_EXIT_USAGE) {
        return exit_status;
    }
    fprintf(stderr, "mhcpipe: error: cannot write to standard output: %s\n", reason ? strerror(reason) : "a part of it was lost");
    return exit_status == 0 ? MHP_EXIT_ERROR : exit_status;
}

static int run(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        print_version();
        return 0;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage(stdout);
        return 0;
    }
    if (mhp_launched_rank() == 0) {
        if (argc > 1) {
            fprintf(stderr, "mhcpipe: unknown command \"%s\"\n", name);
        }
        print_usage(stderr);
    }
    return MHP_EXIT_USAGE;
}

static bool has_returned;

/* A command's --help ends the process without coming back. */
static void check_help(void)
{
    if (!has_returned && check_output(0) != 0) {
        _exit(MHP_EXIT_ERROR);
    }
}

int main(int argc, char **argv)
{
    int exit_status;

    atexit(check_help);
    exit_status = run(argc, argv);
    has_returned = true;
    return check_output(exit_status);
}
