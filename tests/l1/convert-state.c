/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VMM without a lock of its own uses KVM_GET_PAGE_ENC_BITMAP and the dirty
 * log.  The VMM must not miss a conversion, and equal generations must mean
 * equal bitmaps.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include "vm.h"
#include "meminfo.h"

static volatile bool stop;

#define WATCHED         64              /* pages of slot 0 */
#define LARGE           (16ULL << 30)

/* A VMM's record of the state of the pages of slot 0; no lock protects it */
struct vmm {
    struct vm *vm;
    uint64_t generation;
    uint64_t state;             /* state in the last bitmap */
    uint64_t sent;              /* state in which each page was sent last */
};

static uint64_t vmm_harvest(struct vmm *vmm)
{
    uint64_t dirty = 0;
    struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = &dirty };

    CHECK(ioctl(vmm->vm->fd, KVM_GET_DIRTY_LOG, &log));
    return dirty;
}

/* One round, in the order that docs/specs/kvm-page-enc.rst requires */
static void vmm_round(struct vmm *vmm)
{
    struct kvm_page_enc_bitmap args = {
        .num_pages = WATCHED, .enc_bitmap = (uintptr_t)&vmm->state,
        .flags = KVM_PAGE_ENC_BITMAP_IF_CHANGED, .generation = vmm->generation,
    };
    uint64_t dirty = vmm_harvest(vmm);

    MUST(xioctl(vmm->vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    vmm->generation = args.generation;
    vmm->sent = (vmm->sent & ~dirty) | (vmm->state & dirty);
}

static volatile unsigned turn, turns_done;

/* Convert all pages to the other state with one call, repeatedly */
static void *convert_in_turns(void *opaque)
{
    struct vm *vm = opaque;

    while (!stop) {
        unsigned t = turn;

        if (t == turns_done) {
            continue;
        }
        MUST(vm_convert(vm, 0, vm->size, t & 1 ? PRIVATE : SHARED));
        __sync_synchronize();
        turns_done = t;
    }
    return NULL;
}

static void without_locks(void)
{
    struct vmm vmm = { 0 };
    pthread_t thread;
    long lost = 0, rounds = 0;
    double begin = now();
    struct vm vm;
    unsigned i;

    /*
     * A conversion marks pages dirty in the small slot first, and then in the
     * large slot.  Some of the VMM's rounds begin between these two steps.
     */
    vm_create(&vm, VM_SW_PROTECTED, LARGE);
    MUST(vm_slot(&vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, WATCHED * PAGE, 0));
    MUST(vm_slot(&vm, 1, KVM_MEM_LOG_DIRTY_PAGES, WATCHED * PAGE,
                 LARGE - WATCHED * PAGE, WATCHED * PAGE));
    vmm.vm = &vm;
    stop = false;
    turn = turns_done = 0;
    pthread_create(&thread, NULL, convert_in_turns, &vm);
    for (i = 1; i <= 100 && now() - begin < 20; i++) {
        turn = i;
        while (turns_done != i) {
            vmm_round(&vmm);
            rounds++;
        }
        /*
         * The guest is stopped in the last round of a migration, so it converts
         * no pages.  After such a round, the VMM must have sent each page in
         * its final state.
         */
        vmm_round(&vmm);
        lost += vmm.sent != (i & 1 ? ~0ULL : 0);
        vmm.sent = i & 1 ? ~0ULL : 0;
    }
    stop = true;
    pthread_join(thread, NULL);
    ok(!lost,
       "reading the log and then the bitmap misses no state: %u conversions, "
       "%ld rounds beside them, %ld with pages that were last sent in the "
       "wrong state", i - 1, rounds, lost);
    vm_destroy(&vm);
}

#define PAGES           512

/* Read the bitmap repeatedly, and compare bitmaps with the same generation */
struct reader {
    struct vm *vm;
    long reads, wrong;
};

static void *read_bitmaps(void *opaque)
{
    uint8_t bits[2][PAGES / 8];
    struct reader *r = opaque;
    uint64_t last = 0;

    while (!stop) {
        struct kvm_page_enc_bitmap args = {
            .num_pages = PAGES, .enc_bitmap = (uintptr_t)bits[r->reads & 1],
        };

        MUST(xioctl(r->vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
        r->wrong += args.generation == last && memcmp(bits[0], bits[1], PAGES / 8);
        last = args.generation;
        r->reads++;
    }
    return NULL;
}

static void slots_and_generations(void)
{
    struct reader reader = { 0 };
    double begin = now();
    pthread_t thread;
    struct vm vm;
    int i;

    vm_init(&vm, VM_SW_PROTECTED, PAGES * PAGE);
    MUST(vm_convert(&vm, 0, vm.size, PRIVATE));
    reader.vm = &vm;
    stop = false;
    pthread_create(&thread, NULL, read_bitmaps, &reader);
    for (i = 0; i < 500 && now() - begin < 15; i++) {
        MUST(vm_slot(&vm, 0, 0, 0, 0, 0));
        MUST(vm_slot(&vm, 0, 0, 0, vm.size, 0));
    }
    stop = true;
    pthread_join(thread, NULL);
    ok(!reader.wrong,
       "a slot was deleted and created %d times beside %ld reads of the "
       "bitmap: %ld have the generation of another bitmap", i, reader.reads,
       reader.wrong);
    vm_destroy(&vm);
}

static void files_and_generations(void)
{
    double begin = now();
    long reads = 0, wrong = 0;
    int i;

    for (i = 0; i < 50 && now() - begin < 15; i++) {
        struct reader reader = { 0 };
        pthread_t thread;
        struct vm vm;

        vm_init(&vm, VM_SW_PROTECTED, PAGES * PAGE);
        MUST(vm_convert(&vm, 0, vm.size, PRIVATE));
        reader.vm = &vm;
        stop = false;
        pthread_create(&thread, NULL, read_bitmaps, &reader);
        while (!*(volatile long *)&reader.reads) {
            sched_yield();
        }
        CHECK(munmap(vm.mem, vm.size));
        CHECK(close(vm.gmem));
        usleep(1000);
        stop = true;
        pthread_join(thread, NULL);
        reads += reader.reads;
        wrong += reader.wrong;
        CHECK(close(vm.fd));
    }
    ok(!wrong,
       "a file was closed under its slot %d times beside %ld reads of the "
       "bitmap: %ld have the generation of another bitmap", i, reads, wrong);
}

/*
 * A conversion marks exactly the pages whose state changes.  If a slot begins
 * inside a word of the guest_memfd's bitmap, KVM must shift the bits that it
 * copies to the slot's dirty bitmap.  The test uses slots that begin at
 * different bits of a word.
 */
static void marks(void)
{
    static const struct { uint64_t gfn, pages, index; } slots[] = {
        { 0x100, 3, 0 }, { 0x200, 130, 3 }, { 0x1000, 61, 133 },
        { 0x2000, 300, 200 },
    };
    uint64_t dirty[8], seed = 1;
    bool model[PAGES] = { false }, changed[PAGES];
    long wrong = 0;
    struct vm vm;

    vm_create(&vm, VM_SW_PROTECTED, PAGES * PAGE);
    for (unsigned s = 0; s < 4; s++) {
        MUST(vm_slot(&vm, s, KVM_MEM_LOG_DIRTY_PAGES, slots[s].gfn * PAGE,
                     slots[s].pages * PAGE, slots[s].index * PAGE));
    }
    for (int i = 0; i < 300; i++) {
        uint64_t first, n;
        bool private;

        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        first = (seed >> 33) % PAGES;
        n = 1 + (seed >> 43) % (i & 1 ? 4 : PAGES - first);
        n = n > PAGES - first ? PAGES - first : n;
        private = seed >> 63;
        MUST(vm_convert(&vm, first * PAGE, n * PAGE, private ? PRIVATE : SHARED));
        memset(changed, 0, sizeof(changed));
        for (uint64_t p = first; p < first + n; p++) {
            changed[p] = model[p] != private;
            model[p] = private;
        }
        for (unsigned s = 0; s < 4; s++) {
            struct kvm_dirty_log log = { .slot = s, .dirty_bitmap = dirty };

            memset(dirty, 0, sizeof(dirty));
            CHECK(ioctl(vm.fd, KVM_GET_DIRTY_LOG, &log));
            for (uint64_t p = 0; p < slots[s].pages; p++) {
                wrong += (dirty[p / 64] >> p % 64 & 1) !=
                         changed[slots[s].index + p];
            }
        }
    }
    ok(!wrong,
       "300 conversions at any offset across slots mark the right pages dirty: "
       "%ld marks are wrong", wrong);
    vm_destroy(&vm);
}

/*
 * KVM does not keep the memory that it allocates to answer one large
 * KVM_GET_PAGE_ENC_BITMAP
 */
static void spare(void)
{
    const uint64_t pages = 1ULL << 30;
    long before, after;
    struct vm vm;
    uint8_t *bits;

    vm_create(&vm, VM_SW_PROTECTED, PAGES * PAGE);
    MUST(vm_slot(&vm, 0, 0, 0, 2 * PAGE, 0));
    MUST(vm_slot(&vm, 1, 0, (pages - 2) * PAGE, 2 * PAGE, 2 * PAGE));
    bits = mmap(NULL, pages / 8, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bits == MAP_FAILED) {
        bail("mmap");
    }
    before = meminfo("VmallocUsed");
    MUST(vm_bitmap(&vm, 0, pages, bits));
    after = meminfo("VmallocUsed");
    ok(after - before < 16 << 10,
       "a request for the bitmap of two slots 4 TiB apart makes the VM keep "
       "only %ld kB", after - before);
    munmap(bits, pages / 8);
    vm_destroy(&vm);
}

int main(void)
{
    vm_require(VM_SW_PROTECTED);
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        skip_all("needs two CPUs");
    }
    without_locks();
    slots_and_generations();
    files_and_generations();
    marks();
    spare();
    return done_testing();
}
