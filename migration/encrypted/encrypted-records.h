/*
 * Records of private pages in the migration stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Format: docs/specs/encrypted-ram-migration.rst.  These functions make records
 * in memory and know no channel.
 */
#ifndef MIGRATION_ENCRYPTED_RECORDS_H
#define MIGRATION_ENCRYPTED_RECORDS_H

#include "qemu/units.h"
#include "exec/cpu-common.h"
#include "system/confidential-guest-migration.h"

/* Kind of extended records of the RAM section (RAM_SAVE_FLAG_EXTENDED) */
#define ENCRYPTED_RECORD_KIND 0

/* Version of the format */
#define ENCRYPTED_RECORD_VERSION 1

typedef enum EncryptedRecord {
    ENCRYPTED_RECORD_SESSION = 1,
    ENCRYPTED_RECORD_PAGES = 2,
    ENCRYPTED_RECORD_STATE = 3,
    ENCRYPTED_RECORD_FINAL = 4,
    ENCRYPTED_RECORD_UNALLOCATED = 5,
    ENCRYPTED_RECORD_PLATFORM = 6,
    ENCRYPTED_RECORD__MAX,
} EncryptedRecord;

typedef struct EncryptedRecordType {
    const char *name;
    size_t min, max;        /* bytes of the body */
} EncryptedRecordType;

extern const EncryptedRecordType encrypted_record_types[ENCRYPTED_RECORD__MAX];

/* Bytes of the fixed part of a body */
#define ENCRYPTED_SESSION_FIXED 16
#define ENCRYPTED_PAGES_FIXED 16
#define ENCRYPTED_STATE_FIXED 24
#define ENCRYPTED_UNALLOCATED_FIXED 24

/* Limits of the format */
#define ENCRYPTED_BLOCKS_MAX 1024
#define ENCRYPTED_STATE_PAGES_MAX (1024 * 1024)

/* Bytes of a record between the flag word and the body */
#define ENCRYPTED_RECORD_HEADER 8
/* Maximum size in bytes of a record of pages, including the flag word */
#define ENCRYPTED_RECORD_PAGES_MAX (8 + ENCRYPTED_RECORD_HEADER + \
                                    ENCRYPTED_PAGES_FIXED + \
                                    CGS_MIGRATION_PAGES_MAX * \
                                    CGS_MIGRATION_PAGE_MAX)

/* Flags of the session record, with which the source announces features */
#define ENCRYPTED_SESSION_REASON    0x1 /* accepts a reason message */
#define ENCRYPTED_SESSION_MULTIFD   0x2 /* pages are in multifd's channels */
#define ENCRYPTED_SESSION_FLAGS     0x3
/* A destination ignores flags in this mask that it does not know */
#define ENCRYPTED_SESSION_OPTIONAL  0xffff0000
#define ENCRYPTED_SESSION_ANSWER    0x10000 /* source reads an answer */

/*
 * Section name and instance in the header of a multifd packet that contains a
 * record of pages
 */
#define ENCRYPTED_RECORD_IDSTR "ram"
#define ENCRYPTED_RECORD_INSTANCE 0

/* Type of the message with the destination's reason, and limit of its text */
#define ENCRYPTED_REASON_MESSAGE 0x4552
#define ENCRYPTED_REASON_MAX 1024

/* Type of the message with the platform's answer, and limit of its length */
#define ENCRYPTED_ANSWER_MESSAGE 0x4541
#define ENCRYPTED_ANSWER_MAX 256

/**
 * encrypted_reason_len: return how many bytes of @text the destination sends in
 * the message with its reason.  The limit is ENCRYPTED_REASON_MAX, and the
 * message does not end within a character.
 */
size_t encrypted_reason_len(const char *text);

/**
 * encrypted_reason_text: make printable UTF-8 of the untrusted @len bytes @data
 * of a message.  Free with g_free.
 */
char *encrypted_reason_text(const uint8_t *data, size_t len);

/** encrypted_block_pages: present number of pages of @rb */
uint64_t encrypted_block_pages(const RAMBlock *rb);

/**
 * encrypted_blocks: the RAMBlocks that can have private pages and migrate.  A
 * block's place in the array is its index in records.  RCU read lock held.
 */
GPtrArray *encrypted_blocks(void);

/**
 * encrypted_record_session: append a session record to @out
 * @blocks: from encrypted_blocks()
 * @flags: ENCRYPTED_SESSION_*
 * @session: the vendor's session data
 *
 * Returns false if something exceeds the limits of the format.
 */
bool encrypted_record_session(GByteArray *out, GPtrArray *blocks,
                              uint32_t flags, const GByteArray *session,
                              Error **errp);

/**
 * encrypted_record_pages: append a record of @npages pages to @out
 * @block: index
 * @offset: of the first page, bytes in the block
 * @payload: the pages as the platform has packed them
 */
bool encrypted_record_pages(GByteArray *out, uint32_t block, uint64_t offset,
                            size_t npages, const GByteArray *payload,
                            Error **errp);

/**
 * encrypted_record_unallocated: append a record of @npages private pages that
 * are sent without contents
 * @block: index
 * @page: index of the first page in the block
 */
void encrypted_record_unallocated(GByteArray *out, uint32_t block,
                                  uint64_t page, uint64_t npages);

/**
 * encrypted_record_state: append one state record to @out
 * @block, @first: block and page at which the record begins.  On return, those
 *                 of the next record.
 *
 * If no block is left, because all state records have been made, the function
 * returns false and does not change @out.
 */
bool encrypted_record_state(GByteArray *out, GPtrArray *blocks,
                            uint32_t *block, uint64_t *first);

/**
 * encrypted_record_platform: append a record of the vendor's @data, which
 * belong to no page, to @out
 */
bool encrypted_record_platform(GByteArray *out, const GByteArray *data,
                               Error **errp);

/** encrypted_record_final: append the final record to @out */
bool encrypted_record_final(GByteArray *out, const GByteArray *final,
                            Error **errp);

/**
 * encrypted_session_flags: read what the source announces in a session record
 * @header: header of a record, ENCRYPTED_RECORD_HEADER bytes
 * @body: the first @len bytes of its body
 * @flags: returns ENCRYPTED_SESSION_*, and flags that this QEMU does not know
 *
 * Returns false if the record is not a session record.  The rest of the record
 * may be invalid.
 */
bool encrypted_session_flags(const uint8_t *header, const uint8_t *body,
                             size_t len, uint32_t *flags);

#endif
