/*
 * SEV-ES: guests whose registers are encrypted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * See the AMD64 Architecture Programmer's Manual, volume 2, section 15.35, and
 * appendix B for the layout of the VMSA.
 *
 * VMRUN loads all of a vCPU's state from its VMSA, a page that is encrypted
 * with the guest's key, and #VMEXIT saves it there.  Some intercepts exit to
 * the hypervisor (automatic exits).  All others raise #VC in the guest.  The
 * guest decides what to disclose to the hypervisor, and executes VMGEXIT.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "cpu.h"
#include "exec/helper-proto.h"
#include "exec/target_page.h"
#include "hw/misc/sev-memory.h"
#include "hw/misc/sev-vmsa.h"
#include "svm.h"
#include "sev-es.h"
#include "tcg/helper-tcg.h"
#include "trace.h"

void helper_vmgexit(CPUX86State *env)
{
    if (!env->sev_es_asid) {
        /* VMGEXIT is VMMCALL with a prefix, which is ignored without SEV-ES */
        cpu_svm_check_intercept_param(env, SVM_EXIT_VMMCALL, 0, GETPC());
        raise_exception_ra(env, EXCP06_ILLOP, GETPC());
    }
    cpu_restore_state(env_cpu(env), GETPC());
    env->eip += env->insn_len;
    do_end_instruction(env);
    cpu_vmexit(env, SVM_EXIT_VMGEXIT, 0, 0);
}

#ifdef TARGET_X86_64

#define MSR_AMD_GHCB            0xc0010130

/* Bit of the VMCB's INTERRUPT_SHADOW: a copy of the guest's RFLAGS.IF */
#define SVM_GUEST_INTERRUPT_MASK BIT(1)

/* Offsets in a VMSA.  The host save area has the same layout at offset SAVE */
#define VMSA_ES                 0x000
#define VMSA_CS                 0x010
#define VMSA_SS                 0x020
#define VMSA_DS                 0x030
#define VMSA_FS                 0x040
#define VMSA_GS                 0x050
#define VMSA_GDTR               0x060
#define VMSA_LDTR               0x070
#define VMSA_IDTR               0x080
#define VMSA_TR                 0x090
#define VMSA_CPL                0x0cb
#define VMSA_EFER               0x0d0
#define VMSA_XSS                0x140
#define VMSA_CR4                0x148
#define VMSA_CR3                0x150
#define VMSA_CR0                0x158
#define VMSA_DR7                0x160
#define VMSA_DR6                0x168
#define VMSA_RFLAGS             0x170
#define VMSA_RIP                0x178
#define VMSA_RSP                0x1d8
#define VMSA_RAX                0x1f8
#define VMSA_STAR               0x200
#define VMSA_LSTAR              0x208
#define VMSA_CSTAR              0x210
#define VMSA_SFMASK             0x218
#define VMSA_KERNEL_GS_BASE     0x220
#define VMSA_SYSENTER_CS        0x228
#define VMSA_SYSENTER_ESP       0x230
#define VMSA_SYSENTER_EIP       0x238
#define VMSA_CR2                0x240
#define VMSA_G_PAT              0x268
#define VMSA_PKRU               0x2e8
/* GPR n is at VMSA_GPRS + 8 * n, except RAX and RSP, which are listed above */
#define VMSA_GPRS               0x300
#define VMSA_SEV_FEATURES       0x3b0
#define VMSA_XCR0               0x3e8
#define VMSA_X87_DP             0x400
#define VMSA_MXCSR              0x408
#define VMSA_X87_FTW            0x40c   /* bit n: register n is not empty */
#define VMSA_X87_FSW            0x40e
#define VMSA_X87_FCW            0x410
#define VMSA_X87_FOP            0x412
#define VMSA_X87_DS             0x414
#define VMSA_X87_CS             0x416
#define VMSA_X87_RIP            0x418
#define VMSA_X87_MANTISSA       0x420   /* ST(0) to ST(7), 8 bytes each */
#define VMSA_X87_EXPONENT       0x460   /* exponent and sign, 2 bytes each */
#define VMSA_XMM                0x470
#define VMSA_YMM_HIGH           0x570
/* This CPU does not use the VMSA and the host save area beyond this offset */
#define STATE_LEN               0x670

#define SAVE                    offsetof(struct vmcb, save)
#define CONTROL(field)          offsetof(struct vmcb, control.field)

/* 64-bit fields that have the same format in a VMSA and in CPUX86State */
static const struct {
    uint16_t vmsa;
    uint16_t env;
} plain[] = {
    { VMSA_XSS, offsetof(CPUX86State, xss) },
    { VMSA_RIP, offsetof(CPUX86State, eip) },
    { VMSA_STAR, offsetof(CPUX86State, star) },
    { VMSA_LSTAR, offsetof(CPUX86State, lstar) },
    { VMSA_CSTAR, offsetof(CPUX86State, cstar) },
    { VMSA_SFMASK, offsetof(CPUX86State, fmask) },
    { VMSA_KERNEL_GS_BASE, offsetof(CPUX86State, kernelgsbase) },
    { VMSA_SYSENTER_ESP, offsetof(CPUX86State, sysenter_esp) },
    { VMSA_SYSENTER_EIP, offsetof(CPUX86State, sysenter_eip) },
    { VMSA_CR2, offsetof(CPUX86State, cr[2]) },
    { VMSA_G_PAT, offsetof(CPUX86State, pat) },
    { VMSA_XCR0, offsetof(CPUX86State, xcr0) },
    { VMSA_X87_DP, offsetof(CPUX86State, fpdp) },
    { VMSA_X87_RIP, offsetof(CPUX86State, fpip) },
};

static uint64_t *plain_in_env(CPUX86State *env, size_t i)
{
    return (uint64_t *)((char *)env + plain[i].env);
}

static unsigned gpr_at(unsigned reg)
{
    return reg == R_EAX ? VMSA_RAX : reg == R_ESP ? VMSA_RSP :
           VMSA_GPRS + 8 * reg;
}

static void get_seg(CPUX86State *env, const uint8_t *b, SegmentCache *sc)
{
    unsigned unused = 64 - cpu_x86_virtual_addr_width(env);
    uint32_t attrib = lduw_le_p(b + offsetof(struct vmcb_seg, attrib));

    sc->selector = lduw_le_p(b + offsetof(struct vmcb_seg, selector));
    sc->flags = (attrib & 0xff) << 8 | (attrib & 0xf00) << 12;
    sc->limit = ldl_le_p(b + offsetof(struct vmcb_seg, limit));
    /* VMRUN sign-extends the base */
    sc->base = (int64_t)(ldq_le_p(b + offsetof(struct vmcb_seg, base)) <<
                         unused) >> unused;
}

static void put_seg(uint8_t *b, const SegmentCache *sc)
{
    stw_le_p(b + offsetof(struct vmcb_seg, selector), sc->selector);
    stw_le_p(b + offsetof(struct vmcb_seg, attrib),
             (sc->flags >> 8 & 0xff) | (sc->flags >> 12 & 0xf00));
    stl_le_p(b + offsetof(struct vmcb_seg, limit), sc->limit);
    stq_le_p(b + offsetof(struct vmcb_seg, base), sc->base);
}

static void load_seg(CPUX86State *env, const uint8_t *b, int reg)
{
    SegmentCache sc;

    get_seg(env, b, &sc);
    cpu_x86_load_seg_cache(env, reg, sc.selector, sc.base, sc.limit, sc.flags);
}

static void load_fpu(CPUX86State *env, const uint8_t *b)
{
    uint8_t used = ldub_p(b + VMSA_X87_FTW);
    unsigned i;

    cpu_set_fpuc(env, lduw_le_p(b + VMSA_X87_FCW));
    env->fpus = lduw_le_p(b + VMSA_X87_FSW) & ~0x3800;
    env->fpstt = lduw_le_p(b + VMSA_X87_FSW) >> 11 & 7;
    env->fpop = lduw_le_p(b + VMSA_X87_FOP);
    env->fpds = lduw_le_p(b + VMSA_X87_DS);
    env->fpcs = lduw_le_p(b + VMSA_X87_CS);
    for (i = 0; i < 8; i++) {
        floatx80 *st = &env->fpregs[(env->fpstt + i) & 7].d;

        env->fptags[i] = !(used & BIT(i));
        st->low = ldq_le_p(b + VMSA_X87_MANTISSA + 8 * i);
        st->high = lduw_le_p(b + VMSA_X87_EXPONENT + 2 * i);
    }
    cpu_set_mxcsr(env, ldl_le_p(b + VMSA_MXCSR));
    for (i = 0; i < 16; i++) {
        env->xmm_regs[i].ZMM_Q(0) = ldq_le_p(b + VMSA_XMM + 16 * i);
        env->xmm_regs[i].ZMM_Q(1) = ldq_le_p(b + VMSA_XMM + 16 * i + 8);
        env->xmm_regs[i].ZMM_Q(2) = ldq_le_p(b + VMSA_YMM_HIGH + 16 * i);
        env->xmm_regs[i].ZMM_Q(3) = ldq_le_p(b + VMSA_YMM_HIGH + 16 * i + 8);
    }
}

static void save_fpu(CPUX86State *env, uint8_t *b)
{
    uint8_t used = 0;
    unsigned i;

    for (i = 0; i < 8; i++) {
        const floatx80 *st = &env->fpregs[(env->fpstt + i) & 7].d;

        used |= env->fptags[i] ? 0 : BIT(i);
        stq_le_p(b + VMSA_X87_MANTISSA + 8 * i, st->low);
        stw_le_p(b + VMSA_X87_EXPONENT + 2 * i, st->high);
    }
    stw_le_p(b + VMSA_X87_FTW, used);
    stw_le_p(b + VMSA_X87_FSW, (env->fpus & ~0x3800) | env->fpstt << 11);
    stw_le_p(b + VMSA_X87_FCW, env->fpuc);
    stw_le_p(b + VMSA_X87_FOP, env->fpop);
    stw_le_p(b + VMSA_X87_DS, env->fpds);
    stw_le_p(b + VMSA_X87_CS, env->fpcs);
    update_mxcsr_from_sse_status(env);
    stl_le_p(b + VMSA_MXCSR, env->mxcsr);
    for (i = 0; i < 16; i++) {
        stq_le_p(b + VMSA_XMM + 16 * i, env->xmm_regs[i].ZMM_Q(0));
        stq_le_p(b + VMSA_XMM + 16 * i + 8, env->xmm_regs[i].ZMM_Q(1));
        stq_le_p(b + VMSA_YMM_HIGH + 16 * i, env->xmm_regs[i].ZMM_Q(2));
        stq_le_p(b + VMSA_YMM_HIGH + 16 * i + 8, env->xmm_regs[i].ZMM_Q(3));
    }
}

/* Set the state that the FPU has after INIT */
static void reset_fpu(CPUX86State *env)
{
    cpu_set_fpuc(env, 0x37f);
    env->fpus = env->fpstt = env->fpop = env->fpcs = env->fpds = 0;
    env->fpip = env->fpdp = 0;
    memset(env->fpregs, 0, sizeof(env->fpregs));
    memset(env->fptags, 1, sizeof(env->fptags));
    memset(env->xmm_regs, 0, sizeof(env->xmm_regs));
    cpu_set_mxcsr(env, 0x1f80);
}

bool sev_es_vmrun(CPUX86State *env, uint32_t asid)
{
    hwaddr pa = x86_ldq_phys(env_cpu(env), env->vm_vmcb + CONTROL(vmsa_pa));

    if (pa & ~TARGET_PAGE_MASK || !sev_memory_is_ram(pa, TARGET_PAGE_SIZE)) {
        return false;
    }
    env->sev_es_asid = asid;
    env->sev_es_vmsa = pa;
    return true;
}

static bool load_vmsa(CPUX86State *env, const uint8_t *b)
{
    uint64_t cr0 = ldq_le_p(b + VMSA_CR0);
    uint64_t cr3 = ldq_le_p(b + VMSA_CR3);
    uint64_t cr4 = ldq_le_p(b + VMSA_CR4);
    uint64_t efer = ldq_le_p(b + VMSA_EFER);
    uint64_t dr6 = ldq_le_p(b + VMSA_DR6);
    uint64_t dr7 = ldq_le_p(b + VMSA_DR7);
    size_t i;

    if ((cr0 & SVM_CR0_RESERVED_MASK) ||
        ((cr0 & CR0_NW_MASK) && !(cr0 & CR0_CD_MASK)) ||
        ((efer & MSR_EFER_LMA) &&
         cr3 >> env_archcpu(env)->phys_bits) ||
        (cr4 & cr4_reserved_bits(env)) || !(efer & MSR_EFER_SVME) ||
        (dr6 & DR_RESERVED_MASK) || (dr7 & DR_RESERVED_MASK) ||
        /* The optional features in SEV_FEATURES are not emulated */
        ldq_le_p(b + VMSA_SEV_FEATURES)) {
        return false;
    }

    cpu_x86_update_cr0(env, cr0);
    cpu_x86_update_cr4(env, cr4);
    cpu_x86_update_cr3(env, cr3);
    cpu_load_efer(env, efer);
    env->eflags = 0;
    cpu_load_eflags(env, ldq_le_p(b + VMSA_RFLAGS),
                    ~(CC_O | CC_S | CC_Z | CC_A | CC_P | CC_C | DF_MASK));
    load_seg(env, b + VMSA_ES, R_ES);
    load_seg(env, b + VMSA_CS, R_CS);
    load_seg(env, b + VMSA_SS, R_SS);
    load_seg(env, b + VMSA_DS, R_DS);
    load_seg(env, b + VMSA_FS, R_FS);
    load_seg(env, b + VMSA_GS, R_GS);
    get_seg(env, b + VMSA_GDTR, &env->gdt);
    get_seg(env, b + VMSA_IDTR, &env->idt);
    get_seg(env, b + VMSA_LDTR, &env->ldt);
    get_seg(env, b + VMSA_TR, &env->tr);
    for (i = 0; i < CPU_NB_REGS; i++) {
        env->regs[i] = ldq_le_p(b + gpr_at(i));
    }
    for (i = 0; i < ARRAY_SIZE(plain); i++) {
        *plain_in_env(env, i) = ldq_le_p(b + plain[i].vmsa);
    }
    env->sysenter_cs = ldq_le_p(b + VMSA_SYSENTER_CS);
    env->pkru = ldl_le_p(b + VMSA_PKRU);
    cpu_x86_update_dr7(env, dr7);
    env->dr[6] = dr6;
    load_fpu(env, b);
    cpu_sync_bndcs_hflags(env);
    cpu_sync_avx_hflag(env);
    return true;
}

static void save_vmsa(CPUX86State *env, uint8_t *b)
{
    size_t i;

    stq_le_p(b + VMSA_CR0, env->cr[0]);
    stq_le_p(b + VMSA_CR3, env->cr[3]);
    stq_le_p(b + VMSA_CR4, env->cr[4]);
    stq_le_p(b + VMSA_EFER, env->efer);
    stq_le_p(b + VMSA_RFLAGS, cpu_compute_eflags(env));
    stq_le_p(b + VMSA_DR6, env->dr[6]);
    stq_le_p(b + VMSA_DR7, env->dr[7]);
    b[VMSA_CPL] = env->hflags & HF_CPL_MASK;
    put_seg(b + VMSA_ES, &env->segs[R_ES]);
    put_seg(b + VMSA_CS, &env->segs[R_CS]);
    put_seg(b + VMSA_SS, &env->segs[R_SS]);
    put_seg(b + VMSA_DS, &env->segs[R_DS]);
    put_seg(b + VMSA_FS, &env->segs[R_FS]);
    put_seg(b + VMSA_GS, &env->segs[R_GS]);
    put_seg(b + VMSA_GDTR, &env->gdt);
    put_seg(b + VMSA_IDTR, &env->idt);
    put_seg(b + VMSA_LDTR, &env->ldt);
    put_seg(b + VMSA_TR, &env->tr);
    for (i = 0; i < CPU_NB_REGS; i++) {
        stq_le_p(b + gpr_at(i), env->regs[i]);
    }
    for (i = 0; i < ARRAY_SIZE(plain); i++) {
        stq_le_p(b + plain[i].vmsa, *plain_in_env(env, i));
    }
    stq_le_p(b + VMSA_SYSENTER_CS, env->sysenter_cs);
    stl_le_p(b + VMSA_PKRU, env->pkru);
    save_fpu(env, b);
}

bool sev_es_load(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    uint8_t b[SEV_VMSA_LEN];

    if (!sev_memory_read(env->sev_es_vmsa, env->sev_es_asid, b, sizeof(b)) ||
        !sev_vmsa_is_intact(b)) {
        trace_sev_es_bad_vmsa(env->sev_es_asid, env->sev_es_vmsa);
        env->sev_es_asid = 0;
        return false;
    }
    /*
     * Save the host's PAT.  Hardware has a separate register for the guest's
     * PAT, but TCG has only one register, into which load_vmsa() loads it.
     */
    env->sev_es_host_pat = env->pat;
    env->int_ctl = x86_ldl_phys(cs, env->vm_vmcb + CONTROL(int_ctl));
    env->hflags2 &= ~(HF2_HIF_MASK | HF2_VINTR_MASK);
    if (env->int_ctl & V_INTR_MASKING_MASK) {
        env->hflags2 |= HF2_VINTR_MASK;
        if (env->eflags & IF_MASK) {
            env->hflags2 |= HF2_HIF_MASK;
        }
    }
    if (!load_vmsa(env, b)) {
        env->sev_es_asid = 0;
        return false;
    }
    x86_stq_phys(cs, env->vm_vmcb + CONTROL(exit_info_2), 0);
    env->sev_es_ghcb = x86_ldq_phys(cs, env->vm_vmcb + CONTROL(ghcb_gpa));
    return true;
}

bool sev_es_save(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    hwaddr int_state = env->vm_vmcb + CONTROL(int_state);
    uint8_t b[SEV_VMSA_LEN];

    if (!env->sev_es_asid) {
        return false;
    }
    /*
     * If the hypervisor has deactivated the ASID while the guest ran, the key
     * is gone, and the guest's state cannot be saved in its VMSA
     */
    if (sev_memory_has_key(env->sev_es_asid) &&
        sev_memory_read(env->sev_es_vmsa, env->sev_es_asid, b, sizeof(b))) {
        save_vmsa(env, b);
        if (sev_memory_write(env->sev_es_vmsa, env->sev_es_asid, b,
                             sizeof(b))) {
            sev_vmsa_store_checksum(b);
        }
    }
    if (env->eflags & IF_MASK) {
        x86_stl_phys(cs, int_state,
                     x86_ldl_phys(cs, int_state) | SVM_GUEST_INTERRUPT_MASK);
    }
    x86_stl_phys(cs, env->vm_vmcb + CONTROL(int_ctl), env->int_ctl);
    x86_stq_phys(cs, env->vm_vmcb + CONTROL(ghcb_gpa), env->sev_es_ghcb);
    return true;
}

/*
 * Load the registers that VMRUN does not save.  The hypervisor has stored these
 * registers in the host save area before VMRUN.  XCR0, PKRU, XSS and the GPRs
 * have the same offsets there as in a VMSA.
 */
void sev_es_load_host(CPUX86State *env)
{
    uint8_t b[STATE_LEN];
    size_t i;

    if (!env->sev_es_asid) {
        return;
    }
    env->sev_es_asid = 0;
    cpu_physical_memory_read(env->vm_hsave + SAVE, b, sizeof(b));
    load_seg(env, b + VMSA_FS, R_FS);
    load_seg(env, b + VMSA_GS, R_GS);
    get_seg(env, b + VMSA_LDTR, &env->ldt);
    get_seg(env, b + VMSA_TR, &env->tr);
    for (i = 0; i < CPU_NB_REGS; i++) {
        if (i != R_EAX && i != R_ESP) {
            env->regs[i] = ldq_le_p(b + gpr_at(i));
        }
    }
    env->star = ldq_le_p(b + VMSA_STAR);
    env->lstar = ldq_le_p(b + VMSA_LSTAR);
    env->cstar = ldq_le_p(b + VMSA_CSTAR);
    env->fmask = ldq_le_p(b + VMSA_SFMASK);
    env->kernelgsbase = ldq_le_p(b + VMSA_KERNEL_GS_BASE);
    env->sysenter_cs = ldq_le_p(b + VMSA_SYSENTER_CS);
    env->sysenter_esp = ldq_le_p(b + VMSA_SYSENTER_ESP);
    env->sysenter_eip = ldq_le_p(b + VMSA_SYSENTER_EIP);
    env->cr[2] = ldq_le_p(b + VMSA_CR2);
    env->xcr0 = ldq_le_p(b + VMSA_XCR0);
    env->xss = ldq_le_p(b + VMSA_XSS);
    env->pkru = ldl_le_p(b + VMSA_PKRU);
    env->pat = env->sev_es_host_pat;
    reset_fpu(env);
    cpu_sync_bndcs_hflags(env);
    cpu_sync_avx_hflag(env);
}

/* Whether the hypervisor can handle the exit without the guest's help */
static bool exit_is_automatic(uint64_t exit_code, uint64_t exit_info_1)
{
    switch (exit_code) {
    case SVM_EXIT_EXCP_BASE + EXCP12_MCHK:
    /* An intercepted #VC cannot become another #VC */
    case SVM_EXIT_EXCP_BASE + EXCP1D_VC:
    case SVM_EXIT_INTR ... SVM_EXIT_VINTR:
    case SVM_EXIT_PAUSE:
    case SVM_EXIT_HLT:
    case SVM_EXIT_SHUTDOWN:
    case SVM_EXIT_EFER_WRITE_TRAP:
    case SVM_EXIT_CR0_WRITE_TRAP ... SVM_EXIT_CR0_WRITE_TRAP + 15:
    case SVM_EXIT_VMGEXIT:
    case SVM_EXIT_ERR:
        return true;
    case SVM_EXIT_NPF:
        /*
         * Hypervisors set reserved bits in the nested page table entries of
         * MMIO addresses.  A fault because of these bits is an MMIO access,
         * which the guest must handle in #VC.
         */
        return !(exit_info_1 & PG_ERROR_RSVD_MASK);
    default:
        return false;
    }
}

bool sev_es_exit(CPUX86State *env, uint64_t exit_code, uint64_t exit_info_1)
{
    if (!env->sev_es_asid) {
        return false;
    }
    if (exit_is_automatic(exit_code, exit_info_1)) {
        trace_sev_es_exit(env->sev_es_asid, exit_code, env->eip);
        /* The hypervisor cannot change RIP, so skip the instruction here */
        if (exit_code == SVM_EXIT_HLT || exit_code == SVM_EXIT_PAUSE) {
            env->eip += env->insn_len;
            do_end_instruction(env);
        }
        return true;
    }
    /* The hypervisor must not see a stale EXITINFO2 */
    x86_stq_phys(env_cpu(env), env->vm_vmcb + CONTROL(exit_info_2), 0);
    trace_sev_es_vc(env->sev_es_asid, exit_code, env->eip);
    raise_exception_err(env, EXCP1D_VC, exit_code);
}

void sev_es_trap(CPUX86State *env, uint32_t exit_code, uint64_t value,
                 uintptr_t retaddr)
{
    if (!env->sev_es_asid || !cpu_svm_has_intercept(env, exit_code)) {
        return;
    }
    cpu_restore_state(env_cpu(env), retaddr);
    env->eip += env->insn_len;
    do_end_instruction(env);
    cpu_vmexit(env, exit_code, value, 0);
}

bool sev_es_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val)
{
    if (!env->sev_es_asid || msr != MSR_AMD_GHCB) {
        return false;
    }
    *val = env->sev_es_ghcb;
    return true;
}

bool sev_es_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val)
{
    if (!env->sev_es_asid || msr != MSR_AMD_GHCB) {
        return false;
    }
    env->sev_es_ghcb = val;
    return true;
}

#endif
