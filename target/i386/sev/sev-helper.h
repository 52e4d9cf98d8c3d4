/*
 * Migration helper of an SEV guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The helper is a small program that is launched with the guest and measured
 * with it.  During a migration it runs on hidden vCPUs of the guest's VM.  It
 * seals private pages with a key that only the two helpers know, which is much
 * faster than packing them by the firmware.  The firmware only takes the helper
 * itself, with its key, to the destination.
 *
 * A file calls only functions of files above it: sev-helper-vcpu.c,
 * sev-helper-memory.c, sev-helper-cpus.c, sev-helper-map.c, sev-helper.c,
 * sev-helper-send.c and sev-helper-receive.c.
 */
#ifndef TARGET_I386_SEV_HELPER_H
#define TARGET_I386_SEV_HELPER_H

#include "qemu/stats64.h"
#include "sev-helper-cpus.h"
#include "sev-helper-map.h"
#include "sev-migration-internal.h"

typedef enum SevHelperPhase {
    /* No session, or one in which the firmware packs all private pages */
    SEV_HELPER_OFF,
    /* The helper has a new key; the destination's answer is awaited */
    SEV_HELPER_OFFERED,
    /* The destination has announced that it accepts a helper */
    SEV_HELPER_ACCEPTED,
    /* The helper seals or opens all private pages */
    SEV_HELPER_SENDING,
    SEV_HELPER_RECEIVING,
} SevHelperPhase;

/**
 * SevHelper: the helper of an SEV guest
 * @path: property migration-helper: name of the file
 * @image: contents that the private memory has at the launch.  NULL after the
 *         launch, and if the contents arrive by migration
 * @end: guest-physical address of the end of the helper's memory, or 0 if the
 *       machine has not placed the memory
 * @present: the memory contains the helper, which was launched or has arrived
 * @uncovers: memory regions that make hidden RAM accessible to the helper, from
 *            sev_helper_map_prepare(); BQL
 * @map: addresses of the guest's RAM, while there is a session
 * @phase: atomic.  Any thread reads it.  At the source, sev_helper_send_start()
 *         and sev_helper_send_done() change it with the BQL.  Between these two
 *         calls, only the migration thread changes it.  At the destination, the
 *         main thread changes it.
 * @waited: the migration thread has waited for @answered
 * @pages: number of pages sealed or opened in this session
 * @lock: protects the members after it; no other lock is taken while it is held
 * @changed: @answered has changed
 * @answered: the destination's answer has arrived
 * @theirs: version of the helper that the destination accepts, or
 *          SEV_WIRE_HELPER_*; valid if @answered
 * @why_not: the last reason for which the firmware, and not the helper, packs
 *           the guest's pages; NULL if no reason is known.  The source clears
 *           it when it opens a session, and again when the helper is ready to
 *           seal pages.
 */
typedef struct SevHelper {
    char *path;
    uint8_t *image;
    uint64_t end;
    Notifier machine_done;
    bool present;
    SevHelperMemory memory;
    SevHelperCpus cpus;
    GPtrArray *uncovers;
    SevHelperMap *map;
    SevHelperPhase phase;
    bool waited;
    Stat64 pages;
    QemuMutex lock;
    QemuCond changed;
    bool answered;
    uint8_t theirs;
    char *why_not;
} SevHelper;

/* sev-helper.c */

/** sev_helper_class_init: add the property "migration-helper" */
void sev_helper_class_init(ObjectClass *oc);

/**
 * sev_helper_kvm_init: prepare the helper of @cgs, if it shall have one.  To be
 * called once, when the VM is made.  BQL.
 */
bool sev_helper_kvm_init(ConfidentialGuestSupport *cgs, Error **errp);

/**
 * sev_helper_open: a session begins.  Make the hidden vCPUs, and find the
 * addresses of the guest's RAM.  BQL.
 */
bool sev_helper_open(SevHelper *h, Error **errp);

/**
 * sev_helper_close: undo sev_helper_open() after the session has ended, and set
 * the phase to SEV_HELPER_OFF.  No other thread uses @h.  BQL.
 */
void sev_helper_close(SevHelper *h);

/**
 * sev_helper_set_why_not: warn the user that the firmware packs the pages
 * because of @err, store the text of @err in @h->why_not, and free @err
 */
void sev_helper_set_why_not(SevHelper *h, Error *err);

/** sev_helper_why_not: @h->why_not, to be freed with g_free.  Any thread. */
char *sev_helper_why_not(SevHelper *h);

/**
 * sev_helper_info: the part of query-sev about the helper of @m, or NULL if the
 * guest has none.  BQL.
 */
SevMigrationHelperInfo *sev_helper_info(SevMigration *m);

/** sev_helper_get_phase: any thread; @h may be NULL */
SevHelperPhase sev_helper_get_phase(const SevHelper *h);

/* sev-helper-send.c; @m->helper may be NULL */

/**
 * sev_helper_send_start: make the helper create a key, after SEND_START has
 * opened the firmware's session.  If that fails, the function warns the user,
 * and the firmware packs all pages.  BQL.
 */
void sev_helper_send_start(SevMigration *m);

/**
 * sev_helper_send_answer: record the destination's answer
 * @version: version of the helper that the destination accepts, or
 *           SEV_WIRE_HELPER_*
 *
 * Called by the thread of the return path.
 */
void sev_helper_send_answer(SevMigration *m, uint8_t version);

/** sev_helper_send_data: ConfidentialGuestMigrationOps.send_data */
bool sev_helper_send_data(ConfidentialGuestSupport *cgs, GByteArray *data,
                          Error **errp);

/** sev_helper_send_ready: ConfidentialGuestMigrationOps.send_ready */
int sev_helper_send_ready(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                          uint64_t offset, size_t npages, Error **errp);

/**
 * sev_helper_send_pages: ConfidentialGuestMigrationOps.send_pages.  The phase
 * is SEV_HELPER_SENDING.  Any thread.
 */
int sev_helper_send_pages(SevHelper *h, unsigned channel, RAMBlock *rb,
                          uint64_t offset, size_t npages, GByteArray *out,
                          Error **errp);

/** sev_helper_send_round: ConfidentialGuestMigrationOps.send_round */
bool sev_helper_send_round(ConfidentialGuestSupport *cgs, Error **errp);

/**
 * sev_helper_send_final: append the helper's last batch to @final, if the
 * helper has sealed pages.  @h may be NULL.
 */
bool sev_helper_send_final(SevHelper *h, GByteArray *final, Error **errp);

/** sev_helper_sent: ConfidentialGuestMigrationOps.send_helper */
uint64_t sev_helper_sent(ConfidentialGuestSupport *cgs, char **why_not);

/**
 * sev_helper_send_done: make the helper wipe its key, and stop the helper's
 * vCPUs, at the end of the session.  BQL.
 */
void sev_helper_send_done(SevMigration *m);

/* sev-helper-receive.c */

/**
 * sev_helper_receive_answer: return the version of the helper that this host
 * accepts, or SEV_WIRE_HELPER_*.  Called with the BQL held, after the firmware
 * has executed RECEIVE_START.
 */
uint8_t sev_helper_receive_answer(SevMigration *m);

/** sev_helper_receive_data: ConfidentialGuestMigrationOps.receive_data */
bool sev_helper_receive_data(ConfidentialGuestSupport *cgs,
                             const uint8_t *data, size_t len, Error **errp);

/** sev_helper_receive_private: ConfidentialGuestMigrationOps.receive_private */
void sev_helper_receive_private(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                                uint64_t offset, uint64_t npages);

/**
 * sev_helper_receive_pages: open pages that sev_helper_send_pages() has sealed.
 * @in is untrusted.  The phase is SEV_HELPER_RECEIVING.
 */
bool sev_helper_receive_pages(SevHelper *h, RAMBlock *rb, uint64_t offset,
                              size_t npages, const uint8_t *in, size_t len,
                              Error **errp);

/**
 * sev_helper_final_len: number of bytes in the helper's last batch, with which
 * the @len bytes of final data end; 0 if they do not contain a batch.  @h may
 * be NULL.
 */
size_t sev_helper_final_len(const SevHelper *h, size_t len);

/**
 * sev_helper_receive_final: make the helper open @in, the last batch that the
 * source's helper sealed, after all pages were received.  @in is untrusted.
 * The function does nothing if the helper is not in use.  @h may be NULL.
 */
bool sev_helper_receive_final(SevHelper *h, const uint8_t *in, size_t len,
                              Error **errp);

/**
 * sev_helper_receive_done: stop the helper's vCPUs at the end of the session.
 * @m->helper may be NULL.  BQL.
 */
void sev_helper_receive_done(SevMigration *m);

#endif
