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
 * @page: where each packet is
 * @calls: ioctls since sev_packets_open()
 *
 * For one thread at a time, but for the last, which any may read.
 */
typedef struct SevPackets {
    bool batch;
    uint8_t *hdr;
    uint8_t *trans;
    SevWirePage page[CGS_MIGRATION_PAGES_MAX];
    Stat64 calls;
} SevPackets;

/**
 * sev_packets_open: get ready to send or receive @cgs's pages, and find out
 * what its kernel offers
 */
void sev_packets_open(SevPackets *p, struct ConfidentialGuestSupport *cgs);

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
 * The packets are in @p->page until the next call.
 *
 * Returns 0 or -errno, -EPROTO for a packet that has not the right size.
 */
int sev_packets_send(SevPackets *p, struct ConfidentialGuestSupport *cgs,
                     uint8_t *host, uint32_t hdr_len, size_t npages,
                     size_t *done, int *fw_error);

/**
 * sev_packets_receive: unpack the first @npages packets of @p->page, whose
 * sizes were checked, to host address @host.  The rest as above.
 */
int sev_packets_receive(SevPackets *p, struct ConfidentialGuestSupport *cgs,
                        uint8_t *host, size_t npages, size_t *done,
                        int *fw_error);

#endif
