/*
 * Private pages of SEV guests to packets and back, by the firmware
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Linux has an ioctl for one page, the KVM module one for many.  The packets
 * are the same, so the two sides of a migration need not have the same
 * kernel.
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "linux/kvm-page-enc.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "cpu.h"
#include "sev-migration.h"
#include "sev-packets.h"

QEMU_BUILD_BUG_ON(SEV_WIRE_TRANS_MAX != TARGET_PAGE_SIZE);

void sev_packets_open(SevPackets *p, ConfidentialGuestSupport *cgs)
{
    struct kvm_sev_update_batch probe = {};
    int fw_error;

    if (!p->hdr) {
        p->hdr = g_malloc0_n(CGS_MIGRATION_PAGES_MAX, SEV_WIRE_HDR_MAX);
        p->trans = qemu_memalign(TARGET_PAGE_SIZE,
                                 CGS_MIGRATION_PAGES_MAX * SEV_WIRE_TRANS_MAX);
    }
    /* Does nothing, where it is known */
    p->batch = !sev_guest_cmd(cgs, KVM_SEV_SEND_UPDATE_BATCH, &probe,
                              &fw_error);
    stat64_set(&p->calls, 0);
}

void sev_packets_close(SevPackets *p)
{
    g_clear_pointer(&p->hdr, g_free);
    g_clear_pointer(&p->trans, qemu_vfree);
}

static uint8_t *trans_of(SevPackets *p, size_t i)
{
    return p->trans + i * SEV_WIRE_TRANS_MAX;
}

/* A command that counts */
static int packets_cmd(SevPackets *p, ConfidentialGuestSupport *cgs, int cmd,
                       void *data, int *fw_error)
{
    stat64_add(&p->calls, 1);
    return sev_guest_cmd(cgs, cmd, data, fw_error);
}

/* Headers and packets are in the buffers, or are to be: one after another */
static int do_batch(SevPackets *p, ConfidentialGuestSupport *cgs, int cmd,
                    uint8_t *host, uint32_t hdr_len, size_t npages,
                    size_t *done, int *fw_error)
{
    int ret = 0;

    while (*done < npages) {
        struct kvm_sev_update_batch batch = {
            .guest_uaddr = (uintptr_t)(host + *done * TARGET_PAGE_SIZE),
            .hdr_uaddr = (uintptr_t)(p->hdr + *done * hdr_len),
            .trans_uaddr = (uintptr_t)trans_of(p, *done),
            .hdr_len = hdr_len,
            .count = npages - *done,
        };

        ret = packets_cmd(p, cgs, cmd, &batch, fw_error);
        *done += batch.done;
        /* After a signal, the rest is still to be done */
        if (ret != -EINTR) {
            break;
        }
    }
    return *done < npages ? ret ?: -EIO : 0;
}

/* The argument of both commands */
static int do_page(SevPackets *p, ConfidentialGuestSupport *cgs, int cmd,
                   uint8_t *host, SevWirePage *page, int *fw_error)
{
    struct kvm_sev_send_update_data update = {
        .hdr_uaddr = (uintptr_t)page->hdr,
        .hdr_len = page->hdr_len,
        .guest_uaddr = (uintptr_t)host,
        .guest_len = TARGET_PAGE_SIZE,
        .trans_uaddr = (uintptr_t)page->trans,
        .trans_len = page->trans_len,
    };
    int ret = packets_cmd(p, cgs, cmd, &update, fw_error);

    QEMU_BUILD_BUG_ON(sizeof(struct kvm_sev_send_update_data) !=
                      sizeof(struct kvm_sev_receive_update_data));
    if (ret < 0) {
        return ret;
    }
    if (update.hdr_len != page->hdr_len || !update.trans_len ||
        update.trans_len > SEV_WIRE_TRANS_MAX) {
        return -EPROTO;
    }
    page->trans_len = update.trans_len;
    return 0;
}

static int do_pages(SevPackets *p, ConfidentialGuestSupport *cgs, int cmd,
                    uint8_t *host, size_t npages, size_t *done, int *fw_error)
{
    for (; *done < npages; ++*done) {
        int ret = do_page(p, cgs, cmd, host + *done * TARGET_PAGE_SIZE,
                          &p->page[*done], fw_error);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int sev_packets_send(SevPackets *p, ConfidentialGuestSupport *cgs,
                     uint8_t *host, uint32_t hdr_len, size_t npages,
                     size_t *done, int *fw_error)
{
    assert(npages <= CGS_MIGRATION_PAGES_MAX && hdr_len <= SEV_WIRE_HDR_MAX);
    for (size_t i = 0; i < npages; i++) {
        p->page[i] = (SevWirePage) {
            .hdr = p->hdr + i * hdr_len,
            .hdr_len = hdr_len,
            .trans = trans_of(p, i),
            .trans_len = TARGET_PAGE_SIZE,
        };
    }
    *done = 0;
    *fw_error = 0;
    if (p->batch && npages > 1) {
        return do_batch(p, cgs, KVM_SEV_SEND_UPDATE_BATCH, host, hdr_len,
                        npages, done, fw_error);
    }
    return do_pages(p, cgs, KVM_SEV_SEND_UPDATE_DATA, host, npages, done,
                    fw_error);
}

/* Packets of another firmware could differ in size, those of Linux do not */
static bool all_alike(const SevPackets *p, size_t npages)
{
    for (size_t i = 0; i < npages; i++) {
        if (p->page[i].hdr_len != p->page[0].hdr_len ||
            p->page[i].trans_len != TARGET_PAGE_SIZE) {
            return false;
        }
    }
    return true;
}

int sev_packets_receive(SevPackets *p, ConfidentialGuestSupport *cgs,
                        uint8_t *host, size_t npages, size_t *done,
                        int *fw_error)
{
    uint32_t hdr_len = p->page[0].hdr_len;

    assert(npages <= CGS_MIGRATION_PAGES_MAX);
    *done = 0;
    *fw_error = 0;
    if (!p->batch || npages < 2 || !all_alike(p, npages)) {
        return do_pages(p, cgs, KVM_SEV_RECEIVE_UPDATE_DATA, host, npages,
                        done, fw_error);
    }
    for (size_t i = 0; i < npages; i++) {
        memcpy(p->hdr + i * hdr_len, p->page[i].hdr, hdr_len);
        memcpy(trans_of(p, i), p->page[i].trans, TARGET_PAGE_SIZE);
    }
    return do_batch(p, cgs, KVM_SEV_RECEIVE_UPDATE_BATCH, host, hdr_len,
                    npages, done, fw_error);
}
