/*
 * In-place memory of an SEV guest: guest_memfds that KVM converts in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Before the guest's first hypercall, all pages of in-place memory are shared,
 * because firmware shares buffers with devices and makes no hypercalls.  The
 * first hypercall makes them private.
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "linux/kvm-page-enc.h"
#include "qapi/error.h"
#include "qemu/rcu.h"
#include "cpu.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "hw/boards.h"
#include "hw/i386/x86.h"
#include "sev.h"
#include "sev-in-place.h"
#include "sev-migration-internal.h"
#include "system/kvm.h"
#include "trace.h"

bool sev_ram_is_in_place(const RAMBlock *rb)
{
    return rb->flags & RAM_GUEST_MEMFD_IN_PLACE;
}

bool sev_migration_needs_init2(ConfidentialGuestSupport *cgs)
{
    bool needed;

    /*
     * The VM type decides which features the initial VMSA has, and the VMSA
     * is part of the launch measurement of a guest with SEV-ES.  Such a guest
     * cannot have in-place memory, so it keeps the type that it has on kernels
     * without in-place memory.  The measurement of other guests does not depend
     * on the type.
     *
     * In-place memory needs the newer VM type.  QEMU creates the memory
     * backends after the VM, so it does not know yet whether the guest will
     * have in-place memory.  Therefore all guests without SEV-ES get the newer
     * type if the kernel supports in-place memory.
     */
    needed = !(sev_guest_policy(cgs) & SEV_POLICY_ES) &&
             kvm_check_extension(KVM_STATE(current_accel()),
                                 KVM_CAP_SEV_PRIVATE_MEM) > 0;
    trace_sev_migration_needs_init2(sev_guest_policy(cgs), needed);
    return needed;
}

bool sev_prepare_guest_memfd(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    MachineState *ms = MACHINE(qdev_get_machine());
    int ret;

    if (!m->enabled) {
        error_setg(errp, "SEV: guest_memfd RAM would stay shared, because the "
                   "guest is not asked which pages are private: %s",
                   error_get_pretty(m->reason));
        return false;
    }
    if (object_dynamic_cast(OBJECT(ms), TYPE_X86_MACHINE)) {
        X86MachineState *x86ms = X86_MACHINE(ms);

        /* VMs with in-place memory have no second address space for SMM */
        if (x86ms->smm == ON_OFF_AUTO_ON) {
            error_setg(errp, "SEV: a machine with guest_memfd RAM cannot have "
                       "SMM");
            error_append_hint(errp, "Use -machine smm=off, and firmware that "
                              "does not need it.\n");
            return false;
        }
        x86ms->smm = ON_OFF_AUTO_OFF;
    }
    ret = kvm_vm_enable_cap(kvm_state, KVM_CAP_SEV_PRIVATE_MEM, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "SEV: KVM does not let guest_memfd keep "
                         "the private memory of this VM "
                         "(KVM_CAP_SEV_PRIVATE_MEM)");
        error_append_hint(errp, "A VM of the legacy type cannot: try "
                          "-object sev-guest,legacy-vm-type=off\n");
        return false;
    }
    return true;
}

/*
 * The guest makes its first hypercall since its reset.  It expects all pages
 * that it does not report as shared to be private, so convert all in-place
 * memory.  This includes pages that the guest never reports: ACPI tables and
 * runtime services, and memory that is hidden now but that a PAM register can
 * make visible later.
 */
bool sev_in_place_announce(SevMigration *m, Error **errp)
{
    unsigned nblocks = 0;
    RAMBlock *rb;

    if (m->announced) {
        return true;
    }
    m->announced = true;
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (!sev_ram_is_in_place(rb)) {
            continue;
        }
        if (encbitmap_convert(rb, 0, rb->max_length, true, NULL, errp) < 0) {
            return false;
        }
        nblocks++;
    }
    trace_sev_migration_announce(nblocks);
    return true;
}

/*
 * sev_in_place_announce() makes all in-place memory private at the guest's
 * first hypercall after a reset.  Memory that is plugged later is not part of
 * that, so make it private here.
 */
bool sev_guest_memfd_added(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                           Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);

    QEMU_LOCK_GUARD(&m->lock);
    return !m->announced ||
           !encbitmap_convert(rb, 0, rb->max_length, true, NULL, errp);
}

void sev_in_place_reset(SevMigration *m)
{
    m->announced = false;
}

void sev_in_place_received(SevMigration *m)
{
    QEMU_LOCK_GUARD(&m->lock);
    m->announced = true;
}
