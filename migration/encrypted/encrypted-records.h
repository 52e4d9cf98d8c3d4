/*
 * Records of private pages in the migration stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Format: docs/specs/encrypted-ram-migration.rst.  Nothing here knows a
 * channel: records are made into and read from memory.
 */
#ifndef MIGRATION_ENCRYPTED_RECORDS_H
#define MIGRATION_ENCRYPTED_RECORDS_H

#include "exec/cpu-common.h"
#include "system/confidential-guest-migration.h"

/* Bytes of a record between the flag word and the body */
#define ENCRYPTED_RECORD_HEADER 8
/* Bytes of a record of pages, with the flag word */
#define ENCRYPTED_RECORD_PAGES_MAX (8 + ENCRYPTED_RECORD_HEADER + 16 + \
                                    CGS_MIGRATION_PAGES_MAX * \
                                    CGS_MIGRATION_PAGE_MAX)

/* What the source announces in its session record */
#define ENCRYPTED_SESSION_REASON    0x1 /* it reads the destination's reason */
#define ENCRYPTED_SESSION_MULTIFD   0x2 /* pages are in multifd's channels */
#define ENCRYPTED_SESSION_FLAGS     0x3
/* A destination ignores those of these flags that it does not know */
#define ENCRYPTED_SESSION_OPTIONAL  0xffff0000
#define ENCRYPTED_SESSION_ANSWER    0x10000 /* it reads an answer */

/* Bytes of a session record's body that are there always */
#define ENCRYPTED_SESSION_FIXED 16

/* The message with the destination's reason, and the most bytes that it has */
#define ENCRYPTED_REASON_MESSAGE 0x4552
#define ENCRYPTED_REASON_MAX 1024

/* The message with the platform's answer, and the most bytes that it has */
#define ENCRYPTED_ANSWER_MESSAGE 0x4541
#define ENCRYPTED_ANSWER_MAX 256

/** encrypted_reason_len: bytes of @text that go into a message */
size_t encrypted_reason_len(const char *text);

/**
 * encrypted_reason_text: the reason of a message, whose @len bytes of @data
 * are untrusted: valid UTF-8 without control characters.  Free with g_free.
 */
char *encrypted_reason_text(const uint8_t *data, size_t len);

/**
 * encrypted_blocks: the blocks that can have private pages and migrate, in
 * the order that gives them their index.  RCU read lock held.
 */
GPtrArray *encrypted_blocks(void);

/**
 * encrypted_record_session: append a session record to @out
 * @blocks: from encrypted_blocks(); what is in it now stays its order
 * @flags: ENCRYPTED_SESSION_*
 *
 * False with @errp set if the specification's limits do not allow it.
 */
bool encrypted_record_session(GByteArray *out, GPtrArray *blocks,
                              uint32_t flags, const GByteArray *session,
                              Error **errp);

/**
 * encrypted_record_pages: append a record of @npages pages to @out
 * @block: index
 * @offset: bytes in the block
 */
bool encrypted_record_pages(GByteArray *out, uint32_t block, uint64_t offset,
                            size_t npages, const GByteArray *payload,
                            Error **errp);

/**
 * encrypted_record_unallocated: append a record of @npages private pages that
 * have no content
 * @page: index in the block
 */
void encrypted_record_unallocated(GByteArray *out, uint32_t block,
                                  uint64_t page, uint64_t npages);

/**
 * encrypted_record_state: append one state record to @out
 * @block, @first: where it begins; on return where the next one does
 *
 * False when there is no more, with @out as it was.
 */
bool encrypted_record_state(GByteArray *out, GPtrArray *blocks,
                            uint32_t *block, uint64_t *first);

/** encrypted_record_final: append the final record to @out */
bool encrypted_record_final(GByteArray *out, const GByteArray *final,
                            Error **errp);

/* The destination's side of one migration */
typedef struct EncryptedLoad EncryptedLoad;

EncryptedLoad *encrypted_load_new(ConfidentialGuestSupport *cgs,
                                  const ConfidentialGuestMigrationOps *ops);
void encrypted_load_free(EncryptedLoad *load);

/**
 * encrypted_load_header: check the header of a record
 * @header: ENCRYPTED_RECORD_HEADER bytes
 * @len: returns the length of the body, which the type allows
 */
bool encrypted_load_header(EncryptedLoad *load, const uint8_t *header,
                           size_t *len, Error **errp);

/**
 * encrypted_session_flags: what the source announces in a session record
 * @header: of a record, ENCRYPTED_RECORD_HEADER bytes
 * @body: the first @len bytes of its body
 * @flags: returns ENCRYPTED_SESSION_*, unknown ones too
 *
 * Returns false if it is no session record.  Whether the rest of the record is
 * valid does not matter.
 */
bool encrypted_session_flags(const uint8_t *header, const uint8_t *body,
                             size_t len, uint32_t *flags);

/**
 * encrypted_load_is_slow: can the body of the record whose header was read keep
 * the platform or the host busy for long?  Then it may be given to
 * encrypted_load_body() by any thread; else the BQL is held.
 */
bool encrypted_load_is_slow(const EncryptedLoad *load);

/**
 * encrypted_load_body: act on the body of the record whose header was read
 *
 * After an error the migration has failed: every further call fails too.
 * RCU read lock held.
 */
bool encrypted_load_body(EncryptedLoad *load, const uint8_t *body, size_t len,
                         Error **errp);

/**
 * encrypted_load_pages_record: check and act on a whole record, from the flag
 * word on, which must be one of pages, unallocated or not.  RCU read lock held.
 */
bool encrypted_load_pages_record(EncryptedLoad *load, const uint8_t *record,
                                 size_t len, Error **errp);

/**
 * encrypted_load_plain: a plain page of a block that can have private pages
 * is about to be written at byte @offset of @rb, a multiple of a page: make
 * it shared.
 */
bool encrypted_load_plain(EncryptedLoad *load, RAMBlock *rb, uint64_t offset,
                          Error **errp);

/** encrypted_load_opened: has the session record come, and was it right? */
bool encrypted_load_opened(const EncryptedLoad *load);

/** encrypted_load_private_pages: so many have come, some more than once */
uint64_t encrypted_load_private_pages(const EncryptedLoad *load);

/** encrypted_load_done: has everything come that must come? */
bool encrypted_load_done(EncryptedLoad *load, Error **errp);

#endif
