/*
 * Certificates of an SEV platform, to which a guest migrates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TARGET_I386_SEV_CERTIFICATES_H
#define TARGET_I386_SEV_CERTIFICATES_H

/*
 * Each of the following functions checks the sizes, the version and the key
 * usage of untrusted certificates.  The firmware verifies the signatures.
 * If a check fails, the function returns false with @errp set.
 */

/** sev_check_pdh: check the certificate of a platform Diffie-Hellman key */
bool sev_check_pdh(const uint8_t *data, size_t len, Error **errp);

/** sev_check_plat_certs: check PEK, OCA and CEK, in this order */
bool sev_check_plat_certs(const uint8_t *data, size_t len, Error **errp);

/** sev_check_amd_certs: check ASK and ARK, in this order, in AMD's format */
bool sev_check_amd_certs(const uint8_t *data, size_t len, Error **errp);

/**
 * SevCertificates: certificates of the destination's platform for SEND_START
 * @pdh: the PDH; NULL, like @plat and @amd, if the certificates are not set
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
 * sev_certificates_set: decode and check the three certificates, which are
 * encoded with base64, and replace @c by them.  On error, @c is unchanged, and
 * the error names the certificate and where the operator finds it.
 */
bool sev_certificates_set(SevCertificates *c, const char *pdh,
                          const char *plat, const char *amd, Error **errp);

/** sev_certificates_clear: free all certificates, so that none is set */
void sev_certificates_clear(SevCertificates *c);

#endif
