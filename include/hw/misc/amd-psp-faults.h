/*
 * Emulated AMD Platform Security Processor: faults to inject
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_MISC_AMD_PSP_FAULTS_H
#define HW_MISC_AMD_PSP_FAULTS_H

#include "qapi/qapi-types-sev-platform.h"

/**
 * amd_psp_faults_check: whether @faults make sense; sets their defaults
 */
bool amd_psp_faults_check(SevPlatformFaultList *faults, Error **errp);

/**
 * amd_psp_faults_next: the fault that happens to the next command
 * @faults: what was checked; those that have happened often enough go
 * @id: the command
 * @fault: set to a copy of the fault, without the name of a command
 *
 * Returns false if there is none.
 */
bool amd_psp_faults_next(SevPlatformFaultList **faults, uint32_t id,
                         SevPlatformFault *fault);

#endif
