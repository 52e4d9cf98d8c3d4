/*
 * Packets of the SEV firmware: packing and unpacking of private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A stock kernel has an ioctl for one page.  A kernel with
 * KVM_SEV_SEND_UPDATE_BATCH has one for many.  Both produce the same packets,
 * so the two sides of a migration can have different kernels.
 *
 * The second kernel can also make packets of several pages.  A source sends
 * them only after the destination has announced how many pages it takes.
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <linux/psp-sev.h>
#include "linux/kvm-page-enc.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "cpu.h"
#include "sev-migration-internal.h"
#include "sev-packets.h"
#include "trace.h"

QEMU_BUILD_BUG_ON(SEV_WIRE_PAGE != TARGET_PAGE_SIZE);
QEMU_BUILD_BUG_ON(SEV_WIRE_PACKET_PAGES != KVM_SEV_UPDATE_BATCH_PACKET_MAX);

/* A batch of 0 pages does nothing, and fails if the kernel does not know it */
static bool takes_batch(ConfidentialGuestSupport *cgs, uint32_t flags)
{
    struct kvm_sev_update_batch probe = { .flags = flags };
    int fw_error;

    return !sev_guest_cmd(cgs, KVM_SEV_SEND_UPDATE_BATCH, &probe, &fw_error);
}

void sev_packets_open(SevPackets *p, ConfidentialGuestSupport *cgs)
{
    if (!p->hdr) {
        p->hdr = g_malloc0_n(CGS_MIGRATION_PAGES_MAX, SEV_WIRE_HDR_MAX);
        p->trans = qemu_memalign(SEV_WIRE_PAGE,
                                 CGS_MIGRATION_PAGES_MAX * SEV_WIRE_PAGE);
    }
    p->batch = takes_batch(cgs, 0);
    if (!p->limit) {
        p->limit = p->batch && takes_batch(cgs, KVM_SEV_UPDATE_BATCH_PACKETS) ?
                   SEV_WIRE_PACKET_PAGES : 1;
    }
    qatomic_set(&p->agreed, 1);
    stat64_set(&p->calls, 0);
}

void sev_packets_agree(SevPackets *p, size_t npages)
{
    qatomic_set(&p->agreed, MIN(npages, p->limit));
    trace_sev_packets_agree(npages, p->limit);
}

void sev_packets_close(SevPackets *p)
{
    g_clear_pointer(&p->hdr, g_free);
    g_clear_pointer(&p->trans, qemu_vfree);
}

static uint8_t *trans_of(SevPackets *p, size_t i)
{
    return p->trans + i * SEV_WIRE_PAGE;
}

/* Run a command, and count it */
static int packets_cmd(SevPackets *p, ConfidentialGuestSupport *cgs, int cmd,
                       void *data, int *fw_error)
{
    stat64_add(&p->calls, 1);
    return sev_guest_cmd(cgs, cmd, data, fw_error);
}

/*
 * Run a batch command.  The buffers hold, or receive, the headers and the data
 * of the packets one after another.
 * @large: packets may have several pages
 */
static int do_batch(SevPackets *p, ConfidentialGuestSupport *cgs, int cmd,
                    uint8_t *host, uint32_t hdr_len, size_t npages,
                    bool large, size_t *done, int *fw_error)
{
    int ret = 0;

    *fw_error = 0;
    while (*done < npages) {
        struct kvm_sev_update_batch batch = {
            .guest_uaddr = (uintptr_t)(host + *done * TARGET_PAGE_SIZE),
            .hdr_uaddr = (uintptr_t)(p->hdr + *done * hdr_len),
            .trans_uaddr = (uintptr_t)trans_of(p, *done),
            .hdr_len = hdr_len,
            .count = npages - *done,
            .flags = large ? KVM_SEV_UPDATE_BATCH_PACKETS : 0,
            .packets_uaddr = large ? (uintptr_t)(p->pages + *done) : 0,
        };

        ret = packets_cmd(p, cgs, cmd, &batch, fw_error);
        *done += batch.done;
        /* After a signal, repeat the command for the remaining pages */
        if (ret != -EINTR) {
            break;
        }
    }
    return *done < npages ? ret ?: -EIO : 0;
}

/* The firmware refuses the length of a packet */
static bool is_too_long(int ret, int fw_error)
{
    return ret == -EIO && fw_error == SEV_RET_INVALID_LEN;
}

static void lower_limit(SevPackets *p, size_t npages)
{
    p->limit = npages;
    trace_sev_packets_limit(npages);
}

void sev_packets_probe(SevPackets *p, ConfidentialGuestSupport *cgs,
                       uint8_t *host, uint32_t hdr_len)
{
    while (p->limit > 1) {
        size_t done = 0;
        int fw_error, ret;

        memset(p->hdr, 0, hdr_len);
        memset(p->trans, 0, p->limit * SEV_WIRE_PAGE);
        p->pages[0] = p->limit;
        ret = do_batch(p, cgs, KVM_SEV_RECEIVE_UPDATE_BATCH, host, hdr_len,
                       p->limit, true, &done, &fw_error);
        if (ret == -EIO && fw_error == SEV_RET_BAD_MEASUREMENT) {
            return;
        }
        /* If the answer is not understood, only packets of one page are safe */
        lower_limit(p, is_too_long(ret, fw_error) ? p->limit - 1 : 1);
    }
}

/* Pack or unpack a page; both commands have the same argument */
static int do_page(SevPackets *p, ConfidentialGuestSupport *cgs, int cmd,
                   uint8_t *host, SevWirePacket *packet, int *fw_error)
{
    struct kvm_sev_send_update_data update = {
        .hdr_uaddr = (uintptr_t)packet->hdr,
        .hdr_len = packet->hdr_len,
        .guest_uaddr = (uintptr_t)host,
        .guest_len = TARGET_PAGE_SIZE,
        .trans_uaddr = (uintptr_t)packet->trans,
        .trans_len = packet->trans_len,
    };
    int ret = packets_cmd(p, cgs, cmd, &update, fw_error);

    QEMU_BUILD_BUG_ON(sizeof(struct kvm_sev_send_update_data) !=
                      sizeof(struct kvm_sev_receive_update_data));
    if (ret < 0) {
        return ret;
    }
    if (update.hdr_len != packet->hdr_len || !update.trans_len ||
        update.trans_len > SEV_WIRE_PAGE) {
        return -EPROTO;
    }
    packet->trans_len = update.trans_len;
    return 0;
}

static int do_pages(SevPackets *p, ConfidentialGuestSupport *cgs, int cmd,
                    uint8_t *host, size_t npages, size_t *done, int *fw_error)
{
    for (; *done < npages; ++*done) {
        int ret = do_page(p, cgs, cmd, host + *done * TARGET_PAGE_SIZE,
                          &p->packet[*done], fw_error);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* Prepare buffers for packets of one page */
static void single_packets(SevPackets *p, uint32_t hdr_len, size_t npages)
{
    for (size_t i = 0; i < npages; i++) {
        p->packet[i] = (SevWirePacket) {
            .hdr = p->hdr + i * hdr_len,
            .hdr_len = hdr_len,
            .trans = trans_of(p, i),
            .trans_len = SEV_WIRE_PAGE,
        };
    }
    p->npackets = npages;
}

/*
 * Find the packets that the kernel made, from @p->pages.  Returns false if
 * these numbers are not valid.
 */
static bool large_packets(SevPackets *p, uint32_t hdr_len, size_t npages)
{
    p->npackets = 0;
    for (size_t i = 0; i < npages; i += p->pages[i]) {
        if (!p->pages[i] || p->pages[i] > SEV_WIRE_PACKET_PAGES ||
            p->pages[i] > npages - i) {
            return false;
        }
        p->packet[p->npackets++] = (SevWirePacket) {
            .hdr = p->hdr + i * hdr_len,
            .hdr_len = hdr_len,
            .trans = trans_of(p, i),
            .trans_len = p->pages[i] * SEV_WIRE_PAGE,
        };
    }
    return true;
}

/*
 * Pack pages into packets of up to @agreed pages.  The kernel makes packets as
 * large as it can, so the number of pages in a call bounds them.  If the
 * firmware refuses the length of one, it gets smaller ones from now on.
 */
static int send_large(SevPackets *p, ConfidentialGuestSupport *cgs,
                      uint8_t *host, uint32_t hdr_len, size_t npages,
                      size_t *done, int *fw_error)
{
    int ret = 0;

    while (!ret && *done < npages) {
        uint8_t most = MIN(qatomic_read(&p->agreed), p->limit);
        size_t end = most < SEV_WIRE_PACKET_PAGES ?
                     MIN(npages, *done + most) : npages;

        ret = do_batch(p, cgs, KVM_SEV_SEND_UPDATE_BATCH, host, hdr_len, end,
                       true, done, fw_error);
        if (is_too_long(ret, *fw_error) && most > 1) {
            lower_limit(p, most - 1);
            ret = 0;
        }
    }
    return ret;
}

int sev_packets_send(SevPackets *p, ConfidentialGuestSupport *cgs,
                     uint8_t *host, uint32_t hdr_len, size_t npages,
                     size_t *done, int *fw_error)
{
    bool large = MIN(qatomic_read(&p->agreed), p->limit) > 1;
    int ret;

    assert(npages <= CGS_MIGRATION_PAGES_MAX && hdr_len <= SEV_WIRE_HDR_MAX);
    *done = 0;
    *fw_error = 0;
    single_packets(p, hdr_len, npages);
    if (!p->batch || npages < 2) {
        ret = do_pages(p, cgs, KVM_SEV_SEND_UPDATE_DATA, host, npages, done,
                       fw_error);
        p->npackets = *done;
        return ret;
    }
    if (!large) {
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

static bool has_large(const SevPackets *p)
{
    for (size_t i = 0; i < p->npackets; i++) {
        if (p->packet[i].trans_len > SEV_WIRE_PAGE) {
            return true;
        }
    }
    return false;
}

/*
 * Whether one batch can take all packets.  The source's firmware may differ
 * from this host's, so the lengths of its packets and headers may differ, too.
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

int sev_packets_receive(SevPackets *p, ConfidentialGuestSupport *cgs,
                        uint8_t *host, size_t npages, size_t *done,
                        int *fw_error)
{
    uint32_t hdr_len = p->packet[0].hdr_len;
    bool large = has_large(p);
    size_t page = 0;

    assert(npages <= CGS_MIGRATION_PAGES_MAX);
    *done = 0;
    *fw_error = 0;
    if (large && p->limit < 2) {
        return -EOPNOTSUPP;
    }
    if (large && !all_alike(p)) {
        return -EPROTO;
    }
    if (!p->batch || npages < 2 || !all_alike(p)) {
        return do_pages(p, cgs, KVM_SEV_RECEIVE_UPDATE_DATA, host, npages,
                        done, fw_error);
    }
    for (size_t i = 0; i < p->npackets; i++) {
        const SevWirePacket *packet = &p->packet[i];

        assert(page + sev_wire_packet_pages(packet) <= npages);
        memcpy(p->hdr + page * hdr_len, packet->hdr, hdr_len);
        memcpy(trans_of(p, page), packet->trans, packet->trans_len);
        p->pages[page] = sev_wire_packet_pages(packet);
        page += sev_wire_packet_pages(packet);
    }
    return do_batch(p, cgs, KVM_SEV_RECEIVE_UPDATE_BATCH, host, hdr_len,
                    npages, large, done, fw_error);
}
