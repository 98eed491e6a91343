/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "base/alloc.h"
#include "record/safetensors.h"
#include "record/write_file.h"
#include "report/compare.h"

static lks__safetensors *open_model(const lks__run_files *run)
{
    lks__safetensors *file = NULL;
    char *path = run->finished ? lks__join_path(run->path, "model.safetensors") : NULL;
    if (path != NULL && lks__safetensors_open(path, &file) != LKS_OK)
        file = NULL;
    lks__free(path);
    return file;
}

/* norms: [3]: squares of a, of b, and of a - b, added to. x, y: [n]. */
static void add_squares(int64_t n, const float *x, const float *y, double norms[3])
{
    for (int64_t i = 0; i < n; i++) {
        double p = (double)x[i], q = (double)y[i];
        norms[0] += p * p;
        norms[1] += q * q;
        norms[2] += (p - q) * (p - q);
    }
}

/* Whether b has all of a's tensors, and the sums over them. */
static bool add_files(const lks__safetensors *a, const lks__safetensors *b, float *x, float *y,
                      double norms[3])
{
    bool same = lks__safetensors_n_tensors(a) == lks__safetensors_n_tensors(b);
    for (int i = 0; same && i < lks__safetensors_n_tensors(a); i++) {
        lks__tensor_info t = lks__safetensors_tensor(a, i);
        same = lks__safetensors_read(a, t.name, t.n_dims, t.shape, x) == LKS_OK &&
               lks__safetensors_read(b, t.name, t.n_dims, t.shape, y) == LKS_OK;
        if (same)
            add_squares(t.bytes / (int64_t)sizeof(float), x, y, norms);
    }
    return same;
}

double lks__model_distance(const lks__run_files *a, const lks__run_files *b)
{
    lks__safetensors *one = open_model(a), *other = open_model(b);
    double distance = NAN, norms[3] = {0};
    if (one != NULL && other != NULL) {
        int64_t elems = lks__safetensors_data_bytes(one) / (int64_t)sizeof(float);
        float *x = lks__alloc_array(elems, sizeof *x, LKS__MEM_PARAMS);
        float *y = lks__alloc_array(elems, sizeof *y, LKS__MEM_PARAMS);
        if (x != NULL && y != NULL && add_files(one, other, x, y, norms))
            distance = norms[2] > 0 ? sqrt(norms[2] / fmax(norms[0], norms[1])) : 0;
        lks__free(x);
        lks__free(y);
    }
    lks__safetensors_close(one);
    lks__safetensors_close(other);
    return distance;
}
