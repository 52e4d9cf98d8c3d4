/*
 * Functions that the files of SEV migration share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A file calls only functions of files above it in this header.  The files of
 * the helper (sev-helper.h) are between sev-consent.c and sev-send.c.  No file
 * calls functions of sev-migration.c or sev-qmp.c.
 */
#ifndef TARGET_I386_SEV_MIGRATION_INTERNAL_H
#define TARGET_I386_SEV_MIGRATION_INTERNAL_H

#include "exec/cpu-common.h"
#include "exec/target_page.h"
#include "sev-certificates.h"
#include "sev-migration-error.h"
#include "sev-migration.h"
#include "sev-packets.h"
#include "system/confidential-guest-support.h"
#include "../confidential-guest.h"

/* sev-guest.c */

/**
 * sev_migration_guest: the machine's sev-guest, or NULL if the machine has
 * none (an SNP guest is not a sev-guest)
 */
ConfidentialGuestSupport *sev_migration_guest(void);

/** sev_guest_policy: the policy of @cgs, which is a sev-guest */
uint32_t sev_guest_policy(ConfidentialGuestSupport *cgs);

/**
 * sev_guest_cmd: run command @cmd of KVM_MEMORY_ENCRYPT_OP for @cgs, which is
 * a sev-guest
 * @data: argument of the command, or NULL
 * @fw_error: returns the firmware's status.  It is not positive if the kernel
 *            did not ask the firmware
 *
 * Returns 0 or -errno.
 */
int sev_guest_cmd(ConfidentialGuestSupport *cgs, int cmd, void *data,
                  int *fw_error);

/* sev-machine.c */

/** sev_ram_below_4g: bytes of the machine's RAM at addresses below 4 GiB */
uint64_t sev_ram_below_4g(void);

/* sev-page-state.c */

/** sev_ram_is_guest_ram: whether @rb belongs to a memory backend */
bool sev_ram_is_guest_ram(const RAMBlock *rb);

/** sev_page_state_init: to be called once, when the VM is made.  BQL. */
void sev_page_state_init(SevMigration *m);

/**
 * sev_page_state_reset: give all pages the state that the guest's firmware
 * expects when it starts.  BQL, vCPUs stopped.
 */
void sev_page_state_reset(SevMigration *m);

/**
 * sev_page_state_known: whether no conversion has failed since the guest's
 * reset.  If one has failed, the state of pages is unknown, and @errp is set.
 * Any thread.
 */
bool sev_page_state_known(SevMigration *m, Error **errp);

/* sev-cache.c */

/**
 * sev_cache_flush_shared: flush all shared pages from the host's caches, if its
 * processor needs that.  The destination must call this function before it
 * starts the guest.
 */
void sev_cache_flush_shared(void);

/**
 * sev_cache_flush_pages: flush pages from the host's caches, if its processor
 * needs that.  Of the @npages pages from byte @offset of @rb on, the function
 * flushes those that are shared and have memory.  It must be called before the
 * pages become private, because QEMU cannot access private in-place memory.
 */
void sev_cache_flush_pages(RAMBlock *rb, uint64_t offset, uint64_t npages);

/* sev-consent.c */

/**
 * sev_consent_cpuid: implements X86ConfidentialGuestClass.mask_cpuid_features.
 * The features kvm-hc-map-gpa-range and kvm-migration-control are supported.
 * @value contains the features of one CPUID register that KVM supports.  If the
 * register has the bits of these two features, and QEMU offers them to this
 * guest, the function sets both bits in the value that it returns.
 */
uint32_t sev_consent_cpuid(X86ConfidentialGuest *cg, uint32_t feature,
                           uint32_t index, int reg, uint32_t value);

/**
 * sev_consent_reset: forget the guest's consent, because a reset starts the
 * guest again.  BQL.
 */
void sev_consent_reset(SevMigration *m);

/**
 * sev_consent_received: record the value that MSR_KVM_MIGRATION_CONTROL had at
 * the source
 */
void sev_consent_received(SevMigration *m, uint64_t control);

/** sev_consent_value: MSR_KVM_MIGRATION_CONTROL.  Any thread. */
uint64_t sev_consent_value(SevMigration *m);

/**
 * sev_consent_given: whether the guest agrees to be migrated.  If not, @errp
 * is set.  Any thread.
 */
bool sev_consent_given(SevMigration *m, Error **errp);

/* sev-send.c */

/**
 * sev_can_leave: whether the guest can be sent, once the certificates of the
 * destination's platform are set.  The function does not check whether they are
 * set.  If the guest cannot be sent, @errp is set.  BQL.
 */
bool sev_can_leave(ConfidentialGuestSupport *cgs, Error **errp);

/*
 * The following functions implement members of ConfidentialGuestMigrationOps.
 * The name of a member is the name of its function without the prefix sev_.
 */
bool sev_is_willing(ConfidentialGuestSupport *cgs, Error **errp);
bool sev_can_send(ConfidentialGuestSupport *cgs, Error **errp);
bool sev_send_start(ConfidentialGuestSupport *cgs, GByteArray *session,
                    Error **errp);
int sev_send_pages(ConfidentialGuestSupport *cgs, unsigned channel,
                   RAMBlock *rb, uint64_t offset, size_t npages,
                   GByteArray *out, Error **errp);
bool sev_send_final(ConfidentialGuestSupport *cgs, GByteArray *final,
                    Error **errp);
uint64_t sev_send_calls(ConfidentialGuestSupport *cgs);
void sev_send_completed(ConfidentialGuestSupport *cgs);
void sev_send_done(ConfidentialGuestSupport *cgs, bool finish);

/* sev-receive.c: more of these members */
bool sev_receive_start(ConfidentialGuestSupport *cgs, const uint8_t *session,
                       size_t len, Error **errp);
bool sev_receive_pages(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                       uint64_t offset, size_t npages, const uint8_t *in,
                       size_t len, Error **errp);
bool sev_receive_final(ConfidentialGuestSupport *cgs, const uint8_t *final,
                       size_t len, Error **errp);

/* sev-answer.c: more of these members */
bool sev_send_answer(ConfidentialGuestSupport *cgs, const uint8_t *data,
                     size_t len, Error **errp);
void sev_receive_answer(ConfidentialGuestSupport *cgs, GByteArray *answer);

#endif
