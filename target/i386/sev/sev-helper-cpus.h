/*
 * Commands for the migration helper of an SEV guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * docs/specs/sev-migration-helper.rst describes the commands.  The helper
 * belongs to the guest, so QEMU does not trust what it returns.
 */
#ifndef TARGET_I386_SEV_HELPER_CPUS_H
#define TARGET_I386_SEV_HELPER_CPUS_H

#include "qemu/thread.h"
#include "sev-helper-memory.h"
#include "sev-helper-vcpu.h"

QEMU_BUILD_BUG_ON(MH_CPUS > SEV_HELPER_VCPUS_MAX);

/**
 * SevHelperCpus: the hidden vCPUs that run the helper
 * @kvm: the hidden vCPUs that KVM has created for the VM.  KVM keeps them when
 *       sev_helper_cpus_close() sets @n to 0.
 * @n: number of hidden vCPUs that can run commands; 0 before
 *     sev_helper_cpus_open() and after sev_helper_cpus_close()
 * @lock: protects @idle and @broken; no other lock is taken while it is held
 * @idle: bit mask of the vCPUs that run no command
 * @changed: @idle has changed
 * @broken: a command of the helper ended without a status, or with an unknown
 *          one.  QEMU must not use the helper again in this VM.
 */
typedef struct SevHelperCpus {
    SevHelperMemory *memory;
    SevHelperKvmVcpus kvm;
    SevHelperVcpu *vcpu[MH_CPUS];
    unsigned n;
    QemuMutex lock;
    QemuCond changed;
    unsigned idle;
    bool broken;
} SevHelperCpus;

/** sev_helper_cpus_init: to be called once */
void sev_helper_cpus_init(SevHelperCpus *c, SevHelperMemory *memory);

/**
 * sev_helper_cpus_open: make @n hidden vCPUs, at most MH_CPUS, whose first
 * instruction is at SevHelperMemory.entry.  If the helper arrives by migration,
 * the caller sets SevHelperMemory.entry after it has opened the vCPUs.  It must
 * then close the vCPUs and open them again, because only this function sets
 * their registers to that address.  BQL.
 */
bool sev_helper_cpus_open(SevHelperCpus *c, unsigned n, Error **errp);

/**
 * sev_helper_cpus_close: end all hidden vCPUs.  The caller makes sure that no
 * command runs.  BQL.
 */
void sev_helper_cpus_close(SevHelperCpus *c);

/*
 * Any thread may call the following functions, and several at a time.  Each
 * waits for a vCPU, and returns false with @errp set if the helper refuses the
 * command or cannot run it.
 */

/**
 * sev_helper_command: wait until all vCPUs are idle, and run @command, which
 * has no argument.  No vCPU runs another command at the same time.  The caller
 * makes sure that no other thread waits for a vCPU, because that thread could
 * take an idle vCPU first and so prolong the wait of this function.
 */
bool sev_helper_command(SevHelperCpus *c, MhCommand command, Error **errp);

/**
 * sev_helper_seal: seal pages, and append the batch to @out
 * @channel: the destination must open the batches of a channel in the order in
 *           which this function has sealed them
 * @gpa: addresses of @n pages, 1 to MH_BATCH_PAGES
 */
bool sev_helper_seal(SevHelperCpus *c, unsigned channel, const uint64_t *gpa,
                     size_t n, GByteArray *out, Error **errp);

/** sev_helper_seal_end: append the last batch of the session to @out */
bool sev_helper_seal_end(SevHelperCpus *c, GByteArray *out, Error **errp);

/**
 * sev_helper_open_batch: open a batch of pages
 * @gpa: addresses that the @n pages of the batch must have
 * @in: @len untrusted bytes, which must be exactly one batch
 */
bool sev_helper_open_batch(SevHelperCpus *c, const uint64_t *gpa, size_t n,
                           const uint8_t *in, size_t len, Error **errp);

/** sev_helper_open_end: open the last batch of the session */
bool sev_helper_open_end(SevHelperCpus *c, const uint8_t *in, size_t len,
                         Error **errp);

#endif
