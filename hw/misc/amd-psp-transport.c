/*
 * Emulated AMD Platform Security Processor: sessions and packets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/bitops.h"
#include "amd-psp-firmware.h"

/* Bit of a packet header's flags: the data are compressed */
#define PACKET_COMPRESSED   (1u << 0)

/* The certificates of a destination */
typedef struct Identity {
    uint8_t pdh[AMD_PSP_CERT_LEN];
    uint8_t chain[CHAIN_LEN];
    uint8_t ask_ark[AMD_PSP_ASK_ARK_LEN];
} Identity;

/*
 * Check each signature of the chain that leads from this platform's authority
 * to the PDH of @id
 */
static bool check_platform(AmdPspPlatform *p, const Identity *id)
{
    const uint8_t *pek = id->chain + CHAIN_PEK, *cek = id->chain + CHAIN_CEK;

    return p->authority &&
           amd_psp_authority_verify(p->authority, id->ask_ark, cek) &&
           amd_psp_cert_verify(pek, AMD_PSP_CERT_PEK, cek, AMD_PSP_CERT_CEK) &&
           amd_psp_cert_verify(id->pdh, AMD_PSP_CERT_PDH,
                               pek, AMD_PSP_CERT_PEK);
}

/* Check that an owner has signed @id */
static bool check_owner(const Identity *id)
{
    const uint8_t *pek = id->chain + CHAIN_PEK, *oca = id->chain + CHAIN_OCA;

    return amd_psp_cert_verify(oca, AMD_PSP_CERT_OCA, oca, AMD_PSP_CERT_OCA) &&
           amd_psp_cert_verify(pek, AMD_PSP_CERT_PEK, oca, AMD_PSP_CERT_OCA) &&
           amd_psp_cert_verify(id->pdh, AMD_PSP_CERT_PDH,
                               pek, AMD_PSP_CERT_PEK);
}

/*
 * Check that a guest with @policy may be sent to @id.  If neither the bit SEV
 * nor the bit DOMAIN of the policy is set, AMD's firmware checks no
 * certificate, so the host can pass a PDH that it has made itself.
 * always_check_certs makes this emulation stricter than AMD's firmware.
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

/* The firmware checks the length of the session before the guest's state */
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
 * Read the PDH certificate of the destination, and the further certificates
 * that check_destination() needs for the policy of @g, into @id
 */
static AmdPspStatus read_identity(AmdPspPlatform *p, const AmdPspGuest *g,
                                  const uint8_t *b, Identity *id)
{
    bool strict = p->always_check_certs && p->authority;
    bool with_amd = strict || (g->policy & AMD_PSP_POLICY_SEV);
    bool with_chain = with_amd || (g->policy & AMD_PSP_POLICY_DOMAIN);

    if (ldl_le_p(b + 16) != sizeof(id->pdh) ||
        (with_chain && ldl_le_p(b + 32) != sizeof(id->chain)) ||
        (with_amd && ldl_le_p(b + 48) != sizeof(id->ask_ark))) {
        return AMD_PSP_INVALID_LEN;
    }
    if (!psp_read(p, psp_address(b, 8), SEV_MEMORY_RAW,
                  id->pdh, sizeof(id->pdh)) ||
        (with_chain && !psp_read(p, psp_address(b, 24), SEV_MEMORY_RAW,
                                 id->chain, sizeof(id->chain))) ||
        (with_amd && !psp_read(p, psp_address(b, 40), SEV_MEMORY_RAW,
                               id->ask_ark, sizeof(id->ask_ark)))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    return AMD_PSP_SUCCESS;
}

/*
 * In: [0] handle, [8] address and [16] length of the destination's PDH,
 * [24] address and [32] length of its chain, [40] address and [48] length of
 * its ASK and ARK, [56] address and [64] length for the session;
 * out: [4] policy, [64] length of a session
 */
static AmdPspStatus cmd_send_start(AmdPspPlatform *p, AmdPspGuest *g,
                                   uint8_t *b)
{
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
    st = read_identity(p, g, b, id);
    if (st) {
        return st;
    }
    st = check_destination(p, g->policy, id);
    if (st) {
        return st;
    }
    if (!amd_psp_cert_key(id->pdh, AMD_PSP_CERT_PDH, &peer) ||
        !amd_psp_ecdh(&p->pdh, &peer, z)) {
        return AMD_PSP_INVALID_CERTIFICATE;
    }
    if (!psp_random(&keys, sizeof(keys)) ||
        !psp_random(nonce, sizeof(nonce)) ||
        !psp_random(wrap_iv, sizeof(wrap_iv))) {
        return AMD_PSP_HWERROR_PLATFORM;
    }
    amd_psp_session_wrap(z, nonce, wrap_iv, &keys, g->policy, &session);
    if (!psp_write(p, psp_address(b, 56), SEV_MEMORY_RAW,
                   &session, sizeof(session))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    stl_le_p(b + 4, g->policy);
    g->transport = keys;
    g->state = AMD_PSP_GUEST_SUPDATE;
    return AMD_PSP_SUCCESS;
}

/*
 * The command buffer, without the handle at [0], of SEND_UPDATE_DATA,
 * SEND_UPDATE_VMSA, RECEIVE_UPDATE_DATA, RECEIVE_UPDATE_VMSA and
 * LAUNCH_UPDATE_SECRET
 */
typedef struct Packet {
    hwaddr header_pa;       /* [8] */
    uint32_t header_len;    /* [16] */
    hwaddr guest_pa;        /* [24] */
    uint32_t guest_len;     /* [32] */
    hwaddr trans_pa;        /* [40] */
    uint32_t trans_len;     /* [48] */
} Packet;

static Packet get_packet(const uint8_t *b)
{
    return (Packet) {
        .header_pa = psp_address(b, 8),
        .header_len = ldl_le_p(b + 16),
        .guest_pa = psp_address(b, 24),
        .guest_len = ldl_le_p(b + 32),
        .trans_pa = psp_address(b, 40),
        .trans_len = ldl_le_p(b + 48),
    };
}

/*
 * Check the address and the length of a packet's guest memory.  @max: limit of
 * the length in bytes; 0: PACKET_MAX
 */
static AmdPspStatus check_packet(const Packet *pkt, uint32_t max)
{
    if (!pkt->guest_len || pkt->guest_len > MIN(max ?: PACKET_MAX, PACKET_MAX)
        || pkt->guest_len % 16) {
        return AMD_PSP_INVALID_LEN;
    }
    return pkt->guest_pa % 16 ? AMD_PSP_INVALID_ADDRESS : AMD_PSP_SUCCESS;
}

/*
 * The firmware checks the length of the header before the guest's state.  If
 * the host's buffer for the header is too short, the firmware returns the
 * length of the header, but not that of the transport data.
 */
static AmdPspStatus first_send_packet(AmdPspPlatform *p, AmdPspGuest *g,
                                      uint8_t *b)
{
    if (ldl_le_p(b + 16) < sizeof(AmdPspPacketHeader)) {
        stl_le_p(b + 16, sizeof(AmdPspPacketHeader));
        return AMD_PSP_INVALID_LEN;
    }
    return AMD_PSP_SUCCESS;
}

/* In: [0] handle, [8] to [48] a Packet; out: [16] length of the header */
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
    if (!psp_read(p, pkt.guest_pa, g->asid, data, pkt.guest_len)) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    if (vmsa && !psp_vmsa_is_valid(p, g, data, pkt.guest_len)) {
        return AMD_PSP_INVALID_PARAM;
    }
    if (!psp_random(iv, sizeof(iv))) {
        return AMD_PSP_HWERROR_PLATFORM;
    }
    amd_psp_packet_seal(&g->transport, AMD_PSP_PACKET_DATA, iv, data,
                        pkt.guest_len, &header);
    if (!psp_write(p, pkt.trans_pa, SEV_MEMORY_RAW, data, pkt.guest_len) ||
        !psp_write(p, pkt.header_pa, SEV_MEMORY_RAW, &header, sizeof(header))) {
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
    return psp_guest_start(p, b, AMD_PSP_GUEST_RUPDATE);
}

/* In: [0] handle, [8] to [48] a Packet */
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
    if (!psp_read(p, pkt.header_pa, SEV_MEMORY_RAW, &header, sizeof(header))) {
        return AMD_PSP_INVALID_ADDRESS;
    }
    /*
     * Like AMD's firmware, refuse compressed data: a compressed secret after
     * the check of the MAC, any other compressed packet before the check.
     */
    compressed = le32_to_cpu(header.flags) & PACKET_COMPRESSED;
    if (compressed && type != AMD_PSP_PACKET_SECRET) {
        return AMD_PSP_UNSUPPORTED;
    }
    if (!psp_read(p, pkt.trans_pa, SEV_MEMORY_RAW, data, pkt.trans_len)) {
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
        st = psp_vmsa_set_up(p, g, data, pkt.guest_len);
        if (st) {
            return st;
        }
    }
    return psp_write(p, pkt.guest_pa, g->asid, data, pkt.guest_len) ?
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
    psp_guest_finish(g);
    return AMD_PSP_SUCCESS;
}

const PspCommand psp_transport_commands[] = {
    {
        AMD_PSP_LAUNCH_UPDATE_SECRET, "LAUNCH_UPDATE_SECRET",
        cmd_launch_update_secret, 52,
        .states = GUEST_IN(LSECRET), .active = true,
    },
    {
        AMD_PSP_SEND_START, "SEND_START", cmd_send_start, 68,
        .states = GUEST_IN(RUNNING), .reply = PSP_REPLY_LENGTH,
        .first = first_send_start,
    },
    {
        AMD_PSP_SEND_UPDATE_DATA, "SEND_UPDATE_DATA", cmd_send_update_data, 52,
        .states = GUEST_IN(SUPDATE), .active = true, .reply = PSP_REPLY_LENGTH,
        .first = first_send_packet,
    },
    {
        AMD_PSP_SEND_UPDATE_VMSA, "SEND_UPDATE_VMSA", cmd_send_update_vmsa, 52,
        .states = GUEST_IN(SUPDATE), .active = true, .es = true,
        .reply = PSP_REPLY_LENGTH, .first = first_send_packet,
    },
    {
        AMD_PSP_SEND_FINISH, "SEND_FINISH", cmd_send_finish, 4,
        .states = GUEST_IN(SUPDATE),
    },
    {
        AMD_PSP_SEND_CANCEL, "SEND_CANCEL", cmd_send_cancel, 4,
        .states = GUEST_IN(SUPDATE),
    },
    {
        AMD_PSP_RECEIVE_START, "RECEIVE_START", cmd_receive_start, 36,
        .reply = PSP_REPLY_SUCCESS,
    },
    {
        AMD_PSP_RECEIVE_UPDATE_DATA, "RECEIVE_UPDATE_DATA",
        cmd_receive_update_data, 52,
        .states = GUEST_IN(RUPDATE), .active = true,
    },
    {
        AMD_PSP_RECEIVE_UPDATE_VMSA, "RECEIVE_UPDATE_VMSA",
        cmd_receive_update_vmsa, 52,
        .states = GUEST_IN(RUPDATE), .active = true, .es = true,
    },
    {
        AMD_PSP_RECEIVE_FINISH, "RECEIVE_FINISH", cmd_receive_finish, 4,
        .states = GUEST_IN(RUPDATE),
    },
    { }
};
