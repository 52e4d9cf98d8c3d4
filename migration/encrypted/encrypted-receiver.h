/*
 * Receiver of private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The receiver checks records, which are untrusted, and does what they say.  It
 * reads them from memory and knows no channel.  The caller makes sure that only
 * one thread at a time uses a receiver.
 */
#ifndef MIGRATION_ENCRYPTED_RECEIVER_H
#define MIGRATION_ENCRYPTED_RECEIVER_H

#include "system/confidential-guest-migration.h"
#include "encrypted-records.h"

/* State of one incoming migration */
typedef struct EncryptedReceiver EncryptedReceiver;

EncryptedReceiver *
encrypted_receiver_new(ConfidentialGuestSupport *cgs,
                       const ConfidentialGuestMigrationOps *ops);
void encrypted_receiver_free(EncryptedReceiver *r);

/**
 * encrypted_receiver_header: check the header of a record
 * @header: ENCRYPTED_RECORD_HEADER bytes
 * @len: returns the length of the body, which this function has compared with
 *       the limits of the record's type
 */
bool encrypted_receiver_header(EncryptedReceiver *r, const uint8_t *header,
                               size_t *len, Error **errp);

/**
 * encrypted_receiver_is_slow: can the body of the record whose header was read
 * keep the platform or the host busy for long?
 *
 * If this function returns true, any thread may pass the body to
 * encrypted_receiver_body().  If it returns false, only a thread that holds the
 * BQL may do this, because vendor code can rely on the BQL, for example in
 * receive_data().
 */
bool encrypted_receiver_is_slow(const EncryptedReceiver *r);

/**
 * encrypted_receiver_body: act on the body of the record whose header was read.
 * The caller holds the RCU read lock.
 *
 * After an error the migration has failed, and every further call fails, too.
 */
bool encrypted_receiver_body(EncryptedReceiver *r, const uint8_t *body,
                             size_t len, Error **errp);

/**
 * encrypted_receiver_pages_record: check and act on a whole record of pages or
 * of unallocated pages, which begins with the flag word.  The caller holds the
 * RCU read lock.
 */
bool encrypted_receiver_pages_record(EncryptedReceiver *r,
                                     const uint8_t *record, size_t len,
                                     Error **errp);

/**
 * encrypted_receiver_plain: make a page of a RAMBlock that can have private
 * pages shared, because the caller is about to write a plain page there
 * @offset: bytes in @rb, a multiple of the page size
 */
bool encrypted_receiver_plain(EncryptedReceiver *r, RAMBlock *rb,
                              uint64_t offset, Error **errp);

/** encrypted_receiver_opened: was a session record accepted? */
bool encrypted_receiver_opened(const EncryptedReceiver *r);

/**
 * encrypted_receiver_private_pages: number of private pages received; a page
 * that was received twice counts twice
 */
uint64_t encrypted_receiver_private_pages(const EncryptedReceiver *r);

/** encrypted_receiver_done: was everything received, up to the final record? */
bool encrypted_receiver_done(EncryptedReceiver *r, Error **errp);

#endif
