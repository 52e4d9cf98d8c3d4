// SPDX-License-Identifier: GPL-2.0
/* x86 VMs whose private memory is what attributes of guest_memfds say. */
#include <linux/highmem.h>
#include <linux/kvm-page-enc.h>
#include <linux/kvm_host.h>

#include <asm/cacheflush.h>

#include "mmu.h"
#include "x86.h"

/* Is KVM_CAP_SEV_PRIVATE_MEM enabled? */
bool kvm_private_mem_enabled(struct kvm *kvm)
{
	return kvm_gmem_in_place(kvm) && kvm->arch.vm_type == KVM_X86_SEV_VM;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_private_mem_enabled);

#ifdef CONFIG_KVM_SW_PROTECTED_VM
/*
 * Are software-protected VMs that are created from now on in in-place mode?
 * SEV VMs are asked one by one (KVM_CAP_SEV_PRIVATE_MEM), and Linux 7.4 has this
 * parameter for the VMs of other types.  Only builds for tests have
 * software-protected VMs.
 */
static bool gmem_in_place_conversion;
module_param(gmem_in_place_conversion, bool, 0644);
#endif

/**
 * kvm_arch_gmem_in_place - does a new VM begin in in-place mode?
 * @type: KVM_X86_*_VM
 *
 * The firmware of SNP and TDX knows which pages are private and would have to
 * agree to a conversion.  Of the other types, only KVM knows.
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

/* Is what KVM reads from a private page what the guest put there? */
bool kvm_arch_may_access_private_mem(struct kvm *kvm)
{
	return kvm->arch.vm_type == KVM_X86_SW_PROTECTED_VM;
}

/**
 * kvm_arch_gmem_flush - flush the lines of a page that KVM has written
 * @page: of an SEV guest's guest_memfd, written through KVM's own mapping
 *
 * The same as sev_clflush_pages(), and where that would do it: on processors
 * whose caches are not coherent across the C-bit.
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

/* Can KVM_CAP_SEV_PRIVATE_MEM be enabled, on @kvm or (NULL) on any VM? */
bool kvm_private_mem_supported(struct kvm *kvm)
{
	return kvm ? kvm->arch.vm_type == KVM_X86_SEV_VM :
		     kvm_caps.supported_vm_types & BIT(KVM_X86_SEV_VM);
}

/**
 * kvm_private_mem_enable - KVM_ENABLE_CAP of KVM_CAP_SEV_PRIVATE_MEM
 * @kvm: an SEV VM
 * @cap: the argument
 *
 * It takes SMM's address space away, so it must come before anything that
 * depends on how many there are; and before the first guest_memfd, which would
 * keep no attributes.
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
 * kvm_private_mem_fault_raced - is a fault of the other kind just a race?
 * @vcpu: that took it
 * @prefetch: nobody waits for it in the guest
 *
 * Where attributes are all that makes a fault private, one that disagrees with
 * them was overtaken by a conversion.  Telling user space would make it convert
 * the page back; let the guest try again.
 */
bool kvm_private_mem_fault_raced(struct kvm_vcpu *vcpu, bool prefetch)
{
	return kvm_gmem_in_place(vcpu->kvm) && !prefetch &&
	       !is_guest_mode(vcpu);
}
