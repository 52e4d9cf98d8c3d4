/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Which pages of a guest are private: the calls that <linux/kvm.h> of
 * Linux 7.3 does not have.
 *
 * One definition for the kernel module, QEMU and the tests.  Compiles alone
 * and beside any <linux/kvm.h>; where that has a name already, it must mean
 * the same, or the compiler stops here.
 */
#ifndef _LINUX_KVM_PAGE_ENC_H
#define _LINUX_KVM_PAGE_ENC_H

#include <linux/ioctl.h>
#include <linux/types.h>

#ifndef KVMIO
#define KVMIO 0xAE
#endif

/*
 * Capabilities.  The numbers are the first that Linux 7.3 leaves free, and a
 * later kernel may give them to something else: a caller that does not know
 * the kernel probes with a call that cannot do anything instead.
 *
 * - KVM_SET_MEMORY_ATTRIBUTES2 on a guest_memfd with size 0: EINVAL where
 *   it is implemented, ENOTTY where it is not.
 * - KVM_GET_PAGE_ENC_BITMAP on a VM with num_pages 0: likewise.
 * - KVM_SEV_SEND_UPDATE_BATCH on an SEV VM with count 0: 0 where it is
 *   implemented, EINVAL where it is not, or where its flags are not.
 */

/* VM: mask of the attributes that KVM_SET_MEMORY_ATTRIBUTES2 takes, or 0. */
#define KVM_CAP_MEMORY_ATTRIBUTES2	252

/* VM: 1 if KVM_GET_PAGE_ENC_BITMAP is implemented. */
#define KVM_CAP_PAGE_ENC_BITMAP		253

/*
 * VM, KVM_ENABLE_CAP on an SEV VM before its first vCPU and memory slot (EBUSY
 * after them), and before the guest_memfds that are to keep attributes, which
 * those with GUEST_MEMFD_FLAG_MMAP then do: its private memory is that which
 * these attributes say is private.  Takes SMM's address space away.
 * KVM_CHECK_EXTENSION says 1 where it can be enabled.
 */
#define KVM_CAP_SEV_PRIVATE_MEM		254

/*
 * VM: if KVM_SEV_SEND_UPDATE_BATCH and KVM_SEV_RECEIVE_UPDATE_BATCH are, how
 * many pages a packet can have: more than 1 for VMs with
 * KVM_CAP_SEV_PRIVATE_MEM, and for the system.
 */
#define KVM_CAP_SEV_UPDATE_BATCH	255

/**
 * struct kvm_memory_attributes2 - argument of KVM_SET_MEMORY_ATTRIBUTES2
 * @offset: in: first byte of the range in the guest_memfd, page-aligned
 * @address: the same, by the name that VM-wide attributes use
 * @size: in: bytes, page-aligned, not 0
 * @attributes: in: 0 (shared) or KVM_MEMORY_ATTRIBUTE_PRIVATE
 * @flags: 0
 * @error_offset: out: with EAGAIN, the first byte of the first page in the
 *	range that somebody else holds; nothing was converted
 * @reserved: 0
 */
struct kvm_memory_attributes2 {
	union {
		__u64 address;
		__u64 offset;
	};
	__u64 size;
	__u64 attributes;
	__u64 flags;
	__u64 error_offset;
	__u64 reserved[11];
};

/* On a guest_memfd: convert a range, whole or not at all. */
#define KVM_SET_MEMORY_ATTRIBUTES2 \
	_IOWR(KVMIO, 0xd2, struct kvm_memory_attributes2)

#ifndef KVM_MEMORY_ATTRIBUTE_PRIVATE
#define KVM_MEMORY_ATTRIBUTE_PRIVATE	(1ULL << 3)
#endif

/**
 * struct kvm_page_enc_bitmap - argument of KVM_GET_PAGE_ENC_BITMAP
 * @start_gfn: in: gfn of the first bit
 * @num_pages: in: how many, not 0
 * @enc_bitmap: in: user address of the bitmap: little-endian, one bit a page,
 *	1 = private.  Written in whole bytes; the bits past @num_pages in the
 *	last byte keep their value, and no byte after it is touched
 * @flags: in: KVM_PAGE_ENC_BITMAP_IF_CHANGED or 0; out: the same, plus
 *	KVM_PAGE_ENC_BITMAP_UNCHANGED if the bitmap was not written
 * @generation: in: the generation that the caller's bitmap is of, 0 for none;
 *	out: the generation of what was written (never 0)
 * @reserved: 0
 */
struct kvm_page_enc_bitmap {
	__u64 start_gfn;
	__u64 num_pages;
	__u64 enc_bitmap;
	__u64 flags;
	__u64 generation;
	__u64 reserved[3];
};

/* Do not write the bitmap if no page of the VM changed since @generation. */
#define KVM_PAGE_ENC_BITMAP_IF_CHANGED	(1ULL << 0)
/* Answer to it: nothing changed, the bitmap was not written. */
#define KVM_PAGE_ENC_BITMAP_UNCHANGED	(1ULL << 1)

/* On a VM: which gfns are private; gfns without a memory slot read 0. */
#define KVM_GET_PAGE_ENC_BITMAP \
	_IOWR(KVMIO, 0xdb, struct kvm_page_enc_bitmap)

/*
 * Commands of KVM_MEMORY_ENCRYPT_OP (struct kvm_sev_cmd's id), beside those of
 * <asm/kvm.h>, which count up from 0 and will not come this far.
 */
#define KVM_SEV_SEND_UPDATE_BATCH	0x40000000
#define KVM_SEV_RECEIVE_UPDATE_BATCH	0x40000001

/**
 * struct kvm_sev_update_batch - KVM_SEV_SEND_UPDATE_DATA or
 *	KVM_SEV_RECEIVE_UPDATE_DATA of whole pages that follow each other
 * @guest_uaddr: in: host address of the first page, page-aligned
 * @hdr_uaddr: in: array of packet headers, @hdr_len bytes for each page
 * @trans_uaddr: in: array of packets, a page for each page; a packet of several
 *	pages has the places of all of them, and the header of the first
 * @hdr_len: in: bytes of one header
 * @count: in: pages; 0 does nothing
 * @done: out, also with an error: pages that are done, from the first on.  The
 *	error, the firmware's in struct kvm_sev_cmd too, is that of the next
 * @flags: KVM_SEV_UPDATE_BATCH_PACKETS or 0
 * @packets_uaddr: with KVM_SEV_UPDATE_BATCH_PACKETS: array of one byte for each
 *	page: how many pages the packet has that begins with it, 1 to
 *	KVM_SEV_UPDATE_BATCH_PACKET_MAX, and 0 (not read) in a packet.  Out to
 *	send, in to receive.  Otherwise 0
 * @reserved: 0
 */
struct kvm_sev_update_batch {
	__u64 guest_uaddr;
	__u64 hdr_uaddr;
	__u64 trans_uaddr;
	__u32 hdr_len;
	__u32 count;
	__u32 done;
	__u32 flags;
	__u64 packets_uaddr;
	__u64 reserved[2];
};

/*
 * Packets may have several pages.  Only for VMs with KVM_CAP_SEV_PRIVATE_MEM,
 * and none in memory that is no guest_memfd: EOPNOTSUPP.
 */
#define KVM_SEV_UPDATE_BATCH_PACKETS		(1U << 0)
#define KVM_SEV_UPDATE_BATCH_PACKET_MAX		4

#endif /* _LINUX_KVM_PAGE_ENC_H */
