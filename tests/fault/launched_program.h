/* SPDX-License-Identifier: Apache-2.0 */
/** The program that the launcher's tests launch: the test program itself, called with a way to behave.
 *
 * - exit CODE ...: ends with the code of its rank
 * - tries CODE ...: reports which try this is; rank 0 ends with the try's code, or kills itself by signal
 * -CODE; the others wait, unless the code is 0
 * - variables, torchrun: reports what it was started with
 * - cores: reports which processors it may run on
 * - fail RANK CODE: that rank ends with the code, or kills itself by signal -CODE; the others wait
 * - wait: until a signal ends it
 * - stubborn: ignores SIGINT, SIGTERM and SIGHUP
 * - gentle CODE: ignores SIGINT; reports SIGTERM and ends with the code
 * - listen: leaves the launcher's process group; reports whether a SIGINT comes within a second
 *
 * Reports are lines "RANK PID TEXT" on a pipe that the launcher and all its processes hold open: its end says
 * that none of them is left. All but `exit`, `tries` and `fail` report "ready" first.
 */
#ifndef LKS_TESTS_LAUNCHED_PROGRAM_H
#define LKS_TESTS_LAUNCHED_PROGRAM_H

#define REPORT_FD_VARIABLE "LAUNCH_TEST_REPORT_FD"

int launched_program(int argc, char **argv);

#endif
