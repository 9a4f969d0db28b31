/* Batches: which samples a step reads, in host memory and on the device. A source gives samples by number; the number of a sample
 * depends on the step alone, not on ranks or schedule. */
#ifndef MHP_RUNTIME_BATCH_H
#define MHP_RUNTIME_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/device.h"

enum { MHP_TARGET_MASKED = -100 };
enum { MHP_TRAINER_BATCHES = 3 };       /* the one that runs, the one that is read meanwhile, and evaluation's */

/* Fills one sequence: [length] each. target is the next token or MHP_TARGET_MASKED; document_start[t] is the place of the first token
 * of t's document within the sequence. Host thread. */
typedef struct mhp_sample_source {
    mhp_status (*fill)(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start);
    void *context;
} mhp_sample_source;

typedef struct mhp_batch_shape {
    int microbatches, sequences, length;        /* of one replica and step */
} mhp_batch_shape;

/* One replica's samples of one step. */
typedef struct mhp_batch {
    mhp_batch_shape shape;
    mhp_device *device;
    int32_t *host;                      /* token, target, document_start: [microbatches][T] each; position [T] */
    int32_t *memory;                    /* the same on the device */
    uint64_t first_sample;
    bool filled;
} mhp_batch;

/* Device memory of one. */
size_t mhp_batch_bytes(const mhp_batch_shape *shape);

/* `memory` is the caller's device memory. */
mhp_status mhp_batch_create(mhp_device *device, const mhp_batch_shape *shape, void *memory, mhp_batch **batch_out);
void mhp_batch_destroy(mhp_batch *batch);       /* NULL is allowed */

/* Reads the samples first_sample .. + microbatches * sequences - 1; those from `end` on are left out: their targets are masked. */
mhp_status mhp_batch_fill(mhp_batch *batch, const mhp_sample_source *source, uint64_t first_sample, uint64_t end);
/* Targets that count, of one micro-batch. */
int64_t mhp_batch_targets(const mhp_batch *batch, int microbatch);
/* Whether every sequence is one document to its mask: all of document_start is 0. */
bool mhp_batch_one_document(const mhp_batch *batch);
/* Appends the copy to the device. The host side may be filled again when the stream is behind it. */
mhp_status mhp_batch_upload(mhp_batch *batch, mhp_stream *stream);

const int32_t *mhp_batch_token(const mhp_batch *batch);
const int32_t *mhp_batch_target(const mhp_batch *batch);
const int32_t *mhp_batch_document_start(const mhp_batch *batch);
const int32_t *mhp_batch_position(const mhp_batch *batch);

#endif
