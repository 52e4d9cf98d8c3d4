/*
 * Hidden vCPUs of an SEV guest, which run the migration helper
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A hidden vCPU belongs to the guest's VM, so the helper that it runs uses the
 * guest's key.  QEMU's list of CPUs does not contain it, and neither do ACPI,
 * hotplug, reset and "info cpus".  Its local APIC is disabled, so that
 * interrupts, NMIs and INITs that the guest broadcasts do not reach it.  It has
 * a thread of its own, which also runs while the VM is stopped.
 */
#ifndef TARGET_I386_SEV_HELPER_VCPU_H
#define TARGET_I386_SEV_HELPER_VCPU_H

/* Number of hidden vCPUs of a VM, at most */
#define SEV_HELPER_VCPUS_MAX 16

typedef struct SevHelperVcpu SevHelperVcpu;

/**
 * SevHelperKvmVcpu: a hidden vCPU as KVM has it
 * @fd: file descriptor, or 0 if KVM has not created the vCPU yet
 * @has_cpuid: KVM_SET_CPUID2 has succeeded
 */
typedef struct SevHelperKvmVcpu {
    int fd;
    bool has_cpuid;
} SevHelperKvmVcpu;

/**
 * SevHelperKvmVcpus: all hidden vCPUs of a VM.  KVM keeps a vCPU as long as the
 * VM exists, so the file descriptors stay open.  All members are 0 at first.
 * BQL.
 * @tsc_handler: gives these vCPUs the guest's TSC when the guest starts to run
 */
typedef struct SevHelperKvmVcpus {
    SevHelperKvmVcpu vcpu[SEV_HELPER_VCPUS_MAX];
    VMChangeStateEntry *tsc_handler;
} SevHelperKvmVcpus;

/**
 * SevHelperEntry: registers with which a hidden vCPU begins
 * @rip: guest virtual address of the first instruction
 * @rdi: argument
 * @cr3: page tables, with the C-bit
 */
typedef struct SevHelperEntry {
    uint64_t rip;
    uint64_t rdi;
    uint64_t cr3;
} SevHelperEntry;

/**
 * sev_helper_vcpus_init: let KVM accept vCPU ids that are higher than the ids
 * of the guest's vCPUs, because the hidden vCPUs have such ids.  To be called
 * once, when the VM is made.
 */
void sev_helper_vcpus_init(void);

/**
 * sev_helper_vcpu_new: make hidden vCPU @index, and its thread
 * @all: the hidden vCPUs of this VM; it is never freed
 * @port: sev_helper_vcpu_run() returns when the vCPU writes to this I/O port
 *
 * KVM cannot destroy a vCPU.  sev_helper_vcpu_free() parks it, and this
 * function makes it begin anew.  BQL.  NULL with @errp set on error.
 */
SevHelperVcpu *sev_helper_vcpu_new(SevHelperKvmVcpus *all, unsigned index,
                                   const SevHelperEntry *entry, uint16_t port,
                                   Error **errp);

/**
 * sev_helper_vcpu_free: end the thread of @v, and park the vCPU.  No thread may
 * be in sev_helper_vcpu_run() for @v.  Any thread can call this function.  @v
 * may be NULL.
 */
void sev_helper_vcpu_free(SevHelperVcpu *v);

/**
 * sev_helper_vcpu_run: let @v run until it writes to its port.  Any thread, one
 * at a time.  False with @errp set if it cannot go on.
 */
bool sev_helper_vcpu_run(SevHelperVcpu *v, Error **errp);

#endif
