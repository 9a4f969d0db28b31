#include "comm/liveness.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/liveness_internal.h"
#include "core/memory.h"

liveness_peer *mhp_liveness_peer(const mhp_liveness *liveness, int rank)
{
    for (int i = 0; liveness && i < liveness->peer_count; i++) {
        if (liveness->peers[i].rank == rank) {
            return &liveness->peers[i];
        }
    }
    return NULL;
}

/* ---- sending ---- */

/* Keeps what the peer's buffers do not take; false if the connection takes nothing more for now. */
static bool flush_rest(liveness_peer *peer)
{
    ssize_t count = 0;

    if (peer->rest_bytes > 0) {
        count = send(peer->fd, peer->rest, peer->rest_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    if (count > 0) {
        peer->rest_bytes -= (size_t)count;
        memmove(peer->rest, peer->rest + count, peer->rest_bytes);
    }
    return peer->rest_bytes == 0;
}

/* A frame goes out whole or, for a peer that has read nothing for long, not at all. */
static void send_frame(liveness_peer *peer, const liveness_frame *frame)
{
    size_t bytes = sizeof frame->header + (size_t)frame->header.bytes;
    ssize_t count;

    if (peer->fd < 0 || !flush_rest(peer)) {
        return;
    }
    count = send(peer->fd, frame, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0 && (size_t)count < bytes) {
        peer->rest_bytes = bytes - (size_t)count;
        memcpy(peer->rest, (const char *)frame + count, peer->rest_bytes);
    }
}

static void send_to_all(mhp_liveness *liveness, int kind, const void *payload, size_t bytes)
{
    liveness_frame frame = {.header = {kind, (int32_t)bytes}};

    memcpy(frame.payload, payload, bytes);
    for (int i = 0; !liveness->left && i < liveness->peer_count; i++) {
        send_frame(&liveness->peers[i], &frame);
    }
}

void mhp_liveness_beat(mhp_liveness *liveness, const void *beat)
{
    if (liveness) {
        send_to_all(liveness, MHP_LIVENESS_BEAT, beat, liveness->params.beat_bytes);
    }
}

void mhp_liveness_tell(mhp_liveness *liveness, int kind, const char *text)
{
    if (liveness) {
        send_to_all(liveness, kind, text, strnlen(text, MHP_WORD_TEXT_MAX - 1));
    }
}

void mhp_liveness_leave(mhp_liveness *liveness)
{
    if (liveness && !liveness->left) {
        send_to_all(liveness, MHP_LIVENESS_GOODBYE, "", 0);
        liveness->left = true;
    }
}

/* ---- receiving ---- */

static void close_peer(mhp_liveness *liveness, liveness_peer *peer, const char *how)
{
    close(peer->fd);
    peer->fd = -1;
    if (!peer->left && !liveness->left) {
        liveness->params.lost(liveness->params.context, peer->rank, how);
    }
}

static void take_frame(mhp_liveness *liveness, liveness_peer *peer)
{
    liveness_frame *frame = &peer->incoming;
    const liveness_header *header = &frame->header;

    if (header->kind == MHP_LIVENESS_GOODBYE) {
        peer->left = true;
    } else if (header->kind == MHP_LIVENESS_BEAT) {
        if ((size_t)header->bytes == liveness->params.beat_bytes) {
            liveness->params.heard(liveness->params.context, peer->rank, frame->payload);
        }
    } else {
        frame->payload[header->bytes] = '\0';
        liveness->params.word(liveness->params.context, peer->rank, header->kind, frame->payload);
    }
}

/* A header that no peer of this program writes. */
static bool is_wrong(const liveness_header *header)
{
    return header->bytes < 0 || header->bytes >= MHP_WORD_TEXT_MAX || header->kind < MHP_LIVENESS_GOODBYE;
}

/* Bytes that the frame under way still lacks: of its header, then of its payload. */
static size_t missing_bytes(const liveness_peer *peer)
{
    size_t whole = sizeof peer->incoming.header;

    if (peer->incoming_bytes >= whole) {
        whole += (size_t)peer->incoming.header.bytes;
    }
    return whole - peer->incoming_bytes;
}

/* False when nothing more is there, or the connection is closed. */
static bool read_some(mhp_liveness *liveness, liveness_peer *peer)
{
    ssize_t count = recv(peer->fd, (char *)&peer->incoming + peer->incoming_bytes, missing_bytes(peer), MSG_DONTWAIT);

    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return false;
    }
    if (count <= 0) {
        close_peer(liveness, peer, count == 0 || errno == ECONNRESET ? "its process ended" : strerror(errno));
        return false;
    }
    peer->heard_ns = mhp_time_ns();
    peer->incoming_bytes += (size_t)count;
    if (peer->incoming_bytes >= sizeof peer->incoming.header && is_wrong(&peer->incoming.header)) {
        close_peer(liveness, peer, "it sent what is no message");
        return false;
    }
    if (peer->incoming_bytes >= sizeof peer->incoming.header && missing_bytes(peer) == 0) {
        peer->incoming_bytes = 0;
        take_frame(liveness, peer);
    }
    return peer->fd >= 0;
}

void mhp_liveness_poll(mhp_liveness *liveness, int wake, int timeout_ms)
{
    struct pollfd alone;
    struct pollfd *polled = liveness ? liveness->polled : &alone;
    int peer_count = liveness ? liveness->peer_count : 0;

    for (int i = 0; i < peer_count; i++) {
        polled[i] = (struct pollfd){.fd = liveness->peers[i].fd, .events = POLLIN};
    }
    polled[peer_count] = (struct pollfd){.fd = wake, .events = POLLIN};
    if (poll(polled, (nfds_t)peer_count + 1, timeout_ms) <= 0) {
        return;
    }
    for (int i = 0; i < peer_count; i++) {
        while (polled[i].revents != 0 && liveness->peers[i].fd >= 0 && read_some(liveness, &liveness->peers[i])) {
        }
    }
}

/* ---- start and end ---- */

static bool are_connected(int rank, int other)
{
    bool neighbours = other - rank == 1 || rank - other == 1;

    return other != rank && (rank == MHP_LIVENESS_ROOT || other == MHP_LIVENESS_ROOT || neighbours);
}

static mhp_status create_peers(mhp_liveness *liveness)
{
    MHP_RETURN_IF_ERROR(mhp_calloc(&liveness->peers, (size_t)liveness->size, sizeof *liveness->peers));
    MHP_RETURN_IF_ERROR(mhp_calloc(&liveness->polled, (size_t)liveness->size, sizeof *liveness->polled));
    for (int rank = 0; rank < liveness->size; rank++) {
        if (are_connected(liveness->rank, rank)) {
            liveness->peers[liveness->peer_count++] = (liveness_peer){.rank = rank, .fd = -1};
        }
    }
    return MHP_OK;
}

mhp_status mhp_liveness_open(mhp_comm *comm, const mhp_liveness_params *params, mhp_liveness **liveness_out)
{
    mhp_status status = MHP_OK;
    mhp_liveness *liveness = NULL;

    *liveness_out = NULL;
    if (mhp_comm_size(comm) == 1) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&liveness, 1, sizeof *liveness));
    liveness->params = *params;
    liveness->rank = mhp_comm_rank(comm);
    liveness->size = mhp_comm_size(comm);
    liveness->listener = -1;
    MHP_TRY(out, mhp_comm_agree(comm, create_peers(liveness), NULL));
    MHP_TRY(out, mhp_liveness_meet(liveness, comm));
    *liveness_out = liveness;
    liveness = NULL;
out:
    if (liveness) {
        liveness->left = true;
    }
    mhp_liveness_close(liveness);
    return status;
}

void mhp_liveness_close(mhp_liveness *liveness)
{
    if (!liveness) {
        return;
    }
    mhp_liveness_leave(liveness);
    for (int i = 0; i < liveness->peer_count; i++) {
        if (liveness->peers[i].fd >= 0) {
            close(liveness->peers[i].fd);
        }
    }
    if (liveness->listener >= 0) {
        close(liveness->listener);
    }
    mhp_free(liveness->polled);
    mhp_free(liveness->peers);
    mhp_free(liveness);
}

bool mhp_liveness_is_connected(const mhp_liveness *liveness, int rank)
{
    const liveness_peer *peer = mhp_liveness_peer(liveness, rank);

    return peer && peer->fd >= 0 && !peer->left;
}

uint64_t mhp_liveness_silence_ns(const mhp_liveness *liveness, int rank)
{
    const liveness_peer *peer = mhp_liveness_peer(liveness, rank);
    uint64_t now_ns = mhp_time_ns();

    return peer && now_ns > peer->heard_ns ? now_ns - peer->heard_ns : 0;
}

void mhp_liveness_forgive(mhp_liveness *liveness)
{
    for (int i = 0; liveness && i < liveness->peer_count; i++) {
        liveness->peers[i].heard_ns = mhp_time_ns();
    }
}
