/* SPDX-License-Identifier: Apache-2.0 */
/* Rank 0 is the host: it makes the memory file, waits until every other rank is connected, and then answers
 * all at once: with the file, or all with the same reason why there is no group. So no member ever has a file
 * that another one will not get. */
#define _GNU_SOURCE /* memfd_create, accept4 */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/machine.h"
#include "base/text.h"
#include "comm/shm/meeting.h"
#include "comm/shm/shm_control.h"
#include "comm/shm/shm_wait.h"

enum { BACKLOG = 64, HELLO_MS = 1000, RETRY_NS = 10 * 1000 * 1000, MS_NS = 1000 * 1000 };

static bool connect_to(const lks__place *place, int *out)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&place->address, sizeof place->address) == 0) {
        *out = fd;
        return true;
    }
    if (fd >= 0)
        close(fd);
    return false;
}

/* ---- host ---- */

typedef struct host {
    const lks_group_config *config;
    const lks__place *place;
    struct pollfd fds[LKS_GROUP_MAX_SIZE]; /* [0]: where it listens; [r]: the connection of rank r, or -1 */
    int n_guests;
} host;

/* Listens at the place. What a run that has crashed left there is replaced; the lock on the folder lets one
 * host at a time look and replace. */
static lks_status listen_at(const lks__place *place, int *out)
{
    int other, pid = 0, fd = -1;
    lks_status status = LKS_OK;
    while (flock(place->folder, LOCK_EX) != 0 && errno == EINTR)
        ;
    if (connect_to(place, &other)) {
        (void)lks__peer_is_us(other, &pid);
        close(other);
        status = lks__fail(LKS_E_ARG, "process %d is already waiting as rank 0 at %s", pid, place->name);
        (void)lks__error_hint(status, "use another MASTER_PORT, or end that process");
    } else {
        (void)unlink(place->address.sun_path);
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (const struct sockaddr *)&place->address, sizeof place->address) != 0 ||
            listen(fd, BACKLOG) != 0)
            status = lks__fail_errno(LKS_E_SYSTEM, errno, "cannot wait for the other members at %s",
                                     place->address.sun_path);
    }
    flock(place->folder, LOCK_UN);
    if (status == LKS_OK)
        *out = fd;
    else if (fd >= 0)
        close(fd);
    return status;
}

/* What a guest says about itself; false: it is none of ours, or has gone. */
static bool hear(int connection, lks__hello *out)
{
    int pid;
    struct pollfd wait = {.fd = connection, .events = POLLIN};
    return lks__peer_is_us(connection, &pid) && poll(&wait, 1, HELLO_MS) == 1 &&
           recv(connection, out, sizeof *out, MSG_DONTWAIT) == sizeof *out && out->magic == LKS__HELLO_MAGIC;
}

static lks_status check_hello(const host *self, const lks__hello *hello)
{
    if (hello->version != LKS__SHM_VERSION)
        return lks__fail(LKS_E_ARG, "rank %d runs another version of lockstep than rank 0", (int)hello->rank);
    if (hello->size != self->config->size)
        return lks__fail(LKS_E_ARG, "rank %d says that the group has %d members, rank 0 says %d",
                         (int)hello->rank, (int)hello->size, self->config->size);
    if (hello->rank < 1 || hello->rank >= self->config->size || self->fds[hello->rank].fd >= 0)
        return lks__fail(LKS_E_ARG, "two members say that they are rank %d", (int)hello->rank);
    return LKS_OK;
}

static lks_status admit(host *self)
{
    lks__hello hello;
    int guest = accept4(self->fds[0].fd, NULL, NULL, SOCK_CLOEXEC);
    if (guest < 0)
        return LKS_OK; /* it has gone again */
    if (!hear(guest, &hello)) {
        close(guest);
        return LKS_OK;
    }
    lks_status status = check_hello(self, &hello);
    if (status != LKS_OK) {
        lks__answer answer = {.status = status};
        snprintf(answer.text, sizeof answer.text, "%s", lks_error_message());
        lks__answer_send(guest, &answer, -1);
        close(guest);
        return status;
    }
    self->fds[hello.rank] = (struct pollfd){.fd = guest, .events = POLLIN};
    self->n_guests++;
    return LKS_OK;
}

/* A guest has nothing more to say, so what can be read is that it has hung up. It may come again. */
static void forget_gone(host *self)
{
    for (int r = 1; r < self->config->size; r++)
        if (self->fds[r].fd >= 0 && self->fds[r].revents != 0) {
            close(self->fds[r].fd);
            self->fds[r] = (struct pollfd){.fd = -1};
            self->n_guests--;
        }
}

static lks_status fail_missing(const host *self)
{
    char missing[LKS__MEETING_TEXT_BYTES / 2] = "";
    for (int r = 1; r < self->config->size; r++)
        if (self->fds[r].fd < 0)
            lks__append(missing, sizeof missing, "%srank %d", missing[0] != '\0' ? ", " : "", r);
    return lks__fail(LKS_E_TIMEOUT, "rank 0 waited %g s at %s for %s", self->config->timeout_s,
                     self->place->name, missing);
}

static lks_status wait_for_guests(host *self)
{
    lks__deadline deadline = {lks__timeout_ns(self->config->timeout_s)};
    lks_status status = LKS_OK;
    while (status == LKS_OK && self->n_guests < self->config->size - 1) {
        int64_t slice_ns = lks__deadline_slice(&deadline), start_ns = lks__now_ns();
        if (slice_ns == 0)
            return fail_missing(self);
        int n = poll(self->fds, (nfds_t)self->config->size, (int)(slice_ns / MS_NS) + 1);
        lks__deadline_spend(&deadline, start_ns, slice_ns);
        if (n <= 0)
            continue;
        forget_gone(self);
        if (self->fds[0].revents != 0)
            status = admit(self);
    }
    return status;
}

/* Tells all guests how it went and hangs up. */
static void answer_all(host *self, lks_status status, int file)
{
    lks__answer answer = {.status = status};
    if (status != LKS_OK)
        snprintf(answer.text, sizeof answer.text, "%s", lks_error_message());
    for (int r = 1; r < self->config->size; r++)
        if (self->fds[r].fd >= 0) {
            lks__answer_send(self->fds[r].fd, &answer, status == LKS_OK ? file : -1);
            close(self->fds[r].fd);
        }
}

lks_status lks__meeting_host(const lks_group_config *config, const lks__place *place, int *out)
{
    host self = {.config = config, .place = place};
    for (int r = 0; r < config->size; r++)
        self.fds[r] = (struct pollfd){.fd = -1};
    int file = memfd_create("lockstep", MFD_CLOEXEC);
    if (file < 0)
        return lks__fail_errno(LKS_E_SYSTEM, errno, "cannot create shared memory");

    self.fds[0].events = POLLIN;
    lks_status status = listen_at(place, &self.fds[0].fd);
    if (status == LKS_OK) {
        status = wait_for_guests(&self);
        (void)unlink(place->address.sun_path); /* before the socket closes, so that it is still ours */
        answer_all(&self, status, file);
        close(self.fds[0].fd);
    }
    if (status == LKS_OK)
        *out = file;
    else
        close(file);
    return status;
}

/* ---- guest ---- */

static bool say_hello(const lks_group_config *config, int connection)
{
    lks__hello hello = {LKS__HELLO_MAGIC, LKS__SHM_VERSION, config->rank, config->size};
    int pid;
    return lks__peer_is_us(connection, &pid) &&
           send(connection, &hello, sizeof hello, MSG_NOSIGNAL) == (ssize_t)sizeof hello;
}

/* Waits for the answer; false: the host has gone, or the deadline has come. */
static bool wait_for_answer(int connection, lks__deadline *deadline, lks__answer *answer, int *out_fd)
{
    for (;;) {
        struct pollfd wait = {.fd = connection, .events = POLLIN};
        int64_t slice_ns = lks__deadline_slice(deadline), start_ns = lks__now_ns();
        if (slice_ns == 0)
            return false;
        int n = poll(&wait, 1, (int)(slice_ns / MS_NS) + 1);
        lks__deadline_spend(deadline, start_ns, slice_ns);
        if (n > 0)
            return lks__answer_receive(connection, answer, out_fd);
    }
}

static void nap(lks__deadline *deadline)
{
    int64_t start_ns = lks__now_ns();
    nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    lks__deadline_spend(deadline, start_ns, RETRY_NS);
}

lks_status lks__meeting_guest(const lks_group_config *config, const lks__place *place, int *out)
{
    lks__deadline deadline = {lks__timeout_ns(config->timeout_s)};
    lks__answer answer;
    bool answered = false, met = false;
    int connection, file = -1;
    /* Nobody there yet, or the leftover of a run that has ended: try again until the deadline. */
    while (!answered && lks__deadline_slice(&deadline) > 0) {
        if (connect_to(place, &connection)) {
            met = true;
            answered = say_hello(config, connection) &&
                       wait_for_answer(connection, &deadline, &answer, &file);
            close(connection);
        }
        if (!answered)
            nap(&deadline);
    }
    if (!answered)
        return lks__fail(LKS_E_TIMEOUT, "rank %d waited %g s at %s for %s", config->rank, config->timeout_s,
                         place->name, met ? "the other members" : "rank 0");
    if (answer.status != LKS_OK)
        return lks__fail((lks_status)answer.status, "%s", answer.text);
    *out = file;
    return LKS_OK;
}
