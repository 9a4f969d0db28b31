/* What the cards' own records say of the messages between stages, to set beside what events say. Pure. docs/profiling.md
 * defines both readings. */
#ifndef MHP_RUNTIME_PROFILE_MESSAGE_RECORDS_H
#define MHP_RUNTIME_PROFILE_MESSAGE_RECORDS_H

#include "runtime/profile/timeline.h"

/* Of what records: copies within and between cards, or the kernels by which NCCL sends and receives. */
typedef enum mhp_message_mover { MHP_MOVED_BY_COPIES, MHP_MOVED_BY_NCCL, MHP_MOVER_COUNT } mhp_message_mover;

/* Of all ranks together, on average over steps.
 *
 * Copies are the messages if those that are no smaller than the smallest slice of a message moved as many bytes as all messages
 * have; what they took counts.
 *
 * NCCL moves a message by a kernel at the sender and one at the receiver, of which the first waits for the other. From the later
 * begin to the end of the receiver's counts, by records alone. Events only tell which stream is which channel's: the one with as
 * many kernels in the step as the channel has messages, whose kernels are nearest to these. Unless in every step each message
 * has two kernels, and each channel clearly a stream of its own at both ends, nothing is known. */
typedef struct mhp_message_records {
    const char *unknown; /* why there is no comparison; NULL: there is one */
    mhp_message_mover mover;
    double events_us, records_us;
} mhp_message_records;

/* All but events_us, of copies; of NCCL's kernels each step is then added. */
void mhp_message_records_begin(const mhp_trace_set *set, mhp_message_records *messages_out);
/* Does nothing where copies are the messages, or nothing can be known any more. `timeline`: of one step. */
mhp_status mhp_message_records_add(const mhp_trace_set *set, const mhp_clocks *clocks, const mhp_timeline *timeline,
                                   mhp_message_records *messages);

/* "copies", "NCCL kernels" */
const char *mhp_message_mover_text(mhp_message_mover mover);

#endif
