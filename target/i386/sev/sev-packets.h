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
 * @large: and packets of several pages
 * @pages: for each page, how many pages the packet has that begins with it
 * @packet: where each packet is
 * @npackets: how many
 * @calls: ioctls since sev_packets_open()
 *
 * For one thread at a time, but for the last, which any may read.
 */
typedef struct SevPackets {
    bool batch;
    bool large;
    uint8_t *hdr;
    uint8_t *trans;
    uint8_t pages[CGS_MIGRATION_PAGES_MAX];
    SevWirePacket packet[CGS_MIGRATION_PAGES_MAX];
    size_t npackets;
    Stat64 calls;
} SevPackets;

/**
 * sev_packets_open: get ready to send or receive @cgs's pages, and find out
 * what its kernel offers; @large: packets of several pages, too
 */
void sev_packets_open(SevPackets *p, struct ConfidentialGuestSupport *cgs,
                      bool large);

/**
 * sev_packets_takes_large: does the kernel take packets of several pages for
 * this VM, whose memory is such that it can always receive them?
 */
bool sev_packets_takes_large(struct ConfidentialGuestSupport *cgs);

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
