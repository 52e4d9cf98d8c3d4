/*
 * The road of private pages through a migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * encrypted-records.c knows the format, the machine's class of confidential
 * guest support knows how to pack pages; this file joins them with the
 * migration's state, its channel and its statistics.
 */
#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/rcu.h"
#include "qemu/stats64.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "block/aio.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "migration/misc.h"
#include "system/confidential-guest-migration.h"
#include "system/runstate.h"
#include "encrypted-pages.h"
#include "encrypted-records.h"
#include "migration.h"
#include "migration-stats.h"
#include "options.h"
#include "ram.h"
#include "trace.h"

/* How long the destination's main loop may have to wait for its turn */
#define LOAD_SLICE_MS 20

typedef struct RoundCount {
    uint64_t private, shared, bytes;
} RoundCount;

static struct {
    /* Set from encrypted_pages_prepare() to the end of the migration */
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops;
    /* send_start was called, send_done is due.  BQL */
    bool open;
    NotifierWithReturn notifier;

    /* Migration thread */
    GPtrArray *blocks;
    GByteArray *payload;
    GByteArray *record;
    uint8_t *plain;
    RoundCount round_start;
    uint64_t round;

    /* Statistics, which stay until the next migration */
    bool have_stats;
    Stat64 private_pages;
    Stat64 private_bytes;
    Stat64 shared_pages;
    Stat64 again_pages;
    Stat64 rounds;
    Stat64 send_ns;
} save;

static struct {
    EncryptedLoad *load;
    GByteArray *body;
    int64_t slice_start;
} load;

static const ConfidentialGuestMigrationOps *
machine_ops(ConfidentialGuestSupport **cgs)
{
    *cgs = current_machine ? current_machine->cgs : NULL;
    if (!*cgs) {
        return NULL;
    }
    return CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(*cgs)->migration;
}

/*
 * What moves pages by a road of its own, or starts the guest before all of
 * its pages are there, would go past the state of the pages.
 */
static bool check_features(Error **errp)
{
    static const struct {
        bool (*on)(void);
        const char *name;
    } features[] = {
        { migrate_xbzrle, "capability xbzrle" },
        { migrate_multifd, "capability multifd" },
        { migrate_postcopy_ram, "capability postcopy-ram" },
        { migrate_dirty_bitmaps, "capability dirty-bitmaps" },
        { migrate_mapped_ram, "capability mapped-ram" },
        { migrate_background_snapshot, "capability background-snapshot" },
        { migrate_colo, "capability x-colo" },
        { migrate_ignore_shared, "capability x-ignore-shared" },
        { migrate_zero_copy_send, "capability zero-copy-send" },
        { migrate_rdma, "transport rdma" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        if (features[i].on()) {
            error_setg(errp, "A confidential guest cannot be migrated with "
                       "%s: migrate without it", features[i].name);
            return false;
        }
    }
    if (migrate_mode() != MIG_MODE_NORMAL) {
        error_setg(errp, "A confidential guest cannot be migrated in mode %s: "
                   "use mode normal", MigMode_str(migrate_mode()));
        return false;
    }
    return true;
}

static bool check_blocks(Error **errp)
{
    g_autoptr(GPtrArray) blocks = NULL;

    RCU_READ_LOCK_GUARD();
    blocks = encrypted_blocks();
    for (guint i = 0; i < blocks->len; i++) {
        RAMBlock *rb = g_ptr_array_index(blocks, i);

        /* A discarded private page has no content that could be sent */
        if (memory_region_has_ram_discard_manager(rb->mr)) {
            error_setg(errp, "block %s: a confidential guest cannot be "
                       "migrated with memory that can be discarded: unplug "
                       "the device", rb->idstr);
            return false;
        }
    }
    return true;
}

static bool check_send(ConfidentialGuestSupport *cgs,
                       const ConfidentialGuestMigrationOps *ops, Error **errp)
{
    if (!check_features(errp)) {
        return false;
    }
    if (!migrate_return_path()) {
        /*
         * Ending the session here makes the guest here unusable.  That has
         * to wait until the destination says that it runs.
         */
        error_setg(errp, "A confidential guest is migrated with capability "
                   "return-path only: switch it on");
        return false;
    }
    return check_blocks(errp) && ops->can_send(cgs, errp);
}

bool encrypted_pages_prepare(Error **errp)
{
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops = machine_ops(&cgs);

    assert(bql_locked());
    save.have_stats = false;
    if (!ops) {
        return true;
    }
    if (save.open) {
        error_setg(errp, "The session of the last migration is still being "
                   "closed: try again");
        return false;
    }
    if (!check_send(cgs, ops, errp)) {
        return false;
    }
    save.have_stats = true;
    stat64_set(&save.private_pages, 0);
    stat64_set(&save.private_bytes, 0);
    stat64_set(&save.shared_pages, 0);
    stat64_set(&save.again_pages, 0);
    stat64_set(&save.rounds, 0);
    stat64_set(&save.send_ns, 0);
    save.round_start = (RoundCount) { };
    save.round = 0;
    return true;
}

/* The end of a migration that got as far as encrypted_pages_save_setup() */
static int notify_end(NotifierWithReturn *notifier, MigrationEvent *e,
                      Error **errp)
{
    if (save.open && e->type != MIG_EVENT_PRECOPY_SETUP) {
        bool ok = e->type == MIG_EVENT_PRECOPY_DONE;

        save.open = false;
        trace_encrypted_pages_done(ok);
        save.ops->send_done(save.cgs, ok);
    }
    return 0;
}

static void put_record(QEMUFile *f)
{
    qemu_put_buffer(f, save.record->data, save.record->len);
    ram_transferred_add(save.record->len);
    g_byte_array_set_size(save.record, 0);
}

bool encrypted_pages_save_setup(QEMUFile *f, Error **errp)
{
    g_autoptr(GByteArray) session = g_byte_array_new();
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops = machine_ops(&cgs);
    bool ok;

    if (!ops) {
        return true;
    }
    assert(bql_locked() && !save.open);
    if (runstate_check(RUN_STATE_SAVE_VM)) {
        error_setg(errp, "No snapshot can be taken of a confidential guest: "
                   "its private memory can only move to a platform that "
                   "takes it");
        return false;
    }
    /* Once more: what can change after the command, such as the transport */
    if (!check_send(cgs, ops, errp)) {
        return false;
    }
    if (!save.notifier.notify) {
        migration_add_notifier(&save.notifier, notify_end);
    }
    if (!ops->send_start(cgs, session, errp)) {
        return false;
    }
    save.open = true;
    save.cgs = cgs;
    save.ops = ops;
    save.payload = g_byte_array_new();
    save.record = g_byte_array_new();
    save.plain = qemu_memalign(64, qemu_target_page_size());
    WITH_RCU_READ_LOCK_GUARD() {
        save.blocks = encrypted_blocks();
        ok = encrypted_record_session(save.record, save.blocks, session, errp);
    }
    if (ok) {
        put_record(f);
    }
    return ok;
}

void encrypted_pages_save_cleanup(void)
{
    g_clear_pointer(&save.blocks, g_ptr_array_unref);
    g_clear_pointer(&save.payload, g_byte_array_unref);
    g_clear_pointer(&save.record, g_byte_array_unref);
    g_clear_pointer(&save.plain, qemu_vfree);
}

/* A round ends: what went by which road.  @next: the one after it, or 0 */
static void end_round(uint64_t next)
{
    RoundCount now = {
        .private = stat64_get(&save.private_pages),
        .shared = stat64_get(&save.shared_pages),
        .bytes = stat64_get(&save.private_bytes),
    };

    if (save.round) {
        trace_ram_encrypted_round(save.round,
                                  now.private - save.round_start.private,
                                  now.shared - save.round_start.shared,
                                  now.bytes - save.round_start.bytes);
    }
    save.round_start = now;
    save.round = next;
    if (next) {
        stat64_set(&save.rounds, next);
    }
}

void encrypted_pages_sync(uint64_t round)
{
    ConfidentialGuestSupport *cgs;
    Error *err = NULL;

    if (!machine_ops(&cgs)) {
        return;
    }
    end_round(round);
    if (!encbitmap_sync(&err)) {
        migration_file_set_error(-EIO, err);
    }
}

static bool block_index(RAMBlock *rb, guint *index)
{
    return save.blocks && g_ptr_array_find(save.blocks, rb, index);
}

/*
 * Pack @npages private pages into save.payload.  Reader's lock of @rb held:
 * they stay private meanwhile.
 */
static int pack_pages(RAMBlock *rb, uint64_t offset, size_t npages,
                      Error **errp)
{
    int64_t start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int ret;

    g_byte_array_set_size(save.payload, 0);
    ret = save.ops->send_pages(save.cgs, rb, offset, npages, save.payload,
                               errp);
    if (!ret) {
        stat64_add(&save.send_ns,
                   qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start);
    }
    return ret;
}

/* Send @npages pages which somebody is converting in a later round */
static int send_again(RAMBlock *rb, uint64_t offset, size_t npages)
{
    trace_encrypted_pages_again(rb->idstr, offset, npages);
    stat64_add(&save.again_pages, npages);
    memory_region_set_dirty(rb->mr, offset,
                            (uint64_t)npages << qemu_target_page_bits());
    return 0;
}

static int send_private(QEMUFile *f, RAMBlock *rb, uint64_t offset,
                        size_t npages, int ret, Error *err, bool last_stage)
{
    guint index;

    if (ret == -EAGAIN && !last_stage) {
        error_free(err);
        return send_again(rb, offset, npages);
    }
    if (!ret && !block_index(rb, &index)) {
        error_setg(&err, "the block came after the session");
        ret = -EINVAL;
    }
    if (!ret && !encrypted_record_pages(save.record, index, offset, npages,
                                        save.payload, &err)) {
        ret = -EINVAL;
    }
    if (ret < 0) {
        if (!err) {
            error_setg_errno(&err, -ret, "the guest is stopped, but the "
                             "pages are being converted");
        }
        error_prepend(&err, "block %s, offset 0x%" PRIx64 ": cannot send %zu "
                      "private pages: ", rb->idstr, offset, npages);
        qemu_file_set_error_obj(f, ret, err);
        return ret;
    }
    stat64_add(&save.private_pages, npages);
    stat64_add(&save.private_bytes, save.record->len);
    stat64_add(&mig_stats.normal_pages, npages);
    trace_encrypted_pages_save(rb->idstr, offset, npages, save.record->len);
    put_record(f);
    return npages;
}

int encrypted_pages_save(QEMUFile *f, RAMBlock *rb, uint64_t page,
                         uint64_t end, bool last_stage,
                         EncryptedPagesTake *take, void *opaque,
                         const uint8_t **plain)
{
    uint64_t offset = page << qemu_target_page_bits();
    bool is_private;
    Error *err = NULL;
    size_t npages;
    int ret;

    if (!save.open || !save.plain) {
        error_setg(&err, "block %s: a guest with private memory, whose "
                   "machine cannot migrate it", rb->idstr);
        qemu_file_set_error_obj(f, -EINVAL, err);
        return -EINVAL;
    }
    encbitmap_send_lock(rb);
    npages = encbitmap_run(rb, page, MIN(end, page + CGS_MIGRATION_PAGES_MAX),
                           &is_private);
    if (!is_private) {
        /*
         * A copy: what is queued or written without the lock could be
         * private by the time that somebody reads it.
         */
        memcpy(save.plain, rb->host + offset, qemu_target_page_size());
        encbitmap_send_unlock(rb);
        stat64_add(&save.shared_pages, 1);
        *plain = save.plain;
        return ENCRYPTED_PAGES_SHARED;
    }
    /* Before they are read, as with every page: see ram.c */
    for (size_t i = 1; i < npages; i++) {
        take(opaque, rb, page + i);
    }
    ret = pack_pages(rb, offset, npages, &err);
    encbitmap_send_unlock(rb);
    /* The channel may block for long, and conversions must not */
    return send_private(f, rb, offset, npages, ret, err, last_stage);
}

int encrypted_pages_save_final(QEMUFile *f)
{
    g_autoptr(GByteArray) final = g_byte_array_new();
    Error *err = NULL;
    uint32_t block = 0;
    uint64_t first = 0;

    if (!save.open) {
        return 0;
    }
    end_round(0);
    if (!save.ops->send_final(save.cgs, final, &err)) {
        goto fail;
    }
    WITH_RCU_READ_LOCK_GUARD() {
        while (encrypted_record_state(save.record, save.blocks, &block,
                                      &first)) {
            put_record(f);
        }
    }
    if (!encrypted_record_final(save.record, final, &err)) {
        goto fail;
    }
    put_record(f);
    return 0;

fail:
    qemu_file_set_error_obj(f, -EINVAL, err);
    return -EINVAL;
}

/* Bytes per ms at which private pages were packed, 0 if not known yet */
static double private_bandwidth(void)
{
    uint64_t ns = stat64_get(&save.send_ns);
    uint64_t pages = stat64_get(&save.private_pages);

    if (!save.have_stats || !pages || ns < SCALE_MS) {
        return 0;
    }
    return (double)pages * qemu_target_page_size() * SCALE_MS / ns;
}

double encrypted_pages_limit_bandwidth(double bandwidth)
{
    double limit = private_bandwidth();

    return limit && limit < bandwidth ? limit : bandwidth;
}

EncryptedRamStats *encrypted_pages_stats(void)
{
    EncryptedRamStats *stats;

    if (!save.have_stats) {
        return NULL;
    }
    stats = g_new0(EncryptedRamStats, 1);
    stats->private_pages = stat64_get(&save.private_pages);
    stats->private_bytes = stat64_get(&save.private_bytes);
    stats->shared_pages = stat64_get(&save.shared_pages);
    stats->again_pages = stat64_get(&save.again_pages);
    stats->rounds = stat64_get(&save.rounds);
    stats->private_pages_per_second = private_bandwidth() * 1000 /
                                      qemu_target_page_size();
    return stats;
}

/* Destination */

/* For query-migrate and for the log */
static void report(Error *err)
{
    migrate_set_error(migrate_get_current(), err);
    error_report_err(err);
}

bool encrypted_pages_load_setup(Error **errp)
{
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops = machine_ops(&cgs);

    if (!ops) {
        return true;
    }
    if (!check_features(errp)) {
        return false;
    }
    load.load = encrypted_load_new(cgs, ops);
    load.body = g_byte_array_new();
    load.slice_start = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    return true;
}

void encrypted_pages_load_cleanup(void)
{
    g_clear_pointer(&load.load, encrypted_load_free);
    g_clear_pointer(&load.body, g_byte_array_unref);
}

/*
 * The firmware is slower than the channel: there is always more to read, so
 * that reading alone never gives the main loop its turn.
 */
static void let_main_loop_run(void)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (now - load.slice_start < LOAD_SLICE_MS || !qemu_in_coroutine()) {
        return;
    }
    aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
    qemu_coroutine_yield();
    load.slice_start = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

static int read_bytes(QEMUFile *f, uint8_t *buf, size_t len)
{
    if (qemu_get_buffer(f, buf, len) == len) {
        return 0;
    }
    error_report("The migration channel failed within a record of private "
                 "pages");
    return qemu_file_get_error(f) ?: -EIO;
}

int encrypted_pages_load(QEMUFile *f, uint64_t word)
{
    uint8_t header[ENCRYPTED_RECORD_HEADER];
    Error *err = NULL;
    size_t len;
    int ret;

    if (!load.load) {
        error_setg(&err, "The guest that arrives is confidential, this "
                   "machine has no confidential guest support that can be "
                   "migrated: give it the source's");
        goto fail;
    }
    if (word != RAM_SAVE_FLAG_ENCRYPTED_PAGE) {
        error_setg(&err, "Record of private pages begins with 0x%" PRIx64
                   ", expected 0x%x", word, RAM_SAVE_FLAG_ENCRYPTED_PAGE);
        goto fail;
    }
    let_main_loop_run();
    ret = read_bytes(f, header, sizeof(header));
    if (ret) {
        return ret;
    }
    if (!encrypted_load_header(load.load, header, &len, &err)) {
        goto fail;
    }
    g_byte_array_set_size(load.body, len);
    ret = read_bytes(f, load.body->data, len);
    if (ret) {
        return ret;
    }
    if (!encrypted_load_body(load.load, load.body->data, len, &err)) {
        goto fail;
    }
    return 0;

fail:
    report(err);
    return -EINVAL;
}

bool encrypted_pages_load_plain(RAMBlock *rb, uint64_t offset)
{
    Error *err = NULL;

    if (!encbitmap_npages(rb)) {
        return true;
    }
    if (load.load) {
        if (encrypted_load_plain(load.load, rb, offset, &err)) {
            return true;
        }
    } else if (!encbitmap_test(rb, offset >> qemu_target_page_bits())) {
        return true;
    } else {
        error_setg(&err, "block %s, offset 0x%" PRIx64 ": plain page for a "
                   "private one of a machine that cannot be migrated to",
                   rb->idstr, offset);
    }
    report(err);
    return false;
}

bool encrypted_pages_load_done(QEMUFile *f)
{
    Error *err = NULL;

    if (!load.load || encrypted_load_done(load.load, &err)) {
        return true;
    }
    qemu_file_set_error(f, -EINVAL);
    report(err);
    return false;
}

bool encrypted_pages_allow_postcopy(void)
{
    if (!load.load) {
        return true;
    }
    error_report("A confidential guest does not start before all of its "
                 "pages are there: no postcopy");
    return false;
}
