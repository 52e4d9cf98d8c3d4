/*
 * Certificates of the emulated AMD PSP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * AMD's "Secure Encrypted Virtualization API" (publication 55766) defines the
 * formats: appendix B for the certificates of ARK and ASK, appendix C for the
 * other certificates.
 */

#ifndef HW_MISC_AMD_PSP_CERTS_H
#define HW_MISC_AMD_PSP_CERTS_H

#include "hw/misc/amd-psp-crypto.h"

/* In bytes */
#define AMD_PSP_CERT_LEN        2084
#define AMD_PSP_CERT_BODY_LEN   0x414   /* the signed part */

/* Bytes of an ECDSA signature in certificates and attestation reports */
#define AMD_PSP_CERT_ECDSA_LEN  144

/* The certificates of ASK and ARK, in this order, with 4096-bit keys */
#define AMD_PSP_ASK_ARK_LEN     (2 * 1600)

/*
 * Values of PUBKEY_USAGE in a certificate.  Each signature has a field for the
 * usage of the key that signed, and this field uses the same values.
 */
typedef enum AmdPspCertUsage {
    AMD_PSP_CERT_ARK = 0x0000,
    AMD_PSP_CERT_ASK = 0x0013,
    AMD_PSP_CERT_INVALID = 0x1000,
    AMD_PSP_CERT_OCA = 0x1001,
    AMD_PSP_CERT_PEK = 0x1002,
    AMD_PSP_CERT_PDH = 0x1003,
    AMD_PSP_CERT_CEK = 0x1004,
} AmdPspCertUsage;

/* PUBKEY_ALGO of a certificate, and the algorithm of a signature */
typedef enum AmdPspCertAlgo {
    AMD_PSP_ALGO_INVALID = 0,
    AMD_PSP_ALGO_ECDSA_SHA256 = 0x002,
    AMD_PSP_ALGO_ECDH_SHA256 = 0x003,
    AMD_PSP_ALGO_RSA_SHA384 = 0x101,
    AMD_PSP_ALGO_ECDSA_SHA384 = 0x102,
    AMD_PSP_ALGO_ECDH_SHA384 = 0x103,
} AmdPspCertAlgo;

/**
 * amd_psp_reverse: copy @len bytes in reverse order
 *
 * Numbers are little-endian in certificates and big-endian elsewhere.
 */
void amd_psp_reverse(uint8_t *dst, const uint8_t *src, size_t len);

/**
 * amd_psp_cert_make: make a certificate of a P-384 key, without signatures
 */
void amd_psp_cert_make(const AmdPspEcPoint *q, AmdPspCertUsage usage,
                       uint8_t api_major, uint8_t api_minor,
                       uint8_t cert[AMD_PSP_CERT_LEN]);

/**
 * amd_psp_cert_key: get the key of a certificate
 *
 * Returns false if @cert is not a well-formed certificate for @usage, or if its
 * key is not a point of the curve.  Does not check signatures.
 */
bool amd_psp_cert_key(const uint8_t cert[AMD_PSP_CERT_LEN],
                      AmdPspCertUsage usage, AmdPspEcPoint *q);

/**
 * amd_psp_cert_api: get the API version in a certificate, major << 8 | minor
 */
unsigned amd_psp_cert_api(const uint8_t cert[AMD_PSP_CERT_LEN]);

/**
 * amd_psp_cert_add_signature: write a signature to an unused signature slot
 * @usage, @algo: usage and algorithm of the key that signed
 * @sig, @len: the signature as appendix C of AMD's API defines it, up to 512
 * bytes
 *
 * Returns false if both signature slots are used.
 */
bool amd_psp_cert_add_signature(uint8_t cert[AMD_PSP_CERT_LEN],
                                AmdPspCertUsage usage, AmdPspCertAlgo algo,
                                const uint8_t *sig, size_t len);

/**
 * amd_psp_cert_signature: find a signature of a certificate
 * @usage, @algo: usage and algorithm of the key that signed
 * @which: 0 for the first signature by such a key, 1 for the second
 *
 * Returns the 512 bytes of the signature, or NULL if there is none.
 */
const uint8_t *amd_psp_cert_signature(const uint8_t cert[AMD_PSP_CERT_LEN],
                                      AmdPspCertUsage usage,
                                      AmdPspCertAlgo algo, unsigned which);

/**
 * amd_psp_cert_copy_signature: copy a signature from @from to @cert
 * @usage: usage of the key that made the signature
 *
 * Copies only a signature that uses ECDSA and SHA-256.  Returns false if @from
 * has no such signature, or if both signature slots of @cert are used.
 */
bool amd_psp_cert_copy_signature(uint8_t cert[AMD_PSP_CERT_LEN],
                                 const uint8_t from[AMD_PSP_CERT_LEN],
                                 AmdPspCertUsage usage);

/**
 * amd_psp_cert_ecdsa: sign @data with ECDSA and SHA-256
 * @sig: set to the signature in the format that appendix C of AMD's API defines
 * for certificates
 */
void amd_psp_cert_ecdsa(const AmdPspEcKey *key, const void *data, size_t len,
                        uint8_t sig[AMD_PSP_CERT_ECDSA_LEN]);

/**
 * amd_psp_cert_sign: sign @cert with ECDSA and SHA-256
 * @usage, @key: usage and key of the signer
 */
bool amd_psp_cert_sign(uint8_t cert[AMD_PSP_CERT_LEN], AmdPspCertUsage usage,
                       const AmdPspEcKey *key);

/**
 * amd_psp_cert_verify: check that @cert is for @usage and signed by @parent
 * @parent: certificate of the signer; the caller decides whether to trust it
 * @parent_usage: the usage that @parent must have
 */
bool amd_psp_cert_verify(const uint8_t cert[AMD_PSP_CERT_LEN],
                         AmdPspCertUsage usage,
                         const uint8_t parent[AMD_PSP_CERT_LEN],
                         AmdPspCertUsage parent_usage);

#endif
