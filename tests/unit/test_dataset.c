/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/alloc.h"
#include "data/dataset_files.h"
#include "data/normalize.h"
#include "idx_files.h"

static const int64_t shape_2x3[] = {2, 3};

/* ---- arrays ---- */

static void arrays_come_back_as_they_are(void **state)
{
    (void)state;
    const float features[4][2][3] = {
        {{0, 1, 2}, {3, 4, 5}}, {{6, 7, 8}, {9, 10, -0.0f}}, {{-1, 0.1f, 1e30f}}};
    const int32_t labels[4] = {2, 0, 7, 1};
    lks_dataset *dataset;
    CHECK_OK(lks_dataset_from_arrays(4, 2, shape_2x3, LKS_F32, features, labels, &dataset));
    lks_dataset_info info;
    lks_dataset_get_info(dataset, &info);
    CHECK_INT(info.n_samples, 4);
    CHECK_INT(info.n_dims, 2);
    CHECK_INT(info.shape[0], 2);
    CHECK_INT(info.shape[1], 3);
    CHECK_INT(info.n_features, 6);
    CHECK_INT(info.n_classes, 8);

    float x[3][6];
    int32_t got[3];
    lks__dataset_prefetch(dataset, 3, (int64_t[]){2, 1, 2});
    lks_dataset_read(dataset, 3, (int64_t[]){2, 1, 2}, x[0], got);
    assert_memory_equal(x[0], features[2], sizeof x[0]); /* times 1 minus 0 changes no bit, not even of -0 */
    assert_memory_equal(x[1], features[1], sizeof x[1]);
    assert_memory_equal(x[2], features[2], sizeof x[2]);
    assert_memory_equal(got, ((int32_t[]){7, 0, 7}), sizeof got);
    lks_dataset_destroy(dataset);
}

static void arrays_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const float f[12];
    static const int32_t good[2] = {0, 1}, negative[2] = {0, -1}, large[2] = {INT32_MAX, 0};
    static const int64_t empty[] = {2, 0}, huge[] = {INT64_MAX / 2, 4}, wide[] = {INT64_MAX / 4};
    static const struct {
        int64_t n;
        int n_dims;
        const int64_t *shape;
        lks_dtype dtype;
        const void *features;
        const int32_t *labels;
        const char *message;
    } refused[] = {
        {0, 2, shape_2x3, LKS_F32, f, good, "0 samples"},
        {2, 0, shape_2x3, LKS_F32, f, good, "samples of 0 dimensions; 1 to 4"},
        {2, 5, shape_2x3, LKS_F32, f, good, "samples of 5 dimensions; 1 to 4"},
        {2, 2, empty, LKS_F32, f, good, "shape[1] is 0"},
        {2, 2, huge, LKS_F32, f, good, "more than 2^63 values"},
        {2, 1, wide, LKS_U8, f, good, "more than 2^61"},
        {2, 2, shape_2x3, LKS_F64, f, good, "LKS_F32 or LKS_U8"},
        {2, 2, shape_2x3, LKS_F32, f, negative, "label 1 is -1"},
        {2, 2, shape_2x3, LKS_F32, f, large, "label 0 is 2147483647"},
        {2, 2, shape_2x3, LKS_F32, NULL, good, "NULL"},
        {2, 2, shape_2x3, LKS_F32, f, NULL, "NULL"},
        {2, 2, NULL, LKS_F32, f, good, "NULL"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        lks_dataset *dataset = (lks_dataset *)&dataset;
        CHECK_FAILS(lks_dataset_from_arrays(refused[i].n, refused[i].n_dims, refused[i].shape,
                                            refused[i].dtype, refused[i].features, refused[i].labels,
                                            &dataset),
                    LKS_E_ARG, refused[i].message);
        assert_null(dataset);
    }
}

/* ---- normalisation ---- */

/* The oracle is the definition in double precision. x = v * scale + shift has three roundings to f32 of
 * numbers no larger than m = |v| scale + |shift|, besides those of the two constants: 5 * 2^-24 m in all, at
 * most. */
static void check_normalized(lks_dtype dtype, const void *features, const double *values, int64_t n,
                             double mean, double std)
{
    static float x[256];
    static const int32_t labels[256];
    int32_t label;
    lks_dataset *dataset;
    CHECK_OK(lks_dataset_from_arrays(1, 1, &n, dtype, features, labels, &dataset));
    CHECK_OK(lks_dataset_set_normalize(dataset, &(lks_normalize){mean, std}));
    lks_dataset_read(dataset, 1, (int64_t[]){0}, x, &label);
    double unit = dtype == LKS_U8 ? 255 : 1;
    for (int64_t i = 0; i < n; i++) {
        double largest = (fabs(values[i]) / unit + fabs(mean)) / std;
        CHECK_NEAR(x[i], (values[i] / unit - mean) / std, 5 * 0x1p-24 * largest);
    }
    lks_dataset_destroy(dataset);
}

static void values_are_normalized(void **state)
{
    (void)state;
    static const double settings[][2] = {{0, 1}, {0.1307, 0.3081}, {-2.5, 0.001}, {1e-3, 40}};
    uint8_t bytes[256];
    float floats[256];
    double byte_values[256], float_values[256];
    for (int i = 0; i < 256; i++) {
        bytes[i] = (uint8_t)i;
        byte_values[i] = i;
        floats[i] = (float)(i - 100) / 7.0f;
        float_values[i] = floats[i];
    }
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        check_normalized(LKS_U8, bytes, byte_values, 256, settings[i][0], settings[i][1]);
        check_normalized(LKS_F32, floats, float_values, 256, settings[i][0], settings[i][1]);
    }
}

static void normalisations_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const struct {
        lks_normalize normalize;
        const char *message;
    } refused[] = {
        {{NAN, 1}, "normalize.mean is nan"}, {{INFINITY, 1}, "normalize.mean is inf"},
        {{0, 0}, "normalize.std is 0"},      {{0, -1}, "normalize.std is -1"},
        {{0, NAN}, "normalize.std is nan"},  {{0, INFINITY}, "normalize.std is inf"},
        {{0, 1e-60}, "has no f32"},          {{1e30, 1e-30}, "has no f32"},
    };
    const uint8_t feature = 51;
    const int32_t label = 3;
    lks_dataset *dataset;
    CHECK_OK(lks_dataset_from_arrays(1, 1, (int64_t[]){1}, LKS_U8, &feature, &label, &dataset));
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        CHECK_FAILS(lks_dataset_set_normalize(dataset, &refused[i].normalize), LKS_E_ARG, refused[i].message);
    float x;
    int32_t got;
    lks_dataset_read(dataset, 1, (int64_t[]){0}, &x, &got);
    CHECK_NEAR(x, 0.2, 2 * 0x1p-24 * 0.2); /* as before the refusals: 51/255, constant and product rounded */
    lks_dataset_destroy(dataset);
}

/* The oracle rounds the product before it adds: volatile keeps a compiler from fusing the two. */
static float multiply_then_add(float value, float scale, float shift)
{
    volatile float product = value * scale;
    return product + shift;
}

static void every_vector_width_gives_the_same_bits(void **state)
{
    (void)state;
    enum { N = 300 };
    const float scale = 0.0127f, shift = -0.4242f;
    uint8_t bytes[N];
    float floats[N], want_u8[N], want_f32[N], got[N + 1];
    for (int i = 0; i < N; i++) {
        bytes[i] = (uint8_t)(i * 37);
        floats[i] = (float)(i * i) / 13.0f;
        want_u8[i] = multiply_then_add((float)bytes[i], scale, shift);
        want_f32[i] = multiply_then_add(floats[i], scale, shift);
    }
    for (int level = LKS__SIMD_BASE; level <= (int)lks__simd_best(); level++)
        for (int n = 0; n <= N; n += n < 70 ? 1 : 23) { /* tails of every length */
            got[n] = 42;
            lks__normalize_u8[level](bytes + N - n, n, scale, shift, got);
            assert_memory_equal(got, want_u8 + N - n, (size_t)n * sizeof *got);
            lks__normalize_f32[level](floats + N - n, n, scale, shift, got);
            assert_memory_equal(got, want_f32 + N - n, (size_t)n * sizeof *got);
            assert_true(got[n] == 42);
        }
}

/* ---- the data sets of a config ---- */

static lks__settings settings_of(const char *path)
{
    return (lks__settings){.data_path = path, .normalize_mean = 0, .normalize_std = 1};
}

/* 20 training and 6 test images of 4x5, four classes. */
static void write_four_files(void)
{
    content file = images_of(20, 4, 5);
    write_file("train-images-idx3-ubyte", &file);
    file = labels_of(20, 4);
    write_file("train-labels-idx1-ubyte", &file);
    file = images_of(6, 4, 5);
    write_file("t10k-images-idx3-ubyte", &file);
    file = labels_of(6, 4);
    write_file("t10k-labels-idx1-ubyte", &file);
}

static void expect_refused(const lks__settings *settings, lks_status status, const char *message)
{
    lks_dataset *train = (lks_dataset *)&train, *test = train;
    CHECK_FAILS(lks__dataset_open(settings, &train, &test), status, message);
    assert_null(train);
    assert_null(test);
}

static void a_config_s_data_set_is_opened(void **state)
{
    (void)state;
    write_four_files();
    lks__settings settings = settings_of(folder);
    settings.normalize_mean = 0.5;
    settings.normalize_std = 0.25;
    lks_dataset_info info, test_info;
    CHECK_OK(lks__dataset_probe(&settings, &info, &test_info));
    CHECK_INT(info.n_samples, 20);
    CHECK_INT(info.n_dims, 2);
    CHECK_INT(info.shape[0], 4);
    CHECK_INT(info.shape[1], 5);
    CHECK_INT(info.n_features, 20);
    CHECK_INT(info.n_classes, 4);
    CHECK_INT(test_info.n_samples, 6);
    CHECK_INT(test_info.n_features, 20);

    lks_dataset *train, *test;
    CHECK_OK(lks__dataset_open(&settings, &train, &test));
    lks_dataset_get_info(train, &info);
    CHECK_INT(info.n_samples, 20);
    CHECK_INT(info.n_classes, 4);
    lks_dataset_get_info(test, &info);
    CHECK_INT(info.n_samples, 6);
    float x[20];
    int32_t label;
    lks_dataset_read(test, 1, (int64_t[]){5}, x, &label);
    CHECK_INT(label, 1);
    for (int j = 0; j < 20; j++) /* at most 4: three roundings of 2^-23 */
        CHECK_NEAR(x[j], ((31 * 5 + j) / 255.0 - 0.5) / 0.25, 3 * 0x1p-22);
    lks_dataset_destroy(train);
    lks_dataset_destroy(test);
    empty_folder();
}

static void a_limit_takes_the_first_samples_and_keeps_the_classes(void **state)
{
    (void)state;
    write_four_files();
    lks__settings settings = settings_of(folder);
    settings.data_limit = 2;
    lks_dataset_info info, test_info;
    CHECK_OK(lks__dataset_probe(&settings, &info, &test_info));
    CHECK_INT(info.n_samples, 2);
    lks_dataset *train, *test;
    CHECK_OK(lks__dataset_open(&settings, &train, &test));
    lks_dataset_get_info(train, &info);
    CHECK_INT(info.n_samples, 2);
    CHECK_INT(info.n_classes, 4);
    lks_dataset_get_info(test, &info);
    CHECK_INT(info.n_samples, 6);
    lks_dataset_destroy(train);
    lks_dataset_destroy(test);

    settings.data_limit = 21;
    CHECK_FAILS(lks__dataset_probe(&settings, &info, &test_info), LKS_E_ARG, "data.limit is 21; ");
    expect_refused(&settings, LKS_E_ARG, "train-images-idx3-ubyte holds 20 samples, so 1 to 20 are allowed");
    settings.data_limit = -1;
    expect_refused(&settings, LKS_E_ARG, "data.limit is -1; ");
    empty_folder();
}

static void files_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    lks__settings settings = settings_of(folder);
    lks_dataset_info info, test_info;

    write_four_files();
    content file = images_of(6, 5, 4);
    write_file("t10k-images-idx3-ubyte", &file);
    CHECK_FAILS(lks__dataset_probe(&settings, &info, &test_info), LKS_E_FORMAT,
                "holds images of [4, 5], but ");
    expect_refused(&settings, LKS_E_FORMAT, "t10k-images-idx3-ubyte of [5, 4]");

    write_four_files();
    file = labels_of(6, 5);
    write_file("t10k-labels-idx1-ubyte", &file);
    expect_refused(&settings, LKS_E_FORMAT, "t10k-labels-idx1-ubyte holds label 4, but the labels of ");

    write_four_files();
    file = labels_of(7, 4);
    write_file("t10k-labels-idx1-ubyte", &file);
    CHECK_FAILS(lks__dataset_probe(&settings, &info, &test_info), LKS_E_FORMAT, "holds 7 labels");
    expect_refused(&settings, LKS_E_FORMAT, "holds 6 images, but ");
    empty_folder();
}

static void missing_files_are_named_with_a_hint_where_there_is_one(void **state)
{
    (void)state;
    lks__settings settings = settings_of("/nowhere/mnist");
    lks_dataset_info info, test_info;
    CHECK_FAILS(
        lks__dataset_probe(&settings, &info, &test_info), LKS_E_NOT_FOUND,
        "/nowhere/mnist/train-images-idx3-ubyte does not exist, nor does "
        "/nowhere/mnist/train-images-idx3-ubyte.gz\nhint: `scripts/get-data mnist /nowhere/mnist` fetches");
    expect_refused(&settings, LKS_E_NOT_FOUND, "hint: `scripts/get-data mnist /nowhere/mnist`");
    settings = settings_of("/nowhere/else");
    CHECK_FAILS(lks__dataset_probe(&settings, &info, &test_info), LKS_E_NOT_FOUND,
                "/nowhere/else/train-images-idx3-ubyte");
    assert_null(strstr(lks_error_message(), "hint"));

    settings = settings_of(NULL);
    CHECK_FAILS(lks__dataset_probe(&settings, &info, &test_info), LKS_E_ARG, "data.path is not set");

    write_four_files();
    CHECK_INT(unlink(in_folder("t10k-labels-idx1-ubyte")), 0);
    settings = settings_of(folder);
    CHECK_FAILS(lks__dataset_probe(&settings, &info, &test_info), LKS_E_NOT_FOUND,
                "t10k-labels-idx1-ubyte does not exist");
    empty_folder();
}

static void lack_of_memory_is_reported_and_leaks_nothing(void **state)
{
    (void)state;
    write_four_files();
    lks__settings settings = settings_of(folder);
    int64_t before = lks__alloc_bytes(LKS__MEM_DATA), nth = 1;
    lks_dataset *train, *test;
    for (;; nth++) {
        lks__alloc_fail_nth(nth);
        lks_status status = lks__dataset_open(&settings, &train, &test);
        lks__alloc_fail_nth(0);
        if (status == LKS_OK)
            break;
        CHECK_INT(status, LKS_E_NOMEM);
        assert_null(train);
        assert_null(test);
        CHECK_INT(lks__alloc_bytes(LKS__MEM_DATA), before);
    }
    CHECK_INT(nth, 2 * 4 + 1); /* twice: bytes of labels, labels, features, handle */
    lks_dataset_destroy(train);
    lks_dataset_destroy(test);
    CHECK_INT(lks__alloc_bytes(LKS__MEM_DATA), before);
    lks_dataset_destroy(NULL);
    empty_folder();
}

/* ---- the data set that the project ships ---- */

/* The numbers are those of data/digits/README.md. */
static void the_digits_are_there(void **state)
{
    (void)state;
    lks__settings settings = settings_of(LKS_SOURCE_DIR "/data/digits");
    lks_dataset *train, *test;
    CHECK_OK(lks__dataset_open(&settings, &train, &test));
    lks_dataset_info info;
    lks_dataset_get_info(test, &info);
    CHECK_INT(info.n_samples, 359);
    CHECK_INT(info.n_classes, 10);
    lks_dataset_get_info(train, &info);
    CHECK_INT(info.n_samples, 1438);
    CHECK_INT(info.n_dims, 2);
    CHECK_INT(info.shape[0], 8);
    CHECK_INT(info.shape[1], 8);
    CHECK_INT(info.n_classes, 10);

    /* The first line of the source: a zero. */
    static const int zero[64] = {0, 0, 5,  13, 9,  1,  0, 0, 0, 0, 13, 15, 10, 15, 5, 0,
                                 0, 3, 15, 2,  0,  11, 8, 0, 0, 4, 12, 0,  0,  8,  8, 0,
                                 0, 5, 8,  0,  0,  9,  8, 0, 0, 4, 11, 0,  1,  12, 7, 0,
                                 0, 2, 14, 5,  10, 12, 0, 0, 0, 0, 6,  13, 10, 0,  0, 0};
    float x[64];
    int32_t label;
    lks_dataset_read(train, 1, (int64_t[]){0}, x, &label);
    CHECK_INT(label, 0);
    for (int i = 0; i < 64; i++)
        CHECK_NEAR(x[i] * 255, zero[i], 1e-5); /* rounding of x and of the product: 16 * 2^-23 = 2e-6 */
    lks_dataset_destroy(train);
    lks_dataset_destroy(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_come_back_as_they_are),
        cmocka_unit_test(arrays_that_make_no_sense_are_refused),
        cmocka_unit_test(values_are_normalized),
        cmocka_unit_test(normalisations_that_make_no_sense_are_refused),
        cmocka_unit_test(every_vector_width_gives_the_same_bits),
        cmocka_unit_test(a_config_s_data_set_is_opened),
        cmocka_unit_test(a_limit_takes_the_first_samples_and_keeps_the_classes),
        cmocka_unit_test(files_that_do_not_fit_are_refused),
        cmocka_unit_test(missing_files_are_named_with_a_hint_where_there_is_one),
        cmocka_unit_test(lack_of_memory_is_reported_and_leaks_nothing),
        cmocka_unit_test(the_digits_are_there),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
