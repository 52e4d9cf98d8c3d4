/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In-place mode: each guest_memfd, and not the VM, records which of its pages
 * are private.  Included by <linux/kvm_host.h>.  The hooks in KVM's files call
 * these functions.
 *
 * Locks, outermost first: kvm->lock, kvm->slots_lock, kvm->slots_arch_lock,
 * mmap_lock, the guest_memfd's invalidate_lock, kvm->page_enc_lock, the folio
 * lock, the guest_memfd's bindings_lock, kvm->mmu_lock.
 */
#ifndef _LINUX_KVM_PRIVATE_MEM_H
#define _LINUX_KVM_PRIVATE_MEM_H

struct gmem_attributes;

/*
 * Internal flag of a slot: its guest_memfd keeps attributes.  Code that looks
 * up such attributes tests this flag first.  A VM that is not in in-place mode
 * has no slot with this flag, so a lookup costs such a VM no more than the
 * test.
 */
#define KVM_MEMSLOT_GMEM_ATTRIBUTES	(1UL << 18)
#define KVM_MEMSLOT_GMEM_FLAGS	(KVM_MEMSLOT_GMEM_ONLY | KVM_MEMSLOT_GMEM_ATTRIBUTES)

/* arch/x86/kvm/private_mem.c */
bool kvm_arch_gmem_in_place(unsigned long type);
unsigned int kvm_arch_gmem_block(struct kvm *kvm);
bool kvm_arch_may_access_private_mem(struct kvm *kvm);
void kvm_private_mem_setup(u32 types, unsigned int packet);
bool kvm_private_mem_enabled(struct kvm *kvm);
int kvm_private_mem_arch_extension(struct kvm *kvm, long cap);
int kvm_private_mem_enable(struct kvm *kvm, struct kvm_enable_cap *cap);
void kvm_arch_gmem_flush(struct page *page);
bool kvm_private_mem_fault_raced(struct kvm_vcpu *vcpu, bool prefetch);

/* virt/kvm/private_mem.c */
struct file *kvm_slot_get_attributes(const struct kvm_memory_slot *slot,
				     struct gmem_attributes **attributes);
bool kvm_mem_is_private(struct kvm *kvm, gfn_t gfn);
int kvm_private_mem_check_extension(struct kvm *kvm, long cap);

/* virt/kvm/gmem_slot.c */
void kvm_gmem_creating(struct kvm *kvm);
bool kvm_gmem_can_log_dirty(struct kvm *kvm);
bool kvm_gmem_can_change_flags(struct kvm_memory_slot *slot,
			const struct kvm_userspace_memory_region2 *mem);

/* virt/kvm/gmem_convert.c */
long kvm_gmem_ioctl(struct file *file, unsigned int ioctl, unsigned long arg);

/* virt/kvm/gmem_lru.c */
int kvm_gmem_drain_lru(struct gmem_attributes *attributes, bool all);
void kvm_gmem_lru_init(void);
void kvm_gmem_lru_exit(void);

/* virt/kvm/gmem_block.c */
void kvm_gmem_alloc_block(struct inode *inode,
			  const struct gmem_attributes *attributes, pgoff_t index);
int kvm_gmem_pin_block(struct kvm *kvm, unsigned long uaddr, int npages,
		       bool overwrite, struct page **pages);

/* virt/kvm/gmem_pages.c */
struct file *kvm_gmem_from_uaddr(struct kvm *kvm, unsigned long uaddr,
				 pgoff_t *index, pgoff_t *end);
struct page *kvm_gmem_pin_page(struct inode *inode,
			       struct gmem_attributes *attributes, pgoff_t index);
int kvm_gmem_pin_user_pages(struct kvm *kvm, unsigned long uaddr, int npages,
			    struct page **pages);
bool kvm_gmem_maps_range(struct kvm *kvm, unsigned long uaddr,
			 unsigned long size);

/* virt/kvm/gmem_access.c */
bool kvm_gmem_gfn_is_private(struct kvm *kvm, gfn_t gfn);
bool __kvm_gmem_slot_is_private(const struct kvm_memory_slot *slot, gfn_t gfn);
int kvm_gmem_read_private(const struct kvm_memory_slot *slot, gfn_t gfn,
			  void *data, int offset, int len, bool may_sleep);
int kvm_gmem_write_private(const struct kvm_memory_slot *slot, gfn_t gfn,
			   const void *data, int offset, int len);
int kvm_gmem_cmpxchg_private(struct kvm_vcpu *vcpu, gpa_t gpa, void *old,
			     const void *new, unsigned int bytes);

/* virt/kvm/page_enc_bitmap.c */
int kvm_vm_ioctl_get_page_enc_bitmap(struct kvm *kvm, void __user *argp);
void kvm_page_enc_init(struct kvm *kvm, unsigned long type);
void kvm_page_enc_destroy(struct kvm *kvm);
void kvm_page_enc_begin(struct kvm *kvm);
void kvm_page_enc_end(struct kvm *kvm);

/* virt/kvm/guest_memfd.c: functions that the hook in that file adds or exports */
struct gmem_attributes *kvm_gmem_attributes(struct file *file);
struct kvm *kvm_gmem_vm(struct file *file);
bool kvm_gmem_is_encrypted(struct inode *inode);
struct folio *kvm_gmem_get_folio(struct inode *inode, pgoff_t index);
void kvm_gmem_clear_new_folio(struct folio *folio);
void kvm_gmem_invalidate_start(struct inode *inode, pgoff_t start, pgoff_t end);
void kvm_gmem_convert_start(struct inode *inode, pgoff_t start, pgoff_t end);
void kvm_gmem_invalidate_end(struct inode *inode, pgoff_t start, pgoff_t end);
typedef void (*kvm_gmem_binding_fn)(struct kvm_memory_slot *slot,
				    pgoff_t start, pgoff_t end, void *data);
void kvm_gmem_for_each_binding(struct inode *inode, pgoff_t start, pgoff_t end,
			       kvm_gmem_binding_fn fn, void *data);
void kvm_gmem_page_enc_begin(struct inode *inode);
void kvm_gmem_page_enc_end(struct inode *inode);
int kvm_gmem_rebind(struct kvm_memory_slot *old, struct kvm_memory_slot *new);

/**
 * kvm_gmem_in_place - is @kvm in in-place mode?
 * @kvm: the VM
 *
 * Each guest_memfd of such a VM keeps the attributes of its pages, and the VM
 * itself keeps none.  The answer cannot change once the VM has a vCPU, a memory slot
 * or a guest_memfd.
 */
static inline bool kvm_gmem_in_place(struct kvm *kvm)
{
	return READ_ONCE(kvm->gmem_in_place);
}

/* Has @slot a guest_memfd that keeps attributes?  @slot can be NULL. */
static inline bool
kvm_gmem_slot_keeps_attributes(const struct kvm_memory_slot *slot)
{
	return slot && (slot->flags & KVM_MEMSLOT_GMEM_ATTRIBUTES);
}

/**
 * kvm_gmem_slot_is_private - is @gfn private according to the slot's guest_memfd?
 * @slot: memory slot of @gfn, or NULL; the caller holds kvm->srcu or slots_lock
 * @gfn: the page
 *
 * The function ignores the attributes of the VM.
 */
static inline bool
kvm_gmem_slot_is_private(const struct kvm_memory_slot *slot, gfn_t gfn)
{
	return unlikely(kvm_gmem_slot_keeps_attributes(slot)) &&
	       __kvm_gmem_slot_is_private(slot, gfn);
}

#endif /* _LINUX_KVM_PRIVATE_MEM_H */
