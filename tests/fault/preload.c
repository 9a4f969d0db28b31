/* Preloaded before MPI: a rank hangs or dies in one of its calls. MHP_TEST_RANK: which rank; MHP_TEST_CALL: "finalize", or "allgather-N" for
 * its N-th MPI_Iallgather; MHP_TEST_END: "hang" or "kill", the latter when the others have come as far. Every rank leaves a file "comes.RANK"
 * when it comes to the call, and "finalized.RANK" behind MPI_Finalize. */
#include <dlfcn.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is(const char *variable, const char *value)
{
    const char *text = getenv(variable);

    return text && strcmp(text, value) == 0;
}

static const char *own_rank(void)
{
    return getenv("OMPI_COMM_WORLD_RANK");
}

static void leave_file(const char *what)
{
    char name[64];
    FILE *file;

    snprintf(name, sizeof name, "%s.%s", what, own_rank());
    file = fopen(name, "w");
    if (file) {
        fclose(file);
    }
}

static void await_others(void)
{
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    char name[64];

    for (int rank = 0; size && rank < atoi(size); rank++) {
        snprintf(name, sizeof name, "comes.%d", rank);
        while (access(name, F_OK) != 0) {
            usleep(10000);
        }
    }
    usleep(300000);             /* now they most likely wait in the call, which nothing shows */
}

static void come_to(const char *call)
{
    if (!own_rank() || !is("MHP_TEST_CALL", call)) {
        return;
    }
    leave_file("comes");
    if (!is("MHP_TEST_RANK", own_rank())) {
        return;
    }
    if (is("MHP_TEST_END", "kill")) {
        await_others();
        kill(getpid(), SIGKILL);
    }
    for (;;) {
        pause();
    }
}

static void find(const char *name, void *function_out)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (!found) {
        fprintf(stderr, "no %s behind the preloaded library\n", name);
        abort();
    }
    memcpy(function_out, &found, sizeof found);
}

int MPI_Finalize(void)
{
    int (*next)(void);
    int error;

    come_to("finalize");
    find("MPI_Finalize", &next);
    error = next();
    if (own_rank()) {
        leave_file("finalized");
    }
    return error;
}

int MPI_Iallgather(const void *own, int own_count, MPI_Datatype own_type, void *all, int count, MPI_Datatype type, MPI_Comm comm,
                   MPI_Request *request)
{
    static int calls;           /* the comm thread's */
    int (*next)(const void *, int, MPI_Datatype, void *, int, MPI_Datatype, MPI_Comm, MPI_Request *);
    char call[32];

    snprintf(call, sizeof call, "allgather-%d", ++calls);
    come_to(call);
    find("MPI_Iallgather", &next);
    return next(own, own_count, own_type, all, count, type, comm, request);
}
