/*
 * Errors of SEV firmware commands, with advice
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The names come from "Status Codes" in Secure Encrypted Virtualization API,
 * AMD publication 55766.  The advice is part of the message, because QMP does
 * not return the hint of an error.
 */
#include "qemu/osdep.h"
#include <linux/psp-sev.h>
#include "qapi/error.h"
#include "sev-migration-error.h"

#define ADVICE_BUG  "QEMU and the kernel disagree with the firmware: report it"
#define ADVICE_OLD  "the firmware does not know the command: update it"
#define ADVICE_HW   "the hardware has failed: move its guests away and reset " \
                    "this host"
/*
 * If the policy has the flag SEV, SEND_START verifies the certificates of the
 * destination's platform up to AMD's key, and rejects a CEK that does not have
 * AMD's signature
 */
#define ADVICE_CEK  "if the guest's policy has SEV (0x20), replace the CEK in " \
                    "that chain by the CEK that AMD has signed for the chip"

static const struct {
    const char *name;
    const char *advice;
} answers[] = {
    [SEV_RET_SUCCESS] = { "SUCCESS", "nothing is wrong" },
    [SEV_RET_INVALID_PLATFORM_STATE] = {
        "INVALID_PLATFORM_STATE",
        "the platform is not initialized: see the host's log (ccp)" },
    [SEV_RET_INVALID_GUEST_STATE] = {
        "INVALID_GUEST_STATE",
        "the firmware has the guest in another state, maybe with a session "
        "that was not closed: see query-sev; restarting the guest helps" },
    [SEV_RET_INVALID_CONFIG] = {
        "INVALID_CONFIG",
        "the platform is not set up for this: see the host's log (ccp)" },
    [SEV_RET_INVALID_LEN] = {
        "INVALID_LENGTH",
        "a certificate or a session has not the length that this firmware "
        "expects: set those of the destination again, or the firmware is of "
        "another version" },
    [SEV_RET_ALREADY_OWNED] = {
        "ALREADY_OWNED", "the platform has an owner who has to do this" },
    [SEV_RET_INVALID_CERTIFICATE] = {
        "INVALID_CERTIFICATE",
        "the firmware rejects a certificate: give migrate-set-sev-info 'pdh' "
        "and 'cert-chain' of the destination's query-sev-capabilities, and "
        "AMD's certificates for the destination's chip; " ADVICE_CEK },
    [SEV_RET_POLICY_FAILURE] = {
        "POLICY_FAILURE",
        "the guest's policy does not allow this platform: its owner decided "
        "that when it was launched" },
    [SEV_RET_INACTIVE] = { "INACTIVE", ADVICE_BUG },
    [SEV_RET_INVALID_ADDRESS] = { "INVALID_ADDRESS", ADVICE_BUG },
    [SEV_RET_BAD_SIGNATURE] = {
        "BAD_SIGNATURE",
        "the certificates do not sign each other: give migrate-set-sev-info "
        "the chain of the destination's platform; " ADVICE_CEK },
    [SEV_RET_BAD_MEASUREMENT] = {
        "BAD_MEASUREMENT",
        "the data was changed on its way, or packed for another platform: "
        "migrate again, with the PDH of this destination" },
    [SEV_RET_ASID_OWNED] = { "ASID_OWNED", ADVICE_BUG },
    [SEV_RET_INVALID_ASID] = { "INVALID_ASID", ADVICE_BUG },
    [SEV_RET_WBINVD_REQUIRED] = { "WBINVD_REQUIRED", ADVICE_BUG },
    [SEV_RET_DFFLUSH_REQUIRED] = { "DFFLUSH_REQUIRED", ADVICE_BUG },
    [SEV_RET_INVALID_GUEST] = {
        "INVALID_GUEST",
        "the firmware does not know the guest: was the platform reset?" },
    [SEV_RET_INVALID_COMMAND] = { "INVALID_COMMAND", ADVICE_OLD },
    [SEV_RET_ACTIVE] = { "ACTIVE", ADVICE_BUG },
    [SEV_RET_HWSEV_RET_PLATFORM] = {
        "HWERROR_PLATFORM",
        "the hardware has failed, this platform can go on: try again" },
    [SEV_RET_HWSEV_RET_UNSAFE] = { "HWERROR_UNSAFE", ADVICE_HW },
    [SEV_RET_UNSUPPORTED] = { "UNSUPPORTED", ADVICE_OLD },
    [SEV_RET_INVALID_PARAM] = { "INVALID_PARAM", ADVICE_BUG },
    [SEV_RET_RESOURCE_LIMIT] = {
        "RESOURCE_LIMIT",
        "the firmware has no room for another guest: end one on this host" },
    [SEV_RET_SECURE_DATA_INVALID] = { "SECURE_DATA_INVALID", ADVICE_HW },
};

static bool is_known(int code)
{
    return code >= 0 && code < ARRAY_SIZE(answers) && answers[code].name;
}

const char *sev_fw_error_name(int code)
{
    return is_known(code) ? answers[code].name : "unknown";
}

const char *sev_fw_error_advice(int code)
{
    return is_known(code) ? answers[code].advice :
           "see the firmware's release notes";
}

void sev_init_error(Error **errp, bool es, int ret, int fw_error)
{
    if (ret == -EBUSY && fw_error <= 0) {
        /* KVM found no free ASID and did not ask the firmware */
        error_setg(errp, "SEV: no ASID is free for %s guest: running guests "
                   "have all that this host, or the cgroup of this QEMU, has "
                   "(misc.capacity, misc.max and misc.current of the cgroup "
                   "say how many): end one of them, or start this guest on "
                   "another host", es ? "an SEV-ES" : "an SEV");
    } else {
        sev_cmd_error(errp, "initialization of the VM", ret, fw_error);
    }
}

void sev_cmd_error(Error **errp, const char *cmd, int ret, int fw_error)
{
    /*
     * If fw_error is not positive, the kernel failed before it asked the
     * firmware
     */
    if (fw_error > 0) {
        error_setg(errp, "SEV: %s failed: firmware error %s (%d): %s", cmd,
                   sev_fw_error_name(fw_error), fw_error,
                   sev_fw_error_advice(fw_error));
    } else {
        error_setg_errno(errp, -ret, "SEV: %s failed in the kernel, without "
                         "an answer of the firmware", cmd);
    }
}

int sev_send_result(const SevSendOutcome *o, unsigned *faults, Error **errp)
{
    bool changed = o->ret == -EAGAIN || (o->ret == -EFAULT && !o->is_private);
    bool retry;

    if (o->done) {
        *faults = 0;
    }
    if (o->ret >= 0 || (o->done && changed)) {
        return o->done;
    }
    retry = o->ret == -EAGAIN ||
            (o->ret == -EFAULT && ++*faults < SEV_SEND_FAULTS_MAX);
    if (changed) {
        error_setg(errp, "SEV: the page changed its state");
    } else if (o->ret == -EPROTO) {
        error_setg(errp, "SEV: SEND_UPDATE_DATA made a packet that has not a "
                   "header of %u bytes and at most a page", o->hdr_len);
    } else {
        sev_cmd_error(errp, "SEND_UPDATE_DATA", o->ret, o->fw_error);
    }
    return retry ? -EAGAIN : o->ret;
}
