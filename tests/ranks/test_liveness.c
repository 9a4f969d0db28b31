/* mpirun -n P test_liveness: beats and words between ranks, goodbyes, connections that break, and strangers. Every rank plays its part
 * in every case; a check that fails ends its rank, and with it the whole launch. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/comm.h"
#include "comm/liveness_internal.h"
#include "tests/ranks/check.h"

enum { RANKS_MAX = 16, PATIENCE_MS = 20000, POLL_MS = 20 };

typedef struct world {
    mhp_device *device;
    mhp_comm *comm;
    mhp_liveness *liveness;
    int rank, size;
    int beats[RANKS_MAX], words[RANKS_MAX], losses[RANKS_MAX];
    int last_beat[RANKS_MAX], last_kind[RANKS_MAX];
    char last_text[RANKS_MAX][MHP_WORD_TEXT_MAX];
} world;

static void take_beat(void *context, int rank, const void *beat)
{
    world *w = context;

    w->beats[rank]++;
    memcpy(&w->last_beat[rank], beat, sizeof(int));
}

static void take_word(void *context, int rank, int kind, const char *text)
{
    world *w = context;

    w->words[rank]++;
    w->last_kind[rank] = kind;
    snprintf(w->last_text[rank], MHP_WORD_TEXT_MAX, "%s", text);
}

static void take_loss(void *context, int rank, const char *how)
{
    world *w = context;

    (void)how;
    w->losses[rank]++;
}

static void open_liveness(world *w)
{
    mhp_liveness_params params = {.beat_bytes = sizeof(int), .heard = take_beat, .word = take_word, .lost = take_loss, .context = w};

    memset(w->beats, 0, sizeof w->beats);
    memset(w->words, 0, sizeof w->words);
    memset(w->losses, 0, sizeof w->losses);
    CHECK_OK(mhp_liveness_open(w->comm, &params, &w->liveness));
}

/* All ranks come to the end of a part of a case. */
static void meet(world *w)
{
    CHECK_OK(mhp_comm_agree(w->comm, MHP_OK, NULL));
}

/* Polls until the counter is there; the others may still be on their way. */
static void poll_until(world *w, const int *counter, int expected)
{
    for (int waited_ms = 0; *counter < expected; waited_ms += POLL_MS) {
        CHECK(waited_ms < PATIENCE_MS);
        mhp_liveness_poll(w->liveness, -1, POLL_MS);
    }
}

static void poll_once(world *w)
{
    mhp_liveness_poll(w->liveness, -1, POLL_MS);
}

static bool is_peer(const world *w, int rank)
{
    return mhp_liveness_peer(w->liveness, rank) != NULL;
}

static void rank_0_and_neighbours_are_connected(world *w)
{
    open_liveness(w);
    for (int rank = 0; rank < w->size; rank++) {
        bool expected = rank != w->rank && (rank == 0 || w->rank == 0 || rank == w->rank + 1 || rank == w->rank - 1);

        CHECK(mhp_liveness_is_connected(w->liveness, rank) == expected);
    }
    meet(w);
    mhp_liveness_close(w->liveness);
    meet(w);
}

static void beats_and_words_arrive_in_order(world *w)
{
    char text[MHP_WORD_TEXT_MAX];

    open_liveness(w);
    memset(text, 'a' + w->rank, sizeof text);
    text[sizeof text - 1] = '\0';
    for (int i = 1; i <= 100; i++) {
        int beat = 1000 * w->rank + i;

        mhp_liveness_beat(w->liveness, &beat);
        poll_once(w);
    }
    mhp_liveness_tell(w->liveness, 7, text);
    mhp_liveness_tell(w->liveness, 8, "");
    for (int rank = 0; rank < w->size; rank++) {
        if (is_peer(w, rank)) {
            poll_until(w, &w->words[rank], 2);
            CHECK(w->beats[rank] == 100 && w->last_beat[rank] == 1000 * rank + 100);
            CHECK(w->last_kind[rank] == 8 && w->last_text[rank][0] == '\0');
        }
    }
    meet(w);
    mhp_liveness_close(w->liveness);
    meet(w);
}

/* The last rank leaves, then closes; nobody takes it for a loss. */
static void a_goodbye_is_no_loss(world *w)
{
    int last = w->size - 1, beat = 0;

    open_liveness(w);
    meet(w);
    if (w->rank == last) {
        mhp_liveness_close(w->liveness);
        w->liveness = NULL;
    }
    meet(w);
    if (is_peer(w, last)) {
        for (int i = 0; i < 5; i++) {
            poll_once(w);
            mhp_liveness_beat(w->liveness, &beat);      /* also into a connection that is closed */
        }
        CHECK(!mhp_liveness_is_connected(w->liveness, last));
    }
    for (int rank = 0; rank < w->size; rank++) {
        CHECK(w->losses[rank] == 0);
    }
    meet(w);
    mhp_liveness_close(w->liveness);
    meet(w);
}

/* As the system closes the connections of a process that was killed. */
static void a_broken_connection_is_a_loss(world *w)
{
    int last = w->size - 1;

    open_liveness(w);
    meet(w);
    if (w->rank == last) {
        for (int i = 0; i < w->liveness->peer_count; i++) {
            shutdown(w->liveness->peers[i].fd, SHUT_RDWR);
        }
    } else if (is_peer(w, last)) {
        uint64_t start_ns = mhp_time_ns();

        poll_until(w, &w->losses[last], 1);
        CHECK(mhp_time_ns() - start_ns < 1000000000u);
        poll_once(w);
        CHECK(w->losses[last] == 1);
    }
    meet(w);
    for (int rank = 0; rank < w->size; rank++) {
        CHECK(w->rank == last || rank == last || w->losses[rank] == 0);
    }
    mhp_liveness_close(w->liveness);
    meet(w);
}

static void what_is_no_frame_ends_the_connection(world *w)
{
    static const liveness_header wrong = {.kind = 3, .bytes = MHP_WORD_TEXT_MAX};

    open_liveness(w);
    meet(w);
    if (w->rank == 1) {
        CHECK(send(mhp_liveness_peer(w->liveness, 0)->fd, &wrong, sizeof wrong, MSG_NOSIGNAL) == (ssize_t)sizeof wrong);
    }
    if (w->rank == 0) {
        poll_until(w, &w->losses[1], 1);
        CHECK(w->words[1] == 0);
    }
    meet(w);
    mhp_liveness_close(w->liveness);
    meet(w);
}

/* A peer that reads nothing fills the buffers; whoever sends goes on, and what arrives later is whole. */
static void a_peer_that_does_not_read_holds_nobody_up(world *w)
{
    char text[MHP_WORD_TEXT_MAX];

    open_liveness(w);
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    meet(w);
    if (w->rank == 1) {
        for (int i = 0; i < 20000; i++) {
            mhp_liveness_tell(w->liveness, 5, text);
        }
    }
    meet(w);
    if (w->rank == 0) {
        poll_until(w, &w->words[1], 100);
        CHECK(strcmp(w->last_text[1], text) == 0 && w->losses[1] == 0);
    }
    meet(w);
    mhp_liveness_close(w->liveness);
    meet(w);
}

enum { SILENCE_NS = 400000000 };      /* longer than a rank on a busy machine waits for a core */

static void silence_is_measured(world *w)
{
    int beat = 1, other = w->rank == 0 ? 1 : 0;

    open_liveness(w);
    meet(w);
    usleep(SILENCE_NS / 1000);
    CHECK(mhp_liveness_silence_ns(w->liveness, other) >= SILENCE_NS);
    mhp_liveness_beat(w->liveness, &beat);
    poll_until(w, &w->beats[other], 1);
    CHECK(mhp_liveness_silence_ns(w->liveness, other) < SILENCE_NS);
    usleep(SILENCE_NS / 1000);
    mhp_liveness_forgive(w->liveness);
    CHECK(mhp_liveness_silence_ns(w->liveness, other) < SILENCE_NS);
    CHECK(mhp_liveness_silence_ns(w->liveness, w->rank) == 0);
    meet(w);
    mhp_liveness_close(w->liveness);
    meet(w);
}

static void alone_there_is_nothing(world *w)
{
    mhp_liveness_params params = {.beat_bytes = sizeof(int)};

    CHECK_OK(mhp_liveness_open(w->comm, &params, &w->liveness));
    CHECK(!w->liveness && !mhp_liveness_is_connected(NULL, 0));
    mhp_liveness_beat(NULL, "");
    mhp_liveness_tell(NULL, 0, "");
    mhp_liveness_poll(NULL, -1, 1);
    mhp_liveness_forgive(NULL);
    mhp_liveness_close(NULL);
}

/* Everybody's pieces, by rank. */
static void shares_are_everybodys(world *w)
{
    int own[2] = {w->rank, 10 * w->rank}, all[2 * RANKS_MAX] = {0};

    CHECK_OK(mhp_comm_share(w->comm, own, sizeof own, all));
    for (int rank = 0; rank < w->size; rank++) {
        CHECK(all[2 * rank] == rank && all[2 * rank + 1] == 10 * rank);
    }
    CHECK(mhp_comm_share(w->comm, own, (size_t)1 << 40, all) == MHP_ERR_LIMIT);
}

int main(void)
{
    static void (*const cases[])(world *) = {
        rank_0_and_neighbours_are_connected,  beats_and_words_arrive_in_order,
        a_goodbye_is_no_loss,                 a_broken_connection_is_a_loss,
        what_is_no_frame_ends_the_connection, a_peer_that_does_not_read_holds_nobody_up,
        silence_is_measured,
    };
    static world whole;
    world *w = &whole;
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1};

    if (mhp_device_open(&params, &w->device) < 0 || mhp_comm_open(w->device, &w->comm) < 0) {
        fprintf(stderr, "%s\n", mhp_error_text());
        return 1;
    }
    w->rank = mhp_comm_rank(w->comm);
    w->size = mhp_comm_size(w->comm);
    CHECK(w->size <= RANKS_MAX);
    shares_are_everybodys(w);
    if (w->size == 1) {
        alone_there_is_nothing(w);
    }
    for (size_t i = 0; w->size > 1 && i < sizeof cases / sizeof *cases; i++) {
        cases[i](w);
    }
    mhp_comm_close(w->comm);
    mhp_device_close(w->device);
    return 0;
}
