/*
 * Certificates of an SEV platform, to which a guest migrates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Secure Encrypted Virtualization API, AMD publication 55766: appendix C for
 * the certificates of a platform, appendix B for AMD's own.  All numbers are
 * little-endian.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qapi/error.h"
#include "qemu/base64.h"
#include "sev-certificates.h"

/* Certificates of a platform (appendix C): offsets and values, in bytes */
#define CERT_LEN            2084
#define CERT_VERSION        0x00
#define CERT_USAGE          0x08

/* AMD's certificates (appendix B): offsets; sizes of numbers are in bits */
#define AMD_VERSION         0x00
#define AMD_USAGE           0x24
#define AMD_EXPONENT_BITS   0x38
#define AMD_MODULUS_BITS    0x3c
#define AMD_HEADER_LEN      0x40

#define VERSION_1           1

#define USAGE_ARK           0x0000
#define USAGE_ASK           0x0013
#define USAGE_OCA           0x1001
#define USAGE_PEK           0x1002
#define USAGE_PDH           0x1003
#define USAGE_CEK           0x1004

typedef struct Wanted {
    const char *name;
    uint32_t usage;
} Wanted;

static bool check_head(const Wanted *want, uint32_t version, uint32_t usage,
                       Error **errp)
{
    if (version != VERSION_1) {
        error_setg(errp, "certificate %s has version %u, expected %d",
                   want->name, version, VERSION_1);
        return false;
    }
    if (usage != want->usage) {
        error_setg(errp, "certificate %s is of a key with usage 0x%04x, "
                   "expected 0x%04x", want->name, usage, want->usage);
        return false;
    }
    return true;
}

/* Check @n certificates of a platform, which @data contains back to back */
static bool check_certs(const uint8_t *data, size_t len, const Wanted *want,
                        size_t n, Error **errp)
{
    if (len != n * CERT_LEN) {
        error_setg(errp, "%zu bytes, expected %zu", len, n * CERT_LEN);
        return false;
    }
    for (size_t i = 0; i < n; i++, data += CERT_LEN) {
        if (!check_head(&want[i], ldl_le_p(data + CERT_VERSION),
                        ldl_le_p(data + CERT_USAGE), errp)) {
            return false;
        }
    }
    return true;
}

bool sev_check_pdh(const uint8_t *data, size_t len, Error **errp)
{
    static const Wanted want[] = { { "PDH", USAGE_PDH } };

    return check_certs(data, len, want, ARRAY_SIZE(want), errp);
}

bool sev_check_plat_certs(const uint8_t *data, size_t len, Error **errp)
{
    static const Wanted want[] = {
        { "PEK", USAGE_PEK }, { "OCA", USAGE_OCA }, { "CEK", USAGE_CEK },
    };

    return check_certs(data, len, want, ARRAY_SIZE(want), errp);
}

static bool is_rsa_size(uint32_t bits)
{
    return bits == 2048 || bits == 4096;
}

/* Check AMD's certificate at the start of @data.  Returns its length, or 0. */
static size_t check_amd_cert(const uint8_t *data, size_t len,
                             const Wanted *want, Error **errp)
{
    uint32_t exponent, modulus;
    size_t size;

    if (len < AMD_HEADER_LEN) {
        error_setg(errp, "certificate %s: %zu bytes, too few for a header",
                   want->name, len);
        return 0;
    }
    if (!check_head(want, ldl_le_p(data + AMD_VERSION),
                    ldl_le_p(data + AMD_USAGE), errp)) {
        return 0;
    }
    exponent = ldl_le_p(data + AMD_EXPONENT_BITS);
    modulus = ldl_le_p(data + AMD_MODULUS_BITS);
    if (!is_rsa_size(exponent) || !is_rsa_size(modulus)) {
        error_setg(errp, "certificate %s has a key of %u bits with an exponent "
                   "of %u bits, expected 2048 or 4096", want->name, modulus,
                   exponent);
        return 0;
    }
    /*
     * The header, the exponent, the modulus, and the signature, which is as
     * long as the modulus
     */
    size = AMD_HEADER_LEN + exponent / 8 + 2 * (modulus / 8);
    if (len < size) {
        error_setg(errp, "certificate %s: %zu bytes, expected %zu", want->name,
                   len, size);
        return 0;
    }
    return size;
}

bool sev_check_amd_certs(const uint8_t *data, size_t len, Error **errp)
{
    static const Wanted want[] = {
        { "ASK", USAGE_ASK }, { "ARK", USAGE_ARK },
    };

    for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
        size_t size = check_amd_cert(data, len, &want[i], errp);

        if (!size) {
            return false;
        }
        data += size;
        len -= size;
    }
    if (len) {
        error_setg(errp, "%zu bytes after the certificates ASK and ARK", len);
        return false;
    }
    return true;
}

/*
 * Decode and check a certificate
 * @name: name of the QMP argument
 * @source: where the operator finds the certificate
 */
static uint8_t *get_certificate(const char *base64, const char *name,
                                bool (*check)(const uint8_t *, size_t,
                                              Error **),
                                const char *source, size_t *len, Error **errp)
{
    ERRP_GUARD();
    g_autofree uint8_t *data = qbase64_decode(base64, -1, len, errp);

    if (data && check(data, *len, errp)) {
        return g_steal_pointer(&data);
    }
    error_prepend(errp, "SEV: certificate '%s' (%s, encoded with base64): ",
                  name, source);
    return NULL;
}

bool sev_certificates_set(SevCertificates *c, const char *pdh,
                          const char *plat, const char *amd, Error **errp)
{
    SevCertificates new = {};

    new.pdh = get_certificate(pdh, "pdh", sev_check_pdh,
                              "'pdh' of the destination's "
                              "query-sev-capabilities", &new.pdh_len, errp);
    new.plat = new.pdh ?
               get_certificate(plat, "plat-cert", sev_check_plat_certs,
                               "'cert-chain' of the destination's "
                               "query-sev-capabilities", &new.plat_len, errp) :
               NULL;
    new.amd = new.plat ?
              get_certificate(amd, "amd-cert", sev_check_amd_certs,
                              "AMD's file with the ASK and the ARK of the "
                              "destination's chip", &new.amd_len, errp) : NULL;
    if (!new.amd) {
        sev_certificates_clear(&new);
        return false;
    }
    sev_certificates_clear(c);
    *c = new;
    return true;
}

void sev_certificates_clear(SevCertificates *c)
{
    g_free(c->pdh);
    g_free(c->plat);
    g_free(c->amd);
    *c = (SevCertificates) {};
}
