/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Dirty logging of guest_memfd slots: the guest's writes and conversions. */
#include "guest.h"

#define PAGES   (GUEST_SIZE / PAGE)

static uint64_t dirty[PAGES / 64];

static void fetch(struct vm *vm)
{
    struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = dirty };

    memset(dirty, 0, sizeof(dirty));
    CHECK(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
}

/*
 * Are the pages [@first, @end) dirty and no others?  Page tables do not count:
 * the CPU may have set their accessed bits.
 */
static bool dirty_is(struct vm *vm, uint64_t first, uint64_t end)
{
    bool same = true;

    fetch(vm);
    for (uint64_t i = 0; i < PAGES; i++) {
        bool is = dirty[i / 64] >> (i % 64) & 1;

        if ((i < GUEST_TABLE_GFN || i >= GUEST_TABLE_END) &&
            is != (i >= first && i < end)) {
            note("page %#llx is %s", (long long)i, is ? "dirty" : "clean");
            same = false;
        }
    }
    return same;
}

static int logging(struct vm *vm, bool on)
{
    return vm_slot(vm, 0, on ? KVM_MEM_LOG_DIRTY_PAGES : 0, 0, GUEST_SIZE, 0);
}

static void conversions(struct vm *vm)
{
    ok(!vm_convert(vm, 0x100 * PAGE, 3 * PAGE, SHARED) &&
       dirty_is(vm, 0x100, 0x103), "to shared: dirty");
    ok(dirty_is(vm, 0, 0), "once");
    ok(!vm_convert(vm, 0x100 * PAGE, 3 * PAGE, SHARED) && dirty_is(vm, 0, 0),
       "already shared: not dirty");
    ok(!vm_convert(vm, 0x101 * PAGE, PAGE, PRIVATE) &&
       dirty_is(vm, 0x101, 0x102), "to private: dirty");
    ok(!vm_convert(vm, 0xff * PAGE, 6 * PAGE, PRIVATE), "a range of both");
    fetch(vm);
    ok(dirty[4] == 0x5 && !(dirty[3] >> 63), "only what changed is dirty");
    ok(!vm_convert(vm, 0x1c0 * PAGE, 0x80 * PAGE, SHARED) &&
       dirty_is(vm, 0x1c0, 0x240), "whole words of the log");
    ok(!vm_convert(vm, 0x1c0 * PAGE, 0x80 * PAGE, PRIVATE) &&
       dirty_is(vm, 0x1c0, 0x240), "and back");
    ok(vm_convert(vm, GUEST_SIZE, PAGE, PRIVATE) == -EINVAL &&
       dirty_is(vm, 0, 0), "a conversion that fails: not dirty");
}

static void writes(struct vm *vm)
{
    guest_write(vm, 0x20000, 1);
    ok(dirty_is(vm, 0x20, 0x21), "the guest writes a private page");
    ok(guest_read(vm, 0x21000) != ~0ULL && (fetch(vm), true) &&
       guest_read(vm, 0x21000) != ~0ULL && dirty_is(vm, 0, 0),
       "it reads one");
    guest_write(vm, 0x20008, 2);
    ok(dirty_is(vm, 0x20, 0x21), "it writes again after the log was read");
    guest_write(vm, GUEST_SHARED, 3);
    ok(dirty_is(vm, GUEST_SHARED / PAGE, GUEST_SHARED / PAGE + 1),
       "it writes a shared page");
    ok(*(uint64_t *)(vm->mem + GUEST_SHARED) == 3, "which the host sees");
    MUST(vm_convert(vm, 0x120 * PAGE, PAGE, SHARED));
    MUST(vm_convert(vm, 0x120 * PAGE, PAGE, PRIVATE));
    fetch(vm);
    guest_write(vm, 0x120000, 4);
    ok(dirty_is(vm, 0x120, 0x121), "it writes a page that was converted");
}

static void manual(struct vm *vm)
{
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        .args = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE |
                  KVM_DIRTY_LOG_INITIALLY_SET },
    };
    struct kvm_clear_dirty_log clear = {
        .num_pages = PAGES, .dirty_bitmap = dirty,
    };

    CHECK(ioctl(vm->fd, KVM_ENABLE_CAP, &cap));
    MUST(logging(vm, true));
    fetch(vm);
    ok(dirty[0] == ~0ULL && dirty[PAGES / 64 - 1] == ~0ULL,
       "KVM_DIRTY_LOG_INITIALLY_SET: all dirty");
    CHECK(ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear));
    ok(dirty_is(vm, 0, 0), "cleared by KVM_CLEAR_DIRTY_LOG");
    guest_write(vm, 0x30000, 1);
    ok(dirty_is(vm, 0x30, 0x31) && dirty_is(vm, 0x30, 0x31),
       "a write is dirty until it is cleared");
    fetch(vm);
    CHECK(ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear));
    MUST(vm_convert(vm, 0x30000, PAGE, SHARED));
    ok(dirty_is(vm, 0x30, 0x31), "so is a conversion");
    fetch(vm);
    CHECK(ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear));
    ok(dirty_is(vm, 0, 0), "until then");
    MUST(vm_convert(vm, 0x30000, PAGE, PRIVATE));
    MUST(logging(vm, false));
}

static void run(enum vm_type type)
{
    struct vm vm;

    note("%s VM", vm_type_name(type));
    vm_init(&vm, type, GUEST_SIZE);
    if (!ok(!guest_launch(&vm, GUEST_SIZE), "a guest starts")) {
        return;
    }
    guest_write(&vm, 0x20000, 1);
    guest_write(&vm, 0x21000, 1);
    guest_write(&vm, 0x120000, 1);

    ok(!logging(&vm, true), "switched on while it runs");
    ok(dirty_is(&vm, 0, 0), "nothing is dirty");
    writes(&vm);
    conversions(&vm);
    guest_write(&vm, 0x22000, 0x77);
    ok(!logging(&vm, false), "switched off");
    ok(guest_read(&vm, 0x22000) == 0x77 && !guest_write(&vm, 0x22000, 0x78) &&
       guest_read(&vm, 0x22000) == 0x78, "the guest goes on");
    ok(vm_is_private(&vm, 0x22) && !vm_is_private(&vm, GUEST_SHARED / PAGE),
       "its pages are what they were");
    ok(!logging(&vm, true) && dirty_is(&vm, 0, 0), "on again: nothing is dirty");
    guest_write(&vm, 0x22000, 0x79);
    ok(dirty_is(&vm, 0x22, 0x23), "and then a write");
    MUST(logging(&vm, false));
    manual(&vm);
    vm_destroy(&vm);
}

int main(void)
{
    vm_require(VM_SW_PROTECTED);
    vm_require(VM_SEV);
    run(VM_SW_PROTECTED);
    run(VM_SEV);
    return done_testing();
}
