/*
 * Loader of a confidential guest's pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "block/thread-pool.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "encrypted-answer.h"
#include "encrypted-load.h"
#include "encrypted-policy.h"
#include "encrypted-receiver.h"
#include "encrypted-session.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/ram.h"

/* Longest time for which the loader keeps the main loop waiting */
#define LOAD_SLICE_MS 20

static EncryptedIncoming *current_incoming(void)
{
    return &migration_incoming_get_current()->encrypted;
}

/* Report @err in query-migrate and in the log */
static void report(Error *err)
{
    migrate_set_error(migrate_get_current(), err);
    error_report_err(err);
}

void encrypted_load_init(EncryptedIncoming *in)
{
    qemu_mutex_init(&in->lock);
}

bool encrypted_load_setup(Error **errp)
{
    EncryptedIncoming *in = current_incoming();
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops = encrypted_migration_ops(&cgs);

    qatomic_set(&in->send_reason, false);
    if (!ops) {
        return true;
    }
    WITH_QEMU_LOCK_GUARD(&in->lock) {
        in->receiver = encrypted_receiver_new(cgs, ops);
    }
    in->body = g_byte_array_new();
    in->slice_start = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    in->opened_event = in->finished_event = false;
    return true;
}

static void send_events(EncryptedIncoming *in, uint64_t pages)
{
    if (!in->opened_event && encrypted_receiver_opened(in->receiver)) {
        in->opened_event = true;
        encrypted_session_event(true, ENCRYPTED_RAM_SESSION_STATUS_OPENED,
                                pages);
    }
    if (!in->finished_event && encrypted_receiver_done(in->receiver, NULL)) {
        in->finished_event = true;
        encrypted_session_event(true, ENCRYPTED_RAM_SESSION_STATUS_FINISHED,
                                pages);
    }
}

void encrypted_load_cleanup(void)
{
    EncryptedIncoming *in = current_incoming();

    if (in->receiver && in->opened_event && !in->finished_event) {
        encrypted_session_event(true, ENCRYPTED_RAM_SESSION_STATUS_CANCELLED,
                                encrypted_receiver_private_pages(in->receiver));
    }
    WITH_QEMU_LOCK_GUARD(&in->lock) {
        g_clear_pointer(&in->receiver, encrypted_receiver_free);
    }
    g_clear_pointer(&in->body, g_byte_array_unref);
}

/*
 * The firmware is slower than the channel, so the loader always finds data to
 * read and would never yield.  Let the main loop run after each time slice.
 */
static void let_main_loop_run(EncryptedIncoming *in)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (now - in->slice_start < LOAD_SLICE_MS || !qemu_in_coroutine()) {
        return;
    }
    aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
    qemu_coroutine_yield();
    in->slice_start = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

bool encrypted_load_yields(void)
{
    return current_incoming()->receiver && qemu_in_coroutine();
}

/*
 * Take @in->lock.  The thread of a channel may hold the lock while the platform
 * unpacks a record, so a coroutine sleeps until the lock is free, instead of
 * blocking the main loop.
 */
static void coroutine_mixed_fn lock_receiver(EncryptedIncoming *in)
{
    while (qemu_mutex_trylock(&in->lock)) {
        if (!qemu_in_coroutine()) {
            qemu_mutex_lock(&in->lock);
            return;
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
}

/* The body of a record that was read from the main channel */
typedef struct LoadBody {
    EncryptedIncoming *in;
    size_t len;
    bool ok;
    uint64_t pages;         /* private pages received until now */
    Error *err;
} LoadBody;

/* The receiver's lock and the RCU read lock are held */
static void load_body_locked(LoadBody *job)
{
    EncryptedIncoming *in = job->in;

    job->ok = encrypted_receiver_body(in->receiver, in->body->data, job->len,
                                      &job->err);
    job->pages = encrypted_receiver_private_pages(in->receiver);
}

/* Runs in a thread of the pool; the coroutine that submitted @opaque waits */
static int load_body_thread(void *opaque)
{
    LoadBody *job = opaque;

    rcu_register_thread();
    WITH_QEMU_LOCK_GUARD(&job->in->lock) {
        RCU_READ_LOCK_GUARD();
        load_body_locked(job);
    }
    rcu_unregister_thread();
    return 0;
}

/*
 * Unpacking one record can take longer than the main loop may wait, and only
 * vendor code could divide the record.  So a thread of the pool unpacks it
 * while the coroutine yields.
 */
static void coroutine_mixed_fn load_body(LoadBody *job, bool is_slow)
{
    if (is_slow && qemu_in_coroutine()) {
        thread_pool_submit_co(load_body_thread, job);
        return;
    }
    lock_receiver(job->in);
    load_body_locked(job);
    qemu_mutex_unlock(&job->in->lock);
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
 * If @header belongs to a session record, check the features that the record
 * announces.  @body has the first @len bytes of the record's body.
 *
 * The record also announces whether the source reads the reason for a refusal.
 * The destination sends reasons only after this function has read the
 * announcement.  The caller calls this function as early as it can, so that the
 * source gets the reason if a later check refuses the record: only the checks
 * of the flag word and of the header come before this call.
 */
static bool agree(EncryptedIncoming *in, const uint8_t *header,
                  const uint8_t *body, size_t len, Error **errp)
{
    uint32_t flags;

    if (!encrypted_session_flags(header, body, len, &flags)) {
        return true;
    }
    if (flags & ENCRYPTED_SESSION_REASON) {
        qatomic_set(&in->send_reason, true);
    }
    if (!(flags & ENCRYPTED_SESSION_MULTIFD) != !migrate_multifd()) {
        error_setg(errp, "Capability multifd is %s at the source and %s here: "
                   "set it to the same on both sides",
                   flags & ENCRYPTED_SESSION_MULTIFD ? "on" : "off",
                   migrate_multifd() ? "on" : "off");
        return false;
    }
    return encrypted_policy_check_receive(errp);
}

/* Refuse a guest with private memory, because this machine cannot receive it */
static int refuse_guest(EncryptedIncoming *in, QEMUFile *f, Error **errp)
{
    uint8_t head[ENCRYPTED_RECORD_HEADER + ENCRYPTED_SESSION_FIXED];
    int ret = read_bytes(f, head, sizeof(head));

    if (ret) {
        return ret;
    }
    agree(in, head, head + ENCRYPTED_RECORD_HEADER, ENCRYPTED_SESSION_FIXED,
          NULL);
    error_setg(errp, "The incoming guest is confidential, but this machine has "
               "no confidential guest support that can receive it: start the "
               "destination with the source's confidential-guest-support");
    return -EINVAL;
}

/* Returns 0 or -errno.  @errp is set unless read_bytes() reported the error. */
static int load_record(EncryptedIncoming *in, QEMUFile *f, Error **errp)
{
    const ConfidentialGuestMigrationOps *ops;
    uint8_t header[ENCRYPTED_RECORD_HEADER];
    ConfidentialGuestSupport *cgs;
    LoadBody job = { .in = in };
    bool ok, is_slow;
    int ret;

    let_main_loop_run(in);
    ret = read_bytes(f, header, sizeof(header));
    if (ret) {
        return ret;
    }
    lock_receiver(in);
    ok = encrypted_receiver_header(in->receiver, header, &job.len, errp);
    is_slow = ok && encrypted_receiver_is_slow(in->receiver);
    qemu_mutex_unlock(&in->lock);
    if (!ok) {
        return -EINVAL;
    }
    g_byte_array_set_size(in->body, job.len);
    ret = read_bytes(f, in->body->data, job.len);
    if (ret) {
        return ret;
    }
    if (!agree(in, header, in->body->data, job.len, errp)) {
        return -EINVAL;
    }
    load_body(&job, is_slow);
    if (!job.ok) {
        error_propagate(errp, job.err);
        return -EINVAL;
    }
    ops = encrypted_migration_ops(&cgs);
    encrypted_answer_send(migration_incoming_get_current(), cgs, ops, header,
                          in->body->data, job.len);
    send_events(in, job.pages);
    return 0;
}

int encrypted_load_record(QEMUFile *f, uint64_t word)
{
    EncryptedIncoming *in = current_incoming();
    Error *err = NULL;
    int ret;

    if (!in->receiver) {
        ret = refuse_guest(in, f, &err);
    } else if (word != RAM_SAVE_FLAG_EXTENDED) {
        error_setg(&err, "Record of private pages begins with 0x%" PRIx64
                   ", expected 0x%x", word, RAM_SAVE_FLAG_EXTENDED);
        ret = -EINVAL;
    } else {
        ret = load_record(in, f, &err);
    }
    if (err) {
        report(err);
    }
    return ret;
}

/*
 * Make a page shared, because the caller is about to write a plain page there.
 * @in->lock held.
 */
static bool make_shared(EncryptedIncoming *in, RAMBlock *rb, uint64_t offset,
                        Error **errp)
{
    if (in->receiver) {
        return encrypted_receiver_plain(in->receiver, rb, offset, errp);
    }
    if (!encbitmap_test(rb, offset >> qemu_target_page_bits())) {
        return true;
    }
    error_setg(errp, "block %s, offset 0x%" PRIx64 ": the source has sent a "
               "shared page, but the page is private here and this machine "
               "cannot receive a confidential guest", rb->idstr, offset);
    return false;
}

bool encrypted_load_plain(RAMBlock *rb, uint64_t offset)
{
    EncryptedIncoming *in = current_incoming();
    Error *err = NULL;

    if (!encbitmap_npages(rb)) {
        return true;
    }
    if (migrate_multifd()) {
        /*
         * Refuse the page: the caller writes the contents of the page without
         * @in->lock, so the thread of a multifd channel could make the page
         * private before the caller has written them.  With multifd, a valid
         * source sends the shared pages of a RAMBlock that can have private
         * pages through multifd's channels.
         */
        error_setg(&err, "block %s, offset 0x%" PRIx64 ": the source has sent "
                   "a shared page on the main channel, but with multifd it "
                   "must use multifd's channels", rb->idstr, offset);
    } else {
        let_main_loop_run(in);
        WITH_QEMU_LOCK_GUARD(&in->lock) {
            if (make_shared(in, rb, offset, &err)) {
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

bool encrypted_load_copies(RAMBlock *rb, const ram_addr_t *offset,
                           uint32_t ncopies, uint32_t nzero,
                           const uint8_t *copies, Error **errp)
{
    EncryptedIncoming *in = current_incoming();
    size_t size = qemu_target_page_size();

    QEMU_LOCK_GUARD(&in->lock);
    RCU_READ_LOCK_GUARD();
    for (uint32_t i = 0; i < ncopies + nzero; i++) {
        uint8_t *host = rb->host + offset[i];

        if (!check_copy(rb, offset[i], errp) ||
            !make_shared(in, rb, offset[i], errp)) {
            return false;
        }
        /*
         * The page stays shared while this thread writes it: the guest, which
         * does not run, cannot convert the page, and another thread needs
         * @in->lock to make the page private
         */
        if (i < ncopies) {
            memcpy(host, copies + i * size, size);
        } else if (!buffer_is_zero(host, size)) {
            memset(host, 0, size);
        }
    }
    return true;
}

bool encrypted_load_check_buffer(const char *idstr, size_t len, Error **errp)
{
    ConfidentialGuestSupport *cgs;

    /*
     * Ask the machine whether it can receive a confidential guest.  Testing
     * whether the receiver exists would not suffice, because a channel may get
     * its first packet before the main thread has created the receiver.
     */
    if (!encrypted_migration_ops(&cgs)) {
        return true;
    }
    if (strncmp(idstr, ENCRYPTED_RECORD_IDSTR,
                sizeof(ENCRYPTED_RECORD_IDSTR))) {
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

bool encrypted_load_buffer(void *opaque, char *buf, size_t len, Error **errp)
{
    EncryptedIncoming *in = current_incoming();
    Error *err = NULL;

    QEMU_LOCK_GUARD(&in->lock);
    RCU_READ_LOCK_GUARD();
    if (!in->receiver) {
        error_setg(errp, "A channel has private pages for a machine without "
                   "confidential guest support that can be migrated");
        return false;
    }
    if (qatomic_read(&migration_incoming_get_current()->state) ==
        MIGRATION_STATUS_FAILED) {
        /*
         * The main thread waits for the channels before it ends the migration.
         * Unpacking more pages would only make this wait longer.
         */
        error_setg(errp, "The migration has failed before this channel's "
                   "private pages were unpacked");
        return false;
    }
    if (encrypted_receiver_pages_record(in->receiver, (const uint8_t *)buf,
                                        len, &err)) {
        return true;
    }
    /*
     * Set the error before dropping the lock, because QEMU reports the error
     * that was set first.  The receiver has failed, so it will also refuse the
     * records of the other channels.  The threads of these channels call the
     * receiver with the lock held, so they set their errors after this one.
     */
    migrate_set_error(migrate_get_current(), err);
    error_propagate(errp, err);
    return false;
}

bool encrypted_load_done(QEMUFile *f)
{
    EncryptedIncoming *in = current_incoming();
    Error *err = NULL;

    QEMU_LOCK_GUARD(&in->lock);
    if (!in->receiver || encrypted_receiver_done(in->receiver, &err)) {
        return true;
    }
    qemu_file_set_error(f, -EINVAL);
    report(err);
    return false;
}
