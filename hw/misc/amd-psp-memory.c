/*
 * Emulated AMD Platform Security Processor: the firmware's access to memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "crypto/random.h"
#include "amd-psp-firmware.h"

hwaddr psp_address(const uint8_t *b, size_t offset)
{
    return ldq_le_p(b + offset) & ~sev_memory_cbit();
}

bool psp_read(AmdPspPlatform *p, hwaddr pa, unsigned asid, void *buf,
              size_t len)
{
    if (amd_psp_ring_overlaps(&p->ring, pa, len)) {
        return false;
    }
    if (asid != SEV_MEMORY_RAW) {
        p->guest_bytes += len;
    }
    sev_memory_command_uses(pa, len, asid, SEV_MEMORY_COMMAND_READS);
    return sev_memory_read(pa, asid, buf, len);
}

bool psp_write(AmdPspPlatform *p, hwaddr pa, unsigned asid, const void *buf,
               size_t len)
{
    g_autofree uint8_t *flipped = NULL;
    uint64_t at = p->written;

    if (amd_psp_ring_overlaps(&p->ring, pa, len)) {
        return false;
    }
    p->written += len;
    if (asid != SEV_MEMORY_RAW) {
        p->guest_bytes += len;
    }
    if (p->corrupt >= 0 && p->corrupt >= at && p->corrupt < p->written) {
        flipped = g_memdup2(buf, len);
        flipped[p->corrupt - at] ^= 1;
        buf = flipped;
    }
    sev_memory_command_uses(pa, len, asid, SEV_MEMORY_COMMAND_WRITES);
    return sev_memory_write(pa, asid, buf, len);
}

bool psp_is_ram(AmdPspPlatform *p, hwaddr pa, size_t len)
{
    return !amd_psp_ring_overlaps(&p->ring, pa, len) &&
           sev_memory_is_ram(pa, len);
}

bool psp_random(void *buf, size_t len)
{
    Error *err = NULL;

    if (qcrypto_random_bytes(buf, len, &err) < 0) {
        error_report_err(err);
        return false;
    }
    return true;
}
