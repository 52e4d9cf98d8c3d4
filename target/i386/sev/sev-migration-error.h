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

/* Number of -EFAULT in a row after which sev_send_may_retry() gives up */
#define SEV_SEND_FAULTS_MAX 1000

/**
 * sev_send_may_retry: whether to requeue a page that could not be packed
 *
 * If the guest converts a page while it is packed, the command fails with
 * -EAGAIN or -EFAULT.  The guest may have converted the page back since, so
 * the page's present state does not show whether a conversion was the reason.
 * An -EFAULT that persists has another reason and is an error.
 *
 * @faults: number of -EFAULT in a row; the caller sets it to 0 when a page was
 *          packed
 * @ret: -errno of the command
 */
bool sev_send_may_retry(unsigned *faults, int ret);

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

#endif
