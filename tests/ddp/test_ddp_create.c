/* SPDX-License-Identifier: Apache-2.0 */
/* What lks_ddp refuses, and what members are told when one of them is wrong or gone. */
#include "ddp_model.h"

#include <pthread.h>
#include <unistd.h>

#include "base/alloc.h"

/* ---- create ---- */

static void broadcast_body(member *self)
{
    model *m = new_model(SCATTERED);
    double statistics[3] = {self->rank + 1, self->rank + 2, self->rank + 3};
    lks_ddp_buffer buffers[2] = {{"statistics", sizeof statistics, statistics}, {"none", 0, NULL}};
    for (int i = 0; i < MODEL_ELEMS; i++)
        m->params[i] = gradient(9, self->rank, 0, i);
    lks_ddp_config config = model_config(self, m);
    config.n_buffers = 2;
    config.buffers = buffers;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    for (int i = 0; i < MODEL_ELEMS; i++)
        EXPECT(self, m->params[i] == gradient(9, 0, 0, i), "element %d is not rank 0's", i);
    EXPECT(self, statistics[0] == 1 && statistics[1] == 2 && statistics[2] == 3, "buffers are not rank 0's");
    statistics[1] = 10 + self->rank;
    EXPECT_OK(self, lks_ddp_broadcast_buffers(m->ddp));
    EXPECT(self, statistics[1] == 10, "buffers are not rank 0's after a second time");
    free_model(m);
}

static void all_members_start_from_the_values_of_rank_0(void **state)
{
    (void)state;
    members_run(AS_THREADS, 1, broadcast_body, NULL);
    members_run(AS_THREADS, 5, broadcast_body, NULL);
    members_run(AS_PROCESSES, 3, broadcast_body, NULL);
}

/* One thing that differs on one rank, and what all are told. */
typedef struct difference {
    int rank;
    void (*make)(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers);
    lks_status status;
    const char *text;
} difference;

static void other_size(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)config, (void)buffers;
    tensors[3].n_elems = 69;
}

static void other_name(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)config, (void)buffers;
    tensors[5].name = "k";
}

static void one_less(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)tensors, (void)buffers;
    config->n_tensors--;
}

static void no_tensors(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)tensors, (void)buffers;
    config->n_tensors = 0;
}

static void other_buffer(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)config, (void)tensors;
    buffers[0].n_bytes = 4;
}

static void other_bucket_bytes(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)tensors, (void)buffers;
    config->bucket_bytes = 4000;
}

static void no_grads(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)config, (void)buffers;
    for (int i = 0; i < N_TENSORS; i++)
        tensors[i].grad = NULL;
}

static void one_grad_missing(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)config, (void)buffers;
    tensors[4].grad = NULL;
}

static void overlapping(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)config, (void)buffers;
    tensors[6].grad = tensors[2].grad + 4999;
}

static void no_name(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)config, (void)buffers;
    tensors[0].name = NULL;
}

static void no_param(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)config, (void)buffers;
    tensors[2].param = NULL;
}

static void no_bucket(lks_ddp_config *config, lks_ddp_tensor *tensors, lks_ddp_buffer *buffers)
{
    (void)tensors, (void)buffers;
    config->bucket_bytes = 0;
}

static const difference differences[] = {
    {2, other_size, LKS_E_MISMATCH,
     "tensor 3 (b) of 70 elements on rank 0, tensor 3 (b) of 69 elements on rank 2"},
    {0, other_size, LKS_E_MISMATCH,
     "tensor 3 (b) of 69 elements on rank 0, tensor 3 (b) of 70 elements on rank 1"},
    {1, other_name, LKS_E_MISMATCH,
     "tensor 5 (c) of 260 elements on rank 0, tensor 5 (k) of 260 elements on rank 1"},
    {1, one_less, LKS_E_MISMATCH,
     "tensor 6 (last) of 4097 elements on rank 0, buffer 0 (statistics) of 8 bytes on rank 1"},
    {0, one_less, LKS_E_MISMATCH, "(6 and 7 tensors, 1 and 1 buffers)"},
    {2, no_tensors, LKS_E_MISMATCH, "(7 and 0 tensors, 1 and 1 buffers)"},
    {0, no_tensors, LKS_E_MISMATCH, "(0 and 7 tensors, 1 and 1 buffers)"},
    {2, other_buffer, LKS_E_MISMATCH,
     "buffer 0 (statistics) of 8 bytes on rank 0, buffer 0 (statistics) of 4 bytes on rank 2"},
    {1, other_bucket_bytes, LKS_E_MISMATCH, "bucket_bytes is 1048576 on rank 0, but 4000 on rank 1"},
    {1, no_grads, LKS_E_MISMATCH, "gradients to be lent by lockstep (0: no) is 0 on rank 0, but 1 on rank 1"},
    {1, one_grad_missing, LKS_E_ARG, "grad is NULL for tensor 4 (one)"},
    {2, overlapping, LKS_E_ARG, "tensor 2 (big) and tensor 6 (last) overlap"},
    {0, no_name, LKS_E_ARG, "tensor 0 has no name"},
    {2, no_param, LKS_E_ARG, "tensor 2 (big) has no parameters"},
    {1, no_bucket, LKS_E_ARG, "bucket_bytes is 0; it must be at least 1"},
};

static void difference_body(member *self)
{
    const difference *d = self->context;
    model *m = new_model(SCATTERED);
    char statistics[8] = "";
    lks_ddp_buffer buffers[1] = {{"statistics", sizeof statistics, statistics}};
    lks_ddp_config config = model_config(self, m);
    config.n_buffers = 1;
    config.buffers = buffers;
    if (self->rank == d->rank)
        d->make(&config, m->tensors, buffers);
    m->ddp = (lks_ddp *)m; /* anything but NULL */
    EXPECT_FAILS(self, lks_ddp_create(&config, &m->ddp), d->status, d->text);
    EXPECT(self, m->ddp == NULL, "a handle after a failure");
    EXPECT_OK(self, lks_group_barrier(self->group)); /* the group goes on */
    free_model(m);
}

static void all_members_are_told_what_differs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof differences / sizeof differences[0]; i++)
        members_run(AS_THREADS, 3, difference_body, &differences[i]);
    members_run(AS_PROCESSES, 3, difference_body, &differences[0]);
}

/* ---- lack of memory ---- */

typedef struct nth {
    int64_t n;
    lks_status found[MAX_MEMBERS];
    layout how;
} nth;

static void nth_body(member *self)
{
    nth *attempt = (nth *)(uintptr_t)self->context;
    model *m = new_model(attempt->how);
    lks_ddp_config config = model_config(self, m);
    config.bucket_bytes = 1000;
    EXPECT_OK(self, lks_group_barrier(self->group));
    if (self->rank == 0)
        lks__alloc_fail_nth(attempt->n);
    EXPECT_OK(self, lks_group_barrier(self->group));
    attempt->found[self->rank] = lks_ddp_create(&config, &m->ddp);
    EXPECT_OK(self, lks_group_barrier(self->group));
    free_model(m);
}

static void a_failed_allocation_is_everybodys(void **state)
{
    (void)state;
    for (int how = 0; how < N_LAYOUTS; how++)
        for (int size = 1; size <= 3; size += 2) {
            nth attempt = {.found = {LKS_E_NOMEM}, .how = (layout)how};
            while (attempt.found[0] != LKS_OK) {
                attempt.n++;
                members_run(AS_THREADS, size, nth_body, &attempt);
                lks__alloc_fail_nth(0);
                for (int r = 0; r < size; r++) {
                    CHECK_INT(attempt.found[r], attempt.found[0]);
                    if (attempt.found[r] != LKS_OK)
                        CHECK_INT(attempt.found[r], LKS_E_NOMEM);
                }
                CHECK_INT(lks__alloc_bytes(LKS__MEM_GRADS), 0);
                CHECK_INT(lks__alloc_bytes(LKS__MEM_COMM), 0);
                CHECK_INT(lks__alloc_bytes(LKS__MEM_MISC), 0);
            }
            assert_true(attempt.n >
                        17 * size); /* the handle, eight arrays, seven names, two of the listing */
        }
}

/* Gradients that lie one behind the other need no copies until buckets follow an order that goes to and fro.
 */
static void rebuild_body(member *self)
{
    static const int report[N_TENSORS] = {0, 3, 5, 1, 4, 2, 6};
    nth *attempt = (nth *)(uintptr_t)self->context;
    model *m = new_model(ADJACENT);
    lks_ddp_config config = model_config(self, m);
    config.bucket_bytes = 20000;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    lks_ddp_info info;
    lks_ddp_get_info(m->ddp, &info);
    EXPECT(self, info.copied_elems == 0, "%lld elements are copied", (long long)info.copied_elems);
    for (int i = 0; i < N_TENSORS; i++)
        EXPECT_OK(self, lks_ddp_grad_ready(m->ddp, report[i]));
    EXPECT_OK(self, lks_group_barrier(self->group));
    if (self->rank == 0)
        lks__alloc_fail_nth(attempt->n);
    EXPECT_OK(self, lks_group_barrier(self->group));
    lks_status status = attempt->found[self->rank] = lks_ddp_wait(m->ddp, 1);
    EXPECT_OK(self, lks_group_barrier(self->group));
    lks_ddp_get_info(m->ddp, &info);
    EXPECT(self, status != LKS_OK || info.copied_elems == 334, "%lld elements are copied",
           (long long)info.copied_elems);
    if (status != LKS_OK)
        EXPECT_FAILS(self, lks_ddp_wait(m->ddp, 1), status, "out of memory");
    free_model(m);
}

static void lack_of_memory_for_new_buckets_is_everybodys(void **state)
{
    (void)state;
    nth attempt = {.found = {LKS_E_NOMEM}};
    while (attempt.found[0] != LKS_OK) {
        attempt.n++;
        members_run(AS_THREADS, 3, rebuild_body, &attempt);
        lks__alloc_fail_nth(0);
        for (int r = 0; r < 3; r++)
            CHECK_INT(attempt.found[r], attempt.found[0]);
        CHECK_INT(lks__alloc_bytes(LKS__MEM_GRADS), 0);
        CHECK_INT(lks__alloc_bytes(LKS__MEM_COMM), 0);
    }
    assert_true(attempt.n > 1);
}

/* ---- misuse ---- */

static void misuse_body(member *self)
{
    model *m = new_model(LENT);
    bool more = true;
    lks_ddp_config config = model_config(self, m);
    config.gradients = LKS_DDP_MEANS;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    EXPECT_FAILS(self, lks_ddp_grad_ready(m->ddp, -1), LKS_E_ARG, "no tensor -1; 0 to 6 are registered");
    EXPECT_FAILS(self, lks_ddp_grad_ready(m->ddp, N_TENSORS), LKS_E_ARG, "no tensor 7");
    EXPECT_OK(self, lks_ddp_grad_ready(m->ddp, 5));
    EXPECT_FAILS(self, lks_ddp_grad_ready(m->ddp, 5), LKS_E_ARG, "tensor 5 (c) is reported a second time");
    EXPECT_FAILS(self, lks_ddp_no_sync(m->ddp, true), LKS_E_ARG, "within a pass: 1 of 7");
    EXPECT_FAILS(self, lks_ddp_join(m->ddp, &more), LKS_E_ARG, "within a pass: 1 of 7");
    EXPECT_FAILS(self, lks_ddp_check_replicas(m->ddp), LKS_E_ARG, "within a pass: 1 of 7");
    EXPECT_FAILS(self, lks_ddp_broadcast_buffers(m->ddp), LKS_E_ARG, "within a pass: 1 of 7");
    EXPECT_OK(self, lks_ddp_all_ready(m->ddp));
    EXPECT_FAILS(self, lks_ddp_wait(m->ddp, -1), LKS_E_ARG, "-1 samples; 0 to 2^53");
    EXPECT_FAILS(self, lks_ddp_wait(m->ddp, ((int64_t)1 << 53) + 1), LKS_E_ARG, "0 to 2^53");
    EXPECT_OK(self, lks_ddp_wait(m->ddp, 3)); /* nothing of that has changed anything */
    EXPECT_OK(self, lks_ddp_no_sync(m->ddp, true));
    EXPECT_OK(self, lks_ddp_all_ready(m->ddp));
    EXPECT_OK(self, lks_ddp_wait(m->ddp, 3));
    EXPECT_FAILS(self, lks_ddp_wait(m->ddp, 4), LKS_E_ARG, "a pass of 4 samples after one of 3");
    EXPECT_FAILS(self, lks_ddp_join(m->ddp, &more), LKS_E_ARG,
                 "1 pass without synchronisation is not reduced");
    EXPECT_OK(self, lks_ddp_no_sync(m->ddp, false));
    EXPECT_OK(self, lks_ddp_wait(m->ddp, 0));
    lks_ddp_info info;
    lks_ddp_get_info(m->ddp, &info);
    EXPECT(self, info.samples == 3 * self->size, "%lld samples", (long long)info.samples);
    EXPECT_OK(self, lks_ddp_join(m->ddp, &more));
    EXPECT(self, !more, "more, but all have joined");
    free_model(m);
    lks_ddp_destroy(NULL);
}

static void misuse_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    members_run(AS_THREADS, 1, misuse_body, NULL);
    members_run(AS_THREADS, 3, misuse_body, NULL);
}

static void bad_settings_are_refused(void **state)
{
    (void)state;
    lks_ddp_config config = lks_ddp_config_default();
    lks_ddp *ddp;
    CHECK_FAILS(lks_ddp_create(&config, &ddp), LKS_E_ARG, "group is NULL");
    lks_group_config alone = lks_group_config_default();
    CHECK_OK(lks_group_create(&alone, &config.group));
    config.check_every = -1;
    CHECK_FAILS(lks_ddp_create(&config, &ddp), LKS_E_ARG, "check_every is -1");
    config.check_every = 0;
    config.gradients = (lks_ddp_gradients)2;
    CHECK_FAILS(lks_ddp_create(&config, &ddp), LKS_E_ARG, "gradients is 2");
    config.gradients = LKS_DDP_SUMS;
    config.unused = (lks_ddp_unused)-1;
    CHECK_FAILS(lks_ddp_create(&config, &ddp), LKS_E_ARG, "unused is -1");
    config.unused = LKS_DDP_UNUSED_ZERO;
    config.n_tensors = -1;
    CHECK_FAILS(lks_ddp_create(&config, &ddp), LKS_E_ARG, "-1 tensors");
    config.n_tensors = 0; /* nothing to do is fine */
    CHECK_OK(lks_ddp_create(&config, &ddp));
    CHECK_OK(lks_ddp_wait(ddp, 1));
    lks_ddp_destroy(ddp);
    lks_group_destroy(config.group);
}

/* ---- replicas ---- */

/* Rank 1 changes one bit of one parameter after the first step; the check of step 4 finds it. */
static void replicas_body(member *self)
{
    model *m = new_model(ADJACENT);
    lks_ddp_config config = model_config(self, m);
    config.check_every = 2;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    for (int step = 1; step <= 3; step++) {
        EXPECT_OK(self, lks_ddp_all_ready(m->ddp));
        EXPECT_OK(self, lks_ddp_wait(m->ddp, 1));
        EXPECT_OK(self, lks_ddp_check_replicas(m->ddp));
    }
    if (self->rank == 1)
        m->tensors[5].param[259] = -0.0f;
    EXPECT_OK(self, lks_ddp_all_ready(m->ddp));
    EXPECT_FAILS(self, lks_ddp_wait(m->ddp, 1), LKS_E_MISMATCH,
                 "tensor 5 (c) on rank 1 is not what it is on rank 0 (checked at step 4)");
    m->tensors[5].param[259] = 0.0f;
    EXPECT_OK(self, lks_ddp_check_replicas(m->ddp));
    free_model(m);
}

static void copies_that_differ_are_named(void **state)
{
    (void)state;
    members_run(AS_THREADS, 2, replicas_body, NULL);
    members_run(AS_THREADS, 5, replicas_body, NULL);
    members_run(AS_PROCESSES, 3, replicas_body, NULL);
}

/* ---- a member that is gone ---- */

static void death_body(member *self)
{
    model *m = new_model(SCATTERED);
    lks_ddp_config config = model_config(self, m);
    config.bucket_bytes = 1000;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    EXPECT_OK(self, lks_ddp_all_ready(m->ddp));
    EXPECT_OK(self, lks_ddp_wait(m->ddp, 1));
    if (self->rank == 1) {
        EXPECT_OK(self, lks_ddp_grad_ready(m->ddp, 6)); /* the first bucket, and no other */
        _exit(0);
    }
    lks_status status = lks_ddp_all_ready(m->ddp);
    if (status == LKS_OK)
        status = lks_ddp_wait(m->ddp, 1);
    EXPECT(self, status == LKS_E_PEER && strstr(lks_error_message(), "rank 1") != NULL, "%s: %s",
           lks_status_name(status), lks_error_message());
    EXPECT(self, strstr(lks_error_message(), "lks_ddp: step 2, bucket ") != NULL, "%s", lks_error_message());
    bool more;
    EXPECT_FAILS(self, lks_ddp_grad_ready(m->ddp, 0), LKS_E_PEER, "rank 1"); /* and so does every call */
    EXPECT_FAILS(self, lks_ddp_wait(m->ddp, 1), LKS_E_PEER, "rank 1");
    EXPECT_FAILS(self, lks_ddp_join(m->ddp, &more), LKS_E_PEER, "rank 1");
    EXPECT_FAILS(self, lks_ddp_no_sync(m->ddp, true), LKS_E_PEER, "rank 1");
    EXPECT_FAILS(self, lks_ddp_check_replicas(m->ddp), LKS_E_PEER, "rank 1");
    free_model(m);
}

static void a_death_in_a_step_ends_it_everywhere(void **state)
{
    (void)state;
    members_run(AS_PROCESSES, 2, death_body, NULL);
    members_run(AS_PROCESSES, 5, death_body, NULL);
}

/* Rank 1 is alive, but never reports. */
typedef struct absence {
    lks_group *groups[2];
    lks_status status; /* of rank 0 */
    char message[1024];
} absence;

static void *wait_in_vain(void *argument)
{
    absence *a = argument;
    member self = {.group = a->groups[0], .size = 2};
    model *m = new_model(LENT);
    lks_ddp_config config = model_config(&self, m);
    a->status = lks_ddp_create(&config, &m->ddp);
    if (a->status == LKS_OK)
        a->status = lks_ddp_all_ready(m->ddp);
    if (a->status == LKS_OK)
        a->status = lks_ddp_wait(m->ddp, 1);
    snprintf(a->message, sizeof a->message, "%s", lks_error_message());
    free_model(m);
    return NULL;
}

static void a_member_that_never_comes_is_named_at_the_deadline(void **state)
{
    (void)state;
    absence a = {.status = LKS_OK};
    CHECK_OK(lks_group_create_threads(2, 0.5, a.groups));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_in_vain, &a), 0);
    member self = {.group = a.groups[1], .rank = 1, .size = 2};
    model *m = new_model(LENT);
    lks_ddp_config config = model_config(&self, m);
    CHECK_OK(lks_ddp_create(&config, &m->ddp));
    pthread_join(thread, NULL);
    CHECK_INT(a.status, LKS_E_TIMEOUT);
    if (strstr(a.message, "lks_ddp: step 1, bucket 1 of 1") == NULL || strstr(a.message, "rank 1") == NULL)
        fail_msg("%s", a.message);
    CHECK_FAILS(lks_ddp_wait(m->ddp, 1), LKS_E_TIMEOUT, "rank 1"); /* it is told the same when it comes */
    free_model(m);
    lks_group_destroy(a.groups[0]);
    lks_group_destroy(a.groups[1]);
}

/* Rank 1 has fewer batches and leaves instead of joining. */
static void leaving_body(member *self)
{
    model *m = new_model(LENT);
    lks_ddp_config config = model_config(self, m);
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    EXPECT_OK(self, lks_ddp_all_ready(m->ddp));
    EXPECT_OK(self, lks_ddp_wait(m->ddp, 1));
    if (self->rank != 1) {
        lks_status status = lks_ddp_all_ready(m->ddp);
        if (status == LKS_OK)
            status = lks_ddp_wait(m->ddp, 1);
        EXPECT(self, status == LKS_E_PEER && strstr(lks_error_message(), "left") != NULL, "%s: %s",
               lks_status_name(status), lks_error_message());
    }
    free_model(m);
}

static void a_member_that_leaves_without_joining_is_noticed(void **state)
{
    (void)state;
    members_run(AS_THREADS, 3, leaving_body, NULL);
    members_run(AS_PROCESSES, 3, leaving_body, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_members_start_from_the_values_of_rank_0),
        cmocka_unit_test(all_members_are_told_what_differs),
        cmocka_unit_test(a_failed_allocation_is_everybodys),
        cmocka_unit_test(lack_of_memory_for_new_buckets_is_everybodys),
        cmocka_unit_test(misuse_is_refused_and_changes_nothing),
        cmocka_unit_test(bad_settings_are_refused),
        cmocka_unit_test(copies_that_differ_are_named),
        cmocka_unit_test(a_death_in_a_step_ends_it_everywhere),
        cmocka_unit_test(a_member_that_never_comes_is_named_at_the_deadline),
        cmocka_unit_test(a_member_that_leaves_without_joining_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
