/* The order of samples. A sample is one sequence of tokens; which one is a pure function of the seed and the sample's number: the
 * same for any number of ranks, any schedule, any split into micro-batches, and after a resume. Nothing is kept between calls.
 *
 * Each source's documents are parted into training and held-out by a hash of the document's number alone, so that the same documents
 * are held out for every seed and blend. The training documents of a source are put one behind the other in an order drawn from the
 * seed; sample windows start at the multiples of the sequence length; every epoch visits each window once, in an order of its own.
 * Sources take turns by their weights, as evenly as whole numbers allow. Held-out windows keep one order for every seed, which
 * scatters them, so that the first few are already a fair picture of all. */
#ifndef MHP_RUNTIME_DATA_SAMPLER_H
#define MHP_RUNTIME_DATA_SAMPLER_H

#include "core/status.h"
#include "runtime/data/options.h"

typedef struct mhp_dataset mhp_dataset;

typedef enum mhp_data_split { MHP_SPLIT_TRAIN, MHP_SPLIT_HELD_OUT } mhp_data_split;

enum { MHP_DATA_MASKED = -100 }; /* the target where there is none */

/* Maps and checks every file, and lays out the samples: two 64-bit numbers a document. Every rank by itself. `sequence_length` in
 * 1..2^20; the parameters are copied. MHP_ERR_CONFIG: no path, weights unlike paths, a source with too few documents or tokens for
 * its parts; MHP_ERR_NOT_FOUND, MHP_ERR_FORMAT: see runtime/data/indexed.h. */
mhp_status mhp_dataset_open(const mhp_data_params *params, int64_t sequence_length, uint64_t seed,
                            int64_t vocabulary_size, mhp_dataset **dataset_out);
/* NULL is allowed. */
void mhp_dataset_close(mhp_dataset *dataset);

/* Fills tokens, targets and document_start, [sequence_length] each. targets[t] is the token behind tokens[t], or MHP_DATA_MASKED
 * where that belongs to another document (unless cross_documents) or where the data end. document_start[t] is the place within the
 * sequence of the first token of t's document, 0 if that began earlier; all 0 with cross_documents. Time O(sequence_length + log
 * documents), no allocation; any thread. Held-out samples are numbered 0 .. mhp_dataset_held_out_count - 1 (a number beyond is a
 * caller's mistake), training samples have no end. MHP_ERR_FORMAT: a token id outside the vocabulary. */
mhp_status mhp_dataset_sample(const mhp_dataset *dataset, mhp_data_split split, uint64_t sample,
                              int32_t *tokens, int32_t *targets, int32_t *document_start);

/* Samples of the held-out part; 0 if nothing is held out. */
uint64_t mhp_dataset_held_out_count(const mhp_dataset *dataset);
/* Documents and tokens of a part, over all sources. */
uint64_t mhp_dataset_documents(const mhp_dataset *dataset, mhp_data_split split);
uint64_t mhp_dataset_tokens(const mhp_dataset *dataset, mhp_data_split split);
/* Windows of one source's training part: that many of its samples are an epoch of it. */
uint64_t mhp_dataset_epoch(const mhp_dataset *dataset, size_t source);

#endif
