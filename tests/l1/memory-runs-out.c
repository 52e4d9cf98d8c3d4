/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel runs out of memory at any allocation of an ioctl or system call.
 * The call must then fail without an effect, and the next call must succeed.
 *
 * The test needs a kernel with fault injection (scripts/l1 --kernel kasan).  It
 * repeats a call and lets the call's n-th allocation or access to user memory
 * fail, for n = 1, 2, ..., until the call makes fewer than n of them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include "sev-transport.h"

#define PAGES   (GUEST_SIZE / PAGE)
#define LOG     KVM_MEM_LOG_DIRTY_PAGES

static int fail_nth, nth;
static long injected, refused;

static void set(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY);

    if (fd < 0 || write(fd, value, strlen(value)) < 0) {
        bail("%s", path);
    }
    close(fd);
}

static void arm(int n)
{
    char s[16];
    int len = snprintf(s, sizeof(s), "%d", n);

    /*
     * pwrite() reads @s from user memory, so a failure that was armed before
     * can happen in this pwrite(), which then returns EFAULT.  An armed failure
     * happens only once, so the next pwrite() succeeds.
     */
    while (pwrite(fail_nth, s, len, 0) < 0) {
        if (errno != EFAULT) {
            bail("/proc/self/fail-nth");
        }
    }
}

/* Did the failure happen?  Disables further failures. */
static bool disarm(void)
{
    char s[16] = "";

    /*
     * A failure that has not happened in the tested call may hit this pread().
     * The pread() then returns an error.  Otherwise it reads a number, which is
     * 0 if and only if the failure has happened in the tested call.
     */
    bool happened = pread(fail_nth, s, sizeof(s) - 1, 0) > 0 && !atoi(s);

    arm(0);
    return happened;
}

static struct vm vm, other;
static struct packet packet;

/* The state that a failed call must not have changed */
struct state {
    uint8_t bits[PAGES / 8];
    bool open[PAGES];
    bool log;
};

static void look(struct state *s)
{
    static uint64_t dirty[PAGES / 64];
    struct kvm_dirty_log log = { .dirty_bitmap = dirty };

    memset(s, 0, sizeof(*s));
    if (vm_bitmap(&vm, 0, PAGES, s->bits)) {
        bail("KVM_GET_PAGE_ENC_BITMAP");
    }
    for (unsigned i = 0; i < PAGES; i++) {
        s->open[i] = !touch(vm.mem + i * PAGE);
    }
    s->log = !xioctl(vm.fd, KVM_GET_DIRTY_LOG, &log);
}

/* A call that returns 0 or more, or -errno */
typedef int call_fn(void);

/*
 * Make @call fail at each possible place.  @call must either fail with one of
 * the expected errors and without an effect, or succeed.  If @call succeeds,
 * @undo reverts its effect.
 */
static void run(const char *what, call_fn *call, call_fn *undo)
{
    static struct state before, after;
    long failures = 0, survived = 0;
    int n, r = 0;

    for (n = 1; n < 1000; n++) {
        bool hit;

        look(&before);
        nth = n;
        arm(n);
        r = call();
        hit = disarm();
        if (!hit) {
            break;
        }
        injected++;
        if (r >= 0) {       /* @call tolerates this failure */
            survived++;
            if (undo && undo() < 0) {
                ok(false,
                   "%s, after it survived a failed allocation, can be undone",
                   what);
                return;
            }
            continue;
        }
        failures++;
        refused++;
        look(&after);
        if ((r != -ENOMEM && r != -EFAULT) ||
            memcmp(&before, &after, sizeof(before))) {
            ok(false,
               "%s fails with ENOMEM or EFAULT and changes nothing (failure "
               "%d: %s, %s)", what, n, strerror(-r),
               memcmp(&before, &after, sizeof(before)) ?
               "it has changed something" : "it has changed nothing");
            return;
        }
    }
    ok(n < 1000 && r >= 0,
       "%s fails %ld times and survives %ld, then works (%s)", what, failures,
       survived, strerror(r < 0 ? -r : 0));
    if (undo && undo() < 0) {
        ok(false, "%s, after it succeeded, can be undone", what);
    }
}

static int to_private(void)
{
    return vm_convert(&vm, 0x100 * PAGE, 0x100 * PAGE, PRIVATE);
}

static int to_shared(void)
{
    return vm_convert(&vm, 0x100 * PAGE, 0x100 * PAGE, SHARED);
}

static int bitmap(void)
{
    static uint8_t bits[PAGES / 8];

    return vm_bitmap(&vm, 0, PAGES, bits);
}

static int created = -1;

static int create(void)
{
    created = vm_gmem(&vm, 64 << 20, GUEST_MEMFD_FLAG_MMAP |
                                     GUEST_MEMFD_FLAG_INIT_SHARED);
    return created;
}

static int close_created(void)
{
    return close(created);
}

static int log_on(void)
{
    return vm_slot(&vm, 0, LOG, 0, GUEST_SIZE, 0);
}

static int log_off(void)
{
    return vm_slot(&vm, 0, 0, 0, GUEST_SIZE, 0);
}

static int new_slot(void)
{
    return vm_slot(&other, 1, LOG, 64 << 20, GUEST_SIZE, 0);
}

static int delete_slot(void)
{
    return vm_slot(&other, 1, 0, 64 << 20, 0, 0);
}

static int allocate(void)
{
    return fallocate(vm.gmem, FALLOC_FL_KEEP_SIZE, 0x300 * PAGE, 16 * PAGE) ?
           -errno : 0;
}

static int punch(void)
{
    return fallocate(vm.gmem, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                     0x300 * PAGE, 16 * PAGE) ? -errno : 0;
}

/*
 * The guest accesses a page that is not allocated.  If an allocation fails
 * in KVM, KVM_RUN returns an error.  The next KVM_RUN must succeed.
 */
static int guest_touch(void)
{
    struct kvm_regs regs = { .r8 = GUEST_READ, .rdi = 0x300 * PAGE }, now;
    int r;

    arm(0);
    CHECK(ioctl(vm.vcpu, KVM_GET_REGS, &now));
    regs.rip = now.rip;
    regs.rflags = now.rflags;
    CHECK(ioctl(vm.vcpu, KVM_SET_REGS, &regs));
    arm(nth);
    r = xioctl(vm.vcpu, KVM_RUN, NULL);
    if (r < 0) {
        bool hit = disarm();

        /* Repeat the access, as the guest would */
        if (guest_run(&vm)) {
            return -EIO;
        }
        if (!hit) {
            return r;
        }
    }
    return 0;
}

static int launch_update(void)
{
    struct kvm_sev_launch_update_data args = {
        .uaddr = (uintptr_t)other.mem, .len = 16 * PAGE,
    };

    return sev_cmd(&other, KVM_SEV_LAUNCH_UPDATE_DATA, &args);
}

static int send_page(void)
{
    return transport_send(&vm, 0x20000, &packet);
}

static int receive_page(void)
{
    return transport_receive(&other, 0x20000, &packet);
}

/*
 * The module fail_rebind makes kvm_gmem_rebind() fail after half of its range.
 * KVM must then undo the first half.
 */
static void rebind(void)
{
    static const char left[] = "/sys/module/fail_rebind/parameters/left";
    static struct state before, after;
    int r;

    prctl(PR_SET_NAME, "l1-fail-rebind");
    for (int on = 1; on >= 0; on--) {
        look(&before);
        set(left, "1");
        r = on ? log_on() : log_off();
        look(&after);
        ok(r == -ENOMEM && !memcmp(&before, &after, sizeof(before)),
           "switching the log %s when the slot cannot be bound again fails "
           "with ENOMEM (%s) and changes nothing", on ? "on" : "off",
           strerror(-r));
        ok(!guest_write(&vm, 0x20000, 0x1234 + on) &&
           guest_read(&vm, 0x20000) == 0x1234u + on &&
           !to_shared() && !to_private() && !punch() && !allocate(),
           "the guest and conversions go on after the slot could not be bound "
           "again");
        ok(!(on ? log_on() : log_off()),
           "the log can be switched %s after the slot could not be bound again",
           on ? "on" : "off");
    }
    prctl(PR_SET_NAME, "l1-memory");
}

static void run_vm(enum vm_type type)
{
    note("%s VM", vm_type_name(type));
    vm_init(&vm, type, GUEST_SIZE);
    if (!ok(!guest_launch(&vm, 0x40000),
            "a guest starts before allocations fail")) {
        return;
    }
    MUST(guest_write(&vm, 0x20000, 1));
    MUST(to_shared());
    memset(vm.mem + 0x100 * PAGE, 1, 0x100 * PAGE);
    /* new_slot() adds a second slot to the VM, with this second guest_memfd */
    other = vm;
    other.gmem = CHECK(vm_gmem(&vm, GUEST_SIZE, GUEST_MEMFD_FLAG_MMAP |
                                                GUEST_MEMFD_FLAG_INIT_SHARED));
    run("a conversion to private", to_private, to_shared);
    MUST(to_private());
    run("a conversion to shared", to_shared, to_private);
    run("reading the bitmap", bitmap, NULL);
    run("creating a guest_memfd", create, close_created);
    run("switching the log on", log_on, log_off);
    MUST(log_on());
    run("switching the log off", log_off, log_on);
    MUST(log_off());
    run("creating a slot", new_slot, delete_slot);
    MUST(new_slot());
    run("deleting a slot", delete_slot, new_slot);
    run("allocating pages", allocate, punch);
    MUST(punch());
    run("a page fault of the guest", guest_touch, punch);
    if (!access("/sys/module/fail_rebind", F_OK)) {
        rebind();
    } else {
        ok(true, "kvm_gmem_rebind() # SKIP fail_rebind.ko is not loaded");
    }
    close(other.gmem);
    vm_destroy(&vm);
}

static void run_sev(void)
{
    struct kvm_sev_launch_start start = { 0 };

    vm_init(&other, VM_SEV, GUEST_SIZE);
    vm_init(&vm, VM_SEV, GUEST_SIZE);
    SEV_MUST(&other, KVM_SEV_LAUNCH_START, &start);
    run("LAUNCH_UPDATE_DATA", launch_update, NULL);
    vm_destroy(&other);
    vm_init(&other, VM_SEV, GUEST_SIZE);
    if (!ok(!guest_launch(&vm, 0x40000) && !transport_start(&vm, &other),
            "a guest whose pages are sent while allocations fail starts")) {
        return;
    }
    run("SEND_UPDATE_DATA", send_page, NULL);
    MUST(vm_convert(&other, 0x20000, PAGE, PRIVATE));
    MUST(send_page());
    run("RECEIVE_UPDATE_DATA", receive_page, NULL);
    vm_destroy(&other);
    vm_destroy(&vm);
}

int main(void)
{
    static const char *const all[][2] = {
        { "failslab/ignore-gfp-wait", "N" },
        { "failslab/cache-filter", "N" },
        { "fail_page_alloc/ignore-gfp-wait", "N" },
        { "fail_page_alloc/ignore-gfp-highmem", "N" },
        { "fail_page_alloc/min-order", "0" },
        { "failslab/verbose", "0" },
        { "fail_page_alloc/verbose", "0" },
        { "fail_usercopy/verbose", "0" },
    };
    char path[128];

    fail_nth = open("/proc/self/fail-nth", O_RDWR);
    if (fail_nth < 0) {
        skip_all("this kernel has no fault injection");
    }
    vm_require(VM_SW_PROTECTED);
    vm_require(VM_SEV);
    mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        snprintf(path, sizeof(path), "/sys/kernel/debug/%s", all[i][0]);
        set(path, all[i][1]);
    }
    run_vm(VM_SW_PROTECTED);
    run_vm(VM_SEV);
    run_sev();
    ok(injected > 20 && refused > 10,
       "of %ld failed allocations, the calls reported %ld as an error",
       injected, refused);
    return done_testing();
}
