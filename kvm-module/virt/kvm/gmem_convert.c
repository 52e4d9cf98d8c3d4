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
 * Limits for a conversion to private that finds a held page, which is a page
 * with references besides the page cache's.  The conversion drains LRU batches
 * and starts again, at most GMEM_CONVERT_DRAINS times.  Each time that it has
 * started again, it waits and checks the pages again, at most
 * GMEM_CONVERT_TRIES times, as long as it finds a held page.  By the last
 * check, page faults and most firmware commands have dropped their references,
 * so references that remain usually belong to long-term pins.
 */
#define GMEM_CONVERT_TRIES	8
#define GMEM_CONVERT_DRAINS	2

/*
 * Number of pages that a long conversion unmaps each time that it holds the
 * invalidate_lock
 */
#define GMEM_PREPARE_PAGES	(SZ_32M >> PAGE_SHIFT)

/**
 * struct gmem_changed - pages that a conversion has changed
 * @first: page of bit 0 of @bits, a multiple of BITS_PER_LONG
 * @bits: one bit per page, 1 = changed
 */
struct gmem_changed {
	pgoff_t first;
	unsigned long bits[GMEM_CHANGE_WORDS];
};

static int gmem_lock_killable(struct address_space *mapping)
{
	return down_write_killable(&mapping->invalidate_lock);
}

/* Does @folio, which is unmapped, have references other than the page cache's? */
static bool gmem_folio_is_held(struct folio *folio)
{
	/*
	 * Do not count the reference that memory_failure() keeps to a poisoned
	 * page.
	 */
	return folio_ref_count(folio) !=
	       folio_nr_pages(folio) + folio_test_hwpoison(folio);
}

/*
 * Find the first page in [@start, @end) that is held.  Skip private pages if
 * @shared_only.  Returns @end if no page is held.  The invalidate_lock keeps pages in
 * the page cache, so this function needs no references of its own.
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

/* Find the first held shared page in [*@index, @end), and set *@index to it. */
static bool gmem_find_held(struct address_space *mapping,
			   const struct gmem_attributes *attributes,
			   pgoff_t *index, pgoff_t end)
{
	pgoff_t run = *index, run_end;

	lockdep_assert_held_write(&mapping->invalidate_lock);

	/*
	 * Lockless pinning (GUP-fast) first takes a reference and then checks again that
	 * the page is mapped.  The caller has unmapped the page.  With this barrier,
	 * either this function sees the reference, or GUP-fast sees that the page is not
	 * mapped and drops the reference.
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

/* Unmap pages from the host.  Only pages that are recorded as reached have mappings. */
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

/* Clear the reached bits of pages that are unmapped and not held. */
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
 * Unmap the pages [@start, @end) from the host, and check that none of them is held.
 * No later fault of the host can map them, because such a fault needs the
 * invalidate_lock, which the caller holds.  A guest's fault may still take a
 * reference, but it detects the invalidation and drops the reference without
 * using the page.
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
		/*
		 * A fault of the host may have got its folio before the caller
		 * took the invalidate_lock, and may have mapped the folio after
		 * the pages were unmapped.  Unmap them again.
		 */
		gmem_unmap_reached(mapping, attributes, *held, end);
	}
	return 0;
}

/*
 * Prepare a long conversion in parts: unmap pages from the host and from the guest,
 * and check which of them are held.  This is most of the work of a conversion.  It
 * changes the state of no page, so it can be split into parts.  Between two parts, KVM
 * handles page faults and checks for a fatal signal.  The conversion then only has to
 * unmap and check the pages that were accessed again meanwhile.
 *
 * Returns 0, or -EINTR if a fatal signal is pending.
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
 * Mark converted pages dirty, because live migration has to send them again.
 * Dirty rings are per vCPU and a conversion has no vCPU, so the slots of a VM with
 * dirty rings have a bitmap as well (see kvm_gmem_can_log_dirty()).
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

		/*
		 * @pages has bits of the file's bitmap.  The first page of the
		 * slot has bit 0 in the slot's bitmap, but can have any bit of
		 * a word in the file's bitmap, so shift @pages to the slot's
		 * bits.
		 */
		if (word < slot->gmem.pgoff) {
			pages >>= slot->gmem.pgoff - word;
			shift = 0;
			to = (atomic_long_t *)bits;
		} else {
			shift = (word - slot->gmem.pgoff) % BITS_PER_LONG;
			to = (atomic_long_t *)bits +
			     BIT_WORD(word - slot->gmem.pgoff);
		}
		/*
		 * Use atomic operations, because vCPUs set bits of the dirty
		 * bitmap and readers of the dirty log clear bits at the same
		 * time.
		 */
		if (pages << shift)
			atomic_long_or(pages << shift, to);
		if (shift && pages >> (BITS_PER_LONG - shift))
			atomic_long_or(pages >> (BITS_PER_LONG - shift), to + 1);
	}
}

/*
 * Set the state of all pages in [@start, @end) to @private.  The time depends on the
 * number of words of the bitmap, but not on the number of pages that change or on how
 * private and shared pages alternate.  Returns the number of pages that changed.
 */
static u64 gmem_change(struct inode *inode, struct gmem_attributes *attributes,
		       pgoff_t start, pgoff_t end, bool private)
{
	struct gmem_changed changed;
	unsigned long n;
	pgoff_t next, at;
	u64 pages = 0;

	lockdep_assert_held_write(&inode->i_mapping->invalidate_lock);

	kvm_gmem_convert_start(inode, start, end);
	kvm_gmem_page_enc_begin(inode);
	for (at = start; at < end; at = next) {
		next = min(end, round_down(at, GMEM_CHANGE_PAGES) +
				GMEM_CHANGE_PAGES);
		changed.first = round_down(at, BITS_PER_LONG);
		n = gmem_attributes_change(attributes, at, next, private,
					   changed.bits);
		if (!n)
			continue;
		pages += n;
		/*
		 * The state must change before the page is marked dirty: a reader
		 * that finds the page dirty and then reads the state must get the
		 * new state.
		 */
		smp_mb();
		kvm_gmem_for_each_binding(inode, at, next, gmem_mark_dirty, &changed);
		cond_resched();
	}
	kvm_gmem_page_enc_end(inode);
	kvm_gmem_invalidate_end(inode, start, end);
	return pages;
}

/**
 * struct gmem_conversion - an atomic conversion of the pages [@start, @end)
 * @start: first page
 * @end: page after the last
 * @private: the new state of the pages
 * @held: out, with -EAGAIN: the first page that is held
 * @changed: out: number of pages whose state changed
 */
struct gmem_conversion {
	pgoff_t start;
	pgoff_t end;
	bool private;
	pgoff_t held;
	u64 changed;
};

/*
 * Convert all pages of @c or none: everything that can fail or be interrupted comes
 * before the first page changes.  Returns 0, -EAGAIN if a page is held
 * (@c->held), or -EINTR if a fatal signal is pending.
 */
static int gmem_convert(struct inode *inode, struct gmem_attributes *attributes,
			struct gmem_conversion *c)
{
	struct address_space *mapping = inode->i_mapping;
	int drains, r;

	if (c->end - c->start > GMEM_PREPARE_PAGES &&
	    gmem_prepare(inode, attributes, c->start, c->end, c->private))
		return -EINTR;

	for (drains = 0;; drains++) {
		pgoff_t first = c->start, last = c->end;

		if (gmem_lock_killable(mapping))
			return -EINTR;
		r = 0;
		if (gmem_attributes_narrow(attributes, &first, &last, c->private)) {
			/*
			 * Most references belong to LRU batches, so drain them once before
			 * waiting for other references.
			 */
			if (c->private)
				r = gmem_take_from_host(mapping, attributes,
							first, last, &c->held,
							drains ? GMEM_CONVERT_TRIES : 0);
			if (!r)
				c->changed = gmem_change(inode, attributes,
							 first, last, c->private);
		}
		filemap_invalidate_unlock(mapping);

		if (r != -EAGAIN || drains == GMEM_CONVERT_DRAINS)
			return r;
		/* Draining waits for work items on other CPUs, so do not hold a lock. */
		if (kvm_gmem_drain_lru(attributes, drains))
			return -EINTR;
	}
}

static void gmem_stat_add(u64 *stat, u64 n)
{
	/* KVM's statistics have no lock.  A lost update is harmless. */
	data_race(*stat += n);
}

/* Count a conversion that ended with @r in the statistics of the VM. */
static void gmem_count(struct kvm *kvm, const struct gmem_conversion *c, int r)
{
	struct kvm_vm_stat_generic *stat = &kvm->stat.generic;

	if (!r) {
		gmem_stat_add(&stat->gmem_conversions, 1);
		gmem_stat_add(&stat->gmem_pages_converted, c->changed);
	} else if (r == -EAGAIN) {
		gmem_stat_add(&stat->gmem_conversions_refused, 1);
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

/* Convert the range in @args.  With -EAGAIN, set @args->error_offset to the held page. */
static int gmem_convert_args(struct file *file, struct gmem_attributes *attributes,
			     struct kvm_memory_attributes2 *args)
{
	struct inode *inode = file_inode(file);
	struct gmem_conversion c = {
		.start = args->offset >> PAGE_SHIFT,
		.end = (args->offset + args->size) >> PAGE_SHIFT,
		.private = args->attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE,
		.held = args->offset >> PAGE_SHIFT,
	};
	int r;

	r = gmem_convert(inode, attributes, &c);
	gmem_count(kvm_gmem_vm(file), &c, r);
	trace_kvm_gmem_convert(inode->i_ino, c.start, c.end, c.private, r, c.held);
	if (r == -EAGAIN)
		args->error_offset = (u64)c.held << PAGE_SHIFT;
	return r;
}

static long gmem_set_attributes(struct file *file,
				struct kvm_memory_attributes2 __user *argp)
{
	struct gmem_attributes *attributes = kvm_gmem_attributes(file);
	struct kvm_memory_attributes2 args;
	int r = -EINVAL;

	if (copy_from_user(&args, argp, sizeof(args)))
		return -EFAULT;

	args.error_offset = args.offset;
	if (attributes)
		r = gmem_check_args(file_inode(file), &args);
	if (!r)
		r = gmem_convert_args(file, attributes, &args);
	if (r && put_user(args.error_offset, &argp->error_offset))
		return -EFAULT;
	return r;
}

long kvm_gmem_ioctl(struct file *file, unsigned int ioctl, unsigned long arg)
{
	switch (ioctl) {
	case KVM_SET_MEMORY_ATTRIBUTES2:
		return gmem_set_attributes(file, (void __user *)arg);
	default:
		return -ENOTTY;
	}
}
