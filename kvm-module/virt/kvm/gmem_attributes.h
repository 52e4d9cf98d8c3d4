/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which pages of a guest_memfd are private.
 *
 * A plain bitmap, 32 KiB per GiB: a fault looks at it without a lock, a
 * conversion cannot fail for want of memory, and KVM_GET_PAGE_ENC_BITMAP is a
 * copy of it.  (Ranges in a maple tree take less for a guest that never
 * fragments and 1 KiB per 16 pages for one that does, and can fail halfway.)
 *
 * Writers hold the guest_memfd's invalidate_lock.  Readers that want more than
 * one page in one state hold it shared, others nothing.
 */
#ifndef _KVM_GMEM_ATTRIBUTES_H
#define _KVM_GMEM_ATTRIBUTES_H

#include <linux/bitmap.h>
#include <linux/types.h>

/**
 * struct gmem_attributes - the private pages of one guest_memfd
 * @private: one bit a page, 1 = private; NULL where the file does not keep
 *	attributes of its own (they are the VM's, or all its pages are alike)
 * @nr_pages: size of the file, in pages
 */
struct gmem_attributes {
	unsigned long *private;
	pgoff_t nr_pages;
};

int gmem_attributes_init(struct gmem_attributes *attributes, pgoff_t nr_pages,
			 bool private);
void gmem_attributes_destroy(struct gmem_attributes *attributes);
bool gmem_attributes_narrow(const struct gmem_attributes *attributes,
			    pgoff_t *start, pgoff_t *end, bool private);
bool gmem_attributes_next_run(const struct gmem_attributes *attributes,
			      pgoff_t *start, pgoff_t *end, pgoff_t limit,
			      bool private);
void gmem_attributes_set(struct gmem_attributes *attributes, pgoff_t start,
			 pgoff_t end, bool private);
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
