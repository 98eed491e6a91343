/* SPDX-License-Identifier: Apache-2.0 */
#include <lockstep/plan.h>

static int64_t of_each(const lks_plan_memory *m)
{
    return m->gradients + m->activations + m->data + m->other;
}

int64_t lks_plan_process_bytes(const lks_plan *plan)
{
    return of_each(&plan->memory) + plan->memory.checkpoint;
}

int64_t lks_plan_machine_bytes(const lks_plan *plan)
{
    const lks_plan_memory *m = &plan->memory;
    return m->parameters + m->optimizer + m->checkpoint + plan->processes * of_each(m);
}
