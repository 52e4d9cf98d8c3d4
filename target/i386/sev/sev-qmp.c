/*
 * Queries and commands about the migration of an SEV guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-sev-migration-target.h"
#include "qemu/rcu.h"
#include "cpu.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "monitor/monitor.h"
#include "sev-helper.h"
#include "sev-migration-internal.h"
#include "standard-headers/asm-x86/kvm_para.h"

SevMigrationInfo *sev_migration_info(void)
{
    ConfidentialGuestSupport *cgs = sev_migration_guest();
    SevMigration *m = sev_guest_migration(cgs);
    SevMigrationInfo *info = g_new0(SevMigrationInfo, 1);
    Error *why = NULL;
    RAMBlock *rb;

    info->offered = m->enabled;
    info->ready = sev_consent_value(m) & KVM_MIGRATION_READY;
    if (!sev_can_leave(cgs, &why)) {
        info->blocked = g_strdup(error_get_pretty(why));
        error_free(why);
    }
    info->helper = sev_helper_info(m);
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        uint64_t npages = encbitmap_npages(rb), nprivate;

        if (npages) {
            npages = MIN(npages, rb->used_length >> TARGET_PAGE_BITS);
            nprivate = encbitmap_count(rb, 0, npages);
            info->private_pages += nprivate;
            info->shared_pages += npages - nprivate;
        }
    }
    return info;
}

void sev_migration_print(Monitor *mon, const SevMigrationInfo *info)
{
    monitor_printf(mon, "migration: %s\n", info->blocked ?: "possible");
    monitor_printf(mon, "private pages: %" PRIu64 ", shared: %" PRIu64 "\n",
                   info->private_pages, info->shared_pages);
    if (info->helper) { /* sev_helper_info() */
        monitor_printf(mon, "migration helper: %s, sealed or opened pages: %"
                       PRIu64 "\n", info->helper->unused ?:
                       !info->helper->present ? "has not arrived" :
                       info->helper->in_use ? "in use" : "ready",
                       info->helper->pages);
    }
}

void qmp_migrate_set_sev_info(const char *pdh, const char *plat_cert,
                              const char *amd_cert, Error **errp)
{
    ConfidentialGuestSupport *cgs = sev_migration_guest();

    if (!cgs) {
        error_setg(errp, "This guest is not an SEV guest (-object sev-guest)");
        return;
    }
    sev_certificates_set(&sev_guest_migration(cgs)->certificates, pdh,
                         plat_cert, amd_cert, errp);
}
