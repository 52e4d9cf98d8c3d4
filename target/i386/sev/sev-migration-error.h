/*
 * What the SEV firmware's answers mean to somebody who migrates a guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TARGET_I386_SEV_MIGRATION_ERROR_H
#define TARGET_I386_SEV_MIGRATION_ERROR_H

/** sev_fw_error_name: an answer as the SEV API calls it, never NULL */
const char *sev_fw_error_name(int code);

/** sev_fw_error_advice: what it means and what to do, never NULL */
const char *sev_fw_error_advice(int code);

/* Calls of sev_send_may_retry() in a row after which a fault is an error */
#define SEV_SEND_FAULTS_MAX 1000

/**
 * sev_send_may_retry: can it help to pack the page later that could not be
 * packed now?
 *
 * A page that the guest converts while it is packed gives -EAGAIN or -EFAULT,
 * and it may have been converted back by now, so its state does not tell
 * whether this was why.  A fault that stays is an error in the end.
 *
 * @faults: how often -EFAULT was met in a row; the caller sets it to 0 when
 *          a page was packed
 * @ret: -errno of the command
 */
bool sev_send_may_retry(unsigned *faults, int ret);

/**
 * sev_init_error: say why KVM_SEV_INIT, KVM_SEV_ES_INIT or KVM_SEV_INIT2 failed
 * @es: the guest has SEV-ES
 * @ret: -errno of KVM_MEMORY_ENCRYPT_OP
 * @fw_error: the firmware's answer, 0 or less if it was not asked
 */
void sev_init_error(Error **errp, bool es, int ret, int fw_error);

/**
 * sev_cmd_error: say that a command failed, what the firmware answered, and
 * what to do
 * @cmd: its name, without a prefix
 * @ret: -errno of KVM_MEMORY_ENCRYPT_OP
 * @fw_error: the firmware's answer, 0 or less if it was not asked
 */
void sev_cmd_error(Error **errp, const char *cmd, int ret, int fw_error);

#endif
