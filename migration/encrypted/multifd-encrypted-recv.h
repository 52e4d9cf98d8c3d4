/*
 * Pages of a confidential guest from multifd's channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A channel reads shared pages of a RAMBlock that can have private pages into
 * memory of its own, and then copies them while conversions wait.  See
 * docs/devel/migration/encrypted-pages.rst.
 */
#ifndef MIGRATION_MULTIFD_ENCRYPTED_RECV_H
#define MIGRATION_MULTIFD_ENCRYPTED_RECV_H

#include "migration/multifd.h"

/* Threads of the channels */

/**
 * multifd_encrypted_recv_check: may the channel read a packet of device state?
 * @p: the packet's header, not checked
 */
bool multifd_encrypted_recv_check(MultiFDRecvParams *p, Error **errp);

/**
 * multifd_encrypted_recv_stage: called when the channel has read the header of
 * a multifd packet with pages.  If the RAMBlock can have private pages, make
 * the channel read these pages to the channel's memory for copies, and not to
 * the RAMBlock.  Returns 0 or -1.
 */
int multifd_encrypted_recv_stage(MultiFDRecvParams *p, Error **errp);

/**
 * multifd_encrypted_recv_place: called when the channel has read the pages.
 * Copy them to the RAMBlock if the channel has not read them to the RAMBlock
 * directly.  Returns 0 or -1.
 */
int multifd_encrypted_recv_place(MultiFDRecvParams *p, Error **errp);

/* Main thread, BQL */

/** multifd_encrypted_recv_free: the channel's thread has ended */
void multifd_encrypted_recv_free(MultiFDRecvParams *p);

/**
 * multifd_encrypted_recv_wait: wait for @sem, which channels post.  The
 * coroutine that loads a confidential guest yields meanwhile, because the
 * channels may wait for the platform.
 */
void coroutine_mixed_fn multifd_encrypted_recv_wait(QemuSemaphore *sem);

/**
 * multifd_encrypted_recv_join: wait for @thread to end.  The coroutine that
 * loads a confidential guest yields meanwhile.
 */
void coroutine_mixed_fn multifd_encrypted_recv_join(QemuThread *thread);

#endif
