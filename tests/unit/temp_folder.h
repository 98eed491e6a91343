/* SPDX-License-Identifier: Apache-2.0 */
/** A folder of a test program's own, removed with all that is in it. The including file defines _GNU_SOURCE
 * (nftw). */
#ifndef LKS_TESTS_TEMP_FOLDER_H
#define LKS_TESTS_TEMP_FOLDER_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static char temp_folder[] = "/tmp/lockstep-test-XXXXXX";

/** Group setup for cmocka. */
static int make_temp_folder(void **state)
{
    (void)state;
    return mkdtemp(temp_folder) == NULL;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)kind, (void)place;
    return remove(path);
}

/** Group teardown for cmocka. */
static int remove_temp_folder(void **state)
{
    (void)state;
    return nftw(temp_folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/** The path of a name in the folder. Valid for the next 32 calls. */
static const char *in_temp_folder(const char *name)
{
    enum { N_PATHS = 32 };
    static char paths[N_PATHS][400];
    static int next;
    char *path = paths[next++ % N_PATHS];
    snprintf(path, sizeof paths[0], "%s/%s", temp_folder, name);
    return path;
}

static inline bool file_exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

/** Creates a file with this content. */
static inline void put_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    CHECK_INT(fwrite(data, 1, bytes, file), bytes);
    CHECK_INT(fclose(file), 0);
}

/** Reads a file into `out`, ends it with a zero. Returns its size. */
static inline size_t get_file(const char *path, char *out, size_t out_bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail_msg("%s cannot be opened", path);
    size_t bytes = fread(out, 1, out_bytes - 1, file);
    fclose(file);
    out[bytes] = '\0';
    return bytes;
}

#endif
