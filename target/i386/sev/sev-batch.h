/*
 * Batches: packing and unpacking of many pages with one ioctl
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The functions use the buffers of SevPackets, which contains a SevBatch.
 */
#ifndef TARGET_I386_SEV_BATCH_H
#define TARGET_I386_SEV_BATCH_H

#include "system/confidential-guest-migration.h"

struct ConfidentialGuestSupport;
struct SevPackets;

/**
 * SevBatch: what the kernel and the firmware offer for packets
 * @supported: the kernel has an ioctl for many pages
 * @limit: maximum number of pages in a packet that the kernel and the firmware
 *         of this host handle for this VM; 0 until the first sev_batch_open().
 *         QEMU finds the firmware's limit by trying, once in the life of the VM
 * @agreed: maximum number of pages in a packet that is sent: @limit, or less if
 *          the destination handles less; atomic
 * @pages: for the first page of a packet, the number of its pages
 *
 * One thread at a time uses the structure, except @agreed, which
 * sev_batch_agree() sets in another thread.
 */
typedef struct SevBatch {
    bool supported;
    uint8_t limit;
    uint8_t agreed;
    uint8_t pages[CGS_MIGRATION_PAGES_MAX];
} SevBatch;

/**
 * sev_batch_open: find out what the kernel offers for @cgs.  Packets that are
 * sent have one page until sev_batch_agree() is called.
 */
void sev_batch_open(SevBatch *b, struct ConfidentialGuestSupport *cgs);

/**
 * sev_batch_agree: record that the destination handles packets of up to @npages
 * pages.  Any thread may call this function, once, after sev_batch_open().
 */
void sev_batch_agree(SevBatch *b, size_t npages);

/**
 * sev_batch_probe: find the firmware's limit by giving it packets that are not
 * authentic.  The firmware refuses them before it writes anything.  Its error
 * tells whether a packet was too long.
 * @host: SEV_WIRE_PACKET_PAGES private pages of a guest_memfd, to which nothing
 *        was written
 * @hdr_len: bytes of a packet's header
 *
 * Sets SevBatch.limit.  The destination calls this function before it unpacks
 * the first packet.
 */
void sev_batch_probe(struct SevPackets *p,
                     struct ConfidentialGuestSupport *cgs, uint8_t *host,
                     uint32_t hdr_len);

/** sev_batch_can_send: whether sev_batch_send() can pack @npages pages */
bool sev_batch_can_send(const struct SevPackets *p, size_t npages);

/** sev_batch_send: sev_packets_send() with batches */
int sev_batch_send(struct SevPackets *p, struct ConfidentialGuestSupport *cgs,
                   uint8_t *host, uint32_t hdr_len, size_t npages,
                   size_t *done, int *fw_error);

/**
 * sev_batch_can_receive: whether sev_batch_receive() can unpack the packets in
 * SevPackets.packet, which together have @npages pages
 */
bool sev_batch_can_receive(const struct SevPackets *p, size_t npages);

/**
 * sev_batch_receive: sev_packets_receive() with batches.  Returns -EPROTO if
 * the headers of the packets have different lengths, or if the data of a packet
 * are not whole pages.
 */
int sev_batch_receive(struct SevPackets *p,
                      struct ConfidentialGuestSupport *cgs, uint8_t *host,
                      size_t npages, size_t *done, int *fw_error);

#endif
