/* SPDX-License-Identifier: Apache-2.0 */
/** IDX files for tests, in a temporary folder. Uses nothing of src/data. */
#ifndef LKS_TESTS_UNIT_IDX_FILES_H
#define LKS_TESTS_UNIT_IDX_FILES_H

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"

enum { FILE_BYTES = 1 << 16 };

/** The content of a file. */
typedef struct content {
    uint8_t bytes[FILE_BYTES];
    size_t length;
} content;

static char folder[] = "/tmp/lockstep-test-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL ? -1 : 0;
}

/** Removes the files of the folder. */
static void empty_folder(void)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (entry->d_name[0] != '.')
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

static int remove_folder(void **state)
{
    (void)state;
    empty_folder();
    return rmdir(folder);
}

/** The path of a file in the folder; valid until the fourth call from now. */
static const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/** Magic number and dimensions. */
static void put_header(content *file, int type, int n_dims, const uint32_t *dims)
{
    memset(file->bytes, 0, sizeof file->bytes);
    file->bytes[2] = (uint8_t)type;
    file->bytes[3] = (uint8_t)n_dims;
    file->length = 4;
    for (int i = 0; i < n_dims; i++)
        for (int shift = 24; shift >= 0; shift -= 8)
            file->bytes[file->length++] = (uint8_t)(dims[i] >> shift);
}

/** u8 images of rows x columns: value j of image i is (31 i + j) mod 256. */
static content images_of(uint32_t n, uint32_t rows, uint32_t columns)
{
    static content file;
    put_header(&file, 0x08, 3, (uint32_t[]){n, rows, columns});
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < rows * columns; j++)
            file.bytes[file.length++] = (uint8_t)(31 * i + j);
    return file;
}

/** Labels 0, 1, ..., n_classes - 1, 0, 1, ... */
static content labels_of(uint32_t n, uint32_t n_classes)
{
    static content file;
    put_header(&file, 0x08, 1, &n);
    for (uint32_t i = 0; i < n; i++)
        file.bytes[file.length++] = (uint8_t)(i % n_classes);
    return file;
}

static void write_file(const char *name, const content *file)
{
    FILE *stream = fopen(in_folder(name), "wb");
    assert_non_null(stream);
    CHECK_INT(fwrite(file->bytes, 1, file->length, stream), file->length);
    CHECK_INT(fclose(stream), 0);
}

#endif
