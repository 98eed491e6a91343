/* SPDX-License-Identifier: Apache-2.0 */
/** The library's version. CMake reads these three numbers; they stand nowhere else. */
#ifndef LOCKSTEP_VERSION_H
#define LOCKSTEP_VERSION_H

#include <lockstep/export.h>

#define LKS_VERSION_MAJOR 0
#define LKS_VERSION_MINOR 1
#define LKS_VERSION_PATCH 0

LKS_BEGIN_DECLS

/** The version of the library that is running, "0.1.0". Static storage. */
LKS_API const char *lks_version(void);

LKS_END_DECLS

#endif
