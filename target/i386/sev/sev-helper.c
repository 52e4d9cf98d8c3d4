/*
 * Migration helper of an SEV guest: setup
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "cpu.h"
#include "qapi/qapi-types-migration.h"
#include "migration/options.h"
#include "sev.h"
#include "sev-helper.h"
#include "sev-helper-place.h"
#include "system/runstate.h"
#include "system/system.h"
#include "trace.h"

#define DEFAULT_PATH "sev-migration-helper.bin"

SevHelperPhase sev_helper_get_phase(const SevHelper *h)
{
    return h ? qatomic_load_acquire(&h->phase) : SEV_HELPER_OFF;
}

void sev_helper_set_why_not(SevHelper *h, Error *err)
{
    warn_report("The firmware packs the guest's private pages, which is slow: "
                "%s", error_get_pretty(err));
    WITH_QEMU_LOCK_GUARD(&h->lock) {
        g_free(h->why_not);
        h->why_not = g_strdup(error_get_pretty(err));
    }
    error_free(err);
}

char *sev_helper_why_not(SevHelper *h)
{
    QEMU_LOCK_GUARD(&h->lock);
    return g_strdup(h->why_not);
}

SevMigrationHelperInfo *sev_helper_info(SevMigration *m)
{
    SevHelper *h = m->helper;
    SevMigrationHelperInfo *info;

    if (!h) {
        return NULL;
    }
    info = g_new0(SevMigrationHelperInfo, 1);
    info->present = h->present;
    info->in_use = sev_helper_get_phase(h) >= SEV_HELPER_SENDING;
    info->private_address = h->memory.private_gpa;
    info->shared_address = h->memory.shared_gpa;
    info->pages = stat64_get(&h->pages);
    info->unused = sev_helper_why_not(h);
    return info;
}

/*
 * Restore the memory map before the guest runs: sev_helper_map_uncover() may
 * have changed it.  BQL.
 */
static void vm_changed(void *opaque, bool running, RunState state)
{
    SevHelper *h = opaque;

    if (running && h->map) {
        sev_helper_map_cover(h->map);
    }
}

static void machine_done(Notifier *notifier, void *data)
{
    SevHelper *h = container_of(notifier, SevHelper, machine_done);

    h->uncovers = sev_helper_map_prepare();
}

bool sev_helper_kvm_init(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    SevHelper *h = m->helper;

    if (!h) {
        return true;
    }
    if (!m->enabled) {
        error_setg(errp, "SEV: the guest cannot have a migration helper, "
                   "because it cannot be migrated: %s",
                   m->reason ? error_get_pretty(m->reason) : "unknown reason");
        return false;
    }
    if (!sev_migration_incoming(cgs)) {
        h->image = sev_helper_memory_read(h->path, errp);
        if (!h->image) {
            return false;
        }
    }
    sev_helper_cpus_init(&h->cpus, &h->memory);
    sev_helper_vcpus_init();
    qemu_add_vm_change_state_handler(vm_changed, h);
    h->machine_done.notify = machine_done;
    qemu_add_machine_init_done_notifier(&h->machine_done);
    return true;
}

/* Encrypt and measure the private memory.  QEMU ends if that fails. */
static void launch(ConfidentialGuestSupport *cgs, SevHelper *h)
{
    uint8_t *host = sev_helper_memory_private(&h->memory);
    struct kvm_sev_launch_update_data update = {
        .uaddr = (uintptr_t)host,
        .len = MH_PRIVATE_SIZE,
    };
    Error *err = NULL;
    int fw_error, ret;

    memcpy(host, h->image, MH_PRIVATE_SIZE);
    g_clear_pointer(&h->image, g_free);
    ret = sev_guest_cmd(cgs, KVM_SEV_LAUNCH_UPDATE_DATA, &update, &fw_error);
    if (ret < 0) {
        sev_cmd_error(&err, "LAUNCH_UPDATE_DATA", ret, fw_error);
        error_reportf_err(err, "The migration helper cannot be launched: ");
        exit(1);
    }
    h->present = true;
}

void sev_helper_place(uint64_t gpa)
{
    ConfidentialGuestSupport *cgs = sev_migration_guest();
    SevHelper *h = cgs ? sev_guest_migration(cgs)->helper : NULL;

    if (!h) {
        return;
    }
    if (gpa + MH_SHARED_SIZE + MH_PRIVATE_SIZE > SEV_HELPER_GPA_LIMIT) {
        error_report("SEV: the machine has too much memory for a migration "
                     "helper (property migration-helper)");
        exit(1);
    }
    h->end = sev_helper_memory_place(&h->memory, gpa, h->image);
    if (h->image) {
        launch(cgs, h);
    }
}

uint64_t sev_helper_end(uint64_t gpa)
{
    ConfidentialGuestSupport *cgs = sev_migration_guest();
    SevHelper *h = cgs ? sev_guest_migration(cgs)->helper : NULL;

    return h ? MAX(gpa, h->end) : gpa;
}

bool sev_helper_open(SevHelper *h, Error **errp)
{
    unsigned n = migrate_multifd() ? MIN(MH_CPUS, migrate_multifd_channels()) :
                 1;

    assert(bql_locked());
    stat64_set(&h->pages, 0);
    if (migrate_multifd() && migrate_multifd_channels() >= MH_CHANNELS) {
        error_setg(errp, "SEV: more than %d channels of multifd, which is the "
                   "limit of the migration helper", MH_CHANNELS - 1);
        return false;
    }
    if (!h->end) {
        error_setg(errp, "SEV: this machine type has no place for a migration "
                   "helper");
        return false;
    }
    if (!sev_helper_cpus_open(&h->cpus, n, errp)) {
        return false;
    }
    h->map = sev_helper_map_new(h->uncovers);
    return true;
}

void sev_helper_close(SevHelper *h)
{
    assert(bql_locked());
    qatomic_store_release(&h->phase, SEV_HELPER_OFF);
    g_clear_pointer(&h->map, sev_helper_map_free);
    sev_helper_cpus_close(&h->cpus);
}

static char *get_path(Object *obj, Error **errp)
{
    SevHelper *h =
        sev_guest_migration(CONFIDENTIAL_GUEST_SUPPORT(obj))->helper;

    return g_strdup(h ? h->path : "off");
}

static void set_path(Object *obj, const char *value, Error **errp)
{
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(obj);
    SevMigration *m = sev_guest_migration(cgs);

    if (cgs->ready) {
        error_setg(errp, "migration-helper cannot be changed once the guest "
                   "is made");
        return;
    }
    if (m->helper) {
        g_free(m->helper->path);
        qemu_mutex_destroy(&m->helper->lock);
        qemu_cond_destroy(&m->helper->changed);
        g_clear_pointer(&m->helper, g_free);
    }
    if (!strcmp(value, "off")) {
        return;
    }
    m->helper = g_new0(SevHelper, 1);
    m->helper->path = g_strdup(strcmp(value, "on") ? value : DEFAULT_PATH);
    qemu_mutex_init(&m->helper->lock);
    qemu_cond_init(&m->helper->changed);
}

void sev_helper_class_init(ObjectClass *oc)
{
    object_class_property_add_str(oc, "migration-helper", get_path, set_path);
    object_class_property_set_description(oc, "migration-helper",
            "launch a program with the guest that makes its migration fast (on, off or the name of its file)");
}
