/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random numbers from RDRAND
 */
#include "helper.h"

/* AMD and Intel recommend 10 attempts before RDRAND counts as failed */
#define ATTEMPTS 10

static bool rdrand64(uint64_t *value)
{
    int i;

    for (i = 0; i < ATTEMPTS; i++) {
        unsigned char carry;

        asm volatile("rdrand %0; setc %1" : "=r"(*value), "=qm"(carry)
                     : : "cc");
        if (carry) {
            return true;
        }
    }
    return false;
}

bool mh_rdrand(void *buf, size_t size)
{
    uint64_t value, previous;
    bool good = rdrand64(&previous);
    size_t i;

    for (i = 0; i < size; i += 8) {
        /*
         * After suspend, RDRAND returned a constant on some processors, and
         * reported success.  Treat a repeated value as a failure, therefore.
         * A good source repeats a value only once in 2^64 times.
         */
        good = good && rdrand64(&value) && value != previous;
        if (!good) {
            __builtin_memset(buf, 0, size);
            return false;
        }
        __builtin_memcpy((uint8_t *)buf + i, &value, 8);
        previous = value;
    }
    return true;
}
