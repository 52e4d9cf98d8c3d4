/*
 * guest_memfds whose pages KVM converts in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * RAM and mapping are one guest_memfd.  A shared page can be touched through
 * the mapping, a private one raises SIGBUS; the kernel keeps which is which,
 * and RAMBlock.encbmap is a copy of it.
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
 * kvm_page_enc_init_block: @rb, new and all shared, is mapped from such a
 * guest_memfd (RAM_GUEST_MEMFD_IN_PLACE): give it its bitmap, and its pages
 * the state in which the guest expects them.  BQL.
 */
bool kvm_page_enc_init_block(RAMBlock *rb, Error **errp);

/**
 * kvm_page_enc_memory_fault: KVM could not map a page for the guest
 * @section: it begins with the page
 * @is_private: what KVM took the page for
 * @ret: out: 0 if the page has changed its state since (the vCPU just tries
 *       again), -EFAULT with a message if it has not
 *
 * Returns false if the page is not of such a block.  Never converts.
 */
bool kvm_page_enc_memory_fault(const MemoryRegionSection *section,
                               bool is_private, int *ret);

/*
 * The VM can have guest_memfd slots; set before the first slot if it can
 * although it has no memory attributes of its own
 */
extern bool kvm_guest_memfd_supported;

#endif
