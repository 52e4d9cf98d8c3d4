/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Time of a guest's first access to a page, with the kvm.ko that is loaded.
 * The guest writes one byte to each page.  All pages are allocated, but not
 * mapped in the nested page tables.
 *
 *   bench-faults NAME KIND [REPETITIONS]
 *
 * NAME is the name of the modules in the samples.  KIND is one of:
 *   anonymous  ordinary VM, anonymous memory
 *   gmem       ordinary VM, a mapped guest_memfd: shared memory
 *   private    software-protected VM, private by the VM's attributes
 *   in-place   software-protected VM, private by the guest_memfd's attributes
 *              (needs kvm-page-enc)
 *   sev        SEV VM, pinned anonymous memory
 *   sev-gmem   SEV VM, private by the guest_memfd's attributes (needs
 *              kvm-page-enc)
 *
 * The exit status is 77 if the kernel does not support KIND.
 */
#define _GNU_SOURCE
#include <linux/falloc.h>
#include "bench.h"
#include "../guest.h"

#define PAGES           2048
#define LOW_SIZE        0x10000         /* code and page tables */
#define HIGH            0x200000ULL     /* the pages that are accessed */
#define SIZE            (HIGH + PAGES * PAGE)
#define UNSUPPORTED     77

asm(".pushsection .rodata\n"
    ".code64\n"
    "toucher:\n"
    "   out %al, $0x10\n"
    "1: movb $1, (%rdi)\n"
    "   add $0x1000, %rdi\n"
    "   dec %rcx\n"
    "   jnz 1b\n"
    "   jmp toucher\n"
    "toucher_end:\n"
    ".popsection\n");
extern const uint8_t toucher[], toucher_end[];

enum kind { ANONYMOUS, GMEM, PRIVATE_WIDE, IN_PLACE, SEV, SEV_GMEM, KINDS };
static const char *const kind_name[] = {
    "anonymous", "gmem", "private", "in-place", "sev", "sev-gmem",
};

static bool has_gmem(enum kind kind)
{
    return kind != ANONYMOUS && kind != SEV;
}

static bool is_sev(enum kind kind)
{
    return kind == SEV || kind == SEV_GMEM;
}

static void __attribute__((noreturn)) unsupported(const char *why)
{
    fprintf(stderr, "bench-faults: %s\n", why);
    exit(UNSUPPORTED);
}

static int slot(struct vm *vm, enum kind kind, uint32_t id, uint64_t gpa,
                uint64_t size)
{
    struct kvm_userspace_memory_region region = {
        .slot = id, .guest_phys_addr = gpa, .memory_size = size,
        .userspace_addr = (uintptr_t)vm->mem + gpa,
    };

    return has_gmem(kind) ? vm_slot(vm, id, 0, gpa, size, gpa) :
           xioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/*
 * Write the guest's code and its page tables, which map 1 GiB with 2 MiB pages.
 * In an SEV VM, the page tables map all memory as private.
 */
static void install(struct vm *vm)
{
    uint64_t *table = (uint64_t *)(vm->mem + GUEST_TABLES);

    memset(vm->mem, 0, LOW_SIZE);
    memcpy(vm->mem + GUEST_CODE, toucher, toucher_end - toucher);
    table[0] = guest_pte(vm, GUEST_TABLE_GFN + 1, true);
    table[512] = guest_pte(vm, GUEST_TABLE_GFN + 2, true);
    for (uint64_t i = 0; i < 512; i++) {
        table[1024 + i] = guest_pte(vm, i * 512, true) | 0x80;
    }
}

static void create_vm(struct vm *vm, enum kind kind)
{
    int type = is_sev(kind) ? VM_SEV :
               kind == PRIVATE_WIDE || kind == IN_PLACE ? VM_SW_PROTECTED :
               KVM_X86_DEFAULT_VM;
    struct kvm_enable_cap cap = { .cap = KVM_CAP_SEV_PRIVATE_MEM };
    struct kvm_sev_init init = { 0 };
    uint32_t a, b, c, d;

    *vm = (struct vm) { .type = type, .size = SIZE, .vcpu = -1, .gmem = -1 };
    if (!(vm_cap(kvm_fd, KVM_CAP_VM_TYPES) & 1 << type)) {
        unsupported("no VMs of this type");
    }
    if ((kind == IN_PLACE || kind == SEV_GMEM) &&
        vm_cap(kvm_fd, KVM_CAP_PAGE_ENC_BITMAP) != 1) {
        unsupported("no guest_memfds that keep attributes");
    }
    if (kind == PRIVATE_WIDE || kind == IN_PLACE) {
        vm_in_place(kind == IN_PLACE);
    }
    vm->fd = CHECK(ioctl(kvm_fd, KVM_CREATE_VM, type));
    if (is_sev(kind)) {
        sev_fd = CHECK(open("/dev/sev", O_RDWR | O_CLOEXEC));
        if (kind == SEV_GMEM) {
            CHECK(ioctl(vm->fd, KVM_ENABLE_CAP, &cap));
        }
        SEV_MUST(vm, KVM_SEV_INIT2, &init);
        __cpuid(0x8000001f, a, b, c, d);
        vm->cbit = 1ULL << (b & 63);
    }
}

/* Allocate the memory, write the guest's code, and create the slots */
static void create_memory(struct vm *vm, enum kind kind)
{
    uint64_t flags = kind == PRIVATE_WIDE ? 0 :
                     GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    bool mapped = has_gmem(kind) && flags;
    struct kvm_enc_region region;

    if (has_gmem(kind)) {
        vm->gmem = vm_gmem(vm, SIZE, flags);
        if (vm->gmem < 0) {
            unsupported("no such guest_memfd");
        }
    }
    vm->mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
                   mapped ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
                   mapped ? vm->gmem : -1, 0);
    if (vm->mem == MAP_FAILED) {
        bail("mmap");
    }
    if (!mapped) {
        /* Use small pages only, as in a guest_memfd */
        CHECK(madvise(vm->mem, SIZE, MADV_NOHUGEPAGE));
    }
    memset(vm->mem, 0, SIZE);
    install(vm);
    if (is_sev(kind)) {
        region = (struct kvm_enc_region) { (uintptr_t)vm->mem, SIZE };
        CHECK(ioctl(vm->fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region));
    }
    MUST(slot(vm, kind, 0, 0, LOW_SIZE));
    MUST(slot(vm, kind, 1, HIGH, SIZE - HIGH));
}

static void make_private(struct vm *vm, enum kind kind)
{
    if (kind == PRIVATE_WIDE) {
        struct kvm_memory_attributes args = {
            .address = HIGH, .size = SIZE - HIGH, .attributes = PRIVATE,
        };

        MUST(xioctl(vm->fd, KVM_SET_MEMORY_ATTRIBUTES, &args));
        CHECK(fallocate(vm->gmem, FALLOC_FL_KEEP_SIZE, HIGH, SIZE - HIGH));
    } else if (kind == IN_PLACE) {
        MUST(vm_convert(vm, HIGH, SIZE - HIGH, PRIVATE));
    } else if (kind == SEV_GMEM) {
        /*
         * Flush the pages before they become private, as a guest flushes a page
         * before it changes the page's C-bit
         */
        for (uint64_t i = 0; i < SIZE; i += 64) {
            __builtin_ia32_clflush(vm->mem + i);
        }
        MUST(vm_convert(vm, 0, SIZE, PRIVATE));
    }
}

/* Create the vCPU, and launch the guest of an SEV VM */
static void launch(struct vm *vm, enum kind kind)
{
    struct kvm_sev_launch_start start = { 0 };
    struct kvm_sev_launch_update_data low = {
        .uaddr = (uintptr_t)vm->mem, .len = LOW_SIZE,
    };
    uint8_t digest[48];
    struct kvm_sev_launch_measure measure = { (uintptr_t)digest, 48 };

    if (!is_sev(kind)) {
        guest_vcpu(vm);
        return;
    }
    SEV_MUST(vm, KVM_SEV_LAUNCH_START, &start);
    SEV_MUST(vm, KVM_SEV_LAUNCH_UPDATE_DATA, &low);
    guest_vcpu(vm);
    SEV_MUST(vm, KVM_SEV_LAUNCH_MEASURE, &measure);
    SEV_MUST(vm, KVM_SEV_LAUNCH_FINISH, NULL);
}

static void create(struct vm *vm, enum kind kind)
{
    create_vm(vm, kind);
    create_memory(vm, kind);
    make_private(vm, kind);
    launch(vm, kind);
    if (guest_run(vm)) {
        bail("the guest did not start");
    }
}

/* Recreate the slot, which removes its pages from the nested page tables */
static void zap(struct vm *vm, enum kind kind)
{
    MUST(slot(vm, kind, 1, HIGH, 0));
    MUST(slot(vm, kind, 1, HIGH, SIZE - HIGH));
}

static uint64_t touch_pages(struct vm *vm)
{
    struct kvm_regs now, regs;
    uint64_t ns;

    CHECK(ioctl(vm->vcpu, KVM_GET_REGS, &now));
    regs = now;
    regs.rdi = HIGH;
    regs.rcx = PAGES;
    CHECK(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
    ns = TIME(if (guest_run(vm)) {
        bail("the guest did not come back");
    });
    CHECK(ioctl(vm->vcpu, KVM_GET_REGS, &now));
    if (now.rcx || now.rdi != SIZE) {
        bail("the guest did not do its work");
    }
    return ns;
}

int main(int argc, char **argv)
{
    int repetitions = argc > 3 ? atoi(argv[3]) : 5;
    enum kind kind;
    struct vm vm;

    for (kind = 0; kind < KINDS; kind++) {
        if (argc > 2 && !strcmp(argv[2], kind_name[kind])) {
            break;
        }
    }
    if (kind == KINDS) {
        fprintf(stderr, "usage: bench-faults NAME KIND [REPETITIONS]\n");
        return 2;
    }
    kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm_fd < 0) {
        bail("/dev/kvm");
    }
    create(&vm, kind);
    touch_pages(&vm);                   /* warm up */
    for (int i = 0; i < repetitions; i++) {
        uint64_t cold, warm;

        zap(&vm, kind);
        cold = touch_pages(&vm);
        warm = touch_pages(&vm);
        /* The result is only valid if most of the time is spent in faults */
        if (warm * 2 > cold) {
            errno = EINVAL;
            bail("accesses without faults take %llu of %llu ns",
                 (unsigned long long)warm, (unsigned long long)cold);
        }
        sample("faults", argv[2], argv[1], SIZE - HIGH,
               (double)(cold - warm) / PAGES);
    }
    vm_destroy(&vm);
    return 0;
}
