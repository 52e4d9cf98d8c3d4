/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Private pages without a memory slot can be sent and received.  KVM finds
 * them by their host address, where a guest_memfd of this VM must be mapped.
 */
#define _GNU_SOURCE
#include "sev-transport.h"

#define LOW     0xc0000ULL      /* PAM registers can hide this memory */
#define COUNT   8

/*
 * Send or receive @count pages at @uaddr.  The host address need not be in the
 * memory of @vm.
 */
static int batch_at(struct vm *vm, uint32_t id, void *uaddr, uint32_t count,
                    struct packets *packets)
{
    struct vm at = *vm;

    at.mem = uaddr;
    return transport_batch(&at, id, 0, count, packets);
}

static int page_at(struct vm *vm, bool send, void *uaddr, struct packet *packet)
{
    struct vm at = *vm;

    at.mem = uaddr;
    return send ? transport_send(&at, 0, packet) :
                  transport_receive(&at, 0, packet);
}

/*
 * KVM refuses the pages of another VM's guest_memfd, both private and shared
 * ones
 */
static void foreign(struct vm *from, struct vm *to, struct packets *packets)
{
    static struct packet packet;
    struct kvm_enc_region region = { (uintptr_t)from->mem, GUEST_SIZE };

    ok(page_at(to, false, from->mem + LOW, &packet) == -EINVAL &&
       page_at(from, true, to->mem + LOW, &packet) == -EINVAL,
       "a private page of another VM's file cannot be sent or received "
       "(EINVAL)");
    ok(page_at(from, true, from->mem + GUEST_SHARED, &packet) != -EINVAL &&
       page_at(to, false, from->mem + GUEST_SHARED, &packet) == -EINVAL,
       "a page of another VM's file cannot be received after it was shared "
       "(EINVAL)");
    ok(batch_at(to, KVM_SEV_RECEIVE_UPDATE_BATCH, from->mem + LOW, COUNT,
                packets) == -EINVAL && !packets->done &&
       batch_at(from, KVM_SEV_SEND_UPDATE_BATCH, to->mem + LOW, COUNT,
                packets) == -EINVAL && !packets->done,
       "a batch of pages of another VM's file fails with EINVAL and does "
       "nothing");
    ok(xioctl(to->fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region) == -EINVAL,
       "memory of another VM's file cannot be registered (EINVAL)");
}

/*
 * A mapping can be longer than its guest_memfd.  KVM refuses the pages of the
 * mapping that are beyond the end of the guest_memfd.
 */
static void past_the_end(struct vm *vm)
{
    static struct packet packet;
    uint8_t *p = mmap(NULL, GUEST_SIZE + 2 * PAGE, PROT_READ | PROT_WRITE,
                      MAP_SHARED, vm->gmem, 0);
    struct packets packets = { 0 };

    if (p == MAP_FAILED) {
        bail("mmap past the end of the file");
    }
    packets_init(&packets, COUNT);
    ok(!page_at(vm, true, p + GUEST_SIZE - PAGE, &packet),
       "the last page of the file can be sent by another mapping");
    ok(page_at(vm, true, p + GUEST_SIZE, &packet) == -EFAULT &&
       page_at(vm, true, p + GUEST_SIZE + PAGE, &packet) == -EFAULT,
       "pages past the end of the file cannot be sent (EFAULT)");
    ok(batch_at(vm, KVM_SEV_SEND_UPDATE_BATCH, p + GUEST_SIZE - PAGE, 3,
                &packets) == -EFAULT && packets.done == 1,
       "a batch that reaches past the end of the file is EFAULT after one "
       "page");
    munmap(p, GUEST_SIZE + 2 * PAGE);
}

/* Packets that are sent and received without a slot, of 2 * COUNT pages */
struct sent {
    struct packet packet;               /* the first page */
    struct packets packets;             /* COUNT - 1 pages after it */
    struct packets large;               /* COUNT pages, four in each packet */
};

/*
 * Delete the slot at the source, as QEMU does when PAM registers hide the
 * memory, and send the pages
 */
static void send_without_slot(struct vm *vm, struct sent *sent)
{
    MUST(vm_slot(vm, 0, 0, 0, 0, 0));
    ok(!transport_send(vm, LOW, &sent->packet),
       "a page can be sent after its slot was deleted");
    ok(!transport_batch(vm, KVM_SEV_SEND_UPDATE_BATCH, LOW + PAGE, COUNT - 1,
                        &sent->packets) && sent->packets.done == COUNT - 1,
       "a batch of pages can be sent after their slot was deleted");
    ok(!transport_batch(vm, KVM_SEV_SEND_UPDATE_BATCH, LOW + COUNT * PAGE, COUNT,
                        &sent->large) && sent->large.done == COUNT &&
       sent->large.pages[0] == 4,
       "packets of four pages can be sent after their slot was deleted");
}

/*
 * The destination receives pages before it loads the state of the PAM
 * registers, so there is no slot yet
 */
static void receive_without_slot(struct vm *vm, struct sent *sent)
{
    MUST(vm_convert(vm, LOW, 2 * COUNT * PAGE, PRIVATE));
    ok(!transport_receive(vm, LOW, &sent->packet),
       "a page can be received before its slot was created");
    ok(!transport_batch(vm, KVM_SEV_RECEIVE_UPDATE_BATCH, LOW + PAGE, COUNT - 1,
                        &sent->packets) && sent->packets.done == COUNT - 1,
       "a batch of pages can be received before their slot was created");
    ok(!transport_batch(vm, KVM_SEV_RECEIVE_UPDATE_BATCH, LOW + COUNT * PAGE,
                        COUNT, &sent->large) && sent->large.done == COUNT,
       "packets of four pages can be received before their slot was created");
}

/*
 * Send the pages of the guest's code and page tables, and create the slot.  The
 * guest can then run on the destination and read the pages that the test has
 * sent without a slot.
 */
static void run_at_destination(struct vm *from, struct vm *to)
{
    static struct packet packet;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    int bad = 0;

    CHECK(ioctl(from->vcpu, KVM_GET_REGS, &regs));
    CHECK(ioctl(from->vcpu, KVM_GET_SREGS, &sregs));
    for (uint64_t gpa = 0; gpa < 0x9000; gpa += PAGE) {
        MUST(vm_convert(to, gpa, PAGE, PRIVATE));
        MUST(transport_send(from, gpa, &packet));
        MUST(transport_receive(to, gpa, &packet));
    }
    MUST(vm_slot(to, 0, 0, 0, GUEST_SIZE, 0));
    ok(vm_is_private(to, LOW / PAGE) && !vm_is_private(to, LOW / PAGE - 1),
       "a slot created after pages were received has their private state");
    MUST(sev_cmd(from, KVM_SEV_SEND_FINISH, NULL));
    MUST(sev_cmd(to, KVM_SEV_RECEIVE_FINISH, NULL));
    guest_vcpu(to);
    CHECK(ioctl(to->vcpu, KVM_SET_SREGS, &sregs));
    CHECK(ioctl(to->vcpu, KVM_SET_REGS, &regs));
    if (ok(!guest_run(to),
           "the guest runs on the destination after its slot was created")) {
        for (int i = 0; i < 2 * COUNT; i++) {
            bad += guest_read(to, LOW + i * PAGE) != 0x1000 + (uint64_t)i;
        }
        ok(!bad,
           "the guest reads the contents of each page that was sent without a "
           "slot");
    }
}

int main(void)
{
    static struct sent sent;
    uint8_t pages[COUNT];
    struct vm a, b;

    vm_require(VM_SEV);
    packets_init(&sent.packets, COUNT);
    packets_init(&sent.large, COUNT);
    sent.large.pages = pages;
    vm_init(&a, VM_SEV, GUEST_SIZE);
    if (!ok(!guest_launch(&a, 0x40000),
            "a guest whose pages lose their slot runs")) {
        return done_testing();
    }
    for (int i = 0; i < 2 * COUNT; i++) {
        MUST(guest_write(&a, LOW + i * PAGE, 0x1000 + i));
    }
    vm_create(&b, VM_SEV, GUEST_SIZE);
    MUST(transport_start(&a, &b));
    foreign(&a, &b, &sent.packets);
    send_without_slot(&a, &sent);
    past_the_end(&a);
    receive_without_slot(&b, &sent);
    run_at_destination(&a, &b);
    vm_destroy(&a);
    vm_destroy(&b);
    return done_testing();
}
