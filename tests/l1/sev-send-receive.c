/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Move a running SEV guest to another VM page by page.  The test sends and
 * receives private pages with firmware commands by their host address, and
 * copies shared pages.  The guest then continues in the other VM.
 */
#define _GNU_SOURCE
#include "sev-transport.h"

#define MARKER          "TRANSPORTED-PRIVATE-MEMORY"
#define BAD_MEASUREMENT 0xb     /* SEV_RET_BAD_MEASUREMENT */

/*
 * Move every page to the other VM: private pages with the firmware, shared
 * pages with a copy.  Returns the number of failures.
 */
static int transport_all(struct vm *from, struct vm *to)
{
    uint8_t bits[GUEST_SIZE / PAGE / 8];
    int failed = 0, private = 0, plain = 0;
    struct packet packet;

    MUST(vm_bitmap(from, 0, GUEST_SIZE / PAGE, bits));
    for (uint64_t i = 0; i < GUEST_SIZE / PAGE; i++) {
        uint64_t gpa = i * PAGE;

        if (!(bits[i / 8] >> (i % 8) & 1)) {
            memcpy(to->mem + gpa, from->mem + gpa, PAGE);
            plain++;
            continue;
        }
        if (vm_convert(to, gpa, PAGE, PRIVATE) ||
            transport_send(from, gpa, &packet)) {
            failed++;
            continue;
        }
        if (memmem(packet.data, PAGE, MARKER, strlen(MARKER))) {
            note("page %#llx is sent in the clear", (long long)i);
            failed++;
        }
        failed += transport_receive(to, gpa, &packet) != 0;
        private++;
    }
    note("%d private, %d shared pages", private, plain);
    return failed;
}

static void forged(struct vm *from, struct vm *to)
{
    struct packet good, bad;
    static const unsigned at[] = { 0, 1, 2047, 4095 };
    unsigned i;

    MUST(transport_send(from, 0xa000, &good));
    MUST(vm_convert(to, 0xa000, PAGE, PRIVATE));
    for (i = 0; i < 4; i++) {
        bad = good;
        bad.data[at[i]] ^= 1 << i;
        ok(transport_receive(to, 0xa000, &bad) < 0 &&
           sev_error == BAD_MEASUREMENT,
           "a flipped bit in byte %u: the firmware says BAD_MEASUREMENT", at[i]);
    }
    bad = good;
    bad.header[HEADER_SIZE - 1] ^= 0x80;
    ok(transport_receive(to, 0xa000, &bad) < 0 && sev_error == BAD_MEASUREMENT,
       "a flipped bit in its MAC: likewise");
    bad = good;
    bad.header[4] ^= 1;
    ok(transport_receive(to, 0xa000, &bad) < 0 && sev_error == BAD_MEASUREMENT,
       "in its IV: likewise");
    ok(!transport_receive(to, 0xa000, &good), "the page itself is taken");
    ok(transport_receive(to, GUEST_SIZE, &good) < 0, "not past the end");
    ok(transport_send(from, GUEST_SIZE, &bad) < 0, "which cannot be sent either");
}

int main(void)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct vm a, b;

    vm_require(VM_SEV);
    vm_init(&a, VM_SEV, GUEST_SIZE);
    strcpy((char *)a.mem + 0xa000, MARKER);
    if (!ok(!guest_launch(&a, 0x40000), "a guest runs")) {
        return done_testing();
    }
    /*
     * guest_launch() encrypts only the first 0x40000 bytes.  The contents of
     * other private pages are undefined until the guest writes to them.
     */
    MUST(guest_write(&a, 0x50000, 0x1001));
    MUST(guest_convert(&a, 0x60, 2, false));
    MUST(guest_write(&a, 0x60000, 0x2002));
    MUST(guest_write(&a, 0xb000, 0x3003));

    vm_init(&b, VM_SEV, GUEST_SIZE);
    if (!ok(!transport_start(&a, &b), "SEND_START and RECEIVE_START")) {
        return done_testing();
    }
    forged(&a, &b);
    ok(!transport_all(&a, &b), "every page is sent and received");
    ok(vm_is_private(&b, 0xa) && !vm_is_private(&b, 0x60) &&
       touch(b.mem + 0xa000) == SIGBUS && *(uint64_t *)(b.mem + 0x60000) == 0x2002,
       "private ones arrive private, shared ones shared");

    CHECK(ioctl(a.vcpu, KVM_GET_REGS, &regs));
    CHECK(ioctl(a.vcpu, KVM_GET_SREGS, &sregs));
    ok(!sev_cmd(&a, KVM_SEV_SEND_FINISH, NULL) &&
       !sev_cmd(&b, KVM_SEV_RECEIVE_FINISH, NULL), "both sides finish");
    vm_destroy(&a);
    guest_vcpu(&b);
    CHECK(ioctl(b.vcpu, KVM_SET_SREGS, &sregs));
    CHECK(ioctl(b.vcpu, KVM_SET_REGS, &regs));
    if (ok(!guest_run(&b), "the guest goes on where it is")) {
        ok(guest_read(&b, 0xa000) == *(uint64_t *)MARKER &&
           guest_read(&b, 0x50000) == 0x1001 &&
           guest_read(&b, 0xb000) == 0x3003 &&
           guest_read(&b, 0x60000) == 0x2002, "with its memory");
        ok(!guest_write(&b, 0x60008, 0x4004) &&
           *(uint64_t *)(b.mem + 0x60008) == 0x4004,
           "what it shared is shared");
        ok(!guest_convert(&b, 0x61, 1, true) && touch(b.mem + 0x61000) == SIGBUS,
           "and it goes on converting");
    }
    vm_destroy(&b);

    /* After SEND_CANCEL, the source continues */
    vm_init(&a, VM_SEV, GUEST_SIZE);
    vm_init(&b, VM_SEV, GUEST_SIZE);
    if (ok(!guest_launch(&a, 0x40000), "another guest runs")) {
        struct packet packet;

        MUST(guest_write(&a, 0x50000, 0x5005));
        MUST(transport_start(&a, &b));
        MUST(transport_send(&a, 0x50000, &packet));
        ok(!sev_cmd(&a, KVM_SEV_SEND_CANCEL, NULL), "SEND_CANCEL");
        ok(guest_read(&a, 0x50000) == 0x5005 &&
           !guest_write(&a, 0x50000, 6), "it runs on");
        ok(transport_send(&a, 0x50000, &packet) < 0, "nothing more is sent");
    }
    vm_destroy(&a);
    vm_destroy(&b);
    return done_testing();
}
