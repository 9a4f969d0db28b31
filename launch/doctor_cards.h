/* What NVIDIA's management library says of driver and cards, also in a build without CUDA. */
#ifndef MHP_LAUNCH_DOCTOR_CARDS_H
#define MHP_LAUNCH_DOCTOR_CARDS_H

#include <stdbool.h>
#include <stdint.h>

enum { MHP_CARDS_MAX = 64, MHP_CARD_TEXT_MAX = 96 };

typedef struct mhp_card {
    char name[MHP_CARD_TEXT_MAX];
    uint64_t bytes, free_bytes;
    int major, minor; /* compute capability */
    int links;        /* NVLinks that are up */
} mhp_card;

typedef struct mhp_cards {
    bool loaded;                     /* the library is there */
    char failure[MHP_CARD_TEXT_MAX]; /* "" or why it says nothing */
    char driver[MHP_CARD_TEXT_MAX];  /* its version */
    int cuda;                        /* newest CUDA that the driver serves: 13000 is 13.0 */
    int count;
    mhp_card cards[MHP_CARDS_MAX];
    bool peers[MHP_CARDS_MAX][MHP_CARDS_MAX]; /* over NVLink */
} mhp_cards;

/* Fills in what there is. CUDA_VISIBLE_DEVICES has no effect on it. */
void mhp_cards_find(mhp_cards *cards);

#endif
