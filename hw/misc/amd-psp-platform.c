/*
 * Emulated AMD Platform Security Processor: the platform and its identity
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "amd-psp-firmware.h"

/* The length that the host must put into the buffer of INIT_EX */
#define INIT_EX_LEN         36

/* Limit of the length of a firmware image; the API defines none */
#define FIRMWARE_MAX        (1024 * 1024)

/*
 * Offsets in the storage of INIT_EX.  The API specifies only the length of the
 * storage; this emulation defines the format.
 */
#define NV_LEN              (32 * 1024)
#define NV_MAGIC            "amdpspnv"
#define NV_MAGIC_LEN        8
#define NV_PEK_COUNT        8
#define NV_PDH_COUNT        12
#define NV_OWNED            16
#define NV_PEK_CERT         64      /* with the owner's signature */
#define NV_OCA_CERT         (NV_PEK_CERT + AMD_PSP_CERT_LEN)
#define NV_MAC              (NV_LEN - AMD_PSP_MAC_LEN)  /* of bytes before it */

/* PLATFORM_STATUS flags */
#define FLAG_OWNED          (1u << 0)
#define FLAG_CONFIG_ES      (1u << 8)

/* INIT flags */
#define INIT_ES             (1u << 0)

void amd_psp_platform_reset(AmdPspPlatform *p)
{
    psp_guest_free_all(p);
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

/*
 * Make a new PEK.  The platform has no external owner then, so make a new OCA
 * that signs the PEK.  Make a new PDH, too, because the PEK signs the PDH.
 */
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

static AmdPspStatus platform_start(AmdPspPlatform *p, uint32_t flags,
                                   hwaddr tmr, uint32_t tmr_len)
{
    bool es = flags & INIT_ES;

    if (es && tmr_len < TMR_LEN) {
        return AMD_PSP_INVALID_LEN;
    }
    if (es && (tmr % TMR_LEN || !psp_is_ram(p, tmr, TMR_LEN))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    p->initialized = true;
    /*
     * Ignore INIT_ES if the CPUs have no SEV-ES, because Linux's driver always
     * sets INIT_ES
     */
    p->es = es && sev_memory_max_es_asid();
    p->tmr = tmr;
    /* Caches may contain data of guests that ran before INIT */
    bitmap_fill(p->df_flush, SEV_MEMORY_MAX_ASID + 1);
    sev_memory_forget_wbinvd();
    sev_memory_watch();
    return AMD_PSP_SUCCESS;
}

/* In: [0] flags, [8] address and [16] length of the memory for SEV-ES */
static AmdPspStatus cmd_init(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    return platform_start(p, ldl_le_p(b), psp_address(b, 8), ldl_le_p(b + 16));
}

/* The MAC of the storage; its key is derived from the platform's identity */
static void nv_mac(AmdPspPlatform *p, const uint8_t *nv,
                   uint8_t mac[AMD_PSP_MAC_LEN])
{
    amd_psp_kdf(p->seed, sizeof(p->seed), "nv", nv, NV_MAC,
                mac, AMD_PSP_MAC_LEN);
}

/* Store the platform's keys and certificates; called after each change */
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
    return psp_write(p, p->nv, SEV_MEMORY_RAW, nv, NV_LEN) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

/* Restore the keys and certificates from @nv */
static AmdPspStatus nv_load(AmdPspPlatform *p, const uint8_t *nv)
{
    uint8_t mac[AMD_PSP_MAC_LEN];
    uint32_t pek, pdh;

    /* The storage is empty, so there is nothing to restore */
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
 * In: [0] length of the buffer, [4] flags, [8] address and [16] length of the
 * memory for SEV-ES, [24] address and [32] length of the storage
 *
 * If the storage belongs to another platform, INIT_EX fails but initializes the
 * storage.  Linux's driver then tries INIT_EX again.
 */
static AmdPspStatus cmd_init_ex(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    hwaddr pa = psp_address(b, 24);
    g_autofree uint8_t *nv = NULL;
    AmdPspStatus st;

    if (ldl_le_p(b) != INIT_EX_LEN || ldl_le_p(b + 32) != NV_LEN) {
        return AMD_PSP_INVALID_LEN;
    }
    nv = g_malloc(NV_LEN);
    if (!pa || !psp_read(p, pa, SEV_MEMORY_RAW, nv, NV_LEN)) {
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
    return platform_start(p, ldl_le_p(b + 4), psp_address(b, 8),
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
 * In: [0] address, [8] length of an image
 *
 * No image is signed for this platform, so the command always fails.
 */
static AmdPspStatus cmd_download_firmware(AmdPspPlatform *p, AmdPspGuest *g,
                                          uint8_t *b)
{
    uint32_t len = ldl_le_p(b + 8);

    if (!len || len > FIRMWARE_MAX) {
        return AMD_PSP_INVALID_LEN;
    }
    if (!psp_is_ram(p, psp_address(b, 0), len)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    return AMD_PSP_BAD_SIGNATURE;
}

AmdPspPlatformState amd_psp_platform_state(AmdPspPlatform *p,
                                           unsigned *guests,
                                           unsigned *active)
{
    *guests = psp_guest_count(p, active);
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
 * In: [0] address, [8] length; out: [8] length that is needed
 *
 * Write the certificate of the PEK, without signatures, so that an external
 * owner of the platform can sign it.
 */
static AmdPspStatus cmd_pek_csr(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    hwaddr pa = psp_address(b, 0);
    bool fits = ldl_le_p(b + 8) >= AMD_PSP_CERT_LEN;
    uint8_t cert[AMD_PSP_CERT_LEN];

    stl_le_p(b + 8, AMD_PSP_CERT_LEN);
    if (!fits || !pa) {
        return AMD_PSP_INVALID_LEN;
    }
    platform_cert(&p->pek, AMD_PSP_CERT_PEK, cert);
    return psp_write(p, pa, SEV_MEMORY_RAW, cert, sizeof(cert)) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

/*
 * In: [0] address and [8] length of the PEK's certificate, which an owner has
 * signed; [16] address and [24] length of the owner's certificate, the OCA
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
    if (!psp_read(p, psp_address(b, 0), SEV_MEMORY_RAW, pek, sizeof(pek)) ||
        !psp_read(p, psp_address(b, 16), SEV_MEMORY_RAW, oca, sizeof(oca))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    if (!amd_psp_cert_verify(oca, AMD_PSP_CERT_OCA, oca, AMD_PSP_CERT_OCA) ||
        !amd_psp_cert_verify(pek, AMD_PSP_CERT_PEK, oca, AMD_PSP_CERT_OCA) ||
        /* The certificate must be for the platform's current PEK */
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
 * In: [0] address and [8] length for the PDH's certificate, [16] address and
 * [24] length for the chain; out: [8] and [24] lengths that are needed
 *
 * The CEK in the chain has no signature: AMD provides the signed certificate on
 * a server.
 */
static AmdPspStatus cmd_pdh_cert_export(AmdPspPlatform *p, AmdPspGuest *g,
                                        uint8_t *b)
{
    hwaddr pdh_pa = psp_address(b, 0), chain_pa = psp_address(b, 16);
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
    if (!psp_write(p, pdh_pa, SEV_MEMORY_RAW,
                   p->pdh_cert, sizeof(p->pdh_cert)) ||
        !psp_write(p, chain_pa, SEV_MEMORY_RAW, chain, sizeof(chain))) {
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

/* In: [0] address, [8] length; out: [8] length that is needed */
static AmdPspStatus cmd_get_id(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    hwaddr pa = psp_address(b, 0);
    bool fits = ldl_le_p(b + 8) >= sizeof(p->id);

    stl_le_p(b + 8, sizeof(p->id));
    if (!fits || !pa) {
        return AMD_PSP_INVALID_LEN;
    }
    return psp_write(p, pa, SEV_MEMORY_RAW, p->id, sizeof(p->id)) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

/* amd-psp-ring.c describes the buffer */
static AmdPspStatus cmd_ring_buffer(AmdPspPlatform *p, AmdPspGuest *g,
                                    uint8_t *b)
{
    return amd_psp_ring_enter(&p->ring, b);
}

const PspCommand psp_platform_commands[] = {
    { AMD_PSP_INIT, "INIT", cmd_init, 20, .platform = PLATFORM_IN(UNINIT) },
    {
        AMD_PSP_INIT_EX, "INIT_EX", cmd_init_ex, INIT_EX_LEN,
        .platform = PLATFORM_IN(UNINIT),
    },
    {
        AMD_PSP_SHUTDOWN, "SHUTDOWN", cmd_shutdown, 0,
        .platform = PLATFORM_IN_ANY, .stops_cpus = true,
    },
    {
        AMD_PSP_FACTORY_RESET, "FACTORY_RESET", cmd_factory_reset, 0,
        .platform = PLATFORM_IN(UNINIT),
    },
    {
        AMD_PSP_PLATFORM_STATUS, "PLATFORM_STATUS", cmd_platform_status, 12,
        .platform = PLATFORM_IN_ANY, .reply = PSP_REPLY_SUCCESS,
    },
    {
        AMD_PSP_PEK_GEN, "PEK_GEN", cmd_pek_gen, 0,
        .platform = PLATFORM_IN(INIT),
    },
    { AMD_PSP_PEK_CSR, "PEK_CSR", cmd_pek_csr, 12, .reply = PSP_REPLY_LENGTH },
    {
        AMD_PSP_PEK_CERT_IMPORT, "PEK_CERT_IMPORT", cmd_pek_cert_import, 28,
        .platform = PLATFORM_IN(INIT),
    },
    {
        AMD_PSP_PDH_CERT_EXPORT, "PDH_CERT_EXPORT", cmd_pdh_cert_export, 28,
        .reply = PSP_REPLY_LENGTH,
    },
    { AMD_PSP_PDH_GEN, "PDH_GEN", cmd_pdh_gen, 0 },
    { AMD_PSP_DF_FLUSH, "DF_FLUSH", cmd_df_flush, 0 },
    {
        AMD_PSP_DOWNLOAD_FIRMWARE, "DOWNLOAD_FIRMWARE", cmd_download_firmware,
        12, .platform = PLATFORM_IN(UNINIT),
    },
    {
        AMD_PSP_GET_ID, "GET_ID", cmd_get_id, 12,
        .platform = PLATFORM_IN_ANY, .reply = PSP_REPLY_LENGTH,
    },
    {
        AMD_PSP_RING_BUFFER, "RING_BUFFER", cmd_ring_buffer,
        AMD_PSP_RING_BUFFER_LEN,
    },
    { }
};
