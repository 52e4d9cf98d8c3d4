/*
 * SVM: next RIP and decode assists
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * See the AMD64 Architecture Programmer's Manual, volume 2, sections 15.7.1
 * (State Saved on Exit) and 15.8.4 (Nested and intercepted #PF: Guest
 * Instruction Bytes, Decode Assists).  A hypervisor cannot read the code of an
 * SEV guest, so it needs the assists to emulate an instruction of the guest.
 */

#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/cpu-common.h"
#include "exec/exec-all.h"
#include "exec/target_page.h"
#include "svm.h"
#include "svm-assist.h"

/* EXITINFO1 of CR accesses: the access was a MOV; bits 3:0 are its GPR */
#define SVM_CR_ASSIST_MOV   BIT_ULL(63)

/*
 * Copy the bytes of the current instruction and those after it to @buf, up to
 * the first byte that the guest cannot fetch.  Returns the number of bytes.
 */
static unsigned svm_assist_fetch(CPUX86State *env, uint8_t *buf, unsigned size)
{
    target_ulong pc = env->segs[R_CS].base + env->eip;
    int mmu_idx = cpu_mmu_index(env_cpu(env), true);
    unsigned done = 0;

    if (!(env->hflags & HF_CS64_MASK)) {
        pc = (uint32_t)pc;
    }
    while (done < size) {
        unsigned len = MIN(size - done, -(pc | TARGET_PAGE_MASK));
        void *host;
        int flags = probe_access_flags(env, pc, 1, MMU_INST_FETCH, mmu_idx,
                                       true, &host, 0);

        if ((flags & TLB_INVALID_MASK) || !host) {
            break;
        }
        memcpy(buf + done, host, len);
        done += len;
        pc += len;
    }
    return done;
}

/*
 * Get the GPR of a MOV from or to a control or debug register, or -1 if the
 * register is accessed by another instruction, such as SMSW, LMSW or CLTS.
 */
static int svm_assist_mov_gpr(CPUX86State *env)
{
    uint8_t insn[15];
    unsigned len = svm_assist_fetch(env, insn, MIN(env->insn_len,
                                                   sizeof(insn)));
    uint8_t rex = 0;
    unsigned i;

    for (i = 0; i < len && insn[i] != 0x0f; i++) {
        /* Only the last prefix can be a REX prefix */
        rex = (env->hflags & HF_CS64_MASK) && (insn[i] & 0xf0) == 0x40
              ? insn[i] : 0;
    }
    if (i + 2 >= len || insn[i + 1] < 0x20 || insn[i + 1] > 0x23) {
        return -1;
    }
    return (insn[i + 2] & 7) | (rex & 1 ? 8 : 0);
}

void svm_assist(CPUX86State *env, uint64_t exit_code, uint64_t *exit_info_1)
{
    bool decode = env->features[FEAT_SVM] & CPUID_SVM_DECODEASSIST;
    /* insn_len and insn_bytes of the VMCB, which are adjacent */
    uint8_t bytes[16] = { 0 };
    bool next = false;
    int gpr;

    if (!(env->hflags & HF_GUEST_MASK)) {
        /* VMRUN rejected the VMCB, so the guest's state is not loaded */
        return;
    }

    switch (exit_code) {
    case SVM_EXIT_READ_CR0 ... SVM_EXIT_WRITE_CR0 + 15:
    case SVM_EXIT_CR0_SEL_WRITE:
        next = true;
        gpr = decode ? svm_assist_mov_gpr(env) : -1;
        if (gpr >= 0) {
            *exit_info_1 = SVM_CR_ASSIST_MOV | gpr;
        }
        break;
    case SVM_EXIT_READ_DR0 ... SVM_EXIT_WRITE_DR0 + 15:
        next = true;
        gpr = decode ? svm_assist_mov_gpr(env) : -1;
        if (gpr >= 0) {
            *exit_info_1 = gpr;
        }
        break;
    case SVM_EXIT_EXCP_BASE + EXCP0E_PAGE:
    case SVM_EXIT_NPF:
        /* A fault on an instruction fetch leaves no instruction to report */
        if (decode && !(*exit_info_1 & PG_ERROR_I_D_MASK)) {
            bytes[0] = svm_assist_fetch(env, bytes + 1, sizeof(bytes) - 1);
        }
        break;
    /*
     * Between these two ranges are TASK_SWITCH, FERR_FREEZE and SHUTDOWN.  They
     * are not intercepts of an instruction, so their NRIP is 0.
     */
    case SVM_EXIT_IDTR_READ ... SVM_EXIT_MSR:
    case SVM_EXIT_VMRUN ... SVM_EXIT_XSETBV:
        next = true;
        break;
    default:
        break;
    }

    if (env->features[FEAT_SVM] & CPUID_SVM_NRIPSAVE) {
        x86_stq_phys(env_cpu(env),
                     env->vm_vmcb + offsetof(struct vmcb, control.next_rip),
                     next ? env->eip + env->insn_len : 0);
    }
    if (decode) {
        cpu_physical_memory_write(env->vm_vmcb +
                                  offsetof(struct vmcb, control.insn_len),
                                  bytes, sizeof(bytes));
    }
}
