/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Find out which instructions and vector registers the CPU has
 */
#include <cpuid.h>
#include "helper.h"

#define XCR0_AVX        0x7ULL      /* x87, SSE, AVX */
#define XCR0_AVX512     0xe0ULL     /* masks, upper halves, registers 16-31 */

/* CPUID leaf 1, ECX */
#define PCLMULQDQ       (1U << 1)
#define SSSE3           (1U << 9)
#define SSE4_1          (1U << 19)
#define AES             (1U << 25)
#define XSAVE           (1U << 26)
#define AVX             (1U << 28)
#define RDRAND          (1U << 30)
/* CPUID leaf 7, EBX */
#define BMI1            (1U << 3)
#define AVX2            (1U << 5)
#define BMI2            (1U << 8)
#define AVX512F         (1U << 16)
#define AVX512BW        (1U << 30)
#define AVX512VL        (1U << 31)
/* CPUID leaf 7, ECX */
#define VAES            (1U << 9)
#define VPCLMULQDQ      (1U << 10)

#define ALL(value, bits) (((value) & (bits)) == (bits))

static uint32_t max_leaf(void)
{
    uint32_t a, b, c, d;

    __cpuid(0, a, b, c, d);
    return a;
}

uint64_t mh_wanted_xcr0(void)
{
    uint32_t a, b, c, d;

    if (max_leaf() < 0xd) {
        return 0;
    }
    __cpuid_count(0xd, 0, a, b, c, d);
    if (!ALL(a, XCR0_AVX)) {
        return 0;
    }
    return XCR0_AVX | (ALL(a, XCR0_AVX512) ? XCR0_AVX512 : 0);
}

uint32_t mh_impl(uint64_t xcr0)
{
    uint32_t a, b, c, d;

    if (max_leaf() < 0xd || !ALL(xcr0, XCR0_AVX)) {
        return 0;
    }
    __cpuid(1, a, b, c, d);
    if (!ALL(c, PCLMULQDQ | SSSE3 | SSE4_1 | AES | XSAVE | AVX | RDRAND)) {
        return 0;
    }
    __cpuid_count(7, 0, a, b, c, d);
    if (!ALL(b, AVX2 | BMI1 | BMI2) || !ALL(c, VAES | VPCLMULQDQ)) {
        return MH_IMPL_AESNI_AVX;
    }
    if (!ALL(b, AVX512F | AVX512BW | AVX512VL) || !ALL(xcr0, XCR0_AVX512)) {
        return MH_IMPL_VAES_AVX2;
    }
    return MH_IMPL_VAES_AVX512;
}
