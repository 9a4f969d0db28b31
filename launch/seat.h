/* Where this process runs and who it is: cores, card, and rank of the world. */
#ifndef MHP_LAUNCH_SEAT_H
#define MHP_LAUNCH_SEAT_H

#include <stdbool.h>

#include "comm/comm.h"
#include "launch/config.h"

enum { MHP_HOST_NAME_MAX = 64, MHP_VERSION_TEXT_MAX = 32, MHP_CPUS_TEXT_MAX = 128 };

typedef struct mhp_seat {
    int card;                       /* of the device to open */
    bool far;                       /* the launcher's binding keeps this rank away from the card */
    char cpus[MHP_CPUS_TEXT_MAX];   /* what the process is bound to, "0-3,8"; "" if that is the whole machine, or nothing is known */
} mhp_seat;

/* Chooses the card and, with parallel.bind: auto, binds this process to its part of the host's cores (launch/binding.h). What the
 * system does not let it do stays undone. Before threads are started. */
void mhp_seat_process(const mhp_parallel_params *parallel, mhp_seat *seat_out);

/* What a rank says of itself to the others. */
typedef struct mhp_rank_card {
    char host[MHP_HOST_NAME_MAX];
    char version[MHP_VERSION_TEXT_MAX];
    char configuration[MHP_HASH_TEXT_MAX];          /* its checksum; "" without one */
} mhp_rank_card;

/* Fills in this process's; `config` may be NULL. */
mhp_status mhp_rank_card_fill(const mhp_config *config, mhp_rank_card *card_out);
/* MHP_ERR_CONFIG names the first rank whose version or configuration is not rank 0's. */
mhp_status mhp_rank_cards_check(const mhp_rank_card *cards, int size);

/* With parallel.map: auto, gives every process of a run over several hosts the rank that scheduler/mapping.h finds, and puts `cards`
 * [size] into the ranks' order. Does nothing where the number of ranks is not the configuration's. Every rank, with the same
 * configuration; blocks. */
mhp_status mhp_seat_ranks(mhp_comm *comm, const mhp_config *config, mhp_rank_card *cards);

#endif
