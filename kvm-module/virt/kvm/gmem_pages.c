// SPDX-License-Identifier: GPL-2.0
/*
 * Find and pin pages of a guest_memfd by a host address.  The mapping at the address
 * gives the file and the page, even if the page cannot be accessed there.
 *
 * This code does not use memory slots, because a page that has to be found can
 * be in no slot: user space removes slots when the guest reconfigures its
 * chipset (PAM, SMRAM), and the VM at the destination of a migration has only
 * the slots of a machine after reset.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pagemap.h>
#include <linux/vmstat.h>

#include "gmem_attributes.h"

/**
 * kvm_gmem_from_uaddr - find the guest_memfd that is mapped at a host address
 * @kvm: the VM
 * @uaddr: address in the current process
 * @index: out: the page that is mapped there
 * @end: out: the page after the last page of the mapping
 *
 * Takes and releases mmap_lock, so the caller must not hold the guest_memfd's
 * invalidate_lock.  The mapping can be removed before the function returns, but
 * the file and its pages stay the same.
 *
 * Return: a reference to the file, which keeps attributes and was created by @kvm;
 * -ENOENT if no such file is mapped at @uaddr, -EINVAL if the guest_memfd belongs to
 * another VM, -EFAULT if the address is past the end of the file.
 */
struct file *kvm_gmem_from_uaddr(struct kvm *kvm, unsigned long uaddr,
				 pgoff_t *index, pgoff_t *end)
{
	struct gmem_attributes *attributes;
	struct mm_struct *mm = current->mm;
	struct file *file = ERR_PTR(-ENOENT);
	struct vm_area_struct *vma;

	mmap_read_lock(mm);
	vma = vma_lookup(mm, uaddr);
	attributes = vma && vma->vm_file ? kvm_gmem_attributes(vma->vm_file) : NULL;
	if (!attributes)
		goto unlock;

	*index = linear_page_index(vma, uaddr);
	*end = min(*index + ((vma->vm_end - uaddr + PAGE_SIZE - 1) >> PAGE_SHIFT),
		   attributes->nr_pages);
	if (kvm_gmem_vm(vma->vm_file) != kvm)
		file = ERR_PTR(-EINVAL);
	else if (*index >= *end)
		file = ERR_PTR(-EFAULT);
	else
		file = get_file(vma->vm_file);
unlock:
	mmap_read_unlock(mm);
	return file;
}

/**
 * kvm_gmem_clear_new_folio - clear a folio that was not used before
 * @folio: folio of a guest_memfd, locked
 *
 * The old contents of the memory must not leak.  If the guest's mapping of the
 * page is encrypted and KVM's is not, a processor can cache one line per
 * mapping, and a late write-back of KVM's zeros would overwrite the guest's
 * data.  The function therefore flushes the zeros if the guest's memory is
 * encrypted.
 */
void kvm_gmem_clear_new_folio(struct folio *folio)
{
	if (folio_test_uptodate(folio))
		return;
	clear_highpage(folio_page(folio, 0));
	if (kvm_gmem_is_encrypted(folio->mapping->host))
		kvm_arch_gmem_flush(folio_page(folio, 0));
	folio_mark_uptodate(folio);
}

/* Pin a page like pin_user_pages() does, so that unpin_user_pages() can release it. */
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
 * @uaddr: host address at which a guest_memfd is mapped
 * @npages: number of pages, which can be in several adjacent mappings
 * @pages: out: the pages, for unpin_user_pages()
 *
 * The function does not use host page tables.  Conversions to private fail with
 * EAGAIN until the pages are unpinned.
 *
 * Return: @npages, or -ENOENT if no guest_memfd that keeps attributes is mapped
 * at @uaddr, -EINVAL if it belongs to another VM, or another error.
 */
int kvm_gmem_pin_user_pages(struct kvm *kvm, unsigned long uaddr, int npages,
			    struct page **pages)
{
	struct gmem_attributes *attributes;
	pgoff_t index, end;
	struct file *file;
	int n = 0, r = 0;

	while (n < npages) {
		unsigned long addr = (uaddr & PAGE_MASK) + (unsigned long)n * PAGE_SIZE;

		file = kvm_gmem_from_uaddr(kvm, addr, &index, &end);
		if (IS_ERR(file)) {
			r = PTR_ERR(file);
			if (n && r == -ENOENT)
				r = -EFAULT;
			break;
		}
		attributes = kvm_gmem_attributes(file);

		/* Excludes conversions and hole punching */
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
 * kvm_gmem_maps_range - does a range of addresses consist of guest_memfd mappings only?
 * @kvm: the VM
 * @uaddr: first address, of the current process
 * @size: bytes
 *
 * Only guest_memfds that keep attributes and belong to @kvm count.  Takes and
 * releases mmap_lock.
 */
bool kvm_gmem_maps_range(struct kvm *kvm, unsigned long uaddr,
			 unsigned long size)
{
	struct mm_struct *mm = current->mm;
	unsigned long addr = uaddr, end;
	struct vm_area_struct *vma;

	if (!size || check_add_overflow(uaddr, size, &end))
		return false;

	mmap_read_lock(mm);
	while (addr < end) {
		vma = vma_lookup(mm, addr);
		if (!vma || !vma->vm_file || !kvm_gmem_attributes(vma->vm_file) ||
		    kvm_gmem_vm(vma->vm_file) != kvm)
			break;
		addr = vma->vm_end;
	}
	mmap_read_unlock(mm);
	return addr >= end;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gmem_maps_range);
