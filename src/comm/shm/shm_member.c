/* SPDX-License-Identifier: Apache-2.0 */
/* Joining and leaving. */
#define _GNU_SOURCE /* F_DUPFD_CLOEXEC */

#include "comm/shm/shm_member.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/machine.h"
#include "comm/available.h"
#include "comm/shm/shm_bell.h"
#include "comm/shm/shm_task.h"
#include "comm/shm/shm_wait.h"

static const lks_operation create_operation = {.collective = LKS__CREATE};

/* ---- leaving ---- */

/* Puts the file back into its first state, so that the same members can make another group of it. Only the
 * last one that leaves does so; whoever comes for the next group waits for the word, which is cleared last.
 */
static void reset(lks__shm_member *self)
{
    lks__shm_control *control = self->control;
    size_t start = lks__shm_control_bytes(self->group.size);
    size_t end = lks__shm_fixed_bytes(self->group.size) +
                 (size_t)atomic_load_explicit(&control->handed_out, memory_order_relaxed);
    lks__segment_release(self->segment, start, end - start);
    /* relaxed: published by the release of the word */
    for (int r = 0; r < self->group.size; r++) {
        lks__shm_slot *slot = lks__shm_slot_of(self, r);
        atomic_store_explicit(&slot->state, LKS__SHM_ABSENT, memory_order_relaxed);
        atomic_store_explicit(&slot->arrivals, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->has_mail, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->finished, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->waits_in, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->what, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->count, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->pid, 0, memory_order_relaxed);
    }
    atomic_store_explicit(&control->poisoner, 0, memory_order_relaxed);
    atomic_store_explicit(&control->outsider, 0, memory_order_relaxed);
    atomic_store_explicit(&control->n_left, 0, memory_order_relaxed);
    atomic_store_explicit(&control->handed_out, 0, memory_order_relaxed);
    atomic_store_explicit(&control->crowded, 0, memory_order_relaxed);
    atomic_store_explicit(&control->size, 0, memory_order_relaxed);
    atomic_store_explicit(&control->version, 0, memory_order_relaxed);
    atomic_store_explicit(&control->word, 0, memory_order_release);
}

static void leave(lks__shm_member *self)
{
    lks__shm_control *control = self->control;
    char who[LKS__WHO_BYTES];
    /* release: after this member's last message; for barriers it is published by the LEFT bit */
    atomic_store_explicit(&lks__shm_slot_of(self, self->group.rank)->state, LKS__SHM_LEFT,
                          memory_order_release);
    /* Either members that wait now are seen here, or they see the bit when they come. */
    uint32_t seen = atomic_fetch_or_explicit(&control->word, LKS__WORD_LEFT, memory_order_acq_rel);
    if ((seen & LKS__WORD_ARRIVED) > 0 && (seen & LKS__WORD_POISON) == 0)
        lks__shm_poison(self, LKS__BY_MEMBER, LKS_E_PEER, "%s left the group",
                        lks__shm_who(self, self->group.rank, who));
    lks__shm_ring_all(self);
    /* acq_rel: the last one writes after all the others are done */
    uint32_t before = atomic_fetch_add_explicit(&control->n_left, 1, memory_order_acq_rel);
    if (before + 1 < (uint32_t)self->group.size)
        return;
    if (self->family == NULL)
        reset(self);
    else
        lks__segment_release(self->segment, self->base, lks__shm_fixed_bytes(self->group.size));
}

bool lks__shm_has_failed(const lks_group *group)
{
    const lks__shm_member *self = (const lks__shm_member *)group;
    /* relaxed: nothing else is read for it */
    uint32_t word = atomic_load_explicit(&self->control->word, memory_order_relaxed);
    return (word & LKS__WORD_POISON) != 0;
}

static void shm_destroy(lks_group *group)
{
    lks__shm_member *self = lks__shm_member_of(group);
    lks__watcher_stop(self->watcher);
    if (self->joined)
        leave(self);
    if (self->control != NULL)
        lks__segment_unmap(self->segment, self->base);
    lks__segment_put(self->segment);
    lks__free(self);
}

const lks__backend lks__shm_backend = {
    .run = lks__shm_run,
    .task_bytes = sizeof(lks__shm_task),
    .post = lks__shm_post,
    .test = lks__shm_test,
    .wait = lks__shm_wait,
    .split = lks__shm_split,
    .memory_create = lks__shm_memory_create,
    .memory_destroy = lks__shm_memory_destroy,
    .failed_by = lks__shm_failed_by,
    .destroy = shm_destroy,
};

/* ---- joining ---- */

static lks_status reserve(lks__segment *segment, size_t start, size_t bytes)
{
    lks_status status = lks__check_file_size(start + bytes);
    return status == LKS_OK ? lks__segment_reserve(segment, start, bytes) : status;
}

lks_status lks__shm_member_create(lks__segment *segment, size_t base, int rank, int size,
                                  lks__shm_member **out)
{
    lks_status status = reserve(segment, base, LKS__PAGE_BYTES);
    if (status != LKS_OK)
        return status;
    lks__shm_member *self = lks__alloc(sizeof *self, LKS__MEM_COMM);
    if (self == NULL)
        return LKS_E_NOMEM;
    self->group.backend = &lks__shm_backend;
    self->group.rank = rank;
    self->group.size = size;
    self->segment = lks__segment_get(segment);
    self->base = base;
    self->has_core = size <= lks__group_cores();
    void *control;
    status = lks__segment_map(segment, base, lks__shm_fixed_bytes(size), &control);
    if (status != LKS_OK) {
        shm_destroy(&self->group);
        return status;
    }
    self->control = control;
    *out = self;
    return LKS_OK;
}

/* The first to come says what must be equal; true: we are the first, or agree. */
static bool agree(_Atomic uint32_t *shared, uint32_t own)
{
    uint32_t there = 0;
    /* relaxed: the number itself is all that is told */
    return atomic_compare_exchange_strong_explicit(shared, &there, own, memory_order_relaxed,
                                                   memory_order_relaxed) ||
           there == own;
}

/* Ends the group for those who have joined or will: they would wait for us in vain. Returns `status`. */
static lks_status refuse(lks__shm_member *self, lks_status status)
{
    lks__shm_poison(self, LKS__BY_OUTSIDER, status, "%s", lks_error_message());
    return status;
}

lks_status lks__shm_claim_slot(lks__shm_member *self)
{
    lks__shm_control *control = self->control;
    int rank = self->group.rank, size = self->group.size;
    if (!agree(&control->version, LKS__SHM_VERSION))
        return lks__fail(LKS_E_ARG,
                         "the memory file of the group is of another version of lockstep, or none at all");
    lks_status status = reserve(self->segment, self->base, lks__shm_control_bytes(size));
    if (status != LKS_OK)
        return refuse(self, lks__fail(status, "rank %d cannot join: %s", rank, lks_error_message()));
    if (!agree(&control->size, (uint32_t)size))
        return refuse(self, lks__fail(LKS_E_ARG, "rank %d says that the group has %d members, others say %u",
                                      rank, size, (unsigned)control->size));
    lks__shm_slot *slot = lks__shm_slot_of(self, rank);
    int32_t pid = (int32_t)getpid(), owner = 0;
    /* acquire: after a reset by another process */
    if (!atomic_compare_exchange_strong_explicit(&slot->pid, &owner, pid, memory_order_acquire,
                                                 memory_order_acquire))
        return refuse(self, lks__fail(LKS_E_ARG, "two members say that they are rank %d: processes %d and %d",
                                      rank, (int)owner, (int)pid));
    self->joined = true;
    if (!self->has_core) /* relaxed: published by the first barrier */
        atomic_store_explicit(&control->crowded, 1, memory_order_relaxed);
    /* relaxed: for people */
    atomic_store_explicit(&slot->family_rank,
                          (uint32_t)(self->family != NULL ? self->family->group.rank : rank),
                          memory_order_relaxed);
    /* release: pid before state */
    atomic_store_explicit(&slot->state, LKS__SHM_JOINED, memory_order_release);
    return LKS_OK;
}

/* While members of an earlier group of this file are still about to leave it, the next one cannot start. */
static lks_status wait_for_earlier_group(lks__shm_member *self)
{
    const int64_t pause_ns = 1000 * 1000;
    lks__deadline deadline = {self->timeout_ns};
    for (;;) {
        /* acquire: pairs with reset() */
        uint32_t word = atomic_load_explicit(&self->control->word, memory_order_acquire);
        if ((word & LKS__WORD_POISON) != 0)
            return lks__shm_failure(self, &create_operation, false);
        if ((word & LKS__WORD_LEFT) == 0)
            return LKS_OK;
        if (lks__deadline_slice(&deadline) == 0)
            return lks__fail(LKS_E_TIMEOUT,
                             "rank %d waited %g s for the end of an earlier group of the same members",
                             self->group.rank, (double)self->timeout_ns * 1e-9);
        int64_t start_ns = lks__now_ns();
        lks__futex_sleep(&self->control->word, word, pause_ns);
        lks__deadline_spend(&deadline, start_ns, pause_ns);
    }
}

/* Whether all can wait without taking a core from one that works, now that their numbers are known. */
static bool each_has_core(const lks__shm_member *self)
{
    pid_t pids[LKS_GROUP_MAX_SIZE];
    for (int r = 0; r < self->group.size; r++)
        pids[r] = atomic_load_explicit(&lks__shm_slot_of(self, r)->pid,
                                       memory_order_relaxed); /* see barrier */
    return self->group.size <= lks__cores_of(self->group.size, pids);
}

/* Two barriers: after the first all process numbers are known, after the second everybody watches everybody.
 */
static lks_status join(lks__shm_member *self)
{
    lks_status status = wait_for_earlier_group(self);
    if (status == LKS_OK)
        status = lks__shm_claim_slot(self);
    if (status == LKS_OK)
        status = lks__shm_barrier(self, &create_operation);
    if (status == LKS_OK)
        self->has_core = self->has_core || each_has_core(self);
    if (status == LKS_OK)
        status = lks__watcher_start(self, &self->watcher);
    if (status == LKS_OK)
        status = lks__shm_barrier(self, &create_operation);
    return status;
}

static lks_status open_segment(const lks_group_config *config, lks__segment **out)
{
    int fd;
    struct stat about;
    if (config->fd >= 0) {
        fd = fcntl(config->fd, F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            return lks__fail_errno(LKS_E_ARG, errno, "the memory file of the group, number %d, is not open",
                                   config->fd);
    } else {
        lks_status status = lks__shm_meet(config, &fd);
        if (status != LKS_OK)
            return status;
    }
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
        close(fd);
        return lks__fail(LKS_E_ARG, "file number %d is not a memory file that a group could use", config->fd);
    }
    return lks__segment_create(fd, out);
}

lks_status lks__shm_create(const lks_group_config *config, lks_group **out)
{
    lks__segment *segment;
    lks__shm_member *self;
    lks_status status = open_segment(config, &segment);
    if (status != LKS_OK)
        return status;
    status = lks__shm_member_create(segment, 0, config->rank, config->size, &self);
    lks__segment_put(segment);
    if (status != LKS_OK)
        return status;
    self->timeout_ns = lks__timeout_ns(config->timeout_s);
    status = join(self);
    if (status != LKS_OK) {
        lks__group_create_failed(lks__shm_failed_by(&self->group));
        shm_destroy(&self->group);
        return status;
    }
    *out = &self->group;
    return LKS_OK;
}

lks_status lks__shm_create_threads(int size, double timeout_s, lks_group **members)
{
    lks__segment *segment = NULL;
    lks_status status = lks__segment_create_new(&segment);
    for (int r = 0; r < size && status == LKS_OK; r++) {
        lks__shm_member *self;
        status = lks__shm_member_create(segment, 0, r, size, &self);
        if (status != LKS_OK)
            break;
        self->timeout_ns = lks__timeout_ns(timeout_s);
        self->same_process = true;
        members[r] = &self->group;
        status = lks__shm_claim_slot(self);
    }
    lks__segment_put(segment); /* the members have their own references */
    if (status != LKS_OK)
        for (int r = 0; r < size; r++) {
            lks_group_destroy(members[r]);
            members[r] = NULL;
        }
    return status;
}
