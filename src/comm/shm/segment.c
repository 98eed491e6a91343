/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* memfd_create, fallocate */

#include "comm/shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"

/* A signal makes fallocate undo what it has done so far, so large ranges are reserved in steps. */
enum { RESERVE_STEP_BYTES = 1 << 26 };

typedef struct mapping {
    size_t offset, bytes;
    void *address;
    int users;
    struct mapping *next;
} mapping;

struct lks__segment {
    int fd;
    pthread_mutex_t lock;
    int users;         /* guarded by lock */
    mapping *mappings; /* guarded by lock */
};

lks_status lks__segment_create(int fd, lks__segment **out)
{
    lks__segment *segment = lks__alloc(sizeof *segment, LKS__MEM_COMM);
    if (segment == NULL) {
        close(fd);
        return LKS_E_NOMEM;
    }
    segment->fd = fd;
    segment->users = 1;
    pthread_mutex_init(&segment->lock, NULL);
    *out = segment;
    return LKS_OK;
}

lks_status lks__segment_create_new(lks__segment **out)
{
    int fd = memfd_create("lockstep", MFD_CLOEXEC);
    if (fd < 0)
        return lks__fail_errno(LKS_E_SYSTEM, errno, "cannot create shared memory");
    return lks__segment_create(fd, out);
}

lks__segment *lks__segment_get(lks__segment *segment)
{
    pthread_mutex_lock(&segment->lock);
    segment->users++;
    pthread_mutex_unlock(&segment->lock);
    return segment;
}

void lks__segment_put(lks__segment *segment)
{
    if (segment == NULL)
        return;
    pthread_mutex_lock(&segment->lock);
    bool last = --segment->users == 0;
    pthread_mutex_unlock(&segment->lock);
    if (!last)
        return;
    close(segment->fd);
    pthread_mutex_destroy(&segment->lock);
    lks__free(segment);
}

lks_status lks__segment_reserve(lks__segment *segment, size_t offset, size_t bytes)
{
    size_t end = offset + bytes;
    while (offset < end) {
        size_t step = end - offset < RESERVE_STEP_BYTES ? end - offset : RESERVE_STEP_BYTES;
        if (fallocate(segment->fd, 0, (off_t)offset, (off_t)step) == 0)
            offset += step;
        else if (errno == ENOSPC || errno == ENOMEM || errno == EFBIG)
            return lks__fail(LKS_E_NOMEM, "out of memory: %zu bytes of shared memory", bytes);
        else if (errno != EINTR)
            return lks__fail_errno(LKS_E_SYSTEM, errno, "cannot reserve %zu bytes of shared memory", bytes);
    }
    return LKS_OK;
}

void lks__segment_release(lks__segment *segment, size_t offset, size_t bytes)
{
    while (fallocate(segment->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes) !=
               0 &&
           errno == EINTR)
        ; /* a failure keeps the memory until the file goes: nothing better to do */
}

static mapping *find(lks__segment *segment, size_t offset)
{
    mapping *m = segment->mappings;
    while (m != NULL && m->offset != offset)
        m = m->next;
    return m;
}

static lks_status map_new(lks__segment *segment, size_t offset, size_t bytes, mapping **out)
{
    mapping *m = lks__alloc(sizeof *m, LKS__MEM_COMM);
    if (m == NULL)
        return LKS_E_NOMEM;
    m->address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, segment->fd, (off_t)offset);
    if (m->address == MAP_FAILED) {
        lks__free(m);
        return lks__fail_errno(LKS_E_NOMEM, errno, "out of memory: cannot map %zu bytes of shared memory",
                               bytes);
    }
    m->offset = offset;
    m->bytes = bytes;
    m->next = segment->mappings;
    segment->mappings = m;
    *out = m;
    return LKS_OK;
}

lks_status lks__segment_map(lks__segment *segment, size_t offset, size_t bytes, void **out)
{
    lks_status status = LKS_OK;
    pthread_mutex_lock(&segment->lock);
    mapping *m = find(segment, offset);
    if (m == NULL)
        status = map_new(segment, offset, bytes, &m);
    if (status == LKS_OK) {
        m->users++;
        *out = m->address;
    }
    pthread_mutex_unlock(&segment->lock);
    return status;
}

void lks__segment_unmap(lks__segment *segment, size_t offset)
{
    pthread_mutex_lock(&segment->lock);
    mapping **link = &segment->mappings;
    while (*link != NULL && (*link)->offset != offset)
        link = &(*link)->next;
    mapping *m = *link;
    if (m != NULL && --m->users == 0) {
        *link = m->next;
        munmap(m->address, m->bytes);
        lks__free(m);
    }
    pthread_mutex_unlock(&segment->lock);
}
