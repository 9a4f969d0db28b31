#include "core/hash.h"

#include <stdio.h>
#include <xxhash.h>

enum { DIGITS_OF_HALF = 16 };

mhp_hash mhp_hash_bytes(const void *data, size_t bytes)
{
    XXH128_hash_t hash = XXH3_128bits(bytes > 0 ? data : "", bytes);

    return (mhp_hash){.high = hash.high64, .low = hash.low64};
}

bool mhp_hash_equal(mhp_hash a, mhp_hash b)
{
    return a.high == b.high && a.low == b.low;
}

void mhp_hash_print(mhp_hash hash, char text[MHP_HASH_TEXT_MAX])
{
    snprintf(text, MHP_HASH_TEXT_MAX, "%016llx%016llx", (unsigned long long)hash.high, (unsigned long long)hash.low);
}

static bool parse_half(const char *text, uint64_t *half_out)
{
    uint64_t half = 0;

    for (int i = 0; i < DIGITS_OF_HALF; i++) {
        char digit = text[i];

        if (digit >= '0' && digit <= '9') {
            half = half << 4 | (uint64_t)(digit - '0');
        } else if (digit >= 'a' && digit <= 'f') {
            half = half << 4 | (uint64_t)(digit - 'a' + 10);
        } else {
            return false;
        }
    }
    *half_out = half;
    return true;
}

bool mhp_hash_parse(const char *text, mhp_hash *hash_out)
{
    return parse_half(text, &hash_out->high) && parse_half(text + DIGITS_OF_HALF, &hash_out->low);
}
