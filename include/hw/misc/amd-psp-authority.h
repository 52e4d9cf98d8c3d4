/*
 * The authority that signs emulated AMD PSPs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The authority has the role of AMD: its root key (ARK) signs its SEV signing
 * key (ASK), which signs the endorsement keys (CEK) of processors.  Anyone who
 * has the file with these keys can create processors that trust each other.
 */

#ifndef HW_MISC_AMD_PSP_AUTHORITY_H
#define HW_MISC_AMD_PSP_AUTHORITY_H

#include "hw/misc/amd-psp-certs.h"

typedef struct AmdPspAuthority AmdPspAuthority;

/**
 * amd_psp_authority_open: load the authority whose keys are in a file
 * @path: the file, which is created with new keys if it does not exist.  The
 *        function also writes the certificates of ASK and ARK to a file whose
 *        name is @path with the suffix ".cert".
 *
 * Creating the keys takes several seconds.  If several processes create the
 * file at the same time, all of them load the same keys.  Returns NULL with
 * @errp set on failure.
 */
AmdPspAuthority *amd_psp_authority_open(const char *path, Error **errp);

void amd_psp_authority_free(AmdPspAuthority *a);

/**
 * amd_psp_authority_certs: get the certificates of ASK and ARK
 *
 * Returns AMD_PSP_ASK_ARK_LEN bytes in the format in which AMD publishes its
 * own certificates.
 */
const uint8_t *amd_psp_authority_certs(const AmdPspAuthority *a);

/**
 * amd_psp_authority_sign: sign the certificate of a CEK with the ASK
 */
bool amd_psp_authority_sign(const AmdPspAuthority *a,
                            uint8_t cek[AMD_PSP_CERT_LEN]);

/**
 * amd_psp_authority_verify: check that @a has signed the certificate @cek
 * @ask_ark: the certificates of ASK and ARK.  The ARK must be that of @a and
 *           must have signed the ASK, and the ASK must have signed @cek.
 */
bool amd_psp_authority_verify(const AmdPspAuthority *a,
                              const uint8_t ask_ark[AMD_PSP_ASK_ARK_LEN],
                              const uint8_t cek[AMD_PSP_CERT_LEN]);

#endif
