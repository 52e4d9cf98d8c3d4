// SPDX-License-Identifier: GPL-2.0
/*
 * KVM's own accesses to private pages of guest_memfds.
 *
 * A private page has no host address (the hook in __gfn_to_hva_many() says so
 * to all who ask for one), whatever user space has mapped there.  What becomes
 * of the access depends on whose secret the page is:
 *
 * - of a software-protected VM, KVM is what protects it, and has to read it to
 *   do its work: instructions, page tables and operands that it emulates.  It
 *   takes the page from the guest_memfd;
 * - of an SEV VM, all that KVM could read is ciphertext, and what it wrote would
 *   destroy the guest's data: EFAULT.
 *
 * Structures that KVM shares with a guest by agreement (kvmclock, steal time,
 * Xen's and Hyper-V's pages) are looked up by address and so left alone for as
 * long as their page is private, for either kind of VM.
 */
#include <linux/file.h>
#include <linux/highmem.h>
#include <linux/kvm_host.h>
#include <linux/pagemap.h>

#include "gmem_attributes.h"

/* For kvm_gmem_slot_is_private(), when the slot's flag says that it can be */
bool __kvm_gmem_slot_is_private(const struct kvm_memory_slot *slot, gfn_t gfn)
{
	struct gmem_attributes *attributes;
	struct file *file;
	pgoff_t index;
	bool private;

	file = kvm_slot_get_attributes(slot, &attributes);
	if (!file)
		return false;

	index = gfn - slot->base_gfn + slot->gmem.pgoff;
	private = gmem_attributes_is_private(attributes, index);
	fput(file);
	return private;
}

/* The same by gfn alone, for callers that have no slot yet */
bool kvm_gmem_gfn_is_private(struct kvm *kvm, gfn_t gfn)
{
	return kvm_gmem_in_place(kvm) &&
	       kvm_gmem_slot_is_private(gfn_to_memslot(kvm, gfn), gfn);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gmem_gfn_is_private);

/*
 * The folio of a private page that KVM may touch, with a reference.  It may be
 * converted meanwhile, which moves nothing.
 */
static struct folio *gmem_get_private(const struct kvm_memory_slot *slot,
				      gfn_t gfn, bool may_sleep)
{
	struct gmem_attributes *attributes;
	struct folio *folio;
	struct file *file;
	pgoff_t index;

	file = kvm_slot_get_attributes(slot, &attributes);
	if (!file)
		return ERR_PTR(-EFAULT);

	index = gfn - slot->base_gfn + slot->gmem.pgoff;
	if (!attributes->kvm_may_access ||
	    !gmem_attributes_is_private(attributes, index)) {
		folio = ERR_PTR(-EFAULT);
	} else if (may_sleep) {
		folio = kvm_gmem_get_folio(file_inode(file), index);
		if (!IS_ERR(folio)) {
			kvm_gmem_clear_new_folio(folio);
			folio_unlock(folio);
		}
	} else {
		folio = filemap_get_folio(file->f_mapping, index);
		if (!IS_ERR(folio) && !folio_test_uptodate(folio)) {
			folio_put(folio);
			folio = ERR_PTR(-EFAULT);
		}
	}
	fput(file);

	if (!IS_ERR(folio) && folio_test_hwpoison(folio)) {
		folio_put(folio);
		return ERR_PTR(-EFAULT);
	}
	return folio;
}

/**
 * kvm_gmem_read_private - read from a private page, where KVM may
 * @slot: memory slot of @gfn, or NULL; the caller holds kvm->srcu or slots_lock
 * @gfn: the page
 * @data: out: the bytes
 * @offset: of the first in the page
 * @len: how many, none past the end of the page
 * @may_sleep: a page that is not there yet can be allocated
 *
 * Return: 0, or -EFAULT: not private, not KVM's to read, or there is no page.
 */
int kvm_gmem_read_private(const struct kvm_memory_slot *slot, gfn_t gfn,
			  void *data, int offset, int len, bool may_sleep)
{
	struct folio *folio = gmem_get_private(slot, gfn, may_sleep);

	if (IS_ERR(folio))
		return -EFAULT;
	memcpy_from_folio(data, folio, offset, len);
	folio_put(folio);
	return 0;
}

/**
 * kvm_gmem_write_private - write to a private page, where KVM may
 * @slot: memory slot of @gfn, or NULL; the caller holds kvm->srcu or slots_lock
 * @gfn: the page
 * @data: the bytes
 * @offset: of the first in the page
 * @len: how many, none past the end of the page
 *
 * The caller marks the page dirty.
 *
 * Return: 0, or -EFAULT: not private, not KVM's to write, or there is no page.
 */
int kvm_gmem_write_private(const struct kvm_memory_slot *slot, gfn_t gfn,
			   const void *data, int offset, int len)
{
	struct folio *folio = gmem_get_private(slot, gfn, true);

	if (IS_ERR(folio))
		return -EFAULT;
	memcpy_to_folio(folio, offset, data, len);
	folio_put(folio);
	return 0;
}

#define gmem_cmpxchg(type, at, old, new) \
	try_cmpxchg((type *)(at), (type *)(old), *(const type *)(new))

/**
 * kvm_gmem_cmpxchg_private - compare and exchange in a private page
 * @vcpu: the vCPU whose instruction it is
 * @gpa: guest address, aligned to @bytes or at least within one page
 * @old: in: what should be there; out: what is, if that is something else
 * @new: what it becomes
 * @bytes: 1, 2, 4 or 8
 *
 * The caller holds kvm->srcu and marks the page dirty.
 *
 * Return: 0 if it was exchanged, 1 if not, -EFAULT as kvm_gmem_write_private().
 */
int kvm_gmem_cmpxchg_private(struct kvm_vcpu *vcpu, gpa_t gpa, void *old,
			     const void *new, unsigned int bytes)
{
	gfn_t gfn = gpa_to_gfn(gpa);
	struct folio *folio;
	bool done;
	void *at;

	folio = gmem_get_private(kvm_vcpu_gfn_to_memslot(vcpu, gfn), gfn, true);
	if (IS_ERR(folio))
		return -EFAULT;

	at = kmap_local_folio(folio, offset_in_page(gpa));
	switch (bytes) {
	case 1:
		done = gmem_cmpxchg(u8, at, old, new);
		break;
	case 2:
		done = gmem_cmpxchg(u16, at, old, new);
		break;
	case 4:
		done = gmem_cmpxchg(u32, at, old, new);
		break;
	default:
		done = gmem_cmpxchg(u64, at, old, new);
		break;
	}
	kunmap_local(at);
	folio_put(folio);
	return !done;
}
