/* What the ranks of one host share: words of every rank, mapped by all, and the streams that move messages. */
#ifndef MHP_COMM_IPC_NODE_H
#define MHP_COMM_IPC_NODE_H

#include "comm/topology.h"

typedef struct mhp_node mhp_node;

/* Maps memory and words of all ranks of this host, to see whether that works: afterwards topology->reaches is true. Every rank of the
 * world; blocks; all get the same status. Where something does not work, `why` (of MHP_ERROR_TEXT_MAX bytes) says what, on this rank. */
mhp_status mhp_node_open(mhp_comm *comm, mhp_topology *topology, char *why, mhp_node **node_out);
/* After all channels are closed. NULL is allowed. */
void mhp_node_close(mhp_node *node);

/* A free word of this rank, at `value`; a word of any rank of this host. */
mhp_status mhp_node_take_word(mhp_node *node, uint32_t value, int *index_out);
void mhp_node_give_word(mhp_node *node, int index);
mhp_word *mhp_node_word(mhp_node *node, int rank, int index);

/* A copy stream for a channel's messages out, or for its receives. There are few, taken in turns: a card has 32 queues, and two streams
 * of one queue wait for each other. Sends that share a stream follow each other in the order of the plan, which a rank could also send in
 * without any stream; what frees a slot is submitted before its receive. So neither waits in a circle. */
mhp_status mhp_node_stream(mhp_node *node, bool sends, mhp_stream **stream_out);

#endif
