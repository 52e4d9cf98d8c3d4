/*
 * Emulated AMD Platform Security Processor: SEV firmware
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * AMD's "Secure Encrypted Virtualization API" (publication 55766), version 0.24
 * and later, defines the commands, states, policies and statuses.
 */

#ifndef HW_MISC_AMD_PSP_H
#define HW_MISC_AMD_PSP_H

#include "exec/hwaddr.h"
#include "hw/misc/amd-psp-authority.h"
#include "hw/misc/amd-psp-certs.h"
#include "hw/misc/amd-psp-crypto.h"
#include "hw/misc/amd-psp-ring.h"
#include "hw/misc/sev-memory.h"
#include "hw/qdev-core.h"
#include "qapi/qapi-types-sev-platform.h"
#include "qemu/bitmap.h"

#define TYPE_AMD_PSP "amd-psp"

/* The version that PLATFORM_STATUS reports */
#define AMD_PSP_API_MAJOR   1
#define AMD_PSP_API_MINOR   55
#define AMD_PSP_BUILD       1

#define AMD_PSP_ID_LEN      64
#define AMD_PSP_MAX_GUESTS  32

/* The largest command buffer is SEND_START's */
#define AMD_PSP_BUFFER_MAX  68
#define AMD_PSP_MAX_VMSAS   512

typedef enum AmdPspStatus {
    AMD_PSP_SUCCESS                 = 0x00,
    AMD_PSP_INVALID_PLATFORM_STATE  = 0x01,
    AMD_PSP_INVALID_GUEST_STATE     = 0x02,
    AMD_PSP_INVALID_CONFIG          = 0x03,
    AMD_PSP_INVALID_LEN             = 0x04,
    AMD_PSP_ALREADY_OWNED           = 0x05,
    AMD_PSP_INVALID_CERTIFICATE     = 0x06,
    AMD_PSP_POLICY_FAILURE          = 0x07,
    AMD_PSP_INACTIVE                = 0x08,
    AMD_PSP_INVALID_ADDRESS         = 0x09,
    AMD_PSP_BAD_SIGNATURE           = 0x0a,
    AMD_PSP_BAD_MEASUREMENT         = 0x0b,
    AMD_PSP_ASID_OWNED              = 0x0c,
    AMD_PSP_INVALID_ASID            = 0x0d,
    AMD_PSP_WBINVD_REQUIRED         = 0x0e,
    AMD_PSP_DFFLUSH_REQUIRED        = 0x0f,
    AMD_PSP_INVALID_GUEST           = 0x10,
    AMD_PSP_INVALID_COMMAND         = 0x11,
    AMD_PSP_ACTIVE                  = 0x12,
    AMD_PSP_HWERROR_PLATFORM        = 0x13,
    AMD_PSP_HWERROR_UNSAFE          = 0x14,
    AMD_PSP_UNSUPPORTED             = 0x15,
    AMD_PSP_INVALID_PARAM           = 0x16,
    AMD_PSP_RESOURCE_LIMIT          = 0x17,
    AMD_PSP_SECURE_DATA_INVALID     = 0x18,
    AMD_PSP_EXIT_RING_BUFFER        = 0x1f,
    /* Not in the API: amd_psp_execute() must be called again for the rest */
    AMD_PSP_CONTINUE                = 0x10000,
} AmdPspStatus;

typedef enum AmdPspCommand {
    AMD_PSP_INIT                = 0x01,
    AMD_PSP_SHUTDOWN            = 0x02,
    AMD_PSP_FACTORY_RESET       = 0x03,
    AMD_PSP_PLATFORM_STATUS     = 0x04,
    AMD_PSP_PEK_GEN             = 0x05,
    AMD_PSP_PEK_CSR             = 0x06,
    AMD_PSP_PEK_CERT_IMPORT     = 0x07,
    AMD_PSP_PDH_CERT_EXPORT     = 0x08,
    AMD_PSP_PDH_GEN             = 0x09,
    AMD_PSP_DF_FLUSH            = 0x0a,
    AMD_PSP_DOWNLOAD_FIRMWARE   = 0x0b,
    AMD_PSP_GET_ID              = 0x0c,
    AMD_PSP_INIT_EX             = 0x0d,
    AMD_PSP_RING_BUFFER         = 0x0f,
    AMD_PSP_DECOMMISSION        = 0x20,
    AMD_PSP_ACTIVATE            = 0x21,
    AMD_PSP_DEACTIVATE          = 0x22,
    AMD_PSP_GUEST_STATUS        = 0x23,
    AMD_PSP_COPY                = 0x24,
    AMD_PSP_ACTIVATE_EX         = 0x25,
    AMD_PSP_LAUNCH_START        = 0x30,
    AMD_PSP_LAUNCH_UPDATE_DATA  = 0x31,
    AMD_PSP_LAUNCH_UPDATE_VMSA  = 0x32,
    AMD_PSP_LAUNCH_MEASURE      = 0x33,
    AMD_PSP_LAUNCH_UPDATE_SECRET = 0x34,
    AMD_PSP_LAUNCH_FINISH       = 0x35,
    AMD_PSP_ATTESTATION         = 0x36,
    AMD_PSP_SEND_START          = 0x40,
    AMD_PSP_SEND_UPDATE_DATA    = 0x41,
    AMD_PSP_SEND_UPDATE_VMSA    = 0x42,
    AMD_PSP_SEND_FINISH         = 0x43,
    AMD_PSP_SEND_CANCEL         = 0x44,
    AMD_PSP_RECEIVE_START       = 0x50,
    AMD_PSP_RECEIVE_UPDATE_DATA = 0x51,
    AMD_PSP_RECEIVE_UPDATE_VMSA = 0x52,
    AMD_PSP_RECEIVE_FINISH      = 0x53,
    AMD_PSP_DBG_DECRYPT         = 0x60,
    AMD_PSP_DBG_ENCRYPT         = 0x61,
    AMD_PSP_COMMAND__MAX,
} AmdPspCommand;

typedef enum AmdPspPlatformState {
    AMD_PSP_PLATFORM_UNINIT     = 0,
    AMD_PSP_PLATFORM_INIT       = 1,
    AMD_PSP_PLATFORM_WORKING    = 2,
} AmdPspPlatformState;

typedef enum AmdPspGuestState {
    AMD_PSP_GUEST_UNINIT        = 0,
    AMD_PSP_GUEST_LUPDATE       = 1,
    AMD_PSP_GUEST_LSECRET       = 2,
    AMD_PSP_GUEST_RUNNING       = 3,
    AMD_PSP_GUEST_SUPDATE       = 4,
    AMD_PSP_GUEST_RUPDATE       = 5,
    AMD_PSP_GUEST_SENT          = 6,
} AmdPspGuestState;

/* Policy of a guest; bits 23:16 and 31:24 are the minimum API version */
#define AMD_PSP_POLICY_NODBG    (1u << 0)
#define AMD_PSP_POLICY_NOKS     (1u << 1)
#define AMD_PSP_POLICY_ES       (1u << 2)
#define AMD_PSP_POLICY_NOSEND   (1u << 3)
#define AMD_PSP_POLICY_DOMAIN   (1u << 4)
#define AMD_PSP_POLICY_SEV      (1u << 5)
#define AMD_PSP_POLICY_RESERVED 0xffc0u

/* A guest context */
typedef struct AmdPspGuest {
    uint32_t handle;                    /* 0: free */
    uint32_t policy;
    uint32_t asid;                      /* 0: not active */
    AmdPspGuestState state;
    uint8_t vek[SEV_MEMORY_KEY_LEN];    /* memory encryption key */
    AmdPspTransportKeys transport;
    GChecksum *digest;                  /* of the data launched so far */
    uint8_t launched[AMD_PSP_DIGEST_LEN]; /* digest that was measured */
    uint8_t measure[AMD_PSP_MAC_LEN];   /* result of LAUNCH_MEASURE */
} AmdPspGuest;

/* The firmware and its secrets */
typedef struct AmdPspPlatform {
    uint8_t seed[AMD_PSP_SEED_LEN];
    /* Number of times that the platform has generated OCA and PEK */
    uint32_t pek_count;
    /* Number of times that the platform has generated the PDH */
    uint32_t pdh_count;
    AmdPspEcKey pdh;
    AmdPspEcKey pek;
    AmdPspEcKey oca;
    AmdPspEcKey cek;
    uint8_t pdh_cert[AMD_PSP_CERT_LEN];
    uint8_t pek_cert[AMD_PSP_CERT_LEN];
    uint8_t oca_cert[AMD_PSP_CERT_LEN];
    uint8_t cek_cert[AMD_PSP_CERT_LEN];     /* without a signature */
    uint8_t signed_cek[AMD_PSP_CERT_LEN];   /* if there is an authority */
    /*
     * The platform's owner has signed the PEK: oca_cert is the certificate of
     * the owner's key, and the platform does not use oca
     */
    bool owned;
    uint8_t id[AMD_PSP_ID_LEN];
    /* The authority that signs the CEK; NULL: none */
    const AmdPspAuthority *authority;
    /* SEND_START checks the destination's certificates for every policy */
    bool always_check_certs;
    /* PDH_CERT_EXPORT exports the CEK with the authority's signature */
    bool export_signed_cek;
    /* Maximum packet size of SEND_UPDATE and RECEIVE_UPDATE; 0: 16 KiB */
    uint32_t send_packet_max;
    uint32_t receive_packet_max;

    bool initialized;
    bool es;                            /* guests can have SEV-ES */
    hwaddr tmr;                         /* memory for SEV-ES */
    /* Handle of the guest that owns each VMSA checksum slot; 0: free */
    uint32_t vmsa_owner[AMD_PSP_MAX_VMSAS];
    hwaddr nv;                          /* storage of INIT_EX; 0: none */
    uint32_t last_handle;
    AmdPspGuest guests[AMD_PSP_MAX_GUESTS];
    /* ASIDs that may have been in use since the last DF_FLUSH */
    DECLARE_BITMAP(df_flush, SEV_MEMORY_MAX_ASID + 1);
    AmdPspRing ring;

    /*
     * A command that returned AMD_PSP_CONTINUE: its buffer, and the number of
     * bytes that it has processed
     */
    bool continued;
    uint8_t continued_buffer[AMD_PSP_BUFFER_MAX];
    uint32_t done;

    /* Counters of the current command or, between commands, of the last one */
    uint64_t guest_bytes;               /* guest memory, read and written */
    uint64_t written;                   /* bytes of output */
    int64_t corrupt;                    /* output byte to corrupt; < 0: none */
} AmdPspPlatform;

/**
 * amd_psp_platform_init: give the platform its identity
 * @seed: the source of the platform's ID and keys
 * @authority: signs the platform's CEK; owned by the caller; NULL: none
 *
 * Returns false if @authority cannot sign.
 */
bool amd_psp_platform_init(AmdPspPlatform *p,
                           const uint8_t seed[AMD_PSP_SEED_LEN],
                           const AmdPspAuthority *authority);

/**
 * amd_psp_platform_reset: forget all guests, as after a loss of power
 *
 * No vCPU may run, see sev_memory_clear_key().
 */
void amd_psp_platform_reset(AmdPspPlatform *p);

/**
 * amd_psp_platform_state: state of the platform
 * @guests, @active: set to the number of guests, and of those with an ASID
 */
AmdPspPlatformState amd_psp_platform_state(AmdPspPlatform *p,
                                           unsigned *guests,
                                           unsigned *active);

/**
 * amd_psp_command_name: get the name of a command in the API
 *
 * Returns "unknown" if no command has the @id.
 */
const char *amd_psp_command_name(uint32_t id);

/**
 * amd_psp_command_by_name: find a command by its name in the API
 *
 * Returns false if no command has the @name.
 */
bool amd_psp_command_by_name(const char *name, uint32_t *id);

/**
 * amd_psp_command_known: whether there is a command with that @id
 */
bool amd_psp_command_known(uint32_t id);

/**
 * amd_psp_decode: describe the contents of a command buffer, for a trace event
 * @b: the buffer, which has the length of @id's buffers
 *
 * The caller frees the result.  Buffers contain only addresses, lengths and
 * numbers, so the result contains no secrets.
 */
char *amd_psp_decode(uint32_t id, const uint8_t *b);

/**
 * amd_psp_command_stops_cpus: whether all vCPUs must be stopped while @id runs
 */
bool amd_psp_command_stops_cpus(uint32_t id);

/**
 * amd_psp_execute: execute a command
 * @id: AmdPspCommand, or any other number
 * @buffer: physical address of the command buffer
 * @corrupt: offset of the output byte in which to flip a bit; -1: none
 *
 * The host is not trusted, so the function reads its memory only once and
 * checks all values.  Called in the same context as sev_memory_read(), or as
 * sev_memory_clear_key() if amd_psp_command_stops_cpus() is true.  Calls must
 * not overlap.
 *
 * Returns AMD_PSP_CONTINUE if only a part of a long command is done.  The
 * caller must then let other threads run.  Before it executes another command,
 * the caller must either complete this command, by repeating the call with the
 * same parameters, or drop it, by calling amd_psp_platform_reset().
 */
AmdPspStatus amd_psp_execute(AmdPspPlatform *p, uint32_t id, hwaddr buffer,
                             int64_t corrupt);

/**
 * amd_psp_query: get the state of a device amd-psp for the monitor
 *
 * Called with the BQL held.  The caller frees the result.
 */
SevPlatformInfo *amd_psp_query(DeviceState *dev);

#endif
