/* SPDX-License-Identifier: Apache-2.0 */
#include <lockstep/dataset.h>

#include <math.h>

#include "base/alloc.h"
#include "base/error.h"
#include "data/dataset_files.h"
#include "data/dataset_parts.h"
#include "data/normalize.h"

struct lks_dataset {
    lks_dataset_info info;
    lks_dtype dtype;       /* LKS_U8 or LKS_F32 */
    const void *features;  /* [N, n_features] of dtype */
    const int32_t *labels; /* [N] */
    void *owned_features;  /* what destroy frees; NULL: the arrays are borrowed */
    void *owned_labels;
    float scale, shift; /* x = stored * scale + shift */
};

static lks_status create(const lks_dataset_info *info, lks_dtype dtype, const void *features,
                         const int32_t *labels, lks_dataset **out)
{
    *out = NULL;
    lks_dataset *dataset = lks__alloc(sizeof *dataset, LKS__MEM_DATA);
    if (dataset == NULL)
        return LKS_E_NOMEM;
    dataset->info = *info;
    dataset->dtype = dtype;
    dataset->features = features;
    dataset->labels = labels;
    lks_status status = lks_dataset_set_normalize(dataset, &(lks_normalize){.mean = 0, .std = 1});
    if (status != LKS_OK) {
        lks_dataset_destroy(dataset);
        return status;
    }
    *out = dataset;
    return LKS_OK;
}

lks_status lks__dataset_adopt(const lks_dataset_info *info, uint8_t *features, int32_t *labels,
                              lks_dataset **out)
{
    lks_status status = create(info, LKS_U8, features, labels, out);
    if (status != LKS_OK)
        return status;
    (*out)->owned_features = features;
    (*out)->owned_labels = labels;
    return LKS_OK;
}

/* n_features = product of shape, and N samples of it are a size that memory can have. */
static lks_status count_features(lks_dataset_info *info)
{
    int64_t n_features = 1, n_values;
    for (int i = 0; i < info->n_dims; i++) {
        if (info->shape[i] < 1)
            return lks__fail(LKS_E_ARG, "data set: shape[%d] is %lld; it must be at least 1", i,
                             (long long)info->shape[i]);
        if (__builtin_mul_overflow(n_features, info->shape[i], &n_features))
            return lks__fail(LKS_E_ARG, "data set: a sample of this shape has more than 2^63 values");
    }
    if (__builtin_mul_overflow(n_features, info->n_samples, &n_values) || n_values > INT64_MAX / 4)
        return lks__fail(LKS_E_ARG, "data set: %lld samples of %lld values are more than 2^61",
                         (long long)info->n_samples, (long long)n_features);
    info->n_features = n_features;
    return LKS_OK;
}

/* The largest class must leave room for its number plus one. */
static lks_status count_classes(lks_dataset_info *info, const int32_t *labels)
{
    int32_t largest = 0;
    for (int64_t i = 0; i < info->n_samples; i++) {
        if (labels[i] < 0 || labels[i] == INT32_MAX)
            return lks__fail(LKS_E_ARG, "data set: label %lld is %d; labels are 0 .. 2147483646",
                             (long long)i, labels[i]);
        if (labels[i] > largest)
            largest = labels[i];
    }
    info->n_classes = (int64_t)largest + 1;
    return LKS_OK;
}

lks_status lks_dataset_from_arrays(int64_t n, int n_dims, const int64_t *shape, lks_dtype dtype,
                                   const void *features, const int32_t *labels, lks_dataset **out)
{
    *out = NULL;
    if (n < 1)
        return lks__fail(LKS_E_ARG, "data set: %lld samples; there must be at least 1", (long long)n);
    if (n_dims < 1 || n_dims > LKS_MAX_DIMS)
        return lks__fail(LKS_E_ARG, "data set: samples of %d dimensions; 1 to %d are allowed", n_dims,
                         LKS_MAX_DIMS);
    if (dtype != LKS_F32 && dtype != LKS_U8)
        return lks__fail(LKS_E_ARG, "data set: features must be LKS_F32 or LKS_U8");
    if (shape == NULL || features == NULL || labels == NULL)
        return lks__fail(LKS_E_ARG, "data set: shape, features or labels are NULL");

    lks_dataset_info info = {.n_samples = n, .n_dims = n_dims};
    for (int i = 0; i < n_dims; i++)
        info.shape[i] = shape[i];
    lks_status status = count_features(&info);
    if (status == LKS_OK)
        status = count_classes(&info, labels);
    if (status != LKS_OK)
        return status;
    return create(&info, dtype, features, labels, out);
}

void lks_dataset_destroy(lks_dataset *dataset)
{
    if (dataset == NULL)
        return;
    lks__free(dataset->owned_features);
    lks__free(dataset->owned_labels);
    lks__free(dataset);
}

lks_status lks_dataset_set_normalize(lks_dataset *dataset, const lks_normalize *normalize)
{
    double mean = normalize->mean, std = normalize->std;
    if (!isfinite(mean))
        return lks__fail(LKS_E_ARG, "data set: normalize.mean is %g; it must be finite", mean);
    if (!isfinite(std) || std <= 0)
        return lks__fail(LKS_E_ARG, "data set: normalize.std is %g; it must be finite and above 0", std);

    double unit = dataset->dtype == LKS_U8 ? 255.0 : 1.0;
    float scale = (float)(1.0 / (unit * std)), shift = (float)(-mean / std);
    if (!isfinite(scale) || !isfinite(shift))
        return lks__fail(LKS_E_ARG, "data set: normalize.mean %g over normalize.std %g has no f32", mean,
                         std);
    dataset->scale = scale;
    dataset->shift = shift;
    return LKS_OK;
}

void lks_dataset_get_info(const lks_dataset *dataset, lks_dataset_info *out)
{
    *out = dataset->info;
}

void lks_dataset_read(const lks_dataset *dataset, int64_t n, const int64_t *indices, float *x,
                      int32_t *labels)
{
    int64_t n_features = dataset->info.n_features;
    lks__simd level = lks__simd_best();
    for (int64_t i = 0; i < n; i++) {
        int64_t start = indices[i] * n_features;
        float *row = x + i * n_features;
        if (dataset->dtype == LKS_U8)
            lks__normalize_u8[level]((const uint8_t *)dataset->features + start, n_features, dataset->scale,
                                     dataset->shift, row);
        else
            lks__normalize_f32[level]((const float *)dataset->features + start, n_features, dataset->scale,
                                      dataset->shift, row);
        labels[i] = dataset->labels[indices[i]];
    }
}

void lks__dataset_prefetch(const lks_dataset *dataset, int64_t n, const int64_t *indices)
{
    int64_t row_bytes = dataset->info.n_features * (dataset->dtype == LKS_U8 ? 1 : (int64_t)sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        const char *row = (const char *)dataset->features + indices[i] * row_bytes;
        for (int64_t offset = 0; offset < row_bytes; offset += LKS__ALIGNMENT)
            __builtin_prefetch(row + offset);
        __builtin_prefetch(row + row_bytes - 1); /* a row may begin in the middle of a line */
        __builtin_prefetch(&dataset->labels[indices[i]]);
    }
}
