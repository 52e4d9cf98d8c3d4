/*
 * Confidential guests in query-migrate and "info migrate"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_ENCRYPTED_QUERY_H
#define MIGRATION_ENCRYPTED_QUERY_H

#include "qapi/qapi-types-migration.h"
#include "monitor/monitor.h"

/**
 * encrypted_query: add to @info the statistics of the current or last
 * migration, whether it succeeded or not, and the reasons why the guest cannot
 * leave at present.  Called with the BQL held.
 */
void encrypted_query(MigrationInfo *info);

/** encrypted_query_print: print @stats; nothing if NULL */
void encrypted_query_print(Monitor *mon, const EncryptedRamStats *stats);

#endif
