/*
 * Consent of an SEV guest to be migrated
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest sets READY in MSR_KVM_MIGRATION_CONTROL when it reports all of its
 * conversions.  It can withdraw its consent at any time.
 */
#include "qemu/osdep.h"
#include <linux/kvm_para.h>
#include "qapi/error.h"
#include "cpu.h"
#include "sev-migration-internal.h"
#include "standard-headers/asm-x86/kvm_para.h"
#include "trace.h"

uint32_t sev_consent_cpuid(X86ConfidentialGuest *cg, uint32_t feature,
                           uint32_t index, int reg, uint32_t value)
{
    SevMigration *m = sev_guest_migration(CONFIDENTIAL_GUEST_SUPPORT(cg));

    /*
     * KVM does not report these two features as supported, because user space
     * implements them
     */
    if (feature == KVM_CPUID_FEATURES && reg == R_EAX && m->enabled) {
        value |= BIT(KVM_FEATURE_HC_MAP_GPA_RANGE) |
                 BIT(KVM_FEATURE_MIGRATION_CONTROL);
    }
    return value;
}

PropValue *sev_migration_cpu_props(void)
{
    static PropValue on[] = {
        { "kvm-hc-map-gpa-range", "on" },
        { "kvm-migration-control", "on" },
        { NULL, NULL },
    };
    static PropValue none[] = { { NULL, NULL } };

    return sev_migration_enabled() ? on : none;
}

bool sev_migration_rdmsr(X86CPU *cpu, uint32_t msr, uint64_t *val)
{
    *val = qatomic_read(&sev_guest_migration(sev_migration_guest())->control);
    return true;
}

bool sev_migration_wrmsr(X86CPU *cpu, uint32_t msr, uint64_t val)
{
    SevMigration *m = sev_guest_migration(sev_migration_guest());

    if (val & ~(uint64_t)KVM_MIGRATION_READY) {
        return false;
    }
    trace_sev_migration_control(val);
    qatomic_set(&m->control, val);
    return true;
}

void sev_consent_reset(SevMigration *m)
{
    trace_sev_migration_control(0);
    qatomic_set(&m->control, 0);
}

void sev_consent_received(SevMigration *m, uint64_t control)
{
    qatomic_set(&m->control, control);
}

uint64_t sev_consent_value(SevMigration *m)
{
    return qatomic_read(&m->control);
}

bool sev_consent_given(SevMigration *m, Error **errp)
{
    if (qatomic_read(&m->control) & KVM_MIGRATION_READY) {
        return true;
    }
    error_setg(errp, "SEV: the guest has not agreed to be migrated: READY is "
               "not set in MSR_KVM_MIGRATION_CONTROL, which Linux does while "
               "it boots, if the UEFI variable SevLiveMigrationEnabled exists");
    return false;
}
