// SPDX-License-Identifier: GPL-2.0
/*
 * KVM's own accesses to private pages of guest_memfds.
 *
 * A private page has no host address, even if user space has mapped its file: the
 * hook in __gfn_to_hva_many() returns an error.  The result of an access depends
 * on @kvm_may_access of the file's attributes:
 *
 * - true (a software-protected VM): in order to emulate instructions, KVM must read
 *   the guest's instructions, page tables and operands.  KVM accesses the page in the
 *   guest_memfd.
 * - false (the page is encrypted): KVM would read ciphertext, and KVM's writes would
 *   destroy the guest's data.  The access fails with EFAULT.
 *
 * KVM uses host addresses to access structures that it shares with the guest
 * (kvmclock, steal time, pages of Xen and Hyper-V).  If the page of such a structure
 * is private, KVM does not access the structure, whether @kvm_may_access is set or not.
 */
#include <linux/file.h>
#include <linux/highmem.h>
#include <linux/kvm_host.h>
#include <linux/pagemap.h>

#include "gmem_attributes.h"

/* Slow path of kvm_gmem_slot_is_private(), for slots whose file keeps attributes */
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

/* kvm_gmem_slot_is_private() for callers that have no slot */
bool kvm_gmem_gfn_is_private(struct kvm *kvm, gfn_t gfn)
{
	return kvm_gmem_in_place(kvm) &&
	       kvm_gmem_slot_is_private(gfn_to_memslot(kvm, gfn), gfn);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gmem_gfn_is_private);

/*
 * Get a reference to the folio of a private page that KVM may access.  The page
 * can be converted while the caller uses the folio.  A conversion does not
 * replace the folio, so the caller still accesses the page's memory.
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
 * kvm_gmem_read_private - read from a private page, if KVM may access it
 * @slot: memory slot of @gfn, or NULL; the caller holds kvm->srcu or slots_lock
 * @gfn: the page
 * @data: out: the bytes
 * @offset: offset of the first byte in the page
 * @len: number of bytes, not past the end of the page
 * @may_sleep: the function may sleep, and allocates the page if it does not exist
 *
 * Return: 0; -EFAULT if the page is not private, KVM may not access it, or it does
 * not exist and cannot be allocated.
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
 * kvm_gmem_write_private - write to a private page, if KVM may access it
 * @slot: memory slot of @gfn, or NULL; the caller holds kvm->srcu or slots_lock
 * @gfn: the page
 * @data: the bytes
 * @offset: offset of the first byte in the page
 * @len: number of bytes, not past the end of the page
 *
 * The caller marks the page dirty.
 *
 * Return: 0, or -EFAULT in the same cases as kvm_gmem_read_private().
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
 * @vcpu: the vCPU whose instruction KVM emulates
 * @gpa: guest address, aligned to @bytes or at least within one page
 * @old: in: expected value; out: the value found, if it differs
 * @new: new value
 * @bytes: 1, 2, 4 or 8
 *
 * The caller holds kvm->srcu and marks the page dirty.
 *
 * Return: 0 if the value was exchanged, 1 if it was not, -EFAULT in the same cases as
 * kvm_gmem_write_private().
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
