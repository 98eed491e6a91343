/* SPDX-License-Identifier: Apache-2.0 */
/** Where and how members meet that share nothing but an address: a unix socket in a folder of the user's own.
 */
#ifndef LKS_COMM_SHM_MEETING_H
#define LKS_COMM_SHM_MEETING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <lockstep/group.h>

enum { LKS__MEETING_TEXT_BYTES = 1024, LKS__PLACE_NAME_BYTES = 80 };

/** The place of one group: derived from MASTER_ADDR, MASTER_PORT and, under torchrun, the run and its
 * restart. */
typedef struct lks__place {
    int folder; /* opened; mode 0700, owned by this user */
    struct sockaddr_un address;
    char name[LKS__PLACE_NAME_BYTES]; /* "127.0.0.1:29500", for messages */
} lks__place;

/** Returns: LKS_OK; LKS_E_ARG (the folder is not private, or its name is too long); LKS_E_SYSTEM. */
lks_status lks__place_open(const lks_group_config *config, lks__place *out) LKS_MUST_USE;
void lks__place_close(lks__place *place);

#define LKS__HELLO_MAGIC UINT32_C(0x4c4b5348) /* "LKSH" */

/** What a guest says. */
typedef struct lks__hello {
    uint32_t magic; /* LKS__HELLO_MAGIC */
    int32_t version;
    int32_t rank;
    int32_t size;
} lks__hello;

/** What the host answers: LKS_OK with the memory file, or why there is no group. */
typedef struct lks__answer {
    int32_t status;
    char text[LKS__MEETING_TEXT_BYTES];
} lks__answer;

/** Whether the process at the other end belongs to this user; out: its number. */
bool lks__peer_is_us(int connection, int *out_pid);

/** fd -1: none. Failures of sending are not reported: a guest that is gone will be missed later. */
void lks__answer_send(int connection, const lks__answer *answer, int fd);

/** False when the other end is gone. out_fd: -1 when none came. */
bool lks__answer_receive(int connection, lks__answer *answer, int *out_fd);

/** Rank 0. Ownership: the caller closes *out. */
lks_status lks__meeting_host(const lks_group_config *config, const lks__place *place, int *out) LKS_MUST_USE;

/** The other ranks. Same. */
lks_status lks__meeting_guest(const lks_group_config *config, const lks__place *place, int *out) LKS_MUST_USE;

#endif
