/* manifest.json of a checkpoint: what the run's state was, which files there are, and of every tensor its shape, who wrote it, where it
 * lies and its checksum.
 *
 * The file begins with the checksum of all that follows it, {"xxh3_128":"DIGITS", so that every flipped bit is noticed. While a
 * checkpoint is being written, each rank leaves a manifest of its own files, rank-NNNNN.json; the whole is made of those. */
#ifndef MHP_RUNTIME_CHECKPOINT_MANIFEST_H
#define MHP_RUNTIME_CHECKPOINT_MANIFEST_H

#include "core/hash.h"
#include "core/status.h"
#include "core/tensor.h"

enum { MHP_MANIFEST_NAME_MAX = 64, MHP_MANIFEST_BYTES_MAX = 1 << 28, MHP_MANIFEST_FILES_MAX = 1 << 16 };

typedef struct mhp_checkpoint_state {
    int64_t step;                   /* optimizer steps done */
    uint64_t next_sample;           /* first sample of the next step */
    int64_t samples_per_step;
    int64_t seed;                   /* of start values and the order of samples: all of the run's random streams */
    double best_loss;               /* lowest held-out loss so far; infinite if there was none */
    double loss_mean;               /* of mhp_health, and of how many steps; 0 and 0 if there was none */
    int64_t loss_count;
    char configuration[MHP_HASH_TEXT_MAX];      /* checksum of the resolved configuration; "" if unknown */
} mhp_checkpoint_state;

typedef struct mhp_manifest_file {
    char name[MHP_MANIFEST_NAME_MAX];   /* letters, digits, "-", "_" and ".", not first: it cannot leave the folder */
    mhp_hash hash;                  /* safetensors: of all before the tensors' data; else of the whole file */
} mhp_manifest_file;

typedef struct mhp_manifest_tensor {
    mhp_tensor_info info;           /* the whole tensor, under its global name */
    int64_t first, count;           /* elements of it, row by row, that this entry holds */
    int owner;                      /* rank that wrote it */
    int file;                       /* index of a file */
    mhp_hash hash;                  /* of those elements' bytes */
} mhp_manifest_tensor;

typedef struct mhp_manifest {
    mhp_checkpoint_state state;
    int rank_count;                 /* of the run that wrote it */
    mhp_manifest_file *files;
    int file_count;
    mhp_manifest_tensor *tensors;   /* by name and first element once read */
    size_t tensor_count;
} mhp_manifest;

/* Release in every case; a zeroed manifest is allowed. */
void mhp_manifest_release(mhp_manifest *manifest);

/* Appends; MHP_ERR_LIMIT. */
mhp_status mhp_manifest_add_file(mhp_manifest *manifest, const char *name, mhp_hash hash);
mhp_status mhp_manifest_add_tensor(mhp_manifest *manifest, const mhp_manifest_tensor *tensor);
/* Appends files and tensors of another rank's part. */
mhp_status mhp_manifest_merge(mhp_manifest *manifest, const mhp_manifest *part);

/* What a tensor is called within its file: its own name if the entry holds all of it, else "NAME[first:end]"; MHP_ERR_LIMIT. `info_out`
 * is what the file's header says of it. */
mhp_status mhp_manifest_stored_info(const mhp_manifest_tensor *tensor, mhp_tensor_info *info_out);

/* Writes `path`, whole or not at all; *checksum_out (may be NULL) is the one in its first line. */
mhp_status mhp_manifest_write(const mhp_manifest *manifest, const char *path, mhp_hash *checksum_out);

/* Reads and checks everything before it is used: checksum, names, shapes, ranges that leave the tensor, overlap or stand twice. Errors
 * name the file and the tensor. */
mhp_status mhp_manifest_read(const char *path, mhp_manifest *manifest_out, mhp_hash *checksum_out);
/* The same over bytes in memory; `name` stands for the file. Without `checked`, the checksum may be wrong (fuzzing). */
mhp_status mhp_manifest_parse(const char *name, const char *text, size_t size, bool checked, mhp_manifest *manifest_out,
                              mhp_hash *checksum_out);

/* The first entry of a tensor, and how many follow one another; 0 if there is none. Of a manifest that was read. */
size_t mhp_manifest_find(const mhp_manifest *manifest, const char *name, const mhp_manifest_tensor **first_out);

#endif
