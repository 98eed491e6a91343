/* SPDX-License-Identifier: Apache-2.0 */
/* A thread that sleeps until a member's process ends. A process that ends without having left is a failure of
 * the group. It starts after the barrier at which all process numbers are known, so every number names a
 * process that was a member a moment ago; that the number could go to another process in between needs all
 * numbers to be used up in that moment, and then the deadline of the next wait still ends the group. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "comm/shm/process_end.h"
#include "comm/shm/shm_member.h"

enum { LOOK_MS = 200 }; /* between looks, where the kernel does not tell of a process by itself */

struct lks__watcher {
    lks__shm_member *member; /* outlives the watcher */
    pthread_t thread;
    int n_members;
    bool must_look;        /* some process could not be opened */
    struct pollfd stop;    /* an eventfd: readable when the thread shall end; followed by one per member */
    struct pollfd peers[]; /* [n_members]; fd -1: nothing to watch */
};

_Static_assert(offsetof(struct lks__watcher, peers) ==
                   offsetof(struct lks__watcher, stop) + sizeof(struct pollfd),
               "stop and peers are one array for poll()");

static void ended(lks__watcher *self, int rank)
{
    lks__shm_member *member = self->member;
    const lks__shm_slot *slot = lks__shm_slot_of(member, rank);
    pid_t pid = (pid_t)atomic_load_explicit(&slot->pid, memory_order_relaxed);
    char who[LKS__WHO_BYTES], end[LKS__END_BYTES];
    /* acquire: what the process did before it ended */
    if (atomic_load_explicit(&slot->state, memory_order_acquire) == LKS__SHM_JOINED)
        lks__shm_poison(member, LKS__BY_WATCHER, LKS_E_PEER, "%s %s", lks__shm_who(member, rank, who),
                        lks__process_end_text(pid, self->peers[rank].fd, end));
    close(self->peers[rank].fd);
    self->peers[rank].fd = -1;
}

static void *watch(void *argument)
{
    lks__watcher *self = argument;
    for (;;) {
        int n = poll(&self->stop, 1 + (nfds_t)self->n_members, self->must_look ? LOOK_MS : -1);
        if (n < 0) /* interrupted; or no memory for a moment */
            continue;
        if (self->stop.revents != 0)
            return NULL;
        for (int r = 0; r < self->n_members; r++)
            if (self->peers[r].fd >= 0 && self->peers[r].revents != 0)
                ended(self, r);
        if (self->must_look)
            lks__shm_poison_if_dead(self->member, LKS__BY_WATCHER);
    }
}

static void open_peers(lks__watcher *self)
{
    for (int r = 0; r < self->n_members; r++) {
        /* relaxed: ordered by the barrier before */
        pid_t pid = (pid_t)atomic_load_explicit(&lks__shm_slot_of(self->member, r)->pid,
                                                memory_order_relaxed);
        self->peers[r] = (struct pollfd){.fd = -1, .events = POLLIN};
        if (pid == getpid())
            continue;
        self->peers[r].fd = lks__process_open(pid);
        if (self->peers[r].fd < 0)
            self->must_look = true;
    }
}

static void watcher_free(lks__watcher *self)
{
    for (int r = 0; r < self->n_members; r++)
        if (self->peers[r].fd >= 0)
            close(self->peers[r].fd);
    if (self->stop.fd >= 0)
        close(self->stop.fd);
    lks__free(self);
}

/* The program's signals are for its own threads. */
static int start_thread(lks__watcher *self)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&self->thread, NULL, watch, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

lks_status lks__watcher_start(lks__shm_member *member, lks__watcher **out)
{
    int n_members = member->group.size;
    lks__watcher *self = lks__alloc(sizeof *self + (size_t)n_members * sizeof self->peers[0], LKS__MEM_COMM);
    if (self == NULL)
        return LKS_E_NOMEM;
    self->member = member;
    self->n_members = n_members;
    open_peers(self);
    self->stop = (struct pollfd){.fd = eventfd(0, EFD_CLOEXEC), .events = POLLIN};
    int error = self->stop.fd < 0 ? errno : start_thread(self);
    if (error != 0) {
        watcher_free(self);
        return lks__fail_errno(LKS_E_SYSTEM, error, "cannot start the thread that watches the other members");
    }
    *out = self;
    return LKS_OK;
}

void lks__watcher_stop(lks__watcher *self)
{
    if (self == NULL)
        return;
    eventfd_write(self->stop.fd, 1);
    pthread_join(self->thread, NULL);
    watcher_free(self);
}
