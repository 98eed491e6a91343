/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of operations: where their data are, what they send and receive, and how they go on. */
#include "comm/mpi/mpi_part.h"

/* ---- places ---- */

static size_t row_bytes(const lks__mpi_member *self)
{
    return LKS__MPI_PART_BYTES / (size_t)self->group.size / 64 * 64;
}

size_t lks__mpi_part_elems(const lks__mpi_member *self, const lks__mpi_algorithm *algorithm, lks_dtype dtype)
{
    size_t bytes = algorithm->in_rows ? row_bytes(self) : LKS__MPI_PART_BYTES;
    return bytes / lks__dtype_bytes(dtype);
}

char *lks__mpi_staged(const lks__mpi_member *self, const lks__mpi_part *part, int local, int row)
{
    char *inputs = (char *)self->boards[local] + LKS__MPI_BOARD_BYTES;
    return inputs + (size_t)part->place * LKS__MPI_PART_BYTES + (size_t)row * row_bytes(self);
}

const char *lks__mpi_input(const lks__mpi_member *self, const lks__mpi_part *part, int local, int row)
{
    if (self->map.n_local == 1)
        return (const char *)part->task->operation->in + lks__mpi_at(part, row);
    if (part->places[local] != NULL)
        return part->places[local] + lks__mpi_at(part, row);
    return lks__mpi_staged(self, part, local, row);
}

char *lks__mpi_result(const lks__mpi_member *self, const lks__mpi_part *part, int row)
{
    if (self->map.n_local == 1)
        return (char *)part->task->operation->out + lks__mpi_at(part, row);
    if (part->all_in_place)
        return part->places[self->map.local] + lks__mpi_at(part, row);
    char *results = (char *)self->boards[0] + LKS__MPI_BOARD_BYTES + LKS__MPI_WINDOW * LKS__MPI_PART_BYTES;
    return results + (size_t)part->place * LKS__MPI_PART_BYTES + (size_t)row * row_bytes(self);
}

/* ---- what is under way ---- */

int lks__mpi_tag(const lks__mpi_member *self, lks__mpi_kind kind)
{
    return (int)(self->serial * LKS__MPI_KINDS % (LKS__WIRE_TAGS / LKS__MPI_KINDS * LKS__MPI_KINDS)) +
           (int)kind;
}

static lks__mpi_flight *next_flight(lks__mpi_part *part, int rank, bool is_recv)
{
    lks__mpi_flight *flight = &part->flights[part->n_flights];
    *flight = (lks__mpi_flight){.rank = rank, .is_recv = is_recv};
    return flight;
}

/* What the start of a transfer came to. */
static void started(lks__mpi_member *self, lks__mpi_part *part, int rank, lks_status status)
{
    if (status == LKS_OK)
        part->n_flights++;
    else
        lks__mpi_fail_wire(self, rank);
}

void lks__mpi_send(lks__mpi_member *self, lks__mpi_part *part, lks__mpi_kind kind, int rank, const void *data,
                   size_t bytes)
{
    lks__wire *wire = self->engine->wire;
    if (self->engine->failure != LKS_OK)
        return;
    lks__mpi_flight *flight = next_flight(part, rank, false);
    started(self, part, rank,
            wire->backend->send(wire, data, bytes, self->processes[rank], lks__mpi_tag(self, kind),
                                &flight->request));
}

void lks__mpi_recv(lks__mpi_member *self, lks__mpi_part *part, lks__mpi_kind kind, int rank, void *data,
                   size_t bytes)
{
    lks__wire *wire = self->engine->wire;
    if (self->engine->failure != LKS_OK)
        return;
    lks__mpi_flight *flight = next_flight(part, rank, true);
    started(self, part, rank,
            wire->backend->recv(wire, data, bytes, self->processes[rank], lks__mpi_tag(self, kind),
                                &flight->request));
}

void lks__mpi_start_all_reduce(lks__mpi_member *self, lks__mpi_part *part)
{
    lks__wire *wire = self->engine->wire;
    const lks_operation *operation = part->task->operation;
    size_t at = lks__mpi_at(part, 0);
    lks__mpi_flight *flight = next_flight(part, -1, false);
    started(self, part, -1,
            wire->backend->all_reduce(wire, (const char *)operation->in + at, (char *)operation->out + at,
                                      part->n, operation->dtype,
                                      operation->op == LKS_MEAN ? LKS_SUM : operation->op, &flight->request));
}

static bool landed(lks__mpi_member *self, lks__mpi_part *part)
{
    lks__wire *wire = self->engine->wire;
    for (int i = 0; i < part->n_flights && self->engine->failure == LKS_OK;) {
        lks_status status = wire->backend->test(wire, &part->flights[i].request, NULL);
        int rank = part->flights[i].rank;
        if (status == LKS_IN_PROGRESS) {
            i++;
            continue;
        }
        part->flights[i] = part->flights[--part->n_flights];
        self->moves++;
        if (status != LKS_OK)
            lks__mpi_fail_wire(self, rank);
    }
    return part->n_flights == 0 && self->engine->failure == LKS_OK;
}

void lks__mpi_end_part(lks__mpi_member *self, lks__mpi_part *part)
{
    lks__wire *wire = self->engine->wire;
    for (int i = 0; i < part->n_flights; i++)
        if (part->flights[i].is_recv)
            wire->backend->cancel(wire, &part->flights[i].request);
    part->n_flights = 0;
    part->state = LKS__MPI_DONE;
}

/* ---- what the members of the machine have done ---- */

static void publish(lks__mpi_member *self, lks__mpi_stage stage, uint64_t parts)
{
    /* release: all that this member has written; acquired in reached() */
    atomic_store_explicit(&self->boards[self->map.local]->counters[stage].parts, parts, memory_order_release);
}

static uint64_t look(const lks__mpi_member *self, int local, lks__mpi_stage stage)
{
    /* acquire: see publish() */
    return atomic_load_explicit(&self->boards[local]->counters[stage].parts, memory_order_acquire);
}

/* Whether all members of the machine have come so far with part `number`. */
static bool reached(lks__mpi_member *self, lks__mpi_stage stage, uint64_t number)
{
    if (self->seen[stage] > number)
        return true;
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < self->map.n_local; i++) {
        uint64_t parts = look(self, i, stage);
        least = parts < least ? parts : least;
    }
    self->seen[stage] = least;
    return least > number;
}

static bool is_checked(lks__mpi_member *self, const lks__mpi_part *part)
{
    /* of a small operation there is nothing to do before the results are there */
    return lks__mpi_leads(&self->map) || part->task->small || look(self, 0, LKS__MPI_CHECKED) > part->number;
}

static void find_places(lks__mpi_member *self, lks__mpi_part *part)
{
    part->all_in_place = self->map.n_local > 1;
    for (int i = 0; i < self->map.n_local; i++) {
        const lks__mpi_entry *entry = &self->boards[i]->entries[part->place];
        part->places[i] = entry->memory != 0 ? lks__mpi_address(self, i, entry->memory, entry->offset) : NULL;
        part->all_in_place = part->all_in_place && entry->in_place != 0;
        if (entry->memory == 0 || part->places[i] != NULL)
            continue;
        char who[LKS__MPI_WHO_BYTES];
        lks__mpi_fail(self->engine, self->processes[self->group.rank], self->serial, LKS_E_PEER,
                      "%s has destroyed its handle of the memory that rank %d uses",
                      lks__mpi_who(self, self->group.rank, who), self->map.local_ranks[i]);
        return;
    }
}

/* ---- going on ---- */

static void enter(lks__mpi_member *self, const lks__mpi_part *part)
{
    const lks__mpi_task *task = part->task;
    lks__mpi_board *board = self->boards[self->map.local];
    lks__signature signature = lks__operation_signature(task->operation);
    board->entries[part->place] = (lks__mpi_entry){
        .signature = signature, .memory = task->memory, .offset = task->offset, .in_place = task->in_place};
    publish(self, LKS__MPI_ENTERED, part->number + 1);
}

static void run(lks__mpi_step *step, lks__mpi_member *self, lks__mpi_part *part)
{
    if (step != NULL && self->engine->failure == LKS_OK)
        step(self, part);
}

void lks__mpi_begin_part(lks__mpi_member *self, lks__mpi_part *part, lks__mpi_task *task)
{
    size_t most = lks__mpi_part_elems(self, task->algorithm, task->operation->dtype);
    size_t left = task->operation->count - task->done;
    part->task = task;
    part->number = self->n_begun++;
    part->place = (int)(part->number % LKS__MPI_WINDOW);
    part->first = task->done;
    part->n = left < most ? left : most;
    part->opens = task->n_begun++ == 0;
    part->state = LKS__MPI_AT_ENTRY;
    task->done += part->n;
    bool reads_input = self->map.n_local > 1 || task->algorithm->always_stages;
    if (part->n > 0 && task->memory == 0 && reads_input)
        run(task->algorithm->stage, self, part);
    enter(self, part);
    self->moves++;
}

/* The leader has told and heard what the machines ask for. */
static void close_hello(lks__mpi_member *self, lks__mpi_part *part)
{
    const lks__mpi_task *task = part->task;
    if (!lks__mpi_leads(&self->map) || !part->opens)
        return;
    lks__mpi_hear_hellos(self, part);
    if (self->engine->failure != LKS_OK)
        return;
    if (task->small && part->n > 0)
        run(task->algorithm->unpack, self, part);
    publish(self, LKS__MPI_CHECKED, part->number + task->n_parts);
}

static void fetch(lks__mpi_member *self, lks__mpi_part *part)
{
    if (part->n > 0)
        run(part->task->algorithm->fetch, self, part);
    publish(self, LKS__MPI_FETCHED, part->number + 1);
}

/* The data's way over the wire; small operations have gone it with the hello. */
static void run_big(lks__mpi_step *step, lks__mpi_member *self, lks__mpi_part *part)
{
    if (!part->task->small && part->n > 0)
        run(step, self, part);
}

/* Takes the next step, if it can be taken now. */
static bool step(lks__mpi_member *self, lks__mpi_part *part)
{
    const lks__mpi_algorithm *algorithm = part->task->algorithm;
    switch (part->state) {
    case LKS__MPI_AT_ENTRY:
        if (!reached(self, LKS__MPI_ENTERED, part->number))
            return false;
        find_places(self, part);
        if (lks__mpi_leads(&self->map) && part->opens)
            lks__mpi_say_hello(self, part);
        break;
    case LKS__MPI_AT_HELLO:
        if (!landed(self, part) || !is_checked(self, part))
            return false;
        close_hello(self, part);
        run_big(algorithm->first, self, part);
        break;
    case LKS__MPI_AT_FIRST:
        if (!landed(self, part))
            return false;
        run_big(algorithm->second, self, part);
        break;
    case LKS__MPI_AT_SECOND:
        if (!landed(self, part))
            return false;
        run_big(algorithm->deliver, self, part);
        publish(self, LKS__MPI_CARRIED, part->number + 1);
        break;
    case LKS__MPI_AT_FETCH:
        if (!reached(self, LKS__MPI_CARRIED, part->number))
            return false;
        fetch(self, part);
        break;
    case LKS__MPI_DONE:
        return false;
    }
    part->state++;
    self->moves++;
    return true;
}

void lks__mpi_go_on(lks__mpi_member *self, lks__mpi_part *part, lks__mpi_state limit)
{
    while (part->state < limit && self->engine->failure == LKS_OK && step(self, part))
        ;
}

bool lks__mpi_may_begin(lks__mpi_member *self)
{
    if (self->n_begun - self->n_done == LKS__MPI_WINDOW)
        return false;
    return self->n_begun < LKS__MPI_WINDOW ||
           reached(self, LKS__MPI_FETCHED, self->n_begun - LKS__MPI_WINDOW);
}
