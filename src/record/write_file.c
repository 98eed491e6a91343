/* SPDX-License-Identifier: Apache-2.0 */
#include "record/write_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"

int lks__write_all(int fd, const void *data, size_t bytes)
{
    const char *next = data;
    while (bytes > 0) {
        ssize_t n = write(fd, next, bytes);
        if (n < 0 && errno != EINTR)
            return errno;
        if (n > 0) {
            next += n;
            bytes -= (size_t)n;
        }
    }
    return 0;
}

/* A text made of two, in memory of its own. */
static char *concatenate(const char *a, size_t a_bytes, const char *b)
{
    size_t b_bytes = strlen(b);
    char *text = lks__alloc(a_bytes + b_bytes + 1, LKS__MEM_MISC);
    if (text != NULL) {
        memcpy(text, a, a_bytes);
        memcpy(text + a_bytes, b, b_bytes + 1);
    }
    return text;
}

char *lks__join_path(const char *folder, const char *file)
{
    size_t bytes = strlen(folder) + strlen(file) + 2;
    char *path = lks__alloc(bytes, LKS__MEM_MISC);
    if (path != NULL)
        snprintf(path, bytes, "%s/%s", folder, file);
    return path;
}

/* Writes and flushes. Returns 0 or an errno value. */
static int fill(int fd, int n_pieces, const lks__piece *pieces)
{
    int error = 0;
    for (int i = 0; i < n_pieces && error == 0; i++)
        error = lks__write_all(fd, pieces[i].data, pieces[i].bytes);
    if (error == 0 && fsync(fd) != 0)
        error = errno;
    return error;
}

/* Creates the file with its content. Returns 0, or an errno value with no file left. */
static int create_whole(const char *path, int n_pieces, const lks__piece *pieces)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return errno;
    int error = fill(fd, n_pieces, pieces);
    if (close(fd) != 0 && error == 0)
        error = errno;
    if (error != 0)
        unlink(path);
    return error;
}

/* Makes a rename in the folder last. Returns 0 or an errno value. */
static int flush_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return error == EINVAL ? 0 : error; /* a file system that has nothing to flush there */
}

/* Returns 0 or an errno value. */
static int replace(const char *path, const char *temporary, const char *folder, int n_pieces,
                   const lks__piece *pieces)
{
    int error = create_whole(temporary, n_pieces, pieces);
    if (error != 0)
        return error;
    if (rename(temporary, path) != 0) {
        error = errno;
        unlink(temporary);
        return error;
    }
    return flush_folder(folder);
}

lks_status lks__write_file(const char *path, int n_pieces, const lks__piece *pieces)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? concatenate(path, (size_t)(slash - path), "/.") : lks__strdup(".");
    char *temporary = concatenate(path, strlen(path), ".tmp");
    lks_status status = LKS_E_NOMEM;
    if (folder != NULL && temporary != NULL) {
        int error = replace(path, temporary, folder, n_pieces, pieces);
        status = error == 0 ? LKS_OK : lks__fail_errno(LKS_E_IO, error, "cannot write %s", path);
    }
    lks__free(temporary);
    lks__free(folder);
    return status;
}
