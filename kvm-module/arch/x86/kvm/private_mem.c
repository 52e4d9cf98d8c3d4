// SPDX-License-Identifier: GPL-2.0
/* The parts of in-place mode that depend on the type of an x86 VM */
#include <linux/highmem.h>
#include <linux/kvm-page-enc.h>
#include <linux/kvm_host.h>

#include <asm/cacheflush.h>

#include "mmu.h"

/* The arguments of kvm_private_mem_setup() */
static u32 private_mem_types;
static unsigned int private_mem_packet;

/**
 * kvm_private_mem_setup - let user space request in-place mode for VMs of some types
 * @types: mask of the types (KVM_X86_*_VM) that the host supports and whose firmware
 *	takes no part in conversions; can be 0
 * @packet: number of contiguous pages that one command of the firmware can handle, a
 *	power of two
 *
 * The vendor module calls this function each time that it is loaded, before there are
 * VMs.
 */
void kvm_private_mem_setup(u32 types, unsigned int packet)
{
	private_mem_types = types;
	private_mem_packet = packet;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_private_mem_setup);

/*
 * Can KVM_CAP_SEV_PRIVATE_MEM be enabled on @kvm?  If @kvm is NULL: can the host have
 * any VM on which it can be enabled?
 */
static bool kvm_private_mem_supported(struct kvm *kvm)
{
	return kvm ? private_mem_types & BIT(kvm->arch.vm_type) : private_mem_types;
}

/* Has user space put @kvm into in-place mode with KVM_CAP_SEV_PRIVATE_MEM? */
bool kvm_private_mem_enabled(struct kvm *kvm)
{
	return kvm_gmem_in_place(kvm) && kvm_private_mem_supported(kvm);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_private_mem_enabled);

#ifdef CONFIG_KVM_SW_PROTECTED_VM
/*
 * Module parameter: create software-protected VMs in in-place mode.  VMs of the
 * types that the vendor module has set up do not need it, because user space requests
 * the mode for each of them with KVM_CAP_SEV_PRIVATE_MEM.  Linux 7.4 has a parameter
 * of the same name for VMs of other types.  Only builds for tests support
 * software-protected VMs.
 */
static bool gmem_in_place_conversion;
module_param(gmem_in_place_conversion, bool, 0644);
#endif

/**
 * kvm_arch_gmem_in_place - is a new VM in in-place mode from the beginning?
 * @type: KVM_X86_*_VM
 *
 * VMs of the types that the vendor module has set up (kvm_private_mem_setup()) enter
 * the mode later (kvm_private_mem_enable()).  VMs whose firmware also keeps track of
 * private pages never do, because the firmware would have to take part in each
 * conversion.
 */
bool kvm_arch_gmem_in_place(unsigned long type)
{
#ifdef CONFIG_KVM_SW_PROTECTED_VM
	return type == KVM_X86_SW_PROTECTED_VM &&
	       READ_ONCE(gmem_in_place_conversion);
#else
	return false;
#endif
}

/**
 * kvm_arch_gmem_block - number of pages that a guest_memfd allocates together
 * @kvm: the VM, in in-place mode
 *
 * One command of the firmware can handle several pages if they are contiguous in
 * memory, so a VM with such firmware allocates several pages together.  Other VMs would
 * gain nothing from contiguous pages, so they get 1.
 *
 * Return: a power of two.
 */
unsigned int kvm_arch_gmem_block(struct kvm *kvm)
{
	return kvm_private_mem_enabled(kvm) ? private_mem_packet : 1;
}

/* Are private pages unencrypted, so that KVM can read and write the guest's data? */
bool kvm_arch_may_access_private_mem(struct kvm *kvm)
{
	return kvm->arch.vm_type == KVM_X86_SW_PROTECTED_VM;
}

/**
 * kvm_arch_gmem_flush - flush the cache lines of a page that KVM has written
 * @page: page of an encrypted guest's guest_memfd, written through KVM's own mapping
 *
 * This is only needed on processors whose caches are not coherent between encrypted
 * and unencrypted mappings of a page.
 */
void kvm_arch_gmem_flush(struct page *page)
{
	void *at;

	if (this_cpu_has(X86_FEATURE_SME_COHERENT))
		return;

	at = kmap_local_page(page);
	clflush_cache_range(at, PAGE_SIZE);
	kunmap_local(at);
}

/**
 * kvm_private_mem_arch_extension - handle KVM_CHECK_EXTENSION
 * @kvm: the VM, or NULL for the system
 * @cap: KVM_CAP_SEV_PRIVATE_MEM or KVM_CAP_SEV_UPDATE_BATCH
 */
int kvm_private_mem_arch_extension(struct kvm *kvm, long cap)
{
	if (cap == KVM_CAP_SEV_PRIVATE_MEM)
		return kvm_private_mem_supported(kvm);
	if (!kvm_private_mem_supported(NULL))
		return 0;
	return kvm && !kvm_gmem_in_place(kvm) ? 1 : private_mem_packet;
}

/**
 * kvm_private_mem_enable - handle KVM_ENABLE_CAP of KVM_CAP_SEV_PRIVATE_MEM
 * @kvm: the VM
 * @cap: the argument
 *
 * Fails with EBUSY if the VM already has a vCPU, a memory slot or a guest_memfd.
 * In-place mode removes the address space for SMM, and vCPUs and slots depend on the
 * number of address spaces.  A guest_memfd that was created before the VM entered the
 * mode does not keep attributes.
 */
int kvm_private_mem_enable(struct kvm *kvm, struct kvm_enable_cap *cap)
{
	int r = -EBUSY;

	if (!kvm_private_mem_supported(kvm) ||
	    memchr_inv(cap->args, 0, sizeof(cap->args)))
		return -EINVAL;

	mutex_lock(&kvm->lock);
	mutex_lock(&kvm->slots_lock);
	if (kvm_gmem_in_place(kvm)) {
		r = 0;
	} else if (!kvm->created_vcpus && !kvm->nr_memslot_pages &&
		   !kvm->gmem_created) {
		kvm->arch.has_private_mem = true;
		WRITE_ONCE(kvm->gmem_in_place, true);
		r = 0;
	}
	mutex_unlock(&kvm->slots_lock);
	mutex_unlock(&kvm->lock);
	return r;
}

/**
 * kvm_private_mem_fault_raced - was a fault overtaken by a conversion?
 * @vcpu: the vCPU that took the fault
 * @prefetch: KVM prefetches the page, and the guest does not wait for it
 *
 * Called for a private fault on a shared page, or a shared fault on a private
 * page.  In in-place mode, KVM derives the kind of a fault from the attributes.
 * If the kind of the fault and the attributes differ, a conversion must have
 * changed the attributes after the fault.  User space would interpret an exit
 * for such a fault as a request to convert the page back, so KVM lets the guest
 * retry the access instead.
 */
bool kvm_private_mem_fault_raced(struct kvm_vcpu *vcpu, bool prefetch)
{
	return kvm_gmem_in_place(vcpu->kvm) && !prefetch &&
	       !is_guest_mode(vcpu);
}
