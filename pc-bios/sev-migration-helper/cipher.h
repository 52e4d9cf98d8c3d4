/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AES-256-GCM with the assembly of Linux, and the subkeys of XAES-256-GCM
 */
#ifndef SEV_MIGRATION_HELPER_CIPHER_H
#define SEV_MIGRATION_HELPER_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "mh.h"

#define MH_KEY_SIZE     32
#define MH_NONCE_SIZE   24
#define MH_IV_SIZE      12
#define MH_TAG_SIZE     16

/*
 * Linux's assembly determines the offsets of @key_size and @round_keys.  It
 * keeps powers of the hash key in @powers, and needs the memory up to offset
 * 624.
 */
typedef struct MhCipher {
    uint32_t key_size;
    uint32_t reserved[3];
    uint8_t round_keys[15][16];
    uint8_t powers[384];
} __attribute__((aligned(64))) MhCipher;

/* A key from which subkeys are derived */
typedef struct MhMasterKey {
    uint8_t round_keys[15][16];
    uint8_t cmac_subkey[16];
} __attribute__((aligned(16))) MhMasterKey;

/**
 * mh_master_key_init: expand a key of XAES-256-GCM
 */
void mh_master_key_init(MhMasterKey *master, const uint8_t key[MH_KEY_SIZE]);

/**
 * mh_subkey: derive the key of AES-256-GCM that belongs to a nonce
 *
 * The subkey depends on the first 12 bytes of @nonce.  The other 12 bytes are
 * the IV with which XAES-256-GCM uses the subkey.
 */
void mh_subkey(const MhMasterKey *master, const uint8_t nonce[MH_NONCE_SIZE],
               uint8_t key[MH_KEY_SIZE]);

/**
 * mh_cipher_init: prepare AES-256-GCM with @key for the instructions of @impl
 */
void mh_cipher_init(MhCipher *cipher, MhImpl impl,
                    const uint8_t key[MH_KEY_SIZE]);

/**
 * mh_seal: encrypt @size bytes, which may be 0, from @src to @dst
 * @impl: the implementation that was given to mh_cipher_init()
 * @ad_size, @size: multiples of 16
 *
 * The assembly writes the ciphertext to @dst and reads it back from there to
 * compute the tag.  The VMM must not change the ciphertext in between, so @dst
 * must be private memory.
 */
void mh_seal(const MhCipher *cipher, MhImpl impl, const uint8_t iv[MH_IV_SIZE],
             const void *ad, size_t ad_size, const void *src, void *dst,
             size_t size, uint8_t tag[MH_TAG_SIZE]);

/**
 * mh_open: decrypt @size bytes, which may be 0, from @src to @dst
 *
 * The arguments are those of mh_seal().  @src and @dst may be the same; both
 * must be private memory.  If the result is false, @dst must not be used.
 */
bool mh_open(const MhCipher *cipher, MhImpl impl, const uint8_t iv[MH_IV_SIZE],
             const void *ad, size_t ad_size, const void *src, void *dst,
             size_t size, const uint8_t tag[MH_TAG_SIZE]);

#endif
