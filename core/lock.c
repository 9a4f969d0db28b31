#include "core/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/file_internal.h"
#include "core/log.h"
#include "core/memory.h"

enum { HOLDER_MAX = 192, HOST_MAX = 65, PAUSE_NS = 100000000 };

static const double warn_s = 1;

struct mhp_lock {
    int fd;     /* the lock's, and with it the lock */
};

static double seconds_since(const struct timespec *start)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) * 1e-9;
}

/* ---- who holds it ---- */

static void describe_self(char text[HOLDER_MAX])
{
    char host[HOST_MAX] = "", since[32] = "";
    time_t now = time(NULL);
    struct tm parts;

    if (gethostname(host, sizeof host - 1) != 0) {
        host[0] = '\0';
    }
    if (gmtime_r(&now, &parts)) {
        strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
    snprintf(text, HOLDER_MAX, "host %s, pid %ld, since %s\n", host, (long)getpid(), since);
}

/* The file's first line, as far as a terminal may have it. */
static void describe_holder(int fd, char text[HOLDER_MAX])
{
    ssize_t length = pread(fd, text, HOLDER_MAX - 1, 0);
    size_t end = 0;

    while (length > 0 && end < (size_t)length && text[end] >= 0x20 && text[end] < 0x7f) {
        end++;
    }
    text[end] = '\0';
    if (end == 0) {
        snprintf(text, HOLDER_MAX, "unknown host and pid");
    }
}

/* Synced, for other hosts read it from a server. */
static mhp_status sign(int fd, const char *path)
{
    char text[HOLDER_MAX];
    size_t length;

    describe_self(text);
    length = strlen(text);
    if (mhp_file_fails(MHP_FILE_WRITE, path, &length) || ftruncate(fd, 0) != 0 || pwrite(fd, text, length, 0) != (ssize_t)length ||
        fsync(fd) != 0) {
        return mhp_error_set(MHP_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    }
    return MHP_OK;
}

/* ---- taking it ---- */

typedef enum outcome { TAKEN, HELD, NO_LOCKS, FAILED } outcome;

/* The lock of an open file, which another descriptor of the same file does not lose on close(2), and another thread does not share. */
static outcome try_to_lock(int fd)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(fd, F_OFD_SETLK, &whole) == 0) {
        return TAKEN;
    }
    switch (errno) {
    case EAGAIN:
    case EACCES:
        return HELD;
    case ENOLCK:        /* file systems, servers and kernels without them */
    case EOPNOTSUPP:
    case ENOSYS:
    case EINVAL:
        return NO_LOCKS;
    default:
        return errno == EINTR ? HELD : FAILED;
    }
}

static mhp_status await(int fd, const char *folder, double patience_s, outcome *outcome_out)
{
    const struct timespec pause = {0, PAUSE_NS};
    struct timespec start;
    char holder[HOLDER_MAX];
    bool has_warned = false;

    clock_gettime(CLOCK_MONOTONIC, &start);
    while ((*outcome_out = try_to_lock(fd)) == HELD) {
        double waited_s = seconds_since(&start);

        describe_holder(fd, holder);
        if (waited_s >= patience_s) {
            return mhp_error_set(MHP_ERR_TIMEOUT, "%s is held by another run (%s): wait for its end, or choose another folder", folder,
                                 holder);
        }
        if (waited_s >= warn_s && !has_warned) {
            mhp_log_warn("%s is held by another run (%s): waits %.0f s for its end", folder, holder, patience_s);
            has_warned = true;
        }
        nanosleep(&pause, NULL);
    }
    if (*outcome_out == FAILED) {
        return mhp_error_set(MHP_ERR_IO, "cannot lock %s/.lock: %s", folder, strerror(errno));
    }
    return MHP_OK;
}

mhp_status mhp_folder_lock(const char *folder, double patience_s, mhp_lock **lock_out)
{
    mhp_status status = MHP_OK;
    mhp_lock *lock = NULL;
    outcome found = NO_LOCKS;
    char *path = NULL;

    *lock_out = NULL;
    MHP_TRY(out, mhp_mkdirs(folder));
    MHP_TRY(out, mhp_asprintf(&path, "%s/.lock", folder));
    MHP_TRY(out, mhp_calloc(&lock, 1, sizeof *lock));
    lock->fd = mhp_file_fails(MHP_FILE_OPEN, path, NULL) ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (lock->fd < 0) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    MHP_TRY(out, await(lock->fd, folder, patience_s, &found));
    if (found == NO_LOCKS) {
        mhp_log_warn("%s is on a file system without locks: nothing keeps another run out of it", folder);
        goto out;
    }
    MHP_TRY(out, sign(lock->fd, path));
    *lock_out = lock;
    lock = NULL;
out:
    mhp_folder_unlock(lock);
    mhp_free(path);
    return status;
}

void mhp_folder_unlock(mhp_lock *lock)
{
    if (!lock) {
        return;
    }
    if (lock->fd >= 0) {
        close(lock->fd);
    }
    mhp_free(lock);
}
