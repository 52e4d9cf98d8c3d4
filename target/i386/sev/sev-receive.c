/*
 * Receiving an SEV guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The firmware command RECEIVE_START opens the session, RECEIVE_UPDATE_DATA
 * unpacks private pages (sev-packets.c), and RECEIVE_FINISH ends the session.
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/error.h"
#include "cpu.h"
#include "exec/ramblock.h"
#include "sev.h"
#include "sev-helper.h"
#include "sev-migration-internal.h"
#include "sev-migration-wire.h"
#include "standard-headers/asm-x86/kvm_para.h"
#include "trace.h"

/* Whether this host and this VM can receive the guest of session @s */
static bool check_session(ConfidentialGuestSupport *cgs,
                          const SevWireSession *s, Error **errp)
{
    if (s->cbitpos != sev_get_cbit_position()) {
        error_setg(errp, "SEV: the C-bit of the incoming guest is %u, that of "
                   "this host %u: it is in the guest's page tables",
                   s->cbitpos, sev_get_cbit_position());
        return false;
    }
    if (s->policy != sev_guest_policy(cgs)) {
        error_setg(errp, "SEV: the incoming guest has policy 0x%x, this "
                   "sev-guest 0x%x: start both sides with the same",
                   s->policy, sev_guest_policy(cgs));
        return false;
    }
    if (s->below_4g != sev_ram_below_4g()) {
        error_setg(errp, "SEV: the incoming guest has %" PRIu64 " bytes of RAM "
                   "below 4 GiB, this machine has %" PRIu64 ": start both "
                   "sides with the same machine type and max-ram-below-4g",
                   s->below_4g, sev_ram_below_4g());
        return false;
    }
    return true;
}

bool sev_receive_start(ConfidentialGuestSupport *cgs,
                       const uint8_t *session, size_t len, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    struct kvm_sev_receive_start start = {};
    SevWireSession s;
    int fw_error, ret;

    if (sev_guest_state(cgs) != SEV_STATE_UNINIT) {
        error_setg(errp, "SEV: a guest in state '%s' cannot be received",
                   SevState_str(sev_guest_state(cgs)));
        return false;
    }
    if (!m->enabled) {
        error_setg(errp, "SEV: no guest can be received here: %s",
                   error_get_pretty(m->reason));
        return false;
    }
    if (!sev_wire_get_session(session, len, &s, errp) ||
        !check_session(cgs, &s, errp)) {
        return false;
    }
    start.policy = s.policy;
    start.pdh_uaddr = (uintptr_t)s.pdh;
    start.pdh_len = s.pdh_len;
    start.session_uaddr = (uintptr_t)s.session;
    start.session_len = s.session_len;
    ret = sev_guest_cmd(cgs, KVM_SEV_RECEIVE_START, &start, &fw_error);
    if (ret < 0) {
        sev_cmd_error(errp, "RECEIVE_START", ret, fw_error);
        return false;
    }
    object_property_set_uint(OBJECT(cgs), "handle", start.handle,
                             &error_abort);
    sev_guest_set_state(cgs, SEV_STATE_RECEIVE_UPDATE);
    sev_packets_open(&m->packets, cgs);
    m->pages = 0;
    m->finish_due = true;
    trace_sev_migration_receive_start(s.policy, start.handle);
    return true;
}

static void unpack_error(const SevPackets *p, size_t npages, int ret,
                         int fw_error, Error **errp)
{
    if (ret == -EOPNOTSUPP && p->npackets < npages) {
        /*
         * The firmware unpacks a packet of several pages only into pages that
         * are contiguous in the host's memory.  KVM provides such pages only
         * in in-place memory.  Some kernels and firmware do not support
         * packets of several pages at all.
         */
        error_setg(errp, "SEV: a packet of several pages, which this host "
                   "cannot receive into this memory: the source has ignored "
                   "the limit in the destination's answer, so use a newer "
                   "QEMU at the source");
    } else if (ret == -EPROTO) {
        error_setg(errp, "SEV: the record has packets of several pages, but "
                   "their headers differ in length, or a packet has a part of "
                   "a page");
    } else {
        sev_cmd_error(errp, "RECEIVE_UPDATE_DATA", ret, fw_error);
    }
}

bool sev_receive_pages(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                       uint64_t offset, size_t npages,
                       const uint8_t *in, size_t len, Error **errp)
{
    ERRP_GUARD();
    SevMigration *m = sev_guest_migration(cgs);
    int fw_error, ret;
    size_t done;

    if (sev_guest_state(cgs) != SEV_STATE_RECEIVE_UPDATE) {
        error_setg(errp, "SEV: private pages without a session before them");
        return false;
    }
    if (sev_helper_get_phase(m->helper) == SEV_HELPER_RECEIVING) {
        return sev_helper_receive_pages(m->helper, rb, offset, npages, in, len,
                                        errp);
    }
    if (!sev_packets_get(&m->packets, in, len, npages, &done, errp)) {
        goto fail;
    }
    ret = sev_packets_receive(&m->packets, cgs, rb->host + offset, npages,
                              &done, &fw_error);
    if (ret < 0) {
        unpack_error(&m->packets, npages, ret, fw_error, errp);
        goto fail;
    }
    m->pages += npages;
    return true;

fail:
    error_prepend(errp, "block %s, offset 0x%" PRIx64 ": ", rb->idstr,
                  offset + done * TARGET_PAGE_SIZE);
    return false;
}

bool sev_receive_final(ConfidentialGuestSupport *cgs,
                       const uint8_t *final, size_t len, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    uint64_t control;
    int fw_error, ret;
    size_t own = len;

    if (sev_guest_state(cgs) != SEV_STATE_RECEIVE_UPDATE) {
        error_setg(errp, "SEV: end of the private pages without a session");
        return false;
    }
    own -= sev_helper_final_len(m->helper, len);
    if (!sev_wire_get_final(final, own, &control, errp)) {
        return false;
    }
    if (control != KVM_MIGRATION_READY) {
        error_setg(errp, "SEV: MSR_KVM_MIGRATION_CONTROL is 0x%" PRIx64
                   " in the stream, expected READY (0x%x)", control,
                   KVM_MIGRATION_READY);
        return false;
    }
    sev_cache_flush_shared();
    if (!sev_helper_receive_final(m->helper, final + own, len - own, errp)) {
        return false;
    }
    if (m->finish_due) {
        ret = sev_guest_cmd(cgs, KVM_SEV_RECEIVE_FINISH, NULL, &fw_error);
        if (ret < 0) {
            sev_cmd_error(errp, "RECEIVE_FINISH", ret, fw_error);
            return false;
        }
        m->finish_due = false;
    }
    sev_helper_receive_done(m);
    sev_packets_close(&m->packets);
    sev_consent_received(m, control);
    sev_in_place_received(m);
    sev_guest_set_state(cgs, SEV_STATE_RUNNING);
    trace_sev_migration_receive_final(m->pages,
                                      stat64_get(&m->packets.calls));
    return true;
}
