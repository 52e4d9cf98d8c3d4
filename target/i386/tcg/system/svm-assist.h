/*
 * SVM: next RIP and decode assists
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_SVM_ASSIST_H
#define I386_TCG_SVM_ASSIST_H

#include "cpu.h"

/**
 * svm_assist: describe in the VMCB the instruction that caused a #VMEXIT
 * @exit_code: the reason, SVM_EXIT_*
 * @exit_info_1: EXITINFO1; replaced if decode assists define it for the exit
 *
 * Writes NRIP and, for page faults, the instruction's bytes to the VMCB.
 * Before the call, @env must have the guest's state from before the
 * instruction, and env->insn_len the length of the instruction.
 */
void svm_assist(CPUX86State *env, uint64_t exit_code, uint64_t *exit_info_1);

#endif
