/*
 * Packets of the SEV firmware: packing and unpacking of private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TARGET_I386_SEV_PACKETS_H
#define TARGET_I386_SEV_PACKETS_H

#include "qemu/stats64.h"
#include "sev-batch.h"
#include "sev-migration-wire.h"
#include "system/confidential-guest-migration.h"

struct ConfidentialGuestSupport;

/**
 * SevPackets: the packets of one call of send or receive
 * @hdr: buffers for headers
 * @trans: buffers for data, SEV_WIRE_PAGE bytes for each page
 * @packet: the packets; they point into the buffers or into the record
 * @npackets: number of packets
 * @calls: number of ioctls since sev_packets_open()
 * @batch: size of packets, and whether the kernel packs many pages per ioctl
 *
 * Only one thread at a time may use a SevPackets, but any thread may read
 * @calls.
 */
typedef struct SevPackets {
    uint8_t *hdr;
    uint8_t *trans;
    SevWirePacket packet[CGS_MIGRATION_PAGES_MAX];
    size_t npackets;
    Stat64 calls;
    SevBatch batch;
} SevPackets;

/** sev_packets_trans: buffer for the data of page @i */
static inline uint8_t *sev_packets_trans(SevPackets *p, size_t i)
{
    return p->trans + i * SEV_WIRE_PAGE;
}

/** sev_packets_open: allocate the buffers, and set @calls to 0 */
void sev_packets_open(SevPackets *p, struct ConfidentialGuestSupport *cgs);

/** sev_packets_close: free the buffers, if there are any */
void sev_packets_close(SevPackets *p);

/**
 * sev_packets_send: pack @npages contiguous pages
 * @host: host address of the first page
 * @hdr_len: bytes of a packet header, at most SEV_WIRE_HDR_MAX
 * @npages: at most CGS_MIGRATION_PAGES_MAX
 * @done: returns the number of pages that were packed.  After an error, the
 *        next page is the one that failed
 * @fw_error: returns the firmware's status, see sev_ioctl()
 *
 * The packets are in @p->packet until the next call.
 *
 * Returns 0 or -errno; -EPROTO if a packet has a wrong length.
 */
int sev_packets_send(SevPackets *p, struct ConfidentialGuestSupport *cgs,
                     uint8_t *host, uint32_t hdr_len, size_t npages,
                     size_t *done, int *fw_error);

/**
 * sev_packets_get: read the packets of @npages pages from the @len bytes at @in
 * into @p->packet.  @in must not contain anything else.
 *
 * Returns false with @errp set after an error.  @done is then the number of
 * pages before the bad packet, or 0 if bytes are left after the last packet.
 */
bool sev_packets_get(SevPackets *p, const uint8_t *in, size_t len,
                     size_t npages, size_t *done, Error **errp);

/**
 * sev_packets_receive: unpack the packets in @p->packet, which together have
 * @npages pages, to host address @host.  The other parameters are those of
 * sev_packets_send().
 *
 * Returns 0 or -errno.  -EOPNOTSUPP: a packet has several pages, and this host
 * unpacks only packets of one page.  -EPROTO: the headers of the packets have
 * different lengths, or the data of a packet has a wrong length.
 */
int sev_packets_receive(SevPackets *p, struct ConfidentialGuestSupport *cgs,
                        uint8_t *host, size_t npages, size_t *done,
                        int *fw_error);

#endif
