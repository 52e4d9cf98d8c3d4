/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compare the results of KVM_GET_PAGE_ENC_BITMAP with a model. */
#define _GNU_SOURCE
#include <pthread.h>
#include "vm.h"

/*
 * Three slots of one guest_memfd, which have another order in the file than in
 * the guest's memory, and gaps between them:
 *
 *   gfns 0x100-0x2ff      pages 0x200-0x3ff of the file
 *   gfns 0x300-0x30a      pages 0-0xa
 *   gfns 0x1001-0x1080    pages 0x100-0x17f
 */
#define SIZE    (4ULL << 20)
static const struct { uint64_t gfn, pages, index; } slots[] = {
    { 0x100, 0x200, 0x200 }, { 0x300, 0xb, 0 }, { 0x1001, 0x80, 0x100 },
};
#define LIMIT   0x1200

static bool model[SIZE / PAGE];         /* is the file's page private? */

static bool expected(uint64_t gfn)
{
    for (unsigned i = 0; i < 3; i++) {
        if (gfn >= slots[i].gfn && gfn < slots[i].gfn + slots[i].pages) {
            return model[gfn - slots[i].gfn + slots[i].index];
        }
    }
    return false;
}

static int set(struct vm *vm, uint64_t index, uint64_t pages, bool private)
{
    int r = vm_convert(vm, index * PAGE, pages * PAGE, private ? PRIVATE : 0);

    for (uint64_t i = 0; !r && i < pages; i++) {
        model[index + i] = private;
    }
    return r;
}

/*
 * Is the bitmap of a range right?  The function fills the buffer with @fill
 * first, and also checks that KVM does not change the other bits of the buffer.
 */
static bool right(struct vm *vm, uint64_t gfn, uint64_t pages, uint8_t fill)
{
    static uint8_t bits[LIMIT / 8 + 16];
    uint64_t i;

    memset(bits, fill, sizeof(bits));
    MUST(vm_bitmap(vm, gfn, pages, bits + 8));
    for (i = 0; i < sizeof(bits) * 8; i++) {
        bool in = i >= 64 && i < 64 + pages;
        bool want = in ? expected(gfn + i - 64) : fill & 1;

        if ((bits[i / 8] >> (i % 8) & 1) != want) {
            note("gfn %#llx, %llu pages, fill %#x: bit %lld is wrong",
                 (long long)gfn, (long long)pages, fill, (long long)i - 64);
            return false;
        }
    }
    return true;
}

static bool right_all(struct vm *vm)
{
    return right(vm, 0, LIMIT, 0) && right(vm, 0, LIMIT, 0xff);
}

static void contents(struct vm *vm)
{
    bool good = true;
    unsigned i;

    ok(right_all(vm), "the bitmap is right when all pages are shared");
    MUST(set(vm, 0, SIZE / PAGE, true));
    ok(right_all(vm),
       "the bitmap is right when all pages are private, and is 0 for gfns "
       "without a slot");
    MUST(set(vm, 0x240, 64, false));
    MUST(set(vm, 0x2c1, 1, false));
    MUST(set(vm, 0x2ff, 2, false));
    MUST(set(vm, 0x3, 5, false));
    MUST(set(vm, 0x100, 1, false));
    MUST(set(vm, 0x17f, 1, false));
    ok(right_all(vm),
       "the bitmap is right for a whole word, single pages, and both ends of a "
       "slot");
    for (i = 0; i < 300; i += 3) {
        MUST(set(vm, 0x200 + i, 1, i & 1));
    }
    ok(right_all(vm),
       "the bitmap is right after every third page was converted");

    for (i = 0; i < 70 && good; i++) {
        for (unsigned n = 1; n < 140 && good; n++) {
            good = right(vm, 0xf0 + i, n, n & 1 ? 0xff : 0);
        }
    }
    ok(good,
       "bits outside of the requested range are not written, for any start and "
       "length");
    good = right(vm, 0x2f0, 0x30, 0) && right(vm, 0xfff, 3, 0xff) &&
           right(vm, 0x1080, 1, 0) && right(vm, 0x1081, 1, 0xff) &&
           right(vm, 0x30a, 2, 0xff);
    ok(good, "the bitmap is right for ranges across slots and holes");
    ok(right(vm, 1ULL << 40, 100, 0xff),
       "the bitmap of a range far from all slots has no private page");
}

static void generations(struct vm *vm)
{
    uint8_t bits[LIMIT / 8], before[LIMIT / 8];
    struct kvm_page_enc_bitmap args = {
        .num_pages = LIMIT, .enc_bitmap = (uintptr_t)bits,
    };
    uint64_t gen;

    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    gen = args.generation;
    ok(gen && args.flags == 0,
       "the first bitmap has a generation other than 0");
    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    ok(args.generation == gen,
       "the generation stays the same while nothing changes");

    memset(bits, 0xa5, sizeof(bits));
    memcpy(before, bits, sizeof(bits));
    args.flags = KVM_PAGE_ENC_BITMAP_IF_CHANGED;
    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    ok(args.flags == (KVM_PAGE_ENC_BITMAP_IF_CHANGED |
                      KVM_PAGE_ENC_BITMAP_UNCHANGED) &&
       args.generation == gen && !memcmp(bits, before, sizeof(bits)),
       "IF_CHANGED with the current generation reports UNCHANGED and writes no "
       "bitmap");
    args.flags = 0;
    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    ok(memcmp(bits, before, sizeof(bits)),
       "a request without IF_CHANGED writes the bitmap although nothing has "
       "changed");

    args.flags = KVM_PAGE_ENC_BITMAP_IF_CHANGED;
    args.generation = 0;
    memset(bits, 0xa5, sizeof(bits));
    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    ok(args.flags == KVM_PAGE_ENC_BITMAP_IF_CHANGED && args.generation == gen &&
       memcmp(bits, before, sizeof(bits)),
       "IF_CHANGED with generation 0 always writes the bitmap");

    MUST(set(vm, 0x300, 1, !model[0x300]));
    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    ok(args.flags == KVM_PAGE_ENC_BITMAP_IF_CHANGED && args.generation != gen,
       "a conversion changes the generation");
    gen = args.generation;
    MUST(set(vm, 0x300, 1, model[0x300]));
    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    ok(args.generation == gen && args.flags & KVM_PAGE_ENC_BITMAP_UNCHANGED,
       "a conversion that changes no page does not change the generation");

    args.flags = KVM_PAGE_ENC_BITMAP_IF_CHANGED;
    MUST(vm_slot(vm, 2, 0, slots[2].gfn * PAGE, 0, 0));
    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    ok(args.flags == KVM_PAGE_ENC_BITMAP_IF_CHANGED && args.generation != gen &&
       !(bits[0x1010 / 8] & 1), "deleting a slot changes the generation");
    gen = args.generation;
    MUST(vm_slot(vm, 2, 0, slots[2].gfn * PAGE, slots[2].pages * PAGE,
                 slots[2].index * PAGE));
    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    ok(args.flags == KVM_PAGE_ENC_BITMAP_IF_CHANGED && args.generation != gen &&
       right_all(vm), "creating a slot changes the generation");
    gen = args.generation;
    MUST(vm_slot(vm, 2, KVM_MEM_LOG_DIRTY_PAGES, slots[2].gfn * PAGE,
                 slots[2].pages * PAGE, slots[2].index * PAGE));
    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    ok(right_all(vm),
       "switching a slot's dirty log on does not change the bitmap");
}

static void arguments(struct vm *vm)
{
    uint8_t *page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const struct kvm_page_enc_bitmap good = {
        .start_gfn = 0x100, .num_pages = 64, .enc_bitmap = (uintptr_t)page,
    };
    struct kvm_page_enc_bitmap a;
    unsigned i, n;

#define TRY(...) ({ a = good; __VA_ARGS__;                              \
                    xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &a); })
    CHECK(munmap(page + PAGE, PAGE));
    memset(page, 0xa5, PAGE);
    ok(TRY(a.num_pages = 0) == -EINVAL,
       "a request for 0 pages fails with EINVAL");
    ok(TRY(a.start_gfn = -1ULL) == -EINVAL,
       "a request whose range overflows fails with EINVAL");
    ok(TRY(a.start_gfn = -64ULL) == -EINVAL,
       "a request whose range ends at 2^64 fails with EINVAL");
    ok(TRY(a.num_pages = -1ULL) == -EINVAL,
       "a request for 2^64 - 1 pages fails with EINVAL");
    ok(TRY(a.start_gfn = 1ULL << 52) == -EINVAL,
       "a request for a gfn that no address has fails with EINVAL");
    for (i = 0, n = 0; i < 3; i++) {
        n += TRY(a.reserved[i] = 1) == -EINVAL;
    }
    ok(n == 3, "a request with any reserved field fails with EINVAL");
    for (i = 1, n = 0; i < 64; i++) {
        n += TRY(a.flags = 1ULL << i) == -EINVAL;
    }
    ok(n == 63, "a request with any unknown flag fails with EINVAL");
    ok(page[0] == 0xa5, "requests that fail write nothing to the bitmap");
    ok(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, (void *)8) == -EFAULT,
       "a request with an invalid argument pointer fails with EFAULT");
    ok(TRY(a.enc_bitmap = 0) == -EFAULT,
       "a request without a bitmap fails with EFAULT");
    ok(TRY(a.enc_bitmap = -8ULL) == -EFAULT,
       "a request with a kernel address as bitmap fails with EFAULT");
    ok(TRY(a.enc_bitmap += PAGE - 7) == -EFAULT,
       "a bitmap that ends a byte after the mapped page fails with EFAULT");
    ok(TRY(a.enc_bitmap += PAGE - 8) == 0,
       "a bitmap that ends at the end of the mapped page succeeds");
    ok(TRY(a.enc_bitmap += PAGE - 8, a.num_pages = 57) == 0 &&
       TRY(a.enc_bitmap += PAGE - 7, a.num_pages = 57) == -EFAULT,
       "both limits hold for a bitmap whose last byte is not whole");
    ok(TRY(a.num_pages = 1ULL << 40) == -EFAULT,
       "a bitmap larger than the mapped memory fails with EFAULT");
    CHECK(mprotect(page, PAGE, PROT_READ));
    ok(TRY() == -EFAULT, "a read-only bitmap fails with EFAULT");
    munmap(page, PAGE);
}

/*
 * The bitmap of a VM that keeps the attributes itself, because it is not in
 * in-place mode
 */
static void wide(void)
{
    struct vm vm = { .type = VM_SW_PROTECTED, .size = SIZE };
    struct kvm_memory_attributes a = {
        .address = 0x3000, .size = 5 * PAGE, .attributes = PRIVATE,
    };
    uint8_t bits[2] = { 0x80, 0xff };
    struct kvm_page_enc_bitmap args = {
        .num_pages = 12, .enc_bitmap = (uintptr_t)bits,
    };
    uint64_t gen;

    vm_in_place(false);
    vm.fd = CHECK(ioctl(kvm_fd, KVM_CREATE_VM, vm.type));
    vm.gmem = CHECK(vm_gmem(&vm, SIZE, 0));
    vm.mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(vm_slot(&vm, 0, 0, 0, 7 * PAGE, 0));
    MUST(xioctl(vm.fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    ok(bits[0] == 0 && bits[1] == 0xf0,
       "the bitmap of a VM with VM-wide attributes has no private page at "
       "first");
    gen = args.generation;
    MUST(xioctl(vm.fd, KVM_SET_MEMORY_ATTRIBUTES, &a));
    MUST(xioctl(vm.fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    ok(bits[0] == 0x78 && bits[1] == 0xf0 && args.generation != gen,
       "with VM-wide attributes, private gfns with a slot are in the bitmap, "
       "and the generation changes");
    close(vm.gmem);
    close(vm.fd);
    munmap(vm.mem, SIZE);
}

static volatile bool stop;
static volatile long conversions;

static void *converter(void *opaque)
{
    struct vm *vm = opaque;
    bool private = false;

    while (!stop) {
        /* Convert the whole slot with one call */
        if (vm_convert(vm, 0x200 * PAGE, 0x200 * PAGE, private ? PRIVATE : 0)) {
            return opaque;
        }
        private = !private;
        conversions++;
    }
    return NULL;
}

/* Convert all of the VM's guest_memfd with one call, repeatedly */
static void *whole_converter(void *opaque)
{
    struct vm *vm = opaque;
    bool private = true;

    while (!stop) {
        if (vm_convert(vm, 0, vm->size, private ? PRIVATE : 0)) {
            return opaque;
        }
        private = !private;
        conversions++;
    }
    return NULL;
}

/* Change the attributes of the whole VM with one call, repeatedly */
static void *wide_converter(void *opaque)
{
    struct vm *vm = opaque;
    struct kvm_memory_attributes a = {
        .size = vm->size, .attributes = PRIVATE,
    };

    while (!stop) {
        if (xioctl(vm->fd, KVM_SET_MEMORY_ATTRIBUTES, &a)) {
            return opaque;
        }
        a.attributes ^= PRIVATE;
        conversions++;
    }
    return NULL;
}

/*
 * A bitmap contains a concurrent conversion completely or not at all.  In the
 * second case, the next bitmap has another generation.
 */
static void races(struct vm *vm)
{
    uint8_t bits[0x200 / 8], later[0x200 / 8];
    struct kvm_page_enc_bitmap a = {
        .start_gfn = 0x100, .num_pages = 0x200, .enc_bitmap = (uintptr_t)bits,
    }, b;
    long torn = 0, stale = 0, reads = 0, same = 0;
    pthread_t thread;
    void *failed;

    MUST(vm_convert(vm, 0x200 * PAGE, 0x200 * PAGE, PRIVATE));
    pthread_create(&thread, NULL, converter, vm);
    while (reads < 20000 || conversions < 200) {
        MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &a));
        torn += memcmp(bits, bits + 1, sizeof(bits) - 1) != 0;
        b = a;
        b.flags = KVM_PAGE_ENC_BITMAP_IF_CHANGED;
        b.enc_bitmap = (uintptr_t)later;
        memset(later, 0xa5, sizeof(later));
        MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &b));
        if (!(b.flags & KVM_PAGE_ENC_BITMAP_UNCHANGED)) {
            stale += b.generation == a.generation;
        } else {
            same++;
        }
        reads++;
    }
    stop = true;
    pthread_join(thread, &failed);
    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &a));
    b = a;
    b.flags = KVM_PAGE_ENC_BITMAP_IF_CHANGED;
    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &b));
    ok(!failed && !torn && !stale && b.flags & KVM_PAGE_ENC_BITMAP_UNCHANGED,
       "the bitmap is never torn or stale: %ld reads (%ld unchanged) against "
       "%ld conversions: %ld torn, %ld stale", reads, same, conversions, torn,
       stale);
}

/*
 * A bitmap contains a conversion completely or not at all, even if the bitmap
 * is larger than a page, and even if the converted pages are in two slots whose
 * order in the guest_memfd is the opposite of their order in guest memory.
 */
static void large_races(void)
{
    const uint64_t half = 0x14000;
    uint8_t *bits = malloc(half / 4);
    struct vm vm;
    long torn = 0, reads = 0, both[2] = { 0, 0 };
    pthread_t thread;
    void *failed;

    vm_create(&vm, VM_SW_PROTECTED, 2 * half * PAGE);
    MUST(vm_slot(&vm, 0, 0, half * PAGE, half * PAGE, 0));
    MUST(vm_slot(&vm, 1, 0, 0, half * PAGE, half * PAGE));
    stop = false;
    conversions = 0;
    pthread_create(&thread, NULL, whole_converter, &vm);
    while (reads < 3000 || conversions < 300) {
        MUST(vm_bitmap(&vm, 0, 2 * half, bits));
        torn += memcmp(bits, bits + 1, half / 4 - 1) != 0;
        both[bits[0] & 1]++;
        reads++;
    }
    stop = true;
    pthread_join(thread, &failed);
    ok(!failed && !torn && both[0] && both[1],
       "no bitmap is torn: %ld reads of %#llx pages against %ld conversions of "
       "all pages: %ld torn", reads, (long long)(2 * half), conversions, torn);
    vm_destroy(&vm);
    free(bits);
}

/*
 * A bitmap contains a conversion completely or not at all, also in a VM that
 * keeps the attributes itself
 */
static void wide_races(void)
{
    const uint64_t pages = 0x4000;
    struct vm vm = { .type = VM_SW_PROTECTED, .size = pages * PAGE };
    uint8_t *bits = malloc(pages / 8);
    long torn = 0, reads = 0, both[2] = { 0, 0 };
    pthread_t thread;
    void *failed;

    vm_in_place(false);
    vm.fd = CHECK(ioctl(kvm_fd, KVM_CREATE_VM, vm.type));
    vm.gmem = CHECK(vm_gmem(&vm, vm.size, 0));
    vm.mem = mmap(NULL, vm.size, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST(vm_slot(&vm, 0, 0, 0, vm.size, 0));
    stop = false;
    conversions = 0;
    pthread_create(&thread, NULL, wide_converter, &vm);
    while (reads < 500 || conversions < 20) {
        MUST(vm_bitmap(&vm, 0, pages, bits));
        torn += memcmp(bits, bits + 1, pages / 8 - 1) != 0;
        both[bits[0] & 1]++;
        reads++;
    }
    stop = true;
    pthread_join(thread, &failed);
    ok(!failed && !torn && both[0] && both[1],
       "no bitmap of VM-wide attributes is torn: %ld reads against %ld "
       "conversions, %ld torn", reads, conversions, torn);
    close(vm.gmem);
    close(vm.fd);
    munmap(vm.mem, vm.size);
    free(bits);
}

/* Bitmaps of ranges that are much larger than the slots in them */
static void sparse(void)
{
    const uint64_t pages = 1ULL << 24;
    uint8_t *bits = malloc(pages / 8), *huge;
    uint64_t set = 0;
    struct vm vm;

    vm_create(&vm, VM_SW_PROTECTED, SIZE);
    MUST(vm_slot(&vm, 0, 0, 0x100005 * PAGE, 0x105 * PAGE, 0));
    MUST(vm_slot(&vm, 1, 0, 1ULL << 47, 2 * PAGE, 0x200 * PAGE));
    MUST(vm_convert(&vm, 0, SIZE, PRIVATE));
    memset(bits, 0xff, pages / 8);
    MUST(vm_bitmap(&vm, 3, pages - 3, bits));
    for (uint64_t i = 0; i < pages - 3; i++) {
        bool is = bits[i / 8] >> (i % 8) & 1;

        set += is;
        if (is != (i + 3 >= 0x100005 && i + 3 < 0x10010a)) {
            note("gfn %#llx is wrong", (long long)i + 3);
            break;
        }
    }
    ok(set == 0x105 && bits[pages / 8 - 1] >> 5 == 7,
       "the bitmap of 64 GiB shows the private pages of the only slot in it");
    huge = mmap(NULL, 1ULL << 33, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (huge == MAP_FAILED) {
        bail("mmap");
    }
    ok(vm_bitmap(&vm, 0, 1ULL << 36, huge) == -ENOMEM,
       "a request that covers slots 128 TiB apart fails with ENOMEM");
    ok(!vm_bitmap(&vm, 1ULL << 35, 100, huge) && huge[0] == 3 && !huge[1],
       "the bitmap of one of two slots that are 128 TiB apart is right");
    munmap(huge, 1ULL << 33);
    vm_destroy(&vm);
    free(bits);
}

int main(void)
{
    struct vm vm;

    vm_require(VM_SW_PROTECTED);
    vm_create(&vm, VM_SW_PROTECTED, SIZE);
    for (unsigned i = 0; i < 3; i++) {
        MUST(vm_slot(&vm, i, 0, slots[i].gfn * PAGE, slots[i].pages * PAGE,
                     slots[i].index * PAGE));
    }
    contents(&vm);
    arguments(&vm);
    generations(&vm);
    races(&vm);
    vm_destroy(&vm);
    wide();
    large_races();
    wide_races();
    sparse();
    return done_testing();
}
