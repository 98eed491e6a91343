/* SPDX-License-Identifier: Apache-2.0 */
#include <lockstep/version.h>

#define TEXT(x)                     #x
#define DOTTED(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

const char *lks_version(void)
{
    return DOTTED(LKS_VERSION_MAJOR, LKS_VERSION_MINOR, LKS_VERSION_PATCH);
}
