/*
 * Hidden vCPUs of an SEV guest, which run the migration helper
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "cpu.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "hw/i386/x86.h"
#include "sev-helper-vcpu.h"
#include "system/accel-blocker.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "trace.h"

/*
 * Time after which QEMU stops a vCPU that has not ended a command, in ms.  The
 * helper ends a command within milliseconds, but the guest can overwrite the
 * helper with code that never ends a command.
 */
#define COMMAND_MS (20 * 1000)
/* Time between two signals that QEMU sends to stop a vCPU, in ms */
#define SIGNAL_MS 100

/* Entries of KVM_GET_SUPPORTED_CPUID, at most */
#define CPUID_MAX 512

struct SevHelperVcpu {
    int fd;
    unsigned index;
    uint16_t port;
    struct kvm_run *run;
    size_t run_size;
    QemuThread thread;
    /* The thread waits for @go and posts @done when the helper has stopped */
    QemuSemaphore go, done;
    /* Set before @go is posted */
    bool quit;
    /* The vCPU must stop; atomic */
    bool late;
    /* Set before @done is posted: why the helper cannot go on, or NULL */
    Error *err;
};

void sev_helper_vcpus_init(void)
{
    int most = kvm_vm_check_extension(kvm_state, KVM_CAP_MAX_VCPU_ID);

    /*
     * The machine limits KVM's vCPU ids to its own APIC ids, which leaves no
     * ids for hidden vCPUs.  KVM keeps the first limit that it gets, so set
     * the highest possible limit here, before the machine sets its own.  The
     * machine's later call fails, and the machine ignores the failure.
     */
    if (most > 0) {
        kvm_vm_enable_cap(kvm_state, KVM_CAP_MAX_VCPU_ID, 0, most);
    }
}

/*
 * Time stamp counter
 *
 * KVM gives the guest a stable clock only if the TSCs of all vCPUs of the VM
 * are in step.  The hidden vCPUs belong to the VM, even while no session uses
 * them.  So QEMU keeps their TSCs in step with the TSCs of the guest's vCPUs.
 */

typedef struct TscOffset {
    uint64_t value;
    int ret;
} TscOffset;

static int tsc_attr(int fd, int request, uint64_t *value)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uintptr_t)value,
    };

    return ioctl(fd, request, &attr) < 0 ? -errno : 0;
}

/*
 * Runs in the thread of the guest's vCPU, because KVM handles only one ioctl of
 * a vCPU at a time: in another thread, the ioctl could wait for KVM_RUN to end
 */
static void read_tsc_offset(CPUState *cpu, run_on_cpu_data data)
{
    TscOffset *offset = data.host_ptr;

    offset->ret = tsc_attr(cpu->kvm_fd, KVM_GET_DEVICE_ATTR, &offset->value);
}

/*
 * Give the hidden vCPUs the TSC of the guest's first vCPU.  BQL; the hidden
 * vCPUs do not run.
 */
static void sync_tsc(const SevHelperKvmVcpus *all)
{
    TscOffset offset = { .ret = -ENODEV };

    if (first_cpu) {
        run_on_cpu(first_cpu, read_tsc_offset, RUN_ON_CPU_HOST_PTR(&offset));
    }
    for (unsigned i = 0; i < SEV_HELPER_VCPUS_MAX; i++) {
        int fd = all->vcpu[i].fd;

        if (fd > 0) {
            int ret = offset.ret ?: tsc_attr(fd, KVM_SET_DEVICE_ATTR,
                                             &offset.value);

            trace_sev_helper_vcpu_tsc(i, offset.value, ret);
        }
    }
}

/*
 * Sync the hidden vCPUs whenever the guest starts to run, because a reset or an
 * incoming migration may have set the TSCs of the guest's vCPUs
 */
static void vm_changed(void *opaque, bool running, RunState state)
{
    if (running) {
        sync_tsc(opaque);
    }
}

/* Registers */

static struct kvm_segment flat_segment(int type, bool is_code)
{
    return (struct kvm_segment) {
        .limit = UINT32_MAX,
        .selector = is_code ? 8 : 16,
        .type = type,
        .present = 1,
        .s = 1,
        .l = is_code,
        .db = !is_code,
        .g = 1,
    };
}

/*
 * Give the vCPU all features that KVM supports on this host.  The helper needs
 * some that the guest's CPU model may lack, such as AES and AVX.
 */
static int set_cpuid(int fd)
{
    g_autofree struct kvm_cpuid2 *cpuid =
        g_malloc0(sizeof(*cpuid) + CPUID_MAX * sizeof(cpuid->entries[0]));
    int ret;

    cpuid->nent = CPUID_MAX;
    ret = kvm_ioctl(kvm_state, KVM_GET_SUPPORTED_CPUID, cpuid);
    if (ret < 0) {
        return ret;
    }
    return ioctl(fd, KVM_SET_CPUID2, cpuid) < 0 ? -errno : 0;
}

static int set_sregs(int fd, const SevHelperEntry *entry)
{
    struct kvm_sregs sregs;

    if (ioctl(fd, KVM_GET_SREGS, &sregs) < 0) {
        return -errno;
    }
    sregs.cr0 = CR0_PG_MASK | CR0_WP_MASK | CR0_NE_MASK | CR0_ET_MASK |
                CR0_MP_MASK | CR0_PE_MASK;
    sregs.cr3 = entry->cr3;
    sregs.cr4 = CR4_PAE_MASK | CR4_OSFXSR_MASK | CR4_OSXMMEXCPT_MASK |
                CR4_OSXSAVE_MASK;
    sregs.efer = MSR_EFER_LME | MSR_EFER_LMA | MSR_EFER_NXE;
    sregs.apic_base &= ~MSR_IA32_APICBASE_ENABLE;
    sregs.cs = flat_segment(11, true);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss =
        flat_segment(3, false);
    sregs.tr = (struct kvm_segment) {
        .limit = UINT16_MAX, .type = 11, .present = 1,
    };
    sregs.ldt = (struct kvm_segment) { .unusable = 1 };
    sregs.gdt.limit = sregs.idt.limit = 0;
    return ioctl(fd, KVM_SET_SREGS, &sregs) < 0 ? -errno : 0;
}

/*
 * Returns 0 or -errno.  After an error, @what points to the name of the ioctl
 * that failed.
 */
static int set_registers(int fd, const SevHelperEntry *entry,
                         const char **what)
{
    struct kvm_regs regs = { .rip = entry->rip, .rdi = entry->rdi,
                             .rflags = 2 };
    struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_RUNNABLE };
    int ret;

    *what = "KVM_SET_SREGS";
    ret = set_sregs(fd, entry);
    if (ret < 0) {
        return ret;
    }
    *what = "KVM_SET_REGS";
    if (ioctl(fd, KVM_SET_REGS, &regs) < 0) {
        return -errno;
    }
    /*
     * Without KVM's interrupt controllers, KVM creates every vCPU as runnable,
     * so the ioctl is not needed
     */
    *what = "KVM_SET_MP_STATE";
    if (kvm_irqchip_in_kernel() && ioctl(fd, KVM_SET_MP_STATE, &mp) < 0) {
        return -errno;
    }
    return 0;
}

/* Running */

/* Returns NULL when the helper has written to its port */
static Error *run_until_port(SevHelperVcpu *v)
{
    struct kvm_run *run = v->run;
    Error *err = NULL;
    int ret;

    /*
     * While QEMU replaces memory slots, some RAM has no slot, and the vCPU must
     * not run.  accel_ioctl_begin() and accel_ioctl_end() make QEMU wait for
     * this vCPU as for the guest's vCPUs.  The wait takes COMMAND_MS at most.
     */
    accel_ioctl_begin();
    do {
        ret = ioctl(v->fd, KVM_RUN, NULL) < 0 ? -errno : 0;
    } while ((ret == -EINTR || ret == -EAGAIN) && !qatomic_read(&v->late));
    accel_ioctl_end();
    if (qatomic_read(&v->late)) {
        error_setg(&err, "SEV: the migration helper's vCPU %u has not ended a "
                   "command in %d s", v->index, COMMAND_MS / 1000);
        return err;
    }
    if (ret == 0 && run->exit_reason == KVM_EXIT_IO &&
        run->io.direction == KVM_EXIT_IO_OUT && run->io.port == v->port) {
        return NULL;
    }
    if (ret < 0) {
        error_setg_errno(&err, -ret, "SEV: the migration helper's vCPU %u "
                         "cannot run (exit reason %u)", v->index,
                         run->exit_reason);
    } else if (run->exit_reason == KVM_EXIT_MMIO) {
        error_setg(&err, "SEV: the migration helper's vCPU %u has accessed "
                   "address 0x%" PRIx64 ", which is not memory", v->index,
                   (uint64_t)run->mmio.phys_addr);
    } else {
        error_setg(&err, "SEV: the migration helper's vCPU %u has stopped "
                   "(exit reason %u)", v->index, run->exit_reason);
    }
    return err;
}

static void *vcpu_thread(void *opaque)
{
    SevHelperVcpu *v = opaque;
    sigset_t set;

    /*
     * qemu_thread_create() has blocked all signals.  SIG_IPI must end KVM_RUN;
     * QEMU's handler for it does nothing in a thread without a CPUState.
     */
    sigemptyset(&set);
    sigaddset(&set, SIG_IPI);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    for (;;) {
        qemu_sem_wait(&v->go);
        if (v->quit) {
            return NULL;
        }
        v->err = run_until_port(v);
        qemu_sem_post(&v->done);
    }
}

bool sev_helper_vcpu_run(SevHelperVcpu *v, Error **errp)
{
    qemu_sem_post(&v->go);
    if (qemu_sem_timedwait(&v->done, COMMAND_MS) < 0) {
        qatomic_set(&v->late, true);
        /*
         * Repeat the signal until the thread has stopped: a signal that arrives
         * just before the thread enters KVM_RUN does not end KVM_RUN
         */
        do {
            pthread_kill(v->thread.thread, SIG_IPI);
        } while (qemu_sem_timedwait(&v->done, SIGNAL_MS) < 0);
    }
    if (v->err) {
        error_propagate(errp, g_steal_pointer(&v->err));
        return false;
    }
    return true;
}

/*
 * Create vCPU @index and set its CPUID, if that is not done yet.  Returns the
 * vCPU's file descriptor or -errno.  After an error, @what points to the name
 * of the ioctl that failed.
 */
static int get_vcpu(SevHelperKvmVcpus *all, unsigned index, const char **what)
{
    X86MachineState *x86ms = X86_MACHINE(qdev_get_machine());
    SevHelperKvmVcpu *vcpu = &all->vcpu[index];
    int ret;

    if (vcpu->fd <= 0) {
        *what = "KVM_CREATE_VCPU";
        ret = kvm_vm_ioctl(kvm_state, KVM_CREATE_VCPU,
                           (unsigned long)x86ms->apic_id_limit + index);
        trace_sev_helper_vcpu_create(index, x86ms->apic_id_limit + index, ret);
        if (ret < 0) {
            return ret;
        }
        vcpu->fd = ret;
    }
    /*
     * Set the CPUID once, because KVM refuses to set it after the vCPU has
     * run.  If that fails, the vCPU does not run, and the next call tries
     * again.
     */
    if (!vcpu->has_cpuid) {
        *what = "KVM_SET_CPUID2";
        ret = set_cpuid(vcpu->fd);
        if (ret < 0) {
            return ret;
        }
        vcpu->has_cpuid = true;
    }
    return vcpu->fd;
}

SevHelperVcpu *sev_helper_vcpu_new(SevHelperKvmVcpus *all, unsigned index,
                                   const SevHelperEntry *entry, uint16_t port,
                                   Error **errp)
{
    g_autofree char *name = g_strdup_printf("sev-helper-%u", index);
    const char *what;
    SevHelperVcpu *v;
    int fd, ret;

    assert(bql_locked() && index < SEV_HELPER_VCPUS_MAX);
    fd = ret = get_vcpu(all, index, &what);
    if (fd >= 0) {
        ret = set_registers(fd, entry, &what);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "SEV: the migration helper's vCPU %u: %s",
                         index, what);
        return NULL;
    }
    v = g_new0(SevHelperVcpu, 1);
    *v = (SevHelperVcpu) { .fd = fd, .index = index, .port = port };
    v->run_size = kvm_ioctl(kvm_state, KVM_GET_VCPU_MMAP_SIZE, 0);
    v->run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (v->run == MAP_FAILED) {
        error_setg_errno(errp, errno, "SEV: the migration helper's vCPU %u: "
                         "mmap", index);
        g_free(v);
        return NULL;
    }
    if (!all->tsc_handler) {
        all->tsc_handler = qemu_add_vm_change_state_handler(vm_changed, all);
    }
    sync_tsc(all);
    qemu_sem_init(&v->go, 0);
    qemu_sem_init(&v->done, 0);
    qemu_thread_create(&v->thread, name, vcpu_thread, v, QEMU_THREAD_JOINABLE);
    return v;
}

void sev_helper_vcpu_free(SevHelperVcpu *v)
{
    if (!v) {
        return;
    }
    v->quit = true;
    qemu_sem_post(&v->go);
    qemu_thread_join(&v->thread);
    qemu_sem_destroy(&v->go);
    qemu_sem_destroy(&v->done);
    munmap(v->run, v->run_size);
    g_free(v);
}
