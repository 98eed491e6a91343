/* SPDX-License-Identifier: Apache-2.0 */
/** Error codes, and the text of the last failure. */
#ifndef LOCKSTEP_STATUS_H
#define LOCKSTEP_STATUS_H

#include <lockstep/export.h>

LKS_BEGIN_DECLS

/* X(name, value, exit code of a program that ends with it, sentence).
 * Exit code 2 is bad input: something that the user gave has to change. */
#define LKS_STATUS_MAP(X)                                                                                    \
    X(OK, 0, 0, "success")                                                                                   \
    X(IN_PROGRESS, 1, 0, "the operation has not finished yet")                                               \
    X(E_ARG, -1, 2, "an argument or a setting is not allowed")                                               \
    X(E_FORMAT, -2, 2, "a file's content is not what its format says")                                       \
    X(E_NOT_FOUND, -3, 2, "a file does not exist or cannot be opened")                                       \
    X(E_EXISTS, -4, 2, "a file that must not exist is there")                                                \
    X(E_UNSUPPORTED, -5, 2, "this is not supported")                                                         \
    X(E_NOMEM, -6, 1, "out of memory")                                                                       \
    X(E_IO, -7, 1, "reading or writing failed")                                                              \
    X(E_SYSTEM, -8, 1, "a system call failed")                                                               \
    X(E_PEER, -9, 1, "another member of the group died, left or failed")                                     \
    X(E_TIMEOUT, -10, 1, "a wait passed its deadline")                                                       \
    X(E_MISMATCH, -11, 1, "the members of a group asked for different operations")                           \
    X(E_NOT_FINITE, -12, 1, "the loss or a gradient is not finite")                                          \
    X(E_KERNEL, -13, 1, "a compute kernel failed")                                                           \
    X(E_INTERNAL, -14, 1, "an internal invariant does not hold")

typedef enum lks_status {
#define LKS_STATUS_ENUM(name, value, exit_code, sentence) LKS_##name = (value),
    LKS_STATUS_MAP(LKS_STATUS_ENUM)
#undef LKS_STATUS_ENUM
} lks_status;

/** The code's name ("LKS_E_ARG"); "LKS_UNKNOWN" for a value that is none. Static storage. */
LKS_API const char *lks_status_name(lks_status status);

/** One sentence about the code. Static storage. */
LKS_API const char *lks_status_sentence(lks_status status);

/** The exit code of a program that ends with this status: 0, 1 (failed while running) or 2 (bad input). */
LKS_API int lks_status_exit_code(lks_status status);

/** The text of this thread's last failure: what, where, what is allowed, and a hint where there is one.
 *
 * Ownership: borrowed; valid until the thread's next failing call.
 */
LKS_API const char *lks_error_message(void);

LKS_END_DECLS

#endif
