/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The build fails if a size, an offset or a number of the interface changes. */
_Static_assert(sizeof(struct kvm_memory_attributes2) == 128, "size");
_Static_assert(KVM_SET_MEMORY_ATTRIBUTES2 == 0xC080AED2, "number");
_Static_assert(__builtin_offsetof(struct kvm_memory_attributes2, offset) == 0 &&
               __builtin_offsetof(struct kvm_memory_attributes2, address) == 0 &&
               __builtin_offsetof(struct kvm_memory_attributes2, error_offset)
               == 32, "layout");
_Static_assert(sizeof(struct kvm_page_enc_bitmap) == 64, "size");
_Static_assert(KVM_GET_PAGE_ENC_BITMAP == 0xC040E700, "number");
_Static_assert(__builtin_offsetof(struct kvm_page_enc_bitmap, generation) == 32,
               "layout");
_Static_assert(sizeof(struct kvm_sev_update_batch) == 64, "size");
_Static_assert(__builtin_offsetof(struct kvm_sev_update_batch, done) == 32,
               "layout");
_Static_assert(KVM_SEV_SEND_UPDATE_BATCH == 0x40000000 &&
               KVM_SEV_RECEIVE_UPDATE_BATCH == 0x40000001, "commands");
_Static_assert(KVM_MEMORY_ATTRIBUTE_PRIVATE == 8, "value");
_Static_assert(KVM_CAP_PAGE_ENC_BITMAP == 0x50454e00 &&
               KVM_CAP_SEV_PRIVATE_MEM == 0x50454e01 &&
               KVM_CAP_SEV_UPDATE_BATCH == 0x50454e02, "capabilities");
/*
 * If <linux/kvm.h> defines this capability, <linux/kvm-page-enc.h> must not
 * replace Linux's number by its own
 */
#ifdef UPSTREAM_HAS_ATTRIBUTES2
_Static_assert(KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES == UPSTREAM_CAP,
               "upstream's capability");
#else
_Static_assert(KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES == 0x50454e03,
               "capability");
#endif
