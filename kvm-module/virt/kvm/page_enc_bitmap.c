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

/* Bytes copied to user space between two cond_resched() calls */
#define PAGE_ENC_COPY	((unsigned long)SZ_1M)

/*
 * Memory for a bitmap.  A VM keeps one buffer between requests, because most
 * kernels clear memory when they allocate it, and the clearing would double the
 * time of a request.
 */
struct page_enc_buffer {
	size_t longs;
	unsigned long bits[];
};

/**
 * struct page_enc_bits - the bitmap for a request
 * @start: gfn of bit 0
 * @nr: number of bits
 * @from: first bit that is stored in @bits, a multiple of 8; earlier bits are 0
 * @to: bit after the last that is stored in @bits, @nr or a multiple of 8; later bits
 *	are 0
 * @bits: the bits from the first to the last memory slot of the range; NULL if the
 *	range has no slot
 * @buffer: memory of @bits
 * @generation: generation of the bitmap
 */
struct page_enc_bits {
	gfn_t start;
	u64 nr;
	u64 from, to;
	unsigned long *bits;
	struct page_enc_buffer *buffer;
	u64 generation;
};

/*
 * May a VM keep a buffer of this size?  The limit is one byte per page of its
 * slots, which is eight times the size of a bitmap of slots without gaps.
 */
static bool page_enc_may_keep(struct kvm *kvm, size_t longs)
{
	return longs * sizeof(long) <= READ_ONCE(kvm->nr_memslot_pages);
}

/* Called for a new VM of @type, before anybody else can use it */
void kvm_page_enc_init(struct kvm *kvm, unsigned long type)
{
	kvm->gmem_in_place = kvm_arch_gmem_in_place(type);
	init_rwsem(&kvm->page_enc_lock);
	kvm->page_enc_spare = NULL;
}

/* Called when the VM has no users any more */
void kvm_page_enc_destroy(struct kvm *kvm)
{
	kvfree(kvm->page_enc_spare);
}

/* Get a buffer with undefined contents.  Release it with page_enc_buffer_put(). */
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
	if (buffer && page_enc_may_keep(kvm, buffer->longs))
		buffer = xchg(&kvm->page_enc_spare, buffer);
	kvfree(buffer);
}

/**
 * kvm_page_enc_begin - begin to change which pages of @kvm are private
 * @kvm: the VM
 *
 * No bitmap is read until kvm_page_enc_end().  The generation changes here, before
 * any page is marked dirty, so a reader that finds a page dirty because of this change
 * never gets the old generation afterwards.
 */
void kvm_page_enc_begin(struct kvm *kvm)
{
	down_write(&kvm->page_enc_lock);
	/*
	 * This increment is a full barrier, so the state of pages changes
	 * after the generation.
	 */
	atomic64_inc_return(&kvm->page_enc_generation);
}

/* End the change that kvm_page_enc_begin() began. */
void kvm_page_enc_end(struct kvm *kvm)
{
	up_write(&kvm->page_enc_lock);
}

/*
 * Calculate the generation of the bitmap that @slots and all files define.  It is the
 * sum of two counters that never decrease: the number of changes of private pages, and
 * the generation of the slots.  The latter changes when new slots become active, and again
 * when the old slots have no readers any more.  Because neither counter ever decreases,
 * two readings of the sum are equal only if neither counter has changed.  The sum is
 * at least 1, because the uapi reserves 0.
 */
static u64 page_enc_generation(struct kvm *kvm, struct kvm_memslots *slots)
{
	u64 changes = atomic64_read_acquire(&kvm->page_enc_generation);
	u64 gen = READ_ONCE(slots->generation);

	return changes + 2 * (gen & ~KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS) +
	       !!(gen & KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS) + 1;
}

/* Is the generation of an earlier bitmap the current one? */
static bool page_enc_is_current(struct kvm *kvm, u64 generation)
{
	guard(srcu)(&kvm->srcu);

	return generation == page_enc_generation(kvm, kvm_memslots(kvm));
}

/* Clear [@bit, @end) in parts, because bitmap_clear() counts in unsigned int. */
static void page_enc_clear(unsigned long *bits, u64 bit, u64 end)
{
	while (bit < end) {
		u64 n = min(end - bit, (u64)SZ_1G);

		bitmap_clear(bits + BIT_WORD(bit), bit % BITS_PER_LONG, n);
		bit += n;
		cond_resched();
	}
}

/* Set the bits of pages that are private according to the attributes of the VM. */
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

/*
 * Write the state of the gfns [@first, @last) of a slot to @bits, beginning
 * with the bit number @bit.
 */
static void page_enc_from_slot(struct kvm *kvm, struct kvm_memory_slot *slot,
			       gfn_t first, gfn_t last,
			       unsigned long *bits, unsigned long bit)
{
	struct gmem_attributes *attributes = NULL;
	struct file *file;
	pgoff_t index;

	/*
	 * No reference to the file is needed, because kvm_gmem_release()
	 * removes the file from its slots under page_enc_lock.
	 */
	lockdep_assert_held(&kvm->page_enc_lock);
	file = READ_ONCE(slot->gmem.file);
	if (file)
		attributes = kvm_gmem_attributes(file);
	if (!attributes) {
		page_enc_from_vm(kvm, first, last, bits, bit);
		return;
	}
	index = first - slot->base_gfn + slot->gmem.pgoff;
	gmem_attributes_copy(attributes, index, index + last - first, bits, bit);
}

/* Get a buffer for the part of the range that is covered by slots. */
static int page_enc_prepare(struct kvm *kvm, struct kvm_memslots *slots,
			    struct page_enc_bits *enc)
{
	gfn_t start = enc->start, end = start + enc->nr;
	gfn_t first = end, last = start;
	struct kvm_memslot_iter iter;

	kvm_for_each_memslot_in_gfn_range(&iter, slots, start, end) {
		first = min(first, max(start, iter.slot->base_gfn));
		last = max(last, min(end, iter.slot->base_gfn + iter.slot->npages));
	}
	enc->from = 0;
	enc->to = 0;
	if (first >= last)
		return 0;

	enc->from = round_down(first - start, BITS_PER_BYTE);
	enc->to = min(enc->nr, round_up(last - start, BITS_PER_BYTE));
	enc->buffer = page_enc_buffer_get(kvm, BITS_TO_LONGS(enc->to - enc->from));
	if (!enc->buffer)
		return -ENOMEM;
	enc->bits = enc->buffer->bits;
	return 0;
}

/*
 * Read all bits at one point in time: the bitmap has all pages of a conversion in
 * their new state, or all in their old state.
 */
static int page_enc_read(struct kvm *kvm, struct page_enc_bits *enc)
{
	gfn_t start = enc->start, end = start + enc->nr;
	struct kvm_memslot_iter iter;
	struct kvm_memslots *slots;
	gfn_t first, last;
	u64 bit, next = 0;
	int r;

	guard(srcu)(&kvm->srcu);

	for (;;) {
		slots = kvm_memslots(kvm);
		r = page_enc_prepare(kvm, slots, enc);
		if (r)
			return r;

		r = down_read_killable(&kvm->page_enc_lock);
		if (r)
			return r;
		/*
		 * Slots and attributes must be from the same point in time.  The
		 * loop ends, because the slots can be replaced only once while this
		 * task is in an SRCU read-side critical section of kvm->srcu.
		 */
		if (slots == kvm_memslots(kvm))
			break;
		up_read(&kvm->page_enc_lock);
		page_enc_buffer_put(kvm, enc->buffer);
		enc->buffer = NULL;
		enc->bits = NULL;
	}

	enc->generation = page_enc_generation(kvm, slots);
	/*
	 * The iterator returns slots in the order of their gfns, so the bits
	 * from @next to @bit belong to no slot.
	 */
	kvm_for_each_memslot_in_gfn_range(&iter, slots, start, end) {
		first = max(start, iter.slot->base_gfn);
		last = min(end, iter.slot->base_gfn + iter.slot->npages);
		bit = first - start - enc->from;
		page_enc_clear(enc->bits, next, bit);
		page_enc_from_slot(kvm, iter.slot, first, last, enc->bits, bit);
		next = bit + last - first;
	}
	page_enc_clear(enc->bits, next, enc->to - enc->from);
	up_read(&kvm->page_enc_lock);
	return 0;
}

/* Copy @bytes from @from to user space, or write zeros if @from is NULL. */
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

/*
 * Write the bitmap to user space.  If the range ends within a byte, the other
 * bits of this byte keep their value.
 */
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
 * kvm_vm_ioctl_get_page_enc_bitmap - handle KVM_GET_PAGE_ENC_BITMAP
 * @kvm: the VM
 * @argp: struct kvm_page_enc_bitmap of the caller
 *
 * The bitmap and its generation are from the same point in time.  The function does
 * not hold a lock while it writes to user memory.
 */
int kvm_vm_ioctl_get_page_enc_bitmap(struct kvm *kvm, void __user *argp)
{
	struct page_enc_bits enc = {};
	struct kvm_page_enc_bitmap args;
	u8 __user *to;
	u64 end;
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

	if ((args.flags & KVM_PAGE_ENC_BITMAP_IF_CHANGED) &&
	    page_enc_is_current(kvm, args.generation)) {
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
		args.generation = enc.generation;
	}

	return copy_to_user(argp, &args, sizeof(args)) ? -EFAULT : 0;
}
