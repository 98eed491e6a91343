/* SPDX-License-Identifier: Apache-2.0 */
/* What `lockstep train` writes for programs: the object of --json and the lines of metrics.jsonl, read by a
 * JSON parser and compared with the formulas. */
#include "check.h"

#include <stdlib.h>
#include <unistd.h>

#include <jansson.h>

#include <lockstep/lockstep.h>

/* The run that most tests look at, on two processes: 45 steps an epoch, 44 of 32 samples and one of 30. */
enum { EPOCHS = 4, STEPS_PER_EPOCH = 45, STEP_SAMPLES = 32, TRAIN_SAMPLES = 1438 };
static const double base_lr = 0.05, scaled_lr = 0.1, warmup_epochs = 2; /* examples/digits.yaml, x 32 / 16 */

static char folder[] = "/tmp/lockstep-json-XXXXXX";
static json_t *result;

static void run(const char *command)
{
    int status = system(command);
    if (status != 0)
        fail_msg("%s: status %d", command, status);
}

static json_t *load(const char *file)
{
    char path[128];
    json_error_t error;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    json_t *value = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (value == NULL)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    return value;
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value))
        fail_msg("\"%s\" is no number", key);
    return json_number_value(value);
}

/* Two numbers that are the same but for the rounding of a few operations in double. */
static void check_near(const char *what, double actual, double expected)
{
    if (!(fabs(actual - expected) <= 1e-12 * fabs(expected)))
        fail_msg("%s is %.17g, expected %.17g", what, actual, expected);
}

static void one_object_has_all_keys_of_plan_and_result(void **state)
{
    (void)state;
    static const char *const integers[] = {
        "world",           "local_batch", "accumulate",        "effective_batch", "samples",
        "steps_per_epoch", "total_steps", "last_step_samples", "warmup_steps",    "steps",
        "processes",       "parameters",  "machines",          "comparisons"};
    static const char *const reals[] = {
        "base_lr",       "scaled_lr",          "epochs", "train_loss", "test_loss",
        "test_accuracy", "samples_per_second", "seconds"};
    assert_true(json_is_object(result));
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
        if (!json_is_integer(json_object_get(result, integers[i])))
            fail_msg("\"%s\" is no integer", integers[i]);
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++)
        if (!json_is_real(json_object_get(result, reals[i])))
            fail_msg("\"%s\" is no real number", reals[i]);
    assert_true(json_is_true(json_object_get(result, "same_bits")));
    assert_true(json_is_null(json_object_get(result, "stopped")));
    const char *hash = json_string_value(json_object_get(result, "parameters_hash"));
    assert_non_null(hash);
    CHECK_INT(strspn(hash, "0123456789abcdef"), 16);
    CHECK_INT(strlen(hash), 16);
}

static void the_numbers_are_those_of_the_run(void **state)
{
    (void)state;
    CHECK_INT(number(result, "processes"), 2);
    CHECK_INT(number(result, "world"), 2);
    CHECK_INT(number(result, "machines"), 1);
    CHECK_INT(number(result, "comparisons"), 0);
    CHECK_INT(number(result, "effective_batch"), STEP_SAMPLES);
    CHECK_INT(number(result, "steps"), EPOCHS * STEPS_PER_EPOCH);
    CHECK_INT(number(result, "total_steps"), EPOCHS * STEPS_PER_EPOCH);
    CHECK_INT(number(result, "samples"), EPOCHS * TRAIN_SAMPLES);
    CHECK_INT(number(result, "parameters"), 64 * 64 + 64 + 64 * 10 + 10);
    check_near("epochs", number(result, "epochs"), EPOCHS);
    check_near("scaled_lr", number(result, "scaled_lr"), scaled_lr);
    assert_true(number(result, "test_accuracy") > 0.9 && number(result, "test_accuracy") <= 1);
    assert_true(number(result, "samples_per_second") > 0);
    assert_true(number(result, "seconds") > 0);
}

/* The plan in the run directory is a part of what was printed. */
static void the_run_directory_has_the_same_plan(void **state)
{
    (void)state;
    json_t *plan = load("run/plan.json");
    const char *key;
    json_t *value;
    json_object_foreach(plan, key, value)
    {
        if (!json_equal(value, json_object_get(result, key)))
            fail_msg("\"%s\" differs", key);
    }
    json_decref(plan);
}

/* Linear warm-up from the base rate over samples, then a cosine over what is left (lr.schedule). */
static double expected_lr(double samples_before)
{
    const double all = EPOCHS * TRAIN_SAMPLES, warmup = warmup_epochs * TRAIN_SAMPLES;
    if (samples_before < warmup)
        return base_lr + (scaled_lr - base_lr) * samples_before / warmup;
    return scaled_lr * 0.5 * (1 + cos(acos(-1) * (samples_before - warmup) / (all - warmup)));
}

static int64_t samples_of_step(int64_t step_in_epoch)
{
    return step_in_epoch < STEPS_PER_EPOCH - 1 ? STEP_SAMPLES
                                               : TRAIN_SAMPLES - (STEPS_PER_EPOCH - 1) * STEP_SAMPLES;
}

static void check_step(const json_t *line, int64_t step, int64_t samples_before)
{
    static const char *const keys[] = {"step", "samples",  "epoch",     "lr",
                                       "loss", "accuracy", "grad_norm", "seconds"};
    CHECK_INT(json_object_size(line), sizeof keys / sizeof keys[0]);
    CHECK_INT(number(line, "step"), step + 1);
    CHECK_INT(number(line, "epoch"), step / STEPS_PER_EPOCH);
    CHECK_INT(number(line, "samples"), samples_before + samples_of_step(step % STEPS_PER_EPOCH));
    /* a few roundings of numbers of at most 0.1; relative to the rate they grow as the cosine nears -1 */
    CHECK_NEAR(number(line, "lr"), expected_lr((double)samples_before), 1e-15);
    assert_true(number(line, "loss") > 0);
    assert_true(number(line, "accuracy") >= 0 && number(line, "accuracy") <= 1);
    assert_true(number(line, "grad_norm") > 0);
    assert_true(number(line, "seconds") >= 0);
}

static void check_epoch(const json_t *line, int64_t epoch, double mean_loss)
{
    static const char *const keys[] = {"step",       "samples",   "epoch",         "epoch_samples",
                                       "train_loss", "test_loss", "test_accuracy", "samples_per_second",
                                       "seconds"};
    CHECK_INT(json_object_size(line), sizeof keys / sizeof keys[0]);
    CHECK_INT(number(line, "step"), (epoch + 1) * STEPS_PER_EPOCH);
    CHECK_INT(number(line, "samples"), (epoch + 1) * TRAIN_SAMPLES);
    CHECK_INT(number(line, "epoch"), epoch);
    CHECK_INT(number(line, "epoch_samples"), TRAIN_SAMPLES);
    check_near("train_loss", number(line, "train_loss"), mean_loss);
    assert_true(number(line, "test_loss") > 0);
    assert_true(number(line, "test_accuracy") > 0);
    assert_true(number(line, "samples_per_second") > 0);
}

static json_t *next_line(FILE *file)
{
    char text[1024];
    json_error_t error;
    if (fgets(text, sizeof text, file) == NULL)
        return NULL;
    json_t *line = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (line == NULL)
        fail_msg("%s: %s", error.text, text);
    assert_true(json_is_object(line));
    return line;
}

/* metrics.every_steps=1: a line for each step, and one for each epoch. */
static void metrics_follow_the_plan(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/run/metrics.jsonl", folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    int64_t step = 0, samples = 0;
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        double loss_sum = 0;
        for (int64_t i = 0; i < STEPS_PER_EPOCH; i++, step++) {
            json_t *line = next_line(file);
            check_step(line, step, samples);
            samples += samples_of_step(i);
            loss_sum += number(line, "loss") * (double)samples_of_step(i);
            json_decref(line);
        }
        json_t *line = next_line(file);
        check_epoch(line, epoch, loss_sum / TRAIN_SAMPLES);
        if (epoch == EPOCHS - 1)
            for (int i = 0; i < 3; i++) {
                static const char *const keys[] = {"train_loss", "test_loss", "test_accuracy"};
                check_near(keys[i], number(line, keys[i]), number(result, keys[i]));
            }
        json_decref(line);
    }
    assert_null(next_line(file));
    fclose(file);
}

/* 45 steps, one epoch: steps 10, 20, 30, 40, and the last one. */
static void one_step_in_ten_and_the_last_are_written_by_default(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/default/metrics.jsonl", folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (int64_t step = 10; step < STEPS_PER_EPOCH + 10; step += 10) {
        json_t *line = next_line(file);
        CHECK_INT(number(line, "step"), step < STEPS_PER_EPOCH ? step : STEPS_PER_EPOCH);
        assert_non_null(json_object_get(line, "grad_norm"));
        json_decref(line);
    }
    json_t *line = next_line(file);
    CHECK_INT(number(line, "step"), STEPS_PER_EPOCH);
    assert_non_null(json_object_get(line, "test_loss"));
    json_decref(line);
    assert_null(next_line(file));
    fclose(file);
}

static void what_is_not_finite_is_null(void **state)
{
    (void)state;
    lks_plan_config config = lks_plan_config_default();
    config.n_samples = 8;
    config.local_batch = 4;
    config.epochs = 1;
    lks_plan plan;
    CHECK_OK(lks_plan_create(&config, &plan));
    const lks_train_result odd = {
        .train_loss = NAN, .test_loss = INFINITY, .test_accuracy = -INFINITY, .samples_per_second = 7};
    char *text;
    CHECK_OK(lks_train_result_to_json(&odd, &plan, 1.5, &text));
    json_error_t error;
    json_t *object = json_loads(text, 0, &error);
    assert_non_null(object);
    assert_true(json_is_null(json_object_get(object, "train_loss")));
    assert_true(json_is_null(json_object_get(object, "test_loss")));
    assert_true(json_is_null(json_object_get(object, "test_accuracy")));
    check_near("samples_per_second", number(object, "samples_per_second"), 7);
    check_near("seconds", number(object, "seconds"), 1.5);
    json_decref(object);
    free(text);
}

static int set_up(void **state)
{
    (void)state;
    const char *binary = getenv("LOCKSTEP_BINARY");
    if (binary == NULL || mkdtemp(folder) == NULL)
        return 1;
    char command[1024];
    snprintf(command, sizeof command,
             "'%s' train examples/digits.yaml -n 2 --json --output %s/run epochs=%d metrics.every_steps=1 "
             "> %s/result 2> %s/screen",
             binary, folder, EPOCHS, folder, folder);
    run(command);
    snprintf(command, sizeof command,
             "'%s' train examples/digits.yaml -n 2 --output %s/default epochs=1 > %s/log", binary, folder,
             folder);
    run(command);
    result = load("result"); /* nothing but one value in the file, or this fails */
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    json_decref(result);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_object_has_all_keys_of_plan_and_result),
        cmocka_unit_test(the_numbers_are_those_of_the_run),
        cmocka_unit_test(the_run_directory_has_the_same_plan),
        cmocka_unit_test(metrics_follow_the_plan),
        cmocka_unit_test(one_step_in_ten_and_the_last_are_written_by_default),
        cmocka_unit_test(what_is_not_finite_is_null),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
