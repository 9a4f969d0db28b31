#include "core/memory.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE_BYTES = 2 << 20 };

static atomic_uint_fast64_t allocation_count;

static mhp_status checked_product(size_t count, size_t size, size_t *bytes_out)
{
    if (__builtin_mul_overflow(count, size, bytes_out)) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot allocate %zu times %zu bytes", count, size);
    }
    if (*bytes_out == 0) {
        *bytes_out = 1;
    }
    return MHP_OK;
}

mhp_status mhp_calloc(void *pointer_out, size_t count, size_t size)
{
    size_t bytes;
    void *pointer;

    MHP_RETURN_IF_ERROR(checked_product(count, size, &bytes));
    pointer = calloc(1, bytes);
    if (!pointer) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot allocate %zu bytes", bytes);
    }
    atomic_fetch_add(&allocation_count, 1);
    memcpy(pointer_out, &pointer, sizeof pointer);
    return MHP_OK;
}

mhp_status mhp_calloc_pages(void *pointer_out, size_t bytes)
{
    size_t alignment = bytes < HUGE_PAGE_BYTES ? MHP_PAGE_BYTES : HUGE_PAGE_BYTES;
    size_t whole = bytes > 0 ? bytes : 1;
    void *pointer = NULL;

    if (whole <= PTRDIFF_MAX - alignment) {
        whole = (whole + alignment - 1) / alignment * alignment;
        pointer = aligned_alloc(alignment, whole);
    }
    if (!pointer) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot allocate %zu bytes", bytes);
    }
    if (alignment == HUGE_PAGE_BYTES) {
        (void)madvise(pointer, whole, MADV_HUGEPAGE);       /* a wish: small pages do as well, at more cost */
    }
    memset(pointer, 0, whole);
    atomic_fetch_add(&allocation_count, 1);
    memcpy(pointer_out, &pointer, sizeof pointer);
    return MHP_OK;
}

mhp_status mhp_realloc(void *pointer_inout, size_t count, size_t size)
{
    size_t bytes;
    void *pointer;

    MHP_RETURN_IF_ERROR(checked_product(count, size, &bytes));
    memcpy(&pointer, pointer_inout, sizeof pointer);
    pointer = realloc(pointer, bytes);
    if (!pointer) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot allocate %zu bytes", bytes);
    }
    atomic_fetch_add(&allocation_count, 1);
    memcpy(pointer_inout, &pointer, sizeof pointer);
    return MHP_OK;
}

mhp_status mhp_strdup(char **copy_out, const char *text)
{
    size_t bytes = strlen(text) + 1;

    MHP_RETURN_IF_ERROR(mhp_calloc(copy_out, bytes, 1));
    memcpy(*copy_out, text, bytes);
    return MHP_OK;
}

mhp_status mhp_asprintf(char **text_out, const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0) {
        return mhp_error_set(MHP_ERR_INTERNAL, "cannot format \"%s\"", format);
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(text_out, (size_t)length + 1, 1));
    va_start(arguments, format);
    vsnprintf(*text_out, (size_t)length + 1, format, arguments);
    va_end(arguments);
    return MHP_OK;
}

void mhp_free(void *pointer)
{
    free(pointer);
}

uint64_t mhp_allocation_count(void)
{
    return atomic_load(&allocation_count);
}
