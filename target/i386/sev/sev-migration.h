/*
 * Migration of SEV guests: functions for sev.c, the KVM accelerator and the
 * machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TARGET_I386_SEV_MIGRATION_H
#define TARGET_I386_SEV_MIGRATION_H

#ifndef CONFIG_USER_ONLY
#include CONFIG_DEVICES /* CONFIG_SEV */
#endif

#include "qapi/qapi-types-common.h"
#include "qapi/qapi-types-misc-target.h"
#include "exec/cpu-common.h"
#include "exec/memory.h"
#include "cpu.h"
#include "sev-certificates.h"
#include "sev-helper-place.h"
#include "sev-in-place.h"
#include "sev-migration-error.h"
#include "sev-packets.h"

struct ConfidentialGuestSupport;
struct kvm_run;

/**
 * SevMigration: migration state of an SEV guest (not SNP).  It is a part of the
 * guest's sev-guest object.
 * @mode: the property "migration"
 * @enabled: QEMU offers the guest the hypercall KVM_HC_MAP_GPA_RANGE and
 *           MSR_KVM_MIGRATION_CONTROL.  Set once, when the VM is made
 * @reason: the migration blocker if this guest can never be migrated, or NULL
 * @control: value of MSR_KVM_MIGRATION_CONTROL; atomic
 * @lock: serializes the guest's conversions
 * @announced: the guest has made a hypercall since its reset; @lock
 * @listener: notices when a memory backend becomes RAM of the guest
 * @unpinned: host addresses of the memory backends that are not pinned; BQL
 * @state_lost: a conversion failed since the reset; atomic
 * @cancel_due: SEND_CANCEL failed, so the firmware's session is open; BQL
 * @certificates: of the next destination, from migrate-set-sev-info until a
 *                migration has completed; BQL
 * @hdr_len: bytes of a packet header; valid while a session to send is open
 * @send_faults: see sev_send_result(); migration thread
 * @packets: buffers and limits of packets; the thread that sends or receives
 * @pages: number of pages that the firmware has packed or unpacked in this
 *         session; the same thread
 * @finish_due: the firmware's session to receive is open; the same thread
 * @helper: the migration helper, or NULL if the guest has none (sev-helper.h)
 */
typedef struct SevMigration {
    OnOffAuto mode;
    bool enabled;
    Error *reason;
    uint64_t control;
    QemuMutex lock;
    MemoryListener listener;
    GHashTable *unpinned;
    bool announced;
    bool state_lost;
    bool cancel_due;
    SevCertificates certificates;
    uint32_t hdr_len;
    unsigned send_faults;
    SevPackets packets;
    uint64_t pages;
    bool finish_due;
    struct SevHelper *helper;
} SevMigration;

#if defined(CONFIG_SEV) && !defined(CONFIG_USER_ONLY)

/**
 * sev_migration_class_init: set up the class sev-guest for migration: the
 * operations, the CPUID bits and the property "migration"
 */
void sev_migration_class_init(ObjectClass *oc);

/**
 * sev_migration_kvm_init: decide whether QEMU offers the guest the hypercall
 * KVM_HC_MAP_GPA_RANGE and MSR_KVM_MIGRATION_CONTROL.  Add a migration blocker
 * if the guest can never be migrated.  To be called once, when the VM is made.
 * BQL.
 */
bool sev_migration_kvm_init(struct ConfidentialGuestSupport *cgs,
                            Error **errp);

/**
 * sev_migration_incoming: whether RECEIVE_START will create the firmware's
 * guest context.  If so, QEMU must not issue LAUNCH_START.
 * @cgs: any SEV guest
 */
bool sev_migration_incoming(struct ConfidentialGuestSupport *cgs);

/**
 * sev_must_finish_launch: whether LAUNCH_FINISH is due now that vCPUs are
 * about to run.  Ends QEMU if there is no guest to run, because the incoming
 * migration has not completed.
 * @cgs: any SEV guest
 */
bool sev_must_finish_launch(struct ConfidentialGuestSupport *cgs);

/**
 * sev_migration_ram_added: if the new RAMBlock at @host belongs to a memory
 * backend, record that the RAMBlock is not pinned
 *
 * Returns true after recording that.  The caller must then not pin the
 * RAMBlock: QEMU pins ordinary memory later, when the memory backend becomes
 * RAM of the guest, and never pins in-place memory.
 */
bool sev_migration_ram_added(void *host);

/**
 * sev_migration_ram_unpinned: a RAMBlock at @host is removed.  Returns true if
 * its pages were not pinned.
 */
bool sev_migration_ram_unpinned(void *host);

/**
 * sev_migration_launch_update: record in the encryption bitmap that the @len
 * bytes at @host are private
 *
 * The caller encrypts these bytes if it launches the guest.  At the destination
 * of a migration the caller does not encrypt them, but it calls this function,
 * too: the bytes are private in the guest that arrives, because they were
 * encrypted when the guest was launched.
 */
void sev_migration_launch_update(void *host, uint64_t len);

/**
 * sev_migration_info: the part of query-sev about migration.  The machine must
 * have a sev-guest.  BQL.
 */
SevMigrationInfo *sev_migration_info(void);

/** sev_migration_print: print @info for "info sev" */
void sev_migration_print(Monitor *mon, const SevMigrationInfo *info);

/**
 * sev_migration_enabled: whether QEMU offers the guest the hypercall
 * KVM_HC_MAP_GPA_RANGE and MSR_KVM_MIGRATION_CONTROL.  Any thread.
 */
bool sev_migration_enabled(void);

/**
 * sev_migration_cpu_props: CPU features that QEMU turns on by default for named
 * CPU models in this VM.  "-cpu host" does not need this list: it turns on all
 * supported features, and sev_consent_cpuid() reports these as supported.
 */
PropValue *sev_migration_cpu_props(void);

/**
 * sev_migration_handle_hypercall: the guest has called KVM_HC_MAP_GPA_RANGE.
 * Puts the result into @run.  Always returns 0, because no argument of a guest
 * may stop the VM.  vCPU thread, without the BQL.
 */
int sev_migration_handle_hypercall(struct kvm_run *run);

/*
 * vCPU threads call these handlers of MSR_KVM_MIGRATION_CONTROL without the
 * BQL.  If a handler returns false, the guest gets #GP.
 */
bool sev_migration_rdmsr(X86CPU *cpu, uint32_t msr, uint64_t *val);
bool sev_migration_wrmsr(X86CPU *cpu, uint32_t msr, uint64_t val);

/* Functions that sev.c offers to the files of this directory */

/** sev_guest_migration: migration state of @cgs, which is a sev-guest */
SevMigration *sev_guest_migration(struct ConfidentialGuestSupport *cgs);

/* State of @cgs, which is any SEV guest, as query-sev shows it */
SevState sev_guest_state(struct ConfidentialGuestSupport *cgs);
void sev_guest_set_state(struct ConfidentialGuestSupport *cgs,
                         SevState state);

/** sev_guest_fd: file descriptor of /dev/sev of @cgs, which is any SEV guest */
int sev_guest_fd(struct ConfidentialGuestSupport *cgs);

/**
 * sev_ioctl: run command @cmd of KVM_MEMORY_ENCRYPT_OP
 * @fd: from sev_guest_fd()
 * @data: argument of the command, or NULL
 * @error: returns the firmware's status.  A positive status is an error that
 *         the firmware reported.  If the kernel did not call the firmware, the
 *         status is 0 or negative
 *
 * Returns 0 or -errno.
 */
int sev_ioctl(int fd, int cmd, void *data, int *error);

/**
 * sev_get_pdh_info: ask the platform for its certificates, to be freed with
 * g_free.  Returns 0, or another value with @errp set.
 */
int sev_get_pdh_info(int fd, uint8_t **pdh, size_t *pdh_len,
                     uint8_t **cert_chain, size_t *cert_chain_len,
                     Error **errp);

#else

static inline bool sev_migration_enabled(void)
{
    return false;
}

static inline PropValue *sev_migration_cpu_props(void)
{
    static PropValue none[] = { { NULL, NULL } };

    return none;
}

static inline int sev_migration_handle_hypercall(struct kvm_run *run)
{
    g_assert_not_reached();
}

static inline bool sev_migration_rdmsr(X86CPU *cpu, uint32_t msr,
                                       uint64_t *val)
{
    g_assert_not_reached();
}

static inline bool sev_migration_wrmsr(X86CPU *cpu, uint32_t msr,
                                       uint64_t val)
{
    g_assert_not_reached();
}

#endif
#endif
