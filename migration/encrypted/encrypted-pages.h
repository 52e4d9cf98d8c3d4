/*
 * The road of private pages through a migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All of it does nothing, and says yes, for a machine without confidential
 * guest support that can migrate.  See
 * docs/devel/migration/encrypted-pages.rst.
 */
#ifndef MIGRATION_ENCRYPTED_PAGES_H
#define MIGRATION_ENCRYPTED_PAGES_H

#include "qapi/qapi-types-migration.h"
#include "exec/cpu-common.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "migration/qemu-file.h"

struct RAMState;

/* Clear the dirty bit of a page that is about to be sent */
typedef bool EncryptedPagesTake(struct RAMState *rs, RAMBlock *rb,
                                unsigned long page);

/**
 * encrypted_pages_channels_only: are channels of multifd for pages only?
 *
 * True for a guest with private memory, at both sides: the destination accepts
 * nothing else from a channel.  Devices (VFIO) then send their state through
 * the main channel, or refuse if they are told to use the channels.
 */
bool encrypted_pages_channels_only(void);

/* Source */

/**
 * encrypted_pages_prepare: can the migration that was asked for be done?
 * To be called before anything is connected.  BQL.
 */
bool encrypted_pages_prepare(Error **errp);

/**
 * encrypted_pages_allow_snapshot: can a snapshot of the guest be taken or
 * loaded?  To be called before anything is changed.  BQL.
 */
bool encrypted_pages_allow_snapshot(Error **errp);

/**
 * encrypted_pages_shutdown: QEMU ends: finish the session of a migration that
 * has completed.  BQL.
 */
void encrypted_pages_shutdown(void);

/** encrypted_pages_save_setup: open the session and send it to @f.  BQL. */
bool encrypted_pages_save_setup(QEMUFile *f, Error **errp);

/**
 * encrypted_pages_sync: a round begins; to be called before the dirty log is
 * read.  An error fails the migration.
 * @round: number of the round, from 1
 */
void encrypted_pages_sync(uint64_t round);

/**
 * encrypted_pages_synced: the dirty bitmap has what the log had.  To be called
 * before anything more is sent, with the mutex that keeps it from being sent:
 * the main thread may sync while a round is under way.
 */
void encrypted_pages_synced(void);

/**
 * encrypted_pages_save_confidential: encrypted_pages_save() of a page of a block
 * that can have private pages
 */
uint8_t *encrypted_pages_save_confidential(QEMUFile *f, RAMBlock *rb,
                                           unsigned long page, uint8_t *p,
                                           bool last_stage,
                                           EncryptedPagesTake *take,
                                           struct RAMState *rs,
                                           QemuMutex *bitmap_mutex,
                                           int *pages);

/**
 * encrypted_pages_save: send a private page, and private ones behind it that
 * are dirty
 * @page: its dirty bit is cleared already
 * @p: its content, in @rb
 * @last_stage: there will be no round after this one
 * @take: called with @rs for every further page that goes along
 * @bitmap_mutex: held; dropped while the platform packs pages or a channel is
 *                waited for, and held again on return
 * @pages: set if NULL is returned: how many private pages were sent, or -errno
 *         with the error in @f.  0: the page's state is changing, it was marked
 *         dirty again
 *
 * Returns the content of a page that the caller has to send: @p, or a copy if
 * the page could become private before the caller has read it.  NULL if there
 * is nothing left to do.  Takes the block's reader's lock; not held on return,
 * nor while @f is written to.
 */
static inline uint8_t *encrypted_pages_save(QEMUFile *f, RAMBlock *rb,
                                            unsigned long page, uint8_t *p,
                                            bool last_stage,
                                            EncryptedPagesTake *take,
                                            struct RAMState *rs,
                                            QemuMutex *bitmap_mutex,
                                            int *pages)
{
    /*
     * A plain guest's page takes less than 200 ns in all: no call, and nothing
     * whose address is taken
     */
    if (likely(!qatomic_read(&rb->encbmap))) {
        return p;
    }
    return encrypted_pages_save_confidential(f, rb, page, p, last_stage, take,
                                             rs, bitmap_mutex, pages);
}

/** encrypted_pages_sending: is a session open at the source? */
bool encrypted_pages_sending(void);

/**
 * encrypted_pages_took_time: shall the caller look at the clock, although it has
 * sent @pages pages only?
 *
 * Packing takes milliseconds a page.  A plain guest with huge pages sends many
 * at a time, too, but is not to be slowed down.
 */
static inline bool encrypted_pages_took_time(int pages)
{
    return pages > 1 && encrypted_pages_sending();
}

/**
 * encrypted_pages_host_page: bytes of @rb to send without a look at the time,
 * the rate limit and the migration's end.  That is a host page, because
 * postcopy needs whole ones, but a huge page takes the platform seconds or
 * minutes, and a confidential guest has no postcopy.
 */
static inline size_t encrypted_pages_host_page(RAMBlock *rb)
{
    return likely(!qatomic_read(&rb->encbmap)) ? qemu_ram_pagesize(rb) :
           qemu_target_page_size();
}

/**
 * encrypted_pages_ignore_hint: must @npages pages from byte @offset of @rb be
 * sent although the guest says that they are free?
 */
bool encrypted_pages_ignore_hint(RAMBlock *rb, uint64_t offset,
                                 uint64_t npages);

/**
 * encrypted_pages_save_final: the guest is stopped and all pages are sent.
 * Returns 0, or -errno with the error in @f.  BQL.
 */
int encrypted_pages_save_final(QEMUFile *f);

/** encrypted_pages_save_cleanup: free what the above allocated */
void encrypted_pages_save_cleanup(void);

/** encrypted_pages_stats: of the current or last migration; NULL if none */
EncryptedRamStats *encrypted_pages_stats(void);

/**
 * encrypted_pages_query: add to @info the statistics of the current or last
 * migration, whatever became of it, and why the guest cannot leave at present.
 * BQL.
 */
void encrypted_pages_query(MigrationInfo *info);

/** encrypted_pages_print: @stats for a person; nothing if NULL */
void encrypted_pages_print(Monitor *mon, const EncryptedRamStats *stats);

/* Destination */

bool encrypted_pages_load_setup(Error **errp);
void encrypted_pages_load_cleanup(void);

/**
 * encrypted_pages_load: read and act on a record from @f
 * @word: what was read as its address and flags
 *
 * Returns 0 or -errno, after reporting the error.  RCU read lock held.  In a
 * coroutine it yields while the platform unpacks pages.
 */
int encrypted_pages_load(QEMUFile *f, uint64_t word);

/**
 * encrypted_pages_load_yields: is this the coroutine in which a confidential
 * guest is loaded?  It must not block the main loop while the platform
 * unpacks pages.  Main thread.
 */
bool encrypted_pages_load_yields(void);

/**
 * encrypted_pages_load_plain: a plain page is about to be written at byte
 * @offset of @rb.  False after reporting an error.
 */
bool encrypted_pages_load_plain(RAMBlock *rb, uint64_t offset);

/**
 * encrypted_pages_load_copies: write plain pages to a block that can have
 * private ones; a channel's thread
 * @offset: bytes in @rb, of each; from the stream, not checked
 * @ncopies: pages whose contents are in @copies, one after the other
 * @nzero: pages after those, which are zero
 */
bool encrypted_pages_load_copies(RAMBlock *rb, const ram_addr_t *offset,
                                 uint32_t ncopies, uint32_t nzero,
                                 const uint8_t *copies, Error **errp);

/**
 * encrypted_pages_check_buffer: may @len bytes of state of section @idstr,
 * which need not end with a zero, be read from a channel?  Its thread.
 */
bool encrypted_pages_check_buffer(const char *idstr, size_t len, Error **errp);

/**
 * encrypted_pages_load_buffer: act on a record that came through a channel,
 * by its thread; SaveVMHandlers.load_state_buffer
 */
bool encrypted_pages_load_buffer(void *opaque, char *buf, size_t len,
                                 Error **errp);

/**
 * encrypted_pages_load_done: may the guest start?  False after reporting an
 * error and setting it in @f, so that the source learns of it.
 */
bool encrypted_pages_load_done(QEMUFile *f);

/** encrypted_pages_allow_postcopy: false after reporting an error */
bool encrypted_pages_allow_postcopy(void);

#endif
