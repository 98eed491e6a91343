/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/split.h"

lks__split_place lks__split_place_of(const lks__split_wish *wishes, int n, int member)
{
    lks__split_place place = {0, 0};
    lks__split_wish own = wishes[member];
    if (own.colour < 0)
        return place;
    for (int r = 0; r < n; r++) {
        if (wishes[r].colour != own.colour)
            continue;
        place.size++;
        place.rank += wishes[r].key < own.key || (wishes[r].key == own.key && r < member);
    }
    return place;
}

int lks__split_is_first(const lks__split_wish *wishes, int member)
{
    int r = 0;
    while (wishes[r].colour != wishes[member].colour)
        r++;
    return r == member;
}
