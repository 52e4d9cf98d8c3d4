/*
 * What protects the migration channel of a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_ENCRYPTED_CHANNEL_H
#define MIGRATION_ENCRYPTED_CHANNEL_H

#include "encrypted-stats.h"
#include "migration/qemu-file.h"

/**
 * encrypted_channel_check: warn, in the log and in @stats, if the guest is
 * about to leave through @f over a network without TLS.  Sockets of other
 * families, pipes and files are the administrator's to protect.
 */
void encrypted_channel_check(QEMUFile *f, EncryptedStats *stats);

#endif
