/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/shm/shm_task.h"

/* ---- one collective ---- */

static lks__piece take_piece(lks__shm_member *self, const lks__shm_task *task, bool in_rows)
{
    const lks_operation *operation = task->operation;
    size_t bytes = in_rows ? lks__stage_row_bytes(self->group.size) : LKS__STAGE_BYTES;
    size_t most = bytes / lks__dtype_bytes(operation->dtype), left = operation->count - task->done;
    lks__piece p = {.first = task->done, .n = left < most ? left : most};
    if (p.n > 0)
        p.half = (int)(self->turn++ % LKS__STAGE_HALVES);
    return p;
}

/* Stages the next piece, which may be empty, and comes to its barrier. */
static void enter(lks__shm_member *self, lks__shm_task *task)
{
    const lks__algorithm *algorithm = lks__shm_algorithm(task->operation);
    task->present = take_piece(self, task, algorithm->in_rows);
    if (task->present.n > 0)
        algorithm->stage(self, task->operation, &task->present);
    task->entered = lks__shm_arrive(self, task->operation);
}

static void start(lks__shm_member *self, lks__shm_task *task)
{
    task->started = true;
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
    const lks__algorithm *algorithm = lks__shm_algorithm(task->operation);
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

void lks__shm_post(lks__shm_member *self, lks__shm_task *task)
{
    lks__shm_task **end = &self->queue;
    while (*end != NULL)
        end = &(*end)->next;
    *end = task;
    task->next = NULL;
    task->status = LKS_IN_PROGRESS;
}

/* The group has failed, and with it all that was under way. Returns the failure. */
static lks_status fail_all(lks__shm_member *self, lks_status failure)
{
    for (lks__shm_task *task = self->queue; task != NULL; task = task->next)
        task->status = failure;
    self->queue = NULL;
    return failure;
}

/* Works on everything that may go on. */
static lks_status work(lks__shm_member *self)
{
    while (self->queue != NULL) {
        lks__shm_task *task = self->queue;
        lks_status status = work_on_collective(self, task);
        if (status == LKS_IN_PROGRESS)
            return LKS_IN_PROGRESS;
        if (status != LKS_OK)
            return fail_all(self, status);
        self->queue = task->next;
        task->status = LKS_OK;
    }
    return LKS_OK;
}

lks_status lks__shm_finish(lks__shm_member *self, lks__shm_task *task)
{
    while (task->status == LKS_IN_PROGRESS) {
        lks_status status = work(self);
        if (status == LKS_IN_PROGRESS)
            status = lks__shm_barrier_wait(self, self->queue->operation, self->queue->entered);
        if (status != LKS_OK)
            return fail_all(self, status);
    }
    return task->status;
}

lks_status lks__shm_run(lks_group *group, const lks_operation *operation)
{
    lks__shm_member *self = lks__shm_member_of(group);
    lks__shm_task task = {.operation = operation};
    lks__shm_post(self, &task);
    return lks__shm_finish(self, &task);
}

lks_status lks__shm_exchange(lks__shm_member *self, const lks_operation *operation, uint64_t offer)
{
    lks__shm_task task = {.operation = operation, .exchanges = true, .offer = offer};
    lks__shm_post(self, &task);
    return lks__shm_finish(self, &task);
}

uint64_t lks__shm_offer(const lks__shm_member *self, int rank)
{
    return atomic_load_explicit(&lks__shm_slot_of(self, rank)->offers[self->exchanges % 2],
                                memory_order_relaxed);
}
