/*
 * Emulated AMD Platform Security Processor: faults to inject
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/misc/amd-psp.h"
#include "hw/misc/amd-psp-faults.h"

static bool fault_check(SevPlatformFault *f, Error **errp)
{
    uint32_t id;

    if (f->command && !amd_psp_command_by_name(f->command, &id)) {
        error_setg(errp, "amd-psp has no command '%s'", f->command);
        return false;
    }
    if (!f->has_nth) {
        f->has_nth = true;
        f->nth = 1;
    }
    if (!f->nth) {
        error_setg(errp, "'nth' counts from 1");
        return false;
    }
    if (!f->has_count) {
        f->has_count = true;
        f->count = 1;
    }
    if (f->kind == SEV_PLATFORM_FAULT_KIND_STATUS && !f->u.status.status) {
        error_setg(errp, "'status' 0 is success, not a fault");
        return false;
    }
    return true;
}

bool amd_psp_faults_check(SevPlatformFaultList *faults, Error **errp)
{
    for (; faults; faults = faults->next) {
        if (!fault_check(faults->value, errp)) {
            return false;
        }
    }
    return true;
}

static bool fault_is_for(const SevPlatformFault *f, uint32_t id)
{
    uint32_t own;

    return !f->command ||
           (amd_psp_command_by_name(f->command, &own) && own == id);
}

bool amd_psp_faults_next(SevPlatformFaultList **faults, uint32_t id,
                         SevPlatformFault *fault)
{
    SevPlatformFaultList **link = faults, *item;
    bool found = false;

    while ((item = *link)) {
        SevPlatformFault *f = item->value;

        if (!fault_is_for(f, id)) {
            link = &item->next;
        } else if (f->nth > 1) {
            f->nth--;
            link = &item->next;
        } else if (found) {
            link = &item->next;
        } else {
            found = true;
            *fault = *f;
            fault->command = NULL;
            if (f->count == 1) {
                *link = item->next;
                item->next = NULL;
                qapi_free_SevPlatformFaultList(item);
            } else {
                f->count -= f->count ? 1 : 0;
                link = &item->next;
            }
        }
    }
    return found;
}
