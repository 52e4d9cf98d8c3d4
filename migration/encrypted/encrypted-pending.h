/*
 * When a confidential guest can be stopped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU divides the bytes that are left by the rate at which it has recently
 * written to the channel.  This says little about private pages: the source's
 * platform packs a page before QEMU writes it, the destination's platform
 * unpacks the page after QEMU has read it, and sockets and channels buffer
 * megabytes in between.  This file measures how long the destination takes to
 * load private and shared pages, and estimates from this the time for the pages
 * that are left.  It lets QEMU stop the guest only when the destination has
 * loaded everything that was sent.  See "Downtime" in
 * docs/devel/migration/encrypted-pages.rst.
 *
 * All functions do nothing for a guest without private memory.
 */
#ifndef MIGRATION_ENCRYPTED_PENDING_H
#define MIGRATION_ENCRYPTED_PENDING_H

#include "qemu/thread.h"
#include "encrypted-rate.h"
#include "encrypted-stats.h"

/*
 * With multifd, a ping overtakes the data that the channels still have, unless
 * the source flushes the channels before the ping
 */
typedef enum EncryptedPendingFlush {
    ENCRYPTED_FLUSH_NONE,
    /* The next section of RAM must end with a flush of the channels */
    ENCRYPTED_FLUSH_DUE,
    /* The channels were flushed, and nothing was sent since */
    ENCRYPTED_FLUSH_DONE,
} EncryptedPendingFlush;

/*
 * Part of MigrationState.  Unless noted otherwise, only the migration thread
 * uses these fields during a migration.  encrypted_pending_start() and
 * encrypted_pending_stop() set them with the BQL held.
 */
typedef struct EncryptedPending {
    EncryptedStats *stats;          /* NULL: there is nothing to do */
    EncryptedPendingFlush flush;
    int64_t ping_ns;                /* when the last ping was sent */
    bool counted;                   /* private pages counted at 1st sync */
    uint64_t downtime_ns;           /* estimate at the last sync */

    QemuMutex lock;                 /* protects the fields below */
    QemuCond pong;
    EncryptedRate rate;             /* also for the return path thread */
    uint32_t ping;                  /* number of the last ping */
} EncryptedPending;

/** encrypted_pending_init: called once, before the first migration */
void encrypted_pending_init(EncryptedPending *p);

/**
 * encrypted_pending_start: called with the BQL held when a migration with
 * private pages begins
 * @stats: the statistics of the migration; must live until
 *   encrypted_pending_stop()
 */
void encrypted_pending_start(EncryptedPending *p, EncryptedStats *stats);

/**
 * encrypted_pending_stop: called with the BQL held when the migration has ended
 * and the migration thread does not run any more
 */
void encrypted_pending_stop(EncryptedPending *p);

/**
 * encrypted_pending_flush_channels: shall the current section of RAM end with
 * a flush of multifd's channels?
 *
 * The caller must do so if the answer is true.  The migration thread calls this
 * function at the source; at the destination, the function always returns
 * false.
 */
bool encrypted_pending_flush_channels(void);

/**
 * encrypted_pending_estimate: decide whether the migration thread should go on
 * to send pages or sync the dirty bitmap
 * @pending: estimated number of bytes that are left.  QEMU compares it with a
 *   threshold and sends pages if it is higher.  The function sets it to a
 *   number that is higher, or lower, than any threshold.
 *
 * The function may wait until the destination has loaded everything that was
 * sent.  Called by the migration thread, without locks.
 */
void encrypted_pending_estimate(MigrationState *s, uint64_t *pending);

/**
 * encrypted_pending_exact: decide whether the migration thread should stop the
 * guest; called like encrypted_pending_estimate(), after a sync of the dirty
 * bitmap
 */
void encrypted_pending_exact(MigrationState *s, uint64_t *pending);

/**
 * encrypted_pending_pong: called by the thread of the return path when the
 * destination has answered ping @value, which another part of QEMU may have
 * sent
 */
void encrypted_pending_pong(uint32_t value);

/**
 * encrypted_pending_downtime_ms: estimated downtime if the guest had been
 * stopped at the last sync of the dirty bitmap; 0 if it is not known.  Called
 * by the migration thread.
 */
int64_t encrypted_pending_downtime_ms(void);

#endif
