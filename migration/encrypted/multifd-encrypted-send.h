/*
 * Pages of a confidential guest to multifd's channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The migration thread copies a shared page while it holds the RAMBlock's lock,
 * and the copy is sent in one of multifd's packets of pages.  A record of
 * private pages is sent as device state of the section "ram".  See
 * docs/devel/migration/encrypted-pages.rst.
 *
 * The migration thread calls these functions, unless their comment says
 * otherwise.
 */
#ifndef MIGRATION_MULTIFD_ENCRYPTED_SEND_H
#define MIGRATION_MULTIFD_ENCRYPTED_SEND_H

#include "migration/multifd.h"

/**
 * MultiFDEncryptedJob: a run of private pages that a channel packs itself
 * @pack: packs the pages and appends their record to @record.  @channel is the
 *        number of the channel, from 1.  Called by the channel's thread, which
 *        holds the RCU read lock.
 * @opaque: for @pack
 * @rb, @offset, @npages: the pages; @offset in bytes
 * @index: of the RAMBlock in the session
 */
typedef struct MultiFDEncryptedJob MultiFDEncryptedJob;
struct MultiFDEncryptedJob {
    bool (*pack)(const MultiFDEncryptedJob *job, unsigned channel,
                 GByteArray *record, Error **errp);
    void *opaque;
    RAMBlock *rb;
    unsigned index;
    uint64_t offset;
    size_t npages;
};

void multifd_encrypted_send_setup(void);

/**
 * multifd_encrypted_send_cleanup: free the packet that is being filled.  The
 * channels may still send earlier ones.  BQL.
 */
void multifd_encrypted_send_cleanup(void);

/**
 * multifd_encrypted_send_record: let a channel send @record, which is copied.
 * Returns false if a channel has failed.
 */
bool multifd_encrypted_send_record(const GByteArray *record);

/**
 * multifd_encrypted_send_job: let a channel pack the pages of @job, which is
 * copied.  Returns false if a channel has failed.
 */
bool multifd_encrypted_send_job(const MultiFDEncryptedJob *job);

/**
 * multifd_encrypted_send_prepare: prepare a packet of device state.  If the
 * packet contains a job, pack the job's pages and replace the job by their
 * record first.
 *
 * Called by the channel's thread.  Returns -1 with @errp set if the pages
 * cannot be packed.
 */
int multifd_encrypted_send_prepare(MultiFDSendParams *p, Error **errp);

/**
 * multifd_encrypted_send_room: return where to copy a shared page of @rb to, or
 * NULL if a channel has failed.  The copy is sent only after
 * multifd_encrypted_send_queue().
 *
 * May wait for a channel.  The caller must hold no lock for which a conversion
 * or the main thread may wait.
 */
uint8_t *multifd_encrypted_send_room(RAMBlock *rb);

/**
 * multifd_encrypted_send_queue: queue a shared page.  The caller has copied its
 * contents to the address that multifd_encrypted_send_room() has returned.
 * @offset: offset of the page in its RAMBlock in bytes
 */
void multifd_encrypted_send_queue(ram_addr_t offset);

/**
 * multifd_encrypted_send_flush: give the queued pages to a channel.  Returns
 * false if a channel has failed.
 */
bool multifd_encrypted_send_flush(void);

/** multifd_encrypted_send_free: free the memory for copies of @pages */
void multifd_encrypted_send_free(MultiFDPages_t *pages);

/**
 * multifd_encrypted_send_offset: byte offset of page @i of @pages in its
 * RAMBlock.  The channel's thread.
 */
ram_addr_t multifd_encrypted_send_offset(const MultiFDPages_t *pages, int i);

#endif
