/* SPDX-License-Identifier: Apache-2.0 */
#include "record/metrics_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "record/write_file.h"

enum { LINE_BYTES = 512 }; /* three integers, six numbers, a name, and their keys, with room to spare */

typedef struct metric {
    const char *key;
    double value;
} metric;

const char *lks__json_number(double value, char text[LKS__JSON_NUMBER_BYTES])
{
    if (!isfinite(value)) {
        memcpy(text, "null", sizeof "null");
        return text;
    }
    /* 15 digits are right for what was written with at most 15; 17 are for every double. */
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, LKS__JSON_NUMBER_BYTES, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    char *comma = strchr(text, ','); /* a program's locale may have one */
    if (comma != NULL)
        *comma = '.';
    return text;
}

static lks_status open_file(lks__metrics_file *file, char *path, int flags)
{
    file->path = path;
    file->fd = -1;
    file->error = 0;
    file->reported = false;
    file->whole_bytes = 0;
    file->damaged_line = 0;
    file->buffered_bytes = 0;
    if (path == NULL)
        return LKS_E_NOMEM;
    file->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);
    if (file->fd < 0)
        return lks__fail_errno(LKS_E_IO, errno, "cannot write %s", path);
    return LKS_OK;
}

lks_status lks__metrics_init(lks__metrics_file *file, char *path)
{
    return open_file(file, path, O_TRUNC);
}

/* What a line of an earlier run is. */
typedef enum line_kind {
    LINE_KEPT,
    LINE_LATER,   /* written after the step */
    LINE_CUT_OFF, /* the last one of a run that was killed: of what step, it does not say */
    LINE_DAMAGED,
} line_kind;

static line_kind kind_of(const char *line, size_t bytes, int64_t step)
{
    static const char before[] = "{\"step\": ";
    bool is_whole = line[bytes - 1] == '\n';
    char *end = NULL;
    if (strlen(line) != bytes || strncmp(line, before, sizeof before - 1) != 0)
        return is_whole ? LINE_DAMAGED : LINE_CUT_OFF;
    int64_t of_line = strtoll(line + sizeof before - 1, &end, 10);
    if (!is_whole)
        return *end == ',' && of_line <= step ? LINE_DAMAGED : LINE_CUT_OFF;
    bool comes_after = strstr(line, "\"epoch_samples\"") != NULL || strstr(line, "\"changed\"") != NULL;
    return of_line < step || (of_line == step && !comes_after) ? LINE_KEPT : LINE_LATER;
}

/* The bytes of the lines up to that step; *damaged: the number of the one that ends them, if it is, else 0.
 */
static off_t bytes_up_to(FILE *lines, int64_t step, int64_t *damaged)
{
    char *line = NULL;
    size_t capacity = 0;
    off_t bytes = 0;
    int64_t n_lines = 0;
    *damaged = 0;
    for (ssize_t n; (n = getline(&line, &capacity, lines)) > 0; bytes += (off_t)n) {
        line_kind kind = kind_of(line, (size_t)n, step);
        n_lines++;
        if (kind == LINE_DAMAGED)
            *damaged = n_lines;
        if (kind != LINE_KEPT)
            break;
    }
    free(line);
    return bytes;
}

lks_status lks__metrics_continue(lks__metrics_file *file, char *path, int64_t step)
{
    lks_status status = open_file(file, path, O_APPEND);
    if (status != LKS_OK)
        return status;
    FILE *lines = fopen(path, "re");
    if (lines == NULL)
        return lks__fail_errno(LKS_E_IO, errno, "cannot read %s", path);
    file->whole_bytes = bytes_up_to(lines, step, &file->damaged_line);
    fclose(lines);
    if (ftruncate(file->fd, file->whole_bytes) != 0)
        return lks__fail_errno(LKS_E_IO, errno, "cannot write %s", path);
    return LKS_OK;
}

static void write_buffer(lks__metrics_file *file)
{
    if (file->error == 0)
        file->error = lks__write_all(file->fd, file->buffer, file->buffered_bytes);
    if (file->error == 0)
        file->whole_bytes += (off_t)file->buffered_bytes;
    else if (ftruncate(file->fd, file->whole_bytes) != 0)
        file->whole_bytes = -1; /* half a line stays; there is nothing more to try */
    file->buffered_bytes = 0;
}

void lks__metrics_deinit(lks__metrics_file *file)
{
    if (file->fd >= 0) {
        write_buffer(file);
        close(file->fd);
    }
    lks__free(file->path);
    file->path = NULL;
    file->fd = -1;
}

lks_status lks__metrics_flush(lks__metrics_file *file)
{
    write_buffer(file);
    if (file->error == 0 || file->reported)
        return LKS_OK;
    file->reported = true;
    return lks__fail_errno(LKS_E_IO, file->error, "cannot write %s", file->path);
}

static void add_line(lks__metrics_file *file, const char *line, size_t bytes)
{
    if (file->buffered_bytes + bytes > sizeof file->buffer)
        write_buffer(file);
    memcpy(file->buffer + file->buffered_bytes, line, bytes);
    file->buffered_bytes += bytes;
}

/* position: step, samples, epoch. */
static void add_metrics(lks__metrics_file *file, const int64_t position[3], int n_metrics,
                        const metric *metrics)
{
    char line[LINE_BYTES] = "";
    lks__append(line, sizeof line, "{\"step\": %" PRId64 ", \"samples\": %" PRId64 ", \"epoch\": %" PRId64,
                position[0], position[1], position[2]);
    for (int i = 0; i < n_metrics; i++) {
        char number[LKS__JSON_NUMBER_BYTES];
        lks__append(line, sizeof line, ", \"%s\": %s", metrics[i].key,
                    lks__json_number(metrics[i].value, number));
    }
    lks__append(line, sizeof line, "}\n");
    add_line(file, line, strlen(line));
}

void lks__metrics_add_change(lks__metrics_file *file, const lks__change_metrics *m)
{
    /* a few dozen keys, of which one is a list, have a tenth of the room */
    char line[LKS__METRICS_BUFFER_BYTES] = "";
    lks__append(line, sizeof line,
                "{\"step\": %" PRId64 ", \"samples\": %" PRId64 ", \"epoch\": %" PRId64
                ", \"changed\": %s}\n",
                m->step, m->samples, m->epoch, m->changed);
    add_line(file, line, strlen(line));
}

void lks__metrics_add_step(lks__metrics_file *file, const lks__step_metrics *m)
{
    const int64_t position[] = {m->step, m->samples, m->epoch};
    const metric metrics[] = {
        {"lr", m->lr},
        {"loss", m->loss},
        {"accuracy", m->accuracy},
        {"grad_norm", m->grad_norm},
        {"seconds", m->seconds},
        {"gain", m->gain},
        {"noise_scale", m->noise_scale},
    };
    int n = sizeof metrics / sizeof metrics[0];
    add_metrics(file, position, m->has_gain ? n : n - 2, metrics);
}

void lks__metrics_add_trouble(lks__metrics_file *file, const lks__trouble_metrics *m)
{
    char line[LINE_BYTES] = "";
    lks__append(line, sizeof line,
                "{\"step\": %" PRId64 ", \"samples\": %" PRId64 ", \"epoch\": %" PRId64
                ", \"trouble\": \"%s\", \"action\": \"%s\"}\n",
                m->step, m->samples, m->epoch, m->trouble, m->action);
    add_line(file, line, strlen(line));
}

void lks__metrics_add_epoch(lks__metrics_file *file, const lks__epoch_metrics *m)
{
    const int64_t position[] = {m->step, m->samples, m->epoch};
    const metric metrics[] = {
        {"epoch_samples", (double)m->epoch_samples},
        {"train_loss", m->train_loss},
        {"test_loss", m->test_loss},
        {"test_accuracy", m->test_accuracy},
        {"samples_per_second", m->samples_per_second},
        {"seconds", m->seconds},
    };
    add_metrics(file, position, sizeof metrics / sizeof metrics[0], metrics);
}

void lks__metrics_add_tensor(lks__metrics_file *file, const lks__tensor_metrics *m)
{
    char line[LINE_BYTES] = "", norm[LKS__JSON_NUMBER_BYTES], sum[LKS__JSON_NUMBER_BYTES];
    lks__append(line, sizeof line,
                "{\"step\": %" PRId64 ", \"samples\": %" PRId64 ", \"tensor\": \"%s\", \"elems\": %" PRId64
                ", \"fan_in\": %" PRId64 ", \"hash\": \"%016" PRIx64 "\", \"norm\": %s, \"sum\": %s}\n",
                m->step, m->samples, m->tensor, m->elems, m->fan_in, m->hash, lks__json_number(m->norm, norm),
                lks__json_number(m->sum, sum));
    add_line(file, line, strlen(line));
}

void lks__metrics_add_start(lks__metrics_file *file, const lks__start *s)
{
    char line[LINE_BYTES] = "";
    lks__append(line, sizeof line,
                "{\"step\": %" PRId64 ", \"samples\": %" PRId64
                ", \"processes\": %d, \"threads\": %d, \"version\": \"%s\", \"library\": \"%.200s\", "
                "\"kernels\": \"%016" PRIx64 "\", \"train_set\": \"%016" PRIx64
                "\", \"test_set\": \"%016" PRIx64 "\"}\n",
                s->step, s->samples, s->processes, s->threads, s->version, s->library, s->kernels,
                s->train_set, s->test_set);
    add_line(file, line, strlen(line));
}
