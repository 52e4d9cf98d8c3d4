/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Test of the emulated host without SEV: CPU 0 enters and leaves a guest
 * continuously while CPU 1 loads FPU state continuously.  These operations
 * must not affect each other; see patches/0005-*.
 */
#define _GNU_SOURCE
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <fcntl.h>
#include <unistd.h>
#include "harness.h"

#define SECONDS     8
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
static volatile long loads;

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

int main(void)
{
    struct kvm_userspace_memory_region region = { .memory_size = 0x10000 };
    struct kvm_regs regs = { .rip = CODE, .rflags = 2 };
    struct kvm_sregs sregs;
    struct kvm_run *run;
    long exits = 0, others = 0;
    pthread_t thread;
    int kvm, vm, vcpu;
    uint8_t *mem;
    double end;

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

    pin(0);
    pthread_create(&thread, NULL, load_fpu, NULL);
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
    ok(others == 0, "the guest does what it does");
    ok(exits > 100, "and did it often: %ld exits", exits);
    ok(loads > 1000, "while another CPU loaded FPU state %ld times", loads);
    return done_testing();
}
