/* The files of one checkpoint, opened, and checked as far as they are read. */
#ifndef MHP_RUNTIME_CHECKPOINT_READER_H
#define MHP_RUNTIME_CHECKPOINT_READER_H

#include "core/safetensors.h"
#include "runtime/checkpoint/manifest.h"

typedef struct mhp_checkpoint_reader mhp_checkpoint_reader;

/* Reads the manifest, maps every safetensors file and checks all but their tensors: the files' headers against the manifest's checksums,
 * and that each entry lies where the manifest says, with its shape and type. NULL is allowed in close. */
mhp_status mhp_checkpoint_reader_open(const char *directory, mhp_checkpoint_reader **reader_out);
void mhp_checkpoint_reader_close(mhp_checkpoint_reader *reader);
const mhp_manifest *mhp_checkpoint_reader_manifest(const mhp_checkpoint_reader *reader);

/* Copies elements first .. first + count - 1 of a tensor (expected: its name, shape and the type to convert to, F32 or F64) into
 * `target`. Entries that overlap the range are checked against their checksums, each once. MHP_ERR_FORMAT names file and tensor;
 * MHP_ERR_CONFIG if the tensor has another shape, for then the model is another one. */
mhp_status mhp_checkpoint_reader_copy(mhp_checkpoint_reader *reader, const mhp_tensor_info *expected, int64_t first, int64_t count,
                                      void *target);

/* Checks every tensor and every other file. */
mhp_status mhp_checkpoint_reader_verify(mhp_checkpoint_reader *reader);

#endif
