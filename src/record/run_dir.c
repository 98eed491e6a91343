/* SPDX-License-Identifier: Apache-2.0 */
#include "record/run_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "record/metrics_file.h"
#include "record/write_file.h"

#define PLAN        "plan.json" /* what makes a folder a run directory: written first, never removed */
#define CONFIG      "config.yaml"
#define METRICS     "metrics.jsonl"
#define CHECKPOINTS "checkpoints"

/* What a run leaves, besides its plan and its checkpoints; also when it was cut off. */
static const char *const run_files[] = {
    CONFIG, CONFIG ".tmp", METRICS, "model.safetensors", "model.safetensors.tmp", PLAN ".tmp",
};

enum { N_RUN_FILES = sizeof run_files / sizeof run_files[0] };

struct lks__run_dir {
    char *path; /* without a slash at the end */
    lks__metrics_file metrics;
};

/* Without the slashes at its end. */
static char *clean_path(const char *path)
{
    char *clean = lks__strdup(path);
    for (size_t n = clean ? strlen(clean) : 0; n > 1 && clean[n - 1] == '/'; n--)
        clean[n - 1] = '\0';
    return clean;
}

/* Errors that another place mends are the user's; the others are the disk's. */
static lks_status fail_create(const char *path, int error)
{
    static const int of_disk[] = {EIO, ENOSPC, EDQUOT, ENOMEM, EMFILE, ENFILE};
    lks_status status = LKS_E_ARG;
    for (size_t i = 0; i < sizeof of_disk / sizeof of_disk[0]; i++)
        if (error == of_disk[i])
            status = LKS_E_IO;
    return lks__fail_errno(status, error, "output: the run directory %s cannot be created", path);
}

/* Is there nothing in the folder? False for one that can't be read. */
static bool is_empty(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL)
        return false;
    int n = 0;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(folder);
    return n == 0;
}

bool lks__run_dir_has(const char *path, const char *file)
{
    struct stat info;
    char *name = lks__join_path(path, file);
    bool found = name != NULL && stat(name, &info) == 0 && S_ISREG(info.st_mode);
    lks__free(name);
    return found;
}

static bool is_run_dir(const char *path)
{
    return lks__run_dir_has(path, PLAN);
}

static lks_status check_existing(const char *path, mode_t mode, bool overwrite)
{
    if (!S_ISDIR(mode))
        return lks__error_hint(lks__fail(LKS_E_EXISTS, "output: %s exists and is not a folder", path),
                               "output=DIR chooses another place");
    if (!overwrite)
        return lks__error_hint(lks__fail(LKS_E_EXISTS, "output: the run directory %s exists", path),
                               "--overwrite replaces it, output=DIR chooses another place");
    if (!is_run_dir(path) && !is_empty(path))
        return lks__error_hint(lks__fail(LKS_E_EXISTS,
                                         "output: %s holds something else than a run (it has no " PLAN
                                         "), so it is not overwritten",
                                         path),
                               "output=DIR chooses another place");
    return access(path, W_OK | X_OK) == 0 ? LKS_OK : fail_create(path, errno);
}

/* May something be created in the nearest folder above that exists? `above` is cut on the way up. */
static lks_status check_above(const char *path, char *above)
{
    for (;;) {
        char *slash = strrchr(above, '/');
        if (slash == NULL)
            memcpy(above, ".", sizeof ".");
        else
            slash[slash == above] = '\0'; /* "/x" is in "/" */
        struct stat info;
        if (stat(above, &info) == 0)
            break;
        if (errno != ENOENT || slash == NULL)
            return fail_create(path, errno);
    }
    return access(above, W_OK | X_OK) == 0 ? LKS_OK : fail_create(path, errno);
}

lks_status lks__run_dir_check(const char *path, bool overwrite)
{
    if (path[0] == '\0')
        return lks__fail(LKS_E_ARG, "output is empty; the path of a run directory is needed");
    char *clean = clean_path(path);
    if (clean == NULL)
        return LKS_E_NOMEM;

    struct stat info;
    lks_status status;
    if (stat(clean, &info) == 0)
        status = check_existing(path, info.st_mode, overwrite);
    else if (errno == ENOENT)
        status = check_above(path, clean);
    else
        status = fail_create(path, errno);
    lks__free(clean);
    return status;
}

/* Creates the folders above. Returns 0 or an errno value. */
static int make_parents(const char *path)
{
    char *above = lks__strdup(path);
    int error = above == NULL ? ENOMEM : 0;
    for (char *slash = above; error == 0 && (slash = strchr(slash + 1, '/')) != NULL; *slash = '/') {
        *slash = '\0';
        if (mkdir(above, 0777) != 0 && errno != EEXIST)
            error = errno;
    }
    lks__free(above);
    return error;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Returns 0 or an errno value. */
static int remove_checkpoints(int dir_fd)
{
    int fd = openat(dir_fd, CHECKPOINTS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : errno;
    DIR *folder = fdopendir(fd);
    if (folder == NULL) {
        int error = errno;
        close(fd);
        return error;
    }
    int error = 0;
    for (const struct dirent *entry; error == 0 && (entry = readdir(folder)) != NULL;) {
        bool ours = ends_with(entry->d_name, ".safetensors") || ends_with(entry->d_name, ".safetensors.tmp");
        if (ours && unlinkat(fd, entry->d_name, 0) != 0)
            error = errno;
    }
    closedir(folder);
    return error;
}

/* Removes what a run has left but its plan, and nothing else. Returns 0 or an errno value. */
static int remove_run_files(int dir_fd)
{
    int error = remove_checkpoints(dir_fd);
    for (int i = 0; i < N_RUN_FILES && error == 0; i++)
        if (unlinkat(dir_fd, run_files[i], 0) != 0 && errno != ENOENT)
            error = errno;
    return error;
}

/* Returns 0 or an errno value. */
static int empty_run_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = remove_run_files(fd);
    close(fd);
    return error;
}

/* Takes back a directory that was created and could not be filled. */
static void remove_new(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    remove_run_files(fd);
    unlinkat(fd, PLAN, 0);
    unlinkat(fd, CHECKPOINTS, AT_REMOVEDIR);
    close(fd);
    rmdir(path);
}

/* Writes a text into the directory. */
static lks_status write_text(const char *path, const char *file, const char *text)
{
    char *name = lks__join_path(path, file);
    if (name == NULL)
        return LKS_E_NOMEM;
    const lks__piece piece = {text, strlen(text)};
    lks_status status = lks__write_file(name, 1, &piece);
    lks__free(name);
    return status;
}

static lks_status make_checkpoints(const char *path)
{
    char *name = lks__join_path(path, CHECKPOINTS);
    if (name == NULL)
        return LKS_E_NOMEM;
    lks_status status = LKS_OK;
    if (mkdir(name, 0777) != 0 && errno != EEXIST)
        status = lks__fail_errno(LKS_E_IO, errno, "cannot create %s", name);
    lks__free(name);
    return status;
}

/* *is_new: whether the directory was not there. */
static lks_status make_folder(const char *path, bool overwrite, bool *is_new)
{
    int error = make_parents(path);
    if (error == 0 && mkdir(path, 0777) == 0) {
        *is_new = true;
        return LKS_OK;
    }
    *is_new = false;
    if (error == 0 && !(overwrite && errno == EEXIST))
        error = errno;
    if (error == 0)
        error = empty_run_dir(path);
    return error == 0 ? LKS_OK : fail_create(path, error);
}

/* The plan comes first: whatever happens then, the folder is known for a run directory. */
static lks_status fill(lks__run_dir *dir, const char *config_yaml, const char *plan_json)
{
    lks_status status = write_text(dir->path, PLAN, plan_json);
    if (status == LKS_OK && config_yaml != NULL)
        status = write_text(dir->path, CONFIG, config_yaml);
    if (status == LKS_OK)
        status = make_checkpoints(dir->path);
    if (status == LKS_OK)
        status = lks__metrics_init(&dir->metrics, lks__join_path(dir->path, METRICS));
    return status;
}

lks_status lks__run_dir_create(const char *path, bool overwrite, const char *config_yaml,
                               const char *plan_json, lks__run_dir **out)
{
    *out = NULL;
    lks_status status = lks__run_dir_check(path, overwrite);
    if (status != LKS_OK)
        return status;
    lks__run_dir *dir = lks__alloc(sizeof *dir, LKS__MEM_MISC);
    if (dir == NULL)
        return LKS_E_NOMEM;
    dir->metrics.fd = -1;
    dir->path = clean_path(path);

    bool is_new = false;
    status = dir->path == NULL ? LKS_E_NOMEM : make_folder(dir->path, overwrite, &is_new);
    if (status == LKS_OK)
        status = fill(dir, config_yaml, plan_json);
    if (status != LKS_OK) {
        if (is_new)
            remove_new(dir->path);
        lks__run_dir_close(dir);
        return status;
    }
    *out = dir;
    return LKS_OK;
}

lks_status lks__run_dir_continue(const char *path, int64_t step, lks__run_dir **out)
{
    *out = NULL;
    lks__run_dir *dir = lks__alloc(sizeof *dir, LKS__MEM_MISC);
    if (dir == NULL)
        return LKS_E_NOMEM;
    dir->metrics.fd = -1;
    dir->path = clean_path(path);
    lks_status status = dir->path == NULL
                            ? LKS_E_NOMEM
                            : lks__metrics_continue(&dir->metrics, lks__join_path(dir->path, METRICS), step);
    if (status != LKS_OK) {
        lks__run_dir_close(dir);
        return status;
    }
    *out = dir;
    return LKS_OK;
}

void lks__run_dir_close(lks__run_dir *dir)
{
    if (dir == NULL)
        return;
    lks__metrics_deinit(&dir->metrics);
    lks__free(dir->path);
    lks__free(dir);
}

void lks__run_dir_log_step(lks__run_dir *dir, const lks__step_metrics *metrics)
{
    lks__metrics_add_step(&dir->metrics, metrics);
}

void lks__run_dir_log_epoch(lks__run_dir *dir, const lks__epoch_metrics *metrics)
{
    lks__metrics_add_epoch(&dir->metrics, metrics);
}

lks_status lks__run_dir_flush(lks__run_dir *dir)
{
    return lks__metrics_flush(&dir->metrics);
}

char *lks__run_dir_path(const lks__run_dir *dir, const char *file)
{
    return lks__join_path(dir->path, file);
}
