/*
 * Live migration of SEV guests
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
#include "cpu-qom.h"
#include "system/kvm-private-access.h"
#include "sev-certificates.h"
#include "sev-migration-error.h"
#include "sev-packets.h"

struct ConfidentialGuestSupport;
struct kvm_run;

/**
 * SevMigration: what an SEV guest (not SNP) keeps for its migration
 * @mode: property "migration"
 * @enabled: the guest is offered the hypercall and the MSR
 * @reason: why the guest can never leave, NULL if it can (the blocker)
 * @control: MSR_KVM_MIGRATION_CONTROL; accessed atomically
 * @lock: serializes the guest's conversions; protects @announced
 * @announced: the guest has told the state of a page since its reset
 * @listener: finds memory backends that become RAM of the guest
 * @unmapped: host addresses of those that have not; BQL
 * @state_lost: a conversion failed, what is private is not known any more;
 *              accessed atomically
 * @cancel_due: the firmware did not take SEND_CANCEL: its session is open
 * @certificates: of the next destination, from migrate-set-sev-info, until a
 *                migration has completed; BQL
 * @hdr_len: of a packet, from the firmware, while sending
 * @send_faults: see sev_send_may_retry(); migration thread
 * @packets: while sending or receiving
 * @pages: sent or received
 */
typedef struct SevMigration {
    OnOffAuto mode;
    bool enabled;
    Error *reason;
    uint64_t control;
    QemuMutex lock;
    MemoryListener listener;
    GHashTable *unmapped;
    bool announced;
    bool state_lost;
    bool cancel_due;
    SevCertificates certificates;
    uint32_t hdr_len;
    unsigned send_faults;
    SevPackets packets;
    uint64_t pages;
} SevMigration;

#if defined(CONFIG_SEV) && !defined(CONFIG_USER_ONLY)

/**
 * sev_migration_class_init: what ConfidentialGuestSupportClass has for the
 * migration, and the property "migration"
 */
void sev_migration_class_init(ObjectClass *oc);

/**
 * sev_migration_kvm_init: decide whether the guest is offered the interface
 * for migration, and add the blocker if it can never leave.  When the VM is
 * made.
 */
bool sev_migration_kvm_init(struct ConfidentialGuestSupport *cgs,
                            Error **errp);

/**
 * sev_migration_needs_init2: must the VM be of the newer type (KVM_SEV_INIT2)?
 * @cgs: an SEV guest (not SNP)
 *
 * Never for a guest with SEV-ES, whose launch measurement that would change.
 */
bool sev_migration_needs_init2(struct ConfidentialGuestSupport *cgs);

/**
 * sev_migration_incoming: will it get its context from RECEIVE_START?  @cgs
 * is any SEV guest
 */
bool sev_migration_incoming(struct ConfidentialGuestSupport *cgs);

/**
 * sev_must_finish_launch: vCPUs are about to run: was the guest launched here,
 * just now?  Exits if it must not run.  @cgs is any SEV guest
 */
bool sev_must_finish_launch(struct ConfidentialGuestSupport *cgs);

/**
 * sev_migration_ram_added: a block at @host appeared
 *
 * Returns true if the caller need not pin its pages: it is a guest_memfd, or a
 * memory backend, which is pinned when it is mapped for the guest.
 */
bool sev_migration_ram_added(void *host);

/** sev_migration_ram_unpinned: a block disappears: is it not pinned? */
bool sev_migration_ram_unpinned(void *host);

/**
 * sev_migration_launch_update: @len bytes at @host are launched encrypted,
 * here or, on the destination of a migration, where the guest was launched
 */
void sev_migration_launch_update(void *host, uint64_t len);

/** sev_migration_info: for query-sev; the machine has a sev-guest.  BQL */
SevMigrationInfo *sev_migration_info(void);

/** sev_migration_print: the same for a person */
void sev_migration_print(Monitor *mon, const SevMigrationInfo *info);

/** sev_migration_enabled: is the guest offered hypercall and MSR? */
bool sev_migration_enabled(void);

/** sev_migration_kvm_features: bits for EAX of KVM_CPUID_FEATURES */
uint32_t sev_migration_kvm_features(void);

/**
 * sev_migration_handle_hypercall: KVM_HC_MAP_GPA_RANGE from the guest; puts
 * the guest's result into @run.  vCPU thread, without the BQL.  Returns 0:
 * nothing that a guest says stops the VM.
 */
int sev_migration_handle_hypercall(struct kvm_run *run);

/* Handlers for MSR_KVM_MIGRATION_CONTROL; false: the guest gets #GP */
bool sev_migration_rdmsr(X86CPU *cpu, uint32_t msr, uint64_t *val);
bool sev_migration_wrmsr(X86CPU *cpu, uint32_t msr, uint64_t val);

/** sev_guest_cmd: sev_ioctl() for @cgs */
int sev_guest_cmd(struct ConfidentialGuestSupport *cgs, int cmd, void *data,
                  int *fw_error);

/*
 * What sev.c offers to sev-migration.c.  @cgs is a sev-guest.
 */

/** sev_guest_migration: its migration state */
SevMigration *sev_guest_migration(struct ConfidentialGuestSupport *cgs);

/** sev_guest_state: where it is in its life; @cgs is any SEV guest */
SevState sev_guest_state(struct ConfidentialGuestSupport *cgs);
void sev_guest_set_state(struct ConfidentialGuestSupport *cgs,
                         SevState state);

/** sev_guest_fd: its /dev/sev; @cgs is any SEV guest */
int sev_guest_fd(struct ConfidentialGuestSupport *cgs);

/**
 * sev_ioctl: KVM_MEMORY_ENCRYPT_OP; @fd: see sev_guest_fd()
 *
 * Returns 0 or -errno; @error is the firmware's answer, 0 if it was not asked.
 */
int sev_ioctl(int fd, int cmd, void *data, int *error);

/**
 * sev_get_pdh_info: the platform's certificates; free with g_free.  Not 0
 * with @errp set if they cannot be had.
 */
int sev_get_pdh_info(int fd, uint8_t **pdh, size_t *pdh_len,
                     uint8_t **cert_chain, size_t *cert_chain_len,
                     Error **errp);

#else

static inline bool sev_migration_enabled(void)
{
    return false;
}

static inline uint32_t sev_migration_kvm_features(void)
{
    return 0;
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
