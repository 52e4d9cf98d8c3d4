/*
 * SHAKE128 (FIPS 202): the guest's digests, which Python's hashlib knows too
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_GUEST_SHAKE_H
#define TESTS_GUEST_SHAKE_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that one permutation absorbs or squeezes */
#define SHAKE128_RATE 168

typedef struct Shake {
    uint64_t lane[25];
    size_t pos;         /* bytes since the last permutation */
} Shake;

/** shake_init: begin a message */
void shake_init(Shake *s);

/** shake_absorb: append @len bytes to the message */
void shake_absorb(Shake *s, const void *data, size_t len);

/** shake_finish: the message is complete; only shake_squeeze() may follow */
void shake_finish(Shake *s);

/** shake_squeeze: the next @len bytes of output */
void shake_squeeze(Shake *s, void *out, size_t len);

#endif
