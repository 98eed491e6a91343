/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* dladdr, secure_getenv */

#include "comm/mpi/mpi_plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/text.h"

#ifndef LKS_LIBDIR /* as in CMake's CMAKE_INSTALL_LIBDIR and CMAKE_INSTALL_FULL_LIBDIR */
#define LKS_LIBDIR      "lib"
#define LKS_FULL_LIBDIR "/usr/local/lib"
#endif

typedef struct plugin {
    const char *title, *file, *package;
    int scope; /* Open MPI loads parts of its own, which look for its library among the global ones */
} plugin;

static const plugin plugins[LKS__N_MPIS] = {
    [LKS__OPENMPI] = {"Open MPI", "liblockstep_openmpi.so", "libopenmpi-dev", RTLD_GLOBAL},
    [LKS__MPICH] = {"MPICH", "liblockstep_mpich.so", "libmpich-dev", RTLD_LOCAL},
};

enum { SEARCHED_BYTES = 1200 };

/* Where to look, and where it has been looked. */
typedef struct finder {
    const plugin *plugin;
    char path[PATH_MAX]; /* of the plug-in, when it has been found */
    char searched[SEARCHED_BYTES];
} finder;

/* Looks in the folder `base` + `more`. */
static bool look(finder *f, const char *base, const char *more)
{
    char folder[PATH_MAX], resolved[PATH_MAX];
    int length = snprintf(folder, sizeof folder, "%s%s", base, more);
    if (length >= (int)sizeof folder || realpath(folder, resolved) == NULL)
        return false; /* there is no such folder */
    length = snprintf(f->path, sizeof f->path, "%s/%s", resolved, f->plugin->file);
    if (length < (int)sizeof f->path && access(f->path, F_OK) == 0)
        return true;
    lks__append(f->searched, sizeof f->searched, "%s%s", f->searched[0] != '\0' ? ", " : "", resolved);
    return false;
}

/* Looks where a plug-in may be, seen from a file of ours: beside it, beside the folder of a program that was
 * built and not installed, and where it is installed. */
static bool look_around(finder *f, const char *file)
{
    static const char *const places[] = {"", "/..", "/lockstep", "/../" LKS_LIBDIR "/lockstep"};
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", file);
    char *slash = strrchr(folder, '/');
    if (file[0] != '/' || slash == NULL)
        return false;
    *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (look(f, folder, places[i]))
            return true;
    return false;
}

static bool find(finder *f)
{
    const char *chosen = secure_getenv("LOCKSTEP_PLUGINS");
    if (chosen != NULL)
        return look(f, chosen, "");
    char program[PATH_MAX] = "";
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = '\0';
    Dl_info us; /* the shared library, if this is in one */
    return look_around(f, program) || (dladdr(plugins, &us) != 0 && look_around(f, us.dli_fname)) ||
           look(f, LKS_FULL_LIBDIR, "/lockstep");
}

static lks_status fail_not_found(const finder *f)
{
    const char *chosen = secure_getenv("LOCKSTEP_PLUGINS");
    const plugin *p = f->plugin;
    lks_status status = lks__fail(LKS_E_ARG, "no plug-in for %s: there is no %s in %s", p->title, p->file,
                                  f->searched[0] != '\0' ? f->searched
                                  : chosen != NULL       ? chosen
                                                         : LKS_FULL_LIBDIR "/lockstep");
    return chosen != NULL ? lks__error_hint(status, "LOCKSTEP_PLUGINS names the folder")
                          : lks__error_hint(status,
                                            "it is built with lockstep where %s's compiler is (Debian: %s); "
                                            "LOCKSTEP_PLUGINS names another folder",
                                            p->title, p->package);
}

static lks_status load(finder *f, lks__wire_open_fn **out)
{
    if (!find(f))
        return fail_not_found(f);
    void *library = dlopen(f->path, RTLD_NOW | RTLD_NODELETE | f->plugin->scope);
    if (library == NULL)
        return lks__fail(LKS_E_ARG, "the plug-in for %s cannot be loaded: %s", f->plugin->title, dlerror());
    *out = (lks__wire_open_fn *)dlsym(library, LKS__WIRE_OPEN_NAME);
    return *out != NULL ? LKS_OK
                        : lks__fail(LKS_E_ARG, "%s is no plug-in of lockstep: it has no %s", f->path,
                                    LKS__WIRE_OPEN_NAME);
}

/* Under another MPI's launcher each process finds itself alone. */
static lks_status check_size(const lks__mpi_job *job, const lks__wire *wire)
{
    if (job->variable == NULL || job->size == wire->size)
        return LKS_OK;
    lks_status status = lks__fail(LKS_E_ARG,
                                  "the launcher has started %d processes (%s), of which %s sees %d",
                                  job->size, job->variable, wire->name, wire->size);
    return lks__error_hint(status, "is it another MPI's launcher? LOCKSTEP_MPI=openmpi or mpich chooses");
}

lks_status lks__mpi_plugin_open(const lks__mpi_job *job, lks__wire **out)
{
    finder f = {.plugin = &plugins[job->mpi]};
    lks__wire_open_fn *open = NULL;
    lks__wire *wire;
    char error[LKS__WIRE_ERROR_BYTES] = "";
    *out = NULL;
    lks_status status = load(&f, &open);
    if (status != LKS_OK)
        return status;
    status = open(LKS__WIRE_VERSION, error, &wire);
    if (status != LKS_OK)
        return lks__fail(status, "%s: %s", f.path, error);
    status = check_size(job, wire);
    if (status == LKS_OK)
        *out = wire;
    else
        wire->backend->close(wire, true);
    return status;
}
