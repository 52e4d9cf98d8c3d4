/*
 * Migration parameters: certificates of an SEV guest's destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All that options.c does with a parameter, for these.  The certificates are
 * encoded with base64; NULL or "" if not set.
 */
#ifndef MIGRATION_SEV_DESTINATION_H
#define MIGRATION_SEV_DESTINATION_H

#include "qapi/qapi-types-migration.h"
#include "qapi/visitor.h"

/** migrate_sev_destination: those of the next migration.  BQL */
const SevDestination *migrate_sev_destination(void);

/** sev_destination_query: put copies of those that @from has into @to */
void sev_destination_query(MigrationParameters *to,
                           const MigrationParameters *from);

/** sev_destination_apply: the same */
void sev_destination_apply(MigrationParameters *to,
                           const MigrateSetParameters *from);

/**
 * sev_destination_overlay: the same, but @to owns none of its strings: they
 * stay @from's
 */
void sev_destination_overlay(MigrationParameters *to,
                             const MigrateSetParameters *from);

/**
 * sev_destination_check: does all that is set have the format of the
 * certificates?  Only the firmware verifies signatures.
 */
bool sev_destination_check(const MigrationParameters *params, Error **errp);

/** sev_destination_visit: visit @param, which must be one of them */
void sev_destination_visit(MigrateSetParameters *params,
                           MigrationParameter param, Visitor *v, Error **errp);

/** sev_destination_print: say which are set */
void sev_destination_print(Monitor *mon, MigrationParameters *params);

#endif
