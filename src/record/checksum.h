/* SPDX-License-Identifier: Apache-2.0 */
/** Where a safetensors file keeps its checksum: XXH64 (seed 0) over all bytes of the file, from the first to
 * the last, with the checksum's own digits as zeros. It is the first entry of the header, so its place is
 * fixed. */
#ifndef LKS_RECORD_CHECKSUM_H
#define LKS_RECORD_CHECKSUM_H

#define LKS__CHECKSUM_KEY   "checksum"
#define LKS__CHECKSUM_ZEROS "0000000000000000"

/* The header's first characters. */
#define LKS__CHECKSUM_BEFORE "{\"__metadata__\":{\"" LKS__CHECKSUM_KEY "\":\""

enum {
    LKS__CHECKSUM_OFFSET = sizeof LKS__CHECKSUM_BEFORE - 1, /* of the digits, in the header */
    LKS__CHECKSUM_DIGITS = sizeof LKS__CHECKSUM_ZEROS - 1,  /* lower case */
};

#endif
