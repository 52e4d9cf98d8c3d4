/*
 * SEV-ES: guests whose registers are encrypted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_SEV_ES_H
#define I386_TCG_SEV_ES_H

#include "cpu.h"

#ifdef TARGET_X86_64

/**
 * sev_es_vmrun: prepare to enter a guest with SEV-ES
 * @asid: the ASID of the guest.  The firmware must have set a key for it
 *
 * Returns false if the VMCB does not have a valid address of a VMSA.
 */
bool sev_es_vmrun(CPUX86State *env, uint32_t asid);

/**
 * sev_es_load: load the state of the guest that sev_es_vmrun() has prepared
 *
 * Loads the complete state from the VMSA.  (The state of guests without SEV-ES
 * is in the VMCB, and VMRUN loads it.)  Returns false, without changing any
 * register, if the VMSA does not match its checksum or its state is invalid.
 */
bool sev_es_load(CPUX86State *env);

/**
 * sev_es_save: save the state of the guest that exits, if it has SEV-ES
 *
 * Returns false if the guest does not have SEV-ES.  The caller must then save
 * its state in the VMCB.
 */
bool sev_es_save(CPUX86State *env);

/**
 * sev_es_load_host: load the host's registers that VMRUN does not save
 *
 * This is the last step of a #VMEXIT, after sev_es_save().  If the guest does
 * not have SEV-ES, the function does nothing, and the hypervisor restores these
 * registers itself.
 */
void sev_es_load_host(CPUX86State *env);

/**
 * sev_es_exit: decide whether a guest exits to the hypervisor
 * @exit_code: the reason, SVM_EXIT_*
 * @exit_info_1: EXITINFO1
 *
 * Returns false if the guest does not have SEV-ES, and true if this is an
 * automatic exit.  Otherwise raises #VC in the guest and does not return.  @env
 * must have the CPU's state from before the instruction.
 */
bool sev_es_exit(CPUX86State *env, uint64_t exit_code, uint64_t exit_info_1);

/**
 * sev_es_trap: exit to the hypervisor after a guest with SEV-ES has written a
 * register, if the hypervisor intercepts @exit_code
 * @exit_code: SVM_EXIT_EFER_WRITE_TRAP, or SVM_EXIT_CR0_WRITE_TRAP plus the
 *             number of the control register
 * @value: the value that was written
 * @retaddr: host return address into the generated code
 */
void sev_es_trap(CPUX86State *env, uint32_t exit_code, uint64_t value,
                 uintptr_t retaddr);

/**
 * sev_es_rdmsr: read the GHCB MSR
 *
 * Returns false if @msr is another MSR, or if the guest has no SEV-ES.
 */
bool sev_es_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val);

/**
 * sev_es_wrmsr: write the GHCB MSR
 *
 * Returns false if @msr is another MSR, or if the guest has no SEV-ES.
 */
bool sev_es_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val);

#else

/* SEV-ES needs long mode */
static inline bool sev_es_vmrun(CPUX86State *env, uint32_t asid)
{
    return false;
}

static inline bool sev_es_load(CPUX86State *env)
{
    return false;
}

static inline bool sev_es_save(CPUX86State *env)
{
    return false;
}

static inline void sev_es_load_host(CPUX86State *env)
{
}

static inline bool sev_es_exit(CPUX86State *env, uint64_t exit_code,
                               uint64_t exit_info_1)
{
    return false;
}

static inline void sev_es_trap(CPUX86State *env, uint32_t exit_code,
                               uint64_t value, uintptr_t retaddr)
{
}

static inline bool sev_es_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val)
{
    return false;
}

static inline bool sev_es_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val)
{
    return false;
}

#endif

#endif
