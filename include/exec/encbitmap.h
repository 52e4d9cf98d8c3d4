/*
 * Encryption bitmap of a RAMBlock: which of its pages are private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The bitmap is state, never dirtiness: sending a page does not change it.
 * A block without one (RAMBlock.encbmap == NULL) has no private page.
 *
 * Locking: a shared page is read under the state that it has then.  Senders
 * hold encbitmap_send_lock() around the test and the copy of the page, or
 * around the test and the clearing of its dirty bit, if the platform is to
 * pack it; encbitmap_convert() takes the same lock as its writer.  Bits change
 * under the writer's lock only, so either lock makes a test stable; without
 * a lock a test is a hint.
 */
#ifndef EXEC_ENCBITMAP_H
#define EXEC_ENCBITMAP_H

#include "exec/cpu-common.h"

typedef struct EncBitmap EncBitmap;

/**
 * EncBitmapProvider: who knows the state of a block's pages
 * @name: for trace events
 * @dirties: @convert marks the pages dirty itself (in the log that the next
 *           dirty sync reads), in the same step, where the guest sees them.
 *           QEMU then marks those besides that its bitmap has in another state.
 * @convert: change the state of [@offset, @offset + @size) bytes of @rb,
 *           whole or not at all.  0, or -errno; with -EAGAIN, @error_offset
 *           (bytes in the block) is the first page that somebody holds.
 *           Writer's lock held.
 * @sync: bring the bitmap up to date with encbitmap_update().  Writer's lock
 *        held.  NULL if the bitmap itself is the truth.
 * @allocated: see encbitmap_allocated_run().  NULL: all pages are allocated.
 * @release: the block is about to be unmapped and freed.  May be NULL.
 */
typedef struct EncBitmapProvider {
    const char *name;
    bool dirties;
    int (*convert)(RAMBlock *rb, uint64_t offset, uint64_t size,
                   bool to_private, uint64_t *error_offset);
    bool (*sync)(RAMBlock *rb, Error **errp);
    uint64_t (*allocated)(RAMBlock *rb, uint64_t page, uint64_t npages,
                          bool *allocated);
    void (*release)(RAMBlock *rb);
} EncBitmapProvider;

/**
 * encbitmap_init: give @rb a bitmap
 * @provider: NULL where no kernel keeps the state
 * @all_private: the state of every page now
 *
 * Does nothing if the block has one.  BQL or not yet visible block.
 */
void encbitmap_init(RAMBlock *rb, const EncBitmapProvider *provider,
                    bool all_private);

/** encbitmap_free: take the bitmap of @rb away; no sender may be left */
void encbitmap_free(RAMBlock *rb);

/** encbitmap_npages: bits in the bitmap of @rb, 0 without one */
uint64_t encbitmap_npages(const RAMBlock *rb);

/** encbitmap_test: is @page (index in the block, target pages) private? */
bool encbitmap_test(const RAMBlock *rb, uint64_t page);

/**
 * encbitmap_run: length in pages of the run of equal state that begins at
 * @page and ends at @end at the latest; @is_private tells the state.  A block
 * without a bitmap is one shared run.
 */
uint64_t encbitmap_run(const RAMBlock *rb, uint64_t page, uint64_t end,
                       bool *is_private);

/**
 * encbitmap_allocated_run: length in pages of the run that begins at @page,
 * has @npages at the most, and is as a whole allocated or not, which
 * @allocated tells
 *
 * All of the pages are private.  One that is not allocated has no memory
 * behind it and no content: nobody has accessed it.  Who does so from now on
 * makes it dirty.
 */
uint64_t encbitmap_allocated_run(RAMBlock *rb, uint64_t page, uint64_t npages,
                                 bool *allocated);

/** encbitmap_count: private pages in [@first, @first + @npages) */
uint64_t encbitmap_count(const RAMBlock *rb, uint64_t first, uint64_t npages);

/**
 * encbitmap_set: record the state of pages [@first, @first + @npages) without
 * telling the provider or the dirty log: for the provider itself and for what
 * was launched.  Writer's lock held, or no sender yet.
 */
void encbitmap_set(RAMBlock *rb, uint64_t first, uint64_t npages,
                   bool is_private);

/**
 * encbitmap_update: take over pages [@first, @first + @npages) from @le, a
 * little-endian bitmap whose bit 0 is page @first.  Zero words count as any
 * other.  Where the provider does not mark pages dirty itself, those that
 * changed are, with those that share a word with them.  Returns in how
 * many words of the bitmap.  Writer's lock held.
 */
uint64_t encbitmap_update(RAMBlock *rb, uint64_t first, uint64_t npages,
                          const uint64_t *le);

/**
 * encbitmap_read: the reverse of encbitmap_update(); unused bits of the last
 * word of @le are 0
 */
void encbitmap_read(const RAMBlock *rb, uint64_t first, uint64_t npages,
                    uint64_t *le);

/**
 * encbitmap_convert: change the state of a range of a block
 * @offset, @size: bytes in the block, multiples of the target page size
 * @error_offset: may be NULL; see EncBitmapProvider
 *
 * Tells the provider, updates the bitmap and marks what changed dirty for
 * migration, before any sender can see the new state.  Takes the writer's
 * lock.  Returns 0, or -errno with @errp set (-EAGAIN: try again later).
 */
int encbitmap_convert(RAMBlock *rb, uint64_t offset, uint64_t size,
                      bool to_private, uint64_t *error_offset, Error **errp);

/**
 * encbitmap_sync: every block's provider brings its bitmap up to date.
 * Called once a round, before the dirty log is read.  Takes each block's
 * writer's lock.
 */
bool encbitmap_sync(Error **errp);

/**
 * encbitmap_send_lock: reader's lock of @rb; a no-op without a bitmap
 *
 * Not recursive.  Whoever holds it takes no BQL: a vCPU may wait for the
 * writer's lock with the BQL held.
 */
void encbitmap_send_lock(RAMBlock *rb);
void encbitmap_send_unlock(RAMBlock *rb);

#endif
