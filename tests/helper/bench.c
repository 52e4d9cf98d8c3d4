/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Speed of the migration helper on one core, beside OpenSSL
 *
 * The helper and OpenSSL encrypt (seal) and decrypt (open) pages of 4 KiB with
 * AES-256-GCM.  The helper's time includes its copies to and from shared
 * memory.  The program measures the CPU time of its thread and not the elapsed
 * time, so that other programs on the machine matter less.
 */
#include <openssl/evp.h>
#include "../l1/harness.h"
#include "native.h"

#define SECONDS 0.5

static const char *names[] = {
    [MH_IMPL_AESNI_AVX] = "AES-NI", [MH_IMPL_VAES_AVX2] = "VAES with AVX2",
    [MH_IMPL_VAES_AVX512] = "VAES with AVX-512",
};

static double cpu_time(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void print(const char *name, double seal, double open)
{
    printf("%-18s seal %5.2f GB/s, open %5.2f GB/s\n", name, seal, open);
}

static void bench_impl(uint32_t impl)
{
    Native *from = native_new(impl), *to;
    uint64_t bytes = 0, i;
    double seal = 0, open = 0, t;

    native_run(from, 0, MH_NEW_KEY);
    to = native_copy(from);
    to->helper.cpu[0].impl = impl;
    native_run(from, 0, MH_SEND);
    native_run(to, 0, MH_RECEIVE);
    mailbox(from, 0)->count = MH_BATCH_PAGES;
    while (seal + open < 2 * SECONDS) {
        for (i = 0; i < MH_BATCH_PAGES; i++) {
            pages(from, 0)[i].gpa = i * MH_PAGE_SIZE;
        }
        t = cpu_time();
        if (native_run(from, 0, MH_SEAL)) {
            bail("seal");
        }
        seal += cpu_time() - t;
        mailbox(to, 0)->batch = mailbox(from, 0)->batch;
        memcpy(pages(to, 0), pages(from, 0), MH_BATCH_PAGES * sizeof(MhPage));
        memcpy(data(to, 0), data(from, 0), MH_BATCH_PAGES * MH_PAGE_SIZE);
        t = cpu_time();
        if (native_run(to, 0, MH_OPEN)) {
            bail("open");
        }
        open += cpu_time() - t;
        bytes += MH_BATCH_PAGES * MH_PAGE_SIZE;
    }
    print(names[impl], bytes / seal / 1e9, bytes / open / 1e9);
    native_free(from);
    native_free(to);
}

static void bench_openssl(void)
{
    static uint8_t in[MH_BATCH_PAGES][4096], out[MH_BATCH_PAGES][4096];
    static uint8_t tags[MH_BATCH_PAGES][16];
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t key[32] = { 1 }, iv[12] = { 2 }, ad[48] = { 3 };
    double time[2] = { 0, 0 }, t;
    uint64_t bytes = 0;
    int i, n, way;

    while (time[0] + time[1] < 2 * SECONDS) {
        for (way = 0; way < 2; way++) {
            t = cpu_time();
            EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, iv, !way);
            for (i = 0; i < MH_BATCH_PAGES; i++) {
                EVP_CipherInit_ex(ctx, NULL, NULL, NULL, iv, !way);
                EVP_CipherUpdate(ctx, NULL, &n, ad, sizeof(ad));
                EVP_CipherUpdate(ctx, out[i], &n, way ? out[i] : in[i], 4096);
                if (way) {
                    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16,
                                        tags[i]);
                }
                if (EVP_CipherFinal_ex(ctx, out[i], &n) != 1) {
                    bail("OpenSSL");
                }
                if (!way) {
                    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16,
                                        tags[i]);
                }
            }
            time[way] += cpu_time() - t;
        }
        bytes += sizeof(in);
    }
    print("OpenSSL", bytes / time[0] / 1e9, bytes / time[1] / 1e9);
    EVP_CIPHER_CTX_free(ctx);
}

int main(void)
{
    native_each_impl(bench_impl);
    bench_openssl();
    return 0;
}
