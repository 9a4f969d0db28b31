#include "comm/ipc/node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"

enum { WORDS = 2048, LINE_BYTES = 64, STREAMS = 8, PROBE_BYTES = 64 };

/* A word has a cache line to itself. */
typedef struct word_line {
    _Alignas(LINE_BYTES) mhp_word word;
} word_line;

/* Where another process finds a rank's words, and memory of its device to try. */
typedef struct node_card {
    int process, file;
    uint32_t mark;                  /* what stands in the first word until all have looked */
    mhp_shared_name probe;
    int is_good;                    /* the rank could share both */
} node_card;

struct mhp_node {
    mhp_device *device;
    int rank, size;
    int file;                       /* of this rank's words; without a name in any folder */
    word_line **words;              /* [world], NULL for ranks that are not reached */
    bool *pinned;                   /* [world] */
    int free_words[WORDS], free_count;
    mhp_stream *streams[2][STREAMS];
    unsigned taken[2];
};

/* ---- words ---- */

static mhp_status map_words(mhp_node *node, int rank, int file)
{
    void *memory = mmap(NULL, WORDS * sizeof(word_line), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);

    if (memory == MAP_FAILED) {
        return mhp_error_set(MHP_ERR_IO, "mapping the words of rank %d: %s", rank, strerror(errno));
    }
    node->words[rank] = memory;
    MHP_RETURN_IF_ERROR(mhp_device_pin(node->device, memory, WORDS * sizeof(word_line)));
    node->pinned[rank] = true;
    return MHP_OK;
}

static mhp_status create_words(mhp_node *node)
{
    node->file = memfd_create("mhcpipe words", MFD_CLOEXEC);
    if (node->file < 0 || ftruncate(node->file, WORDS * sizeof(word_line)) != 0) {
        return mhp_error_set(MHP_ERR_IO, "memory for words: %s", strerror(errno));
    }
    for (int i = WORDS; i > 0; i--) {
        node->free_words[node->free_count++] = i - 1;
    }
    return map_words(node, node->rank, node->file);
}

/* Where processes are numbered apart, as in a container for each, the path may lead to anybody's file, this rank's own too. */
static mhp_status refuse_words(int rank, const char *path)
{
    return mhp_error_set(MHP_ERR_IO, "%s is not rank %d's: it sees other processes than this rank (another PID namespace?)", path, rank);
}

static mhp_status attach_words(mhp_node *node, int rank, const node_card *card)
{
    mhp_status status;
    struct stat facts;
    char path[64];
    int file;

    snprintf(path, sizeof path, "/proc/%d/fd/%d", card->process, card->file);
    file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) {
        return mhp_error_set(MHP_ERR_IO, "%s of rank %d: %s", path, rank, strerror(errno));
    }
    status = fstat(file, &facts) == 0 && S_ISREG(facts.st_mode) && facts.st_size == WORDS * sizeof(word_line)
                 ? map_words(node, rank, file)
                 : refuse_words(rank, path);
    close(file);
    return status == MHP_OK && atomic_load(mhp_node_word(node, rank, 0)) != card->mark ? refuse_words(rank, path) : status;
}

mhp_status mhp_node_take_word(mhp_node *node, uint32_t value, int *index_out)
{
    if (node->free_count == 0) {
        return mhp_error_set(MHP_ERR_LIMIT, "channels of rank %d need more than %d words", node->rank, WORDS);
    }
    *index_out = node->free_words[--node->free_count];
    atomic_store(mhp_node_word(node, node->rank, *index_out), value);
    return MHP_OK;
}

void mhp_node_give_word(mhp_node *node, int index)
{
    node->free_words[node->free_count++] = index;
}

mhp_word *mhp_node_word(mhp_node *node, int rank, int index)
{
    return &node->words[rank][index].word;
}

/* ---- opening ---- */

static mhp_status present(mhp_node *node, void **probe_out, node_card *card_out)
{
    size_t offset;

    MHP_RETURN_IF_ERROR(create_words(node));
    if (getrandom(&card_out->mark, sizeof card_out->mark, 0) != sizeof card_out->mark) {
        return mhp_error_set(MHP_ERR_IO, "a random number: %s", strerror(errno));
    }
    atomic_store(mhp_node_word(node, node->rank, 0), card_out->mark);
    card_out->process = (int)getpid();
    card_out->file = node->file;
    MHP_RETURN_IF_ERROR(mhp_device_alloc(node->device, PROBE_BYTES, probe_out));
    MHP_RETURN_IF_ERROR(mhp_device_share(node->device, *probe_out, &card_out->probe, &offset));
    card_out->is_good = 1;
    return MHP_OK;
}

static mhp_status try_rank(mhp_node *node, int rank, const node_card *card)
{
    void *memory = NULL;

    MHP_RETURN_IF_ERROR(attach_words(node, rank, card));
    MHP_RETURN_IF_ERROR(mhp_device_attach(node->device, &card->probe, &memory));
    mhp_device_detach(node->device, memory);
    return MHP_OK;
}

/* This rank's row of topology->reaches. */
static void try_all(mhp_node *node, const mhp_topology *topology, const node_card *cards, unsigned char *row, char *why)
{
    for (int rank = 0; rank < node->size; rank++) {
        if (rank == node->rank || !mhp_topology_same_host(topology, rank, node->rank) || !cards[rank].is_good ||
            !cards[node->rank].is_good) {
            continue;
        }
        row[rank] = try_rank(node, rank, &cards[rank]) == MHP_OK;
        if (!row[rank]) {
            snprintf(why, MHP_ERROR_TEXT_MAX, "%s", mhp_error_text());
        }
    }
}

static mhp_status create(mhp_comm *comm, mhp_node **node_out)
{
    mhp_node *node;

    MHP_RETURN_IF_ERROR(mhp_calloc(&node, 1, sizeof *node));
    *node_out = node;
    node->device = mhp_comm_device(comm);
    node->rank = mhp_comm_rank(comm);
    node->size = mhp_comm_size(comm);
    node->file = -1;
    MHP_RETURN_IF_ERROR(mhp_calloc(&node->words, (size_t)node->size, sizeof *node->words));
    return mhp_calloc(&node->pinned, (size_t)node->size, sizeof *node->pinned);
}

mhp_status mhp_node_open(mhp_comm *comm, mhp_topology *topology, char *why, mhp_node **node_out)
{
    size_t size = (size_t)topology->size;
    mhp_status status = MHP_OK;
    mhp_node *node = NULL;
    node_card card, *cards = NULL;
    unsigned char *row = NULL;
    void *probe = NULL;

    memset(&card, 0, sizeof card);
    MHP_TRY(out, create(comm, &node));
    MHP_TRY(out, mhp_calloc(&cards, size, sizeof *cards));
    MHP_TRY(out, mhp_calloc(&row, size, 1));
    if (present(node, &probe, &card) < 0) {
        snprintf(why, MHP_ERROR_TEXT_MAX, "%s", mhp_error_text());
    }
    MHP_TRY(out, mhp_comm_share(comm, &card, sizeof card, cards));
    try_all(node, topology, cards, row, why);
    MHP_TRY(out, mhp_comm_share(comm, row, size, topology->reaches));       /* behind it no probe is in use */
    *node_out = node;
    node = NULL;
out:
    mhp_device_free(mhp_comm_device(comm), probe);
    mhp_node_close(node);
    mhp_free(row);
    mhp_free(cards);
    return status;
}

void mhp_node_close(mhp_node *node)
{
    if (!node) {
        return;
    }
    for (int i = 0; i < 2 * STREAMS; i++) {
        mhp_stream_destroy(node->streams[i / STREAMS][i % STREAMS]);
    }
    for (int rank = 0; node->words && rank < node->size; rank++) {
        if (node->pinned && node->pinned[rank]) {
            mhp_device_unpin(node->device, node->words[rank]);
        }
        if (node->words[rank]) {
            munmap(node->words[rank], WORDS * sizeof(word_line));
        }
    }
    if (node->file >= 0) {
        close(node->file);
    }
    mhp_free(node->pinned);
    mhp_free(node->words);
    mhp_free(node);
}

mhp_status mhp_node_stream(mhp_node *node, bool sends, mhp_stream **stream_out)
{
    mhp_stream **stream = &node->streams[sends][node->taken[sends]++ % STREAMS];

    if (!*stream) {
        MHP_RETURN_IF_ERROR(mhp_stream_create(node->device, MHP_STREAM_COPY, MHP_PRIORITY_HIGH, sends ? "messages out" : "free slots", stream));
    }
    *stream_out = *stream;
    return MHP_OK;
}
