/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The record of which pages of a guest_memfd are private.
 *
 * The record is a plain bitmap, 32 KiB per GiB of guest memory.  Faults read it
 * without a lock, and KVM_GET_PAGE_ENC_BITMAP copies it.  A conversion changes
 * bits and allocates no memory for this, so it cannot fail halfway.
 *
 * A maple tree of ranges would take less memory only for a guest whose private
 * and shared pages form few ranges.  For a guest that fragments its memory, the
 * tree would take 1 KiB per 16 pages.  A change of the tree allocates memory, so
 * a conversion could fail halfway.
 *
 * Writers hold the guest_memfd's invalidate_lock and the VM's page_enc_lock, both
 * exclusively.  Readers that must see a conversion completely or not at all hold one
 * of the two locks shared.  Other readers hold no lock.
 */
#ifndef _KVM_GMEM_ATTRIBUTES_H
#define _KVM_GMEM_ATTRIBUTES_H

#include <linux/bitmap.h>
#include <linux/types.h>

struct kvm;

/*
 * Number of pages per bit of @reached, which is also the number of pages per
 * word of @private
 */
#define GMEM_REACH_PAGES	BITS_PER_LONG
/*
 * Maximum number of words of @private that a conversion changes before it
 * marks the changed pages dirty.  A longer conversion repeats both steps.
 */
#define GMEM_CHANGE_WORDS	64
#define GMEM_CHANGE_PAGES	(GMEM_CHANGE_WORDS * BITS_PER_LONG)

/**
 * struct gmem_attributes - the private pages of one guest_memfd
 * @private: one bit per page, 1 = private; NULL if the file does not keep attributes
 *	(the VM keeps them, or all pages of the file have the same state)
 * @reached: one bit per GMEM_REACH_PAGES pages.  KVM sets the bit before the
 *	host maps or pins one of these pages.  A long conversion to private
 *	clears the bit when it finds that none of these pages is mapped or has a
 *	reference besides the page cache's.  If the bit is 0, the host neither
 *	maps nor pins any of these pages, so conversions check only pages
 *	whose bit is 1.
 * @cpus: one bit per CPU, 1 = its LRU batch may hold a new page of the file
 * @nr_pages: size of the file, in pages
 * @block: pages that are allocated together if possible (gmem_block.c); a power
 *	of two, 1 if pages are allocated one by one
 * @kvm_may_access: KVM can read and write private pages, which are not encrypted
 * @punched: user space has punched a hole, so saving memory is more important than
 *	contiguous pages; never becomes false again
 */
struct gmem_attributes {
	unsigned long *private;
	unsigned long *reached;
	unsigned long *cpus;
	pgoff_t nr_pages;
	unsigned int block;
	bool kvm_may_access;
	bool punched;
};

int gmem_attributes_init(struct gmem_attributes *attributes, struct kvm *kvm,
			 pgoff_t nr_pages, bool private);
void gmem_attributes_destroy(struct gmem_attributes *attributes);
bool gmem_attributes_narrow(const struct gmem_attributes *attributes,
			    pgoff_t *start, pgoff_t *end, bool private);
void gmem_attributes_set(struct gmem_attributes *attributes, pgoff_t start,
			 pgoff_t end, bool private);
unsigned long gmem_attributes_change(struct gmem_attributes *attributes,
				     pgoff_t start, pgoff_t end, bool private,
				     unsigned long changed[GMEM_CHANGE_WORDS]);
void gmem_attributes_reach(struct gmem_attributes *attributes, pgoff_t index);
void gmem_attributes_unreach(struct gmem_attributes *attributes,
			     pgoff_t start, pgoff_t end);
void gmem_attributes_use_cpu(struct gmem_attributes *attributes);
bool gmem_attributes_next_reached(const struct gmem_attributes *attributes,
				  pgoff_t *start, pgoff_t *end, pgoff_t limit);
void gmem_attributes_copy(const struct gmem_attributes *attributes,
			  pgoff_t start, pgoff_t end, unsigned long *bits,
			  unsigned long bit);

static inline bool gmem_attributes_is_private(const struct gmem_attributes *attributes,
					      pgoff_t index)
{
	return index < attributes->nr_pages &&
	       test_bit(index, attributes->private);
}

#endif /* _KVM_GMEM_ATTRIBUTES_H */
