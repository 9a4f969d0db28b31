/* What a card ran, kernel by kernel and copy by copy, as its driver's profiling library records it (CUPTI's Activity API).
 *
 * The library is looked for when the program runs. One process has at most one of these open, and none while another
 * profiler has the library to itself. */
#ifndef MHP_CORE_RECORDS_H
#define MHP_CORE_RECORDS_H

#include "core/device.h"

typedef enum mhp_record_kind {
    MHP_RECORD_KERNEL,
    MHP_RECORD_STAMP,     /* a kernel of the device's own, which reads the card's clock around a wait */
    MHP_RECORD_SET,       /* memory set to a value */
    MHP_RECORD_COPY_HOST, /* to the host's memory or from it */
    MHP_RECORD_COPY_CARD, /* within the card, or from card to card */
    MHP_RECORD_KIND_COUNT,
} mhp_record_kind;

typedef struct mhp_record {
    int64_t start_ns, end_ns; /* of mhp_time_ns */
    int64_t bytes;            /* of a copy or a set; else 0 */
    uint32_t stream;          /* CUPTI's number of the CUDA stream */
    uint32_t name;            /* of a kernel: where its name begins in the names; else 0, an empty name */
    uint8_t kind;             /* mhp_record_kind */
    int8_t lane;              /* left to the caller; -1 from here */
    uint8_t reserved[6];
} mhp_record;

typedef struct mhp_record_list {
    mhp_record *items;      /* in the order of their begin */
    size_t count;
    char *names;            /* ended by NUL one by one; the first one is empty */
    size_t names_bytes;
    int64_t lost;           /* records that there was no room for, at least */
    int64_t clock_error_ns; /* of reading the records' clock on the host; of CUPTI's own between card and host nothing is known */
} mhp_record_list;

typedef struct mhp_records mhp_records;

/* Begins to record what the device's card does; what is recorded before mhp_records_keep is dropped. All room is made
 * here, for `capacity` records. MHP_ERR_UNSUPPORTED, with the reason in one line, if nothing can be recorded: no card, no
 * library, or another profiler has it. */
mhp_status mhp_records_open(mhp_device *device, size_t capacity, mhp_records **records_out);
/* NULL is allowed. */
void mhp_records_close(mhp_records *records);

/* The number of a stream in the records. */
mhp_status mhp_records_stream(const mhp_records *records, mhp_stream *stream, uint32_t *number_out);
/* Keeps what begins from now on. Nothing may be under way on the card, as for mhp_records_finish. */
mhp_status mhp_records_keep(mhp_records *records);
/* Ends recording. The list is valid until close. Once. */
mhp_status mhp_records_finish(mhp_records *records, mhp_record_list *list_out);

/* ---- the records' clock, as the host reads it; pure ---- */

/* Both clocks at one moment, within error_ns. */
typedef struct mhp_card_clock {
    int64_t local_ns, card_ns, error_ns;
} mhp_card_clock;

typedef int64_t (*mhp_read_clock_fn)(void *context);

/* Reads `card` between two looks at `local` a few times; the shortest look counts, and half of it is the error. */
mhp_card_clock mhp_card_clock_read(mhp_read_clock_fn local, mhp_read_clock_fn card, void *context);
/* The local time of a moment on the records' clock, linear through two readings; by the first one alone if they are the
 * same moment. */
int64_t mhp_card_clock_map(const mhp_card_clock *before, const mhp_card_clock *after, int64_t card_ns);

/* ---- names; pure ---- */

enum { MHP_RECORD_NAME_MAX = 96 };

/* A C++ function's name, demangled, without its return type, template's and call's arguments, and without what JSON would
 * escape: "void a::b<int>(float*)" is "a::b". Cut to fit. */
void mhp_record_shorten(const char *name, char text[MHP_RECORD_NAME_MAX]);

#endif
