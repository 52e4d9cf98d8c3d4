// SPDX-License-Identifier: GPL-2.0
/* Memory slots whose guest_memfd keeps attributes: what may change, and when. */
#include <linux/file.h>
#include <linux/kvm_host.h>

#include "gmem_attributes.h"

/**
 * kvm_gmem_creating - a guest_memfd is about to be created for @kvm
 * @kvm: the VM
 *
 * Whether it keeps attributes cannot be changed afterwards, so the VM cannot be
 * changed to one whose guest_memfds do.  Takes kvm->lock, under which
 * kvm_private_mem_enable() looks.
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
 * Conversions have to be in it, and have no vCPU whose ring could take them:
 * with rings, a slot needs a bitmap, too (KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP).
 */
bool kvm_gmem_can_log_dirty(struct kvm *kvm)
{
	return kvm_gmem_in_place(kvm) && kvm_use_dirty_bitmap(kvm);
}

/**
 * kvm_gmem_can_change_flags - may a guest_memfd slot's flags change to @mem's?
 * @slot: as it is now
 * @mem: as it is asked for
 *
 * Its memory has to stay where and what it is.  The caller holds slots_lock.
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
