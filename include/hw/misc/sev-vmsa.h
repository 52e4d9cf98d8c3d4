/*
 * VMSA: the saved state of a vCPU of an SEV-ES guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The emulated firmware and the emulated CPU both write VMSAs, so both need the
 * same checksum.  The firmware reserves a slot for the checksum of each VMSA in
 * the memory that the host passes to INIT for SEV-ES, and writes the address of
 * the slot into the VMSA.  The checksum is stored when the VMSA is launched or
 * received and at each #VMEXIT, and is compared at each VMRUN and by
 * SEND_UPDATE_VMSA.
 */

#ifndef HW_MISC_SEV_VMSA_H
#define HW_MISC_SEV_VMSA_H

#define SEV_VMSA_LEN            4096

/* Offset of 8 bytes that the firmware sets to zero */
#define SEV_VMSA_ZEROS          0x380

/* Offset of the physical address of the checksum, 8 bytes */
#define SEV_VMSA_CHECKSUM       0x388

/* The checksum covers the VMSA up to this offset */
#define SEV_VMSA_CHECKED_LEN    0xfc0

/* Bytes of a stored checksum, which is little-endian */
#define SEV_VMSA_CHECKSUM_LEN   8

/**
 * sev_vmsa_checksum: compute the checksum of a VMSA
 * @vmsa: plaintext of at least SEV_VMSA_CHECKED_LEN bytes
 *
 * The 8-byte words are distributed over three CRC32C in turn.  The upper half
 * of the result is the exclusive or of the three values, the lower half is the
 * CRC32C of the three values.  This is the algorithm in the source code of the
 * firmware for "Genoa", which AMD has published.
 */
uint64_t sev_vmsa_checksum(const uint8_t *vmsa);

/**
 * sev_vmsa_store_checksum: store the checksum of a VMSA at the address that the
 * VMSA contains at offset SEV_VMSA_CHECKSUM
 * @vmsa: as for sev_vmsa_checksum()
 *
 * Called in the same context as sev_memory_write().  Returns false if this
 * address is not RAM.
 */
bool sev_vmsa_store_checksum(const uint8_t *vmsa);

/**
 * sev_vmsa_is_intact: compare a VMSA with its stored checksum
 * @vmsa: as for sev_vmsa_checksum()
 *
 * Called in the same context as sev_memory_read().  Returns false if the
 * checksum differs, or if the address in the VMSA is not RAM.
 */
bool sev_vmsa_is_intact(const uint8_t *vmsa);

#endif
