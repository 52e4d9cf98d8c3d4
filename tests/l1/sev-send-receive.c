/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Move a running SEV guest to another VM page by page.  The test passes the
 * host addresses of private pages to KVM_SEV_SEND_UPDATE_DATA and
 * KVM_SEV_RECEIVE_UPDATE_DATA, and copies shared pages.  The guest then
 * continues in the other VM.
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
           "a packet with a flipped bit in byte %u fails with BAD_MEASUREMENT",
           at[i]);
    }
    bad = good;
    bad.header[HEADER_SIZE - 1] ^= 0x80;
    ok(transport_receive(to, 0xa000, &bad) < 0 && sev_error == BAD_MEASUREMENT,
       "a packet with a flipped bit in its MAC fails with BAD_MEASUREMENT");
    bad = good;
    bad.header[4] ^= 1;
    ok(transport_receive(to, 0xa000, &bad) < 0 && sev_error == BAD_MEASUREMENT,
       "a packet with a flipped bit in its IV fails with BAD_MEASUREMENT");
    ok(!transport_receive(to, 0xa000, &good),
       "the unchanged packet is received after the changed ones were refused");
    ok(transport_receive(to, GUEST_SIZE, &good) < 0,
       "a packet for a page past the end of the memory is not received");
    ok(transport_send(from, GUEST_SIZE, &bad) < 0,
       "a page past the end of the memory cannot be sent");
}

/* Send a guest from @a to @b and run it there */
static void migrate(struct vm *a, struct vm *b)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    forged(a, b);
    ok(!transport_all(a, b), "every page is sent and received");
    ok(vm_is_private(b, 0xa) && !vm_is_private(b, 0x60) &&
       touch(b->mem + 0xa000) == SIGBUS &&
       *(uint64_t *)(b->mem + 0x60000) == 0x2002,
       "private pages arrive private and shared pages arrive shared");

    CHECK(ioctl(a->vcpu, KVM_GET_REGS, &regs));
    CHECK(ioctl(a->vcpu, KVM_GET_SREGS, &sregs));
    ok(!sev_cmd(a, KVM_SEV_SEND_FINISH, NULL) &&
       !sev_cmd(b, KVM_SEV_RECEIVE_FINISH, NULL),
       "SEND_FINISH and RECEIVE_FINISH succeed");
    vm_destroy(a);
    guest_vcpu(b);
    CHECK(ioctl(b->vcpu, KVM_SET_SREGS, &sregs));
    CHECK(ioctl(b->vcpu, KVM_SET_REGS, &regs));
    if (ok(!guest_run(b), "the guest runs on the destination")) {
        ok(guest_read(b, 0xa000) == *(uint64_t *)MARKER &&
           guest_read(b, 0x50000) == 0x1001 &&
           guest_read(b, 0xb000) == 0x3003 &&
           guest_read(b, 0x60000) == 0x2002,
           "the guest reads the contents of its memory on the destination");
        ok(!guest_write(b, 0x60008, 0x4004) &&
           *(uint64_t *)(b->mem + 0x60008) == 0x4004,
           "the host of the destination reads what the guest writes to its "
           "shared page");
        ok(!guest_convert(b, 0x61, 1, true) && touch(b->mem + 0x61000) == SIGBUS,
           "the guest converts a page on the destination");
    }
    vm_destroy(b);
}

/* After SEND_CANCEL, the source continues */
static void cancel(void)
{
    struct packet packet;
    struct vm a, b;

    vm_init(&a, VM_SEV, GUEST_SIZE);
    vm_init(&b, VM_SEV, GUEST_SIZE);
    if (ok(!guest_launch(&a, 0x40000),
           "another guest runs, whose send will be canceled")) {
        MUST(guest_write(&a, 0x50000, 0x5005));
        MUST(transport_start(&a, &b));
        MUST(transport_send(&a, 0x50000, &packet));
        ok(!sev_cmd(&a, KVM_SEV_SEND_CANCEL, NULL), "SEND_CANCEL succeeds");
        ok(guest_read(&a, 0x50000) == 0x5005 &&
           !guest_write(&a, 0x50000, 6),
           "the guest runs on the source after SEND_CANCEL");
        ok(transport_send(&a, 0x50000, &packet) < 0,
           "no page can be sent after SEND_CANCEL");
    }
    vm_destroy(&a);
    vm_destroy(&b);
}

int main(void)
{
    struct vm a, b;

    vm_require(VM_SEV);
    vm_init(&a, VM_SEV, GUEST_SIZE);
    strcpy((char *)a.mem + 0xa000, MARKER);
    if (!ok(!guest_launch(&a, 0x40000), "a guest that will be sent runs")) {
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
    if (!ok(!transport_start(&a, &b), "SEND_START and RECEIVE_START succeed")) {
        return done_testing();
    }
    migrate(&a, &b);
    cancel();
    return done_testing();
}
