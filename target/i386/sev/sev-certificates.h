/*
 * Certificates of an SEV platform, to which a guest migrates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TARGET_I386_SEV_CERTIFICATES_H
#define TARGET_I386_SEV_CERTIFICATES_H

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

/**
 * SevCertificates: what SEND_START must know of the destination's platform
 * @pdh: NULL if the certificates are not set, and so are the other two
 * @plat: the chain of the platform: PEK, OCA, CEK
 * @amd: AMD's chain: ASK, ARK
 *
 * Lengths are in bytes.
 */
typedef struct SevCertificates {
    uint8_t *pdh;
    size_t pdh_len;
    uint8_t *plat;
    size_t plat_len;
    uint8_t *amd;
    size_t amd_len;
} SevCertificates;

/**
 * sev_certificates_set: decode and check the three, which are encoded with
 * base64, and replace @c by them.  After an error, which names the certificate
 * and says where it comes from, @c is unchanged.
 */
bool sev_certificates_set(SevCertificates *c, const char *pdh,
                          const char *plat, const char *amd, Error **errp);

/** sev_certificates_clear: free what is set; nothing is set then */
void sev_certificates_clear(SevCertificates *c);

#endif
