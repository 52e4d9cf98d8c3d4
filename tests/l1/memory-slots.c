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
       "a read-only slot: EINVAL");
    ok(!slot(&vm, gmem | LOG, 0, size, mem, 0, f), "one that begins with a log");
    MUST(vm_convert(&vm, 0x10000, PAGE, PRIVATE));
    ok(!slot(&vm, gmem, 0, size, mem, 0, f), "its log can go");
    ok(!slot(&vm, gmem, 0, size, mem, 0, f), "the same again: nothing to do");
    ok(!slot(&vm, gmem | LOG, 0, size, mem, 0, f), "and come back");
    ok(slot(&vm, gmem, 0, size, mem, 0, other) == -EINVAL,
       "another guest_memfd: EINVAL");
    ok(slot(&vm, gmem, 0, size, mem, 0, kvm_fd) == -EINVAL &&
       slot(&vm, gmem, 0, size, mem, 0, -1) == -EINVAL,
       "none: EINVAL");
    ok(slot(&vm, gmem, 0, size, mem, PAGE, f) == -EINVAL,
       "another offset: EINVAL");
    ok(slot(&vm, gmem, size, size, mem, 0, f) == -EINVAL,
       "another guest address: EINVAL");
    ok(slot(&vm, gmem, 0, size - PAGE, mem, 0, f) == -EINVAL &&
       slot(&vm, gmem, 0, size, mem + PAGE, 0, f) == -EINVAL,
       "another size or host address: EINVAL");
    ok(slot(&vm, 0, 0, size, mem, 0, 0) == -EINVAL,
       "without KVM_MEM_GUEST_MEMFD: EINVAL");
    ok(vm_is_private(&vm, 0x10) && touch(vm.mem + 0x10000) == SIGBUS,
       "the attributes stayed through all of it");
    ok(vm_slot(&vm, 1, 0, size, size, 0) == -EEXIST,
       "one page in two slots: EEXIST");
    ok(!slot(&vm, gmem, 0, 0, mem, 0, f) && !vm_is_private(&vm, 0x10),
       "deleted: no gfn is private");
    ok(touch(vm.mem + 0x10000) == SIGBUS, "but the page is");
    ok(!slot(&vm, gmem, size, size, mem, 0, f) &&
       vm_is_private(&vm, size / PAGE + 0x10), "elsewhere, the gfn there is");
    close(other);
    vm_destroy(&vm);
}

/* A slot of the same VM that is not a guest_memfd behaves as usual */
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
       "an ordinary slot beside it, with a log");
    rom.flags = 0;
    ok(!xioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &rom), "which goes");
    rom.guest_phys_addr += PAGE;
    ok(!xioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &rom), "it moves");
    ok(!vm_is_private(&vm, GUEST_SIZE / PAGE + 1), "it is shared");
    ok(!xioctl(vm.fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region) &&
       !xioctl(vm.fd, KVM_MEMORY_ENCRYPT_UNREG_REGION, &region),
       "it can be registered");
    region.addr = (uintptr_t)vm.mem;
    region.size = GUEST_SIZE;
    ok(!vm_convert(&vm, 0, GUEST_SIZE, PRIVATE),
       "registering guest_memfd memory holds no page");
    ok(!xioctl(vm.fd, KVM_MEMORY_ENCRYPT_UNREG_REGION, &region) &&
       xioctl(vm.fd, KVM_MEMORY_ENCRYPT_UNREG_REGION, &region) == -EINVAL,
       "it is unregistered once");
    region.size = 0;
    ok(xioctl(vm.fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region) == -EINVAL,
       "nothing cannot be registered");
    region.size = -PAGE;
    ok(xioctl(vm.fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region) < 0,
       "more than there is cannot either");
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
       "a plain VM's guest_memfd slot has no log, as ever");
    ok(!vm_slot(&vm, 0, 0, 0, GUEST_SIZE, 0) &&
       vm_slot(&vm, 0, 0, 0, GUEST_SIZE, 0) == -EINVAL,
       "and cannot change, as ever");
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
        if (i & 4) {    /* close the file while the VM still exists */
            close(vm.gmem);
            vm.gmem = -1;
        }
        vm_destroy(&vm);
    }
    after = unevictable(before + 256);
    free_after = free_kb();
    ok(after <= before + 256 && free_before - free_after < 8 << 10,
       "48 VMs of 4 MiB come and go: unevictable %ld to %ld kB, free %ld to %ld",
       before, after, free_before, free_after);
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
