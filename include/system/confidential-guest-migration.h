/*
 * Operations that migrate the private memory of a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The migration code calls these operations and does not depend on a vendor.  A
 * vendor's implementation packs pages into bytes and unpacks them, and does not
 * depend on the format of the migration stream.  The vendor's bytes are opaque
 * in the stream, which docs/specs/encrypted-ram-migration.rst describes.
 *
 * A class whose guests can be migrated sets
 * ConfidentialGuestSupportClass.migration.
 *
 * The migration code passes only private pages to these operations.  The guest
 * may convert a page while send_pages packs it.  The packed page is then
 * useless, but the destination must be able to unpack it without harm.  The
 * source sends the page again, because a conversion marks it dirty (see
 * exec/encbitmap.h).
 */
#ifndef SYSTEM_CONFIDENTIAL_GUEST_MIGRATION_H
#define SYSTEM_CONFIDENTIAL_GUEST_MIGRATION_H

#include "system/confidential-guest-support.h"
#include "exec/cpu-common.h"

/* Maximum number of pages in one call of send_pages or receive_pages */
#define CGS_MIGRATION_PAGES_MAX 64
/* Maximum size in bytes of the session data, and also of the final data */
#define CGS_MIGRATION_SESSION_MAX (64 * KiB)
/* Maximum number of bytes that one call of send_data appends */
#define CGS_MIGRATION_DATA_MAX (128 * KiB)
/* A send_pages call appends at most this number of bytes per packed page */
#define CGS_MIGRATION_PAGE_MAX (4 * KiB + 512)

typedef struct ConfidentialGuestMigrationOps {
    /**
     * @can_send: can a migration of the guest to another host begin now?  If
     * not, the error says what is missing and what to do.  BQL.
     */
    bool (*can_send)(ConfidentialGuestSupport *cgs, Error **errp);

    /**
     * @is_willing: has the guest agreed to be migrated?  If not, the error says
     * what is missing and what to do.  Ignores migration blockers and
     * parameters that the user must set for the destination.  BQL.  NULL:
     * every guest has agreed.
     */
    bool (*is_willing)(ConfidentialGuestSupport *cgs, Error **errp);

    /**
     * @send_start: open the outgoing session.  Appends to @session what the
     * destination needs to open its side.  BQL.
     */
    bool (*send_start)(ConfidentialGuestSupport *cgs, GByteArray *session,
                       Error **errp);

    /**
     * @send_answer: handle the destination's answer to the session.  @data is
     * untrusted.  Before the answer arrives, and if the destination does not
     * support answers, send_pages must pack pages in a form that every
     * destination can receive.  Called at most once, by the thread of the
     * return path, from send_start until send_completed or send_done.  NULL:
     * the source does not ask for an answer.
     */
    bool (*send_answer)(ConfidentialGuestSupport *cgs, const uint8_t *data,
                        size_t len, Error **errp);

    /**
     * @send_data: append to @data what the destination's receive_data must
     * have before it can unpack pages that send_pages packs from now on.
     * Appends nothing if the destination needs nothing new.  May append
     * something only if the destination has said in its answer that it can
     * handle these data.  Migration thread, before each call of send_pages.
     * May wait up to a second for the answer, and may call the platform, which
     * can take longer.  NULL: the destination never needs anything.
     */
    bool (*send_data)(ConfidentialGuestSupport *cgs, GByteArray *data,
                      Error **errp);

    /**
     * @send_ready: how many of @npages pages of @rb from byte @offset on may
     * be packed by other threads than the migration thread?  If the result is
     * positive, several threads may pack pages at the same time, each with a
     * @channel of its own.  If it is 0, only the migration thread may pack
     * pages now.  On failure, the result is -errno as for @send_pages.
     * Migration thread.  NULL: always 0.
     */
    int (*send_ready)(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                      uint64_t offset, size_t npages, Error **errp);

    /**
     * @send_round: called after multifd's channels were flushed.  The
     * destination unpacks everything that was packed so far before it unpacks
     * later pages, so a page may now be packed by another channel than before.
     * Called by the migration thread while no other thread packs pages.  NULL:
     * nothing to do.
     */
    bool (*send_round)(ConfidentialGuestSupport *cgs, Error **errp);

    /**
     * @send_pages: pack @npages pages of @rb from byte @offset on, and append
     * them to @out
     * @channel: 0 if the migration thread packs the pages, otherwise the number
     *           of the multifd channel whose thread packs them, from 1.  The
     *           thread of a multifd channel packs only the pages that
     *           @send_ready has counted; @npages is then the number that
     *           @send_ready has returned.  The destination unpacks the pages
     *           of each channel, and of channel 0, in the order in which the
     *           source has packed them.
     *
     * Returns the number of pages that were packed.  This number is less than
     * @npages if the next page cannot be packed now, for example because the
     * guest is converting it.  If the first page cannot be packed now, the
     * result is -EAGAIN, and the caller has to send all pages of the call
     * later.  Other failures return another -errno.  With any -errno, @errp is
     * set and @out may have grown.
     */
    int (*send_pages)(ConfidentialGuestSupport *cgs, unsigned channel,
                      RAMBlock *rb, uint64_t offset, size_t npages,
                      GByteArray *out, Error **errp);

    /**
     * @send_final: called when the guest is stopped and all pages are sent.
     * Appends to @final all other data that the destination needs.
     */
    bool (*send_final)(ConfidentialGuestSupport *cgs, GByteArray *final,
                       Error **errp);

    /**
     * @send_completed: the migration has completed, and the destination has the
     * guest.  Nothing more is sent.  The session stays open, because the source
     * may take the guest back.  BQL.  NULL: nothing to do.
     */
    void (*send_completed)(ConfidentialGuestSupport *cgs);

    /**
     * @send_done: end the session.  BQL.
     *
     * @finish is true only if QEMU ends after send_completed.  @finish is false
     * if the guest continues on the source, because the migration has failed or
     * was cancelled, or because the source takes the guest back.  If the source
     * takes the guest back, this function is called before the vCPUs run.
     * Called exactly once after send_start, unless QEMU ends during the
     * migration.
     */
    void (*send_done)(ConfidentialGuestSupport *cgs, bool finish);

    /**
     * @send_calls: number of calls to the platform that packed pages since
     * send_start.  Any thread, from send_start until send_completed or
     * send_done.  NULL: not counted.
     */
    uint64_t (*send_calls)(ConfidentialGuestSupport *cgs);

    /**
     * @send_helper: number of pages that the migration helper, and not the
     * platform, has packed since send_start
     * @why_not: set to the reason why the guest's helper packs no pages, to be
     * freed with g_free; NULL if the helper packs pages, or if the guest has no
     * helper
     * Any thread, at the same times as send_calls.  The function pointer is
     * NULL if no guest can have a helper.
     */
    uint64_t (*send_helper)(ConfidentialGuestSupport *cgs, char **why_not);

    /** @receive_start: open the incoming session */
    bool (*receive_start)(ConfidentialGuestSupport *cgs,
                          const uint8_t *session, size_t len, Error **errp);

    /**
     * @receive_answer: called after receive_start, when the source asks for an
     * answer.  Appends to @answer up to 256 bytes, which the source passes to
     * its send_answer.  BQL.  NULL: the answer is empty.
     */
    void (*receive_answer)(ConfidentialGuestSupport *cgs, GByteArray *answer);

    /**
     * @receive_data: handle the data that one call of the source's send_data
     * has appended.  @data is untrusted.  BQL.  NULL: QEMU fails the migration
     * if the source sends such data.
     */
    bool (*receive_data)(ConfidentialGuestSupport *cgs, const uint8_t *data,
                         size_t len, Error **errp);

    /**
     * @receive_private: called before QEMU converts @npages pages of @rb from
     * byte @offset on to private, because it has received private pages or
     * their state.  At least one of the pages is still shared.  QEMU cannot
     * access the pages after the conversion.  NULL: nothing to do.
     */
    void (*receive_private)(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                            uint64_t offset, uint64_t npages);

    /**
     * @receive_pages: unpack pages that send_pages has packed.  @in is
     * untrusted.  If the function cannot unpack a page, the error names @rb
     * and the offset of this page, or of the first page if all pages are
     * unpacked together.
     */
    bool (*receive_pages)(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                          uint64_t offset, size_t npages,
                          const uint8_t *in, size_t len, Error **errp);

    /**
     * @receive_final: complete the incoming session.  Called when all pages
     * were received and their state was checked.
     */
    bool (*receive_final)(ConfidentialGuestSupport *cgs,
                          const uint8_t *final, size_t len, Error **errp);

    /**
     * @prepare_guest_memfd: prepare the VM for RAM in guest_memfds that are
     * converted in place.  Called once, before the first memory slot and the
     * first vCPU.  BQL.  NULL: the guest cannot have such RAM.
     */
    bool (*prepare_guest_memfd)(ConfidentialGuestSupport *cgs, Error **errp);

    /**
     * @guest_memfd_added: give the pages of @rb the state that the guest
     * expects.  @rb is a new RAMBlock in a guest_memfd that is converted in
     * place.  Its pages are shared, and the guest cannot access it yet.  BQL.
     * NULL: the pages stay shared.
     */
    bool (*guest_memfd_added)(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                              Error **errp);

    /** @can_run: may vCPUs run now?  BQL.  NULL: always. */
    bool (*can_run)(ConfidentialGuestSupport *cgs, Error **errp);
} ConfidentialGuestMigrationOps;

static inline bool confidential_guest_can_run(ConfidentialGuestSupport *cgs,
                                              Error **errp)
{
    const ConfidentialGuestMigrationOps *ops;

    if (!cgs) {
        return true;
    }
    ops = CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(cgs)->migration;
    return !ops || !ops->can_run || ops->can_run(cgs, errp);
}

#endif
