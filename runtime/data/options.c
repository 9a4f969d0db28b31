#include "runtime/data/options.h"

#define DATA(name) offsetof(mhp_data_params, name)

static const mhp_option split_options[] = {
    {.key = "held_out",
     .type = MHP_OPTION_FLOAT,
     .offset = offsetof(mhp_data_split_params, held_out),
     .default_text = "0.05",
     .minimum = 0,
     .maximum = 0.95,
     .help = "fraction of every source's documents that is never trained on; the same documents "
             "for every seed"},
    {.key = NULL},
};

const mhp_option mhp_data_options[] = {
    {.key = "path",
     .type = MHP_OPTION_STRING_LIST,
     .offset = DATA(path),
     .default_text = "[]",
     .help = "prefixes of .bin/.idx (mhcpipe data tokenize, Megatron), or .bin files of llm.c"},
    {.key = "weights",
     .type = MHP_OPTION_FLOAT_LIST,
     .offset = DATA(weights),
     .default_text = "[]",
     .minimum = 0,
     .maximum = 1e9,
     .help = "share of the samples that each path gives, of any sum; empty: equal"},
    {.key = "split",
     .type = MHP_OPTION_SECTION,
     .offset = DATA(split),
     .help = "how documents are parted",
     .section = split_options},
    {.key = "cross_documents",
     .type = MHP_OPTION_BOOL,
     .offset = DATA(cross_documents),
     .default_text = "false",
     .help = "let attention and targets run over the end of a document"},
    {.key = "end_of_document",
     .type = MHP_OPTION_INT,
     .offset = DATA(end_of_document),
     .default_text = "-1",
     .minimum = -1,
     .maximum = 2147483647,
     .unit = "token id",
     .help = "token that is put behind every document that does not end with it; -1: documents as "
             "they are in the file (mhcpipe data tokenize ends them with 256)"},
    {.key = NULL},
};
