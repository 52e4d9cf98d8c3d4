/*
 * Accesses by QEMU to private pages of a mapped guest_memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A memfd takes the place of the guest_memfd.  The kernel also raises SIGBUS for
 * pages after the end of a file.  The test therefore truncates the file to make
 * pages private, and extends it to make them shared.
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/syscall.h>
#include "qemu/atomic.h"
#include "qemu/main-loop.h"
#include "qemu/memfd.h"
#include "qemu/thread.h"
#include "qapi/error.h"
#include "hw/core/cpu.h"
#include "system/kvm-private-access.h"

__thread CPUState *current_cpu;

#define PAGES 4096

typedef struct Memory {
    size_t page;
    int fd;
    char *host;
} Memory;

static void set_shared(Memory *m, size_t pages)
{
    g_assert_cmpint(ftruncate(m->fd, pages * m->page), ==, 0);
}

static Memory memory_new(size_t shared)
{
    Memory m = { .page = qemu_real_host_page_size() };

    m.fd = qemu_memfd_create("memory", m.page, false, 0, 0, &error_abort);
    set_shared(&m, shared);
    m.host = mmap(NULL, PAGES * m.page, PROT_READ | PROT_WRITE, MAP_SHARED,
                  m.fd, 0);
    g_assert(m.host != MAP_FAILED);
    kvm_private_access_add(m.host, PAGES * m.page, m.fd, "memory");
    return m;
}

static void memory_free(Memory *m)
{
    kvm_private_access_remove(m->host);
    munmap(m->host, PAGES * m->page);
    close(m->fd);
}

/* The first byte of a page; volatile, so that each access happens */
static volatile char *at(Memory *m, size_t page)
{
    return m->host + page * m->page;
}

/* Read the first byte of a page from the file, and not through the mapping */
static char in_file(Memory *m, size_t page)
{
    char c;

    g_assert_cmpint(pread(m->fd, &c, 1, page * m->page), ==, 1);
    return c;
}

static void test_read_write(void)
{
    Memory m = memory_new(4);

    *at(&m, 3) = 'x';
    g_assert_cmpint(*at(&m, 4), ==, 0);
    g_assert_cmpint(*at(&m, PAGES - 1), ==, 0);
    *at(&m, 5) = 'y';
    g_assert_cmpint(*at(&m, 3), ==, 'x');
    g_assert_cmpint(in_file(&m, 3), ==, 'x');

    set_shared(&m, PAGES);
    kvm_private_access_restore(m.host + 4 * m.page, 2 * m.page);
    /* Writes to the page while it was private are lost */
    g_assert_cmpint(*at(&m, 5), ==, 0);
    *at(&m, 4) = 'a';
    *at(&m, 5) = 'b';
    g_assert_cmpint(in_file(&m, 4), ==, 'a');
    g_assert_cmpint(in_file(&m, 5), ==, 'b');
    /* The last page was not in the range that was restored */
    *at(&m, PAGES - 1) = 'c';
    g_assert_cmpint(in_file(&m, PAGES - 1), ==, 0);
    kvm_private_access_restore(NULL, SIZE_MAX);
    *at(&m, PAGES - 1) = 'c';
    g_assert_cmpint(in_file(&m, PAGES - 1), ==, 'c');
    memory_free(&m);
}

/*
 * Access more private pages than QEMU can replace by pages of zeros at a time.
 * QEMU must then map the file again at the replaced pages.
 */
static void test_many(void)
{
    Memory m = memory_new(0);

    for (int round = 0; round < 3; round++) {
        for (size_t page = 0; page < PAGES; page++) {
            g_assert_cmpint(*at(&m, page), ==, 0);
        }
    }
    set_shared(&m, PAGES);
    kvm_private_access_restore(m.host, PAGES * m.page);
    for (size_t page = 0; page < PAGES; page++) {
        *at(&m, page) = page;
        g_assert_cmpint(in_file(&m, page), ==, (char)page);
    }
    memory_free(&m);
}

typedef struct Reader {
    Memory *m;
    bool reads, stop;
    uint64_t count;
    char seen;
} Reader;

static void *read_once(void *opaque)
{
    Reader *r = opaque;

    qatomic_set(&r->reads, true);
    r->seen = *at(r->m, 7);
    return NULL;
}

/*
 * A thread that accesses a private page in the range of a KvmPrivateAccessHold
 * waits for the release, and the page is not replaced by zeros
 */
static void test_hold(void)
{
    Memory m = memory_new(4);
    Reader r = { .m = &m };
    KvmPrivateAccessHold hold;
    QemuThread thread;

    g_assert_cmpint(*at(&m, 7), ==, 0);
    kvm_private_access_hold(&hold, m.host + 6 * m.page, 2 * m.page);
    qemu_thread_create(&thread, "reader", read_once, &r,
                       QEMU_THREAD_JOINABLE);
    while (!qatomic_read(&r.reads)) {
        g_usleep(1000);
    }
    g_usleep(20 * 1000);
    /* Other pages are not held */
    g_assert_cmpint(*at(&m, 8), ==, 0);
    set_shared(&m, PAGES);
    g_assert_cmpint(pwrite(m.fd, "z", 1, 7 * m.page), ==, 1);
    kvm_private_access_release(&hold);
    qemu_thread_join(&thread);
    g_assert_cmpint(r.seen, ==, 'z');
    memory_free(&m);
}

static void *read_on(void *opaque)
{
    Reader *r = opaque;
    size_t page = 0;

    while (!qatomic_read(&r->stop)) {
        g_assert_cmpint(*at(r->m, page), ==, 0);
        *at(r->m, page + 1) = 0;
        page = (page + 7) % (PAGES - 1);
        qatomic_set(&r->count, r->count + 1);
    }
    return NULL;
}

/* Threads access pages that are converted back and forth */
static void test_race(void)
{
    Memory m = memory_new(PAGES);
    Reader r[2] = {};
    QemuThread thread[2];
    uint64_t conversions = 0;

    for (int i = 0; i < 2; i++) {
        r[i].m = &m;
        qemu_thread_create(&thread[i], "reader", read_on, &r[i],
                           QEMU_THREAD_JOINABLE);
    }
    while (qatomic_read(&r[0].count) < 100000 ||
           qatomic_read(&r[1].count) < 100000 || conversions < 1000) {
        size_t shared = g_test_rand_int_range(0, PAGES);

        set_shared(&m, shared);
        set_shared(&m, PAGES);
        kvm_private_access_restore(m.host + shared * m.page,
                                   (PAGES - shared) * m.page);
        conversions++;
    }
    for (int i = 0; i < 2; i++) {
        qatomic_set(&r[i].stop, true);
        qemu_thread_join(&thread[i]);
    }
    /* QEMU has mapped the file's pages again in place of all replacements */
    for (size_t page = 0; page < PAGES; page++) {
        *at(&m, page) = 'r';
        g_assert_cmpint(in_file(&m, page), ==, 'r');
    }
    g_test_message("%" PRIu64 " conversions", conversions);
    memory_free(&m);
}

/* QEMU prints its warning about accesses to private pages only once */
static void test_reported(void)
{
    if (g_test_subprocess()) {
        Memory m = memory_new(4);

        for (int i = 0; i < 3; i++) {
            g_assert_cmpint(*at(&m, 9 + i), ==, 0);
            while (main_loop_wait(false), g_main_context_pending(NULL)) {
                ;
            }
        }
        main_loop_wait(true);
        memory_free(&m);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*memory memory, offset 0x9000: QEMU has "
                              "accessed a private page*");
    g_test_trap_assert_stderr_unmatched("*offset 0x9000*offset 0x*");
}

/*
 * Send this thread the SIGBUS that the kernel sends when a thread reads a page
 * whose memory has an error
 */
static void machine_check(Memory *m, size_t page)
{
    siginfo_t info = {
        .si_signo = SIGBUS,
        .si_code = BUS_MCEERR_AR,
        .si_addr = m->host + page * m->page,
    };

    g_assert_cmpint(syscall(SYS_rt_tgsigqueueinfo, getpid(),
                            qemu_get_thread_id(), SIGBUS, &info), ==, 0);
}

static bool is_poisoned(Memory *m, size_t page)
{
    return kvm_private_access_poisoned(m->host + page * m->page, m->page);
}

/*
 * If the memory of a page has an error, QEMU replaces the page by a page of
 * zeros.  QEMU remembers the page as poisoned until
 * kvm_private_access_remove().
 */
static void test_poisoned(void)
{
    enum { MANY = 100 };
    Memory m = memory_new(4);

    g_assert_cmpint(*at(&m, 9), ==, 0);
    g_assert_false(is_poisoned(&m, 9));
    machine_check(&m, 10);
    machine_check(&m, 10);
    g_assert_cmpint(*at(&m, 10), ==, 0);
    g_assert_true(is_poisoned(&m, 10));
    g_assert_false(is_poisoned(&m, 9));
    g_assert_false(is_poisoned(&m, 11));
    kvm_private_access_restore(NULL, SIZE_MAX);
    g_assert_true(is_poisoned(&m, 10));
    memory_free(&m);

    /* New memory has no poisoned pages, even if it is at the same address */
    m = memory_new(4);
    g_assert_false(is_poisoned(&m, 10));
    for (int i = 0; i < MANY; i++) {
        machine_check(&m, 1000 + i);
    }
    for (int i = 0; i < MANY; i++) {
        g_assert_true(is_poisoned(&m, 1000 + i));
    }
    memory_free(&m);
}

/*
 * A SIGBUS for memory that kvm_private_access_remove() has removed ends the
 * process, as it does without QEMU's handler
 */
static void test_others(void)
{
    if (g_test_subprocess()) {
        Memory m = memory_new(4), other = memory_new(4);

        kvm_private_access_remove(other.host);
        g_assert_cmpint(*at(&m, 4), ==, 0);
        g_assert_cmpint(*at(&other, 4), ==, 0);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    g_test_add_func("/kvm-private-access/read-write", test_read_write);
    g_test_add_func("/kvm-private-access/many", test_many);
    g_test_add_func("/kvm-private-access/hold", test_hold);
    g_test_add_func("/kvm-private-access/race", test_race);
    g_test_add_func("/kvm-private-access/reported", test_reported);
    g_test_add_func("/kvm-private-access/others", test_others);
    /*
     * This must be the last test.  It makes more pages poisoned than QEMU can
     * remember, after which QEMU takes any page for poisoned.
     */
    g_test_add_func("/kvm-private-access/poisoned", test_poisoned);
    return g_test_run();
}
