/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory slots whose guest_memfd keeps attributes.  The test checks which
 * changes of a slot KVM allows and refuses, and that KVM frees all memory of a
 * VM and its slots.
 */
#define _GNU_SOURCE
#include "guest.h"
#include "meminfo.h"

#define LOG     KVM_MEM_LOG_DIRTY_PAGES

static int slot(struct vm *vm, uint32_t flags, uint64_t gpa, uint64_t size,
                uint64_t address, uint64_t offset, int gmem)
{
    struct kvm_userspace_memory_region2 region = {
        .slot = 0, .flags = flags, .guest_phys_addr = gpa,
        .memory_size = size, .userspace_addr = address,
        .guest_memfd = gmem, .guest_memfd_offset = offset,
    };

    return xioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, &region);
}

static void changes(enum vm_type type)
{
    const uint32_t gmem = KVM_MEM_GUEST_MEMFD;
    const uint64_t size = GUEST_SIZE / 2;
    uint64_t mem;
    struct vm vm;
    int other, f;

    note("%s VM", vm_type_name(type));
    vm_create(&vm, type, GUEST_SIZE);
    mem = (uintptr_t)vm.mem;
    f = vm.gmem;
    other = CHECK(vm_gmem(&vm, GUEST_SIZE, GUEST_MEMFD_FLAG_MMAP |
                                           GUEST_MEMFD_FLAG_INIT_SHARED));
    ok(slot(&vm, gmem | KVM_MEM_READONLY, 0, size, mem, 0, f) == -EINVAL,
       "a read-only guest_memfd slot is refused with EINVAL");
    ok(!slot(&vm, gmem | LOG, 0, size, mem, 0, f),
       "a guest_memfd slot can have a dirty log when it is created");
    MUST(vm_convert(&vm, 0x10000, PAGE, PRIVATE));
    ok(!slot(&vm, gmem, 0, size, mem, 0, f),
       "the dirty log of a guest_memfd slot can be switched off");
    ok(!slot(&vm, gmem, 0, size, mem, 0, f),
       "setting a guest_memfd slot to the same values succeeds");
    ok(!slot(&vm, gmem | LOG, 0, size, mem, 0, f),
       "the dirty log of a guest_memfd slot can be switched on again");
    ok(slot(&vm, gmem, 0, size, mem, 0, other) == -EINVAL,
       "changing the guest_memfd of a slot is refused with EINVAL");
    ok(slot(&vm, gmem, 0, size, mem, 0, kvm_fd) == -EINVAL &&
       slot(&vm, gmem, 0, size, mem, 0, -1) == -EINVAL,
       "changing a slot's guest_memfd to no or another file is refused with "
       "EINVAL");
    ok(slot(&vm, gmem, 0, size, mem, PAGE, f) == -EINVAL,
       "changing the offset of a guest_memfd slot is refused with EINVAL");
    ok(slot(&vm, gmem, size, size, mem, 0, f) == -EINVAL,
       "changing the guest address of a guest_memfd slot is refused with "
       "EINVAL");
    ok(slot(&vm, gmem, 0, size - PAGE, mem, 0, f) == -EINVAL &&
       slot(&vm, gmem, 0, size, mem + PAGE, 0, f) == -EINVAL,
       "changing the size or host address of a guest_memfd slot is refused "
       "with EINVAL");
    ok(slot(&vm, 0, 0, size, mem, 0, 0) == -EINVAL,
       "removing KVM_MEM_GUEST_MEMFD from a slot is refused with EINVAL");
    ok(vm_is_private(&vm, 0x10) && touch(vm.mem + 0x10000) == SIGBUS,
       "a private page stays private through all changes of its slot");
    ok(vm_slot(&vm, 1, 0, size, size, 0) == -EEXIST,
       "binding a page of the file to a second slot is refused with EEXIST");
    ok(!slot(&vm, gmem, 0, 0, mem, 0, f) && !vm_is_private(&vm, 0x10),
       "no gfn is private after the slot was deleted");
    ok(touch(vm.mem + 0x10000) == SIGBUS,
       "the page stays private after its slot was deleted");
    ok(!slot(&vm, gmem, size, size, mem, 0, f) &&
       vm_is_private(&vm, size / PAGE + 0x10),
       "the gfn is private when the slot is created at another address");
    close(other);
    vm_destroy(&vm);
}

/*
 * A VM whose guest_memfd keeps attributes can also have a slot of ordinary
 * memory.  Such a slot has none of the restrictions of guest_memfd slots.
 */
static void ordinary(void)
{
    struct kvm_enc_region region = { .size = 4 * PAGE };
    struct kvm_userspace_memory_region rom = {
        .slot = 1, .flags = LOG, .guest_phys_addr = GUEST_SIZE,
        .memory_size = 4 * PAGE,
    };
    struct vm vm;
    void *p;

    vm_init(&vm, VM_SEV, GUEST_SIZE);
    p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(p, 0x66, 4 * PAGE);
    rom.userspace_addr = region.addr = (uintptr_t)p;
    ok(!xioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &rom),
       "an SEV VM can have an ordinary slot with a dirty log beside its "
       "guest_memfd");
    rom.flags = 0;
    ok(!xioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &rom),
       "the dirty log of an ordinary slot can be switched off");
    rom.guest_phys_addr += PAGE;
    ok(!xioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &rom),
       "an ordinary slot can be moved");
    ok(!vm_is_private(&vm, GUEST_SIZE / PAGE + 1),
       "a gfn of an ordinary slot is shared");
    ok(!xioctl(vm.fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region) &&
       !xioctl(vm.fd, KVM_MEMORY_ENCRYPT_UNREG_REGION, &region),
       "ordinary memory can be registered and unregistered");
    region.addr = (uintptr_t)vm.mem;
    region.size = GUEST_SIZE;
    ok(!vm_convert(&vm, 0, GUEST_SIZE, PRIVATE),
       "registered guest_memfd memory becomes private, because no page is "
       "held");
    ok(!xioctl(vm.fd, KVM_MEMORY_ENCRYPT_UNREG_REGION, &region) &&
       xioctl(vm.fd, KVM_MEMORY_ENCRYPT_UNREG_REGION, &region) == -EINVAL,
       "guest_memfd memory can be unregistered exactly once");
    region.size = 0;
    ok(xioctl(vm.fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region) == -EINVAL,
       "registering a region of size 0 is refused with EINVAL");
    region.size = -PAGE;
    ok(xioctl(vm.fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region) < 0,
       "registering a region larger than the address space is refused");
    munmap(p, 4 * PAGE);
    vm_destroy(&vm);
}

/*
 * A slot whose guest_memfd keeps no attributes has the same restrictions as in
 * unmodified Linux
 */
static void plain(void)
{
    struct vm vm = { .size = GUEST_SIZE };

    vm.fd = CHECK(ioctl(kvm_fd, KVM_CREATE_VM, KVM_X86_DEFAULT_VM));
    vm.gmem = CHECK(vm_gmem(&vm, GUEST_SIZE, GUEST_MEMFD_FLAG_MMAP |
                                             GUEST_MEMFD_FLAG_INIT_SHARED));
    vm.mem = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                  vm.gmem, 0);
    ok(vm_slot(&vm, 0, LOG, 0, GUEST_SIZE, 0) == -EINVAL,
       "the guest_memfd slot of a plain VM cannot have a dirty log, as without "
       "the module");
    ok(!vm_slot(&vm, 0, 0, 0, GUEST_SIZE, 0) &&
       vm_slot(&vm, 0, 0, 0, GUEST_SIZE, 0) == -EINVAL,
       "the guest_memfd slot of a plain VM cannot be changed, as without the "
       "module");
    munmap(vm.mem, GUEST_SIZE);
    close(vm.gmem);
    close(vm.fd);
}

static long free_kb(void)
{
    shrink_slabs();
    return meminfo("MemFree") + per_cpu_lists_kb();
}

/*
 * The host's unevictable memory in kB.  Waits until the value is @limit or
 * less, for 5 s at most, because the kernel adds up its per-CPU counters only
 * once a second.
 */
static long unevictable(long limit)
{
    long now = 0;

    for (int i = 0; i < 50; i++) {
        now = meminfo("Unevictable");
        if (now <= limit) {
            break;
        }
        usleep(100000);
    }
    return now;
}

/*
 * VMs with and without shared pages, with and without a dirty log, and with
 * their guest_memfd closed before or after the VM must not leave memory
 * allocated
 */
static void leaks(void)
{
    long before, after, free_before, free_after;

    before = unevictable(0);
    free_before = free_kb();
    for (int i = 0; i < 48; i++) {
        struct vm vm;

        vm_init(&vm, i & 8 ? VM_SW_PROTECTED : VM_SEV, GUEST_SIZE);
        memset(vm.mem, 1, GUEST_SIZE);
        if (guest_launch(&vm, GUEST_SIZE)) {
            bail("launch %d", i);
        }
        if (i & 1) {
            MUST(vm_convert(&vm, 0x40000, 0x100000, SHARED));
            memset(vm.mem + 0x40000, 1, 0x100000);
        }
        if (i & 2) {
            MUST(vm_slot(&vm, 0, LOG, 0, GUEST_SIZE, 0));
            guest_write(&vm, 0x200000, 1);
        }
        if (i & 4) {
            close(vm.gmem);
            vm.gmem = -1;
        }
        vm_destroy(&vm);
    }
    after = unevictable(before + 256);
    free_after = free_kb();
    ok(after <= before + 256 && free_before - free_after < 8 << 10,
       "creating and destroying 48 VMs of 4 MiB leaks no memory: unevictable "
       "%ld to %ld kB, free %ld to %ld", before, after, free_before,
       free_after);
}

int main(void)
{
    vm_require(VM_SW_PROTECTED);
    vm_require(VM_SEV);
    changes(VM_SW_PROTECTED);
    changes(VM_SEV);
    ordinary();
    plain();
    leaks();
    return done_testing();
}
