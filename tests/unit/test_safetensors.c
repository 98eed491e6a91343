/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* nftw */

#include "check.h"

#include <signal.h>
#include <sys/resource.h>

#include <xxhash.h>

#include "base/alloc.h"
#include "record/safetensors.h"
#include "temp_folder.h"

#define SAMPLE LKS_SOURCE_DIR "/tests/reference/safetensors_sample.safetensors"

static const int64_t shape_2_3[] = {2, 3}, shape_2[] = {2}, shape_0_3[] = {0, 3};

/* The file of the format's reference implementation; its script says what it holds. */
static void the_reference_file_is_read(void **state)
{
    (void)state;
    lks__safetensors *file;
    CHECK_OK(lks__safetensors_open(SAMPLE, &file));
    CHECK_INT(lks__safetensors_n_tensors(file), 6);
    assert_string_equal(lks__safetensors_metadata(file, "format"), "pt");
    assert_string_equal(lks__safetensors_metadata(file, "author"), "Gr\xc3\xbc\xc3\x9f"
                                                                   "e");
    assert_null(lks__safetensors_metadata(file, "nothing"));

    float weight[6], bias[2], scale, none = 5;
    static const float expected_weight[] = {-0.5f, -0.25f, 0.0f, 0.25f, 0.5f, 0.75f};
    CHECK_OK(lks__safetensors_read(file, "0.weight", 2, shape_2_3, weight));
    assert_memory_equal(weight, expected_weight, sizeof weight);
    CHECK_OK(lks__safetensors_read(file, "0.bias", 1, shape_2, bias));
    assert_true(bias[0] == -1.0f && bias[1] == 1024.0f);
    CHECK_OK(lks__safetensors_read(file, "scale", 0, NULL, &scale));
    assert_true(scale == 0.125f);
    CHECK_OK(lks__safetensors_read(file, "empty", 2, shape_0_3, &none));
    assert_true(none == 5);
    lks__safetensors_close(file);
}

static void what_is_wanted_must_be_there(void **state)
{
    (void)state;
    static const int64_t three[] = {3}, shape_3_2[] = {3, 2};
    float out[6] = {9};
    lks__safetensors *file;
    CHECK_OK(lks__safetensors_open(SAMPLE, &file));
    CHECK_FAILS(lks__safetensors_read(file, "0.weight", 2, shape_3_2, out), LKS_E_FORMAT,
                "safetensors_sample.safetensors: tensor \"0.weight\" has shape [2, 3]; [3, 2] is wanted");
    CHECK_FAILS(lks__safetensors_read(file, "scale", 1, shape_2, out), LKS_E_FORMAT,
                "tensor \"scale\" has shape []; [2] is wanted");
    CHECK_FAILS(lks__safetensors_read(file, "half", 1, three, out), LKS_E_FORMAT,
                "tensor \"half\" has type F16; F32 is wanted");
    CHECK_FAILS(lks__safetensors_read(file, "1.weight", 2, shape_2_3, out), LKS_E_FORMAT,
                "tensor \"1.weight\" is wanted; the file has 6 others, the first is \"steps\"");
    CHECK_FAILS(lks__safetensors_read(file, "__metadata__", 2, shape_2_3, out), LKS_E_FORMAT, "is wanted");
    assert_true(out[0] == 9); /* outputs are written on success only */
    lks__safetensors_close(file);
}

/* Every byte, worked out by hand from the format's description. */
static void a_file_has_these_bytes(void **state)
{
    (void)state;
    static const float a[] = {1.0f, -2.0f}, b[] = {0.5f};
    const lks__tensor_view tensors[] = {{"a", 1, shape_2, a}, {"s", 0, NULL, b}};
    const lks__metadata metadata[] = {{"k", "v"}};
    static const char header[] = "{\"__metadata__\":{\"k\":\"v\"},"
                                 "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                                 "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[8,12]}}";
    static const char data[] = "\0\0\x80\x3f\0\0\0\xc0\0\0\0\x3f";
    enum { HEADER = sizeof header - 1, PADDED = (HEADER + 7) / 8 * 8, DATA = 12 };
    _Static_assert(HEADER % 8 != 0, "padding is tested");

    const char *path = in_temp_folder("bytes.safetensors");
    CHECK_OK(lks__safetensors_write(path, 2, tensors, 1, metadata));
    char bytes[1000];
    CHECK_INT(get_file(path, bytes, sizeof bytes), 8 + PADDED + DATA);
    static const unsigned char length[8] = {PADDED};
    assert_memory_equal(bytes, length, 8);
    assert_memory_equal(bytes + 8, header, HEADER);
    for (int i = HEADER; i < PADDED; i++)
        CHECK_INT(bytes[8 + i], ' ');
    assert_memory_equal(bytes + 8 + PADDED, data, DATA);
    assert_false(file_exists(in_temp_folder("bytes.safetensors.tmp")));
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    enum { N = 300 };
    static float values[N];
    for (int i = 0; i < N; i++)
        values[i] = (float)i * 0.1f;
    values[7] = -0.0f;
    values[8] = NAN; /* bits are kept, whatever they mean */
    const int64_t shape[] = {3, 1, 100}, zero[] = {4, 0};
    const lks__tensor_view tensors[] = {{"net.0 \"x\"\\", 3, shape, values}, {"none", 2, zero, values}};
    const lks__metadata metadata[] = {{"plan", "{\"a\": 1}\n"}, {"", ""}};

    const char *path = in_temp_folder("back.safetensors");
    CHECK_OK(lks__safetensors_write(path, 2, tensors, 2, metadata));
    lks__safetensors *file;
    CHECK_OK(lks__safetensors_open(path, &file));
    CHECK_INT(lks__safetensors_n_tensors(file), 2);
    assert_string_equal(lks__safetensors_name(file, 0), "net.0 \"x\"\\");
    assert_string_equal(lks__safetensors_name(file, 1), "none");
    assert_string_equal(lks__safetensors_metadata(file, "plan"), "{\"a\": 1}\n");
    assert_string_equal(lks__safetensors_metadata(file, ""), "");
    static float read[N];
    CHECK_OK(lks__safetensors_read(file, "net.0 \"x\"\\", 3, shape, read));
    assert_memory_equal(read, values, sizeof values);
    lks__safetensors_close(file);
}

static void a_file_without_tensors_is_one(void **state)
{
    (void)state;
    const char *path = in_temp_folder("empty.safetensors");
    CHECK_OK(lks__safetensors_write(path, 0, NULL, 0, NULL));
    lks__safetensors *file;
    CHECK_OK(lks__safetensors_open(path, &file));
    CHECK_INT(lks__safetensors_n_tensors(file), 0);
    lks__safetensors_close(file);
}

static void names_must_be_writable(void **state)
{
    (void)state;
    static const float a[2];
    const char *path = in_temp_folder("names.safetensors");
    const lks__tensor_view twice[] = {{"a", 1, shape_2, a}, {"a", 1, shape_2, a}};
    const lks__tensor_view broken[] = {{"a", 1, shape_2, a}, {"\xff", 1, shape_2, a}};
    const lks__metadata metadata[] = {{"k", "\xc3("}};
    CHECK_FAILS(lks__safetensors_write(path, 2, twice, 0, NULL), LKS_E_ARG, "named \"a\"");
    CHECK_FAILS(lks__safetensors_write(path, 2, broken, 0, NULL), LKS_E_ARG, "not UTF-8");
    CHECK_FAILS(lks__safetensors_write(path, 1, twice, 1, metadata), LKS_E_ARG, "\"k\" is not UTF-8");
    assert_false(file_exists(path));
}

/* Writes length, header and `data_bytes` zeros, and opens that. */
static void check_header_is_refused(const char *header, int data_bytes, const char *message)
{
    char bytes[1024] = {0};
    uint64_t length = strlen(header);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    const char *path = in_temp_folder("refused.safetensors");
    put_file(path, bytes, 8 + length + (size_t)data_bytes);
    lks__safetensors *file;
    CHECK_FAILS(lks__safetensors_open(path, &file), LKS_E_FORMAT, message);
    assert_null(file);
}

static void malformed_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        int data_bytes;
        const char *message;
    } rows[] = {
        {"", 0, "no JSON object"},
        {"[]", 0, "no JSON object"},
        {" {}", 0, "no JSON object"},
        {"{", 0, "not valid JSON"},
        {"{}x", 0, "not valid JSON"},
        {"{\"a\":\xff}", 0, "not valid JSON"},
        {"{\"a\":1}", 0, "dtype"},
        {"{\"a\":[]}", 0, "dtype"},
        {"{\"a\":{\"dtype\":4,\"shape\":[],\"data_offsets\":[0,4]}}", 4, "dtype"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "__metadata__ \"k\" is not a text"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,\"4\"]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[9],\"data_offsets\":[0,8]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "do not fit the shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,8]}}", 8, "do not fit the shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,4]}}", 4, "do not fit the shape"},
        /* 2^62 * 4 bytes wrap to 0, (2^62 + 1) * 4 to 4 */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
         "do not fit the shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}", 4,
         "do not fit the shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}", 4, "JSON"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "a hole before tensor \"a\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, "4 bytes follow"},
        {"{}", 3, "3 bytes follow"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         12, "a hole before tensor \"a\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, "an overlap before tensor \"b\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, "an overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, "duplicate"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_header_is_refused(rows[i].header, rows[i].data_bytes, rows[i].message);
}

static void files_that_end_early_are_refused(void **state)
{
    (void)state;
    char bytes[1000];
    const char *path = in_temp_folder("short.safetensors");
    size_t whole = get_file(SAMPLE, bytes, sizeof bytes);
    for (size_t n = 0; n < whole; n++) {
        put_file(path, bytes, n);
        lks__safetensors *file;
        CHECK_FAILS(lks__safetensors_open(path, &file), LKS_E_FORMAT, "short.safetensors");
    }
    static const unsigned char huge[16] = {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'};
    put_file(path, huge, sizeof huge);
    lks__safetensors *file;
    CHECK_FAILS(lks__safetensors_open(path, &file), LKS_E_FORMAT, "18446744073709551615");
}

static void what_is_no_file_is_not_found(void **state)
{
    (void)state;
    lks__safetensors *file;
    CHECK_FAILS(lks__safetensors_open("/nowhere/x.safetensors", &file), LKS_E_NOT_FOUND,
                "cannot open /nowhere/x.safetensors: No such file");
    CHECK_FAILS(lks__safetensors_open(temp_folder, &file), LKS_E_NOT_FOUND, "not a regular file");
    CHECK_FAILS(lks__safetensors_open("/dev/null", &file), LKS_E_NOT_FOUND, "not a regular file");
    CHECK_INT(mkfifo(in_temp_folder("pipe"), 0666), 0); /* without a writer: to wait for one is to hang */
    CHECK_FAILS(lks__safetensors_open(in_temp_folder("pipe"), &file), LKS_E_NOT_FOUND, "not a regular file");
}

static void a_file_that_shrinks_is_an_error(void **state)
{
    (void)state;
    char bytes[1000];
    float bias[2];
    const char *path = in_temp_folder("shrinks.safetensors");
    size_t whole = get_file(SAMPLE, bytes, sizeof bytes);
    put_file(path, bytes, whole);
    lks__safetensors *file;
    CHECK_OK(lks__safetensors_open(path, &file));
    put_file(path, bytes, 8);
    CHECK_FAILS(lks__safetensors_read(file, "0.bias", 1, shape_2, bias), LKS_E_IO, "cut off");
    lks__safetensors_close(file);
}

/* Whatever a file holds, opening it and reading all it has ends with a status, never outside the file's
 * bounds (which the address sanitizer watches). */
static void mutated_files_do_no_harm(void **state)
{
    (void)state;
    enum { ROUNDS = 3000 };
    char whole[1000], bytes[1000];
    const size_t n = get_file(SAMPLE, whole, sizeof whole);
    const char *path = in_temp_folder("mutated.safetensors");
    uint32_t random = 1; /* a linear congruential generator (Numerical Recipes) */
    int n_opened = 0;
    for (int round = 0; round < ROUNDS; round++) {
        memcpy(bytes, whole, n);
        for (int i = 0; i <= round % 3; i++) {
            random = random * 1664525u + 1013904223u;
            size_t place = (random >> 8) % 416; /* the length and the header; the rest is any numbers */
            static const char likely[] = "0123456789[]{},:\"-e. ";
            random = random * 1664525u + 1013904223u;
            bytes[place] = round % 2 ? likely[(random >> 8) % (sizeof likely - 1)] : (char)(random >> 24);
        }
        put_file(path, bytes, n);
        lks__safetensors *file;
        lks_status status = lks__safetensors_open(path, &file);
        if (status != LKS_OK) {
            CHECK_INT(status, LKS_E_FORMAT);
            continue;
        }
        n_opened++;
        float out[6];
        (void)!lks__safetensors_read(file, "0.weight", 2, shape_2_3, out);
        (void)!lks__safetensors_read(file, "0.bias", 1, shape_2, out);
        (void)!lks__safetensors_read(file, "scale", 0, NULL, out);
        lks__safetensors_close(file);
    }
    assert_true(n_opened > 0 && n_opened < ROUNDS / 2); /* mutations are neither all harmless nor all fatal */
}

/* A limit on file sizes stands for a full disk: write() takes a part, then fails. */
static void a_full_disk_leaves_the_old_file(void **state)
{
    (void)state;
    static const float small[2] = {3, 4};
    static float large[10000];
    const int64_t shape[] = {10000};
    const lks__tensor_view old = {"a", 1, shape_2, small}, new = {"a", 1, shape, large};
    const char *path = in_temp_folder("full.safetensors");
    CHECK_OK(lks__safetensors_write(path, 1, &old, 0, NULL));

    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    limit = (struct rlimit){.rlim_cur = 20000, .rlim_max = before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    lks_status status = lks__safetensors_write(path, 1, &new, 0, NULL);
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK_FAILS(status, LKS_E_IO, "full.safetensors: File too large");

    assert_false(file_exists(in_temp_folder("full.safetensors.tmp")));
    lks__safetensors *file;
    float read[2];
    CHECK_OK(lks__safetensors_open(path, &file));
    CHECK_OK(lks__safetensors_read(file, "a", 1, shape_2, read));
    assert_memory_equal(read, small, sizeof read);
    lks__safetensors_close(file);
}

static void what_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    static const float a[2];
    const lks__tensor_view tensor = {"a", 1, shape_2, a};
    CHECK_FAILS(lks__safetensors_write(in_temp_folder("no/x"), 1, &tensor, 0, NULL), LKS_E_IO,
                "no/x: No such file or directory");
    CHECK_INT(mkdir(in_temp_folder("folder"), 0777), 0);
    CHECK_FAILS(lks__safetensors_write(in_temp_folder("folder"), 1, &tensor, 0, NULL), LKS_E_IO,
                "Is a directory");
    assert_false(file_exists(in_temp_folder("folder.tmp")));
}

/* Every allocation of reading and writing fails once. */
static void failed_allocations_are_reported(void **state)
{
    (void)state;
    static const float a[2];
    const lks__tensor_view tensor = {"a", 1, shape_2, a};
    const char *path = in_temp_folder("memory.safetensors");
    int64_t in_use = lks__alloc_bytes(LKS__MEM_MISC);
    int n_failed = 0;
    for (int nth = 1; nth < 20; nth++) {
        lks__safetensors *file = NULL;
        lks__alloc_fail_nth(nth);
        lks_status status = lks__safetensors_write(path, 1, &tensor, 0, NULL);
        if (status == LKS_OK)
            status = lks__safetensors_open(path, &file);
        lks__alloc_fail_nth(0);
        assert_true(status == LKS_OK || status == LKS_E_NOMEM);
        n_failed += status == LKS_E_NOMEM;
        lks__safetensors_close(file);
        CHECK_INT(lks__alloc_bytes(LKS__MEM_MISC), in_use);
    }
    assert_in_range(n_failed, 5, 18);
    assert_false(file_exists(in_temp_folder("memory.safetensors.tmp")));
}

/* The size of the checked file in `bytes`, and its path. */
static size_t write_checked(const char **path, char *bytes, size_t room)
{
    static const float a[] = {1.0f, -2.0f}, b[] = {0.5f};
    const lks__tensor_view tensors[] = {{"a", 1, shape_2, a}, {"s", 0, NULL, b}};
    const lks__metadata metadata[] = {{"step", "7"}, {"plan", "{\"world\": 4}"}};
    *path = in_temp_folder("checked.safetensors");
    CHECK_OK(lks__safetensors_write_checked(*path, 2, tensors, 2, metadata));
    return get_file(*path, bytes, room);
}

static lks_status open_and_verify(const char *path)
{
    lks__safetensors *file;
    lks_status status = lks__safetensors_open(path, &file);
    if (status == LKS_OK)
        status = lks__safetensors_verify(file);
    lks__safetensors_close(file);
    return status;
}

static void a_checksum_is_the_first_entry(void **state)
{
    (void)state;
    const char *path;
    char bytes[1000];
    size_t n = write_checked(&path, bytes, sizeof bytes);
    CHECK_OK(open_and_verify(path));

    lks__safetensors *file;
    CHECK_OK(lks__safetensors_open(path, &file));
    assert_string_equal(lks__safetensors_metadata(file, "step"), "7");
    static const char before[] = "{\"__metadata__\":{\"checksum\":\"";
    char *digits = bytes + 8 + sizeof before - 1;
    assert_memory_equal(bytes + 8, before, sizeof before - 1);
    assert_memory_equal(digits, lks__safetensors_metadata(file, "checksum"), 16);
    lks__safetensors_close(file);

    char expected[17]; /* the one-shot function over the file as it was before its digits were put in */
    memset(digits, '0', 16);
    snprintf(expected, sizeof expected, "%016llx", (unsigned long long)XXH64(bytes, n, 0));
    get_file(path, bytes, sizeof bytes);
    assert_memory_equal(digits, expected, 16);
    CHECK_FAILS(open_and_verify(SAMPLE), LKS_E_FORMAT, "safetensors_sample.safetensors has no checksum");
}

static void every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    const char *path;
    char bytes[1000];
    size_t n = write_checked(&path, bytes, sizeof bytes);
    path = in_temp_folder("flipped.safetensors");
    for (size_t bit = 0; bit < 8 * n; bit++) {
        bytes[bit / 8] = (char)(bytes[bit / 8] ^ (1 << bit % 8));
        put_file(path, bytes, n);
        CHECK_INT(open_and_verify(path), LKS_E_FORMAT);
        bytes[bit / 8] = (char)(bytes[bit / 8] ^ (1 << bit % 8));
    }
    put_file(path, bytes, n);
    CHECK_OK(open_and_verify(path));
    for (size_t end = 0; end < n; end++) {
        put_file(path, bytes, end);
        CHECK_INT(open_and_verify(path), LKS_E_FORMAT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_file_is_read),
        cmocka_unit_test(what_is_wanted_must_be_there),
        cmocka_unit_test(a_file_has_these_bytes),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_file_without_tensors_is_one),
        cmocka_unit_test(names_must_be_writable),
        cmocka_unit_test(malformed_headers_are_refused),
        cmocka_unit_test(files_that_end_early_are_refused),
        cmocka_unit_test(what_is_no_file_is_not_found),
        cmocka_unit_test(a_file_that_shrinks_is_an_error),
        cmocka_unit_test(mutated_files_do_no_harm),
        cmocka_unit_test(a_full_disk_leaves_the_old_file),
        cmocka_unit_test(what_cannot_be_written_is_an_error),
        cmocka_unit_test(failed_allocations_are_reported),
        cmocka_unit_test(a_checksum_is_the_first_entry),
        cmocka_unit_test(every_flipped_bit_is_noticed),
    };
    return cmocka_run_group_tests(tests, make_temp_folder, remove_temp_folder);
}
