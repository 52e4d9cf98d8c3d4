/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest with one vCPU that runs 64-bit code with page tables that have the
 * C-bit.  The test writes an operation and its arguments to the vCPU's
 * registers.  The test can access the registers of SEV guests, too, because
 * these guests do not have SEV-ES.
 *
 * Page 2 has the code, and pages 3 to 7 have the page tables.  Tests use all
 * other pages.  The guest maps its first 4 MiB with 4 KiB pages.
 */
#ifndef TESTS_L1_GUEST_H
#define TESTS_L1_GUEST_H

#include "vm.h"

#define GUEST_SIZE      (4ULL << 20)
#define GUEST_CODE      0x2000
#define GUEST_TABLES    0x3000          /* PML4, PDPT, PD, two PTs */
#define GUEST_TABLE_GFN 3
#define GUEST_TABLE_END 8
/* Address of the only page that guest_launch() leaves shared */
#define GUEST_SHARED    0x9000

enum guest_op {
    GUEST_WRITE = 1, GUEST_READ, GUEST_MAP_GPA_RANGE, GUEST_COUNT, GUEST_SWEEP,
};

asm(".pushsection .rodata\n"
    ".code64\n"
    "guest_code:\n"
    "   out %al, $0x10\n"               /* ask for an operation */
    "   cmp $1, %r8\n   je 1f\n"
    "   cmp $2, %r8\n   je 2f\n"
    "   cmp $3, %r8\n   je 3f\n"
    "   cmp $4, %r8\n   je 4f\n"
    "   cmp $5, %r8\n   je 6f\n"
    "   hlt\n"
    "1: mov %rsi, (%rdi)\n"
    "   jmp 5f\n"
    "2: mov (%rdi), %rsi\n"
    "   jmp guest_code\n"
    "3: vmmcall\n"
    "   jmp guest_code\n"
    "4: incq (%rdi)\n"                  /* repeat until (%rsi) != 0 */
    "   incq (%r9)\n"
    "   cmpq $0, (%rsi)\n"
    "   je 4b\n"
    "   jmp guest_code\n"
    /*
     * Repeat until (%r9) != 0: for each page from %rdi to %rsi, check that its
     * first word is its address + %rdx, and increment the word at offset %rcx.
     * If %r13 != 0, do not check the first word.  %r10 counts the passes; %rax
     * is the page at which the guest has stopped.
     */
    "6: mov %rdi, %rax\n"
    "7: lea (%rax, %rdx), %r12\n"
    "   mov (%rax), %r11\n"
    "   test %r13, %r13\n"
    "   jnz 8f\n"
    "   cmp %r11, %r12\n"
    "   jne guest_code\n"
    "8: incq (%rax, %rcx)\n"
    "   add $4096, %rax\n"
    "   cmp %rsi, %rax\n"
    "   jb 7b\n"
    "   inc %r10\n"
    "   cmpq $0, (%r9)\n"
    "   je 6b\n"
    "   jmp guest_code\n"
    "5: mov %cr3, %rax\n"               /* flush the TLB */
    "   mov %rax, %cr3\n"
    "   jmp guest_code\n"
    "guest_code_end:\n"
    ".popsection\n");
extern const uint8_t guest_code[], guest_code_end[];

static uint64_t guest_pte(struct vm *vm, uint64_t page, bool private)
{
    /* Present, writable, accessed, dirty */
    return page * PAGE | 0x63 | (private ? vm->cbit : 0);
}

/* Write code and page tables to the guest's memory, which is still shared */
static void guest_install(struct vm *vm)
{
    uint64_t *table = (uint64_t *)(vm->mem + GUEST_TABLES);
    int i;

    memset(vm->mem, 0, GUEST_SHARED);
    memcpy(vm->mem + GUEST_CODE, guest_code, guest_code_end - guest_code);
    table[0] = guest_pte(vm, GUEST_TABLE_GFN + 1, true);
    table[512] = guest_pte(vm, GUEST_TABLE_GFN + 2, true);
    for (i = 0; i < 2; i++) {
        table[1024 + i] = guest_pte(vm, GUEST_TABLE_GFN + 3 + i, true);
    }
    for (i = 0; i < 1024; i++) {
        table[1536 + i] = guest_pte(vm, i, i * PAGE != GUEST_SHARED);
    }
}

static void guest_segment(struct kvm_segment *s, int type, bool code)
{
    *s = (struct kvm_segment) {
        .limit = 0xffffffff, .type = type, .present = 1, .s = 1, .g = 1,
        .l = code, .db = !code, .selector = code ? 8 : 16,
    };
}

/* Give @vcpu all the CPUID bits that KVM supports */
static void guest_cpuid(int vcpu)
{
    struct { struct kvm_cpuid2 c; struct kvm_cpuid_entry2 e[200]; } *cpuid;

    cpuid = calloc(1, sizeof(*cpuid));
    cpuid->c.nent = 200;
    CHECK(ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid->c));
    CHECK(ioctl(vcpu, KVM_SET_CPUID2, &cpuid->c));
    free(cpuid);
}

static void guest_vcpu(struct vm *vm)
{
    struct kvm_regs regs = { .rip = GUEST_CODE, .rflags = 2 };
    struct kvm_enable_cap hypercall = {
        .cap = KVM_CAP_EXIT_HYPERCALL, .args = { 1 << KVM_HC_MAP_GPA_RANGE },
    };
    struct kvm_sregs sregs;

    CHECK(ioctl(vm->fd, KVM_ENABLE_CAP, &hypercall));
    vm->vcpu = CHECK(ioctl(vm->fd, KVM_CREATE_VCPU, vm->vcpus++));
    vm->run = mmap(NULL, CHECK(ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0)),
                   PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
    if (vm->run == MAP_FAILED) {
        bail("mmap of the vCPU");
    }
    guest_cpuid(vm->vcpu);

    CHECK(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs));
    sregs.cr0 = 0x80010033;
    sregs.cr4 = 0x20;
    sregs.efer = 0x500;
    sregs.cr3 = GUEST_TABLES | vm->cbit;
    guest_segment(&sregs.cs, 11, true);
    guest_segment(&sregs.ds, 3, false);
    sregs.es = sregs.ss = sregs.fs = sregs.gs = sregs.ds;
    CHECK(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs));
    CHECK(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
}

/* Run until the guest asks for an operation.  Returns -1 on any other exit. */
static int guest_run(struct vm *vm)
{
    for (;;) {
        int r = xioctl(vm->vcpu, KVM_RUN, NULL);
        struct kvm_run *run = vm->run;

        if (r == -EINTR || r == -EAGAIN) {
            continue;
        }
        if (!r && run->exit_reason == KVM_EXIT_IO && run->io.port == 0x10) {
            return 0;
        }
        if (!r && run->exit_reason == KVM_EXIT_HYPERCALL) {
            uint64_t attributes = run->hypercall.args[2] &
                                  KVM_MAP_GPA_RANGE_ENCRYPTED ? PRIVATE : SHARED;

            run->hypercall.ret = vm_convert(vm, run->hypercall.args[0],
                                            run->hypercall.args[1] * PAGE,
                                            attributes);
            continue;
        }
        note("KVM_RUN: %s, exit %u, suberror %u, gpa %#llx",
             r ? strerror(-r) : "ok", run->exit_reason, run->internal.suberror,
             run->exit_reason == KVM_EXIT_MEMORY_FAULT ?
             (long long)run->memory_fault.gpa : 0LL);
        return -1;
    }
}

/*
 * Let the guest do one operation.  @regs has the operation's arguments before
 * the call, and its results after it.
 */
static int guest_do(struct vm *vm, struct kvm_regs *regs)
{
    struct kvm_regs now;

    CHECK(ioctl(vm->vcpu, KVM_GET_REGS, &now));
    regs->rip = now.rip;
    regs->rflags = now.rflags;
    CHECK(ioctl(vm->vcpu, KVM_SET_REGS, regs));
    if (guest_run(vm)) {
        return -1;
    }
    CHECK(ioctl(vm->vcpu, KVM_GET_REGS, regs));
    return 0;
}

static int __attribute__((unused))
guest_write(struct vm *vm, uint64_t address, uint64_t value)
{
    struct kvm_regs regs = { .r8 = GUEST_WRITE, .rdi = address, .rsi = value };

    return guest_do(vm, &regs);
}

/* Returns all ones if the guest did not complete the operation */
static uint64_t __attribute__((unused))
guest_read(struct vm *vm, uint64_t address)
{
    struct kvm_regs regs = { .r8 = GUEST_READ, .rdi = address };

    return guest_do(vm, &regs) ? ~0ULL : regs.rsi;
}

/* The guest requests a conversion and changes the C-bits in its page tables */
static int __attribute__((unused))
guest_convert(struct vm *vm, uint64_t gfn, uint64_t pages, bool private)
{
    struct kvm_regs regs = {
        .r8 = GUEST_MAP_GPA_RANGE, .rax = KVM_HC_MAP_GPA_RANGE,
        .rbx = gfn * PAGE, .rcx = pages,
        .rdx = private ? KVM_MAP_GPA_RANGE_ENCRYPTED : 0,
    };
    uint64_t i;

    /*
     * A guest must flush a page before it changes the page's C-bit, because
     * cache lines of accesses with the old C-bit may not be coherent with those
     * of accesses with the new C-bit.  The code of this guest does not flush,
     * so the test flushes pages before they become private.
     */
    for (i = 0; private && i < pages * PAGE; i += 64) {
        __builtin_ia32_clflush(vm->mem + gfn * PAGE + i);
    }
    if (guest_do(vm, &regs) || regs.rax) {
        return -1;
    }
    for (i = 0; i < pages; i++) {
        if (guest_write(vm, GUEST_TABLES + 3 * PAGE + (gfn + i) * 8,
                        guest_pte(vm, gfn + i, private))) {
            return -1;
        }
    }
    return 0;
}

/*
 * Make all pages except GUEST_SHARED private, and run the guest until it asks
 * for its first operation.  If @vm is an SEV VM, encrypt the private pages of
 * the first @launch bytes before the guest runs.
 */
static int __attribute__((unused)) guest_launch(struct vm *vm, uint64_t launch)
{
    int r;

    guest_install(vm);
    r = vm_convert(vm, 0, GUEST_SHARED, PRIVATE);
    r = r ? r : vm_convert(vm, GUEST_SHARED + PAGE,
                           vm->size - GUEST_SHARED - PAGE, PRIVATE);
    if (r) {
        note("converting: %s, page %#llx is held", strerror(-r),
             (long long)(convert_held / PAGE));
        return r;
    }
    if (vm->type == VM_SEV) {
        struct kvm_sev_launch_start start = { 0 };
        uint8_t digest[48];
        struct kvm_sev_launch_measure measure = { (uintptr_t)digest, 48 };
        struct kvm_sev_launch_update_data low = {
            .uaddr = (uintptr_t)vm->mem, .len = GUEST_SHARED,
        }, high = {
            .uaddr = (uintptr_t)vm->mem + GUEST_SHARED + PAGE,
            .len = launch - GUEST_SHARED - PAGE,
        };

        r = sev_cmd(vm, KVM_SEV_LAUNCH_START, &start);
        r = r ? r : sev_cmd(vm, KVM_SEV_LAUNCH_UPDATE_DATA, &low);
        r = r ? r : sev_cmd(vm, KVM_SEV_LAUNCH_UPDATE_DATA, &high);
        if (!r) {
            guest_vcpu(vm);
            r = sev_cmd(vm, KVM_SEV_LAUNCH_MEASURE, &measure);
        }
        r = r ? r : sev_cmd(vm, KVM_SEV_LAUNCH_FINISH, NULL);
        if (r) {
            note("launch: %s, firmware %#x", strerror(-r), sev_error);
            return r;
        }
    } else {
        guest_vcpu(vm);
    }
    return guest_run(vm);
}

#endif
