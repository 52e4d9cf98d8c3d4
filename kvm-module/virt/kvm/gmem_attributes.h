/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which pages of a guest_memfd are private.
 *
 * A plain bitmap, 32 KiB per GiB: a fault looks at it without a lock, a
 * conversion cannot fail for want of memory, and KVM_GET_PAGE_ENC_BITMAP is a
 * copy of it.  (Ranges in a maple tree take less for a guest that never
 * fragments and 1 KiB per 16 pages for one that does, and can fail halfway.)
 *
 * Writers hold the guest_memfd's invalidate_lock, and for writing the
 * page_enc_lock of the VM.  Readers that want all of a conversion or nothing of
 * it hold either (shared), others nothing.
 */
#ifndef _KVM_GMEM_ATTRIBUTES_H
#define _KVM_GMEM_ATTRIBUTES_H

#include <linux/bitmap.h>
#include <linux/types.h>

struct kvm;

/* Pages that a bit of @reached stands for: those of a word of @private */
#define GMEM_REACH_PAGES	BITS_PER_LONG
/* Words of @private that are changed before their pages are marked dirty */
#define GMEM_CHANGE_WORDS	64
#define GMEM_CHANGE_PAGES	(GMEM_CHANGE_WORDS * BITS_PER_LONG)

/**
 * struct gmem_attributes - the private pages of one guest_memfd
 * @private: one bit a page, 1 = private; NULL where the file does not keep
 *	attributes of its own (they are the VM's, or all its pages are alike)
 * @reached: one bit for GMEM_REACH_PAGES pages, 1 = the host has mapped or pinned
 *	one of them since it was last seen that nobody can hold any.  Nobody can
 *	hold a page that was in nobody's reach, so a conversion looks at the others
 *	only.
 * @cpus: one bit a CPU, 1 = its LRU batch may hold a new page of the file
 * @nr_pages: size of the file, in pages
 * @block: pages that are allocated together if possible (gmem_block.c); a power
 *	of two, 1 if pages are allocated one by one
 * @kvm_may_access: KVM can read and write private pages: they are not encrypted
 * @punched: user space has punched a hole, so it prefers to save memory rather
 *	than to have contiguous pages; never goes back to false
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
