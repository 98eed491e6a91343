/* SPDX-License-Identifier: Apache-2.0 */
#include "record/earlier_configs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "record/run_dir.h"
#include "record/write_file.h"

void lks__earlier_config_name(int n, char out[LKS__CONFIG_NAME_BYTES])
{
    snprintf(out, LKS__CONFIG_NAME_BYTES, "config.%d.yaml", n);
}

static void earlier_model_name(int n, char out[LKS__CONFIG_NAME_BYTES])
{
    snprintf(out, LKS__CONFIG_NAME_BYTES, "model.%d.safetensors", n);
}

int lks__remove_earlier_configs(int dir_fd)
{
    char config[LKS__CONFIG_NAME_BYTES], model[LKS__CONFIG_NAME_BYTES];
    for (int n = 1;; n++) {
        lks__earlier_config_name(n, config);
        earlier_model_name(n, model);
        if (unlinkat(dir_fd, model, 0) != 0 && errno != ENOENT)
            return errno;
        if (unlinkat(dir_fd, config, 0) != 0)
            return errno == ENOENT ? 0 : errno;
    }
}

/* Renames the model with which the run had ended, if it had. */
static lks_status keep_model(const char *folder, int n)
{
    char name[LKS__CONFIG_NAME_BYTES];
    earlier_model_name(n, name);
    char *path = lks__join_path(folder, "model.safetensors"), *kept = lks__join_path(folder, name);
    lks_status status = path == NULL || kept == NULL ? LKS_E_NOMEM : LKS_OK;
    if (status == LKS_OK && rename(path, kept) != 0 && errno != ENOENT)
        status = lks__fail_errno(LKS_E_IO, errno, "cannot rename %s", path);
    lks__free(path);
    lks__free(kept);
    return status;
}

/* The whole file as text; *out is for lks__free. */
static lks_status read_text(const char *path, char **out)
{
    struct stat info;
    FILE *file = fopen(path, "re");
    if (file == NULL || fstat(fileno(file), &info) != 0) {
        lks_status status = lks__fail_errno(LKS_E_IO, errno, "cannot read %s", path);
        if (file != NULL)
            fclose(file);
        return status;
    }
    char *text = lks__alloc((size_t)info.st_size + 1, LKS__MEM_MISC);
    if (text != NULL)
        text[fread(text, 1, (size_t)info.st_size, file)] = '\0';
    fclose(file);
    *out = text;
    return text != NULL ? LKS_OK : LKS_E_NOMEM;
}

static lks_status write_kept(const char *folder, const char *text)
{
    char name[LKS__CONFIG_NAME_BYTES];
    int n = 1;
    for (lks__earlier_config_name(n, name); lks__run_dir_has(folder, name);)
        lks__earlier_config_name(++n, name);
    char *path = lks__join_path(folder, name);
    const lks__piece piece = {text, strlen(text)};
    lks_status status = path == NULL ? LKS_E_NOMEM : lks__write_file(path, 1, &piece);
    lks__free(path);
    return status == LKS_OK ? keep_model(folder, n) : status;
}

lks_status lks__keep_earlier_config(const char *folder, const char *config_yaml)
{
    char *text = NULL, *path = lks__join_path(folder, "config.yaml");
    lks_status status = path == NULL ? LKS_E_NOMEM : read_text(path, &text);
    if (status == LKS_OK && strcmp(text, config_yaml) != 0)
        status = write_kept(folder, text);
    lks__free(text);
    lks__free(path);
    return status;
}
