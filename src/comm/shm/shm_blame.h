/* SPDX-License-Identifier: Apache-2.0 */
/** What members tell each other so that a failure can be explained: what they finished last, what they sleep
 * in; and whom a deadline names. */
#ifndef LKS_COMM_SHM_BLAME_H
#define LKS_COMM_SHM_BLAME_H

#include "comm/shm/shm_member.h"

/** This member has finished the operation. Collectives are counted, by all members alike. */
void lks__shm_tell_finished(lks__shm_member *self, const lks_operation *operation);

/** This member goes to sleep in the operation; NULL: it goes on. */
void lks__shm_tell_wait(const lks__shm_member *self, const lks_operation *operation);

/** "barrier (collective 12)": the one that this member has not finished yet; a message has no number. Returns
 * out. */
enum { LKS__PRESENT_BYTES = LKS__OPERATION_TEXT_BYTES + 32 };
const char *lks__shm_present_text(const lks__shm_member *self, const lks_operation *operation,
                                  char out[LKS__PRESENT_BYTES]);

/** Ends the group because the time for this operation is over, and names those for whom it waited: those who
 * have not come, or, where these wait for others in their turn, the others. */
void lks__shm_poison_timeout(lks__shm_member *self, const lks_operation *operation);

/** Whether a message of `rank`, of which the others know `what` of its signature, really waits for the other
 * end. */
bool lks__shm_message_waits(const lks__shm_member *self, int rank, uint64_t what);

#endif
