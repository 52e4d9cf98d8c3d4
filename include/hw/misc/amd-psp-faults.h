/*
 * Emulated AMD Platform Security Processor: faults to inject
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_MISC_AMD_PSP_FAULTS_H
#define HW_MISC_AMD_PSP_FAULTS_H

#include "qapi/qapi-types-sev-platform.h"

/**
 * amd_psp_faults_check: check a list of faults and set the defaults in it
 *
 * Returns false with @errp set if a fault is not valid.
 */
bool amd_psp_faults_check(SevPlatformFaultList *faults, Error **errp);

/**
 * amd_psp_faults_next: find the fault that hits the next command
 * @faults: a checked list; a fault is removed once it has hit the requested
 *          number of commands
 * @id: the command
 * @fault: set to a copy of the fault, without the name of the command
 *
 * Returns false if no fault hits the command.
 */
bool amd_psp_faults_next(SevPlatformFaultList **faults, uint32_t id,
                         SevPlatformFault *fault);

#endif
