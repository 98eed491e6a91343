/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <zlib.h>

#include <lockstep/dataset.h>

#include "base/alloc.h"
#include "idx_files.h"

/* The same content, compressed. */
static content gzip_of(const content *plain)
{
    const char *path = in_folder("gzip_of.tmp");
    gzFile stream = gzopen(path, "wb");
    assert_non_null(stream);
    CHECK_INT(gzwrite(stream, plain->bytes, (unsigned)plain->length), plain->length);
    CHECK_INT(gzclose(stream), Z_OK);

    static content file;
    FILE *back = fopen(path, "rb");
    assert_non_null(back);
    file.length = fread(file.bytes, 1, sizeof file.bytes, back);
    fclose(back);
    CHECK_INT(unlink(path), 0);
    return file;
}

static lks_status open_files(int64_t limit, lks_dataset **out)
{
    return lks_dataset_from_idx(in_folder("images"), in_folder("labels"), limit, out);
}

static int open_descriptors(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) != -1;
    return n;
}

/* Refused, and neither memory nor a descriptor stays behind. */
static void expect_refused_at(int64_t limit, lks_status status, const char *message)
{
    int64_t bytes = lks__alloc_bytes(LKS__MEM_DATA);
    int descriptors = open_descriptors();
    lks_dataset *dataset = (lks_dataset *)&dataset;
    CHECK_FAILS(open_files(limit, &dataset), status, message);
    assert_null(dataset);
    CHECK_INT(lks__alloc_bytes(LKS__MEM_DATA), bytes);
    CHECK_INT(open_descriptors(), descriptors);
}

static void expect_refused(lks_status status, const char *message)
{
    expect_refused_at(0, status, message);
}

/* The first n images of images_of() and labels of labels_of(., 10), whatever the files are. */
static void check_content(const lks_dataset *dataset, int64_t n, int64_t n_features)
{
    lks_dataset_info info;
    lks_dataset_get_info(dataset, &info);
    CHECK_INT(info.n_samples, n);
    CHECK_INT(info.n_features, n_features);
    float x[64];
    int32_t label;
    for (int64_t i = 0; i < n; i++) {
        lks_dataset_read(dataset, 1, &i, x, &label);
        CHECK_INT(label, i % 10);
        for (int64_t j = 0; j < n_features; j++)
            CHECK_INT(lroundf(x[j] * 255), (31 * i + j) % 256);
    }
}

static void plain_and_gzip_files_are_read(void **state)
{
    (void)state;
    content images = images_of(500, 7, 9), labels = labels_of(500, 10);
    content packed_images = gzip_of(&images), packed_labels = gzip_of(&labels);
    static const struct {
        const char *images, *labels;
        bool packed_images, packed_labels;
    } cases[] = {
        {"images", "labels", false, false},
        {"images.gz", "labels.gz", true, true}, /* found when the plain name is not there */
        {"images", "labels", true, true},       /* told by content, not by name */
        {"images.gz", "labels", false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_file(cases[i].images, cases[i].packed_images ? &packed_images : &images);
        write_file(cases[i].labels, cases[i].packed_labels ? &packed_labels : &labels);
        for (int64_t limit = 0; limit <= 500; limit += 250) {
            lks_dataset *dataset;
            CHECK_OK(open_files(limit, &dataset));
            check_content(dataset, limit == 0 ? 500 : limit, 63);
            lks_dataset_destroy(dataset);
        }
        empty_folder();
    }
}

static void samples_have_one_to_four_dimensions(void **state)
{
    (void)state;
    static const uint32_t dims[][6] = {{3, 2}, {3, 2, 4}, {3, 1, 2, 2}, {3, 2, 1, 2, 1}, {3, 1, 1, 1, 1, 1}};
    content labels = labels_of(3, 10);
    write_file("labels", &labels);
    for (int n_dims = 1; n_dims <= 5; n_dims++) {
        static content images;
        put_header(&images, 0x08, n_dims + 1, dims[n_dims - 1]);
        size_t n_values = 1;
        for (int i = 0; i <= n_dims; i++)
            n_values *= dims[n_dims - 1][i];
        images.length += n_values;
        write_file("images", &images);
        if (n_dims == 5) {
            expect_refused(LKS_E_FORMAT, "/images has 6 dimensions; 1 to 5 are supported");
            break;
        }
        lks_dataset *dataset;
        lks_dataset_info info;
        CHECK_OK(open_files(0, &dataset));
        lks_dataset_get_info(dataset, &info);
        CHECK_INT(info.n_dims, n_dims);
        for (int i = 0; i < n_dims; i++)
            CHECK_INT(info.shape[i], dims[n_dims - 1][i + 1]);
        lks_dataset_destroy(dataset);
    }
    empty_folder();
}

enum { GOOD_BYTES = 16 + 500 * 7 * 9, KEEP = -1 };

/* What is done to a good file of 500 images of 7x9 - some bytes replaced, the length changed - and what is
 * said about it, and about the same compressed where that differs. */
static const struct {
    size_t at, n_bytes;
    const char *bytes;
    long length; /* KEEP: as it was */
    lks_status status;
    const char *message;
    const char *packed_message;
} changes[] = {
    {0, 0, "", 0, LKS_E_FORMAT, "/images is no IDX file: it holds 0 bytes", NULL},
    {0, 0, "", 3, LKS_E_FORMAT, "/images is no IDX file: it holds 3 bytes", NULL},
    {0, 0, "", 10, LKS_E_FORMAT, "/images is truncated: it holds 10 bytes and its header alone has 16", NULL},
    {0, 0, "", 16, LKS_E_FORMAT, "/images holds 16 bytes where its header promises 31516",
     "/images holds 16 bytes (uncompressed) where its header promises 31516"},
    {0, 0, "", 1000, LKS_E_FORMAT, "/images holds 1000 bytes where its header promises 31516",
     "/images holds 1000 bytes (uncompressed) where its header promises 31516"},
    {0, 0, "", GOOD_BYTES - 1, LKS_E_FORMAT, "/images holds 31515 bytes where its header promises 31516",
     "/images holds 31515 bytes (uncompressed) where its header promises 31516"},
    {0, 0, "", GOOD_BYTES + 1, LKS_E_FORMAT, "/images holds 31517 bytes where its header promises 31516",
     "/images holds at least 31517 bytes (uncompressed) where its header promises 31516"},
    {0, 0, "", 61516, LKS_E_FORMAT, "/images holds 61516 bytes where its header promises 31516",
     "/images holds at least "},
    {0, 4, "\x89PNG", KEEP, LKS_E_FORMAT,
     "/images is no IDX file: it starts with 89504e47, not with 0000080N", NULL},
    {2, 1, "\x0A", KEEP, LKS_E_FORMAT, "/images is no IDX file: it starts with 00000a03", NULL},
    {2, 1, "\x0D", KEEP, LKS_E_UNSUPPORTED, "/images holds f32 elements; only u8 is supported", NULL},
    {3, 1, "\0", KEEP, LKS_E_FORMAT, "/images has 0 dimensions; 1 to 5 are supported", NULL},
    {3, 1, "\xFF", KEEP, LKS_E_FORMAT, "/images has 255 dimensions; 1 to 5 are supported", NULL},
    {0, 8, "\0\0\x08\x01\0\0\x01\xF4", 508, LKS_E_FORMAT, "/images holds labels (magic 00000801), not images",
     NULL},
    {12, 4, "\0\0\0\0", KEEP, LKS_E_FORMAT, "/images: dimension 2 is 0", NULL},
    {4, 4, "\0\0\0\0", 16, LKS_E_FORMAT, "/images: dimension 0 is 0", NULL},
    {4, 12, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", KEEP, LKS_E_FORMAT,
     "/images: its header promises more than 2^62 bytes", NULL},
    {8, 4, "\x10\x10\x10\x10", KEEP, LKS_E_FORMAT,
     "/images holds 31516 bytes where its header promises 1212696648016",
     "/images holds 31516 bytes (uncompressed) where its header promises 1212696648016"},
    {7, 1, "\xF3", GOOD_BYTES - 63, LKS_E_FORMAT, "/images holds 499 images, but ", NULL},
};

static void wrong_files_are_refused(void **state)
{
    (void)state;
    content labels = labels_of(500, 10);
    write_file("labels", &labels);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        content images = images_of(500, 7, 9);
        CHECK_INT(images.length, GOOD_BYTES);
        memcpy(images.bytes + changes[i].at, changes[i].bytes, changes[i].n_bytes);
        if (changes[i].length != KEEP)
            images.length = (size_t)changes[i].length;
        write_file("images", &images);
        expect_refused(changes[i].status, changes[i].message);
        content packed = gzip_of(&images);
        write_file("images", &packed);
        const char *packed_message = changes[i].packed_message;
        expect_refused(changes[i].status, packed_message != NULL ? packed_message : changes[i].message);
    }
    empty_folder();
}

static void labels_that_are_images_are_refused(void **state)
{
    (void)state;
    content images = images_of(5, 2, 3);
    write_file("images", &images);
    write_file("labels", &images);
    expect_refused(LKS_E_FORMAT,
                   "/labels holds data of 3 dimensions (magic 00000803), not labels (00000801)");
    empty_folder();
}

static void damaged_gzip_files_are_refused(void **state)
{
    (void)state;
    content images = images_of(9, 64, 64), labels = labels_of(9, 3);
    write_file("labels", &labels);
    const content good = gzip_of(&images);
    for (size_t cut = 1; cut < good.length; cut += cut < 12 ? 1 : 97) {
        content cut_off = good;
        cut_off.length -= cut;
        write_file("images", &cut_off);
        /* of the first ten bytes, gzip's own header, too few may be left to tell what it was */
        bool known = cut_off.length >= 10;
        expect_refused(LKS_E_FORMAT, known ? "/images is truncated: its gzip data ends early" : "/images");
    }
    /* The last eight bytes are a checksum and a length; a limit leaves them unread no more than the rest. */
    for (size_t from_end = 1; from_end <= 8; from_end++)
        for (int64_t limit = 0; limit <= 9; limit++) {
            content wrong_sum = good;
            wrong_sum.bytes[wrong_sum.length - from_end] ^= 0x10;
            write_file("images", &wrong_sum);
            expect_refused_at(limit, LKS_E_FORMAT, "/images is damaged: its gzip data is not valid");
        }
    empty_folder();
}

static void what_is_no_file_is_refused(void **state)
{
    (void)state;
    content labels = labels_of(5, 2);
    write_file("labels", &labels);
    expect_refused(LKS_E_NOT_FOUND, "/images does not exist, nor does ");

    CHECK_INT(mkdir(in_folder("images"), 0700), 0);
    expect_refused(LKS_E_NOT_FOUND, "/images is a directory, not a file");
    CHECK_INT(rmdir(in_folder("images")), 0);

    CHECK_INT(mkfifo(in_folder("images"), 0600), 0); /* and nobody writes into it */
    expect_refused(LKS_E_NOT_FOUND, "/images is a device or pipe, not a file");
    CHECK_INT(unlink(in_folder("images")), 0);

    CHECK_INT(symlink("images", in_folder("images")), 0);
    expect_refused(LKS_E_NOT_FOUND, "Too many levels of symbolic links");
    empty_folder();
}

/* Deterministic, and nothing of the product's. */
static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Files with some bytes changed, cut anywhere: they are read or refused, and nothing else happens (which
 * sanitizers can see). Plain files also say which of both is right, as nothing but the header and the length
 * can be wrong. */
static void mutated_files_are_read_or_refused(void **state)
{
    (void)state;
    uint64_t random = 1;
    content labels = labels_of(20, 10);
    write_file("labels", &labels);
    content plain = images_of(20, 3, 3), packed = gzip_of(&plain);
    int n_read = 0;
    for (int round = 0; round < 2000; round++) {
        bool pack = round % 2;
        content images = pack ? packed : plain;
        bool touched_header = false;
        for (uint32_t n = next_random(&random) % 3; n > 0; n--) {
            size_t at = next_random(&random) % (n == 1 ? 20 : images.length);
            images.bytes[at] ^= (uint8_t)(1 + next_random(&random) % 255);
            touched_header |= at < 16;
        }
        size_t good_length = images.length;
        if (next_random(&random) % 4 == 0)
            images.length = next_random(&random) % (images.length + 20);
        write_file("images", &images);

        lks_dataset *dataset;
        lks_status status = open_files(0, &dataset);
        if (status != LKS_OK)
            CHECK_INT(lks_status_exit_code(status), 2);
        else
            n_read++;
        if (!pack && !touched_header)
            CHECK_INT(status == LKS_OK, images.length == good_length);
        lks_dataset_destroy(dataset);
    }
    assert_true(n_read > 100 && n_read < 1900);
    empty_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_and_gzip_files_are_read),
        cmocka_unit_test(samples_have_one_to_four_dimensions),
        cmocka_unit_test(wrong_files_are_refused),
        cmocka_unit_test(labels_that_are_images_are_refused),
        cmocka_unit_test(damaged_gzip_files_are_refused),
        cmocka_unit_test(what_is_no_file_is_refused),
        cmocka_unit_test(mutated_files_are_read_or_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
