/*
 * State of the private pages' path, as members of the migration's objects
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Only migration.h includes this file.
 */
#ifndef MIGRATION_ENCRYPTED_STATE_H
#define MIGRATION_ENCRYPTED_STATE_H

#include "encrypted-answer.h"
#include "encrypted-load.h"
#include "encrypted-pending.h"
#include "encrypted-reason.h"
#include "encrypted-session.h"

/* MigrationState.encrypted */
typedef struct EncryptedOutgoing {
    /* Outlives the migration, because the source may take the guest back */
    EncryptedSession session;
    /* The destination's reason for a failure */
    EncryptedReason reason;
    /* The answer of the destination's platform to the session */
    EncryptedAnswer answer;
    /* What is left to send, and whether the guest can be stopped */
    EncryptedPending pending;
    /*
     * State of the migration thread's sender, from encrypted_save_setup() to
     * encrypted_save_cleanup(); NULL if the guest is not confidential
     */
    struct EncryptedSave *save;
    /* Shared pages for the next packet of multifd; NULL without multifd */
    struct MultiFDSendData *packet;
} EncryptedOutgoing;

#endif
