/*
 * VMSA: the saved state of a vCPU of an SEV-ES guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/crc32c.h"
#include "hw/misc/sev-memory.h"
#include "hw/misc/sev-vmsa.h"

#define WORD_LEN    8
#define LANES       3

uint64_t sev_vmsa_checksum(const uint8_t *vmsa)
{
    uint32_t crc[LANES] = { UINT32_MAX, UINT32_MAX, UINT32_MAX };
    uint8_t all[LANES * sizeof(uint32_t)];
    unsigned i;

    QEMU_BUILD_BUG_ON(SEV_VMSA_CHECKED_LEN % (LANES * WORD_LEN));

    for (i = 0; i < SEV_VMSA_CHECKED_LEN / WORD_LEN; i++) {
        /* crc32c() inverts its result; invert again to continue from it */
        crc[i % LANES] = ~crc32c(crc[i % LANES], vmsa + i * WORD_LEN, WORD_LEN);
    }
    for (i = 0; i < LANES; i++) {
        stl_le_p(all + i * sizeof(uint32_t), ~crc[i]);
    }
    return (uint64_t)~(crc[0] ^ crc[1] ^ crc[2]) << 32 |
           crc32c(UINT32_MAX, all, sizeof(all));
}

bool sev_vmsa_store_checksum(const uint8_t *vmsa)
{
    uint8_t checksum[SEV_VMSA_CHECKSUM_LEN];

    stq_le_p(checksum, sev_vmsa_checksum(vmsa));
    return sev_memory_write(ldq_le_p(vmsa + SEV_VMSA_CHECKSUM), SEV_MEMORY_RAW,
                            checksum, sizeof(checksum));
}

bool sev_vmsa_is_intact(const uint8_t *vmsa)
{
    uint8_t checksum[SEV_VMSA_CHECKSUM_LEN];

    return sev_memory_read(ldq_le_p(vmsa + SEV_VMSA_CHECKSUM), SEV_MEMORY_RAW,
                           checksum, sizeof(checksum)) &&
           ldq_le_p(checksum) == sev_vmsa_checksum(vmsa);
}
