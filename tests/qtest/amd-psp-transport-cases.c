/*
 * Tests of the emulated AMD PSP: sessions and packets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "amd-psp-cases.h"
#include "hw/misc/amd-psp-certs.h"
#include "hw/misc/amd-psp-crypto.h"

/* Begin a session that sends the guest @a */
static void migrate_send_start(Psp *p, uint32_t a)
{
    g_assert_cmphex(update_data(p, 0x41, a, PAGE_A, 4096), ==, 0x02);
    /* With length 0, SEND_START returns the length of the session */
    clear(p);
    put32(p, 0, a);
    g_assert_cmphex(psp_cmd(p, 0x40), ==, 0x04);
    g_assert_cmpuint(get32(p, 64), ==, 128);
    g_assert_cmphex(send_start(p, a), ==, 0);
    g_assert_cmpuint(guest_state(p, a), ==, 4);
}

/* Pack PAGE_A of the guest @a */
static void migrate_send_page(Psp *p, uint32_t a)
{
    uint8_t trans[4096];

    /* With length 0, SEND_UPDATE_DATA returns the length of the header */
    clear(p);
    put32(p, 0, a);
    put32(p, 32, 4096);
    g_assert_cmphex(psp_cmd(p, 0x41), ==, 0x04);
    g_assert_cmpuint(get32(p, 16), ==, 52);
    /*
     * SEND_UPDATE_DATA does not return the length of the transport data: the
     * host knows it, because it equals the length of the guest memory
     */
    g_assert_cmpuint(get32(p, 48), ==, 0);
    put32(p, 16, 52);
    put32(p, 48, 16);
    g_assert_cmphex(psp_cmd(p, 0x41), ==, 0x04);
    g_assert_cmpuint(get32(p, 48), ==, 16);
    g_assert_cmphex(update_data(p, 0x41, a, PAGE_A, 4096 + 8), ==, 0x04);
    g_assert_cmphex(update_data(p, 0x41, a, PAGE_A, 0xfffffff0), ==, 0x04);
    g_assert_cmphex(update_data(p, 0x41, a, PAGE_A + 8, 16), ==, 0x09);
    g_assert_cmphex(update_data(p, 0x41, a, NOT_RAM, 4096), ==, 0x09);
    g_assert_cmphex(update_data(p, 0x41, a, PAGE_A, 4096), ==, 0);
    qtest_memread(p->qts, TRANS, trans, sizeof(trans));
    g_assert_null(memmem(trans, sizeof(trans), "private", 7));
}

/*
 * Unpack the packed page to PAGE_B of the guest @b.  RECEIVE_UPDATE_DATA
 * refuses a packet whose data, header or length was changed.
 */
static void migrate_receive_page(Psp *p, uint32_t b)
{
    uint8_t data = qtest_readb(p->qts, TRANS + 100);
    uint8_t header = qtest_readb(p->qts, HEADER + 4);

    qtest_writeb(p->qts, TRANS + 100, data ^ 1);
    g_assert_cmphex(update_data(p, 0x51, b, PAGE_B, 4096), ==, 0x0b);
    qtest_writeb(p->qts, TRANS + 100, data);
    qtest_writeb(p->qts, HEADER + 4, header ^ 1);
    g_assert_cmphex(update_data(p, 0x51, b, PAGE_B, 4096), ==, 0x0b);
    qtest_writeb(p->qts, HEADER + 4, header);
    g_assert_cmphex(update_data(p, 0x51, b, PAGE_B, 4080), ==, 0x0b);
    g_assert_cmphex(update_data(p, 0x51, b, NOT_RAM, 4096), ==, 0x09);
    g_assert_cmphex(update_data(p, 0x51, b, PAGE_B, 4096), ==, 0);
}

static void test_migrate(void)
{
    uint8_t page[4096], got[4096];
    uint32_t a, b;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    a = launch(&p, 0, 1);
    migrate_send_start(&p, a);
    migrate_send_page(&p, a);

    g_assert_cmphex(receive_start(&p, 0, &b), ==, 0);
    g_assert_cmpuint(b, !=, a);
    g_assert_cmpuint(guest_state(&p, b), ==, 5);
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4096), ==, 0x08);
    g_assert_cmphex(activate(&p, b, 2), ==, 0);
    migrate_receive_page(&p, b);

    g_assert_cmphex(guest_cmd(&p, 0x43, a), ==, 0);
    g_assert_cmpuint(guest_state(&p, a), ==, 6);
    g_assert_cmphex(guest_cmd(&p, 0x53, b), ==, 0);
    g_assert_cmpuint(guest_state(&p, b), ==, 3);
    fill(page);
    g_assert_cmphex(dbg(&p, 0x60, b, PAGE_B, OUT, 4096), ==, 0);
    qtest_memread(p.qts, OUT, got, sizeof(got));
    g_assert_cmpmem(got, sizeof(got), page, sizeof(page));
    /* The two guests have different keys, so the ciphertexts differ */
    qtest_memread(p.qts, PAGE_A, got, sizeof(got));
    qtest_memread(p.qts, PAGE_B, page, sizeof(page));
    g_assert(memcmp(got, page, 16));
    psp_close(&p);
}

static void test_cancel(void)
{
    uint32_t a;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    a = launch(&p, 0, 1);
    g_assert_cmphex(guest_cmd(&p, 0x44, a), ==, 0x02);
    g_assert_cmphex(send_start(&p, a), ==, 0);
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 4096), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x44, a), ==, 0);
    g_assert_cmpuint(guest_state(&p, a), ==, 3);
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 4096), ==, 0x02);
    /*
     * Open another session and end it by SEND_FINISH, after which SEND_CANCEL
     * is refused
     */
    g_assert_cmphex(send_start(&p, a), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x43, a), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x44, a), ==, 0x02);
    psp_close(&p);
}

/*
 * RECEIVE_START refuses a session if it was made for another platform, if a
 * byte of it was changed, or if the host passes another PDH or another policy
 * than the source's.  SEND_START refuses a certificate that is not a valid PDH.
 */
static void test_wrong_session(void)
{
    uint8_t mine[CERT_LEN], other[CERT_LEN], chain[CHAIN_LEN];
    uint8_t other_chain[CHAIN_LEN], session[128];
    uint32_t a, b;
    unsigned i;
    Psp p;

    psp_open(&p, ",seed=other");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, PDH, other, sizeof(other));
    qtest_memread(p.qts, CHAIN, other_chain, sizeof(other_chain));
    psp_close(&p);

    psp_open(&p, ",seed=mine");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, PDH, mine, sizeof(mine));
    qtest_memread(p.qts, CHAIN, chain, sizeof(chain));
    a = launch(&p, 0, 1);

    /*
     * This platform cannot receive a session that was made for the other
     * platform
     */
    qtest_memwrite(p.qts, PDH, other, sizeof(other));
    qtest_memwrite(p.qts, CHAIN, other_chain, sizeof(other_chain));
    g_assert_cmphex(send_start(&p, a), ==, 0);
    qtest_memwrite(p.qts, PDH, mine, sizeof(mine));
    qtest_memwrite(p.qts, CHAIN, chain, sizeof(chain));
    g_assert_cmphex(receive_start(&p, 0, &b), ==, 0x0b);
    g_assert_cmphex(guest_cmd(&p, 0x44, a), ==, 0);

    /*
     * This platform can receive a session that it has made for itself, but
     * only with the right PDH and policy and without a changed byte
     */
    g_assert_cmphex(send_start(&p, a), ==, 0);
    qtest_memwrite(p.qts, PDH, other, sizeof(other));
    g_assert_cmphex(receive_start(&p, 0, &b), ==, 0x0b);
    qtest_memwrite(p.qts, PDH, mine, sizeof(mine));
    g_assert_cmphex(receive_start(&p, 1, &b), ==, 0x0b);
    qtest_memread(p.qts, SESSION, session, sizeof(session));
    for (i = 0; i < sizeof(session); i += 16) {
        qtest_writeb(p.qts, SESSION + i, session[i] ^ 1);
        g_assert_cmphex(receive_start(&p, 0, &b), ==, 0x0b);
        qtest_writeb(p.qts, SESSION + i, session[i]);
    }
    g_assert_cmphex(receive_start(&p, 0, &b), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x44, a), ==, 0);

    /*
     * SEND_START refuses zeros instead of a certificate, the certificate of a
     * PEK, and a key that is not on the curve
     */
    qtest_memset(p.qts, PDH, 0, CERT_LEN);
    g_assert_cmphex(send_start(&p, a), ==, 0x06);
    g_assert_cmphex(receive_start(&p, 0, &b), ==, 0x06);
    qtest_memwrite(p.qts, PDH, chain, CERT_LEN);
    g_assert_cmphex(send_start(&p, a), ==, 0x06);
    qtest_memwrite(p.qts, PDH, mine, CERT_LEN);
    qtest_writeb(p.qts, PDH + 0x14, mine[0x14] ^ 1);
    g_assert_cmphex(send_start(&p, a), ==, 0x06);
    g_assert_cmpuint(guest_state(&p, a), ==, 3);
    psp_close(&p);
}

/* The keys that the guest's owner and the firmware share */
static const AmdPspTransportKeys owner_keys = {
    "encrypts packets", "vouches for them"
};
static const uint8_t owner_iv[16];

/* The guest's owner makes a session, and LAUNCH_START accepts it */
static uint32_t owner_launch_start(Psp *p)
{
    static const uint8_t seed[AMD_PSP_SEED_LEN] = "an owner", nonce[16];
    uint8_t cert[CERT_LEN], z[AMD_PSP_P384_LEN];
    AmdPspSession session;
    AmdPspEcPoint pdh;
    AmdPspEcKey owner;

    g_assert_cmphex(export_certs(p), ==, 0);
    qtest_memread(p->qts, PDH, cert, sizeof(cert));
    g_assert(amd_psp_cert_key(cert, AMD_PSP_CERT_PDH, &pdh));
    amd_psp_ec_key(seed, "owner", 0, &owner);
    g_assert(amd_psp_ecdh(&owner, &pdh, z));
    amd_psp_session_wrap(z, nonce, owner_iv, &owner_keys, 0x20, &session);
    amd_psp_cert_make(&owner.q, AMD_PSP_CERT_PDH, 1, 55, cert);
    qtest_memwrite(p->qts, PDH, cert, sizeof(cert));
    qtest_memwrite(p->qts, SESSION, &session, sizeof(session));
    clear(p);
    put32(p, 4, 0x20);
    put64(p, 8, PDH);
    put32(p, 16, CERT_LEN);
    put64(p, 24, SESSION);
    put32(p, 32, sizeof(session));
    g_assert_cmphex(psp_cmd(p, 0x30), ==, 0);
    return get32(p, 0);
}

/*
 * Launch a guest up to its measurement.  The guest's owner computes the
 * measurement that the guest should have, and the firmware's measurement must
 * be equal to it.
 * @mac: where to store the measurement
 */
static uint32_t owner_launch(Psp *p, uint8_t mac[32])
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    uint8_t page[4096], measure[48], digest[32];
    gsize digest_len = sizeof(digest);
    uint32_t h = owner_launch_start(p);

    fill(page);
    qtest_memwrite(p->qts, PAGE_A, page, sizeof(page));
    g_assert_cmphex(activate(p, h, 1), ==, 0);
    g_assert_cmphex(launch_update(p, h, PAGE_A, 4096), ==, 0);
    g_assert_cmphex(launch_measure(p, h), ==, 0);
    qtest_memread(p->qts, OUT, measure, sizeof(measure));
    g_checksum_update(sum, page, sizeof(page));
    g_checksum_get_digest(sum, digest, &digest_len);
    amd_psp_measurement(owner_keys.tik, 1, 55, 1, 0x20, digest, measure + 32,
                        mac);
    g_assert_cmpmem(measure, 32, mac, 32);
    return h;
}

static void put_packet(Psp *p, const uint8_t sealed[32],
                       const AmdPspPacketHeader *header)
{
    qtest_memwrite(p->qts, TRANS, sealed, 32);
    qtest_memwrite(p->qts, HEADER, header, sizeof(*header));
}

/* Write the secret that the guest's owner has encrypted for the measurement */
static void put_secret(Psp *p, const uint8_t secret[32], const uint8_t mac[32])
{
    AmdPspPacketHeader header;
    uint8_t sealed[32];

    memcpy(sealed, secret, sizeof(sealed));
    amd_psp_secret_seal(&owner_keys, mac, owner_iv, sealed, sizeof(sealed),
                        &header);
    put_packet(p, sealed, &header);
}

/* The guest's owner checks the launch measurement and then sends a secret */
static void test_secret(void)
{
    static const uint8_t secret[32] = "what only the guest may know...";
    AmdPspPacketHeader header;
    uint8_t sealed[32], mac[32];
    uint32_t h;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    h = owner_launch(&p, mac);

    /* LAUNCH_SECRET refuses a packet of private memory */
    memcpy(sealed, secret, sizeof(sealed));
    amd_psp_packet_seal(&owner_keys, AMD_PSP_PACKET_DATA, owner_iv, sealed,
                        sizeof(sealed), &header);
    put_packet(&p, sealed, &header);
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A, 32), ==, 0x0b);

    /*
     * The firmware refuses a secret that the guest's owner has encrypted for
     * another measurement
     */
    mac[0] ^= 1;
    put_secret(&p, secret, mac);
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A, 32), ==, 0x0b);
    mac[0] ^= 1;

    put_secret(&p, secret, mac);
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A, 31), ==, 0x04);
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A, 0xfffffff0), ==, 0x04);
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A + 1, 32), ==, 0x09);
    g_assert_cmphex(update_data(&p, 0x34, h, NOT_RAM, 32), ==, 0x09);
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A + 64, 32), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x35, h), ==, 0);
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A + 64, 32), ==, 0x02);

    qtest_memread(p.qts, PAGE_A + 64, sealed, sizeof(sealed));
    g_assert(memcmp(sealed, secret, sizeof(sealed)));
    g_assert_cmphex(dbg(&p, 0x60, h, PAGE_A, OUT, 4096), ==, 0);
    qtest_memread(p.qts, OUT + 64, sealed, sizeof(sealed));
    g_assert_cmpmem(sealed, sizeof(sealed), secret, sizeof(secret));
    psp_close(&p);
}

void add_transport_tests(void)
{
    qtest_add_func("/amd-psp/migrate", test_migrate);
    qtest_add_func("/amd-psp/cancel", test_cancel);
    qtest_add_func("/amd-psp/wrong-session", test_wrong_session);
    qtest_add_func("/amd-psp/secret", test_secret);
}
