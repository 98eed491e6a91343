/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* nftw */

#include "check.h"

#include <float.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "base/alloc.h"
#include "record/metrics_file.h"
#include "record/run_dir.h"
#include "temp_folder.h"

#define A_PLAN "{\"world\": 2, \"effective_batch\": 64}\n"

static lks__run_dir *create(const char *path, bool overwrite)
{
    lks__run_dir *dir = NULL;
    CHECK_OK(lks__run_dir_create(path, overwrite, "seed: 0\n", A_PLAN, &dir));
    return dir;
}

static const char *in_dir(const char *dir, const char *file)
{
    char name[128];
    snprintf(name, sizeof name, "%s/%s", dir, file);
    return in_temp_folder(name);
}

static void a_new_directory_is_filled(void **state)
{
    (void)state;
    char text[100];
    const char *path = in_temp_folder("a/b/run///");
    CHECK_OK(lks__run_dir_check(path, false));
    assert_false(file_exists(in_temp_folder("a"))); /* checking writes nothing */

    lks__run_dir *dir = create(path, false);
    get_file(in_dir("a/b/run", "config.yaml"), text, sizeof text);
    assert_string_equal(text, "seed: 0\n");
    get_file(in_dir("a/b/run", "plan.json"), text, sizeof text);
    assert_string_equal(text, A_PLAN);
    CHECK_INT(get_file(in_dir("a/b/run", "metrics.jsonl"), text, sizeof text), 0);
    CHECK_INT(get_file(in_dir("a/b/run", "hashes.jsonl"), text, sizeof text), 0);
    CHECK_INT(get_file(in_dir("a/b/run", "starts.jsonl"), text, sizeof text), 0);
    assert_true(file_exists(in_dir("a/b/run", "checkpoints")));

    char *model = lks__run_dir_path(dir, "model.safetensors");
    assert_string_equal(model, in_temp_folder("a/b/run/model.safetensors"));
    lks__free(model);
    lks__run_dir_close(dir);
}

static void a_config_may_be_missing(void **state)
{
    (void)state;
    lks__run_dir *dir;
    CHECK_OK(lks__run_dir_create(in_temp_folder("bare"), false, NULL, "{}", &dir));
    assert_false(file_exists(in_dir("bare", "config.yaml")));
    lks__run_dir_close(dir);
    lks__run_dir_close(NULL);
}

static void paths_from_here_work(void **state)
{
    (void)state;
    char before[512];
    assert_non_null(getcwd(before, sizeof before));
    CHECK_INT(chdir(temp_folder), 0);
    lks__run_dir *dir = create("here", false);
    char *model = lks__run_dir_path(dir, "model.safetensors");
    assert_string_equal(model, "here/model.safetensors");
    lks__free(model);
    lks__run_dir_close(dir);
    lks__run_dir_close(create("./x/../y", false));
    assert_true(file_exists(in_dir("y", "plan.json")));
    CHECK_FAILS(lks__run_dir_check("here", false), LKS_E_EXISTS, "here exists");
    CHECK_INT(chdir(before), 0);
}

static void an_earlier_run_is_replaced_only_when_asked(void **state)
{
    (void)state;
    const char *path = in_temp_folder("again");
    lks__run_dir_close(create(path, false));
    static const char *const of_the_run[] = {"model.safetensors", "model.safetensors.tmp", "plan.json.tmp",
                                             "checkpoints/step-10.safetensors",
                                             "checkpoints/step-20.safetensors.tmp"};
    static const char *const of_the_user[] = {"notes.txt", "checkpoints/notes.txt", "plan.json.txt"};
    for (size_t i = 0; i < sizeof of_the_run / sizeof of_the_run[0]; i++)
        put_file(in_dir("again", of_the_run[i]), "x", 1);
    for (size_t i = 0; i < sizeof of_the_user / sizeof of_the_user[0]; i++)
        put_file(in_dir("again", of_the_user[i]), "x", 1);
    put_file(in_dir("again", "metrics.jsonl"), "old", 3);

    lks__run_dir *dir;
    CHECK_FAILS(lks__run_dir_check(path, false), LKS_E_EXISTS, "again exists\nhint: --overwrite");
    CHECK_FAILS(lks__run_dir_create(path, false, NULL, "{}", &dir), LKS_E_EXISTS, "output=DIR");
    assert_null(dir);
    assert_true(file_exists(in_dir("again", of_the_run[0])));

    CHECK_OK(lks__run_dir_check(path, true));
    assert_true(file_exists(in_dir("again", of_the_run[0])));
    CHECK_OK(lks__run_dir_create(path, true, NULL, "{\"world\": 4}", &dir));
    lks__run_dir_close(dir);
    for (size_t i = 0; i < sizeof of_the_run / sizeof of_the_run[0]; i++)
        assert_false(file_exists(in_dir("again", of_the_run[i])));
    for (size_t i = 0; i < sizeof of_the_user / sizeof of_the_user[0]; i++)
        assert_true(file_exists(in_dir("again", of_the_user[i])));
    assert_false(file_exists(in_dir("again", "config.yaml"))); /* the new run has none */
    char text[100];
    CHECK_INT(get_file(in_dir("again", "metrics.jsonl"), text, sizeof text), 0);
    get_file(in_dir("again", "plan.json"), text, sizeof text);
    assert_string_equal(text, "{\"world\": 4}");
}

static void a_strangers_folder_is_left_alone(void **state)
{
    (void)state;
    lks__run_dir *dir;
    CHECK_INT(mkdir(in_temp_folder("stranger"), 0777), 0);
    put_file(in_dir("stranger", "model.safetensors"), "x", 1);
    CHECK_FAILS(lks__run_dir_check(in_temp_folder("stranger"), true), LKS_E_EXISTS,
                "holds something else than a run");
    CHECK_FAILS(lks__run_dir_create(in_temp_folder("stranger"), true, NULL, "{}", &dir), LKS_E_EXISTS,
                "no plan.json");
    assert_true(file_exists(in_dir("stranger", "model.safetensors")));

    /* a file of that name does not make it a run */
    static const char *const plans[] = {"{}", "{\"world\": \"ours\"}", "[1]", "{\"world\": 2,", ""};
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        put_file(in_dir("stranger", "plan.json"), plans[i], strlen(plans[i]));
        CHECK_FAILS(lks__run_dir_create(in_temp_folder("stranger"), true, NULL, "{}", &dir), LKS_E_EXISTS,
                    "holds something else than a run");
        assert_true(file_exists(in_dir("stranger", "model.safetensors")));
    }

    put_file(in_temp_folder("file"), "x", 1);
    CHECK_FAILS(lks__run_dir_check(in_temp_folder("file"), true), LKS_E_EXISTS, "is not a folder");
    assert_true(file_exists(in_temp_folder("file")));

    /* nothing to lose here */
    CHECK_INT(mkdir(in_temp_folder("nothing"), 0777), 0);
    CHECK_FAILS(lks__run_dir_check(in_temp_folder("nothing"), false), LKS_E_EXISTS, "exists");
    put_file(in_dir("nothing", "plan.json.tmp"), "x", 1); /* of a run that was cut off when it had begun */
    lks__run_dir_close(create(in_temp_folder("nothing"), true));
}

static void a_run_that_goes_on_keeps_its_directory(void **state)
{
    (void)state;
    const char *path = in_temp_folder("busy");
    lks__run_dir *first = create(path, false), *second;
    put_file(in_dir("busy", "model.safetensors"), "x", 1);
    CHECK_FAILS(lks__run_dir_check(path, true), LKS_E_EXISTS, "busy is in use by another run");
    CHECK_FAILS(lks__run_dir_create(path, true, NULL, A_PLAN, &second), LKS_E_EXISTS, "busy is in use");
    assert_null(second);
    CHECK_FAILS(lks__run_dir_continue(path, 0, &second), LKS_E_EXISTS, "busy is in use");
    assert_true(file_exists(in_dir("busy", "model.safetensors")));
    assert_true(file_exists(in_dir("busy", "config.yaml")));

    lks__run_dir_close(first);
    CHECK_OK(lks__run_dir_check(path, true));
    lks__run_dir_close(create(path, true));
}

/* Whoever does not get the directory says so, and does not harm what the others write. */
static void runs_that_start_at_once_do_not_mix(void **state)
{
    (void)state;
    enum { N_RUNS = 4, N_ROUNDS = 20 };
    for (int round = 0; round < N_ROUNDS; round++) {
        pid_t runs[N_RUNS];
        for (int i = 0; i < N_RUNS; i++) {
            runs[i] = fork();
            assert_true(runs[i] >= 0);
            if (runs[i] != 0)
                continue;
            lks__run_dir *dir;
            lks_status status = lks__run_dir_create(in_temp_folder("race"), true, "a: 1\n", A_PLAN, &dir);
            lks__run_dir_close(dir);
            _exit(status == LKS_OK || status == LKS_E_EXISTS ? 0 : 1);
        }
        for (int i = 0; i < N_RUNS; i++) {
            int result;
            CHECK_INT(waitpid(runs[i], &result, 0), runs[i]);
            CHECK_INT(result, 0);
        }
    }
}

static void impossible_places_are_refused(void **state)
{
    (void)state;
    lks__run_dir *dir;
    CHECK_FAILS(lks__run_dir_check("", false), LKS_E_ARG, "output is empty");
    put_file(in_temp_folder("plain"), "x", 1);
    CHECK_FAILS(lks__run_dir_check(in_temp_folder("plain/run"), false), LKS_E_ARG,
                "plain/run cannot be created: Not a directory");
    CHECK_FAILS(lks__run_dir_create("/proc/lockstep/run", false, NULL, "{}", &dir), LKS_E_ARG,
                "/proc/lockstep/run cannot be created: No such file");
    char longest[300] = ""; /* a name may have 255 bytes */
    memset(longest, 'x', sizeof longest - 1);
    CHECK_FAILS(lks__run_dir_check(in_temp_folder(longest), false), LKS_E_ARG, "File name too long");
}

/* In a process without the rights of root, to which every folder is open. */
static void closed_folders_are_refused(void **state)
{
    (void)state;
    const char *path = in_temp_folder("closed/run");
    CHECK_INT(mkdir(in_temp_folder("closed"), 0555), 0);
    CHECK_INT(chmod(temp_folder, 0755), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(3);
        lks_status status = lks__run_dir_check(path, false);
        _exit(status == LKS_E_ARG && strstr(lks_error_message(), "Permission denied") ? 0 : 4);
    }
    int status;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
}

static void check_number(double value, const char *expected)
{
    char text[LKS__JSON_NUMBER_BYTES];
    assert_string_equal(lks__json_number(value, text), expected);
}

static void numbers_are_short_and_exact(void **state)
{
    (void)state;
    check_number(0.1, "0.1");
    check_number(1.0 / 3.0, "0.3333333333333333");
    check_number(0.1 + 0.2, "0.30000000000000004");
    check_number(-2.0, "-2");
    check_number(1e22, "1e+22");
    check_number(DBL_MAX, "1.7976931348623157e+308");
    check_number(-DBL_TRUE_MIN, "-4.94065645841247e-324");
    check_number(NAN, "null");
    check_number(INFINITY, "null");
    check_number(-INFINITY, "null");
}

static json_t *next_line(FILE *file)
{
    char line[1000];
    json_error_t error;
    if (fgets(line, sizeof line, file) == NULL)
        return NULL;
    json_t *object = json_loads(line, 0, &error);
    if (object == NULL)
        fail_msg("%s: %s", line, error.text);
    return object;
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value))
        fail_msg("%s is no number", key);
    return json_number_value(value);
}

static void metrics_are_json_lines(void **state)
{
    (void)state;
    lks__run_dir *dir = create(in_temp_folder("metrics"), false);
    const lks__step_metrics step = {.step = INT64_C(9007199254740993),
                                    .samples = 128,
                                    .epoch = 0,
                                    .lr = 0.1,
                                    .loss = 1.0 / 3.0,
                                    .accuracy = NAN,
                                    .grad_norm = INFINITY,
                                    .seconds = 2.5};
    const lks__epoch_metrics epoch = {.step = 2,
                                      .samples = 256,
                                      .epoch = 1,
                                      .epoch_samples = 192,
                                      .train_loss = 0.5,
                                      .test_loss = NAN,
                                      .test_accuracy = 0.98,
                                      .samples_per_second = 1e5,
                                      .seconds = 3};
    lks__run_dir_log_step(dir, &step);
    lks__run_dir_log_epoch(dir, &epoch);
    CHECK_OK(lks__run_dir_flush(dir));

    FILE *file = fopen(in_dir("metrics", "metrics.jsonl"), "r");
    json_t *line = next_line(file);
    CHECK_INT(json_object_size(line), 8);
    CHECK_INT(json_integer_value(json_object_get(line, "step")), step.step);
    CHECK_INT(number(line, "samples"), 128);
    CHECK_INT(number(line, "epoch"), 0);
    assert_true(number(line, "lr") == 0.1 && number(line, "loss") == 1.0 / 3.0);
    assert_true(json_is_null(json_object_get(line, "accuracy")));
    assert_true(json_is_null(json_object_get(line, "grad_norm")));
    assert_true(number(line, "seconds") == 2.5);
    json_decref(line);
    line = next_line(file);
    CHECK_INT(json_object_size(line), 9);
    CHECK_INT(number(line, "step"), 2);
    CHECK_INT(number(line, "samples"), 256);
    CHECK_INT(number(line, "epoch"), 1);
    CHECK_INT(number(line, "epoch_samples"), epoch.epoch_samples);
    assert_true(number(line, "train_loss") == 0.5 && number(line, "test_accuracy") == 0.98);
    assert_true(json_is_null(json_object_get(line, "test_loss")));
    assert_true(number(line, "samples_per_second") == 1e5 && number(line, "seconds") == 3);
    json_decref(line);
    assert_null(next_line(file));
    fclose(file);
    lks__run_dir_close(dir);
}

static void tensors_and_starts_have_files_of_their_own(void **state)
{
    (void)state;
    lks__run_dir *dir = create(in_temp_folder("tensors"), false);
    const lks__tensor_metrics tensor = {.step = 100,
                                        .samples = 6400,
                                        .tensor = "0.weight",
                                        .elems = 12,
                                        .fan_in = 4,
                                        .hash = UINT64_C(0xfedcba9876543210),
                                        .norm = 1.0 / 3.0,
                                        .sum = NAN};
    const lks__start start = {.step = 50,
                              .processes = 3,
                              .threads = 2,
                              .version = "1.2.3",
                              .library = "kernels 4.5",
                              .kernels = 0xab,
                              .train_set = UINT64_MAX};
    lks__run_dir_log_tensor(dir, &tensor);
    lks__run_dir_log_start(dir, &start);
    CHECK_OK(lks__run_dir_flush(dir));
    lks__run_dir_close(dir);
    char text[1000];
    get_file(in_dir("tensors", "hashes.jsonl"), text, sizeof text);
    assert_string_equal(text, "{\"step\": 100, \"samples\": 6400, \"tensor\": \"0.weight\", \"elems\": 12, "
                              "\"fan_in\": 4, \"hash\": \"fedcba9876543210\", \"norm\": 0.3333333333333333, "
                              "\"sum\": null}\n");
    get_file(in_dir("tensors", "starts.jsonl"), text, sizeof text);
    assert_string_equal(text, "{\"step\": 50, \"samples\": 0, \"processes\": 3, \"threads\": 2, \"version\": "
                              "\"1.2.3\", \"library\": \"kernels 4.5\", \"kernels\": \"00000000000000ab\", "
                              "\"train_set\": \"ffffffffffffffff\", \"test_set\": \"0000000000000000\"}\n");
}

/* Going on from step 50 keeps what was there when its checkpoint was written. */
static void what_comes_after_the_checkpoint_is_cut_off(void **state)
{
    (void)state;
    lks__run_dir *dir = create(in_temp_folder("cut"), false);
    lks__tensor_metrics tensor = {.tensor = "0.weight"};
    lks__start start = {.version = "", .library = ""};
    for (int64_t step = 0; step <= 75; step += 25) {
        tensor.step = start.step = step;
        lks__run_dir_log_tensor(dir, &tensor);
        lks__run_dir_log_start(dir, &start);
    }
    lks__run_dir_close(dir);
    CHECK_OK(lks__run_dir_continue(in_temp_folder("cut"), 50, &dir));
    tensor.step = start.step = 60;
    lks__run_dir_log_tensor(dir, &tensor);
    lks__run_dir_log_start(dir, &start);
    lks__run_dir_close(dir);
    static const char *const names[] = {"hashes.jsonl", "starts.jsonl"};
    static const int steps[] = {0, 25, 50, 60};
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(in_dir("cut", names[i]), "r");
        for (int k = 0; k < 4; k++) {
            json_t *line = next_line(file);
            CHECK_INT(number(line, "step"), steps[k]);
            json_decref(line);
        }
        assert_null(next_line(file));
        fclose(file);
    }
}

/* Damaged lines are told; what a kill leaves, or comes after the checkpoint, is not damage. */
static void damaged_lines_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int kept; /* lines */
        const char *damage;
    } cases[] = {
        {"", 0, ""},
        {"{\"step\": 10, \"x\": 1}\n{\"step\": 20, \"x\": 1}\n{\"step\": 60, \"x\": 1}\nrest\n", 2, ""},
        {"{\"step\": 10, \"x\": 1}\n{\"step\": 20, \"x\": 1}\n{\"ste", 2, ""},
        {"{\"step\": 10, \"x\": 1}\n{\"step\": 2", 1, ""},
        {"{\"step\": 10, \"x\": 1}\n{\"step\": 20, \"x", 1, "metrics.jsonl from line 2"},
        {"{\"step\": 10, \"x\": 1}\n{\"step\": 70, \"x", 1, ""},
        {"{\"step\": 10, \"x\": 1}\n{\"step\"#20}\n{\"step\": 30, \"x\": 1}\n", 1,
         "metrics.jsonl from line 2"},
        {"\n{\"step\": 30, \"x\": 1}\n", 0, "metrics.jsonl from line 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char damage[LKS__DAMAGE_BYTES], text[200], name[32];
        snprintf(name, sizeof name, "damaged-%zu", i);
        const char *path = in_temp_folder(name);
        lks__run_dir *dir = create(path, false);
        lks__run_dir_close(dir);
        put_file(in_dir(name, "metrics.jsonl"), cases[i].text, strlen(cases[i].text));
        CHECK_OK(lks__run_dir_continue(in_temp_folder(name), 50, &dir));
        assert_string_equal(lks__run_dir_damage(dir, damage), cases[i].damage);
        lks__run_dir_close(dir);
        get_file(in_dir(name, "metrics.jsonl"), text, sizeof text);
        const char *rest = cases[i].text;
        for (int k = 0; k < cases[i].kept; k++)
            rest = strchr(rest, '\n') + 1;
        CHECK_INT(strlen(text), rest - cases[i].text);
        assert_memory_equal(text, cases[i].text, strlen(text));
    }
}

/* A block of zeros, as a power cut leaves one, in each file. */
static void damage_of_all_files_is_told_in_one_line(void **state)
{
    (void)state;
    static const char lines[] = "{\"step\": 10, \"x\": 1}\n{\"step\": 2\0\0\0\0\0\"x\": 1}\n";
    static const char *const names[] = {"metrics.jsonl", "hashes.jsonl", "starts.jsonl"};
    char damage[LKS__DAMAGE_BYTES];
    lks__run_dir *dir = create(in_temp_folder("zeros"), false);
    lks__run_dir_close(dir);
    for (int i = 0; i < 3; i++)
        put_file(in_dir("zeros", names[i]), lines, sizeof lines - 1);
    CHECK_OK(lks__run_dir_continue(in_temp_folder("zeros"), 50, &dir));
    assert_string_equal(lks__run_dir_damage(dir, damage),
                        "metrics.jsonl from line 2, hashes.jsonl from line 2, starts.jsonl from line 2");
    lks__run_dir_close(dir);
}

static void check_text(const char *file, const char *expected)
{
    char text[200];
    get_file(in_dir("changed", file), text, sizeof text);
    assert_string_equal(text, expected);
}

/* What changes with step 50 is told behind it, and told anew when the run goes on from there once more. */
static void settings_that_change_are_kept_and_told(void **state)
{
    (void)state;
    const char *path = in_temp_folder("changed");
    lks__run_dir *dir = create(path, false);
    lks__step_metrics step = {.step = 50};
    lks__run_dir_log_step(dir, &step);
    lks__run_dir_close(dir);
    put_file(in_dir("changed", "model.safetensors"), "x", 1);

    char list[700] = "{\"lr.milestones\": [null, \""; /* longer than other lines */
    while (strlen(list) < sizeof list - 10)
        strncat(list, "9", 2);
    strncat(list, "\"]}", 4);
    lks__change_metrics change = {50, 640, 1, list};
    for (int i = 0; i < 2; i++) {
        CHECK_OK(lks__run_dir_continue(path, 50, &dir));
        CHECK_OK(lks__run_dir_replace(dir, "seed: 1\n", "{\"world\": 3, \"effective_batch\": 64}\n"));
        lks__run_dir_log_change(dir, &change);
        step.step = 60;
        lks__run_dir_log_step(dir, &step);
        lks__run_dir_close(dir);
    }
    check_text("config.yaml", "seed: 1\n");
    check_text("config.1.yaml", "seed: 0\n");
    check_text("model.1.safetensors", "x");
    check_text("plan.json", "{\"world\": 3, \"effective_batch\": 64}\n");
    assert_false(file_exists(in_dir("changed", "config.2.yaml")));
    assert_false(file_exists(in_dir("changed", "model.safetensors")));

    CHECK_OK(lks__run_dir_continue(path, 60, &dir)); /* from after the change */
    CHECK_OK(lks__run_dir_replace(dir, "seed: 2\n", A_PLAN));
    lks__run_dir_close(dir);
    check_text("config.2.yaml", "seed: 1\n");
    FILE *file = fopen(in_dir("changed", "metrics.jsonl"), "r");
    static const int steps[] = {50, 50, 60};
    for (int i = 0; i < 3; i++) {
        json_t *line = next_line(file);
        CHECK_INT(number(line, "step"), steps[i]);
        CHECK_INT(json_object_get(line, "changed") != NULL, i == 1);
        json_decref(line);
    }
    assert_null(next_line(file));
    fclose(file);

    lks__run_dir_close(create(path, true));
    assert_false(file_exists(in_dir("changed", "config.1.yaml")));
    assert_false(file_exists(in_dir("changed", "config.2.yaml")));
    assert_false(file_exists(in_dir("changed", "model.1.safetensors")));
}

/* More lines than the buffer holds, none of them longer than any double can make it; closing writes the rest.
 */
static void many_lines_need_no_memory(void **state)
{
    (void)state;
    enum { N = 1000 };
    lks__run_dir *dir = create(in_temp_folder("many"), false);
    lks__step_metrics step = {.samples = INT64_MIN, .epoch = INT64_MIN, .lr = -DBL_MIN, .loss = -DBL_MAX};
    step.accuracy = step.grad_norm = step.seconds = -1.0 / 3.0 * 1e-300;
    int64_t allocated = lks__alloc_count();
    for (int i = 0; i < N; i++) {
        step.step = i;
        lks__run_dir_log_step(dir, &step);
    }
    CHECK_INT(lks__alloc_count(), allocated);
    lks__run_dir_close(dir);

    FILE *file = fopen(in_dir("many", "metrics.jsonl"), "r");
    for (int i = 0; i < N; i++) {
        json_t *line = next_line(file);
        CHECK_INT(number(line, "step"), i);
        assert_true(number(line, "grad_norm") == step.grad_norm && number(line, "loss") == -DBL_MAX);
        json_decref(line);
    }
    assert_null(next_line(file));
    fclose(file);
}

/* A limit on file sizes stands for a full disk. */
static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void a_full_disk_is_told_once_and_keeps_whole_lines(void **state)
{
    (void)state;
    lks__run_dir *dir = create(in_temp_folder("full"), false);
    const lks__step_metrics step = {.step = 1};
    limit_file_size(1000);
    for (int i = 0; i < 3; i++)
        lks__run_dir_log_step(dir, &step);
    CHECK_OK(lks__run_dir_flush(dir));
    for (int i = 0; i < 100; i++)
        lks__run_dir_log_step(dir, &step);
    CHECK_FAILS(lks__run_dir_flush(dir), LKS_E_IO, "full/metrics.jsonl: File too large");
    lks__run_dir_log_step(dir, &step);
    CHECK_OK(lks__run_dir_flush(dir));
    lks__run_dir_close(dir);
    limit_file_size(RLIM_INFINITY);

    char text[2000];
    size_t bytes = get_file(in_dir("full", "metrics.jsonl"), text, sizeof text);
    CHECK_INT(text[bytes - 1], '\n');
    int n_lines = 0;
    for (size_t i = 0; i < bytes; i++)
        n_lines += text[i] == '\n';
    CHECK_INT(n_lines, 3);
}

static void a_directory_that_cannot_be_filled_is_taken_back(void **state)
{
    (void)state;
    lks__run_dir *dir;
    limit_file_size(1);
    lks_status status = lks__run_dir_create(in_temp_folder("small/run"), false, "a: 1\n", "{}\n", &dir);
    limit_file_size(RLIM_INFINITY);
    CHECK_FAILS(status, LKS_E_IO, "small/run/plan.json: File too large");
    assert_null(dir);
    assert_false(file_exists(in_temp_folder("small/run")));

    int64_t in_use = lks__alloc_bytes(LKS__MEM_MISC);
    for (int nth = 1; nth < 30; nth++) {
        lks__alloc_fail_nth(nth);
        status = lks__run_dir_create(in_temp_folder("memory"), false, "a: 1\n", "{}\n", &dir);
        lks__alloc_fail_nth(0);
        if (status == LKS_OK)
            break;
        assert_true(status == LKS_E_NOMEM || status == LKS_E_ARG || status == LKS_E_IO);
        assert_false(file_exists(in_temp_folder("memory")));
        CHECK_INT(lks__alloc_bytes(LKS__MEM_MISC), in_use);
    }
    CHECK_OK(status);
    lks__run_dir_close(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_directory_is_filled),
        cmocka_unit_test(a_config_may_be_missing),
        cmocka_unit_test(paths_from_here_work),
        cmocka_unit_test(an_earlier_run_is_replaced_only_when_asked),
        cmocka_unit_test(a_strangers_folder_is_left_alone),
        cmocka_unit_test(a_run_that_goes_on_keeps_its_directory),
        cmocka_unit_test(runs_that_start_at_once_do_not_mix),
        cmocka_unit_test(impossible_places_are_refused),
        cmocka_unit_test(closed_folders_are_refused),
        cmocka_unit_test(numbers_are_short_and_exact),
        cmocka_unit_test(metrics_are_json_lines),
        cmocka_unit_test(tensors_and_starts_have_files_of_their_own),
        cmocka_unit_test(what_comes_after_the_checkpoint_is_cut_off),
        cmocka_unit_test(damaged_lines_are_told),
        cmocka_unit_test(damage_of_all_files_is_told_in_one_line),
        cmocka_unit_test(settings_that_change_are_kept_and_told),
        cmocka_unit_test(many_lines_need_no_memory),
        cmocka_unit_test(a_full_disk_is_told_once_and_keeps_whole_lines),
        cmocka_unit_test(a_directory_that_cannot_be_filled_is_taken_back),
    };
    return cmocka_run_group_tests(tests, make_temp_folder, remove_temp_folder);
}
