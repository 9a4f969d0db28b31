/* Text files into byte-level tokens: 0..255 are the bytes, 256 ends a document; each file is a document. */
#ifndef MHP_RUNTIME_DATA_TOKENIZE_H
#define MHP_RUNTIME_DATA_TOKENIZE_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

enum { MHP_BYTE_END_OF_DOCUMENT = 256, MHP_BYTE_VOCABULARY = 257 };

typedef struct mhp_tokenize_params {
    char *const *paths; /* files and folders */
    size_t path_count;
    char *const *suffixes; /* of the names of files that are taken from folders ... */
    size_t suffix_count;   /* ... 0: all of them */
    const char *prefix;    /* PREFIX.bin and PREFIX.idx are written; their folder is made */
} mhp_tokenize_params;

typedef struct mhp_tokenize_report {
    uint64_t files;              /* seen */
    uint64_t documents, tokens;  /* written; tokens with the ends of documents */
    uint64_t binary, empty;      /* skipped: not text; no bytes */
    uint64_t suffix;             /* skipped: another suffix */
    uint64_t folder_links;       /* skipped: symbolic links to folders */
    uint64_t unreadable;         /* skipped: no permission, links to nothing, devices, sockets */
} mhp_tokenize_report;

/* Walks the paths in their order and each folder by name, byte by byte, so that the same files give the same output everywhere. Links
 * to files are followed, links to folders only if they are among the paths. A file is binary if its first 8 KiB hold a NUL, or if 30 %
 * of them are control characters or no UTF-8. MHP_ERR_NOT_FOUND: a path is not there; MHP_ERR_CONFIG: not one document; MHP_ERR_IO.
 * Nothing is left behind after an error. */
mhp_status mhp_tokenize(const mhp_tokenize_params *params, mhp_tokenize_report *report_out);

#endif
