/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * uapi-upstream.c includes this file instead of <linux/kvm.h>.  The file acts
 * as the header of Linux 7.4: it includes the <linux/kvm.h> of the system, and
 * adds the names that Linux 7.4 adds.  The number of the capability is an
 * example.
 */
#ifndef TESTS_L1_UPSTREAM_KVM_H
#define TESTS_L1_UPSTREAM_KVM_H

#include_next <linux/kvm.h>

#ifndef KVM_SET_MEMORY_ATTRIBUTES2
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
#define KVM_SET_MEMORY_ATTRIBUTES2 \
    _IOWR(KVMIO, 0xd2, struct kvm_memory_attributes2)
#define KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES 252
#endif

#define UPSTREAM_HAS_ATTRIBUTES2
#define UPSTREAM_CAP KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES

#endif
