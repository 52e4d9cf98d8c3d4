/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory errors in pages of a guest_memfd (memory_failure(), injected by
 * MADV_HWPOISON), together with conversions, faults, hole punching, and slots
 * that are added and removed.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/wait.h>
#include "vm.h"

#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif

#define PAGES           2048
#define RUN             64              /* pages converted by one call */
#define SECONDS         6
/*
 * Seconds without progress after which threads count as deadlocked, even on a
 * busy machine
 */
#define STUCK           40

/* Counters of the child's threads, which the parent reads */
struct progress {
    volatile long poisoned, punched, converted, touched, bound;
};

static struct progress *progress;
static struct vm vm;
static volatile unsigned current;       /* the next page to poison */

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 8;
}

/*
 * Inject a memory error into the page at @p.  Processes that map it may get
 * SIGBUS.
 */
static int inject(void *p)
{
    if (sigsetjmp(harness_bus, 1)) {
        return 0;
    }
    return madvise(p, PAGE, MADV_HWPOISON) ? -errno : 0;
}

static void *poison(void *opaque)
{
    unsigned seed = 1;

    /*
     * The host loses poisoned pages until it restarts, so poison 1000 at most
     */
    for (;;) {
        unsigned page = next_random(&seed) % PAGES;

        current = page;
        touch(vm.mem + page * PAGE);
        if (progress->poisoned < 1000) {
            inject(vm.mem + page * PAGE);
        }
        progress->poisoned++;
        usleep(500);
    }
    return opaque;
}

static void *punch(void *opaque)
{
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    unsigned seed = 2;

    for (;;) {
        CHECK(fallocate(vm.gmem, mode, next_random(&seed) % (PAGES - RUN) * PAGE,
                        RUN * PAGE));
        progress->punched++;
    }
    return opaque;
}

static void *convert(void *opaque)
{
    unsigned seed = 3;

    for (;;) {
        vm_convert(&vm, next_random(&seed) % (PAGES - RUN) * PAGE, RUN * PAGE,
                   next_random(&seed) & 1 ? PRIVATE : SHARED);
        progress->converted++;
    }
    return opaque;
}

static void *toucher(void *opaque)
{
    unsigned seed = 4;

    for (;;) {
        unsigned page = next_random(&seed) & 1 ? current :
                        next_random(&seed) % PAGES;

        poke(vm.mem + page * PAGE, 1);
        progress->touched++;
    }
    return opaque;
}

static void *bind_slot(void *opaque)
{
    for (;;) {
        MUST(vm_slot(&vm, 0, 0, 0, 0, 0));
        MUST(vm_slot(&vm, 0, 0, 0, vm.size, 0));
        progress->bound++;
        usleep(1000);
    }
    return opaque;
}

/*
 * Has a counter of one of the @threads not changed since @before?  See beside()
 * for the letters.
 */
static bool stuck(const struct progress *before, const char *threads)
{
    return (strchr(threads, 'h') && before->poisoned == progress->poisoned) ||
           (strchr(threads, 'p') && before->punched == progress->punched) ||
           (strchr(threads, 'c') && before->converted == progress->converted) ||
           (strchr(threads, 't') && before->touched == progress->touched) ||
           (strchr(threads, 's') && before->bound == progress->bound);
}

/*
 * Run threads beside each other, and check that none of them gets stuck.  Each
 * letter of @threads is one thread: h poisons pages, p punches holes, c
 * converts, t touches pages, s removes and adds the slot.  The threads run in a
 * child process, because threads that are deadlocked in the kernel never end.
 */
static void beside(const char *threads, const char *what)
{
    struct progress before;
    double end, moved;
    bool moves = true;
    pid_t pid;

    memset(progress, 0, sizeof(*progress));
    fflush(stdout);
    pid = CHECK(fork());
    if (!pid) {
        pthread_t thread;

        vm_init(&vm, VM_SW_PROTECTED, PAGES * PAGE);
        for (const char *t = threads; *t; t++) {
            pthread_create(&thread, NULL,
                           *t == 'h' ? poison : *t == 'p' ? punch :
                           *t == 'c' ? convert : *t == 't' ? toucher : bind_slot,
                           NULL);
        }
        pause();
    }

    before = *progress;
    moved = now();
    end = moved + SECONDS;
    while (moves && moved < end) {
        usleep(100000);
        if (!stuck(&before, threads)) {
            before = *progress;
            moved = now();
        } else if (now() - moved > STUCK) {
            moves = false;
        }
    }
    kill(pid, SIGKILL);
    if (!ok(moves,
            "the program makes progress with memory errors beside %s: %ld "
            "errors, %ld holes, %ld conversions, %ld touches, %ld slots", what,
            progress->poisoned, progress->punched, progress->converted,
            progress->touched, progress->bound)) {
        exit(done_testing());
    }
    CHECK(waitpid(pid, NULL, 0));
}

/*
 * Accesses to a poisoned page raise SIGBUS.  The kernel allocates a new page
 * only after user space has punched a hole.  Conversions of a range succeed
 * even if the range contains a poisoned page.
 */
static void one(void)
{
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    uint8_t *second;

    vm_init(&vm, VM_SW_PROTECTED, 64 * PAGE);
    second = mmap(NULL, vm.size, PROT_READ | PROT_WRITE, MAP_SHARED, vm.gmem, 0);
    if (second == MAP_FAILED) {
        bail("mmap");
    }
    memset(vm.mem, 0x5a, vm.size);
    MUST(inject(vm.mem + 9 * PAGE));
    ok(touch(vm.mem + 9 * PAGE) == SIGBUS && touch(second + 9 * PAGE) == SIGBUS &&
       touch(second + 9 * PAGE) == SIGBUS,
       "an access to a poisoned page raises SIGBUS by each mapping");
    ok(second[8 * PAGE] == 0x5a && second[10 * PAGE] == 0x5a,
       "the neighbours of a poisoned page have their contents");
    ok(!vm_convert(&vm, 0, vm.size, PRIVATE) && vm_private_is(&vm, 0, 64),
       "a range with a poisoned page can become private");
    ok(!vm_convert(&vm, 0, vm.size, SHARED) &&
       touch(second + 9 * PAGE) == SIGBUS,
       "a range with a poisoned page can become shared, and the page raises "
       "SIGBUS");
    CHECK(fallocate(vm.gmem, mode, 9 * PAGE, PAGE));
    munmap(second, vm.size);
    second = mmap(NULL, vm.size, PROT_READ | PROT_WRITE, MAP_SHARED, vm.gmem, 0);
    ok(second != MAP_FAILED && !touch(second + 9 * PAGE) && !second[9 * PAGE],
       "the file has a new page of zeros after a hole replaced the poisoned "
       "page");
    munmap(second, vm.size);
    vm_destroy(&vm);
}

int main(void)
{
    void *probe;
    int r;

    vm_require(VM_SW_PROTECTED);
    probe = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    r = inject(probe);
    if (r) {
        skip_all("no MADV_HWPOISON: %s", strerror(-r));
    }
    progress = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    one();
    beside("hctt", "conversions and touches");
    beside("hp", "holes");
    beside("hpcts", "holes, conversions, touches, and new slots");
    return done_testing();
}
