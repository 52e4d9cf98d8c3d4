/*
 * Emulated AMD Platform Security Processor: dispatch of commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each command has a buffer in the host's memory.  The firmware copies the
 * buffer, and the command works on the copy, so that the host cannot change it
 * meanwhile.  If the command has output, the firmware writes the copy back
 * after success.  Some commands also return the lengths that they need; for
 * these the firmware writes the copy back after INVALID_LEN as well.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "amd-psp-firmware.h"
#include "trace.h"

static const PspCommand *const tables[] = {
    psp_platform_commands, psp_guest_commands, psp_transport_commands,
    psp_debug_commands,
};

static const PspCommand *command_find(uint32_t id)
{
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        for (const PspCommand *c = tables[i]; c->name; c++) {
            if (c->id == id) {
                return c;
            }
        }
    }
    return NULL;
}

const char *amd_psp_command_name(uint32_t id)
{
    const PspCommand *c = command_find(id);

    return c ? c->name : "unknown";
}

bool amd_psp_command_by_name(const char *name, uint32_t *id)
{
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        for (const PspCommand *c = tables[i]; c->name; c++) {
            if (!strcmp(c->name, name)) {
                *id = c->id;
                return true;
            }
        }
    }
    return false;
}

bool amd_psp_command_known(uint32_t id)
{
    return command_find(id);
}

bool amd_psp_command_stops_cpus(uint32_t id)
{
    const PspCommand *c = command_find(id);

    return c && c->stops_cpus;
}

static void trace_buffer(bool reply, uint32_t id, const uint8_t *b)
{
    g_autofree char *text = NULL;

    if (trace_event_get_state_backends(TRACE_AMD_PSP_REQUEST) ||
        trace_event_get_state_backends(TRACE_AMD_PSP_REPLY)) {
        text = amd_psp_decode(id, b);
        if (reply) {
            trace_amd_psp_reply(amd_psp_command_name(id), text);
        } else {
            trace_amd_psp_request(amd_psp_command_name(id), text);
        }
    }
}

/* Check the guest that the buffer @b names, if any, and execute @c */
static AmdPspStatus command_execute(AmdPspPlatform *p, const PspCommand *c,
                                    uint8_t *b)
{
    AmdPspGuest *g = NULL;
    AmdPspStatus st;

    if (c->states) {
        g = psp_guest_find(p, ldl_le_p(b + c->handle_at));
        st = c->first ? c->first(p, g, b) : AMD_PSP_SUCCESS;
        if (st) {
            return st;
        }
        if (!g) {
            return AMD_PSP_INVALID_GUEST;
        }
        if (!(c->states & BIT(g->state))) {
            return AMD_PSP_INVALID_GUEST_STATE;
        }
        if (c->es && !(g->policy & AMD_PSP_POLICY_ES)) {
            return AMD_PSP_UNSUPPORTED;
        }
        if (c->active && !g->asid) {
            return AMD_PSP_INACTIVE;
        }
    }
    return c->fn(p, g, b);
}

/*
 * Copy the buffer of @c to @b, and make the checks that do not depend on a
 * guest
 */
static AmdPspStatus command_begin(AmdPspPlatform *p, const PspCommand *c,
                                  hwaddr buffer, uint8_t *b)
{
    unsigned allowed = c->platform, guests, active;
    AmdPspStatus st;

    if (!allowed) {
        allowed = c->states ? PLATFORM_IN(WORKING) :
                  PLATFORM_IN(INIT) | PLATFORM_IN(WORKING);
    }
    g_assert(c->buffer_len <= AMD_PSP_BUFFER_MAX);
    if (c->buffer_len &&
        !psp_read(p, buffer, SEV_MEMORY_RAW, b, c->buffer_len)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    trace_buffer(false, c->id, b);
    st = c->before_state ? c->before_state(p, NULL, b) : AMD_PSP_SUCCESS;
    if (st) {
        return st;
    }
    return allowed & BIT(amd_psp_platform_state(p, &guests, &active)) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_PLATFORM_STATE;
}

AmdPspStatus amd_psp_execute(AmdPspPlatform *p, uint32_t id, hwaddr buffer,
                             int64_t corrupt)
{
    const PspCommand *c = command_find(id);
    uint8_t b[AMD_PSP_BUFFER_MAX] = { 0 };
    AmdPspStatus st;

    buffer &= ~sev_memory_cbit();
    if (p->continued) {
        p->continued = false;
        memcpy(b, p->continued_buffer, sizeof(b));
    } else {
        p->guest_bytes = 0;
        p->written = 0;
        p->corrupt = corrupt;
        p->done = 0;
        st = c ? command_begin(p, c, buffer, b) : AMD_PSP_INVALID_COMMAND;
        if (st) {
            return st;
        }
    }
    st = command_execute(p, c, b);
    if (st == AMD_PSP_CONTINUE) {
        p->continued = true;
        memcpy(p->continued_buffer, b, sizeof(b));
        return st;
    }
    if (c->reply != PSP_REPLY_NEVER &&
        (!st || (st == AMD_PSP_INVALID_LEN && c->reply == PSP_REPLY_LENGTH))) {
        trace_buffer(true, id, b);
        if (!psp_write(p, buffer, SEV_MEMORY_RAW, b, c->buffer_len)) {
            return st ?: AMD_PSP_INVALID_ADDRESS;
        }
    }
    return st;
}
