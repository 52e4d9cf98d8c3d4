/*
 * Workload of the test guest: it changes private and shared memory, and later
 * checks the contents
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * In each tick, the guest reads the bytes that the previous tick has written to
 * private memory and to the disk.  Disk accesses use the shared bounce buffers
 * of virtio-blk.  The guest adds these bytes to a chain of digests, and writes
 * new bytes, which follow from the digest, to both.  A program that knows the
 * seed can compute the digest of each tick outside of the guest.  A wrong byte,
 * a lost tick or a repeated tick changes all further digests.
 * python/sevmig/guest.py computes the digests and must be changed together with
 * this file:
 *
 *   chain(0)   = SHAKE128("chain", seed)
 *   part(p, n) = SHAKE128("dyn", p in one byte, chain(n))
 *   dyn(n)     = part(0, n) to part(cpus - 1, n), of the same size
 *   io(n)      = SHAKE128("io", chain(n)), the first 64 bytes of each 4 KiB
 *                replaced by the shared marker
 *   chain(n+1) = SHAKE128("next", chain(n), dyn(n) and io(n) as read back)
 *
 * Each CPU has a thread.  In a tick, the threads write one part of dyn each, at
 * the same time; in the next tick each of them writes another part.  The output
 * of a tick says on which CPUs the threads have run.
 *
 * The private marker is only in this program's private memory.  The shared marker
 * goes through shared memory with each disk access.  Neither is on the command
 * line.
 */
#include "workload.h"
#include "shake.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define CHAIN_SIZE 16
#define MARKER_SIZE 64
#define MARKED_PAGES 64
#define IO_SIZE (64 * 1024)
#define IO_SLOTS 64

void say(const char *fmt, ...)
{
    char line[512];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
    va_end(ap);
    if (n < 0) {
        return;
    }
    if ((size_t)n > sizeof(line) - 2) {
        n = sizeof(line) - 2;
    }
    line[n++] = '\n';
    if (write(STDOUT_FILENO, line, n) < 0) {
        _exit(1);
    }
}

static void *private_pages(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (p == MAP_FAILED) {
        say("guest: no memory for %zu bytes: %s", size, strerror(errno));
        return NULL;
    }
    return p;
}

/* @out = SHAKE128(@label, @in) */
static void derive(void *out, size_t size, const char *label,
                   const void *in, size_t in_size)
{
    Shake s;

    shake_init(&s);
    shake_absorb(&s, label, strlen(label));
    shake_absorb(&s, in, in_size);
    shake_finish(&s);
    shake_squeeze(&s, out, size);
}

typedef struct Writers {
    unsigned cpus;
    uint8_t *dyn;
    size_t part_size;
    /* State of the current tick */
    unsigned long tick;
    uint8_t chain[CHAIN_SIZE];
    uint64_t wrote;             /* bitmap of the CPUs that have written */
    pthread_barrier_t begin, end;
} Writers;

typedef struct Writer {
    Writers *all;
    unsigned cpu;
} Writer;

static void *writer_run(void *opaque)
{
    Writer *w = opaque;
    Writers *all = w->all;
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET(w->cpu, &cpus);
    if (sched_setaffinity(0, sizeof(cpus), &cpus)) {
        say("guest: CPU %u: %s", w->cpu, strerror(errno));
    }
    for (;;) {
        uint8_t in[1 + CHAIN_SIZE];

        pthread_barrier_wait(&all->begin);
        in[0] = (w->cpu + all->tick) % all->cpus;
        memcpy(in + 1, all->chain, CHAIN_SIZE);
        derive(all->dyn + in[0] * all->part_size, all->part_size, "dyn", in,
               sizeof(in));
        __atomic_fetch_or(&all->wrote, 1ULL << (sched_getcpu() & 63),
                          __ATOMIC_RELAXED);
        pthread_barrier_wait(&all->end);
    }
    return NULL;
}

static bool writers_start(Writers *all)
{
    pthread_barrier_init(&all->begin, NULL, all->cpus + 1);
    pthread_barrier_init(&all->end, NULL, all->cpus + 1);
    for (unsigned cpu = 0; cpu < all->cpus; cpu++) {
        Writer *w = malloc(sizeof(*w));
        pthread_t thread;

        if (!w) {
            say("guest: no memory for a thread");
            return false;
        }
        *w = (Writer) { .all = all, .cpu = cpu };
        errno = pthread_create(&thread, NULL, writer_run, w);
        if (errno) {
            say("guest: no thread: %s", strerror(errno));
            return false;
        }
    }
    return true;
}

/*
 * Write dyn(n) of the head comment, where @chain is chain(n).  Returns a bitmap
 * of the CPUs that have written.
 */
static uint64_t writers_tick(Writers *all, unsigned long tick,
                             const uint8_t *chain)
{
    all->tick = tick;
    memcpy(all->chain, chain, CHAIN_SIZE);
    all->wrote = 0;
    pthread_barrier_wait(&all->begin);
    pthread_barrier_wait(&all->end);
    return all->wrote;
}

/* A fast checksum, which need not detect deliberate changes */
static uint64_t fold(const uint64_t *p, size_t size)
{
    uint64_t h = 1;

    for (size_t i = 0; i < size / sizeof(*p); i++) {
        h = (h ^ p[i]) * 0x9e3779b97f4a7c15ULL;
        h ^= h >> 29;
    }
    return h;
}

/*
 * Copy word by word, because memcpy() may leave the marker in vector
 * registers.  SEV does not encrypt registers, and QEMU sees and sends them.
 */
static void marker_put(volatile uint64_t *to, const volatile uint64_t *marker)
{
    for (size_t i = 0; i < MARKER_SIZE / sizeof(*to); i++) {
        to[i] = marker[i];
    }
}

static bool marker_is(const volatile uint64_t *at,
                      const volatile uint64_t *marker)
{
    uint64_t diff = 0;

    for (size_t i = 0; i < MARKER_SIZE / sizeof(*at); i++) {
        diff |= at[i] ^ marker[i];
    }
    return !diff;
}

static uint8_t *marked_pages(const uint64_t *marker)
{
    uint8_t *p = private_pages(MARKED_PAGES * PAGE);

    for (size_t i = 0; p && i < MARKED_PAGES; i++) {
        marker_put((uint64_t *)(p + i * PAGE + i * 32), marker);
    }
    return p;
}

static unsigned marked_pages_good(const uint8_t *p, const uint64_t *marker)
{
    unsigned good = 0;

    for (size_t i = 0; i < MARKED_PAGES; i++) {
        good += marker_is((const uint64_t *)(p + i * PAGE + i * 32), marker);
    }
    return good;
}

static void churn_write(const char *driver, const char *what, const char *dev)
{
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", driver, what);
    fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, dev, strlen(dev)) < 0) {
        say("churn: %s %s: %s", what, dev, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}

static bool churn_read(const char *disk, uint8_t *buf, size_t size)
{
    ssize_t n = -1;

    for (int i = 0; i < 200 && n != (ssize_t)size; i++) {
        int fd = open(disk, O_RDONLY | O_DIRECT);

        if (fd >= 0) {
            n = read(fd, buf, size);
            close(fd);
        }
        if (n != (ssize_t)size) {
            usleep(10000);
        }
    }
    return n == (ssize_t)size;
}

/*
 * Unbind the driver of a virtio device and bind it again, repeatedly.  Each
 * time, the guest converts the device's rings to private and back to shared.
 * This function runs in its own process.
 */
static void churn(const char *disk)
{
    char link[128], path[256], *dev;
    uint8_t *first = private_pages(IO_SIZE), *now = private_pages(IO_SIZE);
    unsigned long done = 0, bad = 0;

    snprintf(link, sizeof(link), "/sys/class/block/%s", disk + 5);
    dev = realpath(link, path) ? strstr(path, "/virtio") : NULL;
    if (!dev) {
        say("churn: %s is not on a virtio device", disk);
        return;
    }
    *dev = 0;
    dev = strrchr(path, '/') + 1;
    if (!churn_read(disk, first, IO_SIZE)) {
        say("churn: cannot read %s", disk);
        return;
    }
    for (;;) {
        churn_write("/sys/bus/pci/drivers/virtio-pci", "unbind", dev);
        churn_write("/sys/bus/pci/drivers/virtio-pci", "bind", dev);
        if (!churn_read(disk, now, IO_SIZE) || memcmp(first, now, IO_SIZE)) {
            bad++;
        }
        memset(now, 0, IO_SIZE);
        if (++done % 5 == 0) {
            say("churn %lu bad %lu", done, bad);
        }
    }
}

/* Compute io(n), which the tick n writes to the disk */
static void io_derive(uint8_t *io, const uint8_t *chain, const void *marker)
{
    derive(io, IO_SIZE, "io", chain, CHAIN_SIZE);
    for (size_t i = 0; i < IO_SIZE; i += PAGE) {
        memcpy(io + i, marker, MARKER_SIZE);
    }
}

/* Read from the disk what a tick has written, and compare it with @io */
static bool io_read_back(int disk, off_t at, const uint8_t *io, uint8_t *back)
{
    memset(back, 0, IO_SIZE);
    return pread(disk, back, IO_SIZE, at) == IO_SIZE &&
           !memcmp(io, back, IO_SIZE);
}

/* Compute chain(n+1) from chain(n), dyn(n) and io(n), in place */
static void chain_next(uint8_t *chain, const uint8_t *dyn, size_t dyn_size,
                       const uint8_t *io)
{
    Shake s;

    shake_init(&s);
    shake_absorb(&s, "next", 4);
    shake_absorb(&s, chain, CHAIN_SIZE);
    shake_absorb(&s, dyn, dyn_size);
    shake_absorb(&s, io, IO_SIZE);
    shake_finish(&s);
    shake_squeeze(&s, chain, CHAIN_SIZE);
}

static void chain_hex(const uint8_t *chain, char hex[2 * CHAIN_SIZE + 1])
{
    for (size_t i = 0; i < CHAIN_SIZE; i++) {
        sprintf(hex + 2 * i, "%02x", chain[i]);
    }
}

void workload_run(const WorkloadOptions *opt)
{
    uint64_t private_marker[MARKER_SIZE / 8], shared_marker[MARKER_SIZE / 8];
    uint8_t chain[CHAIN_SIZE];
    size_t seed_size = strlen(opt->seed);
    Writers writers = {
        .cpus = opt->cpus,
        .part_size = opt->dynamic_size / opt->cpus,
    };
    size_t dyn_size = writers.part_size * writers.cpus;
    uint8_t *fixed, *io, *io_back, *marked;
    uint64_t fixed_fold;
    unsigned long io_bad = 0;
    int disk;

    if (opt->churn && fork() == 0) {
        churn(opt->churn);
        _exit(1);
    }
    fixed = private_pages(opt->static_size);
    writers.dyn = private_pages(dyn_size);
    io = private_pages(IO_SIZE);
    io_back = private_pages(IO_SIZE);
    disk = open(opt->disk, O_RDWR | O_DIRECT);
    if (disk < 0) {
        say("guest: %s: %s", opt->disk, strerror(errno));
        return;
    }
    derive(private_marker, MARKER_SIZE, "private marker", opt->seed,
           seed_size);
    derive(shared_marker, MARKER_SIZE, "shared marker", opt->seed, seed_size);
    marked = marked_pages(private_marker);
    if (!fixed || !writers.dyn || !io || !io_back || !marked ||
        !writers_start(&writers)) {
        return;
    }
    derive(fixed, opt->static_size, "static", opt->seed, seed_size);
    fixed_fold = fold((uint64_t *)fixed, opt->static_size);
    derive(chain, sizeof(chain), "chain", opt->seed, seed_size);
    say("guest: runs; %zu KiB static, %zu KiB rewritten every tick",
        opt->static_size >> 10, dyn_size >> 10);

    for (unsigned long tick = 0;; tick++) {
        off_t at = (off_t)(tick % IO_SLOTS) * IO_SIZE;
        uint64_t fold_now, wrote;
        struct timespec mono, real;
        char hex[2 * CHAIN_SIZE + 1];

        wrote = writers_tick(&writers, tick, chain);
        io_derive(io, chain, shared_marker);
        if (pwrite(disk, io, IO_SIZE, at) != IO_SIZE) {
            io_bad++;
        }
        fold_now = fold((uint64_t *)fixed, opt->static_size);
        clock_gettime(CLOCK_MONOTONIC, &mono);
        clock_gettime(CLOCK_REALTIME, &real);
        chain_hex(chain, hex);
        say("tick %lu chain %s static %016llx bad %d marks %u io %lu "
            "cpus %llx mono %lld.%03ld real %lld.%03ld", tick, hex,
            (unsigned long long)fold_now, fold_now != fixed_fold,
            marked_pages_good(marked, private_marker), io_bad,
            (unsigned long long)wrote,
            (long long)mono.tv_sec, mono.tv_nsec / 1000000,
            (long long)real.tv_sec, real.tv_nsec / 1000000);

        usleep(opt->period_ms * 1000);

        io_bad += !io_read_back(disk, at, io, io_back);
        chain_next(chain, writers.dyn, dyn_size, io_back);
    }
}
