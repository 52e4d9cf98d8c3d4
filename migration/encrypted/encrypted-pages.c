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
#include "qemu/bitops.h"
#include "qemu/coroutine.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qapi/qapi-events-encrypted-ram.h"
#include "qapi/util.h"
#include "block/aio.h"
#include "block/thread-pool.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "migration/misc.h"
#include "monitor/monitor.h"
#include "system/confidential-guest-migration.h"
#include "system/runstate.h"
#include "encrypted-pages.h"
#include "encrypted-answer.h"
#include "encrypted-channel.h"
#include "encrypted-pending.h"
#include "encrypted-reason.h"
#include "encrypted-records.h"
#include "encrypted-stats.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "multifd-encrypted.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "trace.h"

/* Private pages that are told in one record to have no content */
#define UNALLOCATED_PAGES_MAX 4096

/* How long the destination's main loop may have to wait for its turn */
#define LOAD_SLICE_MS 20

static struct {
    /* Set from encrypted_pages_prepare() to the end of the migration */
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops;
    /* send_start was called, send_done is due.  BQL */
    bool open;
    /* The session is open, but the guest is at the destination.  BQL */
    bool left;
    /* encrypted_pages_save_setup() may open a session.  BQL */
    bool prepared;
    NotifierWithReturn notifiers[MIG_MODE__MAX];
    VMChangeStateEntry *vm_change;

    /* Migration thread */
    GPtrArray *blocks;
    GByteArray *payload;
    GByteArray *record;
    uint8_t *plain;
    /* multifd: what channels still have may be dirty again.  bitmap_mutex. */
    bool flush_due;

    /*
     * Of the migration that runs or was the last; NULL if its guest was not
     * confidential.  Made and freed under the BQL, with no migration running
     */
    EncryptedStats *stats;
} save;

static struct {
    /*
     * Protects @load: what has come, and who converts.  Held while a record is
     * unpacked, because the platform takes one at a time, so the main thread
     * takes it with lock_load().  After the BQL, before a block's lock; nobody
     * who holds it waits for the BQL, reads from a channel or yields.
     */
    QemuMutex lock;
    EncryptedLoad *load;
    /* Main thread */
    GByteArray *body;
    int64_t slice_start;
    /* Which events were sent */
    bool told_opened, told_finished;
} load;

static void __attribute__((constructor)) init_lock(void)
{
    qemu_mutex_init(&load.lock);
}

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
    if (migrate_multifd() && migrate_multifd_flush_after_each_section()) {
        /* The final records would overtake the pages in the channels */
        error_setg(errp, "A confidential guest cannot be migrated with "
                   "capability multifd and property "
                   "multifd-flush-after-each-section, which machine types up "
                   "to 8.0 have: use -global migration."
                   "multifd-flush-after-each-section=off at both sides");
        return false;
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

static bool check_dirty_limit(Error **errp)
{
    if (migrate_dirty_limit()) {
        /* DIRTYLIMIT_TOLERANCE_RANGE: that far from its limit it is content */
        error_setg(errp, "A confidential guest cannot be migrated with "
                   "capability dirty-limit, which lets a vCPU write 25 MB/s "
                   "more than its limit: use auto-converge");
        return false;
    }
    return true;
}

static bool check_return_path(Error **errp)
{
    if (!migrate_return_path()) {
        /*
         * Without an answer of the destination, "completed" would mean only
         * that all bytes were written, and the guest could be lost.
         */
        error_setg(errp, "A confidential guest can only be migrated with "
                   "capability return-path, through which the destination "
                   "says that it has the guest: switch it on.  Saving to a "
                   "file (virsh save, managedsave, dump) and tunnelled "
                   "migration (virsh migrate --tunnelled) have no return "
                   "path: use virsh migrate --live without --tunnelled");
        return false;
    }
    return true;
}

static bool check_send(ConfidentialGuestSupport *cgs,
                       const ConfidentialGuestMigrationOps *ops, Error **errp)
{
    ERRP_GUARD();

    if (check_features(errp) && check_dirty_limit(errp) &&
        check_return_path(errp) && check_blocks(errp) &&
        ops->can_send(cgs, errp)) {
        return true;
    }
    trace_encrypted_pages_refused(error_get_pretty(*errp));
    return false;
}

bool encrypted_pages_channels_only(void)
{
    ConfidentialGuestSupport *cgs;

    return machine_ops(&cgs);
}

/* While pages are sent: what the platform has done until now */
static void count_platform(void)
{
    if (save.open && !save.left && save.ops->send_calls) {
        encrypted_stats_calls(save.stats, save.ops->send_calls(save.cgs));
    }
}

static void tell_session(bool incoming, EncryptedRamSessionStatus status,
                         uint64_t private_pages)
{
    trace_encrypted_pages_session(incoming ? "incoming" : "outgoing",
                                  EncryptedRamSessionStatus_str(status),
                                  private_pages);
    if (migrate_events()) {
        qapi_event_send_encrypted_ram_session(incoming, status,
                                              private_pages);
    }
}

static void tell_sent(EncryptedRamSessionStatus status)
{
    g_autoptr(EncryptedRamStats) stats = encrypted_pages_stats();

    tell_session(false, status, stats->private_pages);
}

/*
 * The guest goes on here: the migration failed or was cancelled, or it has
 * completed and somebody takes the guest back.
 */
static void take_back(void)
{
    assert(bql_locked() && save.open);
    count_platform();
    save.open = save.left = false;
    save.ops->send_done(save.cgs, false);
    tell_sent(ENCRYPTED_RAM_SESSION_STATUS_CANCELLED);
}

/*
 * The migration has completed.  The destination may still fail to run the
 * guest, which nobody here would learn, so the session is kept until the
 * guest is taken back or QEMU ends.
 */
static void keep_session(void)
{
    count_platform();
    save.left = true;
    if (save.ops->send_completed) {
        save.ops->send_completed(save.cgs);
    }
    tell_sent(ENCRYPTED_RAM_SESSION_STATUS_FINISHED);
}

/* The end of a migration that got as far as encrypted_pages_save_setup() */
static int notify_end(NotifierWithReturn *notifier, MigrationEvent *e,
                      Error **errp)
{
    if (!save.open || save.left || e->type == MIG_EVENT_PRECOPY_SETUP) {
        return 0;
    }
    if (e->type == MIG_EVENT_PRECOPY_DONE &&
        runstate_check(RUN_STATE_POSTMIGRATE)) {
        keep_session();
    } else {
        /* It has failed; or it has completed, and cont came before this */
        take_back();
    }
    return 0;
}

bool encrypted_pages_sending(void)
{
    return save.open;
}

/* vCPUs are about to run.  BQL */
static void vm_changed(void *opaque, bool running, RunState state)
{
    if (running && save.left) {
        take_back();
    }
}

static void watch_end(void)
{
    if (save.vm_change) {
        return;
    }
    save.vm_change = qemu_add_vm_change_state_handler(vm_changed, NULL);
    /* The mode decides who is notified, and it need not stay what it is */
    for (int mode = 0; mode < MIG_MODE__MAX; mode++) {
        migration_add_notifier_mode(&save.notifiers[mode], notify_end, mode);
    }
}

void encrypted_pages_shutdown(void)
{
    assert(bql_locked());
    if (save.left) {
        save.open = save.left = false;
        save.ops->send_done(save.cgs, true);
    }
}

bool encrypted_pages_prepare(Error **errp)
{
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops = machine_ops(&cgs);

    assert(bql_locked());
    save.prepared = false;
    if (save.left) {
        /* The guest has been reset since it left, and leaves again */
        take_back();
    }
    if (save.open) {
        error_setg(errp, "The session of the last migration is still being "
                   "closed: try again");
        return false;
    }
    encrypted_reason_prepare(migrate_get_current(), ops);
    encrypted_answer_prepare(migrate_get_current());
    if (ops && !check_send(cgs, ops, errp)) {
        return false;
    }
    g_clear_pointer(&save.stats, encrypted_stats_free);
    if (ops) {
        save.stats = encrypted_stats_new();
        save.prepared = true;
    }
    return true;
}

bool encrypted_pages_allow_snapshot(Error **errp)
{
    ConfidentialGuestSupport *cgs;

    if (!machine_ops(&cgs)) {
        return true;
    }
    error_setg(errp, "No snapshot of a confidential guest can be taken or "
               "loaded: its private memory can only move to a platform that "
               "takes it.  Migrate the guest, or take snapshots of its disks "
               "only");
    return false;
}

static void put_record(QEMUFile *f)
{
    qemu_put_buffer(f, save.record->data, save.record->len);
    ram_transferred_add(save.record->len);
    g_byte_array_set_size(save.record, 0);
}

/* A record of pages, through a channel if there are any */
static bool put_pages(QEMUFile *f)
{
    bool ok = true;

    if (!migrate_multifd()) {
        put_record(f);
        return true;
    }
    ok = multifd_queue_device_state((char *)MULTIFD_ENCRYPTED_IDSTR,
                                    MULTIFD_ENCRYPTED_INSTANCE,
                                    (char *)save.record->data,
                                    save.record->len);
    g_byte_array_set_size(save.record, 0);
    return ok;
}

/*
 * A page is handed to the channels once between two syncs of the dirty
 * bitmap, because only a sync sets its bit again.  So its records cannot
 * overtake each other if, after a sync, both sides have seen the end of what
 * the channels have before the first page goes.
 *
 * Returns where to copy a shared page of @rb to, or NULL if a channel has
 * failed.  Waits for channels, without @bitmap_mutex, which it takes again.  A
 * sync meanwhile makes the next flush due, and the page's dirty bit stays set.
 */
static uint8_t *prepare_channels(QEMUFile *f, RAMBlock *rb,
                                 QemuMutex *bitmap_mutex)
{
    bool flush_due = save.flush_due;
    uint8_t *room = NULL;

    save.flush_due = false;
    qemu_mutex_unlock(bitmap_mutex);
    if (!flush_due || multifd_ram_flush_and_sync(f) == 0) {
        room = multifd_encrypted_room(rb);
    }
    qemu_mutex_lock(bitmap_mutex);
    return room;
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
    if (!save.prepared) {
        error_setg(errp, "The memory of a confidential guest can be saved by "
                   "the migrate command only");
        return false;
    }
    save.prepared = false;
    /* Once more: what can change after the command, such as the transport */
    if (!check_send(cgs, ops, errp)) {
        return false;
    }
    watch_end();
    if (!ops->send_start(cgs, session, errp)) {
        return false;
    }
    save.open = true;
    save.cgs = cgs;
    save.ops = ops;
    encrypted_pending_start(save.stats);
    tell_sent(ENCRYPTED_RAM_SESSION_STATUS_OPENED);
    save.payload = g_byte_array_new();
    save.record = g_byte_array_new();
    save.plain = qemu_memalign(64, qemu_target_page_size());
    if (migrate_multifd()) {
        multifd_encrypted_save_setup();
    }
    WITH_RCU_READ_LOCK_GUARD() {
        save.blocks = encrypted_blocks();
        for (guint i = 0; i < save.blocks->len; i++) {
            RAMBlock *rb = g_ptr_array_index(save.blocks, i);

            encrypted_stats_add_block(save.stats, encbitmap_npages(rb));
        }
        ok = encrypted_record_session(save.record, save.blocks,
                                      ENCRYPTED_SESSION_REASON |
                                      encrypted_answer_announce(
                                          migrate_get_current(), cgs, ops) |
                                      (migrate_multifd() ?
                                       ENCRYPTED_SESSION_MULTIFD : 0),
                                      session, errp);
    }
    if (ok) {
        put_record(f);
        /* A destination that refuses this can say so before channels fail */
        qemu_fflush(f);
        encrypted_channel_check(f, save.stats);
    }
    return ok;
}

/* A round ends: what went by which road.  @next: the one after it, or 0 */
static void end_round(uint64_t next)
{
    EncryptedRamRound r;

    count_platform();
    if (encrypted_stats_round(save.stats, next,
                              qemu_clock_get_ms(QEMU_CLOCK_REALTIME), &r)) {
        trace_encrypted_pages_round(r.round, r.private_pages, r.shared_pages,
                                    r.private_bytes, r.batches,
                                    r.converted_pages, r.again_pages,
                                    r.platform_time);
    }
}

void encrypted_pages_save_cleanup(void)
{
    encrypted_pending_stop();
    if (save.stats) {
        /* If it ended within one */
        end_round(0);
        encrypted_stats_forget_blocks(save.stats);
    }
    g_clear_pointer(&save.blocks, g_ptr_array_unref);
    g_clear_pointer(&save.payload, g_byte_array_unref);
    g_clear_pointer(&save.record, g_byte_array_unref);
    g_clear_pointer(&save.plain, qemu_vfree);
    multifd_encrypted_save_cleanup();
}

void encrypted_pages_sync(uint64_t round)
{
    Error *err = NULL;

    if (!save.stats) {
        return;
    }
    end_round(round);
    if (!encbitmap_sync(&err)) {
        migration_file_set_error(-EIO, err);
    }
}

void encrypted_pages_synced(void)
{
    save.flush_due = save.stats && migrate_multifd();
}

static guint block_index(RAMBlock *rb)
{
    guint index;

    return save.blocks && g_ptr_array_find(save.blocks, rb, &index) ?
           index : ENCRYPTED_STATS_NO_BLOCK;
}

/*
 * Pack @npages private pages into save.payload.  Without the block's lock: the
 * platform takes long, and conversions must not wait for it.  What the guest
 * converts from now on is dirty, and so it is sent again, as what it is then.
 */
static int pack_pages(RAMBlock *rb, uint64_t offset, size_t npages,
                      Error **errp)
{
    int64_t start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int ret;

    g_byte_array_set_size(save.payload, 0);
    ret = save.ops->send_pages(save.cgs, rb, offset, npages, save.payload,
                               errp);
    encrypted_stats_packed(save.stats, MAX(ret, 0),
                           qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start);
    return ret;
}

/* Send @npages pages which somebody is converting in a later round */
static int send_again(RAMBlock *rb, uint64_t offset, size_t npages)
{
    trace_encrypted_pages_again(rb->idstr, offset, npages);
    encrypted_stats_again(save.stats, npages);
    memory_region_set_dirty(rb->mr, offset,
                            (uint64_t)npages << qemu_target_page_bits());
    return 0;
}

/*
 * Of pages that had no memory behind them before they were taken: so many have
 * none yet.  The guest may have accessed one before KVM was told to log that.
 */
static size_t still_unallocated(RAMBlock *rb, uint64_t page, size_t npages)
{
    bool allocated;
    size_t n = encbitmap_allocated_run(rb, page, npages, &allocated);

    n = allocated ? 0 : n;
    if (n < npages) {
        send_again(rb, (page + n) << qemu_target_page_bits(), npages - n);
    }
    return n;
}

static int send_unallocated(QEMUFile *f, RAMBlock *rb, uint64_t page,
                            size_t npages)
{
    guint index = block_index(rb);
    Error *err = NULL;

    if (index == ENCRYPTED_STATS_NO_BLOCK) {
        error_setg(&err, "block %s: it came after the session", rb->idstr);
        qemu_file_set_error_obj(f, -EINVAL, err);
        return -EINVAL;
    }
    encrypted_record_unallocated(save.record, index, page, npages);
    encrypted_stats_unallocated(save.stats, index, page, npages,
                                save.record->len);
    stat64_add(&mig_stats.zero_pages, npages);
    trace_encrypted_pages_save_unallocated(rb->idstr, page, npages);
    return put_pages(f) ? npages : -EIO;
}

/* @ret: of pack_pages() */
static int send_private(QEMUFile *f, RAMBlock *rb, uint64_t offset,
                        size_t npages, int ret, Error *err, bool last_stage)
{
    guint index = block_index(rb);

    if (ret == -EAGAIN && !last_stage) {
        error_free(err);
        return send_again(rb, offset, npages);
    }
    if (ret >= 0 && ret < npages) {
        if (last_stage) {
            ret = -EAGAIN;
        } else {
            send_again(rb, offset +
                       ((uint64_t)ret << qemu_target_page_bits()),
                       npages - ret);
            npages = ret;
        }
    }
    if (ret >= 0 && index == ENCRYPTED_STATS_NO_BLOCK) {
        error_setg(&err, "the block came after the session");
        ret = -EINVAL;
    }
    if (ret >= 0 && !encrypted_record_pages(save.record, index, offset, npages,
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
        encrypted_reason_own_error(migrate_get_current());
        qemu_file_set_error_obj(f, ret, err);
        return ret;
    }
    encrypted_stats_private(save.stats, index,
                            offset >> qemu_target_page_bits(), npages,
                            save.record->len);
    stat64_add(&mig_stats.normal_pages, npages);
    trace_encrypted_pages_save(rb->idstr, offset, npages, save.record->len);
    return put_pages(f) ? npages : -EIO;
}

/* The end of the dirty pages that begin at @page, as far as one record goes */
static unsigned long dirty_end(RAMBlock *rb, unsigned long page)
{
    unsigned long size = rb->used_length >> qemu_target_page_bits();

    return find_next_zero_bit(rb->bmap,
                              MIN(size, page + UNALLOCATED_PAGES_MAX),
                              page + 1);
}

/*
 * encbitmap_allocated_run(), for a record.  Allocated pages are sent a few at a
 * time, so no more of them are looked at; only a record of pages without
 * contents has as many as @npages.
 */
static size_t allocated_run(RAMBlock *rb, uint64_t page, size_t npages,
                            bool *allocated)
{
    size_t most = MIN(npages, CGS_MIGRATION_PAGES_MAX);
    size_t run = encbitmap_allocated_run(rb, page, most, allocated);

    if (!*allocated && run == most && run < npages) {
        run = encbitmap_allocated_run(rb, page, npages, allocated);
        run = *allocated ? MIN(run, most) : run;
    }
    return run;
}

uint8_t *encrypted_pages_save_confidential(QEMUFile *f, RAMBlock *rb,
                                           unsigned long page, uint8_t *p,
                                           bool last_stage,
                                           EncryptedPagesTake *take,
                                           struct RAMState *rs,
                                           QemuMutex *bitmap_mutex, int *pages)
{
    uint64_t offset = (uint64_t)page << qemu_target_page_bits();
    bool is_private, allocated;
    uint8_t *copy = save.plain;
    Error *err = NULL;
    size_t npages;
    int ret;

    if (!save.open || !save.plain) {
        error_setg(&err, "block %s: a guest with private memory, whose "
                   "machine cannot migrate it", rb->idstr);
        qemu_file_set_error_obj(f, -EINVAL, err);
        *pages = -EINVAL;
        return NULL;
    }
    ret = qemu_file_get_error(f);
    if (ret) {
        /* Cancelled, perhaps: the platform must not be asked to pack more */
        *pages = ret;
        return NULL;
    }
    if (migrate_multifd()) {
        copy = prepare_channels(f, rb, bitmap_mutex);
        if (!copy) {
            *pages = -EIO;
            return NULL;
        }
    }
    encbitmap_send_lock(rb);
    npages = encbitmap_run(rb, page, dirty_end(rb, page), &is_private);
    if (!is_private) {
        /*
         * A copy: what is queued or written without the lock could be
         * private by the time that somebody reads it.
         */
        memcpy(copy, p, qemu_target_page_size());
        encbitmap_send_unlock(rb);
        encrypted_stats_shared(save.stats, block_index(rb), page);
        trace_encrypted_pages_shared(rb->idstr, offset);
        if (migrate_multifd()) {
            multifd_encrypted_queue(offset);
            *pages = 1;
            return NULL;
        }
        return copy;
    }
    npages = allocated_run(rb, page, npages, &allocated);
    /* Before they are read, as with every page: see ram.c */
    for (size_t i = 1; i < npages; i++) {
        take(rs, rb, page + i);
    }
    if (!allocated) {
        ret = still_unallocated(rb, page, npages);
        encbitmap_send_unlock(rb);
        *pages = ret ? send_unallocated(f, rb, page, ret) : 0;
        return NULL;
    }
    encbitmap_send_unlock(rb);
    /*
     * The dirty bits of all these pages are cleared, so a sync may set them
     * again from now on.  With auto-converge the main thread waits for the
     * mutex with the BQL held, and must not wait for the platform or a channel.
     */
    qemu_mutex_unlock(bitmap_mutex);
    ret = pack_pages(rb, offset, npages, &err);
    *pages = send_private(f, rb, offset, npages, ret, err, last_stage);
    qemu_mutex_lock(bitmap_mutex);
    return NULL;
}

bool encrypted_pages_ignore_hint(RAMBlock *rb, uint64_t offset,
                                 uint64_t npages)
{
    if (!encbitmap_npages(rb)) {
        return false;
    }
    /* The destination expects every private page, free or not */
    trace_encrypted_pages_hint_ignored(rb->idstr, offset, npages);
    return true;
}

int encrypted_pages_save_final(QEMUFile *f)
{
    g_autoptr(GByteArray) final = g_byte_array_new();
    Error *err = NULL;
    uint32_t block = 0;
    uint64_t first = 0;
    int ret;

    if (!save.open) {
        return 0;
    }
    end_round(0);
    /* Pages that were counted as private may have been sent as shared ones */
    encrypted_stats_remaining(save.stats, 0);
    /* The destination compares with what it has */
    save.flush_due = false;
    ret = multifd_ram_flush_and_sync(f);
    if (ret < 0) {
        return ret;
    }
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
    encrypted_reason_own_error(migrate_get_current());
    qemu_file_set_error_obj(f, -EINVAL, err);
    return -EINVAL;
}

EncryptedRamStats *encrypted_pages_stats(void)
{
    if (!save.stats) {
        return NULL;
    }
    assert(bql_locked());
    count_platform();
    return encrypted_stats_get(save.stats,
                               qemu_clock_get_ms(QEMU_CLOCK_REALTIME));
}

void encrypted_pages_query(MigrationInfo *info)
{
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops = machine_ops(&cgs);
    Error *why = NULL;

    info->encrypted_ram = encrypted_pages_stats();
    /* Before it arrives, it is not known what a guest wants */
    if (ops && ops->is_willing && !runstate_check(RUN_STATE_INMIGRATE) &&
        !ops->is_willing(cgs, &why)) {
        QAPI_LIST_PREPEND(info->blocked_reasons,
                          g_strdup(error_get_pretty(why)));
        error_free(why);
    }
}

void encrypted_pages_print(Monitor *mon, const EncryptedRamStats *stats)
{
    if (stats) {
        g_autofree char *text = encrypted_stats_text(stats);

        monitor_puts(mon, text);
    }
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

    qatomic_set(&migration_incoming_get_current()->tell_reason, false);
    if (!ops) {
        return true;
    }
    WITH_QEMU_LOCK_GUARD(&load.lock) {
        load.load = encrypted_load_new(cgs, ops);
    }
    load.body = g_byte_array_new();
    load.slice_start = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    load.told_opened = load.told_finished = false;
    return true;
}

static void tell_received(uint64_t pages)
{
    if (!load.told_opened && encrypted_load_opened(load.load)) {
        load.told_opened = true;
        tell_session(true, ENCRYPTED_RAM_SESSION_STATUS_OPENED, pages);
    }
    if (!load.told_finished && encrypted_load_done(load.load, NULL)) {
        load.told_finished = true;
        tell_session(true, ENCRYPTED_RAM_SESSION_STATUS_FINISHED, pages);
    }
}

void encrypted_pages_load_cleanup(void)
{
    if (load.load && load.told_opened && !load.told_finished) {
        tell_session(true, ENCRYPTED_RAM_SESSION_STATUS_CANCELLED,
                     encrypted_load_private_pages(load.load));
    }
    WITH_QEMU_LOCK_GUARD(&load.lock) {
        g_clear_pointer(&load.load, encrypted_load_free);
    }
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

bool encrypted_pages_load_yields(void)
{
    return load.load && qemu_in_coroutine();
}

/*
 * Take load.lock.  A channel's thread holds it as long as the platform unpacks
 * a record, and the main loop must not wait for that.
 */
static void coroutine_mixed_fn lock_load(void)
{
    while (qemu_mutex_trylock(&load.lock)) {
        if (!qemu_in_coroutine()) {
            qemu_mutex_lock(&load.lock);
            return;
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
}

/* The body of a record that was read from the main channel */
typedef struct LoadBody {
    size_t len;
    bool ok;
    uint64_t pages;         /* private pages received until now */
    Error *err;
} LoadBody;

/* load.lock and the RCU read lock held */
static void load_body_locked(LoadBody *job)
{
    job->ok = encrypted_load_body(load.load, load.body->data, job->len,
                                  &job->err);
    job->pages = encrypted_load_private_pages(load.load);
}

/* A thread of the pool; the coroutine that submitted @opaque waits for it */
static int load_body_thread(void *opaque)
{
    rcu_register_thread();
    WITH_QEMU_LOCK_GUARD(&load.lock) {
        RCU_READ_LOCK_GUARD();
        load_body_locked(opaque);
    }
    rcu_unregister_thread();
    return 0;
}

/*
 * Unpacking one record can take the platform longer than the main loop may be
 * kept waiting, and only the platform's own code could divide it.  So another
 * thread unpacks it, as multifd's channels do.
 */
static void coroutine_mixed_fn load_body(LoadBody *job, bool is_slow)
{
    if (is_slow && qemu_in_coroutine()) {
        thread_pool_submit_co(load_body_thread, job);
        return;
    }
    lock_load();
    load_body_locked(job);
    qemu_mutex_unlock(&load.lock);
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

/*
 * If the record that @header and the first @len bytes of its @body begin is a
 * session record: agree on what it announces.  To be called before anything
 * in the record is refused, because the source wants to know the reason.
 */
static bool agree(const uint8_t *header, const uint8_t *body, size_t len,
                  Error **errp)
{
    uint32_t flags;

    if (!encrypted_session_flags(header, body, len, &flags)) {
        return true;
    }
    if (flags & ENCRYPTED_SESSION_REASON) {
        qatomic_set(&migration_incoming_get_current()->tell_reason, true);
    }
    if (!(flags & ENCRYPTED_SESSION_MULTIFD) != !migrate_multifd()) {
        error_setg(errp, "Capability multifd is %s at the source and %s here: "
                   "set it to the same on both sides",
                   flags & ENCRYPTED_SESSION_MULTIFD ? "on" : "off",
                   migrate_multifd() ? "on" : "off");
        return false;
    }
    return check_features(errp);
}

/* A guest with private memory arrives at a machine that cannot take it */
static int load_nothing(QEMUFile *f, Error **errp)
{
    uint8_t head[ENCRYPTED_RECORD_HEADER + ENCRYPTED_SESSION_FIXED];
    int ret = read_bytes(f, head, sizeof(head));

    if (ret) {
        return ret;
    }
    agree(head, head + ENCRYPTED_RECORD_HEADER, ENCRYPTED_SESSION_FIXED, NULL);
    error_setg(errp, "The guest that arrives is confidential, this machine has "
               "no confidential guest support that can be migrated: give it "
               "the source's");
    return -EINVAL;
}

int encrypted_pages_load(QEMUFile *f, uint64_t word)
{
    const ConfidentialGuestMigrationOps *ops;
    uint8_t header[ENCRYPTED_RECORD_HEADER];
    ConfidentialGuestSupport *cgs;
    Error *err = NULL;
    LoadBody job = {};
    bool ok, is_slow;
    int ret;

    if (!load.load) {
        ret = load_nothing(f, &err);
        if (!err) {
            return ret;
        }
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
    lock_load();
    ok = encrypted_load_header(load.load, header, &job.len, &err);
    is_slow = ok && encrypted_load_is_slow(load.load);
    qemu_mutex_unlock(&load.lock);
    if (!ok) {
        goto fail;
    }
    g_byte_array_set_size(load.body, job.len);
    ret = read_bytes(f, load.body->data, job.len);
    if (ret) {
        return ret;
    }
    if (!agree(header, load.body->data, job.len, &err)) {
        goto fail;
    }
    load_body(&job, is_slow);
    if (!job.ok) {
        err = job.err;
        goto fail;
    }
    ops = machine_ops(&cgs);
    encrypted_answer_send(migration_incoming_get_current(), cgs, ops, header,
                          load.body->data, job.len);
    tell_received(job.pages);
    return 0;

fail:
    report(err);
    return -EINVAL;
}

/* A plain page is about to be written; load.lock held */
static bool load_plain(RAMBlock *rb, uint64_t offset, Error **errp)
{
    if (load.load) {
        return encrypted_load_plain(load.load, rb, offset, errp);
    }
    if (!encbitmap_test(rb, offset >> qemu_target_page_bits())) {
        return true;
    }
    error_setg(errp, "block %s, offset 0x%" PRIx64 ": plain page for a "
               "private one of a machine that cannot be migrated to",
               rb->idstr, offset);
    return false;
}

bool encrypted_pages_load_plain(RAMBlock *rb, uint64_t offset)
{
    Error *err = NULL;

    if (!encbitmap_npages(rb)) {
        return true;
    }
    if (migrate_multifd()) {
        /* A channel might make it private before the caller has written it */
        error_setg(&err, "block %s, offset 0x%" PRIx64 ": plain page beside "
                   "the channels of multifd", rb->idstr, offset);
    } else {
        let_main_loop_run();
        WITH_QEMU_LOCK_GUARD(&load.lock) {
            if (load_plain(rb, offset, &err)) {
                return true;
            }
        }
    }
    report(err);
    return false;
}

static bool check_copy(RAMBlock *rb, uint64_t offset, Error **errp)
{
    size_t size = qemu_target_page_size();

    if (QEMU_IS_ALIGNED(offset, size) && rb->used_length >= size &&
        offset <= rb->used_length - size) {
        return true;
    }
    error_setg(errp, "block %s, offset 0x%" PRIx64 ": plain page that is not "
               "one of the block's", rb->idstr, offset);
    return false;
}

bool encrypted_pages_load_copies(RAMBlock *rb, const ram_addr_t *offset,
                                 uint32_t ncopies, uint32_t nzero,
                                 const uint8_t *copies, Error **errp)
{
    size_t size = qemu_target_page_size();

    QEMU_LOCK_GUARD(&load.lock);
    RCU_READ_LOCK_GUARD();
    for (uint32_t i = 0; i < ncopies + nzero; i++) {
        uint8_t *host = rb->host + offset[i];

        if (!check_copy(rb, offset[i], errp) ||
            !load_plain(rb, offset[i], errp)) {
            return false;
        }
        /* It stays shared: the guest does not run, and we have the lock */
        if (i < ncopies) {
            memcpy(host, copies + i * size, size);
        } else if (!buffer_is_zero(host, size)) {
            memset(host, 0, size);
        }
    }
    return true;
}

bool encrypted_pages_check_buffer(const char *idstr, size_t len, Error **errp)
{
    ConfidentialGuestSupport *cgs;

    /* A channel may bring something before there is a session */
    if (!machine_ops(&cgs)) {
        return true;
    }
    /* It need not end: no more of it is read than what differs */
    if (strncmp(idstr, MULTIFD_ENCRYPTED_IDSTR,
                sizeof(MULTIFD_ENCRYPTED_IDSTR))) {
        error_setg(errp, "a channel has device state for a confidential "
                   "guest, expected private pages");
        return false;
    }
    if (len > ENCRYPTED_RECORD_PAGES_MAX) {
        error_setg(errp, "a channel has a record of private pages of %zu "
                   "bytes, expected at most %zu", len,
                   (size_t)ENCRYPTED_RECORD_PAGES_MAX);
        return false;
    }
    return true;
}

bool encrypted_pages_load_buffer(void *opaque, char *buf, size_t len,
                                 Error **errp)
{
    Error *err = NULL;

    QEMU_LOCK_GUARD(&load.lock);
    RCU_READ_LOCK_GUARD();
    if (!load.load) {
        error_setg(errp, "A channel has private pages for a machine without "
                   "confidential guest support that can be migrated");
        return false;
    }
    if (qatomic_read(&migration_incoming_get_current()->state) ==
        MIGRATION_STATUS_FAILED) {
        /* The main thread waits until no channel unpacks any more */
        error_setg(errp, "The migration has failed before this channel's "
                   "private pages were unpacked");
        return false;
    }
    if (encrypted_load_pages_record(load.load, (const uint8_t *)buf, len,
                                    &err)) {
        return true;
    }
    /*
     * Before another channel's is refused because of this one: the first that
     * is set is what is told.
     */
    migrate_set_error(migrate_get_current(), err);
    error_propagate(errp, err);
    return false;
}

bool encrypted_pages_load_done(QEMUFile *f)
{
    Error *err = NULL;

    QEMU_LOCK_GUARD(&load.lock);
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
