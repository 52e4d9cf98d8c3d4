// SPDX-License-Identifier: GPL-2.0
/* Find out whether a gfn is private, from the attributes of its guest_memfd or of its VM */
#include <linux/file.h>
#include <linux/kvm-page-enc.h>
#include <linux/kvm_host.h>

#include "gmem_attributes.h"

/**
 * kvm_slot_get_attributes - get the attributes that a slot's guest_memfd keeps
 * @slot: memory slot, or NULL; the caller holds kvm->srcu or kvm->slots_lock
 * @attributes: out: the attributes, valid until the caller drops the reference
 *
 * Return: a reference to the file, which the caller drops with fput(); or NULL if the
 * slot has no file that keeps attributes, or the file is being closed.
 */
struct file *kvm_slot_get_attributes(const struct kvm_memory_slot *slot,
				     struct gmem_attributes **attributes)
{
	struct file *file;

	/* Avoid the cost of a file reference for VMs that are not in in-place mode. */
	if (!kvm_gmem_slot_keeps_attributes(slot))
		return NULL;

	file = get_file_active((struct file **)&slot->gmem.file);
	if (!file)
		return NULL;

	*attributes = kvm_gmem_attributes(file);
	if (!*attributes) {
		fput(file);
		return NULL;
	}
	return file;
}

/**
 * kvm_mem_is_private - is a page of a guest private?
 * @kvm: the VM
 * @gfn: the page
 *
 * The caller holds kvm->srcu or kvm->slots_lock.  The page can be converted at any
 * time, so a caller that acts on the answer must check afterwards whether the page
 * was invalidated.
 */
bool kvm_mem_is_private(struct kvm *kvm, gfn_t gfn)
{
	struct gmem_attributes *attributes;
	struct kvm_memory_slot *slot;
	struct file *file;
	bool private;

	if (kvm_gmem_in_place(kvm)) {
		slot = gfn_to_memslot(kvm, gfn);
		file = kvm_slot_get_attributes(slot, &attributes);
		if (!file)
			return false;
		private = gmem_attributes_is_private(attributes,
				gfn - slot->base_gfn + slot->gmem.pgoff);
		fput(file);
		return private;
	}

	return kvm_get_memory_attributes(kvm, gfn) & KVM_MEMORY_ATTRIBUTE_PRIVATE;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_mem_is_private);

/**
 * kvm_private_mem_check_extension - handle KVM_CHECK_EXTENSION
 * @kvm: the VM, or NULL for the system
 * @cap: one of the capabilities that do not depend on the architecture
 */
int kvm_private_mem_check_extension(struct kvm *kvm, long cap)
{
	switch (cap) {
	case KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES:
		if (kvm && !kvm_gmem_in_place(kvm))
			return 0;
		return KVM_MEMORY_ATTRIBUTE_PRIVATE;
	case KVM_CAP_PAGE_ENC_BITMAP:
		return 1;
	case KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP:
		return kvm && kvm_gmem_in_place(kvm);
	default:
		return 0;
	}
}
