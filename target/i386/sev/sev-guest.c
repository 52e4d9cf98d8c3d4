/*
 * Access to the sev-guest object for its migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "cpu.h"
#include "hw/boards.h"
#include "sev.h"
#include "sev-migration-internal.h"

ConfidentialGuestSupport *sev_migration_guest(void)
{
    ConfidentialGuestSupport *cgs = MACHINE(qdev_get_machine())->cgs;

    if (!object_dynamic_cast(OBJECT(cgs), TYPE_SEV_GUEST)) {
        return NULL;
    }
    return cgs;
}

uint32_t sev_guest_policy(ConfidentialGuestSupport *cgs)
{
    return object_property_get_uint(OBJECT(cgs), "policy", &error_abort);
}

int sev_guest_cmd(ConfidentialGuestSupport *cgs, int cmd, void *data,
                  int *fw_error)
{
    return sev_ioctl(sev_guest_fd(cgs), cmd, data, fw_error);
}

bool sev_migration_enabled(void)
{
    ConfidentialGuestSupport *cgs = sev_migration_guest();

    return cgs && sev_guest_migration(cgs)->enabled;
}
