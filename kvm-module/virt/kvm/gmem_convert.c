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
#include "gmem_trace.h"

/*
 * How often a page that somebody holds is looked at again, and how often LRU
 * batches are drained for it.  A fault or a firmware command that is under way
 * is over in less; a pin is not.
 */
#define GMEM_CONVERT_TRIES	8
#define GMEM_CONVERT_DRAINS	2

/* Pages for which a long conversion prepares at a time, between two holds */
#define GMEM_PREPARE_PAGES	(SZ_1G >> PAGE_SHIFT)

/**
 * struct gmem_changed - pages that a conversion has changed
 * @first: page of bit 0 of @bits, a multiple of BITS_PER_LONG
 * @bits: one bit a page
 */
struct gmem_changed {
	pgoff_t first;
	unsigned long bits[GMEM_CHANGE_WORDS];
};

static int gmem_lock_killable(struct address_space *mapping)
{
	return down_write_killable(&mapping->invalidate_lock);
}

/* Does somebody hold @folio, which is unmapped and in the page cache? */
static bool gmem_folio_is_held(struct folio *folio)
{
	/* A poisoned page has a reference that nobody uses it by. */
	return folio_ref_count(folio) !=
	       folio_nr_pages(folio) + folio_test_hwpoison(folio);
}

/*
 * The first page in [@start, @end) that somebody holds; @end if there is none.
 * Pages that are private already are of no interest if @shared_only.  The
 * invalidate_lock keeps pages in the page cache, so none of its own is needed.
 */
static pgoff_t gmem_find_held_in(struct address_space *mapping,
				 const struct gmem_attributes *attributes,
				 pgoff_t start, pgoff_t end, bool shared_only)
{
	XA_STATE(xas, &mapping->i_pages, start);
	struct folio *folio;
	pgoff_t held = end;

	rcu_read_lock();
	xas_for_each(&xas, folio, end - 1) {
		if (xas_retry(&xas, folio) || xa_is_value(folio))
			continue;
		if (shared_only &&
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
	 * Lockless pinning takes the reference first and then rechecks the
	 * mapping, which is gone by now.
	 */
	smp_mb();

	while (gmem_attributes_next_reached(attributes, &run, &run_end, end)) {
		*index = gmem_find_held_in(mapping, attributes, run, run_end, true);
		if (*index < run_end)
			return true;
		run = run_end;
	}
	return false;
}

/* Host mappings of pages that the host has not reached do not exist. */
static void gmem_unmap_reached(struct address_space *mapping,
			       const struct gmem_attributes *attributes,
			       pgoff_t start, pgoff_t end)
{
	pgoff_t run_end;

	while (gmem_attributes_next_reached(attributes, &start, &run_end, end)) {
		unmap_mapping_pages(mapping, start, run_end - start, false);
		start = run_end;
	}
}

/* Forget that pages were in the host's reach if they are unmapped and not held */
static void gmem_unreach_unheld(struct address_space *mapping,
				struct gmem_attributes *attributes,
				pgoff_t start, pgoff_t end)
{
	pgoff_t run = round_up(start, GMEM_REACH_PAGES), run_end, group;

	end = round_down(end, GMEM_REACH_PAGES);
	smp_mb();	/* as in gmem_find_held() */

	while (run < end &&
	       gmem_attributes_next_reached(attributes, &run, &run_end, end)) {
		for (group = run; group < run_end; group += GMEM_REACH_PAGES) {
			pgoff_t next = group + GMEM_REACH_PAGES;

			if (gmem_find_held_in(mapping, attributes, group, next,
					      false) == next)
				gmem_attributes_unreach(attributes, group, next);
		}
		run = run_end;
	}
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
	gmem_unmap_reached(mapping, attributes, start, end);

	*held = start;
	while (gmem_find_held(mapping, attributes, held, end)) {
		if (!tries--)
			return -EAGAIN;
		if (fatal_signal_pending(current))
			return -EINTR;
		usleep_range(50, 200);
		/* A host's fault that was under way has mapped its page now. */
		gmem_unmap_reached(mapping, attributes, *held, end);
	}
	return 0;
}

/*
 * Most of the work for a long conversion is to unmap pages, from the host and
 * from the guest, and to look whether somebody holds them.  Do that in parts, so
 * that faults and signals get their turn in between.  It has no effect but that
 * the conversion itself finds little left to do: pages that are touched again
 * meanwhile are mapped again.
 *
 * Returns 0, or -EINTR on the way to being killed.
 */
static int gmem_prepare(struct inode *inode, struct gmem_attributes *attributes,
			pgoff_t start, pgoff_t end, bool private)
{
	struct address_space *mapping = inode->i_mapping;
	pgoff_t next;

	for (; start < end; start = next) {
		pgoff_t first = start, last;

		next = min(end, round_down(start, GMEM_PREPARE_PAGES) +
				GMEM_PREPARE_PAGES);
		last = next;
		if (gmem_lock_killable(mapping))
			return -EINTR;
		if (gmem_attributes_narrow(attributes, &first, &last, private)) {
			if (private) {
				gmem_unmap_reached(mapping, attributes, first, last);
				gmem_unreach_unheld(mapping, attributes, first, last);
			}
			kvm_gmem_convert_start(inode, first, last);
			kvm_gmem_invalidate_end(inode, first, last);
		}
		filemap_invalidate_unlock(mapping);

		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/*
 * A conversion is a change of the page for live migration.  Dirty rings belong
 * to vCPUs, and the caller is none: slots of VMs that have them have a bitmap,
 * too, see kvm_gmem_can_log_dirty().
 */
static void gmem_mark_dirty(struct kvm_memory_slot *slot, pgoff_t start,
			    pgoff_t end, void *data)
{
	struct gmem_changed *changed = data;
	unsigned long *bits = slot->dirty_bitmap;
	pgoff_t word;

	if (!bits)
		return;

	for (word = round_down(start, BITS_PER_LONG); word < end;
	     word += BITS_PER_LONG) {
		unsigned long pages = changed->bits[BIT_WORD(word - changed->first)];
		unsigned long shift;
		atomic_long_t *to;

		if (word < start)
			pages &= BITMAP_FIRST_WORD_MASK(start);
		if (end - word < BITS_PER_LONG)
			pages &= BITMAP_LAST_WORD_MASK(end);
		if (!pages)
			continue;

		/* The slot's bits can begin anywhere in a word of the file's. */
		if (word < slot->gmem.pgoff) {
			pages >>= slot->gmem.pgoff - word;
			shift = 0;
			to = (atomic_long_t *)bits;
		} else {
			shift = (word - slot->gmem.pgoff) % BITS_PER_LONG;
			to = (atomic_long_t *)bits +
			     BIT_WORD(word - slot->gmem.pgoff);
		}
		/* Others set bits and take them meanwhile. */
		if (pages << shift)
			atomic_long_or(pages << shift, to);
		if (shift && pages >> (BITS_PER_LONG - shift))
			atomic_long_or(pages >> (BITS_PER_LONG - shift), to + 1);
	}
}

/*
 * Change the state of all pages in [@start, @end) that have the other one.
 * Nothing in here depends on how many pages there are, or how they alternate,
 * other than by words of the bitmaps.
 */
static void gmem_change(struct inode *inode, struct gmem_attributes *attributes,
			pgoff_t start, pgoff_t end, bool private)
{
	struct gmem_changed changed;
	pgoff_t next, at;

	lockdep_assert_held_write(&inode->i_mapping->invalidate_lock);

	kvm_gmem_convert_start(inode, start, end);
	kvm_gmem_page_enc_begin(inode);
	for (at = start; at < end; at = next) {
		next = min(end, round_down(at, GMEM_CHANGE_PAGES) +
				GMEM_CHANGE_PAGES);
		changed.first = round_down(at, BITS_PER_LONG);
		if (!gmem_attributes_change(attributes, at, next, private,
					    changed.bits))
			continue;
		/*
		 * The state changes before the page is marked dirty.  A reader
		 * that finds the mark and asks for the state afterwards gets the
		 * new one.
		 */
		smp_mb();
		kvm_gmem_for_each_binding(inode, at, next, gmem_mark_dirty, &changed);
		cond_resched();
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
 * Pages that are in that state already are left alone.  All that can fail, or be
 * interrupted, comes before the first page changes.
 *
 * Return: 0, -EAGAIN, or -EINTR on the way to being killed.
 */
static int gmem_convert(struct inode *inode, struct gmem_attributes *attributes,
			pgoff_t start, pgoff_t end, bool private, pgoff_t *held)
{
	struct address_space *mapping = inode->i_mapping;
	int drains, r;

	if (end - start > GMEM_PREPARE_PAGES &&
	    gmem_prepare(inode, attributes, start, end, private))
		return -EINTR;

	for (drains = 0;; drains++) {
		pgoff_t first = start, last = end;

		if (gmem_lock_killable(mapping))
			return -EINTR;
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
		/* It waits for work on other CPUs, so no lock is held. */
		if (kvm_gmem_drain_lru(attributes, drains))
			return -EINTR;
	}
}

static int gmem_check_args(struct inode *inode,
			   const struct kvm_memory_attributes2 *args)
{
	u64 end;

	if (args->flags || memchr_inv(args->reserved, 0, sizeof(args->reserved)) ||
	    (args->attributes & ~KVM_MEMORY_ATTRIBUTE_PRIVATE))
		return -EINVAL;
	if (!args->size || !PAGE_ALIGNED(args->offset) || !PAGE_ALIGNED(args->size) ||
	    check_add_overflow(args->offset, args->size, &end) ||
	    end > i_size_read(inode))
		return -EINVAL;
	return 0;
}

/* Convert what @args asks for.  If that fails, @args->error_offset says where. */
static int gmem_convert_args(struct inode *inode,
			     struct gmem_attributes *attributes,
			     struct kvm_memory_attributes2 *args)
{
	pgoff_t start = args->offset >> PAGE_SHIFT;
	pgoff_t end = start + (args->size >> PAGE_SHIFT);
	bool private = args->attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE;
	pgoff_t held = start;
	int r;

	r = gmem_convert(inode, attributes, start, end, private, &held);
	trace_kvm_gmem_convert(inode->i_ino, start, end, private, r, held);
	if (r == -EAGAIN)
		args->error_offset = (u64)held << PAGE_SHIFT;
	return r;
}

static long gmem_set_attributes(struct file *file,
				struct kvm_memory_attributes2 __user *argp)
{
	struct gmem_attributes *attributes = kvm_gmem_attributes(file);
	struct inode *inode = file_inode(file);
	struct kvm_memory_attributes2 args;
	int r = -EINVAL;

	if (copy_from_user(&args, argp, sizeof(args)))
		return -EFAULT;

	args.error_offset = args.offset;
	if (attributes)
		r = gmem_check_args(inode, &args);
	if (!r)
		r = gmem_convert_args(inode, attributes, &args);
	if (r && put_user(args.error_offset, &argp->error_offset))
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
