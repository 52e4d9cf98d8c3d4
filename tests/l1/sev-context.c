/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Other operations that use an SEV VM's memory or context: secrets and
 * debugging by host address, other VMs of the host, accounting, and the end of
 * the VM.
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

/* A new SEV VM without memory and without private memory enabled */
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
 * KVM refuses to copy or move the SEV context of a VM that has private memory,
 * because the guest_memfds would still belong to the old VM, so that the new VM
 * could not use its memory.
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
       "its context does not move to another VM: EINVAL");
    ok(from(&b, KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, a.fd) == -EINVAL,
       "nor is it copied: EINVAL");
    CHECK(ioctl(b.fd, KVM_ENABLE_CAP, &private));
    ok(from(&b, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, a.fd) == -EINVAL &&
       from(&b, KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, a.fd) == -EINVAL,
       "nor to one that has private memory of its own");
    ok(!sev_cmd(&a, KVM_SEV_GUEST_STATUS, &status),
       "and the VM has it still");

    /* VMs without private memory behave as in the distribution's kernel */
    c = bare_vm();
    SEV_MUST(&c, KVM_SEV_INIT2, &init);
    launch_start(&c);
    ok(from(&b, KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, c.fd) == -EINVAL &&
       from(&b, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, c.fd) == -EINVAL,
       "one with private memory takes no other's");
    close(b.fd);
    b = bare_vm();
    ok(!from(&b, KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, c.fd),
       "an ordinary SEV VM's is copied");
    ok(sev_cmd(&b, KVM_SEV_SEND_UPDATE_BATCH,
               &(struct kvm_sev_update_batch){ 0 }) == -EINVAL,
       "a mirror sends nothing");
    close(b.fd);
    b = bare_vm();
    ok(!from(&b, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, c.fd), "or moves");
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
    ok(!bad, "%u VMs come and go with %u ASIDs", i, asids);
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
       "DBG_ENCRYPT into a private page: the guest reads it");
    dbg.src_uaddr = (uintptr_t)in;
    dbg.dst_uaddr = (uintptr_t)vm->mem + 0x30ffb;
    dbg.len = 9;
    ok(!sev_cmd(vm, KVM_SEV_DBG_ENCRYPT, &dbg),
       "nine bytes across two pages");
    dbg = (struct kvm_sev_dbg) {
        .src_uaddr = (uintptr_t)vm->mem + 0x30ff3, .dst_uaddr = (uintptr_t)out,
        .len = 17,
    };
    ok(!sev_cmd(vm, KVM_SEV_DBG_DECRYPT, &dbg) &&
       !memcmp(out + 8, in, 9) && !memcmp(out, in + 0xff3, 8),
       "are there, and what was before them");
    dbg.src_uaddr = (uintptr_t)vm->mem + GUEST_SIZE - 8;
    dbg.len = 16;
    ok(sev_cmd(vm, KVM_SEV_DBG_DECRYPT, &dbg) < 0, "past the end: refused");
    ok(!vm_convert(vm, 0x30000, 2 * PAGE, SHARED) &&
       !vm_convert(vm, 0x30000, 2 * PAGE, PRIVATE), "no page stays held");
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
       "LAUNCH_SECRET finds its private page; the firmware refuses it (%#x)",
       sev_error);
    args.guest_uaddr = (uintptr_t)vm.mem + GUEST_SIZE;
    ok(sev_cmd(&vm, KVM_SEV_LAUNCH_SECRET, &args) < 0 && !sev_error,
       "past the end: refused before that");
    args.guest_uaddr = (uintptr_t)vm.mem + GUEST_SIZE - 32;
    ok(sev_cmd(&vm, KVM_SEV_LAUNCH_SECRET, &args) < 0 && !sev_error,
       "half past the end, too");
    args.guest_uaddr = (uintptr_t)vm.mem;
    args.guest_len = 0;
    ok(sev_cmd(&vm, KVM_SEV_LAUNCH_SECRET, &args) == -EINVAL, "nothing: EINVAL");
    ok(!vm_convert(&vm, 0, GUEST_SIZE, SHARED) &&
       !vm_convert(&vm, 0, GUEST_SIZE, PRIVATE), "no page stays held");
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
           "16 pages may be locked: commands of 16 go on for ever, of 17 do not"
           " (%#x)", status);
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
    if (ok(!guest_launch(&vm, 0x40000), "a guest runs")) {
        debug(&vm);
    }
    vm_destroy(&vm);
    return done_testing();
}
