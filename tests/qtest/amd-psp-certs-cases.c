/*
 * Tests of the emulated AMD PSP: certificates and owners of platforms
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "amd-psp-cases.h"
#include "hw/misc/amd-psp-authority.h"
#include "hw/misc/amd-psp-certs.h"
#include "hw/misc/amd-psp-crypto.h"

/* A guest with the policy DOMAIN cannot go to a platform of another owner */
static void test_policy_domain(void)
{
    uint8_t pdh[CERT_LEN], chain[CHAIN_LEN];
    uint32_t h;
    Psp p;

    psp_open(&p, ",seed=other");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, PDH, pdh, sizeof(pdh));
    qtest_memread(p.qts, CHAIN, chain, sizeof(chain));
    psp_close(&p);

    psp_open(&p, ",seed=one");
    psp_init(&p);
    h = launch(&p, 1 << 4, 1);
    qtest_memwrite(p.qts, PDH, pdh, sizeof(pdh));
    qtest_memwrite(p.qts, CHAIN, chain, sizeof(chain));
    g_assert_cmphex(send_start(&p, h), ==, 0x07);
    g_assert_cmphex(export_certs(&p), ==, 0);
    g_assert_cmphex(send_start(&p, h), ==, 0);
    psp_close(&p);
}

/* The certificates of a platform; to send a guest to it, a source needs them */
typedef struct Identity {
    uint8_t pdh[CERT_LEN];
    uint8_t chain[CHAIN_LEN];
} Identity;

static void get_identity(Psp *p, Identity *id)
{
    g_assert_cmphex(export_certs(p), ==, 0);
    qtest_memread(p->qts, PDH, id->pdh, sizeof(id->pdh));
    qtest_memread(p->qts, CHAIN, id->chain, sizeof(id->chain));
}

/*
 * Get the identity of the platform @p, whose CEK is signed by the authority of
 * the device's property "ark".  PDH_CERT_EXPORT returns the CEK without this
 * signature, so take the signed CEK from the file @cek.
 */
static void get_signed_identity(Psp *p, Identity *id)
{
    uint8_t *exported = id->chain + 2 * CERT_LEN;
    g_autofree char *signed_cek = NULL;
    gsize len;

    get_identity(p, id);
    g_assert(g_file_get_contents(cek, &signed_cek, &len, NULL));
    g_assert_cmpuint(len, ==, CERT_LEN);
    /*
     * The exported CEK has no signature; the CEK in the file has a signature of
     * the ASK
     */
    g_assert_cmpmem(exported, 0x414, signed_cek, 0x414);
    g_assert_cmphex(ldl_le_p(exported + 0x414), ==, 0x1000);
    g_assert_cmphex(ldl_le_p(signed_cek + 0x414), ==, 0x13);
    memcpy(exported, signed_cek, CERT_LEN);
}

static void put_identity(Psp *p, const Identity *id)
{
    qtest_memwrite(p->qts, PDH, id->pdh, sizeof(id->pdh));
    qtest_memwrite(p->qts, CHAIN, id->chain, sizeof(id->chain));
}

/*
 * Try to send a guest with @policy to the platform whose certificates are in
 * memory at PDH, CHAIN and ASK_ARK.  Returns the status of SEND_START.
 */
static unsigned may_go(Psp *p, uint32_t policy)
{
    uint32_t h = launch(p, policy, 1);
    unsigned st = send_start(p, h);

    g_assert_cmpuint(guest_state(p, h), ==, st ? 3 : 4);
    g_assert_cmphex(guest_cmd(p, 0x22, h), ==, 0);
    clear(p);
    g_assert_cmphex(psp_cmd(p, 0x0a), ==, 0);
    g_assert_cmphex(guest_cmd(p, 0x20, h), ==, 0);
    return st;
}

/* SEND_START refuses a wrong address and wrong lengths of the ASK and ARK */
static void ask_ark_arguments_refused(Psp *p, uint32_t h)
{
    put_send_start(p, h);
    put64(p, 40, NOT_RAM);
    g_assert_cmphex(psp_cmd(p, 0x40), ==, 0x09);
    put64(p, 40, ASK_ARK);
    put32(p, 48, ASK_ARK_LEN - 1);
    g_assert_cmphex(psp_cmd(p, 0x40), ==, 0x04);
    put32(p, 48, 0xffffffff);
    g_assert_cmphex(psp_cmd(p, 0x40), ==, 0x04);
}

/* SEND_START verifies each link of the chain and notices any wrong bit */
static void test_chain_links(void)
{
    static const struct {
        const char *what;
        uint64_t at;
    } bits[] = {
        { "PDH: version", PDH },
        { "PDH: API", PDH + 5 },
        { "PDH: usage", PDH + 8 },
        { "PDH: key", PDH + 0x14 },
        { "PDH: what is reserved", PDH + 0x400 },
        { "PDH: usage of the signer", PDH + 0x414 },
        { "PDH: algorithm of the signer", PDH + 0x418 },
        { "PDH: signature, r", PDH + 0x41c },
        { "PDH: signature, too large", PDH + 0x41c + 71 },
        { "PDH: signature, s", PDH + 0x41c + 72 },
        { "PEK: API", CHAIN + 5 },
        { "PEK: key", CHAIN + 0x14 },
        { "PEK: signature by the OCA", CHAIN + 0x41c },
        { "PEK: signature by the CEK", CHAIN + 0x61c + 8 },
        { "PEK: usage of the first signer", CHAIN + 0x414 },
        { "PEK: usage of the second signer", CHAIN + 0x61c },
        { "OCA: API", CHAIN + CERT_LEN + 5 },
        { "OCA: key", CHAIN + CERT_LEN + 0x14 },
        { "OCA: signature by itself", CHAIN + CERT_LEN + 0x41c },
        { "CEK: API", CHAIN + 2 * CERT_LEN + 5 },
        { "CEK: key", CHAIN + 2 * CERT_LEN + 0x14 },
        { "CEK: usage of the signer", CHAIN + 2 * CERT_LEN + 0x414 },
        { "CEK: signature by the ASK", CHAIN + 2 * CERT_LEN + 0x41c },
        { "ASK: version", ASK_ARK },
        { "ASK: ID", ASK_ARK + 4 },
        { "ASK: ID of the signer", ASK_ARK + 20 },
        { "ASK: usage", ASK_ARK + 36 },
        { "ASK: bits of the exponent", ASK_ARK + 57 },
        { "ASK: bits of the modulus", ASK_ARK + 61 },
        { "ASK: exponent", ASK_ARK + 64 },
        { "ASK: modulus", ASK_ARK + 64 + 512 },
        { "ASK: signature by the ARK", ASK_ARK + 64 + 1024 },
        { "ARK: version", ASK_ARK + 1600 },
        { "ARK: ID", ASK_ARK + 1600 + 4 },
        { "ARK: modulus", ASK_ARK + 1600 + 64 + 512 },
        { "ARK: signature by itself", ASK_ARK + 1600 + 64 + 1024 },
    };
    Identity id;
    uint32_t h;
    size_t i;
    Psp p;

    psp_open(&p, ",always-check-certs=on");
    psp_init(&p);
    get_signed_identity(&p, &id);
    put_identity(&p, &id);
    h = launch(&p, 0, 1);
    for (i = 0; i < ARRAY_SIZE(bits); i++) {
        uint8_t old = qtest_readb(p.qts, bits[i].at);

        g_test_message("%s", bits[i].what);
        qtest_writeb(p.qts, bits[i].at, old ^ 1);
        g_assert_cmphex(send_start(&p, h), ==, 0x06);
        g_assert_cmpuint(guest_state(&p, h), ==, 3);
        qtest_writeb(p.qts, bits[i].at, old);
    }
    g_assert_cmphex(send_start(&p, h), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x44, h), ==, 0);
    ask_ark_arguments_refused(&p, h);
    psp_close(&p);
}

/* SEND_START refuses a platform whose certificates have another root key */
static void test_chain_roots(void)
{
    g_autofree char *other = g_strdup_printf("%s/other", dir);
    g_autofree char *name = g_strdup_printf("%s.cert", other);
    Identity friend, stranger, forged;
    Psp p;

    psp_open(&p, ",seed=friend");
    psp_init(&p);
    get_signed_identity(&p, &friend);
    psp_close(&p);
    psp_open_ark(&p, other, ",seed=stranger");
    psp_init(&p);
    get_signed_identity(&p, &stranger);
    psp_close(&p);

    psp_open(&p, ",seed=me,always-check-certs=on");
    psp_init(&p);
    put_identity(&p, &friend);
    g_assert_cmphex(may_go(&p, 0), ==, 0);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0);
    put_identity(&p, &stranger);
    g_assert_cmphex(may_go(&p, 0), ==, 0x06);
    load_ask_ark(&p, other);
    g_assert_cmphex(may_go(&p, 0), ==, 0x06);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0x06);
    put_identity(&p, &friend);
    g_assert_cmphex(may_go(&p, 0), ==, 0x06);
    load_ask_ark(&p, ark);
    g_assert_cmphex(may_go(&p, 0), ==, 0);

    /* SEND_START refuses a valid chain with the PDH of another platform */
    forged = friend;
    memcpy(forged.pdh, stranger.pdh, CERT_LEN);
    put_identity(&p, &forged);
    g_assert_cmphex(may_go(&p, 0), ==, 0x06);
    /* A valid CEK of another platform */
    forged = stranger;
    memcpy(forged.chain + 2 * CERT_LEN, friend.chain + 2 * CERT_LEN, CERT_LEN);
    put_identity(&p, &forged);
    g_assert_cmphex(may_go(&p, 0), ==, 0x06);
    psp_close(&p);
    unlink(other);
    unlink(name);
}

/* The guest's policy decides which certificates SEND_START checks */
static void test_chain_by_policy(void)
{
    Identity mine, broken;
    Psp p;

    psp_open_device(&p, "amd-psp,id=psp,addr=04.0");
    psp_init(&p);
    get_identity(&p, &mine);
    g_assert_cmphex(ldl_le_p(mine.chain + 2 * CERT_LEN + 0x414), ==, 0x1000);
    g_assert_cmphex(may_go(&p, 0), ==, 0);
    g_assert_cmphex(may_go(&p, 0x10), ==, 0);       /* DOMAIN */
    g_assert_cmphex(may_go(&p, 0x20), ==, 0x06);    /* SEV: no CEK signature */
    broken = mine;
    broken.chain[CERT_LEN + 0x41c] ^= 1;
    put_identity(&p, &broken);
    g_assert_cmphex(may_go(&p, 0), ==, 0);
    g_assert_cmphex(may_go(&p, 0x10), ==, 0x06);
    psp_close(&p);

    /*
     * If the policy has neither the bit DOMAIN nor the bit SEV, the firmware
     * reads only the certificate of the PDH.  This is also true for a device
     * with the property "ark", whose firmware can verify the whole chain.
     */
    psp_open(&p, "");
    psp_init(&p);
    get_signed_identity(&p, &mine);
    broken = mine;
    memset(broken.chain, 0, sizeof(broken.chain));
    put_identity(&p, &broken);
    g_assert_cmphex(may_go(&p, 0), ==, 0);
    g_assert_cmphex(may_go(&p, 0x10), ==, 0x06);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0x06);
    put_identity(&p, &mine);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0);
    g_assert_cmphex(may_go(&p, 0x30), ==, 0);
    /*
     * If the policy has the bit SEV, SEND_START needs a signed CEK, but
     * PDH_CERT_EXPORT returns the CEK without a signature
     */
    get_identity(&p, &mine);
    put_identity(&p, &mine);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0x06);
    psp_close(&p);
}

/* The property "cek", and its errors */
static void test_cek(void)
{
    g_autofree char *args = g_strdup_printf(
        "-nodefaults -machine q35 -bios %s -cpu EPYC-Milan,+svm,+sev -S",
        firmware);
    static const struct {
        const char *device, *error;
    } cases[] = {
        { "amd-psp,cek=/nowhere", "set 'ark', too" },
        { "amd-psp,ark=%s,cek=/nowhere/at/all", "cannot write the signed CEK" },
    };
    size_t i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *device = g_strdup_printf(cases[i].device, ark);
        g_autofree char *line = g_strdup_printf("%s %s -device %s",
                                                getenv("QTEST_QEMU_BINARY"),
                                                args, device);
        g_autofree char *err = NULL;
        int status;

        g_assert(g_spawn_command_line_sync(line, NULL, &err, &status, NULL));
        g_assert_cmpint(status, !=, 0);
        g_assert_nonnull(strstr(err, cases[i].error));
    }
}

/*
 * Make the certificates of a platform that does not exist.  The certificates
 * have the API version @major.@minor, and @a signs the CEK.  The function makes
 * all keys itself, so it can sign the certificates as a platform would.
 */
static void make_identity(Identity *id, const AmdPspAuthority *a,
                          unsigned major, unsigned minor)
{
    static const uint8_t seed[AMD_PSP_SEED_LEN] = "made by the test";
    uint8_t *pek = id->chain, *oca = pek + CERT_LEN, *cek = oca + CERT_LEN;
    AmdPspEcKey pdh_key, pek_key, oca_key, cek_key;

    amd_psp_ec_key(seed, "pdh", 0, &pdh_key);
    amd_psp_ec_key(seed, "pek", 0, &pek_key);
    amd_psp_ec_key(seed, "oca", 0, &oca_key);
    amd_psp_ec_key(seed, "cek", 0, &cek_key);
    amd_psp_cert_make(&pdh_key.q, AMD_PSP_CERT_PDH, major, minor, id->pdh);
    amd_psp_cert_make(&pek_key.q, AMD_PSP_CERT_PEK, major, minor, pek);
    amd_psp_cert_make(&oca_key.q, AMD_PSP_CERT_OCA, major, minor, oca);
    amd_psp_cert_make(&cek_key.q, AMD_PSP_CERT_CEK, major, minor, cek);
    g_assert(amd_psp_cert_sign(id->pdh, AMD_PSP_CERT_PEK, &pek_key));
    /*
     * SEND_START must accept the two signatures of a PEK in both orders.  The
     * emulated PSP signs its PEK first with the OCA and then with the CEK, so
     * sign the PEK that is made here first with the CEK.
     */
    g_assert(amd_psp_cert_sign(pek, AMD_PSP_CERT_CEK, &cek_key));
    g_assert(amd_psp_cert_sign(pek, AMD_PSP_CERT_OCA, &oca_key));
    g_assert(amd_psp_cert_sign(oca, AMD_PSP_CERT_OCA, &oca_key));
    g_assert(amd_psp_authority_sign(a, cek));
}

/*
 * If the policy has the bit SEV, the guest cannot go to a platform whose
 * firmware is older than the policy demands
 */
static void test_policy_api(void)
{
    AmdPspAuthority *a = amd_psp_authority_open(ark, &error_abort);
    Identity id;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    make_identity(&id, a, 1, 50);
    put_identity(&p, &id);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0);
    g_assert_cmphex(may_go(&p, 0x20 | 1 << 16), ==, 0);
    /*
     * If the policy does not have the bit SEV, SEND_START ignores the firmware
     * version that the policy demands
     */
    g_assert_cmphex(may_go(&p, 1 << 16 | 51 << 24), ==, 0);
    g_assert_cmphex(may_go(&p, 0x20 | 1 << 16 | 50 << 24), ==, 0);
    g_assert_cmphex(may_go(&p, 0x20 | 1 << 16 | 51 << 24), ==, 0x07);
    g_assert_cmphex(may_go(&p, 0x20 | 99u << 24), ==, 0);  /* 0.99 */
    make_identity(&id, a, 0, 99);
    put_identity(&p, &id);
    g_assert_cmphex(may_go(&p, 0x20 | 1 << 16), ==, 0x07);
    g_assert_cmphex(may_go(&p, 0x20 | 99u << 24), ==, 0);
    make_identity(&id, a, 2, 0);
    put_identity(&p, &id);
    g_assert_cmphex(may_go(&p, 0x20 | 1 << 16 | 55 << 24), ==, 0);
    psp_close(&p);
    amd_psp_authority_free(a);
}

static unsigned pek_cert_import(Psp *p, const uint8_t *pek, const uint8_t *oca)
{
    qtest_memwrite(p->qts, PAGE_A, pek, CERT_LEN);
    qtest_memwrite(p->qts, PAGE_B, oca, CERT_LEN);
    clear(p);
    put64(p, 0, PAGE_A);
    put32(p, 8, CERT_LEN);
    put64(p, 16, PAGE_B);
    put32(p, 24, CERT_LEN);
    return psp_cmd(p, 0x07);
}

static bool is_owned(Psp *p)
{
    return platform_flags(p) & 1;
}

/* Make an owner's OCA, and the PEK with the owner's signature */
static void own(Psp *p, const char *owner, uint8_t pek[CERT_LEN],
                uint8_t oca[CERT_LEN])
{
    uint8_t seed[AMD_PSP_SEED_LEN] = { 0 };
    AmdPspEcKey key;

    g_strlcpy((char *)seed, owner, sizeof(seed));
    amd_psp_ec_key(seed, "oca", 0, &key);
    amd_psp_cert_make(&key.q, AMD_PSP_CERT_OCA, 0, 0, oca);
    g_assert(amd_psp_cert_sign(oca, AMD_PSP_CERT_OCA, &key));
    clear(p);
    put64(p, 0, OUT);
    put32(p, 8, CERT_LEN);
    g_assert_cmphex(psp_cmd(p, 0x06), ==, 0);
    qtest_memread(p->qts, OUT, pek, CERT_LEN);
    g_assert(amd_psp_cert_sign(pek, AMD_PSP_CERT_OCA, &key));
}

static void assert_identity(Psp *p, const Identity *want)
{
    Identity got;

    get_identity(p, &got);
    g_assert_cmpmem(&got, sizeof(got), want, sizeof(*want));
}

/*
 * Start the platform "alice" with the storage @nv.  Returns the status of
 * INIT_EX.
 */
static unsigned open_alice(Psp *p, const uint8_t *nv)
{
    psp_open(p, ",seed=alice");
    qtest_memwrite(p->qts, NV, nv, NV_LEN);
    return init_ex(p, 36, NV, NV_LEN);
}

/*
 * PEK_CERT_IMPORT refuses wrong lengths and addresses.  @pek has no signature
 * of @oca, so PEK_CERT_IMPORT refuses right ones as well, but with another
 * error.
 */
static void import_arguments_refused(Psp *p, const uint8_t *pek,
                                     const uint8_t *oca)
{
    g_assert_cmphex(pek_cert_import(p, pek, oca), ==, 0x06);
    put32(p, 8, CERT_LEN - 1);
    g_assert_cmphex(psp_cmd(p, 0x07), ==, 0x04);
    put32(p, 8, CERT_LEN);
    put32(p, 24, 0xffffffff);
    g_assert_cmphex(psp_cmd(p, 0x07), ==, 0x04);
    put32(p, 24, CERT_LEN);
    put64(p, 16, NOT_RAM);
    g_assert_cmphex(psp_cmd(p, 0x07), ==, 0x09);
}

/*
 * PEK_CERT_IMPORT refuses an OCA that has not signed itself, an OCA that has
 * not signed the PEK, and a PEK with a wrong key or number of signatures.
 * @old_pek is the platform's PEK; @pek and @oca are of the owner "owner".
 */
static void import_certs_refused(Psp *p, const uint8_t *old_pek,
                                 const uint8_t *pek, const uint8_t *oca)
{
    uint8_t bad[CERT_LEN], other[CERT_LEN];
    AmdPspEcKey key;

    memcpy(bad, oca, CERT_LEN);
    bad[0x41c] ^= 1;
    g_assert_cmphex(pek_cert_import(p, pek, bad), ==, 0x06);
    memcpy(bad, pek, CERT_LEN);
    bad[0x41c] ^= 1;
    g_assert_cmphex(pek_cert_import(p, bad, oca), ==, 0x06);
    own(p, "somebody else", bad, other);
    g_assert_cmphex(pek_cert_import(p, bad, oca), ==, 0x06);
    /* Another PEK with a valid signature */
    amd_psp_ec_key((const uint8_t[AMD_PSP_SEED_LEN]) { "owner" }, "oca", 0,
                   &key);
    memcpy(bad, old_pek, CERT_LEN);
    amd_psp_cert_make(&key.q, AMD_PSP_CERT_PEK, 1, 55, bad);
    g_assert(amd_psp_cert_sign(bad, AMD_PSP_CERT_OCA, &key));
    g_assert_cmphex(pek_cert_import(p, bad, oca), ==, 0x06);
    /*
     * In a PEK with two signatures, there is no room for the signature of the
     * CEK
     */
    memcpy(bad, pek, CERT_LEN);
    g_assert(amd_psp_cert_sign(bad, AMD_PSP_CERT_OCA, &key));
    g_assert_cmphex(pek_cert_import(p, bad, oca), ==, 0x06);
}

/* Check what PEK_CERT_IMPORT has changed in a platform's certificates */
static void assert_imported(const Identity *before, const Identity *after,
                            const uint8_t *oca)
{
    g_assert_cmpmem(after->chain, 0x414, before->chain, 0x414);
    g_assert_cmpmem(after->chain + CERT_LEN, CERT_LEN, oca, CERT_LEN);
    g_assert_cmpmem(after->chain + 2 * CERT_LEN, CERT_LEN,
                    before->chain + 2 * CERT_LEN, CERT_LEN);
    g_assert(memcmp(after->pdh, before->pdh, 0x414));
    g_assert(amd_psp_cert_verify(after->chain, AMD_PSP_CERT_PEK,
                                 oca, AMD_PSP_CERT_OCA));
    g_assert(amd_psp_cert_verify(after->chain, AMD_PSP_CERT_PEK,
                                 after->chain + 2 * CERT_LEN,
                                 AMD_PSP_CERT_CEK));
    g_assert(amd_psp_cert_verify(after->pdh, AMD_PSP_CERT_PDH,
                                 after->chain, AMD_PSP_CERT_PEK));
}

/*
 * @nv is a storage of the platform "alice" with an owner, and @alice are the
 * platform's certificates
 */
static void storage_keeps_owner(uint8_t *nv, const Identity *alice)
{
    Psp p;

    g_assert_cmphex(open_alice(&p, nv), ==, 0);
    g_assert(is_owned(&p));
    assert_identity(&p, alice);
    /* PEK_GEN ends the ownership */
    g_assert_cmphex(psp_cmd(&p, 0x05), ==, 0);
    g_assert(!is_owned(&p));
    psp_close(&p);

    /* INIT_EX refuses a storage in which a byte was changed */
    nv[64 + 0x41c] ^= 1;
    g_assert_cmphex(open_alice(&p, nv), ==, 0x18);
    psp_close(&p);
}

/*
 * The platform "bob" can send a guest with the policy DOMAIN to the platform
 * with the certificates @alice only after "bob" has the same owner as "alice"
 */
static void owner_allows_domain(const Identity *alice)
{
    uint8_t pek[CERT_LEN], oca[CERT_LEN];
    uint32_t h;
    Psp p;

    psp_open(&p, ",seed=bob");
    psp_init(&p);
    put_identity(&p, alice);
    g_assert_cmphex(may_go(&p, 0x10), ==, 0x07);
    own(&p, "owner", pek, oca);
    g_assert_cmphex(pek_cert_import(&p, pek, oca), ==, 0);
    put_identity(&p, alice);
    g_assert_cmphex(may_go(&p, 0x10), ==, 0);
    /* SHUTDOWN does not end the ownership, PLATFORM_RESET does */
    g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
    psp_init(&p);
    g_assert(is_owned(&p));
    h = launch_start(&p, 0);
    g_assert_cmphex(pek_cert_import(&p, pek, oca), ==, 0x01);
    g_assert_cmphex(guest_cmd(&p, 0x20, h), ==, 0);
    g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
    g_assert_cmphex(psp_cmd(&p, 0x03), ==, 0);
    psp_init(&p);
    g_assert(!is_owned(&p));
    psp_close(&p);
}

static void test_pek_cert_import(void)
{
    g_autofree uint8_t *nv = g_malloc0(NV_LEN);
    uint8_t pek[CERT_LEN], oca[CERT_LEN];
    Identity before, after;
    Psp p;

    g_assert_cmphex(open_alice(&p, nv), ==, 0);
    get_identity(&p, &before);
    g_assert(!is_owned(&p));
    own(&p, "owner", pek, oca);
    import_arguments_refused(&p, before.chain, oca);
    import_certs_refused(&p, before.chain, pek, oca);
    g_assert(!is_owned(&p));
    assert_identity(&p, &before);

    g_assert_cmphex(pek_cert_import(&p, pek, oca), ==, 0);
    g_assert(is_owned(&p));
    g_assert_cmphex(pek_cert_import(&p, pek, oca), ==, 0x05);
    get_identity(&p, &after);
    assert_imported(&before, &after, oca);
    qtest_memread(p.qts, NV, nv, NV_LEN);
    psp_close(&p);

    storage_keeps_owner(nv, &after);
    owner_allows_domain(&after);
}

void add_certs_tests(void)
{
    qtest_add_func("/amd-psp/policy/domain", test_policy_domain);
    qtest_add_func("/amd-psp/chain/links", test_chain_links);
    qtest_add_func("/amd-psp/chain/roots", test_chain_roots);
    qtest_add_func("/amd-psp/chain/by-policy", test_chain_by_policy);
    qtest_add_func("/amd-psp/cek", test_cek);
    qtest_add_func("/amd-psp/policy/api", test_policy_api);
    qtest_add_func("/amd-psp/pek-cert-import", test_pek_cert_import);
}
