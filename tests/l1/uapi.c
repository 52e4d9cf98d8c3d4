/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The userspace interface (<linux/kvm-page-enc.h>): the values of the
 * capabilities, and the probes by which a VMM can detect the ioctls without the
 * capabilities' numbers.  The build of this program also tests that the header
 * compiles alone, beside <linux/kvm.h>, and beside the <linux/kvm.h> of a
 * kernel that has upstream's names (uapi-alone.c, uapi-beside.c,
 * uapi-upstream.c).
 */
#include <sys/mount.h>
#include "vm.h"
#include "uapi.h"

#define TRACING "/sys/kernel/tracing"

static int enable(int vm, uint64_t arg, uint32_t flags)
{
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_SEV_PRIVATE_MEM, .args = { arg }, .flags = flags,
    };

    return xioctl(vm, KVM_ENABLE_CAP, &cap);
}

static int create_vm(unsigned long type)
{
    return CHECK(ioctl(kvm_fd, KVM_CREATE_VM, type));
}

/*
 * When a software-protected VM is created, the module parameter
 * gmem_in_place_conversion of kvm decides whether the VM is in in-place mode
 */
static void software_protected(void)
{
    int wide, in_place;

    if (!(vm_cap(kvm_fd, KVM_CAP_VM_TYPES) & 1 << KVM_X86_SW_PROTECTED_VM)) {
        note("this module has no software-protected VMs");
        return;
    }
    vm_in_place(false);
    wide = create_vm(KVM_X86_SW_PROTECTED_VM);
    vm_in_place(true);
    in_place = create_vm(KVM_X86_SW_PROTECTED_VM);
    ok(vm_cap(wide, KVM_CAP_MEMORY_ATTRIBUTES) == PRIVATE &&
       vm_cap(wide, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES) == 0,
       "a software-protected VM without in-place mode offers attributes of the "
       "VM only");
    ok(vm_cap(in_place, KVM_CAP_MEMORY_ATTRIBUTES) == 0 &&
       vm_cap(in_place, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES) == PRIVATE,
       "a software-protected VM in in-place mode offers attributes of "
       "guest_memfds only");
    ok(enable(in_place, 0, 0) == -EINVAL,
       "KVM_CAP_SEV_PRIVATE_MEM cannot be enabled for a software-protected VM "
       "(EINVAL)");
    close(wide);
    close(in_place);
}

/*
 * The module's capabilities and ioctls use none of the numbers that Linux will
 * assign next
 */
static void linux_numbers(void)
{
    struct kvm_page_enc_bitmap bitmap = { 0 };
    int fd = create_vm(KVM_X86_SEV_VM), nr, known = 0;

    for (nr = 252; nr < 1024; nr++) {
        struct kvm_enable_cap cap = { .cap = nr };

        known += vm_cap(fd, nr) != 0 ||
                 xioctl(fd, KVM_ENABLE_CAP, &cap) != -EINVAL;
    }
    ok(!known, "no capability from 252 to 1023 has a value or can be enabled");
    for (nr = 0xdb; nr < 0xe0; nr++) {
        known += xioctl(fd, _IOWR(KVMIO, nr, struct kvm_page_enc_bitmap),
                        &bitmap) != -ENOTTY;
    }
    ok(!known, "no ioctl of KVM's type from 0xdb to 0xdf is implemented");
    close(fd);
}

static void plain_vm(void)
{
    struct kvm_memory_attributes2 attributes = { .size = PAGE };
    struct vm vm = { 0 };
    int fd = create_vm(KVM_X86_DEFAULT_VM), g;

    ok(!vm_cap(fd, KVM_CAP_SEV_PRIVATE_MEM) &&
       !vm_cap(fd, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES) &&
       vm_cap(fd, KVM_CAP_PAGE_ENC_BITMAP) == 1,
       "a plain VM offers the bitmap and neither private memory nor "
       "attributes");
    ok(enable(fd, 0, 0) == -EINVAL,
       "a plain VM cannot enable KVM_CAP_SEV_PRIVATE_MEM (EINVAL)");
    ok(vm_cap(fd, KVM_CAP_X86_SMM) == 1, "a plain VM offers SMM");
    vm.fd = fd;
    g = CHECK(vm_gmem(&vm, PAGE, GUEST_MEMFD_FLAG_MMAP |
                                 GUEST_MEMFD_FLAG_INIT_SHARED));
    ok(xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2, &attributes) == -EINVAL,
       "a guest_memfd of a plain VM has no attributes that can be set "
       "(EINVAL)");
    close(g);
    close(fd);
}

/* Enable KVM_CAP_SEV_PRIVATE_MEM for the SEV VM @fd */
static void private_mem(int fd)
{
    struct kvm_enable_cap args = { .cap = KVM_CAP_SEV_PRIVATE_MEM,
                                   .args = { 0, 0, 0, 1 } };

    ok(vm_cap(fd, KVM_CAP_SEV_PRIVATE_MEM) == 1 &&
       !vm_cap(fd, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES),
       "an SEV VM offers KVM_CAP_SEV_PRIVATE_MEM and, before that, no "
       "attributes");
    ok(vm_cap(fd, KVM_CAP_X86_SMM) == 1 &&
       vm_cap(fd, KVM_CAP_MULTI_ADDRESS_SPACE) == 2,
       "an SEV VM offers SMM before KVM_CAP_SEV_PRIVATE_MEM is enabled");
    ok(enable(fd, 1, 0) == -EINVAL,
       "enabling KVM_CAP_SEV_PRIVATE_MEM with args[0] set fails with EINVAL");
    ok(xioctl(fd, KVM_ENABLE_CAP, &args) == -EINVAL,
       "enabling KVM_CAP_SEV_PRIVATE_MEM with args[3] set fails with EINVAL");
    ok(enable(fd, 0, 1) == -EINVAL,
       "enabling KVM_CAP_SEV_PRIVATE_MEM with a flag fails with EINVAL");
    ok(vm_cap(fd, KVM_CAP_MULTI_ADDRESS_SPACE) == 2,
       "enabling KVM_CAP_SEV_PRIVATE_MEM with bad arguments does not remove "
       "SMM");
    ok(!enable(fd, 0, 0),
       "KVM_CAP_SEV_PRIVATE_MEM can be enabled for an SEV VM");
    ok(vm_cap(fd, KVM_CAP_X86_SMM) == 0 &&
       vm_cap(fd, KVM_CAP_MULTI_ADDRESS_SPACE) == 1,
       "an SEV VM offers no SMM after KVM_CAP_SEV_PRIVATE_MEM was enabled");
    ok(vm_cap(fd, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES) == PRIVATE &&
       vm_cap(fd, KVM_CAP_MEMORY_ATTRIBUTES) == 0,
       "an SEV VM with private memory offers attributes of guest_memfds only");
    ok(!enable(fd, 0, 0),
       "KVM_CAP_SEV_PRIVATE_MEM can be enabled a second time");
}

/* A VMM can detect the ioctls without the number of a capability */
static void probes(int fd)
{
    struct kvm_memory_attributes2 attributes = { 0 };
    struct kvm_page_enc_bitmap bitmap = { 0 };
    struct vm vm = { .fd = fd };
    int g = CHECK(vm_gmem(&vm, PAGE, GUEST_MEMFD_FLAG_MMAP));

    ok(xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2, &attributes) == -EINVAL,
       "KVM_SET_MEMORY_ATTRIBUTES2 of size 0, as a probe, fails with EINVAL");
    ok(xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2 + 1, &attributes) == -ENOTTY,
       "the ioctl after KVM_SET_MEMORY_ATTRIBUTES2 fails with ENOTTY");
    ok(xioctl(fd, KVM_SET_MEMORY_ATTRIBUTES2, &attributes) == -ENOTTY,
       "KVM_SET_MEMORY_ATTRIBUTES2 of a VM fails with ENOTTY");
    ok(xioctl(fd, KVM_GET_PAGE_ENC_BITMAP, &bitmap) == -EINVAL,
       "KVM_GET_PAGE_ENC_BITMAP of 0 pages, as a probe, fails with EINVAL");
    ok(!enable(fd, 0, 0),
       "KVM_CAP_SEV_PRIVATE_MEM can be enabled again after a guest_memfd was "
       "created");
    close(g);
}

static void enable_after_slot(void)
{
    struct kvm_userspace_memory_region region = { .memory_size = PAGE };
    int fd = create_vm(KVM_X86_SEV_VM);

    region.userspace_addr = (uintptr_t)mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(ioctl(fd, KVM_SET_USER_MEMORY_REGION, &region));
    ok(enable(fd, 0, 0) == -EBUSY,
       "enabling KVM_CAP_SEV_PRIVATE_MEM after a memory slot was set fails "
       "with EBUSY");
    ok(vm_cap(fd, KVM_CAP_X86_SMM) == 1,
       "an SEV VM whose KVM_CAP_SEV_PRIVATE_MEM was refused still offers SMM");
    close(fd);
}

static void enable_after_vcpu(void)
{
    int fd = create_vm(KVM_X86_SEV_VM);
    int vcpu = CHECK(ioctl(fd, KVM_CREATE_VCPU, 0));

    ok(enable(fd, 0, 0) == -EBUSY,
       "enabling KVM_CAP_SEV_PRIVATE_MEM after a vCPU was created fails with "
       "EBUSY");
    close(vcpu);
    close(fd);
}

/*
 * A guest_memfd that was created before KVM_CAP_SEV_PRIVATE_MEM is enabled
 * keeps no attributes, so KVM refuses to enable the capability afterwards
 */
static void enable_after_gmem(void)
{
    struct vm vm = { 0 };
    int fd = create_vm(KVM_X86_SEV_VM), g;

    vm.fd = fd;
    ok(vm_gmem(&vm, PAGE, ~0ULL) == -EINVAL && !enable(fd, 0, 0),
       "KVM_CAP_SEV_PRIVATE_MEM can be enabled after creating a guest_memfd "
       "failed");
    close(fd);
    fd = create_vm(KVM_X86_SEV_VM);
    vm.fd = fd;
    g = CHECK(vm_gmem(&vm, PAGE, GUEST_MEMFD_FLAG_MMAP |
                                 GUEST_MEMFD_FLAG_INIT_SHARED));
    ok(enable(fd, 0, 0) == -EBUSY,
       "enabling KVM_CAP_SEV_PRIVATE_MEM after a guest_memfd was created is "
       "EBUSY");
    close(g);
    ok(enable(fd, 0, 0) == -EBUSY,
       "enabling KVM_CAP_SEV_PRIVATE_MEM after the guest_memfd was closed is "
       "EBUSY");
    close(fd);
}

static void trace_events(void)
{
    mount("none", TRACING, "tracefs", 0, NULL);
    if (access(TRACING "/events/sched", F_OK)) {
        note("this kernel has no trace events");
        return;
    }
    ok(!access(TRACING "/events/kvm_gmem/kvm_gmem_convert/format", R_OK) &&
       !access(TRACING "/events/kvm_gmem/kvm_gmem_pin_block/format", R_OK),
       "the kernel has the trace events kvm_gmem_convert and "
       "kvm_gmem_pin_block");
}

int main(void)
{
    int fd;

    vm_require(VM_SEV);
    ok(vm_cap(kvm_fd, KVM_CAP_SEV_PRIVATE_MEM) == 1 &&
       vm_cap(kvm_fd, KVM_CAP_PAGE_ENC_BITMAP) == 1 &&
       vm_cap(kvm_fd, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES) == PRIVATE &&
       vm_cap(kvm_fd, KVM_CAP_SEV_UPDATE_BATCH) == 4,
       "/dev/kvm offers the four capabilities of the module");
    plain_vm();
    fd = create_vm(KVM_X86_SEV_VM);
    private_mem(fd);
    probes(fd);
    close(fd);
    enable_after_slot();
    enable_after_vcpu();
    enable_after_gmem();
    software_protected();
    linux_numbers();
    trace_events();
    return done_testing();
}
