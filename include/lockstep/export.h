/* SPDX-License-Identifier: Apache-2.0 */
/** What every public header needs: visibility, "use the result", and C linkage for C++. */
#ifndef LOCKSTEP_EXPORT_H
#define LOCKSTEP_EXPORT_H

#define LKS_API                __attribute__((visibility("default")))
#define LKS_MUST_USE           __attribute__((warn_unused_result))
#define LKS_PRINTF(text, args) __attribute__((format(printf, text, args)))

#ifdef __cplusplus
#define LKS_BEGIN_DECLS extern "C" {
#define LKS_END_DECLS   }
#else
#define LKS_BEGIN_DECLS
#define LKS_END_DECLS
#endif

#endif
