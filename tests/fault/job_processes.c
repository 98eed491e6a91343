/* SPDX-License-Identifier: Apache-2.0 */
#include "fault/job_processes.h"

#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { VALUE_BYTES = 512 };

/* Whether the process was started with that variable; false also for one that is not ours to see. */
static bool has_variable(const char *process, const char *name, const char *value)
{
    char path[64], *text = NULL;
    size_t length = strlen(name), capacity = 0;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%.16s/environ", process);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    while (!found && getdelim(&text, &capacity, '\0', file) > 0)
        found = strncmp(text, name, length) == 0 && text[length] == '=' &&
                strcmp(text + length + 1, value) == 0;
    free(text);
    fclose(file);
    return found;
}

pid_t job_process(const job *j, int rank)
{
    pid_t found = -1;
    char number[16];
    struct dirent *entry;
    const char *rank_variable = strcmp(j->mpi, "openmpi") == 0 ? "OMPI_COMM_WORLD_RANK" : "PMI_RANK";
    DIR *processes = opendir("/proc");
    if (processes == NULL)
        return -1;
    snprintf(number, sizeof number, "%d", rank);
    while (found < 0 && (entry = readdir(processes)) != NULL)
        if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9' &&
            has_variable(entry->d_name, rank_variable, number) &&
            has_variable(entry->d_name, j->variable, j->value))
            found = (pid_t)strtol(entry->d_name, NULL, 10);
    closedir(processes);
    return found;
}

void job_kill(const job *j, pid_t launcher, int size)
{
    kill(-launcher, SIGKILL);
    for (int r = 0; r < size; r++) {
        pid_t pid = job_process(j, r);
        if (pid > 0)
            kill(pid, SIGKILL);
    }
    while (waitpid(-1, NULL, 0) > 0)
        ;
}
