/*
 * Accesses by QEMU to private pages of a mapped guest_memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Everything that runs in the signal handler is async-signal-safe: atomic
 * operations, system calls, and qemu_bh_schedule().
 */
#include "qemu/osdep.h"
#include <signal.h>
#include <sys/mman.h>
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "hw/core/cpu.h"
#include "system/kvm-private-access.h"
#include "trace.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/*
 * Maximum number of private pages that are replaced by pages of zeros at a
 * time.  A write allocates memory for a page of zeros, so this also limits the
 * memory that a guest can make QEMU allocate (4 MiB).  When the maximum is
 * reached, make_accessible() replaces all pages of zeros by the guest_memfd
 * again.  A thread that still accesses one of these pages then faults again.
 */
#define FILLED_MAX 1024

/*
 * Maximum number of poisoned pages whose addresses are stored.  If there are
 * more poisoned pages, all pages count as poisoned.
 */
#define POISONED_MAX 64

/*
 * Time in ns after which a waiting thread checks state.holds again.  A thread
 * that faults on a page waits as long as the page is in one of state.holds.
 */
#define HELD_SLEEP_NS (100 * 1000)

typedef struct Region {
    char *host;
    size_t size;
    int fd;
    char *name;
    /*
     * Number of this region's pages that were replaced by zeros, and offset of
     * the first such page; protected by the spinlock
     */
    uint64_t accesses;
    uint64_t first_offset;
    /* protected by the BQL */
    bool reported;
    QLIST_ENTRY(Region) next;
} Region;

typedef struct Filled {
    Region *region;
    char *page;
} Filled;

/* Static, because signal handlers belong to the process and have no argument */
static struct {
    QemuSpin lock;
    QLIST_HEAD(, Region) regions;
    QLIST_HEAD(, KvmPrivateAccessHold) holds;
    Filled filled[FILLED_MAX];
    size_t nfilled;
    char *poisoned[POISONED_MAX];
    size_t npoisoned;   /* written atomically, with the spinlock held */

    /* Written before the handler is installed */
    size_t page_size;
    struct sigaction next;
    QEMUBH *report_bh;
    QEMUBH *ao_bh;

    /*
     * Address from the last BUS_MCEERR_AO ("action optional" machine check)
     * outside of vCPU threads, for report_ao(); atomic
     */
    void *ao_addr;
} state;

static Region *find_region(const char *page)
{
    Region *r;

    QLIST_FOREACH(r, &state.regions, next) {
        if (page >= r->host && page - r->host < r->size) {
            return r;
        }
    }
    return NULL;
}

static bool is_held(const char *page)
{
    KvmPrivateAccessHold *h;

    QLIST_FOREACH(h, &state.holds, next) {
        if (page >= h->host && page - h->host < h->size) {
            return true;
        }
    }
    return false;
}

/*
 * QEMU calls madvise() for all guest memory.  A new mapping of @page loses this
 * advice, so give it again.
 */
static void advise(char *page)
{
    madvise(page, state.page_size, MADV_DONTDUMP);
    madvise(page, state.page_size, MADV_DONTFORK);
}

/* The caller holds the spinlock */
static void restore(const char *host, size_t size)
{
    for (size_t i = 0; i < state.nfilled; ) {
        Filled *f = &state.filled[i];

        if (host && (f->page < host || f->page - host >= size)) {
            i++;
            continue;
        }
        if (mmap(f->page, state.page_size, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_FIXED, f->region->fd,
                 f->page - f->region->host) == MAP_FAILED) {
            /* Replacing a mapping by one of the same size never fails */
            abort();
        }
        advise(f->page);
        *f = state.filled[--state.nfilled];
    }
}

/* The caller holds the spinlock */
static void remember_poisoned(char *page)
{
    size_t n = state.npoisoned;

    for (size_t i = 0; i < MIN(n, POISONED_MAX); i++) {
        if (state.poisoned[i] == page) {
            return;
        }
    }
    if (n < POISONED_MAX) {
        state.poisoned[n] = page;
    }
    qatomic_set(&state.npoisoned, MIN(n + 1, POISONED_MAX + 1));
}

bool kvm_private_access_poisoned(const void *host, size_t size)
{
    const char *start = host;
    size_t n = qatomic_read(&state.npoisoned);
    bool found = n > POISONED_MAX;

    if (!n || found) {
        return found;
    }
    qemu_spin_lock(&state.lock);
    n = MIN(state.npoisoned, POISONED_MAX);
    for (size_t i = 0; i < n && !found; i++) {
        found = state.poisoned[i] >= start && state.poisoned[i] - start < size;
    }
    qemu_spin_unlock(&state.lock);
    return found;
}

/*
 * Make @page, which is in @r, accessible.  The caller holds the spinlock.
 * @poisoned: the kernel has said that the memory of the page is bad
 *
 * If the page has become shared since the fault, madvise() succeeds, and the
 * file stays mapped.  If the page becomes shared after madvise() has failed,
 * this function still maps a page of zeros.  The thread that converted the page
 * then calls kvm_private_access_restore(), which waits for the spinlock, finds
 * the page in state.filled and maps the file again.
 */
static bool make_accessible(Region *r, char *page, bool poisoned)
{
    if (!madvise(page, state.page_size, MADV_POPULATE_WRITE)) {
        return true;
    }
    if (errno != EFAULT && errno != EHWPOISON) {
        return false;
    }
    if (poisoned || errno == EHWPOISON) {
        remember_poisoned(page);
    }
    if (state.nfilled == FILLED_MAX) {
        restore(NULL, 0);
    }
    if (mmap(page, state.page_size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
             -1, 0) == MAP_FAILED) {
        return false;
    }
    advise(page);
    state.filled[state.nfilled++] = (Filled) { r, page };
    if (!r->accesses++) {
        r->first_offset = page - r->host;
    }
    return true;
}

static bool handle_fault(void *addr, bool poisoned)
{
    static const struct timespec pause = { .tv_nsec = HELD_SLEEP_NS };
    char *page = QEMU_ALIGN_PTR_DOWN(addr, state.page_size);

    for (;;) {
        Region *r;
        bool held, ok = false;

        qemu_spin_lock(&state.lock);
        r = find_region(page);
        held = r && is_held(page);
        if (r && !held) {
            ok = make_accessible(r, page, poisoned);
        }
        qemu_spin_unlock(&state.lock);
        if (!held) {
            return ok;
        }
        nanosleep(&pause, NULL);
    }
}

static void call_next(int sig, siginfo_t *info, void *context)
{
    if (state.next.sa_flags & SA_SIGINFO) {
        state.next.sa_sigaction(sig, info, context);
    } else if (state.next.sa_handler != SIG_DFL &&
               state.next.sa_handler != SIG_IGN) {
        state.next.sa_handler(sig);
    } else {
        /*
         * Restore the previous action, SIG_DFL or SIG_IGN.  If the signal is
         * due to a fault, the thread repeats the access after this handler
         * returns.  The access faults again, and the kernel kills the process.
         * The kernel does so for SIG_IGN, too, because a process cannot ignore
         * the SIGBUS of a fault.
         */
        sigaction(sig, &state.next, NULL);
    }
}

static void sigbus_handler(int sig, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    /*
     * In a vCPU thread, BUS_MCEERR_AR does not count as an access by QEMU: KVM
     * uses it to report that the guest has accessed a poisoned page.  It is
     * passed to the previous handler, which reports the page to the guest.
     */
    bool is_access = info->si_code == BUS_ADRERR ||
                     (info->si_code == BUS_MCEERR_AR && !current_cpu);

    if (is_access &&
        handle_fault(info->si_addr, info->si_code == BUS_MCEERR_AR)) {
        qemu_bh_schedule(state.report_bh);
    } else if (info->si_code == BUS_MCEERR_AO && !current_cpu) {
        /* The previous handler takes locks, so report_ao() calls it later */
        qatomic_set(&state.ao_addr, info->si_addr);
        qemu_bh_schedule(state.ao_bh);
    } else {
        call_next(sig, info, context);
    }
    errno = saved_errno;
}

static void report_ao(void *opaque)
{
    siginfo_t info = {
        .si_code = BUS_MCEERR_AO,
        .si_addr = qatomic_read(&state.ao_addr),
    };

    call_next(SIGBUS, &info, NULL);
}

static void report_accesses(void *opaque)
{
    Region *r;

    QLIST_FOREACH(r, &state.regions, next) {
        uint64_t accesses, offset;

        qemu_spin_lock(&state.lock);
        accesses = r->accesses;
        offset = r->first_offset;
        qemu_spin_unlock(&state.lock);
        if (!accesses) {
            continue;
        }
        trace_kvm_private_access(r->name, accesses);
        if (!r->reported) {
            r->reported = true;
            warn_report("memory %s, offset 0x%" PRIx64 ": QEMU has accessed a "
                        "private page of the guest, for a monitor command or "
                        "for a device that the guest has given its address: "
                        "such reads give zeros, such writes are lost (reported "
                        "once)", r->name, offset);
        }
    }
}

/*
 * QEMU creates threads with SIGBUS unblocked.  The main thread, however, blocks
 * SIGBUS and reads it from a signalfd.  The kernel kills a process whose thread
 * faults while SIGBUS is blocked, so unblock it in the main thread, too.
 */
static void install_handler(void)
{
    struct sigaction action = {
        .sa_flags = SA_SIGINFO,
        .sa_sigaction = sigbus_handler,
    };
    sigset_t set;

    qemu_spin_init(&state.lock);
    state.page_size = qemu_real_host_page_size();
    state.report_bh = qemu_bh_new(report_accesses, NULL);
    state.ao_bh = qemu_bh_new(report_ao, NULL);
    sigaction(SIGBUS, NULL, &state.next);
    sigaction(SIGBUS, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void kvm_private_access_add(void *host, size_t size, int fd, const char *name)
{
    Region *r = g_new0(Region, 1);

    if (!state.report_bh) {
        install_handler();
    }
    assert(QEMU_PTR_IS_ALIGNED(host, state.page_size) &&
           QEMU_IS_ALIGNED(size, state.page_size));
    r->host = host;
    r->size = size;
    r->fd = fd;
    r->name = g_strdup(name);
    qemu_spin_lock(&state.lock);
    QLIST_INSERT_HEAD(&state.regions, r, next);
    qemu_spin_unlock(&state.lock);
}

/* The caller holds the spinlock */
static void forget_poisoned(Region *r)
{
    size_t n = state.npoisoned;

    if (n > POISONED_MAX) {
        return;
    }
    for (size_t i = 0; i < n; ) {
        char *page = state.poisoned[i];

        if (page >= r->host && page - r->host < r->size) {
            state.poisoned[i] = state.poisoned[--n];
        } else {
            i++;
        }
    }
    qatomic_set(&state.npoisoned, n);
}

void kvm_private_access_remove(void *host)
{
    Region *r;

    qemu_spin_lock(&state.lock);
    r = find_region(host);
    if (r) {
        restore(r->host, r->size);
        QLIST_REMOVE(r, next);
        forget_poisoned(r);
    }
    qemu_spin_unlock(&state.lock);
    if (r) {
        g_free(r->name);
        g_free(r);
    }
}

void kvm_private_access_restore(void *host, size_t size)
{
    qemu_spin_lock(&state.lock);
    restore(host, size);
    qemu_spin_unlock(&state.lock);
}

void kvm_private_access_hold(KvmPrivateAccessHold *hold, void *host,
                             size_t size)
{
    hold->host = host;
    hold->size = size;
    qemu_spin_lock(&state.lock);
    QLIST_INSERT_HEAD(&state.holds, hold, next);
    restore(host, size);
    qemu_spin_unlock(&state.lock);
}

void kvm_private_access_release(KvmPrivateAccessHold *hold)
{
    qemu_spin_lock(&state.lock);
    QLIST_REMOVE(hold, next);
    qemu_spin_unlock(&state.lock);
}
