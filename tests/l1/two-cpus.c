/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Test of the emulated host without SEV: CPU 0 enters and leaves a guest
 * continuously while CPU 1 does something else continuously.  These operations
 * must not affect each other.
 *
 * First, CPU 1 loads FPU state; see patches/0005-*.  Then, CPU 1 sends IPIs to
 * CPU 0 and waits for each of them, while a virtual interrupt is pending for the
 * guest; see patches/0011-*.  If CPU 0 loses an IPI, the host hangs.
 */
#define _GNU_SOURCE
#include <linux/kvm.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <unistd.h>
#include "harness.h"

#define SECONDS     6       /* of each of the two parts */
#define CODE        0x1000
#define PORT        0x10

/*
 * Real mode code of the guest: KVM handles the exits of CPUID, and this program
 * handles the exits of OUT
 */
static const uint8_t code[] = {
    0xbe, 0x2c, 0x01,           /* again: mov $300, %si */
    0x66, 0x31, 0xc0,           /* 1: xor %eax, %eax */
    0x0f, 0xa2,                 /* cpuid */
    0x4e,                       /* dec %si */
    0x75, 0xf8,                 /* jnz 1b */
    0xe6, PORT,                 /* out %al, $PORT */
    0xeb, 0xf1,                 /* jmp again */
};

static volatile bool stop;
static volatile long loads, ipis;
static long exits, others;

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    CHECK(sched_setaffinity(0, sizeof(set), &set));
}

static void *load_fpu(void *opaque)
{
    static uint8_t state[512] __attribute__((aligned(16)));

    pin(1);
    asm volatile("fxsave %0" : "=m"(state));
    while (!stop) {
        asm volatile("fxrstor %0" : : "m"(state));
        loads++;
    }
    return opaque;
}

/* membarrier() sends an IPI to CPU 0, which runs a thread of this process */
static void *send_ipis(void *opaque)
{
    pin(1);
    while (!stop) {
        CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
        ipis++;
    }
    return opaque;
}

/* Run the guest on CPU 0 while CPU 1 executes @other */
static void run_guest(int vcpu, struct kvm_run *run, void *(*other)(void *))
{
    pthread_t thread;
    double end;

    exits = 0;
    stop = false;
    pthread_create(&thread, NULL, other, NULL);
    for (end = now() + SECONDS; now() < end; exits++) {
        if (ioctl(vcpu, KVM_RUN, 0) && errno == EINTR) {
            continue;
        }
        if (run->exit_reason != KVM_EXIT_IO || run->io.port != PORT) {
            note("exit %ld has reason %u", exits, run->exit_reason);
            others++;
            break;
        }
    }
    stop = true;
    pthread_join(thread, NULL);
}

int main(void)
{
    struct kvm_userspace_memory_region region = { .memory_size = 0x10000 };
    struct kvm_regs regs = { .rip = CODE, .rflags = 2 };
    struct kvm_sregs sregs;
    struct kvm_run *run;
    int kvm, vm, vcpu;
    uint8_t *mem;

    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        skip_all("needs two CPUs");
    }
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0) {
        skip_all("no /dev/kvm: %s", strerror(errno));
    }
    vm = CHECK(ioctl(kvm, KVM_CREATE_VM, 0));
    mem = mmap(NULL, region.memory_size, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED) {
        bail("mmap");
    }
    memcpy(mem + CODE, code, sizeof(code));
    region.userspace_addr = (uintptr_t)mem;
    CHECK(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region));
    vcpu = CHECK(ioctl(vm, KVM_CREATE_VCPU, 0));
    run = mmap(NULL, CHECK(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)),
               PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED) {
        bail("mmap of the vCPU");
    }
    CHECK(ioctl(vcpu, KVM_GET_SREGS, &sregs));
    sregs.cs.base = sregs.cs.selector = 0;
    CHECK(ioctl(vcpu, KVM_SET_SREGS, &sregs));
    CHECK(ioctl(vcpu, KVM_SET_REGS, &regs));

    CHECK(syscall(SYS_membarrier,
                  MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));

    pin(0);
    run_guest(vcpu, run, load_fpu);
    ok(others == 0, "the guest makes only the exits that it should make");
    ok(exits > 100,
       "the guest made enough exits (%ld) to meet the other CPU's work", exits);
    ok(loads > 1000,
       "the other CPU loaded FPU state %ld times beside the guest", loads);

    /*
     * Ask KVM to exit when the guest can take an interrupt.  The guest never
     * enables interrupts, so KVM keeps waiting and sets V_IRQ at each VMRUN.
     */
    run->request_interrupt_window = 1;
    run_guest(vcpu, run, send_ipis);
    ok(others == 0,
       "a guest with a pending virtual interrupt makes only the exits it "
       "should make");
    /*
     * The test looks for an error of QEMU that loses an IPI if CPU 1 sends the
     * IPI while CPU 0 executes VMRUN.  Each IPI interrupts the guest, and KVM
     * then executes VMRUN again.  Many IPIs thus cause many executions of
     * VMRUN, and some IPIs arrive during such an execution.  The guest need
     * not make many exits to this program, because frequent IPIs leave the
     * guest little time.
     */
    ok(exits > 0,
       "the guest with a virtual interrupt makes progress (%ld exits)", exits);
    ok(ipis > 1000,
       "the other CPU sent %ld IPIs beside the guest with a virtual interrupt",
       ipis);
    return done_testing();
}
