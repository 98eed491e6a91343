/* SPDX-License-Identifier: Apache-2.0 */
/** All of lockstep's public headers. */
#ifndef LOCKSTEP_LOCKSTEP_H
#define LOCKSTEP_LOCKSTEP_H

#include <lockstep/checkpoint.h>
#include <lockstep/config.h>
#include <lockstep/dataset.h>
#include <lockstep/ddp.h>
#include <lockstep/evaluate.h>
#include <lockstep/graph.h>
#include <lockstep/group.h>
#include <lockstep/optimizer.h>
#include <lockstep/plan.h>
#include <lockstep/report.h>
#include <lockstep/sampler.h>
#include <lockstep/status.h>
#include <lockstep/train.h>
#include <lockstep/version.h>

#endif
