#include "comm/nccl/nccl_link.h"

#include <dlfcn.h>
#include <time.h>

#include "core/library.h"
#include "core/memory.h"

/* CTAs are multiprocessors that a message takes from the stages' kernels. */
enum { CTAS_MIN = 1, CTAS_MAX = 4, POLL_PAUSE_NS = 10000 };

/* Of a process that leaves: a lost peer never comes to end a communicator, one that lives may be slow to. */
enum { LEAVE_LOST_S = 10, LEAVE_S = 120 };

static mhp_nccl_api found_api;
static const mhp_nccl_api *found;

static bool load(void *library, mhp_nccl_api *api)
{
    const mhp_library_symbol functions[] = {
        {"ncclGetUniqueId", &api->get_unique_id},
        {"ncclCommInitRankConfig", &api->init},
        {"ncclCommFinalize", &api->finalize},
        {"ncclCommDestroy", &api->destroy},
        {"ncclCommAbort", &api->abort},
        {"ncclCommGetAsyncError", &api->async_error},
        {"ncclGetErrorString", &api->error_text},
        {"ncclGetLastError", &api->last_error},
        {"ncclGroupStart", &api->group_start},
        {"ncclGroupEnd", &api->group_end},
        {"ncclSend", &api->send},
        {"ncclRecv", &api->receive},
        {"ncclAllReduce", &api->all_reduce},
        {"ncclReduceScatter", &api->reduce_scatter},
        {"ncclAllGather", &api->all_gather},
        {"ncclBroadcast", &api->broadcast},
    };

    return !mhp_library_bind(library, functions, sizeof functions / sizeof *functions);
}

static void find_once(void)
{
    static const char *const names[] = {"libnccl.so.2", MHP_NCCL_LIBRARY, NULL};       /* the loader's, then the build's */

    for (const char *const *name = names; *name && !found; name++) {
        void *library = dlopen(*name, RTLD_NOW | RTLD_LOCAL);

        if (library && load(library, &found_api)) {
            found = &found_api;
        }
    }
}

const mhp_nccl_api *mhp_nccl_find(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, find_once);
    return found;
}

/* The lock is held. */
static mhp_status explain(const mhp_nccl_link *link, ncclResult_t result)
{
    const char *detail = link->comm ? link->api->last_error(link->comm) : "";

    if (result == ncclSuccess) {
        return MHP_OK;
    }
    if (result == ncclInProgress) {
        return MHP_IN_PROGRESS;
    }
    return mhp_error_set(MHP_ERR_COMM, "%s: NCCL: %s%s%s", link->name, link->api->error_text(result), detail && *detail ? ": " : "",
                         detail ? detail : "");
}

/* The end of a communicator, apart: NCCL's waits for the other ranks to end it too, which may be about to end another one first; and
 * an aborted one waits for the card, whose other kernels may wait for communicators that are yet to be aborted. */
typedef struct ending {
    ncclComm_t comm;
    ncclResult_t (*end)(ncclComm_t comm);
} ending;

static pthread_mutex_t endings_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t endings_done = PTHREAD_COND_INITIALIZER;
static int endings;
static bool any_lost;               /* a communicator was given up */

static void *run_ending(void *argument)
{
    ending *own = argument;

    (void)own->end(own->comm);
    mhp_free(own);
    pthread_mutex_lock(&endings_lock);
    endings--;
    pthread_cond_signal(&endings_done);
    pthread_mutex_unlock(&endings_lock);
    return NULL;
}

static void end_apart(ncclComm_t comm, ncclResult_t (*end)(ncclComm_t comm), bool lost)
{
    ending *own;
    pthread_t thread;

    if (mhp_calloc(&own, 1, sizeof *own) < 0) {
        return;                     /* it stays until the process ends */
    }
    *own = (ending){comm, end};
    pthread_mutex_lock(&endings_lock);
    endings++;
    any_lost = any_lost || lost;
    pthread_mutex_unlock(&endings_lock);
    if (pthread_create(&thread, NULL, run_ending, own) == 0) {
        pthread_detach(thread);
    } else {
        run_ending(own);
    }
}

/* A thread that is still amid NCCL when the process takes its libraries down would crash it. */
void mhp_nccl_leave(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    pthread_mutex_lock(&endings_lock);
    until.tv_sec += any_lost ? LEAVE_LOST_S : LEAVE_S;
    while (endings > 0 && pthread_cond_timedwait(&endings_done, &endings_lock, &until) == 0) {
    }
    pthread_mutex_unlock(&endings_lock);
}

/* On the comm thread: an error of NCCL's own threads fails the device, and a failed device ends the communicator, so that its kernels
 * and whoever waits for it end. */
static void look(mhp_watch *watch, bool failed)
{
    mhp_nccl_link *link = (mhp_nccl_link *)(void *)watch;
    ncclResult_t result = ncclSuccess;
    mhp_status status = MHP_OK;

    pthread_mutex_lock(&link->lock);
    if (link->comm && !link->aborted && failed) {
        link->aborted = true;
        end_apart(link->comm, link->api->abort, true);
    } else if (link->comm && !link->aborted && link->api->async_error(link->comm, &result) == ncclSuccess) {
        status = explain(link, result);
    }
    pthread_mutex_unlock(&link->lock);
    if (status < 0) {
        mhp_device_poison(mhp_comm_device(link->world), status);
    }
}

mhp_status mhp_nccl_link_init(mhp_nccl_link *link, mhp_comm *world, const char *name)
{
    link->world = world;
    link->name = name;
    link->api = mhp_nccl_find();
    link->watch.look = look;
    link->watch.always = true;
    pthread_mutex_init(&link->lock, NULL);
    mhp_edges_watch(world, &link->watch);
    link->watched = true;
    return MHP_OK;
}

mhp_status mhp_nccl_link_make_id(mhp_nccl_link *link)
{
    return explain(link, link->api->get_unique_id(&link->id));
}

mhp_status mhp_nccl_link_begin(mhp_nccl_link *link)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    mhp_status status;

    config.blocking = 0;
    config.minCTAs = CTAS_MIN;
    config.maxCTAs = CTAS_MAX;
    pthread_mutex_lock(&link->lock);
    status = explain(link, link->api->init(&link->comm, link->size, link->id, link->rank, &config));
    pthread_mutex_unlock(&link->lock);
    return status < 0 ? status : MHP_OK;
}

static mhp_status refuse_aborted(const mhp_nccl_link *link)
{
    mhp_status status = mhp_comm_check(link->world);

    return status < 0 ? status : mhp_error_set(MHP_ERR_COMM, "%s: NCCL: given up", link->name);
}

mhp_status mhp_nccl_link_poll(mhp_nccl_link *link)
{
    ncclResult_t result = ncclSuccess;
    mhp_status status;

    pthread_mutex_lock(&link->lock);
    if (link->aborted) {
        status = refuse_aborted(link);
    } else {
        status = explain(link, link->api->async_error(link->comm, &result));
        status = status == MHP_OK ? explain(link, result) : status;
    }
    pthread_mutex_unlock(&link->lock);
    return status;
}

mhp_status mhp_nccl_link_start(mhp_nccl_link *link, mhp_nccl_call call, cudaStream_t stream, const void *argument)
{
    mhp_status status;

    pthread_mutex_lock(&link->lock);
    status = link->aborted ? refuse_aborted(link) : explain(link, call(link, stream, argument));
    pthread_mutex_unlock(&link->lock);
    return status;
}

mhp_status mhp_nccl_link_run(mhp_nccl_link *link, mhp_nccl_call call, cudaStream_t stream, const void *argument)
{
    const struct timespec pause = {0, POLL_PAUSE_NS};
    mhp_status status = mhp_nccl_link_start(link, call, stream, argument);

    while (status == MHP_IN_PROGRESS) {
        nanosleep(&pause, NULL);
        status = mhp_nccl_link_poll(link);
    }
    return status;
}

/* The comm thread may give the communicator up at any time. */
static mhp_status finalize(mhp_nccl_link *link)
{
    mhp_status status;

    pthread_mutex_lock(&link->lock);
    status = !link->comm || link->aborted ? MHP_ERR_COMM : explain(link, link->api->finalize(link->comm));
    pthread_mutex_unlock(&link->lock);
    return status;
}

void mhp_nccl_link_close(mhp_nccl_link *link)
{
    const struct timespec pause = {0, POLL_PAUSE_NS};

    if (!link->watched) {
        return;
    }
    if (finalize(link) >= 0) {
        while (mhp_nccl_link_poll(link) == MHP_IN_PROGRESS) {
            nanosleep(&pause, NULL);
        }
    }
    mhp_edges_unwatch(link->world, &link->watch);       /* from here on nobody else looks */
    if (link->comm && !link->aborted) {
        end_apart(link->comm, link->api->destroy, false);
    }
    pthread_mutex_destroy(&link->lock);
    link->watched = false;
}
