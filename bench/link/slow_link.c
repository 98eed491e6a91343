/* SPDX-License-Identifier: Apache-2.0 */
/* A link between two network namespaces of this machine, with a rate and a delay: for measurements between
 * hosts that are none, where the kernel can't delay (no netem).
 *
 *     slow_link NAMESPACE_A NAMESPACE_B GBIT_PER_S DELAY_MS
 *
 * Makes a device "slow0" in each (/run/netns/NAME) and carries what comes out of one into the other until it
 * is ended. A packet leaves when the wire is free in its direction, takes its bytes over the rate, and
 * arrives DELAY_MS later. Packets are as large as devices allow, so that carrying them takes little of a
 * core. What would wait for more than QUEUE_MS at the wire is dropped, as a switch does; TCP then slows down.
 */
#define _GNU_SOURCE /* setns, ppoll */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/if_tun.h>
#include <net/if.h>

enum { MTU = 61440, PACKETS = 1024, QUEUE_MS = 50 };

typedef struct packet {
    int64_t due_ns; /* at the other end */
    int bytes;
    char *data;
} packet;

/* One direction. */
typedef struct wire {
    int from, to;           /* devices */
    int64_t free_ns;        /* when the last packet has left */
    packet queue[PACKETS];  /* under way; a ring */
    int64_t n_taken, n_put; /* since the start */
} wire;

static wire wires[2];
static double ns_per_byte;
static int64_t delay_ns;

static void fail(const char *what)
{
    fprintf(stderr, "slow_link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* A device in the namespace, up, with this address of 10.77.0.0/24. */
static int open_device(const char *name_space, int host)
{
    char path[256], command[256];
    snprintf(path, sizeof path, "/run/netns/%s", name_space);
    int space = open(path, O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET) != 0)
        fail(path);
    close(space);
    int device = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    snprintf(request.ifr_name, sizeof request.ifr_name, "slow0");
    if (device < 0 || ioctl(device, TUNSETIFF, &request) != 0)
        fail("/dev/net/tun");
    snprintf(command, sizeof command,
             "ip link set lo up && ip addr add 10.77.0.%d/24 dev slow0 && "
             "ip link set slow0 mtu %d txqueuelen 100 up",
             host, MTU);
    if (system(command) != 0)
        exit(1);
    return device;
}

/* Takes what the sending host has put on the wire. */
static void take(wire *w)
{
    while (w->n_taken - w->n_put < PACKETS) {
        packet *p = &w->queue[w->n_taken % PACKETS];
        ssize_t bytes = read(w->from, p->data, MTU);
        if (bytes < 0)
            return;
        int64_t now = now_ns(), start = w->free_ns > now ? w->free_ns : now;
        if (start - now > QUEUE_MS * INT64_C(1000000))
            continue;
        w->free_ns = start + (int64_t)((double)bytes * ns_per_byte);
        p->due_ns = w->free_ns + delay_ns;
        p->bytes = (int)bytes;
        w->n_taken++;
    }
}

/* Hands over what has arrived. Returns the time until the next does; -1: nothing is under way. */
static int64_t put(wire *w)
{
    while (w->n_put < w->n_taken) {
        packet *p = &w->queue[w->n_put % PACKETS];
        int64_t left = p->due_ns - now_ns();
        if (left > 0)
            return left;
        if (write(w->to, p->data, (size_t)p->bytes) < 0 && errno == EAGAIN)
            return 100000;
        w->n_put++;
    }
    return -1;
}

static void carry(void)
{
    struct pollfd fds[2] = {{.fd = wires[0].from, .events = POLLIN}, {.fd = wires[1].from, .events = POLLIN}};
    for (;;) {
        int64_t left = INT64_C(1000000000);
        for (int i = 0; i < 2; i++) {
            take(&wires[i]);
            int64_t next = put(&wires[i]);
            if (next >= 0 && next < left)
                left = next;
        }
        struct timespec wait = {.tv_nsec = left % 1000000000, .tv_sec = left / 1000000000};
        if (ppoll(fds, 2, &wait, NULL) < 0 && errno != EINTR)
            fail("ppoll");
    }
}

int main(int argc, char **argv)
{
    if (argc != 5 || !(strtod(argv[3], NULL) > 0) || !(strtod(argv[4], NULL) >= 0)) {
        fprintf(stderr, "usage: %s NAMESPACE_A NAMESPACE_B GBIT_PER_S DELAY_MS\n", argv[0]);
        return 2;
    }
    ns_per_byte = 8 / strtod(argv[3], NULL);
    delay_ns = (int64_t)(1e6 * strtod(argv[4], NULL));
    prctl(PR_SET_TIMERSLACK, 1);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int a = open_device(argv[1], 1), b = open_device(argv[2], 2);
    wires[0].from = wires[1].to = a;
    wires[0].to = wires[1].from = b;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < PACKETS; k++)
            if ((wires[i].queue[k].data = malloc(MTU)) == NULL)
                fail("malloc");
    puts("ready");
    fflush(stdout);
    carry();
}
