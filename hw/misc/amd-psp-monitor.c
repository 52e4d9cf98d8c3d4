/*
 * Emulated AMD Platform Security Processor: monitor commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-sev-platform.h"
#include "hw/misc/amd-psp.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"

static int query_one(Object *obj, void *opaque)
{
    SevPlatformInfoList **tail = opaque;

    if (object_dynamic_cast(obj, TYPE_AMD_PSP) &&
        DEVICE(obj)->realized) {
        while (*tail) {
            tail = &(*tail)->next;
        }
        QAPI_LIST_PREPEND(*tail, amd_psp_query(DEVICE(obj)));
    }
    return 0;
}

SevPlatformInfoList *qmp_query_sev_platform(Error **errp)
{
    SevPlatformInfoList *list = NULL;

    object_child_foreach_recursive(object_get_root(), query_one, &list);
    return list;
}

static void print_fault(Monitor *mon, const SevPlatformFault *f)
{
    monitor_printf(mon, "  fault: %s", SevPlatformFaultKind_str(f->kind));
    switch (f->kind) {
    case SEV_PLATFORM_FAULT_KIND_STATUS:
        monitor_printf(mon, " 0x%x", f->u.status.status);
        break;
    case SEV_PLATFORM_FAULT_KIND_LATE:
        monitor_printf(mon, " by %" PRIu32 " us", f->u.late.delay_us);
        break;
    case SEV_PLATFORM_FAULT_KIND_RESTART:
        monitor_printf(mon, " after %" PRIu32 " us", f->u.restart.delay_us);
        break;
    case SEV_PLATFORM_FAULT_KIND_CORRUPT:
        monitor_printf(mon, " at byte %" PRIu32,
                       f->u.corrupt.has_offset ? f->u.corrupt.offset : 0);
        break;
    default:
        break;
    }
    monitor_printf(mon, ", at %s %" PRIu32 " from now, ",
                   f->command ?: "any command", f->nth);
    if (f->count) {
        monitor_printf(mon, "%" PRIu32 " times\n", f->count);
    } else {
        monitor_printf(mon, "always\n");
    }
}

void hmp_info_sev_platform(Monitor *mon, const QDict *qdict)
{
    g_autoptr(SevPlatformInfoList) list = qmp_query_sev_platform(&error_abort);
    SevPlatformInfoList *i;

    if (!list) {
        monitor_printf(mon, "No emulated SEV platform\n");
    }
    for (i = list; i; i = i->next) {
        SevPlatformCommandStatsList *c;
        SevPlatformFaultList *f;
        SevPlatformGuestList *g;

        monitor_printf(mon, "%s: %s, %" PRIu32 " guests, %" PRIu32
                       " active%s%s\n", i->value->qom_path,
                       SevPlatformState_str(i->value->state),
                       i->value->guests, i->value->active,
                       i->value->hung ? ", hung" :
                       i->value->busy ? ", busy" : "",
                       i->value->ring ? ", ring buffer mode" : "");
        for (g = i->value->contexts; g; g = g->next) {
            monitor_printf(mon, "  guest %" PRIu32 ": %s, ASID %" PRIu32 "\n",
                           g->value->handle,
                           SevPlatformGuestState_str(g->value->state),
                           g->value->asid);
        }
        monitor_printf(mon, "  pages: %" PRIu64 " plaintext now; %" PRIu64
                       " decrypted, %" PRIu64 " encrypted, %" PRIu64
                       " written back\n", i->value->memory->plaintext,
                       i->value->memory->decrypted,
                       i->value->memory->encrypted,
                       i->value->memory->written_back);
        monitor_printf(mon, "  plaintext used by no vCPU: %" PRIu64
                       " pages read, %" PRIu64 " written\n",
                       i->value->memory->bypassing_reads,
                       i->value->memory->bypassing_writes);
        monitor_printf(mon, "  pages used before a flush: %" PRIu64
                       " written by the host, %" PRIu64 " by guests, %" PRIu64
                       " used by commands\n",
                       i->value->memory->unflushed_host_writes,
                       i->value->memory->unflushed_guest_writes,
                       i->value->memory->unflushed_commands);
        for (f = i->value->faults; f; f = f->next) {
            print_fault(mon, f->value);
        }
        if (i->value->commands) {
            monitor_printf(mon, "  %-20s %10s %8s %8s %6s %14s %10s\n",
                           "command", "count", "failed", "faults", "last",
                           "guest bytes", "us each");
        }
        for (c = i->value->commands; c; c = c->next) {
            const SevPlatformCommandStats *s = c->value;

            monitor_printf(mon, "  %-20s %10" PRIu64 " %8" PRIu64
                           " %8" PRIu64 " 0x%04x %14" PRIu64 " %10.1f\n",
                           s->command, s->count, s->failed, s->faults,
                           s->last_status, s->guest_bytes,
                           s->busy_ns / 1000.0 / s->count);
        }
    }
}
