/*
 * Encryption bitmap of a RAMBlock: which of its pages are private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A bit is the state of a page and does not say whether the page is dirty:
 * sending the page does not change the bit.  A RAMBlock without a bitmap
 * (encbmap == NULL) has no private pages.
 *
 * Locking: each bitmap has a reader-writer lock.  A sender holds it as a
 * reader (encbitmap_send_lock()) from the test of a page's state until it has
 * copied the page, if the page is shared, or until it has cleared the page's
 * dirty bit, if the platform packs the page.  encbitmap_convert() holds the
 * lock as the writer. Bits change only under the writer's lock.  Therefore the
 * result of a test is valid as long as the caller holds the lock in either
 * mode; without the lock it is only a hint.
 */
#ifndef EXEC_ENCBITMAP_H
#define EXEC_ENCBITMAP_H

#include "exec/cpu-common.h"

typedef struct EncBitmap EncBitmap;

/**
 * EncBitmapProvider: connection to the kernel that keeps the state of pages
 * @name: for trace events
 * @dirties: @convert also marks the pages dirty, in the log that the next dirty
 *           sync reads.  @convert cannot mark pages that no memory slot
 *           contains, so encbitmap_convert() also marks each page whose bit
 *           changes.
 * @convert: convert [@offset, @offset + @size) bytes of @rb, completely or not
 *           at all.  Returns 0, or -errno.  With -EAGAIN, @error_offset (bytes
 *           in the RAMBlock) is the first page to which somebody holds a
 *           reference.  Called with the writer's lock held.
 * @sync: copy the kernel's state with encbitmap_update().  Called with the
 *        writer's lock held.  NULL if only the bitmap has the state.
 * @allocated: see encbitmap_allocated_run().  NULL: all pages are allocated.
 * @poisoned: see encbitmap_poisoned().  NULL: QEMU handles bad memory itself.
 * @release: called before the RAMBlock is unmapped and freed.  May be NULL.
 */
typedef struct EncBitmapProvider {
    const char *name;
    bool dirties;
    int (*convert)(RAMBlock *rb, uint64_t offset, uint64_t size,
                   bool to_private, uint64_t *error_offset);
    bool (*sync)(RAMBlock *rb, Error **errp);
    uint64_t (*allocated)(RAMBlock *rb, uint64_t page, uint64_t npages,
                          bool *allocated);
    bool (*poisoned)(RAMBlock *rb, uint64_t offset, uint64_t size);
    void (*release)(RAMBlock *rb);
} EncBitmapProvider;

/**
 * encbitmap_init: create the bitmap of @rb, if it does not exist yet
 * @provider: NULL if no kernel keeps the state
 * @all_private: present state of all pages
 *
 * The caller holds the BQL, or @rb is not visible to other threads yet.
 */
void encbitmap_init(RAMBlock *rb, const EncBitmapProvider *provider,
                    bool all_private);

/** encbitmap_free: free the bitmap of @rb; no thread may use it any more */
void encbitmap_free(RAMBlock *rb);

/** encbitmap_npages: number of bits of the bitmap of @rb; 0 without a bitmap */
uint64_t encbitmap_npages(const RAMBlock *rb);

/** encbitmap_test: is @page (index in the block, target pages) private? */
bool encbitmap_test(const RAMBlock *rb, uint64_t page);

/**
 * encbitmap_run: find the pages from @page on, and before @end, that have the
 * same state as @page.  Returns their number and sets @is_private to the state.
 * All pages of a RAMBlock without a bitmap are shared.
 */
uint64_t encbitmap_run(const RAMBlock *rb, uint64_t page, uint64_t end,
                       bool *is_private);

/**
 * encbitmap_allocated_run: find the pages from @page on, at most @npages, that
 * are all allocated or all unallocated.  Returns their number and sets
 * @allocated.
 *
 * All @npages pages must have the same state.  An unallocated page was never
 * accessed: it has neither memory nor contents.  The dirty log records the
 * first access to the page only if the page's dirty bit was cleared before the
 * access.  The sender therefore calls this function again after it has cleared
 * the bit.
 */
uint64_t encbitmap_allocated_run(RAMBlock *rb, uint64_t page, uint64_t npages,
                                 bool *allocated);

/**
 * encbitmap_poisoned: did a read of @page (index in the block, target pages)
 * return zeros because the host's memory is bad?  Call it after the read.
 */
bool encbitmap_poisoned(RAMBlock *rb, uint64_t page);

/** encbitmap_count: number of private pages in [@first, @first + @npages) */
uint64_t encbitmap_count(const RAMBlock *rb, uint64_t first, uint64_t npages);

/**
 * encbitmap_set: set the bits of pages [@first, @first + @npages)
 *
 * Neither calls the provider nor marks pages dirty.  Use it for the initial
 * state of pages, such as memory that is encrypted at launch.  The caller holds
 * the writer's lock, or there is no sender yet.
 */
void encbitmap_set(RAMBlock *rb, uint64_t first, uint64_t npages,
                   bool is_private);

/**
 * encbitmap_update: set the bits of pages [@first, @first + @npages) from @le,
 * a little-endian bitmap whose bit 0 is page @first.  If the provider does not
 * mark pages dirty (@dirties is false), this function marks all pages of each
 * word that changes.  Returns the number of words that changed.  The caller
 * holds the writer's lock.
 */
uint64_t encbitmap_update(RAMBlock *rb, uint64_t first, uint64_t npages,
                          const uint64_t *le);

/**
 * encbitmap_read: write the bits of pages [@first, @first + @npages) to @le, in
 * the format of encbitmap_update(); unused bits of the last word are 0
 */
void encbitmap_read(const RAMBlock *rb, uint64_t first, uint64_t npages,
                    uint64_t *le);

/**
 * encbitmap_convert: convert pages of a RAMBlock
 * @offset, @size: bytes in the RAMBlock, multiples of the target page size
 * @error_offset: may be NULL; see EncBitmapProvider
 *
 * Calls the provider, updates the bitmap, and marks the pages dirty for
 * migration before a sender can see the new state.  Takes the writer's lock.
 * Returns 0, or -errno with @errp set (-EAGAIN: the caller can try again
 * later).
 */
int encbitmap_convert(RAMBlock *rb, uint64_t offset, uint64_t size,
                      bool to_private, uint64_t *error_offset, Error **errp);

/**
 * encbitmap_sync: let each provider update its RAMBlock's bitmap.  Called once
 * a round, before the dirty log is read.  Takes the writer's lock of one
 * RAMBlock after the other.
 */
bool encbitmap_sync(Error **errp);

/**
 * encbitmap_send_lock: take the lock of @rb as a reader; without a bitmap, do
 * nothing
 *
 * The lock is not recursive.  The holder must not take the BQL, because a vCPU
 * may hold the BQL while it waits for the writer's lock.
 */
void encbitmap_send_lock(RAMBlock *rb);
void encbitmap_send_unlock(RAMBlock *rb);

#endif
