/* SPDX-License-Identifier: Apache-2.0 */
/* Any bit of a checkpoint that is not as it was written is noticed by all that read it. */
#define _GNU_SOURCE /* nftw */

#include "check.h"

#include <fcntl.h>
#include <unistd.h>

#include "record/safetensors.h"
#include "recorded_run.h"
#include "unit/temp_folder.h"

static const char *checkpoint;
static unsigned char *bytes;
static int64_t n_bytes;
static int fd = -1;

static int write_checkpoint(void **state)
{
    static recorded_member m[RECORDED_MEMBERS];
    static char content[1 << 16];
    if (make_temp_folder(state) != 0 || recorded_samples(state) != 0)
        return 1;
    recorded_run run = recorded_run_default(1);
    run.plan.steps = 6;
    run.trainer.output_path = in_temp_folder("run");
    run.trainer.checkpoint_every_steps = 5;
    run.trainer.checkpoint_best = LKS_BEST_TEST_LOSS;
    recorded_run_well(&run, m);
    checkpoint = strdup(in_temp_folder("run/checkpoints/step-00000005.safetensors"));
    n_bytes = (int64_t)get_file(checkpoint, content, sizeof content);
    bytes = (unsigned char *)content;
    fd = open(checkpoint, O_WRONLY | O_CLOEXEC);
    return fd < 0 || n_bytes < 1000;
}

static void set_byte(int64_t place, unsigned char value)
{
    CHECK_INT(pwrite(fd, &value, 1, place), 1);
}

static lks_status verify(void)
{
    lks__safetensors *file;
    lks_status status = lks__safetensors_open(checkpoint, &file);
    if (status == LKS_OK)
        status = lks__safetensors_verify(file);
    lks__safetensors_close(file);
    return status;
}

static lks_status inspect(void)
{
    char *text = NULL;
    lks_status status = lks_checkpoint_to_json(checkpoint, &text);
    free(text);
    return status;
}

static lks_status export_it(void)
{
    return lks_checkpoint_export(checkpoint, in_temp_folder("exported.safetensors"), true);
}

/* A run that would go on from it. */
static lks_status resume(void)
{
    static recorded_member m[RECORDED_MEMBERS];
    recorded_run run = recorded_run_default(1);
    run.plan.steps = 6;
    run.trainer.resume_path = checkpoint;
    recorded_run_do(&run, m);
    return m[0].seat.status;
}

/* Flips every nth bit in turn: each time it must be refused as damaged. */
static void try_bits(lks_status (*use)(void), const char *what, int64_t nth)
{
    CHECK_OK(use());
    for (int64_t bit = 0; bit < 8 * n_bytes; bit += nth) {
        int64_t place = bit / 8;
        set_byte(place, (unsigned char)(bytes[place] ^ 1u << bit % 8));
        lks_status status = use();
        set_byte(place, bytes[place]);
        if (status != LKS_E_FORMAT)
            fail_msg("%s: bit %d of byte %lld of %lld: %s", what, (int)(bit % 8), (long long)place,
                     (long long)n_bytes, lks_status_name(status));
    }
    CHECK_OK(use());
}

static void every_bit_is_noticed_by_the_checksum(void **state)
{
    (void)state;
    try_bits(verify, "verify", 1);
}

/* 3 and 61 have no divisor in common with 8: every bit of a byte has its turn. */
static void flipped_bits_are_noticed_by_inspect_and_export(void **state)
{
    (void)state;
    try_bits(inspect, "inspect", 3);
    try_bits(export_it, "export", 61);
}

static void flipped_bits_are_noticed_by_a_run_that_goes_on(void **state)
{
    (void)state;
    try_bits(resume, "resume", 61);
}

static void a_file_that_ends_early_is_noticed(void **state)
{
    (void)state;
    for (int64_t n = n_bytes - 1; n >= 0; n -= 7) {
        CHECK_INT(ftruncate(fd, n), 0);
        CHECK_INT(verify(), LKS_E_FORMAT);
        CHECK_INT(inspect(), LKS_E_FORMAT);
    }
    CHECK_INT(pwrite(fd, bytes, (size_t)n_bytes, 0), n_bytes);
    CHECK_OK(verify());
    CHECK_INT(pwrite(fd, "x", 1, n_bytes), 1);
    CHECK_INT(verify(), LKS_E_FORMAT);
    CHECK_INT(ftruncate(fd, n_bytes), 0);
}

static int clean_up(void **state)
{
    close(fd);
    free((void *)checkpoint);
    return remove_temp_folder(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_is_noticed_by_the_checksum),
        cmocka_unit_test(flipped_bits_are_noticed_by_inspect_and_export),
        cmocka_unit_test(flipped_bits_are_noticed_by_a_run_that_goes_on),
        cmocka_unit_test(a_file_that_ends_early_is_noticed),
    };
    return cmocka_run_group_tests(tests, write_checkpoint, clean_up);
}
