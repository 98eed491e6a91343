/* SPDX-License-Identifier: Apache-2.0 */
/** What data sets are made of, for the readers of this folder. */
#ifndef LKS_DATA_DATASET_PARTS_H
#define LKS_DATA_DATASET_PARTS_H

#include <lockstep/dataset.h>

/** A data set of u8 features and labels, both from lks__alloc, that it owns from now on.
 *
 * Returns: LKS_OK; LKS_E_NOMEM: the arrays are still the caller's. */
lks_status lks__dataset_adopt(const lks_dataset_info *info, uint8_t *features, int32_t *labels,
                              lks_dataset **out) LKS_MUST_USE;

#endif
