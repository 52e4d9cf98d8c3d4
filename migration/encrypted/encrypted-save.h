/*
 * Sender of a confidential guest's pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ram.c searches for dirty pages.  It hands every page of a RAMBlock that can
 * have private pages to encrypted_save_page().  All functions do nothing if
 * the machine has no confidential guest support, or if this support has no
 * operations for migration.  The migration thread calls the functions, unless
 * their comment says otherwise.
 */
#ifndef MIGRATION_ENCRYPTED_SAVE_H
#define MIGRATION_ENCRYPTED_SAVE_H

#include "exec/cpu-common.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "migration/qemu-file.h"
#include "encrypted-session.h"

struct RAMState;

/* Clears a page's bit in ram.c's dirty bitmap; bitmap_mutex held */
typedef bool EncryptedClearDirty(struct RAMState *rs, RAMBlock *rb,
                                 unsigned long page);

/**
 * encrypted_save_setup: open the session and send its record.  Called with the
 * BQL held.
 * @f: the main channel, for all records that do not go through multifd
 * @rs, @clear_dirty: to clear the dirty bits of the further pages that
 *                    encrypted_save_page() sends in the same record
 * @bitmap_mutex: of @rs.  encrypted_save_page() releases it while it waits.
 */
bool encrypted_save_setup(QEMUFile *f, struct RAMState *rs,
                          EncryptedClearDirty *clear_dirty,
                          QemuMutex *bitmap_mutex, Error **errp);

/**
 * encrypted_save_sync: called when a round begins, before the dirty log is
 * read.  An error fails the migration.  The caller is the migration thread or,
 * while a round is under way, the main thread.
 * @round: number of the round, from 1
 */
void encrypted_save_sync(uint64_t round);

/**
 * encrypted_save_synced: called when ram.c has copied all bits of the dirty log
 * to its dirty bitmap.  The caller has held bitmap_mutex since before it copied
 * the first bit, so the sender has not yet seen any of these bits.  Called by
 * the same threads as encrypted_save_sync().
 * @last_stage: there will be no other round
 */
void encrypted_save_synced(bool last_stage);

/**
 * encrypted_save_confidential: encrypted_save_page() for a RAMBlock that can
 * have private pages
 */
bool encrypted_save_confidential(RAMBlock *rb, unsigned long page, int *res);

/** encrypted_save_copy: the copy that encrypted_save_contents() returns */
uint8_t *encrypted_save_copy(void);

/**
 * encrypted_save_page: send a page, if it takes another path than pages of
 * ordinary guests
 * @page: index in @rb.  The caller has cleared its dirty bit.
 * @res: returns how many pages were sent, or -errno, with the error in the file
 *       unless a channel of multifd has failed.  More than one: private pages
 *       behind @page were dirty and were sent in the same record.  0: the guest
 *       is converting the page, which was marked dirty again.
 *
 * Returns false, with @res not set, if the caller has to send the page.  The
 * page is shared then, and its contents are at encrypted_save_contents().
 *
 * The caller holds bitmap_mutex.  The function releases it and takes it again
 * while it waits for the platform or for a channel of multifd.
 */
static inline bool encrypted_save_page(RAMBlock *rb, unsigned long page,
                                       int *res)
{
    /*
     * Sending a page of an ordinary guest takes less than 200 ns in total, so
     * avoid a function call.
     */
    return unlikely(qatomic_read(&rb->encbmap)) &&
           encrypted_save_confidential(rb, page, res);
}

/**
 * encrypted_save_contents: contents of the page at byte @offset of @rb, for
 * which encrypted_save_page() has just returned false.  These are a copy if
 * the page could become private before the caller has read it.
 */
static inline uint8_t *encrypted_save_contents(RAMBlock *rb,
                                               ram_addr_t offset)
{
    return likely(!qatomic_read(&rb->encbmap)) ? rb->host + offset :
           encrypted_save_copy();
}

/**
 * encrypted_save_took_time: may sending the last @pages pages have taken long?
 * If so, ram_save_iterate() looks at the clock now.  Otherwise it looks at the
 * clock only in every 64th iteration.
 *
 * True after a run of private pages, because packing a page takes milliseconds.
 * A huge page of an ordinary guest has many pages, too, but QEMU sends these so
 * fast that looking at the clock would only slow the migration down.
 */
static inline bool encrypted_save_took_time(int pages)
{
    return pages > 1 && encrypted_session_is_open();
}

/**
 * encrypted_save_host_page: number of bytes of @rb to send before the caller
 * looks at the clock, the rate limit and the end of the migration.
 *
 * For an ordinary guest, this number is the size of a host page, because
 * postcopy needs whole host pages.  A confidential guest has no postcopy, and
 * the platform takes seconds or minutes for a huge page.
 */
static inline size_t encrypted_save_host_page(RAMBlock *rb)
{
    return likely(!qatomic_read(&rb->encbmap)) ? qemu_ram_pagesize(rb) :
           qemu_target_page_size();
}

/**
 * encrypted_save_ignore_hint: must @npages pages from byte @offset of @rb be
 * sent although the guest says that they are free?
 */
bool encrypted_save_ignore_hint(RAMBlock *rb, uint64_t offset,
                                uint64_t npages);

/**
 * encrypted_save_final: called with the BQL held when the guest is stopped and
 * all pages are sent.  Returns 0, or -errno, with the error in the file unless
 * a channel of multifd has failed.
 */
int encrypted_save_final(void);

/** encrypted_save_cleanup: called with the BQL held after the migration */
void encrypted_save_cleanup(void);

#endif
