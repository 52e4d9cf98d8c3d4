/*
 * SEV-ES: guests whose registers the hypervisor does not see
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_SEV_ES_H
#define I386_TCG_SEV_ES_H

#include "cpu.h"

#ifdef TARGET_X86_64

/**
 * sev_es_vmrun: prepare to enter a guest with SEV-ES
 * @asid: the guest's, which has a key
 *
 * Returns false if the VMCB has no address of a VMSA.
 */
bool sev_es_vmrun(CPUX86State *env, uint32_t asid);

/**
 * sev_es_load: load the state of the guest that was prepared for
 *
 * VMRUN loads the state of other guests from the VMCB; this function loads all
 * of it from the VMSA.  Returns false, with no register changed, if the VMSA
 * does not match its checksum or contains an invalid state.
 */
bool sev_es_load(CPUX86State *env);

/**
 * sev_es_save: save the state of the guest that exits, if it has SEV-ES
 *
 * Returns false if it has not: the state belongs into the VMCB.
 */
bool sev_es_save(CPUX86State *env);

/**
 * sev_es_load_host: after sev_es_save(), load what else there is of the host
 *
 * The last step of a #VMEXIT: with other guests, this is the hypervisor's work.
 */
void sev_es_load_host(CPUX86State *env);

/**
 * sev_es_exit: a guest is about to exit
 * @exit_code: why, SVM_EXIT_*
 * @exit_info_1: EXITINFO1
 *
 * Returns false if it has no SEV-ES, true if this is an automatic exit.  If it
 * is not, the guest gets #VC instead.  Its state is that before the
 * instruction; of which the hypervisor is to see nothing.
 */
bool sev_es_exit(CPUX86State *env, uint64_t exit_code, uint64_t exit_info_1);

/**
 * sev_es_trap: a register was written, let the hypervisor know if it wants to
 * @exit_code: SVM_EXIT_EFER_WRITE_TRAP or one of SVM_EXIT_CR0_WRITE_TRAP
 * @value: what was written
 * @retaddr: host return address into the generated code
 */
void sev_es_trap(CPUX86State *env, uint32_t exit_code, uint64_t value,
                 uintptr_t retaddr);

/**
 * sev_es_rdmsr: read the GHCB MSR; false if @msr is another, or not there
 */
bool sev_es_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val);

/**
 * sev_es_wrmsr: write the GHCB MSR; false if @msr is another, or not there
 */
bool sev_es_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val);

#else

/* No CPU with SEV-ES is without long mode */
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
