/* Parameters of the training data: which files, how they are blended, what is held out. */
#ifndef MHP_RUNTIME_DATA_OPTIONS_H
#define MHP_RUNTIME_DATA_OPTIONS_H

#include "core/option.h"

enum { MHP_DATA_SOURCES_MAX = 256 };

typedef struct mhp_data_split_params {
    double held_out; /* fraction of the documents; 0: nothing is held out */
} mhp_data_split_params;

typedef struct mhp_data_params {
    mhp_string_list path;   /* prefixes of .bin/.idx, or llm.c .bin files */
    mhp_float_list weights; /* one a path, > 0, of any sum; empty: equal */
    mhp_data_split_params split;
    bool cross_documents;
    int64_t end_of_document; /* token id, or -1: documents as they are in the file */
} mhp_data_params;

extern const mhp_option mhp_data_options[];

#endif
