/* SPDX-License-Identifier: Apache-2.0 */
#include "data/idx.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"

enum {
    MAGIC_BYTES = 4,
    TYPE_U8 = 0x08,
    PIECE_BYTES = 1 << 14,
    STREAM_BUFFER_BYTES = 1 << 17,
    LARGEST_READ_BYTES = 1 << 30
};

/* IDX's element types; of these only u8 is read. */
static const struct {
    int code;
    const char *name;
} element_types[] = {{TYPE_U8, "u8"}, {0x09, "i8"},  {0x0B, "i16"},
                     {0x0C, "i32"},   {0x0D, "f32"}, {0x0E, "f64"}};

/* What the stream's last read ran into, if anything. */
static lks_status check_stream(const lks__idx *file)
{
    int code;
    (void)gzerror(file->stream, &code);
    switch (code) {
    case Z_OK:
        return LKS_OK;
    case Z_ERRNO:
        return lks__fail_errno(LKS_E_IO, errno, "reading %s", file->path);
    case Z_MEM_ERROR:
        return lks__fail(LKS_E_NOMEM, "out of memory: decompressing %s", file->path);
    case Z_BUF_ERROR:
        return lks__fail(LKS_E_FORMAT, "%s is truncated: its gzip data ends early", file->path);
    default:
        return lks__fail(LKS_E_FORMAT, "%s is damaged: its gzip data is not valid", file->path);
    }
}

/* Reads up to n bytes; fewer only at the end of the file. */
static lks_status read_bytes(lks__idx *file, uint8_t *out, int64_t n, int64_t *n_read)
{
    int64_t done = 0;
    while (done < n) {
        int64_t rest = n - done;
        unsigned piece = rest < LARGEST_READ_BYTES ? (unsigned)rest : LARGEST_READ_BYTES;
        int got = gzread(file->stream, out + done, piece);
        lks_status status = check_stream(file);
        if (status != LKS_OK)
            return status;
        if (got <= 0)
            break;
        done += got;
    }
    *n_read = done;
    return LKS_OK;
}

static lks_status wrong_size(const lks__idx *file, const char *about, int64_t bytes)
{
    return lks__fail(LKS_E_FORMAT, "%s holds %s%lld bytes%s where its header promises %lld", file->path,
                     about, (long long)bytes, file->compressed ? " (uncompressed)" : "",
                     (long long)(file->header_bytes + file->n_elems));
}

/* Opens `path` + `ending`; *opened, for free(), is that name. No such file: *fd stays as it is. */
static lks_status open_if_there(const char *path, const char *ending, int *fd, char **opened)
{
    lks__text text = {0};
    char *name;
    lks__text_add(&text, "%s%s", path, ending);
    lks_status status = lks__text_take(&text, &name);
    if (status != LKS_OK)
        return status;
    int found = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not hang us */
    if (found >= 0) {
        *fd = found;
        *opened = name;
        return LKS_OK;
    }
    if (errno != ENOENT)
        status = lks__fail_open(errno, name);
    free(name);
    return status;
}

static lks_status open_stream(const char *path, lks__idx *file, int64_t *stored_bytes)
{
    int fd = -1;
    lks_status status = open_if_there(path, "", &fd, &file->path);
    if (status == LKS_OK && fd < 0)
        status = open_if_there(path, ".gz", &fd, &file->path);
    if (status != LKS_OK)
        return status;
    if (fd < 0)
        return lks__fail(LKS_E_NOT_FOUND, "%s does not exist, nor does %s.gz", path, path);
    struct stat about;
    if (fstat(fd, &about) != 0)
        status = lks__fail_errno(LKS_E_IO, errno, "asking for the size of %s", file->path);
    else if (!S_ISREG(about.st_mode))
        status = lks__fail(LKS_E_NOT_FOUND, "%s is a %s, not a file", file->path,
                           S_ISDIR(about.st_mode) ? "directory" : "device or pipe");
    else if ((file->stream = gzdopen(fd, "rb")) == NULL)
        status = lks__fail(LKS_E_NOMEM, "out of memory: opening %s", file->path);
    if (status != LKS_OK) {
        close(fd);
        return status;
    }
    (void)gzbuffer(file->stream, STREAM_BUFFER_BYTES);
    *stored_bytes = (int64_t)about.st_size;
    return LKS_OK;
}

static lks_status check_magic(const lks__idx *file, const uint8_t magic[MAGIC_BYTES])
{
    const char *type = NULL;
    for (size_t i = 0; i < sizeof element_types / sizeof element_types[0]; i++)
        if (element_types[i].code == magic[2])
            type = element_types[i].name;
    if (magic[0] != 0 || magic[1] != 0 || type == NULL)
        return lks__fail(
            LKS_E_FORMAT,
            "%s is no IDX file: it starts with %02x%02x%02x%02x, not with 0000080N (N dimensions)",
            file->path, magic[0], magic[1], magic[2], magic[3]);
    if (magic[2] != TYPE_U8)
        return lks__fail(LKS_E_UNSUPPORTED, "%s holds %s elements; only u8 is supported", file->path, type);
    if (magic[3] < 1 || magic[3] > LKS__IDX_MAX_DIMS)
        return lks__fail(LKS_E_FORMAT, "%s has %d dimensions; 1 to %d are supported", file->path, magic[3],
                         LKS__IDX_MAX_DIMS);
    return LKS_OK;
}

static lks_status set_dims(lks__idx *file, const uint8_t *bytes)
{
    file->n_elems = 1;
    for (int i = 0; i < file->n_dims; i++, bytes += 4) {
        file->dims[i] = (int64_t)bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
        if (file->dims[i] == 0)
            return lks__fail(LKS_E_FORMAT, "%s: dimension %d is 0", file->path, i);
        if (__builtin_mul_overflow(file->n_elems, file->dims[i], &file->n_elems) ||
            file->n_elems > INT64_MAX / 2)
            return lks__fail(LKS_E_FORMAT, "%s: its header promises more than 2^62 bytes", file->path);
    }
    return LKS_OK;
}

static lks_status read_header(lks__idx *file)
{
    uint8_t magic[MAGIC_BYTES], dims[4 * LKS__IDX_MAX_DIMS];
    int64_t n_read;
    lks_status status = read_bytes(file, magic, MAGIC_BYTES, &n_read);
    if (status != LKS_OK)
        return status;
    file->compressed = !gzdirect(file->stream);
    if (n_read < MAGIC_BYTES)
        return lks__fail(LKS_E_FORMAT, "%s is no IDX file: it holds %lld bytes", file->path,
                         (long long)n_read);
    status = check_magic(file, magic);
    if (status != LKS_OK)
        return status;

    file->n_dims = magic[3];
    file->header_bytes = MAGIC_BYTES + 4 * file->n_dims;
    status = read_bytes(file, dims, 4 * file->n_dims, &n_read);
    if (status != LKS_OK)
        return status;
    if (n_read < 4 * file->n_dims)
        return lks__fail(LKS_E_FORMAT, "%s is truncated: it holds %lld bytes and its header alone has %lld",
                         file->path, (long long)(MAGIC_BYTES + n_read), (long long)file->header_bytes);
    return set_dims(file, dims);
}

lks_status lks__idx_open(const char *path, lks__idx *out)
{
    *out = (lks__idx){0};
    int64_t stored_bytes = 0;
    lks_status status = open_stream(path, out, &stored_bytes);
    if (status == LKS_OK)
        status = read_header(out);
    if (status == LKS_OK && !out->compressed && stored_bytes != out->header_bytes + out->n_elems)
        status = wrong_size(out, "", stored_bytes);
    if (status != LKS_OK)
        lks__idx_close(out);
    return status;
}

/* A plain file's size was checked, so all is allocated at once; a compressed one may hold less than it says.
 */
static lks_status read_elements(lks__idx *file, int64_t n, uint8_t **out)
{
    uint8_t *elems = NULL;
    lks_status status;
    int64_t done = 0, n_read = 0;
    for (int64_t goal = file->compressed ? PIECE_BYTES : n; done < n; goal *= 2) {
        goal = goal < n ? goal : n;
        uint8_t *grown = lks__realloc(elems, (size_t)goal, LKS__MEM_DATA);
        if (grown == NULL) {
            status = LKS_E_NOMEM;
            goto failed;
        }
        elems = grown;
        status = read_bytes(file, elems + done, goal - done, &n_read);
        if (status != LKS_OK)
            goto failed;
        done += n_read;
        if (done < goal) {
            status = wrong_size(file, "", file->header_bytes + done);
            goto failed;
        }
    }
    *out = elems;
    return LKS_OK;

failed:
    lks__free(elems);
    return status;
}

/* The checksum of gzip stands behind the last byte: only who reads to the end knows that all is well. */
static lks_status check_rest(lks__idx *file, int64_t n_rest)
{
    uint8_t piece[PIECE_BYTES];
    int64_t done = 0, n_read;
    do {
        lks_status status = read_bytes(file, piece, PIECE_BYTES, &n_read);
        if (status != LKS_OK)
            return status;
        done += n_read;
    } while (n_read > 0 && done <= n_rest);
    if (done == n_rest)
        return LKS_OK;
    return wrong_size(file, n_read > 0 ? "at least " : "",
                      file->header_bytes + file->n_elems - n_rest + done);
}

lks_status lks__idx_read(lks__idx *file, int64_t n_keep, uint8_t **out)
{
    uint8_t *elems = NULL;
    lks_status status = read_elements(file, n_keep, &elems);
    if (status != LKS_OK)
        return status;
    if (file->compressed)
        status = check_rest(file, file->n_elems - n_keep);
    if (status != LKS_OK) {
        lks__free(elems);
        return status;
    }
    *out = elems;
    return LKS_OK;
}

void lks__idx_close(lks__idx *file)
{
    if (file->stream != NULL)
        (void)gzclose_r(file->stream);
    free(file->path);
    *file = (lks__idx){0};
}
