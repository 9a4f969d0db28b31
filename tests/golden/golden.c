#include "tests/golden/golden.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

static int compare_paths(const void *a, const void *b)
{
    return strcmp(a, b);
}

static bool matches(const char *name, const char *prefix)
{
    static const char suffix[] = ".safetensors";
    size_t length = strlen(name);

    return strncmp(name, prefix, strlen(prefix)) == 0 && length > sizeof suffix - 1 &&
           strcmp(name + length - (sizeof suffix - 1), suffix) == 0;
}

bool golden_list(const char *folder, const char *prefix, golden_files *files)
{
    DIR *directory = opendir(folder);
    struct dirent *entry;

    files->count = 0;
    if (!directory) {
        fprintf(stderr, "%s: no such folder\n", folder);
        return false;
    }
    while ((entry = readdir(directory)) && files->count < GOLDEN_FILES_MAX) {
        if (matches(entry->d_name, prefix)) {
            snprintf(files->paths[files->count++], GOLDEN_PATH_MAX, "%s/%s", folder, entry->d_name);
        }
    }
    closedir(directory);
    qsort(files->paths, (size_t)files->count, GOLDEN_PATH_MAX, compare_paths);
    if (files->count == 0) {
        fprintf(stderr, "%s: expected files %s*.safetensors\n", folder, prefix);
    }
    return files->count > 0;
}

const char *golden_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static _Noreturn void missing(const char *what, const char *name)
{
    fprintf(stderr, "golden file without %s \"%s\"\n", what, name);
    exit(EXIT_FAILURE);
}

const char *golden_text(const mhp_safetensors *file, const char *key)
{
    const char *text = mhp_safetensors_metadata(file, key);

    if (!text) {
        missing("metadata", key);
    }
    return text;
}

double golden_number(const mhp_safetensors *file, const char *key)
{
    return strtod(golden_text(file, key), NULL);
}

static const mhp_tensor_info *find(const mhp_safetensors *file, const char *name, mhp_dtype dtype,
                                   const void **data_out, size_t *count_out)
{
    long index = mhp_safetensors_find(file, name);
    const mhp_tensor_info *info;

    if (index < 0) {
        missing("tensor", name);
    }
    info = mhp_safetensors_info(file, (size_t)index);
    if (info->dtype != dtype) {
        missing("the expected type of tensor", name);
    }
    *data_out = mhp_safetensors_data(file, (size_t)index);
    *count_out = (size_t)mhp_tensor_elements(info);
    return info;
}

static void *copy_of(const void *data, size_t bytes)
{
    void *copy;

    if (mhp_calloc(&copy, bytes, 1) < 0) {
        fprintf(stderr, "%s\n", mhp_error_text());
        exit(EXIT_FAILURE);
    }
    memcpy(copy, data, bytes);
    return copy;
}

double *golden_tensor(const mhp_safetensors *file, const char *name, size_t *count_out)
{
    const void *data;

    find(file, name, MHP_DTYPE_F64, &data, count_out);
    return copy_of(data, *count_out * sizeof(double));
}

int64_t *golden_integers(const mhp_safetensors *file, const char *name, size_t *count_out)
{
    const void *data;

    find(file, name, MHP_DTYPE_I64, &data, count_out);
    return copy_of(data, *count_out * sizeof(int64_t));
}

double golden_error(const void *a, mhp_dtype dtype, const double *b, size_t count)
{
    double difference = 0, reference = 0;

    for (size_t i = 0; i < count; i++) {
        double value = mhp_dtype_load(dtype, a, (int64_t)i);

        difference += (value - b[i]) * (value - b[i]);
        reference += b[i] * b[i];
    }
    return reference > 0 ? sqrt(difference / reference) : sqrt(difference);
}

void golden_to_dtype(const double *values, size_t count, mhp_dtype dtype, void *target)
{
    for (size_t i = 0; i < count; i++) {
        mhp_dtype_store(dtype, target, (int64_t)i, values[i]);
    }
}
