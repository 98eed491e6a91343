/* SPDX-License-Identifier: Apache-2.0 */
/** A launcher in a process of its own, for tests that look at it from outside. Its processes run this test
 * program, as launched_program.h says. */
#ifndef LKS_TESTS_LAUNCHER_PROCESS_H
#define LKS_TESTS_LAUNCHER_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "launch/launch.h"

enum {
    TEXT_BYTES = 1 << 14,
    STARTED_NS = 12345, /* what start_again says about its call */
    HANG_MS = 20000,    /* a wait that takes longer has failed; the launcher's own longest wait is 3 s */
};

typedef struct launcher {
    pid_t pid;
    int reports; /* its end: launcher and processes have all ended */
    int errors;  /* the launcher's and the processes' stderr */
    char report_text[TEXT_BYTES];
    char error_text[TEXT_BYTES];
} launcher;

/** Called in the launcher's process, before it launches. */
typedef void prepare_fn(void);

void start_config(launcher *l, const lks__launch_config *config, prepare_fn *prepare);
void start_program(launcher *l, int n, bool gently, const char *const *argv, prepare_fn *prepare);

/** Launches the test program; `way` is what it gets as arguments, with blanks between. */
void start(launcher *l, int n, bool gently, const char *way, prepare_fn *prepare);

/** The same, with so many restarts. */
void start_again(launcher *l, int n, bool gently, const char *way, int max_restarts);

/** Appends what comes to `text`. False at the end of the file. */
bool read_more(int fd, char *text);

int n_lines(const char *text);

/** Waits until n processes have reported. */
void wait_for_reports(launcher *l, int n);

/** Waits until launcher and processes have ended. Returns the launcher's exit code, or minus its signal. */
int finish(launcher *l);

/** The nth line of a rank's reports, without "RANK PID ". */
void get_report(const launcher *l, int rank, int nth, int *pid, char *out, size_t out_bytes);

void check_text(const char *text, const char *expected);

/** Ends a process by a signal, and waits until it has ended. */
void end_process(int pid, int signal);

#endif
