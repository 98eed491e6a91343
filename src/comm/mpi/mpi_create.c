/* SPDX-License-Identifier: Apache-2.0 */
/* From the processes of a job to a group. All say to rank 0 on which machine they are, and it answers who is
 * where; those of one machine meet there and make a group over shared memory; and all hear how that went. */
#define _GNU_SOURCE /* secure_getenv */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/error.h"
#include "base/machine.h"
#include "base/text.h"
#include "comm/mpi/mpi_group.h"
#include "comm/mpi/mpi_plugin.h"
#include "comm/shm/shm_wait.h"

enum {
    TAG = LKS__WIRE_TAGS - 1, /* no group uses it */
    POLL_NS = 50 * 1000,
    GRACE_NS = 1000 * 1000 * 1000,
    SECRET_BYTES = 16,
    TEXT_BYTES = 1024,
};

/* What goes to rank 0, and what comes back. */
typedef struct record {
    int32_t status;
    char text[TEXT_BYTES]; /* of a failure */
    int32_t
        machines[LKS_GROUP_MAX_SIZE]; /* by rank: the lowest rank on its machine; to rank 0: [0] is its own */
    unsigned char secret[SECRET_BYTES]; /* names the meeting places */
} record;

typedef struct meeting {
    lks__wire *wire;
    const lks_group_config *config;
    int64_t ranks_per_node; /* of rank 0 */
    record own, got;
} meeting;

/* ---- to rank 0 and back ---- */

/* Waits for what has been started with the process `other`. */
static lks_status finish(const meeting *m, lks_status started, lks__wire_request *request, int other,
                         lks__deadline *deadline)
{
    lks__wire *wire = m->wire;
    lks_status status = started;
    while (status == LKS_OK || status == LKS_IN_PROGRESS) {
        status = wire->backend->test(wire, request, NULL);
        if (status == LKS_OK)
            return LKS_OK;
        if (status == LKS_IN_PROGRESS && lks__deadline_slice(deadline) == 0)
            return lks__fail(LKS_E_TIMEOUT, "rank %d waited %g s for rank %d in group_create", wire->rank,
                             m->config->timeout_s, other);
        int64_t start_ns = lks__now_ns();
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        lks__deadline_spend(deadline, start_ns, LKS__SLICE_NS);
    }
    return lks__fail(LKS_E_PEER, "%s: %s", wire->name, wire->error);
}

static lks_status send_to(meeting *m, int other, lks__deadline *deadline)
{
    lks__wire_request request;
    lks_status started = m->wire->backend->send(m->wire, &m->own, sizeof m->own, other, TAG, &request);
    return finish(m, started, &request, other, deadline);
}

static lks_status recv_from(meeting *m, int other, lks__deadline *deadline)
{
    lks__wire_request request;
    lks_status started = m->wire->backend->recv(m->wire, &m->got, sizeof m->got, other, TAG, &request);
    lks_status status = finish(m, started, &request, other, deadline);
    if (status == LKS_E_TIMEOUT)
        m->wire->backend->cancel(m->wire, &request);
    return status;
}

static void set_status(record *r, lks_status status)
{
    r->status = status;
    snprintf(r->text, sizeof r->text, "%s", status != LKS_OK ? lks_error_message() : "");
}

/* Within what is one machine, ranks_per_node ranks in a row are one. Downwards, since a rank looks at lower
 * ones. */
static void tell_machines_apart(meeting *m)
{
    int32_t *machines = m->own.machines;
    for (int r = m->wire->size - 1; r >= 0; r--) {
        int first = 0;
        while (machines[first] != machines[r] || first / m->ranks_per_node != r / m->ranks_per_node)
            first++;
        machines[r] = first;
    }
}

static void adopt(record *own, const record *other)
{
    own->status = other->status;
    memcpy(own->text, other->text, sizeof own->text);
}

/* Rank 0: hears all, also after a failure, and tells those that it has heard. */
static void lead_round(meeting *m)
{
    bool heard[LKS_GROUP_MAX_SIZE] = {false};
    lks__deadline deadline = {lks__timeout_ns(m->config->timeout_s)}, grace = {GRACE_NS};
    for (int other = 1; other < m->wire->size; other++) {
        lks_status status = recv_from(m, other, &deadline);
        heard[other] = status == LKS_OK;
        if (heard[other])
            m->own.machines[other] = m->got.machines[0];
        if (m->own.status == LKS_OK && !heard[other])
            set_status(&m->own, status);
        else if (m->own.status == LKS_OK)
            adopt(&m->own, &m->got);
    }
    tell_machines_apart(m);
    for (int other = 1; other < m->wire->size; other++)
        if (heard[other] && send_to(m, other, &grace) != LKS_OK && m->own.status == LKS_OK)
            set_status(&m->own, LKS_E_PEER);
}

/* The others have a little more time than rank 0, which can tell who is missing. */
static void follow_round(meeting *m)
{
    lks__deadline deadline = {lks__timeout_ns(m->config->timeout_s) + GRACE_NS};
    lks_status status = send_to(m, 0, &deadline);
    if (status == LKS_OK)
        status = recv_from(m, 0, &deadline);
    if (status != LKS_OK)
        set_status(&m->own, status);
    else
        m->own = m->got;
}

/* Tells rank 0 how it went here, and returns what it answers: the first failure of any process, or a record
 * that is the same everywhere. */
static lks_status agree(meeting *m, lks_status status)
{
    set_status(&m->own, status);
    if (m->wire->rank == 0)
        lead_round(m);
    else
        follow_round(m);
    return m->own.status == LKS_OK ? LKS_OK : lks__fail((lks_status)m->own.status, "%s", m->own.text);
}

/* ---- the machine's group ---- */

/* LOCKSTEP_RANKS_PER_NODE, for tests. */
static lks_status read_ranks_per_node(int64_t *out)
{
    const char *text = secure_getenv("LOCKSTEP_RANKS_PER_NODE");
    int64_t ranks = LKS_GROUP_MAX_SIZE;
    if (text != NULL && (!lks__parse_i64(text, &ranks) || ranks < 1))
        return lks__fail(LKS_E_ARG, "LOCKSTEP_RANKS_PER_NODE is \"%s\"; it must be a whole number above 0",
                         text);
    *out = ranks;
    return LKS_OK;
}

/* Afterwards m->own says which rank is on which machine. */
static lks_status find_machines(meeting *m)
{
    lks_status status = read_ranks_per_node(&m->ranks_per_node);
    if (status == LKS_OK && m->wire->rank == 0 && getrandom(m->own.secret, SECRET_BYTES, 0) != SECRET_BYTES)
        status = lks__fail(LKS_E_SYSTEM, "there is no random number to name a meeting place with");
    m->own.machines[0] = m->wire->machine;
    status = agree(m, status);
    if (status == LKS_OK)
        m->wire->machine = m->own.machines[m->wire->rank];
    return status;
}

/* The members on this machine meet under a name that only the job knows. */
static lks_status create_node(const meeting *m, lks_group **out)
{
    int machine = m->wire->machine;
    char address[2 * SECRET_BYTES + 8] = "mpi-";
    for (int i = 0; i < SECRET_BYTES; i++)
        lks__append(address, sizeof address, "%02x", m->own.secret[i]);
    lks_group_config config = {.fd = -1, .address = address, .port = machine};
    config.timeout_s = m->config->timeout_s;
    for (int r = 0; r < m->wire->size; r++) {
        config.rank += m->own.machines[r] == machine && r < m->wire->rank;
        config.size += m->own.machines[r] == machine;
    }
    return config.size == 1 ? lks__solo_create(out) : lks__shm_create(&config, out);
}

/* Where all are on one machine, its group is all that is needed. */
static lks_status create(meeting *m, lks_group **out)
{
    lks_group *node = NULL;
    if (m->wire->size > LKS_GROUP_MAX_SIZE)
        return lks__fail(LKS_E_ARG, "the job has %d processes; a group has at most %d", m->wire->size,
                         LKS_GROUP_MAX_SIZE);
    lks_status status = find_machines(m);
    if (status == LKS_OK)
        status = create_node(m, &node);
    bool alone = node != NULL && node->size == m->wire->size;
    if (alone) {
        node->wire = m->wire;
        m->wire = NULL;
        *out = node;
        return LKS_OK;
    }
    status = agree(m, status);
    if (status != LKS_OK) {
        lks_group_destroy(node);
        return status;
    }
    lks__wire *wire = m->wire;
    m->wire = NULL;
    return lks__mpi_join(wire, node, m->config, out);
}

lks_status lks__mpi_create_on(lks__wire *wire, const lks_group_config *config, lks_group **out)
{
    meeting m = {.wire = wire, .config = config, .ranks_per_node = LKS_GROUP_MAX_SIZE};
    *out = NULL;
    lks_status status = create(&m, out);
    if (m.wire != NULL)
        m.wire->backend->close(m.wire, true);
    return status;
}

lks_status lks__mpi_create(const lks_group_config *config, lks_group **out)
{
    lks__mpi_job job;
    lks__wire *wire;
    *out = NULL;
    lks_status status = lks__mpi_job_from_env(&job);
    if (status == LKS_OK && !job.found)
        return lks__solo_create(out);
    if (status == LKS_OK)
        status = lks__mpi_plugin_open(&job, &wire);
    return status == LKS_OK ? lks__mpi_create_on(wire, config, out) : status;
}
