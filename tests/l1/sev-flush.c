/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KVM zeroes the pages of a guest_memfd without the C-bit, and an SEV guest
 * uses them with the C-bit.  KVM must flush them in between.  Otherwise a late
 * write-back of the zeros destroys the guest's data.  The emulated CPU counts
 * pages that were not flushed.
 */
#define _GNU_SOURCE
#include "guest.h"
#include "hardware.h"

#define COUNTER "\"unflushed-host-writes\": "

static long unflushed(void)
{
    char *value;

    hardware_cmd("\"execute\": \"query-sev-platform\"");
    value = hardware_value(hardware_answer, COUNTER);
    return value ? strtol(value, NULL, 10) : -1;
}

/* The guest writes the first word of each page and reads it back */
static bool guest_uses(struct vm *vm, uint64_t first, uint64_t end)
{
    for (uint64_t at = first; at < end; at += PAGE) {
        if (guest_write(vm, at, at + 1) || guest_read(vm, at) != at + 1) {
            return false;
        }
    }
    return true;
}

/*
 * Let the guest use its memory from @begin to @end.  Return how many of these
 * uses lacked a flush, counted since @before, or -1 if the guest does not run.
 */
static long lacking(struct vm *vm, uint64_t begin, uint64_t end, long before)
{
    return guest_uses(vm, begin, end) ? unflushed() - before : -1;
}

int main(void)
{
    long before, n;
    struct vm vm;

    vm_require(VM_SEV);
    if (!hardware_open()) {
        skip_all("no port to the QMP of the hardware: scripts/l1 --qmp");
    }
    if (unflushed() < 0) {
        skip_all("the emulated CPU does not count pages that were not flushed");
    }
    vm_init(&vm, VM_SEV, GUEST_SIZE);
    before = unflushed();
    if (!ok(!guest_launch(&vm, 0x40000),
            "a guest whose pages must be flushed runs")) {
        return done_testing();
    }
    n = lacking(&vm, 0x100000, 0x140000, before);
    ok(!n, "no new page that the guest uses first lacks a flush (%ld lack it)",
       n);

    /*
     * When the host reads a page, KVM allocates the page and writes zeros to
     * it.  The host writes nothing else to the page before the guest uses it.
     * The counter therefore grows only if KVM does not flush these zeros.
     */
    before = unflushed();
    MUST(vm_convert(&vm, 0x140000, 0x40000, SHARED));
    for (uint64_t at = 0x140000; at < 0x180000; at += PAGE) {
        touch(vm.mem + at);
    }
    MUST(vm_convert(&vm, 0x140000, 0x40000, PRIVATE));
    n = lacking(&vm, 0x140000, 0x180000, before);
    ok(!n, "no page that the host read before the guest lacks a flush (%ld "
       "lack it)", n);

    before = unflushed();
    CHECK(fallocate(vm.gmem, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                    0x100000, 0x40000));
    n = lacking(&vm, 0x100000, 0x140000, before);
    ok(!n, "no page allocated in place of a hole lacks a flush (%ld lack it)",
       n);
    vm_destroy(&vm);
    return done_testing();
}
