/* SPDX-License-Identifier: Apache-2.0 */
/** What operations must give, bit for bit, by code that shares nothing with src/: inputs are functions of
 * (rank, salt, index), so that everybody knows everybody's. */
#ifndef LKS_TESTS_COMM_NAIVE_H
#define LKS_TESTS_COMM_NAIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockstep/group.h>

/** Even bits for everything random: neighbouring numbers give unlike ones. */
uint64_t naive_hash(uint64_t a, uint64_t b, uint64_t c);

/** Writes elements 0 .. n - 1 of the rank's input. Fractions are full, so that sums are not exact; no NaN,
 * and products of 16 ranks stay finite. Integers wrap. */
void naive_input(void *data, size_t n, lks_dtype dtype, int rank, uint32_t salt);

/** Whether element i of data is what the operation's result has there. rank and size: who has the result;
 * row: of results with a row for each member, else 0; i: in the row. */
bool naive_agrees(const lks_operation *o, const void *data, int rank, int size, uint32_t salt, int row,
                  size_t i);

/** Whether element i of data is that of the rank's input. */
bool naive_is_input(const void *data, size_t i, lks_dtype dtype, int rank, uint32_t salt);

#endif
