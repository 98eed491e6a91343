/* SPDX-License-Identifier: Apache-2.0 */
/* Run directories made by hand, laid side by side. */
#define _GNU_SOURCE /* nftw */

#include "check.h"

#include <math.h>
#include <unistd.h>

#include <jansson.h>

#include <lockstep/report.h>

#include "temp_folder.h"

/* 6 leaves of 16: on 2 processes each adds 3, which is no power of two. */
#define PLAN(batch, lr)                                                                                      \
    "{\"world\": 6, \"effective_batch\": " batch                                                             \
    ", \"local_batch\": 16, \"total_steps\": 20, \"reduction\": "                                            \
    "\"mean\", \"lr_rule\": \"none\", \"schedule\": \"constant\", \"warmup_samples\": 0.0, "                 \
    "\"scaled_lr\": " lr "}"
#define START(processes, version)                                                                            \
    "{\"step\": 0, \"processes\": " processes ", \"threads\": 1, \"version\": \"" version                    \
    "\", \"library\": \"x\", \"kernels\": \"1\", \"train_set\": \"2\", \"test_set\": \"3\"}\n"
#define STEP(step, lr, loss, norm)                                                                           \
    "{\"step\": " step ", \"samples\": 96, \"epoch\": 0, \"lr\": " lr ", \"loss\": " loss                    \
    ", \"grad_norm\": " norm ", \"seconds\": 1}\n"
#define TENSOR(step, name, hash, norm, sum)                                                                  \
    "{\"step\": " step ", \"tensor\": \"" name "\", \"elems\": 4, \"fan_in\": 2, \"hash\": \"" hash          \
    "\", \"norm\": " norm ", \"sum\": " sum "}\n"
#define INITIAL TENSOR("0", "w", "a0", "1", "2") TENSOR("0", "b", "b0", "1", "2")

static void put_text(const char *run, const char *file, const char *text)
{
    char name[128];
    snprintf(name, sizeof name, "%s/%s", run, file);
    if (text != NULL)
        put_file(in_temp_folder(name), text, strlen(text));
}

/* NULL: the run has no such file. */
static void put_run(const char *name, const char *plan, const char *starts, const char *metrics,
                    const char *hashes)
{
    (void)mkdir(in_temp_folder(name), 0777);
    put_text(name, "plan.json", plan);
    put_text(name, "starts.jsonl", starts);
    put_text(name, "metrics.jsonl", metrics);
    put_text(name, "hashes.jsonl", hashes);
}

/* The run that the others are compared with. */
static void put_base(void)
{
    put_run("base", PLAN("96", "0.1"), START("1", "1"),
            STEP("5", "0.1", "0.5", "2") STEP("10", "0.1", "0.25", "2"),
            INITIAL TENSOR("10", "w", "a1", "1.5", "2") TENSOR("10", "b", "b1", "1", "2"));
}

static json_t *compare_with_base(const char *name, lks_verdict verdict)
{
    char *text;
    lks_verdict found;
    put_base();
    CHECK_OK(lks_compare_to_json(in_temp_folder("base"), in_temp_folder(name), &found, &text));
    json_t *object = json_loads(text, 0, NULL);
    assert_non_null(object);
    if (found != verdict)
        fail_msg("verdict %d, wanted %d: %s", (int)found, (int)verdict, text);
    free(text);
    CHECK_OK(lks_compare_to_text(in_temp_folder("base"), in_temp_folder(name), &found, &text));
    CHECK_INT(found, verdict);
    free(text);
    return object;
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static void check_first(const json_t *comparison, int step, const char *quantity, double absolute,
                        double relative)
{
    const json_t *first = json_object_get(comparison, "first_difference");
    CHECK_INT(json_integer_value(json_object_get(first, "step")), step);
    assert_string_equal(text_of(first, "quantity"), quantity);
    /* numbers that are exact but for one subtraction and one division */
    CHECK_NEAR(json_number_value(json_object_get(first, "absolute")), absolute, 1e-14 * absolute);
    CHECK_NEAR(json_number_value(json_object_get(first, "relative")), relative, 1e-14 * relative);
}

static void check_says(const json_t *list, const char *part)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strstr(json_string_value(json_array_get(list, i)), part) != NULL)
            return;
    fail_msg("nothing says: %s", part);
}

static void a_run_is_the_same_as_itself_and_as_far_as_it_has_come(void **state)
{
    (void)state;
    put_base();
    json_decref(compare_with_base("base", LKS_VERDICT_SAME));
    /* other intervals; a line that is being written */
    put_run("part", PLAN("96", "0.1"), START("3", "1"),
            STEP("4", "0.1", "9", "9") STEP("5", "0.1", "0.5", "2") "{\"st",
            INITIAL TENSOR("10", "w", "a1", "1.5", "2") TENSOR("10", "b", "b1", "1", "2"));
    json_t *c = compare_with_base("part", LKS_VERDICT_SAME);
    const json_t *common = json_object_get(c, "common_steps");
    CHECK_INT(json_integer_value(json_object_get(common, "metrics")), 1);
    CHECK_INT(json_integer_value(json_object_get(common, "hashes")), 2);
    assert_true(json_is_null(json_object_get(c, "first_difference")));
    json_decref(c);
}

/* Within a step: learning rate, loss, gradient norm, then parameters in their order. */
static void the_first_quantity_that_differs_is_told(void **state)
{
    (void)state;
    put_run("lr", PLAN("96", "0.2"), START("1", "1"), STEP("5", "0.2", "0.75", "3"), INITIAL);
    json_t *c = compare_with_base("lr", LKS_VERDICT_DIFFERENT);
    check_first(c, 5, "lr", 0.1, 0.5);
    check_says(json_object_get(c, "causes"), "learning rate is 0.1 | 0.2");
    json_decref(c);

    put_run("loss", PLAN("96", "0.1"), START("1", "1"), STEP("5", "0.1", "0.75", "3"), INITIAL);
    c = compare_with_base("loss", LKS_VERDICT_DIFFERENT);
    check_first(c, 5, "loss", 0.25, 1.0 / 3);
    json_decref(c);

    put_run("norm", PLAN("96", "0.1"), START("1", "1"), STEP("5", "0.1", "0.5", "null"), INITIAL);
    c = compare_with_base("norm", LKS_VERDICT_DIFFERENT);
    assert_string_equal(text_of(json_object_get(c, "first_difference"), "quantity"), "grad_norm");
    json_decref(c);

    /* norms 0 apart, sums 1 apart: of 4 elements, the distance is at least 1 / sqrt(4) */
    put_run("params", PLAN("96", "0.1"), START("1", "1"), STEP("10", "0.1", "0.25", "2"),
            INITIAL TENSOR("10", "w", "a1", "1.5", "2") TENSOR("10", "b", "ff", "1", "3"));
    c = compare_with_base("params", LKS_VERDICT_DIFFERENT);
    check_first(c, 10, "parameters", 0.5, 0.5);
    assert_string_equal(text_of(json_object_get(c, "first_difference"), "tensor"), "b");
    CHECK_INT(json_integer_value(json_object_get(json_object_get(c, "first_difference"), "equal_until")), 0);
    json_decref(c);
}

/* The bound by hand: 16 * 2 * 5 additions * 2^-24 * 5 steps since the initial parameters = 4.77e-5. */
static void rounding_is_told_from_a_real_difference(void **state)
{
    (void)state;
    const double bound = 16 * 2 * 5 * 5 / 16777216.0;
    put_run("two", PLAN("96", "0.1"), START("2", "1"), STEP("5", "0.1", "0.50002", "2"), INITIAL);
    json_t *c = compare_with_base("two", LKS_VERDICT_ROUNDING); /* relative 4.0e-5 */
    double found = json_number_value(
        json_object_get(json_object_get(c, "first_difference"), "rounding_bound"));
    CHECK_NEAR(found, bound, 1e-12 * bound);
    check_says(json_object_get(c, "orders"), "on 2 processes each adds 3 leaves");
    json_decref(c);

    put_run("far", PLAN("96", "0.1"), START("2", "1"), STEP("5", "0.1", "0.50003", "2"), INITIAL);
    json_decref(compare_with_base("far", LKS_VERDICT_DIFFERENT)); /* 6.0e-5 */

    put_run("three", PLAN("96", "0.1"), START("3", "1"), STEP("5", "0.1", "0.50000001", "2"), INITIAL);
    c = compare_with_base("three", LKS_VERDICT_DIFFERENT); /* 2 leaves each: the same bits were promised */
    assert_non_null(strstr(text_of(c, "why"), "nothing that was recorded"));
    json_decref(c);

    put_run("version", PLAN("96", "0.1"), START("1", "2"), STEP("5", "0.1", "0.50000001", "2"), INITIAL);
    c = compare_with_base("version", LKS_VERDICT_ROUNDING);
    check_says(json_object_get(c, "orders"), "another version");
    json_decref(c);

    /* resumed on two processes, after the step that differs */
    put_run("later", PLAN("96", "0.1"), START("1", "1") "{\"step\": 5, \"processes\": 2}\n",
            STEP("5", "0.1", "0.50000001", "2"), INITIAL);
    json_decref(compare_with_base("later", LKS_VERDICT_DIFFERENT));
}

static void classic_causes_are_named(void **state)
{
    (void)state;
    put_run("big", PLAN("192", "0.1"), START("1", "1"), STEP("5", "0.1", "0.4", "2"), INITIAL);
    json_t *c = compare_with_base("big", LKS_VERDICT_DIFFERENT);
    check_says(
        json_object_get(c, "causes"),
        "effective batch is 96 | 192: 2 times as large; the learning rate is the same, so it was not scaled");
    json_decref(c);
    put_run("scaled", PLAN("192", "0.2"), START("1", "1"), STEP("5", "0.2", "0.4", "2"), INITIAL);
    c = compare_with_base("scaled", LKS_VERDICT_DIFFERENT);
    check_says(json_object_get(c, "causes"), "the learning rate was scaled with it");
    json_decref(c);
    put_run("changed", PLAN("96", "0.1"), START("1", "1"),
            "{\"step\": 4, \"samples\": 9, \"epoch\": 0, \"changed\": {\"clip.norm\": [null, 0.5]}}\n" STEP(
                "5", "0.1", "0.4", "2"),
            INITIAL);
    c = compare_with_base("changed", LKS_VERDICT_DIFFERENT);
    check_says(json_object_get(c, "causes"),
               "b went on with other settings after step 4: clip.norm none -> 0.5");
    json_decref(c);
    put_run("init", PLAN("96", "0.1"), START("1", "1"), "",
            TENSOR("0", "w", "1", "1", "2") TENSOR("0", "b", "b0", "1", "2"));
    c = compare_with_base("init", LKS_VERDICT_DIFFERENT);
    assert_non_null(strstr(text_of(c, "why"), "--init"));
    json_decref(c);
    put_run("model", PLAN("96", "0.1"), START("1", "1"), "", TENSOR("0", "w", "a0", "1", "2"));
    c = compare_with_base("model", LKS_VERDICT_DIFFERENT);
    assert_string_equal(text_of(c, "why"), "the models are not the same");
    json_decref(c);
}

/* What is done about steps that go wrong matters when some have. */
static void on_divergence_is_a_cause_where_steps_have_gone_wrong(void **state)
{
    (void)state;
    static const char trouble[] =
        "{\"step\": 7, \"samples\": 9, \"epoch\": 0, \"trouble\": \"x\", \"action\": \"y\"}\n";
    static const char config[] = "data: {path: x}\nbatch: {local: 16}\nepochs: 1\n";
    char skipping[200], metrics[1000];
    snprintf(skipping, sizeof skipping, "%son_divergence: skip\n", config);
    snprintf(metrics, sizeof metrics, "%s%s%s", STEP("5", "0.1", "0.5", "2"), trouble,
             STEP("10", "0.1", "0.75", "2"));
    put_text("base", "config.yaml", config);
    put_run("calm", PLAN("96", "0.1"), START("1", "1"), STEP("5", "0.1", "0.5", "2"),
            INITIAL TENSOR("10", "w", "a1", "1.5", "2") TENSOR("10", "b", "b1", "1", "2"));
    put_text("calm", "config.yaml", skipping);
    json_t *c = compare_with_base("calm", LKS_VERDICT_SAME);
    CHECK_INT(json_array_size(json_object_get(c, "causes")), 0);
    json_decref(c);
    put_run("wild", PLAN("96", "0.1"), START("1", "1"), metrics, INITIAL);
    put_text("wild", "config.yaml", skipping);
    c = compare_with_base("wild", LKS_VERDICT_DIFFERENT);
    check_says(json_object_get(c, "causes"), "on_divergence is stop | skip: steps have gone wrong");
    json_decref(c);
    CHECK_INT(unlink(in_temp_folder("base/config.yaml")), 0);
}

static void what_can_not_be_compared_is_told(void **state)
{
    (void)state;
    put_run("apart", PLAN("96", "0.1"), START("1", "1"), STEP("6", "0.1", "0.5", "2"), INITIAL);
    json_t *c = compare_with_base("apart", LKS_VERDICT_UNKNOWN);
    assert_non_null(strstr(text_of(c, "why"), "nothing after the initial parameters"));
    json_decref(c);
    put_run("bare", PLAN("96", "0.1"), NULL, NULL, NULL);
    c = compare_with_base("bare", LKS_VERDICT_UNKNOWN);
    assert_non_null(strstr(text_of(c, "why"), "no step was recorded by both"));
    json_decref(c);
}

static void fail_with(const char *name, lks_status status, const char *message)
{
    char *text = NULL;
    lks_verdict verdict;
    put_base();
    CHECK_FAILS(lks_compare_to_text(in_temp_folder("base"), in_temp_folder(name), &verdict, &text), status,
                message);
    assert_null(text);
}

static void files_that_are_none_of_a_run_are_refused(void **state)
{
    (void)state;
    fail_with("nowhere", LKS_E_NOT_FOUND, "nowhere is no run directory: it has no plan.json");
    put_run("no-plan", "{}", NULL, NULL, NULL);
    fail_with("no-plan", LKS_E_FORMAT, "no-plan/plan.json is not the plan of a run");
    put_run("zero", "{\"world\": 2, \"local_batch\": 0, \"effective_batch\": 96, \"total_steps\": 1}", NULL,
            NULL, NULL);
    fail_with("zero", LKS_E_FORMAT, "zero/plan.json is not the plan of a run");
    put_run("broken", PLAN("96", "0.1"), NULL, STEP("5", "0.1", "0.5", "2") "{oops\n", NULL);
    fail_with("broken", LKS_E_FORMAT, "broken/metrics.jsonl:2: ");
    put_run("stepless", PLAN("96", "0.1"), NULL, "{\"loss\": 1}\n", NULL);
    fail_with("stepless", LKS_E_FORMAT, "stepless/metrics.jsonl:1: it has no step");
    put_run("back", PLAN("96", "0.1"), NULL, STEP("5", "0.1", "1", "2") STEP("4", "0.1", "1", "2"), NULL);
    fail_with("back", LKS_E_FORMAT, "back/metrics.jsonl:2: its step is below");
    put_run("hashless", PLAN("96", "0.1"), NULL, NULL, "{\"step\": 1}\n");
    fail_with("hashless", LKS_E_FORMAT, "hashless/hashes.jsonl:1: it has no tensor and hash");
    put_run("config", PLAN("96", "0.1"), NULL, NULL, NULL);
    put_text("config", "config.yaml", "sede: 1\n");
    fail_with("config", LKS_E_ARG, "did you mean \"seed\"?");
}

/* Values of other types than a run writes. */
static void lines_that_make_no_sense_do_no_harm(void **state)
{
    (void)state;
    put_run(
        "odd", PLAN("96", "\"fast\""),
        "{\"step\": 0, \"processes\": -2}\n{\"step\": 0, \"processes\": 7, \"version\": []}\n{\"step\": 1}\n",
        STEP("5", "\"x\"", "[]", "{}"),
        TENSOR("0", "w", "1", "null", "null") "{\"step\": 0, \"tensor\": \"b\", \"hash\": \"2\"}\n");
    json_decref(compare_with_base("odd", LKS_VERDICT_DIFFERENT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_is_the_same_as_itself_and_as_far_as_it_has_come),
        cmocka_unit_test(the_first_quantity_that_differs_is_told),
        cmocka_unit_test(rounding_is_told_from_a_real_difference),
        cmocka_unit_test(classic_causes_are_named),
        cmocka_unit_test(on_divergence_is_a_cause_where_steps_have_gone_wrong),
        cmocka_unit_test(what_can_not_be_compared_is_told),
        cmocka_unit_test(files_that_are_none_of_a_run_are_refused),
        cmocka_unit_test(lines_that_make_no_sense_do_no_harm),
    };
    return cmocka_run_group_tests(tests, make_temp_folder, remove_temp_folder);
}
