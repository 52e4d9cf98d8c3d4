/*
 * Emulated AMD Platform Security Processor: the slots for checksums of VMSAs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/misc/sev-vmsa.h"
#include "amd-psp-firmware.h"

/* The second half of the memory for SEV-ES contains the slots for checksums */
#define TMR_CHECKSUMS       (TMR_LEN / 2)

static hwaddr vmsa_checksum_at(AmdPspPlatform *p, size_t i)
{
    return p->tmr + TMR_CHECKSUMS + i * SEV_VMSA_CHECKSUM_LEN;
}

AmdPspStatus psp_vmsa_set_up(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *vmsa,
                             size_t len)
{
    size_t i;

    QEMU_BUILD_BUG_ON(AMD_PSP_MAX_VMSAS * SEV_VMSA_CHECKSUM_LEN >
                      TMR_LEN - TMR_CHECKSUMS);

    if (len < SEV_VMSA_LEN) {
        return AMD_PSP_INVALID_LEN;
    }
    for (i = 0; p->vmsa_owner[i]; i++) {
        if (i == ARRAY_SIZE(p->vmsa_owner) - 1) {
            return AMD_PSP_RESOURCE_LIMIT;
        }
    }
    stq_le_p(vmsa + SEV_VMSA_ZEROS, 0);
    stq_le_p(vmsa + SEV_VMSA_CHECKSUM, vmsa_checksum_at(p, i));
    /* Fail if the host has put a queue of the ring into this memory */
    if (!psp_is_ram(p, vmsa_checksum_at(p, i), SEV_VMSA_CHECKSUM_LEN) ||
        !sev_vmsa_store_checksum(vmsa)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    p->vmsa_owner[i] = g->handle;
    return AMD_PSP_SUCCESS;
}

bool psp_vmsa_is_valid(AmdPspPlatform *p, AmdPspGuest *g, const uint8_t *vmsa,
                       size_t len)
{
    size_t i;

    for (i = 0; len >= SEV_VMSA_LEN && i < ARRAY_SIZE(p->vmsa_owner); i++) {
        if (p->vmsa_owner[i] == g->handle &&
            ldq_le_p(vmsa + SEV_VMSA_CHECKSUM) == vmsa_checksum_at(p, i)) {
            return sev_vmsa_is_intact(vmsa);
        }
    }
    return false;
}

void psp_vmsa_free(AmdPspPlatform *p, const AmdPspGuest *g)
{
    for (size_t i = 0; i < ARRAY_SIZE(p->vmsa_owner); i++) {
        if (p->vmsa_owner[i] == g->handle) {
            p->vmsa_owner[i] = 0;
        }
    }
}
