/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Time of KVM_GET_PAGE_ENC_BITMAP ("bitmap") and of KVM_GET_DIRTY_LOG for the
 * same slot.  The time of KVM_GET_DIRTY_LOG is measured with no dirty page,
 * which is the fastest case ("log"), with all pages dirty ("log, dirty"), and
 * with KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, with which KVM_GET_DIRTY_LOG does not
 * clear the log ("log, manual").
 *
 *   bench-bitmap SIZE [REPETITIONS]
 */
#define _GNU_SOURCE
#include "bench.h"

/* Calls per sample; fewer for large memory */
#define CALLS   64

static uint64_t *bits, *dirty;
static unsigned calls;

/* Mixtures of private and shared pages */
static const struct {
    const char *name;
    unsigned of, private;       /* the first @private of each @of pages */
} mixes[] = {
    { "0 % private", 1, 0 },
    { "1 % private", 100, 1 },
    { "50 % private", 2, 1 },
    { "100 % private", 1, 1 },
};

/*
 * Convert pages so that their states are those of the mixture @m.  KVM marks
 * each converted page dirty.
 */
static void mix(struct vm *vm, unsigned m)
{
    uint64_t i, pages = vm->size / PAGE;

    MUST(vm_convert(vm, 0, vm->size, mixes[m].private ? PRIVATE : SHARED));
    if (mixes[m].private < mixes[m].of) {
        MUST(vm_convert(vm, 0, vm->size, SHARED));
        for (i = 0; mixes[m].private && i < pages; i += mixes[m].of) {
            MUST(vm_convert(vm, i * PAGE, PAGE, PRIVATE));
        }
    }
}

static void get_log(struct vm *vm)
{
    struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = dirty };

    CHECK(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
}

static void get_bitmap(struct vm *vm, uint64_t generation)
{
    struct kvm_page_enc_bitmap args = {
        .num_pages = vm->size / PAGE, .enc_bitmap = (uintptr_t)bits,
        .flags = generation ? KVM_PAGE_ENC_BITMAP_IF_CHANGED : 0,
        .generation = generation,
    };

    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
}

static uint64_t generation(struct vm *vm)
{
    struct kvm_page_enc_bitmap args = {
        .num_pages = 1, .enc_bitmap = (uintptr_t)bits,
    };

    MUST(xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args));
    return args.generation;
}

/* Check that the calls return the right bits */
static void verify(struct vm *vm, unsigned m)
{
    get_bitmap(vm, 0);
    for (uint64_t i = 0; i < vm->size / PAGE; i++) {
        bool private = bits[i / 64] >> (i % 64) & 1;

        if (private != (i % mixes[m].of < mixes[m].private)) {
            errno = EINVAL;
            bail("%s: page %#llx is not what it was made", mixes[m].name,
                 (unsigned long long)i);
        }
    }
}

static void say(struct vm *vm, const char *what, const char *with, uint64_t ns,
                unsigned n)
{
    sample("bitmap", what, with, vm->size, (double)ns / n);
}

static void bench(struct vm *vm, struct vm *manual, int repetitions)
{
    unsigned m, i;
    uint64_t g;

    for (m = 0; m < sizeof(mixes) / sizeof(mixes[0]); m++) {
        const char *what = mixes[m].name;

        mix(vm, m);
        verify(vm, m);
        get_log(vm);
        mix(manual, m);
        g = generation(vm);
        for (int n = 0; n < repetitions; n++) {
            say(vm, what, "bitmap", TIME(for (i = 0; i < calls; i++) {
                get_bitmap(vm, 0);
            }), calls);
            say(vm, what, "log", TIME(for (i = 0; i < calls; i++) {
                get_log(vm);
            }), calls);
            say(vm, what, "log, manual", TIME(for (i = 0; i < calls; i++) {
                get_log(manual);
            }), calls);
            /* Warm the caches, so that earlier calls do not affect the time */
            get_bitmap(vm, g);
            say(vm, what, "unchanged", TIME(for (i = 0; i < CALLS; i++) {
                get_bitmap(vm, g);
            }), CALLS);
        }
    }
}

/*
 * Measure KVM_GET_DIRTY_LOG with all pages dirty.  The call clears the log, so
 * all pages must become dirty again before each sample.  To this end, the
 * function makes all pages shared.  mix() then begins with a conversion of all
 * pages to private, which makes them dirty.
 */
static void bench_dirty(struct vm *vm, int repetitions)
{
    for (unsigned m = 1; m < sizeof(mixes) / sizeof(mixes[0]); m++) {
        for (int n = 0; n < repetitions; n++) {
            MUST(vm_convert(vm, 0, vm->size, SHARED));
            get_log(vm);
            mix(vm, m);
            sample("bitmap", mixes[m].name, "log, dirty", vm->size,
                   TIME(get_log(vm)));
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t size = argc > 1 ? strtoull(argv[1], NULL, 0) : 1ULL << 30;
    int repetitions = argc > 2 ? atoi(argv[2]) : 5;
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        .args = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE },
    };
    struct vm vm, manual;

    vm_require(VM_SW_PROTECTED);
    bits = calloc(1, size / PAGE / 8 + 8);
    dirty = calloc(1, size / PAGE / 8 + 8);
    memset(bits, 0xff, size / PAGE / 8);
    memset(dirty, 0xff, size / PAGE / 8);
    calls = size > 1ULL << 30 ? CALLS / 8 : CALLS;

    vm_create(&vm, VM_SW_PROTECTED, size);
    MUST(vm_slot(&vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, size, 0));
    vm_create(&manual, VM_SW_PROTECTED, size);
    CHECK(ioctl(manual.fd, KVM_ENABLE_CAP, &cap));
    MUST(vm_slot(&manual, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, size, 0));

    bench(&vm, &manual, repetitions);
    /* bench_dirty() converts each page, which takes long for large memory */
    if (size <= 1ULL << 30) {
        bench_dirty(&vm, repetitions > 3 ? 3 : repetitions);
    }
    vm_destroy(&vm);
    vm_destroy(&manual);
    return 0;
}
