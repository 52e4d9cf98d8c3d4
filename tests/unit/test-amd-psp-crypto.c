/*
 * Cryptography of the emulated AMD PSP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "hw/misc/amd-psp-authority.h"
#include "hw/misc/amd-psp-certs.h"
#include "hw/misc/amd-psp-crypto.h"

static void check_hex(const uint8_t *data, size_t len, const char *hex)
{
    g_autoptr(GString) s = g_string_new(NULL);
    size_t i;

    for (i = 0; i < len; i++) {
        g_string_append_printf(s, "%02x", data[i]);
    }
    g_assert_cmpstr(s->str, ==, hex);
}

static void from_hex(const char *hex, uint8_t *data, size_t len)
{
    size_t i;

    g_assert_cmpuint(strlen(hex), ==, 2 * len);
    for (i = 0; i < len; i++) {
        data[i] = g_ascii_xdigit_value(hex[2 * i]) << 4 |
                  g_ascii_xdigit_value(hex[2 * i + 1]);
    }
}

/* The expected values were computed by another implementation */
static void test_kdf(void)
{
    const uint8_t zero[16] = { 0 };
    uint8_t out[16];

    amd_psp_kdf(zero, sizeof(zero), "sev-master-secret", zero, sizeof(zero),
                out, sizeof(out));
    check_hex(out, sizeof(out), "ab4d269fcc62bedb4511d56c386ce706");
}

/*
 * The length of the derived key is part of the KDF's input, so keys of
 * different lengths differ from the first byte on
 */
static void test_kdf_length(void)
{
    const uint8_t zero[16] = { 0 };
    uint8_t out[80], again[80];

    amd_psp_kdf(zero, sizeof(zero), "sev-master-secret", zero, sizeof(zero),
                out, sizeof(out));
    g_assert_cmphex(out[0], !=, 0xab);
    /* The blocks of the output differ */
    g_assert(memcmp(out, out + 32, 32));
    amd_psp_kdf(zero, sizeof(zero), "sev-master-secret", zero, sizeof(zero),
                again, sizeof(again));
    g_assert_cmpmem(out, sizeof(out), again, sizeof(again));
}

/* The policy MAC is an HMAC-SHA256 of the policy, here 0, with the TIK */
static void test_policy_mac(void)
{
    const AmdPspTransportKeys zero_keys = { 0 };
    const uint8_t nonce[AMD_PSP_NONCE_LEN] = { 0 };
    const uint8_t z[AMD_PSP_P384_LEN] = { 0 };
    AmdPspSession session;

    amd_psp_session_wrap(z, nonce, nonce, &zero_keys, 0, &session);
    check_hex(session.policy_mac, sizeof(session.policy_mac),
              "aa7855e13839dd767cd5da7c1ff50365"
              "40c9264b7a803029315e55375287b4af");
}

static void test_measurement(void)
{
    uint8_t tik[AMD_PSP_KEY_LEN], nonce[AMD_PSP_NONCE_LEN];
    uint8_t digest[AMD_PSP_DIGEST_LEN], mac[AMD_PSP_MAC_LEN];
    g_autofree char *nothing = g_compute_checksum_for_string(G_CHECKSUM_SHA256,
                                                             "", 0);

    from_hex("66320db73158a35a255d051758e95ed4", tik, sizeof(tik));
    from_hex("4fbe0bedbad6c86ae8f68971d103e554", nonce, sizeof(nonce));
    from_hex(nothing, digest, sizeof(digest));
    amd_psp_measurement(tik, 0, 18, 15, 0, digest, nonce, mac);
    check_hex(mac, sizeof(mac), "6faab2daae389bcd3405a05d6cafe33c"
                                "0414f7bedd0bae19ba5f38b7fd1664ea");
}

static void make_key(const char *who, AmdPspEcKey *key)
{
    uint8_t seed[AMD_PSP_SEED_LEN] = { 0 };

    g_assert_cmpuint(strlen(who), <, sizeof(seed));
    memcpy(seed, who, strlen(who));
    amd_psp_ec_key(seed, "pdh", 0, key);
}

static void test_ecdh(void)
{
    AmdPspEcKey alice, bob, carol;
    uint8_t ab[AMD_PSP_P384_LEN], ba[AMD_PSP_P384_LEN], ac[AMD_PSP_P384_LEN];

    make_key("alice", &alice);
    make_key("bob", &bob);
    make_key("carol", &carol);
    g_assert(amd_psp_ecdh(&alice, &bob.q, ab));
    g_assert(amd_psp_ecdh(&bob, &alice.q, ba));
    g_assert(amd_psp_ecdh(&alice, &carol.q, ac));
    g_assert_cmpmem(ab, sizeof(ab), ba, sizeof(ba));
    g_assert(memcmp(ab, ac, sizeof(ab)));
}

/* RFC 5903, section 8.2: 384-bit random ECP group */
static void test_ecdh_vector(void)
{
    AmdPspEcKey i;
    AmdPspEcPoint r;
    uint8_t z[AMD_PSP_P384_LEN];

    from_hex("099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655"
             "e35b538041e649ee3faef896783ab194", i.d, sizeof(i.d));
    from_hex("e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d"
             "0d1ac43a0336def96fda41d0774a3571", r.x, sizeof(r.x));
    from_hex("dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1ff"
             "f83fa40142209dff5eaad96db9e6386c", r.y, sizeof(r.y));
    g_assert(amd_psp_ecdh(&i, &r, z));
    check_hex(z, sizeof(z),
              "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4"
              "d603135569b9e9d09cf5d4a270f59746");
    r.y[0] ^= 1;
    g_assert(!amd_psp_ecdh(&i, &r, z));
}

/* The same seed gives the same platform, and another seed another platform */
static void test_seed(void)
{
    AmdPspEcKey a, b;

    make_key("alice", &a);
    make_key("alice", &b);
    g_assert_cmpmem(&a, sizeof(a), &b, sizeof(b));
    make_key("alicf", &b);
    g_assert(memcmp(&a.q, &b.q, sizeof(a.q)));
}

typedef struct Session {
    AmdPspEcKey source;
    AmdPspEcKey dest;
    AmdPspTransportKeys keys;
    AmdPspSession session;
} Session;

#define POLICY 0x00010001

static void make_session(Session *s)
{
    uint8_t nonce[AMD_PSP_NONCE_LEN], iv[AMD_PSP_NONCE_LEN];
    uint8_t z[AMD_PSP_P384_LEN];

    make_key("source", &s->source);
    make_key("destination", &s->dest);
    memset(s->keys.tek, 0x11, sizeof(s->keys.tek));
    memset(s->keys.tik, 0x22, sizeof(s->keys.tik));
    memset(nonce, 0x33, sizeof(nonce));
    memset(iv, 0x44, sizeof(iv));
    g_assert(amd_psp_ecdh(&s->source, &s->dest.q, z));
    amd_psp_session_wrap(z, nonce, iv, &s->keys, POLICY, &s->session);
}

static bool open_session(const AmdPspEcKey *own, const AmdPspEcPoint *peer,
                         const AmdPspSession *session, uint32_t policy,
                         AmdPspTransportKeys *keys)
{
    uint8_t z[AMD_PSP_P384_LEN];

    g_assert(amd_psp_ecdh(own, peer, z));
    return amd_psp_session_unwrap(z, session, policy, keys);
}

static void test_session(void)
{
    AmdPspTransportKeys keys = { 0 };
    Session s;

    make_session(&s);
    g_assert(memcmp(&s.session.wrapped, &s.keys, sizeof(s.keys)));
    g_assert(open_session(&s.dest, &s.source.q, &s.session, POLICY, &keys));
    g_assert_cmpmem(&keys, sizeof(keys), &s.keys, sizeof(s.keys));
}

static void test_session_wrong_key(void)
{
    AmdPspTransportKeys keys = { 0 }, untouched = { 0 };
    AmdPspEcKey other;
    Session s;

    make_session(&s);
    make_key("other", &other);
    /*
     * The destination refuses a session for another destination or from
     * another source
     */
    g_assert(!open_session(&other, &s.source.q, &s.session, POLICY, &keys));
    g_assert(!open_session(&s.dest, &other.q, &s.session, POLICY, &keys));
    /*
     * The destination refuses the session if the host passes another policy
     * than the guest's
     */
    g_assert(!open_session(&s.dest, &s.source.q, &s.session, POLICY ^ 1,
                           &keys));
    g_assert_cmpmem(&keys, sizeof(keys), &untouched, sizeof(untouched));
}

/*
 * Change each byte of the session.  The IV has no MAC of its own, but another
 * IV gives another TIK, and then the MAC of the policy is wrong.
 */
static void test_session_tampered(void)
{
    AmdPspTransportKeys keys;
    Session s;
    size_t i;

    make_session(&s);
    for (i = 0; i < sizeof(s.session); i++) {
        AmdPspSession bad = s.session;

        ((uint8_t *)&bad)[i] ^= 0x80;
        g_assert(!open_session(&s.dest, &s.source.q, &bad, POLICY, &keys));
    }
    g_assert(open_session(&s.dest, &s.source.q, &s.session, POLICY, &keys));
}

#define PACKET_LEN 4096

static void make_packet(AmdPspTransportKeys *keys, AmdPspPacketHeader *header,
                        uint8_t *plain, uint8_t *data)
{
    uint8_t iv[AMD_PSP_NONCE_LEN];
    size_t i;

    memset(keys->tek, 0x55, sizeof(keys->tek));
    memset(keys->tik, 0x66, sizeof(keys->tik));
    memset(iv, 0x77, sizeof(iv));
    for (i = 0; i < PACKET_LEN; i++) {
        plain[i] = i * 7;
    }
    memcpy(data, plain, PACKET_LEN);
    amd_psp_packet_seal(keys, AMD_PSP_PACKET_DATA, iv, data, PACKET_LEN,
                        header);
}

static void test_packet(void)
{
    uint8_t plain[PACKET_LEN], data[PACKET_LEN];
    AmdPspTransportKeys keys;
    AmdPspPacketHeader header;

    make_packet(&keys, &header, plain, data);
    g_assert(memcmp(plain, data, 16));
    g_assert(amd_psp_packet_open(&keys, AMD_PSP_PACKET_DATA, &header,
                                 data, PACKET_LEN));
    g_assert_cmpmem(data, PACKET_LEN, plain, PACKET_LEN);
}

/* Compute the packet's MAC from its parts */
static void test_packet_mac(void)
{
    uint8_t plain[PACKET_LEN], data[PACKET_LEN], mac[AMD_PSP_MAC_LEN];
    const uint8_t context = 0x02;
    AmdPspTransportKeys keys;
    AmdPspPacketHeader header;
    gsize mac_len = sizeof(mac);
    uint8_t len[4];
    GHmac *hmac;

    make_packet(&keys, &header, plain, data);
    stl_le_p(len, PACKET_LEN);
    hmac = g_hmac_new(G_CHECKSUM_SHA256, keys.tik, sizeof(keys.tik));
    g_hmac_update(hmac, &context, 1);
    g_hmac_update(hmac, (uint8_t *)&header.flags, 4);
    g_hmac_update(hmac, header.iv, sizeof(header.iv));
    g_hmac_update(hmac, len, sizeof(len));
    g_hmac_update(hmac, len, sizeof(len));
    g_hmac_update(hmac, data, PACKET_LEN);
    g_hmac_get_digest(hmac, mac, &mac_len);
    g_hmac_unref(hmac);
    g_assert_cmpmem(mac, sizeof(mac), header.mac, sizeof(header.mac));
}

static void test_packet_tampered(void)
{
    uint8_t plain[PACKET_LEN], data[PACKET_LEN], bad[PACKET_LEN];
    AmdPspTransportKeys keys, other;
    AmdPspPacketHeader header;
    size_t i;

    make_packet(&keys, &header, plain, data);
    for (i = 0; i < sizeof(header); i++) {
        AmdPspPacketHeader changed = header;

        ((uint8_t *)&changed)[i] ^= 1;
        g_assert(!amd_psp_packet_open(&keys, AMD_PSP_PACKET_DATA, &changed,
                                      data, PACKET_LEN));
    }
    for (i = 0; i < PACKET_LEN; i += 97) {
        memcpy(bad, data, PACKET_LEN);
        bad[i] ^= 1;
        g_assert(!amd_psp_packet_open(&keys, AMD_PSP_PACKET_DATA, &header,
                                      bad, PACKET_LEN));
    }
    /*
     * amd_psp_packet_open() rejects a shorter packet, another command, and
     * another key
     */
    g_assert(!amd_psp_packet_open(&keys, AMD_PSP_PACKET_DATA, &header,
                                  data, PACKET_LEN - 16));
    g_assert(!amd_psp_packet_open(&keys, AMD_PSP_PACKET_SECRET, &header,
                                  data, PACKET_LEN));
    other = keys;
    other.tik[0] ^= 1;
    g_assert(!amd_psp_packet_open(&other, AMD_PSP_PACKET_DATA, &header,
                                  data, PACKET_LEN));
    /* The unchanged packet is still accepted */
    g_assert(amd_psp_packet_open(&keys, AMD_PSP_PACKET_DATA, &header,
                                 data, PACKET_LEN));
}

static void test_cert(void)
{
    uint8_t cert[AMD_PSP_CERT_LEN], bad[AMD_PSP_CERT_LEN];
    AmdPspEcPoint q;
    AmdPspEcKey key;

    make_key("alice", &key);
    amd_psp_cert_make(&key.q, AMD_PSP_CERT_PDH, 1, 55, cert);
    /*
     * Version, API, usage, algorithm, curve, and QX beginning with its least
     * significant byte
     */
    check_hex(cert, 20, "0100000001370000" "03100000" "03000000" "02000000");
    g_assert_cmphex(cert[0x14], ==, key.q.x[AMD_PSP_P384_LEN - 1]);
    g_assert_cmphex(ldl_le_p(cert + 0x414), ==, 0x1000);
    g_assert_cmphex(ldl_le_p(cert + 0x61c), ==, 0x1000);

    g_assert(amd_psp_cert_key(cert, AMD_PSP_CERT_PDH, &q));
    g_assert_cmpmem(&q, sizeof(q), &key.q, sizeof(key.q));
    g_assert(!amd_psp_cert_key(cert, AMD_PSP_CERT_PEK, &q));

    /* Not a point of the curve */
    memcpy(bad, cert, sizeof(bad));
    bad[0x14] ^= 1;
    g_assert(!amd_psp_cert_key(bad, AMD_PSP_CERT_PDH, &q));
    /*
     * Certificates with another version, algorithm or curve, or with reserved
     * bytes that are not zero, are rejected
     */
    memcpy(bad, cert, sizeof(bad));
    bad[0] = 2;
    g_assert(!amd_psp_cert_key(bad, AMD_PSP_CERT_PDH, &q));
    memcpy(bad, cert, sizeof(bad));
    bad[0xc] = 2;
    g_assert(!amd_psp_cert_key(bad, AMD_PSP_CERT_PDH, &q));
    memcpy(bad, cert, sizeof(bad));
    bad[0x10] = 1;
    g_assert(!amd_psp_cert_key(bad, AMD_PSP_CERT_PDH, &q));
    memcpy(bad, cert, sizeof(bad));
    bad[0x413] = 1;
    g_assert(!amd_psp_cert_key(bad, AMD_PSP_CERT_PDH, &q));
    memset(bad, 0, sizeof(bad));
    g_assert(!amd_psp_cert_key(bad, AMD_PSP_CERT_PDH, &q));
}

/* RFC 6979, A.2.6: ECDSA with P-384, message "sample" */
static void test_ecdsa_vector(void)
{
    AmdPspEcSignature sig;
    AmdPspEcPoint q;

    from_hex("ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64"
             "def8f0ea9055866064a254515480bc13", q.x, sizeof(q.x));
    from_hex("8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1"
             "288b231c3ae0d4fe7344fd2533264720", q.y, sizeof(q.y));
    from_hex("21b13d1e013c7fa1392d03c5f99af8b30c570c6f98d4ea8e354b63a21d3daa33"
             "bde1e888e63355d92fa2b3c36d8fb2cd", sig.r, sizeof(sig.r));
    from_hex("f3aa443fb107745bf4bd77cb3891674632068a10ca67e3d45db2266fa7d1feeb"
             "efdc63eccd1ac42ec0cb8668a4fa0ab0", sig.s, sizeof(sig.s));
    g_assert(amd_psp_ecdsa_verify(&q, false, "sample", 6, &sig));
    g_assert(!amd_psp_ecdsa_verify(&q, true, "sample", 6, &sig));
    g_assert(!amd_psp_ecdsa_verify(&q, false, "Sample", 6, &sig));
    from_hex("94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c"
             "81a648152e44acf96e36dd1e80fabe46", sig.r, sizeof(sig.r));
    from_hex("99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94f"
             "a329c145786e679e7b82c71a38628ac8", sig.s, sizeof(sig.s));
    g_assert(amd_psp_ecdsa_verify(&q, true, "sample", 6, &sig));
    memset(&sig, 0, sizeof(sig));
    g_assert(!amd_psp_ecdsa_verify(&q, true, "sample", 6, &sig));
    memset(&sig, 0xff, sizeof(sig));
    g_assert(!amd_psp_ecdsa_verify(&q, true, "sample", 6, &sig));
}

static void test_ecdsa(void)
{
    AmdPspEcSignature sig, again, bad;
    AmdPspEcKey alice, bob;
    size_t i;

    make_key("alice", &alice);
    make_key("bob", &bob);
    amd_psp_ecdsa_sign(&alice, "text", 4, &sig);
    amd_psp_ecdsa_sign(&alice, "text", 4, &again);
    g_assert_cmpmem(&sig, sizeof(sig), &again, sizeof(again));
    amd_psp_ecdsa_sign(&alice, "tent", 4, &again);
    g_assert(memcmp(sig.r, again.r, sizeof(sig.r)));
    g_assert(amd_psp_ecdsa_verify(&alice.q, false, "text", 4, &sig));
    g_assert(!amd_psp_ecdsa_verify(&bob.q, false, "text", 4, &sig));
    for (i = 0; i < sizeof(sig); i++) {
        bad = sig;
        ((uint8_t *)&bad)[i] ^= 1;
        g_assert(!amd_psp_ecdsa_verify(&alice.q, false, "text", 4, &bad));
    }
}

static void must_fail(const char *path, const char *why)
{
    Error *err = NULL;

    g_assert_null(amd_psp_authority_open(path, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), why));
    error_free(err);
}

/*
 * Platforms that open the same file have the same authority, so each accepts
 * certificates that the other has signed.
 * @a, @b: the authority, opened twice
 */
static void authority_verifies(AmdPspAuthority *a, AmdPspAuthority *b)
{
    const uint8_t *certs = amd_psp_authority_certs(a);
    uint8_t cek[AMD_PSP_CERT_LEN], bad[AMD_PSP_ASK_ARK_LEN];
    AmdPspEcKey key;

    make_key("cek", &key);
    amd_psp_cert_make(&key.q, AMD_PSP_CERT_CEK, 1, 55, cek);
    g_assert(!amd_psp_authority_verify(a, certs, cek));
    g_assert(amd_psp_authority_sign(b, cek));
    g_assert(amd_psp_authority_verify(a, certs, cek));
    for (size_t i = 0; i < sizeof(bad); i += 97) {
        memcpy(bad, certs, sizeof(bad));
        bad[i] ^= 4;
        g_assert(!amd_psp_authority_verify(a, bad, cek));
    }
    memcpy(bad, certs + 1600, 1600);
    memcpy(bad + 1600, certs, 1600);
    g_assert(!amd_psp_authority_verify(a, bad, cek));
}

/*
 * amd_psp_authority_open() rejects a file in which p is not a prime, and a file
 * of another format.  This function destroys the authority's file at @path.
 */
static void authority_file_refused(const char *path)
{
    g_autofree char *text = NULL;
    char *digit;
    gsize len;

    g_assert(g_file_get_contents(path, &text, &len, NULL));
    digit = strstr(text, "p=") + 100;
    *digit = *digit == '0' ? '1' : '0';
    g_assert(g_file_set_contents(path, text, len, NULL));
    must_fail(path, "does not contain keys");
    g_assert(g_file_set_contents(path, "[ask]\np=7\nq=5\n", -1, NULL));
    must_fail(path, "does not contain keys");
    g_assert(g_file_set_contents(path, "something else", -1, NULL));
    must_fail(path, "cannot load");
}

/*
 * The file of an authority is created once, is readable only by its owner, and
 * is checked whenever it is read
 */
static void test_authority(void)
{
    g_autofree char *dir = g_dir_make_tmp("amd-psp-XXXXXX", NULL);
    g_autofree char *path = g_strdup_printf("%s/ark", dir);
    g_autofree char *name = g_strdup_printf("%s.cert", path);
    g_autofree char *nowhere = g_strdup_printf("%s/no/ark", dir);
    g_autofree char *text = NULL, *certs = NULL;
    AmdPspAuthority *a, *b;
    struct stat st;
    gsize len;

    a = amd_psp_authority_open(path, &error_abort);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmphex(st.st_mode & 0777, ==, 0600);
    g_assert(g_file_get_contents(name, &certs, &len, NULL));
    g_assert_cmpmem(certs, len, amd_psp_authority_certs(a),
                    AMD_PSP_ASK_ARK_LEN);
    b = amd_psp_authority_open(path, &error_abort);
    g_assert_cmpmem(certs, len, amd_psp_authority_certs(b),
                    AMD_PSP_ASK_ARK_LEN);
    authority_verifies(a, b);
    amd_psp_authority_free(b);

    /*
     * Certificates that were deleted are created again with the same contents
     */
    unlink(name);
    b = amd_psp_authority_open(path, &error_abort);
    g_assert(g_file_get_contents(name, &text, &len, NULL));
    g_assert_cmpmem(text, len, certs, AMD_PSP_ASK_ARK_LEN);
    amd_psp_authority_free(b);

    authority_file_refused(path);
    must_fail(nowhere, "cannot create");
    amd_psp_authority_free(a);
    unlink(path);
    unlink(name);
    rmdir(dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/amd-psp/kdf", test_kdf);
    g_test_add_func("/amd-psp/kdf/length", test_kdf_length);
    g_test_add_func("/amd-psp/policy-mac", test_policy_mac);
    g_test_add_func("/amd-psp/measurement", test_measurement);
    g_test_add_func("/amd-psp/ecdh", test_ecdh);
    g_test_add_func("/amd-psp/ecdh/vector", test_ecdh_vector);
    g_test_add_func("/amd-psp/seed", test_seed);
    g_test_add_func("/amd-psp/session", test_session);
    g_test_add_func("/amd-psp/session/wrong-key", test_session_wrong_key);
    g_test_add_func("/amd-psp/session/tampered", test_session_tampered);
    g_test_add_func("/amd-psp/packet", test_packet);
    g_test_add_func("/amd-psp/packet/mac", test_packet_mac);
    g_test_add_func("/amd-psp/packet/tampered", test_packet_tampered);
    g_test_add_func("/amd-psp/cert", test_cert);
    g_test_add_func("/amd-psp/ecdsa", test_ecdsa);
    g_test_add_func("/amd-psp/ecdsa/vector", test_ecdsa_vector);
    g_test_add_func("/amd-psp/authority", test_authority);
    return g_test_run();
}
