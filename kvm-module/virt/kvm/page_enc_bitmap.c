// SPDX-License-Identifier: GPL-2.0
/* KVM_GET_PAGE_ENC_BITMAP: which gfns of a VM are private. */
#include <linux/bitmap.h>
#include <linux/file.h>
#include <linux/kvm-page-enc.h>
#include <linux/kvm_host.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "gmem_attributes.h"

/* gfns that are looked up at a time: a page full of bits */
#define PAGE_ENC_CHUNK	((u64)PAGE_SIZE * BITS_PER_BYTE)

/**
 * kvm_page_enc_changed - private pages of @kvm have become others
 * @kvm: the VM
 *
 * Called after the change: a bitmap that is read from here on has it, and one
 * that may not have it is of an earlier generation.
 */
void kvm_page_enc_changed(struct kvm *kvm)
{
	/* Orders the change before it */
	atomic64_inc_return(&kvm->page_enc_generation);
}

static u64 page_enc_generation(struct kvm *kvm)
{
	/* 0 is none, in the uapi */
	return atomic64_read_acquire(&kvm->page_enc_generation) + 1;
}

/* The private pages [@start, @end) of a slot's guest_memfd, from @bit on */
static void page_enc_from_gmem(struct file *file,
			       const struct gmem_attributes *attributes,
			       pgoff_t start, pgoff_t end,
			       unsigned long *bits, unsigned long bit)
{
	/* All of a conversion, or nothing */
	filemap_invalidate_lock_shared(file->f_mapping);
	gmem_attributes_copy(attributes, start, end, bits, bit);
	filemap_invalidate_unlock_shared(file->f_mapping);
}

/* The same, by attributes of the VM */
static void page_enc_from_vm(struct kvm *kvm, gfn_t start, gfn_t end,
			     unsigned long *bits, unsigned long bit)
{
	unsigned long gfn;
	void *entry;

	bitmap_clear(bits, bit, end - start);
	xa_for_each_range(&kvm->mem_attr_array, gfn, entry, start, end - 1) {
		if (xa_to_value(entry) & KVM_MEMORY_ATTRIBUTE_PRIVATE)
			__set_bit(bit + gfn - start, bits);
	}
}

static void page_enc_chunk(struct kvm *kvm, gfn_t start, gfn_t end,
			   unsigned long *bits)
{
	struct gmem_attributes *attributes;
	struct kvm_memslot_iter iter;
	gfn_t next = start;
	struct file *file;

	guard(srcu)(&kvm->srcu);
	/* In the order of their addresses */
	kvm_for_each_memslot_in_gfn_range(&iter, kvm_memslots(kvm), start, end) {
		struct kvm_memory_slot *slot = iter.slot;
		gfn_t first = max(start, slot->base_gfn);
		gfn_t last = min(end, slot->base_gfn + slot->npages);
		pgoff_t index;

		bitmap_clear(bits, next - start, first - next);
		next = last;
		file = kvm_slot_get_attributes(slot, &attributes);
		if (file) {
			index = first - slot->base_gfn + slot->gmem.pgoff;
			page_enc_from_gmem(file, attributes, index,
					   index + last - first, bits,
					   first - start);
			fput(file);
		} else {
			page_enc_from_vm(kvm, first, last, bits, first - start);
		}
	}
	bitmap_clear(bits, next - start, end - next);
}

/* Whole bytes, but for the bits of the last that the caller did not ask for */
static int page_enc_to_user(u8 __user *to, u8 *bits, unsigned long nbits)
{
	unsigned long bytes = DIV_ROUND_UP(nbits, BITS_PER_BYTE);
	u8 keep = nbits % BITS_PER_BYTE ? 0xff << nbits % BITS_PER_BYTE : 0;
	u8 old;

	if (keep) {
		if (get_user(old, to + bytes - 1))
			return -EFAULT;
		bits[bytes - 1] = (bits[bytes - 1] & ~keep) | (old & keep);
	}
	return copy_to_user(to, bits, bytes) ? -EFAULT : 0;
}

static int page_enc_copy(struct kvm *kvm, gfn_t start, u64 nr, u8 __user *to)
{
	unsigned long *bits;
	u64 done, n;
	int r = 0;

	/* No more than needed: kernels that clear what they allocate do so here */
	bits = kmalloc(BITS_TO_BYTES(round_up(min(nr, PAGE_ENC_CHUNK), BITS_PER_LONG)),
		       GFP_KERNEL_ACCOUNT);
	if (!bits)
		return -ENOMEM;

	for (done = 0; !r && done < nr; done += n) {
		n = min(nr - done, PAGE_ENC_CHUNK);
		page_enc_chunk(kvm, start + done, start + done + n, bits);
		r = page_enc_to_user(to + done / BITS_PER_BYTE, (u8 *)bits, n);
		if (fatal_signal_pending(current))
			r = -EINTR;
		cond_resched();
	}
	kfree(bits);
	return r;
}

/**
 * kvm_vm_ioctl_get_page_enc_bitmap - KVM_GET_PAGE_ENC_BITMAP
 * @kvm: the VM
 * @argp: struct kvm_page_enc_bitmap of the caller
 *
 * No lock is held while user memory is written.  A conversion that comes
 * between two chunks is not in the first: the generation, which is read before
 * any of them, then is not the one that the next call finds.
 */
int kvm_vm_ioctl_get_page_enc_bitmap(struct kvm *kvm, void __user *argp)
{
	struct kvm_page_enc_bitmap args;
	u64 end, generation;
	u8 __user *to;
	int r;

	if (copy_from_user(&args, argp, sizeof(args)))
		return -EFAULT;

	if ((args.flags & ~KVM_PAGE_ENC_BITMAP_IF_CHANGED) ||
	    memchr_inv(args.reserved, 0, sizeof(args.reserved)))
		return -EINVAL;
	if (!args.num_pages ||
	    check_add_overflow(args.start_gfn, args.num_pages, &end) ||
	    end > 1ULL << (64 - PAGE_SHIFT))
		return -EINVAL;

	generation = page_enc_generation(kvm);
	if ((args.flags & KVM_PAGE_ENC_BITMAP_IF_CHANGED) &&
	    args.generation == generation) {
		args.flags |= KVM_PAGE_ENC_BITMAP_UNCHANGED;
	} else {
		to = u64_to_user_ptr(args.enc_bitmap);
		if (!access_ok(to, DIV_ROUND_UP(args.num_pages, BITS_PER_BYTE)))
			return -EFAULT;
		r = page_enc_copy(kvm, args.start_gfn, args.num_pages, to);
		if (r)
			return r;
	}

	args.generation = generation;
	return copy_to_user(argp, &args, sizeof(args)) ? -EFAULT : 0;
}
