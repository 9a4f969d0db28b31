/* The bytes of a trace's file. Private to runtime/profile/trace.c and to tests. */
#ifndef MHP_RUNTIME_PROFILE_TRACE_FILE_H
#define MHP_RUNTIME_PROFILE_TRACE_FILE_H

#include "runtime/profile/trace.h"

/* The spans follow it, then a card's records, then their names. In the machine's own byte order, which is told by a mark. */
typedef struct mhp_trace_header {
    char magic[8];
    uint32_t version, byte_order, header_bytes, span_bytes;
    int32_t rank, world_size, pipeline_ranks, streams, device, step_count;
    int64_t first_step;
    mhp_clock_reading before, after;
    double mark_ns;
    int64_t mark_count, resolve_ns;
    uint64_t span_count;
    int32_t kernels;
    uint32_t record_bytes;
    char no_kernels[MHP_TRACE_REASON_MAX];
    uint64_t record_count, names_bytes;
    int64_t records_lost, records_error_ns;
    mhp_hash identity;
    mhp_hash hash; /* of this with zeros here, and of what follows, part by part */
} mhp_trace_header;

/* What follows the header. */
typedef struct mhp_trace_parts {
    const void *spans, *records, *names;
} mhp_trace_parts;

/* The header's counts say how long the parts are. */
mhp_hash mhp_trace_hash(const mhp_trace_header *header, const mhp_trace_parts *parts);

/* Adds the trace of the next rank, which is the set's from then on; the room is there. MHP_ERR_FORMAT, naming `path`, if it is
 * another rank's or of another run than the first one; then it stays the caller's. */
mhp_status mhp_trace_set_add(mhp_trace_set *set, const char *path, const mhp_trace *trace);

#endif
