/*
 * Who vouches for emulated AMD PSPs: root and signing key
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What AMD is for its own processors: the root key (ARK) signs the SEV signing
 * key (ASK), which signs the endorsement keys (CEK) of processors.  Whoever
 * has the file can make such processors: it is no secret of any worth.
 */

#ifndef HW_MISC_AMD_PSP_AUTHORITY_H
#define HW_MISC_AMD_PSP_AUTHORITY_H

#include "hw/misc/amd-psp-certs.h"

typedef struct AmdPspAuthority AmdPspAuthority;

/**
 * amd_psp_authority_open: the authority whose keys are in a file
 * @path: it is made, with new keys, if it is not there; the certificates of
 *        both keys are put into the file that is called @path and ".cert"
 *
 * Takes seconds if keys have to be made.  Others may do the same meanwhile:
 * one of them wins.  Returns NULL with @errp set on failure.
 */
AmdPspAuthority *amd_psp_authority_open(const char *path, Error **errp);

void amd_psp_authority_free(AmdPspAuthority *a);

/**
 * amd_psp_authority_certs: AMD_PSP_ASK_ARK_LEN bytes, as AMD publishes its own
 */
const uint8_t *amd_psp_authority_certs(const AmdPspAuthority *a);

/**
 * amd_psp_authority_sign: sign the certificate of a CEK with the ASK
 */
bool amd_psp_authority_sign(const AmdPspAuthority *a,
                            uint8_t cek[AMD_PSP_CERT_LEN]);

/**
 * amd_psp_authority_verify: whether @cek is the certificate of a CEK that @a
 *                           vouches for
 * @ask_ark: certificates that come with it: the ARK must be @a's own, the ASK
 *           signed by it, and @cek by the ASK
 */
bool amd_psp_authority_verify(const AmdPspAuthority *a,
                              const uint8_t ask_ark[AMD_PSP_ASK_ARK_LEN],
                              const uint8_t cek[AMD_PSP_CERT_LEN]);

#endif
