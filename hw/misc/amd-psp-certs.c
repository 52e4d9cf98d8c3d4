/*
 * Certificates of the emulated AMD PSP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "hw/misc/amd-psp-certs.h"

/*
 * Offsets in a certificate.  A certificate consists of a header, a public key
 * and two slots for signatures.  Each signature covers the header and the key.
 */
#define CERT_VERSION        0x000
#define CERT_API_MAJOR      0x004
#define CERT_API_MINOR      0x005
#define CERT_USAGE          0x008
#define CERT_ALGO           0x00c
#define CERT_CURVE          0x010
#define CERT_QX             0x014   /* little-endian, padded to 72 bytes */
#define CERT_QY             0x05c
#define CERT_SIG1           AMD_PSP_CERT_BODY_LEN
#define CERT_SIG2           0x61c

/* Offsets in a signature */
#define SIG_USAGE           0x000
#define SIG_ALGO            0x004
#define SIG_DATA            0x008
#define SIG_DATA_LEN        512

/* Length in bytes of a coordinate, and of each number of an ECDSA signature */
#define NUMBER_LEN          72

#define CERT_VERSION_1      1
#define CERT_CURVE_P384     2

QEMU_BUILD_BUG_ON(CERT_SIG2 + SIG_DATA + SIG_DATA_LEN != AMD_PSP_CERT_LEN);

static const unsigned signatures[] = { CERT_SIG1, CERT_SIG2 };

void amd_psp_reverse(uint8_t *dst, const uint8_t *src, size_t len)
{
    size_t i;

    for (i = 0; i < len; i++) {
        dst[i] = src[len - 1 - i];
    }
}

/* Returns false if the number is too large for P-384 */
static bool number_load(uint8_t n[AMD_PSP_P384_LEN], const uint8_t *from)
{
    amd_psp_reverse(n, from, AMD_PSP_P384_LEN);
    return buffer_is_zero(from + AMD_PSP_P384_LEN,
                          NUMBER_LEN - AMD_PSP_P384_LEN);
}

void amd_psp_cert_make(const AmdPspEcPoint *q, AmdPspCertUsage usage,
                       uint8_t api_major, uint8_t api_minor,
                       uint8_t cert[AMD_PSP_CERT_LEN])
{
    size_t i;

    memset(cert, 0, AMD_PSP_CERT_LEN);
    stl_le_p(cert + CERT_VERSION, CERT_VERSION_1);
    cert[CERT_API_MAJOR] = api_major;
    cert[CERT_API_MINOR] = api_minor;
    stl_le_p(cert + CERT_USAGE, usage);
    stl_le_p(cert + CERT_ALGO, usage == AMD_PSP_CERT_PDH ?
             AMD_PSP_ALGO_ECDH_SHA256 : AMD_PSP_ALGO_ECDSA_SHA256);
    stl_le_p(cert + CERT_CURVE, CERT_CURVE_P384);
    amd_psp_reverse(cert + CERT_QX, q->x, sizeof(q->x));
    amd_psp_reverse(cert + CERT_QY, q->y, sizeof(q->y));
    for (i = 0; i < ARRAY_SIZE(signatures); i++) {
        stl_le_p(cert + signatures[i] + SIG_USAGE, AMD_PSP_CERT_INVALID);
        stl_le_p(cert + signatures[i] + SIG_ALGO, AMD_PSP_ALGO_INVALID);
    }
}

bool amd_psp_cert_key(const uint8_t cert[AMD_PSP_CERT_LEN],
                      AmdPspCertUsage usage, AmdPspEcPoint *q)
{
    uint32_t algo = ldl_le_p(cert + CERT_ALGO);
    bool ecdh = algo == AMD_PSP_ALGO_ECDH_SHA256 ||
                algo == AMD_PSP_ALGO_ECDH_SHA384;
    bool ecdsa = algo == AMD_PSP_ALGO_ECDSA_SHA256 ||
                 algo == AMD_PSP_ALGO_ECDSA_SHA384;

    if (ldl_le_p(cert + CERT_VERSION) != CERT_VERSION_1 ||
        ldl_le_p(cert + CERT_USAGE) != usage ||
        !(usage == AMD_PSP_CERT_PDH ? ecdh : ecdsa) ||
        ldl_le_p(cert + CERT_CURVE) != CERT_CURVE_P384) {
        return false;
    }
    return number_load(q->x, cert + CERT_QX) &&
           number_load(q->y, cert + CERT_QY) &&
           buffer_is_zero(cert + CERT_QY + NUMBER_LEN,
                          AMD_PSP_CERT_BODY_LEN - CERT_QY - NUMBER_LEN) &&
           amd_psp_ec_point_valid(q);
}

unsigned amd_psp_cert_api(const uint8_t cert[AMD_PSP_CERT_LEN])
{
    return cert[CERT_API_MAJOR] << 8 | cert[CERT_API_MINOR];
}

bool amd_psp_cert_add_signature(uint8_t cert[AMD_PSP_CERT_LEN],
                                AmdPspCertUsage usage, AmdPspCertAlgo algo,
                                const uint8_t *sig, size_t len)
{
    size_t i;

    g_assert(len <= SIG_DATA_LEN);
    for (i = 0; i < ARRAY_SIZE(signatures); i++) {
        uint8_t *s = cert + signatures[i];

        if (ldl_le_p(s + SIG_USAGE) == AMD_PSP_CERT_INVALID) {
            stl_le_p(s + SIG_USAGE, usage);
            stl_le_p(s + SIG_ALGO, algo);
            memset(s + SIG_DATA, 0, SIG_DATA_LEN);
            memcpy(s + SIG_DATA, sig, len);
            return true;
        }
    }
    return false;
}

const uint8_t *amd_psp_cert_signature(const uint8_t cert[AMD_PSP_CERT_LEN],
                                      AmdPspCertUsage usage,
                                      AmdPspCertAlgo algo, unsigned which)
{
    const uint8_t *s;
    size_t i;

    for (i = 0; i < ARRAY_SIZE(signatures); i++) {
        s = cert + signatures[i];
        if (ldl_le_p(s + SIG_USAGE) == usage &&
            ldl_le_p(s + SIG_ALGO) == algo && !which--) {
            return s + SIG_DATA;
        }
    }
    return NULL;
}

bool amd_psp_cert_copy_signature(uint8_t cert[AMD_PSP_CERT_LEN],
                                 const uint8_t from[AMD_PSP_CERT_LEN],
                                 AmdPspCertUsage usage)
{
    const AmdPspCertAlgo algo = AMD_PSP_ALGO_ECDSA_SHA256;
    const uint8_t *sig = amd_psp_cert_signature(from, usage, algo, 0);

    return sig && amd_psp_cert_add_signature(cert, usage, algo, sig,
                                             SIG_DATA_LEN);
}

void amd_psp_cert_ecdsa(const AmdPspEcKey *key, const void *data, size_t len,
                        uint8_t sig[AMD_PSP_CERT_ECDSA_LEN])
{
    AmdPspEcSignature s;

    QEMU_BUILD_BUG_ON(AMD_PSP_CERT_ECDSA_LEN != 2 * NUMBER_LEN);
    amd_psp_ecdsa_sign(key, data, len, &s);
    memset(sig, 0, AMD_PSP_CERT_ECDSA_LEN);
    amd_psp_reverse(sig, s.r, sizeof(s.r));
    amd_psp_reverse(sig + NUMBER_LEN, s.s, sizeof(s.s));
}

bool amd_psp_cert_sign(uint8_t cert[AMD_PSP_CERT_LEN], AmdPspCertUsage usage,
                       const AmdPspEcKey *key)
{
    uint8_t data[AMD_PSP_CERT_ECDSA_LEN];

    amd_psp_cert_ecdsa(key, cert, AMD_PSP_CERT_BODY_LEN, data);
    return amd_psp_cert_add_signature(cert, usage, AMD_PSP_ALGO_ECDSA_SHA256,
                                      data, sizeof(data));
}

bool amd_psp_cert_verify(const uint8_t cert[AMD_PSP_CERT_LEN],
                         AmdPspCertUsage usage,
                         const uint8_t parent[AMD_PSP_CERT_LEN],
                         AmdPspCertUsage parent_usage)
{
    AmdPspCertAlgo algo = ldl_le_p(parent + CERT_ALGO);
    AmdPspEcPoint own, q;
    const uint8_t *data;
    unsigned i;

    if (!amd_psp_cert_key(cert, usage, &own) ||
        !amd_psp_cert_key(parent, parent_usage, &q)) {
        return false;
    }
    /* A key for ECDH, such as a PDH, cannot have signed @cert */
    if (algo != AMD_PSP_ALGO_ECDSA_SHA256 &&
        algo != AMD_PSP_ALGO_ECDSA_SHA384) {
        return false;
    }
    for (i = 0; (data = amd_psp_cert_signature(cert, parent_usage, algo, i));
         i++) {
        AmdPspEcSignature sig;

        if (number_load(sig.r, data) &&
            number_load(sig.s, data + NUMBER_LEN) &&
            amd_psp_ecdsa_verify(&q, algo == AMD_PSP_ALGO_ECDSA_SHA384,
                                 cert, AMD_PSP_CERT_BODY_LEN, &sig)) {
            return true;
        }
    }
    return false;
}
