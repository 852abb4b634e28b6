/* UDP in batches: recvmmsg and sendmmsg over one arena made once. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { ADDRESS_OCTETS = sizeof(struct sockaddr_in6) };
#define OVERSIZED 0xFFFFFFFFu

struct zb_udp {
    uint32_t batch_max, octets_max;
    uint8_t *arena, *addresses;
    uint32_t *lengths, *address_lengths;
    struct mmsghdr *messages;
    struct iovec *vectors;
};

zb_udp *zb_udp_new(uint32_t batch_max, uint32_t octets_max, uint8_t **arena, uint8_t **addresses, uint32_t **lengths,
                   uint32_t **address_lengths) {
    zb_udp *udp = calloc(1, sizeof *udp);
    if (!udp) return NULL;
    udp->batch_max = batch_max;
    udp->octets_max = octets_max;
    *arena = udp->arena = calloc(batch_max, octets_max);
    *addresses = udp->addresses = calloc(batch_max, ADDRESS_OCTETS);
    *lengths = udp->lengths = calloc(batch_max, sizeof(uint32_t));
    *address_lengths = udp->address_lengths = calloc(batch_max, sizeof(uint32_t));
    udp->messages = calloc(batch_max, sizeof(struct mmsghdr));
    udp->vectors = calloc(batch_max, sizeof(struct iovec));
    if (udp->arena && udp->addresses && udp->lengths && udp->address_lengths && udp->messages && udp->vectors) return udp;
    zb_udp_free(udp);
    return NULL;
}

void zb_udp_free(zb_udp *udp) {
    free(udp->arena);
    free(udp->addresses);
    free(udp->lengths);
    free(udp->address_lengths);
    free(udp->messages);
    free(udp->vectors);
    free(udp);
}

int zb_udp_receive(zb_udp *udp, int fd) {
    for (uint32_t i = 0; i < udp->batch_max; i++) {
        udp->vectors[i] = (struct iovec){udp->arena + (size_t)i * udp->octets_max, udp->octets_max};
        udp->messages[i].msg_hdr = (struct msghdr){
            .msg_name = udp->addresses + (size_t)i * ADDRESS_OCTETS, .msg_namelen = ADDRESS_OCTETS, .msg_iov = &udp->vectors[i], .msg_iovlen = 1};
    }
    int n;
    do n = recvmmsg(fd, udp->messages, udp->batch_max, MSG_DONTWAIT, NULL);
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        const struct msghdr *h = &udp->messages[i].msg_hdr;
        udp->lengths[i] = h->msg_flags & MSG_TRUNC ? OVERSIZED : udp->messages[i].msg_len;
        udp->address_lengths[i] = h->msg_namelen < ADDRESS_OCTETS ? h->msg_namelen : ADDRESS_OCTETS;
    }
    return n;
}

static int socket_is_bad(int error) { return error == EBADF || error == ENOTSOCK || error == ENOTCONN || error == EFAULT; }

int zb_udp_send(zb_udp *udp, int fd, uint32_t count, const uint8_t *data, const uint32_t *lengths, const uint8_t *addresses,
                const uint32_t *address_lengths, uint32_t *refused) {
    uint32_t done = 0;
    *refused = 0;
    while (done < count) {
        uint32_t n = count - done < udp->batch_max ? count - done : udp->batch_max;
        const uint8_t *d = data, *a = addresses;
        for (uint32_t i = 0; i < n; i++) {
            udp->vectors[i] = (struct iovec){(void *)d, lengths[done + i]};
            udp->messages[i].msg_hdr = (struct msghdr){
                .msg_name = (void *)a, .msg_namelen = address_lengths[done + i], .msg_iov = &udp->vectors[i], .msg_iovlen = 1};
            d += lengths[done + i];
            a += address_lengths[done + i];
        }
        int sent;
        do sent = sendmmsg(fd, udp->messages, n, MSG_DONTWAIT);
        while (sent < 0 && errno == EINTR);
        if (sent == 0) break;
        if (sent < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) break;
            if (socket_is_bad(errno)) return -errno;
            sent = 1; /* the first one is at fault (too long, no route, port 0): step over it */
            ++*refused;
        }
        for (int i = 0; i < sent; i++) {
            data += lengths[done];
            addresses += address_lengths[done];
            done++;
        }
    }
    return (int)done;
}
