/*
 * The CPU's part of the emulated SEV platform
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_SEV_CPU_H
#define I386_TCG_SEV_CPU_H

#include "cpu.h"
#include "system/tcg.h"

#if defined(CONFIG_TCG) && !defined(CONFIG_USER_ONLY)

/**
 * sev_cpu_realize: check the SEV properties of @cpu, set what follows of them
 *
 * Does nothing unless the CPU has sev=on.  Call it before phys_bits gets its
 * default.
 */
bool sev_cpu_realize(X86CPU *cpu, Error **errp);

/**
 * sev_cpu_cpuid: what CPUID 0x8000001F says
 *
 * Returns false, and changes nothing, if @cpu is no SEV host.
 */
bool sev_cpu_cpuid(X86CPU *cpu, uint32_t *eax, uint32_t *ebx, uint32_t *ecx,
                   uint32_t *edx);

/**
 * sev_cpu_rdmsr: read an MSR that SEV adds or changes
 *
 * Returns false if @msr is none of these.
 */
bool sev_cpu_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val);

/**
 * sev_cpu_rdmsr_passes: whether a read of @msr is never intercepted
 */
bool sev_cpu_rdmsr_passes(CPUX86State *env, uint32_t msr);

/**
 * sev_cpu_vmrun: enter a guest
 * @nested_ctl: the field of the VMCB
 * @asid: the guest's
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
 * sev_cpu_cmask: what to strip off the guest's page table entries
 *
 * The C-bit while an SEV guest runs, 0 else.
 */
static inline uint64_t sev_cpu_cmask(CPUX86State *env)
{
    return env->sev_asid ? env->sev_cmask : 0;
}

/**
 * sev_cpu_tcg_features: features of word @w that @cpu can have
 * @features: those that some CPU can have
 *
 * With TCG, next RIP, decode assists and flushes by ASID are for hosts of SEV
 * guests only, so that no other CPU model changes.  @cpu NULL: of some CPU.
 */
static inline uint64_t sev_cpu_tcg_features(X86CPU *cpu, FeatureWord w,
                                            uint64_t features)
{
    return w == FEAT_SVM && tcg_enabled() && cpu && !cpu->sev ?
           features & ~(uint64_t)(CPUID_SVM_NRIPSAVE | CPUID_SVM_FLUSHASID |
                                  CPUID_SVM_DECODEASSIST) : features;
}

/**
 * sev_cpu_phys_bits: how many bits of a page table entry's address mean one
 * @host: the table is the hypervisor's, not that of its guest
 *
 * The bits that encryption takes from an SEV host are reserved in its tables,
 * nested ones included: KVM relies on a fault with them.  A guest has all.
 */
static inline unsigned sev_cpu_phys_bits(CPUX86State *env, bool host)
{
    X86CPU *cpu = env_archcpu(env);

    return cpu->phys_bits -
           (host && cpu->sev ? cpu->sev_reduced_phys_bits : 0);
}

/* The firmware was initialized: pages may not be raw, and writes are watched */
extern bool sev_memory_active;

/**
 * sev_memory_need_view: see to it that the page at @pa has a view
 * @cs: the vCPU that executes and needs it
 * @pa: physical address
 * @asid: whose view; 0: raw
 * @restart: whether the instruction can be started again
 * @retaddr: host return address into the generated code, or 0
 *
 * Leaves by cpu_loop_exit_restore() if that is possible and necessary.
 * Returns true if the vCPUs were stopped instead: everything that the caller
 * found out about page tables may have changed.
 */
bool sev_memory_need_view(CPUState *cs, hwaddr pa, unsigned asid, bool restart,
                          uintptr_t retaddr);

/**
 * sev_memory_change_view: as sev_memory_need_view(), without the check
 *
 * sev_memory_need_view() checks that cache lines of the page were flushed that
 * were written through another view.  CLFLUSH itself must not be checked.
 */
bool sev_memory_change_view(CPUState *cs, hwaddr pa, unsigned asid,
                            bool restart, uintptr_t retaddr);

/**
 * sev_memory_touch: a vCPU is about to get a TLB entry for a page
 * @cs: the vCPU, which executes
 * @pa: physical address in the page, which has the view that the entry is for
 * @is_write: whether the entry is made for a write
 * @prot: permissions of the entry; PAGE_WRITE is taken away if the first write
 *        has to come here
 */
void sev_memory_touch(CPUState *cs, hwaddr pa, bool is_write, int *prot);

/**
 * sev_memory_has_view: whether the page at @pa has the view of @asid
 *
 * True too where no view applies: what is not RAM is never encrypted.
 */
bool sev_memory_has_view(hwaddr pa, unsigned asid);

/**
 * sev_cpu_leaf: give the page at the end of a walk the view that it is for
 * @pa: physical address
 * @private: whether the guest's page table has the C-bit there
 * @prot: permissions of the TLB entry to be; reduced if fetches and data have
 *        different views of the page
 *
 * Return value and the other parameters as those of sev_memory_need_view().
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
