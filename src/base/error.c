/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 2048 };

static _Thread_local char message[MESSAGE_BYTES];

static const struct {
    lks_status status;
    int exit_code;
    const char *name;
    const char *sentence;
} statuses[] = {
#define ROW(name, value, exit_code, sentence) {LKS_##name, exit_code, "LKS_" #name, sentence},
    LKS_STATUS_MAP(ROW)
#undef ROW
};

enum { N_STATUSES = sizeof statuses / sizeof statuses[0] };

const char *lks_status_name(lks_status status)
{
    for (int i = 0; i < N_STATUSES; i++)
        if (statuses[i].status == status)
            return statuses[i].name;
    return "LKS_UNKNOWN";
}

const char *lks_status_sentence(lks_status status)
{
    for (int i = 0; i < N_STATUSES; i++)
        if (statuses[i].status == status)
            return statuses[i].sentence;
    return "not a status of this library";
}

int lks_status_exit_code(lks_status status)
{
    for (int i = 0; i < N_STATUSES; i++)
        if (statuses[i].status == status)
            return statuses[i].exit_code;
    return 1;
}

const char *lks_error_message(void)
{
    return message;
}

/* Nothing that a terminal would obey. */
static void hide_controls(char *text)
{
    for (; *text != '\0'; text++)
        if (((unsigned char)*text < ' ' && *text != '\n') || *text == 0x7f)
            *text = '?';
}

lks_status lks__fail(lks_status status, const char *format, ...)
{
    /* Arguments may point into the old message, so the new one is composed beside it. */
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    hide_controls(text);
    memcpy(message, text, sizeof text);
    return status;
}

lks_status lks__fail_errno(lks_status status, int error_number, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);

    char reason[128];
    if (strerror_r(error_number, reason, sizeof reason) != 0)
        snprintf(reason, sizeof reason, "error %d", error_number);
    return lks__fail(status, "%s: %s", text, reason);
}

lks_status lks__fail_open(int error_number, const char *path)
{
    static const struct {
        int error;
        lks_status status;
    } not_the_path[] = {
        {EMFILE, LKS_E_SYSTEM}, {ENFILE, LKS_E_SYSTEM}, {ENOMEM, LKS_E_SYSTEM}, {EIO, LKS_E_IO}};
    lks_status status = LKS_E_NOT_FOUND;
    for (size_t i = 0; i < sizeof not_the_path / sizeof not_the_path[0]; i++)
        if (not_the_path[i].error == error_number)
            status = not_the_path[i].status;
    return lks__fail_errno(status, error_number, "cannot open %s", path);
}

lks_status lks__error_prefix(lks_status status, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return lks__fail(status, "%s: %s", text, message);
}

lks_status lks__error_hint(lks_status status, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return lks__fail(status, "%s\nhint: %s", message, text);
}
