/*
 * Loader of a confidential guest's pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Everything that is loaded is untrusted.  If the machine has no confidential
 * guest support, or if this support has no operations for migration, the
 * functions accept an ordinary guest and refuse a confidential one.
 */
#ifndef MIGRATION_ENCRYPTED_LOAD_H
#define MIGRATION_ENCRYPTED_LOAD_H

#include "exec/cpu-common.h"
#include "qemu/thread.h"
#include "migration/qemu-file.h"

/* MigrationIncomingState.encrypted */
typedef struct EncryptedIncoming {
    /*
     * Protects @receiver, and with it the state of all pages.  Held while the
     * platform unpacks a record, because it unpacks only one record at a time.
     *
     * Order: BQL, this lock, a RAMBlock's lock.  A thread that holds this lock
     * does not wait for the BQL, read from a channel or yield.  The coroutine
     * that loads the guest takes this lock with lock_receiver().
     */
    QemuMutex lock;
    /* NULL if the machine cannot receive a confidential guest */
    struct EncryptedReceiver *receiver;
    /*
     * Body of the record that is read from the main channel.  Only the main
     * thread uses this.
     */
    GByteArray *body;
    /* When the main loop ran last, in ms.  Only the main thread uses this. */
    int64_t slice_start;
    /* Which events were emitted.  Only the main thread uses these. */
    bool opened_event, finished_event;
    /* The source wants to know why the migration fails.  Atomic. */
    bool send_reason;
} EncryptedIncoming;

/** encrypted_load_init: called once, before anything is loaded */
void encrypted_load_init(EncryptedIncoming *in);

/** encrypted_load_setup: called with the BQL held before RAM is loaded */
bool encrypted_load_setup(Error **errp);

/**
 * encrypted_load_cleanup: called with the BQL held when the migration has ended
 */
void encrypted_load_cleanup(void);

/**
 * encrypted_load_record: read a record from @f and act on it
 * @word: the word of address and flags, which the caller has read
 *
 * Returns 0, or -errno after reporting the error.  The caller holds the RCU
 * read lock.  If the caller is a coroutine, the function yields while the
 * platform unpacks pages.
 */
int encrypted_load_record(QEMUFile *f, uint64_t word);

/**
 * encrypted_load_yields: is this the coroutine in which a confidential guest is
 * loaded?  Such a coroutine must not block the main loop while the platform
 * unpacks pages.  Called by the main thread.
 */
bool encrypted_load_yields(void);

/**
 * encrypted_load_plain: make the page at byte @offset of @rb shared, because
 * the caller is about to write a plain page there.  Returns false after
 * reporting an error.
 */
bool encrypted_load_plain(RAMBlock *rb, uint64_t offset);

/**
 * encrypted_load_copies: write plain pages to a RAMBlock that can have private
 * ones.  Called by the thread of a channel.
 * @offset: of each page, in bytes; from the stream, not checked
 * @ncopies: number of pages whose contents are in @copies, one after the other
 * @nzero: number of zero pages, whose offsets come after those of @copies
 */
bool encrypted_load_copies(RAMBlock *rb, const ram_addr_t *offset,
                           uint32_t ncopies, uint32_t nzero,
                           const uint8_t *copies, Error **errp);

/**
 * encrypted_load_check_buffer: may @len bytes of state of section @idstr be
 * read from a channel?  Called by the thread of the channel.
 * @idstr: need not be terminated
 */
bool encrypted_load_check_buffer(const char *idstr, size_t len, Error **errp);

/**
 * encrypted_load_buffer: act on a record from a channel.  This function is the
 * handler SaveVMHandlers.load_state_buffer of RAM.  The thread of the channel
 * calls it.
 */
bool encrypted_load_buffer(void *opaque, char *buf, size_t len, Error **errp);

/**
 * encrypted_load_done: may the guest start?  Returns false after reporting an
 * error and setting it in @f, so that the source learns of it.
 */
bool encrypted_load_done(QEMUFile *f);

#endif
