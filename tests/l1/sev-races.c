/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest runs while its pages are converted and sent and the dirty log is
 * switched on and off.  Each write and each conversion must be in the log,
 * nothing else may be, and the guest must never see a wrong value.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include "sev-transport.h"

#define SECONDS         5
#define PAGES           (GUEST_SIZE / PAGE)
#define STOP            (GUEST_SHARED + 16)
#define COUNTER         0xa000          /* private */
#define CONVERTED       0x100           /* gfns, up to CONVERTED_END */
#define CONVERTED_END   0x110

static struct vm vm;
static struct vm_converter c = {
    .vm = &vm, .offset = CONVERTED * PAGE,
    .size = (CONVERTED_END - CONVERTED) * PAGE,
};
static long end_of_guest = -1;

static void *run_guest(void *opaque)
{
    struct kvm_regs regs = {
        .r8 = GUEST_COUNT, .rdi = COUNTER, .r9 = GUEST_SHARED, .rsi = STOP,
    };

    end_of_guest = guest_do(&vm, &regs);
    return opaque;
}

/*
 * Switch the dirty log on and clear it, send pages while the guest writes and
 * another thread converts, and read the log.  Returns whether the log has
 * exactly the pages that were written or converted.
 */
static bool round_is_right(long *sends, long *unsent)
{
    volatile uint64_t *counter = (void *)(vm.mem + GUEST_SHARED);
    static uint64_t dirty[PAGES / 64];
    struct kvm_dirty_log log = { .dirty_bitmap = dirty };
    struct kvm_clear_dirty_log clear = {
        .num_pages = PAGES, .dirty_bitmap = dirty,
    };
    struct packet packet;
    uint64_t count;
    long converted;
    bool right = true;

    MUST(vm_slot(&vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, GUEST_SIZE, 0));
    CHECK(ioctl(vm.fd, KVM_GET_DIRTY_LOG, &log));
    ioctl(vm.fd, KVM_CLEAR_DIRTY_LOG, &clear);
    for (int i = CONVERTED; i < CONVERTED_END; i++, ++*sends) {
        *unsent += transport_send(&vm, i * PAGE, &packet) != 0;
    }
    count = *counter;
    converted = c.done;
    for (int i = 0; i < 5000 &&
         (*counter - count < 3 || c.done - converted < 2); i++) {
        usleep(200);
    }
    CHECK(ioctl(vm.fd, KVM_GET_DIRTY_LOG, &log));
    for (uint64_t i = GUEST_TABLE_END; i < PAGES; i++) {
        bool want = i == GUEST_SHARED / PAGE || i == COUNTER / PAGE ||
                    (i >= CONVERTED && i < CONVERTED_END);

        if ((dirty[i / 64] >> (i % 64) & 1) != want) {
            note("page %#llx is %s", (long long)i, want ? "clean" : "dirty");
            right = false;
        }
    }
    MUST(vm_slot(&vm, 0, 0, 0, GUEST_SIZE, 0));
    return right;
}

int main(void)
{
    long rounds = 0, wrong = 0, sends = 0, unsent = 0;
    uint64_t private, shared;
    pthread_t guest, converter;
    struct vm other;
    double t0;

    vm_require(VM_SEV);
    vm_init(&vm, VM_SEV, GUEST_SIZE);
    vm_init(&other, VM_SEV, GUEST_SIZE);
    if (!ok(!guest_launch(&vm, 0x40000),
            "a guest runs beside conversions and sends") ||
        !ok(!transport_start(&vm, &other),
            "SEND_START and RECEIVE_START succeed before the race")) {
        return done_testing();
    }
    MUST(guest_write(&vm, COUNTER, 0));
    MUST(guest_write(&vm, GUEST_SHARED, 0));
    MUST(guest_write(&vm, STOP, 0));
    pthread_create(&guest, NULL, run_guest, NULL);
    pthread_create(&converter, NULL, vm_run_converter, &c);
    for (t0 = now(); now() - t0 < SECONDS; rounds++) {
        wrong += !round_is_right(&sends, &unsent);
    }
    c.stop = true;
    pthread_join(converter, NULL);
    *(volatile uint64_t *)(vm.mem + STOP) = 1;
    pthread_join(guest, NULL);

    ok(rounds && !wrong,
       "each of %ld dirty logs has exactly the written and converted pages "
       "(%ld wrong)", rounds, wrong);
    ok(c.done && !c.errors,
       "%ld conversions beside the guest and sends (%ld EAGAIN): %ld other "
       "errors", c.done, c.refused, c.errors);
    ok(sends && !unsent,
       "%ld pages are sent beside conversions (%ld failed)", sends, unsent);
    ok(!end_of_guest, "the guest did not end during the race");
    shared = *(uint64_t *)(vm.mem + GUEST_SHARED);
    private = guest_read(&vm, COUNTER);
    ok(shared && private == shared,
       "the counters in the shared and the private page are both at %llu "
       "(%llu)", (long long)shared, (long long)private);
    vm_destroy(&other);
    vm_destroy(&vm);
    return done_testing();
}
