/* SPDX-License-Identifier: Apache-2.0 */
#include "data/dataset_files.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "data/dataset_parts.h"
#include "data/idx.h"

/* An open pair of files that fit each other: images [N, shape...], labels [N]. {0} is closed. */
typedef struct pair {
    lks__idx images, labels;
    lks_dataset_info info; /* n_samples after the limit; n_classes 0 */
} pair;

static void pair_close(pair *files)
{
    lks__idx_close(&files->images);
    lks__idx_close(&files->labels);
}

static lks_status check_pair(const lks__idx *images, const lks__idx *labels, int64_t limit)
{
    if (images->n_dims < 2)
        return lks__fail(LKS_E_FORMAT,
                         "%s holds labels (magic 00000801), not images (0000080N, N from 2 to %d)",
                         images->path, LKS__IDX_MAX_DIMS);
    if (labels->n_dims != 1)
        return lks__fail(LKS_E_FORMAT,
                         "%s holds data of %d dimensions (magic 0000080%d), not labels (00000801)",
                         labels->path, labels->n_dims, labels->n_dims);
    if (images->dims[0] != labels->dims[0])
        return lks__fail(LKS_E_FORMAT, "%s holds %lld images, but %s holds %lld labels", images->path,
                         (long long)images->dims[0], labels->path, (long long)labels->dims[0]);
    if (limit < 0 || limit > images->dims[0])
        return lks__fail(LKS_E_ARG, "data.limit is %lld; %s holds %lld samples, so 1 to %lld are allowed",
                         (long long)limit, images->path, (long long)images->dims[0],
                         (long long)images->dims[0]);
    return LKS_OK;
}

static lks_status pair_open(const char *images_path, const char *labels_path, int64_t limit, pair *out)
{
    *out = (pair){0};
    lks_status status = lks__idx_open(images_path, &out->images);
    if (status == LKS_OK)
        status = lks__idx_open(labels_path, &out->labels);
    if (status == LKS_OK)
        status = check_pair(&out->images, &out->labels, limit);
    if (status != LKS_OK) {
        pair_close(out);
        return status;
    }
    const lks__idx *images = &out->images;
    out->info.n_samples = limit > 0 ? limit : images->dims[0];
    out->info.n_dims = images->n_dims - 1;
    memcpy(out->info.shape, &images->dims[1], (size_t)out->info.n_dims * sizeof images->dims[0]);
    out->info.n_features = images->n_elems / images->dims[0];
    return LKS_OK;
}

/* All labels of the file count for the number of classes, so that a limit does not change the network. */
static lks_status read_labels(pair *files, int32_t **out)
{
    int64_t n = files->labels.n_elems;
    uint8_t *bytes = NULL;
    lks_status status = lks__idx_read(&files->labels, n, &bytes);
    if (status != LKS_OK)
        return status;
    int32_t *labels = lks__alloc_array(files->info.n_samples, sizeof *labels, LKS__MEM_DATA);
    if (labels == NULL) {
        lks__free(bytes);
        return LKS_E_NOMEM;
    }
    uint8_t largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = bytes[i] > largest ? bytes[i] : largest;
    for (int64_t i = 0; i < files->info.n_samples; i++)
        labels[i] = bytes[i];
    lks__free(bytes);
    files->info.n_classes = largest + 1;
    *out = labels;
    return LKS_OK;
}

lks_status lks_dataset_from_idx(const char *images_path, const char *labels_path, int64_t limit,
                                lks_dataset **out)
{
    *out = NULL;
    pair files;
    lks_status status = pair_open(images_path, labels_path, limit, &files);
    if (status != LKS_OK)
        return status;
    uint8_t *features = NULL;
    int32_t *labels = NULL;
    status = read_labels(&files, &labels);
    if (status == LKS_OK)
        status = lks__idx_read(&files.images, files.info.n_samples * files.info.n_features, &features);
    if (status == LKS_OK)
        status = lks__dataset_adopt(&files.info, features, labels, out);
    if (status != LKS_OK) {
        lks__free(features);
        lks__free(labels);
    }
    pair_close(&files);
    return status;
}

/* The four files of a data set in MNIST's format, in their directory. */
typedef struct file_names {
    char *train_images, *train_labels, *test_images, *test_labels; /* for free() */
} file_names;

static void file_names_free(file_names *names)
{
    free(names->train_images);
    free(names->train_labels);
    free(names->test_images);
    free(names->test_labels);
}

static lks_status file_names_make(const char *directory, file_names *out)
{
    *out = (file_names){0};
    if (directory == NULL)
        return lks__fail(LKS_E_ARG, "data.path is not set; it names the directory of the data set's files");
    const struct {
        const char *file;
        char **path;
    } rows[] = {
        {"train-images-idx3-ubyte", &out->train_images},
        {"train-labels-idx1-ubyte", &out->train_labels},
        {"t10k-images-idx3-ubyte", &out->test_images},
        {"t10k-labels-idx1-ubyte", &out->test_labels},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        lks__text text = {0};
        lks__text_add(&text, "%s/%s", directory, rows[i].file);
        lks_status status = lks__text_take(&text, rows[i].path);
        if (status != LKS_OK) {
            file_names_free(out);
            return status;
        }
    }
    return LKS_OK;
}

static lks_status add_fetch_hint(lks_status status, const char *directory)
{
    if (status == LKS_E_NOT_FOUND && strstr(directory, "mnist") != NULL)
        return lks__error_hint(status, "`scripts/get-data mnist %s` fetches MNIST", directory);
    return status;
}

enum { SHAPE_TEXT_BYTES = 24 * LKS_MAX_DIMS };

static lks_status check_same_shape(const lks_dataset_info *train, const lks_dataset_info *test,
                                   const file_names *names)
{
    if (train->n_dims == test->n_dims &&
        memcmp(train->shape, test->shape, (size_t)train->n_dims * sizeof train->shape[0]) == 0)
        return LKS_OK;
    char train_shape[SHAPE_TEXT_BYTES], test_shape[SHAPE_TEXT_BYTES];
    return lks__fail(LKS_E_FORMAT, "%s holds images of %s, but %s of %s", names->train_images,
                     lks__list_text(train->n_dims, train->shape, sizeof train_shape, train_shape),
                     names->test_images,
                     lks__list_text(test->n_dims, test->shape, sizeof test_shape, test_shape));
}

static lks_status check_no_further_classes(const lks_dataset_info *train, const lks_dataset_info *test,
                                           const file_names *names)
{
    if (test->n_classes <= train->n_classes)
        return LKS_OK;
    return lks__fail(LKS_E_FORMAT, "%s holds label %lld, but the labels of %s end at %lld",
                     names->test_labels, (long long)test->n_classes - 1, names->train_labels,
                     (long long)train->n_classes - 1);
}

int64_t lks__dataset_bytes(const lks_dataset_info *info)
{
    return info->n_samples * (info->n_features + (int64_t)sizeof(int32_t)); /* features are u8 */
}

static lks_status probe(const file_names *names, int64_t limit, lks_dataset_info *out_train,
                        lks_dataset_info *out_test)
{
    pair train, test;
    int32_t *labels = NULL;
    lks_status status = pair_open(names->train_images, names->train_labels, limit, &train);
    if (status != LKS_OK)
        return status;
    status = pair_open(names->test_images, names->test_labels, 0, &test);
    if (status == LKS_OK)
        status = check_same_shape(&train.info, &test.info, names);
    if (status == LKS_OK)
        status = read_labels(&train, &labels); /* counts the classes */
    if (status == LKS_OK) {
        *out_train = train.info;
        *out_test = test.info;
    }
    lks__free(labels);
    pair_close(&train);
    pair_close(&test);
    return status;
}

lks_status lks__dataset_probe(const lks__settings *settings, lks_dataset_info *train, lks_dataset_info *test)
{
    file_names names;
    lks_status status = file_names_make(settings->data_path, &names);
    if (status != LKS_OK)
        return status;
    status = add_fetch_hint(probe(&names, settings->data_limit, train, test), settings->data_path);
    file_names_free(&names);
    return status;
}

static lks_status check_together(const lks_dataset *train, const lks_dataset *test, const file_names *names)
{
    lks_dataset_info train_info, test_info;
    lks_dataset_get_info(train, &train_info);
    lks_dataset_get_info(test, &test_info);
    lks_status status = check_same_shape(&train_info, &test_info, names);
    if (status != LKS_OK)
        return status;
    return check_no_further_classes(&train_info, &test_info, names);
}

static lks_status open_both(const lks__settings *settings, const file_names *names, lks_dataset **train,
                            lks_dataset **test)
{
    lks_normalize normalize = {.mean = settings->normalize_mean, .std = settings->normalize_std};
    lks_status status = lks_dataset_from_idx(names->train_images, names->train_labels, settings->data_limit,
                                             train);
    if (status == LKS_OK)
        status = lks_dataset_from_idx(names->test_images, names->test_labels, 0, test);
    if (status == LKS_OK)
        status = check_together(*train, *test, names);
    if (status == LKS_OK)
        status = lks_dataset_set_normalize(*train, &normalize);
    if (status == LKS_OK)
        status = lks_dataset_set_normalize(*test, &normalize);
    return status;
}

lks_status lks__dataset_open(const lks__settings *settings, lks_dataset **train, lks_dataset **test)
{
    *train = *test = NULL;
    file_names names;
    lks_status status = file_names_make(settings->data_path, &names);
    if (status != LKS_OK)
        return status;
    lks_dataset *opened_train = NULL, *opened_test = NULL;
    status = add_fetch_hint(open_both(settings, &names, &opened_train, &opened_test), settings->data_path);
    file_names_free(&names);
    if (status != LKS_OK) {
        lks_dataset_destroy(opened_train);
        lks_dataset_destroy(opened_test);
        return status;
    }
    *train = opened_train;
    *test = opened_test;
    return LKS_OK;
}
