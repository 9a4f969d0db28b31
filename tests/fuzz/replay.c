/* replay FOLDER: every file of it as it is, cut at every length (in steps), and with single bits flipped. Finds crashes and what the
 * sanitizers see; needs no fuzzer. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "tests/fuzz/fuzz.h"

enum { FILE_BYTES_MAX = 1 << 20, VARIANTS_MAX = 512 };

/* A copy of exactly `size` bytes, so that a read behind it is seen. */
static void run_copy(const char *text, size_t size, size_t flip)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);

    if (!copy) {
        abort();
    }
    memcpy(copy, text, size);
    if (flip < size * 8) {
        copy[flip / 8] ^= (uint8_t)(1u << flip % 8);
    }
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static int replay(const char *folder, const char *name)
{
    char *path = NULL, *text = NULL;
    size_t size = 0, step;

    if (mhp_asprintf(&path, "%s/%s", folder, name) != MHP_OK || mhp_file_read_all(path, FILE_BYTES_MAX, &text, &size) != MHP_OK) {
        fprintf(stderr, "%s\n", mhp_error_text());
        return 0;
    }
    run_copy(text, size, SIZE_MAX);
    step = size / VARIANTS_MAX + 1;
    for (size_t length = 0; length < size; length += step) {
        run_copy(text, length, SIZE_MAX);
    }
    for (size_t bit = 0; bit < size * 8; bit += size * 8 / VARIANTS_MAX + 1) {
        run_copy(text, size, bit);
    }
    mhp_free(text);
    mhp_free(path);
    return 1;
}

int main(int argc, char **argv)
{
    int files = 0, good = 0;
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    const struct dirent *entry;

    if (!folder) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    while ((entry = readdir(folder))) {
        if (entry->d_name[0] != '.') {
            files++;
            good += replay(argv[1], entry->d_name);
        }
    }
    closedir(folder);
    printf("%d files\n", good);
    return good == files && files > 0 ? 0 : 1;
}
