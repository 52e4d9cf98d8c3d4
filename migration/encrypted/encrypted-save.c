/*
 * Sender of a confidential guest's pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The order of locks is in docs/devel/migration/encrypted-pages.rst.
 */
#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "encrypted-answer.h"
#include "encrypted-channel.h"
#include "encrypted-pending.h"
#include "encrypted-policy.h"
#include "encrypted-reason.h"
#include "encrypted-records.h"
#include "encrypted-save.h"
#include "encrypted-stats.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "multifd-encrypted-send.h"
#include "trace.h"

/* Maximum number of private pages without contents in one record */
#define UNALLOCATED_PAGES_MAX 4096

/* Used by the migration thread, unless a member's comment says otherwise */
typedef struct EncryptedSave {
    EncryptedSession *session;
    /* The main channel */
    QEMUFile *f;
    /* The RAMBlocks of the session, in the order of their indices */
    GPtrArray *blocks;
    /* Private pages as the platform has packed them */
    GByteArray *payload;
    /* The record that is being made */
    GByteArray *record;
    /* Without multifd: a copy of a shared page's contents */
    uint8_t *copy;
    /* ram.c's dirty bitmap */
    struct RAMState *rs;
    EncryptedClearDirty *clear_dirty;
    QemuMutex *bitmap_mutex;
    /* No round follows.  Protected by bitmap_mutex. */
    bool last_stage;
    /*
     * With multifd: the sender must flush the channels before it sends the next
     * page.  While a channel still has a copy of a page, a sync may mark that
     * page dirty.  The sender then puts a new copy into another channel, where
     * it must not overtake the old copy.  Protected by bitmap_mutex.
     */
    bool flush_due;
} EncryptedSave;

static EncryptedSave *current_save(void)
{
    return migrate_get_current()->encrypted.save;
}

/*
 * ram.c holds bitmap_mutex while it searches for dirty pages and sends them.
 * The main thread takes bitmap_mutex, with the BQL held, to sync the bitmap for
 * auto-converge.  A thread that holds the BQL must not wait long, so the sender
 * releases bitmap_mutex in the two functions that may wait long:
 * wait_for_room() waits for a channel, and save_private() waits for the
 * platform and for a channel.
 *
 * While bitmap_mutex is released, a sync may set the dirty bits of pages that
 * the sender is sending.  The sender then sends these pages once more, which
 * costs time.  No change of a page is lost, because the sender cleared the
 * page's dirty bit before it read the page (rule C of
 * docs/devel/migration/ordering.rst).
 */
static void release_bitmap(EncryptedSave *s)
{
    qemu_mutex_unlock(s->bitmap_mutex);
}

static void retake_bitmap(EncryptedSave *s)
{
    qemu_mutex_lock(s->bitmap_mutex);
}

/*
 * Let the migration fail with @err, whose cause is on this host.  Returns @ret,
 * which is -errno.
 */
static int fail(EncryptedSave *s, int ret, Error *err)
{
    encrypted_reason_own_error(migrate_get_current());
    qemu_file_set_error_obj(s->f, ret, err);
    return ret;
}

static void put_record(EncryptedSave *s)
{
    qemu_put_buffer(s->f, s->record->data, s->record->len);
    ram_transferred_add(s->record->len);
    g_byte_array_set_size(s->record, 0);
}

/* Send a record of @npages pages.  Returns @npages or -errno. */
static int put_pages(EncryptedSave *s, size_t npages)
{
    bool ok = true;

    if (migrate_multifd()) {
        ok = multifd_encrypted_send_record(s->record);
        g_byte_array_set_size(s->record, 0);
    } else {
        put_record(s);
    }
    return ok ? npages : -EIO;
}

/*
 * Tell the vendor code that the channels were flushed.  The destination unpacks
 * all earlier pages before it unpacks later ones, so from now on any channel
 * may pack a page, even if another channel packed this page before the flush.
 */
static bool begin_round(EncryptedSave *s)
{
    const ConfidentialGuestMigrationOps *ops = s->session->ops;
    Error *err = NULL;

    if (ops->send_round && !ops->send_round(s->session->cgs, &err)) {
        fail(s, -EIO, err);
        return false;
    }
    return true;
}

/*
 * Wait until a channel of multifd takes another shared page of @rb.  Returns
 * where to copy the page to, or NULL if a channel has failed.
 *
 * Two copies of a page must not overtake each other in different channels.
 * Between two syncs the sender queues a page only once, because only a sync
 * sets the page's dirty bit again.  It is therefore enough that this function
 * flushes the channels on both sides before the first page after a sync.  If
 * the main thread syncs while this function waits, it sets flush_due again, and
 * the next call of this function flushes the channels.
 */
static uint8_t *wait_for_room(EncryptedSave *s, RAMBlock *rb)
{
    bool flush_due = s->flush_due;
    uint8_t *room = NULL;

    s->flush_due = false;
    release_bitmap(s);
    if (!flush_due ||
        (multifd_ram_flush_and_sync(s->f) == 0 && begin_round(s))) {
        room = multifd_encrypted_send_room(rb);
    }
    retake_bitmap(s);
    return room;
}

static EncryptedSave *save_new(QEMUFile *f, struct RAMState *rs,
                               EncryptedClearDirty *clear_dirty,
                               QemuMutex *bitmap_mutex)
{
    EncryptedSave *s = g_new0(EncryptedSave, 1);

    s->session = &migrate_get_current()->encrypted.session;
    s->f = f;
    s->payload = g_byte_array_new();
    s->record = g_byte_array_new();
    s->copy = qemu_memalign(64, qemu_target_page_size());
    s->rs = rs;
    s->clear_dirty = clear_dirty;
    s->bitmap_mutex = bitmap_mutex;
    /*
     * ram.c has already synced once, before this structure existed, so
     * encrypted_save_synced() could not set flush_due
     */
    s->flush_due = migrate_multifd();
    RCU_READ_LOCK_GUARD();
    s->blocks = encrypted_blocks();
    for (guint i = 0; i < s->blocks->len; i++) {
        RAMBlock *rb = g_ptr_array_index(s->blocks, i);

        encrypted_stats_add_block(s->session->stats, encbitmap_npages(rb));
    }
    return s;
}

static bool send_session(EncryptedSave *s, const GByteArray *data,
                         Error **errp)
{
    uint32_t flags = ENCRYPTED_SESSION_REASON |
                     (migrate_multifd() ? ENCRYPTED_SESSION_MULTIFD : 0) |
                     encrypted_answer_announce(migrate_get_current(),
                                               s->session->cgs,
                                               s->session->ops);

    WITH_RCU_READ_LOCK_GUARD() {
        if (!encrypted_record_session(s->record, s->blocks, flags, data,
                                      errp)) {
            return false;
        }
    }
    put_record(s);
    /* Flush, so that a destination can refuse the session early */
    qemu_fflush(s->f);
    return true;
}

bool encrypted_save_setup(QEMUFile *f, struct RAMState *rs,
                          EncryptedClearDirty *clear_dirty,
                          QemuMutex *bitmap_mutex, Error **errp)
{
    EncryptedOutgoing *outgoing = &migrate_get_current()->encrypted;
    g_autoptr(GByteArray) data = g_byte_array_new();
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops = encrypted_migration_ops(&cgs);

    if (!ops) {
        return true;
    }
    if (!encrypted_session_open(cgs, ops, data, errp)) {
        return false;
    }
    encrypted_pending_start(&outgoing->pending, outgoing->session.stats);
    if (migrate_multifd()) {
        multifd_encrypted_send_setup();
    }
    outgoing->save = save_new(f, rs, clear_dirty, bitmap_mutex);
    if (!send_session(outgoing->save, data, errp)) {
        return false;
    }
    encrypted_channel_check(f, outgoing->session.stats);
    return true;
}

/* A round ends.  @next: number of the round that begins, 0 if none begins */
static void end_round(EncryptedSession *session, uint64_t next)
{
    EncryptedRamRound r;

    encrypted_session_count_calls(session);
    if (encrypted_stats_round(session->stats, next,
                              qemu_clock_get_ms(QEMU_CLOCK_REALTIME), &r)) {
        trace_encrypted_pages_round(r.round, r.private_pages, r.shared_pages,
                                    r.private_bytes, r.batches,
                                    r.converted_pages, r.again_pages,
                                    r.platform_time);
    }
}

void encrypted_save_cleanup(void)
{
    EncryptedOutgoing *outgoing = &migrate_get_current()->encrypted;
    EncryptedSave *s = g_steal_pointer(&outgoing->save);

    encrypted_pending_stop(&outgoing->pending);
    if (outgoing->session.stats) {
        /* The migration may have ended within a round */
        end_round(&outgoing->session, 0);
        encrypted_stats_forget_blocks(outgoing->session.stats);
    }
    multifd_encrypted_send_cleanup();
    if (s) {
        g_ptr_array_unref(s->blocks);
        g_byte_array_unref(s->payload);
        g_byte_array_unref(s->record);
        qemu_vfree(s->copy);
        g_free(s);
    }
}

void encrypted_save_sync(uint64_t round)
{
    EncryptedSession *session = &migrate_get_current()->encrypted.session;
    Error *err = NULL;

    if (!session->stats) {
        return;
    }
    end_round(session, round);
    if (!encbitmap_sync(&err)) {
        migration_file_set_error(-EIO, err);
    }
}

void encrypted_save_synced(bool last_stage)
{
    EncryptedSave *s = current_save();

    if (s) {
        s->flush_due = migrate_multifd();
        s->last_stage = last_stage;
    }
}

static guint block_index(EncryptedSave *s, RAMBlock *rb)
{
    guint index;

    return g_ptr_array_find(s->blocks, rb, &index) ? index :
           ENCRYPTED_STATS_NO_BLOCK;
}

/*
 * Pack @npages private pages into @payload.  Returns how many were packed, or
 * -errno; see ConfidentialGuestMigrationOps.send_pages.  Called by the
 * migration thread or by a thread of multifd.
 *
 * The caller does not hold the RAMBlock's lock, because conversions need this
 * lock and must not wait until the platform has packed the pages.  If the guest
 * converts pages in the meantime, the conversion marks them dirty, so the
 * source sends them again in their new state.
 */
static int pack_pages(EncryptedSession *session, unsigned channel,
                      RAMBlock *rb, uint64_t offset, size_t npages,
                      GByteArray *payload, Error **errp)
{
    int64_t start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int ret;

    g_byte_array_set_size(payload, 0);
    ret = session->ops->send_pages(session->cgs, channel, rb, offset, npages,
                                   payload, errp);
    encrypted_stats_packed(session->stats, MAX(ret, 0),
                           qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start);
    return ret;
}

/*
 * If the vendor code has data that the destination needs before it unpacks the
 * pages that are packed from now on, send these data in a record.
 *
 * The destination must act on this record after it has unpacked all earlier
 * pages, and before it unpacks later ones.  With multifd, pages are in the
 * channels and the record is in the main channel, so this function flushes the
 * channels before and after the record.
 *
 * Returns 0 or a negative value.  If a channel has failed, its thread has
 * reported the error, and this function does not set @errp.
 */
static int send_data(EncryptedSave *s, Error **errp)
{
    const ConfidentialGuestMigrationOps *ops = s->session->ops;
    g_autoptr(GByteArray) data = NULL;
    int ret = 0;

    if (!ops->send_data) {
        return 0;
    }
    data = g_byte_array_new();
    if (!ops->send_data(s->session->cgs, data, errp)) {
        return -EINVAL;
    }
    if (!data->len) {
        return 0;
    }
    trace_encrypted_pages_save_data(data->len);
    if (migrate_multifd()) {
        ret = multifd_ram_flush_and_sync(s->f);
    }
    if (ret == 0 && !encrypted_record_platform(s->record, data, errp)) {
        return -EINVAL;
    }
    if (ret == 0) {
        put_record(s);
        qemu_fflush(s->f);
        if (migrate_multifd()) {
            ret = multifd_ram_flush_and_sync(s->f);
        }
    }
    return ret;
}

/* Mark @npages pages dirty, because the guest is converting or writing them */
static void requeue(EncryptedSave *s, RAMBlock *rb, uint64_t offset,
                    size_t npages)
{
    trace_encrypted_pages_requeue(rb->idstr, offset, npages);
    encrypted_stats_requeued(s->session->stats, npages);
    memory_region_set_dirty(rb->mr, offset,
                            (uint64_t)npages << qemu_target_page_bits());
}

/*
 * The caller has found that @npages pages are unallocated, and has then cleared
 * their dirty bits.  KVM logs an access to a page only after the page's dirty
 * bit was cleared, so the log lacks an access between these two steps.  Check
 * again which pages are unallocated.  Return their number, counted from the
 * first page on, and requeue the other pages.
 */
static size_t still_unallocated(EncryptedSave *s, RAMBlock *rb, uint64_t page,
                                size_t npages)
{
    bool allocated;
    size_t n = encbitmap_allocated_run(rb, page, npages, &allocated);

    n = allocated ? 0 : n;
    if (n < npages) {
        requeue(s, rb, (page + n) << qemu_target_page_bits(), npages - n);
    }
    return n;
}

static int send_unallocated(EncryptedSave *s, RAMBlock *rb, guint index,
                            uint64_t page, size_t npages)
{
    encrypted_record_unallocated(s->record, index, page, npages);
    encrypted_stats_unallocated(s->session->stats, index, page, npages,
                                s->record->len);
    stat64_add(&mig_stats.zero_pages, npages);
    trace_encrypted_pages_save_unallocated(rb->idstr, page, npages);
    return put_pages(s, npages);
}

/*
 * If one of @npages pages cannot be packed now, for example because the guest
 * is converting it, requeue this page and the pages that follow it.
 * @packed: result of ready_for_channels() or pack_pages(): the number of pages
 *          before the page that cannot be packed now, or -errno with @errp set
 * @last_stage: the guest is stopped, and nothing can be left for a later round
 *
 * Returns how many pages to send, or -errno.
 */
static int requeue_unpacked(EncryptedSave *s, RAMBlock *rb, uint64_t offset,
                            size_t npages, int packed, bool last_stage,
                            Error **errp)
{
    if (packed < 0 && (packed != -EAGAIN || last_stage)) {
        return packed;
    }
    if (packed < 0) {
        error_free(*errp);
        *errp = NULL;
        packed = 0;
    }
    if (packed < npages && last_stage) {
        error_setg_errno(errp, EAGAIN, "the guest is stopped, but the pages "
                         "are being converted");
        return -EAGAIN;
    }
    if (packed < npages) {
        requeue(s, rb, offset + ((uint64_t)packed << qemu_target_page_bits()),
                npages - packed);
    }
    return packed;
}

/* Count private pages for which a record of @bytes has been made */
static void count_run(EncryptedSession *session, RAMBlock *rb, guint index,
                      uint64_t offset, size_t npages, size_t bytes)
{
    encrypted_stats_private(session->stats, index,
                            offset >> qemu_target_page_bits(), npages, bytes);
    stat64_add(&mig_stats.normal_pages, npages);
    trace_encrypted_pages_save(rb->idstr, offset, npages, bytes);
}

/*
 * Pack the private pages of @job, and append their record to @record.  Called
 * by a thread of multifd.
 */
static bool pack_job(const MultiFDEncryptedJob *job, unsigned channel,
                     GByteArray *record, Error **errp)
{
    ERRP_GUARD();
    EncryptedSession *session = job->opaque;
    g_autoptr(GByteArray) payload = g_byte_array_new();
    int ret = pack_pages(session, channel, job->rb, job->offset, job->npages,
                         payload, errp);

    if (ret == job->npages &&
        encrypted_record_pages(record, job->index, job->offset, ret, payload,
                               errp)) {
        count_run(session, job->rb, job->index, job->offset, ret, record->len);
        return true;
    }
    if (!*errp) {
        error_setg(errp, "only %d pages were packed", ret);
    }
    error_prepend(errp, "block %s, offset 0x%" PRIx64 ": cannot send %zu "
                  "private pages: ", job->rb->idstr, job->offset, job->npages);
    encrypted_reason_own_error(migrate_get_current());
    return false;
}

/*
 * With multifd, find out how many of @npages pages a channel may pack.  Returns
 * 0 if the migration thread has to pack them, or -errno.
 */
static int ready_for_channels(EncryptedSave *s, RAMBlock *rb, uint64_t offset,
                              size_t npages, Error **errp)
{
    const ConfidentialGuestMigrationOps *ops = s->session->ops;

    return migrate_multifd() && ops->send_ready ?
           ops->send_ready(s->session->cgs, rb, offset, npages, errp) : 0;
}

/* Let a channel of multifd pack and send @npages private pages */
static int send_by_channel(EncryptedSave *s, RAMBlock *rb, guint index,
                           uint64_t offset, size_t npages)
{
    bool ok = multifd_encrypted_send_job(&(MultiFDEncryptedJob) {
        .pack = pack_job,
        .opaque = s->session,
        .rb = rb,
        .index = index,
        .offset = offset,
        .npages = npages,
    });

    return ok ? npages : -EIO;
}

/* Pack and send @npages private pages; returns @res of encrypted_save_page() */
static int send_run(EncryptedSave *s, RAMBlock *rb, guint index,
                    uint64_t offset, size_t npages, bool last_stage)
{
    Error *err = NULL;
    int ret = send_data(s, &err);
    bool by_channel;

    if (ret < 0) {
        return err ? fail(s, ret, err) : ret;
    }
    ret = ready_for_channels(s, rb, offset, npages, &err);
    by_channel = ret > 0;
    if (ret == 0) {
        ret = pack_pages(s->session, 0, rb, offset, npages, s->payload, &err);
    }
    ret = requeue_unpacked(s, rb, offset, npages, ret, last_stage, &err);
    if (ret > 0 && by_channel) {
        return send_by_channel(s, rb, index, offset, ret);
    }
    if (ret > 0 && !encrypted_record_pages(s->record, index, offset, ret,
                                           s->payload, &err)) {
        ret = -EINVAL;
    }
    if (ret < 0) {
        error_prepend(&err, "block %s, offset 0x%" PRIx64 ": cannot send %zu "
                      "private pages: ", rb->idstr, offset, npages);
        return fail(s, ret, err);
    }
    if (ret == 0) {
        return 0;
    }
    count_run(s->session, rb, index, offset, ret, s->record->len);
    return put_pages(s, ret);
}

/*
 * Return the end of the dirty pages that begin at @page, as far as one record
 * can hold them
 */
static unsigned long dirty_end(RAMBlock *rb, unsigned long page)
{
    unsigned long size = rb->used_length >> qemu_target_page_bits();

    return find_next_zero_bit(rb->bmap,
                              MIN(size, page + UNALLOCATED_PAGES_MAX),
                              page + 1);
}

/*
 * Call encbitmap_allocated_run() for the pages of one record.  A record of
 * allocated pages holds at most CGS_MIGRATION_PAGES_MAX pages.  A record of
 * pages without contents can hold all @npages pages.  This function therefore
 * looks at more than CGS_MIGRATION_PAGES_MAX pages only if the first
 * CGS_MIGRATION_PAGES_MAX pages have no contents.
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

/*
 * Send the first of @npages private and dirty pages, and as many of the others
 * as fit into its record.  Called with the RAMBlock's lock held as a reader,
 * and releases it.  Returns @res of encrypted_save_page().
 */
static int save_private(EncryptedSave *s, RAMBlock *rb, uint64_t page,
                        size_t npages)
{
    guint index = block_index(s, rb);
    bool last_stage = s->last_stage, allocated;
    Error *err = NULL;
    int ret;

    if (index == ENCRYPTED_STATS_NO_BLOCK) {
        encbitmap_send_unlock(rb);
        error_setg(&err, "block %s was added after the migration session "
                   "started: migrate again", rb->idstr);
        return fail(s, -EINVAL, err);
    }
    npages = allocated_run(rb, page, npages, &allocated);
    /*
     * Clear the dirty bits before the pages are read (rule C of
     * docs/devel/migration/ordering.rst).  The caller has cleared the first.
     */
    for (size_t i = 1; i < npages; i++) {
        s->clear_dirty(s->rs, rb, page + i);
    }
    if (!allocated) {
        npages = still_unallocated(s, rb, page, npages);
    }
    encbitmap_send_unlock(rb);
    release_bitmap(s);
    if (allocated) {
        ret = send_run(s, rb, index, page << qemu_target_page_bits(), npages,
                       last_stage);
    } else {
        ret = npages ? send_unallocated(s, rb, index, page, npages) : 0;
    }
    retake_bitmap(s);
    return ret;
}

/*
 * Copy a shared page, because it may be private by the time that the channel
 * reads it.  The caller holds the reader's lock of @rb, which this function
 * releases.
 */
static int copy_shared(EncryptedSave *s, RAMBlock *rb, unsigned long page,
                       uint8_t *copy)
{
    ram_addr_t offset = (ram_addr_t)page << qemu_target_page_bits();
    Error *err = NULL;

    memcpy(copy, rb->host + offset, qemu_target_page_size());
    encbitmap_send_unlock(rb);
    if (encbitmap_poisoned(rb, page)) {
        error_setg(&err, "block %s, offset 0x" RAM_ADDR_FMT ": the host's "
                   "memory is bad, and the page of the guest is lost: restart "
                   "the guest", rb->idstr, offset);
        return fail(s, -EIO, err);
    }
    encrypted_stats_shared(s->session->stats, block_index(s, rb), page);
    trace_encrypted_pages_shared(rb->idstr, offset);
    return 0;
}

bool encrypted_save_confidential(RAMBlock *rb, unsigned long page, int *res)
{
    ram_addr_t offset = (ram_addr_t)page << qemu_target_page_bits();
    EncryptedSave *s = current_save();
    Error *err = NULL;
    bool is_private;
    uint8_t *copy;
    size_t npages;

    if (!s) {
        error_setg(&err, "block %s: a guest with private memory, whose "
                   "machine cannot migrate it", rb->idstr);
        migration_file_set_error(-EINVAL, err);
        *res = -EINVAL;
        return true;
    }
    /*
     * Do not pack a page after a cancel or an error, because this would only
     * delay the end of the migration.  Check the file here, because
     * ram_save_complete() does not check it before each page.
     */
    *res = qemu_file_get_error(s->f);
    if (*res) {
        return true;
    }
    copy = migrate_multifd() ? wait_for_room(s, rb) : s->copy;
    if (!copy) {
        *res = -EIO;
        return true;
    }
    encbitmap_send_lock(rb);
    npages = encbitmap_run(rb, page, dirty_end(rb, page), &is_private);
    if (is_private) {
        *res = save_private(s, rb, page, npages);
        return true;
    }
    *res = copy_shared(s, rb, page, copy);
    if (*res) {
        return true;
    }
    if (migrate_multifd()) {
        multifd_encrypted_send_queue(offset);
        *res = 1;
        return true;
    }
    return false;
}

uint8_t *encrypted_save_copy(void)
{
    return current_save()->copy;
}

bool encrypted_save_ignore_hint(RAMBlock *rb, uint64_t offset,
                                uint64_t npages)
{
    if (!encbitmap_npages(rb)) {
        return false;
    }
    /* The destination expects every private page, free or not */
    trace_encrypted_pages_hint_ignored(rb->idstr, offset, npages);
    return true;
}

static int send_final(EncryptedSave *s, const GByteArray *final, Error **errp)
{
    uint32_t block = 0;
    uint64_t first = 0;

    WITH_RCU_READ_LOCK_GUARD() {
        while (encrypted_record_state(s->record, s->blocks, &block, &first)) {
            put_record(s);
        }
    }
    if (!encrypted_record_final(s->record, final, errp)) {
        return -EINVAL;
    }
    put_record(s);
    return 0;
}

int encrypted_save_final(void)
{
    g_autoptr(GByteArray) final = g_byte_array_new();
    EncryptedSave *s = current_save();
    Error *err = NULL;
    int ret;

    if (!s) {
        return 0;
    }
    end_round(s->session, 0);
    /*
     * No private page remains.  Reset the counter, which can be above 0,
     * because pages that were counted as private may have been sent as shared
     * ones.
     */
    encrypted_stats_remaining(s->session->stats, 0);
    /*
     * The destination compares the state records with the pages that it has
     * received, so flush the channels before the state records are sent
     */
    s->flush_due = false;
    ret = multifd_ram_flush_and_sync(s->f);
    if (ret < 0) {
        return ret;
    }
    if (!s->session->ops->send_final(s->session->cgs, final, &err) ||
        send_final(s, final, &err) < 0) {
        return fail(s, -EINVAL, err);
    }
    return 0;
}
