/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unload and load the modules repeatedly, and run VMs in between.  Nothing may
 * remain after an unload, and a module in use must not be unloaded.
 *
 *   l1-reload [CYCLES]      default 15; "make check-reload" does 100
 */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/stat.h>
#include "guest.h"
#include "meminfo.h"

/*
 * Cycles before the first measurement of memory.  In these cycles, the kernel
 * makes the allocations that it makes only once and never frees.
 */
#define WARM            4
/* More SEV VMs than any emulated host has ASIDs */
#define MAX_ASIDS       1024
/*
 * Memory in kB that may be missing at the end: a constant part and a part per
 * cycle.  A VM that is not freed takes more than SLACK_CYCLE_KB.  To show that
 * the test would notice such a VM, main() leaks CONTROL_KB per cycle and checks
 * that the test notices this.
 */
#define SLACK_KB        1024
#define SLACK_CYCLE_KB  16
#define CONTROL_KB      64

struct image {
    const char *name;
    void *data;
    size_t size;
};

static struct image kvm = { .name = "kvm" }, kvm_amd = { .name = "kvm-amd" };

static void image_read(struct image *image, const char *set)
{
    const char *build = getenv("BUILD");
    struct stat st;
    char path[512];
    size_t done;
    int fd;

    snprintf(path, sizeof(path), "%s/l1/modules/%s/%s.ko",
             build ? build : "/b", set, image->name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        bail("%s (scripts/host/modules makes it)", path);
    }
    CHECK(fstat(fd, &st));
    free(image->data);
    image->size = st.st_size;
    image->data = malloc(image->size);
    for (done = 0; done < image->size; ) {
        done += CHECK(read(fd, (char *)image->data + done, image->size - done));
    }
    close(fd);
}

static int unload(const char *name)
{
    return syscall(SYS_delete_module, name, O_NONBLOCK) ? -errno : 0;
}

static int load(const struct image *image)
{
    return syscall(SYS_init_module, image->data, image->size, "") ? -errno : 0;
}

static int unload_both(void)
{
    int r;

    if (kvm_fd >= 0) {
        close(kvm_fd);
        kvm_fd = -1;
    }
    r = unload("kvm_amd");
    return r ? r : unload("kvm");
}

static int load_both(void)
{
    int r = load(&kvm);

    r = r ? r : load(&kvm_amd);
    /*
     * The open need not wait for the device node: devtmpfs has created it when
     * init_module() returns
     */
    if (!r) {
        kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        r = kvm_fd < 0 ? -errno : 0;
    }
    return r;
}

/*
 * Run a VM, convert pages, and destroy the VM.  Returns 0 if all of it
 * succeeded.
 */
static int run_vm(enum vm_type type)
{
    struct vm vm;
    int bad;

    vm_init(&vm, type, GUEST_SIZE);
    bad = guest_launch(&vm, GUEST_SIZE) ||
          guest_write(&vm, 0x20000, 0x1234) ||
          guest_convert(&vm, 0x30, 4, false) ||
          guest_write(&vm, 0x30000, 0x5678) ||
          *(uint64_t *)(vm.mem + 0x30000) != 0x5678 ||
          guest_convert(&vm, 0x30, 4, true) ||
          guest_read(&vm, 0x20000) != 0x1234 ||
          touch(vm.mem + 0x30000) != SIGBUS;
    vm_destroy(&vm);
    return bad;
}

/*
 * The number of SEV VMs that can exist at the same time, which is the number
 * of ASIDs
 */
static int count_asids(void)
{
    static int fds[MAX_ASIDS];
    int n, i;

    for (n = 0; n < MAX_ASIDS; n++) {
        struct kvm_sev_init init = { 0 };
        struct vm vm = { .type = VM_SEV };

        fds[n] = vm.fd = ioctl(kvm_fd, KVM_CREATE_VM, VM_SEV);
        if (fds[n] < 0) {
            break;
        }
        if (sev_cmd(&vm, KVM_SEV_INIT2, &init)) {
            close(fds[n]);
            break;
        }
    }
    for (i = 0; i < n; i++) {
        close(fds[i]);
    }
    return n;
}

/*
 * Used memory in kB.  Returns the minimum of several measurements, because
 * other work in the host can only increase a measurement.
 */
static long used_kb(void)
{
    long least = -1;

    for (int i = 0; i < 5; i++) {
        int fd = CHECK(open("/proc/sys/vm/drop_caches", O_WRONLY));
        long used;

        CHECK(write(fd, "3", 1));
        close(fd);
        usleep(100000);
        used = meminfo("MemTotal") - meminfo("MemAvailable") -
               per_cpu_lists_kb();
        if (least < 0 || used < least) {
            least = used;
        }
    }
    return least;
}

static bool grew(const char *what, long before, long after, int cycles)
{
    long slack = SLACK_KB + (long)cycles * SLACK_CYCLE_KB;

    note("%s: %ld kB, then %ld kB: %+ld kB in %d cycles, %ld kB may be",
         what, before, after, after - before, cycles, slack);
    return after - before > slack;
}

/* The number of the kernel's slab caches whose names begin with kvm */
static int kvm_slabs(void)
{
    FILE *f = fopen("/proc/slabinfo", "r");
    char line[256];
    int n = 0;

    if (!f) {
        bail("/proc/slabinfo");
    }
    while (fgets(line, sizeof(line), f)) {
        n += !strncmp(line, "kvm", 3);
    }
    fclose(f);
    return n;
}

/*
 * Print the warnings and errors that the kernel has logged since the first
 * call.  Returns their number.
 */
static int complaints(void)
{
    static const char *const bad[] = {
        "WARNING: ", "BUG: ", "Oops", "general protection", "rcu: INFO",
    };
    static int fd = -1;
    char line[8192];
    int n = 0;
    ssize_t r;

    if (fd < 0) {
        fd = CHECK(open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
        CHECK(lseek(fd, 0, SEEK_END));
    }
    while ((r = read(fd, line, sizeof(line) - 1)) > 0 || errno == EPIPE) {
        if (r <= 0) {
            errno = 0;          /* lines were overwritten; continue */
            continue;
        }
        line[r] = 0;
        for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            if (strstr(line, bad[i])) {
                note("kernel log: %s", line);
                n++;
                break;
            }
        }
    }
    return n;
}

static bool refused(void)
{
    int fd = kvm_fd, amd, common;

    /* This process uses the module, too, as long as it has /dev/kvm open */
    close(fd);
    kvm_fd = -1;
    amd = unload("kvm_amd");
    common = unload("kvm");
    kvm_fd = CHECK(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (amd != -EWOULDBLOCK || common != -EWOULDBLOCK) {
        note("kvm_amd: %s, kvm: %s", strerror(-amd), strerror(-common));
    }
    return amd == -EWOULDBLOCK && common == -EWOULDBLOCK;
}

static void in_use(enum vm_type type)
{
    const char *name = vm_type_name(type);
    struct vm vm;
    uint8_t *p;
    int spare;

    vm_init(&vm, type, GUEST_SIZE);
    ok(refused(),
       "%s VM: the modules cannot be unloaded while there is a VM", name);
    guest_install(&vm);
    guest_vcpu(&vm);
    munmap(vm.mem, vm.size + PAGE);
    close(vm.gmem);
    close(vm.fd);
    ok(refused(),
       "%s VM: the modules cannot be unloaded while only a vCPU is left", name);
    munmap(vm.run, CHECK(ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0)));
    close(vm.vcpu);

    vm_init(&vm, type, GUEST_SIZE);
    munmap(vm.mem, vm.size + PAGE);
    close(vm.fd);
    ok(refused(),
       "%s VM: the modules cannot be unloaded while only a guest_memfd is left",
       name);
    p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vm.gmem, 0);
    spare = vm.gmem;
    close(spare);
    ok(p != MAP_FAILED && !poke(p, 1) && refused() && p[0] == 1,
       "%s VM: the modules cannot be unloaded while only a mapping of a "
       "guest_memfd is left", name);
    munmap(p, PAGE);
}

/* Replace our modules by the distribution's, then load ours again */
static void exchange(void)
{
    int vm;

    image_read(&kvm, "stock");
    image_read(&kvm_amd, "stock");
    ok(!unload_both() && !load_both(),
       "the distribution's modules can be loaded in place of ours");
    vm = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    ok(vm >= 0 && vm_cap(kvm_fd, KVM_CAP_PAGE_ENC_BITMAP) != 1,
       "the loaded modules are the distribution's, without "
       "KVM_CAP_PAGE_ENC_BITMAP");
    close(vm);
    image_read(&kvm, "module");
    image_read(&kvm_amd, "module");
    ok(!unload_both() && !load_both() &&
       vm_cap(kvm_fd, KVM_CAP_PAGE_ENC_BITMAP) == 1,
       "our modules can be loaded in place of the distribution's");
}

int main(int argc, char **argv)
{
    int cycles = argc > 1 ? atoi(argv[1]) : 15;
    int i, asids, failed = 0, left = 0, missing = 0;
    long before = 0, slab_before = 0, after, slab_after;
    char *control;

    if (cycles <= WARM) {
        fprintf(stderr, "usage: l1-reload [CYCLES], more than %d\n", WARM);
        return 2;
    }
    vm_require(VM_SW_PROTECTED);
    vm_require(VM_SEV);
    complaints();
    image_read(&kvm, "module");
    image_read(&kvm_amd, "module");

    asids = count_asids();
    ok(asids > 0 && asids < MAX_ASIDS && count_asids() == asids,
       "all %d ASIDs are free again after use", asids);
    in_use(VM_SW_PROTECTED);
    in_use(VM_SEV);
    exchange();
    ok(kvm_slabs() > 0,
       "kvm has slab caches of its own, so that a leak of one is visible");

    for (i = 0; i < cycles; i++) {
        if (i == WARM) {
            before = used_kb();
            slab_before = meminfo("SUnreclaim");
        }
        failed += unload_both() != 0;
        left += kvm_slabs();
        if (load_both()) {
            bail("cycle %d: load", i);
        }
        failed += run_vm(VM_SW_PROTECTED) != 0;
        if (i % 5 == 0) {
            failed += run_vm(VM_SEV) != 0;
        }
        if (failed) {
            note("cycle %d failed", i);
            break;
        }
    }
    after = used_kb();
    slab_after = meminfo("SUnreclaim");
    ok(!failed && i == cycles,
       "the modules were unloaded and loaded and a VM ran %d times", i);
    ok(!left, "no slab cache of kvm is left while kvm is not loaded");
    ok(!grew("memory in use", before, after, cycles - WARM),
       "reloading the modules leaks no memory");
    ok(!grew("slab", slab_before, slab_after, cycles - WARM),
       "reloading the modules leaks no slab memory");
    missing = asids - count_asids();
    ok(!missing,
       "all %d ASIDs can be allocated after the modules were reloaded (%d are "
       "missing)", asids, missing);
    ok(!complaints(),
       "the kernel log has no complaint about reloading the modules");

    /*
     * Control: leak as much memory per cycle as the test must notice, and no
     * more
     */
    control = malloc((SLACK_KB + (long)cycles * CONTROL_KB) << 10);
    memset(control, 1, (SLACK_KB + (long)cycles * CONTROL_KB) << 10);
    ok(grew("control", before, used_kb(), cycles - WARM),
       "the check for leaks notices a leak of %d kB a cycle", CONTROL_KB);
    free(control);
    return done_testing();
}
