/*
 * SHAKE128 (FIPS 202)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "shake.h"

#include <string.h>

#define ROUNDS 24

static uint64_t rol(uint64_t v, unsigned n)
{
    return v << n | v >> (64 - n);
}

/* iota's constants, FIPS 202, 3.2.5 */
static const uint64_t iota[ROUNDS] = {
    0x0000000000000001ULL, 0x0000000000008082ULL, 0x800000000000808aULL,
    0x8000000080008000ULL, 0x000000000000808bULL, 0x0000000080000001ULL,
    0x8000000080008081ULL, 0x8000000000008009ULL, 0x000000000000008aULL,
    0x0000000000000088ULL, 0x0000000080008009ULL, 0x000000008000000aULL,
    0x000000008000808bULL, 0x800000000000008bULL, 0x8000000000008089ULL,
    0x8000000000008003ULL, 0x8000000000008002ULL, 0x8000000000000080ULL,
    0x000000000000800aULL, 0x800000008000000aULL, 0x8000000080008081ULL,
    0x8000000000008080ULL, 0x0000000080000001ULL, 0x8000000080008008ULL,
};

/* rho and pi in one pass over the lanes, which begins at lane 1 */
static const uint8_t walk_lane[24] = {
    10, 7, 11, 17, 18, 3, 5, 16, 8, 21, 24, 4,
    15, 23, 19, 13, 12, 2, 20, 14, 22, 9, 6, 1,
};
static const uint8_t walk_rol[24] = {
    1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 2, 14,
    27, 41, 56, 8, 25, 43, 62, 18, 39, 61, 20, 44,
};

static void permute(uint64_t a[25])
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t c[5], d, last, next;

        /* theta */
        for (unsigned i = 0; i < 5; i++) {
            c[i] = a[i] ^ a[i + 5] ^ a[i + 10] ^ a[i + 15] ^ a[i + 20];
        }
        for (unsigned i = 0; i < 5; i++) {
            d = c[(i + 4) % 5] ^ rol(c[(i + 1) % 5], 1);
            for (unsigned j = 0; j < 25; j += 5) {
                a[j + i] ^= d;
            }
        }
        /* rho and pi */
        last = a[1];
        for (unsigned t = 0; t < 24; t++) {
            next = a[walk_lane[t]];
            a[walk_lane[t]] = rol(last, walk_rol[t]);
            last = next;
        }
        /* chi */
        for (unsigned j = 0; j < 25; j += 5) {
            for (unsigned i = 0; i < 5; i++) {
                c[i] = a[j + i];
            }
            for (unsigned i = 0; i < 5; i++) {
                a[j + i] = c[i] ^ (~c[(i + 1) % 5] & c[(i + 2) % 5]);
            }
        }
        a[0] ^= iota[round];
    }
}

void shake_init(Shake *s)
{
    memset(s, 0, sizeof(*s));
}

void shake_absorb(Shake *s, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint8_t *state = (uint8_t *)s->lane;

    while (len) {
        size_t n = SHAKE128_RATE - s->pos;

        n = n < len ? n : len;
        if (n == SHAKE128_RATE) {
            for (size_t i = 0; i < SHAKE128_RATE / 8; i++) {
                uint64_t v;

                memcpy(&v, p + i * 8, sizeof(v));
                s->lane[i] ^= v;
            }
        } else {
            for (size_t i = 0; i < n; i++) {
                state[s->pos + i] ^= p[i];
            }
        }
        s->pos += n;
        p += n;
        len -= n;
        if (s->pos == SHAKE128_RATE) {
            permute(s->lane);
            s->pos = 0;
        }
    }
}

void shake_finish(Shake *s)
{
    uint8_t *state = (uint8_t *)s->lane;

    state[s->pos] ^= 0x1f;
    state[SHAKE128_RATE - 1] ^= 0x80;
    permute(s->lane);
    s->pos = 0;
}

void shake_squeeze(Shake *s, void *out, size_t len)
{
    uint8_t *p = out;

    while (len) {
        size_t n = SHAKE128_RATE - s->pos;

        if (!n) {
            permute(s->lane);
            s->pos = 0;
            continue;
        }
        n = n < len ? n : len;
        memcpy(p, (uint8_t *)s->lane + s->pos, n);
        s->pos += n;
        p += n;
        len -= n;
    }
}
