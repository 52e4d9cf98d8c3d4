/*
 * Message with the destination's reason for a failed migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * docs/specs/encrypted-ram-migration.rst describes the message.  A destination
 * sends it only if the source's session record has announced that the source
 * reads it, so the return path to any other QEMU is unchanged.
 */
#ifndef MIGRATION_ENCRYPTED_REASON_H
#define MIGRATION_ENCRYPTED_REASON_H

#include "migration/qemu-file.h"

/* The source's side, part of MigrationState.  All members are atomic. */
typedef struct EncryptedReason {
    /* The session record announces that the source reads a reason */
    bool announced;
    /* A reason was received */
    bool received;
    /* The thread of the return path has ended, so no reason will be received */
    bool ended;
    /* The source itself failed, so it need not wait for a reason */
    bool own_error;
} EncryptedReason;

/* Source */

/**
 * encrypted_reason_prepare: a migration is about to begin.  BQL.
 * @announce: its stream will have a session record
 */
void encrypted_reason_prepare(MigrationState *s, bool announce);

/**
 * encrypted_reason_own_error: the migration fails because of something on the
 * source.  Any thread.
 */
void encrypted_reason_own_error(MigrationState *s);

/**
 * encrypted_reason_receive: if a message of the return path is a reason, read
 * it.  The thread of the return path.
 * @type, @len: the message's header.  Its body is read from @rp.
 *
 * The reason becomes the error of @s and replaces an earlier error, which is
 * usually only the end of the connection.
 *
 * Returns false if the message is not a reason that the source expects.
 */
bool encrypted_reason_receive(MigrationState *s, QEMUFile *rp, uint16_t type,
                              uint16_t len);

/** encrypted_reason_ended: nothing more will be read from the return path */
void encrypted_reason_ended(MigrationState *s);

/**
 * encrypted_reason_await: a connection has ended.  Wait for a reason before the
 * caller sets the error of @s and the status "failed".  Any thread except that
 * of the return path.
 *
 * Returns when the return path has ended, after a second at the latest, and
 * immediately if the caller holds the BQL.
 */
void encrypted_reason_await(MigrationState *s);

/* Destination */

/**
 * encrypted_reason_send: if the migration has failed and the source wants to
 * know why, send it the reason.  Called before MIG_RP_MSG_SHUT is sent.  BQL.
 */
void encrypted_reason_send(MigrationIncomingState *mis);

/**
 * encrypted_reason_stop_reading: a channel of multifd has failed.  The main
 * thread may be waiting for data of the source while the source waits for the
 * reason, so end its wait.  Any thread; the caller makes sure that the main
 * channel is not closed meanwhile.
 */
void encrypted_reason_stop_reading(void);

#endif
