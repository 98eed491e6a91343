/* SPDX-License-Identifier: Apache-2.0 */
#include "train/checkpoint_writer.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/error.h"

enum { MESSAGE_BYTES = 1024 };

struct lks__checkpoint_writer {
    const lks_trainer *trainer;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* files or ends */
    /* guarded by mutex */
    unsigned files; /* to write; 0: nothing is posted, and the snapshot is the step loop's */
    bool ends;
    lks_status status; /* of the last write that nobody has asked for yet */
    char message[MESSAGE_BYTES];
};

static lks_status write_file(const lks_trainer *t, const char *name)
{
    char *path = lks__run_dir_path(t->run_dir, name);
    if (path == NULL)
        return LKS_E_NOMEM;
    lks_status status = lks__snapshot_write(t->snapshot, t, path);
    lks__free(path);
    return status;
}

/* The best one first: a run that goes on from the numbered one relies on what that says of the best. */
static lks_status write_files(const lks_trainer *t, unsigned files)
{
    int64_t step = lks__snapshot_step(t->snapshot);
    char name[LKS__CHECKPOINT_NAME_BYTES];
    lks__checkpoint_name(step, name);
    lks_status status = LKS_OK;
    if ((files & LKS__CHECKPOINT_BEST) != 0)
        status = write_file(t, LKS__BEST_CHECKPOINT);
    if (status != LKS_OK || (files & LKS__CHECKPOINT_NUMBERED) == 0)
        return status;
    status = write_file(t, name);
    if (status == LKS_OK && (files & LKS__CHECKPOINT_DROP_NONE) == 0) /* only now that the new one is whole */
        status = lks__run_dir_drop_checkpoints(t->run_dir, t->config.checkpoint_keep, step);
    return status;
}

static void *run_writer(void *argument)
{
    lks__checkpoint_writer *self = argument;
    pthread_mutex_lock(&self->mutex);
    for (;;) {
        while (self->files == 0 && !self->ends)
            pthread_cond_wait(&self->changed, &self->mutex);
        if (self->files == 0)
            break;
        unsigned files = self->files;
        pthread_mutex_unlock(&self->mutex);
        lks_status status = write_files(self->trainer, files);
        pthread_mutex_lock(&self->mutex);
        self->status = status;
        if (status != LKS_OK)
            snprintf(self->message, sizeof self->message, "%s", lks_error_message());
        self->files = 0;
        pthread_cond_broadcast(&self->changed);
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

/* The program's signals are for its own threads. */
static int start_thread(lks__checkpoint_writer *self)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&self->thread, NULL, run_writer, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static void writer_free(lks__checkpoint_writer *self)
{
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->mutex);
    lks__free(self);
}

lks_status lks__checkpoint_writer_start(const lks_trainer *trainer, lks__checkpoint_writer **out)
{
    *out = NULL;
    lks__checkpoint_writer *self = lks__alloc(sizeof *self, LKS__MEM_MISC);
    if (self == NULL)
        return LKS_E_NOMEM;
    self->trainer = trainer;
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->changed, NULL);
    int error = start_thread(self);
    if (error != 0) {
        writer_free(self);
        return lks__fail_errno(LKS_E_SYSTEM, error, "cannot start the thread that writes checkpoints");
    }
    *out = self;
    return LKS_OK;
}

lks_status lks__checkpoint_writer_wait(lks__checkpoint_writer *self)
{
    pthread_mutex_lock(&self->mutex);
    while (self->files != 0)
        pthread_cond_wait(&self->changed, &self->mutex);
    lks_status status = self->status;
    if (status != LKS_OK)
        (void)lks__fail(status, "%s", self->message);
    self->status = LKS_OK;
    pthread_mutex_unlock(&self->mutex);
    return status;
}

void lks__checkpoint_writer_post(lks__checkpoint_writer *self, unsigned files)
{
    pthread_mutex_lock(&self->mutex);
    self->files = files;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->mutex);
}

void lks__checkpoint_writer_stop(lks__checkpoint_writer *self)
{
    if (self == NULL)
        return;
    pthread_mutex_lock(&self->mutex);
    self->ends = true;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->mutex);
    pthread_join(self->thread, NULL);
    writer_free(self);
}
