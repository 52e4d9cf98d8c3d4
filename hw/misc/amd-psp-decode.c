/*
 * Emulated AMD Platform Security Processor: descriptions of command buffers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/misc/amd-psp.h"

typedef struct Field {
    uint8_t offset;
    uint8_t len;        /* bytes (1, 2, 4 or 8); 0 ends the array */
    const char *name;
} Field;

static const Field init[] = {
    { 0, 4, "flags" }, { 8, 8, "tmr" }, { 16, 4, "tmr-len" }, { }
};
static const Field init_ex[] = {
    { 0, 4, "length" }, { 4, 4, "flags" }, { 8, 8, "tmr" },
    { 16, 4, "tmr-len" }, { 24, 8, "nv" }, { 32, 4, "nv-len" }, { }
};
static const Field platform_status[] = {
    { 0, 1, "major" }, { 1, 1, "minor" }, { 2, 1, "state" },
    { 3, 1, "owner" }, { 4, 2, "config" }, { 7, 1, "build" },
    { 8, 4, "guests" }, { }
};
static const Field pdh_cert_export[] = {
    { 0, 8, "pdh" }, { 8, 4, "pdh-len" }, { 16, 8, "chain" },
    { 24, 4, "chain-len" }, { }
};
static const Field pek_cert_import[] = {
    { 0, 8, "pek" }, { 8, 4, "pek-len" }, { 16, 8, "oca" },
    { 24, 4, "oca-len" }, { }
};
static const Field area[] = {
    { 0, 8, "address" }, { 8, 4, "len" }, { }
};
static const Field ring_buffer[] = {
    { 0, 8, "low" }, { 8, 8, "low-status" }, { 16, 8, "high" },
    { 24, 8, "high-status" }, { 32, 1, "low-size" }, { 33, 1, "high-size" },
    { 34, 2, "low-threshold" }, { 36, 2, "high-threshold" },
    { 38, 2, "int-on-empty" }, { }
};
static const Field handle[] = {
    { 0, 4, "handle" }, { }
};
static const Field activate[] = {
    { 0, 4, "handle" }, { 4, 4, "asid" }, { }
};
static const Field activate_ex[] = {
    { 0, 4, "length" }, { 4, 4, "handle" }, { 8, 4, "asid" },
    { 12, 4, "ids-count" }, { 16, 8, "ids" }, { }
};
static const Field copy[] = {
    { 0, 4, "handle" }, { 4, 4, "len" }, { 8, 8, "from" }, { 16, 8, "to" },
    { }
};
static const Field guest_status[] = {
    { 0, 4, "handle" }, { 4, 4, "policy" }, { 8, 4, "asid" },
    { 12, 1, "state" }, { }
};
static const Field start[] = {
    { 0, 4, "handle" }, { 4, 4, "policy" }, { 8, 8, "cert" },
    { 16, 4, "cert-len" }, { 24, 8, "session" }, { 32, 4, "session-len" }, { }
};
static const Field guest_area[] = {
    { 0, 4, "handle" }, { 8, 8, "address" }, { 16, 4, "len" }, { }
};
static const Field attestation[] = {
    { 0, 4, "handle" }, { 8, 8, "address" }, { 32, 4, "len" }, { }
};
static const Field send_start[] = {
    { 0, 4, "handle" }, { 4, 4, "policy" }, { 8, 8, "pdh" },
    { 16, 4, "pdh-len" }, { 24, 8, "chain" }, { 32, 4, "chain-len" },
    { 40, 8, "amd" }, { 48, 4, "amd-len" }, { 56, 8, "session" },
    { 64, 4, "session-len" }, { }
};
static const Field packet[] = {
    { 0, 4, "handle" }, { 8, 8, "header" }, { 16, 4, "header-len" },
    { 24, 8, "guest" }, { 32, 4, "guest-len" }, { 40, 8, "trans" },
    { 48, 4, "trans-len" }, { }
};
static const Field debug[] = {
    { 0, 4, "handle" }, { 8, 8, "from" }, { 16, 8, "to" }, { 24, 4, "len" },
    { }
};

static const Field *const layouts[AMD_PSP_COMMAND__MAX] = {
    [AMD_PSP_INIT] = init,
    [AMD_PSP_INIT_EX] = init_ex,
    [AMD_PSP_PLATFORM_STATUS] = platform_status,
    [AMD_PSP_PEK_CSR] = area,
    [AMD_PSP_PEK_CERT_IMPORT] = pek_cert_import,
    [AMD_PSP_PDH_CERT_EXPORT] = pdh_cert_export,
    [AMD_PSP_DOWNLOAD_FIRMWARE] = area,
    [AMD_PSP_GET_ID] = area,
    [AMD_PSP_RING_BUFFER] = ring_buffer,
    [AMD_PSP_DECOMMISSION] = handle,
    [AMD_PSP_ACTIVATE] = activate,
    [AMD_PSP_DEACTIVATE] = handle,
    [AMD_PSP_GUEST_STATUS] = guest_status,
    [AMD_PSP_COPY] = copy,
    [AMD_PSP_ACTIVATE_EX] = activate_ex,
    [AMD_PSP_LAUNCH_START] = start,
    [AMD_PSP_LAUNCH_UPDATE_DATA] = guest_area,
    [AMD_PSP_LAUNCH_UPDATE_VMSA] = guest_area,
    [AMD_PSP_LAUNCH_MEASURE] = guest_area,
    [AMD_PSP_LAUNCH_UPDATE_SECRET] = packet,
    [AMD_PSP_LAUNCH_FINISH] = handle,
    [AMD_PSP_ATTESTATION] = attestation,
    [AMD_PSP_SEND_START] = send_start,
    [AMD_PSP_SEND_UPDATE_DATA] = packet,
    [AMD_PSP_SEND_UPDATE_VMSA] = packet,
    [AMD_PSP_SEND_FINISH] = handle,
    [AMD_PSP_SEND_CANCEL] = handle,
    [AMD_PSP_RECEIVE_START] = start,
    [AMD_PSP_RECEIVE_UPDATE_DATA] = packet,
    [AMD_PSP_RECEIVE_UPDATE_VMSA] = packet,
    [AMD_PSP_RECEIVE_FINISH] = handle,
    [AMD_PSP_DBG_DECRYPT] = debug,
    [AMD_PSP_DBG_ENCRYPT] = debug,
};

char *amd_psp_decode(uint32_t id, const uint8_t *b)
{
    const Field *f = id < ARRAY_SIZE(layouts) ? layouts[id] : NULL;
    GString *s = g_string_new("");

    for (; f && f->len; f++) {
        g_string_append_printf(s, "%s%s 0x%" PRIx64, s->len ? ", " : "",
                               f->name, ldn_le_p(b + f->offset, f->len));
    }
    return g_string_free(s, FALSE);
}
