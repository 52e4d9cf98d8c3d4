/*
 * Session with the platform to send private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A session opens when RAM is set up and ends with the migration, or, if the
 * migration completes, when QEMU ends or the source takes the guest back.  See
 * docs/devel/migration/encrypted-pages.rst.
 */
#ifndef MIGRATION_ENCRYPTED_SESSION_H
#define MIGRATION_ENCRYPTED_SESSION_H

#include "qemu/notify.h"
#include "qapi/qapi-types-encrypted-ram.h"
#include "qapi/qapi-types-migration.h"
#include "system/confidential-guest-migration.h"
#include "system/runstate.h"
#include "encrypted-stats.h"

typedef enum EncryptedSessionPhase {
    /* No session, and encrypted_session_open() would refuse one */
    ENCRYPTED_PHASE_CLOSED,
    /* No session yet, but encrypted_session_prepare() has allowed one */
    ENCRYPTED_PHASE_PREPARED,
    /* send_start was called, and send_done is due */
    ENCRYPTED_PHASE_OPEN,
    /* As OPEN, but the migration has completed, so no more pages are sent */
    ENCRYPTED_PHASE_COMPLETED,
} EncryptedSessionPhase;

/* Part of MigrationState */
typedef struct EncryptedSession {
    /*
     * Written with the BQL.  While the migration thread runs, the phase does
     * not leave ENCRYPTED_PHASE_OPEN before the thread has sent all pages.
     */
    EncryptedSessionPhase phase;
    /* Valid while the session is open or completed */
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops;
    /*
     * Statistics of the migration that runs or was the last one; NULL if its
     * guest was not confidential.  Allocated and freed with the BQL, while no
     * migration runs.
     */
    EncryptedStats *stats;
    /* Registered once, by the first session */
    NotifierWithReturn notifiers[MIG_MODE__MAX];
    VMChangeStateEntry *vm_change;
} EncryptedSession;

/**
 * encrypted_session_prepare: called at the migrate command, before QEMU
 * connects to the destination.  Check whether the guest can leave this host.
 * If the guest is confidential, allow encrypted_session_open() to open a
 * session.  BQL.
 */
bool encrypted_session_prepare(Error **errp);

/**
 * encrypted_session_open: open the session that encrypted_session_prepare()
 * has allowed.  BQL.
 * @cgs, @ops: from encrypted_migration_ops(), not NULL
 * @data: returns what the destination needs to open its side
 */
bool encrypted_session_open(ConfidentialGuestSupport *cgs,
                            const ConfidentialGuestMigrationOps *ops,
                            GByteArray *data, Error **errp);

/** encrypted_session_is_open: is a session open or completed?  Any thread. */
bool encrypted_session_is_open(void);

/**
 * encrypted_session_count_calls: update the statistics with the number of
 * calls to the platform, and with the number of pages that the guest's
 * migration helper has packed.  Any thread may call this function.
 */
void encrypted_session_count_calls(EncryptedSession *session);

/**
 * encrypted_session_shutdown: QEMU ends.  Finish the session of a migration
 * that has completed.  BQL.
 */
void encrypted_session_shutdown(void);

/**
 * encrypted_session_event: trace a change of a session, and emit the event for
 * it.
 * @incoming: the session is the destination's
 * @private_pages: sent or received until now
 */
void encrypted_session_event(bool incoming, EncryptedRamSessionStatus status,
                             uint64_t private_pages);

#endif
