/* SPDX-License-Identifier: Apache-2.0 */
/** A wire between the threads of this process, which play the processes of a job on several machines: so that
 * what runs over a wire is tested without MPI, and where ThreadSanitizer sees it. */
#ifndef LKS_TESTS_COMM_THREAD_WIRE_H
#define LKS_TESTS_COMM_THREAD_WIRE_H

#include "comm/mpi/wire.h"

/** Makes the wires of a job of `size`: out[r] is for the thread that plays process r. Processes with the same
 * number in machine_of are on one machine; NULL: each is on one of its own. Every wire is closed, by anyone.
 *
 * Strict where an MPI may be lax: nothing moves but in test; a message of more than 1 KiB is sent when it has
 * been received, and read from the sender's buffer until then; a request is not tested any more when it is
 * done; what a closed wire had not sent is lost, and what is sent to one is an error.
 *
 * Its own all_reduce adds from the highest rank down, so that its bits differ from a tree's; of the types
 * and operations of wire.h. */
void thread_wires_create(int size, const int *machine_of, lks__wire **out);

/** From now on a message comes after 0 to most_tests calls of test by its receiver, by chance (`seed`), so
 * that messages with other tags or from others overtake it. For all wires of the job that `wire` is of. */
void thread_wires_delay(lks__wire *wire, uint64_t seed, int most_tests);

#endif
