/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Time of a conversion.  Compares KVM_SET_MEMORY_ATTRIBUTES2 on a guest_memfd
 * ("file") with KVM_SET_MEMORY_ATTRIBUTES on a VM of the same type that has
 * separate memory for private and shared pages ("vm").  After
 * KVM_SET_MEMORY_ATTRIBUTES, user space must discard the memory that has become
 * unused; "vm+discard" includes the time for this.
 *
 * "unmap" is the time to remove the pages from the host's page tables.  If the
 * host has mapped the pages, this time is a part of a conversion to private.
 *
 *   bench-attributes SIZE [REPETITIONS]
 */
#define _GNU_SOURCE
#include <linux/falloc.h>
#include "bench.h"

/* Number of pages that are converted one by one for one sample */
#define SINGLE  256

/*
 * Maximum size of a guest whose pages are allocated.  bench.py also measures a
 * guest of 8 GiB, whose pages do not fit into the 3 GiB of L1's memory.
 */
#define POPULATE_MAX    (1ULL << 30)

/* State of the guest's pages before a conversion */
enum pages {
    NONE,       /* nothing allocated */
    ALLOCATED,  /* in the page cache, not in page tables */
    MAPPED,     /* allocated; shared pages are in the host's page tables */
};
static const char *const pages_name[] = { "unallocated", "allocated", "mapped" };

/* Create a VM that keeps the attributes itself; shared memory is anonymous */
static void wide_init(struct vm *vm, size_t size)
{
    *vm = (struct vm) { .type = VM_SW_PROTECTED, .size = size, .vcpu = -1 };
    vm_in_place(false);
    vm->fd = CHECK(ioctl(kvm_fd, KVM_CREATE_VM, vm->type));
    vm->gmem = vm_gmem(vm, size, 0);
    if (vm->gmem < 0) {
        errno = -vm->gmem;
        bail("KVM_CREATE_GUEST_MEMFD");
    }
    vm->mem = mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (vm->mem == MAP_FAILED) {
        bail("mmap");
    }
    /* Use small pages, like the VM whose memory is a guest_memfd */
    CHECK(madvise(vm->mem, size, MADV_NOHUGEPAGE));
    MUST(vm_slot(vm, 0, 0, 0, size, 0));
}

static int wide_convert(struct vm *vm, uint64_t gpa, uint64_t size,
                        uint64_t attributes)
{
    struct kvm_memory_attributes args = {
        .address = gpa, .size = size, .attributes = attributes,
    };

    return xioctl(vm->fd, KVM_SET_MEMORY_ATTRIBUTES, &args);
}

static void gmem_fallocate(struct vm *vm, int mode, uint64_t offset,
                           uint64_t size)
{
    CHECK(fallocate(vm->gmem, mode | FALLOC_FL_KEEP_SIZE, offset, size));
}

/* Discard the unused memory after a conversion, like QEMU does */
static void wide_discard(struct vm *vm, uint64_t gpa, uint64_t size,
                         uint64_t attributes)
{
    if (attributes) {
        CHECK(madvise(vm->mem + gpa, size, MADV_DONTNEED));
    } else {
        gmem_fallocate(vm, FALLOC_FL_PUNCH_HOLE, gpa, size);
    }
}

static void touch_all(struct vm *vm)
{
    for (uint64_t i = 0; i < vm->size; i += PAGE) {
        vm->mem[i] = 1;
    }
}

/* Prepare a conversion to @attributes */
static void file_populate(struct vm *vm, enum pages pages, uint64_t attributes)
{
    if (pages == ALLOCATED) {
        gmem_fallocate(vm, 0, 0, vm->size);
    } else if (pages == MAPPED && attributes) {
        touch_all(vm);
    }
}

static void wide_populate(struct vm *vm, enum pages pages, uint64_t attributes)
{
    if (pages == NONE) {
        return;
    }
    if (attributes) {
        if (pages == MAPPED) {
            touch_all(vm);
        }
    } else {
        gmem_fallocate(vm, 0, 0, vm->size);
    }
}

static const char *direction(uint64_t attributes)
{
    return attributes ? "to private" : "to shared";
}

static void one_file(struct vm *vm, enum pages pages, uint64_t attributes)
{
    char what[64];
    uint64_t ns;

    snprintf(what, sizeof(what), "all %s, %s", direction(attributes),
             pages_name[pages]);
    file_populate(vm, pages, attributes);
    ns = TIME(MUST(vm_convert(vm, 0, vm->size, attributes)));
    sample("attributes", what, "file", vm->size, ns);
}

/* Measure how long it takes to unmap all pages from the host */
static void one_unmap(struct vm *vm)
{
    touch_all(vm);
    sample("attributes", "all to private, mapped", "unmap", vm->size,
           TIME(CHECK(madvise(vm->mem, vm->size, MADV_DONTNEED))));
}

static void one_wide(struct vm *vm, enum pages pages, uint64_t attributes)
{
    uint64_t ns, discard;
    char what[64];

    snprintf(what, sizeof(what), "all %s, %s", direction(attributes),
             pages_name[pages]);
    wide_populate(vm, pages, attributes);
    ns = TIME(MUST(wide_convert(vm, 0, vm->size, attributes)));
    discard = TIME(wide_discard(vm, 0, vm->size, attributes));
    sample("attributes", what, "vm", vm->size, ns);
    sample("attributes", what, "vm+discard", vm->size, ns + discard);
}

/* Convert every second page one by one, beginning at a quarter of the memory */
static void singles(struct vm *file, struct vm *wide, uint64_t attributes)
{
    uint64_t n = file->size / PAGE / 2, start = file->size / PAGE / 4, i, ns;
    char what[64];

    n = n > SINGLE * 2 ? SINGLE * 2 : n;
    snprintf(what, sizeof(what), "a page %s", direction(attributes));
    ns = TIME(for (i = 0; i < n; i += 2) {
        MUST(vm_convert(file, (start + i) * PAGE, PAGE, attributes));
    });
    sample("attributes", what, "file", file->size, ns / (n / 2.0));
    ns = TIME(for (i = 0; i < n; i += 2) {
        MUST(wide_convert(wide, (start + i) * PAGE, PAGE, attributes));
    });
    sample("attributes", what, "vm", wide->size, ns / (n / 2.0));
}

int main(int argc, char **argv)
{
    uint64_t size = argc > 1 ? strtoull(argv[1], NULL, 0) : 1ULL << 30;
    int repetitions = argc > 2 ? atoi(argv[2]) : 5;
    struct vm file, wide;
    enum pages pages;

    vm_require(VM_SW_PROTECTED);
    for (pages = NONE; pages <= MAPPED; pages++) {
        if (pages && size > POPULATE_MAX) {
            break;
        }
        /*
         * Free the pages of @file before using @wide: the memory may not
         * suffice for both
         */
        vm_init(&file, VM_SW_PROTECTED, size);
        wide_init(&wide, size);
        for (int i = 0; i < repetitions; i++) {
            one_file(&file, pages, PRIVATE);
            one_file(&file, pages, SHARED);
            if (pages == MAPPED) {
                one_unmap(&file);
            }
            if (pages) {
                CHECK(madvise(file.mem, size, MADV_DONTNEED));
                gmem_fallocate(&file, FALLOC_FL_PUNCH_HOLE, 0, size);
            }
            one_wide(&wide, pages, PRIVATE);
            one_wide(&wide, pages, SHARED);
        }
        if (pages == NONE) {
            for (int i = 0; i < repetitions; i++) {
                singles(&file, &wide, PRIVATE);
                singles(&file, &wide, SHARED);
            }
        }
        vm_destroy(&file);
        vm_destroy(&wide);
    }
    return 0;
}
