/* SPDX-License-Identifier: Apache-2.0 */
/* A file is somebody else's word: every number of its header is checked before it is used. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "record/checksum.h"
#include "record/safetensors.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are read as they lie in the file");

#define METADATA_KEY "__metadata__"

enum {
    LENGTH_BYTES = 8,             /* the number before the header */
    MAX_HEADER_BYTES = 100000000, /* the format's own limit */
    VERIFY_BYTES = 1 << 16,       /* hashed at a time; more than lies before the checksum's end */
    SHAPE_TEXT_BYTES = 24 * LKS__SAFETENSORS_DIMS,
};

typedef struct tensor_entry {
    const char *name;  /* borrowed from the header */
    const char *dtype; /* same; "F32", "BF16", ... */
    int n_dims;
    int64_t shape[LKS__SAFETENSORS_DIMS];
    int64_t begin, end; /* bytes after the header */
} tensor_entry;

struct lks__safetensors {
    char *path;
    int fd;         /* -1: not open */
    json_t *header; /* NULL: not read */
    int n_tensors;
    tensor_entry *entries; /* [n_tensors], in the order of the header */
    int64_t data_offset;   /* of the tensors' bytes in the file */
    int64_t data_bytes;
};

/* Reads `bytes` bytes at an offset. Returns: LKS_OK; LKS_E_IO, also when the file ends before. */
static lks_status read_at(const lks__safetensors *file, void *out, int64_t bytes, int64_t offset)
{
    char *next = out;
    while (bytes > 0) {
        ssize_t n = pread(file->fd, next, (size_t)bytes, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lks__fail_errno(LKS_E_IO, errno, "cannot read %s", file->path);
        if (n == 0)
            return lks__fail(LKS_E_IO, "%s was cut off while it was read", file->path);
        next += n;
        bytes -= n;
        offset += n;
    }
    return LKS_OK;
}

/* *bytes: the file's size. */
static lks_status open_file(lks__safetensors *file, int64_t *bytes)
{
    struct stat info;
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* nor wait for a pipe's writer */
    if (file->fd < 0)
        return lks__fail_open(errno, file->path);
    if (fstat(file->fd, &info) != 0)
        return lks__fail_errno(LKS_E_IO, errno, "cannot read %s", file->path);
    if (!S_ISREG(info.st_mode))
        return lks__fail(LKS_E_NOT_FOUND, "%s is not a regular file", file->path);
    *bytes = info.st_size;
    return LKS_OK;
}

static lks_status read_header_length(const lks__safetensors *file, int64_t file_bytes, int64_t *out)
{
    uint64_t length;
    if (file_bytes < LENGTH_BYTES)
        return lks__fail(LKS_E_FORMAT, "%s is not a safetensors file: it has %" PRId64 " bytes", file->path,
                         file_bytes);
    lks_status status = read_at(file, &length, LENGTH_BYTES, 0);
    if (status != LKS_OK)
        return status;
    if (length > MAX_HEADER_BYTES || (int64_t)length > file_bytes - LENGTH_BYTES)
        return lks__fail(LKS_E_FORMAT,
                         "%s is truncated or not a safetensors file: its header should have %" PRIu64
                         " bytes, the file has %" PRId64,
                         file->path, length, file_bytes);
    *out = (int64_t)length;
    return LKS_OK;
}

static lks_status parse_header(lks__safetensors *file, const char *text, int64_t length)
{
    json_error_t error;
    if (length == 0 || text[0] != '{')
        return lks__fail(LKS_E_FORMAT, "%s is not a safetensors file: its header is no JSON object",
                         file->path);
    file->header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (file->header == NULL)
        return lks__fail(LKS_E_FORMAT, "%s: the header is not valid JSON: %s", file->path, error.text);
    return LKS_OK;
}

static lks_status read_header(lks__safetensors *file)
{
    int64_t file_bytes = 0, length = 0;
    lks_status status = open_file(file, &file_bytes);
    if (status == LKS_OK)
        status = read_header_length(file, file_bytes, &length);
    if (status != LKS_OK)
        return status;
    file->data_offset = LENGTH_BYTES + length;
    file->data_bytes = file_bytes - file->data_offset;

    char *text = lks__alloc((size_t)length, LKS__MEM_MISC);
    if (text == NULL)
        return LKS_E_NOMEM;
    status = read_at(file, text, length, LENGTH_BYTES);
    if (status == LKS_OK)
        status = parse_header(file, text, length);
    lks__free(text);
    return status;
}

static lks_status check_metadata(const lks__safetensors *file)
{
    json_t *metadata = json_object_get(file->header, METADATA_KEY), *value;
    const char *key;
    if (metadata != NULL && !json_is_object(metadata))
        return lks__fail(LKS_E_FORMAT, "%s: " METADATA_KEY " is not an object", file->path);
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return lks__fail(LKS_E_FORMAT, "%s: " METADATA_KEY " \"%s\" is not a text", file->path, key);
    }
    return LKS_OK;
}

static bool parse_shape(const json_t *shape, tensor_entry *entry)
{
    if (!json_is_array(shape) || json_array_size(shape) > LKS__SAFETENSORS_DIMS)
        return false;
    entry->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < entry->n_dims; i++) {
        const json_t *size = json_array_get(shape, (size_t)i);
        entry->shape[i] = json_integer_value(size);
        if (!json_is_integer(size) || entry->shape[i] < 0)
            return false;
    }
    return true;
}

static bool parse_offsets(const json_t *offsets, int64_t data_bytes, tensor_entry *entry)
{
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return false;
    entry->begin = json_integer_value(begin);
    entry->end = json_integer_value(end);
    return 0 <= entry->begin && entry->begin <= entry->end && entry->end <= data_bytes;
}

static bool is_f32(const tensor_entry *entry)
{
    return strcmp(entry->dtype, "F32") == 0;
}

/* Other types are not read, so their sizes are their writer's business. */
static bool bytes_match(const tensor_entry *entry)
{
    int64_t bytes = sizeof(float);
    bool overflow = false, empty = false;
    for (int i = 0; i < entry->n_dims; i++) {
        empty |= entry->shape[i] == 0;
        overflow |= __builtin_mul_overflow(bytes, entry->shape[i], &bytes);
    }
    if (!is_f32(entry))
        return true;
    return empty ? entry->begin == entry->end : !overflow && bytes == entry->end - entry->begin;
}

static lks_status parse_entry(const lks__safetensors *file, const char *name, const json_t *value,
                              tensor_entry *out)
{
    out->name = name;
    out->dtype = json_string_value(json_object_get(value, "dtype"));
    const char *wrong = NULL;
    if (out->dtype == NULL)
        wrong = "dtype is missing or not a text";
    else if (!parse_shape(json_object_get(value, "shape"), out))
        wrong = "shape is not a list of at most 8 sizes";
    else if (!parse_offsets(json_object_get(value, "data_offsets"), file->data_bytes, out))
        wrong = "data_offsets are not two positions in the file";
    else if (!bytes_match(out))
        wrong = "data_offsets do not fit the shape";
    if (wrong != NULL)
        return lks__fail(LKS_E_FORMAT, "%s: tensor \"%s\": %s", file->path, name, wrong);
    return LKS_OK;
}

static int by_offset(const void *a, const void *b)
{
    const tensor_entry *x = *(const tensor_entry *const *)a, *y = *(const tensor_entry *const *)b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* The format's rule: one tensor starts where the one before ends, from the header to the end of the file. */
static lks_status check_cover(const lks__safetensors *file)
{
    const tensor_entry **sorted = lks__alloc_array(file->n_tensors, sizeof *sorted, LKS__MEM_MISC);
    if (sorted == NULL)
        return LKS_E_NOMEM;
    for (int i = 0; i < file->n_tensors; i++)
        sorted[i] = &file->entries[i];
    if (file->n_tensors > 0)
        qsort(sorted, (size_t)file->n_tensors, sizeof *sorted, by_offset);

    lks_status status = LKS_OK;
    int64_t end = 0;
    for (int i = 0; i < file->n_tensors && status == LKS_OK; i++) {
        if (sorted[i]->begin != end)
            status = lks__fail(LKS_E_FORMAT, "%s: there is %s before tensor \"%s\"", file->path,
                               sorted[i]->begin > end ? "a hole" : "an overlap", sorted[i]->name);
        end = sorted[i]->end;
    }
    if (status == LKS_OK && end != file->data_bytes)
        status = lks__fail(LKS_E_FORMAT, "%s: %" PRId64 " bytes follow the last tensor", file->path,
                           file->data_bytes - end);
    lks__free(sorted);
    return status;
}

static lks_status parse_entries(lks__safetensors *file)
{
    const char *name;
    json_t *value;
    lks_status status = LKS_OK;
    file->entries = lks__alloc_array((int64_t)json_object_size(file->header), sizeof(tensor_entry),
                                     LKS__MEM_MISC);
    if (file->entries == NULL)
        return LKS_E_NOMEM;
    json_object_foreach(file->header, name, value)
    {
        if (strcmp(name, METADATA_KEY) == 0)
            continue;
        status = parse_entry(file, name, value, &file->entries[file->n_tensors]);
        if (status != LKS_OK)
            return status;
        file->n_tensors++;
    }
    return check_cover(file);
}

lks_status lks__safetensors_open(const char *path, lks__safetensors **out)
{
    *out = NULL;
    lks__safetensors *file = lks__alloc(sizeof *file, LKS__MEM_MISC);
    if (file == NULL)
        return LKS_E_NOMEM;
    file->fd = -1;
    file->path = lks__strdup(path);
    lks_status status = file->path == NULL ? LKS_E_NOMEM : read_header(file);
    if (status == LKS_OK)
        status = check_metadata(file);
    if (status == LKS_OK)
        status = parse_entries(file);
    if (status != LKS_OK) {
        lks__safetensors_close(file);
        return status;
    }
    *out = file;
    return LKS_OK;
}

void lks__safetensors_close(lks__safetensors *file)
{
    if (file == NULL)
        return;
    if (file->fd >= 0)
        close(file->fd);
    json_decref(file->header);
    lks__free(file->entries);
    lks__free(file->path);
    lks__free(file);
}

/* Takes the checksum's digits out of the file's first bytes and puts zeros there. False: it has none. */
static bool take_checksum(char *first, int64_t bytes, char digits[LKS__CHECKSUM_DIGITS + 1])
{
    enum { END = LENGTH_BYTES + LKS__CHECKSUM_OFFSET + LKS__CHECKSUM_DIGITS };
    if (bytes < END || memcmp(first + LENGTH_BYTES, LKS__CHECKSUM_BEFORE, LKS__CHECKSUM_OFFSET) != 0)
        return false;
    char *place = first + LENGTH_BYTES + LKS__CHECKSUM_OFFSET;
    memcpy(digits, place, LKS__CHECKSUM_DIGITS);
    digits[LKS__CHECKSUM_DIGITS] = '\0';
    memcpy(place, LKS__CHECKSUM_ZEROS, LKS__CHECKSUM_DIGITS);
    return true;
}

/* buffer: [VERIFY_BYTES] */
static lks_status compare_checksum(const lks__safetensors *file, XXH64_state_t *hash, char *buffer)
{
    char stored[LKS__CHECKSUM_DIGITS + 1], found[LKS__CHECKSUM_DIGITS + 1];
    int64_t end = file->data_offset + file->data_bytes;
    XXH64_reset(hash, 0);
    for (int64_t offset = 0; offset < end; offset += VERIFY_BYTES) {
        int64_t bytes = end - offset < VERIFY_BYTES ? end - offset : VERIFY_BYTES;
        lks_status status = read_at(file, buffer, bytes, offset);
        if (status != LKS_OK)
            return status;
        if (offset == 0 && !take_checksum(buffer, bytes, stored))
            return lks__fail(LKS_E_FORMAT, "%s has no checksum", file->path);
        XXH64_update(hash, buffer, (size_t)bytes);
    }
    snprintf(found, sizeof found, "%016" PRIx64, (uint64_t)XXH64_digest(hash));
    if (memcmp(found, stored, sizeof found) != 0)
        return lks__fail(LKS_E_FORMAT, "%s is damaged: its checksum does not fit its content", file->path);
    return LKS_OK;
}

lks_status lks__safetensors_verify(const lks__safetensors *file)
{
    XXH64_state_t *hash = XXH64_createState();
    char *buffer = lks__alloc(VERIFY_BYTES, LKS__MEM_MISC);
    lks_status status = LKS_E_NOMEM;
    if (hash == NULL)
        status = lks__fail(LKS_E_NOMEM, "out of memory");
    else if (buffer != NULL)
        status = compare_checksum(file, hash, buffer);
    lks__free(buffer);
    XXH64_freeState(hash);
    return status;
}

int lks__safetensors_n_tensors(const lks__safetensors *file)
{
    return file->n_tensors;
}

const char *lks__safetensors_name(const lks__safetensors *file, int index)
{
    return file->entries[index].name;
}

lks__tensor_info lks__safetensors_tensor(const lks__safetensors *file, int index)
{
    const tensor_entry *entry = &file->entries[index];
    return (lks__tensor_info){entry->name, entry->dtype, entry->n_dims, entry->shape,
                              entry->end - entry->begin};
}

int64_t lks__safetensors_data_bytes(const lks__safetensors *file)
{
    return file->data_bytes;
}

const char *lks__safetensors_metadata(const lks__safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, METADATA_KEY), key));
}

static const tensor_entry *find(const lks__safetensors *file, const char *name)
{
    for (int i = 0; i < file->n_tensors; i++)
        if (strcmp(file->entries[i].name, name) == 0)
            return &file->entries[i];
    return NULL;
}

static lks_status fail_missing(const lks__safetensors *file, const char *name)
{
    if (file->n_tensors == 0)
        return lks__fail(LKS_E_FORMAT, "%s: tensor \"%s\" is wanted; the file has none", file->path, name);
    return lks__fail(LKS_E_FORMAT, "%s: tensor \"%s\" is wanted; the file has %d others, the first is \"%s\"",
                     file->path, name, file->n_tensors, file->entries[0].name);
}

static bool same_shape(const tensor_entry *entry, int n_dims, const int64_t *shape)
{
    if (entry->n_dims != n_dims)
        return false;
    for (int i = 0; i < n_dims; i++)
        if (entry->shape[i] != shape[i])
            return false;
    return true;
}

static lks_status check_wanted(const lks__safetensors *file, const tensor_entry *entry, int n_dims,
                               const int64_t *shape)
{
    if (!is_f32(entry))
        return lks__fail(LKS_E_FORMAT, "%s: tensor \"%s\" has type %s; F32 is wanted", file->path,
                         entry->name, entry->dtype);
    if (same_shape(entry, n_dims, shape))
        return LKS_OK;
    char has[SHAPE_TEXT_BYTES], wanted[SHAPE_TEXT_BYTES];
    return lks__fail(LKS_E_FORMAT, "%s: tensor \"%s\" has shape %s; %s is wanted", file->path, entry->name,
                     lks__list_text(entry->n_dims, entry->shape, sizeof has, has),
                     lks__list_text(n_dims, shape, sizeof wanted, wanted));
}

lks_status lks__safetensors_read(const lks__safetensors *file, const char *name, int n_dims,
                                 const int64_t *shape, float *out)
{
    const tensor_entry *entry = find(file, name);
    if (entry == NULL)
        return fail_missing(file, name);
    lks_status status = check_wanted(file, entry, n_dims, shape);
    if (status != LKS_OK)
        return status;
    return read_at(file, out, entry->end - entry->begin, file->data_offset + entry->begin);
}
