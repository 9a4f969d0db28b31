/* Memory of the test backend. Each allocation is a file without a name, which other processes of the host map as well; pages that
 * nobody may touch lie behind it. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/device/host.h"

enum { PAGE = 4096 };

/* In the page before the memory. In an attached mapping the owner's number stands in its own copy of it. */
typedef struct test_header {
    size_t bytes;
    int file;                           /* of the owner */
} test_header;

typedef struct test_name {
    pid_t process;
    int file;
    size_t bytes;
} test_name;

_Static_assert(sizeof(test_name) <= MHP_SHARED_NAME_BYTES, "a name has room");

static size_t file_bytes(size_t bytes)
{
    return (bytes + 2 * PAGE - 1) / PAGE * PAGE;
}

static test_header *header_of(const void *pointer)
{
    return (test_header *)((uintptr_t)pointer - PAGE);
}

/* Maps the file with a guard behind it; the memory, or NULL. */
static char *map(int file, size_t bytes)
{
    size_t whole = file_bytes(bytes);
    char *memory = mmap(NULL, whole + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        return NULL;
    }
    if (mmap(memory, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
        munmap(memory, whole + PAGE);
        return NULL;
    }
    return memory + PAGE;
}

mhp_status mhp_test_alloc(mhp_device *base, size_t bytes, void **pointer_out)
{
    int file = bytes <= SIZE_MAX / 2 ? memfd_create("mhcpipe", MFD_CLOEXEC) : -1;
    char *memory = file >= 0 && ftruncate(file, (off_t)file_bytes(bytes)) == 0 ? map(file, bytes) : NULL;

    if (!memory) {
        if (file >= 0) {
            close(file);
        }
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot allocate %zu bytes of device memory; %zu are in use", bytes, host_of(base)->bytes);
    }
    *header_of(memory) = (test_header){bytes, file};
    *pointer_out = memory;
    return MHP_OK;
}

static void unmap(void *pointer)
{
    munmap(header_of(pointer), file_bytes(header_of(pointer)->bytes) + PAGE);
}

size_t mhp_test_free(void *pointer)
{
    size_t bytes = header_of(pointer)->bytes;

    close(header_of(pointer)->file);
    unmap(pointer);
    return bytes;
}

/* ---- sharing ---- */

/* The mapping of this process that holds the pointer begins with the header; it is found in the kernel's list. */
static const char *find_start(const void *pointer)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    uintptr_t begin, end, found = 0;
    char line[512];

    while (maps && !found && fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx", &begin, &end) == 2 && (uintptr_t)pointer >= begin && (uintptr_t)pointer < end &&
            strstr(line, "memfd:mhcpipe")) {
            found = begin + PAGE;
        }
    }
    if (maps) {
        fclose(maps);
    }
    return (const char *)found;
}

static bool test_owns(const mhp_device *device, const void *pointer)
{
    (void)device;
    return find_start(pointer) != NULL;
}

static mhp_status test_share(mhp_device *device, const void *pointer, mhp_shared_name *name_out, size_t *offset_out)
{
    const char *start = find_start(pointer);
    test_name name;

    (void)device;
    if (!start) {
        return mhp_error_set(MHP_ERR_INVALID, "%p is not device memory", pointer);
    }
    memset(name_out, 0, sizeof *name_out);
    memset(&name, 0, sizeof name);
    name.process = getpid();
    name.file = header_of(start)->file;
    name.bytes = header_of(start)->bytes;
    memcpy(name_out, &name, sizeof name);
    *offset_out = (size_t)((const char *)pointer - start);
    return MHP_OK;
}

/* Attached twice, it is mapped twice: nothing relies on one place. */
static mhp_status test_attach(mhp_device *device, const mhp_shared_name *shared, void **pointer_out)
{
    test_name name;
    char path[64];
    char *memory;
    int file;

    (void)device;
    memcpy(&name, shared, sizeof name);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)name.process, name.file);
    file = open(path, O_RDWR | O_CLOEXEC);
    memory = file >= 0 ? map(file, name.bytes) : NULL;
    if (file >= 0) {
        close(file);
    }
    if (!memory) {
        return mhp_error_set(MHP_ERR_DEVICE, "cannot map the memory of process %d", (int)name.process);
    }
    *pointer_out = memory;
    return MHP_OK;
}

static void test_detach(mhp_device *device, void *pointer)
{
    (void)device;
    unmap(pointer);
}

static mhp_status test_pin(mhp_device *device, void *memory, size_t bytes)
{
    (void)device;
    (void)memory;
    (void)bytes;
    return MHP_OK;
}

static void test_unpin(mhp_device *device, void *memory)
{
    (void)device;
    (void)memory;
}

const mhp_sharing_ops mhp_test_sharing = {
    .owns = test_owns,
    .share = test_share,
    .attach = test_attach,
    .detach = test_detach,
    .pin = test_pin,
    .unpin = test_unpin,
    .write_word = mhp_host_write_word,
    .await_word = mhp_host_await_word,
    .follow = mhp_host_follow,
};
