/* How ranks find each other: every rank listens on a port of its own, tells its addresses over MPI, and connects to the peers below. */
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/liveness_internal.h"
#include "core/memory.h"

enum { ADDRESSES_MAX = 8, HOST_BYTES_MAX = 256, MEET_MS = 60000, TRY_MS = 5000, NS_OF_MS = 1000000 };

/* How a rank is reached. Ranks of one machine that see the same network use its loopback. */
typedef struct place {
    unsigned char token[MHP_LIVENESS_TOKEN_BYTES];
    char host[HOST_BYTES_MAX];
    uint64_t network;               /* number of the network namespace: containers and test machines share a host's name */
    int64_t rank;
    int32_t address_count;
    struct sockaddr_storage addresses[ADDRESSES_MAX];
} place;

/* What either end says first. */
typedef struct greeting {
    unsigned char token[MHP_LIVENESS_TOKEN_BYTES];
    int32_t from, to;
} greeting;

static mhp_status fail(const char *what)
{
    return mhp_error_set(MHP_ERR_COMM, "connections between ranks: cannot %s: %s", what, strerror(errno));
}

static uint64_t now_ms(void)
{
    return mhp_time_ns() / NS_OF_MS;
}

/* ---- this rank's place ---- */

static void add_address(place *own, const struct sockaddr *address, size_t bytes, in_port_t port)
{
    struct sockaddr_storage copy = {0};

    if (own->address_count == ADDRESSES_MAX) {
        return;
    }
    memcpy(&copy, address, bytes);
    if (address->sa_family == AF_INET6) {
        ((struct sockaddr_in6 *)&copy)->sin6_port = port;
    } else {
        ((struct sockaddr_in *)&copy)->sin_port = port;
    }
    own->addresses[own->address_count++] = copy;
}

/* Loopback first. Addresses that need an interface's name are left out. */
static mhp_status list_addresses(place *own, in_port_t port)
{
    const struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct ifaddrs *all = NULL;

    add_address(own, (const struct sockaddr *)&loopback, sizeof loopback, port);
    if (getifaddrs(&all) != 0) {
        return fail("list addresses");
    }
    for (const struct ifaddrs *at = all; at; at = at->ifa_next) {
        int family = at->ifa_addr ? at->ifa_addr->sa_family : AF_UNSPEC;

        if (!(at->ifa_flags & IFF_UP) || (at->ifa_flags & IFF_LOOPBACK)) {
            continue;
        }
        if (family == AF_INET) {
            add_address(own, at->ifa_addr, sizeof(struct sockaddr_in), port);
        } else if (family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *)at->ifa_addr)->sin6_addr)) {
            add_address(own, at->ifa_addr, sizeof(struct sockaddr_in6), port);
        }
    }
    freeifaddrs(all);
    return MHP_OK;
}

/* On all addresses of both families where the machine has them. */
static mhp_status start_listening(mhp_liveness *liveness, in_port_t *port_out)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_ANY)}};
    socklen_t length = sizeof any, length4 = sizeof any4;
    int no = 0;

    liveness->listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (liveness->listener >= 0 && setsockopt(liveness->listener, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no) == 0 &&
        bind(liveness->listener, (struct sockaddr *)&any, length) == 0 && listen(liveness->listener, SOMAXCONN) == 0 &&
        getsockname(liveness->listener, (struct sockaddr *)&any, &length) == 0) {
        *port_out = any.sin6_port;
        return MHP_OK;
    }
    if (liveness->listener >= 0) {
        close(liveness->listener);
    }
    liveness->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (liveness->listener < 0 || bind(liveness->listener, (struct sockaddr *)&any4, length4) != 0 ||
        listen(liveness->listener, SOMAXCONN) != 0 || getsockname(liveness->listener, (struct sockaddr *)&any4, &length4) != 0) {
        return fail("listen");
    }
    *port_out = any4.sin_port;
    return MHP_OK;
}

static mhp_status make_place(mhp_liveness *liveness, place *own)
{
    struct stat network;
    in_port_t port = 0;

    own->rank = liveness->rank;
    gethostname(own->host, sizeof own->host - 1);
    if (stat("/proc/self/ns/net", &network) == 0) {
        own->network = (uint64_t)network.st_ino;
    }
    if (liveness->rank == MHP_LIVENESS_ROOT && getrandom(own->token, sizeof own->token, 0) != sizeof own->token) {
        return fail("draw a token");
    }
    MHP_RETURN_IF_ERROR(start_listening(liveness, &port));
    return list_addresses(own, port);
}

/* ---- accepting ---- */

static void keep(mhp_liveness *liveness, int rank, int fd)
{
    liveness_peer *peer = mhp_liveness_peer(liveness, rank);
    int yes = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    *peer = (liveness_peer){.rank = rank, .fd = fd, .heard_ns = mhp_time_ns()};
}

/* Takes one connection, if there is one; strangers are sent away. */
static void admit(mhp_liveness *liveness)
{
    const struct timeval limit = {.tv_sec = TRY_MS / 1000};
    int fd = accept4(liveness->listener, NULL, NULL, SOCK_CLOEXEC);
    greeting theirs = {.from = -1}, own = {.from = liveness->rank};
    const liveness_peer *peer;

    if (fd < 0) {
        return;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    memcpy(own.token, liveness->token, sizeof own.token);
    if (recv(fd, &theirs, sizeof theirs, MSG_WAITALL) != (ssize_t)sizeof theirs ||
        memcmp(theirs.token, liveness->token, sizeof theirs.token) != 0 || theirs.to != liveness->rank) {
        close(fd);
        return;
    }
    peer = mhp_liveness_peer(liveness, theirs.from);
    own.to = theirs.from;
    if (!peer || peer->fd >= 0 || send(fd, &own, sizeof own, MSG_NOSIGNAL) != (ssize_t)sizeof own) {
        close(fd);
        return;
    }
    keep(liveness, theirs.from, fd);
}

/* ---- connecting ---- */

/* Waits for `fd` (-1: none) to be ready for `events`, and takes connections meanwhile, for the peer may wait for one of its own. */
static bool wait_ready(mhp_liveness *liveness, int fd, short events, uint64_t end_ms)
{
    while (now_ms() < end_ms) {
        struct pollfd polled[] = {{.fd = liveness->listener, .events = POLLIN}, {.fd = fd, .events = events}};

        if (poll(polled, 2, (int)(end_ms - now_ms())) <= 0) {
            continue;
        }
        if (polled[0].revents != 0) {
            admit(liveness);
        }
        if (polled[1].revents != 0) {
            return true;
        }
        if (fd < 0) {
            return polled[0].revents != 0;
        }
    }
    return false;
}

static socklen_t address_bytes(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* A socket that is connected to the peer itself, not to somebody who has its address elsewhere; -1 if there is none. */
static int try_address(mhp_liveness *liveness, const place *to, const struct sockaddr_storage *address, uint64_t end_ms)
{
    greeting own = {.from = liveness->rank, .to = (int32_t)to->rank}, theirs = {.from = -1};
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = 0;
    socklen_t length = sizeof error;

    if (fd < 0) {
        return -1;
    }
    memcpy(own.token, liveness->token, sizeof own.token);
    if ((connect(fd, (const struct sockaddr *)address, address_bytes(address)) == 0 || errno == EINPROGRESS) &&
        wait_ready(liveness, fd, POLLOUT, end_ms) && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0 &&
        send(fd, &own, sizeof own, MSG_NOSIGNAL) == (ssize_t)sizeof own && wait_ready(liveness, fd, POLLIN, end_ms) &&
        recv(fd, &theirs, sizeof theirs, MSG_WAITALL) == (ssize_t)sizeof theirs &&
        memcmp(theirs.token, liveness->token, sizeof theirs.token) == 0 && theirs.from == to->rank) {
        return fd;
    }
    close(fd);
    return -1;
}

static mhp_status connect_to(mhp_liveness *liveness, const place *own, const place *to, uint64_t end_ms)
{
    bool same_machine = own->network == to->network && strcmp(own->host, to->host) == 0;

    while (now_ms() < end_ms) {
        for (int i = same_machine ? 0 : 1; i < to->address_count; i++) {
            uint64_t try_end_ms = now_ms() + TRY_MS < end_ms ? now_ms() + TRY_MS : end_ms;
            int fd = try_address(liveness, to, &to->addresses[i], try_end_ms);

            if (fd >= 0) {
                keep(liveness, (int)to->rank, fd);
                return MHP_OK;
            }
        }
        (void)wait_ready(liveness, -1, 0, now_ms() + 100);
    }
    return mhp_error_set(MHP_ERR_TIMEOUT, "connections between ranks: rank %d on %s cannot reach rank %d on %s by TCP at any of its %d "
                         "addresses within %d s", liveness->rank, own->host, (int)to->rank, to->host, to->address_count, MEET_MS / 1000);
}

static const liveness_peer *missing_peer(const mhp_liveness *liveness)
{
    for (int i = 0; i < liveness->peer_count; i++) {
        if (liveness->peers[i].fd < 0) {
            return &liveness->peers[i];
        }
    }
    return NULL;
}

static mhp_status connect_all(mhp_liveness *liveness, const place *places)
{
    uint64_t end_ms = now_ms() + MEET_MS;
    const liveness_peer *missing;

    for (int i = 0; i < liveness->peer_count && liveness->peers[i].rank < liveness->rank; i++) {
        MHP_RETURN_IF_ERROR(connect_to(liveness, &places[liveness->rank], &places[liveness->peers[i].rank], end_ms));
    }
    while ((missing = missing_peer(liveness)) != NULL) {
        if (now_ms() >= end_ms) {
            return mhp_error_set(MHP_ERR_TIMEOUT, "connections between ranks: rank %d on %s did not reach rank %d on %s within %d s",
                                 missing->rank, places[missing->rank].host, liveness->rank, places[liveness->rank].host, MEET_MS / 1000);
        }
        (void)wait_ready(liveness, -1, 0, end_ms);
    }
    return MHP_OK;
}

mhp_status mhp_liveness_meet(mhp_liveness *liveness, mhp_comm *comm)
{
    mhp_status status = MHP_OK;
    place own = {0};
    place *places = NULL;

    status = mhp_calloc(&places, (size_t)liveness->size, sizeof *places);
    if (status == MHP_OK) {
        status = make_place(liveness, &own);
    }
    MHP_TRY(out, mhp_comm_agree(comm, status, NULL));
    MHP_TRY(out, mhp_comm_share(comm, &own, sizeof own, places));
    memcpy(liveness->token, places[MHP_LIVENESS_ROOT].token, sizeof liveness->token);
    MHP_TRY(out, mhp_comm_agree(comm, connect_all(liveness, places), NULL));
    close(liveness->listener);
    liveness->listener = -1;
out:
    mhp_free(places);
    return status;
}
