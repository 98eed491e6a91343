/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/logs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"

static lks_status fail_create(int error, const char *path)
{
    lks_status status = lks__fail_open(error, path); /* which kind of failure it is */
    return lks__fail_errno(status, error, "cannot create %s", path);
}

static lks_status make_path(char path[PATH_MAX], const char *folder, const char *rest, int number)
{
    int n = snprintf(path, PATH_MAX, rest, folder, number);
    return n > 0 && n < PATH_MAX ? LKS_OK : fail_create(ENAMETOOLONG, folder);
}

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* With the folders that it is in. */
static lks_status make_folders(const char *folder)
{
    char path[PATH_MAX];
    lks_status status = make_path(path, folder, "%s", 0);
    for (char *at = path; status == LKS_OK && *at != '\0';) {
        at += 1 + strcspn(at + 1, "/");
        char end = *at;
        *at = '\0';
        int error = mkdir(path, 0777) == 0 ? 0 : errno;
        if (error != 0 && !is_folder(path))
            status = fail_create(error == EEXIST ? ENOTDIR : error, path);
        *at = end;
    }
    return status;
}

static lks_status make_attempt(const char *folder, char attempt[PATH_MAX])
{
    for (int k = 0;; k++) {
        lks_status status = make_path(attempt, folder, "%s/attempt_%d", k);
        if (status != LKS_OK || mkdir(attempt, 0777) == 0)
            return status;
        if (errno != EEXIST || k == INT_MAX)
            return fail_create(errno, attempt);
    }
}

static lks_status make_file(const char *attempt, const char *name, int rank, lks__source *source)
{
    char path[PATH_MAX];
    lks_status status = make_path(path, attempt, name, rank);
    if (status != LKS_OK)
        return status;
    source->log_path = lks__strdup(path);
    if (source->log_path == NULL)
        return LKS_E_NOMEM;
    source->log_fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return source->log_fd >= 0 ? LKS_OK : fail_create(errno, path);
}

static lks_status make_files(const char *attempt, int rank, lks__stream *out, lks__stream *err)
{
    char path[PATH_MAX];
    lks_status status = make_path(path, attempt, "%s/%d", rank);
    if (status == LKS_OK && mkdir(path, 0777) != 0)
        status = fail_create(errno, path);
    if (status == LKS_OK)
        status = make_file(attempt, "%s/%d/stdout.log", rank, &out->sources[rank]);
    if (status == LKS_OK)
        status = make_file(attempt, "%s/%d/stderr.log", rank, &err->sources[rank]);
    return status;
}

lks_status lks__logs_create(const char *folder, lks__stream *out, lks__stream *err, char attempt[PATH_MAX])
{
    lks_status status = make_folders(folder);
    if (status == LKS_OK)
        status = make_attempt(folder, attempt);
    if (status != LKS_OK) {
        attempt[0] = '\0';
        return status;
    }
    for (int rank = 0; rank < out->n && status == LKS_OK; rank++)
        status = make_files(attempt, rank, out, err);
    if (status != LKS_OK)
        lks__logs_remove(attempt, out->n);
    return status;
}

void lks__logs_remove(const char *attempt, int n)
{
    static const char *const names[] = {"%s/%d/stdout.log", "%s/%d/stderr.log", "%s/%d"};
    char path[PATH_MAX];
    for (int rank = 0; rank < n; rank++)
        for (int i = 0; i < 3; i++)
            if (make_path(path, attempt, names[i], rank) == LKS_OK)
                (void)remove(path);
    (void)rmdir(attempt);
}
