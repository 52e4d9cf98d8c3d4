/*
 * Errors of SEV firmware commands, with advice
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TARGET_I386_SEV_MIGRATION_ERROR_H
#define TARGET_I386_SEV_MIGRATION_ERROR_H

/** sev_fw_error_name: name of a firmware error in the SEV API, never NULL */
const char *sev_fw_error_name(int code);

/** sev_fw_error_advice: what a firmware error means and what to do; not NULL */
const char *sev_fw_error_advice(int code);

/**
 * sev_init_error: set @errp after a failure of KVM_SEV_INIT, KVM_SEV_ES_INIT
 * or KVM_SEV_INIT2
 * @es: the guest has SEV-ES
 * @ret: -errno of KVM_MEMORY_ENCRYPT_OP
 * @fw_error: the firmware's answer, 0 or less if the kernel did not ask the
 * firmware
 */
void sev_init_error(Error **errp, bool es, int ret, int fw_error);

/**
 * sev_cmd_error: set @errp after a failure of a command, with the firmware's
 * answer and advice
 * @cmd: name of the command, without a prefix
 * @ret: -errno of KVM_MEMORY_ENCRYPT_OP
 * @fw_error: the firmware's answer, 0 or less if the kernel did not ask the
 * firmware
 */
void sev_cmd_error(Error **errp, const char *cmd, int ret, int fw_error);

/**
 * SevSendOutcome: outcome of packing a run of private pages
 * @done: number of pages that were packed, from the first page of the run on
 * @ret: 0, or -errno of the command for the page that follows these pages
 * @fw_error: the firmware's answer to this command, as for sev_cmd_error()
 * @is_private: whether this page is private now; needed if @ret is -EFAULT
 * @hdr_len: expected length of a packet header, in bytes
 */
typedef struct SevSendOutcome {
    size_t done;
    int ret;
    int fw_error;
    bool is_private;
    uint32_t hdr_len;
} SevSendOutcome;

/* Number of -EFAULT in a row after which sev_send_result() gives up */
#define SEV_SEND_FAULTS_MAX 1000

/**
 * sev_send_result: decide whether to send the packed pages of a run, to requeue
 * the whole run, or to fail
 *
 * If the guest converts a page while it is packed, the command fails with
 * -EAGAIN or -EFAULT.  The guest may have converted the page back since, so
 * the page's present state does not show whether a conversion was the reason.
 * An -EFAULT that persists has another reason and is an error.
 *
 * @faults: number of -EFAULT in a row, which this function updates; 0 when a
 *          session begins
 *
 * Returns the number of pages to send.  Returns -EAGAIN with @errp set if the
 * caller can requeue the run.  Returns another -errno with @errp set if the
 * migration must fail.
 */
int sev_send_result(const SevSendOutcome *o, unsigned *faults, Error **errp);

#endif
