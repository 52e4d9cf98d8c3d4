/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Definitions that <linux/kvm.h> of Linux 7.3 lacks, for guests' private pages
 *
 * The kernel module, QEMU and the tests share this file.  It has two parts:
 *
 * - names of Linux 7.4, which are defined here only if <linux/kvm.h> does not
 *   define them, and
 * - names of our own, whose numbers are outside of the ranges from which Linux
 *   assigns numbers.
 */
#ifndef _LINUX_KVM_PAGE_ENC_H
#define _LINUX_KVM_PAGE_ENC_H

#include <linux/ioctl.h>
#include <linux/kvm.h>
#include <linux/types.h>

/*
 * Our own numbers.  They cannot collide with Linux's numbers: Linux numbers its
 * capabilities and its commands of KVM_MEMORY_ENCRYPT_OP from 0, and its KVM
 * ioctls have the type KVMIO.
 *
 * User space can find out with the following calls, which change nothing,
 * whether KVM implements an ioctl or a command:
 *
 * - KVM_SET_MEMORY_ATTRIBUTES2 on a guest_memfd with size 0 fails with EINVAL
 *   if KVM implements the ioctl, and with ENOTTY otherwise.
 * - KVM_GET_PAGE_ENC_BITMAP on a VM with num_pages 0 fails with EINVAL if KVM
 *   implements the ioctl, and with ENOTTY otherwise.
 * - KVM_SEV_SEND_UPDATE_BATCH on an SEV VM with count 0 returns 0 if KVM
 *   implements the command and the flags in its argument, and fails with EINVAL
 *   otherwise.
 */
#define KVM_CAP_PAGE_ENC_BASE		0x50454e00
#define KVM_PAGE_ENC_IO			0xE7

/* VM: 1 if KVM_GET_PAGE_ENC_BITMAP is implemented. */
#define KVM_CAP_PAGE_ENC_BITMAP		(KVM_CAP_PAGE_ENC_BASE + 0)

/*
 * VM: KVM_ENABLE_CAP on an SEV VM puts it into in-place mode: each of its
 * guest_memfds keeps the attributes of its pages.  The call fails with EBUSY if
 * the VM has a vCPU or a memory slot, or has created a guest_memfd.  A VM in
 * in-place mode has no address space for SMM.  KVM_CHECK_EXTENSION returns 1 if
 * the capability can be enabled.
 */
#define KVM_CAP_SEV_PRIVATE_MEM		(KVM_CAP_PAGE_ENC_BASE + 1)

/*
 * VM: the maximum number of pages in a packet of KVM_SEV_SEND_UPDATE_BATCH and
 * KVM_SEV_RECEIVE_UPDATE_BATCH, or 0 if these are not implemented.  It is 1 on
 * a VM that is not in in-place mode, and more than 1 on a VM in in-place mode
 * and on /dev/kvm.
 */
#define KVM_CAP_SEV_UPDATE_BATCH	(KVM_CAP_PAGE_ENC_BASE + 2)

/*
 * VM: mask of the attributes that KVM_SET_MEMORY_ATTRIBUTES2 accepts on the
 * guest_memfds of the VM, or 0.  The <linux/kvm.h> of Linux 7.4 defines the
 * name with a number of Linux.  If <linux/kvm.h> does not define the name, the
 * line below defines it with a number of our own.  A module that is built with
 * a <linux/kvm.h> without the name returns the mask only for our number, and 0
 * for the number of Linux.  A program that uses the number of Linux must
 * therefore try KVM_SET_MEMORY_ATTRIBUTES2, as described above.
 */
#ifndef KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES
#define KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES	(KVM_CAP_PAGE_ENC_BASE + 3)
#endif

#ifndef KVM_SET_MEMORY_ATTRIBUTES2
/**
 * struct kvm_memory_attributes2 - argument of KVM_SET_MEMORY_ATTRIBUTES2
 * @offset: in: first byte of the range in the guest_memfd, page-aligned
 * @address: the same field as @offset, for calls that set VM-wide attributes:
 *	a guest physical address
 * @size: in: bytes, page-aligned, not 0
 * @attributes: in: 0 (shared) or KVM_MEMORY_ATTRIBUTE_PRIVATE
 * @flags: 0
 * @error_offset: out, with any error except EFAULT: the byte in the file at
 *	which the conversion failed.  With EAGAIN, it is the offset of the first
 *	page in the range to which somebody still holds a reference.  With any
 *	other error, it is @offset.  If the ioctl fails, it has converted no
 *	page
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

/* Ioctl of a guest_memfd: convert all pages of a range, or none. */
#define KVM_SET_MEMORY_ATTRIBUTES2 \
	_IOWR(KVMIO, 0xd2, struct kvm_memory_attributes2)
#endif

#ifndef KVM_MEMORY_ATTRIBUTE_PRIVATE
#define KVM_MEMORY_ATTRIBUTE_PRIVATE	(1ULL << 3)
#endif

/**
 * struct kvm_page_enc_bitmap - argument of KVM_GET_PAGE_ENC_BITMAP
 * @start_gfn: in: gfn of the first bit
 * @num_pages: in: number of bits, not 0
 * @enc_bitmap: in: user address of the bitmap: little-endian, one bit per page,
 *	1 = private.  The bits after @num_pages in the last byte keep their
 *	value, and no byte after it is written
 * @flags: in: KVM_PAGE_ENC_BITMAP_IF_CHANGED or 0; out: the same, plus
 *	KVM_PAGE_ENC_BITMAP_UNCHANGED if the bitmap was not written
 * @generation: in: generation of the caller's bitmap, 0 if it has none; out:
 *	generation of the bitmap that was written (never 0)
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

/* In: do not write the bitmap if @generation is its current generation. */
#define KVM_PAGE_ENC_BITMAP_IF_CHANGED	(1ULL << 0)
/* Out: KVM did not write the bitmap, because @generation is still current. */
#define KVM_PAGE_ENC_BITMAP_UNCHANGED	(1ULL << 1)

/*
 * Ioctl of a VM: get the private gfns.  The bit of a gfn without a memory slot
 * is 0.
 */
#define KVM_GET_PAGE_ENC_BITMAP \
	_IOWR(KVM_PAGE_ENC_IO, 0x00, struct kvm_page_enc_bitmap)

/* Commands of KVM_MEMORY_ENCRYPT_OP (id of struct kvm_sev_cmd) */
#define KVM_SEV_SEND_UPDATE_BATCH	0x40000000
#define KVM_SEV_RECEIVE_UPDATE_BATCH	0x40000001

/**
 * struct kvm_sev_update_batch - argument of KVM_SEV_SEND_UPDATE_BATCH and
 *	KVM_SEV_RECEIVE_UPDATE_BATCH, which do for several contiguous whole
 *	pages what KVM_SEV_SEND_UPDATE_DATA and KVM_SEV_RECEIVE_UPDATE_DATA do
 * @guest_uaddr: in: host address of the first page, page-aligned
 * @hdr_uaddr: in: array of packet headers, @hdr_len bytes for each page
 * @trans_uaddr: in: array of the data of packets, with an element of one page
 *	for each page.  The data of a packet of several pages occupy the
 *	elements of all pages of the packet.  The header of the packet is the
 *	element of @hdr_uaddr for the first page of the packet
 * @hdr_len: in: bytes of one header
 * @count: in: number of pages; the call has no effect if it is 0
 * @done: out, also with an error: number of pages that are done, from the first
 *	on.  The error, and the firmware's error in struct kvm_sev_cmd, belong
 *	to the next page
 * @flags: KVM_SEV_UPDATE_BATCH_PACKETS or 0
 * @packets_uaddr: 0 without KVM_SEV_UPDATE_BATCH_PACKETS.  With this flag:
 *	array of one byte for each page.  The byte of the first page of a packet
 *	is the number of pages of the packet, 1 to
 *	KVM_SEV_UPDATE_BATCH_PACKET_MAX.  The bytes of the other pages are 0.
 *	KVM writes the array on send and reads it on receive
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
 * A packet may have several pages.  The VM must be in in-place mode.  A packet
 * of several pages for memory that is not a guest_memfd fails with EOPNOTSUPP.
 */
#define KVM_SEV_UPDATE_BATCH_PACKETS		(1U << 0)
#define KVM_SEV_UPDATE_BATCH_PACKET_MAX		4

#endif /* _LINUX_KVM_PAGE_ENC_H */
