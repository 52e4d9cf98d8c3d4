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
 * connection without TLS.  There is no warning for UNIX sockets, pipes and
 * files, because the administrator protects them.
 */
void encrypted_channel_check(QEMUFile *f, EncryptedStats *stats);

#endif
