/*
 * Migration of SEV guests: setup of the VM, and operations for migration/
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest reports which of its pages are private (sev-page-state.c) and
 * agrees to be migrated (sev-consent.c).  The firmware packs private pages for
 * the destination's firmware (sev-send.c) and unpacks them there
 * (sev-receive.c). docs/specs/sev-migration-payload.rst has the format.
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qapi/qapi-visit-common.h"
#include "qemu/error-report.h"
#include "cpu.h"
#include "kvm/kvm_i386.h"
#include "migration/blocker.h"
#include "sev.h"
#include "sev-helper.h"
#include "sev-migration-internal.h"
#include "system/confidential-guest-migration.h"
#include "system/kvm.h"
#include "system/reset.h"
#include "trace.h"

static void sev_migration_reset(void *opaque)
{
    ConfidentialGuestSupport *cgs = opaque;
    SevMigration *m = sev_guest_migration(cgs);

    switch (sev_guest_state(cgs)) {
    case SEV_STATE_RUNNING:
    case SEV_STATE_SEND_UPDATE:
    case SEV_STATE_SENT:
        break;
    default:
        /* The guest has not run yet */
        return;
    }
    sev_consent_reset(m);
    sev_page_state_reset(m);
}

/*
 * Whether KVM lets QEMU handle the guest's calls of KVM_HC_MAP_GPA_RANGE and
 * its accesses to MSR_KVM_MIGRATION_CONTROL
 */
static bool kernel_offers(Error **errp)
{
    int hc = kvm_vm_check_extension(kvm_state, KVM_CAP_EXIT_HYPERCALL);
    int msr = kvm_vm_check_extension(kvm_state, KVM_CAP_X86_USER_SPACE_MSR);

    if (hc <= 0 || !(hc & BIT(KVM_HC_MAP_GPA_RANGE))) {
        error_setg(errp, "SEV: the host's KVM does not hand "
                   "KVM_HC_MAP_GPA_RANGE to QEMU (KVM_CAP_EXIT_HYPERCALL)");
    } else if (msr <= 0) {
        error_setg(errp, "SEV: the host's KVM does not hand MSRs to QEMU "
                   "(KVM_CAP_X86_USER_SPACE_MSR)");
    } else if (!kvm_enable_hypercall(BIT_ULL(KVM_HC_MAP_GPA_RANGE))) {
        error_setg(errp, "SEV: KVM_CAP_EXIT_HYPERCALL cannot be enabled");
    } else {
        return true;
    }
    return false;
}

bool sev_migration_kvm_init(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    uint32_t policy = sev_guest_policy(cgs);
    Error *why = NULL;

    sev_page_state_init(m);
    if (m->mode == ON_OFF_AUTO_OFF) {
        error_setg(&why, "SEV: migration is switched off (sev-guest "
                   "property migration=off)");
    } else if (policy & SEV_POLICY_ES) {
        error_setg(&why, "SEV: policy 0x%x has ES (0x%x), and the register "
                   "state of SEV-ES guests cannot be sent", policy,
                   SEV_POLICY_ES);
    } else if (kernel_offers(&why)) {
        m->enabled = true;
        qemu_register_reset(sev_migration_reset, cgs);
        if (policy & SEV_POLICY_NOSEND) {
            error_setg(&why, "SEV: policy 0x%x has NOSEND (0x%x): the guest's "
                       "owner does not allow it to leave this host", policy,
                       SEV_POLICY_NOSEND);
        }
    }
    trace_sev_migration_offer(m->enabled, why ? error_get_pretty(why) : "yes");
    if (!m->enabled && m->mode == ON_OFF_AUTO_ON) {
        error_propagate(errp, why);
        return false;
    }
    if (why) {
        m->reason = why;
        if (migrate_add_blocker(&m->reason, errp) < 0) {
            return false;
        }
    }
    if (!sev_helper_kvm_init(cgs, errp)) {
        return false;
    }
    return true;
}

static bool sev_can_run(ConfidentialGuestSupport *cgs, Error **errp)
{
    switch (sev_guest_state(cgs)) {
    case SEV_STATE_UNINIT:
    case SEV_STATE_RECEIVE_UPDATE:
        error_setg(errp, "SEV: the guest cannot run, because it has not "
                   "arrived by migration: migrate it again to a new QEMU");
        return false;
    default:
        return true;
    }
}

bool sev_must_finish_launch(ConfidentialGuestSupport *cgs)
{
    Error *err = NULL;

    switch (sev_guest_state(cgs)) {
    case SEV_STATE_LAUNCH_UPDATE:
    case SEV_STATE_LAUNCH_SECRET:
        return true;
    case SEV_STATE_RUNNING:
    case SEV_STATE_SEND_UPDATE:
    case SEV_STATE_SENT:        /* taken back: send_done() sends SEND_CANCEL */
        return false;
    default:
        /*
         * The vCPUs are about to run, but the guest has not arrived.  No caller
         * can handle an error, so end QEMU.
         */
        sev_can_run(cgs, &err);
        error_report_err(err);
        exit(1);
    }
}

static const ConfidentialGuestMigrationOps sev_migration_ops = {
    .can_send = sev_can_send,
    .is_willing = sev_is_willing,
    .send_start = sev_send_start,
    .send_data = sev_helper_send_data,
    .send_ready = sev_helper_send_ready,
    .send_round = sev_helper_send_round,
    .send_pages = sev_send_pages,
    .send_final = sev_send_final,
    .send_completed = sev_send_completed,
    .send_done = sev_send_done,
    .send_calls = sev_send_calls,
    .send_helper = sev_helper_sent,
    .receive_start = sev_receive_start,
    .receive_data = sev_helper_receive_data,
    .receive_private = sev_helper_receive_private,
    .receive_pages = sev_receive_pages,
    .receive_final = sev_receive_final,
    .can_run = sev_can_run,
    .send_answer = sev_send_answer,
    .receive_answer = sev_receive_answer,
    .prepare_guest_memfd = sev_prepare_guest_memfd,
    .guest_memfd_added = sev_guest_memfd_added,
};

static void get_mode(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(obj);
    OnOffAuto mode = sev_guest_migration(cgs)->mode;

    visit_type_OnOffAuto(v, name, &mode, errp);
}

static void set_mode(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(obj);

    if (cgs->ready) {
        error_setg(errp, "%s cannot be changed once the guest is made", name);
        return;
    }
    visit_type_OnOffAuto(v, name, &sev_guest_migration(cgs)->mode, errp);
}

void sev_migration_class_init(ObjectClass *oc)
{
    ConfidentialGuestSupportClass *klass = CONFIDENTIAL_GUEST_SUPPORT_CLASS(oc);

    klass->migration = &sev_migration_ops;
    X86_CONFIDENTIAL_GUEST_CLASS(oc)->mask_cpuid_features = sev_consent_cpuid;
    sev_helper_class_init(oc);
    object_class_property_add(oc, "migration", "OnOffAuto", get_mode, set_mode,
                              NULL, NULL);
    object_class_property_set_description(oc, "migration",
            "offer the guest what it needs to be migrated (auto: if the kernel can)");
}
