/*
 * Emulated SEV platform: CPUID, MSRs and page walks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The numbers are from the AMD64 Architecture Programmer's Manual, volume 2,
 * sections 15.34 (Secure Encrypted Virtualization) and 7.10 (SME), and from
 * volume 3 for CPUID.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitops.h"
#include "cpu.h"
#include "exec/page-protection.h"
#include "hw/misc/sev-memory.h"
#include "sev-cpu.h"
#include "sev-es.h"
#include "svm.h"
#include "system/qtest.h"
#include "system/tcg.h"

#define SVM_NESTED_CTL_SEV      BIT(1)
#define SVM_NESTED_CTL_ES       BIT(2)

#define CPUID_8000_001F_EAX_SEV BIT(1)
#define CPUID_8000_001F_EAX_ES  BIT(3)

/* MSRs and their bits */
#define MSR_AMD_SYSCFG          0xc0010010
#define SYSCFG_MEM_ENCRYPT      BIT(23)
#define HWCR_SMMLOCK            BIT(0)
#define MSR_AMD_SEV_STATUS      0xc0010131
#define SEV_STATUS_SEV          BIT(0)
#define SEV_STATUS_ES           BIT(1)

/* Number of ASIDs in CPUID 0x8000000A.EBX of TCG; SEV uses the lowest ones */
#define SVM_NR_ASIDS            16

bool sev_cpu_realize(X86CPU *cpu, Error **errp)
{
    CPUX86State *env = &cpu->env;

    if (!cpu->sev) {
        return true;
    }
    if (!tcg_enabled() && !qtest_enabled()) {
        error_setg(errp, "CPU property 'sev' makes an emulated SEV host: "
                   "it needs -accel tcg");
        return false;
    }
    if (!(env->features[FEAT_8000_0001_ECX] & CPUID_EXT3_SVM) ||
        !(env->features[FEAT_8000_0001_EDX] & CPUID_EXT2_LM)) {
        error_setg(errp, "CPU property 'sev' needs a 64-bit CPU with SVM: "
                   "add +svm");
        return false;
    }
    if (cpu->sev_asids > SVM_NR_ASIDS - 2) {
        error_setg(errp, "sev-asids must be 1 to %d", SVM_NR_ASIDS - 2);
        return false;
    }
    if (!sev_memory_init(cpu->sev_cbitpos, cpu->sev_asids, cpu->sev_es_asids,
                         errp)) {
        return false;
    }
    if (!cpu->phys_bits) {
        cpu->phys_bits = cpu->sev_cbitpos + 1;
    }
    if (cpu->phys_bits <= cpu->sev_cbitpos) {
        error_setg(errp, "sev-cbitpos=%u needs phys-bits=%u or more",
                   cpu->sev_cbitpos, cpu->sev_cbitpos + 1);
        return false;
    }
    if (cpu->sev_es_asids) {
        /*
         * KVM requires this bit for SEV-ES.  TCG records no branches, so there
         * is nothing to virtualize.
         */
        env->features[FEAT_SVM] |= CPUID_SVM_LBRV;
    }
    if (cpu->sev_reduced_phys_bits >= cpu->phys_bits - 32) {
        error_setg(errp, "sev-reduced-phys-bits=%u leaves too little of "
                   "phys-bits=%u", cpu->sev_reduced_phys_bits, cpu->phys_bits);
        return false;
    }
    return true;
}

bool sev_cpu_cpuid(X86CPU *cpu, uint32_t *eax, uint32_t *ebx, uint32_t *ecx,
                   uint32_t *edx)
{
    if (!cpu->sev) {
        return false;
    }
    *eax = CPUID_8000_001F_EAX_SEV |
           (cpu->sev_es_asids ? CPUID_8000_001F_EAX_ES : 0);
    *ebx = cpu->sev_cbitpos | (cpu->sev_reduced_phys_bits << 6);
    *ecx = cpu->sev_asids;      /* the highest ASID of an SEV guest */
    *edx = cpu->sev_es_asids + 1; /* the lowest ASID without SEV-ES */
    return true;
}

bool sev_cpu_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val)
{
    if (!env_archcpu(env)->sev) {
        return false;
    }
    switch (msr) {
    case MSR_AMD_SYSCFG:
        *val = SYSCFG_MEM_ENCRYPT;
        return true;
    case MSR_K7_HWCR:
        /* KVM does not use SEV unless SMM is locked */
        *val = HWCR_SMMLOCK;
        return true;
    case MSR_AMD_SEV_STATUS:
        *val = (env->sev_asid ? SEV_STATUS_SEV : 0) |
               (env->sev_es_asid ? SEV_STATUS_ES : 0);
        return true;
    default:
        return false;
    }
}

bool sev_cpu_rdmsr_passes(CPUX86State *env, uint32_t msr)
{
    return env->sev_asid && msr == MSR_AMD_SEV_STATUS;
}

bool sev_cpu_vmrun(CPUX86State *env, uint64_t nested_ctl, uint32_t asid)
{
    X86CPU *cpu = env_archcpu(env);
    bool es = nested_ctl & SVM_NESTED_CTL_ES;

    env->sev_asid = 0;
    env->sev_es_asid = 0;
    env->sev_flush = false;
    if (!cpu->sev || !(nested_ctl & SVM_NESTED_CTL_SEV)) {
        return true;
    }
    /*
     * The firmware makes an ASID valid when the guest is active and
     * LAUNCH_FINISH or RECEIVE_FINISH has completed.
     */
    if (!(nested_ctl & SVM_NPT_ENABLED) || !sev_memory_asid_valid(asid)) {
        return false;
    }
    /* Like the firmware, reserve the lower ASIDs for guests with SEV-ES */
    if (es != (asid <= cpu->sev_es_asids) || (es && !sev_es_vmrun(env, asid))) {
        return false;
    }
    env->sev_asid = asid;
    env->sev_cmask = BIT_ULL(cpu->sev_cbitpos);
    return true;
}

bool sev_cpu_leaf(CPUState *cs, hwaddr pa, bool private, int *prot,
                  MMUAccessType access_type, int mmu_idx, bool restart,
                  uintptr_t retaddr)
{
    CPUX86State *env = cpu_env(cs);
    unsigned asid = SEV_MEMORY_RAW;
    bool flush = false;
    int unused = 0;

    switch (mmu_idx) {
    case MMU_NESTED_IDX:
        /*
         * The page contains a page table of the guest or is the page that the
         * guest accesses.  In the first case, ptw_translate() checks the view
         * of the page.  In the second case, x86_cpu_tlb_fill() calls this
         * function again with another @mmu_idx.  So only record here that the
         * vCPU gets a TLB entry for the page.
         */
        sev_memory_touch(cs, pa, false, &unused);
        return false;
    case MMU_PHYS_IDX:
        break;
    default:
        /* The CLFLUSH helper sets the flag again if the instruction restarts */
        flush = env->sev_flush;
        env->sev_flush = false;
        if (!env->sev_asid) {
            break;
        }
        if (private) {
            asid = env->sev_asid;
        } else if (access_type == MMU_INST_FETCH) {
            /* Instruction fetches are private even without the C-bit */
            asid = env->sev_asid;
            *prot &= PAGE_EXEC;
        } else {
            *prot &= ~PAGE_EXEC;
        }
    }
    if (flush ? sev_memory_change_view(cs, pa, asid, restart, retaddr) :
        sev_memory_need_view(cs, pa, asid, restart, retaddr)) {
        return true;
    }
    sev_memory_touch(cs, pa, access_type == MMU_DATA_STORE, prot);
    return false;
}
