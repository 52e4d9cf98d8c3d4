/*
 * Sending an SEV guest by its migration helper
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The firmware packs private pages until the destination has announced that it
 * accepts the helper.  Then the firmware packs the helper's own memory, with
 * its key, and the helper seals all other private pages.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "cpu.h"
#include "exec/ramblock.h"
#include "sev.h"
#include "sev-helper.h"
#include "sev-migration-wire.h"
#include "system/runstate.h"
#include "trace.h"

/* How long the migration thread waits for the destination's answer, in ms */
#define ANSWER_MS 1000

static void set_phase(SevHelper *h, SevHelperPhase phase)
{
    trace_sev_helper_phase(phase);
    qatomic_store_release(&h->phase, phase);
}

void sev_helper_send_start(SevMigration *m)
{
    SevHelper *h = m->helper;
    Error *err = NULL;

    if (!h) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&h->lock) {
        g_clear_pointer(&h->why_not, g_free);
        h->answered = false;
    }
    h->waited = false;
    if (!h->present) {
        error_setg(&err, "SEV: the guest is on this host without its "
                   "migration helper, which has not arrived with it");
    } else if (sev_helper_open(h, &err)) {
        if (sev_helper_command(&h->cpus, MH_NEW_KEY, &err)) {
            set_phase(h, SEV_HELPER_OFFERED);
            return;
        }
        sev_helper_close(h);
    }
    sev_helper_set_why_not(h, err);
}

void sev_helper_send_answer(SevMigration *m, uint8_t version)
{
    SevHelper *h = m->helper;

    if (h) {
        QEMU_LOCK_GUARD(&h->lock);
        h->theirs = version;
        h->answered = true;
        qemu_cond_broadcast(&h->changed);
    }
}

/*
 * Wait for the destination's answer, at most once in a migration.  The answer
 * tells which version of the helper the destination accepts.  Returns false if
 * the answer has not arrived.
 */
static bool await_answer(SevHelper *h, uint8_t *theirs)
{
    QEMU_LOCK_GUARD(&h->lock);
    if (!h->waited) {
        h->waited = true;
        while (!h->answered &&
               qemu_cond_timedwait(&h->changed, &h->lock, ANSWER_MS)) {
            /* woken up */
        }
    }
    *theirs = h->theirs;
    return h->answered;
}

/*
 * Warn the user that the firmware packs pages until the destination answers.
 * The warning sets @h->why_not, so this function warns only if @h->why_not is
 * not set: once in a migration.
 */
static void no_answer(SevHelper *h)
{
    g_autofree char *said = sev_helper_why_not(h);
    Error *err = NULL;

    if (!said) {
        error_setg(&err, "SEV: the destination has not answered yet whether "
                   "it accepts a migration helper");
        sev_helper_set_why_not(h, err);
    }
}

/* Let the firmware pack the helper's private memory, and append it to @data */
static bool pack_helper(ConfidentialGuestSupport *cgs, GByteArray *data,
                        Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    SevHelperMemory *memory = &m->helper->memory;
    const size_t npages = MH_PRIVATE_SIZE / TARGET_PAGE_SIZE;
    int fw_error, ret;
    size_t done;

    QEMU_BUILD_BUG_ON(MH_PRIVATE_SIZE / SEV_WIRE_PAGE >
                      CGS_MIGRATION_PAGES_MAX);
    sev_wire_put_helper(data, &(SevWireHelper) {
        .version = MH_VERSION,
        .npages = npages,
        .private_gpa = memory->private_gpa,
        .shared_gpa = memory->shared_gpa,
        .entry = memory->entry - MH_VA,
    });
    /*
     * Make packets of one page: the kernel makes packets of several pages only
     * from in-place memory, and the helper's memory is ordinary memory.
     */
    for (size_t i = 0; i < npages; i++) {
        ret = sev_packets_send(&m->packets, cgs,
                               sev_helper_memory_private(memory) +
                               i * TARGET_PAGE_SIZE, m->hdr_len, 1, &done,
                               &fw_error);
        if (ret < 0) {
            sev_cmd_error(errp, "SEND_UPDATE_DATA (migration helper)", ret,
                          fw_error);
            return false;
        }
        sev_wire_put_packet(data, &m->packets.packet[0]);
    }
    return true;
}

bool sev_helper_send_data(ConfidentialGuestSupport *cgs, GByteArray *data,
                          Error **errp)
{
    SevHelper *h = sev_guest_migration(cgs)->helper;
    Error *err = NULL;
    uint8_t theirs;

    if (sev_helper_get_phase(h) != SEV_HELPER_OFFERED) {
        return true;
    }
    if (!await_answer(h, &theirs)) {
        no_answer(h);
        return true;
    }
    if (theirs == MH_VERSION) {
        if (!pack_helper(cgs, data, errp) ||
            !sev_helper_command(&h->cpus, MH_SEND, errp)) {
            return false;
        }
        WITH_QEMU_LOCK_GUARD(&h->lock) {
            g_clear_pointer(&h->why_not, g_free);
        }
        set_phase(h, SEV_HELPER_SENDING);
        return true;
    }
    if (theirs == SEV_WIRE_HELPER_NONE) {
        error_setg(&err, "SEV: the destination has no migration helper: start "
                   "it with the source's property migration-helper");
    } else if (theirs == SEV_WIRE_HELPER_UNABLE) {
        error_setg(&err, "SEV: the migration helper cannot run at the "
                   "destination: its log has the reason");
    } else {
        error_setg(&err, "SEV: the destination accepts migration helpers of "
                   "version %u, this QEMU has version %d", theirs, MH_VERSION);
    }
    set_phase(h, SEV_HELPER_OFF);
    sev_helper_set_why_not(h, err);
    return true;
}

/*
 * Whether the helper can read @gpa, which is byte @offset of @rb.  The guest
 * can hide some pages at any time; at the address of a hidden page, the helper
 * would read other memory.  So the helper seals a page that the guest can hide
 * only after the guest has stopped, because QEMU can uncover the page then.
 */
static bool can_read(SevHelper *h, RAMBlock *rb, uint64_t offset, hwaddr gpa)
{
    if (sev_helper_map_is_uncovered(h->map) ||
        sev_helper_map_visible(h->map, rb, offset, gpa)) {
        return true;
    }
    /*
     * QEMU may uncover the page only if the guest cannot run before its last
     * pages are sent.  While this thread holds the BQL, no other thread can
     * start the guest.
     */
    if (runstate_is_running() || !bql_locked()) {
        return false;
    }
    sev_helper_map_uncover(h->map);
    return true;
}

/* How many of @npages pages the helper can read now, or -errno */
static int ready_pages(SevHelper *h, RAMBlock *rb, uint64_t offset,
                       size_t npages, Error **errp)
{
    for (size_t i = 0; i < npages; i++) {
        uint64_t at = offset + i * TARGET_PAGE_SIZE;
        hwaddr gpa;

        if (!sev_helper_map_addresses(h->map, rb, at, 1, &gpa, errp)) {
            return -EINVAL;
        }
        if (!can_read(h, rb, at, gpa)) {
            trace_sev_helper_hidden(rb->idstr, at, gpa);
            if (i) {
                return i;
            }
            error_setg(errp, "block %s, offset 0x%" PRIx64 ": the guest may "
                       "hide the page from its migration helper", rb->idstr,
                       at);
            return -EAGAIN;
        }
    }
    return npages;
}

int sev_helper_send_ready(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                          uint64_t offset, size_t npages, Error **errp)
{
    SevHelper *h = sev_guest_migration(cgs)->helper;

    return sev_helper_get_phase(h) == SEV_HELPER_SENDING ?
           ready_pages(h, rb, offset, npages, errp) : 0;
}

int sev_helper_send_pages(SevHelper *h, unsigned channel, RAMBlock *rb,
                          uint64_t offset, size_t npages, GByteArray *out,
                          Error **errp)
{
    ERRP_GUARD();
    uint64_t gpa[CGS_MIGRATION_PAGES_MAX];

    assert(npages <= CGS_MIGRATION_PAGES_MAX);
    /*
     * Check only the pages that the migration thread packs.  Before it passes
     * pages to the thread of a multifd channel, it calls
     * sev_helper_send_ready(), which checks these pages.
     */
    if (!channel) {
        int ret = ready_pages(h, rb, offset, npages, errp);

        if (ret <= 0) {
            return ret;
        }
        npages = ret;
    }
    if (!sev_helper_map_addresses(h->map, rb, offset, npages, gpa, errp)) {
        return -EINVAL;
    }
    if (!sev_helper_seal(&h->cpus, channel, gpa, npages, out, errp)) {
        error_prepend(errp, "block %s, offset 0x%" PRIx64 ": ", rb->idstr,
                      offset);
        return -EIO;
    }
    stat64_add(&h->pages, npages);
    return npages;
}

bool sev_helper_send_round(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevHelper *h = sev_guest_migration(cgs)->helper;

    return sev_helper_get_phase(h) != SEV_HELPER_SENDING ||
           sev_helper_command(&h->cpus, MH_ROUND, errp);
}

bool sev_helper_send_final(SevHelper *h, GByteArray *final, Error **errp)
{
    return sev_helper_get_phase(h) != SEV_HELPER_SENDING ||
           sev_helper_seal_end(&h->cpus, final, errp);
}

uint64_t sev_helper_sent(ConfidentialGuestSupport *cgs, char **why_not)
{
    SevHelper *h = sev_guest_migration(cgs)->helper;

    *why_not = h ? sev_helper_why_not(h) : NULL;
    return h ? stat64_get(&h->pages) : 0;
}

void sev_helper_send_done(SevMigration *m)
{
    SevHelper *h = m->helper;
    Error *err = NULL;

    if (!h || !h->map) {
        return;
    }
    /* The session is over and needs no key, so the helper wipes its key */
    if (!sev_helper_command(&h->cpus, MH_FORGET, &err)) {
        warn_report_err(err);
    }
    sev_helper_close(h);
}
