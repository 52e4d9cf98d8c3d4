/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Check that the running KVM has the interfaces of kvm-page-enc, and that it
 * does not support software-protected VMs, because only modules that were built
 * for tests may support them.  The exit status is 0 if both are true, 1 if not,
 * and 2 if the check was not possible.
 * The program finds out whether the kernel has the ioctl
 * KVM_GET_PAGE_ENC_BITMAP by issuing it: a kernel without the ioctl returns
 * ENOTTY (see <linux/kvm-page-enc.h>).  The program then checks that the
 * kernel also reports the capability for the ioctl.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <linux/kvm.h>
#include <linux/kvm-page-enc.h>

int main(void)
{
    struct kvm_page_enc_bitmap nothing = { 0 };
    int kvm = open("/dev/kvm", O_RDWR), vm, err;

    vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, KVM_X86_DEFAULT_VM);
    if (vm < 0) {
        perror("has-page-enc: no VM");
        return 2;
    }
    err = ioctl(vm, KVM_GET_PAGE_ENC_BITMAP, &nothing) ? errno : 0;
    if (err == ENOTTY) {
        puts("# KVM_GET_PAGE_ENC_BITMAP: ENOTTY");
        return 1;
    }
    if (err != EINVAL) {
        fprintf(stderr, "has-page-enc: KVM_GET_PAGE_ENC_BITMAP of nothing: "
                "%d, which is no answer\n", err);
        return 2;
    }
    if (ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_PAGE_ENC_BITMAP) != 1) {
        puts("# the call is there, its capability is not");
        return 1;
    }
    if (ioctl(kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM) >= 0) {
        puts("# it has software-protected VMs, as builds for tests have them");
        return 1;
    }
    return 0;
}
