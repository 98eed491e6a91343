/* SPDX-License-Identifier: Apache-2.0 */
#include "fault/fate.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

const char *const fate_names[N_FATES] = {"SIGKILL", "SIGSTOP", "exit", "SIGSEGV"};
const int fate_signals[N_FATES] = {SIGKILL, SIGSTOP, 0, SIGSEGV};
const char *const fate_ends[N_FATES] = {"died of signal 9 (SIGKILL)", "", "died with exit code 7",
                                        "died of signal 11 (SIGSEGV)"};

double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void sleep_us(int us)
{
    nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000L}, NULL);
}

void fate_prepare(void)
{
    signal(SIGSEGV, SIG_DFL);
    /* less than any core has; 0 would not stop one that goes to a program */
    setrlimit(RLIMIT_CORE, &(struct rlimit){1, 1});
}

static struct {
    int us;
    double *at_s;
} leaving;

static void *leave(void *unused)
{
    (void)unused;
    sleep_us(leaving.us);
    *leaving.at_s = now_s();
    exit(FATE_EXIT_CODE);
}

bool fate_exit_after(int us, double *at_s)
{
    pthread_t thread;
    leaving.us = us;
    leaving.at_s = at_s;
    return pthread_create(&thread, NULL, leave, NULL) == 0;
}

void outcome_note(outcome *o, lks_status status, random_program *program)
{
    double at_s = now_s();
    o->status = status;
    snprintf(o->text, FATE_TEXT_BYTES, "%s", lks_error_message());
    o->again = lks_group_barrier(program->group);
    snprintf(o->again_text, FATE_TEXT_BYTES, "%s", lks_error_message());
    o->wrong_calls = random_program_wrong_calls(program, status, o->again_text);
    o->at_s = at_s;
}
