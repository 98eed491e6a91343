/* SPDX-License-Identifier: Apache-2.0 */
/* Operations under way: the queue of collectives, which are cut into parts, and that of messages. */
#include <string.h>

#include "base/error.h"
#include "base/machine.h"
#include "base/text.h"
#include "comm/mpi/mpi_blame.h"
#include "comm/mpi/mpi_part.h"
#include "comm/shm/shm_wait.h"

/* ---- posting ---- */

static void prepare_collective(lks__mpi_member *self, lks__mpi_task *task)
{
    const lks_operation *operation = task->operation;
    task->algorithm = lks__mpi_algorithm_of(self, operation, &task->small);
    task->number = self->n_collectives++;
    size_t most = lks__mpi_part_elems(self, task->algorithm, operation->dtype);
    task->n_parts = operation->count > 0 ? (operation->count - 1) / most + 1 : 1;
    if (task->small || !task->algorithm->reads_places || self->map.n_local == 1)
        return;
    lks__mpi_locate(self, operation->in, operation->count * lks__dtype_bytes(operation->dtype), &task->memory,
                    &task->offset);
    task->in_place = task->memory != 0 && operation->collective == LKS_ALL_REDUCE &&
                     operation->in == operation->out;
}

static void enqueue(lks__mpi_member *self, lks__mpi_task *task)
{
    bool is_message = lks__is_message(task->operation);
    lks__mpi_task **end = is_message ? &self->messages : &self->collectives;
    if (!is_message)
        prepare_collective(self, task);
    while (*end != NULL)
        end = &(*end)->next;
    *end = task;
    task->status = LKS_IN_PROGRESS;
}

/* ---- going on ---- */

/* The first collective with parts that have not begun. */
static lks__mpi_task *next_to_begin(const lks__mpi_member *self)
{
    lks__mpi_task *task = self->collectives;
    while (task != NULL && task->n_begun == task->n_parts)
        task = task->next;
    return task;
}

static lks__mpi_part *part_at(lks__mpi_member *self, uint64_t number)
{
    return &self->parts[number % LKS__MPI_WINDOW];
}

/* Goes on with the parts that have begun, the oldest first, and begins others. */
static void go_on(lks__mpi_member *self)
{
    lks__mpi_state limit = LKS__MPI_DONE;
    for (uint64_t n = self->n_done; self->engine->failure == LKS_OK; n++) {
        if (n == self->n_begun) {
            lks__mpi_task *task = next_to_begin(self);
            if (task == NULL || !lks__mpi_may_begin(self))
                return;
            lks__mpi_begin_part(self, part_at(self, n), task);
        }
        lks__mpi_part *part = part_at(self, n);
        lks__mpi_go_on(self, part, limit);
        limit = part->state;
    }
}

/* Takes finished parts, and operations of which they were the last, out. */
static void reap(lks__mpi_member *self)
{
    while (self->n_done < self->n_begun && part_at(self, self->n_done)->state == LKS__MPI_DONE) {
        lks__mpi_task *task = part_at(self, self->n_done++)->task;
        if (++task->n_done < task->n_parts)
            continue;
        self->collectives = task->next;
        task->status = LKS_OK;
        lks__mpi_tell_finished(self, task->operation);
    }
}

/* Whether somebody has left without whom the first collective cannot end. */
static void check_left(lks__mpi_member *self)
{
    for (int r = 0; r < self->group.size && self->collectives != NULL && self->n_left > 0; r++)
        if (self->peers[r].left && self->peers[r].collectives <= self->collectives->number)
            lks__mpi_fail_left(self, r);
}

static void work_on_messages(lks__mpi_member *self)
{
    for (lks__mpi_task **link = &self->messages; *link != NULL && self->engine->failure == LKS_OK;) {
        lks__mpi_task *task = *link;
        lks__mpi_work_on_message(self, task);
        if (task->status == LKS_IN_PROGRESS) {
            link = &task->next;
            continue;
        }
        *link = task->next;
        if (task->status == LKS_OK)
            lks__mpi_tell_finished(self, task->operation);
    }
}

void lks__mpi_work(lks__mpi_member *self)
{
    uint64_t before;
    do {
        before = self->n_done;
        go_on(self);
        if (self->engine->failure != LKS_OK)
            return;
        reap(self);
    } while (self->n_done != before);
    work_on_messages(self);
    check_left(self);
}

void lks__mpi_end_tasks(lks__mpi_member *self, lks_status failure)
{
    for (uint64_t n = self->n_done; n < self->n_begun; n++)
        lks__mpi_end_part(self, part_at(self, n));
    self->n_done = self->n_begun;
    for (lks__mpi_task *task = self->collectives; task != NULL; task = task->next)
        task->status = failure;
    for (lks__mpi_task *task = self->messages; task != NULL; task = task->next) {
        lks__mpi_end_message(self, task);
        task->status = failure;
    }
    self->collectives = self->messages = NULL;
    self->moves++;
}

/* ---- waiting ---- */

/* What holds the task up: itself, or the collective that must be done before. */
static const lks_operation *what_waits(const lks__mpi_member *self, const lks__mpi_task *task)
{
    bool behind = !lks__is_message(task->operation) && self->collectives != NULL;
    return behind ? self->collectives->operation : task->operation;
}

static int64_t slice_since(int64_t start_ns, int64_t now_ns)
{
    return now_ns - start_ns < LKS__SLICE_NS ? now_ns - start_ns : LKS__SLICE_NS;
}

/* Ends all if the task has been waited for too long. */
static void check_deadline(lks__mpi_member *self, const lks__mpi_task *task, int64_t waited_ns)
{
    int64_t timeout_ns = self->engine->timeout_ns;
    if (waited_ns < timeout_ns)
        return;
    lks__mpi_ask(self, task);
    if (waited_ns - timeout_ns >= lks__mpi_grace_ns(self, task))
        lks__mpi_fail_timeout(self, task);
    (void)lks__mpi_progress(self->engine); /* ends the tasks */
}

/* Returns the task's status, and sets the message of a failure. */
static lks_status outcome(const lks__mpi_member *self, const lks__mpi_task *task,
                          const lks_operation *operation)
{
    bool failed = task->status != LKS_OK && task->status != LKS_IN_PROGRESS;
    return failed ? lks__mpi_failure(self, operation, true) : task->status;
}

/* Goes on with everything until the task is done. */
static lks_status finish(lks__mpi_member *self, lks__mpi_task *task)
{
    lks__mpi_engine *engine = self->engine;
    lks__mpi_idler idler = {.spins = self->has_core};
    const lks_operation *waits = task->operation;
    int64_t waited_ns = 0, last_ns = 0;
    uint64_t moves = 0;
    engine->drivers++;
    while (task->status == LKS_IN_PROGRESS) {
        waits = what_waits(self, task);
        (void)lks__mpi_progress(engine);
        if (task->status != LKS_IN_PROGRESS)
            break;
        int64_t now_ns = lks__now_ns();
        if (self->moves != moves || last_ns == 0) {
            idler.start_ns = waited_ns = 0;
            moves = self->moves;
        } else {
            waited_ns += slice_since(last_ns, now_ns);
            check_deadline(self, task, waited_ns);
        }
        last_ns = now_ns;
        if (task->status != LKS_IN_PROGRESS)
            break;
        pthread_mutex_unlock(&engine->lock);
        lks__mpi_idle(&idler);
        pthread_mutex_lock(&engine->lock);
    }
    engine->drivers--;
    lks__mpi_hand_over(engine);
    return outcome(self, task, waits);
}

/* ---- what others call ---- */

/* Posts it, unless all has failed. */
static lks_status post(lks__mpi_member *self, lks__mpi_task *task, const lks_operation *operation)
{
    *task = (lks__mpi_task){.operation = operation};
    (void)lks__mpi_progress(self->engine);
    if (self->engine->failure != LKS_OK)
        return lks__mpi_failure(self, operation, false);
    enqueue(self, task);
    return LKS_OK;
}

lks_status lks__mpi_run(lks_group *group, const lks_operation *operation)
{
    lks__mpi_member *self = lks__mpi_member_of(group);
    lks__mpi_task task;
    pthread_mutex_lock(&self->engine->lock);
    lks_status status = post(self, &task, operation);
    if (status == LKS_OK)
        status = finish(self, &task);
    pthread_mutex_unlock(&self->engine->lock);
    return status;
}

lks_status lks__mpi_post(lks_group *group, const lks_operation *operation, void *posted)
{
    lks__mpi_member *self = lks__mpi_member_of(group);
    lks__mpi_task *task = posted;
    pthread_mutex_lock(&self->engine->lock);
    lks_status status = post(self, task, operation);
    if (status == LKS_OK) {
        (void)lks__mpi_progress(self->engine);
        status = outcome(self, task, operation);
        lks__mpi_hand_over(self->engine);
    }
    pthread_mutex_unlock(&self->engine->lock);
    return status == LKS_IN_PROGRESS ? LKS_OK : status;
}

lks_status lks__mpi_test(lks_group *group, void *posted)
{
    lks__mpi_member *self = lks__mpi_member_of(group);
    lks__mpi_task *task = posted;
    pthread_mutex_lock(&self->engine->lock);
    const lks_operation *waits = what_waits(self, task);
    (void)lks__mpi_progress(self->engine);
    if (task->status == LKS_IN_PROGRESS) {
        int64_t now_ns = lks__now_ns();
        if (task->tested_ns != 0)
            task->waited_ns += slice_since(task->tested_ns, now_ns);
        task->tested_ns = now_ns;
        check_deadline(self, task, task->waited_ns);
    }
    lks_status status = outcome(self, task, waits);
    lks__mpi_hand_over(self->engine);
    pthread_mutex_unlock(&self->engine->lock);
    return status;
}

lks_status lks__mpi_wait(lks_group *group, void *task)
{
    lks__mpi_member *self = lks__mpi_member_of(group);
    pthread_mutex_lock(&self->engine->lock);
    lks_status status = finish(self, task);
    pthread_mutex_unlock(&self->engine->lock);
    return status;
}

/* ---- the group's own operations ---- */

lks_status lks__mpi_exchange(lks__mpi_member *self, lks_collective collective, const uint64_t *own,
                             size_t count, uint64_t *all)
{
    lks_operation operation = {collective, LKS_I64, LKS_SUM, 0, count, own, all};
    return lks__mpi_run(&self->group, &operation);
}

lks_status lks__mpi_all_succeeded(lks__mpi_member *self, lks_collective collective, lks_status own)
{
    uint64_t succeeded = own == LKS_OK, all[LKS_GROUP_MAX_SIZE];
    char text[512] = "";
    if (own != LKS_OK) /* the exchange may set another message */
        lks__append(text, sizeof text, "%s", lks_error_message());
    lks_status status = lks__mpi_exchange(self, collective, &succeeded, 1, all);
    if (status != LKS_OK)
        return status;
    if (own != LKS_OK)
        return lks__fail(own, "%s", text);
    for (int r = 0; r < self->group.size; r++)
        if (all[r] == 0)
            return lks__fail(LKS_E_NOMEM, "out of memory: rank %d could not get its part", r);
    return LKS_OK;
}
