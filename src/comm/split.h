/* SPDX-License-Identifier: Apache-2.0 */
/** Who comes into which part of a group that is split: pure arithmetic on what all members have said. */
#ifndef LKS_COMM_SPLIT_H
#define LKS_COMM_SPLIT_H

typedef struct lks__split_wish {
    int colour; /* < 0: no part */
    int key;
} lks__split_wish;

/** The place of a member in its part. A member without a part has size 0. */
typedef struct lks__split_place {
    int rank, size;
} lks__split_place;

lks__split_place lks__split_place_of(const lks__split_wish *wishes, int n, int member);

/** Whether it is the first of its part, in the order of members (not of keys). */
int lks__split_is_first(const lks__split_wish *wishes, int member);

#endif
