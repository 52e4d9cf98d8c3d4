/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The functions of Linux's arch/x86/crypto/aes-gcm-*.S
 *
 * Comments in the assembly describe the interface.  Counters are little-endian
 * numbers of 128 bits, and sizes are in bytes.
 */
#ifndef SEV_MIGRATION_HELPER_AES_GCM_H
#define SEV_MIGRATION_HELPER_AES_GCM_H

#include "cipher.h"

#define AES_GCM_FUNCTIONS(impl)                                              \
    void aes_gcm_precompute_##impl(MhCipher *);                              \
    void aes_gcm_aad_update_##impl(const MhCipher *, uint8_t[16],            \
                                   const void *, int);                       \
    void aes_gcm_enc_update_##impl(const MhCipher *, const uint32_t[4],      \
                                   uint8_t[16], const void *, void *, int);  \
    void aes_gcm_dec_update_##impl(const MhCipher *, const uint32_t[4],      \
                                   uint8_t[16], const void *, void *, int);  \
    void aes_gcm_enc_final_##impl(const MhCipher *, const uint32_t[4],       \
                                  uint8_t[16], uint64_t, uint64_t);          \
    bool aes_gcm_dec_final_##impl(const MhCipher *, const uint32_t[4],       \
                                  const uint8_t[16], uint64_t, uint64_t,     \
                                  const uint8_t[16], int);

AES_GCM_FUNCTIONS(aesni_avx)
AES_GCM_FUNCTIONS(vaes_avx2)
AES_GCM_FUNCTIONS(vaes_avx512)

#endif
