// SPDX-License-Identifier: GPL-2.0
/*
 * The pages behind host addresses of guest memory, whether or not they may be
 * mapped there: memory slot, guest_memfd, page.
 */
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/interval_tree.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pagemap.h>
#include <linux/vmstat.h>

#include "gmem_attributes.h"

/*
 * The slot at @uaddr whose guest_memfd keeps attributes, if there is one, with a
 * reference of the file.  The caller holds kvm->srcu.
 */
struct kvm_memory_slot *
kvm_gmem_uaddr_to_memslot(struct kvm *kvm, unsigned long uaddr,
			  struct file **file)
{
	struct kvm_memslots *slots = kvm_memslots(kvm);
	struct gmem_attributes *attributes;
	struct interval_tree_node *node;
	struct kvm_memory_slot *slot;

	for (node = interval_tree_iter_first(&slots->hva_tree, uaddr, uaddr);
	     node; node = interval_tree_iter_next(node, uaddr, uaddr)) {
		slot = container_of(node, struct kvm_memory_slot,
				    hva_node[slots->node_idx]);
		*file = kvm_slot_get_attributes(slot, &attributes);
		if (*file)
			return slot;
	}
	return NULL;
}

/**
 * kvm_gmem_clear_new_folio - make a folio one that can be used
 * @folio: of a guest_memfd, locked
 *
 * What was there before it was allocated is nobody's to see.
 */
void kvm_gmem_clear_new_folio(struct folio *folio)
{
	if (folio_test_uptodate(folio))
		return;
	clear_highpage(folio_page(folio, 0));
	folio_mark_uptodate(folio);
}

/* As pin_user_pages() does it, so that unpin_user_pages() undoes it */
struct page *kvm_gmem_pin_page(struct inode *inode,
			       struct gmem_attributes *attributes, pgoff_t index)
{
	struct folio *folio;
	struct page *page;

	lockdep_assert_held(&inode->i_mapping->invalidate_lock);

	gmem_attributes_reach(attributes, index);
	folio = kvm_gmem_get_folio(inode, index);
	if (IS_ERR(folio))
		return ERR_CAST(folio);

	if (folio_test_hwpoison(folio)) {
		folio_unlock(folio);
		folio_put(folio);
		return ERR_PTR(-EHWPOISON);
	}
	kvm_gmem_clear_new_folio(folio);

	page = folio_file_page(folio, index);
	if (folio_has_pincount(folio))
		atomic_inc(&folio->_pincount);
	else
		folio_ref_add(folio, GUP_PIN_COUNTING_BIAS - 1);
	mod_node_page_state(folio_pgdat(folio), NR_FOLL_PIN_ACQUIRED, 1);
	folio_unlock(folio);
	return page;
}

/**
 * kvm_gmem_pin_user_pages - pin guest_memfd pages by their host addresses
 * @kvm: the VM
 * @uaddr: host address in a memory slot
 * @npages: how many, may go on into further such slots
 * @pages: out: the pages, for unpin_user_pages()
 *
 * Host page tables are not looked at.  The pins hold off conversions to
 * private.
 *
 * Return: @npages, or -ENOENT if @uaddr is not in a slot whose guest_memfd
 * keeps attributes, or another error.
 */
int kvm_gmem_pin_user_pages(struct kvm *kvm, unsigned long uaddr, int npages,
			    struct page **pages)
{
	struct gmem_attributes *attributes;
	struct kvm_memory_slot *slot;
	pgoff_t index, end;
	struct file *file;
	int n = 0, r = 0;

	guard(srcu)(&kvm->srcu);

	while (n < npages) {
		unsigned long addr = (uaddr & PAGE_MASK) + (unsigned long)n * PAGE_SIZE;

		slot = kvm_gmem_uaddr_to_memslot(kvm, addr, &file);
		if (!slot) {
			r = n ? -EFAULT : -ENOENT;
			break;
		}
		index = slot->gmem.pgoff +
			((addr - slot->userspace_addr) >> PAGE_SHIFT);
		end = slot->gmem.pgoff + slot->npages;
		attributes = kvm_gmem_attributes(file);

		/* No conversion half done, and no hole being punched */
		filemap_invalidate_lock_shared(file->f_mapping);
		for (; n < npages && index < end; n++, index++) {
			pages[n] = kvm_gmem_pin_page(file_inode(file),
						     attributes, index);
			if (IS_ERR(pages[n])) {
				r = PTR_ERR(pages[n]);
				break;
			}
			cond_resched();
		}
		filemap_invalidate_unlock_shared(file->f_mapping);
		fput(file);
		if (r)
			break;
	}

	if (!r)
		return npages;
	if (n)
		unpin_user_pages(pages, n);
	return r;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gmem_pin_user_pages);

/**
 * kvm_gmem_maps_range - is a range of addresses all mappings of guest_memfds?
 * @uaddr: first address, of the current process
 * @size: bytes
 *
 * Only guest_memfds that keep attributes count.  Unlike memory slots, mappings
 * are there before the guest is.
 */
bool kvm_gmem_maps_range(unsigned long uaddr, unsigned long size)
{
	struct mm_struct *mm = current->mm;
	unsigned long addr = uaddr, end;
	struct vm_area_struct *vma;

	if (!size || check_add_overflow(uaddr, size, &end))
		return false;

	mmap_read_lock(mm);
	while (addr < end) {
		vma = vma_lookup(mm, addr);
		if (!vma || !vma->vm_file || !kvm_gmem_attributes(vma->vm_file))
			break;
		addr = vma->vm_end;
	}
	mmap_read_unlock(mm);
	return addr >= end;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gmem_maps_range);
