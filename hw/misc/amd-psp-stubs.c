/*
 * Monitor commands of a QEMU without the emulated AMD Platform Security
 * Processor
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/qapi-commands-sev-platform.h"

SevPlatformInfoList *qmp_query_sev_platform(Error **errp)
{
    return NULL;
}

void hmp_info_sev_platform(Monitor *mon, const QDict *qdict)
{
    monitor_printf(mon, "No emulated SEV platform\n");
}
