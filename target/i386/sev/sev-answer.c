/*
 * Answer of an SEV destination to the source: the size of its packets, and
 * whether it accepts a migration helper
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/rcu.h"
#include "cpu.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "sev-batch.h"
#include "sev-helper.h"
#include "sev-in-place.h"
#include "sev-migration-internal.h"
#include "sev-migration-wire.h"
#include "trace.h"

/* Bytes of a packet header: SEV API 0.24, table "SEND_UPDATE_DATA" */
#define SEV_PACKET_HEADER_LEN   52

/*
 * Return a RAMBlock of in-place memory, or NULL if not all RAM of the guest is
 * in-place memory
 */
static RAMBlock *in_place_block(void)
{
    RAMBlock *rb, *found = NULL;

    RAMBLOCK_FOREACH(rb) {
        if (sev_ram_is_in_place(rb)) {
            found = rb;
        } else if (sev_ram_is_guest_ram(rb) && encbitmap_npages(rb)) {
            return NULL;
        }
    }
    return found;
}

/*
 * Find the firmware's packet limit.  The probe uses the first pages of @rb,
 * into which nothing was loaded yet.  It needs private pages, so this function
 * makes these shared pages private for the probe and shared again after it.
 */
static void probe_firmware(ConfidentialGuestSupport *cgs, RAMBlock *rb)
{
    SevMigration *m = sev_guest_migration(cgs);
    const uint64_t size = SEV_WIRE_PACKET_PAGES * TARGET_PAGE_SIZE;

    if (rb->used_length < size ||
        encbitmap_count(rb, 0, SEV_WIRE_PACKET_PAGES) ||
        encbitmap_convert(rb, 0, size, true, NULL, NULL) < 0) {
        m->packets.batch.limit = 1;
        return;
    }
    sev_batch_probe(&m->packets, cgs, rb->host, SEV_PACKET_HEADER_LEN);
    if (encbitmap_convert(rb, 0, size, false, NULL, NULL) < 0) {
        m->packets.batch.limit = 1;
    }
}

void sev_receive_answer(ConfidentialGuestSupport *cgs, GByteArray *answer)
{
    SevMigration *m = sev_guest_migration(cgs);
    size_t npages = 1;
    uint8_t helper = 0;
    RAMBlock *rb;

    if (m->packets.batch.limit > 1) {
        RCU_READ_LOCK_GUARD();
        rb = in_place_block();
        if (rb) {
            probe_firmware(cgs, rb);
            npages = m->packets.batch.limit;
        }
    }
    helper = sev_helper_receive_answer(m);
    trace_sev_answer(npages, helper);
    sev_wire_put_answer(answer, npages, helper);
}

bool sev_send_answer(ConfidentialGuestSupport *cgs, const uint8_t *data,
                     size_t len, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    uint8_t helper;
    size_t npages;

    if (!sev_wire_get_answer(data, len, &npages, &helper, errp)) {
        return false;
    }
    sev_batch_agree(&m->packets.batch, npages);
    sev_helper_send_answer(m, helper);
    return true;
}
