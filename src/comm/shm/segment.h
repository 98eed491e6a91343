/* SPDX-License-Identifier: Apache-2.0 */
/** A memory file and the places where this process has mapped it.
 *
 * One per process and group; the members that are threads of one process share it, so that they see every
 * byte at one address. Thread: any.
 */
#ifndef LKS_COMM_SHM_SEGMENT_H
#define LKS_COMM_SHM_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#include <lockstep/status.h>

typedef struct lks__segment lks__segment;

/** Ownership: the segment closes fd, also when this fails. One reference for the caller. */
lks_status lks__segment_create(int fd, lks__segment **out) LKS_MUST_USE;

/** A new file that has no name. */
lks_status lks__segment_create_new(lks__segment **out) LKS_MUST_USE;

lks__segment *lks__segment_get(lks__segment *segment); /* one reference more */
void lks__segment_put(lks__segment *segment);          /* one less; the last one closes. NULL is fine */

/** Makes sure that [offset, offset + bytes) has memory behind it; what had none reads as zero.
 *
 * Returns: LKS_OK; LKS_E_NOMEM; LKS_E_SYSTEM (not a memory file). */
lks_status lks__segment_reserve(lks__segment *segment, size_t offset, size_t bytes) LKS_MUST_USE;

/** Gives the memory back. */
void lks__segment_release(lks__segment *segment, size_t offset, size_t bytes);

/** Maps the range, or gives the address where this process has it already. Whole pages. */
lks_status lks__segment_map(lks__segment *segment, size_t offset, size_t bytes, void **out) LKS_MUST_USE;

/** Undoes one lks__segment_map of that offset. */
void lks__segment_unmap(lks__segment *segment, size_t offset);

#endif
