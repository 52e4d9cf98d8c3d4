/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An SEV guest whose RAM is a guest_memfd.  The firmware encrypts the launched
 * pages in place, DRAM contains only ciphertext of them, and the debug commands
 * find the guest's pages by their host address.
 */
#define _GNU_SOURCE
#include "guest.h"

#define MARKER          "A-MARKER-IN-PRIVATE-MEMORY-OF-THE-GUEST"
#define MARKER_GPA      0xa000
#define FLASH_GPA       0xff000000ULL
#define INVALID_STATE   2       /* SEV_RET_INVALID_GUEST_STATE */

/*
 * DRAM does not contain the plain text of private pages.  To read what DRAM
 * contains, the host converts the pages to shared and then reads them without
 * the guest's key.  The conversion does not change DRAM, because neither the
 * guest nor the firmware takes part in it.
 */
static void seen_from_outside(struct vm *vm)
{
    uint8_t *p = vm->mem;
    size_t len = strlen(MARKER);

    MUST(vm_convert(vm, 0xa000, 0x10000, SHARED));
    ok(!memmem(p + 0xa000, 0x10000, MARKER, len),
       "the host does not find the marker in the ciphertext of 16 private "
       "pages");
    ok(p[0x10000] || memcmp(p + 0x10000, p + 0x10001, 4095),
       "the ciphertext of a private page of zeros is not zeros");
    ok(memcmp(p + 0x10000, p + 0x11000, 4096),
       "private pages with equal contents have different ciphertexts");
    memcpy(p + 0x19800, MARKER, len);
    ok(memmem(p + 0xa000, 0x10000, MARKER, len) == p + 0x19800,
       "the search for the marker finds one that the host writes to the same "
       "pages");
    MUST(vm_convert(vm, 0xa000, 0x10000, PRIVATE));
}

static void debug(struct vm *vm)
{
    static uint8_t out[PAGE] __attribute__((aligned(4096)));
    struct kvm_sev_dbg dbg = {
        .src_uaddr = (uintptr_t)vm->mem + MARKER_GPA,
        .dst_uaddr = (uintptr_t)out, .len = 64,
    };
    uint64_t secret;

    ok(!sev_cmd(vm, KVM_SEV_DBG_DECRYPT, &dbg) &&
       !memcmp(out, MARKER, strlen(MARKER)),
       "DBG_DECRYPT reads a private page by its host address");
    dbg.src_uaddr = (uintptr_t)vm->mem + 0x20000;
    MUST(guest_write(vm, 0x20000, 0x5345435245543121));
    ok(!sev_cmd(vm, KVM_SEV_DBG_DECRYPT, &dbg),
       "DBG_DECRYPT of a private page that the guest wrote succeeds");
    memcpy(&secret, out, 8);
    ok(secret == 0x5345435245543121,
       "DBG_DECRYPT returns what the guest wrote");
    dbg.src_uaddr = (uintptr_t)vm->mem + GUEST_SIZE;
    ok(sev_cmd(vm, KVM_SEV_DBG_DECRYPT, &dbg) < 0,
       "DBG_DECRYPT past the end of the memory fails");
}

static void ordinary_memory(void)
{
    struct kvm_userspace_memory_region flash = {
        .slot = 1, .guest_phys_addr = FLASH_GPA, .memory_size = 2 * PAGE,
    };
    struct kvm_sev_launch_start start = { 0 };
    struct kvm_sev_launch_update_data update = { .len = 2 * PAGE };
    struct kvm_enc_region region = { .size = 2 * PAGE };
    struct vm vm;
    uint8_t *p;

    p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(p, 0x77, 2 * PAGE);
    vm_init(&vm, VM_SEV, GUEST_SIZE);
    update.uaddr = region.addr = flash.userspace_addr = (uintptr_t)p;
    CHECK(ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &flash));
    CHECK(ioctl(vm.fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region));
    SEV_MUST(&vm, KVM_SEV_LAUNCH_START, &start);
    ok(!sev_cmd(&vm, KVM_SEV_LAUNCH_UPDATE_DATA, &update) &&
       (p[0] != 0x77 || p[1] != 0x77),
       "LAUNCH_UPDATE_DATA encrypts ordinary memory of a VM with private "
       "memory");
    ok(!touch(p), "ordinary memory stays mapped after LAUNCH_UPDATE_DATA");

    /*
     * LAUNCH_UPDATE_DATA of a range that is contiguous in the host's mapping of
     * the guest_memfd and spans two slots
     */
    vm_destroy(&vm);
    vm_create(&vm, VM_SEV, GUEST_SIZE);
    MUST(vm_slot(&vm, 0, 0, 0, 0x100000, 0));
    MUST(vm_slot(&vm, 1, 0, 0x40000000, GUEST_SIZE - 0x100000, 0x100000));
    memset(vm.mem, 0, GUEST_SIZE);
    MUST(vm_convert(&vm, 0, GUEST_SIZE, PRIVATE));
    /* LAUNCH_START of the previous VM has stored that VM's handle here */
    start.handle = 0;
    SEV_MUST(&vm, KVM_SEV_LAUNCH_START, &start);
    update.uaddr = (uintptr_t)vm.mem + 0xf0000;
    update.len = 0x20000;
    ok(!sev_cmd(&vm, KVM_SEV_LAUNCH_UPDATE_DATA, &update),
       "LAUNCH_UPDATE_DATA of a range across two slots succeeds");
    MUST(vm_convert(&vm, 0xe0000, 0x40000, SHARED));
    ok(!vm.mem[0xef000] && !vm.mem[0xefff0] &&
       memcmp(vm.mem + 0xf0000, vm.mem + 0xe0000, 4096) &&
       memcmp(vm.mem + 0x10f000, vm.mem + 0xe0000, 4096) &&
       !vm.mem[0x110000],
       "LAUNCH_UPDATE_DATA encrypts exactly its range, in both slots");
    update.uaddr = (uintptr_t)vm.mem + GUEST_SIZE - PAGE;
    update.len = 2 * PAGE;
    ok(sev_cmd(&vm, KVM_SEV_LAUNCH_UPDATE_DATA, &update) < 0,
       "LAUNCH_UPDATE_DATA past the end of the last slot is refused");
    ok(!vm_convert(&vm, 0, GUEST_SIZE, SHARED) &&
       !vm_convert(&vm, 0, GUEST_SIZE, PRIVATE),
       "LAUNCH_UPDATE_DATA across two slots leaves no page held");
    vm_destroy(&vm);
    munmap(p, 2 * PAGE);
}

int main(void)
{
    struct kvm_sev_launch_update_data update = { 0 };
    struct kvm_sev_guest_status status;
    struct vm vm;

    vm_require(VM_SEV);
    vm_init(&vm, VM_SEV, GUEST_SIZE);
    strcpy((char *)vm.mem + MARKER_GPA, MARKER);
    if (!ok(!guest_launch(&vm, 0x40000),
            "a guest whose memory is encrypted in place runs")) {
        return done_testing();
    }
    SEV_MUST(&vm, KVM_SEV_GUEST_STATUS, &status);
    ok(status.state == 3, "the firmware reports that the guest runs");
    ok(touch(vm.mem + MARKER_GPA) == SIGBUS && !touch(vm.mem + GUEST_SHARED),
       "the host can access the guest's shared page and not its private pages");
    ok(guest_read(&vm, MARKER_GPA) == *(uint64_t *)MARKER,
       "the guest reads its private page");
    ok(!guest_write(&vm, GUEST_SHARED, 0x1234) &&
       *(uint64_t *)(vm.mem + GUEST_SHARED) == 0x1234,
       "the host reads what the guest writes to its shared page");
    update.uaddr = (uintptr_t)vm.mem + 0x50000;
    update.len = PAGE;
    ok(sev_cmd(&vm, KVM_SEV_LAUNCH_UPDATE_DATA, &update) < 0 &&
       sev_error == INVALID_STATE,
       "LAUNCH_UPDATE_DATA fails with INVALID_STATE after the guest was "
       "started");
    debug(&vm);
    seen_from_outside(&vm);
    vm_destroy(&vm);
    ordinary_memory();
    return done_testing();
}
