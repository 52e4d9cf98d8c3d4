/*
 * The destination platform's answer to the source's session
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The message is described in docs/specs/encrypted-ram-migration.rst.  The
 * source announces in its session record that it reads an answer, so a
 * destination never sends an answer to a QEMU that does not expect one.  Only
 * vendor code knows what is in the answer.
 */
#ifndef MIGRATION_ENCRYPTED_ANSWER_H
#define MIGRATION_ENCRYPTED_ANSWER_H

#include "migration/qemu-file.h"
#include "system/confidential-guest-migration.h"

/* The source's side; part of MigrationState */
typedef struct EncryptedAnswer {
    ConfidentialGuestSupport *cgs;
    /*
     * NULL until the session record of this migration announces that the
     * source reads an answer; atomic.  @cgs is valid if this is not NULL.
     */
    const ConfidentialGuestMigrationOps *ops;
    /* The thread of the return path has received the answer */
    bool received;
} EncryptedAnswer;

/** encrypted_answer_prepare: prepare for a new migration, with the BQL held */
void encrypted_answer_prepare(MigrationState *s);

/**
 * encrypted_answer_announce: if the vendor code of @cgs can read an answer, let
 * encrypted_answer_receive() accept the destination's answer
 *
 * Returns the flag that the caller sets in the session record to ask for the
 * answer: ENCRYPTED_SESSION_ANSWER, or 0 if the vendor code cannot read one.
 * Called with the BQL held, after the vendor code has opened the session and
 * before the session record is sent.
 */
uint32_t encrypted_answer_announce(MigrationState *s,
                                   ConfidentialGuestSupport *cgs,
                                   const ConfidentialGuestMigrationOps *ops);

/**
 * encrypted_answer_receive: if a message of the return path is an answer, read
 * it and pass it to the vendor code
 * @type, @len: the message's header; its body is read from @rp
 *
 * Returns false if the message is not an answer that the source expects, or if
 * the vendor code refuses the answer.  In the latter case, the vendor code's
 * error becomes the error of @s.  Called by the thread of the return path.
 */
bool encrypted_answer_receive(MigrationState *s, QEMUFile *rp, uint16_t type,
                              uint16_t len);

/**
 * encrypted_answer_send: if an accepted record is a session record that asks
 * for an answer, send the answer of the destination's vendor code
 * @header: header of the record, ENCRYPTED_RECORD_HEADER bytes
 * @body, @len: body of the record
 *
 * Called by the main thread after the vendor code has opened the session.
 */
void encrypted_answer_send(MigrationIncomingState *mis,
                           ConfidentialGuestSupport *cgs,
                           const ConfidentialGuestMigrationOps *ops,
                           const uint8_t *header, const uint8_t *body,
                           size_t len);

#endif
