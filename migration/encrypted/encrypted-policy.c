/*
 * Features that do not work with the migration of a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/rcu.h"
#include "qapi/error.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "hw/boards.h"
#include "encrypted-policy.h"
#include "encrypted-records.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "trace.h"

typedef enum Side {
    SEND = 1,
    RECEIVE = 2,
    BOTH = SEND | RECEIVE,
} Side;

static bool flush_after_each_section(void)
{
    return migrate_multifd() && migrate_multifd_flush_after_each_section();
}

static bool no_return_path(void)
{
    return !migrate_return_path();
}

/*
 * Reasons to refuse a confidential guest: features that send pages without
 * checking their state, features that start the guest before all of its pages
 * have arrived, and settings with which the guest could be lost.  Each side
 * refuses the guest for the reasons that concern this side.
 */
static const struct {
    bool (*applies)(void);
    Side side;
    const char *message;        /* error text after "A confidential guest" */
} refusals[] = {
    { migrate_xbzrle, BOTH,
      "cannot be migrated with capability xbzrle: migrate without it" },
    { migrate_postcopy_ram, BOTH,
      "cannot be migrated with capability postcopy-ram: migrate without it" },
    { migrate_dirty_bitmaps, BOTH,
      "cannot be migrated with capability dirty-bitmaps: migrate without it" },
    { migrate_mapped_ram, BOTH,
      "cannot be migrated with capability mapped-ram: migrate without it" },
    { migrate_background_snapshot, BOTH,
      "cannot be migrated with capability background-snapshot: migrate "
      "without it" },
    { migrate_colo, BOTH,
      "cannot be migrated with capability x-colo: migrate without it" },
    { migrate_ignore_shared, BOTH,
      "cannot be migrated with capability x-ignore-shared: migrate without "
      "it" },
    { migrate_zero_copy_send, BOTH,
      "cannot be migrated with capability zero-copy-send: migrate without it" },
    { migrate_rdma, BOTH,
      "cannot be migrated with transport rdma: migrate without it" },
    /*
     * With multifd-flush-after-each-section, the destination waits for the
     * channels only when it reads the end of a section.  The source sends the
     * final records before the end of the last section, so the destination
     * would load the final records before it has all pages from the channels.
     */
    { flush_after_each_section, BOTH,
      "cannot be migrated with capability multifd and property "
      "multifd-flush-after-each-section, which machine types up to 8.0 have: "
      "use -global migration.multifd-flush-after-each-section=off at both "
      "sides" },
    /*
     * QEMU does not slow down a vCPU that exceeds its limit by up to
     * DIRTYLIMIT_TOLERANCE_RANGE (25 MB/s).  A platform packs fewer bytes per
     * second than that, so the migration might not converge.
     */
    { migrate_dirty_limit, SEND,
      "cannot be migrated with capability dirty-limit, which lets a vCPU "
      "write 25 MB/s more than its limit: use auto-converge" },
    /*
     * Without an answer of the destination, "completed" would mean only that
     * all bytes were written, and the guest could be lost.
     */
    { no_return_path, SEND,
      "can only be migrated with capability return-path, through which the "
      "destination says that it has the guest: switch it on.  Saving to a "
      "file (virsh save, managedsave, dump) and tunnelled migration (virsh "
      "migrate --tunnelled) have no return path: use virsh migrate --live "
      "without --tunnelled" },
};

static bool check_features(Side side, Error **errp)
{
    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        if ((refusals[i].side & side) && refusals[i].applies()) {
            error_setg(errp, "A confidential guest %s", refusals[i].message);
            return false;
        }
    }
    if (migrate_mode() != MIG_MODE_NORMAL) {
        error_setg(errp, "A confidential guest cannot be migrated in mode %s: "
                   "use mode normal", MigMode_str(migrate_mode()));
        return false;
    }
    return true;
}

static bool check_blocks(Error **errp)
{
    g_autoptr(GPtrArray) blocks = NULL;

    RCU_READ_LOCK_GUARD();
    blocks = encrypted_blocks();
    for (guint i = 0; i < blocks->len; i++) {
        RAMBlock *rb = g_ptr_array_index(blocks, i);

        /* The platform cannot pack a discarded page, which has no contents */
        if (memory_region_has_ram_discard_manager(rb->mr)) {
            error_setg(errp, "block %s: a confidential guest cannot be "
                       "migrated with memory that can be discarded: unplug "
                       "the device", rb->idstr);
            return false;
        }
    }
    return true;
}

const ConfidentialGuestMigrationOps *
encrypted_migration_ops(ConfidentialGuestSupport **cgs)
{
    *cgs = current_machine ? current_machine->cgs : NULL;
    if (!*cgs) {
        return NULL;
    }
    return CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(*cgs)->migration;
}

bool encrypted_policy_check_send(ConfidentialGuestSupport *cgs,
                                 const ConfidentialGuestMigrationOps *ops,
                                 Error **errp)
{
    ERRP_GUARD();

    if (check_features(SEND, errp) && check_blocks(errp) &&
        ops->can_send(cgs, errp)) {
        return true;
    }
    trace_encrypted_pages_refused(error_get_pretty(*errp));
    return false;
}

bool encrypted_policy_check_receive(Error **errp)
{
    return check_features(RECEIVE, errp);
}

bool encrypted_policy_check_snapshot(Error **errp)
{
    ConfidentialGuestSupport *cgs;

    if (!encrypted_migration_ops(&cgs)) {
        return true;
    }
    error_setg(errp, "No snapshot of a confidential guest can be taken or "
               "loaded: its private memory can only move to a platform that "
               "takes it.  Migrate the guest, or take snapshots of its disks "
               "only");
    return false;
}

bool encrypted_policy_allow_postcopy(void)
{
    ConfidentialGuestSupport *cgs;

    if (!encrypted_migration_ops(&cgs)) {
        return true;
    }
    error_report("Cannot switch to postcopy: a confidential guest can start "
                 "only after the destination has received all of its pages");
    return false;
}

bool encrypted_policy_channels_only(void)
{
    ConfidentialGuestSupport *cgs;

    return encrypted_migration_ops(&cgs);
}
