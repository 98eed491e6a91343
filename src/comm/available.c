/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/available.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>

#include "base/error.h"

/* UINT64_MAX when the kernel does not say. */
static uint64_t available_bytes(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL)
        return UINT64_MAX;
    char line[128];
    unsigned long long kib, memory_kib = 0, swap_kib = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
            memory_kib = kib;
        else if (sscanf(line, "SwapFree: %llu", &kib) == 1)
            swap_kib = kib;
    }
    fclose(file);
    return memory_kib == 0 ? UINT64_MAX : (memory_kib + swap_kib) * 1024;
}

lks_status lks__check_available(size_t bytes)
{
    uint64_t available = available_bytes();
    if (bytes <= available)
        return LKS_OK;
    return lks__fail(LKS_E_NOMEM, "out of memory: %zu bytes for a group, %llu are available", bytes,
                     (unsigned long long)available);
}

lks_status lks__check_file_size(size_t bytes)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur)
        return LKS_OK;
    return lks__fail(LKS_E_NOMEM,
                     "out of memory: a group needs a memory file of %zu bytes, the limit of file sizes "
                     "(ulimit -f) is %llu",
                     bytes, (unsigned long long)limit.rlim_cur);
}
