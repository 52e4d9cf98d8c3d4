// SPDX-License-Identifier: GPL-2.0
/*
 * In-place conversion of guest_memfd pages between private and shared:
 * KVM_SET_MEMORY_ATTRIBUTES2.
 */
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/kvm-page-enc.h>
#include <linux/kvm_host.h>
#include <linux/pagemap.h>
#include <linux/rcupdate_wait.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include "gmem_attributes.h"

/*
 * How often a page that somebody holds is looked at again, and how often LRU
 * batches are drained for it.  A fault or a firmware command that is under way
 * is over in less; a pin is not.
 */
#define GMEM_CONVERT_TRIES	8
#define GMEM_CONVERT_DRAINS	2

/* Does somebody hold @folio, which is unmapped and in the page cache? */
static bool gmem_folio_is_held(struct folio *folio)
{
	/* A poisoned page has a reference that nobody uses it by. */
	return folio_ref_count(folio) !=
	       folio_nr_pages(folio) + folio_test_hwpoison(folio);
}

/*
 * The first page in [@start, @end) that is to become private, and that somebody
 * besides the page cache has a reference to; @end if there is none.  The
 * invalidate_lock keeps pages in the page cache, so none of its own is needed.
 */
static pgoff_t gmem_find_held_in(struct address_space *mapping,
				 const struct gmem_attributes *attributes,
				 pgoff_t start, pgoff_t end)
{
	XA_STATE(xas, &mapping->i_pages, start);
	struct folio *folio;
	pgoff_t held = end;

	rcu_read_lock();
	xas_for_each(&xas, folio, end - 1) {
		if (xas_retry(&xas, folio) || xa_is_value(folio) ||
		    gmem_attributes_is_private(attributes, folio->index))
			continue;

		if (gmem_folio_is_held(folio)) {
			held = folio->index;
			break;
		}
		if (need_resched()) {
			xas_pause(&xas);
			cond_resched_rcu();
		}
	}
	rcu_read_unlock();
	return held;
}

/* Is there one at or after *@index?  If so, *@index becomes its. */
static bool gmem_find_held(struct address_space *mapping,
			   const struct gmem_attributes *attributes,
			   pgoff_t *index, pgoff_t end)
{
	pgoff_t run = *index, run_end;

	lockdep_assert_held_write(&mapping->invalidate_lock);

	/*
	 * Who pins a page without locks takes the reference and then looks
	 * whether the page is still mapped, which it is no more.
	 */
	smp_mb();

	while (gmem_attributes_next_reached(attributes, &run, &run_end, end)) {
		*index = gmem_find_held_in(mapping, attributes, run, run_end);
		if (*index < run_end)
			return true;
		run = run_end;
	}
	return false;
}

/*
 * Take the pages [@start, @end) from all who map them, and see that nobody
 * holds one.  Host mappings cannot come back: their faults need the
 * invalidate_lock.  A reference that a guest's fault takes from here on is
 * dropped unused, as the fault meets the invalidation.
 */
static int gmem_take_from_host(struct address_space *mapping,
			       const struct gmem_attributes *attributes,
			       pgoff_t start, pgoff_t end, pgoff_t *held,
			       int tries)
{
	unmap_mapping_pages(mapping, start, end - start, false);

	*held = start;
	while (gmem_find_held(mapping, attributes, held, end)) {
		if (!tries--)
			return -EAGAIN;
		if (fatal_signal_pending(current))
			return -EINTR;
		usleep_range(50, 200);
		/* A host's fault that was under way has mapped its page now. */
		unmap_mapping_pages(mapping, *held, end - *held, false);
	}
	return 0;
}

/*
 * A conversion is a change of the page for live migration.  Dirty rings belong
 * to vCPUs, and the caller is none: slots of VMs that have them have a bitmap,
 * too, see kvm_gmem_can_log_dirty().
 */
static void gmem_mark_dirty(struct kvm_memory_slot *slot, pgoff_t start,
			    pgoff_t end)
{
	unsigned long *bits = slot->dirty_bitmap;
	pgoff_t i = start - slot->gmem.pgoff;
	pgoff_t last = end - slot->gmem.pgoff;

	if (!bits)
		return;

	while (i < last) {
		if (!(i % BITS_PER_LONG) && last - i >= BITS_PER_LONG) {
			/* All ones, whoever else sets or takes some */
			WRITE_ONCE(bits[BIT_WORD(i)], ~0UL);
			i += BITS_PER_LONG;
		} else {
			set_bit_le(i++, bits);
		}
		if (!(i % SZ_4M))
			cond_resched();
	}
}

/* Change the state of all pages in [@start, @end) that have the other one */
static void gmem_change(struct inode *inode, struct gmem_attributes *attributes,
			pgoff_t start, pgoff_t end, bool private)
{
	pgoff_t run = start, run_end;

	lockdep_assert_held_write(&inode->i_mapping->invalidate_lock);

	kvm_gmem_convert_start(inode, start, end);
	kvm_gmem_page_enc_begin(inode);
	while (gmem_attributes_next_run(attributes, &run, &run_end, end, !private)) {
		gmem_attributes_set(attributes, run, run_end, private);
		/*
		 * In this order: who finds the page dirty must find its new
		 * state, too.
		 */
		smp_mb();
		kvm_gmem_for_each_binding(inode, run, run_end, gmem_mark_dirty);
		run = run_end;
	}
	kvm_gmem_page_enc_end(inode);
	kvm_gmem_invalidate_end(inode, start, end);
}

/**
 * gmem_convert - convert the pages [@start, @end), all or none
 * @inode: guest_memfd
 * @attributes: its attributes
 * @start: first page
 * @end: page after the last
 * @private: their new state
 * @held: out, with -EAGAIN: the first page that somebody holds
 *
 * Pages that are in that state already are left alone.
 *
 * Return: 0, -EAGAIN, or -EINTR on the way to being killed.
 */
static int gmem_convert(struct inode *inode, struct gmem_attributes *attributes,
			pgoff_t start, pgoff_t end, bool private, pgoff_t *held)
{
	struct address_space *mapping = inode->i_mapping;
	int drains, r;

	for (drains = 0;; drains++) {
		pgoff_t first = start, last = end;

		filemap_invalidate_lock(mapping);
		r = 0;
		if (gmem_attributes_narrow(attributes, &first, &last, private)) {
			/* No sleep at first: most references are LRU batches' */
			if (private)
				r = gmem_take_from_host(mapping, attributes,
							first, last, held,
							drains ? GMEM_CONVERT_TRIES : 0);
			if (!r)
				gmem_change(inode, attributes, first, last, private);
		}
		filemap_invalidate_unlock(mapping);

		if (r != -EAGAIN || drains == GMEM_CONVERT_DRAINS)
			return r;
		/* It waits for work on every CPU: not under a lock */
		kvm_gmem_drain_lru();
	}
}

static long gmem_set_attributes(struct file *file,
				struct kvm_memory_attributes2 __user *argp)
{
	struct gmem_attributes *attributes = kvm_gmem_attributes(file);
	struct inode *inode = file_inode(file);
	struct kvm_memory_attributes2 args;
	pgoff_t held;
	u64 end;
	int r;

	if (copy_from_user(&args, argp, sizeof(args)))
		return -EFAULT;

	if (args.flags || memchr_inv(args.reserved, 0, sizeof(args.reserved)) ||
	    (args.attributes & ~KVM_MEMORY_ATTRIBUTE_PRIVATE))
		return -EINVAL;
	if (!args.size || !PAGE_ALIGNED(args.offset) || !PAGE_ALIGNED(args.size) ||
	    check_add_overflow(args.offset, args.size, &end) ||
	    end > i_size_read(inode))
		return -EINVAL;
	if (!attributes)
		return -EINVAL;

	r = gmem_convert(inode, attributes, args.offset >> PAGE_SHIFT,
			 end >> PAGE_SHIFT,
			 args.attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE, &held);
	if (r == -EAGAIN && put_user((u64)held << PAGE_SHIFT, &argp->error_offset))
		return -EFAULT;
	return r;
}

/* The guest_memfd's own ioctls; -ENOTTY for all that it does not know. */
long kvm_gmem_ioctl(struct file *file, unsigned int ioctl, unsigned long arg)
{
	switch (ioctl) {
	case KVM_SET_MEMORY_ATTRIBUTES2:
		return gmem_set_attributes(file, (void __user *)arg);
	default:
		return -ENOTTY;
	}
}
