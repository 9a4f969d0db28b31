/* The safetensors format: an 8-byte little-endian header length, a JSON header, then the tensors' bytes. */
#ifndef MHP_CORE_SAFETENSORS_H
#define MHP_CORE_SAFETENSORS_H

#include "core/hash.h"
#include "core/status.h"
#include "core/tensor.h"

typedef struct mhp_safetensors mhp_safetensors;
typedef struct mhp_safetensors_writer mhp_safetensors_writer;

/* Maps the file read-only and checks all of it before anything is used: header length and JSON, dtypes, shapes (overflow), offsets
 * that overlap, leave gaps or end beyond the file, duplicate names. Errors name the file, the tensor and what was expected. */
mhp_status mhp_safetensors_open(const char *path, mhp_safetensors **file_out);
/* The same over bytes in memory, which must outlive the handle (fuzzing). */
mhp_status mhp_safetensors_open_bytes(const char *name, const void *bytes, size_t size, mhp_safetensors **file_out);
/* Several files as one: their tensors one behind the other, in the order of `paths`. A name that stands in two of them is an error. */
mhp_status mhp_safetensors_open_set(const char *const *paths, size_t path_count, mhp_safetensors **file_out);
void mhp_safetensors_close(mhp_safetensors *file);

size_t mhp_safetensors_count(const mhp_safetensors *file);
const mhp_tensor_info *mhp_safetensors_info(const mhp_safetensors *file, size_t index);
/* Data of a tensor, possibly unaligned: copy it out with memcpy. */
const void *mhp_safetensors_data(const mhp_safetensors *file, size_t index);
/* The path of the file that a tensor lies in. */
const char *mhp_safetensors_path(const mhp_safetensors *file, size_t index);
/* Checksum of all that stands before the data of the set's file number `part`: with those of its tensors it covers every byte. */
mhp_hash mhp_safetensors_header_hash(const mhp_safetensors *file, size_t part);
/* Index of a name, or -1. */
long mhp_safetensors_find(const mhp_safetensors *file, const char *name);
/* A value of the (first file's) __metadata__, or NULL. */
const char *mhp_safetensors_metadata(const mhp_safetensors *file, const char *key);
/* Copies a tensor into `target` (F32 or F64), converting from F32, F64, BF16 or F16. The shape must be that of `expected`
 * (its dtype is the target's); the error names the tensor, its shape and the expected one. */
mhp_status mhp_safetensors_read(const mhp_safetensors *file, const mhp_tensor_info *expected, void *target);

/* Writes to `path`.tmp; finish syncs and renames it to `path` and syncs the folder; abandoning removes it. Tensors are given in the
 * order announced, possibly in several pieces or several in one. Their data begins at a multiple of MHP_FILE_BLOCK: large pieces that
 * lie in memory as they do in the file go past the system's cache, see mhp_file_stream. Metadata: pairs of strings, ended by NULL; may be NULL. */
mhp_status mhp_safetensors_create(const char *path, const mhp_tensor_info *infos, size_t count, const char *const *metadata,
                                  mhp_safetensors_writer **writer_out);
mhp_hash mhp_safetensors_writer_header_hash(const mhp_safetensors_writer *writer);
mhp_status mhp_safetensors_write(mhp_safetensors_writer *writer, const void *data, size_t bytes);
mhp_status mhp_safetensors_finish(mhp_safetensors_writer *writer);      /* releases the writer in every case */
void mhp_safetensors_abandon(mhp_safetensors_writer *writer);           /* NULL is allowed */

#endif
