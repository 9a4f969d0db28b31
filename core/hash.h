/* Checksums of 128 bits (XXH3) against accidents: flipped bits, lost writes, mixed-up files. They are no protection against a forger. */
#ifndef MHP_CORE_HASH_H
#define MHP_CORE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mhp_hash {
    uint64_t high, low;
} mhp_hash;

enum { MHP_HASH_TEXT_MAX = 33 };        /* 32 hexadecimal digits and the NUL byte */

/* Any thread. `data` may be NULL for 0 bytes. */
mhp_hash mhp_hash_bytes(const void *data, size_t bytes);
bool mhp_hash_equal(mhp_hash a, mhp_hash b);

/* Lower-case digits, high half first: xxhsum -H2 prints the same. */
void mhp_hash_print(mhp_hash hash, char text[MHP_HASH_TEXT_MAX]);
/* Reads exactly what print writes from the first 32 bytes of `text`, which may end earlier; false for anything else. */
bool mhp_hash_parse(const char *text, mhp_hash *hash_out);

#endif
