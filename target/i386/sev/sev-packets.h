/*
 * Private pages of SEV guests to packets and back, by the firmware
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
 * SevPackets: the packets of one call
 * @batch: the kernel takes many pages in one ioctl
 * @limit: most pages of a packet that the kernel and the firmware of this host
 *         handle for this VM; 0 until the first sev_packets_open().  The
 *         firmware's limit is found by trying, once in the life of the VM
 * @agreed: most pages of a packet that is sent: @limit, or less if the
 *          destination handles less; atomic
 * @pages: for each page, how many pages the packet has that begins with it
 * @packet: where each packet is
 * @npackets: how many
 * @calls: ioctls since sev_packets_open()
 *
 * For one thread at a time, except @agreed, which sev_packets_agree() sets in
 * another thread, and @calls, which any thread may read.
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
 * sev_packets_open: get ready to send or receive @cgs's pages, and find out
 * what its kernel offers.  Packets that are sent have one page until
 * sev_packets_agree() is called.
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

/** sev_packets_close: free the buffers; no open is needed before */
void sev_packets_close(SevPackets *p);

/**
 * sev_packets_send: pack @npages pages from host address @host on
 * @hdr_len: bytes of a packet's header, at most SEV_WIRE_HDR_MAX
 * @npages: at most CGS_MIGRATION_PAGES_MAX
 * @done: out: pages that are packed, also with an error, which is then that
 *        of the next
 * @fw_error: out: the firmware's answer, 0 if it was not asked
 *
 * The packets are in @p->packet until the next call.
 *
 * Returns 0 or -errno, -EPROTO for a packet that has not the right size.
 */
int sev_packets_send(SevPackets *p, struct ConfidentialGuestSupport *cgs,
                     uint8_t *host, uint32_t hdr_len, size_t npages,
                     size_t *done, int *fw_error);

/**
 * sev_packets_receive: unpack the packets of @p->packet, which are valid and
 * have @npages pages, to host address @host.  The rest as above.
 *
 * Returns 0 or -errno: -EOPNOTSUPP for packets of several pages that this
 * kernel does not take, -EPROTO if there are others with them that are not
 * alike.
 */
int sev_packets_receive(SevPackets *p, struct ConfidentialGuestSupport *cgs,
                        uint8_t *host, size_t npages, size_t *done,
                        int *fw_error);

#endif
