/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations on SEV VMs with private memory, other than launch and migration:
 * copying and moving the context to another VM, reuse of the ASIDs of destroyed
 * VMs, the debug commands, LAUNCH_SECRET, and the accounting of pinned pages.
 */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/wait.h>
#include "guest.h"

#define HEADER_SIZE     52

static int from(struct vm *vm, uint32_t cap, int source)
{
    struct kvm_enable_cap args = { .cap = cap, .args = { source } };

    return xioctl(vm->fd, KVM_ENABLE_CAP, &args);
}

/* Create an SEV VM without memory slots and without KVM_CAP_SEV_PRIVATE_MEM */
static struct vm bare_vm(void)
{
    return (struct vm) {
        .type = VM_SEV, .fd = CHECK(ioctl(kvm_fd, KVM_CREATE_VM, VM_SEV)),
    };
}

static void launch_start(struct vm *vm)
{
    struct kvm_sev_launch_start start = { 0 };

    SEV_MUST(vm, KVM_SEV_LAUNCH_START, &start);
}

/*
 * KVM refuses to copy or move the SEV context of a VM that has private memory.
 * The guest_memfds would still belong to the old VM, so the new VM would have
 * the guest's key but could not use the guest's memory.
 */
static void contexts(void)
{
    struct kvm_enable_cap private = { .cap = KVM_CAP_SEV_PRIVATE_MEM };
    struct kvm_sev_init init = { 0 };
    struct kvm_sev_guest_status status;
    struct vm a, b, c;

    vm_init(&a, VM_SEV, GUEST_SIZE);
    MUST(vm_convert(&a, 0, GUEST_SIZE, PRIVATE));
    launch_start(&a);
    b = bare_vm();
    ok(from(&b, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, a.fd) == -EINVAL,
       "moving the context of a VM with private memory fails with EINVAL");
    ok(from(&b, KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, a.fd) == -EINVAL,
       "copying the context of a VM with private memory fails with EINVAL");
    CHECK(ioctl(b.fd, KVM_ENABLE_CAP, &private));
    ok(from(&b, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, a.fd) == -EINVAL &&
       from(&b, KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, a.fd) == -EINVAL,
       "a context cannot move or be copied between two VMs with private "
       "memory");
    ok(!sev_cmd(&a, KVM_SEV_GUEST_STATUS, &status),
       "a VM keeps its context after moving and copying it was refused");

    /* VMs without private memory behave as in the distribution's kernel */
    c = bare_vm();
    SEV_MUST(&c, KVM_SEV_INIT2, &init);
    launch_start(&c);
    ok(from(&b, KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, c.fd) == -EINVAL &&
       from(&b, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, c.fd) == -EINVAL,
       "a VM with private memory cannot take the context of an ordinary SEV "
       "VM");
    close(b.fd);
    b = bare_vm();
    ok(!from(&b, KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, c.fd),
       "the context of an ordinary SEV VM can be copied");
    ok(sev_cmd(&b, KVM_SEV_SEND_UPDATE_BATCH,
               &(struct kvm_sev_update_batch){ 0 }) == -EINVAL,
       "a VM with a copied context cannot send a batch");
    close(b.fd);
    b = bare_vm();
    ok(!from(&b, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, c.fd),
       "the context of an ordinary SEV VM can move");
    close(c.fd);
    close(b.fd);
    vm_destroy(&a);
}

/*
 * KVM frees the ASID of a destroyed VM.  The loop creates more VMs, one after
 * the other, than there are ASIDs.
 */
static void asids(void)
{
    uint32_t a, b, asids, min_sev;
    unsigned i, bad = 0;

    __cpuid(0x8000001f, a, b, asids, min_sev);
    if (asids > 600) {
        note("%u ASIDs are too many to run out of", asids);
        asids = 600;
    }
    for (i = 0; i < asids + 5; i++) {
        struct kvm_sev_init init = { 0 };
        struct vm vm;

        vm_create(&vm, VM_SEV, 16 * PAGE);
        MUST(vm_slot(&vm, 0, 0, 0, 16 * PAGE, 0));
        memset(vm.mem, 1, 16 * PAGE);
        MUST(vm_convert(&vm, 0, 16 * PAGE, PRIVATE));
        if (i % 16 == 0) {
            launch_start(&vm);
        }
        bad += sev_cmd(&vm, KVM_SEV_INIT2, &init) != -EINVAL;
        vm_destroy(&vm);
    }
    ok(!bad,
       "%u VMs can be created and destroyed with only %u ASIDs", i, asids);
}

/*
 * KVM's debug commands accept any number of bytes, although the firmware
 * processes multiples of 16 bytes only
 */
static void debug(struct vm *vm)
{
    static uint8_t in[PAGE] __attribute__((aligned(4096)));
    static uint8_t out[PAGE] __attribute__((aligned(4096)));
    struct kvm_sev_dbg dbg = {
        .src_uaddr = (uintptr_t)in, .dst_uaddr = (uintptr_t)vm->mem + 0x30000,
        .len = PAGE,
    };

    for (unsigned i = 0; i < PAGE; i++) {
        in[i] = i * 7;
    }
    ok(!sev_cmd(vm, KVM_SEV_DBG_ENCRYPT, &dbg) &&
       guest_read(vm, 0x30010) == *(uint64_t *)(in + 0x10),
       "the guest reads what DBG_ENCRYPT wrote to its private page");
    dbg.src_uaddr = (uintptr_t)in;
    dbg.dst_uaddr = (uintptr_t)vm->mem + 0x30ffb;
    dbg.len = 9;
    ok(!sev_cmd(vm, KVM_SEV_DBG_ENCRYPT, &dbg),
       "DBG_ENCRYPT of nine bytes across two private pages succeeds");
    dbg = (struct kvm_sev_dbg) {
        .src_uaddr = (uintptr_t)vm->mem + 0x30ff3, .dst_uaddr = (uintptr_t)out,
        .len = 17,
    };
    ok(!sev_cmd(vm, KVM_SEV_DBG_DECRYPT, &dbg) &&
       !memcmp(out + 8, in, 9) && !memcmp(out, in + 0xff3, 8),
       "DBG_ENCRYPT across two pages wrote its nine bytes and no byte before "
       "them");
    dbg.src_uaddr = (uintptr_t)vm->mem + GUEST_SIZE - 8;
    dbg.len = 16;
    ok(sev_cmd(vm, KVM_SEV_DBG_DECRYPT, &dbg) < 0,
       "DBG_DECRYPT past the end of the memory is refused");
    ok(!vm_convert(vm, 0x30000, 2 * PAGE, SHARED) &&
       !vm_convert(vm, 0x30000, 2 * PAGE, PRIVATE),
       "DBG_ENCRYPT and DBG_DECRYPT leave no page held");
}

/*
 * LAUNCH_SECRET by host address.  The MAC is wrong, so the firmware refuses the
 * secret; its error shows that KVM found the page and gave it to the firmware.
 */
static void secret(void)
{
    static uint8_t blob[PAGE];
    struct kvm_sev_launch_secret args = {
        .hdr_uaddr = (uintptr_t)blob, .hdr_len = HEADER_SIZE,
        .guest_len = 64, .trans_uaddr = (uintptr_t)blob, .trans_len = 64,
    };
    struct kvm_sev_launch_measure measure = { (uintptr_t)blob, PAGE };
    struct vm vm;

    vm_init(&vm, VM_SEV, GUEST_SIZE);
    MUST(vm_convert(&vm, 0, GUEST_SIZE, PRIVATE));
    launch_start(&vm);
    SEV_MUST(&vm, KVM_SEV_LAUNCH_MEASURE, &measure);
    args.guest_uaddr = (uintptr_t)vm.mem + 0x1000;
    ok(sev_cmd(&vm, KVM_SEV_LAUNCH_SECRET, &args) == -EIO && sev_error,
       "LAUNCH_SECRET of a private page reaches the firmware, which refuses it "
       "(%#x)", sev_error);
    args.guest_uaddr = (uintptr_t)vm.mem + GUEST_SIZE;
    ok(sev_cmd(&vm, KVM_SEV_LAUNCH_SECRET, &args) < 0 && !sev_error,
       "KVM refuses LAUNCH_SECRET past the end of the memory");
    args.guest_uaddr = (uintptr_t)vm.mem + GUEST_SIZE - 32;
    ok(sev_cmd(&vm, KVM_SEV_LAUNCH_SECRET, &args) < 0 && !sev_error,
       "KVM refuses LAUNCH_SECRET that is partly past the end of the memory");
    args.guest_uaddr = (uintptr_t)vm.mem;
    args.guest_len = 0;
    ok(sev_cmd(&vm, KVM_SEV_LAUNCH_SECRET, &args) == -EINVAL,
       "LAUNCH_SECRET of no bytes fails with EINVAL");
    ok(!vm_convert(&vm, 0, GUEST_SIZE, SHARED) &&
       !vm_convert(&vm, 0, GUEST_SIZE, PRIVATE),
       "LAUNCH_SECRET leaves no page held");
    vm_destroy(&vm);
}

/*
 * KVM counts the pages of a command against RLIMIT_MEMLOCK only while the
 * command runs
 */
static void accounting(void)
{
    struct kvm_sev_launch_update_data update = { 0 };
    struct rlimit limit = { 16 * PAGE, 16 * PAGE };
    struct vm vm;
    pid_t pid;
    int bad = 0;

    fflush(stdout);
    pid = CHECK(fork());
    if (pid) {
        int status;

        waitpid(pid, &status, 0);
        ok(WIFEXITED(status) && !WEXITSTATUS(status),
           "with a limit of 16 locked pages, commands of 16 pages always "
           "succeed and those of 17 fail (%#x)", status);
        return;
    }
    vm_init(&vm, VM_SEV, GUEST_SIZE);
    MUST(vm_convert(&vm, 0, GUEST_SIZE, PRIVATE));
    launch_start(&vm);
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit));
    CHECK(setresuid(1000, 1000, 1000));         /* without CAP_IPC_LOCK */
    update.uaddr = (uintptr_t)vm.mem;
    update.len = 16 * PAGE;
    for (int i = 0; i < 10; i++) {
        bad |= sev_cmd(&vm, KVM_SEV_LAUNCH_UPDATE_DATA, &update) != 0;
    }
    update.len = 17 * PAGE;
    bad |= (sev_cmd(&vm, KVM_SEV_LAUNCH_UPDATE_DATA, &update) != -ENOMEM) << 1;
    update.len = 16 * PAGE;
    bad |= (sev_cmd(&vm, KVM_SEV_LAUNCH_UPDATE_DATA, &update) != 0) << 2;
    _exit(bad);
}

int main(void)
{
    struct vm vm;

    vm_require(VM_SEV);
    contexts();
    secret();
    accounting();
    asids();
    vm_init(&vm, VM_SEV, GUEST_SIZE);
    if (ok(!guest_launch(&vm, 0x40000),
           "a guest for the debug commands runs")) {
        debug(&vm);
    }
    vm_destroy(&vm);
    return done_testing();
}
