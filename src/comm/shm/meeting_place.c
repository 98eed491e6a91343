/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* secure_getenv, struct ucred */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/error.h"
#include "comm/shm/meeting.h"
#include "comm/shm/shm_control.h"
#include "comm/shm/shm_member.h"

enum { FOLDER_BYTES = sizeof((struct sockaddr_un *)NULL)->sun_path };

/* ---- the place ---- */

/* Makes the folder if it is not there. */
static bool folder_exists(const char *path)
{
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

/* XDG_RUNTIME_DIR may name a folder that is gone or another user's (su keeps it); all members see the same.
 */
static lks_status choose_folder(char out[FOLDER_BYTES])
{
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
    if (runtime != NULL && runtime[0] == '/' &&
        snprintf(out, FOLDER_BYTES, "%s/lockstep", runtime) < FOLDER_BYTES && folder_exists(out))
        return LKS_OK;
    snprintf(out, FOLDER_BYTES, "/tmp/lockstep-%u", (unsigned)geteuid());
    return folder_exists(out) ? LKS_OK
                              : lks__fail_errno(LKS_E_SYSTEM, errno, "cannot create the folder %s", out);
}

static lks_status open_folder(const char *path, int *out)
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about) != 0) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return lks__fail_errno(LKS_E_SYSTEM, error, "cannot open the folder %s, where the members meet",
                               path);
    }
    if (about.st_uid != geteuid() || (about.st_mode & 077) != 0) {
        close(fd);
        return lks__fail(LKS_E_ARG,
                         "the folder %s, where the members meet, must belong to this user and have mode 0700",
                         path);
    }
    *out = fd;
    return LKS_OK;
}

/* Continued from `hash`; the terminator counts, so that parts stay apart. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
    return XXH64(text, strlen(text) + 1, hash);
}

static uint64_t place_hash(const char *name)
{
    static const char *const variables[] = {"TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"};
    uint64_t hash = hash_text(0, name);
    for (int i = 0; i < 2; i++) {
        const char *value = secure_getenv(variables[i]);
        hash = hash_text(hash, value != NULL ? value : "");
    }
    return hash;
}

lks_status lks__place_open(const lks_group_config *config, lks__place *out)
{
    char folder[FOLDER_BYTES];
    lks__place place = {.folder = -1, .address.sun_family = AF_UNIX};
    lks_status status = choose_folder(folder);
    if (status != LKS_OK)
        return status;
    char name[512]; /* longer than any host name */
    snprintf(name, sizeof name, "%s:%d", config->address, config->port);
    snprintf(place.name, sizeof place.name, "%.*s", (int)sizeof place.name - 1, name);
    int length = snprintf(place.address.sun_path, FOLDER_BYTES, "%s/%016llx", folder,
                          (unsigned long long)place_hash(name));
    if (length >= FOLDER_BYTES)
        return lks__fail(LKS_E_ARG, "XDG_RUNTIME_DIR is too long for a socket in it: %s", folder);
    status = open_folder(folder, &place.folder);
    if (status == LKS_OK)
        *out = place;
    return status;
}

void lks__place_close(lks__place *place)
{
    close(place->folder);
}

/* ---- messages ---- */

bool lks__peer_is_us(int connection, int *out_pid)
{
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0 || peer.uid != geteuid())
        return false;
    *out_pid = (int)peer.pid;
    return true;
}

/* Room for one file descriptor, aligned as the kernel wants it. */
typedef union file_room {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr aligned;
} file_room;

void lks__answer_send(int connection, const lks__answer *answer, int fd)
{
    file_room room;
    memset(&room, 0, sizeof room);
    struct iovec data = {.iov_base = (void *)answer, .iov_len = sizeof *answer};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = room.bytes;
        message.msg_controllen = sizeof room.bytes;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    (void)sendmsg(connection, &message, MSG_NOSIGNAL);
}

bool lks__answer_receive(int connection, lks__answer *answer, int *out_fd)
{
    file_room room;
    struct iovec data = {.iov_base = answer, .iov_len = sizeof *answer};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = room.bytes, .msg_controllen = sizeof room.bytes};
    ssize_t n = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    *out_fd = -1;
    if (n < 0)
        return false;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(out_fd, CMSG_DATA(header), sizeof *out_fd);
    answer->text[sizeof answer->text - 1] = '\0';
    bool whole = n == sizeof *answer && (answer->status != LKS_OK || *out_fd >= 0);
    if (!whole && *out_fd >= 0)
        close(*out_fd);
    return whole;
}

lks_status lks__shm_meet(const lks_group_config *config, int *out)
{
    lks__place place;
    lks_status status = lks__place_open(config, &place);
    if (status != LKS_OK)
        return status;
    status = config->rank == 0 ? lks__meeting_host(config, &place, out)
                               : lks__meeting_guest(config, &place, out);
    lks__place_close(&place);
    return status;
}
