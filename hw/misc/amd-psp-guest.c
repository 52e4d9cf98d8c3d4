/*
 * Emulated AMD Platform Security Processor: lifecycle and launch of guests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "hw/misc/sev-vmsa.h"
#include "amd-psp-firmware.h"

/* Bytes that LAUNCH_UPDATE_DATA processes at a time; a multiple of a page */
#define SLICE_LEN           (256 * 1024)

/* The length that the host must put into the buffer of ACTIVATE_EX */
#define ACTIVATE_EX_LEN     24

/* Limit of the number of cores in ACTIVATE_EX; the API defines none */
#define ACTIVATE_EX_IDS_MAX 1024

/* Offsets in the report of ATTESTATION; bytes before SIG_USAGE are signed */
#define REPORT_DIGEST       16
#define REPORT_POLICY       48
#define REPORT_SIG_USAGE    52
#define REPORT_SIG_ALGO     56
#define REPORT_SIG          64
#define REPORT_LEN          (REPORT_SIG + AMD_PSP_CERT_ECDSA_LEN)

#define MEASURE_LEN         (AMD_PSP_MAC_LEN + AMD_PSP_NONCE_LEN)

AmdPspGuest *psp_guest_find(AmdPspPlatform *p, uint32_t handle)
{
    size_t i;

    for (i = 0; handle && i < ARRAY_SIZE(p->guests); i++) {
        if (p->guests[i].handle == handle) {
            return &p->guests[i];
        }
    }
    return NULL;
}

unsigned psp_guest_count(AmdPspPlatform *p, unsigned *active)
{
    unsigned n = 0;

    *active = 0;
    for (size_t i = 0; i < ARRAY_SIZE(p->guests); i++) {
        n += !!p->guests[i].handle;
        *active += p->guests[i].handle && p->guests[i].asid;
    }
    return n;
}

/*
 * Allocate a guest context without transport keys.  It gets the memory key of
 * @sharer, or a new one if @sharer is NULL.
 */
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
    } else if (!psp_random(g->vek, sizeof(g->vek))) {
        return AMD_PSP_HWERROR_PLATFORM;
    }
    do {
        p->last_handle++;
    } while (!p->last_handle || psp_guest_find(p, p->last_handle));
    g->handle = p->last_handle;
    g->policy = policy;
    g->state = state;
    g->digest = g_checksum_new(G_CHECKSUM_SHA256);
    *guest = g;
    return AMD_PSP_SUCCESS;
}

static void guest_free(AmdPspPlatform *p, AmdPspGuest *g)
{
    g_assert(!g->asid);
    psp_vmsa_free(p, g);
    g_checksum_free(g->digest);
    memset(g, 0, sizeof(*g));
}

static void guest_deactivate(AmdPspPlatform *p, AmdPspGuest *g)
{
    if (g->asid) {
        bool used = sev_memory_asid_valid(g->asid);

        sev_memory_clear_key(g->asid);
        /*
         * If VMRUN could use the ASID, caches may contain data of the guest.
         * The host must then execute WBINVD and DF_FLUSH before it can assign
         * the ASID again.
         */
        if (used) {
            set_bit(g->asid, p->df_flush);
            sev_memory_forget_wbinvd();
        }
        g->asid = 0;
    }
}

void psp_guest_free_all(AmdPspPlatform *p)
{
    for (size_t i = 0; i < ARRAY_SIZE(p->guests); i++) {
        if (p->guests[i].handle) {
            guest_deactivate(p, &p->guests[i]);
            guest_free(p, &p->guests[i]);
        }
    }
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
        /* Guests with SEV-ES have the lower ASIDs, other guests the higher */
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

/* In: [0] handle, [4] ASID */
static AmdPspStatus cmd_activate(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *b)
{
    return guest_activate(p, g, ldl_le_p(b + 4));
}

/*
 * In: [0] length of the buffer, [4] handle, [8] ASID, [12] number and
 * [16] address of the 32-bit APIC IDs of cores
 *
 * The guest is activated on all cores, and not only on those in the list,
 * because all cores of the emulation share their keys.
 */
static AmdPspStatus cmd_activate_ex(AmdPspPlatform *p, AmdPspGuest *g,
                                    uint8_t *b)
{
    uint32_t n = ldl_le_p(b + 12);

    if (ldl_le_p(b) != ACTIVATE_EX_LEN || !n || n > ACTIVATE_EX_IDS_MAX) {
        return AMD_PSP_INVALID_PARAM;
    }
    if (!psp_is_ram(p, psp_address(b, 16), n * 4)) {
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
 * In: [0] handle; out: [4] policy, [8] ASID, [12] state
 *
 * A handle without a guest is no error: its state is UNINIT.
 */
static AmdPspStatus cmd_guest_status(AmdPspPlatform *p, AmdPspGuest *none,
                                     uint8_t *b)
{
    AmdPspGuest *g = psp_guest_find(p, ldl_le_p(b));

    if (!g) {
        b[12] = AMD_PSP_GUEST_UNINIT;
        return AMD_PSP_SUCCESS;
    }
    stl_le_p(b + 4, g->policy);
    stl_le_p(b + 8, g->asid);
    b[12] = g->state;
    return AMD_PSP_SUCCESS;
}

/*
 * Check that this platform can enforce @policy.  AMD's firmware makes this
 * check only for a guest with a session.  If the host launches a guest without
 * a session, it may pass any policy.
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

/*
 * Read a GUEST_SESSION from memory and decrypt the transport keys in it.  The
 * sender must have encrypted the keys for the PDH of this platform.
 */
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
    if (!psp_read(p, cert_pa, SEV_MEMORY_RAW, cert, sizeof(cert)) ||
        !psp_read(p, session_pa, SEV_MEMORY_RAW, &session, sizeof(session))) {
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
 * Find the guest @handle whose memory key a new guest with @policy shares.
 * With @handle 0 the new guest has its own key, and @sharer is set to NULL.
 */
static AmdPspStatus find_sharer(AmdPspPlatform *p, uint32_t handle,
                                uint32_t policy, const AmdPspGuest **sharer)
{
    *sharer = psp_guest_find(p, handle);
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
 * In: [0] handle of a guest that shares its memory key, or 0; [4] policy;
 * [8] address and [16] length of the PDH certificate of the session's sender;
 * [24] address and [32] length of the session; out: [0] handle of the new guest
 *
 * LAUNCH_START does not need a session.  For a launch without a session, the
 * host sets the address of the certificate to 0.
 */
AmdPspStatus psp_guest_start(AmdPspPlatform *p, uint8_t *b,
                             AmdPspGuestState state)
{
    uint32_t policy = ldl_le_p(b + 4);
    hwaddr cert_pa = psp_address(b, 8);
    const AmdPspGuest *sharer;
    AmdPspTransportKeys keys;
    AmdPspGuest *g;
    AmdPspStatus st;

    if (cert_pa || state != AMD_PSP_GUEST_LUPDATE) {
        st = read_session(p, cert_pa, ldl_le_p(b + 16), psp_address(b, 24),
                          ldl_le_p(b + 32), policy, &keys);
        st = st ?: check_policy(policy);
        if (st) {
            return st;
        }
    } else if (!psp_random(&keys, sizeof(keys))) {
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
    return psp_guest_start(p, b, AMD_PSP_GUEST_LUPDATE);
}

/*
 * Measure the @len bytes at @pa and encrypt them in place.  If @vmsa is true,
 * the bytes are a VMSA (SEV_VMSA_LEN bytes).  psp_vmsa_set_up() changes the
 * VMSA after it is measured and before it is encrypted.
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

    /*
     * Check the whole range again for each slice, because the host's memory map
     * may have changed since the last slice
     */
    if (!sev_memory_is_ram(pa, len)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    pa += p->done;
    len -= p->done;
    slice = MIN(len, SLICE_LEN);
    p->done += slice;
    while (slice) {
        size_t n = vmsa ? slice :
                   MIN(slice, sizeof(chunk) - pa % sizeof(chunk));

        if (!psp_read(p, pa, SEV_MEMORY_RAW, chunk, n)) {
            return AMD_PSP_INVALID_ADDRESS;
        }
        g_checksum_update(g->digest, chunk, n);
        if (vmsa) {
            st = psp_vmsa_set_up(p, g, chunk, n);
            if (st) {
                return st;
            }
        }
        if (!psp_write(p, pa, g->asid, chunk, n)) {
            return AMD_PSP_INVALID_ADDRESS;
        }
        pa += n;
        len -= n;
        slice -= n;
    }
    return len ? AMD_PSP_CONTINUE : AMD_PSP_SUCCESS;
}

/* In: [0] handle, [8] address, [16] length */
static AmdPspStatus cmd_launch_update_data(AmdPspPlatform *p, AmdPspGuest *g,
                                           uint8_t *b)
{
    return launch_update(p, g, psp_address(b, 8), ldl_le_p(b + 16), false);
}

/* The firmware checks the length before it looks at any state */
static AmdPspStatus launch_vmsa_length(AmdPspPlatform *p, AmdPspGuest *none,
                                       uint8_t *b)
{
    return ldl_le_p(b + 16) == SEV_VMSA_LEN ? AMD_PSP_SUCCESS :
           AMD_PSP_INVALID_LEN;
}

/*
 * In: the fields of LAUNCH_UPDATE_DATA.  The memory at the address contains the
 * state in which a vCPU starts.
 */
static AmdPspStatus cmd_launch_update_vmsa(AmdPspPlatform *p, AmdPspGuest *g,
                                           uint8_t *b)
{
    return launch_update(p, g, psp_address(b, 8), ldl_le_p(b + 16), true);
}

/* In: [0] handle, [8] address, [16] length; out: [16] length that is needed */
static AmdPspStatus cmd_launch_measure(AmdPspPlatform *p, AmdPspGuest *g,
                                       uint8_t *b)
{
    hwaddr pa = psp_address(b, 8);
    bool fits = ldl_le_p(b + 16) >= MEASURE_LEN;
    uint8_t digest[AMD_PSP_DIGEST_LEN], measure[MEASURE_LEN];
    g_autoptr(GChecksum) sum = NULL;
    gsize digest_len = sizeof(digest);

    stl_le_p(b + 16, MEASURE_LEN);
    if (!fits || !pa) {
        return AMD_PSP_INVALID_LEN;
    }
    if (!psp_random(measure + AMD_PSP_MAC_LEN, AMD_PSP_NONCE_LEN)) {
        return AMD_PSP_HWERROR_PLATFORM;
    }
    sum = g_checksum_copy(g->digest);
    g_checksum_get_digest(sum, digest, &digest_len);
    amd_psp_measurement(g->transport.tik, AMD_PSP_API_MAJOR, AMD_PSP_API_MINOR,
                        AMD_PSP_BUILD, g->policy, digest,
                        measure + AMD_PSP_MAC_LEN, measure);
    if (!psp_write(p, pa, SEV_MEMORY_RAW, measure, sizeof(measure))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    memcpy(g->launched, digest, sizeof(g->launched));
    memcpy(g->measure, measure, sizeof(g->measure));
    g->state = AMD_PSP_GUEST_LSECRET;
    return AMD_PSP_SUCCESS;
}

void psp_guest_finish(AmdPspGuest *g)
{
    g->state = AMD_PSP_GUEST_RUNNING;
    if (g->asid) {
        sev_memory_set_asid_valid(g->asid);
    }
}

static AmdPspStatus cmd_launch_finish(AmdPspPlatform *p, AmdPspGuest *g,
                                      uint8_t *b)
{
    psp_guest_finish(g);
    return AMD_PSP_SUCCESS;
}

/*
 * In: [0] handle, [8] address, [16] nonce of 16 bytes, [32] length;
 * out: [32] length that is needed
 *
 * The report contains the digest of the launch, which is zeros for a guest that
 * was received.
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
    return psp_write(p, psp_address(b, 8), SEV_MEMORY_RAW, report,
                     sizeof(report)) ?
           AMD_PSP_SUCCESS : AMD_PSP_INVALID_ADDRESS;
}

const PspCommand psp_guest_commands[] = {
    {
        AMD_PSP_DECOMMISSION, "DECOMMISSION", cmd_decommission, 4,
        .states = GUEST_IN_ANY,
    },
    {
        AMD_PSP_ACTIVATE, "ACTIVATE", cmd_activate, 8,
        .states = GUEST_IN_ANY & ~GUEST_IN(SENT),
    },
    {
        AMD_PSP_ACTIVATE_EX, "ACTIVATE_EX", cmd_activate_ex, ACTIVATE_EX_LEN,
        .states = GUEST_IN_ANY & ~GUEST_IN(SENT), .handle_at = 4,
    },
    {
        AMD_PSP_DEACTIVATE, "DEACTIVATE", cmd_deactivate, 4,
        .states = GUEST_IN_ANY, .stops_cpus = true,
    },
    {
        AMD_PSP_GUEST_STATUS, "GUEST_STATUS", cmd_guest_status, 13,
        .reply = PSP_REPLY_SUCCESS,
    },
    {
        AMD_PSP_LAUNCH_START, "LAUNCH_START", cmd_launch_start, 36,
        .reply = PSP_REPLY_SUCCESS,
    },
    {
        AMD_PSP_LAUNCH_UPDATE_DATA, "LAUNCH_UPDATE_DATA",
        cmd_launch_update_data, 20,
        .states = GUEST_IN(LUPDATE), .active = true,
    },
    {
        AMD_PSP_LAUNCH_UPDATE_VMSA, "LAUNCH_UPDATE_VMSA",
        cmd_launch_update_vmsa, 20,
        .states = GUEST_IN(LUPDATE), .active = true, .es = true,
        .before_state = launch_vmsa_length,
    },
    {
        AMD_PSP_LAUNCH_MEASURE, "LAUNCH_MEASURE", cmd_launch_measure, 20,
        .states = GUEST_IN(LUPDATE), .reply = PSP_REPLY_LENGTH,
    },
    {
        AMD_PSP_LAUNCH_FINISH, "LAUNCH_FINISH", cmd_launch_finish, 4,
        .states = GUEST_IN(LSECRET),
    },
    {
        AMD_PSP_ATTESTATION, "ATTESTATION", cmd_attestation, 36,
        .states = GUEST_IN(LSECRET) | GUEST_IN(RUNNING) | GUEST_IN(SUPDATE) |
                  GUEST_IN(SENT),
        .reply = PSP_REPLY_LENGTH,
    },
    { }
};
