/*
 * Stubs of the functions for in-place memory, for a QEMU without KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "system/kvm-page-enc.h"

bool kvm_page_enc_prepare(Error **errp)
{
    error_setg(errp, "guest_memfd needs KVM, which this QEMU is built "
               "without");
    return false;
}

int kvm_page_enc_create_memfd(uint64_t size, Error **errp)
{
    kvm_page_enc_prepare(errp);
    return -1;
}

bool kvm_page_enc_init_block(RAMBlock *rb, Error **errp)
{
    g_assert_not_reached();
}
