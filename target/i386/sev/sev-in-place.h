/*
 * In-place memory of an SEV guest: guest_memfds that KVM converts in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TARGET_I386_SEV_IN_PLACE_H
#define TARGET_I386_SEV_IN_PLACE_H

#include "exec/cpu-common.h"
#include "system/kvm-private-access.h"

struct ConfidentialGuestSupport;
struct SevMigration;

/** sev_ram_is_in_place: whether @rb is in-place memory (a guest_memfd) */
bool sev_ram_is_in_place(const RAMBlock *rb);

/**
 * sev_migration_needs_init2: whether the VM must have the type KVM_X86_SEV_VM,
 * which KVM_SEV_INIT2 initializes, because the guest may have in-place memory.
 * False for a guest with SEV-ES, because another VM type would change its
 * launch measurement.
 * @cgs: a sev-guest
 */
bool sev_migration_needs_init2(struct ConfidentialGuestSupport *cgs);

/*
 * The following functions implement members of ConfidentialGuestMigrationOps.
 * The name of a member is the name of its function without the prefix sev_.
 */
bool sev_prepare_guest_memfd(struct ConfidentialGuestSupport *cgs,
                             Error **errp);
bool sev_guest_memfd_added(struct ConfidentialGuestSupport *cgs, RAMBlock *rb,
                           Error **errp);

/**
 * sev_in_place_announce: record that the guest has requested a conversion by a
 * hypercall.  The first call of this function after a reset makes all in-place
 * memory private.  Returns false with @errp set if that fails.
 *
 * Context: SevMigration.lock is held.
 */
bool sev_in_place_announce(struct SevMigration *m, Error **errp);

/**
 * sev_in_place_reset: record that the guest was reset and has made no hypercall
 * since
 *
 * Context: SevMigration.lock is held.
 */
void sev_in_place_reset(struct SevMigration *m);

/**
 * sev_in_place_received: record that the guest has arrived.  Its pages have the
 * state that they had at the source, so its next hypercall converts only the
 * pages that the hypercall names.
 *
 * Context: vCPUs are stopped.
 */
void sev_in_place_received(struct SevMigration *m);

#endif
