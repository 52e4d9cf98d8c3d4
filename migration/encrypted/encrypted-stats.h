/*
 * Statistics of the road of private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Counts for one outgoing migration and its last rounds.  Nothing here knows
 * a RAMBlock, a channel or a vendor.  All functions take the object's own
 * lock and may be called by any thread; nothing else is locked under it.
 */
#ifndef MIGRATION_ENCRYPTED_STATS_H
#define MIGRATION_ENCRYPTED_STATS_H

#include "qapi/qapi-types-encrypted-ram.h"

/* Rounds that are kept, with the present one */
#define ENCRYPTED_STATS_ROUNDS 16
/* A block that has no index, because it came after the session */
#define ENCRYPTED_STATS_NO_BLOCK UINT_MAX

typedef struct EncryptedStats EncryptedStats;

typedef struct EncryptedPacked {
    uint64_t pages;
    uint64_t ns;
} EncryptedPacked;

/**
 * EncryptedSent: private pages
 * @pages: sent with their contents
 * @unallocated: sent without contents
 * @remaining: see encrypted_stats_remaining()
 */
typedef struct EncryptedSent {
    uint64_t pages;
    uint64_t unallocated;
    uint64_t remaining;
} EncryptedSent;

EncryptedStats *encrypted_stats_new(void);
void encrypted_stats_free(EncryptedStats *s);

/**
 * encrypted_stats_add_block: remember by which road each page of the next
 * block goes, in the order of their indices
 */
void encrypted_stats_add_block(EncryptedStats *s, uint64_t npages);

/** encrypted_stats_forget_blocks: free what is only needed while sending */
void encrypted_stats_forget_blocks(EncryptedStats *s);

/**
 * encrypted_stats_round: a round ends and another begins
 * @number: of the one that begins, from 1; 0: none, all is sent
 * @now: time in ms
 * @ended: returns the one that ends
 *
 * Returns false if there was none to end.
 */
bool encrypted_stats_round(EncryptedStats *s, uint64_t number, int64_t now,
                           EncryptedRamRound *ended);

/**
 * encrypted_stats_private: a batch of private pages was sent
 * @block: index, or ENCRYPTED_STATS_NO_BLOCK
 * @page: the first one's number in the block
 * @bytes: that they took in the stream
 */
void encrypted_stats_private(EncryptedStats *s, unsigned block, uint64_t page,
                             uint64_t npages, uint64_t bytes);

/**
 * encrypted_stats_unallocated: it was told that private pages have no content
 * @block, @page, @bytes: as for encrypted_stats_private()
 */
void encrypted_stats_unallocated(EncryptedStats *s, unsigned block,
                                 uint64_t page, uint64_t npages,
                                 uint64_t bytes);

/** encrypted_stats_shared: one page was sent as shared */
void encrypted_stats_shared(EncryptedStats *s, unsigned block, uint64_t page);

/** encrypted_stats_again: private pages were put off to a later round */
void encrypted_stats_again(EncryptedStats *s, uint64_t npages);

/**
 * encrypted_stats_packed: time that it took to pack pages
 * @npages: 0: they could not be
 * @ns: of the call, with what it waited
 */
void encrypted_stats_packed(EncryptedStats *s, uint64_t npages, int64_t ns);

/**
 * encrypted_stats_calls: how often the platform was asked since the migration
 * began, each time for any number of pages
 */
void encrypted_stats_calls(EncryptedStats *s, uint64_t calls);

/**
 * encrypted_stats_warn: something about the migration that its user should know
 * @text: a static string
 */
void encrypted_stats_warn(EncryptedStats *s, const char *text);

/** encrypted_stats_get_packed: sums of encrypted_stats_packed() until now */
EncryptedPacked encrypted_stats_get_packed(EncryptedStats *s);

/** encrypted_stats_get_sent: private pages that were sent until now */
EncryptedSent encrypted_stats_get_sent(EncryptedStats *s);

/**
 * encrypted_stats_remaining: @npages private pages are dirty now.  Pages that
 * are sent from now on are subtracted.
 */
void encrypted_stats_remaining(EncryptedStats *s, uint64_t npages);

/** encrypted_stats_get: for query-migrate; @now in ms */
EncryptedRamStats *encrypted_stats_get(EncryptedStats *s, int64_t now);

/** encrypted_stats_text: for a person; free with g_free */
char *encrypted_stats_text(const EncryptedRamStats *stats);

#endif
