// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks: pages of a guest_memfd that are contiguous in the file and in memory.
 *
 * A device or firmware that takes physical addresses can handle a block with one
 * command.  The architecture sets the size (kvm_arch_gmem_block()).  Each page
 * remains a folio of its own, because pages are converted one by one.  This file
 * only arranges where the pages come from.
 */
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/kvm_host.h>
#include <linux/log2.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/xarray.h>

#include "gmem_attributes.h"
#include "gmem_trace.h"

/*
 * Add @n contiguous pages to the file from @index on, where the file has no pages.
 * @page is the first page of an allocation whose size is @n, rounded up to a
 * power of two.  The function frees the pages after the first @n.  If the
 * allocation failed, @page is NULL and the function returns -ENOMEM.  The page
 * cache uses @gfp to allocate its nodes and to charge the pages to a memory
 * control group.
 */
static int gmem_add_block(struct address_space *mapping, pgoff_t index, int n,
			  struct page *page, gfp_t gfp)
{
	unsigned int i, order = get_order((unsigned long)n << PAGE_SHIFT);
	int r = 0;

	if (!page)
		return -ENOMEM;
	split_page(page, order);

	for (i = 0; i < 1 << order; i++) {
		struct folio *folio = page_folio(page + i);

		if (i < n && !r)
			r = filemap_add_folio(mapping, folio, index + i, gfp);
		if (i < n && !r)
			folio_unlock(folio);
		/* The page cache has its own reference if the page was added to it. */
		folio_put(folio);
	}
	return r;
}

/*
 * Does the memory control group have room for all pages of the file that are not
 * allocated yet?  If it has no room, the optional pages of a block (see
 * kvm_gmem_alloc_block()) could use up memory that the guest needs for other
 * pages.
 */
static bool gmem_group_has_room(const struct address_space *mapping,
				pgoff_t nr_pages)
{
	bool room = true;
#ifdef CONFIG_MEMCG
	unsigned long missing = nr_pages - min(nr_pages, mapping->nrpages);
	struct mem_cgroup *charged, *memcg;

	if (mem_cgroup_disabled())
		return true;

	charged = get_mem_cgroup_from_mm(current->mm);
	for (memcg = charged; memcg && room; memcg = parent_mem_cgroup(memcg))
		room = page_counter_read(&memcg->memory) + missing <=
		       READ_ONCE(memcg->memory.max);
	mem_cgroup_put(charged);
#endif
	return room;
}

/**
 * kvm_gmem_alloc_block - allocate the whole block of a page
 * @inode: guest_memfd
 * @attributes: its attributes; the file need not keep any
 * @index: the page that is needed
 *
 * The other pages of the block are optional.  Their folios are not up to date,
 * so mincore() reports them as not in core, and a migration treats them as
 * unallocated.  The function does nothing if the file has no blocks, if a page
 * of the block exists, if user space has punched a hole, if the memory control
 * group has no room for the whole file, or if memory would have to be
 * reclaimed.  The caller then allocates one page.
 */
void kvm_gmem_alloc_block(struct inode *inode,
			  const struct gmem_attributes *attributes, pgoff_t index)
{
	struct address_space *mapping = inode->i_mapping;
	unsigned int block = attributes->block;
	gfp_t gfp = mapping_gfp_mask(mapping);
	pgoff_t start, first;

	if (block <= 1 || attributes->punched)
		return;

	start = round_down(index, block);
	first = start;
	if (start + block > attributes->nr_pages ||
	    xa_find(&mapping->i_pages, &first, start + block - 1, XA_PRESENT) ||
	    !gmem_group_has_room(mapping, attributes->nr_pages))
		return;
	gfp = (gfp & ~__GFP_RECLAIM) | __GFP_NOWARN;
	gmem_add_block(mapping, start, block, alloc_pages(gfp, ilog2(block)), gfp);
}

/*
 * Pin pages from @index on, and stop at the first page that is shared or that is not
 * contiguous with the page before it.  Returns the number of pinned pages, or an error
 * if no page is pinned.
 */
static int gmem_pin_run(struct inode *inode,
			struct gmem_attributes *attributes,
			pgoff_t index, int npages, struct page **pages)
{
	int n, r = 0;

	lockdep_assert_held(&inode->i_mapping->invalidate_lock);

	for (n = 0; n < npages; n++) {
		if (!gmem_attributes_is_private(attributes, index + n)) {
			r = -EAGAIN;
			break;
		}
		pages[n] = kvm_gmem_pin_page(inode, attributes, index + n);
		if (IS_ERR(pages[n])) {
			r = PTR_ERR(pages[n]);
			break;
		}
		if (n && page_to_pfn(pages[n]) != page_to_pfn(pages[n - 1]) + 1) {
			unpin_user_page(pages[n]);
			break;
		}
	}
	return n ?: r;
}

/*
 * Replace @npages private pages from @index on by contiguous pages, like punching a
 * hole and filling it, and pin the new pages.  The contents are lost.  The new pages
 * are on node @nid, on which the file's policy allocated the first of the old pages.
 */
static int gmem_replace(struct inode *inode,
			struct gmem_attributes *attributes,
			pgoff_t index, int npages, int nid, struct page **pages)
{
	struct address_space *mapping = inode->i_mapping;
	loff_t start = (loff_t)index << PAGE_SHIFT;
	loff_t len = (loff_t)npages << PAGE_SHIFT;
	struct page *page;
	int i, r = 0;

	filemap_invalidate_lock(mapping);
	for (i = 0; i < npages && !r; i++)
		r = gmem_attributes_is_private(attributes, index + i) ? 0 : -EAGAIN;
	if (!r) {
		kvm_gmem_invalidate_start(inode, index, index + npages);
		truncate_inode_pages_range(mapping, start, start + len - 1);
		page = alloc_pages_node(nid, mapping_gfp_mask(mapping),
					get_order(len));
		r = gmem_add_block(mapping, index, npages, page,
				   mapping_gfp_mask(mapping));
		kvm_gmem_invalidate_end(inode, index, index + npages);
	}
	if (!r)
		r = gmem_pin_run(inode, attributes, index, npages, pages);
	filemap_invalidate_unlock(mapping);

	/*
	 * -EEXIST: a vCPU has allocated one of the pages meanwhile, because a
	 * guest's fault does not take the invalidate_lock.  Fewer than @npages
	 * pages: one of the new pages could not be pinned, for example because
	 * its memory has gone bad.  Return -EAGAIN in both cases, so that the
	 * caller retries.
	 */
	if (r > 0 && r < npages)
		unpin_user_pages(pages, r);
	return r == -EEXIST || (r > 0 && r < npages) ? -EAGAIN : r;
}

/**
 * kvm_gmem_pin_block - pin private pages that are contiguous in memory
 * @kvm: the VM
 * @uaddr: host address of the first page, at which a guest_memfd is mapped
 * @npages: number of pages, at most those of a block
 * @overwrite: true: pin all @npages pages, and replace them if they are not
 *	contiguous; the caller overwrites the contents.  false: pin as many pages
 *	as are contiguous, but none after the end of the block, so that no
 *	packet that KVM sends crosses the end of a block.  If the destination's
 *	file has blocks at the same offsets, the pages of a packet are usually
 *	contiguous on the destination as well, and KVM need not replace them
 *	there.
 * @pages: out: the pages, for unpin_user_pages()
 *
 * If @overwrite, the caller holds kvm->lock, which prevents other commands from
 * writing to a page while it is replaced.
 *
 * Return: number of pinned pages; -ENOENT if no guest_memfd that keeps
 * attributes is mapped at @uaddr, -EINVAL if the file belongs to another VM,
 * -EAGAIN if the first page or a page to be replaced is shared, if a vCPU has
 * allocated a page while this function replaced it, or if a new page could not
 * be pinned, for example because its memory has gone bad; or another error.
 */
int kvm_gmem_pin_block(struct kvm *kvm, unsigned long uaddr, int npages,
		       bool overwrite, struct page **pages)
{
	struct gmem_attributes *attributes;
	bool replaced = false;
	pgoff_t index, end;
	struct file *file;
	int n, r;

	file = kvm_gmem_from_uaddr(kvm, uaddr, &index, &end);
	if (IS_ERR(file))
		return PTR_ERR(file);
	attributes = kvm_gmem_attributes(file);
	if (!overwrite)
		end = min(end, round_down(index, attributes->block) + attributes->block);
	n = min_t(pgoff_t, npages, end - index);
	if (overwrite && n < npages) {
		r = -EFAULT;
		goto put;
	}

	filemap_invalidate_lock_shared(file->f_mapping);
	r = gmem_pin_run(file_inode(file), attributes, index, n, pages);
	filemap_invalidate_unlock_shared(file->f_mapping);

	if (overwrite && r > 0 && r < npages) {
		int nid = page_to_nid(pages[0]);

		lockdep_assert_held(&kvm->lock);
		unpin_user_pages(pages, r);
		r = gmem_replace(file_inode(file), attributes, index, npages,
				 nid, pages);
		replaced = true;
	}
	trace_kvm_gmem_pin_block(file_inode(file)->i_ino, index, npages,
				 replaced, r);
put:
	fput(file);
	return r;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gmem_pin_block);
