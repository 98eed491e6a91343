/* SPDX-License-Identifier: Apache-2.0 */
/* A user's program: prints the version. The trainer is named so that all of the library is linked. */
#include <stdio.h>

#include <lockstep/lockstep.h>

int main(void)
{
    lks_trainer_destroy(NULL);
    return puts(lks_version()) < 0;
}
