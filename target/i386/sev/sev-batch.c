/*
 * Batches: packing and unpacking of many pages with one ioctl
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A kernel with KVM_SEV_SEND_UPDATE_BATCH makes the same packets as a stock
 * kernel, so the two sides of a migration can have different kernels.
 *
 * Such a kernel can also make packets of several pages.  A source sends such
 * packets only after the destination has announced how many pages a packet may
 * have (sev-answer.c).
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <linux/psp-sev.h>
#include "linux/kvm-page-enc.h"
#include "cpu.h"
#include "sev-batch.h"
#include "sev-migration-internal.h"
#include "sev-packets.h"
#include "trace.h"

QEMU_BUILD_BUG_ON(SEV_WIRE_PACKET_PAGES != KVM_SEV_UPDATE_BATCH_PACKET_MAX);

/*
 * Whether the kernel supports batches with @flags.  The function issues the
 * ioctl for 0 pages.  This call does nothing, and it fails only if the kernel
 * lacks the ioctl or does not know the flags.
 */
static bool takes_batch(ConfidentialGuestSupport *cgs, uint32_t flags)
{
    struct kvm_sev_update_batch probe = { .flags = flags };
    int fw_error;

    return !sev_guest_cmd(cgs, KVM_SEV_SEND_UPDATE_BATCH, &probe, &fw_error);
}

void sev_batch_open(SevBatch *b, ConfidentialGuestSupport *cgs)
{
    b->supported = takes_batch(cgs, 0);
    if (!b->limit) {
        b->limit = b->supported &&
                   takes_batch(cgs, KVM_SEV_UPDATE_BATCH_PACKETS) ?
                   SEV_WIRE_PACKET_PAGES : 1;
    }
    qatomic_set(&b->agreed, 1);
}

void sev_batch_agree(SevBatch *b, size_t npages)
{
    qatomic_set(&b->agreed, MIN(npages, b->limit));
    trace_sev_batch_agree(npages, b->limit);
}

/*
 * Run a batch command.  The buffers of @p hold, or receive, the packets.  If a
 * packet begins with page i, its header is header i of the buffer of headers,
 * and its data begin at page i of the buffer of data.
 * @large: packets may have several pages
 */
static int do_batch(SevPackets *p, ConfidentialGuestSupport *cgs, int cmd,
                    uint8_t *host, uint32_t hdr_len, size_t npages,
                    bool large, size_t *done, int *fw_error)
{
    int ret = 0;

    *fw_error = 0;
    while (*done < npages) {
        uint8_t *first = host + *done * TARGET_PAGE_SIZE;
        struct kvm_sev_update_batch batch = {
            .guest_uaddr = (uintptr_t)first,
            .hdr_uaddr = (uintptr_t)(p->hdr + *done * hdr_len),
            .trans_uaddr = (uintptr_t)sev_packets_trans(p, *done),
            .hdr_len = hdr_len,
            .count = npages - *done,
            .flags = large ? KVM_SEV_UPDATE_BATCH_PACKETS : 0,
            .packets_uaddr = large ? (uintptr_t)(p->batch.pages + *done) : 0,
        };

        KVM_PRIVATE_ACCESS_HOLD_GUARD(first, batch.count * TARGET_PAGE_SIZE);
        stat64_add(&p->calls, 1);
        ret = sev_guest_cmd(cgs, cmd, &batch, fw_error);
        *done += batch.done;
        /* After a signal, repeat the command for the remaining pages */
        if (ret != -EINTR) {
            break;
        }
    }
    return *done < npages ? ret ?: -EIO : 0;
}

/* Has the firmware refused the length of a packet? */
static bool is_too_long(int ret, int fw_error)
{
    return ret == -EIO && fw_error == SEV_RET_INVALID_LEN;
}

static void lower_limit(SevBatch *b, size_t npages)
{
    b->limit = npages;
    trace_sev_batch_limit(npages);
}

void sev_batch_probe(SevPackets *p, ConfidentialGuestSupport *cgs,
                     uint8_t *host, uint32_t hdr_len)
{
    SevBatch *b = &p->batch;

    while (b->limit > 1) {
        size_t done = 0;
        int fw_error, ret;

        memset(p->hdr, 0, hdr_len);
        memset(p->trans, 0, b->limit * SEV_WIRE_PAGE);
        b->pages[0] = b->limit;
        ret = do_batch(p, cgs, KVM_SEV_RECEIVE_UPDATE_BATCH, host, hdr_len,
                       b->limit, true, &done, &fw_error);
        if (ret == -EIO && fw_error == SEV_RET_BAD_MEASUREMENT) {
            return;
        }
        /*
         * Any other result than SEV_RET_INVALID_LEN does not tell which length
         * the firmware accepts, so use packets of one page, which every
         * firmware accepts.
         */
        lower_limit(b, is_too_long(ret, fw_error) ? b->limit - 1 : 1);
    }
}

/*
 * Set p->packet to the packets that the kernel made.  The kernel has written
 * their numbers of pages to SevBatch.pages.  Returns false if a number is not
 * valid.
 */
static bool large_packets(SevPackets *p, uint32_t hdr_len, size_t npages)
{
    const uint8_t *pages = p->batch.pages;

    p->npackets = 0;
    for (size_t i = 0; i < npages; i += pages[i]) {
        if (!pages[i] || pages[i] > SEV_WIRE_PACKET_PAGES ||
            pages[i] > npages - i) {
            return false;
        }
        p->packet[p->npackets++] = (SevWirePacket) {
            .hdr = p->hdr + i * hdr_len,
            .hdr_len = hdr_len,
            .trans = sev_packets_trans(p, i),
            .trans_len = pages[i] * SEV_WIRE_PAGE,
        };
    }
    return true;
}

/* Maximum number of pages in a packet that both sides handle */
static uint8_t packet_pages(const SevBatch *b)
{
    return MIN(qatomic_read(&b->agreed), b->limit);
}

/*
 * Pack pages into packets of several pages.  The kernel makes packets as large
 * as it can, so this function limits them by the number of pages in a call.  If
 * the firmware refuses the length of a packet, this function lowers
 * SevBatch.limit.
 */
static int send_large(SevPackets *p, ConfidentialGuestSupport *cgs,
                      uint8_t *host, uint32_t hdr_len, size_t npages,
                      size_t *done, int *fw_error)
{
    int ret = 0;

    while (!ret && *done < npages) {
        uint8_t most = packet_pages(&p->batch);
        size_t end = most < SEV_WIRE_PACKET_PAGES ?
                     MIN(npages, *done + most) : npages;

        ret = do_batch(p, cgs, KVM_SEV_SEND_UPDATE_BATCH, host, hdr_len, end,
                       true, done, fw_error);
        if (is_too_long(ret, *fw_error) && most > 1) {
            lower_limit(&p->batch, most - 1);
            ret = 0;
        }
    }
    return ret;
}

bool sev_batch_can_send(const SevPackets *p, size_t npages)
{
    return p->batch.supported && npages > 1;
}

int sev_batch_send(SevPackets *p, ConfidentialGuestSupport *cgs,
                   uint8_t *host, uint32_t hdr_len, size_t npages,
                   size_t *done, int *fw_error)
{
    int ret;

    if (packet_pages(&p->batch) < 2) {
        ret = do_batch(p, cgs, KVM_SEV_SEND_UPDATE_BATCH, host, hdr_len,
                       npages, false, done, fw_error);
        p->npackets = *done;
        return ret;
    }
    ret = send_large(p, cgs, host, hdr_len, npages, done, fw_error);
    if (!large_packets(p, hdr_len, *done)) {
        *done = 0;
        return -EPROTO;
    }
    return ret;
}

/*
 * Whether one batch can take all packets.  All headers in a batch must have the
 * same length, and the data of each packet must be whole pages.  If the source
 * has other firmware than this host, the source's packets can violate these
 * conditions.
 */
static bool all_alike(const SevPackets *p)
{
    for (size_t i = 0; i < p->npackets; i++) {
        if (p->packet[i].hdr_len != p->packet[0].hdr_len ||
            p->packet[i].trans_len % SEV_WIRE_PAGE) {
            return false;
        }
    }
    return true;
}

bool sev_batch_can_receive(const SevPackets *p, size_t npages)
{
    if (!p->batch.supported || npages < 2) {
        return false;
    }
    return p->npackets < npages ? p->batch.limit > 1 : all_alike(p);
}

int sev_batch_receive(SevPackets *p, ConfidentialGuestSupport *cgs,
                      uint8_t *host, size_t npages, size_t *done,
                      int *fw_error)
{
    uint32_t hdr_len = p->packet[0].hdr_len;
    size_t page = 0;

    if (!all_alike(p)) {
        return -EPROTO;
    }
    for (size_t i = 0; i < p->npackets; i++) {
        const SevWirePacket *packet = &p->packet[i];

        assert(page + sev_wire_packet_pages(packet) <= npages);
        memcpy(p->hdr + page * hdr_len, packet->hdr, hdr_len);
        memcpy(sev_packets_trans(p, page), packet->trans, packet->trans_len);
        p->batch.pages[page] = sev_wire_packet_pages(packet);
        page += sev_wire_packet_pages(packet);
    }
    return do_batch(p, cgs, KVM_SEV_RECEIVE_UPDATE_BATCH, host, hdr_len,
                    npages, p->npackets < npages, done, fw_error);
}
