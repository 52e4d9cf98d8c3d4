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
 * encrypted_reason_prepare: forget what an earlier migration has recorded
 * @announce: the stream of the next migration will have a session record, which
 *            announces that the source reads a reason
 *
 * Called with the BQL held, before a migration begins.
 */
void encrypted_reason_prepare(MigrationState *s, bool announce);

/**
 * encrypted_reason_own_error: record that the migration fails because of
 * something on the source.  Any thread may call this function.
 */
void encrypted_reason_own_error(MigrationState *s);

/**
 * encrypted_reason_receive: if a message of the return path is a reason, read
 * it.  Called by the thread of the return path.
 * @type, @len: the message's header.  Its body is read from @rp.
 *
 * The reason becomes the error of @s and replaces an earlier error, which is
 * usually only the end of the connection.
 *
 * Returns false if the message is not a reason that the source expects.
 */
bool encrypted_reason_receive(MigrationState *s, QEMUFile *rp, uint16_t type,
                              uint16_t len);

/** encrypted_reason_ended: record that the return path is not read any more */
void encrypted_reason_ended(MigrationState *s);

/**
 * encrypted_reason_await: after a connection has ended, wait for a reason
 * before the caller sets the error of @s and the status "failed".  Any thread
 * except that of the return path may call this function.
 *
 * Returns when the return path has ended, after a second at the latest, and
 * immediately if the caller holds the BQL.
 */
void encrypted_reason_await(MigrationState *s);

/* Destination */

/**
 * encrypted_reason_send: if the migration has failed and the source wants to
 * know why, send it the reason.  Called with the BQL held, before
 * MIG_RP_MSG_SHUT is sent.
 */
void encrypted_reason_send(MigrationIncomingState *mis);

/**
 * encrypted_reason_stop_reading: called after a channel of multifd has failed,
 * so that the main thread stops reading from the main channel and can send the
 * reason.  Otherwise both sides would wait for each other: the source waits for
 * the reason and sends no more data.  Any thread may call this function.  The
 * caller makes sure that the main channel is not closed meanwhile.
 */
void encrypted_reason_stop_reading(void);

#endif
