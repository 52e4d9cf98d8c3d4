/*
 * Emulated AMD Platform Security Processor: copies of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "amd-psp-firmware.h"

/*
 * In: [0] handle, [4] length, [8] from, [16] to
 *
 * The host cannot move a page itself, because the physical address is part of
 * the encryption.  The API does not limit the length, but this emulation does
 * (PACKET_MAX).
 */
static AmdPspStatus cmd_copy(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    uint32_t len = ldl_le_p(b + 4);
    hwaddr from = psp_address(b, 8), to = psp_address(b, 16);
    g_autofree uint8_t *data = NULL;

    if (!len || len > PACKET_MAX || len % 16) {
        return AMD_PSP_INVALID_LEN;
    }
    if (from % 16 || to % 16) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    data = g_malloc(len);
    return psp_read(p, from, g->asid, data, len) &&
           psp_write(p, to, g->asid, data, len) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

/* In: [0] handle, [8] from, [16] to, [24] length */
static AmdPspStatus copy_debug(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b,
                               unsigned from_asid, unsigned to_asid)
{
    hwaddr from = psp_address(b, 8), to = psp_address(b, 16);
    uint32_t len = ldl_le_p(b + 24);
    g_autofree uint8_t *data = NULL;

    if (g->policy & AMD_PSP_POLICY_NODBG) {
        return AMD_PSP_POLICY_FAILURE;
    }
    if (!len || len > PACKET_MAX || len % 16) {
        return AMD_PSP_INVALID_LEN;
    }
    if (from % 16 || to % 16) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    data = g_malloc(len);
    return psp_read(p, from, from_asid, data, len) &&
           psp_write(p, to, to_asid, data, len) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

static AmdPspStatus cmd_dbg_decrypt(AmdPspPlatform *p, AmdPspGuest *g,
                                    uint8_t *b)
{
    return copy_debug(p, g, b, g->asid, SEV_MEMORY_RAW);
}

static AmdPspStatus cmd_dbg_encrypt(AmdPspPlatform *p, AmdPspGuest *g,
                                    uint8_t *b)
{
    return copy_debug(p, g, b, SEV_MEMORY_RAW, g->asid);
}

const PspCommand psp_debug_commands[] = {
    {
        AMD_PSP_COPY, "COPY", cmd_copy, 24,
        .states = GUEST_IN_ANY, .active = true,
    },
    {
        AMD_PSP_DBG_DECRYPT, "DBG_DECRYPT", cmd_dbg_decrypt, 28,
        .states = GUEST_IN_ANY, .active = true,
    },
    {
        AMD_PSP_DBG_ENCRYPT, "DBG_ENCRYPT", cmd_dbg_encrypt, 28,
        .states = GUEST_IN_ANY, .active = true,
    },
    { }
};
