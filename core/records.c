#include "core/records.h"

#include <stdint.h>
#include <string.h>

enum { CLOCK_TRIES = 32 };

mhp_card_clock mhp_card_clock_read(mhp_read_clock_fn local, mhp_read_clock_fn card, void *context)
{
    mhp_card_clock best = {.error_ns = INT64_MAX};

    for (int i = 0; i < CLOCK_TRIES; i++) {
        int64_t start_ns = local(context), card_ns = card(context), width_ns = local(context) - start_ns;

        if ((width_ns + 1) / 2 < best.error_ns) {
            best = (mhp_card_clock){start_ns + width_ns / 2, card_ns, (width_ns + 1) / 2};
        }
    }
    return best;
}

int64_t mhp_card_clock_map(const mhp_card_clock *before, const mhp_card_clock *after, int64_t card_ns)
{
    int64_t card = after->card_ns - before->card_ns, local = after->local_ns - before->local_ns;
    double excess = card > 0 ? (double)(local - card) / (double)card : 0; /* small: a double holds the product exactly enough */

    return before->local_ns + (card_ns - before->card_ns) + (int64_t)(excess * (double)(card_ns - before->card_ns));
}

/* Where a name's arguments begin: "(anonymous namespace)" has none. */
static size_t length_of_name(const char *name)
{
    static const char anonymous[] = "(anonymous namespace)";
    size_t i = 0;

    while (name[i] != '\0' && name[i] != '<') {
        if (strncmp(name + i, anonymous, sizeof anonymous - 1) == 0) {
            i += sizeof anonymous - 1;
        } else if (name[i] == '(') {
            break;
        } else {
            i++;
        }
    }
    return i;
}

void mhp_record_shorten(const char *name, char text[MHP_RECORD_NAME_MAX])
{
    size_t length, count = 0;

    if (strncmp(name, "void ", 5) == 0) {
        name += 5;
    }
    length = length_of_name(name);
    for (size_t i = 0; i < length && count < MHP_RECORD_NAME_MAX - 1; i++) {
        unsigned char one = (unsigned char)name[i];

        if (one > 0x20 && one < 0x7f && one != '"' && one != '\\') {
            text[count++] = (char)one;
        } else if (one == ' ') {
            text[count++] = '_';
        }
    }
    text[count] = '\0';
}
