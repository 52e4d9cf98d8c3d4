/*
 * Cryptography of the emulated AMD PSP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "hw/misc/amd-psp-crypto.h"

#include <gmp.h>
#include <nettle/aes.h>
#include <nettle/ctr.h>
#include <nettle/ecc-curve.h>
#include <nettle/ecc.h>
#include <nettle/ecdsa.h>
#include <nettle/hmac.h>
#include <nettle/memops.h>
#include <nettle/sha2.h>

/* The first byte of the data that the MAC of a measurement covers */
#define MEASUREMENT_CONTEXT 0x04

typedef struct hmac_sha256_ctx HmacCtx;

static void hmac_u32(HmacCtx *ctx, uint32_t v)
{
    uint8_t le[4];

    stl_le_p(le, v);
    hmac_sha256_update(ctx, sizeof(le), le);
}

void amd_psp_kdf(const uint8_t *key, size_t key_len, const char *label,
                 const uint8_t *context, size_t context_len,
                 uint8_t *out, size_t out_len)
{
    uint32_t bits = out_len * 8;
    uint32_t i;

    g_assert(out_len <= 0x10000);
    for (i = 1; out_len; i++) {
        size_t n = MIN(out_len, SHA256_DIGEST_SIZE);
        const uint8_t zero = 0;
        HmacCtx ctx;

        hmac_sha256_set_key(&ctx, key_len, key);
        hmac_u32(&ctx, i);
        hmac_sha256_update(&ctx, strlen(label), (const uint8_t *)label);
        hmac_sha256_update(&ctx, 1, &zero);
        if (context_len) {
            hmac_sha256_update(&ctx, context_len, context);
        }
        hmac_u32(&ctx, bits);
        hmac_sha256_digest(&ctx, n, out);
        out += n;
        out_len -= n;
    }
}

void amd_psp_expand(const uint8_t seed[AMD_PSP_SEED_LEN], const char *label,
                    uint32_t count, uint8_t *out, size_t len)
{
    uint8_t context[4];

    stl_le_p(context, count);
    amd_psp_kdf(seed, AMD_PSP_SEED_LEN, label, context, sizeof(context),
                out, len);
}

/* Store a number in the fixed length, with leading zeros */
static void mpz_store(const mpz_t v, uint8_t out[AMD_PSP_P384_LEN])
{
    size_t len = (mpz_sizeinbase(v, 2) + 7) / 8;

    g_assert(len <= AMD_PSP_P384_LEN);
    memset(out, 0, AMD_PSP_P384_LEN);
    mpz_export(out + AMD_PSP_P384_LEN - len, NULL, 1, 1, 1, 0, v);
}

static void mpz_load(mpz_t v, const uint8_t in[AMD_PSP_P384_LEN])
{
    mpz_import(v, AMD_PSP_P384_LEN, 1, 1, 1, 0, in);
}

static bool point_load(struct ecc_point *p, const AmdPspEcPoint *q)
{
    mpz_t x, y;
    bool ok;

    mpz_init(x);
    mpz_init(y);
    mpz_load(x, q->x);
    mpz_load(y, q->y);
    ok = ecc_point_set(p, x, y);
    mpz_clear(x);
    mpz_clear(y);
    return ok;
}

static void point_store(const struct ecc_point *p, AmdPspEcPoint *q)
{
    mpz_t x, y;

    mpz_init(x);
    mpz_init(y);
    ecc_point_get(p, x, y);
    mpz_store(x, q->x);
    mpz_store(y, q->y);
    mpz_clear(x);
    mpz_clear(y);
}

typedef struct SeedStream {
    const uint8_t *seed;
    const char *label;
    uint32_t count;
    uint32_t calls;
} SeedStream;

/* Source of random bytes for nettle: a stream that is derived from a seed */
static void seed_stream_read(void *opaque, size_t len, uint8_t *dst)
{
    SeedStream *s = opaque;
    uint8_t context[8];

    stl_le_p(context, s->count);
    stl_le_p(context + 4, ++s->calls);
    amd_psp_kdf(s->seed, AMD_PSP_SEED_LEN, s->label, context, sizeof(context),
                dst, len);
}

void amd_psp_ec_key(const uint8_t seed[AMD_PSP_SEED_LEN], const char *label,
                    uint32_t count, AmdPspEcKey *key)
{
    const struct ecc_curve *curve = nettle_get_secp_384r1();
    SeedStream stream = { .seed = seed, .label = label, .count = count };
    struct ecc_scalar scalar;
    struct ecc_point point;
    mpz_t d;

    ecc_scalar_init(&scalar, curve);
    ecc_point_init(&point, curve);
    mpz_init(d);
    ecdsa_generate_keypair(&point, &scalar, &stream, seed_stream_read);
    ecc_scalar_get(&scalar, d);
    mpz_store(d, key->d);
    point_store(&point, &key->q);
    mpz_clear(d);
    ecc_point_clear(&point);
    ecc_scalar_clear(&scalar);
}

bool amd_psp_ecdh(const AmdPspEcKey *own, const AmdPspEcPoint *peer,
                  uint8_t z[AMD_PSP_P384_LEN])
{
    const struct ecc_curve *curve = nettle_get_secp_384r1();
    struct ecc_point point, shared;
    struct ecc_scalar scalar;
    AmdPspEcPoint result;
    mpz_t d;
    bool ok;

    ecc_point_init(&point, curve);
    ecc_point_init(&shared, curve);
    ecc_scalar_init(&scalar, curve);
    mpz_init(d);
    mpz_load(d, own->d);
    ok = ecc_scalar_set(&scalar, d) && point_load(&point, peer);
    if (ok) {
        ecc_point_mul(&shared, &scalar, &point);
        point_store(&shared, &result);
        memcpy(z, result.x, AMD_PSP_P384_LEN);
    }
    mpz_clear(d);
    ecc_scalar_clear(&scalar);
    ecc_point_clear(&shared);
    ecc_point_clear(&point);
    return ok;
}

bool amd_psp_ec_point_valid(const AmdPspEcPoint *q)
{
    struct ecc_point point;
    bool ok;

    ecc_point_init(&point, nettle_get_secp_384r1());
    ok = point_load(&point, q);
    ecc_point_clear(&point);
    return ok;
}

void amd_psp_ecdsa_sign(const AmdPspEcKey *key, const void *data, size_t len,
                        AmdPspEcSignature *sig)
{
    uint8_t digest[SHA256_DIGEST_SIZE], seed[AMD_PSP_SEED_LEN];
    SeedStream stream = { .seed = seed, .label = "ecdsa" };
    struct ecc_scalar scalar;
    struct dsa_signature s;
    struct sha256_ctx ctx;
    mpz_t d;

    sha256_init(&ctx);
    sha256_update(&ctx, len, data);
    sha256_digest(&ctx, sizeof(digest), digest);
    amd_psp_kdf(key->d, sizeof(key->d), "ecdsa", digest, sizeof(digest),
                seed, sizeof(seed));
    ecc_scalar_init(&scalar, nettle_get_secp_384r1());
    dsa_signature_init(&s);
    mpz_init(d);
    mpz_load(d, key->d);
    /* amd_psp_ec_key() makes valid keys only */
    g_assert(ecc_scalar_set(&scalar, d));
    ecdsa_sign(&scalar, &stream, seed_stream_read, sizeof(digest), digest, &s);
    mpz_store(s.r, sig->r);
    mpz_store(s.s, sig->s);
    mpz_clear(d);
    dsa_signature_clear(&s);
    ecc_scalar_clear(&scalar);
}

bool amd_psp_ecdsa_verify(const AmdPspEcPoint *q, bool sha384,
                          const void *data, size_t len,
                          const AmdPspEcSignature *sig)
{
    uint8_t digest[SHA384_DIGEST_SIZE];
    struct dsa_signature s;
    struct ecc_point point;
    bool ok;

    if (sha384) {
        struct sha384_ctx ctx;

        sha384_init(&ctx);
        sha384_update(&ctx, len, data);
        sha384_digest(&ctx, SHA384_DIGEST_SIZE, digest);
    } else {
        struct sha256_ctx ctx;

        sha256_init(&ctx);
        sha256_update(&ctx, len, data);
        sha256_digest(&ctx, SHA256_DIGEST_SIZE, digest);
    }
    ecc_point_init(&point, nettle_get_secp_384r1());
    dsa_signature_init(&s);
    mpz_load(s.r, sig->r);
    mpz_load(s.s, sig->s);
    ok = point_load(&point, q) &&
         ecdsa_verify(&point, sha384 ? SHA384_DIGEST_SIZE : SHA256_DIGEST_SIZE,
                      digest, &s);
    dsa_signature_clear(&s);
    ecc_point_clear(&point);
    return ok;
}

/* Encrypt or decrypt in place */
static void aes128_ctr(const uint8_t key[AMD_PSP_KEY_LEN],
                       const uint8_t iv[AMD_PSP_NONCE_LEN],
                       void *data, size_t len)
{
    struct aes128_ctx ctx;
    uint8_t counter[AES_BLOCK_SIZE];

    memcpy(counter, iv, sizeof(counter));
    aes128_set_encrypt_key(&ctx, key);
    ctr_crypt(&ctx, (nettle_cipher_func *)aes128_encrypt, AES_BLOCK_SIZE,
              counter, len, data, data);
}

/* Derive the key encryption key and the key integrity key of a session */
static void session_keys(const uint8_t z[AMD_PSP_P384_LEN],
                         const uint8_t nonce[AMD_PSP_NONCE_LEN],
                         uint8_t kek[AMD_PSP_KEY_LEN],
                         uint8_t kik[AMD_PSP_KEY_LEN])
{
    uint8_t master[AMD_PSP_KEY_LEN];

    amd_psp_kdf(z, AMD_PSP_P384_LEN, "sev-master-secret",
                nonce, AMD_PSP_NONCE_LEN, master, sizeof(master));
    amd_psp_kdf(master, sizeof(master), "sev-kek", NULL, 0,
                kek, AMD_PSP_KEY_LEN);
    amd_psp_kdf(master, sizeof(master), "sev-kik", NULL, 0,
                kik, AMD_PSP_KEY_LEN);
}

static void wrap_mac(const uint8_t kik[AMD_PSP_KEY_LEN],
                     const AmdPspTransportKeys *wrapped,
                     uint8_t mac[AMD_PSP_MAC_LEN])
{
    HmacCtx ctx;

    hmac_sha256_set_key(&ctx, AMD_PSP_KEY_LEN, kik);
    hmac_sha256_update(&ctx, sizeof(*wrapped), (const uint8_t *)wrapped);
    hmac_sha256_digest(&ctx, AMD_PSP_MAC_LEN, mac);
}

static void policy_mac(const uint8_t tik[AMD_PSP_KEY_LEN], uint32_t policy,
                       uint8_t mac[AMD_PSP_MAC_LEN])
{
    HmacCtx ctx;

    hmac_sha256_set_key(&ctx, AMD_PSP_KEY_LEN, tik);
    hmac_u32(&ctx, policy);
    hmac_sha256_digest(&ctx, AMD_PSP_MAC_LEN, mac);
}

void amd_psp_session_wrap(const uint8_t z[AMD_PSP_P384_LEN],
                          const uint8_t nonce[AMD_PSP_NONCE_LEN],
                          const uint8_t wrap_iv[AMD_PSP_NONCE_LEN],
                          const AmdPspTransportKeys *keys, uint32_t policy,
                          AmdPspSession *session)
{
    uint8_t kek[AMD_PSP_KEY_LEN], kik[AMD_PSP_KEY_LEN];

    session_keys(z, nonce, kek, kik);
    memcpy(session->nonce, nonce, AMD_PSP_NONCE_LEN);
    memcpy(session->wrap_iv, wrap_iv, AMD_PSP_NONCE_LEN);
    session->wrapped = *keys;
    aes128_ctr(kek, wrap_iv, &session->wrapped, sizeof(session->wrapped));
    wrap_mac(kik, &session->wrapped, session->wrap_mac);
    policy_mac(keys->tik, policy, session->policy_mac);
}

bool amd_psp_session_unwrap(const uint8_t z[AMD_PSP_P384_LEN],
                            const AmdPspSession *session, uint32_t policy,
                            AmdPspTransportKeys *keys)
{
    uint8_t kek[AMD_PSP_KEY_LEN], kik[AMD_PSP_KEY_LEN], mac[AMD_PSP_MAC_LEN];
    AmdPspTransportKeys unwrapped = session->wrapped;

    session_keys(z, session->nonce, kek, kik);
    wrap_mac(kik, &session->wrapped, mac);
    if (!memeql_sec(mac, session->wrap_mac, sizeof(mac))) {
        return false;
    }
    aes128_ctr(kek, session->wrap_iv, &unwrapped, sizeof(unwrapped));
    policy_mac(unwrapped.tik, policy, mac);
    if (!memeql_sec(mac, session->policy_mac, sizeof(mac))) {
        return false;
    }
    *keys = unwrapped;
    return true;
}

/*
 * The MAC covers the lengths of the guest's data and of the transport data,
 * which are equal because the data are not compressed.  @measure: the
 * measurement, if the packet is a secret; otherwise NULL
 */
static void packet_mac(const AmdPspTransportKeys *keys, AmdPspPacketType type,
                       const AmdPspPacketHeader *header, const uint8_t *data,
                       size_t len, const uint8_t *measure,
                       uint8_t mac[AMD_PSP_MAC_LEN])
{
    uint8_t context = type;
    HmacCtx ctx;

    hmac_sha256_set_key(&ctx, sizeof(keys->tik), keys->tik);
    hmac_sha256_update(&ctx, sizeof(context), &context);
    hmac_sha256_update(&ctx, offsetof(AmdPspPacketHeader, mac),
                       (const uint8_t *)header);
    hmac_u32(&ctx, len);
    hmac_u32(&ctx, len);
    hmac_sha256_update(&ctx, len, data);
    if (measure) {
        hmac_sha256_update(&ctx, AMD_PSP_MAC_LEN, measure);
    }
    hmac_sha256_digest(&ctx, AMD_PSP_MAC_LEN, mac);
}

static void packet_seal(const AmdPspTransportKeys *keys, AmdPspPacketType type,
                        const uint8_t *measure,
                        const uint8_t iv[AMD_PSP_NONCE_LEN], uint8_t *data,
                        size_t len, AmdPspPacketHeader *header)
{
    header->flags = 0;
    memcpy(header->iv, iv, sizeof(header->iv));
    aes128_ctr(keys->tek, iv, data, len);
    packet_mac(keys, type, header, data, len, measure, header->mac);
}

static bool packet_open(const AmdPspTransportKeys *keys, AmdPspPacketType type,
                        const uint8_t *measure,
                        const AmdPspPacketHeader *header, uint8_t *data,
                        size_t len)
{
    uint8_t mac[AMD_PSP_MAC_LEN];

    packet_mac(keys, type, header, data, len, measure, mac);
    if (!memeql_sec(mac, header->mac, sizeof(mac))) {
        return false;
    }
    aes128_ctr(keys->tek, header->iv, data, len);
    return true;
}

void amd_psp_packet_seal(const AmdPspTransportKeys *keys, AmdPspPacketType type,
                         const uint8_t iv[AMD_PSP_NONCE_LEN], uint8_t *data,
                         size_t len, AmdPspPacketHeader *header)
{
    packet_seal(keys, type, NULL, iv, data, len, header);
}

bool amd_psp_packet_open(const AmdPspTransportKeys *keys, AmdPspPacketType type,
                         const AmdPspPacketHeader *header, uint8_t *data,
                         size_t len)
{
    return packet_open(keys, type, NULL, header, data, len);
}

void amd_psp_secret_seal(const AmdPspTransportKeys *keys,
                         const uint8_t measure[AMD_PSP_MAC_LEN],
                         const uint8_t iv[AMD_PSP_NONCE_LEN], uint8_t *data,
                         size_t len, AmdPspPacketHeader *header)
{
    packet_seal(keys, AMD_PSP_PACKET_SECRET, measure, iv, data, len, header);
}

bool amd_psp_secret_open(const AmdPspTransportKeys *keys,
                         const uint8_t measure[AMD_PSP_MAC_LEN],
                         const AmdPspPacketHeader *header, uint8_t *data,
                         size_t len)
{
    return packet_open(keys, AMD_PSP_PACKET_SECRET, measure, header, data,
                       len);
}

void amd_psp_measurement(const uint8_t tik[AMD_PSP_KEY_LEN], uint8_t api_major,
                         uint8_t api_minor, uint8_t build, uint32_t policy,
                         const uint8_t digest[AMD_PSP_DIGEST_LEN],
                         const uint8_t nonce[AMD_PSP_NONCE_LEN],
                         uint8_t mac[AMD_PSP_MAC_LEN])
{
    uint8_t head[] = { MEASUREMENT_CONTEXT, api_major, api_minor, build };
    HmacCtx ctx;

    hmac_sha256_set_key(&ctx, AMD_PSP_KEY_LEN, tik);
    hmac_sha256_update(&ctx, sizeof(head), head);
    hmac_u32(&ctx, policy);
    hmac_sha256_update(&ctx, AMD_PSP_DIGEST_LEN, digest);
    hmac_sha256_update(&ctx, AMD_PSP_NONCE_LEN, nonce);
    hmac_sha256_digest(&ctx, AMD_PSP_MAC_LEN, mac);
}
