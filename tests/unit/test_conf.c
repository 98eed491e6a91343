/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* nftw */

#include "check.h"

#include <stdlib.h>

#include <lockstep/config.h>

#include "base/alloc.h"
#include "base/random.h"
#include "conf/options.h"
#include "temp_folder.h"

#define LEAST "data.path: d\nbatch.local: 8\nepochs: 1\n"

/* A config file of this content; its path ends in x.yaml. */
static const char *file_of(const char *yaml)
{
    const char *path = in_temp_folder("x.yaml");
    put_file(path, yaml, strlen(yaml));
    return path;
}

static lks_config *config_of(const char *yaml)
{
    lks_config *config = NULL;
    CHECK_OK(lks_config_load(file_of(yaml), 0, NULL, &config));
    return config;
}

static void check_value(const char *yaml, const char *key, const char *expected)
{
    lks_config *config = config_of(yaml);
    assert_string_equal(lks_config_get(config, key), expected);
    lks_config_destroy(config);
}

/* --- reading --- */

static void a_whole_config_is_read(void **state)
{
    (void)state;
    lks_config *config = config_of(
        "name: a b\n"
        "model: {kind: mlp, hidden: [512, 256]}\n"
        "data:\n  path: data/mnist\n  tail: drop\n  limit: 100\n"
        "  normalize: {mean: 0.1307, std: 0.3081}\n"
        "world: 16\n"
        "batch: {local: 64, accumulate: 2}\n"
        "samples: 1000\n"
        "reduction: sum\n"
        "optimizer: {kind: sgd, lr: 0.02, momentum: 0.9, nesterov: true}\n"
        "optimizer.weight_decay: 1.0e-4\n"
        "lr: {reference_batch: 64, rule: sqrt, warmup_epochs: 0.5, warmup_from: 0,\n"
        "     schedule: cosine}\n"
        "comm.timeout: 2.5\n");
    const lks__settings *s = lks__config_settings(config);
    assert_string_equal(s->name, "a b");
    assert_string_equal(s->output, "runs/a b");
    CHECK_INT(s->n_hidden, 2);
    CHECK_INT(s->hidden[0], 512);
    CHECK_INT(s->hidden[1], 256);
    assert_string_equal(s->data_path, "data/mnist");
    CHECK_INT(s->tail, LKS_TAIL_DROP);
    CHECK_INT(s->data_limit, 100);
    assert_true(s->normalize_mean == 0.1307 && s->normalize_std == 0.3081);
    CHECK_INT(s->world, 16);
    CHECK_INT(s->local_batch, 64);
    CHECK_INT(s->accumulate, 2);
    CHECK_INT(s->global_batch, 0);
    CHECK_INT(s->epochs, 0);
    CHECK_INT(s->steps, 0);
    CHECK_INT(s->samples, 1000);
    CHECK_INT(s->reduction, LKS_REDUCTION_SUM);
    CHECK_INT(s->optimizer.kind, LKS_SGD);
    assert_true(s->base_lr == 0.02 && s->optimizer.momentum == 0.9 && s->optimizer.nesterov);
    assert_true(s->optimizer.weight_decay == 1e-4);
    CHECK_INT(s->reference_batch, 64);
    CHECK_INT(s->lr_rule, LKS_LR_SQRT);
    CHECK_INT(s->warmup_from, LKS_WARMUP_FROM_ZERO);
    CHECK_INT(s->schedule.kind, LKS_SCHEDULE_COSINE);
    assert_true(s->warmup_epochs == 0.5 && s->comm_timeout_s == 2.5);
    lks_config_destroy(config);
}

static void what_is_left_out_has_its_default(void **state)
{
    (void)state;
    lks_config *config = config_of(LEAST);
    const lks__settings *s = lks__config_settings(config);
    assert_string_equal(s->name, "x"); /* of x.yaml */
    assert_string_equal(s->output, "runs/x");
    CHECK_INT(s->seed, 0);
    CHECK_INT(s->threads, 1);
    CHECK_INT(s->tail, LKS_TAIL_EXACT);
    CHECK_INT(s->world, 0);
    CHECK_INT(s->metrics_every_steps, 10);
    assert_true(s->comm_timeout_s == 300 && s->normalize_std == 1 && s->normalize_mean == 0);
    assert_string_equal(lks_config_get(config, "world"), "");
    assert_string_equal(lks_config_get(config, "seed"), "0");
    assert_string_equal(lks_config_get(config, "model.hidden"), "[512, 256]");
    assert_null(lks_config_get(config, "no.such.key"));
    lks_config_destroy(config);
}

/* torch.optim.SGD, Adam, AdamW as of PyTorch 2: their documented defaults. */
static void optimizers_have_pytorchs_defaults(void **state)
{
    (void)state;
    static const struct {
        const char *kind, *weight_decay, *beta2, *momentum;
    } cases[] = {{"sgd", "0", "", "0"},
                 {"adam", "0", "0.999", ""},
                 {"adamw", "0.01", "0.999", ""},
                 {"lars", "0", "", "0.9"}};
    lks_config *config = config_of(LEAST);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_OK(lks_config_set(config, "optimizer.kind", cases[i].kind));
        assert_string_equal(lks_config_get(config, "optimizer.weight_decay"), cases[i].weight_decay);
        assert_string_equal(lks_config_get(config, "optimizer.beta2"), cases[i].beta2);
        assert_string_equal(lks_config_get(config, "optimizer.momentum"), cases[i].momentum);
        assert_string_equal(lks_config_get(config, "optimizer.lr"), "0.001");
        assert_true(lks__config_settings(config)->optimizer.epsilon == 1e-8);
        assert_string_equal(lks_config_get(config, "optimizer.exclude_biases"), "true");
    }
    CHECK_OK(lks_config_set(config, "optimizer.kind", "lamb"));
    assert_string_equal(lks_config_get(config, "optimizer.epsilon"), "1.0e-06");
    lks_config_destroy(config);
}

static void yaml_may_be_written_in_many_ways(void **state)
{
    (void)state;
    check_value(LEAST "model: {hidden: []}", "model.hidden", "[]");
    check_value(LEAST "model: {hidden: 7}", "model.hidden", "[7]");
    check_value(LEAST "model.hidden:\n- 3\n- 4\n", "model.hidden", "[3, 4]");
    check_value(LEAST "world: ~\nlr:\n", "world", "");
    check_value(LEAST "world: auto\n", "world", "");
    check_value(LEAST "name: \"auto\"\n", "name", "auto");
    check_value(LEAST "seed: \"12\"\n", "seed", "12");
    check_value(LEAST "seed: &n 4\nthreads: *n\n", "threads", "4");
    check_value("---\n" LEAST "...\n", "epochs", "1");
    check_value("{data: {path: d}, batch: {global: 8}, steps: 3}", "steps", "3");
    check_value("data.path: d\nbatch.local: 8\r\nepochs: 1\r\n", "data.path", "d");
    check_value(LEAST "optimizer: {lr: 1e-05}", "optimizer.lr", "1.0e-05");
    check_value(LEAST "optimizer: {lr: .5}", "optimizer.lr", "0.5");
    check_value(LEAST "data: {kind: idx}", "data.kind", "idx");
}

static void overrides_come_after_the_file_in_their_order(void **state)
{
    (void)state;
    const char *overrides[] = {"batch.local=16", "batch.local=32", "epochs=auto",
                               "steps=9",        "name=a=b",       "model.hidden=3,4"};
    lks_config *config;
    CHECK_OK(lks_config_load(file_of(LEAST), 6, overrides, &config));
    assert_string_equal(lks_config_get(config, "batch.local"), "32");
    assert_string_equal(lks_config_get(config, "epochs"), "");
    assert_string_equal(lks_config_get(config, "steps"), "9");
    assert_string_equal(lks_config_get(config, "name"), "a=b");
    assert_string_equal(lks_config_get(config, "model.hidden"), "[3, 4]");
    lks_config_destroy(config);
}

static void a_refused_setting_changes_nothing(void **state)
{
    (void)state;
    lks_config *config = config_of(LEAST "name: n\n");
    CHECK_FAILS(lks_config_set(config, "steps", "5"), LKS_E_ARG, "both set");
    CHECK_FAILS(lks_config_set(config, "name", "a/b"), LKS_E_ARG, "name is \"a/b\"");
    CHECK_FAILS(lks_config_set(config, "epochs", "auto"), LKS_E_ARG, "the length of the run is missing");
    CHECK_FAILS(lks_config_set(config, "epochz", "1"), LKS_E_ARG, "did you mean \"epochs\"?");
    assert_string_equal(lks_config_get(config, "steps"), "");
    assert_string_equal(lks_config_get(config, "epochs"), "1");
    assert_string_equal(lks_config_get(config, "output"), "runs/n");
    CHECK_OK(lks_config_set(config, "name", "m"));
    assert_string_equal(lks_config_get(config, "output"), "runs/m");
    lks_config_destroy(config);
}

/* --- mistakes --- */

/* A file, and what its refusal must say. */
typedef struct mistake {
    const char *yaml, *message;
} mistake;

static void check_mistakes(size_t n, const mistake *mistakes)
{
    for (size_t i = 0; i < n; i++) {
        lks_config *config = (lks_config *)1;
        CHECK_FAILS(lks_config_load(file_of(mistakes[i].yaml), 0, NULL, &config), LKS_E_ARG,
                    mistakes[i].message);
        assert_null(config);
    }
}

static void unknown_keys_are_named_with_the_nearest(void **state)
{
    (void)state;
    static const mistake cases[] = {
        {LEAST "optimizer: {lrr: 1}",
         "x.yaml:4: unknown key \"optimizer.lrr\"; did you mean \"optimizer.lr\"?"},
        {LEAST "momentum: 1", "x.yaml:4: unknown key \"momentum\"; did you mean \"optimizer.momentum\"?"},
        {LEAST "zzzzzzzzz: 1", "x.yaml:4: unknown key \"zzzzzzzzz\"\nhint: `lockstep help options`"},
        {LEAST "\"a\\nb\\e\": 1", "x.yaml:4: unknown key \"a?b?\""},
        {LEAST "lr: 0.1", "x.yaml:4: \"lr\" is a group of keys: lr.rule, lr.reference_batch,"},
        {LEAST "lr: [0.1]", "x.yaml:4: \"lr\" is a group of keys"},
    };
    check_mistakes(sizeof cases / sizeof cases[0], cases);
}

static void values_that_do_not_fit_are_named_with_what_does(void **state)
{
    (void)state;
    static const mistake cases[] = {
        {"comm:\n  timeout: 1.0e-300\n", "comm.timeout is \"1.0e-300\"; a number from 0.001 to"},
        {"data:\n  normalize:\n    std: 1.0e-320\n", "normalize.std is \"1.0e-320\"; a number >= 1e-30"},
        {"data:\n  normalize:\n    mean: 2.0e+6\n", "normalize.mean is \"2.0e+6\"; a number from -1000000"},
        {"batch:\n  local: abc\n", "x.yaml:2: batch.local is \"abc\"; an integer >= 1 is needed"},
        {"batch:\n  local: 0\n", "x.yaml:2: batch.local is \"0\"; an integer >= 1 is needed"},
        {"batch:\n  local: 1.5\n", "batch.local is \"1.5\"; an integer >= 1 is needed"},
        {"batch:\n  local: 10000000000000000\n",
         "batch.local is 10000000000000000; the limit is 1000000000000000"},
        {"batch:\n  local: 100000000000000000000000\n", "the limit is 1000000000000000"},
        {"batch:\n  local: -100000000000000000000000\n", "an integer >= 1 is needed"},
        {"seed: -1", "x.yaml:1: seed is \"-1\"; an integer from 0 to 4294967295 is needed"},
        {"seed: 4294967296", "seed is \"4294967296\"; an integer from 0 to 4294967295 is needed"},
        {"optimizer: {lr: -1}", "optimizer.lr is \"-1\"; a number > 0 is needed"},
        {"optimizer: {lr: .nan}", "optimizer.lr is \".nan\"; a number > 0 is needed"},
        {"optimizer: {lr: .inf}", "optimizer.lr is \".inf\"; a number > 0 is needed"},
        {"optimizer: {lr: 1e999}", "optimizer.lr is \"1e999\"; a number > 0 is needed"},
        {"optimizer: {momentum: 1}", "optimizer.momentum is \"1\"; a number >= 0 and < 1 is needed"},
        {"optimizer: {nesterov: yes}", "optimizer.nesterov is \"yes\"; true or false is needed"},
        {"data: {tail: exakt}", "data.tail is \"exakt\"; one of exact, drop, pad is needed"},
        {"model: {kind: cnn}", "model.kind is \"cnn\"; mlp is needed"},
        {"model: {hidden: [3, x]}",
         "model.hidden is \"[3,x]\"; a list of up to 32 integers from 1 to 1000000"},
        {"model: {hidden: [[3]]}", "x.yaml:1: model.hidden is a list; a list of up to 32 integers"},
        {"model: {hidden: '3,'}", "model.hidden is \"3,\""},
        {"model: {hidden: '[3'}", "model.hidden is \"[3\""},
        {"model: {hidden: '[] 3'}", "model.hidden is \"[] 3\""},
        {"name: ''", "name is \"\"; a text is needed"},
        {"name: \"a\\0b\"", "name is a text with a zero byte"},
        {"epochs: {a: 1}", "x.yaml:1: epochs is a group of keys; an integer >= 1 is needed"},
        {"epochs: [1]", "epochs is a list; an integer >= 1 is needed"},
    };
    check_mistakes(sizeof cases / sizeof cases[0], cases);
}

static void files_without_a_plain_set_of_keys_are_refused(void **state)
{
    (void)state;
    static const mistake cases[] = {
        {"epochs: 1\nepochs: 2", "x.yaml:2: epochs is set twice, first in line 1"},
        {"batch.local: 1\n\nbatch: {local: 2}", "x.yaml:3: batch.local is set twice, first in line 1"},
        {"batch: {local: 1}\nbatch: {global: 2}", "x.yaml:2: batch is set twice, first in line 1"},
        {"? [a]\n: b\n", "x.yaml:1: a key is no plain word"},
        {"- a\n- b\n", "x.yaml:1: this is a list; settings as \"key: value\" are needed"},
        {"# nothing\nepochs\n", "x.yaml:2: this is a text; settings"},
        {"", "x.yaml: the file holds no settings"},
        {"# nothing\n", "x.yaml: the file holds no settings"},
    };
    check_mistakes(sizeof cases / sizeof cases[0], cases);
}

static void files_that_are_no_yaml_are_refused(void **state)
{
    (void)state;
    static const mistake cases[] = {
        {"epochs: 1\nbatch: {local: 1\nsteps: 2\n", "x.yaml:3: this is no YAML: did not find expected"},
        {"epochs: 1\n\tsteps: 2\n", "x.yaml:2: this is no YAML"},
        {"epochs: \x01\x02", "x.yaml: this is no YAML: control characters are not allowed (byte 8)"},
        {"epochs: \xff\xfe", "x.yaml: this is no YAML: invalid leading UTF-8 octet (byte 8)"},
        {LEAST "---\nepochs: 2\n", "x.yaml:5: a second YAML document begins"},
        {LEAST "--- }\n", "x.yaml:4: this is no YAML"},
        {"a: &a [*a]", "unknown key \"a\""},
        {"data: &d {normalize: *d}", "unknown key \"data.normalize.normalize\""},
    };
    check_mistakes(sizeof cases / sizeof cases[0], cases);
}

static void settings_that_do_not_fit_each_other_are_refused(void **state)
{
    (void)state;
    static const mistake cases[] = {
        {"epochs: 1\nbatch.local: 1\n", "x.yaml: data.path is missing"},
        {"epochs: 1\ndata.path: d\nbatch.accumulate: 1\n", "the batch size is missing: set batch.local or"},
        {"data.path: d\nbatch.local: 1\n",
         "x.yaml: the length of the run is missing: set epochs, steps or samples"},
        {LEAST "steps: 1", "hint: unset one of them: epochs=auto or steps=auto"},
        {LEAST "lr.rule: linear", "x.yaml:4), which needs lr.reference_batch"},
        {LEAST "on_divergence: rollback", "x.yaml:4), which needs checkpoints to go back to"},
        {LEAST "optimizer: {kind: adam, momentum: 0.9}",
         "is no setting of the optimizer adam\nhint: unset it: "
         "optimizer.momentum=auto"},
        {LEAST "optimizer: {beta1: 0.9}", "x.yaml:4) is no setting of the optimizer sgd"},
        {LEAST "optimizer: {nesterov: true}", "x.yaml:4: optimizer.nesterov needs optimizer.momentum > 0"},
        {LEAST "lr.schedule: step", "x.yaml:4), which needs lr.step_epochs: the epochs between two falls"},
        {LEAST "lr: {schedule: multistep, gamma: 0.5}", "which needs lr.milestones"},
        {LEAST "lr.schedule: exponential", "which needs lr.gamma"},
        {LEAST "lr: {schedule: cosine, gamma: 0.5}",
         "x.yaml:4) is no setting of the schedule cosine\nhint: unset it: lr.gamma=auto"},
        {LEAST "lr: {warmup: none, warmup_epochs: 1}", "is no setting of the warm-up none"},
        {LEAST "lr: {warmup: constant, warmup_from: 0}", "is no setting of the warm-up constant"},
        {LEAST "lr.power: 2", "is no setting of the schedule constant"},
        {LEAST "name: ../up", "name is \"../up\"; a name without \"/\""},
    };
    check_mistakes(sizeof cases / sizeof cases[0], cases);
}

static void mistakes_in_overrides_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *override, *message;
    } cases[] = {
        {"optimizer.lrr=1", "unknown key \"optimizer.lrr\"; did you mean \"optimizer.lr\"?"},
        {"batch=1", "\"batch\" is a group of keys: batch.local, batch.accumulate, batch.global"},
        {"batch.local", "\"batch.local\" is not key=value"},
        {"=1", "\"=1\" is not key=value"},
        {"batch.local=", "batch.local is \"\"; an integer >= 1 is needed"},
        {"batch.local= 3", "batch.local is \" 3\"; an integer >= 1 is needed"},
        {"optimizer.lr=nan", "optimizer.lr is \"nan\"; a number > 0 is needed"},
        {"optimizer.lr=-inf", "optimizer.lr is \"-inf\"; a number > 0 is needed"},
        {"steps=10",
         "(the command line) are both set; a run has one length\nhint: unset the other one: epochs=auto"},
        {"batch.local=auto", "the batch size is missing"},
        {"data.path=\xff", "data.path is not valid UTF-8"},
    };
    const char *path = file_of(LEAST);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lks_config *config;
        CHECK_FAILS(lks_config_load(path, 1, &cases[i].override, &config), LKS_E_ARG, cases[i].message);
        assert_null(config);
    }
}

static void what_is_no_file_is_refused(void **state)
{
    (void)state;
    lks_config *config;
    CHECK_FAILS(lks_config_load("/no/such/x.yaml", 0, NULL, &config), LKS_E_NOT_FOUND,
                "cannot read the config /no/such/x.yaml: No such file");
    CHECK_FAILS(lks_config_load("/tmp", 0, NULL, &config), LKS_E_ARG, "/tmp is a folder");
    CHECK_FAILS(lks_config_load("/dev/zero", 0, NULL, &config), LKS_E_ARG, "/dev/zero is larger than");
    CHECK_FAILS(lks_config_load("", 0, NULL, &config), LKS_E_NOT_FOUND, "No such file");
}

static void a_name_is_made_from_any_file_name(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"a.b.yaml", "a.b"}, {"plain", "plain"}, {".hidden.yaml", "run"}};
    for (size_t i = 0; i < 3; i++) {
        const char *path = in_temp_folder(cases[i][0]);
        lks_config *config;
        put_file(path, LEAST, strlen(LEAST));
        CHECK_OK(lks_config_load(path, 0, NULL, &config));
        assert_string_equal(lks_config_get(config, "name"), cases[i][1]);
        lks_config_destroy(config);
    }
}

/* --- writing --- */

/* The config as YAML, read back, gives the same values and the same YAML. */
static void check_round_trip(const lks_config *config)
{
    char *yaml, *again;
    lks_config *copy;
    CHECK_OK(lks_config_to_yaml(config, &yaml));
    const char *path = in_temp_folder("copy.yaml");
    put_file(path, yaml, strlen(yaml));
    CHECK_OK(lks_config_load(path, 0, NULL, &copy));
    CHECK_OK(lks_config_to_yaml(copy, &again));
    assert_string_equal(again, yaml);
    for (int i = 0; i < lks__n_options; i++) {
        char value[1000];
        snprintf(value, sizeof value, "%s", lks_config_get(config, lks__options[i].key));
        assert_string_equal(lks_config_get(copy, lks__options[i].key), value);
    }
    lks_config_destroy(copy);
    free(again);
    free(yaml);
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    static const char *const settings[][2] = {
        {"name", "\"quoted\" \\ and: # {odd} \xc3\xa4\n\ttail "},
        {"data.path", "auto me"},
        {"data.path", "~"},
        {"output", "null"},
        {"model.hidden", "[]"},
        {"model.hidden", "1"},
        {"model.hidden",
         "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,1000000"},
        {"optimizer.lr", "0.1"},
        {"optimizer.lr", "4.9406564584124654e-324"},
        {"optimizer.lr", "1.7976931348623157e308"},
        {"optimizer.lr", "0.30000000000000004"},
        {"data.normalize.mean", "-1e5"},
        {"seed", "4294967295"},
        {"lr.warmup_from", "0"},
        {"data.limit", "1000000000000000"},
        {"optimizer.kind", "adamw"},
    };
    lks_config *config = config_of(LEAST);
    check_round_trip(config);
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        CHECK_OK(lks_config_set(config, settings[i][0], settings[i][1]));
        check_round_trip(config);
    }
    assert_true(lks__config_settings(config)->base_lr == 0.1 + 0.2);
    lks_config_destroy(config);

    config = config_of(LEAST "lr: {schedule: multistep, milestones: [2, 5], gamma: 0.3, warmup: constant}\n");
    check_round_trip(config);
    CHECK_INT(lks__config_settings(config)->schedule.n_milestones, 2);
    assert_string_equal(lks_config_get(config, "lr.milestones"), "[2, 5]");
    assert_string_equal(lks_config_get(config, "lr.power"), ""); /* no setting of this schedule */
    lks_config_destroy(config);
}

/* --- a config on top of another --- */

static lks_config *config_with(const char *yaml, int n, const char *const *overrides)
{
    lks_config *config = NULL;
    CHECK_OK(lks_config_load(file_of(yaml), n, overrides, &config));
    return config;
}

static void overrides_are_known_from_the_file_s_settings(void **state)
{
    (void)state;
    static const char *const overrides[] = {"batch.local=8", "seed=auto", "world=auto"};
    lks_config *config = config_with(LEAST "seed: 3\n", 3, overrides);
    assert_true(lks__config_is_asked_for(config, "batch.local")); /* though the file says the same */
    assert_true(lks__config_is_asked_for(config, "seed"));
    assert_true(lks__config_is_asked_for(config, "world"));
    assert_false(lks__config_is_asked_for(config, "epochs"));
    assert_false(lks__config_is_asked_for(config, "lr.rule"));
    CHECK_OK(lks_config_set(config, "lr.rule", "none"));
    assert_true(lks__config_is_asked_for(config, "lr.rule"));
    CHECK_FAILS(lks_config_set(config, "epochs", "-1"), LKS_E_ARG, "epochs");
    assert_false(lks__config_is_asked_for(config, "epochs"));
    lks_config_destroy(config);
}

static bool is_threads(const char *key)
{
    return strcmp(key, "threads") == 0;
}

static void a_config_takes_over_another_s_settings(void **state)
{
    (void)state;
    static const char *const overrides[] = {"batch.local=16", "epochs=auto", "steps=9", "lr.schedule=step",
                                            "lr.step_epochs=2"};
    lks_config *base, *top = config_with(LEAST "threads: 3\nseed: 3\nname: top\n", 5, overrides), *both;
    CHECK_OK(lks__config_parse("base",
                               LEAST "threads: 2\nseed: 2\nname: base\nworld: 4\n"
                                     "lr: {schedule: cosine, end_factor: 0.1}\n",
                               &base));
    CHECK_OK(lks__config_overlay(base, top, is_threads, &both));
    lks_config_destroy(base);
    lks_config_destroy(top);
    static const char *const expected[][2] = {
        {"batch.local", "16"},   {"epochs", ""},     {"steps", "9"},        {"lr.schedule", "step"},
        {"lr.step_epochs", "2"}, {"threads", "3"},   {"seed", "2"},         {"name", "base"},
        {"world", "4"},          {"data.path", "d"}, {"lr.end_factor", ""}, {"lr.gamma", "0.1"}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_string_equal(lks_config_get(both, expected[i][0]), expected[i][1]);
    lks_config_destroy(both);
}

/* What is asked for has to fit what stays. */
static void settings_that_do_not_fit_together_are_refused(void **state)
{
    (void)state;
    static const char *const steps[] = {"epochs=auto", "steps=9"};
    lks_config *base, *top = config_with(LEAST, 2, steps), *both;
    CHECK_OK(lks__config_parse("the base", "data.path: d\nbatch.local: 8\nsamples: 99\n", &base));
    CHECK_FAILS(lks__config_overlay(base, top, is_threads, &both), LKS_E_ARG,
                "steps (the command line) and samples (the base:3) are both set; a run has one length");
    assert_null(both);
    lks_config_destroy(top);
    CHECK_FAILS(lks__config_parse("odd", "nothing", &top), LKS_E_ARG, "odd");
    assert_null(top);
    top = config_of(LEAST);
    for (int nth = 1;; nth++) {
        lks__alloc_fail_nth(nth);
        lks_status status = lks__config_overlay(base, top, is_threads, &both);
        lks__alloc_fail_nth(0);
        if (status == LKS_OK)
            break;
        CHECK_INT(status, LKS_E_NOMEM);
        assert_null(both);
    }
    lks_config_destroy(both);
    lks_config_destroy(base);
    lks_config_destroy(top);
}

static void the_examples_are_sound(void **state)
{
    (void)state;
    static const char *const names[] = {"mnist", "digits"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[500];
        lks_config *config;
        snprintf(path, sizeof path, "%s/examples/%s.yaml", LKS_SOURCE_DIR, names[i]);
        CHECK_OK(lks_config_load(path, 0, NULL, &config));
        check_round_trip(config);
        lks_config_destroy(config);
    }
}

static void the_documentation_is_that_of_the_table(void **state)
{
    (void)state;
    static char page[100000];
    char *markdown, *text;
    get_file(LKS_SOURCE_DIR "/docs/options.md", page, sizeof page);
    CHECK_OK(lks_config_help_markdown(&markdown));
    if (strcmp(markdown, page) != 0)
        fail_msg("docs/options.md is old: lockstep help options --markdown > docs/options.md");
    CHECK_OK(lks_config_help_text(&text));
    for (int i = 0; i < lks__n_options; i++)
        assert_non_null(strstr(text, lks__options[i].key));
    free(markdown);
    free(text);
}

/* --- the worst --- */

static void lack_of_memory_is_an_error_at_every_allocation(void **state)
{
    (void)state;
    const char *path = file_of(LEAST "name: n\nmodel.hidden: [1, 2]\n");
    const char *overrides[] = {"output=o", "epochs=2"};
    int64_t before = lks__alloc_bytes(LKS__MEM_MISC);
    lks_config *config = NULL;
    int n = 1;
    for (; config == NULL && n < 1000; n++) {
        lks__alloc_fail_nth(n);
        lks_status status = lks_config_load(path, 2, overrides, &config);
        lks__alloc_fail_nth(0);
        CHECK_INT(status, config == NULL ? LKS_E_NOMEM : LKS_OK);
        CHECK_INT(lks__alloc_bytes(LKS__MEM_MISC) == before, config == NULL);
    }
    assert_true(n > 10);
    for (n = 1; n < 5; n++) {
        lks__alloc_fail_nth(n);
        lks_status status = lks_config_set(config, "name", "other");
        lks__alloc_fail_nth(0);
        assert_string_equal(lks_config_get(config, "name"), status == LKS_OK ? "other" : "n");
        CHECK_OK(lks_config_set(config, "name", "n"));
    }
    lks_config_destroy(config);
    CHECK_INT(lks__alloc_bytes(LKS__MEM_MISC), before);
}

/* Any bytes: a config, or an error with a message of one line and perhaps a hint. */
static void mutated_files_do_no_harm(void **state)
{
    (void)state;
    static const char seed[] =
        "name: m\nmodel: {hidden: [512, 256]}\ndata:\n  path: &p 'd'\n  tail: pad\n"
        "batch: {local: 64}\nepochs: 5\noptimizer:\n  lr: 1.0e-2 # rate\n  momentum: 0.9\n";
    static const char alphabet[] = "{}[]:,&*!|>'\"%@`#-?~ \n\t0123456789abe.=\xc3\xa4\xff\x00<";
    const char *path = in_temp_folder("m.yaml");
    int loaded = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        char yaml[sizeof seed];
        uint32_t random[4];
        memcpy(yaml, seed, sizeof seed);
        for (uint32_t j = 0; j <= i % 4; j++) {
            lks__philox((uint32_t[4]){i, j, 0, 0}, (uint32_t[2]){3, 4}, random);
            yaml[random[0] % (sizeof seed - 1)] = alphabet[random[1] % (sizeof alphabet - 1)];
        }
        put_file(path, yaml, random[2] % 5 == 0 ? random[3] % sizeof seed : sizeof seed - 1);
        lks_config *config;
        lks_status status = lks_config_load(path, 0, NULL, &config);
        if (status == LKS_OK) {
            check_round_trip(config);
            loaded++;
        } else {
            CHECK_INT(status, LKS_E_ARG);
            const char *end = strchr(lks_error_message(), '\n');
            assert_true(end == NULL || strncmp(end, "\nhint: ", 7) == 0);
        }
        lks_config_destroy(config);
    }
    if (loaded < 30) /* most mutations break a key or a number */
        fail_msg("%d of 3000 files were loaded", loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_config_is_read),
        cmocka_unit_test(what_is_left_out_has_its_default),
        cmocka_unit_test(optimizers_have_pytorchs_defaults),
        cmocka_unit_test(yaml_may_be_written_in_many_ways),
        cmocka_unit_test(overrides_come_after_the_file_in_their_order),
        cmocka_unit_test(a_refused_setting_changes_nothing),
        cmocka_unit_test(unknown_keys_are_named_with_the_nearest),
        cmocka_unit_test(values_that_do_not_fit_are_named_with_what_does),
        cmocka_unit_test(files_without_a_plain_set_of_keys_are_refused),
        cmocka_unit_test(files_that_are_no_yaml_are_refused),
        cmocka_unit_test(settings_that_do_not_fit_each_other_are_refused),
        cmocka_unit_test(mistakes_in_overrides_are_named),
        cmocka_unit_test(what_is_no_file_is_refused),
        cmocka_unit_test(a_name_is_made_from_any_file_name),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(overrides_are_known_from_the_file_s_settings),
        cmocka_unit_test(a_config_takes_over_another_s_settings),
        cmocka_unit_test(settings_that_do_not_fit_together_are_refused),
        cmocka_unit_test(the_examples_are_sound),
        cmocka_unit_test(the_documentation_is_that_of_the_table),
        cmocka_unit_test(lack_of_memory_is_an_error_at_every_allocation),
        cmocka_unit_test(mutated_files_do_no_harm),
    };
    return cmocka_run_group_tests(tests, make_temp_folder, remove_temp_folder);
}
