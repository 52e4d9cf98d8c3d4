/*
 * The authority that signs emulated AMD PSPs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "crypto/random.h"
#include "hw/misc/amd-psp-authority.h"

#include <gmp.h>
#include <nettle/rsa.h>
#include <nettle/sha2.h>

#define KEY_BITS            4096
#define KEY_LEN             (KEY_BITS / 8)
#define EXPONENT            65537

/*
 * Offsets in a certificate of AMD's format: first the signed part, then the
 * signature
 */
#define AMD_VERSION         0x00
#define AMD_KEY_ID          0x04
#define AMD_CERTIFYING_ID   0x14    /* the key that signed */
#define AMD_USAGE           0x24
#define AMD_EXPONENT_BITS   0x38
#define AMD_MODULUS_BITS    0x3c
#define AMD_EXPONENT        0x40    /* numbers are little-endian */
#define AMD_MODULUS         (AMD_EXPONENT + KEY_LEN)
#define AMD_SIGNATURE       (AMD_MODULUS + KEY_LEN)
#define AMD_LEN             (AMD_SIGNATURE + KEY_LEN)
#define AMD_ID_LEN          16

#define AMD_VERSION_1       1

QEMU_BUILD_BUG_ON(2 * AMD_LEN != AMD_PSP_ASK_ARK_LEN);

/* The salt of RSA-PSS is as long as the hash */
#define SALT_LEN            SHA384_DIGEST_SIZE

typedef struct RsaKey {
    struct rsa_public_key pub;
    struct rsa_private_key priv;
    uint8_t id[AMD_ID_LEN];
} RsaKey;

struct AmdPspAuthority {
    RsaKey ask;
    RsaKey ark;
    uint8_t certs[AMD_PSP_ASK_ARK_LEN];
};

/* Source of random bytes for nettle */
static void random_read(void *opaque, size_t len, uint8_t *dst)
{
    qcrypto_random_bytes(dst, len, &error_abort);
}

static void number_store(uint8_t out[KEY_LEN], const mpz_t v)
{
    memset(out, 0, KEY_LEN);
    g_assert(mpz_sizeinbase(v, 2) <= KEY_BITS);
    mpz_export(out, NULL, -1, 1, -1, 0, v);
}

static void number_load(mpz_t v, const uint8_t in[KEY_LEN])
{
    mpz_import(v, KEY_LEN, -1, 1, -1, 0, in);
}

static void digest_of(const void *data, size_t len,
                      uint8_t digest[SHA384_DIGEST_SIZE])
{
    struct sha384_ctx ctx;

    sha384_init(&ctx);
    sha384_update(&ctx, len, data);
    sha384_digest(&ctx, SHA384_DIGEST_SIZE, digest);
}

static void key_init(RsaKey *key)
{
    rsa_public_key_init(&key->pub);
    rsa_private_key_init(&key->priv);
    mpz_set_ui(key->pub.e, EXPONENT);
}

static void key_clear(RsaKey *key)
{
    rsa_public_key_clear(&key->pub);
    rsa_private_key_clear(&key->priv);
}

static bool key_generate(RsaKey *key)
{
    return rsa_generate_keypair(&key->pub, &key->priv, NULL, random_read,
                                NULL, NULL, KEY_BITS, 0);
}

/* Compute the key from its primes.  Returns false if they are unusable. */
static bool key_complete(RsaKey *key)
{
    struct rsa_private_key *k = &key->priv;
    mpz_t t;
    bool ok;

    if (!mpz_odd_p(k->p) || !mpz_odd_p(k->q) ||
        mpz_sizeinbase(k->p, 2) != KEY_BITS / 2 ||
        mpz_sizeinbase(k->q, 2) != KEY_BITS / 2) {
        return false;
    }
    mpz_init(t);
    mpz_mul(key->pub.n, k->p, k->q);
    mpz_sub_ui(t, k->p, 1);
    ok = mpz_invert(k->a, key->pub.e, t);
    mpz_sub_ui(t, k->q, 1);
    ok = ok && mpz_invert(k->b, key->pub.e, t) &&
         mpz_invert(k->c, k->q, k->p);
    mpz_clear(t);
    return ok && rsa_public_key_prepare(&key->pub) &&
           rsa_private_key_prepare(k) && key->pub.size == KEY_LEN;
}

/* The key's name is the beginning of the hash of its modulus */
static void key_name(RsaKey *key)
{
    uint8_t modulus[KEY_LEN], digest[SHA384_DIGEST_SIZE];

    number_store(modulus, key->pub.n);
    digest_of(modulus, sizeof(modulus), digest);
    memcpy(key->id, digest, sizeof(key->id));
}

/*
 * Sign with RSA-PSS and SHA-384.  The salt is derived from the key and the
 * data, so signing a certificate again gives the same bytes.
 */
static bool key_sign(const RsaKey *key, const void *data, size_t len,
                     uint8_t sig[KEY_LEN])
{
    uint8_t digest[SHA384_DIGEST_SIZE], salt[SALT_LEN], p[KEY_LEN];
    mpz_t s;
    bool ok;

    digest_of(data, len, digest);
    number_store(p, key->priv.p);
    amd_psp_kdf(p, sizeof(p), "pss", digest, sizeof(digest),
                salt, sizeof(salt));
    mpz_init(s);
    ok = rsa_pss_sha384_sign_digest_tr(&key->pub, &key->priv, NULL,
                                       random_read, sizeof(salt), salt,
                                       digest, s);
    if (ok) {
        number_store(sig, s);
    }
    mpz_clear(s);
    return ok;
}

static bool key_verify(const struct rsa_public_key *pub, const void *data,
                       size_t len, const uint8_t sig[KEY_LEN])
{
    uint8_t digest[SHA384_DIGEST_SIZE];
    mpz_t s;
    bool ok;

    digest_of(data, len, digest);
    mpz_init(s);
    number_load(s, sig);
    ok = rsa_pss_sha384_verify_digest(pub, SALT_LEN, digest, s);
    mpz_clear(s);
    return ok;
}

static bool make_cert(const RsaKey *key, AmdPspCertUsage usage,
                      const RsaKey *signer, uint8_t cert[AMD_LEN])
{
    memset(cert, 0, AMD_LEN);
    stl_le_p(cert + AMD_VERSION, AMD_VERSION_1);
    memcpy(cert + AMD_KEY_ID, key->id, AMD_ID_LEN);
    memcpy(cert + AMD_CERTIFYING_ID, signer->id, AMD_ID_LEN);
    stl_le_p(cert + AMD_USAGE, usage);
    stl_le_p(cert + AMD_EXPONENT_BITS, KEY_BITS);
    stl_le_p(cert + AMD_MODULUS_BITS, KEY_BITS);
    number_store(cert + AMD_EXPONENT, key->pub.e);
    number_store(cert + AMD_MODULUS, key->pub.n);
    return key_sign(signer, cert, AMD_SIGNATURE, cert + AMD_SIGNATURE);
}

/* Check that @cert is for @usage and signed by @signer */
static bool check_cert(const uint8_t cert[AMD_LEN], AmdPspCertUsage usage,
                       const RsaKey *signer)
{
    return ldl_le_p(cert + AMD_VERSION) == AMD_VERSION_1 &&
           ldl_le_p(cert + AMD_USAGE) == usage &&
           ldl_le_p(cert + AMD_EXPONENT_BITS) == KEY_BITS &&
           ldl_le_p(cert + AMD_MODULUS_BITS) == KEY_BITS &&
           !memcmp(cert + AMD_CERTIFYING_ID, signer->id, AMD_ID_LEN) &&
           key_verify(&signer->pub, cert, AMD_SIGNATURE,
                      cert + AMD_SIGNATURE);
}

static AmdPspAuthority *authority_new(void)
{
    AmdPspAuthority *a = g_new0(AmdPspAuthority, 1);

    key_init(&a->ask);
    key_init(&a->ark);
    return a;
}

void amd_psp_authority_free(AmdPspAuthority *a)
{
    if (a) {
        key_clear(&a->ask);
        key_clear(&a->ark);
        g_free(a);
    }
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(AmdPspAuthority, amd_psp_authority_free)

/* Compute the keys from their primes, and make and check the certificates */
static bool authority_complete(AmdPspAuthority *a)
{
    uint8_t *ask = a->certs, *ark = a->certs + AMD_LEN, probe[KEY_LEN];

    if (!key_complete(&a->ask) || !key_complete(&a->ark)) {
        return false;
    }
    key_name(&a->ask);
    key_name(&a->ark);
    /*
     * Let each key make a signature, and verify it.  If a number in the file is
     * not a prime, its key cannot make a valid signature.
     */
    return make_cert(&a->ask, AMD_PSP_CERT_ASK, &a->ark, ask) &&
           make_cert(&a->ark, AMD_PSP_CERT_ARK, &a->ark, ark) &&
           check_cert(ask, AMD_PSP_CERT_ASK, &a->ark) &&
           check_cert(ark, AMD_PSP_CERT_ARK, &a->ark) &&
           key_sign(&a->ask, ask, AMD_LEN, probe) &&
           key_verify(&a->ask.pub, ask, AMD_LEN, probe);
}

static bool prime_load(GKeyFile *file, const char *group, const char *key,
                       mpz_t v)
{
    g_autofree char *text = g_key_file_get_string(file, group, key, NULL);

    return text && strlen(text) <= KEY_LEN && mpz_set_str(v, text, 16) == 0 &&
           mpz_sgn(v) > 0;
}

static AmdPspAuthority *authority_load(const char *path, Error **errp)
{
    g_autoptr(AmdPspAuthority) a = authority_new();
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GError) err = NULL;

    if (!g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, &err)) {
        error_setg(errp, "cannot load '%s': %s", path, err->message);
        return NULL;
    }
    if (!prime_load(file, "ask", "p", a->ask.priv.p) ||
        !prime_load(file, "ask", "q", a->ask.priv.q) ||
        !prime_load(file, "ark", "p", a->ark.priv.p) ||
        !prime_load(file, "ark", "q", a->ark.priv.q) ||
        !authority_complete(a)) {
        error_setg(errp, "file '%s' does not contain keys that amd-psp has "
                   "made", path);
        error_append_hint(errp, "If you remove the file, amd-psp makes a new "
                          "one.\n");
        return NULL;
    }
    return g_steal_pointer(&a);
}

static void prime_store(GKeyFile *file, const char *group, const char *key,
                        const mpz_t v)
{
    g_autofree char *text = g_malloc(mpz_sizeinbase(v, 16) + 2);

    g_key_file_set_string(file, group, key, mpz_get_str(text, 16, v));
}

static bool write_all(int fd, const char *data, size_t len)
{
    return qemu_write_full(fd, data, len) == len;
}

/* Create the file with new keys, unless another process has created it */
static bool authority_create(const char *path, Error **errp)
{
    g_autoptr(AmdPspAuthority) a = authority_new();
    g_autofree char *temp = g_strdup_printf("%s.XXXXXX", path);
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autofree char *data = NULL;
    bool ok = false;
    gsize len;
    int fd;

    /* mkstemp() makes the file accessible to its owner only */
    fd = g_mkstemp(temp);
    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot create '%s'", path);
        return false;
    }
    if (!key_generate(&a->ask) || !key_generate(&a->ark)) {
        error_setg(errp, "cannot make RSA keys");
        goto out;
    }
    prime_store(file, "ask", "p", a->ask.priv.p);
    prime_store(file, "ask", "q", a->ask.priv.q);
    prime_store(file, "ark", "p", a->ark.priv.p);
    prime_store(file, "ark", "q", a->ark.priv.q);
    data = g_key_file_to_data(file, &len, NULL);
    /*
     * Other processes may read the file as soon as it has its name, so give it
     * its name only after its contents are complete
     */
    if (!write_all(fd, data, len) ||
        (link(temp, path) < 0 && errno != EEXIST)) {
        error_setg_errno(errp, errno, "cannot write '%s'", path);
        goto out;
    }
    ok = true;
out:
    close(fd);
    unlink(temp);
    return ok;
}

/*
 * Write the certificates of ASK and ARK to a file.  If a guest migrates to a
 * platform of this authority, the source passes these certificates to
 * SEND_START.
 */
static bool publish(const AmdPspAuthority *a, const char *path, Error **errp)
{
    g_autofree char *name = g_strdup_printf("%s.cert", path);
    g_autofree char *old = NULL;
    g_autoptr(GError) err = NULL;
    gsize len;

    if (g_file_get_contents(name, &old, &len, NULL) &&
        len == sizeof(a->certs) && !memcmp(old, a->certs, len)) {
        return true;
    }
    if (!g_file_set_contents(name, (const char *)a->certs, sizeof(a->certs),
                             &err)) {
        error_setg(errp, "%s", err->message);
        return false;
    }
    return true;
}

AmdPspAuthority *amd_psp_authority_open(const char *path, Error **errp)
{
    g_autoptr(AmdPspAuthority) a = NULL;

    if (access(path, F_OK) < 0 && !authority_create(path, errp)) {
        return NULL;
    }
    a = authority_load(path, errp);
    if (!a || !publish(a, path, errp)) {
        return NULL;
    }
    return g_steal_pointer(&a);
}

const uint8_t *amd_psp_authority_certs(const AmdPspAuthority *a)
{
    return a->certs;
}

bool amd_psp_authority_sign(const AmdPspAuthority *a,
                            uint8_t cek[AMD_PSP_CERT_LEN])
{
    uint8_t sig[KEY_LEN];

    return key_sign(&a->ask, cek, AMD_PSP_CERT_BODY_LEN, sig) &&
           amd_psp_cert_add_signature(cek, AMD_PSP_CERT_ASK,
                                      AMD_PSP_ALGO_RSA_SHA384,
                                      sig, sizeof(sig));
}

bool amd_psp_authority_verify(const AmdPspAuthority *a,
                              const uint8_t ask_ark[AMD_PSP_ASK_ARK_LEN],
                              const uint8_t cek[AMD_PSP_CERT_LEN])
{
    const uint8_t *ask = ask_ark, *ark = ask_ark + AMD_LEN, *sig;
    struct rsa_public_key pub;
    AmdPspEcPoint q;
    bool ok;

    if (memcmp(ark, a->certs + AMD_LEN, AMD_SIGNATURE) ||
        !check_cert(ark, AMD_PSP_CERT_ARK, &a->ark) ||
        !check_cert(ask, AMD_PSP_CERT_ASK, &a->ark) ||
        !amd_psp_cert_key(cek, AMD_PSP_CERT_CEK, &q)) {
        return false;
    }
    sig = amd_psp_cert_signature(cek, AMD_PSP_CERT_ASK,
                                 AMD_PSP_ALGO_RSA_SHA384, 0);
    if (!sig) {
        return false;
    }
    rsa_public_key_init(&pub);
    number_load(pub.e, ask + AMD_EXPONENT);
    number_load(pub.n, ask + AMD_MODULUS);
    ok = rsa_public_key_prepare(&pub) && pub.size == KEY_LEN &&
         key_verify(&pub, cek, AMD_PSP_CERT_BODY_LEN, sig);
    rsa_public_key_clear(&pub);
    return ok;
}
