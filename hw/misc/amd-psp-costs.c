/*
 * Emulated AMD Platform Security Processor: how long commands take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "hw/misc/amd-psp.h"
#include "hw/misc/amd-psp-costs.h"

static const SevPlatformCommandCost *
own_cost(const SevPlatformCommandCostList *own, uint32_t id)
{
    uint32_t which;

    for (; own; own = own->next) {
        if (amd_psp_command_by_name(own->value->command, &which) &&
            which == id) {
            return own->value;
        }
    }
    return NULL;
}

bool amd_psp_costs_check(const SevPlatformCommandCostList *own, Error **errp)
{
    uint32_t id;

    for (; own; own = own->next) {
        const char *name = own->value->command;

        if (!amd_psp_command_by_name(name, &id)) {
            error_setg(errp, "amd-psp has no command '%s'", name);
            return false;
        }
        if (own_cost(own->next, id)) {
            error_setg(errp, "amd-psp has two costs of command '%s': give one",
                       name);
            return false;
        }
    }
    return true;
}

int64_t amd_psp_costs_doorbell(const AmdPspCosts *costs, uint32_t id)
{
    const SevPlatformCommandCost *own = own_cost(costs->own, id);

    return own && own->has_doorbell_ns ? own->doorbell_ns : costs->doorbell;
}

int64_t amd_psp_costs_execute(const AmdPspCosts *costs, uint32_t id,
                              uint64_t guest_bytes)
{
    const SevPlatformCommandCost *own = own_cost(costs->own, id);
    uint32_t command = costs->command, kib = costs->kib;

    if (!amd_psp_command_known(id)) {
        return 0;
    }
    if (own) {
        command = own->has_command_ns ? own->command_ns : command;
        kib = own->has_kib_ns ? own->kib_ns : kib;
    }
    return (int64_t)command + muldiv64(guest_bytes, kib, KiB);
}
