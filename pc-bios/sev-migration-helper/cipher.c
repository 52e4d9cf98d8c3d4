/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AES-256-GCM with the assembly of Linux, and the subkeys of XAES-256-GCM
 *
 * arch/x86/crypto/aes-gcm-*.S of Linux has three implementations with the same
 * interface.  The code here expands keys without Linux's assembly, because it
 * does so rarely and need not be fast.
 */
#include <wmmintrin.h>
#include <smmintrin.h>
#include "aes-gcm.h"

_Static_assert(offsetof(MhCipher, round_keys) == 16 &&
               sizeof(MhCipher) >= 624, "as Linux's assembly expects");

typedef struct MhGcm {
    void (*precompute)(MhCipher *cipher);
    void (*aad_update)(const MhCipher *cipher, uint8_t hash[16],
                       const void *ad, int size);
    void (*enc_update)(const MhCipher *cipher, const uint32_t counter[4],
                       uint8_t hash[16], const void *src, void *dst, int size);
    void (*dec_update)(const MhCipher *cipher, const uint32_t counter[4],
                       uint8_t hash[16], const void *src, void *dst, int size);
    void (*enc_final)(const MhCipher *cipher, const uint32_t counter[4],
                      uint8_t hash[16], uint64_t ad_size, uint64_t size);
    bool (*dec_final)(const MhCipher *cipher, const uint32_t counter[4],
                      const uint8_t hash[16], uint64_t ad_size, uint64_t size,
                      const uint8_t tag[16], int tag_size);
} MhGcm;

#define FUNCTIONS(impl) {                       \
    .precompute = aes_gcm_precompute_##impl,    \
    .aad_update = aes_gcm_aad_update_##impl,    \
    .enc_update = aes_gcm_enc_update_##impl,    \
    .dec_update = aes_gcm_dec_update_##impl,    \
    .enc_final = aes_gcm_enc_final_##impl,      \
    .dec_final = aes_gcm_dec_final_##impl,      \
}

static const MhGcm gcm[] = {
    [MH_IMPL_AESNI_AVX] = FUNCTIONS(aesni_avx),
    [MH_IMPL_VAES_AVX2] = FUNCTIONS(vaes_avx2),
    [MH_IMPL_VAES_AVX512] = FUNCTIONS(vaes_avx512),
};

static __m128i load(const void *p)
{
    return _mm_loadu_si128(p);
}

static void store(void *p, __m128i v)
{
    _mm_storeu_si128(p, v);
}

/*
 * Compute a round key of AES-256
 * @key: the round key before the previous one
 * @word: the last word of the previous round key after AES's transformation
 *        (SubWord, and for every other round key also RotWord and the round
 *        constant), in all four elements
 */
static __m128i next_round_key(__m128i key, __m128i word)
{
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, word);
}

static void expand_key(uint8_t round_keys[15][16],
                       const uint8_t key[MH_KEY_SIZE])
{
    __m128i even = load(key), odd = load(key + 16);
    int i = 0;

    store(round_keys[i++], even);
    store(round_keys[i++], odd);
/* A macro, because the round constant is part of the instruction */
#define ROUNDS(constant) do {                                              \
        even = next_round_key(even, _mm_shuffle_epi32(                     \
            _mm_aeskeygenassist_si128(odd, constant), 0xff));              \
        store(round_keys[i++], even);                                      \
        if (i < 15) {                                                      \
            odd = next_round_key(odd, _mm_shuffle_epi32(                   \
                _mm_aeskeygenassist_si128(even, 0), 0xaa));                \
            store(round_keys[i++], odd);                                   \
        }                                                                  \
    } while (0)
    ROUNDS(0x01);
    ROUNDS(0x02);
    ROUNDS(0x04);
    ROUNDS(0x08);
    ROUNDS(0x10);
    ROUNDS(0x20);
    ROUNDS(0x40);
#undef ROUNDS
}

static __m128i encrypt_block(const uint8_t round_keys[15][16], __m128i block)
{
    int i;

    block = _mm_xor_si128(block, load(round_keys[0]));
    for (i = 1; i < 14; i++) {
        block = _mm_aesenc_si128(block, load(round_keys[i]));
    }
    return _mm_aesenclast_si128(block, load(round_keys[14]));
}

void mh_master_key_init(MhMasterKey *master, const uint8_t key[MH_KEY_SIZE])
{
    uint8_t *k = master->cmac_subkey;
    uint8_t carry;
    int i;

    expand_key(master->round_keys, key);
    store(k, encrypt_block(master->round_keys, _mm_setzero_si128()));
    /* CMAC's subkey is the encrypted block of zeros, doubled in GF(2^128) */
    carry = k[0] >> 7;
    for (i = 0; i < 15; i++) {
        k[i] = k[i] << 1 | k[i + 1] >> 7;
    }
    k[15] = k[15] << 1 ^ (carry ? 0x87 : 0);
}

void mh_subkey(const MhMasterKey *master, const uint8_t nonce[MH_NONCE_SIZE],
               uint8_t key[MH_KEY_SIZE])
{
    uint8_t block[16] = { 0, 0, 'X', 0 };
    int i;

    __builtin_memcpy(block + 4, nonce, 12);
    for (i = 0; i < 2; i++) {
        block[1] = i + 1;
        store(key + 16 * i,
              encrypt_block(master->round_keys,
                            _mm_xor_si128(load(block),
                                          load(master->cmac_subkey))));
    }
}

void mh_cipher_init(MhCipher *cipher, MhImpl impl,
                    const uint8_t key[MH_KEY_SIZE])
{
    cipher->key_size = MH_KEY_SIZE;
    expand_key(cipher->round_keys, key);
    gcm[impl].precompute(cipher);
}

/*
 * Store the counter block with which GCM encrypts the first block of data, as a
 * little-endian number of 128 bits.  GCM uses counter 1 for the tag, so the
 * data begin with counter 2.
 */
static void first_counter(uint32_t counter[4], const uint8_t iv[MH_IV_SIZE])
{
    uint32_t word;
    int i;

    counter[0] = 2;
    for (i = 0; i < 3; i++) {
        __builtin_memcpy(&word, iv + 8 - 4 * i, 4);
        counter[i + 1] = __builtin_bswap32(word);
    }
}

void mh_seal(const MhCipher *cipher, MhImpl impl, const uint8_t iv[MH_IV_SIZE],
             const void *ad, size_t ad_size, const void *src, void *dst,
             size_t size, uint8_t tag[MH_TAG_SIZE])
{
    uint8_t hash[16] __attribute__((aligned(16))) = { 0 };
    uint32_t counter[4];

    first_counter(counter, iv);
    gcm[impl].aad_update(cipher, hash, ad, ad_size);
    if (size) {
        gcm[impl].enc_update(cipher, counter, hash, src, dst, size);
    }
    gcm[impl].enc_final(cipher, counter, hash, ad_size, size);
    __builtin_memcpy(tag, hash, MH_TAG_SIZE);
}

bool mh_open(const MhCipher *cipher, MhImpl impl, const uint8_t iv[MH_IV_SIZE],
             const void *ad, size_t ad_size, const void *src, void *dst,
             size_t size, const uint8_t tag[MH_TAG_SIZE])
{
    uint8_t hash[16] __attribute__((aligned(16))) = { 0 };
    uint32_t counter[4];

    first_counter(counter, iv);
    gcm[impl].aad_update(cipher, hash, ad, ad_size);
    if (size) {
        gcm[impl].dec_update(cipher, counter, hash, src, dst, size);
    }
    return gcm[impl].dec_final(cipher, counter, hash, ad_size, size, tag,
                               MH_TAG_SIZE);
}
