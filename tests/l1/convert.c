/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * In-place conversion by KVM_SET_MEMORY_ATTRIBUTES2, for software-protected VMs
 * and SEV VMs.
 */
#define _GNU_SOURCE
#include <sys/mount.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/falloc.h>
#include "guest.h"

static bool is_mapped(const void *p)
{
    int fd = CHECK(open("/proc/self/pagemap", O_RDONLY));
    uint64_t entry = 0;

    CHECK(pread(fd, &entry, 8, (uintptr_t)p / PAGE * 8));
    close(fd);
    return entry >> 63;
}

/*
 * Get a mask of the 8 pages from @p on: bit i is 1 if an access to page i
 * raises SIGBUS
 */
static unsigned bus_mask(const uint8_t *p)
{
    unsigned mask = 0, i;

    for (i = 0; i < 8; i++) {
        mask |= (touch(p + i * PAGE) == SIGBUS) << i;
    }
    return mask;
}

static void arguments(struct vm *vm)
{
    static const struct {
        const char *what;
        uint64_t offset, size, attributes;
    } bad[] = {
        { "size 0", 0, 0, PRIVATE },
        { "an unaligned offset", 1, PAGE, PRIVATE },
        { "an unaligned size", 0, PAGE + 1, PRIVATE },
        { "a size smaller than a page", 0, 1, PRIVATE },
        { "a range past the end", GUEST_SIZE - PAGE, 2 * PAGE, PRIVATE },
        { "an offset at the end", GUEST_SIZE, PAGE, PRIVATE },
        { "an offset past the end", 1ULL << 40, PAGE, PRIVATE },
        { "an end that overflows", -PAGE, 2 * PAGE, PRIVATE },
        { "an end that overflows to 0", -PAGE, PAGE, PRIVATE },
        { "the largest aligned size", 0, -PAGE, PRIVATE },
        { "attribute bit 0", 0, PAGE, 1 },
        { "PRIVATE and another bit", 0, PAGE, PRIVATE | 1 },
        { "attribute bit 63", 0, PAGE, 1ULL << 63 },
    };
    struct kvm_memory_attributes2 args;
    unsigned i, refused = 0;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ok(vm_convert(vm, bad[i].offset, bad[i].size, bad[i].attributes) ==
           -EINVAL && convert_held == bad[i].offset,
           "a conversion with %s fails with EINVAL and its own offset as "
           "error_offset", bad[i].what);
    }
    for (i = 0; i < 64; i++) {
        args = (struct kvm_memory_attributes2) {
            .offset = PAGE, .size = PAGE, .attributes = PRIVATE,
            .flags = 1ULL << i, .error_offset = NOT_SET,
        };
        refused += xioctl(vm->gmem, KVM_SET_MEMORY_ATTRIBUTES2, &args) == -EINVAL &&
                   args.error_offset == PAGE;
    }
    ok(refused == 64,
       "a conversion with any flag fails with EINVAL and its offset as "
       "error_offset");
    for (i = 0, refused = 0; i < 11; i++) {
        args = (struct kvm_memory_attributes2) {
            .offset = PAGE, .size = PAGE, .attributes = PRIVATE,
            .error_offset = NOT_SET,
        };
        args.reserved[i] = 1;
        refused += xioctl(vm->gmem, KVM_SET_MEMORY_ATTRIBUTES2, &args) == -EINVAL &&
                   args.error_offset == PAGE;
    }
    ok(refused == 11,
       "a conversion with any reserved field fails with EINVAL and its offset");
    ok(!vm_convert(vm, 0, PAGE, SHARED) && convert_held == NOT_SET,
       "a conversion that succeeds does not write error_offset");
    ok(xioctl(vm->gmem, KVM_SET_MEMORY_ATTRIBUTES2, (void *)8) == -EFAULT,
       "a conversion with an invalid argument pointer fails with EFAULT");
    ok(vm_private_is(vm, 0, 0),
       "none of the conversions with invalid arguments converted a page");
}

/* Convert one of four pages to private, and back */
static void one_page(struct vm *vm)
{
    uint8_t *p = vm->mem + 0x10000, *other;
    struct iovec to, from;
    char byte = 0;
    int fds[2];

    memset(p, 0x11, 4 * PAGE);
    ok(!vm_convert(vm, 0x11000, PAGE, PRIVATE) && bus_mask(p) == 0x02,
       "if one of four pages becomes private, only this page raises SIGBUS");
    ok(vm_private_is(vm, 0x11, 0x12),
       "the bitmap has only the page that became private");
    ok(poke(p + PAGE, 0) == SIGBUS, "a write to a private page raises SIGBUS");
    other = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, vm->gmem, 0x11000);
    ok(other != MAP_FAILED && touch(other) == SIGBUS,
       "an access to a private page by a new mapping raises SIGBUS");
    munmap(other, PAGE);
    CHECK(pipe(fds));
    ok(write(fds[1], p + PAGE, 1) < 0 && errno == EFAULT,
       "write(2) from a private page fails with EFAULT");
    to = (struct iovec) { &byte, 1 };
    from = (struct iovec) { p + PAGE, 1 };
    ok(process_vm_readv(getpid(), &to, 1, &from, 1, 0) < 0 && errno == EFAULT,
       "process_vm_readv() of a private page fails with EFAULT");
    close(fds[0]);
    close(fds[1]);

    ok(!vm_convert(vm, 0x11000, PAGE, SHARED) && bus_mask(p) == 0,
       "no page raises SIGBUS after the private page became shared again");
    if (vm->type == VM_SW_PROTECTED) {
        ok(p[PAGE] == 0x11 && p[PAGE + 4095] == 0x11,
           "a page has the same contents after it became private and shared "
           "again");
    }
}

/* Conversions of pages that already have the requested state */
static void pages_again(struct vm *vm)
{
    uint8_t *p = vm->mem + 0x10000;

    memset(p, 0x22, 4 * PAGE);
    ok(is_mapped(p) && !vm_convert(vm, 0x10000, 4 * PAGE, SHARED) &&
       is_mapped(p) && p[0] == 0x22,
       "converting shared pages to shared unmaps no page");
    ok(!vm_convert(vm, 0x11000, PAGE, PRIVATE) &&
       !vm_convert(vm, 0x11000, PAGE, PRIVATE) && bus_mask(p) == 0x02 &&
       is_mapped(p),
       "converting a private page to private succeeds and unmaps no page");
    ok(!vm_convert(vm, 0x10000, 4 * PAGE, PRIVATE) && bus_mask(p) == 0x0f,
       "converting a range that is partly private makes all of its pages "
       "private");
    ok(!vm_convert(vm, 0x12000, PAGE, SHARED) && bus_mask(p) == 0x0b &&
       !vm_convert(vm, 0x10000, 4 * PAGE, SHARED) && bus_mask(p) == 0,
       "a private range can become shared in two conversions");
}

/* Conversions of pages that are not allocated yet */
static void unallocated_pages(struct vm *vm)
{
    uint8_t *p = vm->mem + 0x20000;

    ok(!vm_convert(vm, 0x20000, 2 * PAGE, PRIVATE) && bus_mask(p) == 0x03,
       "pages that are not allocated yet become private");
    ok(!vm_convert(vm, 0x20000, PAGE, SHARED) && p[0] == 0 && p[4095] == 0 &&
       bus_mask(p) == 0x02,
       "a page that became private and shared before it was allocated reads as "
       "zeros");
    MUST(vm_convert(vm, 0x20000, 2 * PAGE, SHARED));

    /* Eight pages, of which every second one is allocated */
    p = vm->mem + 0x30000;
    for (int i = 0; i < 8; i += 2) {
        p[i * PAGE] = i + 1;
    }
    ok(!vm_convert(vm, 0x30000, 8 * PAGE, PRIVATE) && bus_mask(p) == 0xff,
       "eight pages, of which only some are allocated, become private");
    ok(!vm_convert(vm, 0x31000, 6 * PAGE, SHARED) && bus_mask(p) == 0x81,
       "the inner six of eight private pages become shared, the outer two do "
       "not");
    ok(!vm_convert(vm, 0x30000, 8 * PAGE, SHARED) && bus_mask(p) == 0,
       "all eight pages become shared although six of them already are");
}

static void holes(struct vm *vm)
{
    uint8_t *p = vm->mem + 0x40000;
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

    memset(p, 0x33, 4 * PAGE);
    MUST(vm_convert(vm, 0x41000, PAGE, PRIVATE));
    CHECK(fallocate(vm->gmem, mode, 0x40000, 4 * PAGE));
    ok(bus_mask(p) == 0x02 && vm_private_is(vm, 0x41, 0x42),
       "punching a hole keeps the attributes of its pages");
    ok(p[0] == 0 && p[3 * PAGE] == 0,
       "shared pages of a punched hole read as zeros");
    CHECK(fallocate(vm->gmem, FALLOC_FL_KEEP_SIZE, 0x40000, 4 * PAGE));
    ok(bus_mask(p) == 0x02,
       "allocating the pages of a hole keeps their attributes");
    MUST(vm_convert(vm, 0x41000, PAGE, SHARED));
    ok(p[PAGE] == 0,
       "a private page of a punched hole reads as zeros once it is shared");
}

#define TRACING "/sys/kernel/tracing"

static bool tracing_write(const char *file, int flags, const char *text)
{
    char path[64];
    bool written;
    int fd;

    snprintf(path, sizeof(path), TRACING "/%s", file);
    fd = open(path, O_WRONLY | flags);
    written = fd >= 0 && write(fd, text, strlen(text)) > 0;
    if (fd >= 0) {
        close(fd);
    }
    return written;
}

/*
 * Begin to count the calls of a kernel function.  Returns false if the kernel
 * has no probes.
 */
static bool count_begin(const char *function)
{
    char probe[128];

    mount("none", TRACING, "tracefs", 0, NULL);
    snprintf(probe, sizeof(probe), "p:convert_calls %s", function);
    if (!tracing_write("kprobe_events", O_APPEND, probe)) {
        note("skipped: calls of %s (%s)", function, strerror(errno));
        return false;
    }
    if (!tracing_write("events/kprobes/convert_calls/enable", 0, "1")) {
        bail("the probe cannot be enabled");
    }
    return true;
}

static void count_end(void)
{
    tracing_write("events/kprobes/convert_calls/enable", 0, "0");
    tracing_write("kprobe_events", O_APPEND, "-:convert_calls");
}

/* Calls since count_begin() */
static long count(void)
{
    FILE *f = fopen(TRACING "/kprobe_profile", "r");
    char line[128];
    long hits = -1;

    while (f && fgets(line, sizeof(line), f)) {
        sscanf(line, " convert_calls %ld", &hits);
    }
    if (!f || hits < 0) {
        bail("no count of the kernel's probe");
    }
    fclose(f);
    return hits;
}

/*
 * KVM does not flush caches at a conversion: the page still belongs to the
 * guest, and the guest itself must flush the lines that it wrote before it
 * changed the page's C-bit.  When a page is freed, none of its cache lines may
 * remain, so KVM calls kvm_arch_guest_memory_reclaimed(), which flushes the
 * caches if the VM is an SEV VM.
 */
static void caches(struct vm *vm)
{
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, pipes[2];
    long to_private, refused, to_shared, punched;
    struct iovec iov = { vm->mem + 0x95000, 16 };

    if (!count_begin("kvm_arch_guest_memory_reclaimed")) {
        return;
    }
    /* The host maps 16 pages, and a pipe holds one of them */
    memset(vm->mem + 0x90000, 0x22, 16 * PAGE);
    CHECK(pipe(pipes));
    CHECK(vmsplice(pipes[1], &iov, 1, 0));
    if (vm_convert(vm, 0x90000, 16 * PAGE, PRIVATE) != -EAGAIN) {
        bail("a page that is held becomes private");
    }
    refused = count();
    close(pipes[0]);
    close(pipes[1]);
    for (int i = 0; i < 16; i++) {
        MUST(vm_convert(vm, 0x90000 + i * PAGE, PAGE, PRIVATE));
    }
    to_private = count() - refused;
    for (int i = 0; i < 16; i++) {
        MUST(vm_convert(vm, 0x90000 + i * PAGE, PAGE, SHARED));
    }
    to_shared = count() - to_private - refused;
    CHECK(fallocate(vm->gmem, mode, 0x90000, 16 * PAGE));
    punched = count() - to_shared - to_private - refused;
    ok(!to_private && !refused && !to_shared && punched > 0,
       "KVM writes caches back when pages are freed (%ld times), but not when "
       "they become private (%ld), when that is refused (%ld), or when they "
       "become shared (%ld)", punched, to_private, refused, to_shared);
    count_end();
}

/*
 * If the pages of a converted range alternate between private and shared, KVM
 * calls gmem_mark_dirty() once or twice for the whole range, and not once per
 * page
 */
static void alternating(struct vm *vm)
{
    const uint64_t first = 0x200, n = 512;
    long marks;
    int r;

    for (uint64_t i = 0; i < n; i += 2) {
        MUST(vm_convert(vm, (first + i) * PAGE, PAGE, PRIVATE));
    }
    if (!count_begin("gmem_mark_dirty")) {
        return;
    }
    r = vm_convert(vm, first * PAGE, n * PAGE, PRIVATE);
    marks = count();
    count_end();
    ok(!r && vm_private_is(vm, first, first + n) && marks > 0 && marks <= 2,
       "converting every second of 512 pages to private marks the slot only "
       "%ld times", marks);
    MUST(vm_convert(vm, first * PAGE, n * PAGE, SHARED));
}

static void processes(struct vm *vm)
{
    uint8_t *p = vm->mem + 0x50000;
    int there[2], go[2], status;
    char c = 0;
    pid_t pid;

    memset(p, 0x44, 2 * PAGE);
    CHECK(pipe(there));
    CHECK(pipe(go));
    fflush(stdout);
    pid = CHECK(fork());
    if (!pid) {
        int before = touch(p) || touch(p + PAGE);

        if (write(there[1], &c, 1) != 1 || read(go[0], &c, 1) != 1) {
            _exit(99);
        }
        _exit(before | (touch(p) == SIGBUS) << 1 |
              (touch(p + PAGE) == SIGBUS) << 2);
    }
    CHECK(read(there[0], &c, 1));
    MUST(vm_convert(vm, 0x50000, PAGE, PRIVATE));
    CHECK(write(go[1], &c, 1));
    CHECK(waitpid(pid, &status, 0));
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 0x02,
       "a conversion removes the page, and only this page, from another "
       "process");
    MUST(vm_convert(vm, 0x50000, PAGE, SHARED));
}

static void others(struct vm *vm)
{
    struct kvm_memory_attributes wide = {
        .address = 0x10000, .size = PAGE, .attributes = PRIVATE,
    };
    struct kvm_memory_attributes2 args = { .size = PAGE };
    uint8_t *p;
    int g;

    ok(xioctl(vm->fd, KVM_SET_MEMORY_ATTRIBUTES, &wide) == -EINVAL &&
       !vm_is_private(vm, 0x10),
       "KVM_SET_MEMORY_ATTRIBUTES of an in-place VM refuses PRIVATE with "
       "EINVAL");
    wide.attributes = SHARED;
    ok(xioctl(vm->fd, KVM_SET_MEMORY_ATTRIBUTES, &wide) == -EINVAL,
       "KVM_SET_MEMORY_ATTRIBUTES of an in-place VM refuses shared with "
       "EINVAL");
    wide.address = 1ULL << 40;
    ok(xioctl(vm->fd, KVM_SET_MEMORY_ATTRIBUTES, &wide) == -EINVAL,
       "KVM_SET_MEMORY_ATTRIBUTES of an in-place VM refuses addresses without "
       "a slot");
    ok(!vm_cap(vm->fd, KVM_CAP_MEMORY_ATTRIBUTES) &&
       vm_cap(vm->fd, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES) == PRIVATE,
       "an in-place VM offers attributes of guest_memfds only");

    g = CHECK(vm_gmem(vm, 4 * PAGE, GUEST_MEMFD_FLAG_MMAP));
    p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, g, 0);
    ok(p != MAP_FAILED && touch(p) == SIGBUS && touch(p + 3 * PAGE) == SIGBUS,
       "a guest_memfd without GUEST_MEMFD_FLAG_INIT_SHARED raises SIGBUS");
    ok(!xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2, &args) && !touch(p) &&
       touch(p + PAGE) == SIGBUS,
       "the first page of a guest_memfd that begins private can become shared");
    args.attributes = PRIVATE;
    ok(!xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2, &args) && touch(p) == SIGBUS,
       "the page of a guest_memfd that began private can become private again");
    munmap(p, 4 * PAGE);
    close(g);

    ok(vm_gmem(vm, 1ULL << 62, GUEST_MEMFD_FLAG_MMAP) == -ENOMEM,
       "creating a guest_memfd larger than the machine's memory fails with "
       "ENOMEM");
    g = vm_gmem(vm, PAGE, 0);
    args.attributes = SHARED;
    ok(g >= 0 && !xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2, &args),
       "a guest_memfd that cannot be mapped has attributes");
    close(g);
}

/* The guest converts its own pages, and guest and host access them */
static void guest(struct vm *vm)
{
    uint64_t *p = (uint64_t *)(vm->mem + 0x60000);

    p[0] = 0x1111;
    if (!ok(!guest_launch(vm, vm->size),
            "a guest whose pages the host converts starts")) {
        return;
    }
    ok(guest_read(vm, 0x60000) == 0x1111,
       "the guest reads what its page contained when it became private");
    ok(!guest_write(vm, 0x60000, 0x2222) && touch(p) == SIGBUS,
       "the guest writes a private page, which the host cannot read");
    ok(!guest_convert(vm, 0x60, 1, false) && !touch(p),
       "the guest shares a page with KVM_HC_MAP_GPA_RANGE");
    ok(vm->cbit ? p[0] != 0x2222 : p[0] == 0x2222,
       vm->cbit ? "the host reads ciphertext of what the guest wrote before" :
                  "the host reads what the guest wrote before sharing the page");
    ok(!guest_write(vm, 0x60008, 0x3333) && p[1] == 0x3333,
       "the host reads what the guest writes to a shared page");
    p[2] = 0x4444;
    ok(guest_read(vm, 0x60010) == 0x4444,
       "the guest reads what the host writes to a shared page");
    ok(!guest_convert(vm, 0x60, 1, true) && touch(p) == SIGBUS,
       "the guest makes a page private again with KVM_HC_MAP_GPA_RANGE");
    ok(!guest_write(vm, 0x60000, 0x5555) && guest_read(vm, 0x60000) == 0x5555,
       "the guest writes and reads the page that it made private again");
    ok(!guest_convert(vm, 0x70, 16, false) &&
       bus_mask(vm->mem + 0x70000) == 0 &&
       touch(vm->mem + 0x6f000) == SIGBUS && touch(vm->mem + 0x80000) == SIGBUS,
       "the guest shares exactly 16 pages with one KVM_HC_MAP_GPA_RANGE");
}

/* A process that is killed while it converts has converted all or nothing */
static void killed(struct vm *vm)
{
    const uint64_t pages = vm->size / PAGE;
    uint8_t *bits = malloc(pages / 8);
    long torn = 0, all = 0;
    int i;

    fflush(stdout);
    for (i = 0; i < 12; i++) {
        pid_t pid;

        MUST(vm_convert(vm, 0, vm->size, SHARED));
        pid = CHECK(fork());
        if (!pid) {
            _exit(vm_convert(vm, 0, vm->size, PRIVATE) != 0);
        }
        usleep(i * 8000);
        kill(pid, SIGKILL);
        CHECK(waitpid(pid, NULL, 0));
        MUST(vm_bitmap(vm, 0, pages, bits));
        torn += (bits[0] != 0 && bits[0] != 0xff) ||
                memcmp(bits, bits + 1, pages / 8 - 1);
        all += bits[0] == 0xff;
    }
    ok(!torn,
       "of %d processes killed in a conversion, %ld converted the whole range "
       "and %ld only a part", i, all, torn);
    free(bits);
}

/*
 * A guest of a realistic size: convert its whole RAM with one call, then single
 * pages
 */
static void large(enum vm_type type)
{
    const uint64_t size = 64ULL << 30;
    double t0, t1, t2;
    bool counted;
    struct vm vm;
    uint64_t i;
    int r = 0;

    vm_init(&vm, type, size);
    for (i = 0; i < 64ULL << 20; i += PAGE) {
        vm.mem[i] = 1;
    }
    counted = count_begin("kvm_gmem_invalidate_end");
    t0 = now();
    r |= vm_convert(&vm, 0, size, PRIVATE);
    t1 = now();
    if (counted) {
        /*
         * KVM splits the conversion into parts, so that other threads can
         * take the guest_memfd's lock between two parts.  KVM calls
         * kvm_gmem_invalidate_end() at the end of each part, so count the
         * calls.
         */
        long parts = count();

        count_end();
        ok(parts >= 2048,
           "converting 64 GiB to private removes guest mappings in %ld parts "
           "of 32 MiB or less", parts);
    }
    for (i = 0; i < 1000; i++) {
        r |= vm_convert(&vm, i * (size / 1024), PAGE, SHARED);
    }
    t2 = now();
    note("64 GiB in %.3f s, then single pages in %.6f s each", t1 - t0,
         (t2 - t1) / 1000);
    ok(!r && t1 - t0 < 5 && touch(vm.mem + PAGE) == SIGBUS &&
       !touch(vm.mem + 999 * (size / 1024)),
       "converting 64 GiB, of which 64 MiB are allocated, to private takes "
       "less than 5 s");
    killed(&vm);
    vm_destroy(&vm);
}

int main(void)
{
    static const enum vm_type types[] = { VM_SW_PROTECTED, VM_SEV };
    struct vm vm;

    for (unsigned i = 0; i < 2; i++) {
        vm_require(types[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        note("%s VM", vm_type_name(types[i]));
        vm_init(&vm, types[i], GUEST_SIZE);
        arguments(&vm);
        one_page(&vm);
        pages_again(&vm);
        unallocated_pages(&vm);
        holes(&vm);
        caches(&vm);
        alternating(&vm);
        processes(&vm);
        others(&vm);
        guest(&vm);
        vm_destroy(&vm);
        large(types[i]);
    }
    return done_testing();
}
