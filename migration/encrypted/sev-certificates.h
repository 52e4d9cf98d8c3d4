/*
 * Format of the certificates of an SEV platform
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_ENCRYPTED_SEV_CERTIFICATES_H
#define MIGRATION_ENCRYPTED_SEV_CERTIFICATES_H

/*
 * Each checks sizes, version and the key's usage of certificates from outside.
 * Signatures are not verified: the firmware does that.  Returns false with
 * @errp set if the firmware could not even read @data.
 */

/** sev_check_pdh: one certificate, of a platform Diffie-Hellman key */
bool sev_check_pdh(const uint8_t *data, size_t len, Error **errp);

/** sev_check_plat_certs: three: PEK, OCA, CEK, in this order */
bool sev_check_plat_certs(const uint8_t *data, size_t len, Error **errp);

/** sev_check_amd_certs: two in AMD's format: ASK, ARK, in this order */
bool sev_check_amd_certs(const uint8_t *data, size_t len, Error **errp);

#endif
