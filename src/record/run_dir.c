/* SPDX-License-Identifier: Apache-2.0 */
#include "record/run_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "record/earlier_configs.h"
#include "record/metrics_file.h"
#include "record/write_file.h"

#define PLAN        "plan.json" /* what makes a folder a run directory: written first, never removed */
#define CONFIG      "config.yaml"
#define METRICS     "metrics.jsonl"
#define HASHES      "hashes.jsonl"
#define STARTS      "starts.jsonl"
#define MODEL       "model.safetensors"
#define CHECKPOINTS "checkpoints"

/* What a run leaves, besides its plan and its checkpoints; also when it was cut off. */
static const char *const run_files[] = {
    CONFIG, CONFIG ".tmp", METRICS, HASHES, STARTS, MODEL, MODEL ".tmp", PLAN ".tmp",
};

enum { N_RUN_FILES = sizeof run_files / sizeof run_files[0] };

/* The files of lines. */
enum { LOG_METRICS, LOG_HASHES, LOG_STARTS, N_LOGS };

static const char *const log_names[N_LOGS] = {METRICS, HASHES, STARTS};

struct lks__run_dir {
    char *path; /* without a slash at the end */
    int fd;     /* the folder, locked: nobody else writes here; -1: not open */
    lks__metrics_file logs[N_LOGS];
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

/* Is there nothing in the folder, or only what a run leaves that was cut off before it had its plan? False
 * for one that can't be read. */
static bool is_empty(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL)
        return false;
    int n = 0;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
             strcmp(entry->d_name, PLAN ".tmp") != 0;
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

/* Is this the plan of a run, and not another program's file of the same name? */
static bool holds_plan(int fd)
{
    enum { MOST_BYTES = 1 << 20 }; /* a plan has about a thousand */
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size > MOST_BYTES)
        return false;
    json_t *plan = json_loadfd(fd, 0, NULL);
    bool ours = json_is_integer(json_object_get(plan, "world")) &&
                json_is_integer(json_object_get(plan, "effective_batch"));
    json_decref(plan);
    return ours;
}

static bool is_run_dir(const char *path)
{
    char *name = lks__join_path(path, PLAN);
    int fd = name == NULL ? -1 : open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    bool found = fd >= 0 && holds_plan(fd);
    if (fd >= 0)
        close(fd);
    lks__free(name);
    return found;
}

static lks_status fail_exists(const char *path)
{
    return lks__error_hint(lks__fail(LKS_E_EXISTS, "output: the run directory %s exists", path),
                           "--overwrite replaces it, output=DIR chooses another place");
}

static lks_status fail_in_use(const char *path)
{
    return lks__error_hint(lks__fail(LKS_E_EXISTS, "output: %s is in use by another run", path),
                           "output=DIR chooses another place");
}

/* What is in the folder may be replaced. */
static lks_status check_content(const char *path)
{
    if (is_run_dir(path) || is_empty(path))
        return LKS_OK;
    return lks__error_hint(lks__fail(LKS_E_EXISTS,
                                     "output: %s holds something else than a run (it has no " PLAN
                                     " of one), so it is not overwritten",
                                     path),
                           "output=DIR chooses another place");
}

/* The lock goes with the process that holds it, however that ends. Others than the holder's: a shared one
 * for a look, so that lookers do not see each other. File systems without locks are used without. */
static bool is_locked(int fd, int kind)
{
    return flock(fd, kind | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

static bool is_in_use(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool in_use = is_locked(fd, LOCK_SH);
    close(fd);
    return in_use;
}

static lks_status check_existing(const char *path, mode_t mode, bool overwrite)
{
    if (!S_ISDIR(mode))
        return lks__error_hint(lks__fail(LKS_E_EXISTS, "output: %s exists and is not a folder", path),
                               "output=DIR chooses another place");
    if (!overwrite)
        return fail_exists(path);
    if (is_in_use(path))
        return fail_in_use(path);
    lks_status status = check_content(path);
    if (status == LKS_OK && access(path, W_OK | X_OK) != 0)
        status = fail_create(path, errno);
    return status;
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

/* Those whose names end in one of `ends`, a list that ends with NULL. Returns 0 or an errno value. */
static int remove_checkpoints(int dir_fd, const char *const *ends)
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
        bool ours = false;
        for (const char *const *end = ends; *end != NULL; end++)
            ours |= ends_with(entry->d_name, *end);
        if (ours && unlinkat(fd, entry->d_name, 0) != 0)
            error = errno;
    }
    closedir(folder);
    return error;
}

/* Removes what a run has left but its plan, and nothing else. Returns 0 or an errno value. */
static int remove_run_files(int dir_fd)
{
    static const char *const ends[] = {".safetensors", ".safetensors.tmp", NULL};
    int error = remove_checkpoints(dir_fd, ends);
    for (int i = 0; i < N_RUN_FILES && error == 0; i++)
        if (unlinkat(dir_fd, run_files[i], 0) != 0 && errno != ENOENT)
            error = errno;
    return error != 0 ? error : lks__remove_earlier_configs(dir_fd);
}

/* What a run was writing when it was killed. */
static lks_status remove_unfinished(const lks__run_dir *dir)
{
    static const char *const ends[] = {".safetensors.tmp", NULL};
    int error = remove_checkpoints(dir->fd, ends);
    if (unlinkat(dir->fd, MODEL ".tmp", 0) != 0 && errno != ENOENT && error == 0)
        error = errno;
    return error == 0 ? LKS_OK
                      : lks__fail_errno(LKS_E_IO, error, "cannot remove unfinished files in %s", dir->path);
}

/* Takes back a directory that was created and could not be filled. */
static void remove_new(const lks__run_dir *dir)
{
    remove_run_files(dir->fd);
    unlinkat(dir->fd, PLAN, 0);
    unlinkat(dir->fd, CHECKPOINTS, AT_REMOVEDIR);
    rmdir(dir->path);
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
    if (error == 0 && mkdir(path, 0777) != 0)
        error = errno;
    *is_new = error == 0;
    if (error == EEXIST)
        return overwrite ? LKS_OK : fail_exists(path);
    return error == 0 ? LKS_OK : fail_create(path, error);
}

/* Does the path still lead to the open folder? */
static bool is_at(int fd, const char *path)
{
    struct stat opened, there;
    return fstat(fd, &opened) == 0 && stat(path, &there) == 0 && opened.st_dev == there.st_dev &&
           opened.st_ino == there.st_ino;
}

/* From now on the folder is this run's, or it is another's and stays as it is. */
static lks_status lock_folder(const char *path, int *fd)
{
    int opened = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0)
        return fail_create(path, errno);
    if (is_locked(opened, LOCK_EX) || !is_at(opened, path)) { /* its maker may have taken it back */
        close(opened);
        return fail_in_use(path);
    }
    *fd = opened;
    return LKS_OK;
}

/* The run that is to go on may have been killed a moment ago, and one of its processes not be gone yet. */
static lks_status lock_when_gone(const char *path, int *fd)
{
    enum { NAPS = 100, NAP_NS = 20 * 1000 * 1000 };
    lks_status status = lock_folder(path, fd);
    for (int i = 0; i < NAPS && status == LKS_E_EXISTS; i++) {
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
        status = lock_folder(path, fd);
    }
    return status;
}

/* What was there before the lock may have been another run's beginning, so it is looked at again. */
static lks_status empty_folder(const lks__run_dir *dir)
{
    lks_status status = check_content(dir->path);
    if (status != LKS_OK)
        return status;
    int error = remove_run_files(dir->fd);
    return error == 0 ? LKS_OK : fail_create(dir->path, error);
}

/* The plan comes first: whatever happens then, the folder is known for a run directory. */
static lks_status fill(lks__run_dir *dir, const char *config_yaml, const char *plan_json)
{
    lks_status status = write_text(dir->path, PLAN, plan_json);
    if (status == LKS_OK && config_yaml != NULL)
        status = write_text(dir->path, CONFIG, config_yaml);
    if (status == LKS_OK)
        status = make_checkpoints(dir->path);
    for (int i = 0; i < N_LOGS && status == LKS_OK; i++)
        status = lks__metrics_init(&dir->logs[i], lks__join_path(dir->path, log_names[i]));
    return status;
}

/* Nothing in it is open yet. NULL: no memory. */
static lks__run_dir *new_run_dir(const char *path)
{
    lks__run_dir *dir = lks__alloc(sizeof *dir, LKS__MEM_MISC);
    if (dir == NULL)
        return NULL;
    dir->fd = -1;
    for (int i = 0; i < N_LOGS; i++)
        dir->logs[i].fd = -1;
    dir->path = clean_path(path);
    if (dir->path != NULL)
        return dir;
    lks__free(dir);
    return NULL;
}

lks_status lks__run_dir_create(const char *path, bool overwrite, const char *config_yaml,
                               const char *plan_json, lks__run_dir **out)
{
    *out = NULL;
    lks_status status = lks__run_dir_check(path, overwrite);
    if (status != LKS_OK)
        return status;
    lks__run_dir *dir = new_run_dir(path);
    if (dir == NULL)
        return LKS_E_NOMEM;

    bool is_new = false;
    status = make_folder(dir->path, overwrite, &is_new);
    if (status == LKS_OK)
        status = lock_folder(dir->path, &dir->fd);
    if (status == LKS_OK)
        status = empty_folder(dir);
    if (status == LKS_OK)
        status = fill(dir, config_yaml, plan_json);
    if (status != LKS_OK) {
        if (is_new && dir->fd >= 0)
            remove_new(dir);
        lks__run_dir_close(dir);
        return status;
    }
    *out = dir;
    return LKS_OK;
}

lks_status lks__run_dir_replace(lks__run_dir *dir, const char *config_yaml, const char *plan_json)
{
    lks_status status = lks__keep_earlier_config(dir->path, config_yaml);
    if (status == LKS_OK)
        status = write_text(dir->path, PLAN, plan_json);
    return status == LKS_OK ? write_text(dir->path, CONFIG, config_yaml) : status;
}

lks_status lks__run_dir_continue(const char *path, int64_t step, lks__run_dir **out)
{
    *out = NULL;
    lks__run_dir *dir = new_run_dir(path);
    if (dir == NULL)
        return LKS_E_NOMEM;
    lks_status status = lock_when_gone(dir->path, &dir->fd);
    if (status == LKS_OK)
        status = remove_unfinished(dir);
    for (int i = 0; i < N_LOGS && status == LKS_OK; i++)
        status = lks__metrics_continue(&dir->logs[i], lks__join_path(dir->path, log_names[i]), step);
    if (status != LKS_OK) {
        lks__run_dir_close(dir);
        return status;
    }
    *out = dir;
    return LKS_OK;
}

const char *lks__run_dir_damage(const lks__run_dir *dir, char out[LKS__DAMAGE_BYTES])
{
    out[0] = '\0';
    for (int i = 0; i < N_LOGS; i++)
        if (dir->logs[i].damaged_line != 0)
            lks__append(out, LKS__DAMAGE_BYTES, "%s%s from line %lld", out[0] != '\0' ? ", " : "",
                        log_names[i], (long long)dir->logs[i].damaged_line);
    return out;
}

void lks__run_dir_close(lks__run_dir *dir)
{
    if (dir == NULL)
        return;
    for (int i = 0; i < N_LOGS; i++)
        lks__metrics_deinit(&dir->logs[i]);
    if (dir->fd >= 0)
        close(dir->fd);
    lks__free(dir->path);
    lks__free(dir);
}

void lks__run_dir_log_step(lks__run_dir *dir, const lks__step_metrics *metrics)
{
    lks__metrics_add_step(&dir->logs[LOG_METRICS], metrics);
}

void lks__run_dir_log_change(lks__run_dir *dir, const lks__change_metrics *metrics)
{
    lks__metrics_add_change(&dir->logs[LOG_METRICS], metrics);
}

void lks__run_dir_log_trouble(lks__run_dir *dir, const lks__trouble_metrics *metrics)
{
    lks__metrics_add_trouble(&dir->logs[LOG_METRICS], metrics);
}

void lks__run_dir_log_epoch(lks__run_dir *dir, const lks__epoch_metrics *metrics)
{
    lks__metrics_add_epoch(&dir->logs[LOG_METRICS], metrics);
}

void lks__run_dir_log_tensor(lks__run_dir *dir, const lks__tensor_metrics *metrics)
{
    lks__metrics_add_tensor(&dir->logs[LOG_HASHES], metrics);
}

void lks__run_dir_log_start(lks__run_dir *dir, const lks__start *start)
{
    lks__metrics_add_start(&dir->logs[LOG_STARTS], start);
}

lks_status lks__run_dir_flush(lks__run_dir *dir)
{
    lks_status status = LKS_OK;
    for (int i = 0; i < N_LOGS && status == LKS_OK; i++)
        status = lks__metrics_flush(&dir->logs[i]);
    return status;
}

char *lks__run_dir_path(const lks__run_dir *dir, const char *file)
{
    return lks__join_path(dir->path, file);
}
