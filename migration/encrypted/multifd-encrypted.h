/*
 * Pages of confidential guests in multifd's channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A shared page is copied while its state is held, and travels as one of
 * multifd's own; a run of private pages is packed by the migration thread and
 * travels as state of the section "ram".  See
 * docs/devel/migration/encrypted-pages.rst.
 *
 * Where it is said of nothing else, functions are the migration thread's.
 */
#ifndef MIGRATION_MULTIFD_ENCRYPTED_H
#define MIGRATION_MULTIFD_ENCRYPTED_H

#include "migration/multifd.h"

/* Section, and instance, of a packet with a record of private pages */
#define MULTIFD_ENCRYPTED_IDSTR "ram"
#define MULTIFD_ENCRYPTED_INSTANCE 0

void multifd_encrypted_save_setup(void);

/** multifd_encrypted_save_cleanup: the channels may still have work */
void multifd_encrypted_save_cleanup(void);

/**
 * multifd_encrypted_room: where to copy a shared page of @rb to.  Nothing is
 * sent without multifd_encrypted_queue().  May wait for a channel, so no lock
 * of a conversion's may be held.  NULL: a channel has failed.
 */
uint8_t *multifd_encrypted_room(RAMBlock *rb);

/**
 * multifd_encrypted_queue: the page is where the last call of
 * multifd_encrypted_room() said; @offset: bytes in its block
 */
void multifd_encrypted_queue(ram_addr_t offset);

/**
 * multifd_encrypted_flush: give what is queued to a channel.  False: a
 * channel has failed.
 */
bool multifd_encrypted_flush(void);

/** multifd_encrypted_free: the memory for copies of @pages */
void multifd_encrypted_free(MultiFDPages_t *pages);

/**
 * multifd_encrypted_offset: of page @i of @pages in its block; channel's
 * thread
 */
ram_addr_t multifd_encrypted_offset(const MultiFDPages_t *pages, int i);

/* Destination: threads of the channels */

/**
 * multifd_encrypted_recv_stage: the header of a packet of pages has been
 * read; the pages of a block that can have private ones go to memory of the
 * channel's own
 */
int multifd_encrypted_recv_stage(MultiFDRecvParams *p, Error **errp);

/** multifd_encrypted_recv_place: they are there: put them where they belong */
int multifd_encrypted_recv_place(MultiFDRecvParams *p, Error **errp);

/** multifd_encrypted_recv_free: BQL, the thread has ended */
void multifd_encrypted_recv_free(MultiFDRecvParams *p);

/* Destination: main thread */

/**
 * multifd_encrypted_recv_wait: wait for @sem, which channels post.  If a
 * confidential guest is loaded in a coroutine, it yields meanwhile, because the
 * channels may wait for the platform.
 */
void coroutine_mixed_fn multifd_encrypted_recv_wait(QemuSemaphore *sem);

/** multifd_encrypted_recv_join: the same for the end of a channel's @thread */
void coroutine_mixed_fn multifd_encrypted_recv_join(QemuThread *thread);

#endif
