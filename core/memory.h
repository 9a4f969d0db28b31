/* Host memory of the library: checked, zeroed, counted. The count lets tests show that nothing is allocated after the first step. */
#ifndef MHP_CORE_MEMORY_H
#define MHP_CORE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* Allocates count * size zeroed bytes into *(void **)pointer_out; MHP_ERR_NO_MEMORY names the size. The product may not overflow.
 * A count or size of 0 gives a valid pointer to free. Release with mhp_free. */
mhp_status mhp_calloc(void *pointer_out, size_t count, size_t size);

/* The same for large blocks that live long, at a multiple of MHP_PAGE_BYTES and all of it there from the start: whoever writes to it later
 * waits for no page. In pages of 2 MiB where the system has them. */
enum { MHP_PAGE_BYTES = 4096 };
mhp_status mhp_calloc_pages(void *pointer_out, size_t bytes);

/* Grows or shrinks *(void **)pointer_inout to count * size bytes, keeping the contents; added bytes are not zeroed. */
mhp_status mhp_realloc(void *pointer_inout, size_t count, size_t size);

/* Duplicates a string. */
mhp_status mhp_strdup(char **copy_out, const char *text);

/* Formats into a string of its own. */
mhp_status mhp_asprintf(char **text_out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Releases; NULL is allowed. */
void mhp_free(void *pointer);

/* How often this process called mhp_calloc, mhp_calloc_pages, mhp_realloc, mhp_strdup or mhp_asprintf so far; any thread. */
uint64_t mhp_allocation_count(void);

#endif
