/*
 * guest_memfds whose pages KVM converts in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One guest_memfd is the guest's RAM and QEMU's mapping of it.  QEMU can access
 * a shared page through the mapping; an access to a private page raises SIGBUS.
 * The kernel keeps the state of each page, and RAMBlock.encbmap is a copy.
 */
#ifndef SYSTEM_KVM_PAGE_ENC_H
#define SYSTEM_KVM_PAGE_ENC_H

#include "exec/cpu-common.h"

/**
 * kvm_page_enc_prepare: prepare the VM for guest_memfds that convert in place
 * @errp: what the host, the machine or the guest does not allow
 *
 * Asks the kernel, and the platform through
 * ConfidentialGuestMigrationOps.prepare_guest_memfd.  It must succeed before
 * KVM has the first memory slot and vCPU; afterwards it only returns true.
 * A caller that gets an error can use other memory instead.
 *
 * Context: BQL.
 */
bool kvm_page_enc_prepare(Error **errp);

/**
 * kvm_page_enc_create_memfd: a guest_memfd that can be mapped and converted
 * @size: bytes, a multiple of the host's page size
 *
 * All pages start shared.  Calls kvm_page_enc_prepare().
 *
 * Context: BQL.
 * Returns: the file descriptor, or -1.
 */
int kvm_page_enc_create_memfd(uint64_t size, Error **errp);

/**
 * kvm_page_enc_init_block: set up a block that is such a guest_memfd
 * @rb: a new block (RAM_GUEST_MEMFD_IN_PLACE), whose pages are all shared
 * @errp: why the platform cannot use the block
 *
 * Gives the block its bitmap, and converts its pages to the state that the
 * guest expects at first.
 *
 * Context: BQL.
 */
bool kvm_page_enc_init_block(RAMBlock *rb, Error **errp);

/**
 * kvm_page_enc_memory_fault: handle a page that KVM could not map for the guest
 * @section: memory that begins with the page
 * @is_private: the state for which KVM looked
 * @ret: out: 0 if the page has changed its state meanwhile, and the vCPU can
 *       retry; otherwise -EFAULT, after a message
 *
 * Never converts the page.
 *
 * Returns: false if the page is not in a block of this kind.
 */
bool kvm_page_enc_memory_fault(const MemoryRegionSection *section,
                               bool is_private, int *ret);

/*
 * Can the VM have guest_memfd slots?  True also for a VM in in-place mode,
 * which has no memory attributes of its own.  Set before the first slot.
 */
extern bool kvm_guest_memfd_supported;

#endif
