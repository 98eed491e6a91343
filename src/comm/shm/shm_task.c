/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/shm/shm_task.h"

#include "base/machine.h"
#include "comm/shm/shm_bell.h"
#include "comm/shm/shm_blame.h"

/* ---- one collective ---- */

static lks__piece take_piece(lks__shm_member *self, const lks__shm_task *task, bool in_rows)
{
    const lks_operation *operation = task->operation;
    int size = self->group.size;
    size_t bytes = lks__stage_part_bytes(size) * (in_rows ? 1 : (size_t)size);
    size_t most = bytes / lks__dtype_bytes(operation->dtype), left = operation->count - task->done;
    lks__piece p = {.first = task->done, .n = left < most ? left : most};
    if (p.n > 0) {
        p.half = (int)(self->turn % LKS__STAGE_HALVES);
        p.use = (int)((uint32_t)(self->turn / LKS__STAGE_HALVES) % (2 * (uint32_t)size));
        self->turn++;
    }
    return p;
}

/* Stages the next piece, which may be empty, and comes to its barrier. */
static void enter(lks__shm_member *self, lks__shm_task *task)
{
    const lks__algorithm *algorithm = lks__shm_algorithm(self, task->operation);
    task->present = take_piece(self, task, algorithm->in_rows);
    if (task->present.n > 0)
        algorithm->stage(self, task->operation, &task->present);
    task->entered = lks__shm_arrive(self, task->operation);
}

static void start(lks__shm_member *self, lks__shm_task *task)
{
    task->started = true;
    if (lks__shm_algorithm(self, task->operation)->reduce != NULL) {
        task->exchanges = true;
        task->offer = lks__shm_place_offer(self, task->operation);
    }
    if (task->exchanges) {
        self->exchanges++;
        /* relaxed: published by the barrier. In turns, for the reason given in shm_staging.h. */
        atomic_store_explicit(&lks__shm_slot_of(self, self->group.rank)->offers[self->exchanges % 2],
                              task->offer, memory_order_relaxed);
    }
    enter(self, task);
}

/* The barrier of the present piece has been passed. Returns: LKS_OK: that was the last one. */
static lks_status advance(lks__shm_member *self, lks__shm_task *task)
{
    const lks__algorithm *algorithm = lks__shm_algorithm(self, task->operation);
    if (task->in_place)
        return LKS_OK;
    if (algorithm->reduce != NULL && task->present.n > 0 && task->present.first == 0) {
        lks_status status = lks__shm_reduce_in_place(self, task->operation);
        if (status != LKS_OK && status != LKS_IN_PROGRESS)
            return status;
        if (status == LKS_IN_PROGRESS) {
            task->in_place = true;
            task->done = task->operation->count;
            enter(self, task);
            return LKS_IN_PROGRESS;
        }
    }
    lks__piece ready = task->present; /* to be fetched */
    if (algorithm->reduce != NULL) {
        if (task->present.n > 0)
            algorithm->reduce(self, task->operation, &task->present);
        ready = task->before;
        task->before = task->present;
    }
    if (ready.n > 0)
        algorithm->fetch(self, task->operation, &ready);
    task->done += task->present.n;
    if (task->done == task->operation->count && task->before.n == 0)
        return LKS_OK;
    enter(self, task);
    return LKS_IN_PROGRESS;
}

/* As far as it goes without waiting. */
static lks_status work_on_collective(lks__shm_member *self, lks__shm_task *task)
{
    if (!task->started)
        start(self, task);
    lks_status status;
    do {
        status = lks__shm_barrier_test(self, task->operation, task->entered);
        if (status != LKS_OK)
            return status;
        status = advance(self, task);
    } while (status == LKS_IN_PROGRESS);
    return status;
}

/* ---- the queue ---- */

/* The group has failed, and with it all that was under way. Returns the failure. */
static lks_status fail_all(lks__shm_member *self, lks_status failure)
{
    for (lks__shm_task *task = self->queue; task != NULL; task = task->next)
        task->status = failure;
    self->queue = NULL;
    return failure;
}

/* Whether an earlier message between the same two members, in the same direction, is under way. */
static bool must_wait(const lks__shm_member *self, const lks__shm_task *task)
{
    const lks__shm_task *earlier = self->queue;
    while (earlier != task && (earlier->operation->collective != task->operation->collective ||
                               earlier->operation->root != task->operation->root))
        earlier = earlier->next;
    return earlier != task;
}

/* Goes on with all that may go on: the first collective, and the first message of each channel. Returns:
 * LKS_OK: nothing is under way any more; LKS_IN_PROGRESS; a failure of the group. */
static lks_status work(lks__shm_member *self)
{
    bool collective_waits = false;
    for (lks__shm_task **link = &self->queue; *link != NULL;) {
        lks__shm_task *task = *link;
        lks_status status = LKS_IN_PROGRESS;
        if (lks__is_message(task->operation)) {
            if (!must_wait(self, task))
                status = lks__shm_work_on_message(self, task);
        } else if (!collective_waits) {
            status = work_on_collective(self, task);
            collective_waits = status == LKS_IN_PROGRESS;
        }
        if (status == LKS_IN_PROGRESS) {
            link = &task->next;
        } else if (status == LKS_OK) {
            task->status = LKS_OK;
            *link = task->next;
            if (!task->is_step)
                lks__shm_tell_finished(self, task->operation);
        } else {
            return fail_all(self, status);
        }
    }
    return self->queue == NULL ? LKS_OK : LKS_IN_PROGRESS;
}

static lks_status enqueue(lks__shm_member *self, lks__shm_task *task)
{
    if (task->operation->collective == LKS_SEND) {
        lks_status status = lks__shm_open_mail(self);
        if (status != LKS_OK)
            return status;
    }
    lks__shm_task **end = &self->queue;
    while (*end != NULL)
        end = &(*end)->next;
    *end = task;
    task->status = LKS_IN_PROGRESS;
    return LKS_OK;
}

/* ---- waiting ---- */

static lks__shm_task *first_collective(const lks__shm_member *self)
{
    lks__shm_task *task = self->queue;
    while (task != NULL && lks__is_message(task->operation))
        task = task->next;
    return task;
}

static bool has_messages(const lks__shm_member *self)
{
    const lks__shm_task *task = self->queue;
    while (task != NULL && !lks__is_message(task->operation))
        task = task->next;
    return task != NULL;
}

/* What holds the task up: itself, or the collective that must be done before. */
static const lks_operation *what_waits(const lks__shm_member *self, const lks__shm_task *task)
{
    return lks__is_message(task->operation) ? task->operation : first_collective(self)->operation;
}

static lks_status too_late(lks__shm_member *self, const lks__shm_task *task)
{
    const lks_operation *operation = what_waits(self, task);
    lks__shm_poison_timeout(self, operation);
    return fail_all(self, lks__shm_failure(self, operation, true));
}

/* A barrier and a bell cannot be slept on together: with both under way the barrier is looked at often. */
static lks_status wait_for_bell(lks__shm_member *self, const lks__shm_task *task, lks__shm_idler *idler,
                                uint32_t bell)
{
    const int64_t often_ns = 200 * 1000;
    const lks__shm_task *collective = first_collective(self);
    int64_t most_ns = collective != NULL ? often_ns : LKS__SLICE_NS;
    if (collective != NULL && collective->entered != idler->barrier) {
        idler->barrier = collective->entered;
        idler->start_ns = 0;
    }
    lks__shm_tell_wait(self, what_waits(self, task));
    bool in_time = lks__shm_idle(self, idler, bell, most_ns);
    lks__shm_tell_wait(self, NULL);
    return in_time ? LKS_IN_PROGRESS : too_late(self, task);
}

/* Works on the queue until the task is done. */
static lks_status finish(lks__shm_member *self, lks__shm_task *task)
{
    lks__shm_idler idler = {.start_ns = 0};
    while (task->status == LKS_IN_PROGRESS) {
        uint32_t bell = lks__shm_bell(self);
        lks_status status = work(self);
        if (task->status != LKS_IN_PROGRESS)
            return task->status;
        if (has_messages(self)) {
            status = wait_for_bell(self, task, &idler, bell);
        } else {
            const lks__shm_task *first = first_collective(self);
            status = lks__shm_barrier_wait(self, first->operation, first->entered);
        }
        if (status != LKS_OK && status != LKS_IN_PROGRESS)
            return fail_all(self, status);
    }
    return task->status;
}

/* ---- what others call ---- */

static lks_status run_task(lks__shm_member *self, lks__shm_task task)
{
    lks_status status = enqueue(self, &task);
    return status == LKS_OK ? finish(self, &task) : status;
}

lks_status lks__shm_run(lks_group *group, const lks_operation *operation)
{
    return run_task(lks__shm_member_of(group), (lks__shm_task){.operation = operation});
}

lks_status lks__shm_post(lks_group *group, const lks_operation *operation, void *task)
{
    lks__shm_member *self = lks__shm_member_of(group);
    lks__shm_task *posted = task;
    *posted = (lks__shm_task){.operation = operation, .deadline = {self->timeout_ns}};
    lks_status status = enqueue(self, posted);
    if (status == LKS_OK)
        status = work(self);
    return status == LKS_IN_PROGRESS ? LKS_OK : status;
}

lks_status lks__shm_test(lks_group *group, void *posted)
{
    lks__shm_member *self = lks__shm_member_of(group);
    lks__shm_task *task = posted;
    lks_status status = work(self);
    if (task->status != LKS_IN_PROGRESS || status != LKS_IN_PROGRESS) {
        lks__shm_tell_wait(self, NULL);
        return task->status != LKS_IN_PROGRESS ? task->status : status;
    }
    lks__shm_tell_wait(self, what_waits(self, task));
    int64_t now_ns = lks__now_ns();
    if (task->tested_ns != 0)
        lks__deadline_spend(&task->deadline, task->tested_ns, LKS__SLICE_NS);
    task->tested_ns = now_ns;
    return lks__deadline_slice(&task->deadline) > 0 ? LKS_IN_PROGRESS : too_late(self, task);
}

lks_status lks__shm_wait(lks_group *group, void *task)
{
    return finish(lks__shm_member_of(group), task);
}

lks_status lks__shm_exchange(lks__shm_member *self, const lks_operation *operation, uint64_t offer)
{
    return run_task(
        self, (lks__shm_task){.operation = operation, .is_step = true, .exchanges = true, .offer = offer});
}

uint64_t lks__shm_offer(const lks__shm_member *self, int rank)
{
    return atomic_load_explicit(&lks__shm_slot_of(self, rank)->offers[self->exchanges % 2],
                                memory_order_relaxed);
}
