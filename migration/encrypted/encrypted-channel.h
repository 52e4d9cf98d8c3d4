/*
 * Protection of the migration channel of a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_ENCRYPTED_CHANNEL_H
#define MIGRATION_ENCRYPTED_CHANNEL_H

#include "encrypted-stats.h"
#include "migration/qemu-file.h"

/**
 * encrypted_channel_check: warn, in the log and in @stats, if @f is a network
 * connection without TLS.  The administrator protects UNIX sockets, pipes and
 * files.
 */
void encrypted_channel_check(QEMUFile *f, EncryptedStats *stats);

#endif
