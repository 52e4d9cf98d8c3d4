// SPDX-License-Identifier: GPL-2.0
/* The bitmap that records which pages of a guest_memfd are private */
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "gmem_attributes.h"

/**
 * gmem_attributes_init - keep attributes for a guest_memfd of @nr_pages pages
 * @attributes: zeroed structure to initialise
 * @kvm: the VM that creates the file
 * @nr_pages: number of pages in the file
 * @private: initial state of all pages
 *
 * Return: 0, or -ENOMEM.
 */
int gmem_attributes_init(struct gmem_attributes *attributes, struct kvm *kvm,
			 pgoff_t nr_pages, bool private)
{
	/* User space chooses the size, so do not warn if it is too large. */
	const gfp_t gfp = GFP_KERNEL_ACCOUNT | __GFP_NOWARN;
	unsigned long words = BITS_TO_LONGS(nr_pages);

	attributes->private = kvcalloc(words, sizeof(long), gfp);
	attributes->reached = kvcalloc(BITS_TO_LONGS(words), sizeof(long), gfp);
	attributes->cpus = bitmap_zalloc(nr_cpu_ids, gfp);
	if (!attributes->private || !attributes->reached || !attributes->cpus) {
		gmem_attributes_destroy(attributes);
		return -ENOMEM;
	}

	attributes->nr_pages = nr_pages;
	attributes->block = kvm_arch_gmem_block(kvm);
	attributes->kvm_may_access = kvm_arch_may_access_private_mem(kvm);
	if (private)
		gmem_attributes_set(attributes, 0, nr_pages, true);
	return 0;
}

void gmem_attributes_destroy(struct gmem_attributes *attributes)
{
	kvfree(attributes->private);
	kvfree(attributes->reached);
	bitmap_free(attributes->cpus);
	attributes->private = NULL;
	attributes->reached = NULL;
	attributes->cpus = NULL;
}

/* Get the pages of word @word that are in [@start, @end) and not in state @private. */
static unsigned long gmem_attributes_other(const struct gmem_attributes *attributes,
					   unsigned long word, pgoff_t start,
					   pgoff_t end, bool private)
{
	unsigned long bits = READ_ONCE(attributes->private[word]);
	unsigned long mask = ~0UL;

	if (word == BIT_WORD(start))
		mask &= BITMAP_FIRST_WORD_MASK(start);
	if (word == BIT_WORD(end - 1))
		mask &= BITMAP_LAST_WORD_MASK(end);
	return (private ? ~bits : bits) & mask;
}

/**
 * gmem_attributes_narrow - narrow a range to the pages that must change
 * @attributes: attributes of the guest_memfd
 * @start: in, out: first page of the range, which is not empty
 * @end: in, out: page after the range
 * @private: the wanted state
 *
 * The function removes pages that already have the wanted state from both ends
 * of the range, but not from its middle.
 *
 * Return: whether any page in the range has the other state.  If so, the first and
 * the last page of the narrowed range have the other state.
 */
bool gmem_attributes_narrow(const struct gmem_attributes *attributes,
			    pgoff_t *start, pgoff_t *end, bool private)
{
	unsigned long first = BIT_WORD(*start), last = BIT_WORD(*end - 1);
	unsigned long other;

	for (;; first++) {
		if (first > last)
			return false;
		other = gmem_attributes_other(attributes, first, *start, *end, private);
		if (other)
			break;
		if (!(first % SZ_64K))
			cond_resched();
	}
	*start = first * BITS_PER_LONG + __ffs(other);

	for (;; last--) {
		other = gmem_attributes_other(attributes, last, *start, *end, private);
		if (other)
			break;
		if (!(last % SZ_64K))
			cond_resched();
	}
	*end = last * BITS_PER_LONG + __fls(other) + 1;
	return true;
}

/**
 * gmem_attributes_set - set the state of the pages [@start, @end)
 * @attributes: attributes of the guest_memfd
 * @start: first page
 * @end: page after the last
 * @private: the new state
 *
 * The caller holds the guest_memfd's invalidate_lock, or the file is new.
 */
void gmem_attributes_set(struct gmem_attributes *attributes, pgoff_t start,
			 pgoff_t end, bool private)
{
	unsigned long *word = attributes->private + BIT_WORD(start);

	while (start < end) {
		pgoff_t next = min(end, round_up(start + 1, BITS_PER_LONG));
		unsigned long mask = GENMASK((next - 1) % BITS_PER_LONG,
					     start % BITS_PER_LONG);

		/*
		 * Use WRITE_ONCE(), because faults read the word at the same
		 * time without a lock.
		 */
		WRITE_ONCE(*word, private ? *word | mask : *word & ~mask);
		word++;
		start = next;
	}
}

/**
 * gmem_attributes_change - set the state of pages, and report which changed
 * @attributes: attributes of the guest_memfd
 * @start: first page
 * @end: page after the last; the range spans at most GMEM_CHANGE_WORDS words
 * @private: the new state
 * @changed: out: bitmap of the pages that changed; bit 0 is the first page of the
 *	word that contains @start
 *
 * The caller holds the guest_memfd's invalidate_lock exclusively.
 *
 * Return: number of pages that changed.
 */
unsigned long gmem_attributes_change(struct gmem_attributes *attributes,
				     pgoff_t start, pgoff_t end, bool private,
				     unsigned long changed[GMEM_CHANGE_WORDS])
{
	unsigned long first = BIT_WORD(start), last = BIT_WORD(end - 1), i;
	unsigned long pages = 0;

	for (i = first; i <= last; i++) {
		unsigned long *word = attributes->private + i;
		unsigned long other = gmem_attributes_other(attributes, i, start,
							    end, private);

		/*
		 * Use WRITE_ONCE(), because faults read the word at the same
		 * time without a lock.
		 */
		if (other)
			WRITE_ONCE(*word, *word ^ other);
		changed[i - first] = other;
		pages += hweight_long(other);
	}
	return pages;
}

/**
 * gmem_attributes_reach - record that a page is about to be mapped or pinned
 * @attributes: attributes of the guest_memfd; if it keeps none, nothing is recorded
 * @index: the page
 *
 * The caller holds the guest_memfd's invalidate_lock, at least shared, and took it
 * before it checked the state of the page.
 */
void gmem_attributes_reach(struct gmem_attributes *attributes, pgoff_t index)
{
	unsigned long bit = index / GMEM_REACH_PAGES;

	/*
	 * Test the bit first: most faults find it set, and then do not write to
	 * its cache line.
	 */
	if (attributes->reached && !test_bit(bit, attributes->reached))
		set_bit(bit, attributes->reached);
}

/**
 * gmem_attributes_unreach - record that the pages [@start, @end) are unmapped and unpinned
 * @attributes: attributes of the guest_memfd
 * @start: first page, a multiple of GMEM_REACH_PAGES
 * @end: page after the last, a multiple of GMEM_REACH_PAGES or the end of the file
 *
 * The caller holds the guest_memfd's invalidate_lock exclusively, and has checked
 * that the pages have no mappings and no extra references.
 */
void gmem_attributes_unreach(struct gmem_attributes *attributes,
			     pgoff_t start, pgoff_t end)
{
	unsigned long bit;

	for (bit = start / GMEM_REACH_PAGES; bit * GMEM_REACH_PAGES < end; bit++)
		clear_bit(bit, attributes->reached);
}

/**
 * gmem_attributes_use_cpu - record that the LRU batch of this CPU is about to get a page
 * @attributes: attributes of the guest_memfd; if it keeps none, nothing is recorded
 *
 * The caller keeps its task on this CPU (migrate_disable()) until the page is in the
 * batch.
 */
void gmem_attributes_use_cpu(struct gmem_attributes *attributes)
{
	unsigned int cpu = smp_processor_id();

	if (attributes->cpus && !test_bit(cpu, attributes->cpus))
		set_bit(cpu, attributes->cpus);
}

/**
 * gmem_attributes_next_reached - find the next run of pages that can be mapped or pinned
 * @attributes: attributes of the guest_memfd
 * @start: in: first page to check; out: first page of the run
 * @end: out: page after the last of the run
 * @limit: page after the range to check
 *
 * The caller holds the guest_memfd's invalidate_lock exclusively, so that no other
 * pages can be mapped or pinned meanwhile.
 *
 * Return: whether a run was found.
 */
bool gmem_attributes_next_reached(const struct gmem_attributes *attributes,
				  pgoff_t *start, pgoff_t *end, pgoff_t limit)
{
	unsigned long nr = DIV_ROUND_UP(limit, GMEM_REACH_PAGES);
	unsigned long bit, next;

	bit = find_next_bit(attributes->reached, nr, *start / GMEM_REACH_PAGES);
	next = find_next_zero_bit(attributes->reached, nr, bit);
	*start = max(*start, bit * GMEM_REACH_PAGES);
	*end = min(limit, next * GMEM_REACH_PAGES);
	return *start < limit;
}

/**
 * gmem_attributes_copy - copy a part of the bitmap of private pages
 * @attributes: attributes of the guest_memfd
 * @start: first page
 * @end: page after the last
 * @bits: destination bitmap
 * @bit: bit of @bits for page @start
 *
 * Other bits of @bits keep their value.  A caller that needs a consistent copy must
 * exclude conversions.  The function copies whole words, so the cost does not depend
 * on how fragmented the range is.
 */
void gmem_attributes_copy(const struct gmem_attributes *attributes,
			  pgoff_t start, pgoff_t end, unsigned long *bits,
			  unsigned long bit)
{
	const unsigned long *from = attributes->private;
	unsigned long n;

	while (start < end) {
		n = min(end - start, BITS_PER_LONG - bit % BITS_PER_LONG);
		if (n == BITS_PER_LONG && !(start % BITS_PER_LONG))
			bits[BIT_WORD(bit)] = READ_ONCE(from[BIT_WORD(start)]);
		else
			bitmap_write(bits, bitmap_read(from, start, n), bit, n);
		start += n;
		bit += n;
		if (!(bit % SZ_4M))
			cond_resched();
	}
}
