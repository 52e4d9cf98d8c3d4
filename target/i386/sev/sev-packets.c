/*
 * Packets of the SEV firmware: packing and unpacking of private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A stock kernel has an ioctl for one page, which makes a packet of one page.
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qemu/memalign.h"
#include "qapi/error.h"
#include "cpu.h"
#include "sev-migration-internal.h"
#include "sev-packets.h"

QEMU_BUILD_BUG_ON(SEV_WIRE_PAGE != TARGET_PAGE_SIZE);

void sev_packets_open(SevPackets *p, ConfidentialGuestSupport *cgs)
{
    if (!p->hdr) {
        p->hdr = g_malloc0_n(CGS_MIGRATION_PAGES_MAX, SEV_WIRE_HDR_MAX);
        p->trans = qemu_memalign(SEV_WIRE_PAGE,
                                 CGS_MIGRATION_PAGES_MAX * SEV_WIRE_PAGE);
    }
    sev_batch_open(&p->batch, cgs);
    stat64_set(&p->calls, 0);
}

void sev_packets_close(SevPackets *p)
{
    g_clear_pointer(&p->hdr, g_free);
    g_clear_pointer(&p->trans, qemu_vfree);
}

/*
 * Pack a page (@cmd is KVM_SEV_SEND_UPDATE_DATA) or unpack it
 * (KVM_SEV_RECEIVE_UPDATE_DATA).  The arguments of these two commands have the
 * same layout.
 */
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
    int ret;

    QEMU_BUILD_BUG_ON(sizeof(struct kvm_sev_send_update_data) !=
                      sizeof(struct kvm_sev_receive_update_data));
    KVM_PRIVATE_ACCESS_HOLD_GUARD(host, TARGET_PAGE_SIZE);
    stat64_add(&p->calls, 1);
    ret = sev_guest_cmd(cgs, cmd, &update, fw_error);
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

/* Prepare @npages packets that contain one page each: assign their buffers */
static void single_packets(SevPackets *p, uint32_t hdr_len, size_t npages)
{
    for (size_t i = 0; i < npages; i++) {
        p->packet[i] = (SevWirePacket) {
            .hdr = p->hdr + i * hdr_len,
            .hdr_len = hdr_len,
            .trans = sev_packets_trans(p, i),
            .trans_len = SEV_WIRE_PAGE,
        };
    }
    p->npackets = npages;
}

int sev_packets_send(SevPackets *p, ConfidentialGuestSupport *cgs,
                     uint8_t *host, uint32_t hdr_len, size_t npages,
                     size_t *done, int *fw_error)
{
    int ret;

    assert(npages <= CGS_MIGRATION_PAGES_MAX && hdr_len <= SEV_WIRE_HDR_MAX);
    *done = 0;
    *fw_error = 0;
    single_packets(p, hdr_len, npages);
    if (sev_batch_can_send(p, npages)) {
        return sev_batch_send(p, cgs, host, hdr_len, npages, done, fw_error);
    }
    ret = do_pages(p, cgs, KVM_SEV_SEND_UPDATE_DATA, host, npages, done,
                   fw_error);
    p->npackets = *done;
    return ret;
}

bool sev_packets_get(SevPackets *p, const uint8_t *in, size_t len,
                     size_t npages, size_t *done, Error **errp)
{
    size_t pos = 0;

    *done = 0;
    for (p->npackets = 0; *done < npages; p->npackets++) {
        SevWirePacket *packet = &p->packet[p->npackets];

        if (!sev_wire_get_packet(in, len, &pos, packet, errp)) {
            return false;
        }
        if (sev_wire_packet_pages(packet) > npages - *done) {
            error_setg(errp, "SEV: a packet of %zu pages in a record that "
                       "has %zu left", sev_wire_packet_pages(packet),
                       npages - *done);
            return false;
        }
        *done += sev_wire_packet_pages(packet);
    }
    if (pos != len) {
        *done = 0;
        error_setg(errp, "SEV: %zu bytes left after the packets of %zu pages",
                   len - pos, npages);
        return false;
    }
    return true;
}

int sev_packets_receive(SevPackets *p, ConfidentialGuestSupport *cgs,
                        uint8_t *host, size_t npages, size_t *done,
                        int *fw_error)
{
    assert(npages <= CGS_MIGRATION_PAGES_MAX);
    *done = 0;
    *fw_error = 0;
    if (sev_batch_can_receive(p, npages)) {
        return sev_batch_receive(p, cgs, host, npages, done, fw_error);
    }
    if (p->npackets < npages) {
        return -EOPNOTSUPP;
    }
    return do_pages(p, cgs, KVM_SEV_RECEIVE_UPDATE_DATA, host, npages, done,
                    fw_error);
}
