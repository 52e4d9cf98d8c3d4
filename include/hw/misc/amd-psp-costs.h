/*
 * Emulated AMD Platform Security Processor: how long commands take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_MISC_AMD_PSP_COSTS_H
#define HW_MISC_AMD_PSP_COSTS_H

#include "qapi/qapi-types-sev-platform.h"

/* Minimum times in nanoseconds; @kib is the time per KiB of guest memory */
typedef struct AmdPspCosts {
    uint32_t doorbell;
    uint32_t command;
    uint32_t kib;
    SevPlatformCommandCostList *own;    /* overrides for single commands */
} AmdPspCosts;

/**
 * amd_psp_costs_check: check a list of costs
 *
 * Returns false with @errp set if @own names an unknown command, or one command
 * twice.
 */
bool amd_psp_costs_check(const SevPlatformCommandCostList *own, Error **errp);

/**
 * amd_psp_costs_doorbell: minimum time of a doorbell, in nanoseconds
 * @id: the first command after the doorbell; it may be unknown
 */
int64_t amd_psp_costs_doorbell(const AmdPspCosts *costs, uint32_t id);

/**
 * amd_psp_costs_execute: minimum time to execute a command, in nanoseconds
 * @id: the command; an unknown one is not executed and takes no time
 * @guest_bytes: bytes of guest memory that the command reads and writes
 */
int64_t amd_psp_costs_execute(const AmdPspCosts *costs, uint32_t id,
                              uint64_t guest_bytes);

#endif
