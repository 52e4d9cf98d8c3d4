/*
 * Session with the platform to send private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-events-encrypted-ram.h"
#include "migration/misc.h"
#include "encrypted-answer.h"
#include "encrypted-policy.h"
#include "encrypted-reason.h"
#include "encrypted-session.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "trace.h"

static EncryptedSession *current_session(void)
{
    return &migrate_get_current()->encrypted.session;
}

void encrypted_session_count_calls(EncryptedSession *session)
{
    if (session->phase != ENCRYPTED_PHASE_OPEN) {
        return;
    }
    if (session->ops->send_calls) {
        encrypted_stats_calls(session->stats,
                              session->ops->send_calls(session->cgs));
    }
    if (session->ops->send_helper) {
        g_autofree char *why_not = NULL;
        uint64_t npages = session->ops->send_helper(session->cgs, &why_not);

        encrypted_stats_helper(session->stats, npages, why_not);
    }
}

void encrypted_session_event(bool incoming, EncryptedRamSessionStatus status,
                             uint64_t private_pages)
{
    trace_encrypted_pages_session(incoming ? "incoming" : "outgoing",
                                  EncryptedRamSessionStatus_str(status),
                                  private_pages);
    if (migrate_events()) {
        qapi_event_send_encrypted_ram_session(incoming, status,
                                              private_pages);
    }
}

static void outgoing_event(EncryptedSession *session,
                           EncryptedRamSessionStatus status)
{
    g_autoptr(EncryptedRamStats) stats = NULL;

    encrypted_session_count_calls(session);
    stats = encrypted_stats_get(session->stats,
                                qemu_clock_get_ms(QEMU_CLOCK_REALTIME));
    encrypted_session_event(false, status, stats->private_pages);
}

/*
 * The guest continues on this host: the migration failed or was cancelled, or
 * it has completed and the user takes the guest back.
 */
static void take_back(EncryptedSession *session)
{
    assert(bql_locked() && encrypted_session_is_open());
    encrypted_session_count_calls(session);
    session->phase = ENCRYPTED_PHASE_CLOSED;
    session->ops->send_done(session->cgs, false);
    outgoing_event(session, ENCRYPTED_RAM_SESSION_STATUS_CANCELLED);
}

/*
 * The migration has completed.  The destination may still fail to run the
 * guest, and this host would not learn of it, so the session is kept until the
 * guest is taken back or QEMU ends.
 */
static void keep_session(EncryptedSession *session)
{
    encrypted_session_count_calls(session);
    session->phase = ENCRYPTED_PHASE_COMPLETED;
    if (session->ops->send_completed) {
        session->ops->send_completed(session->cgs);
    }
    outgoing_event(session, ENCRYPTED_RAM_SESSION_STATUS_FINISHED);
}

/* A migration has ended */
static int notify_end(NotifierWithReturn *notifier, MigrationEvent *e,
                      Error **errp)
{
    EncryptedSession *session = current_session();

    if (session->phase != ENCRYPTED_PHASE_OPEN ||
        e->type == MIG_EVENT_PRECOPY_SETUP) {
        return 0;
    }
    if (e->type == MIG_EVENT_PRECOPY_DONE &&
        runstate_check(RUN_STATE_POSTMIGRATE)) {
        keep_session(session);
    } else {
        /*
         * The migration failed, or it completed and "cont" came before this
         * call
         */
        take_back(session);
    }
    return 0;
}

/* Called with the BQL.  If @running, the vCPUs are about to start. */
static void vm_changed(void *opaque, bool running, RunState state)
{
    EncryptedSession *session = opaque;

    if (running && session->phase == ENCRYPTED_PHASE_COMPLETED) {
        take_back(session);
    }
}

static void watch_end(EncryptedSession *session)
{
    if (session->vm_change) {
        return;
    }
    session->vm_change = qemu_add_vm_change_state_handler(vm_changed, session);
    /*
     * At the end QEMU calls the notifiers of the mode that is set then, which
     * need not be the mode of this migration.  So add one for each mode.
     */
    for (int mode = 0; mode < MIG_MODE__MAX; mode++) {
        migration_add_notifier_mode(&session->notifiers[mode], notify_end,
                                    mode);
    }
}

bool encrypted_session_is_open(void)
{
    return current_session()->phase >= ENCRYPTED_PHASE_OPEN;
}

bool encrypted_session_prepare(Error **errp)
{
    EncryptedSession *session = current_session();
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops = encrypted_migration_ops(&cgs);

    assert(bql_locked());
    if (session->phase == ENCRYPTED_PHASE_COMPLETED) {
        /*
         * The user has reset the guest after the last migration completed.  If
         * the guest were still in RUN_STATE_POSTMIGRATE, QEMU would have
         * refused the migrate command.  If the guest had run, vm_changed()
         * would have ended the session.  With the reset, the user has taken the
         * guest back, so end the session of the completed migration.
         */
        take_back(session);
    }
    if (session->phase == ENCRYPTED_PHASE_OPEN) {
        error_setg(errp, "The session of the last migration is still being "
                   "closed: try again");
        return false;
    }
    session->phase = ENCRYPTED_PHASE_CLOSED;
    encrypted_reason_prepare(migrate_get_current(), ops);
    encrypted_answer_prepare(migrate_get_current());
    if (ops && !encrypted_policy_check_send(cgs, ops, errp)) {
        return false;
    }
    g_clear_pointer(&session->stats, encrypted_stats_free);
    if (ops) {
        session->stats = encrypted_stats_new();
        session->phase = ENCRYPTED_PHASE_PREPARED;
    }
    return true;
}

bool encrypted_session_open(ConfidentialGuestSupport *cgs,
                            const ConfidentialGuestMigrationOps *ops,
                            GByteArray *data, Error **errp)
{
    EncryptedSession *session = current_session();
    bool prepared = session->phase == ENCRYPTED_PHASE_PREPARED;

    assert(bql_locked() && !encrypted_session_is_open());
    session->phase = ENCRYPTED_PHASE_CLOSED;
    if (!prepared) {
        error_setg(errp, "The memory of a confidential guest can be saved by "
                   "the migrate command only");
        return false;
    }
    /*
     * Check again, because some facts, such as the transport, are known only
     * now
     */
    if (!encrypted_policy_check_send(cgs, ops, errp)) {
        return false;
    }
    watch_end(session);
    if (!ops->send_start(cgs, data, errp)) {
        return false;
    }
    session->cgs = cgs;
    session->ops = ops;
    session->phase = ENCRYPTED_PHASE_OPEN;
    outgoing_event(session, ENCRYPTED_RAM_SESSION_STATUS_OPENED);
    return true;
}

void encrypted_session_shutdown(void)
{
    EncryptedSession *session = current_session();

    assert(bql_locked());
    if (session->phase == ENCRYPTED_PHASE_COMPLETED) {
        session->phase = ENCRYPTED_PHASE_CLOSED;
        session->ops->send_done(session->cgs, true);
    }
    if (session->vm_change) {
        /*
         * Remove the notifiers, because they are part of MigrationState, which
         * migration_shutdown() may free after it has called this function
         */
        qemu_del_vm_change_state_handler(session->vm_change);
        for (int mode = 0; mode < MIG_MODE__MAX; mode++) {
            migration_remove_notifier(&session->notifiers[mode]);
        }
        session->vm_change = NULL;
    }
}
