/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/machine.h"

#define REDRAW_NS INT64_C(100000000)  /* bar */
#define LINE_NS   INT64_C(5000000000) /* plain lines, where there is no terminal */

enum { BAR_CELLS = 24 };

void progress_init(progress *p, FILE *out)
{
    *p = (progress){.out = out, .terminal = isatty(STDERR_FILENO) == 1, .drawn_ns = lks__now_ns()};
}

lks_status progress_print_plan(progress *p, const lks_plan *plan)
{
    char *text;
    lks_status status = lks_plan_to_text(plan, &text);
    if (status != LKS_OK)
        return status;
    p->total_steps = plan->total_steps;
    p->steps_per_epoch = plan->steps_per_epoch;
    p->epochs = plan->epochs;
    fprintf(p->out, "%s\n", text);
    fflush(p->out);
    free(text);
    return LKS_OK;
}

void progress_end(progress *p)
{
    if (p->line_open)
        fputs("\r\033[K", stderr);
    p->line_open = false;
}

/* 12345.6 -> "12,346": samples per second are read, not computed with. */
static const char *grouped(double value, char text[32])
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%.0f", value), length = 0;
    for (int i = 0; i < n && length < 30; i++) {
        if (i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-')
            text[length++] = ',';
        text[length++] = digits[i];
    }
    text[length] = '\0';
    return text;
}

static void draw_bar(progress *p, const lks_train_progress *u)
{
    char bar[BAR_CELLS + 1], rate[32];
    int64_t filled = u->step_in_epoch * BAR_CELLS / p->steps_per_epoch;
    memset(bar, '.', BAR_CELLS);
    memset(bar, '=', (size_t)filled);
    bar[BAR_CELLS] = '\0';
    int64_t left = (int64_t)((double)(p->total_steps - u->step) * (double)u->samples / (double)u->step /
                             u->samples_per_second);
    fprintf(stderr,
            "\repoch %" PRId64 "/%.0f [%s] %" PRId64 "/%" PRId64
            "  loss %.4f  lr %.4g  %s samples/s  %" PRId64 ":%02" PRId64 " left\033[K",
            u->epoch + 1, ceil(p->epochs), bar, u->step_in_epoch, p->steps_per_epoch, u->loss, u->lr,
            grouped(u->samples_per_second, rate), left / 60, left % 60);
    fflush(stderr);
    p->line_open = true;
}

static void print_line(const lks_train_progress *u, int64_t total_steps)
{
    char rate[32];
    fprintf(stderr, "step %" PRId64 "/%" PRId64 "  loss %.4f  lr %.4g  %s samples/s\n", u->step, total_steps,
            u->loss, u->lr, grouped(u->samples_per_second, rate));
}

static void print_epoch(progress *p, const lks_train_progress *u)
{
    char rate[32];
    progress_end(p);
    fprintf(p->out, "epoch %" PRId64 "/%.0f  train loss %.4f", u->epoch + 1, ceil(p->epochs), u->train_loss);
    if (!isnan(u->test_accuracy))
        fprintf(p->out, "  test loss %.4f  test accuracy %.2f %%", u->test_loss, 100 * u->test_accuracy);
    fprintf(p->out, "  lr %.4g  %s samples/s\n", u->lr, grouped(u->samples_per_second, rate));
    fflush(p->out);
}

void progress_update(void *context, const lks_train_progress *update)
{
    progress *p = context;
    if (update->epoch_end) {
        print_epoch(p, update);
        return;
    }
    int64_t now = lks__now_ns();
    if (now - p->drawn_ns < (p->terminal ? REDRAW_NS : LINE_NS))
        return;
    p->drawn_ns = now;
    if (p->terminal)
        draw_bar(p, update);
    else
        print_line(update, p->total_steps);
}

static void print_times(const lks_train_times *times)
{
    const struct {
        const char *what;
        double seconds;
    } rows[] = {
        {"data", times->data},           {"forward + backward", times->forward_backward},
        {"waiting", times->wait},        {"reduce", times->reduce},
        {"optimizer", times->optimizer},
    };
    enum { N = sizeof rows / sizeof rows[0] };
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += rows[i].seconds;
    printf("\nwhere the time of rank 0's steps went\n");
    for (int i = 0; i < N; i++)
        printf("  %-20s %8.2f s  %5.1f %%\n", rows[i].what, rows[i].seconds,
               sum > 0 ? 100 * rows[i].seconds / sum : 0);
}

void progress_print_result(const lks_train_result *result, const lks_plan *plan, double seconds)
{
    char rate[32], parameters[32], steps[32];
    if (result->stop_signal != 0)
        printf("\nstopped by a signal after %s of %" PRId64 " steps\n", grouped((double)result->steps, steps),
               plan->total_steps);
    printf("\nresult after %s steps (%.4g epochs)\n", grouped((double)result->steps, steps), result->epochs);
    printf("  %-20s %.4f\n", "train loss", result->train_loss);
    if (!isnan(result->test_accuracy)) {
        printf("  %-20s %.4f\n", "test loss", result->test_loss);
        printf("  %-20s %.2f %%\n", "test accuracy", 100 * result->test_accuracy);
    }
    printf("  %-20s %s\n", "samples per second", grouped(result->samples_per_second, rate));
    printf("  %-20s %.2f s\n", "whole command", seconds);
    printf("  %-20s %s (hash %016" PRIx64 ")\n", "parameters",
           grouped((double)result->parameters, parameters), result->parameters_hash);
    print_times(&result->times);
    fflush(stdout);
}
