/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of the migration helper's cryptography
 *
 * Each implementation of the helper that this CPU can run must give the results
 * of published test vectors and of nettle.
 */
#include <nettle/gcm.h>
#include <sys/random.h>
#include "../l1/harness.h"
#include "native.h"

static const char *impl_names[] = {
    [MH_IMPL_AESNI_AVX] = "AES-NI", [MH_IMPL_VAES_AVX2] = "VAES with AVX2",
    [MH_IMPL_VAES_AVX512] = "VAES with AVX-512",
};

typedef struct Vector {
    const char *name, *key, *nonce, *ad, *plain, *sealed;
    bool derives;           /* true: XAES-256-GCM, false: AES-256-GCM */
} Vector;

#define HEX_ABC "4142434445464748494a4b4c4d4e4f505152535455565758"
#define HEX_8(byte) byte byte byte byte byte byte byte byte
#define HEX_32(byte) HEX_8(byte) HEX_8(byte) HEX_8(byte) HEX_8(byte)

static const Vector vectors[] = {
    /* https://c2sp.org/XAES-256-GCM */
    { "XAES-256-GCM, most significant bit of L is 0", HEX_32("01"), HEX_ABC, "",
      "584145532d3235362d47434d",
      "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271", true },
    { "XAES-256-GCM, most significant bit of L is 1", HEX_32("03"), HEX_ABC,
      "633273702e6f72672f584145532d3235362d47434d",
      "584145532d3235362d47434d",
      "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d", true },
    /* The specification of GCM by McGrew and Viega, appendix B */
    { "GCM test case 13", HEX_32("00"), "000000000000000000000000", "", "",
      "530f8afbc74536b9a963b4f1c4cb738b", false },
    { "GCM test case 14", HEX_32("00"), "000000000000000000000000", "",
      "00000000000000000000000000000000",
      "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
      false },
    { "GCM test case 16",
      "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
      "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
      "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
      "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
      "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
      "76fc6ece0f4e1768cddf8853bb2d551b", false },
};

static size_t from_hex(uint8_t *out, const char *hex)
{
    size_t n = strlen(hex) / 2, i;

    for (i = 0; i < n; i++) {
        unsigned byte;

        sscanf(hex + 2 * i, "%2x", &byte);
        out[i] = byte;
    }
    return n;
}

static void test_vector(const Vector *v, uint32_t impl)
{
    uint8_t key[32], nonce[24], subkey[32], ad[64], plain[64], sealed[80];
    uint8_t out[64], tag[16];
    size_t ad_size = from_hex(ad, v->ad), size = from_hex(plain, v->plain);
    const uint8_t *iv = v->derives ? nonce + 12 : nonce;
    MhMasterKey master;
    MhCipher cipher;
    bool good;

    from_hex(key, v->key);
    from_hex(nonce, v->nonce);
    from_hex(sealed, v->sealed);
    if (v->derives) {
        mh_master_key_init(&master, key);
        mh_subkey(&master, nonce, subkey);
    }
    mh_cipher_init(&cipher, impl, v->derives ? subkey : key);
    mh_seal(&cipher, impl, iv, ad, ad_size, plain, out, size, tag);
    good = !memcmp(out, sealed, size) && !memcmp(tag, sealed + size, 16);
    good &= mh_open(&cipher, impl, iv, ad, ad_size, out, out, size, tag) &&
        !memcmp(out, plain, size);
    tag[3] ^= 0x10;
    good &= !mh_open(&cipher, impl, iv, ad, ad_size, sealed, out, size, tag);
    ok(good, "%s: %s", impl_names[impl], v->name);
}

/*
 * Compare with nettle, for the sizes that the helper uses and random contents
 */
static void test_nettle(uint32_t impl)
{
    static uint8_t plain[4096], ours[4096], theirs[4096];
    uint8_t key[32], iv[12], ad[192], tag[16], their_tag[16];
    struct gcm_aes256_ctx ctx;
    MhCipher cipher;
    int i, same = 0;

    for (i = 0; i < 200; i++) {
        size_t size = i % 4 ? sizeof(plain) : 0;
        size_t ad_size = i % 3 ? 48 : 192;

        if (getrandom(plain, sizeof(plain), 0) < 0 ||
            getrandom(key, sizeof(key), 0) < 0 ||
            getrandom(iv, sizeof(iv), 0) < 0 ||
            getrandom(ad, sizeof(ad), 0) < 0) {
            bail("getrandom");
        }
        mh_cipher_init(&cipher, impl, key);
        mh_seal(&cipher, impl, iv, ad, ad_size, plain, ours, size, tag);
        gcm_aes256_set_key(&ctx, key);
        gcm_aes256_set_iv(&ctx, sizeof(iv), iv);
        gcm_aes256_update(&ctx, ad_size, ad);
        gcm_aes256_encrypt(&ctx, size, theirs, plain);
        gcm_aes256_digest(&ctx, sizeof(their_tag), their_tag);
        same += !memcmp(ours, theirs, size) && !memcmp(tag, their_tag, 16) &&
            mh_open(&cipher, impl, iv, ad, ad_size, theirs, theirs, size, tag) &&
            !memcmp(plain, theirs, size);
    }
    ok(same == i, "%s: %d of %d random texts as nettle", impl_names[impl], same,
       i);
}

static void test_impl(uint32_t impl)
{
    size_t i;

    for (i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        test_vector(&vectors[i], impl);
    }
    test_nettle(impl);
}

int main(void)
{
    uint64_t words[64];
    int i, j, equal = 0;

    native_each_impl(test_impl);
    ok(mh_rdrand(words, sizeof(words)), "RDRAND fills a buffer");
    for (i = 0; i < 64; i++) {
        for (j = 0; j < i; j++) {
            equal += words[i] == words[j];
        }
    }
    ok(!equal, "RDRAND does not return the same buffer twice");
    return done_testing();
}
