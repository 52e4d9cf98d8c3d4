/*
 * Emulated SEV platform: CPUID, MSRs and page walks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_SEV_CPU_H
#define I386_TCG_SEV_CPU_H

#include "cpu.h"
#include "system/tcg.h"

#if defined(CONFIG_TCG) && !defined(CONFIG_USER_ONLY)

/**
 * sev_cpu_realize: check the SEV properties of @cpu and set its features
 *
 * Does nothing unless the CPU has sev=on.  Call it before phys_bits gets its
 * default.
 */
bool sev_cpu_realize(X86CPU *cpu, Error **errp);

/**
 * sev_cpu_cpuid: get the values of CPUID 0x8000001F
 *
 * Returns false, and changes nothing, if @cpu does not have sev=on.
 */
bool sev_cpu_cpuid(X86CPU *cpu, uint32_t *eax, uint32_t *ebx, uint32_t *ecx,
                   uint32_t *edx);

/**
 * sev_cpu_rdmsr: read an MSR that SEV adds or changes
 *
 * Returns false if SEV does not add or change @msr.
 */
bool sev_cpu_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val);

/**
 * sev_cpu_rdmsr_passes: whether a read of @msr is never intercepted
 */
bool sev_cpu_rdmsr_passes(CPUX86State *env, uint32_t msr);

/**
 * sev_cpu_vmrun: enter a guest
 * @nested_ctl: the field of the VMCB
 * @asid: the ASID of the guest
 *
 * Returns false if the VMCB is not valid.
 */
bool sev_cpu_vmrun(CPUX86State *env, uint64_t nested_ctl, uint32_t asid);

/**
 * sev_cpu_vmexit: leave a guest
 */
static inline void sev_cpu_vmexit(CPUX86State *env)
{
    env->sev_asid = 0;
    env->sev_flush = false;
}

/**
 * sev_cpu_cmask: the mask to remove from the guest's page table entries
 *
 * Returns the C-bit while an SEV guest runs, 0 otherwise.
 */
static inline uint64_t sev_cpu_cmask(CPUX86State *env)
{
    return env->sev_asid ? env->sev_cmask : 0;
}

/**
 * sev_cpu_tcg_features: get the features of word @w that TCG has for @cpu
 * @cpu: the CPU; NULL for any CPU
 * @features: the features that TCG has for any CPU
 *
 * Without sev=on, a CPU does not have next RIP, decode assists and flushes by
 * ASID, so that the features of existing CPUs do not change.
 */
static inline uint64_t sev_cpu_tcg_features(X86CPU *cpu, FeatureWord w,
                                            uint64_t features)
{
    return w == FEAT_SVM && tcg_enabled() && cpu && !cpu->sev ?
           features & ~(uint64_t)(CPUID_SVM_NRIPSAVE | CPUID_SVM_FLUSHASID |
                                  CPUID_SVM_DECODEASSIST) : features;
}

/**
 * sev_cpu_phys_bits: the number of address bits in a page table entry
 * @host: whether the table belongs to the hypervisor and not to its guest
 *
 * Encryption shortens physical addresses in the hypervisor's page tables and in
 * nested page tables.  The other bits are reserved there, and KVM relies on the
 * page fault that they cause.  A guest's tables use all bits.
 */
static inline unsigned sev_cpu_phys_bits(CPUX86State *env, bool host)
{
    X86CPU *cpu = env_archcpu(env);

    return cpu->phys_bits -
           (host && cpu->sev ? cpu->sev_reduced_phys_bits : 0);
}

/* Set when the firmware is initialized.  Before, no page can be plaintext. */
extern bool sev_memory_active;

/**
 * sev_memory_need_view: give the page at @pa the view that a vCPU needs
 * @cs: the current vCPU, which is executing
 * @pa: physical address
 * @asid: the ASID of the view; 0 for the raw view
 * @restart: whether the instruction can be restarted
 * @retaddr: host return address into the generated code, or 0
 *
 * If the page must be converted and the instruction can be restarted, the
 * function calls cpu_loop_exit_restore() and does not return.  Returns true if
 * all vCPUs were stopped instead; page tables that the caller has read may have
 * changed meanwhile.
 */
bool sev_memory_need_view(CPUState *cs, hwaddr pa, unsigned asid, bool restart,
                          uintptr_t retaddr);

/**
 * sev_memory_change_view: like sev_memory_need_view(), without the cache check
 *
 * sev_memory_need_view() checks that the page has no unflushed cache lines that
 * were written through another view.  CLFLUSH flushes such lines, so the check
 * does not apply to it.
 */
bool sev_memory_change_view(CPUState *cs, hwaddr pa, unsigned asid,
                            bool restart, uintptr_t retaddr);

/**
 * sev_memory_touch: record that a vCPU is about to get a TLB entry for a page
 * @cs: the current vCPU, which is executing
 * @pa: physical address in the page.  The caller has already switched the page
 *      to the view that the vCPU's access needs
 * @is_write: whether the entry is made for a write
 * @prot: permissions of the entry; the function removes PAGE_WRITE if the first
 *        write must call this function again
 */
void sev_memory_touch(CPUState *cs, hwaddr pa, bool is_write, int *prot);

/**
 * sev_memory_has_view: whether the page at @pa has the view of @asid
 *
 * Returns true for everything that is not RAM, because it is never encrypted.
 */
bool sev_memory_has_view(hwaddr pa, unsigned asid);

/**
 * sev_cpu_leaf: give a page the view that an access needs.  To be called when
 * the page walk for this access has found the page.
 * @pa: physical address
 * @private: whether the guest's page table entry has the C-bit
 * @prot: permissions of the future TLB entry; reduced if fetches and data have
 *        different views of the page
 *
 * The other parameters and the return value are those of
 * sev_memory_need_view().
 */
bool sev_cpu_leaf(CPUState *cs, hwaddr pa, bool private, int *prot,
                  MMUAccessType access_type, int mmu_idx, bool restart,
                  uintptr_t retaddr);

#else

#include "qapi/error.h"

static inline bool sev_cpu_realize(X86CPU *cpu, Error **errp)
{
    if (cpu->sev) {
        error_setg(errp, "CPU property 'sev' needs TCG");
        return false;
    }
    return true;
}

static inline bool sev_cpu_cpuid(X86CPU *cpu, uint32_t *eax, uint32_t *ebx,
                                 uint32_t *ecx, uint32_t *edx)
{
    return false;
}

static inline uint64_t sev_cpu_tcg_features(X86CPU *cpu, FeatureWord w,
                                            uint64_t features)
{
    return features;
}

#endif

#endif
