/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dirty log of a slot whose memory is a guest_memfd contains the guest's
 * writes and the conversions.
 */
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
 * Are exactly the pages [@first, @end) dirty?  Page tables are ignored,
 * because the CPU may have set their accessed bits.
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
       dirty_is(vm, 0x100, 0x103), "pages that become shared are dirty");
    ok(dirty_is(vm, 0, 0),
       "a conversion is only in the first dirty log after it");
    ok(!vm_convert(vm, 0x100 * PAGE, 3 * PAGE, SHARED) && dirty_is(vm, 0, 0),
       "converting shared pages to shared does not mark them dirty");
    ok(!vm_convert(vm, 0x101 * PAGE, PAGE, PRIVATE) &&
       dirty_is(vm, 0x101, 0x102), "a page that becomes private is dirty");
    ok(!vm_convert(vm, 0xff * PAGE, 6 * PAGE, PRIVATE),
       "a range of private and shared pages becomes private");
    fetch(vm);
    ok(dirty[4] == 0x5 && !(dirty[3] >> 63),
       "only the pages whose state the conversion changed are dirty");
    ok(!vm_convert(vm, 0x1c0 * PAGE, 0x80 * PAGE, SHARED) &&
       dirty_is(vm, 0x1c0, 0x240),
       "pages that fill whole words of the dirty log are dirty when they "
       "become shared");
    ok(!vm_convert(vm, 0x1c0 * PAGE, 0x80 * PAGE, PRIVATE) &&
       dirty_is(vm, 0x1c0, 0x240),
       "pages that fill whole words of the dirty log are dirty when they "
       "become private");
    ok(vm_convert(vm, GUEST_SIZE, PAGE, PRIVATE) == -EINVAL &&
       dirty_is(vm, 0, 0), "a conversion that fails does not mark pages dirty");
}

static void writes(struct vm *vm)
{
    guest_write(vm, 0x20000, 1);
    ok(dirty_is(vm, 0x20, 0x21),
       "a private page is dirty after the guest wrote it");
    ok(guest_read(vm, 0x21000) != ~0ULL && (fetch(vm), true) &&
       guest_read(vm, 0x21000) != ~0ULL && dirty_is(vm, 0, 0),
       "a private page that the guest only reads is not dirty");
    /*
     * The source sends only the state, and not the contents, of a page that
     * was never accessed.  The first access allocates the page, even if the
     * access is a read.  KVM must then mark the page dirty, so that the source
     * sends the page again, with its contents.
     */
    ok(guest_read(vm, 0x380000) != ~0ULL && dirty_is(vm, 0x380, 0x381),
       "a page that was not allocated is dirty after the guest's first read");
    guest_write(vm, 0x20008, 2);
    ok(dirty_is(vm, 0x20, 0x21),
       "a private page is dirty after the guest wrote it again since the last "
       "log");
    guest_write(vm, GUEST_SHARED, 3);
    ok(dirty_is(vm, GUEST_SHARED / PAGE, GUEST_SHARED / PAGE + 1),
       "a shared page is dirty after the guest wrote it");
    ok(*(uint64_t *)(vm->mem + GUEST_SHARED) == 3,
       "the host sees what the guest wrote to the shared page");
    MUST(vm_convert(vm, 0x120 * PAGE, PAGE, SHARED));
    MUST(vm_convert(vm, 0x120 * PAGE, PAGE, PRIVATE));
    fetch(vm);
    guest_write(vm, 0x120000, 4);
    ok(dirty_is(vm, 0x120, 0x121),
       "a page that was converted before is dirty after the guest wrote it");
}

/*
 * In every mode of the dirty log, the next log contains the conversions in both
 * directions
 */
static void modes(struct vm *vm)
{
    static const struct { uint64_t flags; const char *name; } mode[] = {
        { 0, "cleared by reading" },
        { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, "manual" },
        { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET,
          "manual, initially set" },
    };

    for (unsigned i = 0; i < 3; i++) {
        struct kvm_enable_cap cap = {
            .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { mode[i].flags },
        };
        struct kvm_clear_dirty_log clear = {
            .num_pages = PAGES, .dirty_bitmap = dirty,
        };
        uint64_t attributes = SHARED;
        bool right = true;

        CHECK(ioctl(vm->fd, KVM_ENABLE_CAP, &cap));
        MUST(logging(vm, true));
        for (int round = 0; round < 6; round++, attributes ^= PRIVATE) {
            uint64_t first = 0x200 + round / 2 * 0x41;

            fetch(vm);
            if (mode[i].flags) {
                CHECK(ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear));
            }
            MUST(vm_convert(vm, first * PAGE, 0x60 * PAGE, attributes));
            right &= dirty_is(vm, first, first + 0x60);
            if (mode[i].flags) {
                /* Convert between reading the log and clearing it */
                MUST(vm_convert(vm, 0x340 * PAGE, PAGE, attributes));
                CHECK(ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear));
                right &= dirty_is(vm, 0x340, 0x341);
            }
        }
        MUST(logging(vm, false));
        ok(right,
           "each conversion is in the next dirty log in mode \"%s\"",
           mode[i].name);
    }
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
       "KVM_DIRTY_LOG_INITIALLY_SET marks all pages dirty");
    CHECK(ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear));
    ok(dirty_is(vm, 0, 0), "KVM_CLEAR_DIRTY_LOG clears the initial dirty log");
    guest_write(vm, 0x30000, 1);
    ok(dirty_is(vm, 0x30, 0x31) && dirty_is(vm, 0x30, 0x31),
       "a written page stays dirty until KVM_CLEAR_DIRTY_LOG clears it");
    fetch(vm);
    CHECK(ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear));
    MUST(vm_convert(vm, 0x30000, PAGE, SHARED));
    ok(dirty_is(vm, 0x30, 0x31),
       "a converted page is dirty in a log that is cleared manually");
    fetch(vm);
    CHECK(ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear));
    ok(dirty_is(vm, 0, 0),
       "a converted page is not dirty after KVM_CLEAR_DIRTY_LOG cleared it");
    MUST(vm_convert(vm, 0x30000, PAGE, PRIVATE));
    MUST(logging(vm, false));
}

static void run(enum vm_type type)
{
    struct vm vm;

    note("%s VM", vm_type_name(type));
    vm_init(&vm, type, GUEST_SIZE);
    if (!ok(!guest_launch(&vm, GUEST_SIZE),
            "a guest starts before its dirty log is switched on")) {
        return;
    }
    guest_write(&vm, 0x20000, 1);
    guest_write(&vm, 0x21000, 1);
    guest_write(&vm, 0x120000, 1);

    ok(!logging(&vm, true),
       "the dirty log can be switched on while the guest runs");
    ok(dirty_is(&vm, 0, 0),
       "no page is dirty when the dirty log was switched on");
    writes(&vm);
    conversions(&vm);
    guest_write(&vm, 0x22000, 0x77);
    ok(!logging(&vm, false),
       "the dirty log can be switched off while the guest runs");
    ok(guest_read(&vm, 0x22000) == 0x77 && !guest_write(&vm, 0x22000, 0x78) &&
       guest_read(&vm, 0x22000) == 0x78,
       "the guest reads and writes after its dirty log was switched off");
    ok(vm_is_private(&vm, 0x22) && !vm_is_private(&vm, GUEST_SHARED / PAGE),
       "switching the dirty log off keeps private pages private and shared "
       "ones shared");
    ok(!logging(&vm, true) && dirty_is(&vm, 0, 0),
       "no page is dirty when the dirty log was switched on a second time");
    guest_write(&vm, 0x22000, 0x79);
    ok(dirty_is(&vm, 0x22, 0x23),
       "a page that the guest writes is dirty after the log was switched on "
       "again");
    MUST(logging(&vm, false));
    modes(&vm);
    manual(&vm);
    vm_destroy(&vm);
}

#define RING_SIZE       65536

static int ring_enable(struct vm *vm, uint32_t cap, uint64_t size)
{
    struct kvm_enable_cap args = { .cap = cap, .args = { size } };

    return xioctl(vm->fd, KVM_ENABLE_CAP, &args);
}

/* Is page @page in the vCPU's dirty ring? */
static bool ring_has(struct vm *vm, uint64_t page)
{
    struct kvm_dirty_gfn *ring;
    bool has = false;

    ring = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu,
                KVM_DIRTY_LOG_PAGE_OFFSET * PAGE);
    if (ring == MAP_FAILED) {
        bail("mmap of the dirty ring");
    }
    for (unsigned i = 0; i < RING_SIZE / sizeof(*ring); i++) {
        has |= ring[i].flags & KVM_DIRTY_GFN_F_DIRTY && ring[i].offset == page;
    }
    munmap(ring, RING_SIZE);
    return has;
}

/*
 * With dirty rings, the writes of a vCPU are in the vCPU's ring.  A conversion
 * belongs to no vCPU, so it is in the bitmap.
 */
static void rings(enum vm_type type)
{
    struct vm vm;

    vm_create(&vm, type, GUEST_SIZE);
    ok(vm_cap(vm.fd, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP) == 1,
       "the VM offers a bitmap beside dirty rings");
    ok(ring_enable(&vm, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 0) == -EINVAL,
       "the bitmap beside dirty rings cannot be enabled before the rings");
    MUST(ring_enable(&vm, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, RING_SIZE));
    ok(logging(&vm, true) == -EINVAL,
       "a guest_memfd slot cannot have a dirty log if the VM has a ring "
       "without bitmap");
    ok(!logging(&vm, false) &&
       ring_enable(&vm, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 0) == -EINVAL,
       "the bitmap beside dirty rings cannot be enabled after the first slot");
    MUST(vm_slot(&vm, 0, 0, 0, 0, 0));
    ok(!ring_enable(&vm, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 0),
       "the bitmap beside dirty rings can be enabled when the VM has no slot");
    MUST(logging(&vm, false));
    if (!ok(!guest_launch(&vm, GUEST_SIZE),
            "a guest with a dirty ring starts")) {
        return;
    }
    guest_write(&vm, 0x20000, 1);
    ok(!logging(&vm, true) && dirty_is(&vm, 0, 0),
       "the dirty log of a guest with a dirty ring can be switched on");
    guest_write(&vm, 0x20000, 2);
    ok(ring_has(&vm, 0x20) && dirty_is(&vm, 0, 0),
       "a page that the guest writes is in its dirty ring, not in the bitmap");
    ok(!vm_convert(&vm, 0x100 * PAGE, 3 * PAGE, SHARED) &&
       !ring_has(&vm, 0x100) && dirty_is(&vm, 0x100, 0x103),
       "pages that become shared are in the bitmap, not in the dirty ring");
    ok(!vm_convert(&vm, 0x101 * PAGE, PAGE, PRIVATE) &&
       dirty_is(&vm, 0x101, 0x102),
       "a page that becomes private is in the bitmap beside the dirty ring");
    ok(!guest_convert(&vm, 0x180, 2, false) && dirty_is(&vm, 0x180, 0x182),
       "pages that the guest asks to convert are in the bitmap beside the "
       "dirty ring");
    vm_destroy(&vm);
}

static void plain_ring(void)
{
    struct vm vm = { .fd = CHECK(ioctl(kvm_fd, KVM_CREATE_VM, 0)) };

    ok(!vm_cap(vm.fd, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP) &&
       !ring_enable(&vm, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, RING_SIZE) &&
       ring_enable(&vm, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 0) == -EINVAL,
       "a plain VM has dirty rings without a bitmap, as without the module");
    close(vm.fd);
}

int main(void)
{
    vm_require(VM_SW_PROTECTED);
    vm_require(VM_SEV);
    run(VM_SW_PROTECTED);
    run(VM_SEV);
    rings(VM_SW_PROTECTED);
    rings(VM_SEV);
    plain_ring();
    return done_testing();
}
