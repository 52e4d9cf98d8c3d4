/*
 * Packets of the SEV firmware: packing and unpacking of private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TARGET_I386_SEV_PACKETS_H
#define TARGET_I386_SEV_PACKETS_H

#include "qemu/stats64.h"
#include "sev-migration-wire.h"
#include "system/confidential-guest-migration.h"

struct ConfidentialGuestSupport;

/**
 * SevPackets: the packets of one call of send or receive, and their limits
 * @batch: the kernel has an ioctl for many pages
 * @limit: most pages of a packet that the kernel and the firmware of this host
 *         handle for this VM; 0 until the first sev_packets_open().  The
 *         firmware's limit is found by trying, once in the life of the VM
 * @agreed: most pages of a packet that is sent: @limit, or less if the
 *          destination handles less; atomic
 * @hdr: buffers for headers
 * @trans: buffers for data, a page for each page
 * @pages: for the first page of a packet, the number of its pages
 * @packet: the packets; they point into the buffers or into the record
 * @npackets: number of packets
 * @calls: number of ioctls since sev_packets_open()
 *
 * One thread at a time uses this, except @agreed, which sev_packets_agree()
 * sets in another thread, and @calls, which any thread may read.
 */
typedef struct SevPackets {
    bool batch;
    uint8_t limit;
    uint8_t agreed;
    uint8_t *hdr;
    uint8_t *trans;
    uint8_t pages[CGS_MIGRATION_PAGES_MAX];
    SevWirePacket packet[CGS_MIGRATION_PAGES_MAX];
    size_t npackets;
    Stat64 calls;
} SevPackets;

/**
 * sev_packets_open: allocate the buffers, and find out what the kernel offers
 * for @cgs.  Packets that are sent have one page until sev_packets_agree() is
 * called.
 */
void sev_packets_open(SevPackets *p, struct ConfidentialGuestSupport *cgs);

/**
 * sev_packets_agree: the destination handles packets of up to @npages pages.
 * Any thread, once, after sev_packets_open().
 */
void sev_packets_agree(SevPackets *p, size_t npages);

/**
 * sev_packets_probe: find the firmware's limit by giving it packets that are
 * not authentic, which it refuses before it writes anything, and which it
 * refuses for their length if they are too long
 * @host: SEV_WIRE_PACKET_PAGES private pages of a guest_memfd, which nothing
 *        was written to
 * @hdr_len: bytes of a packet's header
 *
 * Sets @p->limit.  While receiving, before the first packet.
 */
void sev_packets_probe(SevPackets *p, struct ConfidentialGuestSupport *cgs,
                       uint8_t *host, uint32_t hdr_len);

/** sev_packets_close: free the buffers, if there are any */
void sev_packets_close(SevPackets *p);

/**
 * sev_packets_send: pack @npages contiguous pages
 * @host: host address of the first page
 * @hdr_len: bytes of a packet header, at most SEV_WIRE_HDR_MAX
 * @npages: at most CGS_MIGRATION_PAGES_MAX
 * @done: returns the number of pages that were packed.  After an error, the
 *        next page is the one that failed
 * @fw_error: returns the firmware's answer, 0 or less if it was not asked
 *
 * The packets are in @p->packet until the next call.
 *
 * Returns 0 or -errno; -EPROTO if a packet has a wrong length.
 */
int sev_packets_send(SevPackets *p, struct ConfidentialGuestSupport *cgs,
                     uint8_t *host, uint32_t hdr_len, size_t npages,
                     size_t *done, int *fw_error);

/**
 * sev_packets_receive: unpack the packets in @p->packet, which together have
 * @npages pages, to host address @host.  The other parameters are those of
 * sev_packets_send().
 *
 * Returns 0 or -errno: -EOPNOTSUPP for a packet of several pages if this host
 * takes none, -EPROTO if headers or data of packets beside it have other
 * lengths.
 */
int sev_packets_receive(SevPackets *p, struct ConfidentialGuestSupport *cgs,
                        uint8_t *host, size_t npages, size_t *done,
                        int *fw_error);

#endif
