/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The role of the owner of an SEV guest: this code makes the session for the
 * launch, verifies the measurement, and encrypts secrets for the guest.  It
 * follows AMD's "Secure Encrypted Virtualization API" (publication 55766).
 * The tests must notice an error in this code and an error in the emulated
 * firmware.  Therefore the two share no code and use different crypto
 * libraries; this code uses nettle.
 */
#ifndef TESTS_L1_GUEST_OWNER_H
#define TESTS_L1_GUEST_OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <gmp.h>
#include <nettle/aes.h>
#include <nettle/ctr.h>
#include <nettle/ecc.h>
#include <nettle/ecc-curve.h>
#include <nettle/ecdsa.h>
#include <nettle/hmac.h>

#define OWNER_CERT_SIZE         2084
#define OWNER_P384_SIZE         48
/* Offsets and values of the fields of a certificate */
#define OWNER_CERT_VERSION      0x000
#define OWNER_CERT_USAGE        0x008
#define OWNER_CERT_ALGO         0x00c
#define OWNER_CERT_CURVE        0x010
#define OWNER_CERT_QX           0x014
#define OWNER_CERT_QY           0x05c
#define OWNER_CERT_SIG1_USAGE   0x414
#define OWNER_CERT_SIG2_USAGE   0x61c
#define OWNER_USAGE_PDH         0x1003
#define OWNER_USAGE_INVALID     0x1000
#define OWNER_ALGO_ECDH_SHA256  3
#define OWNER_CURVE_P384        2

struct owner_session {
    uint8_t nonce[16], wrapped[32], iv[16], mac[32], policy_mac[32];
} __attribute__((packed));

struct owner_header {
    uint32_t flags;
    uint8_t iv[16], mac[32];
} __attribute__((packed));

struct owner {
    uint32_t policy;
    uint8_t tek[16], tik[16];
    uint8_t cert[OWNER_CERT_SIZE];
    struct owner_session session;
};

static void owner_random(void *opaque, size_t len, uint8_t *out)
{
    (void)opaque;
    if (getrandom(out, len, 0) != (ssize_t)len) {
        abort();
    }
}

/* Add @len bytes at @p to an HMAC-SHA256 */
static void
owner_mac_add(struct hmac_sha256_ctx *mac, const void *p, size_t len)
{
    hmac_sha256_update(mac, len, p);
}

/* Derive a key of 16 bytes by NIST SP 800-108 in counter mode */
static void owner_kdf(const uint8_t *key, size_t key_len, const char *label,
                      const void *context, size_t context_len, uint8_t out[16])
{
    const uint32_t counter = 1, bits = 128;
    struct hmac_sha256_ctx mac;

    hmac_sha256_set_key(&mac, key_len, key);
    owner_mac_add(&mac, &counter, 4);
    owner_mac_add(&mac, label, strlen(label) + 1);
    owner_mac_add(&mac, context, context_len);
    owner_mac_add(&mac, &bits, 4);
    hmac_sha256_digest(&mac, 16, out);
}

static void owner_ctr(const uint8_t key[16], const uint8_t iv[16],
                      size_t len, const void *in, void *out)
{
    struct aes128_ctx aes;
    uint8_t counter[16];

    aes128_set_encrypt_key(&aes, key);
    memcpy(counter, iv, 16);
    ctr_crypt(&aes, (nettle_cipher_func *)aes128_encrypt, 16, counter, len,
              out, in);
}

/* Coordinates in a certificate are little-endian */
static void owner_put(uint8_t *cert, size_t offset, const mpz_t v)
{
    mpz_export(cert + offset, NULL, -1, 1, 1, 0, v);
}

static void owner_get(const uint8_t *cert, size_t offset, mpz_t v)
{
    mpz_import(v, OWNER_P384_SIZE, -1, 1, 1, 0, cert + offset);
}

/*
 * owner_agree - agree on a secret @z with the platform whose certificate is
 * @pdh
 *
 * Makes the owner's key pair and its certificate.  Returns false if the key in
 * @pdh is not a point of the curve.
 */
static bool owner_agree(struct owner *o, const uint8_t pdh[OWNER_CERT_SIZE],
                        uint8_t z[OWNER_P384_SIZE])
{
    const struct ecc_curve *curve = nettle_get_secp_384r1();
    uint32_t word;
    struct ecc_point own, peer, shared;
    struct ecc_scalar d;
    size_t len;
    mpz_t x, y;
    bool good;

    mpz_inits(x, y, NULL);
    ecc_point_init(&own, curve);
    ecc_point_init(&peer, curve);
    ecc_point_init(&shared, curve);
    ecc_scalar_init(&d, curve);

    ecdsa_generate_keypair(&own, &d, NULL, owner_random);
    ecc_point_get(&own, x, y);
    memset(o->cert, 0, sizeof(o->cert));
#define FIELD(offset, value) \
    (word = (value), memcpy(o->cert + (offset), &word, sizeof(word)))
    FIELD(OWNER_CERT_VERSION, 1);
    FIELD(OWNER_CERT_USAGE, OWNER_USAGE_PDH);
    FIELD(OWNER_CERT_ALGO, OWNER_ALGO_ECDH_SHA256);
    FIELD(OWNER_CERT_CURVE, OWNER_CURVE_P384);
    FIELD(OWNER_CERT_SIG1_USAGE, OWNER_USAGE_INVALID);
    FIELD(OWNER_CERT_SIG2_USAGE, OWNER_USAGE_INVALID);
#undef FIELD
    owner_put(o->cert, OWNER_CERT_QX, x);
    owner_put(o->cert, OWNER_CERT_QY, y);

    owner_get(pdh, OWNER_CERT_QX, x);
    owner_get(pdh, OWNER_CERT_QY, y);
    good = ecc_point_set(&peer, x, y);
    if (good) {
        ecc_point_mul(&shared, &d, &peer);
        ecc_point_get(&shared, x, y);
        memset(z, 0, OWNER_P384_SIZE);
        len = (mpz_sizeinbase(x, 2) + 7) / 8;
        mpz_export(z + OWNER_P384_SIZE - len, NULL, 1, 1, 1, 0, x);
    }

    ecc_scalar_clear(&d);
    ecc_point_clear(&shared);
    ecc_point_clear(&peer);
    ecc_point_clear(&own);
    mpz_clears(x, y, NULL);
    return good;
}

/*
 * owner_init - make the transport keys and the session for a launch with
 * @policy
 * @pdh: PDH certificate of the platform that launches the guest
 *
 * Returns false if @pdh has no valid key.
 */
static bool owner_init(struct owner *o, uint32_t policy,
                       const uint8_t pdh[OWNER_CERT_SIZE])
{
    uint8_t z[OWNER_P384_SIZE], master[16], kek[16], kik[16], keys[32];
    struct owner_session *s = &o->session;
    struct hmac_sha256_ctx mac;

    o->policy = policy;
    owner_random(NULL, sizeof(o->tek), o->tek);
    owner_random(NULL, sizeof(o->tik), o->tik);
    owner_random(NULL, sizeof(s->nonce), s->nonce);
    owner_random(NULL, sizeof(s->iv), s->iv);
    if (!owner_agree(o, pdh, z)) {
        return false;
    }
    owner_kdf(z, sizeof(z), "sev-master-secret", s->nonce, 16, master);
    owner_kdf(master, 16, "sev-kek", NULL, 0, kek);
    owner_kdf(master, 16, "sev-kik", NULL, 0, kik);
    memcpy(keys, o->tek, 16);
    memcpy(keys + 16, o->tik, 16);
    owner_ctr(kek, s->iv, sizeof(keys), keys, s->wrapped);
    hmac_sha256_set_key(&mac, 16, kik);
    owner_mac_add(&mac, s->wrapped, sizeof(s->wrapped));
    hmac_sha256_digest(&mac, 32, s->mac);
    hmac_sha256_set_key(&mac, 16, o->tik);
    owner_mac_add(&mac, &policy, 4);
    hmac_sha256_digest(&mac, 32, s->policy_mac);
    return true;
}

/*
 * owner_expects - is @measure the measurement of data with the digest @digest?
 * @measure: output of LAUNCH_MEASURE: 32 bytes MEASURE and 16 bytes MNONCE
 */
static bool owner_expects(const struct owner *o, const uint8_t measure[48],
                          uint8_t api_major, uint8_t api_minor, uint8_t build,
                          const uint8_t digest[SHA256_DIGEST_SIZE])
{
    const uint8_t head[] = { 0x04, api_major, api_minor, build };
    struct hmac_sha256_ctx mac;
    uint8_t expected[32];

    hmac_sha256_set_key(&mac, 16, o->tik);
    owner_mac_add(&mac, head, sizeof(head));
    owner_mac_add(&mac, &o->policy, 4);
    owner_mac_add(&mac, digest, SHA256_DIGEST_SIZE);
    owner_mac_add(&mac, measure + 32, 16);
    hmac_sha256_digest(&mac, 32, expected);
    return !memcmp(expected, measure, 32);
}

/* owner_seal - encrypt @secret for the guest with the measurement @measure */
static void owner_seal(const struct owner *o, const uint8_t measure[32],
                       const void *secret, uint32_t len, void *sealed,
                       struct owner_header *header)
{
    const uint8_t type = 0x01;
    struct hmac_sha256_ctx mac;

    header->flags = 0;
    owner_random(NULL, sizeof(header->iv), header->iv);
    owner_ctr(o->tek, header->iv, len, secret, sealed);
    hmac_sha256_set_key(&mac, 16, o->tik);
    owner_mac_add(&mac, &type, 1);
    owner_mac_add(&mac, &header->flags, 4);
    owner_mac_add(&mac, header->iv, sizeof(header->iv));
    owner_mac_add(&mac, &len, 4);
    owner_mac_add(&mac, &len, 4);
    owner_mac_add(&mac, sealed, len);
    owner_mac_add(&mac, measure, 32);
    hmac_sha256_digest(&mac, 32, header->mac);
}

#endif
