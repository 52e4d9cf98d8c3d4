/*
 * Statistics of a migration with private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Counters of one outgoing migration and of its last rounds.  The functions
 * know no RAMBlock, channel or vendor.  Any thread may call them: each takes
 * the object's own lock, and no other lock while it holds that one.
 */
#ifndef MIGRATION_ENCRYPTED_STATS_H
#define MIGRATION_ENCRYPTED_STATS_H

#include "qapi/qapi-types-encrypted-ram.h"

/* Number of rounds that are kept, with the present one */
#define ENCRYPTED_STATS_ROUNDS 16
/* Index of a block that was added after the session record was sent */
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
 * encrypted_stats_add_block: add the block with the next index, which has
 * @npages pages, to remember by which path each of its pages is sent
 */
void encrypted_stats_add_block(EncryptedStats *s, uint64_t npages);

/**
 * encrypted_stats_forget_blocks: called after a migration.  Free the bitmaps
 * that say by which path each page was sent last.
 */
void encrypted_stats_forget_blocks(EncryptedStats *s);

/**
 * encrypted_stats_round: a round ends and another begins
 * @number: number of the round that begins, from 1; 0 if none begins
 * @now: time in ms
 * @ended: returns the round that ends
 *
 * Returns false if no round ends.
 */
bool encrypted_stats_round(EncryptedStats *s, uint64_t number, int64_t now,
                           EncryptedRamRound *ended);

/**
 * encrypted_stats_private: a batch of private pages was sent
 * @block: index, or ENCRYPTED_STATS_NO_BLOCK
 * @page: index of the first page in the block
 * @bytes: size in the stream
 */
void encrypted_stats_private(EncryptedStats *s, unsigned block, uint64_t page,
                             uint64_t npages, uint64_t bytes);

/**
 * encrypted_stats_unallocated: private pages were sent without contents
 * @block, @page, @bytes: as for encrypted_stats_private()
 */
void encrypted_stats_unallocated(EncryptedStats *s, unsigned block,
                                 uint64_t page, uint64_t npages,
                                 uint64_t bytes);

/** encrypted_stats_shared: one page was sent as shared */
void encrypted_stats_shared(EncryptedStats *s, unsigned block, uint64_t page);

/** encrypted_stats_requeued: private pages were requeued for a later round */
void encrypted_stats_requeued(EncryptedStats *s, uint64_t npages);

/**
 * encrypted_stats_packed: the platform was called to pack pages
 * @npages: number of pages that were packed, 0 if none could be
 * @ns: time from the beginning to the end of the call, including all waits
 *      within the call
 */
void encrypted_stats_packed(EncryptedStats *s, uint64_t npages, int64_t ns);

/**
 * encrypted_stats_calls: the platform has been called @calls times since the
 * migration began, each time for any number of pages
 */
void encrypted_stats_calls(EncryptedStats *s, uint64_t calls);

/**
 * encrypted_stats_helper: the guest's helper has packed @npages pages since the
 * migration began
 * @why_not: why it packs none, or NULL; copied
 */
void encrypted_stats_helper(EncryptedStats *s, uint64_t npages,
                            const char *why_not);

/**
 * encrypted_stats_warn: set a warning for the user of the migration
 * @text: a static string
 */
void encrypted_stats_warn(EncryptedStats *s, const char *text);

/** encrypted_stats_get_packed: sums of encrypted_stats_packed() until now */
EncryptedPacked encrypted_stats_get_packed(EncryptedStats *s);

/** encrypted_stats_get_sent: private pages that were sent until now */
EncryptedSent encrypted_stats_get_sent(EncryptedStats *s);

/**
 * encrypted_stats_remaining: @npages private pages are dirty.  Pages that are
 * sent from now on are subtracted.
 */
void encrypted_stats_remaining(EncryptedStats *s, uint64_t npages);

/**
 * encrypted_stats_get: return the statistics for query-migrate
 * @now: time in ms
 */
EncryptedRamStats *encrypted_stats_get(EncryptedStats *s, int64_t now);

/** encrypted_stats_text: text for a person; free with g_free */
char *encrypted_stats_text(const EncryptedRamStats *stats);

#endif
