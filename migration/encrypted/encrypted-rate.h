/*
 * How fast the destination receives and unpacks a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A page passes three stages: the source's platform packs it if it is private,
 * the channel carries it, and the destination's platform unpacks it.  Any of
 * them can be the bottleneck, and the buffers between them hide which one.
 * The source therefore sends pings in the stream, and the destination
 * acknowledges a ping when it has loaded everything that precedes the ping.
 *
 * This file has only arithmetic.  It knows no channel, clock or RAMBlock, and
 * takes no lock.  See "Downtime" in docs/devel/migration/encrypted-pages.rst.
 */
#ifndef MIGRATION_ENCRYPTED_RATE_H
#define MIGRATION_ENCRYPTED_RATE_H

/* Number of pings that are kept */
#define ENCRYPTED_RATE_MARKS 16
/*
 * The estimate if no time can be estimated.  Either private pages are left to
 * send and the destination has not acknowledged any private page yet, or shared
 * pages are left to send and it has not acknowledged any shared page yet.
 */
#define ENCRYPTED_RATE_UNKNOWN UINT64_MAX

/**
 * EncryptedWork: an amount of memory
 * @pages: private pages
 * @bytes: bytes of shared pages
 */
typedef struct EncryptedWork {
    uint64_t pages;
    uint64_t bytes;
} EncryptedWork;

/**
 * EncryptedMark: a ping in the stream
 * @id: number of the ping; the destination acknowledges the ping with it
 * @done: all work that precedes the ping in the stream
 * @sent_ns: a time before the source began to work on what follows the ping in
 *           the stream
 * @acked_ns: the destination had loaded everything that precedes the ping at
 *            this time; 0 if the ping was not acknowledged yet
 */
typedef struct EncryptedMark {
    uint32_t id;
    EncryptedWork done;
    int64_t sent_ns;
    int64_t acked_ns;
} EncryptedMark;

typedef struct EncryptedRate {
    EncryptedMark marks[ENCRYPTED_RATE_MARKS];  /* in stream order */
    unsigned n;
    uint32_t acked;             /* the number that was acknowledged last */
    /*
     * @page_ns is an upper bound of the time in ns that one private page takes.
     * @byte_ns is an upper bound of the time that one byte of a shared page
     * takes.  Each is the smallest bound that follows from the pings in @marks.
     * If no private page was sent between these pings, @page_ns keeps its old
     * value.  If no shared page was sent, @byte_ns keeps its old value.
     * 0: not known
     */
    double page_ns;
    double byte_ns;
} EncryptedRate;

/**
 * encrypted_rate_start: forget everything; no work has been done at @now
 * @id: one less than the number of the first ping; number @id counts as
 *      acknowledged
 * @now: nanoseconds, like all times here
 */
void encrypted_rate_start(EncryptedRate *r, uint32_t id, int64_t now);

/**
 * encrypted_rate_mark: record that a ping is put into the stream
 * @id: number of the ping, one more than that of the last ping
 * @done: all work that precedes the ping in the stream
 */
void encrypted_rate_mark(EncryptedRate *r, uint32_t id,
                         const EncryptedWork *done, int64_t now);

/**
 * encrypted_rate_ack: record that the destination has loaded everything before
 * ping @id
 *
 * An unknown @id, which an untrusted destination may send, has no effect.
 */
void encrypted_rate_ack(EncryptedRate *r, uint32_t id, int64_t now);

/** encrypted_rate_unacked: how many pings were not acknowledged yet */
uint32_t encrypted_rate_unacked(const EncryptedRate *r);

/**
 * encrypted_rate_idle: record that the source has sent nothing between the last
 * ping and @now
 *
 * The source calls this function after it has waited for the acknowledgement of
 * the last ping.  The time of the wait must not count as time that the next
 * work takes.
 */
void encrypted_rate_idle(EncryptedRate *r, int64_t now);

/**
 * encrypted_rate_estimate: the time in ns until the destination will have
 * loaded @left, if it has loaded everything that was sent before
 *
 * Returns ENCRYPTED_RATE_UNKNOWN if the rate of private pages or of shared
 * bytes is needed and not known.
 */
uint64_t encrypted_rate_estimate(const EncryptedRate *r,
                                 const EncryptedWork *left);

#endif
