/* Files of tokens, mapped and read only: Megatron's PREFIX.bin + PREFIX.idx, and the single .bin of llm.c.
 *
 * PREFIX.idx: "MMIDIDX\0\0" (9 bytes), u64 version 1, u8 type of the tokens (1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16; 6 and 7 are
 * floats), u64 sequences, u64 length of the document index, then i32 tokens of each sequence, i64 byte offset of each sequence in
 * PREFIX.bin, i64 document index: the first sequence of each document, from 0, and at its end the number of sequences. PREFIX.bin
 * holds the tokens alone. All is little-endian. Files of several modes (i8 a sequence behind that) are refused.
 * llm.c: 256 i32 (magic 20240520, version 1, tokens: u16; or 20240801, 7, tokens: u32), then the tokens; a document begins with the
 * token 50256, or 128000. */
#ifndef MHP_RUNTIME_DATA_INDEXED_H
#define MHP_RUNTIME_DATA_INDEXED_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct mhp_indexed mhp_indexed;
typedef struct mhp_indexed_writer mhp_indexed_writer;

/* Codes as they stand in .idx; U32 is llm.c's alone. */
typedef enum mhp_token_type {
    MHP_TOKEN_U8 = 1,
    MHP_TOKEN_I8 = 2,
    MHP_TOKEN_I16 = 3,
    MHP_TOKEN_I32 = 4,
    MHP_TOKEN_I64 = 5,
    MHP_TOKEN_U16 = 8,
    MHP_TOKEN_U32 = 100,
} mhp_token_type;

typedef struct mhp_indexed_info {
    const char *path;    /* of the file with the tokens; as long as the handle */
    const char *format;  /* "Megatron .bin/.idx", "llm.c .bin" */
    mhp_token_type type;
    uint64_t documents, sequences, tokens;
} mhp_indexed_info;

/* `path` is a prefix, PREFIX.bin or PREFIX.idx, or a .bin of llm.c. Everything but the tokens' values is checked before it returns.
 * MHP_ERR_NOT_FOUND, MHP_ERR_IO; MHP_ERR_FORMAT names file, offset, value and what was expected; MHP_ERR_UNSUPPORTED: floats, several
 * modes. The file may not shrink while it is open. */
mhp_status mhp_indexed_open(const char *path, mhp_indexed **file_out);
/* The same over bytes in memory, which must outlive the handle; `index` is NULL for llm.c's format. `name` stands for the path. */
mhp_status mhp_indexed_open_bytes(const char *name, const void *index, size_t index_bytes,
                                  const void *data, size_t data_bytes, mhp_indexed **file_out);
/* NULL is allowed. */
void mhp_indexed_close(mhp_indexed *file);

mhp_indexed_info mhp_indexed_describe(const mhp_indexed *file);
/* First token of a document, counted over the whole file, and how many tokens it has, possibly 0. document < documents. */
void mhp_indexed_document(const mhp_indexed *file, uint64_t document, uint64_t *first_out,
                          uint64_t *count_out);
/* One token; position < tokens. */
int64_t mhp_indexed_token(const mhp_indexed *file, uint64_t position);
/* "u16", ...; static storage. */
const char *mhp_token_type_text(mhp_token_type type);
/* Bytes of a token. */
size_t mhp_token_type_bytes(mhp_token_type type);

/* Writes PREFIX.bin as it goes and PREFIX.idx at the end, both under temporary names first; finish syncs and renames them, so that
 * there is never an .idx beside a .bin that it does not belong to. Tokens are u16. A document longer than a sequence may be
 * (2^31 - 1 tokens) becomes several sequences. */
mhp_status mhp_indexed_create(const char *prefix, mhp_indexed_writer **writer_out);
/* Adds tokens to the document that is open; the first token opens it. */
mhp_status mhp_indexed_append(mhp_indexed_writer *writer, const uint16_t *tokens, size_t count);
/* Ends the document; one without tokens is written as such. */
mhp_status mhp_indexed_end_document(mhp_indexed_writer *writer);
/* Releases the writer in every case. An open document is ended. */
mhp_status mhp_indexed_finish(mhp_indexed_writer *writer);
/* Removes what was written and releases; NULL is allowed. */
void mhp_indexed_abandon(mhp_indexed_writer *writer);

#endif
