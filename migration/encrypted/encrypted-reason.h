/*
 * The destination's reason for a failed migration, told to the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The message is described in docs/specs/encrypted-ram-migration.rst.  A
 * destination sends it only to a source that announced in its session record
 * that it reads it, so no other QEMU sees anything new on the return path.
 */
#ifndef MIGRATION_ENCRYPTED_REASON_H
#define MIGRATION_ENCRYPTED_REASON_H

#include "migration/qemu-file.h"

/* The source's side; part of MigrationState.  All members are atomic. */
typedef struct EncryptedReason {
    /* The session record of this migration announces that we read reasons */
    bool announced;
    /* A reason was received */
    bool received;
    /* The thread of the return path has ended: none will be received */
    bool ended;
    /* The source itself failed: there is nothing to wait for */
    bool own_error;
} EncryptedReason;

/* Source */

/**
 * encrypted_reason_prepare: a migration is about to begin
 * @announce: its stream will have a session record.  BQL.
 */
void encrypted_reason_prepare(MigrationState *s, bool announce);

/**
 * encrypted_reason_own_error: the migration fails because of something at the
 * source.  Any thread.
 */
void encrypted_reason_own_error(MigrationState *s);

/**
 * encrypted_reason_receive: read a message of the return path, if it is a
 * reason.  The reason becomes the error of @s, and replaces one that was set
 * before: a connection that ends is a consequence of it.
 * @type, @len: the message's header; its body is read from @rp
 *
 * Returns false if the message is none that the source has announced.  The
 * thread of the return path.
 */
bool encrypted_reason_receive(MigrationState *s, QEMUFile *rp, uint16_t type,
                              uint16_t len);

/** encrypted_reason_ended: nothing more is read from the return path */
void encrypted_reason_ended(MigrationState *s);

/**
 * encrypted_reason_await: wait for a reason, before the end of a connection
 * is set as the error of @s and its status becomes "failed".  Returns when the
 * return path has ended, and after a second at the latest; at once if the
 * caller has the BQL.  Any thread but that of the return path.
 */
void encrypted_reason_await(MigrationState *s);

/* Destination */

/**
 * encrypted_reason_send: tell the source why the migration fails, if it does
 * and if the source wants to know.  To be called before SHUT is sent.  BQL.
 */
void encrypted_reason_send(MigrationIncomingState *mis);

/**
 * encrypted_reason_stop_reading: a channel of multifd has failed.  Make the
 * main thread notice, which may be waiting for more from the source, while the
 * source waits for the reason.  Any thread that keeps @mis->from_src_file from
 * being closed.
 */
void encrypted_reason_stop_reading(void);

#endif
