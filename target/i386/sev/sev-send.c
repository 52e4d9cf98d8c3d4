/*
 * Sending an SEV guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The firmware command SEND_START opens the session, SEND_UPDATE_DATA packs
 * private pages (sev-packets.c), and SEND_CANCEL or SEND_FINISH ends it.
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "cpu.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "sev.h"
#include "sev-helper.h"
#include "sev-migration-internal.h"
#include "sev-migration-wire.h"
#include "standard-headers/asm-x86/kvm_para.h"
#include "trace.h"

/* Checked for each run of pages, because the guest can withdraw its consent */
static bool may_be_sent(SevMigration *m, Error **errp)
{
    return sev_consent_given(m, errp) && sev_page_state_known(m, errp);
}

bool sev_is_willing(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);

    /*
     * query-migrate reports the error of this function as a reason why the
     * guest cannot be migrated.  It reports m->reason anyway, because that is a
     * migration blocker, so return no error if m->reason is set.
     */
    return m->reason || may_be_sent(m, errp);
}

bool sev_can_leave(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);

    if (m->reason) {
        error_propagate(errp, error_copy(m->reason));
        return false;
    }
    if (sev_guest_state(cgs) == SEV_STATE_SENT) {
        error_setg(errp, "SEV: the guest has been sent to another host, and "
                   "may run there: if it does not, cont takes it back");
        return false;
    }
    if (sev_guest_state(cgs) != SEV_STATE_RUNNING) {
        error_setg(errp, "SEV: a guest in state '%s' cannot be sent",
                   SevState_str(sev_guest_state(cgs)));
        return false;
    }
    return may_be_sent(m, errp);
}

bool sev_can_send(ConfidentialGuestSupport *cgs, Error **errp)
{
    if (!sev_can_leave(cgs, errp)) {
        return false;
    }
    if (!sev_guest_migration(cgs)->certificates.pdh) {
        error_setg(errp, "SEV: the certificates of the destination's platform "
                   "are not set: use migrate-set-sev-info before each migrate "
                   "that follows a completed one");
        return false;
    }
    return true;
}

static void send_cancel(ConfidentialGuestSupport *cgs)
{
    SevMigration *m = sev_guest_migration(cgs);
    int fw_error, ret;

    ret = sev_guest_cmd(cgs, KVM_SEV_SEND_CANCEL, NULL, &fw_error);
    trace_sev_migration_send_cancel(ret, fw_error);
    m->cancel_due = ret < 0;
    if (ret < 0) {
        Error *err = NULL;

        /*
         * The guest can run although SEND_CANCEL has failed.  The next
         * migration issues SEND_CANCEL again before it opens a session.
         */
        sev_cmd_error(&err, "SEND_CANCEL", ret, fw_error);
        warn_reportf_err(err, "The session with the firmware stays open, the "
                         "guest runs on: ");
    }
    sev_guest_set_state(cgs, SEV_STATE_RUNNING);
}

/* Ask for the length of a packet header, after SEND_START */
static bool query_hdr_len(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    struct kvm_sev_send_update_data query = {};
    int fw_error, ret;

    /* With a length of 0 the command fails and returns the length */
    ret = sev_guest_cmd(cgs, KVM_SEV_SEND_UPDATE_DATA, &query, &fw_error);
    if (!query.hdr_len) {
        sev_cmd_error(errp, "SEND_UPDATE_DATA (length of a packet header)",
                      ret, fw_error);
        return false;
    }
    if (query.hdr_len > SEV_WIRE_HDR_MAX) {
        error_setg(errp, "SEV: packet headers of %u bytes, expected at most "
                   "%d", query.hdr_len, SEV_WIRE_HDR_MAX);
        return false;
    }
    m->hdr_len = query.hdr_len;
    return true;
}

/* Query the length of the session: SEND_START without a buffer returns it */
static bool query_session_len(ConfidentialGuestSupport *cgs, uint32_t *len,
                              Error **errp)
{
    struct kvm_sev_send_start start = {};
    int fw_error, ret;

    ret = sev_guest_cmd(cgs, KVM_SEV_SEND_START, &start, &fw_error);
    if (!start.session_len) {
        sev_cmd_error(errp, "SEND_START (length of a session)", ret,
                      fw_error);
        return false;
    }
    if (start.session_len > SEV_WIRE_SESSION_MAX) {
        error_setg(errp, "SEV: session of %u bytes, expected at most %d",
                   start.session_len, (int)SEV_WIRE_SESSION_MAX);
        return false;
    }
    *len = start.session_len;
    return true;
}

/* This platform's PDH, which the destination needs for the key agreement */
static uint8_t *own_pdh(ConfidentialGuestSupport *cgs, size_t *len,
                        Error **errp)
{
    g_autofree uint8_t *pdh = NULL, *chain = NULL;
    size_t chain_len;

    if (sev_get_pdh_info(sev_guest_fd(cgs), &pdh, len, &chain, &chain_len,
                         errp)) {
        return NULL;
    }
    if (!*len || *len > SEV_WIRE_PDH_MAX) {
        error_setg(errp, "SEV: PDH certificate of %zu bytes, expected at most "
                   "%d", *len, (int)SEV_WIRE_PDH_MAX);
        return NULL;
    }
    return g_steal_pointer(&pdh);
}

bool sev_send_start(ConfidentialGuestSupport *cgs, GByteArray *session,
                    Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    const SevCertificates *certs = &m->certificates;
    g_autofree uint8_t *pdh = NULL, *data = NULL;
    struct kvm_sev_send_start start = {};
    size_t pdh_len;
    int fw_error, ret;

    if (!sev_can_send(cgs, errp)) {
        return false;
    }
    pdh = own_pdh(cgs, &pdh_len, errp);
    if (!pdh) {
        return false;
    }
    if (m->cancel_due) {
        send_cancel(cgs);
    }
    if (!query_session_len(cgs, &start.session_len, errp)) {
        return false;
    }
    data = g_malloc0(start.session_len);
    start.pdh_cert_uaddr = (uintptr_t)certs->pdh;
    start.pdh_cert_len = certs->pdh_len;
    start.plat_certs_uaddr = (uintptr_t)certs->plat;
    start.plat_certs_len = certs->plat_len;
    start.amd_certs_uaddr = (uintptr_t)certs->amd;
    start.amd_certs_len = certs->amd_len;
    start.session_uaddr = (uintptr_t)data;
    ret = sev_guest_cmd(cgs, KVM_SEV_SEND_START, &start, &fw_error);
    if (ret < 0) {
        sev_cmd_error(errp, "SEND_START", ret, fw_error);
        return false;
    }
    sev_guest_set_state(cgs, SEV_STATE_SEND_UPDATE);
    if (!query_hdr_len(cgs, errp)) {
        send_cancel(cgs);
        return false;
    }
    sev_packets_open(&m->packets, cgs);
    m->pages = 0;
    m->send_faults = 0;
    sev_helper_send_start(m);
    sev_wire_put_session(session, &(SevWireSession) {
        .cbitpos = sev_get_cbit_position(),
        .policy = start.policy,
        .below_4g = sev_ram_below_4g(),
        .pdh = pdh,
        .pdh_len = pdh_len,
        .session = data,
        .session_len = start.session_len,
    });
    trace_sev_migration_send_start(start.policy, start.session_len,
                                   m->hdr_len);
    return true;
}

/*
 * Get the return value of sev_send_pages() from @outcome.
 * @offset: offset in @rb of the first page that was not packed, for the error
 *          message
 */
static int send_result(SevMigration *m, RAMBlock *rb, uint64_t offset,
                       const SevSendOutcome *outcome, Error **errp)
{
    ERRP_GUARD();
    int ret = sev_send_result(outcome, &m->send_faults, errp);

    if (ret == -EAGAIN) {
        trace_sev_migration_page_changed(rb->idstr, offset, outcome->ret);
    }
    if (ret < 0) {
        error_prepend(errp, "block %s, offset 0x%" PRIx64 ": ", rb->idstr,
                      offset);
    }
    return ret;
}

int sev_send_pages(ConfidentialGuestSupport *cgs, unsigned channel,
                   RAMBlock *rb, uint64_t offset, size_t npages,
                   GByteArray *out, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    SevSendOutcome outcome = { .hdr_len = m->hdr_len };
    int ret;

    if (!may_be_sent(m, errp)) {
        return -EPERM;
    }
    if (sev_helper_get_phase(m->helper) == SEV_HELPER_SENDING) {
        return sev_helper_send_pages(m->helper, channel, rb, offset, npages,
                                     out, errp);
    }
    outcome.ret = sev_packets_send(&m->packets, cgs, rb->host + offset,
                                   m->hdr_len, npages, &outcome.done,
                                   &outcome.fw_error);
    offset += outcome.done * TARGET_PAGE_SIZE;
    outcome.is_private = outcome.ret == -EFAULT &&
                         encbitmap_test(rb, offset >> TARGET_PAGE_BITS);
    ret = send_result(m, rb, offset, &outcome, errp);
    if (ret < 0) {
        return ret;
    }
    for (size_t i = 0; i < m->packets.npackets; i++) {
        sev_wire_put_packet(out, &m->packets.packet[i]);
    }
    m->pages += ret;
    return ret;
}

bool sev_send_final(ConfidentialGuestSupport *cgs, GByteArray *final,
                    Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);

    /* The guest is stopped, so its consent cannot change after this check */
    if (!may_be_sent(m, errp)) {
        return false;
    }
    sev_wire_put_final(final, sev_consent_value(m));
    if (!sev_helper_send_final(m->helper, final, errp)) {
        return false;
    }
    trace_sev_migration_send_final(m->pages,
                                   stat64_get(&m->packets.calls));
    return true;
}

uint64_t sev_send_calls(ConfidentialGuestSupport *cgs)
{
    return stat64_get(&sev_guest_migration(cgs)->packets.calls);
}

void sev_send_completed(ConfidentialGuestSupport *cgs)
{
    SevMigration *m = sev_guest_migration(cgs);

    sev_helper_send_done(m);
    sev_packets_close(&m->packets);
    sev_certificates_clear(&m->certificates);
    sev_guest_set_state(cgs, SEV_STATE_SENT);
}

/*
 * SEND_FINISH adds nothing to the stream and makes the guest unusable on this
 * host, so it is sent only when QEMU ends.
 */
void sev_send_done(ConfidentialGuestSupport *cgs, bool finish)
{
    Error *err = NULL;
    int fw_error, ret;

    sev_helper_send_done(sev_guest_migration(cgs));
    sev_packets_close(&sev_guest_migration(cgs)->packets);
    if (!finish) {
        send_cancel(cgs);
        return;
    }
    ret = sev_guest_cmd(cgs, KVM_SEV_SEND_FINISH, NULL, &fw_error);
    trace_sev_migration_send_finish(ret, fw_error);
    if (ret < 0) {
        sev_cmd_error(&err, "SEND_FINISH", ret, fw_error);
        warn_reportf_err(err, "The guest has moved, and this QEMU ends without "
                         "finishing the session with the firmware: ");
    }
}
