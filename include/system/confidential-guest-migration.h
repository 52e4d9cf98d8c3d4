/*
 * How the private memory of a confidential guest travels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The migration code calls these and knows no vendor; an implementation
 * knows no migration stream: it turns pages into bytes and back.  What the
 * bytes are is its own matter, and documented in
 * docs/specs/encrypted-ram-migration.rst.
 *
 * A class that can migrate sets ConfidentialGuestSupportClass.migration.
 * Only private pages are passed.  While they are packed the guest may convert
 * them: what is packed then is of no use, must do no harm, and is sent again,
 * because a conversion makes pages dirty (see exec/encbitmap.h).
 */
#ifndef SYSTEM_CONFIDENTIAL_GUEST_MIGRATION_H
#define SYSTEM_CONFIDENTIAL_GUEST_MIGRATION_H

#include "system/confidential-guest-support.h"
#include "exec/cpu-common.h"

/* Pages in one call of send_pages or receive_pages */
#define CGS_MIGRATION_PAGES_MAX 64
/* Bytes of a session, and bytes of a packed page, at the most */
#define CGS_MIGRATION_SESSION_MAX (64 * KiB)
#define CGS_MIGRATION_PAGE_MAX (4 * KiB + 512)

typedef struct ConfidentialGuestMigrationOps {
    /**
     * @can_send: may the guest leave now?  With an error that says what is
     * missing and what to do if not.  BQL.
     */
    bool (*can_send)(ConfidentialGuestSupport *cgs, Error **errp);

    /**
     * @is_willing: has the guest all that it needs to leave, apart from what
     * migration blockers say and what must be known of the destination?  With
     * an error that says what is missing and what to do if not.  BQL.  NULL:
     * always
     */
    bool (*is_willing)(ConfidentialGuestSupport *cgs, Error **errp);

    /**
     * @send_start: open the outgoing session; appends what the destination
     * needs to open its side to @session.  BQL.
     */
    bool (*send_start)(ConfidentialGuestSupport *cgs, GByteArray *session,
                       Error **errp);

    /**
     * @send_answer: the destination's answer to the session; @data is
     * untrusted.  Until it comes, and if it never comes because the
     * destination does not know answers, send what every destination can
     * receive.  At most once, by the thread of the return path, between
     * send_start and send_completed or send_done.  NULL: no answer is wanted
     */
    bool (*send_answer)(ConfidentialGuestSupport *cgs, const uint8_t *data,
                        size_t len, Error **errp);

    /**
     * @send_pages: pack @npages pages of @rb from byte @offset on, appending
     * to @out.  Returns how many were packed, which is fewer if the page
     * behind them changed its state meanwhile; or -errno with @errp set,
     * -EAGAIN if that was the first (nothing is wrong, send them again), and
     * @out may have grown all the same.  Migration thread.
     */
    int (*send_pages)(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                      uint64_t offset, size_t npages, GByteArray *out,
                      Error **errp);

    /**
     * @send_final: the guest is stopped and every page is sent; appends what
     * the destination needs besides to @final.
     */
    bool (*send_final)(ConfidentialGuestSupport *cgs, GByteArray *final,
                       Error **errp);

    /**
     * @send_completed: the migration has completed, and the guest is at the
     * destination.  The session stays open, because the guest may be taken
     * back; nothing more is sent.  BQL.  NULL: nothing to do
     */
    void (*send_completed)(ConfidentialGuestSupport *cgs);

    /**
     * @send_done: end the session.  With @finish after send_completed only:
     * QEMU ends.  Without: the guest goes on here, because the migration
     * failed or was cancelled, or because it is taken back after it had
     * completed; called before its vCPUs run then.  After send_start,
     * called at most once, and exactly once if QEMU does not end during the
     * migration.  BQL.
     */
    void (*send_done)(ConfidentialGuestSupport *cgs, bool finish);

    /**
     * @send_calls: how often the platform has been asked to pack pages since
     * send_start, each time any number of them.  Any thread, between
     * send_start and send_completed or send_done.  NULL: not counted
     */
    uint64_t (*send_calls)(ConfidentialGuestSupport *cgs);

    /** @receive_start: open the incoming session */
    bool (*receive_start)(ConfidentialGuestSupport *cgs,
                          const uint8_t *session, size_t len, Error **errp);

    /**
     * @receive_answer: after receive_start: append to @answer what the source's
     * send_answer is to know, up to 256 bytes.  Called only if the source asks
     * for it.  BQL.  NULL: nothing
     */
    void (*receive_answer)(ConfidentialGuestSupport *cgs, GByteArray *answer);

    /**
     * @receive_pages: the reverse of send_pages; @in is untrusted.  On an
     * error, @errp names the page's offset.
     */
    bool (*receive_pages)(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                          uint64_t offset, size_t npages,
                          const uint8_t *in, size_t len, Error **errp);

    /** @receive_final: everything has arrived and was checked */
    bool (*receive_final)(ConfidentialGuestSupport *cgs,
                          const uint8_t *final, size_t len, Error **errp);

    /** @can_run: may vCPUs run now?  BQL.  NULL: always. */
    bool (*can_run)(ConfidentialGuestSupport *cgs, Error **errp);

    /**
     * @prepare_guest_memfd: the guest's RAM will be guest_memfds that are
     * converted in place: make the VM ready.  Called once, before the first
     * memory slot and vCPU, with the BQL.  NULL: not possible.
     */
    bool (*prepare_guest_memfd)(ConfidentialGuestSupport *cgs, Error **errp);

    /**
     * @guest_memfd_added: @rb is a new one of these, all shared and not in the
     * guest's memory yet: give its pages the state that the guest takes them
     * to have.  BQL.  NULL: they stay shared.
     */
    bool (*guest_memfd_added)(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                              Error **errp);
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
