/*
 * SHAKE128 (FIPS 202), the hash of the guest's digests.  Python's hashlib has
 * it, so python/sevmig/guest.py can compute the digests.
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

/** shake_finish: end the message; after this, call only shake_squeeze() */
void shake_finish(Shake *s);

/** shake_squeeze: write the next @len bytes of output to @out */
void shake_squeeze(Shake *s, void *out, size_t len);

#endif
