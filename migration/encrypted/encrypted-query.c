/*
 * Confidential guests in query-migrate and "info migrate"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "system/runstate.h"
#include "encrypted-policy.h"
#include "encrypted-query.h"
#include "encrypted-session.h"
#include "encrypted-stats.h"
#include "migration/migration.h"

static EncryptedRamStats *query_stats(void)
{
    EncryptedSession *session = &migrate_get_current()->encrypted.session;

    if (!session->stats) {
        return NULL;
    }
    encrypted_session_count_calls(session);
    return encrypted_stats_get(session->stats,
                               qemu_clock_get_ms(QEMU_CLOCK_REALTIME));
}

void encrypted_query(MigrationInfo *info)
{
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops = encrypted_migration_ops(&cgs);
    Error *why = NULL;

    assert(bql_locked());
    info->encrypted_ram = query_stats();
    /*
     * Until an incoming guest has arrived, QEMU does not know whether the
     * guest is willing to be migrated
     */
    if (ops && ops->is_willing && !runstate_check(RUN_STATE_INMIGRATE) &&
        !ops->is_willing(cgs, &why)) {
        QAPI_LIST_PREPEND(info->blocked_reasons,
                          g_strdup(error_get_pretty(why)));
        error_free(why);
    }
}

void encrypted_query_print(Monitor *mon, const EncryptedRamStats *stats)
{
    if (stats) {
        g_autofree char *text = encrypted_stats_text(stats);

        monitor_puts(mon, text);
    }
}
