// SPDX-License-Identifier: GPL-2.0
/* KVM_GET_PAGE_ENC_BITMAP: which gfns of a VM are private. */
#include <linux/bitmap.h>
#include <linux/file.h>
#include <linux/kvm-page-enc.h>
#include <linux/kvm_host.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "gmem_attributes.h"

/* User memory that is written before anybody else may run */
#define PAGE_ENC_COPY	((unsigned long)SZ_1M)

/*
 * Memory for a bitmap.  A VM keeps one between requests, which come in turns:
 * most kernels clear what they allocate, and that takes as long as the rest.
 */
struct page_enc_buffer {
	size_t longs;
	unsigned long bits[];
};

/**
 * struct page_enc_bits - the bitmap that a request asks for
 * @start: gfn of bit 0
 * @nr: bits
 * @from: first bit of @bits, a multiple of 8; those before it are 0
 * @to: bit after the last of @bits, @nr or a multiple of 8; those after it are 0
 * @bits: what memory slots are in reach of; NULL if none is
 * @buffer: where @bits are
 * @generation: of all of it
 */
struct page_enc_bits {
	gfn_t start;
	u64 nr;
	u64 from, to;
	unsigned long *bits;
	struct page_enc_buffer *buffer;
	u64 generation;
};

/* A new VM */
void kvm_page_enc_init(struct kvm *kvm)
{
	init_rwsem(&kvm->page_enc_lock);
	kvm->page_enc_spare = NULL;
}

/* A VM that nobody has any more */
void kvm_page_enc_destroy(struct kvm *kvm)
{
	kvfree(kvm->page_enc_spare);
}

/* Its contents are anything; for page_enc_buffer_put() */
static struct page_enc_buffer *page_enc_buffer_get(struct kvm *kvm, size_t longs)
{
	struct page_enc_buffer *buffer = xchg(&kvm->page_enc_spare, NULL);

	if (buffer && buffer->longs >= longs)
		return buffer;

	kvfree(buffer);
	buffer = kvmalloc(struct_size(buffer, bits, longs),
			  GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (buffer)
		buffer->longs = longs;
	return buffer;
}

static void page_enc_buffer_put(struct kvm *kvm, struct page_enc_buffer *buffer)
{
	if (buffer)
		kvfree(xchg(&kvm->page_enc_spare, buffer));
}

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

/**
 * kvm_page_enc_begin - a conversion is about to change the pages of @kvm
 * @kvm: the VM
 *
 * No bitmap is read until kvm_page_enc_end().
 */
void kvm_page_enc_begin(struct kvm *kvm)
{
	down_write(&kvm->page_enc_lock);
}

/* The conversion that began is over */
void kvm_page_enc_end(struct kvm *kvm)
{
	kvm_page_enc_changed(kvm);
	up_write(&kvm->page_enc_lock);
}

static u64 page_enc_generation(struct kvm *kvm)
{
	/* 0 is none, in the uapi */
	return atomic64_read_acquire(&kvm->page_enc_generation) + 1;
}

/* bitmap_clear() counts in unsigned int */
static void page_enc_clear(unsigned long *bits, u64 bit, u64 end)
{
	while (bit < end) {
		u64 n = min(end - bit, (u64)SZ_1G);

		bitmap_clear(bits + BIT_WORD(bit), bit % BITS_PER_LONG, n);
		bit += n;
		cond_resched();
	}
}

/* Private pages by attributes of the VM */
static void page_enc_from_vm(struct kvm *kvm, gfn_t start, gfn_t end,
			     unsigned long *bits, unsigned long bit)
{
	unsigned long gfn;
	void *entry;

	page_enc_clear(bits, bit, bit + end - start);
	xa_for_each_range(&kvm->mem_attr_array, gfn, entry, start, end - 1) {
		if (xa_to_value(entry) & KVM_MEMORY_ATTRIBUTE_PRIVATE)
			__set_bit(bit + gfn - start, bits);
	}
}

/* The part of a slot that the request asks for: [@first, @last), from @bit on */
static void page_enc_from_slot(struct kvm *kvm, struct kvm_memory_slot *slot,
			       gfn_t first, gfn_t last,
			       unsigned long *bits, unsigned long bit)
{
	struct gmem_attributes *attributes;
	struct file *file;
	pgoff_t index;

	file = kvm_slot_get_attributes(slot, &attributes);
	if (!file) {
		page_enc_from_vm(kvm, first, last, bits, bit);
		return;
	}
	index = first - slot->base_gfn + slot->gmem.pgoff;
	gmem_attributes_copy(attributes, index, index + last - first, bits, bit);
	fput(file);
}

/*
 * All bits at one time: after every conversion that they have any page of, and
 * before every other.
 */
static int page_enc_read(struct kvm *kvm, struct page_enc_bits *enc)
{
	gfn_t start = enc->start, end = start + enc->nr;
	gfn_t first = end, last = start;
	struct kvm_memslot_iter iter;
	struct kvm_memslots *slots;
	u64 bit, next = 0;

	guard(srcu)(&kvm->srcu);

	slots = kvm_memslots(kvm);
	kvm_for_each_memslot_in_gfn_range(&iter, slots, start, end) {
		first = min(first, max(start, iter.slot->base_gfn));
		last = max(last, min(end, iter.slot->base_gfn + iter.slot->npages));
	}
	if (first < last) {
		enc->from = round_down(first - start, BITS_PER_BYTE);
		enc->to = min(enc->nr, round_up(last - start, BITS_PER_BYTE));
		enc->buffer = page_enc_buffer_get(kvm, BITS_TO_LONGS(enc->to - enc->from));
		if (!enc->buffer)
			return -ENOMEM;
		enc->bits = enc->buffer->bits;
	}

	guard(rwsem_read)(&kvm->page_enc_lock);

	enc->generation = page_enc_generation(kvm);
	/* In the order of their addresses */
	kvm_for_each_memslot_in_gfn_range(&iter, slots, start, end) {
		first = max(start, iter.slot->base_gfn);
		last = min(end, iter.slot->base_gfn + iter.slot->npages);
		bit = first - start - enc->from;
		page_enc_clear(enc->bits, next, bit);
		page_enc_from_slot(kvm, iter.slot, first, last, enc->bits, bit);
		next = bit + last - first;
	}
	page_enc_clear(enc->bits, next, enc->to - enc->from);
	return 0;
}

/* @bytes of user memory become @from's, or 0 if that is NULL */
static int page_enc_to_user(u8 __user *to, const u8 *from, u64 bytes)
{
	while (bytes) {
		unsigned long n = min(bytes, PAGE_ENC_COPY);

		if (from ? copy_to_user(to, from, n) : clear_user(to, n))
			return -EFAULT;
		to += n;
		bytes -= n;
		if (from)
			from += n;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/* Whole bytes, but for the bits of the last that the caller did not ask for */
static int page_enc_write(const struct page_enc_bits *enc, u8 __user *to)
{
	const u8 *bits = (const u8 *)enc->bits;
	u64 bytes = enc->nr / BITS_PER_BYTE;
	u64 from = enc->from / BITS_PER_BYTE;
	u64 end = min(bytes, DIV_ROUND_UP_ULL(enc->to, BITS_PER_BYTE));
	u8 keep = 0xff << enc->nr % BITS_PER_BYTE;
	u8 last = 0, old;
	int r;

	r = page_enc_to_user(to, NULL, from);
	if (!r && end > from)
		r = page_enc_to_user(to + from, bits, end - from);
	if (!r && bytes > max(from, end))
		r = page_enc_to_user(to + max(from, end), NULL,
				     bytes - max(from, end));
	if (r || !(enc->nr % BITS_PER_BYTE))
		return r;

	if (enc->to == enc->nr)
		last = bits[bytes - from] & ~keep;
	if (get_user(old, to + bytes))
		return -EFAULT;
	return put_user(last | (old & keep), to + bytes);
}

/**
 * kvm_vm_ioctl_get_page_enc_bitmap - KVM_GET_PAGE_ENC_BITMAP
 * @kvm: the VM
 * @argp: struct kvm_page_enc_bitmap of the caller
 *
 * The bitmap is of one time, and so is its generation.  No lock is held while
 * user memory is written.
 */
int kvm_vm_ioctl_get_page_enc_bitmap(struct kvm *kvm, void __user *argp)
{
	struct page_enc_bits enc = {};
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
		enc.start = args.start_gfn;
		enc.nr = args.num_pages;
		r = page_enc_read(kvm, &enc);
		if (!r)
			r = page_enc_write(&enc, to);
		page_enc_buffer_put(kvm, enc.buffer);
		if (r)
			return r;
		generation = enc.generation;
	}

	args.generation = generation;
	return copy_to_user(argp, &args, sizeof(args)) ? -EFAULT : 0;
}
