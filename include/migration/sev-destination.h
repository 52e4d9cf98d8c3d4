/*
 * Migration parameters: the certificates of an SEV guest's destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All that options.c does with a parameter, for these three.  Each is encoded
 * with base64; NULL or "" if not set.
 */
#ifndef MIGRATION_SEV_DESTINATION_H
#define MIGRATION_SEV_DESTINATION_H

#include "qapi/qapi-types-migration.h"

/** migrate_sev_destination: those of the next migration.  BQL */
const SevDestination *migrate_sev_destination(void);

/** sev_destination_check: is all that is set base64? */
bool sev_destination_check(const SevDestination *d, Error **errp);

/** sev_destination_set: put copies of those that @from has into @to */
void sev_destination_set(SevDestination *to, const SevDestination *from);

/**
 * sev_destination_overlay: as sev_destination_set(), but @to owns none of its
 * strings: they stay @from's
 */
void sev_destination_overlay(SevDestination *to, const SevDestination *from);

/** sev_destination_member: where @param is, which must be one of the three */
char **sev_destination_member(SevDestination *d, MigrationParameter param);

/** sev_destination_print: say which are set */
void sev_destination_print(Monitor *mon, SevDestination *d);

#endif
