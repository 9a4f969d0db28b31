/* One source of a dataset: its documents parted in two, each part laid out as one run of tokens that
 * windows are cut from. For runtime/data/sampler.c, whose header says what the parts are. */
#ifndef MHP_RUNTIME_DATA_SAMPLER_SOURCE_H
#define MHP_RUNTIME_DATA_SAMPLER_SOURCE_H

#include <stdbool.h>

#include "runtime/data/indexed.h"
#include "runtime/data/sampler.h"

enum { MHP_SPLIT_COUNT = 2 };

/* What all sources of a dataset share. */
typedef struct mhp_data_rules {
    int64_t sequence_length, vocabulary_size;
    int64_t end_of_document; /* token id or -1 */
    bool cross_documents;
    double held_out;
    uint64_t seed;
} mhp_data_rules;

typedef struct mhp_data_part {
    uint64_t documents, tokens, windows;
    uint64_t *numbers; /* [documents] in the file, in the order of this part */
    uint64_t *starts;  /* [documents + 1] first token of each, counted over this part */
} mhp_data_part;

typedef struct mhp_data_source {
    mhp_indexed *file;
    mhp_data_part parts[MHP_SPLIT_COUNT]; /* by mhp_data_split */
} mhp_data_source;

/* `number` is the source's place in the blend, which gives it an order of its own. The source starts
 * zeroed; it is to be closed in every case. Errors: see mhp_dataset_open. */
mhp_status mhp_data_source_open(mhp_data_source *source, const char *path, size_t number,
                                const mhp_data_rules *rules);
void mhp_data_source_close(mhp_data_source *source);

/* window < windows of that part; the rest as in mhp_dataset_sample. */
mhp_status mhp_data_source_window(const mhp_data_source *source, const mhp_data_rules *rules,
                                  mhp_data_split split, uint64_t window, int32_t *tokens,
                                  int32_t *targets, int32_t *document_start);

#endif
