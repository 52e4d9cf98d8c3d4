/*
 * guest_memfds whose pages KVM converts in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU maps the same guest_memfd that contains the guest's RAM.  QEMU can
 * access a shared page through the mapping; an access to a private page raises
 * SIGBUS.
 *
 * The kernel keeps the state of each page, and RAMBlock.encbmap is a copy.
 */
#ifndef SYSTEM_KVM_PAGE_ENC_H
#define SYSTEM_KVM_PAGE_ENC_H

#include "exec/cpu-common.h"

/**
 * kvm_page_enc_prepare: prepare the VM for guest_memfds whose pages KVM
 * converts in place
 * @errp: what the host, the machine or the guest does not allow
 *
 * Checks that the kernel can convert pages in place, and calls
 * ConfidentialGuestMigrationOps.prepare_guest_memfd.  KVM can prepare a VM only
 * before the VM has a memory slot or a vCPU.  Once a call has succeeded, later
 * calls do nothing and return true.  A caller that gets an error can use memory
 * that is not a guest_memfd.
 *
 * Context: BQL.
 */
bool kvm_page_enc_prepare(Error **errp);

/**
 * kvm_page_enc_create_memfd: create a guest_memfd whose pages KVM converts in
 * place
 * @size: bytes, a multiple of the host's page size
 *
 * All pages start shared.  Calls kvm_page_enc_prepare().
 *
 * Context: BQL.
 * Returns: the file descriptor, or -1.
 */
int kvm_page_enc_create_memfd(uint64_t size, Error **errp);

/**
 * kvm_page_enc_init_block: set up a RAMBlock that is a guest_memfd with
 * in-place conversion
 * @rb: a new RAMBlock (RAM_GUEST_MEMFD_IN_PLACE), whose pages are all shared
 * @errp: why the platform cannot use the RAMBlock
 *
 * Creates the bitmap of the RAMBlock, and converts its pages to the state that
 * the guest expects at first.
 *
 * Context: BQL.
 */
bool kvm_page_enc_init_block(RAMBlock *rb, Error **errp);

/**
 * kvm_page_enc_memory_fault: handle a page that KVM could not map for the guest
 * @section: memory that begins with the page
 * @is_private: whether KVM has reported a private access
 * @ret: out: 0 if the page's state does not match @is_private.  The guest has
 *       then converted the page since KVM reported the access, and the vCPU can
 *       retry.  -EFAULT if the state matches: then no conversion explains why
 *       KVM could not map the page, so the function reports an error.
 *
 * Never converts the page.
 *
 * Returns: false, without setting @ret, if the page is not in a guest_memfd
 * that is converted in place.
 */
bool kvm_page_enc_memory_fault(const MemoryRegionSection *section,
                               bool is_private, int *ret);

/*
 * Can the VM have guest_memfd slots?  kvm-all.c sets this variable if the VM
 * has memory attributes.  A VM in in-place mode has none, so
 * kvm_page_enc_prepare() sets the variable for it, before the first slot.
 */
extern bool kvm_guest_memfd_supported;

#endif
