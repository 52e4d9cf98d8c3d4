// SPDX-License-Identifier: GPL-2.0
/* Which pages of a guest_memfd are private: the set itself. */
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "gmem_attributes.h"

/**
 * gmem_attributes_init - keep attributes for a guest_memfd of @nr_pages pages
 * @attributes: to be initialised, zeroed
 * @kvm: the VM that creates the file
 * @nr_pages: pages of the file
 * @private: the state that all of them begin with
 *
 * Return: 0, or -ENOMEM.
 */
int gmem_attributes_init(struct gmem_attributes *attributes, struct kvm *kvm,
			 pgoff_t nr_pages, bool private)
{
	/* User space chooses the size, so no warning if it is too large. */
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

/* The pages of word @word that are in [@start, @end) and not in state @private */
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
 * gmem_attributes_narrow - cut off what need not be converted
 * @attributes: of the guest_memfd
 * @start: in, out: first page of the range, which is not empty
 * @end: in, out: page after the range
 * @private: the state that the range is to have
 *
 * Return: whether any page in the range has the other state.  The first and
 * the last page of the narrowed range do.
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
 * @attributes: of the guest_memfd
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

		/* Readers of other pages of the word hold no lock. */
		WRITE_ONCE(*word, private ? *word | mask : *word & ~mask);
		word++;
		start = next;
	}
}

/**
 * gmem_attributes_change - set the state of pages, and report which changed
 * @attributes: of the guest_memfd
 * @start: first page
 * @end: page after the last, in the GMEM_CHANGE_WORDS words from @start's on
 * @private: the new state
 * @changed: out: the pages that changed; bit 0 is the first page of @start's word
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

		/* Readers of other pages of the word hold no lock. */
		if (other)
			WRITE_ONCE(*word, *word ^ other);
		changed[i - first] = other;
		pages += hweight_long(other);
	}
	return pages;
}

/**
 * gmem_attributes_reach - somebody is about to be given a page that can be held
 * @attributes: of the guest_memfd; it need not keep any
 * @index: the page
 *
 * Called for a host mapping and for a pin, with the guest_memfd's invalidate_lock
 * held (shared will do) from before the page's state is looked at.
 */
void gmem_attributes_reach(struct gmem_attributes *attributes, pgoff_t index)
{
	unsigned long bit = index / GMEM_REACH_PAGES;

	/* Most faults find it set, and need not fight for its cache line */
	if (attributes->reached && !test_bit(bit, attributes->reached))
		set_bit(bit, attributes->reached);
}

/**
 * gmem_attributes_unreach - nobody can hold the pages [@start, @end) any more
 * @attributes: of the guest_memfd
 * @start: first page, a multiple of GMEM_REACH_PAGES
 * @end: page after the last, likewise or the end of the file
 *
 * The caller holds the guest_memfd's invalidate_lock exclusively, and has seen
 * that the pages are mapped and held by nobody.
 */
void gmem_attributes_unreach(struct gmem_attributes *attributes,
			     pgoff_t start, pgoff_t end)
{
	unsigned long bit;

	for (bit = start / GMEM_REACH_PAGES; bit * GMEM_REACH_PAGES < end; bit++)
		clear_bit(bit, attributes->reached);
}

/**
 * gmem_attributes_use_cpu - the LRU batch of this CPU is about to get a page
 * @attributes: of the guest_memfd; it need not keep any
 *
 * The caller has disabled migration until the batch has it.
 */
void gmem_attributes_use_cpu(struct gmem_attributes *attributes)
{
	unsigned int cpu = smp_processor_id();

	if (attributes->cpus && !test_bit(cpu, attributes->cpus))
		set_bit(cpu, attributes->cpus);
}

/**
 * gmem_attributes_next_reached - the next pages that somebody can hold
 * @attributes: of the guest_memfd
 * @start: in: where to look from; out: first page
 * @end: out: page after the last
 * @limit: page after the range that is looked at
 *
 * The caller holds the guest_memfd's invalidate_lock exclusively: there will be no
 * others meanwhile.
 *
 * Return: whether there are any.
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
 * gmem_attributes_copy - copy which pages are private
 * @attributes: of the guest_memfd
 * @start: first page
 * @end: page after the last
 * @bits: bitmap that is written
 * @bit: where in it
 *
 * Other bits of @bits keep their value.  For one state at one time, the caller
 * keeps conversions away.  Word by word, so that the cost does not depend on how
 * fragmented the range is.
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
