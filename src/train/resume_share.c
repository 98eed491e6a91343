/* SPDX-License-Identifier: Apache-2.0 */
/* What rank 0 has found out about a run that goes on is told to the others: they need no run directory, which
 * may be on one machine only. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "comm/agree.h"
#include "train/resume.h"

enum { RUN, PATH, CHECKPOINT, PLAN, N_TEXTS };

/* Sent as it is. Behind it come the texts, one after the other, each with its end. */
typedef struct head {
    lks_plan_origin here;
    double clock;
    int64_t text_bytes[N_TEXTS];
} head;

/* One is written by rank 0 and read by the others. */
typedef struct letter {
    head head;
    char *text; /* all of them */
} letter;

static int64_t bytes_of(const head *h)
{
    int64_t bytes = 0;
    for (int i = 0; i < N_TEXTS; i++)
        bytes += h->text_bytes[i];
    return bytes;
}

/* Rank 0. The settings go as YAML, which is how files have them too. */
static lks_status write_letter(const lks__resume *r, letter *out)
{
    char *run = NULL, *checkpoint = NULL;
    lks_status status = lks__settings_to_yaml(lks__config_settings(r->run), &run);
    if (status == LKS_OK)
        status = lks__settings_to_yaml(lks__config_settings(r->before), &checkpoint);
    if (status == LKS_OK) {
        const char *const texts[N_TEXTS] = {
            [RUN] = run, [PATH] = r->path, [CHECKPOINT] = checkpoint, [PLAN] = r->plan_json};
        out->head = (head){.here = r->here, .clock = r->clock};
        for (int i = 0; i < N_TEXTS; i++)
            out->head.text_bytes[i] = (int64_t)strlen(texts[i]) + 1;
        out->text = lks__alloc_array(bytes_of(&out->head), 1, LKS__MEM_MISC);
        char *at = out->text;
        for (int i = 0; i < N_TEXTS && out->text != NULL; at += out->head.text_bytes[i++])
            memcpy(at, texts[i], (size_t)out->head.text_bytes[i]);
        status = out->text != NULL ? LKS_OK : LKS_E_NOMEM;
    }
    free(run);
    free(checkpoint);
    return status;
}

/* The others. */
static lks_status read_letter(lks__resume *r, const lks_config *config, const letter *l)
{
    const char *texts[N_TEXTS], *at = l->text;
    for (int i = 0; i < N_TEXTS; at += l->head.text_bytes[i++])
        texts[i] = at;
    r->here = l->head.here;
    r->clock = l->head.clock;
    r->path = lks__strdup(texts[PATH]);
    r->plan_json = lks__strdup(texts[PLAN]);
    if (r->path == NULL || r->plan_json == NULL)
        return LKS_E_NOMEM;
    lks_status status = lks__config_parse("the run's settings, from rank 0", texts[RUN], &r->run);
    if (status == LKS_OK)
        status = lks__config_parse(r->path, texts[CHECKPOINT], &r->before);
    return status == LKS_OK ? lks__resume_settle(r, config) : status;
}

static lks_status send_letter(letter *l, lks_group *group)
{
    bool first = lks_group_rank(group) == 0;
    lks_status status = lks_group_broadcast(group, &l->head, sizeof l->head, LKS_U8, 0);
    if (status != LKS_OK)
        return status;
    if (!first)
        l->text = lks__alloc_array(bytes_of(&l->head), 1, LKS__MEM_MISC);
    status = lks__agree(group, l->text == NULL ? LKS_E_NOMEM : LKS_OK);
    return status == LKS_OK ? lks_group_broadcast(group, l->text, (size_t)bytes_of(&l->head), LKS_U8, 0)
                            : status;
}

lks_status lks__resume_share(lks__resume *r, const lks_config *config, lks_group *group)
{
    bool first = lks_group_rank(group) == 0;
    letter l = {.text = NULL};
    lks_status status = lks__agree(group, first ? write_letter(r, &l) : LKS_OK);
    if (status == LKS_OK)
        status = send_letter(&l, group);
    if (status == LKS_OK)
        status = lks__agree(group, first ? LKS_OK : read_letter(r, config, &l));
    lks__free(l.text);
    return status;
}
