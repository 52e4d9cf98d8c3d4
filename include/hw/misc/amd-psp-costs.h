/*
 * Emulated AMD Platform Security Processor: how long commands take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_MISC_AMD_PSP_COSTS_H
#define HW_MISC_AMD_PSP_COSTS_H

#include "qapi/qapi-types-sev-platform.h"

/* In nanoseconds; of a KiB of guest memory that is read or written */
typedef struct AmdPspCosts {
    uint32_t doorbell;
    uint32_t command;
    uint32_t kib;
    SevPlatformCommandCostList *own;    /* of single kinds of commands */
} AmdPspCosts;

/**
 * amd_psp_costs_check: whether @own makes sense
 *
 * Returns false with @errp set if it names a command that there is not, or
 * one twice.
 */
bool amd_psp_costs_check(const SevPlatformCommandCostList *own, Error **errp);

/**
 * amd_psp_costs_doorbell: nanoseconds that giving a command takes at the least
 * @id: the command, which there may not be
 */
int64_t amd_psp_costs_doorbell(const AmdPspCosts *costs, uint32_t id);

/**
 * amd_psp_costs_execute: nanoseconds that executing it takes, in addition
 * @id: the command; one that there is not is not executed
 * @guest_bytes: what it reads and writes of guests' memory
 */
int64_t amd_psp_costs_execute(const AmdPspCosts *costs, uint32_t id,
                              uint64_t guest_bytes);

#endif
