/* SPDX-License-Identifier: Apache-2.0 */
/* When checkpoints are written, that the step loop does not wait for memory, the best one, and what becomes
 * of a write that fails. */
#define _GNU_SOURCE /* nftw */

#include "check.h"

#include <dirent.h>
#include <unistd.h>

#include <jansson.h>

#include "base/alloc.h"
#include "recorded_run.h"
#include "unit/temp_folder.h"

enum { MAX_STEPS = 64, FILE_BYTES = 1 << 16 };

/* The checkpoints of a run directory as "5 10 15", in rising order, and "tmp" for a file that is not whole.
 */
static const char *list(const char *run)
{
    static char text[1024];
    bool found[MAX_STEPS] = {false}, unfinished = false;
    char path[500];
    snprintf(path, sizeof path, "%s/checkpoints", run);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        long step = strncmp(entry->d_name, "step-", 5) == 0 ? strtol(entry->d_name + 5, NULL, 10) : 0;
        found[step < MAX_STEPS ? step : 0] = true;
        unfinished |= strstr(entry->d_name, ".tmp") != NULL;
    }
    closedir(folder);
    text[0] = '\0';
    for (int i = 1; i < MAX_STEPS; i++)
        if (found[i])
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%d", text[0] != '\0' ? " " : "", i);
    return unfinished ? "tmp" : text;
}

static void by_steps_and_by_epochs(void **state)
{
    (void)state;
    static recorded_member m[RECORDED_MEMBERS];
    recorded_run run = recorded_run_default(2);
    run.trainer.output_path = in_temp_folder("epochs");
    run.trainer.checkpoint_every_epochs = 2;
    run.trainer.checkpoint_keep = 100;
    recorded_run_well(&run, m);
    assert_string_equal(list(run.trainer.output_path), "14 28"); /* epochs of 7 steps */

    run.trainer.output_path = in_temp_folder("both");
    run.trainer.checkpoint_every_steps = 5; /* not 30, the last step */
    recorded_run_well(&run, m);
    assert_string_equal(list(run.trainer.output_path), "5 10 14 15 20 25 28");

    run.trainer.output_path = in_temp_folder("some");
    run.trainer.checkpoint_keep = 2;
    recorded_run_well(&run, m);
    assert_string_equal(list(run.trainer.output_path), "25 28");
}

/* A moment is over before every step, and a billion seconds before none: rank 0's clock says so to all. */
static void by_the_first_members_clock(void **state)
{
    (void)state;
    static recorded_member m[RECORDED_MEMBERS];
    recorded_run run = recorded_run_default(4);
    run.plan.steps = 10;
    run.trainer.output_path = in_temp_folder("always");
    run.trainer.checkpoint_every_seconds = 1e-9;
    run.trainer.checkpoint_keep = 100;
    recorded_run_well(&run, m);
    assert_string_equal(list(run.trainer.output_path), "1 2 3 4 5 6 7 8 9");

    run.trainer.output_path = in_temp_folder("never");
    run.trainer.checkpoint_every_seconds = 1e9;
    recorded_run_well(&run, m);
    assert_string_equal(list(run.trainer.output_path), "");
}

typedef struct counts {
    int64_t at_step_2, at_end;
} counts;

static void count_allocations(void *context, int rank, const lks_train_progress *progress)
{
    counts *c = context;
    (void)rank;
    if (progress->step == 2)
        c->at_step_2 = lks__alloc_count();
    c->at_end = lks__alloc_count();
}

static void the_step_loop_allocates_nothing_for_them(void **state)
{
    (void)state;
    static recorded_member m[RECORDED_MEMBERS];
    counts c = {-1, -2};
    recorded_run run = recorded_run_default(1);
    run.trainer.output_path = in_temp_folder("allocations");
    run.trainer.checkpoint_every_steps = 1;
    run.trainer.checkpoint_best = LKS_BEST_TRAIN_LOSS;
    run.on_step = count_allocations;
    run.context = &c;
    recorded_run_well(&run, m);
    CHECK_INT(c.at_end, c.at_step_2);
    assert_string_equal(list(run.trainer.output_path), "27 28 29");
}

/* --- the best one --- */

/* The best value by this test's own judgement. */
typedef struct watch {
    double best_loss;
    int64_t best_step;
} watch;

static void watch_loss(void *context, int rank, const lks_train_progress *progress)
{
    watch *w = context;
    if (rank != 0)
        return;
    if (progress->epoch_end && (w->best_step == 0 || progress->test_loss < w->best_loss)) {
        w->best_loss = progress->test_loss;
        w->best_step = progress->step;
    }
}

static json_t *inspect(const char *path)
{
    char *text;
    CHECK_OK(lks_checkpoint_to_json(path, &text));
    json_t *object = json_loads(text, 0, NULL);
    assert_non_null(object);
    free(text);
    return object;
}

static void check_best(const char *path, const watch *w)
{
    json_t *file = inspect(path);
    assert_string_equal(json_string_value(json_object_get(file, "best")), "test_loss");
    CHECK_INT(json_integer_value(json_object_get(file, "best_step")), w->best_step);
    /* JSON for people has 15 digits */
    CHECK_NEAR(json_real_value(json_object_get(file, "best_value")), w->best_loss, 1e-14 * w->best_loss);
    json_decref(file);
}

static void check_same_file(const char *one, const char *other)
{
    static char a[FILE_BYTES], b[FILE_BYTES];
    size_t n = get_file(one, a, sizeof a);
    CHECK_INT(get_file(other, b, sizeof b), n);
    if (memcmp(a, b, n) != 0)
        fail_msg("%s and %s differ", one, other);
}

static recorded_run best_run(watch *w)
{
    recorded_run run = recorded_run_default(2);
    run.plan.steps = 60;
    run.plan.base_lr = 1; /* jumps about, so that the last epoch is not the best */
    run.trainer.checkpoint_every_steps = 4;
    run.trainer.seed = 1;
    run.trainer.checkpoint_best = LKS_BEST_TEST_LOSS;
    run.on_step = watch_loss;
    run.context = w;
    return run;
}

/* Stopped one step after each of these (28 ends an epoch) and gone on with: the same best file as of a run
 * that was never stopped. */
static void the_best_one_stays_and_survives_a_stop(void **state)
{
    (void)state;
    static recorded_member m[RECORDED_MEMBERS];
    watch w = {0};
    recorded_run run = best_run(&w);
    run.trainer.output_path = in_temp_folder("best");
    recorded_run_well(&run, m);
    assert_true(0 < w.best_step && w.best_step < 56); /* else this would not say much */
    const char *best = in_temp_folder("best/checkpoints/best.safetensors");
    assert_string_equal(list(run.trainer.output_path), "48 52 56");
    check_best(best, &w);
    check_best(in_temp_folder("best/checkpoints/step-00000056.safetensors"), &w);

    static const int64_t stops[] = {9, 27, 50};
    for (int i = 0; i < 3; i++) {
        char output[400], checkpoint[500];
        snprintf(output, sizeof output, "%s-%d", in_temp_folder("stopped"), i);
        watch ignored = {0};
        run = best_run(&ignored);
        run.stop_step = stops[i];
        run.trainer.output_path = output;
        recorded_run_well(&run, m);
        CHECK_INT(m[0].result.steps, stops[i] + 1);
        run.stop_step = 0;
        snprintf(checkpoint, sizeof checkpoint, "%s/%s", output, m[0].result.checkpoint);
        run.trainer.resume_path = checkpoint;
        recorded_run_well(&run, m);
        snprintf(checkpoint, sizeof checkpoint, "%s/checkpoints/best.safetensors", output);
        check_same_file(checkpoint, best);
    }
}

static void the_best_one_needs_what_it_watches(void **state)
{
    (void)state;
    static recorded_member m[RECORDED_MEMBERS];
    recorded_run run = recorded_run_default(2);
    run.without_test_set = true;
    run.trainer.output_path = in_temp_folder("watching");
    run.trainer.checkpoint_best = LKS_BEST_TEST_ACCURACY;
    recorded_run_do(&run, m);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(m[i].seat.status, LKS_E_ARG);
        assert_non_null(strstr(m[i].seat.message, "checkpoint_best test_accuracy needs a test set"));
    }
    run.trainer.checkpoint_best = LKS_BEST_TRAIN_LOSS;
    recorded_run_well(&run, m);
    assert_true(file_exists(in_temp_folder("watching/checkpoints/best.safetensors")));
}

/* --- a write that fails --- */

typedef struct accident {
    const char *run; /* whose checkpoints have nowhere to go */
    int64_t step;    /* after this one */
} accident;

static void take_folder_away(void *context, int rank, const lks_train_progress *progress)
{
    const accident *a = context;
    char from[500], to[500];
    if (rank != 0 || progress->step != a->step || progress->epoch_end)
        return;
    snprintf(from, sizeof from, "%s/checkpoints", a->run);
    snprintf(to, sizeof to, "%s/kept", a->run);
    CHECK_INT(rename(from, to), 0);
}

/* The checkpoint of step 3 can't be written; everybody hears of it when the next one is due. */
static void a_write_that_fails_is_told_to_all_at_the_next_one(void **state)
{
    (void)state;
    static recorded_member m[RECORDED_MEMBERS];
    recorded_run run = recorded_run_default(4);
    accident a = {in_temp_folder("accident"), 2};
    run.trainer.output_path = a.run;
    run.trainer.checkpoint_every_steps = 3;
    run.on_step = take_folder_away;
    run.context = &a;
    recorded_run_do(&run, m);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(m[i].seat.status, LKS_E_IO);
        CHECK_INT(m[i].steps, 6);
        assert_string_equal(m[i].seat.message, m[0].seat.message);
    }
    assert_non_null(strstr(m[0].seat.message, "step-00000003.safetensors"));
}

static void or_at_the_end(void **state)
{
    (void)state;
    static recorded_member m[RECORDED_MEMBERS];
    recorded_run run = recorded_run_default(2);
    accident a = {in_temp_folder("end"), 24};
    run.trainer.output_path = a.run;
    run.trainer.checkpoint_every_steps = 25;
    run.on_step = take_folder_away;
    run.context = &a;
    recorded_run_do(&run, m);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(m[i].seat.status, LKS_E_IO);
        CHECK_INT(m[i].steps, 30);
        assert_non_null(strstr(m[i].seat.message, "step-00000025.safetensors"));
    }
    assert_false(file_exists(in_temp_folder("end/model.safetensors"))); /* the run can be gone on with */
}

static int set_up(void **state)
{
    return make_temp_folder(state) != 0 || recorded_samples(state) != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_steps_and_by_epochs),
        cmocka_unit_test(by_the_first_members_clock),
        cmocka_unit_test(the_step_loop_allocates_nothing_for_them),
        cmocka_unit_test(the_best_one_stays_and_survives_a_stop),
        cmocka_unit_test(the_best_one_needs_what_it_watches),
        cmocka_unit_test(a_write_that_fails_is_told_to_all_at_the_next_one),
        cmocka_unit_test(or_at_the_end),
    };
    return cmocka_run_group_tests(tests, set_up, remove_temp_folder);
}
