/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/comm_program.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/elements.h"
#include "comm/naive.h"

enum { MOST_MEMBERS = 16, MOST_ITEMS = 6, MOST_LAYOUTS = 4, GUARD = 64, UNTOUCHED = 0xa5 };

typedef struct random {
    uint64_t seed, n;
} random;

static uint32_t pick(random *r, uint32_t below)
{
    return (uint32_t)(naive_hash(r->seed, r->n++, 0) >> 32) % below;
}

/* All members come into parts at once: that is a layout. The first one is the group itself. */
typedef struct layout {
    int parent;                /* layout, -1: of the first one */
    int n_children;            /* layouts that were split off from this one */
    int part_of[MOST_MEMBERS]; /* by first rank; -1: in no part */
    int place[MOST_MEMBERS];   /* its rank in the part */
    int n_parts;
    bool alive;
    lks_group *group; /* the own part; NULL: in none */
    lks_group_memory *memory;
    size_t memory_bytes; /* of the own region */
} layout;

/* One operation of a part, as this member sees it. */
typedef struct item {
    lks_group *group;
    int rank, size;
    lks_operation o;
    uint32_t salt;
    bool reads, writes, in_place;
    size_t in_bytes, out_bytes; /* of the whole buffers */
    unsigned char *block;       /* in and out, with guards around; NULL: in the group's memory */
    unsigned char *in, *out;
    lks_request *request;
    bool done;
} item;

typedef struct program {
    member *self;
    random common, own;
    layout layouts[MOST_LAYOUTS];
    item items[2 * MOST_ITEMS];
    int n_items;
    size_t most_bytes;
    int step;
} program;

/* ---- one operation ---- */

static bool rows_in(lks_collective c)
{
    return c == LKS_REDUCE_SCATTER || c == LKS_SCATTER || c == LKS_ALL_TO_ALL;
}

static bool rows_out(lks_collective c)
{
    return c == LKS_ALL_GATHER || c == LKS_GATHER || c == LKS_ALL_TO_ALL;
}

static size_t pick_count(random *r, lks_dtype dtype, size_t most_bytes)
{
    size_t most = most_bytes / element_bytes[dtype];
    switch (pick(r, 8)) {
    case 0:
        return 0;
    case 1:
        return 1;
    case 2:
    case 3:
        return pick(r, 33);
    case 4:
        return 1024 + 2 * pick(r, 4) - 3; /* about where short operations end */
    case 5:
    case 6:
        return pick(r, 9001);
    default:
        return pick(r, (uint32_t)most) + 1;
    }
}

/* The operation that all members of a part know; false: this member has no share in it, it is a message. */
static bool pick_operation(random *r, size_t most_bytes, item *out)
{
    bool message = out->size > 1 && pick(r, 3) == 0;
    lks_operation *o = &out->o;
    o->dtype = (lks_dtype)pick(r, N_ELEMENT_TYPES);
    o->op = (lks_op)pick(r, LKS_PROD + 1);
    if (o->op == LKS_MEAN && !element_is_float[o->dtype])
        o->op = LKS_MAX;
    o->root = (int)pick(r, (uint32_t)out->size);
    o->collective = (lks_collective)pick(r, LKS_ALL_TO_ALL + 1);
    o->count = pick_count(r, o->dtype, most_bytes);
    out->salt = pick(r, 1u << 30);
    if (!message)
        return true;
    int other = (o->root + 1 + (int)pick(r, (uint32_t)out->size - 1)) % out->size; /* from root to other */
    o->collective = out->rank == o->root ? LKS_SEND : LKS_RECV;
    bool ours = out->rank == o->root || out->rank == other;
    if (out->rank == o->root)
        o->root = other;
    return ours;
}

/* Who reads and who writes which buffer. */
static void see_buffers(item *it)
{
    lks_collective c = it->o.collective;
    bool root = it->rank == it->o.root;
    size_t row = it->o.count * element_bytes[it->o.dtype], all = row * (size_t)it->size;
    it->reads = c != LKS_BARRIER && c != LKS_RECV && (root || (c != LKS_BROADCAST && c != LKS_SCATTER));
    it->writes = c != LKS_BARRIER && c != LKS_SEND && (root || (c != LKS_REDUCE && c != LKS_GATHER));
    if (c == LKS_BROADCAST && root)
        it->writes = false;
    it->in_bytes = rows_in(c) ? all : row;
    it->out_bytes = rows_out(c) ? all : row;
}

/* out within in, or in within out, as the operation allows. */
static void lay_in_place(item *it, random *own, unsigned char *base)
{
    size_t row = it->o.count * element_bytes[it->o.dtype];
    it->in = it->out = base;
    switch (it->o.collective) {
    case LKS_ALL_GATHER:
    case LKS_GATHER:
        it->in = base + (size_t)it->rank * row;
        break;
    case LKS_REDUCE_SCATTER:
        it->out = base + pick(own, (uint32_t)it->size) * row;
        break;
    case LKS_SCATTER:
        it->out = base + (size_t)it->rank * row;
        break;
    default:
        break;
    }
}

/* Buffers in the group's memory if they fit and chance says so, else in ordinary memory at any element. */
static void lay(item *it, random *own, const layout *l, size_t *used)
{
    size_t element = element_bytes[it->o.dtype], both = it->in_bytes + it->out_bytes + 4 * GUARD;
    unsigned char *base;
    it->in_place = it->reads && it->writes && pick(own, 2) == 0;
    if (l->memory != NULL && *used + both < l->memory_bytes && pick(own, 4) != 0) {
        base = (unsigned char *)lks_group_memory_at(l->memory, it->rank) + *used;
        *used += (both + 63) / 64 * 64;
    } else {
        it->block = malloc(both);
        base = it->block;
    }
    memset(base, UNTOUCHED, both);
    base += GUARD + element * pick(own, (uint32_t)(GUARD / element));
    if (it->in_place) {
        lay_in_place(it, own, base);
    } else {
        it->in = base;
        it->out = base + it->in_bytes + GUARD;
        it->out += (element - (size_t)(it->out - base) % element) % element;
    }
    it->o.in = it->in;
    it->o.out = it->out;
}

/* Fresh inputs; what is to come is wiped. */
static void fill(item *it)
{
    if (it->writes)
        memset(it->out, UNTOUCHED, it->out_bytes);
    if (it->reads)
        naive_input(it->in, it->in_bytes / element_bytes[it->o.dtype], it->o.dtype, it->rank, it->salt);
}

/* All of a short row; of a long one the ends and some between: all would take longer than what is tested. */
static size_t next(size_t i, size_t n)
{
    return i < 40 || i + 131 >= n ? i + 1 : i + 97;
}

static void fail_at(const program *p, const item *it, const char *what, int row, size_t i)
{
    member_fails(
        p->self,
        "step %d: %s of collective %d type %d op %d root %d count %zu%s%s, rank %d of %d: row %d [%zu]",
        p->step, what, (int)it->o.collective, (int)it->o.dtype, (int)it->o.op, it->o.root, it->o.count,
        it->in_place ? " in place" : "", it->block == NULL ? " in group memory" : "", it->rank, it->size, row,
        i);
}

static void check_result(const program *p, const item *it)
{
    size_t n = it->o.count;
    for (int row = 0; row < (rows_out(it->o.collective) ? it->size : 1); row++)
        for (size_t i = 0; i < n; i = next(i, n))
            if (!naive_agrees(&it->o, it->out, it->rank, it->size, it->salt, row, i)) {
                fail_at(p, it, "the result", row, i);
                return;
            }
}

static void check_input(const program *p, const item *it)
{
    size_t n = it->in_bytes / element_bytes[it->o.dtype];
    for (size_t i = 0; i < n; i = next(i, n))
        if (!naive_is_input(it->in, i, it->o.dtype, it->rank, it->salt)) {
            fail_at(p, it, "the input", 0, i);
            return;
        }
}

/* What nobody should write: the bytes about the buffers, and buffers that are not used. */
static void check_rest(const program *p, const item *it)
{
    const unsigned char *in = it->in, *out = it->out;
    size_t whole = it->in_bytes > it->out_bytes ? it->in_bytes : it->out_bytes;
    if (it->in_place)
        in = out = in < out ? in : out;
    for (size_t i = 0; i < 8; i++) {
        bool clean = in[-1 - (ptrdiff_t)i] == UNTOUCHED;
        clean = clean &&
                (it->in_place ? in[whole + i] == UNTOUCHED
                              : in[it->in_bytes + i] == UNTOUCHED && out[-1 - (ptrdiff_t)i] == UNTOUCHED &&
                                    out[it->out_bytes + i] == UNTOUCHED);
        if (!clean) {
            fail_at(p, it, "the bytes about", 0, i);
            return;
        }
    }
    for (size_t i = 0; !it->writes && i < it->out_bytes; i++)
        if (out[i] != UNTOUCHED) {
            fail_at(p, it, "the unused result", 0, i);
            return;
        }
}

static void check_item(const program *p, const item *it)
{
    if (it->writes)
        check_result(p, it);
    if (it->reads && !(it->in_place && it->writes))
        check_input(p, it);
    check_rest(p, it);
}

/* ---- some operations at a time ---- */

static lks_status finished(program *p, item *it, lks_status status)
{
    it->done = status != LKS_IN_PROGRESS;
    if (status < 0)
        member_fails(p->self, "step %d: collective %d count %zu: %s: %s", p->step, (int)it->o.collective,
                     it->o.count, lks_status_name(status), lks_error_message());
    return status;
}

/* Items of one part, in an order that is common to the part, to p->items. */
static void pick_items(program *p, int which, uint64_t step_seed)
{
    layout *l = &p->layouts[which];
    if (l->group == NULL)
        return;
    random r = {naive_hash(step_seed, (uint64_t)which, (uint64_t)l->part_of[p->self->rank]), 0};
    size_t used = 0;
    for (uint32_t n = pick(&r, MOST_ITEMS) + 1; n > 0; n--) {
        item it = {.group = l->group, .rank = lks_group_rank(l->group), .size = lks_group_size(l->group)};
        if (!pick_operation(&r, p->most_bytes / (size_t)it.size, &it))
            continue;
        see_buffers(&it);
        lay(&it, &p->own, l, &used);
        p->items[p->n_items++] = it;
    }
}

static void dawdle(program *p)
{
    for (uint32_t i = pick(&p->own, 30) == 0 ? pick(&p->own, 500) : 0; i > 0; i--)
        sched_yield();
}

static lks_status post(program *p, item *it)
{
    fill(it);
    it->done = false;
    lks_status status = LKS_OK;
    if (it->request == NULL)
        status = lks_request_create(it->group, &it->o, &it->request);
    if (status == LKS_OK)
        status = lks_request_post(it->request);
    if (status != LKS_OK)
        finished(p, it, status);
    return status;
}

/* Waits for one item, by wait, by tests, or by the end of the request. */
static void finish(program *p, item *it, bool by_tests)
{
    uint32_t how = by_tests ? 1 : pick(&p->own, 8);
    lks_status status = LKS_IN_PROGRESS;
    if (it->done)
        return;
    if (how == 0) {
        lks_request_destroy(it->request);
        it->request = NULL;
        status = lks_group_failed_by(it->group) < 0 ? LKS_OK : LKS_E_PEER;
    } else if (how < 4) {
        while (status == LKS_IN_PROGRESS) {
            status = lks_request_test(it->request);
            if (status == LKS_IN_PROGRESS)
                sched_yield();
        }
    } else {
        status = lks_request_wait(it->request);
    }
    finished(p, it, status);
}

/* Posts and waits in turn, each member as it likes: whoever waits has posted all that comes before in the
 * common order, and what is first in it of all that is waited for has been posted by all it concerns. */
static void run_items(program *p)
{
    for (int i = 0; i < p->n_items && p->self->failure[0] == '\0'; i++) {
        item *it = &p->items[i];
        dawdle(p);
        if (pick(&p->own, 4) == 0) {
            fill(it);
            finished(p, it, lks_group_run(it->group, &it->o));
            continue;
        }
        if (post(p, it) != LKS_OK)
            return;
        if (pick(&p->own, 4) == 0)
            finish(p, &p->items[pick(&p->own, (uint32_t)i + 1)], false);
        else if (pick(&p->own, 4) == 0 && it->request != NULL)
            finished(p, it, lks_request_test(it->request));
    }
    for (int n = 0; n < 2 * p->n_items && p->self->failure[0] == '\0'; n++)
        finish(p, &p->items[n < p->n_items ? (int)pick(&p->own, (uint32_t)p->n_items) : n - p->n_items],
               false);
}

/* Items of two groups at a time: a wait works on one group's requests only, so there are tests. */
static void run_mixed(program *p, int n_first)
{
    int next_of[] = {0, n_first}, end[] = {n_first, p->n_items}, left = p->n_items;
    while (left > 0) {
        int which = next_of[0] == end[0] ? 1 : next_of[1] == end[1] ? 0 : (int)pick(&p->own, 2);
        left--;
        if (post(p, &p->items[next_of[which]++]) != LKS_OK)
            return;
    }
    do {
        left = 0;
        for (int i = 0; i < p->n_items; i++)
            if (!p->items[i].done &&
                finished(p, &p->items[i], lks_request_test(p->items[i].request)) == LKS_IN_PROGRESS)
                left++;
        sched_yield();
    } while (left > 0 && p->self->failure[0] == '\0');
}

static void drop_items(program *p)
{
    for (int i = 0; i < p->n_items; i++) {
        lks_request_destroy(p->items[i].request);
        free(p->items[i].block);
    }
    p->n_items = 0;
}

static int pick_layout(program *p)
{
    for (;;) {
        int which = (int)pick(&p->common, MOST_LAYOUTS);
        if (p->layouts[which].alive)
            return which;
    }
}

static void batch(program *p)
{
    int first = pick_layout(p), second = pick(&p->common, 4) == 0 ? pick_layout(p) : first;
    uint64_t step_seed = naive_hash(p->common.seed, p->common.n, 1);
    pick_items(p, first, step_seed);
    int n_first = p->n_items;
    if (second != first)
        pick_items(p, second, step_seed);
    for (uint32_t turns = pick(&p->common, 3) + 1; turns > 0 && p->self->failure[0] == '\0'; turns--) {
        if (second != first)
            run_mixed(p, n_first);
        else
            run_items(p);
        for (int i = 0; i < p->n_items && p->self->failure[0] == '\0'; i++) {
            check_item(p, &p->items[i]);
            p->items[i].salt++;
        }
    }
    drop_items(p);
}

/* ---- groups and memory that come and go ---- */

/* Parts by (parent's part, colour), ranks by (key, parent's rank). */
static void place_all(const program *p, const layout *from, layout *l, const int *colours, const int *keys)
{
    int size = p->self->size, first_of[MOST_MEMBERS];
    for (int r = 0; r < size; r++) {
        l->part_of[r] = -1;
        l->place[r] = 0;
        if (from->part_of[r] < 0 || colours[r] < 0)
            continue;
        for (int s = 0; s < r && l->part_of[r] < 0; s++)
            if (l->part_of[s] >= 0 && from->part_of[s] == from->part_of[r] && colours[s] == colours[r])
                l->part_of[r] = l->part_of[s];
        if (l->part_of[r] < 0) {
            first_of[l->n_parts] = r;
            l->part_of[r] = l->n_parts++;
        }
    }
    for (int r = 0; r < size; r++)
        for (int s = l->part_of[r] < 0 ? size : first_of[l->part_of[r]]; s < size; s++)
            if (l->part_of[s] == l->part_of[r] &&
                (keys[s] < keys[r] || (keys[s] == keys[r] && from->place[s] < from->place[r])))
                l->place[r]++;
}

static void split(program *p)
{
    int from = pick_layout(p), to = 1, colours[MOST_MEMBERS], keys[MOST_MEMBERS], rank = p->self->rank;
    while (to < MOST_LAYOUTS && p->layouts[to].alive)
        to++;
    if (to == MOST_LAYOUTS)
        return;
    uint32_t n_colours = pick(&p->common, 3) + 1;
    for (int r = 0; r < p->self->size; r++) {
        colours[r] = pick(&p->common, 8) == 0 ? -1 : (int)pick(&p->common, n_colours) * 1000;
        keys[r] = (int)pick(&p->common, 3) - 1;
    }
    layout *l = &p->layouts[to];
    *l = (layout){.parent = from, .alive = true};
    p->layouts[from].n_children++;
    place_all(p, &p->layouts[from], l, colours, keys);
    if (p->layouts[from].group == NULL)
        return;
    EXPECT_OK(p->self, lks_group_split(p->layouts[from].group, colours[rank], keys[rank], &l->group));
    EXPECT(p->self, (l->group != NULL) == (l->part_of[rank] >= 0), "step %d: a part or none", p->step);
    EXPECT(p->self, l->group == NULL || lks_group_rank(l->group) == l->place[rank],
           "step %d: rank %d in the part, wanted %d", p->step, lks_group_rank(l->group), l->place[rank]);
}

static void leave(layout *layouts, layout *l)
{
    lks_group_memory_destroy(l->memory);
    l->memory = NULL;
    if (l->parent >= 0) {
        lks_group_destroy(l->group);
        layouts[l->parent].n_children--;
        l->alive = false;
        l->group = NULL;
    }
}

static void make_or_free(program *p)
{
    int which = pick_layout(p);
    layout *l = &p->layouts[which];
    if (l->n_children == 0 && pick(&p->common, 2) == 0) {
        leave(p->layouts, l);
        return;
    }
    uint32_t bytes = pick(&p->common, 4) == 0 ? 0 : pick(&p->common, 1u << 20);
    lks_group_memory_destroy(l->memory);
    l->memory = NULL;
    if (l->group == NULL)
        return;
    l->memory_bytes = bytes == 0 ? 0 : bytes + pick(&p->own, 100000);
    EXPECT_OK(p->self, lks_group_memory_create(l->group, l->memory_bytes, &l->memory));
}

void comm_program_run(member *self)
{
    const comm_program *what = self->context;
    program *p = calloc(1, sizeof *p);
    p->self = self;
    p->common = (random){what->seed, 0};
    p->own = (random){what->seed + 1 + (uint64_t)self->rank, 0};
    p->most_bytes = what->most_bytes;
    p->layouts[0] = (layout){.parent = -1, .n_parts = 1, .alive = true, .group = self->group};
    for (int r = 0; r < self->size; r++)
        p->layouts[0].place[r] = r;
    for (p->step = 0; p->step < what->n_steps && self->failure[0] == '\0'; p->step++) {
        uint32_t kind = pick(&p->common, 16);
        if (kind == 0)
            split(p);
        else if (kind == 1)
            make_or_free(p);
        else
            batch(p);
    }
    for (int i = MOST_LAYOUTS; i > 0; i--)
        for (int l = 0; l < MOST_LAYOUTS; l++)
            if (p->layouts[l].alive && p->layouts[l].n_children == 0)
                leave(p->layouts, &p->layouts[l]);
    free(p);
}
