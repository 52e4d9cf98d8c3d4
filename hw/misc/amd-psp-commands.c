/*
 * Emulated AMD Platform Security Processor: guest contexts and commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each command takes a buffer in the host's memory.  It is copied in, the
 * command works on the copy, and the copy is written back if the command has
 * something to say and succeeds; some also fill in the lengths that they need
 * when they end with INVALID_LEN.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "crypto/random.h"
#include "hw/misc/amd-psp.h"
#include "hw/misc/sev-vmsa.h"
#include "trace.h"

/* How much of a long command is done at a time; a multiple of a page */
#define SLICE_LEN           (256 * 1024)

/* What one UPDATE_DATA of SEND and RECEIVE takes, and one DBG command */
#define PACKET_MAX          (16 * 1024)

/* Memory that INIT requires for SEV-ES; the second half has the checksums */
#define TMR_LEN             (1024 * 1024)
#define TMR_CHECKSUMS       (TMR_LEN / 2)

/* Bit of a packet header's flags: the data are compressed */
#define PACKET_COMPRESSED   (1u << 0)

/* Certificates that come with the PDH: PEK, OCA, CEK */
#define CHAIN_LEN           (3 * AMD_PSP_CERT_LEN)
#define CHAIN_PEK           0
#define CHAIN_OCA           AMD_PSP_CERT_LEN
#define CHAIN_CEK           (2 * AMD_PSP_CERT_LEN)

/* Lengths that buffers say they have */
#define INIT_EX_LEN         36
#define ACTIVATE_EX_LEN     24

/* How many cores an ACTIVATE_EX may name, and how long firmware may be: ours */
#define ACTIVATE_EX_IDS_MAX 1024
#define FIRMWARE_MAX        (1024 * 1024)

/* The storage of INIT_EX; only its length is the host's business */
#define NV_LEN              (32 * 1024)
#define NV_MAGIC            "amdpspnv"
#define NV_MAGIC_LEN        8
#define NV_PEK_COUNT        8
#define NV_PDH_COUNT        12
#define NV_OWNED            16
#define NV_PEK_CERT         64      /* with the owner's signature */
#define NV_OCA_CERT         (NV_PEK_CERT + AMD_PSP_CERT_LEN)
#define NV_MAC              (NV_LEN - AMD_PSP_MAC_LEN)  /* of all before */

/* What ATTESTATION writes; signed is what is before the signer */
#define REPORT_DIGEST       16
#define REPORT_POLICY       48
#define REPORT_SIG_USAGE    52
#define REPORT_SIG_ALGO     56
#define REPORT_SIG          64
#define REPORT_LEN          (REPORT_SIG + AMD_PSP_CERT_ECDSA_LEN)

#define MEASURE_LEN         (AMD_PSP_MAC_LEN + AMD_PSP_NONCE_LEN)

/* PLATFORM_STATUS flags */
#define FLAG_OWNED          (1u << 0)
#define FLAG_CONFIG_ES      (1u << 8)

/* INIT flags */
#define INIT_ES             (1u << 0)

/* A guest command is possible in these states */
#define IN(state)           BIT(AMD_PSP_GUEST_##state)
#define IN_ANY              (IN(LUPDATE) | IN(LSECRET) | IN(RUNNING) | \
                             IN(SUPDATE) | IN(RUPDATE) | IN(SENT))

/* As is one of the platform in these */
#define P_IN(state)         BIT(AMD_PSP_PLATFORM_##state)
#define P_ANY               (P_IN(UNINIT) | P_IN(INIT) | P_IN(WORKING))

typedef AmdPspStatus CommandFn(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b);

/* When the buffer is written back: as in the source of AMD's firmware */
typedef enum Reply {
    REPLY_NEVER,
    REPLY_SUCCESS,
    REPLY_LENGTH,       /* also if the command ends with INVALID_LEN */
} Reply;

typedef struct Command {
    const char *name;
    CommandFn *fn;
    uint8_t buffer_len;
    Reply reply;
    /* Checks before the platform's state; the guest is NULL */
    CommandFn *before_state;
    /* Checks before those of the guest, which may be NULL */
    CommandFn *first;
    /* Guest states; not 0: the buffer has the handle of a guest */
    uint8_t states;
    /* The guest must be active */
    bool active;
    /* The guest's policy must have ES */
    bool es;
    /* Platform states; 0: WORKING for a guest command, else all but UNINIT */
    uint8_t platform;
    /* Where in the buffer the handle is */
    uint8_t handle_at;
    /* Changes what the vCPUs see */
    bool stops_cpus;
} Command;

/* Every address in a buffer may come with the C-bit, which means nothing */
static hwaddr get_address(const uint8_t *b, size_t offset)
{
    return ldq_le_p(b + offset) & ~sev_memory_cbit();
}

/*
 * Memory as the firmware reads and writes it: see sev_memory_read(),
 * sev_memory_write()
 */
static bool mem_read(AmdPspPlatform *p, hwaddr pa, unsigned asid, void *buf,
                     size_t len)
{
    if (amd_psp_ring_overlaps(&p->ring, pa, len)) {
        return false;
    }
    if (asid != SEV_MEMORY_RAW) {
        p->guest_bytes += len;
    }
    sev_memory_command_uses(pa, len, asid, SEV_MEMORY_COMMAND_READS);
    return sev_memory_read(pa, asid, buf, len);
}

static bool mem_write(AmdPspPlatform *p, hwaddr pa, unsigned asid,
                      const void *buf, size_t len)
{
    g_autofree uint8_t *flipped = NULL;
    uint64_t at = p->written;

    if (amd_psp_ring_overlaps(&p->ring, pa, len)) {
        return false;
    }
    p->written += len;
    if (asid != SEV_MEMORY_RAW) {
        p->guest_bytes += len;
    }
    if (p->corrupt >= 0 && p->corrupt >= at && p->corrupt < p->written) {
        flipped = g_memdup2(buf, len);
        flipped[p->corrupt - at] ^= 1;
        buf = flipped;
    }
    sev_memory_command_uses(pa, len, asid, SEV_MEMORY_COMMAND_WRITES);
    return sev_memory_write(pa, asid, buf, len);
}

/* Of memory that the host gives, and that is only looked at for this */
static bool mem_is_ram(AmdPspPlatform *p, hwaddr pa, size_t len)
{
    return !amd_psp_ring_overlaps(&p->ring, pa, len) &&
           sev_memory_is_ram(pa, len);
}

static bool get_random(void *buf, size_t len)
{
    Error *err = NULL;

    if (qcrypto_random_bytes(buf, len, &err) < 0) {
        error_report_err(err);
        return false;
    }
    return true;
}

static AmdPspGuest *guest_find(AmdPspPlatform *p, uint32_t handle)
{
    size_t i;

    for (i = 0; handle && i < ARRAY_SIZE(p->guests); i++) {
        if (p->guests[i].handle == handle) {
            return &p->guests[i];
        }
    }
    return NULL;
}

static unsigned guest_count(AmdPspPlatform *p)
{
    unsigned n = 0;
    size_t i;

    for (i = 0; i < ARRAY_SIZE(p->guests); i++) {
        n += !!p->guests[i].handle;
    }
    return n;
}

/* A context without transport keys, with the memory key of @sharer if any */
static AmdPspStatus guest_new(AmdPspPlatform *p, uint32_t policy,
                              AmdPspGuestState state,
                              const AmdPspGuest *sharer, AmdPspGuest **guest)
{
    AmdPspGuest *g = NULL;
    size_t i;

    for (i = 0; i < ARRAY_SIZE(p->guests); i++) {
        if (!p->guests[i].handle) {
            g = &p->guests[i];
            break;
        }
    }
    if (!g) {
        return AMD_PSP_RESOURCE_LIMIT;
    }
    memset(g, 0, sizeof(*g));
    if (sharer) {
        memcpy(g->vek, sharer->vek, sizeof(g->vek));
    } else if (!get_random(g->vek, sizeof(g->vek))) {
        return AMD_PSP_HWERROR_PLATFORM;
    }
    do {
        p->last_handle++;
    } while (!p->last_handle || guest_find(p, p->last_handle));
    g->handle = p->last_handle;
    g->policy = policy;
    g->state = state;
    g->digest = g_checksum_new(G_CHECKSUM_SHA256);
    *guest = g;
    return AMD_PSP_SUCCESS;
}

/* It must not be active any more */
static void guest_free(AmdPspPlatform *p, AmdPspGuest *g)
{
    g_assert(!g->asid);
    for (size_t i = 0; i < ARRAY_SIZE(p->vmsa_owner); i++) {
        if (p->vmsa_owner[i] == g->handle) {
            p->vmsa_owner[i] = 0;
        }
    }
    g_checksum_free(g->digest);
    memset(g, 0, sizeof(*g));
}

static void guest_deactivate(AmdPspPlatform *p, AmdPspGuest *g)
{
    if (g->asid) {
        bool used = sev_memory_asid_valid(g->asid);

        sev_memory_clear_key(g->asid);
        /* Of a guest that could not run, caches have nothing */
        if (used) {
            set_bit(g->asid, p->df_flush);
            sev_memory_forget_wbinvd();
        }
        g->asid = 0;
    }
}

void amd_psp_platform_reset(AmdPspPlatform *p)
{
    size_t i;

    for (i = 0; i < ARRAY_SIZE(p->guests); i++) {
        if (p->guests[i].handle) {
            guest_deactivate(p, &p->guests[i]);
            guest_free(p, &p->guests[i]);
        }
    }
    bitmap_zero(p->df_flush, SEV_MEMORY_MAX_ASID + 1);
    p->continued = false;
    p->nv = 0;
    p->initialized = false;
    p->es = false;
    amd_psp_ring_leave(&p->ring, "the platform is reset");
}

static void platform_cert(const AmdPspEcKey *key, AmdPspCertUsage usage,
                          uint8_t cert[AMD_PSP_CERT_LEN])
{
    amd_psp_cert_make(&key->q, usage, AMD_PSP_API_MAJOR, AMD_PSP_API_MINOR,
                      cert);
}

static void platform_make_pdh(AmdPspPlatform *p)
{
    amd_psp_ec_key(p->seed, "pdh", p->pdh_count++, &p->pdh);
    platform_cert(&p->pdh, AMD_PSP_CERT_PDH, p->pdh_cert);
    amd_psp_cert_sign(p->pdh_cert, AMD_PSP_CERT_PEK, &p->pek);
}

/* And an OCA, as which the platform owns itself */
static void platform_make_pek(AmdPspPlatform *p)
{
    amd_psp_ec_key(p->seed, "oca", p->pek_count, &p->oca);
    amd_psp_ec_key(p->seed, "pek", p->pek_count, &p->pek);
    p->pek_count++;
    p->owned = false;
    platform_cert(&p->oca, AMD_PSP_CERT_OCA, p->oca_cert);
    amd_psp_cert_sign(p->oca_cert, AMD_PSP_CERT_OCA, &p->oca);
    platform_cert(&p->pek, AMD_PSP_CERT_PEK, p->pek_cert);
    amd_psp_cert_sign(p->pek_cert, AMD_PSP_CERT_OCA, &p->oca);
    amd_psp_cert_sign(p->pek_cert, AMD_PSP_CERT_CEK, &p->cek);
    platform_make_pdh(p);
}

bool amd_psp_platform_init(AmdPspPlatform *p,
                           const uint8_t seed[AMD_PSP_SEED_LEN],
                           const AmdPspAuthority *authority)
{
    memset(p, 0, sizeof(*p));
    memcpy(p->seed, seed, sizeof(p->seed));
    p->authority = authority;
    amd_psp_expand(p->seed, "id", 0, p->id, sizeof(p->id));
    amd_psp_ec_key(p->seed, "cek", 0, &p->cek);
    platform_cert(&p->cek, AMD_PSP_CERT_CEK, p->cek_cert);
    memcpy(p->signed_cek, p->cek_cert, sizeof(p->signed_cek));
    platform_make_pek(p);
    return !authority || amd_psp_authority_sign(authority, p->signed_cek);
}

/*
 * A policy that this platform can keep.  The firmware looks at the one that
 * came with a session, and takes any from a host that launches without one.
 */
static AmdPspStatus check_policy(uint32_t policy)
{
    unsigned major = extract32(policy, 16, 8);
    unsigned minor = extract32(policy, 24, 8);

    if (major > AMD_PSP_API_MAJOR ||
        (major == AMD_PSP_API_MAJOR && minor > AMD_PSP_API_MINOR)) {
        return AMD_PSP_POLICY_FAILURE;
    }
    return policy & AMD_PSP_POLICY_RESERVED ? AMD_PSP_POLICY_FAILURE :
           AMD_PSP_SUCCESS;
}

static AmdPspStatus platform_start(AmdPspPlatform *p, uint32_t flags,
                                   hwaddr tmr, uint32_t tmr_len)
{
    bool es = flags & INIT_ES;

    if (es && tmr_len < TMR_LEN) {
        return AMD_PSP_INVALID_LEN;
    }
    if (es && (tmr % TMR_LEN || !mem_is_ram(p, tmr, TMR_LEN))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    p->initialized = true;
    /* The driver asks for it without knowing what the CPU can do */
    p->es = es && sev_memory_max_es_asid();
    p->tmr = tmr;
    /* Nobody knows what caches have of guests from before */
    bitmap_fill(p->df_flush, SEV_MEMORY_MAX_ASID + 1);
    sev_memory_forget_wbinvd();
    sev_memory_watch();
    return AMD_PSP_SUCCESS;
}

/* [0] flags, [8] address and [16] length of a memory region for SEV-ES */
static AmdPspStatus cmd_init(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    return platform_start(p, ldl_le_p(b), get_address(b, 8), ldl_le_p(b + 16));
}

/* Of the storage, under the platform's own identity */
static void nv_mac(AmdPspPlatform *p, const uint8_t *nv,
                   uint8_t mac[AMD_PSP_MAC_LEN])
{
    amd_psp_kdf(p->seed, sizeof(p->seed), "nv", nv, NV_MAC,
                mac, AMD_PSP_MAC_LEN);
}

/* After what changes the platform's keys or certificates */
static AmdPspStatus nv_store(AmdPspPlatform *p)
{
    g_autofree uint8_t *nv = NULL;

    if (!p->nv) {
        return AMD_PSP_SUCCESS;
    }
    nv = g_malloc0(NV_LEN);
    memcpy(nv, NV_MAGIC, NV_MAGIC_LEN);
    stl_le_p(nv + NV_PEK_COUNT, p->pek_count);
    stl_le_p(nv + NV_PDH_COUNT, p->pdh_count);
    nv[NV_OWNED] = p->owned;
    memcpy(nv + NV_PEK_CERT, p->pek_cert, sizeof(p->pek_cert));
    memcpy(nv + NV_OCA_CERT, p->oca_cert, sizeof(p->oca_cert));
    nv_mac(p, nv, nv + NV_MAC);
    return mem_write(p, p->nv, SEV_MEMORY_RAW, nv, NV_LEN) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

/* The keys that the platform had when @nv was stored */
static AmdPspStatus nv_load(AmdPspPlatform *p, const uint8_t *nv)
{
    uint8_t mac[AMD_PSP_MAC_LEN];
    uint32_t pek, pdh;

    /* What a host has that has stored nothing yet */
    if (buffer_is_zero(nv, NV_LEN) ||
        (nv[0] == 0xff && !memcmp(nv, nv + 1, NV_LEN - 1))) {
        return AMD_PSP_SUCCESS;
    }
    nv_mac(p, nv, mac);
    pek = ldl_le_p(nv + NV_PEK_COUNT);
    pdh = ldl_le_p(nv + NV_PDH_COUNT);
    if (memcmp(nv, NV_MAGIC, NV_MAGIC_LEN) ||
        memcmp(nv + NV_MAC, mac, sizeof(mac)) || !pek || !pdh) {
        return AMD_PSP_SECURE_DATA_INVALID;
    }
    if (pek != p->pek_count || pdh != p->pdh_count) {
        p->pek_count = pek - 1;
        p->pdh_count = pdh - 1;
        platform_make_pek(p);
    }
    p->owned = nv[NV_OWNED];
    memcpy(p->pek_cert, nv + NV_PEK_CERT, sizeof(p->pek_cert));
    memcpy(p->oca_cert, nv + NV_OCA_CERT, sizeof(p->oca_cert));
    return AMD_PSP_SUCCESS;
}

/*
 * [0] length of the buffer, [4] flags, [8] and [16] memory for SEV-ES,
 * [24] address and [32] length of the storage
 *
 * What is in the storage is the firmware's own affair, and differs from what
 * AMD's has.  As the host's driver expects, storage that is not of this
 * platform is made anew, and INIT_EX has to be tried again.
 */
static AmdPspStatus cmd_init_ex(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    hwaddr pa = get_address(b, 24);
    g_autofree uint8_t *nv = NULL;
    AmdPspStatus st;

    if (ldl_le_p(b) != INIT_EX_LEN || ldl_le_p(b + 32) != NV_LEN) {
        return AMD_PSP_INVALID_LEN;
    }
    nv = g_malloc(NV_LEN);
    if (!pa || !mem_read(p, pa, SEV_MEMORY_RAW, nv, NV_LEN)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    st = nv_load(p, nv);
    p->nv = pa;
    if (nv_store(p)) {
        st = st ?: AMD_PSP_INVALID_ADDRESS;
    }
    if (st) {
        p->nv = 0;
        return st;
    }
    return platform_start(p, ldl_le_p(b + 4), get_address(b, 8),
                          ldl_le_p(b + 16));
}

static AmdPspStatus cmd_shutdown(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    amd_psp_platform_reset(p);
    return AMD_PSP_SUCCESS;
}

static AmdPspStatus cmd_factory_reset(AmdPspPlatform *p, AmdPspGuest *g,
                                      uint8_t *b)
{
    platform_make_pek(p);
    return AMD_PSP_SUCCESS;
}

/*
 * [0] address, [8] length
 *
 * No image is one for this processor.
 */
static AmdPspStatus cmd_download_firmware(AmdPspPlatform *p, AmdPspGuest *g,
                                          uint8_t *b)
{
    uint32_t len = ldl_le_p(b + 8);

    if (!len || len > FIRMWARE_MAX) {
        return AMD_PSP_INVALID_LEN;
    }
    if (!mem_is_ram(p, get_address(b, 0), len)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    return AMD_PSP_BAD_SIGNATURE;
}

AmdPspPlatformState amd_psp_platform_state(AmdPspPlatform *p,
                                           unsigned *guests,
                                           unsigned *active)
{
    size_t i;

    *guests = guest_count(p);
    *active = 0;
    for (i = 0; i < ARRAY_SIZE(p->guests); i++) {
        *active += p->guests[i].handle && p->guests[i].asid;
    }
    return *guests ? AMD_PSP_PLATFORM_WORKING :
           p->initialized ? AMD_PSP_PLATFORM_INIT : AMD_PSP_PLATFORM_UNINIT;
}

/* Out: [0] major, [1] minor, [2] state, [3] flags, [7] build, [8] guests */
static AmdPspStatus cmd_platform_status(AmdPspPlatform *p, AmdPspGuest *g,
                                        uint8_t *b)
{
    unsigned guests, active;

    b[0] = AMD_PSP_API_MAJOR;
    b[1] = AMD_PSP_API_MINOR;
    b[2] = amd_psp_platform_state(p, &guests, &active);
    stl_le_p(b + 3, (p->owned ? FLAG_OWNED : 0) | (p->es ? FLAG_CONFIG_ES : 0));
    b[7] = AMD_PSP_BUILD;
    stl_le_p(b + 8, guests);
    return AMD_PSP_SUCCESS;
}

static AmdPspStatus cmd_pek_gen(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    platform_make_pek(p);
    return nv_store(p);
}

/*
 * [0] address, [8] length
 *
 * What an owner is to sign: the certificate of the PEK without signatures
 */
static AmdPspStatus cmd_pek_csr(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    hwaddr pa = get_address(b, 0);
    bool fits = ldl_le_p(b + 8) >= AMD_PSP_CERT_LEN;
    uint8_t cert[AMD_PSP_CERT_LEN];

    stl_le_p(b + 8, AMD_PSP_CERT_LEN);
    if (!fits || !pa) {
        return AMD_PSP_INVALID_LEN;
    }
    platform_cert(&p->pek, AMD_PSP_CERT_PEK, cert);
    return mem_write(p, pa, SEV_MEMORY_RAW, cert, sizeof(cert)) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

/*
 * [0] address and [8] length of the PEK's certificate, signed by an owner;
 * [16] and [24] of the owner's own, the OCA's
 */
static AmdPspStatus cmd_pek_cert_import(AmdPspPlatform *p, AmdPspGuest *g,
                                        uint8_t *b)
{
    uint8_t pek[AMD_PSP_CERT_LEN], oca[AMD_PSP_CERT_LEN];

    if (p->owned) {
        return AMD_PSP_ALREADY_OWNED;
    }
    if (ldl_le_p(b + 8) != sizeof(pek) || ldl_le_p(b + 24) != sizeof(oca)) {
        return AMD_PSP_INVALID_LEN;
    }
    if (!mem_read(p, get_address(b, 0), SEV_MEMORY_RAW, pek, sizeof(pek)) ||
        !mem_read(p, get_address(b, 16), SEV_MEMORY_RAW, oca, sizeof(oca))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    if (!amd_psp_cert_verify(oca, AMD_PSP_CERT_OCA, oca, AMD_PSP_CERT_OCA) ||
        !amd_psp_cert_verify(pek, AMD_PSP_CERT_PEK, oca, AMD_PSP_CERT_OCA) ||
        /* Of this PEK */
        memcmp(pek, p->pek_cert, AMD_PSP_CERT_BODY_LEN) ||
        !amd_psp_cert_copy_signature(pek, p->pek_cert, AMD_PSP_CERT_CEK)) {
        return AMD_PSP_INVALID_CERTIFICATE;
    }
    memcpy(p->pek_cert, pek, sizeof(pek));
    memcpy(p->oca_cert, oca, sizeof(oca));
    p->owned = true;
    platform_make_pdh(p);
    return nv_store(p);
}

static AmdPspStatus cmd_pdh_gen(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    platform_make_pdh(p);
    return nv_store(p);
}

/*
 * [0] address and [8] length of the PDH's certificate, [16] and [24] chain
 *
 * Processors do not have the signature of their CEK: AMD has it on a server.
 */
static AmdPspStatus cmd_pdh_cert_export(AmdPspPlatform *p, AmdPspGuest *g,
                                        uint8_t *b)
{
    hwaddr pdh_pa = get_address(b, 0), chain_pa = get_address(b, 16);
    bool fits = ldl_le_p(b + 8) >= AMD_PSP_CERT_LEN &&
                ldl_le_p(b + 24) >= CHAIN_LEN;
    uint8_t chain[CHAIN_LEN];

    stl_le_p(b + 8, AMD_PSP_CERT_LEN);
    stl_le_p(b + 24, CHAIN_LEN);
    if (!fits || !pdh_pa || !chain_pa) {
        return AMD_PSP_INVALID_LEN;
    }
    memcpy(chain + CHAIN_PEK, p->pek_cert, sizeof(p->pek_cert));
    memcpy(chain + CHAIN_OCA, p->oca_cert, sizeof(p->oca_cert));
    memcpy(chain + CHAIN_CEK,
           p->export_signed_cek ? p->signed_cek : p->cek_cert,
           AMD_PSP_CERT_LEN);
    if (!mem_write(p, pdh_pa, SEV_MEMORY_RAW,
                   p->pdh_cert, sizeof(p->pdh_cert)) ||
        !mem_write(p, chain_pa, SEV_MEMORY_RAW, chain, sizeof(chain))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    return AMD_PSP_SUCCESS;
}

static AmdPspStatus cmd_df_flush(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    if (!sev_memory_all_wbinvd()) {
        return AMD_PSP_WBINVD_REQUIRED;
    }
    bitmap_zero(p->df_flush, SEV_MEMORY_MAX_ASID + 1);
    return AMD_PSP_SUCCESS;
}

/* [0] address, [8] length */
static AmdPspStatus cmd_get_id(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    hwaddr pa = get_address(b, 0);
    bool fits = ldl_le_p(b + 8) >= sizeof(p->id);

    stl_le_p(b + 8, sizeof(p->id));
    if (!fits || !pa) {
        return AMD_PSP_INVALID_LEN;
    }
    return mem_write(p, pa, SEV_MEMORY_RAW, p->id, sizeof(p->id)) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

/* [0] and on: see amd-psp-ring.c */
static AmdPspStatus cmd_ring_buffer(AmdPspPlatform *p, AmdPspGuest *g,
                                    uint8_t *b)
{
    return amd_psp_ring_enter(&p->ring, b);
}

static AmdPspStatus cmd_decommission(AmdPspPlatform *p, AmdPspGuest *g,
                                     uint8_t *b)
{
    if (g->asid) {
        return AMD_PSP_ACTIVE;
    }
    guest_free(p, g);
    return AMD_PSP_SUCCESS;
}

static AmdPspStatus guest_activate(AmdPspPlatform *p, AmdPspGuest *g,
                                   uint32_t asid)
{
    Error *err = NULL;

    if (!asid || asid > sev_memory_max_asid() ||
        /* The lower ASIDs are those of guests with SEV-ES, and only theirs */
        !(g->policy & AMD_PSP_POLICY_ES) != (asid > sev_memory_max_es_asid())) {
        return AMD_PSP_INVALID_ASID;
    }
    if (sev_memory_has_key(asid)) {
        return AMD_PSP_ASID_OWNED;
    }
    if (g->asid) {
        return AMD_PSP_ACTIVE;
    }
    if (test_bit(asid, p->df_flush)) {
        return AMD_PSP_DFFLUSH_REQUIRED;
    }
    if (!sev_memory_set_key(asid, g->vek, &err)) {
        error_report_err(err);
        return AMD_PSP_HWERROR_PLATFORM;
    }
    g->asid = asid;
    if (g->state == AMD_PSP_GUEST_RUNNING ||
        g->state == AMD_PSP_GUEST_SUPDATE) {
        sev_memory_set_asid_valid(asid);
    }
    return AMD_PSP_SUCCESS;
}

/* [0] handle, [4] ASID */
static AmdPspStatus cmd_activate(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    return guest_activate(p, g, ldl_le_p(b + 4));
}

/*
 * [0] length of the buffer, [4] handle, [8] ASID, [12] how many numbers of
 * 32 bits are at [16]: APIC IDs of cores for which to activate
 *
 * Here all cores share their keys, so which cores does not matter.
 */
static AmdPspStatus cmd_activate_ex(AmdPspPlatform *p, AmdPspGuest *g,
                                    uint8_t *b)
{
    uint32_t n = ldl_le_p(b + 12);

    if (ldl_le_p(b) != ACTIVATE_EX_LEN || !n || n > ACTIVATE_EX_IDS_MAX) {
        return AMD_PSP_INVALID_PARAM;
    }
    if (!mem_is_ram(p, get_address(b, 16), n * 4)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    return guest_activate(p, g, ldl_le_p(b + 8));
}

static AmdPspStatus cmd_deactivate(AmdPspPlatform *p, AmdPspGuest *g,
                                   uint8_t *b)
{
    if (!g->asid) {
        return AMD_PSP_INACTIVE;
    }
    guest_deactivate(p, g);
    return AMD_PSP_SUCCESS;
}

/*
 * [0] handle; out: [4] policy, [8] ASID, [12] state
 *
 * That there is no such guest is a state, too
 */
static AmdPspStatus cmd_guest_status(AmdPspPlatform *p, AmdPspGuest *none,
                                     uint8_t *b)
{
    AmdPspGuest *g = guest_find(p, ldl_le_p(b));

    if (!g) {
        b[12] = AMD_PSP_GUEST_UNINIT;
        return AMD_PSP_SUCCESS;
    }
    stl_le_p(b + 4, g->policy);
    stl_le_p(b + 8, g->asid);
    b[12] = g->state;
    return AMD_PSP_SUCCESS;
}

/* The transport keys in a session that the owner of a PDH made for this one */
static AmdPspStatus read_session(AmdPspPlatform *p, hwaddr cert_pa,
                                 uint32_t cert_len, hwaddr session_pa,
                                 uint32_t session_len, uint32_t policy,
                                 AmdPspTransportKeys *keys)
{
    uint8_t cert[AMD_PSP_CERT_LEN], z[AMD_PSP_P384_LEN];
    AmdPspSession session;
    AmdPspEcPoint peer;

    if (cert_len != sizeof(cert) || session_len != sizeof(session)) {
        return AMD_PSP_INVALID_LEN;
    }
    if (!mem_read(p, cert_pa, SEV_MEMORY_RAW, cert, sizeof(cert)) ||
        !mem_read(p, session_pa, SEV_MEMORY_RAW, &session,
                         sizeof(session))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    if (!amd_psp_cert_key(cert, AMD_PSP_CERT_PDH, &peer) ||
        !amd_psp_ecdh(&p->pdh, &peer, z)) {
        return AMD_PSP_INVALID_CERTIFICATE;
    }
    return amd_psp_session_unwrap(z, &session, policy, keys) ?
           AMD_PSP_SUCCESS : AMD_PSP_BAD_MEASUREMENT;
}

/*
 * The guest @handle whose key a new one with @policy is to have, too; NULL if
 * @handle is 0: the new one has its own
 */
static AmdPspStatus find_sharer(AmdPspPlatform *p, uint32_t handle,
                                uint32_t policy, const AmdPspGuest **sharer)
{
    *sharer = guest_find(p, handle);
    if (!handle) {
        return AMD_PSP_SUCCESS;
    }
    if (!*sharer) {
        return AMD_PSP_INVALID_GUEST;
    }
    return (policy & AMD_PSP_POLICY_NOKS) || policy != (*sharer)->policy ?
           AMD_PSP_POLICY_FAILURE : AMD_PSP_SUCCESS;
}

/*
 * LAUNCH_START and RECEIVE_START: a guest that begins in @state.
 *
 * [0] handle, in: of a guest to share the key with, 0: none; out: the new one
 * [4] policy, [8] address and [16] length of the PDH certificate of who sends
 * the session, [24] address and [32] length of the session.  A guest that is
 * launched may do without (address 0).
 */
static AmdPspStatus guest_start(AmdPspPlatform *p, uint8_t *b,
                                AmdPspGuestState state)
{
    uint32_t policy = ldl_le_p(b + 4);
    hwaddr cert_pa = get_address(b, 8);
    const AmdPspGuest *sharer;
    AmdPspTransportKeys keys;
    AmdPspGuest *g;
    AmdPspStatus st;

    if (cert_pa || state != AMD_PSP_GUEST_LUPDATE) {
        st = read_session(p, cert_pa, ldl_le_p(b + 16), get_address(b, 24),
                          ldl_le_p(b + 32), policy, &keys);
        st = st ?: check_policy(policy);
        if (st) {
            return st;
        }
    } else if (!get_random(&keys, sizeof(keys))) {
        return AMD_PSP_HWERROR_PLATFORM;
    }
    st = find_sharer(p, ldl_le_p(b), policy, &sharer);
    if (st) {
        return st;
    }
    if ((policy & AMD_PSP_POLICY_ES) && !p->es) {
        return AMD_PSP_UNSUPPORTED;
    }
    st = guest_new(p, policy, state, sharer, &g);
    if (st) {
        return st;
    }
    g->transport = keys;
    stl_le_p(b, g->handle);
    return AMD_PSP_SUCCESS;
}

static AmdPspStatus cmd_launch_start(AmdPspPlatform *p, AmdPspGuest *none,
                                     uint8_t *b)
{
    return guest_start(p, b, AMD_PSP_GUEST_LUPDATE);
}

/* The address of the @i-th place for the checksum of a VMSA */
static hwaddr vmsa_checksum_at(AmdPspPlatform *p, size_t i)
{
    return p->tmr + TMR_CHECKSUMS + i * SEV_VMSA_CHECKSUM_LEN;
}

/*
 * Make @vmsa one that a vCPU of @g can start from: assign a place for its
 * checksum, and store the checksum there.
 */
static AmdPspStatus vmsa_set_up(AmdPspPlatform *p, AmdPspGuest *g,
                                uint8_t *vmsa, size_t len)
{
    size_t i;

    QEMU_BUILD_BUG_ON(AMD_PSP_MAX_VMSAS * SEV_VMSA_CHECKSUM_LEN >
                      TMR_LEN - TMR_CHECKSUMS);

    if (len < SEV_VMSA_LEN) {
        return AMD_PSP_INVALID_LEN;
    }
    for (i = 0; p->vmsa_owner[i]; i++) {
        if (i == ARRAY_SIZE(p->vmsa_owner) - 1) {
            return AMD_PSP_RESOURCE_LIMIT;
        }
    }
    stq_le_p(vmsa + SEV_VMSA_ZEROS, 0);
    stq_le_p(vmsa + SEV_VMSA_CHECKSUM, vmsa_checksum_at(p, i));
    if (!mem_is_ram(p, vmsa_checksum_at(p, i), SEV_VMSA_CHECKSUM_LEN) ||
        !sev_vmsa_store_checksum(vmsa)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    p->vmsa_owner[i] = g->handle;
    return AMD_PSP_SUCCESS;
}

/* Whether @vmsa was set up for @g and only its vCPU has changed it since */
static bool vmsa_is_valid(AmdPspPlatform *p, AmdPspGuest *g,
                          const uint8_t *vmsa, size_t len)
{
    size_t i;

    for (i = 0; len >= SEV_VMSA_LEN && i < ARRAY_SIZE(p->vmsa_owner); i++) {
        if (p->vmsa_owner[i] == g->handle &&
            ldq_le_p(vmsa + SEV_VMSA_CHECKSUM) == vmsa_checksum_at(p, i)) {
            return sev_vmsa_is_intact(vmsa);
        }
    }
    return false;
}

/*
 * Measure and encrypt in place.  @vmsa: the SEV_VMSA_LEN bytes at @pa are the
 * state of a vCPU, which is measured before the firmware changes it.
 */
static AmdPspStatus launch_update(AmdPspPlatform *p, AmdPspGuest *g,
                                  hwaddr pa, uint32_t len, bool vmsa)
{
    uint8_t chunk[SEV_VMSA_LEN];
    uint32_t slice;
    AmdPspStatus st;

    if (pa % 16) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    if (!len || len % 16) {
        return AMD_PSP_INVALID_LEN;
    }

    if (!sev_memory_is_ram(pa, len)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    /* The host's memory map may have changed since the last slice */
    pa += p->done;
    len -= p->done;
    slice = MIN(len, SLICE_LEN);
    p->done += slice;
    while (slice) {
        size_t n = vmsa ? slice :
                   MIN(slice, sizeof(chunk) - pa % sizeof(chunk));

        if (!mem_read(p, pa, SEV_MEMORY_RAW, chunk, n)) {
            return AMD_PSP_INVALID_ADDRESS;
        }
        g_checksum_update(g->digest, chunk, n);
        if (vmsa) {
            st = vmsa_set_up(p, g, chunk, n);
            if (st) {
                return st;
            }
        }
        if (!mem_write(p, pa, g->asid, chunk, n)) {
            return AMD_PSP_INVALID_ADDRESS;
        }
        pa += n;
        len -= n;
        slice -= n;
    }
    return len ? AMD_PSP_CONTINUE : AMD_PSP_SUCCESS;
}

/* [0] handle, [8] address, [16] length */
static AmdPspStatus cmd_launch_update_data(AmdPspPlatform *p, AmdPspGuest *g,
                                           uint8_t *b)
{
    return launch_update(p, g, get_address(b, 8), ldl_le_p(b + 16), false);
}

/* The firmware checks the length before it looks at any state */
static AmdPspStatus launch_vmsa_length(AmdPspPlatform *p, AmdPspGuest *none,
                                       uint8_t *b)
{
    return ldl_le_p(b + 16) == SEV_VMSA_LEN ? AMD_PSP_SUCCESS :
           AMD_PSP_INVALID_LEN;
}

/* As LAUNCH_UPDATE_DATA, for the state in which a vCPU starts */
static AmdPspStatus cmd_launch_update_vmsa(AmdPspPlatform *p, AmdPspGuest *g,
                                           uint8_t *b)
{
    return launch_update(p, g, get_address(b, 8), ldl_le_p(b + 16), true);
}

/* [0] handle, [8] address, [16] length */
static AmdPspStatus cmd_launch_measure(AmdPspPlatform *p, AmdPspGuest *g,
                                       uint8_t *b)
{
    hwaddr pa = get_address(b, 8);
    bool fits = ldl_le_p(b + 16) >= MEASURE_LEN;
    uint8_t digest[AMD_PSP_DIGEST_LEN], measure[MEASURE_LEN];
    g_autoptr(GChecksum) sum = NULL;
    gsize digest_len = sizeof(digest);

    stl_le_p(b + 16, MEASURE_LEN);
    if (!fits || !pa) {
        return AMD_PSP_INVALID_LEN;
    }
    if (!get_random(measure + AMD_PSP_MAC_LEN, AMD_PSP_NONCE_LEN)) {
        return AMD_PSP_HWERROR_PLATFORM;
    }
    sum = g_checksum_copy(g->digest);
    g_checksum_get_digest(sum, digest, &digest_len);
    amd_psp_measurement(g->transport.tik, AMD_PSP_API_MAJOR, AMD_PSP_API_MINOR,
                        AMD_PSP_BUILD, g->policy, digest,
                        measure + AMD_PSP_MAC_LEN, measure);
    if (!mem_write(p, pa, SEV_MEMORY_RAW, measure, sizeof(measure))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    memcpy(g->launched, digest, sizeof(g->launched));
    memcpy(g->measure, measure, sizeof(g->measure));
    g->state = AMD_PSP_GUEST_LSECRET;
    return AMD_PSP_SUCCESS;
}

/* The launch or the reception has ended: the guest can run, if it is active */
static void guest_finish(AmdPspGuest *g)
{
    g->state = AMD_PSP_GUEST_RUNNING;
    if (g->asid) {
        sev_memory_set_asid_valid(g->asid);
    }
}

static AmdPspStatus cmd_launch_finish(AmdPspPlatform *p, AmdPspGuest *g,
                                      uint8_t *b)
{
    guest_finish(g);
    return AMD_PSP_SUCCESS;
}

/*
 * [0] handle, [8] address, [16] nonce of 16 bytes, [32] length
 *
 * What was launched, for a guest that was launched elsewhere nothing
 */
static AmdPspStatus cmd_attestation(AmdPspPlatform *p, AmdPspGuest *g,
                                    uint8_t *b)
{
    bool fits = ldl_le_p(b + 32) >= REPORT_LEN;
    uint8_t report[REPORT_LEN] = { 0 };

    stl_le_p(b + 32, REPORT_LEN);
    if (!fits) {
        return AMD_PSP_INVALID_LEN;
    }
    memcpy(report, b + 16, AMD_PSP_NONCE_LEN);
    memcpy(report + REPORT_DIGEST, g->launched, sizeof(g->launched));
    stl_le_p(report + REPORT_POLICY, g->policy);
    stl_le_p(report + REPORT_SIG_USAGE, AMD_PSP_CERT_PEK);
    stl_le_p(report + REPORT_SIG_ALGO, AMD_PSP_ALGO_ECDSA_SHA256);
    amd_psp_cert_ecdsa(&p->pek, report, REPORT_SIG_USAGE, report + REPORT_SIG);
    return mem_write(p, get_address(b, 8), SEV_MEMORY_RAW, report,
                     sizeof(report)) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

/* What a platform says that it is */
typedef struct Identity {
    uint8_t pdh[AMD_PSP_CERT_LEN];
    uint8_t chain[CHAIN_LEN];
    uint8_t ask_ark[AMD_PSP_ASK_ARK_LEN];
} Identity;

/* A real processor, by the same maker as this one */
static bool check_platform(AmdPspPlatform *p, const Identity *id)
{
    const uint8_t *pek = id->chain + CHAIN_PEK, *cek = id->chain + CHAIN_CEK;

    return p->authority &&
           amd_psp_authority_verify(p->authority, id->ask_ark, cek) &&
           amd_psp_cert_verify(pek, AMD_PSP_CERT_PEK, cek, AMD_PSP_CERT_CEK) &&
           amd_psp_cert_verify(id->pdh, AMD_PSP_CERT_PDH,
                               pek, AMD_PSP_CERT_PEK);
}

/* One with an owner, whoever that is */
static bool check_owner(const Identity *id)
{
    const uint8_t *pek = id->chain + CHAIN_PEK, *oca = id->chain + CHAIN_OCA;

    return amd_psp_cert_verify(oca, AMD_PSP_CERT_OCA, oca, AMD_PSP_CERT_OCA) &&
           amd_psp_cert_verify(pek, AMD_PSP_CERT_PEK, oca, AMD_PSP_CERT_OCA) &&
           amd_psp_cert_verify(id->pdh, AMD_PSP_CERT_PDH,
                               pek, AMD_PSP_CERT_PEK);
}

/*
 * May a guest with @policy go to @id?  The firmware checks certificates if the
 * policy has SEV or DOMAIN, and none otherwise: then the host may name any key
 * as the destination's.  always_check_certs is stricter than any firmware.
 */
static AmdPspStatus check_destination(AmdPspPlatform *p, uint32_t policy,
                                      const Identity *id)
{
    bool strict = p->always_check_certs && p->authority;
    bool platform = strict || (policy & AMD_PSP_POLICY_SEV);
    bool owner = strict || (policy & AMD_PSP_POLICY_DOMAIN);
    unsigned least = extract32(policy, 16, 8) << 8 | extract32(policy, 24, 8);

    if (platform && !check_platform(p, id)) {
        return AMD_PSP_INVALID_CERTIFICATE;
    }
    if (platform && amd_psp_cert_api(id->chain + CHAIN_PEK) < least) {
        return AMD_PSP_POLICY_FAILURE;
    }
    if (owner && !check_owner(id)) {
        return AMD_PSP_INVALID_CERTIFICATE;
    }
    if ((policy & AMD_PSP_POLICY_DOMAIN) &&
        memcmp(id->chain + CHAIN_OCA, p->oca_cert, sizeof(p->oca_cert))) {
        return AMD_PSP_POLICY_FAILURE;
    }
    return AMD_PSP_SUCCESS;
}

static AmdPspStatus first_send_start(AmdPspPlatform *p, AmdPspGuest *g,
                                     uint8_t *b)
{
    if (g && ldl_le_p(b + 64) != sizeof(AmdPspSession)) {
        stl_le_p(b + 64, sizeof(AmdPspSession));
        return AMD_PSP_INVALID_LEN;
    }
    return AMD_PSP_SUCCESS;
}

/*
 * [0] handle, out: [4] policy, [8] address and [16] length of the
 * destination's PDH, [24] and [32] of its chain, [40] and [48] of AMD's
 * certificates for it, [56] and [64] of the session to be made.
 */
static AmdPspStatus cmd_send_start(AmdPspPlatform *p, AmdPspGuest *g,
                                   uint8_t *b)
{
    bool strict = p->always_check_certs && p->authority;
    bool with_amd = strict || (g->policy & AMD_PSP_POLICY_SEV);
    bool with_chain = with_amd || (g->policy & AMD_PSP_POLICY_DOMAIN);
    uint8_t nonce[AMD_PSP_NONCE_LEN], wrap_iv[AMD_PSP_NONCE_LEN];
    g_autofree Identity *id = g_new0(Identity, 1);
    uint8_t z[AMD_PSP_P384_LEN];
    AmdPspTransportKeys keys;
    AmdPspSession session;
    AmdPspEcPoint peer;
    AmdPspStatus st;

    if (g->policy & AMD_PSP_POLICY_NOSEND) {
        return AMD_PSP_POLICY_FAILURE;
    }
    if (ldl_le_p(b + 16) != sizeof(id->pdh) ||
        (with_chain && ldl_le_p(b + 32) != sizeof(id->chain)) ||
        (with_amd && ldl_le_p(b + 48) != sizeof(id->ask_ark))) {
        return AMD_PSP_INVALID_LEN;
    }
    if (!mem_read(p, get_address(b, 8), SEV_MEMORY_RAW,
                  id->pdh, sizeof(id->pdh)) ||
        (with_chain && !mem_read(p, get_address(b, 24), SEV_MEMORY_RAW,
                                 id->chain, sizeof(id->chain))) ||
        (with_amd && !mem_read(p, get_address(b, 40), SEV_MEMORY_RAW,
                               id->ask_ark, sizeof(id->ask_ark)))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    st = check_destination(p, g->policy, id);
    if (st) {
        return st;
    }
    if (!amd_psp_cert_key(id->pdh, AMD_PSP_CERT_PDH, &peer) ||
        !amd_psp_ecdh(&p->pdh, &peer, z)) {
        return AMD_PSP_INVALID_CERTIFICATE;
    }
    if (!get_random(&keys, sizeof(keys)) ||
        !get_random(nonce, sizeof(nonce)) ||
        !get_random(wrap_iv, sizeof(wrap_iv))) {
        return AMD_PSP_HWERROR_PLATFORM;
    }
    amd_psp_session_wrap(z, nonce, wrap_iv, &keys, g->policy, &session);
    if (!mem_write(p, get_address(b, 56), SEV_MEMORY_RAW,
                          &session, sizeof(session))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    stl_le_p(b + 4, g->policy);
    g->transport = keys;
    g->state = AMD_PSP_GUEST_SUPDATE;
    return AMD_PSP_SUCCESS;
}

/*
 * The part of a buffer that is the same in SEND_ and RECEIVE_, UPDATE_DATA and
 * UPDATE_VMSA
 */
typedef struct Packet {
    hwaddr header_pa;   /* [8] */
    uint32_t header_len; /* [16] */
    hwaddr guest_pa;    /* [24] */
    uint32_t guest_len; /* [32] */
    hwaddr trans_pa;    /* [40] */
    uint32_t trans_len; /* [48] */
} Packet;

static Packet get_packet(const uint8_t *b)
{
    return (Packet) {
        .header_pa = get_address(b, 8),
        .header_len = ldl_le_p(b + 16),
        .guest_pa = get_address(b, 24),
        .guest_len = ldl_le_p(b + 32),
        .trans_pa = get_address(b, 40),
        .trans_len = ldl_le_p(b + 48),
    };
}

/* @max: bytes of a guest in one packet; 0: PACKET_MAX */
static AmdPspStatus check_packet(const Packet *pkt, uint32_t max)
{
    if (!pkt->guest_len || pkt->guest_len > MIN(max ?: PACKET_MAX, PACKET_MAX)
        || pkt->guest_len % 16) {
        return AMD_PSP_INVALID_LEN;
    }
    return pkt->guest_pa % 16 ? AMD_PSP_INVALID_ADDRESS : AMD_PSP_SUCCESS;
}

/* How long the transport data are is for the host to know */
static AmdPspStatus first_send_packet(AmdPspPlatform *p, AmdPspGuest *g,
                                      uint8_t *b)
{
    if (ldl_le_p(b + 16) < sizeof(AmdPspPacketHeader)) {
        stl_le_p(b + 16, sizeof(AmdPspPacketHeader));
        return AMD_PSP_INVALID_LEN;
    }
    return AMD_PSP_SUCCESS;
}

/* [0] handle, Packet; out: the length that the header has */
static AmdPspStatus send_packet(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b,
                                bool vmsa)
{
    Packet pkt = get_packet(b);
    uint8_t iv[AMD_PSP_NONCE_LEN];
    g_autofree uint8_t *data = NULL;
    AmdPspPacketHeader header;
    AmdPspStatus st;

    if (pkt.trans_len < pkt.guest_len) {
        return AMD_PSP_INVALID_LEN;
    }
    st = check_packet(&pkt, p->send_packet_max);
    if (st) {
        return st;
    }
    data = g_malloc(pkt.guest_len);
    if (!mem_read(p, pkt.guest_pa, g->asid, data, pkt.guest_len)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    if (vmsa && !vmsa_is_valid(p, g, data, pkt.guest_len)) {
        return AMD_PSP_INVALID_PARAM;
    }
    if (!get_random(iv, sizeof(iv))) {
        return AMD_PSP_HWERROR_PLATFORM;
    }
    amd_psp_packet_seal(&g->transport, AMD_PSP_PACKET_DATA, iv, data,
                        pkt.guest_len, &header);
    if (!mem_write(p, pkt.trans_pa, SEV_MEMORY_RAW,
                          data, pkt.guest_len) ||
        !mem_write(p, pkt.header_pa, SEV_MEMORY_RAW,
                          &header, sizeof(header))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    stl_le_p(b + 16, sizeof(header));
    return AMD_PSP_SUCCESS;
}

static AmdPspStatus cmd_send_update_data(AmdPspPlatform *p, AmdPspGuest *g,
                                         uint8_t *b)
{
    return send_packet(p, g, b, false);
}

static AmdPspStatus cmd_send_update_vmsa(AmdPspPlatform *p, AmdPspGuest *g,
                                         uint8_t *b)
{
    return send_packet(p, g, b, true);
}

static AmdPspStatus cmd_send_finish(AmdPspPlatform *p, AmdPspGuest *g,
                                    uint8_t *b)
{
    g->state = AMD_PSP_GUEST_SENT;
    return AMD_PSP_SUCCESS;
}

static AmdPspStatus cmd_send_cancel(AmdPspPlatform *p, AmdPspGuest *g,
                                    uint8_t *b)
{
    memset(&g->transport, 0, sizeof(g->transport));
    g->state = AMD_PSP_GUEST_RUNNING;
    return AMD_PSP_SUCCESS;
}

static AmdPspStatus cmd_receive_start(AmdPspPlatform *p, AmdPspGuest *none,
                                      uint8_t *b)
{
    return guest_start(p, b, AMD_PSP_GUEST_RUPDATE);
}

/*
 * What RECEIVE_UPDATE_DATA, RECEIVE_UPDATE_VMSA and LAUNCH_UPDATE_SECRET do:
 * [0] handle, Packet
 */
static AmdPspStatus receive_packet(AmdPspPlatform *p, AmdPspGuest *g,
                                   uint8_t *b, AmdPspPacketType type,
                                   bool vmsa)
{
    Packet pkt = get_packet(b);
    g_autofree uint8_t *data = NULL;
    AmdPspPacketHeader header;
    bool good, compressed;
    AmdPspStatus st;

    if (pkt.header_len < sizeof(header) ||
        (type == AMD_PSP_PACKET_SECRET && pkt.header_len != sizeof(header)) ||
        pkt.trans_len != pkt.guest_len) {
        return AMD_PSP_INVALID_LEN;
    }
    st = check_packet(&pkt, type == AMD_PSP_PACKET_SECRET ? 0 :
                            p->receive_packet_max);
    if (st) {
        return st;
    }
    data = g_malloc(pkt.trans_len);
    if (!mem_read(p, pkt.header_pa, SEV_MEMORY_RAW, &header, sizeof(header))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    /* The firmware has no decompression; it checks a secret's MAC first */
    compressed = le32_to_cpu(header.flags) & PACKET_COMPRESSED;
    if (compressed && type != AMD_PSP_PACKET_SECRET) {
        return AMD_PSP_UNSUPPORTED;
    }
    if (!mem_read(p, pkt.trans_pa, SEV_MEMORY_RAW, data, pkt.trans_len)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    good = type == AMD_PSP_PACKET_SECRET ?
           amd_psp_secret_open(&g->transport, g->measure, &header,
                               data, pkt.trans_len) :
           amd_psp_packet_open(&g->transport, type, &header,
                               data, pkt.trans_len);
    if (!good) {
        return AMD_PSP_BAD_MEASUREMENT;
    }
    if (compressed) {
        return AMD_PSP_UNSUPPORTED;
    }
    if (vmsa) {
        st = vmsa_set_up(p, g, data, pkt.guest_len);
        if (st) {
            return st;
        }
    }
    return mem_write(p, pkt.guest_pa, g->asid, data, pkt.guest_len) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

static AmdPspStatus cmd_receive_update_data(AmdPspPlatform *p, AmdPspGuest *g,
                                            uint8_t *b)
{
    return receive_packet(p, g, b, AMD_PSP_PACKET_DATA, false);
}

static AmdPspStatus cmd_receive_update_vmsa(AmdPspPlatform *p, AmdPspGuest *g,
                                            uint8_t *b)
{
    return receive_packet(p, g, b, AMD_PSP_PACKET_DATA, true);
}

static AmdPspStatus cmd_launch_update_secret(AmdPspPlatform *p, AmdPspGuest *g,
                                             uint8_t *b)
{
    return receive_packet(p, g, b, AMD_PSP_PACKET_SECRET, false);
}

static AmdPspStatus cmd_receive_finish(AmdPspPlatform *p, AmdPspGuest *g,
                                       uint8_t *b)
{
    guest_finish(g);
    return AMD_PSP_SUCCESS;
}

/*
 * [0] handle, [4] length, [8] from, [16] to
 *
 * What was at one place, at the other: ciphertext of one page means nothing
 * in another.  How much one command takes is not known; here as much as the
 * others.
 */
static AmdPspStatus cmd_copy(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    uint32_t len = ldl_le_p(b + 4);
    hwaddr from = get_address(b, 8), to = get_address(b, 16);
    g_autofree uint8_t *data = NULL;

    if (!len || len > PACKET_MAX || len % 16) {
        return AMD_PSP_INVALID_LEN;
    }
    if (from % 16 || to % 16) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    data = g_malloc(len);
    return mem_read(p, from, g->asid, data, len) &&
           mem_write(p, to, g->asid, data, len) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

/* [0] handle, [8] from, [16] to, [24] length */
static AmdPspStatus copy_debug(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b,
                               unsigned from_asid, unsigned to_asid)
{
    hwaddr from = get_address(b, 8), to = get_address(b, 16);
    uint32_t len = ldl_le_p(b + 24);
    g_autofree uint8_t *data = NULL;

    if (g->policy & AMD_PSP_POLICY_NODBG) {
        return AMD_PSP_POLICY_FAILURE;
    }
    if (!len || len > PACKET_MAX || len % 16) {
        return AMD_PSP_INVALID_LEN;
    }
    if (from % 16 || to % 16) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    data = g_malloc(len);
    return mem_read(p, from, from_asid, data, len) &&
           mem_write(p, to, to_asid, data, len) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

static AmdPspStatus cmd_dbg_decrypt(AmdPspPlatform *p, AmdPspGuest *g,
                                    uint8_t *b)
{
    return copy_debug(p, g, b, g->asid, SEV_MEMORY_RAW);
}

static AmdPspStatus cmd_dbg_encrypt(AmdPspPlatform *p, AmdPspGuest *g,
                                    uint8_t *b)
{
    return copy_debug(p, g, b, SEV_MEMORY_RAW, g->asid);
}

static const Command commands[] = {
    [AMD_PSP_INIT] = {
        "INIT", cmd_init, 20, .platform = P_IN(UNINIT),
    },
    [AMD_PSP_INIT_EX] = {
        "INIT_EX", cmd_init_ex, INIT_EX_LEN, .platform = P_IN(UNINIT),
    },
    [AMD_PSP_SHUTDOWN] = {
        "SHUTDOWN", cmd_shutdown, 0, .platform = P_ANY, .stops_cpus = true,
    },
    [AMD_PSP_FACTORY_RESET] = {
        "FACTORY_RESET", cmd_factory_reset, 0, .platform = P_IN(UNINIT),
    },
    [AMD_PSP_PLATFORM_STATUS] = {
        "PLATFORM_STATUS", cmd_platform_status, 12, .platform = P_ANY,
        .reply = REPLY_SUCCESS,
    },
    [AMD_PSP_PEK_GEN] = {
        "PEK_GEN", cmd_pek_gen, 0, .platform = P_IN(INIT),
    },
    [AMD_PSP_PEK_CSR] = {
        "PEK_CSR", cmd_pek_csr, 12,
        .reply = REPLY_LENGTH,
    },
    [AMD_PSP_PEK_CERT_IMPORT] = {
        "PEK_CERT_IMPORT", cmd_pek_cert_import, 28, .platform = P_IN(INIT),
    },
    [AMD_PSP_PDH_CERT_EXPORT] = {
        "PDH_CERT_EXPORT", cmd_pdh_cert_export, 28,
        .reply = REPLY_LENGTH,
    },
    [AMD_PSP_PDH_GEN] = { "PDH_GEN", cmd_pdh_gen, 0 },
    [AMD_PSP_DF_FLUSH] = { "DF_FLUSH", cmd_df_flush, 0 },
    [AMD_PSP_DOWNLOAD_FIRMWARE] = {
        "DOWNLOAD_FIRMWARE", cmd_download_firmware, 12,
        .platform = P_IN(UNINIT),
    },
    [AMD_PSP_GET_ID] = {
        "GET_ID", cmd_get_id, 12, .platform = P_ANY,
        .reply = REPLY_LENGTH,
    },
    [AMD_PSP_RING_BUFFER] = {
        "RING_BUFFER", cmd_ring_buffer, AMD_PSP_RING_BUFFER_LEN,
    },
    [AMD_PSP_DECOMMISSION] = {
        "DECOMMISSION", cmd_decommission, 4, .states = IN_ANY,
    },
    [AMD_PSP_ACTIVATE] = {
        "ACTIVATE", cmd_activate, 8, .states = IN_ANY & ~IN(SENT),
    },
    [AMD_PSP_DEACTIVATE] = {
        "DEACTIVATE", cmd_deactivate, 4, .states = IN_ANY, .stops_cpus = true,
    },
    [AMD_PSP_GUEST_STATUS] = {
        "GUEST_STATUS", cmd_guest_status, 13,
        .reply = REPLY_SUCCESS,
    },
    [AMD_PSP_COPY] = { "COPY", cmd_copy, 24, .states = IN_ANY, .active = true },
    [AMD_PSP_ACTIVATE_EX] = {
        "ACTIVATE_EX", cmd_activate_ex, ACTIVATE_EX_LEN,
        .states = IN_ANY & ~IN(SENT),
        .handle_at = 4,
    },
    [AMD_PSP_LAUNCH_START] = {
        "LAUNCH_START", cmd_launch_start, 36,
        .reply = REPLY_SUCCESS,
    },
    [AMD_PSP_LAUNCH_UPDATE_DATA] = {
        "LAUNCH_UPDATE_DATA", cmd_launch_update_data, 20, .states = IN(LUPDATE),
        .active = true,
    },
    [AMD_PSP_LAUNCH_UPDATE_VMSA] = {
        "LAUNCH_UPDATE_VMSA", cmd_launch_update_vmsa, 20, .states = IN(LUPDATE),
        .active = true, .es = true, .before_state = launch_vmsa_length,
    },
    [AMD_PSP_LAUNCH_MEASURE] = {
        "LAUNCH_MEASURE", cmd_launch_measure, 20, .states = IN(LUPDATE),
        .reply = REPLY_LENGTH,
    },
    [AMD_PSP_LAUNCH_UPDATE_SECRET] = {
        "LAUNCH_UPDATE_SECRET", cmd_launch_update_secret, 52,
        .states = IN(LSECRET),
        .active = true,
    },
    [AMD_PSP_LAUNCH_FINISH] = {
        "LAUNCH_FINISH", cmd_launch_finish, 4, .states = IN(LSECRET),
    },
    [AMD_PSP_ATTESTATION] = {
        "ATTESTATION", cmd_attestation, 36,
        .states = IN(LSECRET) | IN(RUNNING) | IN(SUPDATE) | IN(SENT),
        .reply = REPLY_LENGTH,
    },
    [AMD_PSP_SEND_START] = {
        "SEND_START", cmd_send_start, 68, .states = IN(RUNNING),
        .reply = REPLY_LENGTH, .first = first_send_start,
    },
    [AMD_PSP_SEND_UPDATE_DATA] = {
        "SEND_UPDATE_DATA", cmd_send_update_data, 52, .states = IN(SUPDATE),
        .active = true,
        .reply = REPLY_LENGTH, .first = first_send_packet,
    },
    [AMD_PSP_SEND_UPDATE_VMSA] = {
        "SEND_UPDATE_VMSA", cmd_send_update_vmsa, 52, .states = IN(SUPDATE),
        .active = true, .es = true,
        .reply = REPLY_LENGTH, .first = first_send_packet,
    },
    [AMD_PSP_SEND_FINISH] = {
        "SEND_FINISH", cmd_send_finish, 4, .states = IN(SUPDATE),
    },
    [AMD_PSP_SEND_CANCEL] = {
        "SEND_CANCEL", cmd_send_cancel, 4, .states = IN(SUPDATE),
    },
    [AMD_PSP_RECEIVE_START] = {
        "RECEIVE_START", cmd_receive_start, 36,
        .reply = REPLY_SUCCESS,
    },
    [AMD_PSP_RECEIVE_UPDATE_DATA] = {
        "RECEIVE_UPDATE_DATA", cmd_receive_update_data, 52,
        .states = IN(RUPDATE),
        .active = true,
    },
    [AMD_PSP_RECEIVE_UPDATE_VMSA] = {
        "RECEIVE_UPDATE_VMSA", cmd_receive_update_vmsa, 52,
        .states = IN(RUPDATE),
        .active = true, .es = true,
    },
    [AMD_PSP_RECEIVE_FINISH] = {
        "RECEIVE_FINISH", cmd_receive_finish, 4, .states = IN(RUPDATE),
    },
    [AMD_PSP_DBG_DECRYPT] = {
        "DBG_DECRYPT", cmd_dbg_decrypt, 28, .states = IN_ANY, .active = true,
    },
    [AMD_PSP_DBG_ENCRYPT] = {
        "DBG_ENCRYPT", cmd_dbg_encrypt, 28, .states = IN_ANY, .active = true,
    },
};

static const Command *command_find(uint32_t id)
{
    return id < ARRAY_SIZE(commands) && commands[id].fn ? &commands[id] : NULL;
}

const char *amd_psp_command_name(uint32_t id)
{
    const Command *c = command_find(id);

    return c ? c->name : "unknown";
}

bool amd_psp_command_by_name(const char *name, uint32_t *id)
{
    uint32_t i;

    for (i = 0; i < ARRAY_SIZE(commands); i++) {
        if (commands[i].fn && !strcmp(commands[i].name, name)) {
            *id = i;
            return true;
        }
    }
    return false;
}

bool amd_psp_command_known(uint32_t id)
{
    return command_find(id);
}

bool amd_psp_command_stops_cpus(uint32_t id)
{
    const Command *c = command_find(id);

    return c && c->stops_cpus;
}

static void trace_buffer(bool reply, uint32_t id, const uint8_t *b)
{
    g_autofree char *text = NULL;

    if (trace_event_get_state_backends(TRACE_AMD_PSP_REQUEST) ||
        trace_event_get_state_backends(TRACE_AMD_PSP_REPLY)) {
        text = amd_psp_decode(id, b);
        if (reply) {
            trace_amd_psp_reply(amd_psp_command_name(id), text);
        } else {
            trace_amd_psp_request(amd_psp_command_name(id), text);
        }
    }
}

/* The buffer of @c is @b */
static AmdPspStatus command_execute(AmdPspPlatform *p, const Command *c,
                                    uint8_t *b)
{
    AmdPspGuest *g = NULL;
    AmdPspStatus st;

    if (c->states) {
        g = guest_find(p, ldl_le_p(b + c->handle_at));
        st = c->first ? c->first(p, g, b) : AMD_PSP_SUCCESS;
        if (st) {
            return st;
        }
        if (!g) {
            return AMD_PSP_INVALID_GUEST;
        }
        if (!(c->states & BIT(g->state))) {
            return AMD_PSP_INVALID_GUEST_STATE;
        }
        if (c->es && !(g->policy & AMD_PSP_POLICY_ES)) {
            return AMD_PSP_UNSUPPORTED;
        }
        if (c->active && !g->asid) {
            return AMD_PSP_INACTIVE;
        }
    }
    return c->fn(p, g, b);
}

AmdPspStatus amd_psp_execute(AmdPspPlatform *p, uint32_t id, hwaddr buffer,
                             int64_t corrupt)
{
    const Command *c = command_find(id);
    uint8_t b[AMD_PSP_BUFFER_MAX] = { 0 };
    unsigned allowed, guests, active;
    AmdPspStatus st;

    if (p->continued) {
        p->continued = false;
        memcpy(b, p->continued_buffer, sizeof(b));
        goto execute;
    }
    p->guest_bytes = 0;
    p->written = 0;
    p->corrupt = corrupt;
    p->done = 0;
    if (!c) {
        return AMD_PSP_INVALID_COMMAND;
    }
    g_assert(c->buffer_len <= sizeof(b));
    buffer &= ~sev_memory_cbit();
    if (c->buffer_len &&
        !mem_read(p, buffer, SEV_MEMORY_RAW, b, c->buffer_len)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    trace_buffer(false, id, b);
    st = c->before_state ? c->before_state(p, NULL, b) : AMD_PSP_SUCCESS;
    if (st) {
        return st;
    }
    allowed = c->platform ?: c->states ? P_IN(WORKING) : P_ANY & ~P_IN(UNINIT);
    if (!(allowed & BIT(amd_psp_platform_state(p, &guests, &active)))) {
        return AMD_PSP_INVALID_PLATFORM_STATE;
    }
 execute:
    st = command_execute(p, c, b);
    if (st == AMD_PSP_CONTINUE) {
        p->continued = true;
        memcpy(p->continued_buffer, b, sizeof(b));
        return st;
    }
    if (c->reply != REPLY_NEVER &&
        (!st || (st == AMD_PSP_INVALID_LEN && c->reply == REPLY_LENGTH))) {
        trace_buffer(true, id, b);
        if (!mem_write(p, buffer, SEV_MEMORY_RAW, b, c->buffer_len)) {
            return st ?: AMD_PSP_INVALID_ADDRESS;
        }
    }
    return st;
}
