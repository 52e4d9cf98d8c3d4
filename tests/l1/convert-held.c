/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KVM does not make a page private while somebody holds a reference to it: the
 * call fails with EAGAIN, reports the page, and converts nothing.  A conversion
 * of pages to which nobody holds a reference always succeeds.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/time.h>
#include <sys/uio.h>
#include "vm.h"

#define SIZE (4ULL << 20)

/* A pipe that holds references to pages, as direct I/O would */
struct hold {
    int fds[2];
    size_t bytes;
};

static void hold(struct hold *h, void *p)
{
    struct iovec iov = { p, 16 };

    CHECK(pipe(h->fds));
    h->bytes = CHECK(vmsplice(h->fds[1], &iov, 1, 0));
}

static void release(struct hold *h)
{
    close(h->fds[0]);
    close(h->fds[1]);
}

static void on_cpu(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    CHECK(sched_setaffinity(0, sizeof(set), &set));
}

static void held(struct vm *vm)
{
    static const unsigned at[] = { 0, 1, 7, 8, 100, 511 };
    uint8_t *p = vm->mem;
    struct hold a, b;
    unsigned i;

    memset(p, 0x55, SIZE);
    for (i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        hold(&a, p + at[i] * PAGE);
        ok(vm_convert(vm, at[i] * PAGE, PAGE, PRIVATE) == -EAGAIN &&
           convert_held == at[i] * PAGE,
           "converting page %u alone while it is held fails with EAGAIN and "
           "its offset", at[i]);
        ok(vm_convert(vm, 0, 512 * PAGE, PRIVATE) == -EAGAIN &&
           convert_held == at[i] * PAGE,
           "converting 512 pages while page %u is held fails with EAGAIN and "
           "its offset", at[i]);
        ok(vm_private_is(vm, 0, 0) && !touch(p) && !touch(p + 511 * PAGE) &&
           p[at[i] * PAGE] == 0x55,
           "a conversion refused because of a held page converts no page");
        ok(!vm_convert(vm, (at[i] + 1) * PAGE, PAGE, PRIVATE) &&
           !vm_convert(vm, (at[i] + 1) * PAGE, PAGE, SHARED),
           "the neighbour of a held page can be converted");
        release(&a);
        ok(!vm_convert(vm, 0, 512 * PAGE, PRIVATE) && convert_held == NOT_SET,
           "all 512 pages can be converted once no page is held");
        MUST(vm_convert(vm, 0, SIZE, SHARED));
        memset(p, 0x55, SIZE);
    }

    hold(&a, p + 20 * PAGE);
    hold(&b, p + 10 * PAGE);
    ok(vm_convert(vm, 0, SIZE, PRIVATE) == -EAGAIN &&
       convert_held == 10 * PAGE,
       "if two pages are held, error_offset names the first of them");
    ok(vm_convert(vm, 11 * PAGE, 20 * PAGE, PRIVATE) == -EAGAIN &&
       convert_held == 20 * PAGE,
       "error_offset names the first held page inside the range, not one "
       "before it");
    release(&b);
    ok(vm_convert(vm, 0, SIZE, PRIVATE) == -EAGAIN &&
       convert_held == 20 * PAGE,
       "after the first held page was released, error_offset names the second");
    ok(!vm_convert(vm, 0, SIZE, SHARED),
       "a conversion to shared succeeds while a page is held");
    release(&a);
    ok(!vm_convert(vm, 0, SIZE, PRIVATE),
       "a conversion to private succeeds after all held pages were released");
    MUST(vm_convert(vm, 0, SIZE, SHARED));
}

/*
 * KVM finds a held page even if the host has accessed no other page of the
 * file.  KVM has one bit per 64 pages that says whether the host may have
 * mapped or pinned one of them (@reached in gmem_attributes.h), and checks no
 * other pages.  The pages here are at the limits of these groups of 64.
 */
static void held_alone(enum vm_type type)
{
    static const unsigned at[] = { 0, 63, 64, SIZE / PAGE - 1 };
    struct vm vm;
    struct hold h;

    for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        vm_init(&vm, type, SIZE);
        vm.mem[at[i] * PAGE] = 0x77;
        hold(&h, vm.mem + at[i] * PAGE);
        ok(vm_convert(&vm, 0, SIZE, PRIVATE) == -EAGAIN &&
           convert_held == at[i] * PAGE,
           "page %u, the only page that the host touched, is held: EAGAIN and "
           "its offset", at[i]);
        release(&h);
        ok(!vm_convert(&vm, 0, SIZE, PRIVATE),
           "all pages become private after the only touched page was released");
        vm_destroy(&vm);
    }
}

/*
 * A page can become private immediately after its allocation, no matter whether
 * the same CPU or another CPU requests the conversion.  The LRU batch of the
 * CPU that allocated the page may still have a reference to the page, but KVM
 * drops this reference and does not report the page as held.
 */
static void fresh(struct vm *vm)
{
    int bad = 0, i, n = 0;

    for (i = 0; i < 256; i++) {
        on_cpu(i & 1);
        vm->mem[i * PAGE] = i;
        on_cpu(i >> 1 & 1);
        bad += vm_convert(vm, i * PAGE, PAGE, PRIVATE) != 0;
        n++;
    }
    ok(!bad,
       "none of %d conversions right after the host touched the page fails (%d "
       "EAGAIN)", n, bad);
    for (i = 256; i < 1024; i++) {
        on_cpu(i & 1);
        vm->mem[i * PAGE] = i;
    }
    ok(!vm_convert(vm, 256 * PAGE, 768 * PAGE, PRIVATE),
       "768 pages that the host has mapped become private in one conversion");
}

static volatile bool stop;

static void *toucher(void *opaque)
{
    uint8_t *p = opaque;
    long n = 0;

    while (!stop) {
        for (int i = 0; i < 16; i++) {
            n += !*(volatile uint8_t *)(p + i * PAGE * 2);
        }
    }
    return (void *)n;
}

/*
 * Another thread reads pages 0, 2, ..., 30 all the time.  Meanwhile, pages 1
 * and 3 become private one after the other, and then the range of pages 0 to 3
 * becomes shared.  All three conversions must succeed.  The last one does not
 * change pages 0 and 2, which are shared already.
 */
static void faults(struct vm *vm)
{
    pthread_t thread;
    int bad = 0, i;

    MUST(vm_convert(vm, 0, SIZE, SHARED));
    pthread_create(&thread, NULL, toucher, vm->mem);
    for (i = 0; i < 300; i++) {
        bad += vm_convert(vm, PAGE, PAGE, PRIVATE) != 0;
        bad += vm_convert(vm, 3 * PAGE, PAGE, PRIVATE) != 0;
        bad += vm_convert(vm, 0, 4 * PAGE, SHARED) != 0;
    }
    stop = true;
    pthread_join(thread, NULL);
    ok(!bad,
       "none of 900 conversions beside a busy thread fails (%d EAGAIN)", bad);
}

/* If error_offset cannot be written, the call still converts nothing */
static void unwritable(struct vm *vm)
{
    struct kvm_memory_attributes2 *args;
    struct hold h;

    args = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    args->size = 4 * PAGE;
    args->attributes = PRIVATE;
    memset(vm->mem, 0x66, 4 * PAGE);
    hold(&h, vm->mem + 2 * PAGE);
    CHECK(mprotect(args, PAGE, PROT_READ));
    ok(xioctl(vm->gmem, KVM_SET_MEMORY_ATTRIBUTES2, args) == -EFAULT &&
       vm_private_is(vm, 0, 0) && !touch(vm->mem),
       "a refusal whose error_offset cannot be written is EFAULT and converts "
       "nothing");
    release(&h);
    ok(!xioctl(vm->gmem, KVM_SET_MEMORY_ATTRIBUTES2, args) &&
       vm_private_is(vm, 0, 4),
       "a conversion that succeeds does not need to write error_offset");
    MUST(vm_convert(vm, 0, SIZE, SHARED));
    munmap(args, PAGE);
}

static volatile long signals;

static void on_alarm(int sig)
{
    signals += sig == SIGALRM;
}

/* Signals do not interrupt a conversion */
static void interrupted(struct vm *vm)
{
    struct itimerval every = { { 0, 300 }, { 0, 300 } }, never = { { 0 } };
    struct sigaction sa = { .sa_handler = on_alarm };
    long bad = 0, wrong = 0, n = 0;
    struct hold h;

    CHECK(sigaction(SIGALRM, &sa, NULL));
    signals = 0;
    CHECK(setitimer(ITIMER_REAL, &every, NULL));
    while (n < 100 || signals < 50) {
        vm->mem[n % 64 * PAGE] = 1;
        bad += vm_convert(vm, 0, 64 * PAGE, PRIVATE) != 0;
        bad += vm_convert(vm, 0, 64 * PAGE, SHARED) != 0;
        n++;
    }
    hold(&h, vm->mem + 63 * PAGE);
    for (int i = 0; i < 50; i++) {
        wrong += vm_convert(vm, 0, 64 * PAGE, PRIVATE) != -EAGAIN ||
                 convert_held != 63 * PAGE;
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL));
    release(&h);
    ok(!bad && !wrong && vm_private_is(vm, 0, 0),
       "%ld conversions and 50 refusals during %ld signals: %ld and %ld are "
       "wrong", 2 * n, signals, bad, wrong);
}

#define BUSY_SECONDS    15

static volatile bool hog_runs, hog_stop;

static void *hog(void *opaque)
{
    struct sched_param param = { .sched_priority = 50 };
    double end = now() + BUSY_SECONDS;

    on_cpu(1);
    CHECK(sched_setscheduler(0, SCHED_FIFO, &param));
    hog_runs = true;
    while (!hog_stop && now() < end) {
    }
    return opaque;
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    if (!f || fputs(text, f) < 0 || fclose(f)) {
        bail("%s", path);
    }
}

#define DEBUGFS         "/sys/kernel/debug"
/*
 * File with the time per second, in ns, that the scheduler reserves for tasks
 * other than real-time tasks
 */
#define FAIR_SERVER     DEBUGFS "/sched/fair_server/cpu1/runtime"

static void others_run(bool run)
{
    write_text("/proc/sys/kernel/sched_rt_runtime_us", run ? "950000" : "-1");
    if (!access(FAIR_SERVER, W_OK)) {
        write_text(FAIR_SERVER, run ? "50000000" : "0");
    }
}

/*
 * A conversion does not have to wait for a real-time task that never yields its
 * CPU.  The thread of a vCPU can be such a task.
 */
static void busy_cpu(void)
{
    double fresh, first, second;
    int r[3];
    pthread_t thread;
    struct hold h;
    struct vm vm;

    on_cpu(0);
    vm_init(&vm, VM_SW_PROTECTED, SIZE);
    if (access(DEBUGFS "/sched", F_OK)) {
        mount("none", DEBUGFS, "debugfs", 0, NULL);
    }
    others_run(false);
    hog_runs = hog_stop = false;
    pthread_create(&thread, NULL, hog, NULL);
    while (!hog_runs) {
        usleep(1000);
    }

    fresh = now();
    vm.mem[0] = 1;
    r[0] = vm_convert(&vm, 0, PAGE, PRIVATE);
    fresh = now() - fresh;
    vm.mem[2 * PAGE] = 1;
    hold(&h, vm.mem + 2 * PAGE);
    first = now();
    r[1] = vm_convert(&vm, 2 * PAGE, PAGE, PRIVATE);
    first = now() - first;
    second = now();
    r[2] = vm_convert(&vm, 2 * PAGE, PAGE, PRIVATE);
    second = now() - second;

    hog_stop = true;
    pthread_join(thread, NULL);
    others_run(true);
    release(&h);
    ok(!r[0] && fresh < BUSY_SECONDS / 3,
       "a new page becomes private in %.3f s while a real-time task occupies a "
       "CPU", fresh);
    ok(r[1] == -EAGAIN && r[2] == -EAGAIN && first < BUSY_SECONDS / 3 &&
       second < BUSY_SECONDS / 3,
       "a held page is refused in %.3f s, then in %.3f s, beside a real-time "
       "task", first, second);
    MUST(vm_convert(&vm, 0, 4 * PAGE, PRIVATE));
    vm_destroy(&vm);
}

int main(void)
{
    static const enum vm_type types[] = { VM_SW_PROTECTED, VM_SEV };
    struct vm vm;

    for (unsigned i = 0; i < 2; i++) {
        vm_require(types[i]);
    }
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        skip_all("needs two CPUs");
    }
    for (unsigned i = 0; i < 2; i++) {
        note("%s VM", vm_type_name(types[i]));
        held_alone(types[i]);
        vm_init(&vm, types[i], SIZE);
        held(&vm);
        unwritable(&vm);
        interrupted(&vm);
        vm_destroy(&vm);
        vm_init(&vm, types[i], SIZE);
        fresh(&vm);
        stop = false;
        faults(&vm);
        vm_destroy(&vm);
    }
    busy_cpu();
    return done_testing();
}
