/*
 * What is left to send on the road of private pages, and how long it takes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU takes what is left as bytes and divides by what the channel carried of
 * late.  A private page costs more than its bytes: somebody packs it first,
 * at a rate of his own.  So the time of packing is taken out of the channel's
 * time, and added to what is left as the bytes that the channel could carry
 * meanwhile.  See docs/devel/migration/encrypted-pages.rst.
 *
 * All of it does nothing for a guest without private memory.
 */
#ifndef MIGRATION_ENCRYPTED_PENDING_H
#define MIGRATION_ENCRYPTED_PENDING_H

#include "encrypted-stats.h"

/**
 * encrypted_pending_start: a migration with private pages begins; @stats is
 * theirs.  BQL.
 */
void encrypted_pending_start(EncryptedStats *stats);

/** encrypted_pending_stop: it has ended.  No migration thread, BQL. */
void encrypted_pending_stop(void);

/**
 * encrypted_pending_channel_ms: of the @ms since the last call (or since the
 * start), those that were not spent packing; at least 1.  Migration thread.
 */
double encrypted_pending_channel_ms(uint64_t ms);

/**
 * encrypted_pending_pack_ms: time to pack the pages that were private and
 * dirty at the last sync.  Migration thread.
 */
double encrypted_pending_pack_ms(void);

#endif
