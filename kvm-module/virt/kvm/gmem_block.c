// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks of guest_memfd pages that follow each other in memory, too: one
 * command of the SEV firmware takes a block where otherwise each page needs one.
 *
 * Folios stay single pages, which is what guest_memfd is made for and what
 * conversions are about.  Only where they come from is arranged.
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
 * Put @n new pages that follow each other at @index on, where there are none.
 * @page is the first of as many as a power of two, or NULL.  @gfp is for what is
 * charged and allocated besides.
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
		/* The page cache has its own reference, or nobody wants it. */
		folio_put(folio);
	}
	return r;
}

/*
 * Has the control group, which is charged for all of the file's pages, room for
 * those that are not there yet?  Then optional pages cannot take it from pages
 * that will be wanted.
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
 * kvm_gmem_alloc_block - allocate pages by the block, when the first is wanted
 * @inode: guest_memfd
 * @attributes: its attributes; it need not keep any
 * @index: the page that is wanted
 *
 * The others are not up to date, so nothing takes them for pages that were
 * used.  They are for the firmware of SEV guests alone, and optional: nothing
 * happens if there is one already, if user space has punched a hole, or if memory
 * is not there for the taking.  Nothing is reclaimed for them, and a control group
 * that has no room for all of the file gets none, so that none of its tasks is
 * killed for them.  A page will do then.
 */
void kvm_gmem_alloc_block(struct inode *inode,
			  const struct gmem_attributes *attributes, pgoff_t index)
{
	struct address_space *mapping = inode->i_mapping;
	pgoff_t start = round_down(index, KVM_GMEM_BLOCK), first = start;
	gfp_t gfp = mapping_gfp_mask(mapping);

	if (!kvm_gmem_is_encrypted(inode) || attributes->punched ||
	    start + KVM_GMEM_BLOCK > attributes->nr_pages ||
	    xa_find(&mapping->i_pages, &first, start + KVM_GMEM_BLOCK - 1,
		    XA_PRESENT) ||
	    !gmem_group_has_room(mapping, attributes->nr_pages))
		return;
	gfp = (gfp & ~__GFP_RECLAIM) | __GFP_NOWARN;
	gmem_add_block(mapping, start, KVM_GMEM_BLOCK,
		       alloc_pages(gfp, ilog2(KVM_GMEM_BLOCK)), gfp);
}

/*
 * Pin pages at @index on as long as they are private and follow each other.
 * Returns how many, or an error if there is none.
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
 * New pages in the place of those at @index on, which are private and whose
 * contents nobody needs any more; as if a hole was punched first.  They are on
 * node @nid, which is where the file's policy has put the first one.
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

	/* A guest that runs, which it should not, has put a page there. */
	if (r > 0 && r < npages)
		unpin_user_pages(pages, r);
	return r == -EEXIST || (r > 0 && r < npages) ? -EAGAIN : r;
}

/**
 * kvm_gmem_pin_block - pin private pages that follow each other in memory
 * @kvm: the VM
 * @uaddr: host address of the first, at which a guest_memfd is mapped
 * @npages: how many, at most KVM_GMEM_BLOCK
 * @overwrite: all of them, and they will be overwritten: where they do not
 *	follow each other, they are replaced by pages that do.  Otherwise: as
 *	many as there are, and not past the end of a block in the file, so that
 *	whoever has a file like this has the same blocks.
 * @pages: out: the pages, for unpin_user_pages()
 *
 * The caller holds kvm->lock if @overwrite, so that no command of the firmware
 * is under way that writes to a page which is replaced.
 *
 * Return: how many pages are pinned; -ENOENT if no guest_memfd that keeps
 * attributes is mapped at @uaddr, -EINVAL if it belongs to another VM, -EAGAIN
 * for shared pages, or another error.
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
		end = min(end, round_down(index, KVM_GMEM_BLOCK) + KVM_GMEM_BLOCK);
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
