/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Accesses of KVM itself to guest memory.  KVM must not touch a structure that
 * it shares with the guest while the structure's page is private.  For
 * software-protected VMs, KVM must emulate instructions whose page tables, code
 * and operands are in private pages.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stddef.h>
#include <asm/kvm_para.h>
#include "guest.h"

#define PV_GPA          0x30000         /* page of the shared structure */
#define CODE_GPA        0x40000         /* code to emulate */
#define DATA_GPA        0x50000
#define MMIO_GPA        0x3f0000        /* gfn without a slot */
#define LOW             0x300000        /* size of the slot */

/*
 * KVM's force emulation prefix: it raises #UD, and KVM then emulates the
 * instruction that follows.  The operands are in RDI, RSI, RAX and RBX.
 */
#define FEP "ud2; .ascii \"kvm\"; "
asm(".pushsection .rodata\n"
    ".code64\n"
    "   .balign 64\n"                  /* put code n at access_code + 64 * n */
    "access_code:\n"
    "   " FEP "mov (%rdi), %rsi\n           out %al, $0x10\n"
    "   .balign 64\n" FEP "mov %rsi, (%rdi)\n           out %al, $0x10\n"
    "   .balign 64\n" FEP "lock cmpxchg %rbx, (%rdi)\n  out %al, $0x10\n"
    "   .balign 64\n      movsq\n                       out %al, $0x10\n"
    "   .balign 64\n" FEP "lock cmpxchg %bl, (%rdi)\n   out %al, $0x10\n"
    "access_code_end:\n"
    ".popsection\n");
extern const uint8_t access_code[], access_code_end[];
enum access { READ, WRITE, CMPXCHG, MOVS, CMPXCHG_BYTE };

static uint64_t mmio_written, mmio_value;
static unsigned mmio_reads, mmio_writes;

/*
 * Run the instruction @what of access_code, and let the vCPU continue in the
 * code of guest.h.  Returns 0, or -1 on an unexpected exit.
 */
static int do_access(struct vm *vm, enum access what, struct kvm_regs *regs)
{
    struct kvm_run *run = vm->run;

    regs->rip = CODE_GPA + what * 64;
    regs->rflags = 2;
    CHECK(ioctl(vm->vcpu, KVM_SET_REGS, regs));
    mmio_reads = mmio_writes = 0;
    for (int i = 0; i < 100; i++) {
        int r = xioctl(vm->vcpu, KVM_RUN, NULL);

        if (r == -EINTR) {
            continue;
        }
        if (!r && run->exit_reason == KVM_EXIT_IO && run->io.port == 0x10) {
            struct kvm_regs back;

            CHECK(ioctl(vm->vcpu, KVM_GET_REGS, regs));
            /*
             * guest_do() lets the vCPU continue at its RIP, so set RIP to the
             * instruction after the OUT at the beginning of guest_code
             */
            back = *regs;
            back.rip = GUEST_CODE + 2;
            CHECK(ioctl(vm->vcpu, KVM_SET_REGS, &back));
            return 0;
        }
        if (!r && run->exit_reason == KVM_EXIT_MMIO &&
            run->mmio.phys_addr == MMIO_GPA && run->mmio.len == 8) {
            if (run->mmio.is_write) {
                memcpy(&mmio_written, run->mmio.data, 8);
                mmio_writes++;
            } else {
                memcpy(run->mmio.data, &mmio_value, 8);
                mmio_reads++;
            }
            continue;
        }
        note("KVM_RUN: %s, exit %u, suberror %u, gpa %#llx",
             r ? strerror(-r) : "ok", run->exit_reason, run->internal.suberror,
             run->exit_reason == KVM_EXIT_MMIO ?
             (long long)run->mmio.phys_addr : 0LL);
        return -1;
    }
    return -1;
}

static void set_prefix(const char *value)
{
    int fd = CHECK(open("/sys/module/kvm/parameters/force_emulation_prefix",
                        O_WRONLY));

    CHECK(write(fd, value, 1));
    close(fd);
}

static bool dirty_has(struct vm *vm, uint64_t page)
{
    static uint64_t dirty[GUEST_SIZE / PAGE / 64];
    struct kvm_dirty_log log = { .dirty_bitmap = dirty };

    CHECK(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
    return dirty[page / 64] >> (page % 64) & 1;
}

/* @region: the slot of the private page */
static void emulated_write(struct vm *vm,
                           struct kvm_userspace_memory_region2 *region)
{
    const uint64_t pte = GUEST_TABLES + 3 * PAGE + DATA_GPA / PAGE * 8;
    struct kvm_regs regs = { .rdi = DATA_GPA + 8, .rsi = 0x5555 };

    region->flags |= KVM_MEM_LOG_DIRTY_PAGES;
    MUST(xioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, region));
    dirty_has(vm, 0);
    /*
     * Clear the accessed and dirty bits in the page table entry of DATA_GPA.
     * The page table, too, is in a private page, and KVM must set both bits
     * in the entry when KVM emulates the write.
     */
    MUST(guest_write(vm, pte, DATA_GPA | 3));
    ok(!do_access(vm, WRITE, &regs) && guest_read(vm, DATA_GPA + 8) == 0x5555,
       "KVM emulates private code that writes a private page, and the guest "
       "reads it");
    ok(dirty_has(vm, DATA_GPA / PAGE),
       "a private page that KVM wrote for an emulated instruction is in the "
       "dirty log");
    ok((guest_read(vm, pte) & 0x60) == 0x60,
       "KVM sets the accessed and dirty bits in a page table in a private "
       "page");
}

static void emulated_cmpxchg(struct vm *vm)
{
    struct kvm_regs regs = {
        .rdi = DATA_GPA + 8, .rax = 0x5555, .rbx = 0x6666,
    };

    ok(!do_access(vm, CMPXCHG, &regs) && regs.rflags & 0x40 &&
       guest_read(vm, DATA_GPA + 8) == 0x6666,
       "KVM emulates a LOCK CMPXCHG to a private page that succeeds");
    regs = (struct kvm_regs) {
        .rdi = DATA_GPA + 8, .rax = 0x5555, .rbx = 0x7777,
    };
    ok(!do_access(vm, CMPXCHG, &regs) && !(regs.rflags & 0x40) &&
       regs.rax == 0x6666 && guest_read(vm, DATA_GPA + 8) == 0x6666,
       "KVM emulates a LOCK CMPXCHG to a private page whose comparison fails");
    regs = (struct kvm_regs) {
        .rdi = DATA_GPA + 9, .rax = 0x66, .rbx = 0x99,
    };
    ok(!do_access(vm, CMPXCHG_BYTE, &regs) &&
       guest_read(vm, DATA_GPA + 8) == 0x9966,
       "KVM emulates a LOCK CMPXCHG of one byte of a private page");
}

static void emulated_movs(struct vm *vm)
{
    struct kvm_regs regs = { .rsi = DATA_GPA, .rdi = MMIO_GPA };

    ok(!do_access(vm, MOVS, &regs) && mmio_writes == 1 &&
       mmio_written == 0x1111222233334444,
       "KVM emulates MOVS from a private page to a device");
    mmio_value = 0x8888999900001111;
    regs = (struct kvm_regs) { .rsi = MMIO_GPA, .rdi = DATA_GPA + 16 };
    ok(!do_access(vm, MOVS, &regs) && mmio_reads == 1 &&
       guest_read(vm, DATA_GPA + 16) == mmio_value,
       "KVM emulates MOVS from a device to a private page");
}

/* The page at DATA_GPA is shared, and @p is its host address in the slot */
static void emulation_of_shared(struct vm *vm, const uint64_t *p)
{
    struct kvm_regs regs = { .rdi = DATA_GPA, .rsi = 0xabcd };

    ok(!do_access(vm, WRITE, &regs) && p[0] == 0xabcd,
       "KVM emulates a write to the page by its host address once it is "
       "shared");
    regs = (struct kvm_regs) {
        .rdi = DATA_GPA, .rax = 0xabcd, .rbx = 0xef01,
    };
    ok(!do_access(vm, CMPXCHG, &regs) && p[0] == 0xef01,
       "KVM emulates LOCK CMPXCHG to a shared page by its host address");
    ok(!vm_convert(vm, DATA_GPA, PAGE, PRIVATE),
       "the page becomes private again after emulation used its host "
       "address");
}

/*
 * KVM emulates instructions in private pages.
 *
 * @foreign: the slot's host address maps other memory than the guest_memfd
 */
static void emulation(bool foreign)
{
    struct kvm_userspace_memory_region2 region = {
        .flags = KVM_MEM_GUEST_MEMFD, .memory_size = LOW,
    };
    struct kvm_regs regs;
    uint8_t *other = NULL;
    struct vm vm;
    uint64_t *p;
    long same = 0;

    note("the slot's host address: %s", foreign ? "something else" : "the file");
    vm_create(&vm, VM_SW_PROTECTED, GUEST_SIZE);
    region.userspace_addr = (uintptr_t)vm.mem;
    if (foreign) {
        other = mmap(NULL, LOW, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(other, 0xee, LOW);
        region.userspace_addr = (uintptr_t)other;
    }
    region.guest_memfd = vm.gmem;
    MUST(xioctl(vm.fd, KVM_SET_USER_MEMORY_REGION2, &region));
    if (!ok(!guest_launch(&vm, 0),
            "a guest whose page tables are in private pages runs")) {
        return;
    }
    MUST(vm_convert(&vm, CODE_GPA, PAGE, SHARED));
    MUST(vm_convert(&vm, DATA_GPA, PAGE, SHARED));
    memcpy(vm.mem + CODE_GPA, access_code, access_code_end - access_code);
    p = (uint64_t *)(vm.mem + DATA_GPA);
    p[0] = 0x1111222233334444;
    MUST(vm_convert(&vm, CODE_GPA, PAGE, PRIVATE));
    MUST(vm_convert(&vm, DATA_GPA, PAGE, PRIVATE));

    regs = (struct kvm_regs) { .rdi = DATA_GPA };
    ok(!do_access(&vm, READ, &regs) && regs.rsi == 0x1111222233334444,
       "KVM emulates private code that reads a private page");
    emulated_write(&vm, &region);
    emulated_cmpxchg(&vm);
    emulated_movs(&vm);
    regs = (struct kvm_regs) { .rdi = 0x200000, .rsi = ~0ULL };
    ok(!do_access(&vm, READ, &regs) && regs.rsi == 0,
       "an emulated read of a private page that was not allocated returns "
       "zeros");

    /* KVM keeps no reference to a page that it has accessed */
    ok(!vm_convert(&vm, DATA_GPA, PAGE, SHARED) && p[1] == 0x9966 &&
       p[2] == mmio_value,
       "the host sees all emulated writes once the page is shared");
    if (foreign) {
        for (unsigned i = 0; i < LOW; i++) {
            same += other[i] == 0xee;
        }
        ok(same == LOW,
           "emulation does not touch the memory at the slot's host address");
        munmap(other, LOW);
    } else {
        emulation_of_shared(&vm, p);
    }
    vm_destroy(&vm);
}

static void set_msr(struct vm *vm, uint32_t index, uint64_t data)
{
    struct { struct kvm_msrs m; struct kvm_msr_entry e; } msrs = {
        .m.nmsrs = 1, .e = { .index = index, .data = data },
    };

    if (ioctl(vm->vcpu, KVM_SET_MSRS, &msrs) != 1) {
        bail("KVM_SET_MSRS of %#x", index);
    }
}

/* Enter the guest so that KVM updates the clock */
static void run_with_clock(struct vm *vm)
{
    struct kvm_clock_data clock;

    memset(&clock, 0, sizeof(clock));
    clock.clock = 123456789;
    CHECK(ioctl(vm->fd, KVM_SET_CLOCK, &clock));
    if (guest_read(vm, GUEST_SHARED) == ~0ULL) {
        bail("the guest is gone");
    }
}

/*
 * KVM updates the structure in the page at PV_GPA if and only if the page is
 * shared.  @version is the offset of the field that counts KVM's updates.
 */
static void shared_structure(struct vm *vm, const char *name, size_t version)
{
    static uint8_t before[PAGE], after[PAGE];
    uint8_t *page = vm->mem + PV_GPA;
    volatile uint32_t *count = (uint32_t *)(page + version);
    uint32_t was;
    int i;

    run_with_clock(vm);
    was = *count;
    run_with_clock(vm);
    ok(was && *count != was,
       "KVM updates %s in a shared page (version %u, then %u)", name, was,
       *count);

    for (i = 0; i < 3; i++) {
        memcpy(before, page, PAGE);
        MUST(vm_convert(vm, PV_GPA, PAGE, PRIVATE));
        for (int n = 0; n < 5; n++) {
            run_with_clock(vm);
        }
        MUST(vm_convert(vm, PV_GPA, PAGE, SHARED));
        memcpy(after, page, PAGE);
        if (memcmp(before, after, PAGE)) {
            break;
        }
        was = *count;
        run_with_clock(vm);
        if (*count == was) {
            break;
        }
    }
    ok(i == 3, "KVM updates %s only while its page is shared", name);

    /*
     * A new slot makes KVM's cached host addresses invalid, so KVM looks them
     * up again, this time while the page is private
     */
    MUST(vm_convert(vm, PV_GPA, PAGE, PRIVATE));
    MUST(vm_slot(vm, 1, 0, 1ULL << 32, PAGE, GUEST_SIZE - PAGE));
    run_with_clock(vm);
    MUST(vm_convert(vm, PV_GPA, PAGE, SHARED));
    was = *count;
    run_with_clock(vm);
    ok(*count != was,
       "KVM updates %s again after slots changed while its page was private",
       name);
    MUST(vm_slot(vm, 1, 0, 1ULL << 32, 0, 0));
}

static void shared_structures(enum vm_type type)
{
    struct vm vm;
    struct vm_converter c = {
        .vm = &vm, .offset = PV_GPA, .size = PAGE, .private = true,
    };
    pthread_t thread;
    long n;

    note("%s VM", vm_type_name(type));
    vm_create(&vm, type, GUEST_SIZE);
    MUST(vm_slot(&vm, 0, 0, 0, GUEST_SIZE - PAGE, 0));
    if (!ok(!guest_launch(&vm, 0x20000),
            "a guest whose structures KVM updates runs")) {
        return;
    }
    MUST(vm_convert(&vm, PV_GPA, PAGE, SHARED));
    memset(vm.mem + PV_GPA, 0, PAGE);
    set_msr(&vm, MSR_KVM_STEAL_TIME, PV_GPA | KVM_MSR_ENABLED);
    shared_structure(&vm, "steal time",
                     offsetof(struct kvm_steal_time, version));
    set_msr(&vm, MSR_KVM_STEAL_TIME, 0);
    memset(vm.mem + PV_GPA, 0, PAGE);
    set_msr(&vm, MSR_KVM_SYSTEM_TIME_NEW, PV_GPA | KVM_MSR_ENABLED);
    /*
     * 0 is the offset of the field version in struct pvclock_vcpu_time_info.
     * No uapi header defines this structure.
     */
    shared_structure(&vm, "kvmclock", 0);

    /*
     * At each entry of the guest KVM updates steal time and kvmclock, while
     * another thread converts the page that contains these two structures.
     * The guest must continue to run.
     */
    set_msr(&vm, MSR_KVM_STEAL_TIME, (PV_GPA + 0x400) | KVM_MSR_ENABLED);
    pthread_create(&thread, NULL, vm_run_converter, &c);
    for (n = 0; n < 300 || (c.done < 200 && n < 20000); n++) {
        run_with_clock(&vm);
    }
    c.stop = true;
    pthread_join(thread, NULL);
    ok(!c.errors && c.done >= 200,
       "%ld entries that update kvmclock and steal time beside %ld conversions "
       "of their page (%ld refused): %ld failed", n, c.done, c.refused,
       c.errors);
    vm_destroy(&vm);
}

int main(void)
{
    vm_require(VM_SW_PROTECTED);
    vm_require(VM_SEV);
    set_prefix("1");
    emulation(false);
    emulation(true);
    set_prefix("0");
    shared_structures(VM_SW_PROTECTED);
    shared_structures(VM_SEV);
    return done_testing();
}
