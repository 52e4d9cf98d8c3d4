/*
 * Cryptography of the emulated AMD PSP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * AMD's "Secure Encrypted Virtualization API" (publication 55766) defines the
 * formats and key derivations.  Comments refer to its sections and tables.
 * tests/unit/test-amd-psp-crypto.c checks the KDF and the measurement against
 * independent vectors.
 */

#ifndef HW_MISC_AMD_PSP_CRYPTO_H
#define HW_MISC_AMD_PSP_CRYPTO_H

/* In bytes */
#define AMD_PSP_KEY_LEN         16      /* TEK, TIK, KEK, KIK, master secret */
#define AMD_PSP_NONCE_LEN       16
#define AMD_PSP_MAC_LEN         32      /* HMAC-SHA256 */
#define AMD_PSP_DIGEST_LEN      32      /* SHA-256 */
#define AMD_PSP_P384_LEN        48      /* a coordinate, or a private key */
#define AMD_PSP_SEED_LEN        32

/* Transport keys of a guest: encryption and integrity */
typedef struct AmdPspTransportKeys {
    uint8_t tek[AMD_PSP_KEY_LEN];
    uint8_t tik[AMD_PSP_KEY_LEN];
} AmdPspTransportKeys;

/* GUEST_SESSION: encrypted transport keys, and a MAC of the guest's policy */
typedef struct AmdPspSession {
    uint8_t nonce[AMD_PSP_NONCE_LEN];
    AmdPspTransportKeys wrapped;
    uint8_t wrap_iv[AMD_PSP_NONCE_LEN];
    uint8_t wrap_mac[AMD_PSP_MAC_LEN];
    uint8_t policy_mac[AMD_PSP_MAC_LEN];
} QEMU_PACKED AmdPspSession;
QEMU_BUILD_BUG_ON(sizeof(AmdPspSession) != 128);

/* Packet header of SEND_UPDATE_* and RECEIVE_UPDATE_* */
typedef struct AmdPspPacketHeader {
    uint32_t flags;                     /* little-endian; bit 0: compressed */
    uint8_t iv[AMD_PSP_NONCE_LEN];
    uint8_t mac[AMD_PSP_MAC_LEN];
} QEMU_PACKED AmdPspPacketHeader;
QEMU_BUILD_BUG_ON(sizeof(AmdPspPacketHeader) != 52);

/*
 * The first byte of the data that a packet's MAC covers.  The API specifies
 * 0x03 for the state of a vCPU.  According to its source code, AMD's firmware
 * uses 0x02 instead, so the firmware that receives a packet cannot distinguish
 * the state of a vCPU from data.
 */
typedef enum AmdPspPacketType {
    AMD_PSP_PACKET_SECRET = 0x01,
    AMD_PSP_PACKET_DATA = 0x02,
} AmdPspPacketType;

/*
 * P-384: AmdPspEcPoint is a public key, AmdPspEcKey a key pair.  Numbers are
 * big-endian.
 */
typedef struct AmdPspEcPoint {
    uint8_t x[AMD_PSP_P384_LEN];
    uint8_t y[AMD_PSP_P384_LEN];
} AmdPspEcPoint;

typedef struct AmdPspEcKey {
    uint8_t d[AMD_PSP_P384_LEN];
    AmdPspEcPoint q;
} AmdPspEcKey;

/* An ECDSA signature; numbers are big-endian */
typedef struct AmdPspEcSignature {
    uint8_t r[AMD_PSP_P384_LEN];
    uint8_t s[AMD_PSP_P384_LEN];
} AmdPspEcSignature;

/**
 * amd_psp_expand: derive pseudo-random bytes from a seed
 * @label, @count: select one of the seed's streams
 *
 * The same arguments give the same bytes.
 */
void amd_psp_expand(const uint8_t seed[AMD_PSP_SEED_LEN], const char *label,
                    uint32_t count, uint8_t *out, size_t len);

/**
 * amd_psp_ec_key: derive a key pair from a seed's stream
 * @label, @count: as for amd_psp_expand()
 */
void amd_psp_ec_key(const uint8_t seed[AMD_PSP_SEED_LEN], const char *label,
                    uint32_t count, AmdPspEcKey *key);

/**
 * amd_psp_ecdh: compute the secret that two key pairs share
 * @own: one key pair
 * @peer: the public key of the other key pair
 * @z: the x coordinate of the shared point, big-endian
 *
 * Returns false if @peer is not a point of the curve.
 */
bool amd_psp_ecdh(const AmdPspEcKey *own, const AmdPspEcPoint *peer,
                  uint8_t z[AMD_PSP_P384_LEN]);

/**
 * amd_psp_ec_point_valid: whether @q is a point of the curve
 */
bool amd_psp_ec_point_valid(const AmdPspEcPoint *q);

/**
 * amd_psp_ecdsa_sign: sign the SHA-256 of @data
 *
 * The same key and data give the same signature, because the nonce of the
 * signature is derived from both.
 */
void amd_psp_ecdsa_sign(const AmdPspEcKey *key, const void *data, size_t len,
                        AmdPspEcSignature *sig);

/**
 * amd_psp_ecdsa_verify: check that @sig is a signature of @data by the key @q
 * @sha384: true for SHA-384, false for SHA-256
 */
bool amd_psp_ecdsa_verify(const AmdPspEcPoint *q, bool sha384,
                          const void *data, size_t len,
                          const AmdPspEcSignature *sig);

/**
 * amd_psp_kdf: KDF of SP 800-108 in counter mode with HMAC-SHA256
 * @key, @key_len: the key to derive from
 * @label: the purpose of the derived key
 * @context, @context_len: data to which the key is bound; may be NULL, 0
 * @out, @out_len: the derived key, up to 2^16 bytes
 */
void amd_psp_kdf(const uint8_t *key, size_t key_len, const char *label,
                 const uint8_t *context, size_t context_len,
                 uint8_t *out, size_t out_len);

/**
 * amd_psp_session_wrap: make the session for @keys and @policy
 * @z: result of amd_psp_ecdh() with this platform's PDH and the destination's
 * @nonce, @wrap_iv: fresh random bytes
 */
void amd_psp_session_wrap(const uint8_t z[AMD_PSP_P384_LEN],
                          const uint8_t nonce[AMD_PSP_NONCE_LEN],
                          const uint8_t wrap_iv[AMD_PSP_NONCE_LEN],
                          const AmdPspTransportKeys *keys, uint32_t policy,
                          AmdPspSession *session);

/**
 * amd_psp_session_unwrap: check a session and decrypt its keys
 *
 * Returns false, with @keys untouched, if the session was made for another
 * secret or another policy, or was changed.
 */
bool amd_psp_session_unwrap(const uint8_t z[AMD_PSP_P384_LEN],
                            const AmdPspSession *session, uint32_t policy,
                            AmdPspTransportKeys *keys);

/**
 * amd_psp_packet_seal: encrypt a packet in place and make its header
 * @iv: fresh random bytes
 * @data, @len: guest data, replaced by transport data; less than 4 GiB
 */
void amd_psp_packet_seal(const AmdPspTransportKeys *keys, AmdPspPacketType type,
                         const uint8_t iv[AMD_PSP_NONCE_LEN], uint8_t *data,
                         size_t len, AmdPspPacketHeader *header);

/**
 * amd_psp_packet_open: check a packet and decrypt it in place
 *
 * Returns false, with @data untouched, if header or data were changed.
 */
bool amd_psp_packet_open(const AmdPspTransportKeys *keys, AmdPspPacketType type,
                         const AmdPspPacketHeader *header, uint8_t *data,
                         size_t len);

/**
 * amd_psp_secret_seal: like amd_psp_packet_seal(), for LAUNCH_UPDATE_SECRET
 * @measure: the guest's measurement from LAUNCH_MEASURE; no other guest can
 *           open the secret
 */
void amd_psp_secret_seal(const AmdPspTransportKeys *keys,
                         const uint8_t measure[AMD_PSP_MAC_LEN],
                         const uint8_t iv[AMD_PSP_NONCE_LEN], uint8_t *data,
                         size_t len, AmdPspPacketHeader *header);

/**
 * amd_psp_secret_open: like amd_psp_packet_open(), for LAUNCH_UPDATE_SECRET
 */
bool amd_psp_secret_open(const AmdPspTransportKeys *keys,
                         const uint8_t measure[AMD_PSP_MAC_LEN],
                         const AmdPspPacketHeader *header, uint8_t *data,
                         size_t len);

/**
 * amd_psp_measurement: compute MEASURE of LAUNCH_MEASURE
 * @api_major, @api_minor, @build: version of the firmware
 * @policy: policy of the guest
 * @digest: SHA-256 of the launched data
 * @nonce: MNONCE
 */
void amd_psp_measurement(const uint8_t tik[AMD_PSP_KEY_LEN], uint8_t api_major,
                         uint8_t api_minor, uint8_t build, uint32_t policy,
                         const uint8_t digest[AMD_PSP_DIGEST_LEN],
                         const uint8_t nonce[AMD_PSP_NONCE_LEN],
                         uint8_t mac[AMD_PSP_MAC_LEN]);

#endif
