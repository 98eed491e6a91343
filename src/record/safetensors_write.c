/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/error.h"
#include "record/checksum.h"
#include "record/safetensors.h"
#include "record/write_file.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are stored as they lie in memory");

enum { ALIGNMENT = 8 }; /* of the tensors' bytes in the file: the header ends with blanks up to there */

static int64_t bytes_of(const lks__tensor_view *tensor)
{
    int64_t n = 1;
    for (int i = 0; i < tensor->n_dims; i++)
        n *= tensor->shape[i];
    return n * (int64_t)sizeof(float);
}

/* Adds a new key. `value` is taken over, and may be NULL (which jansson gives for text that is not UTF-8). */
static lks_status add_key(json_t *object, const char *key, json_t *value)
{
    if (json_object_get(object, key) != NULL) {
        json_decref(value);
        return lks__fail(LKS_E_ARG, "two entries of a safetensors file are named \"%s\"", key);
    }
    if (json_object_set_new(object, key, value) != 0)
        return lks__fail(LKS_E_ARG, "the safetensors entry \"%s\" is not UTF-8", key);
    return LKS_OK;
}

static lks_status add_metadata(json_t *header, int n_metadata, const lks__metadata *metadata)
{
    json_t *object = json_object();
    lks_status status = LKS_OK;
    for (int i = 0; i < n_metadata && status == LKS_OK; i++)
        status = add_key(object, metadata[i].key, json_string(metadata[i].value));
    if (status != LKS_OK) {
        json_decref(object);
        return status;
    }
    return add_key(header, "__metadata__", object);
}

/* {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]} */
static lks_status add_tensor(json_t *header, const lks__tensor_view *tensor, int64_t begin)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->n_dims; i++)
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets",
                              (json_int_t)begin, (json_int_t)(begin + bytes_of(tensor)));
    return add_key(header, tensor->name, entry);
}

/* *out is for free(); its length is a multiple of ALIGNMENT, the number of bytes before it is too. */
static lks_status header_to_text(const json_t *header, char **out)
{
    char *text = json_dumps(header, JSON_COMPACT);
    if (text == NULL)
        return lks__fail(LKS_E_NOMEM, "out of memory: header of a safetensors file");
    size_t length = strlen(text), padding = (ALIGNMENT - length % ALIGNMENT) % ALIGNMENT;
    char *padded = realloc(text, length + padding + 1);
    if (padded == NULL) {
        free(text);
        return lks__fail(LKS_E_NOMEM, "out of memory: header of a safetensors file");
    }
    memset(padded + length, ' ', padding);
    padded[length + padding] = '\0';
    *out = padded;
    return LKS_OK;
}

static lks_status make_header(int n_tensors, const lks__tensor_view *tensors, int n_metadata,
                              const lks__metadata *metadata, char **out)
{
    json_t *header = json_object();
    lks_status status = n_metadata > 0 ? add_metadata(header, n_metadata, metadata) : LKS_OK;
    int64_t begin = 0;
    for (int i = 0; i < n_tensors && status == LKS_OK; i++) {
        status = add_tensor(header, &tensors[i], begin);
        begin += bytes_of(&tensors[i]);
    }
    if (status == LKS_OK)
        status = header_to_text(header, out);
    json_decref(header);
    return status;
}

/* Puts the checksum into a header that holds zeros in its place. */
static lks_status set_checksum(char *header, int n_pieces, const lks__piece *pieces)
{
    XXH64_state_t *hash = XXH64_createState();
    if (hash == NULL)
        return lks__fail(LKS_E_NOMEM, "out of memory: checksum of a file");
    XXH64_reset(hash, 0);
    for (int i = 0; i < n_pieces; i++)
        XXH64_update(hash, pieces[i].data, pieces[i].bytes);
    char digits[LKS__CHECKSUM_DIGITS + 1];
    snprintf(digits, sizeof digits, "%016" PRIx64, (uint64_t)XXH64_digest(hash));
    memcpy(header + LKS__CHECKSUM_OFFSET, digits, LKS__CHECKSUM_DIGITS);
    XXH64_freeState(hash);
    return LKS_OK;
}

/* header: changed when it gets its checksum. */
static lks_status write_parts(const char *path, char *header, int n_tensors, const lks__tensor_view *tensors,
                              bool checked)
{
    uint64_t header_bytes = strlen(header);
    lks__piece *pieces = lks__alloc_array(n_tensors + 2, sizeof *pieces, LKS__MEM_MISC);
    if (pieces == NULL)
        return LKS_E_NOMEM;
    pieces[0] = (lks__piece){&header_bytes, sizeof header_bytes};
    pieces[1] = (lks__piece){header, header_bytes};
    for (int i = 0; i < n_tensors; i++)
        pieces[2 + i] = (lks__piece){tensors[i].data, (size_t)bytes_of(&tensors[i])};
    lks_status status = checked ? set_checksum(header, n_tensors + 2, pieces) : LKS_OK;
    if (status == LKS_OK)
        status = lks__write_file(path, n_tensors + 2, pieces);
    lks__free(pieces);
    return status;
}

lks_status lks__safetensors_write(const char *path, int n_tensors, const lks__tensor_view *tensors,
                                  int n_metadata, const lks__metadata *metadata)
{
    char *header = NULL;
    lks_status status = make_header(n_tensors, tensors, n_metadata, metadata, &header);
    if (status == LKS_OK)
        status = write_parts(path, header, n_tensors, tensors, false);
    free(header);
    return status;
}

lks_status lks__safetensors_write_checked(const char *path, int n_tensors, const lks__tensor_view *tensors,
                                          int n_metadata, const lks__metadata *metadata)
{
    lks__metadata *entries = lks__alloc_array(n_metadata + 1, sizeof *entries, LKS__MEM_MISC);
    if (entries == NULL)
        return LKS_E_NOMEM;
    entries[0] = (lks__metadata){LKS__CHECKSUM_KEY, LKS__CHECKSUM_ZEROS};
    for (int i = 0; i < n_metadata; i++)
        entries[1 + i] = metadata[i];
    char *header = NULL;
    lks_status status = make_header(n_tensors, tensors, n_metadata + 1, entries, &header);
    if (status == LKS_OK)
        status = write_parts(path, header, n_tensors, tensors, true);
    free(header);
    lks__free(entries);
    return status;
}
