/* What the golden programs share: the files of a folder, hyper-parameters, and relative errors. */
#ifndef MHP_TESTS_GOLDEN_GOLDEN_H
#define MHP_TESTS_GOLDEN_GOLDEN_H

#include <stdbool.h>

#include "core/safetensors.h"

enum { GOLDEN_FILES_MAX = 256, GOLDEN_PATH_MAX = 4096 };

typedef struct golden_files {
    int count;
    char paths[GOLDEN_FILES_MAX][GOLDEN_PATH_MAX];
} golden_files;

/* Files of `folder` whose names begin with `prefix` and end with .safetensors, sorted; false, with a line on stderr, if there is
 * no such folder or no such file. */
bool golden_list(const char *folder, const char *prefix, golden_files *files);
/* The last part of a path. */
const char *golden_name(const char *path);

/* A number of __metadata__; ends the program, with a line on stderr, if it is not there. */
double golden_number(const mhp_safetensors *file, const char *key);
const char *golden_text(const mhp_safetensors *file, const char *key);
/* A floating-point tensor as double, or an integer one as int64; released with mhp_free. Ends the program if it is not there. */
double *golden_tensor(const mhp_safetensors *file, const char *name, size_t *count_out);
int64_t *golden_integers(const mhp_safetensors *file, const char *name, size_t *count_out);

/* ||a - b|| / ||b||, a of `dtype`; the plain norm of a if b is 0; not a number if a holds one. */
double golden_error(const void *a, mhp_dtype dtype, const double *b, size_t count);
void golden_to_dtype(const double *values, size_t count, mhp_dtype dtype, void *target);

#endif
