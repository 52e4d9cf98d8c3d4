/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Run all operations on a guest_memfd at the same time: vCPUs write, threads
 * convert pages, read dirty logs and bitmaps, punch holes, map and unmap the
 * file, hold pages, and add, change and remove memory slots.
 *
 *   l1-storm [SECONDS [sw|sev [BREAK]]]
 *
 * The program checks invariants during the run and at the end.  With BREAK, the
 * program violates the invariant of this name on purpose.  Without a type of
 * VM, the program first starts itself once for each BREAK, and checks that each
 * of these processes reports a violation.  The program then tests both types.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include "guest.h"

#define PAGES           (GUEST_SIZE / PAGE)
#define SLOT1           0x200           /* end of slot 0, begin of slot 1 */
#define STOP            (GUEST_SHARED + 16)

/*
 * If an operation has not happened in the requested time, storm() lets the
 * threads run for up to this many further seconds
 */
#define MORE            120

/* Purpose of the pages, by gfn */
#define SWEPT           0x180           /* two vCPUs write and check them */
#define SWEPT_END       0x280
#define ATOMIC          0x300           /* always converted as one range */
#define ATOMIC_END      0x340
#define HOLES           0x340           /* used by hole punchers and a vCPU */
#define HOLES_END       0x380
#define STRICT          0x380           /* converted by one thread, in slot 1 */
#define STRICT_END      0x3a0
#define CHILD           0x3a0           /* converted by another process */
#define CHILD_END       0x3b0
#define IDLE            0x3c0           /* used by no thread, always private */
#define IDLE_END        0x400

#define EXTRA_GPA       (64ULL << 20)   /* slot that is added and removed */
#define EXTRA_PAGES     64

/*
 * The first word of each page that vCPUs sweep is MAGIC plus the address of the
 * page.  The guest maps each page at its guest physical address.
 */
#define MAGIC           0x5afec0de00000000ULL

enum op {
    OP_CONVERT, OP_AGAIN, OP_ATOMIC, OP_STRICT, OP_BITMAP, OP_UNCHANGED,
    OP_DIRTY_LOG, OP_CLEAR_LOG, OP_LOG_SWITCH, OP_SLOT_CYCLE, OP_PUNCH,
    OP_MMAP, OP_HOST_READ, OP_SIGBUS, OP_FORK, OP_HOLD, OP_SWEEP, OP_MAX,
};

static const char *const op_name[OP_MAX] = {
    "conversions", "conversions refused with EAGAIN",
    "conversions of the atomic range", "checked conversions", "bitmaps",
    "unchanged bitmaps", "dirty logs", "dirty logs cleared",
    "dirty logs switched", "slots deleted and made", "holes punched",
    "mappings", "host reads", "SIGBUS of private pages",
    "processes", "pages held", "sweeps of a vCPU",
};

static struct vm vm;
static bool sev;
static const char *broken = "";
static volatile bool stop;
static long count[OP_MAX], violations;
/*
 * A thread must hold this lock while it clears bits of slot 1's dirty log, and
 * while it relies on other threads not clearing them
 */
static pthread_mutex_t harvest = PTHREAD_MUTEX_INITIALIZER;
/*
 * The state that each page outside ATOMIC must have at the end; true is
 * private.  At most one thread converts such a page, itself or in a child
 * process, and only this thread writes the page's entry.
 */
static bool expected[PAGES];

static void did(enum op op)
{
    __atomic_add_fetch(&count[op], 1, __ATOMIC_RELAXED);
}

static void __attribute__((format(printf, 1, 2)))
violated(const char *fmt, ...)
{
    va_list ap;

    /* Print only the first few errors */
    if (__atomic_add_fetch(&violations, 1, __ATOMIC_RELAXED) <= 10) {
        flockfile(stdout);
        printf("# violated: ");
        va_start(ap, fmt);
        vprintf(fmt, ap);
        va_end(ap);
        putchar('\n');
        funlockfile(stdout);
    }
}

static bool is_broken(const char *what)
{
    return !strcmp(broken, what);
}

static uint64_t rnd(unsigned *seed, uint64_t limit)
{
    return ((uint64_t)rand_r(seed) << 16 ^ rand_r(seed)) % limit;
}

static bool bit(const void *bits, uint64_t i)
{
    return ((const uint8_t *)bits)[i / 8] >> (i % 8) & 1;
}

static int convert(int gmem, uint64_t first, uint64_t end, bool private,
                   uint64_t *held)
{
    struct kvm_memory_attributes2 args = {
        .offset = first * PAGE, .size = (end - first) * PAGE,
        .attributes = private ? PRIVATE : SHARED,
    };
    int r = xioctl(gmem, KVM_SET_MEMORY_ATTRIBUTES2, &args);

    if (held) {
        *held = args.error_offset / PAGE;
    }
    return r;
}

/*
 * Convert a range, and count it as converted or refused.  Returns whether the
 * range was converted.
 */
static bool try_convert(uint64_t first, uint64_t end, bool private)
{
    uint64_t held = 0;
    int r = convert(vm.gmem, first, end, private, &held);

    if (!r) {
        did(OP_CONVERT);
        return true;
    }
    if (r != -EAGAIN || !private || held < first || held >= end) {
        violated("converting [%#llx, %#llx) to %s: %s, page %#llx",
                 (long long)first, (long long)end,
                 private ? "private" : "shared", strerror(-r), (long long)held);
    }
    did(OP_AGAIN);
    return false;
}

/*
 * Two threads run this function.  One converts pages in the even groups of 16
 * pages, the other in the odd groups.  Because no two threads convert the same
 * page outside ATOMIC, a thread can write the page's entry of @expected without
 * a lock.
 */
static void *run_converter(void *opaque)
{
    unsigned me = (uintptr_t)opaque, seed = 17 + me;

    while (!stop) {
        bool holes = !rnd(&seed, 4), private = rnd(&seed, 2);
        uint64_t first = holes ? HOLES : SWEPT, end;

        first += rnd(&seed, ((holes ? HOLES_END : SWEPT_END) - first) / 32) * 32
                 + me * 16 + rnd(&seed, 16);
        end = first + 1 + rnd(&seed, 16 - first % 16);
        if (try_convert(first, end, private)) {
            for (uint64_t i = first; i < end; i++) {
                expected[i] = private;
            }
        }
        if (!rnd(&seed, 8) && try_convert(ATOMIC, ATOMIC_END, private)) {
            did(OP_ATOMIC);
        }
        if (!rnd(&seed, 16)) {
            usleep(500);
        }
    }
    if (me && is_broken("bitmap")) {
        MUST(convert(vm.gmem, SWEPT, SWEPT + 1, !expected[SWEPT], NULL));
    }
    return NULL;
}

static int get_log(uint32_t slot, void *bits)
{
    struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bits };

    did(OP_DIRTY_LOG);
    return xioctl(vm.fd, KVM_GET_DIRTY_LOG, &log);
}

static void clear_log(uint32_t slot, void *bits)
{
    struct kvm_clear_dirty_log clear = {
        .slot = slot, .num_pages = SLOT1, .dirty_bitmap = bits,
    };

    if (xioctl(vm.fd, KVM_CLEAR_DIRTY_LOG, &clear)) {
        violated("KVM_CLEAR_DIRTY_LOG");
    }
    did(OP_CLEAR_LOG);
}

/* Read slot 1's log.  Only the holder of @harvest may clear bits in it. */
static void harvest_log(void *bits)
{
    if (get_log(1, bits)) {
        violated("KVM_GET_DIRTY_LOG");
    }
    clear_log(1, bits);
}

/*
 * Convert the pages from @first to @end to the state @private.  Store in @log
 * the pages of slot 1 that became dirty by this conversion.
 */
static void strict_convert(uint64_t first, uint64_t end, bool private,
                           uint64_t *log)
{
    pthread_mutex_lock(&harvest);
    harvest_log(log);
    /*
     * No other thread accesses these pages, so nobody holds them, and the
     * conversion must succeed
     */
    if (convert(vm.gmem, first, end, private, NULL)) {
        violated("a page that nobody holds is not converted");
    }
    if (is_broken("log")) {
        uint64_t lost[SLOT1 / 64];

        harvest_log(lost);
    }
    harvest_log(log);
    pthread_mutex_unlock(&harvest);
}

/* The dirty log must have the pages from @first to @end, and no idle page */
static void strict_log(const uint64_t *log, uint64_t first, uint64_t end)
{
    for (uint64_t i = STRICT; i < STRICT_END; i++) {
        if (bit(log, i - SLOT1) != (i >= first && i < end)) {
            violated("page %#llx of [%#llx, %#llx) is %s", (long long)i,
                     (long long)first, (long long)end,
                     bit(log, i - SLOT1) ? "dirty" : "clean");
        }
    }
    for (uint64_t i = IDLE; i < IDLE_END; i++) {
        if (bit(log, i - SLOT1)) {
            violated("page %#llx is dirty of nothing", (long long)i);
        }
    }
}

/*
 * The state of page @i must apply to accesses by this program and by the kernel,
 * so read the page directly and let write() read it.
 *
 * @fds: a pipe
 */
static void strict_access(uint64_t i, bool private, const int *fds)
{
    volatile uint8_t *p = vm.mem + i * PAGE;
    uint8_t byte;

    if (touch(p) != (private ? SIGBUS : 0) ||
        write(fds[1], (void *)p, 1) != (private ? -1 : 1) ||
        (!private && read(fds[0], &byte, 1) != 1)) {
        violated("page %#llx, %s, is open to the host or not", (long long)i,
                 private ? "private" : "shared");
    }
    did(private ? OP_SIGBUS : OP_HOST_READ);
}

/*
 * Convert pages that no other thread converts.  The next dirty log, bitmap and
 * access must show exactly this conversion.
 */
static void *run_strict(void *opaque)
{
    static uint64_t log[SLOT1 / 64];
    unsigned seed = 5;
    bool private = true;
    int fds[2];

    CHECK(pipe(fds));

    for (uint64_t n = 0; !stop; n++) {
        struct kvm_page_enc_bitmap args = {
            .start_gfn = STRICT, .num_pages = STRICT_END - STRICT,
        };
        uint64_t first = STRICT + rnd(&seed, STRICT_END - STRICT), end;
        uint32_t bits = 0;

        end = first + 1 + rnd(&seed, STRICT_END - first);
        args.enc_bitmap = (uintptr_t)&bits;
        if (xioctl(vm.fd, KVM_GET_PAGE_ENC_BITMAP, &args) ||
            bits != (private ? ~0U : 0)) {
            violated("bitmap %#x, all are %s", bits, private ? "private" : "shared");
        }

        strict_convert(first, end, !private, log);
        strict_log(log, first, end);
        args.flags = KVM_PAGE_ENC_BITMAP_IF_CHANGED;
        if (xioctl(vm.fd, KVM_GET_PAGE_ENC_BITMAP, &args) ||
            (args.flags & KVM_PAGE_ENC_BITMAP_UNCHANGED)) {
            violated("unchanged after a conversion");
        }
        for (uint64_t i = STRICT; i < STRICT_END; i++) {
            bool is = (i >= first && i < end) ? !private : private;

            if (((bits >> (i - STRICT)) & 1) != is) {
                violated("page %#llx is not %s", (long long)i,
                         is ? "private" : "shared");
            }
            if (i % 8 == n % 8) {
                strict_access(i, is, fds);
            }
        }
        MUST(convert(vm.gmem, STRICT, STRICT_END, !private, NULL));
        private = !private;
        did(OP_STRICT);
    }
    for (uint64_t i = STRICT; i < STRICT_END; i++) {
        expected[i] = private;
    }
    close(fds[0]);
    close(fds[1]);
    return opaque;
}

/*
 * Read bitmaps and check them.  A thread converts the pages of ATOMIC as one
 * range, so in each bitmap they must all be private or all be shared.  Pages
 * that no thread converts must keep their state.
 */
static void *run_bitmap(void *opaque)
{
    unsigned seed = 23 + (uintptr_t)opaque;
    uint64_t generation = 0, last = 0;

    while (!stop) {
        uint64_t first = rnd(&seed, ATOMIC), i, n = 0;
        uint8_t bits[PAGES / 8 + 1];
        struct kvm_page_enc_bitmap args = {
            .start_gfn = first, .num_pages = PAGES - first,
            .enc_bitmap = (uintptr_t)bits, .generation = generation,
            .flags = rnd(&seed, 4) ? 0 : KVM_PAGE_ENC_BITMAP_IF_CHANGED,
        };

        bits[(PAGES - first) / 8] = 0;
        if (xioctl(vm.fd, KVM_GET_PAGE_ENC_BITMAP, &args) || !args.generation) {
            violated("KVM_GET_PAGE_ENC_BITMAP");
            continue;
        }
        if (args.generation < last) {
            violated("generation %lld after %lld", (long long)args.generation,
                     (long long)last);
        }
        last = args.generation;
        if (args.flags & KVM_PAGE_ENC_BITMAP_UNCHANGED) {
            did(OP_UNCHANGED);
            continue;
        }
        did(OP_BITMAP);
        generation = args.generation;
        for (i = ATOMIC; i < ATOMIC_END; i++) {
            n += bit(bits, i - first);
        }
        if (n && n != ATOMIC_END - ATOMIC) {
            violated("%lld pages of a conversion of %d", (long long)n,
                     ATOMIC_END - ATOMIC);
        }
        for (i = IDLE; i < IDLE_END; i++) {
            if (!bit(bits, i - first)) {
                violated("page %#llx was never converted", (long long)i);
            }
        }
        if (first <= GUEST_SHARED / PAGE &&
            bit(bits, GUEST_SHARED / PAGE - first)) {
            violated("the shared page is private");
        }
    }
    return NULL;
}

/*
 * Read the bitmap eight times in quick succession.  Every call but the first
 * asks KVM to return the bitmap only if it has changed since the previous call.
 * Other threads may change the bitmap between any two calls, but during the run
 * KVM must return UNCHANGED at least once.
 */
static void *run_unchanged(void *opaque)
{
    uint64_t bits[PAGES / 64];

    while (!stop) {
        struct kvm_page_enc_bitmap args = {
            .num_pages = PAGES, .enc_bitmap = (uintptr_t)bits,
        };

        for (int i = 0; i < 8; i++) {
            MUST(xioctl(vm.fd, KVM_GET_PAGE_ENC_BITMAP, &args));
            if (args.flags & KVM_PAGE_ENC_BITMAP_UNCHANGED) {
                did(OP_UNCHANGED);
            }
            args.flags = KVM_PAGE_ENC_BITMAP_IF_CHANGED;
        }
        usleep(300);
    }
    return opaque;
}

/* Switch slot 0's log on and off, and read it, also while it is off */
static void *run_log_switch(void *opaque)
{
    while (!stop) {
        int r = vm_slot(&vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, SLOT1 * PAGE, 0);

        if (!r) {
            usleep(2000);
            r = vm_slot(&vm, 0, 0, 0, SLOT1 * PAGE, 0);
        }
        if (r) {
            violated("switching the log: %s", strerror(-r));
        }
        did(OP_LOG_SWITCH);
    }
    return opaque;
}

static void *run_log(void *opaque)
{
    static uint64_t log[SLOT1 / 64], log1[SLOT1 / 64];

    while (!stop) {
        int r = get_log(0, log);

        if (r && r != -ENOENT) {
            violated("KVM_GET_DIRTY_LOG of slot 0: %s", strerror(-r));
        }
        pthread_mutex_lock(&harvest);
        harvest_log(log1);
        pthread_mutex_unlock(&harvest);
        usleep(300);
    }
    return opaque;
}

/*
 * Add and remove a slot of another guest_memfd, and check the slot's bits in
 * the bitmap
 */
static void *run_slot_cycle(void *opaque)
{
    struct vm extra = vm;
    unsigned seed = 31;

    extra.gmem = vm_gmem(&vm, EXTRA_PAGES * PAGE, GUEST_MEMFD_FLAG_MMAP |
                                                  GUEST_MEMFD_FLAG_INIT_SHARED);
    extra.mem = mmap(NULL, EXTRA_PAGES * PAGE, PROT_READ | PROT_WRITE,
                     MAP_SHARED, CHECK(extra.gmem), 0);
    while (!stop) {
        uint64_t want = (uint64_t)rnd(&seed, 1ULL << 31) << 33 |
                        rnd(&seed, 1ULL << 31), bits = ~0ULL, i;

        for (i = 0; i < EXTRA_PAGES; i++) {
            if (convert(extra.gmem, i, i + 1, want >> i & 1, NULL)) {
                violated("converting a page without a slot");
            }
        }
        if (vm_bitmap(&vm, EXTRA_GPA / PAGE, EXTRA_PAGES, &bits) || bits) {
            violated("bits %#llx without a slot", (long long)bits);
        }
        if (vm_slot(&extra, 2, rnd(&seed, 2) ? KVM_MEM_LOG_DIRTY_PAGES : 0,
                    EXTRA_GPA, EXTRA_PAGES * PAGE, 0)) {
            violated("making a slot");
        }
        if (vm_bitmap(&vm, EXTRA_GPA / PAGE, EXTRA_PAGES, &bits) ||
            bits != want) {
            violated("bits %#llx for %#llx", (long long)bits, (long long)want);
        }
        if (vm_slot(&extra, 2, 0, EXTRA_GPA, 0, 0)) {
            violated("deleting a slot");
        }
        did(OP_SLOT_CYCLE);
        usleep(1000);
    }
    munmap(extra.mem, EXTRA_PAGES * PAGE);
    close(extra.gmem);
    return opaque;
}

static void *run_puncher(void *opaque)
{
    unsigned seed = 41;

    while (!stop) {
        uint64_t first = HOLES + rnd(&seed, HOLES_END - HOLES);
        uint64_t pages = 1 + rnd(&seed, HOLES_END - first);
        int punch = FALLOC_FL_PUNCH_HOLE;

        if (fallocate(vm.gmem, FALLOC_FL_KEEP_SIZE |
                      (rnd(&seed, 4) ? punch : 0), first * PAGE,
                      pages * PAGE)) {
            violated("fallocate: %s", strerror(errno));
        }
        did(OP_PUNCH);
        usleep(300);
    }
    return opaque;
}

static void *run_mapper(void *opaque)
{
    unsigned seed = 43;

    while (!stop) {
        uint64_t first = SWEPT + rnd(&seed, IDLE_END - SWEPT), i;
        uint64_t pages = 1 + rnd(&seed, IDLE_END - first);
        uint8_t *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
                          MAP_SHARED, vm.gmem, first * PAGE);

        if (p == MAP_FAILED) {
            violated("mmap: %s", strerror(errno));
            continue;
        }
        for (i = 0; i < pages; i++) {
            /*
             * Do not access the pages of STRICT and CHILD, because their
             * conversions must not fail with EAGAIN.  A page fault here could
             * hold a page for longer than a conversion waits.
             */
            if (first + i >= STRICT && first + i < CHILD_END) {
                continue;
            }
            if (touch(p + i * PAGE)) {
                did(OP_SIGBUS);
            } else if (first + i >= IDLE) {
                violated("the host reads private page %#llx",
                         (long long)(first + i));
            } else {
                did(OP_HOST_READ);
            }
        }
        munmap(p, pages * PAGE);
        did(OP_MMAP);
    }
    return opaque;
}

/*
 * Read shared pages while threads convert them.  In a software-protected VM the
 * host sees the same contents as the guest, so check them.
 */
static void *run_reader(void *opaque)
{
    while (!stop) {
        for (uint64_t i = SWEPT; i < SWEPT_END && !stop; i++) {
            volatile uint64_t *p = (void *)(vm.mem + i * PAGE);
            int sig = sigsetjmp(harness_bus, 1);
            uint64_t word;

            if (sig) {
                did(OP_SIGBUS);
                continue;
            }
            word = *p;
            if (!sev && word != MAGIC + i * PAGE) {
                violated("page %#llx begins with %#llx", (long long)i,
                         (long long)word);
            }
            did(OP_HOST_READ);
        }
        usleep(200);
    }
    return opaque;
}

/*
 * Convert the pages of CHILD in a child process, which has copies of the
 * mappings and of the guest_memfd's file descriptor
 */
static void *run_forker(void *opaque)
{
    bool private = true;

    while (!stop) {
        int status;
        pid_t pid = fork();

        if (!pid) {
            int bad = 0;

            bad |= convert(vm.gmem, CHILD, CHILD_END, !private, NULL) ? 1 : 0;
            bad |= touch(vm.mem + CHILD * PAGE) != (private ? 0 : SIGBUS) ? 2 : 0;
            bad |= touch(vm.mem + IDLE * PAGE) != SIGBUS ? 4 : 0;
            _exit(bad);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid) {
            bail("fork");
        }
        if (status) {
            violated("the other process: %#x", status);
        } else {
            private = !private;
        }
        if (vm_is_private(&vm, CHILD) != private) {
            violated("a conversion by another process is not there");
        }
        did(OP_FORK);
        usleep(10000);
    }
    for (uint64_t i = CHILD; i < CHILD_END; i++) {
        expected[i] = private;
    }
    return opaque;
}

/* Hold pages, as direct I/O would, while other threads convert these pages */
static void *run_holder(void *opaque)
{
    unsigned seed = 47;
    int fds[2];

    while (!stop) {
        uint64_t i = SWEPT + rnd(&seed, SWEPT_END - SWEPT - 16);
        struct iovec iov = { vm.mem + i * PAGE, 16 * PAGE };

        CHECK(pipe(fds));
        /*
         * vmsplice() pins the pages of @iov that precede the first private
         * page, and fails if already the first page of @iov is private
         */
        if (vmsplice(fds[1], &iov, 1, SPLICE_F_NONBLOCK) > 0) {
            did(OP_HOLD);
            /* Hold some pages longer than a conversion waits */
            usleep(rnd(&seed, 4) ? 500 : 50000);
        }
        close(fds[0]);
        close(fds[1]);
    }
    return opaque;
}

struct sweeper {
    pthread_t thread;
    struct vm vm;
    uint64_t first, end, word, passes;
    bool checked;
};

static void *run_sweeper(void *opaque)
{
    struct sweeper *s = opaque;
    struct kvm_regs regs = {
        .r8 = GUEST_SWEEP, .rdi = s->first * PAGE, .rsi = s->end * PAGE,
        .rdx = MAGIC, .rcx = s->word * 8, .r9 = STOP, .r13 = !s->checked,
    };

    if (guest_do(&s->vm, &regs)) {
        violated("a vCPU came to an end");
    } else if (regs.rax != s->end * PAGE) {
        violated("the guest sees %#llx at %#llx", (long long)regs.r11,
                 (long long)regs.rax);
    }
    s->passes = regs.r10;
    __atomic_add_fetch(&count[OP_SWEEP], regs.r10, __ATOMIC_RELAXED);
    return NULL;
}

static void start(void)
{
    struct kvm_enable_cap manual = {
        .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        .args = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE },
    };

    vm_require(sev ? VM_SEV : VM_SW_PROTECTED);
    vm_create(&vm, sev ? VM_SEV : VM_SW_PROTECTED, GUEST_SIZE);
    CHECK(ioctl(vm.fd, KVM_ENABLE_CAP, &manual));
    MUST(vm_slot(&vm, 0, 0, 0, SLOT1 * PAGE, 0));
    MUST(vm_slot(&vm, 1, KVM_MEM_LOG_DIRTY_PAGES, SLOT1 * PAGE,
                 GUEST_SIZE - SLOT1 * PAGE, SLOT1 * PAGE));
    for (uint64_t i = SWEPT; i < SWEPT_END; i++) {
        *(uint64_t *)(vm.mem + i * PAGE) = MAGIC + i * PAGE;
    }
    if (guest_launch(&vm, GUEST_SIZE)) {
        bail("the guest does not start");
    }
    memset(vm.mem + GUEST_SHARED, 0, PAGE);
    memset(expected, true, sizeof(expected));
    expected[GUEST_SHARED / PAGE] = false;
}

/*
 * After all threads have ended, check the state of the pages, and the contents
 * that the guest reads
 */
static void finish(struct sweeper *sweepers)
{
    uint8_t bits[PAGES / 8];
    bool whole;

    MUST(vm_bitmap(&vm, 0, PAGES, bits));
    whole = bit(bits, ATOMIC);
    for (uint64_t i = 0; i < PAGES; i++) {
        bool want = i >= ATOMIC && i < ATOMIC_END ? whole : expected[i];

        if (bit(bits, i) != want) {
            violated("at the end, page %#llx is %s", (long long)i,
                     want ? "shared" : "private");
        }
        if (touch(vm.mem + i * PAGE) != (bit(bits, i) ? SIGBUS : 0)) {
            violated("at the end, page %#llx is open or not", (long long)i);
        }
    }
    if (is_broken("content")) {
        guest_write(&vm, (SWEPT + 7) * PAGE + 8, 12345);
    }
    for (uint64_t i = SWEPT; i < SWEPT_END; i++) {
        uint64_t word = guest_read(&vm, i * PAGE);
        uint64_t first = guest_read(&vm, i * PAGE + 8);
        uint64_t second = guest_read(&vm, i * PAGE + 16);

        if (word != MAGIC + i * PAGE || first != sweepers[0].passes ||
            second != sweepers[1].passes) {
            violated("at the end, page %#llx has %#llx %lld %lld, not %lld %lld",
                     (long long)i, (long long)word, (long long)first,
                     (long long)second, (long long)sweepers[0].passes,
                     (long long)sweepers[1].passes);
        }
    }
}

/*
 * Has every operation happened at least once?  The function does not check
 * sweeps, because run_sweeper() counts them only after the vCPU has stopped.  A
 * vCPU completes at least one sweep before it stops.
 */
static bool everything_was_done(void)
{
    for (unsigned i = 0; i < OP_MAX; i++) {
        if (i != OP_SWEEP && !__atomic_load_n(&count[i], __ATOMIC_RELAXED)) {
            return false;
        }
    }
    return true;
}

/* Run all threads for @seconds.  Returns whether no invariant was violated. */
static bool storm(int seconds)
{
    static void *(*const run[])(void *) = {
        run_converter, run_converter, run_bitmap, run_bitmap, run_strict,
        run_unchanged, run_log_switch, run_log, run_slot_cycle, run_puncher,
        run_mapper, run_reader, run_forker, run_holder,
    };
    enum { N = sizeof(run) / sizeof(run[0]) };
    struct sweeper sweepers[] = {
        { .first = SWEPT, .end = SWEPT_END, .word = 1, .checked = true },
        { .first = SWEPT, .end = SWEPT_END, .word = 2, .checked = true },
        { .first = ATOMIC, .end = HOLES_END, .word = 1 },
    };
    pthread_t threads[N];
    bool idle = false;
    int more = MORE;
    unsigned i;

    memset(count, 0, sizeof(count));
    violations = 0;
    stop = false;
    start();
    for (i = 0; i < 3; i++) {
        sweepers[i].vm = vm;
        if (i) {
            guest_vcpu(&sweepers[i].vm);
            vm.vcpus = sweepers[i].vm.vcpus;
            if (guest_run(&sweepers[i].vm)) {
                bail("vCPU %u does not start", i);
            }
        }
    }
    for (i = 0; i < 3; i++) {
        pthread_create(&sweepers[i].thread, NULL, run_sweeper, &sweepers[i]);
    }
    for (i = 0; i < N; i++) {
        pthread_create(&threads[i], NULL, run[i], (void *)(uintptr_t)(i & 1));
    }
    sleep(seconds);
    /* On a busy machine some threads may not have run yet */
    while (!everything_was_done() && more--) {
        sleep(1);
    }
    stop = true;
    for (i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
    }
    *(volatile uint64_t *)(vm.mem + STOP) = 1;
    for (i = 0; i < 3; i++) {
        pthread_join(sweepers[i].thread, NULL);
    }
    finish(sweepers);
    for (i = 1; i < 3; i++) {
        close(sweepers[i].vm.vcpu);
    }
    vm_destroy(&vm);

    for (i = 0; i < OP_MAX; i++) {
        note("%8ld %s", count[i], op_name[i]);
        idle |= !count[i];
    }
    ok(!idle, "%s VM, %d s: everything was done at least once",
       sev ? "SEV" : "software-protected", seconds);
    ok(!violations, "no invariant was violated (%ld)", violations);
    return !idle && !violations;
}

/*
 * Run this program with BREAK = @what.  The run must come to its end and report
 * that an invariant was violated.
 */
static void control(const char *what)
{
    char line[256];
    bool noticed = false, done = false;
    char *cmd;
    FILE *f;

    CHECK(asprintf(&cmd, "/proc/%d/exe 1 sw %s", getpid(), what));
    f = popen(cmd, "r");
    while (f && fgets(line, sizeof(line), f)) {
        noticed |= !strncmp(line, "not ok", 6) && strstr(line, "violated");
        done |= strstr(line, "everything was done") != NULL;
    }
    ok(f && pclose(f) && noticed && done,
       "a run whose %s is broken on purpose reports a violated invariant",
       what);
    free(cmd);
}

int main(int argc, char **argv)
{
    int seconds = argc > 1 ? atoi(argv[1]) : 7;

    if (argc > 3) {
        broken = argv[3];
    }
    vm_require(VM_SW_PROTECTED);
    if (argc < 3) {
        control("content");
        control("bitmap");
        control("log");
    }
    if (argc < 3 || !strcmp(argv[2], "sw")) {
        storm(seconds);
    }
    sev = true;
    if (argc < 3 || !strcmp(argv[2], "sev")) {
        storm(seconds);
    }
    return done_testing();
}
