// SPDX-License-Identifier: GPL-2.0
/* Memory slots whose guest_memfd keeps attributes */
#include <linux/file.h>
#include <linux/kvm_host.h>

#include "gmem_attributes.h"

/**
 * kvm_gmem_creating - record that a guest_memfd is about to be created for @kvm
 * @kvm: the VM
 *
 * KVM decides when it creates the file whether the file keeps attributes, so
 * the VM cannot enter in-place mode afterwards.  kvm_private_mem_enable()
 * checks kvm->gmem_created and changes the mode under kvm->lock.  This function
 * takes kvm->lock, so the mode has either changed before this function returns,
 * or can no longer change.
 */
void kvm_gmem_creating(struct kvm *kvm)
{
	mutex_lock(&kvm->lock);
	kvm->gmem_created = true;
	mutex_unlock(&kvm->lock);
}

/**
 * kvm_gmem_can_log_dirty - may slots of guest_memfds have a dirty log?
 * @kvm: the VM; the caller holds slots_lock
 *
 * The log must contain conversions.  A dirty ring is per vCPU and a conversion has
 * no vCPU, so a VM with dirty rings needs a bitmap as well
 * (KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP).
 */
bool kvm_gmem_can_log_dirty(struct kvm *kvm)
{
	return kvm_gmem_in_place(kvm) && kvm_use_dirty_bitmap(kvm);
}

/**
 * kvm_gmem_can_change_flags - may a guest_memfd slot get the flags of @mem?
 * @slot: the existing slot
 * @mem: the slot that user space requests
 *
 * Only the flags may change, not the file, the offset or the gfn.  The caller holds
 * slots_lock.
 */
bool kvm_gmem_can_change_flags(struct kvm_memory_slot *slot,
			       const struct kvm_userspace_memory_region2 *mem)
{
	struct file *file;
	bool same;

	if (!kvm_slot_has_gmem(slot) ||
	    gpa_to_gfn(mem->guest_phys_addr) != slot->base_gfn)
		return false;

	file = fget(mem->guest_memfd);
	if (!file)
		return false;

	same = file == slot->gmem.file && kvm_gmem_attributes(file) &&
	       mem->guest_memfd_offset >> PAGE_SHIFT == slot->gmem.pgoff;
	fput(file);
	return same;
}
