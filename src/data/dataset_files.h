/* SPDX-License-Identifier: Apache-2.0 */
/** The data sets that a config can name. */
#ifndef LKS_DATA_DATASET_FILES_H
#define LKS_DATA_DATASET_FILES_H

#include <lockstep/dataset.h>

#include "conf/settings.h"

/** What training and test set hold, from headers, file sizes and the training set's labels (fast); the test
 * set's n_classes is 0. Returns: as lks_dataset_from_idx, and LKS_E_ARG when data.path is not set. */
lks_status lks__dataset_probe(const lks__settings *settings, lks_dataset_info *train,
                              lks_dataset_info *test) LKS_MUST_USE;

/** Bytes that such a data set takes; its handle is left out. */
int64_t lks__dataset_bytes(const lks_dataset_info *info);

/** Opens training and test set, normalised as the settings say; the limit holds for the training set. The
 * test set must have the training set's shape and no further classes. Returns: as lks_dataset_from_idx; on
 * failure both are NULL. */
lks_status lks__dataset_open(const lks__settings *settings, lks_dataset **train,
                             lks_dataset **test) LKS_MUST_USE;

/** Asks the processor to fetch samples that a coming lks_dataset_read will want. */
void lks__dataset_prefetch(const lks_dataset *dataset, int64_t n, const int64_t *indices);

#endif
