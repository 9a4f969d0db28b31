/* What one rank writes of a checkpoint: the parameters that begin in its share of each held stage, and its own part of the moments;
 * copied to host memory, so that training goes on while they are written. The copies are images of the files' data, which need no other
 * copy on their way. Every element of the model is written by exactly one rank, and nothing is sent for it. */
#ifndef MHP_RUNTIME_CHECKPOINT_PARTS_H
#define MHP_RUNTIME_CHECKPOINT_PARTS_H

#include "runtime/checkpoint/manifest.h"
#include "runtime/optimizer.h"

enum { MHP_PART_MODEL, MHP_PART_OPTIMIZER, MHP_PART_KINDS };
enum { MHP_MOMENT_COUNT = 2 };

extern const char *const mhp_moment_prefixes[MHP_MOMENT_COUNT];     /* "exp_avg.", "exp_avg_sq." */

typedef struct mhp_checkpoint_piece {
    mhp_manifest_tensor tensor;     /* file and checksum are not set */
    int kind;                       /* which of the rank's two files it goes to */
    const char *data;               /* in the file's image */
} mhp_checkpoint_piece;

typedef struct mhp_checkpoint_parts mhp_checkpoint_parts;

/* Allocates the copies once; store and optimizer must outlive them. NULL is allowed in destroy. */
mhp_status mhp_checkpoint_parts_create(mhp_store *store, mhp_optimizer *optimizer, mhp_checkpoint_parts **parts_out);
void mhp_checkpoint_parts_destroy(mhp_checkpoint_parts *parts);

/* Copies the state as it is behind all submitted work. Blocks until the copies are whole. Host thread. */
mhp_status mhp_checkpoint_parts_stage(mhp_checkpoint_parts *parts);

/* Of both files, each in the order of writing. */
const mhp_checkpoint_piece *mhp_checkpoint_parts_pieces(const mhp_checkpoint_parts *parts, size_t *count_out);
/* The pieces of one of the two files, one right behind the other; at a multiple of MHP_FILE_BLOCK. */
const char *mhp_checkpoint_parts_image(const mhp_checkpoint_parts *parts, int kind, size_t *bytes_out);

#endif
