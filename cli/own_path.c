/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

const char *cli_own_path(char path[PATH_MAX])
{
    static const char link[] = "/proc/self/exe";
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    struct stat file, own;
    if (length <= 0)
        return link;
    path[length] = '\0';
    bool same = stat(path, &file) == 0 && stat(link, &own) == 0 && file.st_dev == own.st_dev &&
                file.st_ino == own.st_ino;
    return same ? path : link;
}
