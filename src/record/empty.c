/* SPDX-License-Identifier: Apache-2.0 */
typedef int lks_nothing_yet;
