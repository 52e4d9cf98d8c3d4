/*
 * Features that do not work with the migration of a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All functions accept everything if the machine has no confidential guest
 * support, or if this support has no operations for migration.
 */
#ifndef MIGRATION_ENCRYPTED_POLICY_H
#define MIGRATION_ENCRYPTED_POLICY_H

#include "system/confidential-guest-migration.h"

/**
 * encrypted_migration_ops: the machine's operations for migrating private
 * memory, or NULL if it has none
 * @cgs: returns the machine's confidential guest support, or NULL
 */
const ConfidentialGuestMigrationOps *
encrypted_migration_ops(ConfidentialGuestSupport **cgs);

/**
 * encrypted_policy_check_send: can the guest leave with the present
 * capabilities, parameters, RAMBlocks and platform?  Called with the BQL held.
 * @cgs, @ops: from encrypted_migration_ops(), not NULL
 */
bool encrypted_policy_check_send(ConfidentialGuestSupport *cgs,
                                 const ConfidentialGuestMigrationOps *ops,
                                 Error **errp);

/**
 * encrypted_policy_check_receive: can a confidential guest arrive with the
 * capabilities and the mode of this side?
 */
bool encrypted_policy_check_receive(Error **errp);

/**
 * encrypted_policy_check_snapshot: can a snapshot of the guest be taken or
 * loaded?  The caller must ask before it changes anything.  Called with the BQL
 * held.
 */
bool encrypted_policy_check_snapshot(Error **errp);

/**
 * encrypted_policy_allow_postcopy: may the source announce postcopy to this
 * destination?  Returns false after reporting an error.
 */
bool encrypted_policy_allow_postcopy(void);

/**
 * encrypted_policy_channels_only: are multifd's channels for pages only?
 *
 * Returns true on both sides if the guest has private memory, because the
 * destination of such a guest accepts only pages from a channel.  VFIO devices
 * then send their state through the main channel.  A VFIO device that the user
 * has configured to use multifd's channels refuses the migration.
 */
bool encrypted_policy_channels_only(void);

#endif
