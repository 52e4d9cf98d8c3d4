/*
 * Properties of an SEV guest's machine that its migration depends on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "cpu.h"
#include "hw/boards.h"
#include "hw/i386/x86.h"
#include "sev.h"
#include "sev-migration-internal.h"
#include "system/runstate.h"

uint64_t sev_ram_below_4g(void)
{
    return X86_MACHINE(qdev_get_machine())->below_4g_mem_size;
}

bool sev_migration_incoming(ConfidentialGuestSupport *cgs)
{
    return object_dynamic_cast(OBJECT(cgs), TYPE_SEV_GUEST) &&
           runstate_check(RUN_STATE_INMIGRATE);
}
