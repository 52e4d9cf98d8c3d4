/*
 * SVM: next RIP and decode assists
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_SVM_ASSIST_H
#define I386_TCG_SVM_ASSIST_H

#include "cpu.h"

/**
 * svm_assist: tell the hypervisor about the instruction that made a guest exit
 * @exit_code: the reason, SVM_EXIT_*
 * @exit_info_1: EXITINFO1; replaced where decode assists define it
 *
 * Writes NRIP and, for page faults, the instruction's bytes to the VMCB.  The
 * guest's state is that before the instruction, env->insn_len its length.
 */
void svm_assist(CPUX86State *env, uint64_t exit_code, uint64_t *exit_info_1);

#endif
