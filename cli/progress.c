/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/machine.h"

#define REDRAW_NS INT64_C(100000000)  /* bar */
#define LINE_NS   INT64_C(5000000000) /* plain lines, where there is no terminal */

enum { BAR_CELLS = 24, LEAST_CELLS = 10, DEFAULT_COLUMNS = 80 };

void progress_init(progress *p, FILE *out)
{
    *p = (progress){.out = out, .terminal = isatty(STDERR_FILENO) == 1, .drawn_ns = lks__now_ns()};
}

void progress_print_plan(progress *p, const lks_plan *plan)
{
    p->plan = *plan;
    char *text;
    if (lks_plan_to_text(plan, &text) != LKS_OK) {
        fprintf(stderr, "lockstep: the plan can't be printed: %s\n", lks_error_message());
        return;
    }
    fprintf(p->out, "%s\n", text);
    fflush(p->out);
    free(text);
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

static int terminal_columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : DEFAULT_COLUMNS;
}

/* "[=====.....]" of `cells` cells; "" of none. */
static const char *bar_of(int64_t part, int64_t whole, int cells, char text[BAR_CELLS + 3])
{
    if (cells == 0)
        return "";
    text[0] = '[';
    memset(text + 1, '.', (size_t)cells);
    memset(text + 1, '=', (size_t)(part * cells / whole));
    text[1 + cells] = ']';
    text[2 + cells] = '\0';
    return text;
}

enum { EPOCH_BYTES = 48 };

/* "3/20"; "3" under adascale, where nobody knows yet how many there will be. */
static const char *epoch_of(const progress *p, const lks_train_progress *u, char text[EPOCH_BYTES])
{
    int n = snprintf(text, EPOCH_BYTES, "%" PRId64, u->epoch + 1);
    if (p->plan.lr_rule != LKS_LR_ADASCALE)
        snprintf(text + n, EPOCH_BYTES - (size_t)n, "/%.0f", ceil(p->plan.epochs));
    return text;
}

static int64_t seconds_left(const progress *p, const lks_train_progress *u)
{
    if (!(u->samples_per_second > 0))
        return 0;
    return (int64_t)((double)(p->plan.samples - u->samples) / u->samples_per_second);
}

/* The bar takes what the numbers leave of the line; where that is little, the count of steps goes, which the
 * bar shows too. A line never fills the last column: the cursor behind it would wrap. */
static void draw_bar(progress *p, const lks_train_progress *u)
{
    char epoch[48], count[48], numbers[128], bar[BAR_CELLS + 3], rate[32], line[320];
    int64_t left = seconds_left(p, u);
    int room = terminal_columns() - 1, cells = room - 2;
    cells -= snprintf(epoch, sizeof epoch, "epoch %s ", epoch_of(p, u, count));
    cells -= snprintf(numbers, sizeof numbers,
                      "  loss %.4f  lr %.4g  %s samples/s  %" PRId64 ":%02" PRId64 " left", u->loss, u->lr,
                      grouped(u->samples_per_second, rate), left / 60, left % 60);
    int64_t steps = lks_plan_steps_in_epoch(&p->plan, u->epoch);
    int count_length = snprintf(count, sizeof count, " %" PRId64 "/%" PRId64, u->step_in_epoch, steps);
    if (cells - count_length >= LEAST_CELLS)
        cells -= count_length;
    else
        count[0] = '\0';
    cells = cells < 0 ? 0 : cells > BAR_CELLS ? BAR_CELLS : cells;
    snprintf(line, sizeof line, "%s%s%s%s", epoch, bar_of(u->step_in_epoch, steps, cells, bar), count,
             numbers);
    fprintf(stderr, "\r%.*s\033[K", room, line);
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
    char rate[32], epoch[EPOCH_BYTES];
    progress_end(p);
    fprintf(p->out, "epoch %s  train loss %.4f", epoch_of(p, u, epoch), u->train_loss);
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
        print_line(update, p->plan.total_steps);
}

static void print_times(const lks_train_times *times)
{
    const struct {
        const char *what;
        double seconds;
    } rows[] = {
        {"data", times->data},           {"forward + backward", times->forward_backward},
        {"waiting", times->wait},        {"reduce", times->reduce},
        {"optimizer", times->optimizer}, {"checkpoints", times->checkpoint},
    };
    enum { N = sizeof rows / sizeof rows[0] };
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += rows[i].seconds;
    printf("\nwhere the time of rank 0's steps went\n");
    for (int i = 0; i < N; i++)
        printf("  %-20s %8.2f s  %5.1f %%\n", rows[i].what, rows[i].seconds,
               sum > 0 ? 100 * rows[i].seconds / sum : 0);
    if (times->exchange > 0)
        printf("  %-20s %8.2f s, %.1f %% of it hidden behind backward\n", "between machines", times->exchange,
               100 * (1 - times->exposed / times->exchange));
}

/* A copy that differs fails the run. */
static void print_copies(const lks_train_result *result)
{
    if (result->machines > 1)
        printf("  %-20s %d, one on each machine; compared %" PRId64 " times, always equal\n",
               "copies of parameters", result->machines, result->comparisons);
    else
        printf("  %-20s 1, on one machine\n", "copies of parameters");
}

void progress_print_result(const lks_train_result *result, double seconds)
{
    char rate[32], parameters[32], steps[32];
    printf("\nresult after %s steps (%.4g epochs)\n", grouped((double)result->steps, steps), result->epochs);
    if (result->skipped_steps > 0)
        printf("  %-20s %s\n", "steps not taken", grouped((double)result->skipped_steps, steps));
    printf("  %-20s %.4f\n", "train loss", result->train_loss);
    if (!isnan(result->test_accuracy)) {
        printf("  %-20s %.4f\n", "test loss", result->test_loss);
        printf("  %-20s %.2f %%\n", "test accuracy", 100 * result->test_accuracy);
    }
    printf("  %-20s %s\n", "samples per second", grouped(result->samples_per_second, rate));
    printf("  %-20s %.2f s\n", "whole command", seconds);
    printf("  %-20s %s (hash %016" PRIx64 ")\n", "parameters",
           grouped((double)result->parameters, parameters), result->parameters_hash);
    print_copies(result);
    print_times(&result->times);
}
