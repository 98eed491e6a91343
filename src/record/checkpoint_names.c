/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "record/run_dir.h"
#include "record/write_file.h"

#define FOLDER "checkpoints/"

void lks__checkpoint_name(int64_t step, char out[LKS__CHECKPOINT_NAME_BYTES])
{
    snprintf(out, LKS__CHECKPOINT_NAME_BYTES, FOLDER "step-%08" PRId64 ".safetensors", step);
}

/* The step of a file in the folder; 0: it is no checkpoint. */
static int64_t step_of(const char *file)
{
    static const char before[] = "step-";
    char name[LKS__CHECKPOINT_NAME_BYTES];
    if (strncmp(file, before, sizeof before - 1) != 0)
        return 0;
    int64_t step = strtoll(file + sizeof before - 1, NULL, 10);
    lks__checkpoint_name(step, name);
    return step > 0 && strcmp(name + sizeof FOLDER - 1, file) == 0 ? step : 0;
}

static int latest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* steps: [capacity]; NULL: only count. Returns how many there are. */
static int list(DIR *folder, int capacity, int64_t *steps)
{
    int n = 0;
    rewinddir(folder);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        int64_t step = step_of(entry->d_name);
        if (step > 0 && n < capacity)
            steps[n] = step;
        n += step > 0;
    }
    return n;
}

lks_status lks__run_dir_list_checkpoints(const char *path, int *n, int64_t **steps)
{
    char *name = lks__join_path(path, FOLDER);
    if (name == NULL)
        return LKS_E_NOMEM;
    lks_status status = LKS_OK;
    int64_t *found = NULL;
    int capacity = 0;
    DIR *folder = opendir(name);
    if (folder != NULL)
        capacity = list(folder, 0, NULL);
    else if (errno != ENOENT && errno != ENOTDIR)
        status = lks__fail_errno(LKS_E_IO, errno, "cannot read %s", name);
    if (status == LKS_OK && (found = lks__alloc_array(capacity + 1, sizeof *found, LKS__MEM_MISC)) == NULL)
        status = LKS_E_NOMEM;
    if (status == LKS_OK) {
        int now = folder != NULL ? list(folder, capacity, found) : 0;
        *n = now < capacity ? now : capacity;
        qsort(found, (size_t)*n, sizeof *found, latest_first);
        *steps = found;
    }
    if (folder != NULL)
        closedir(folder);
    lks__free(name);
    return status;
}

static lks_status drop(const lks__run_dir *dir, int64_t step)
{
    char name[LKS__CHECKPOINT_NAME_BYTES];
    lks__checkpoint_name(step, name);
    char *path = lks__run_dir_path(dir, name);
    if (path == NULL)
        return LKS_E_NOMEM;
    lks_status status = LKS_OK;
    if (unlink(path) != 0 && errno != ENOENT)
        status = lks__fail_errno(LKS_E_IO, errno, "cannot remove %s", path);
    lks__free(path);
    return status;
}

lks_status lks__run_dir_drop_checkpoints(const lks__run_dir *dir, int64_t keep, int64_t step)
{
    int n;
    int64_t *steps;
    char *path = lks__run_dir_path(dir, "");
    lks_status status = path == NULL ? LKS_E_NOMEM : lks__run_dir_list_checkpoints(path, &n, &steps);
    lks__free(path);
    if (status != LKS_OK)
        return status;
    int64_t kept = 0;
    for (int i = 0; i < n && status == LKS_OK; i++)
        if (steps[i] <= step && ++kept > keep)
            status = drop(dir, steps[i]);
    lks__free(steps);
    return status;
}
