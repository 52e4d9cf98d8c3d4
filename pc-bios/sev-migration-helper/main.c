/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parts of the helper that need a vCPU without an operating system
 */
#include "helper.h"

#define LARGE_PAGE_SIZE 0x200000ULL

static MhHelper helper;

/* The compiler generates calls of these functions */
void *memcpy(void *dst, const void *src, size_t size)
{
    void *d = dst;

    asm volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(size) : : "memory");
    return dst;
}

void *memset(void *dst, int value, size_t size)
{
    void *d = dst;

    asm volatile("rep stosb" : "+D"(d), "+c"(size) : "a"(value) : "memory");
    return dst;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a, *y = b;
    size_t i;

    for (i = 0; i < size; i++) {
        if (x[i] != y[i]) {
            return x[i] - y[i];
        }
    }
    return 0;
}

bool mh_random(void *buf, size_t size)
{
    return mh_rdrand(buf, size);
}

/*
 * Only vCPU @n uses and changes its entry of the page directory.  INVLPG on
 * this vCPU therefore removes the old translation from the TLB.  This vCPU
 * never uses an old translation from another CPU's TLB: KVM flushes a CPU's TLB
 * before it runs a vCPU on the CPU, if the vCPU last ran on another CPU or the
 * CPU last ran another vCPU of the guest.
 */
void *mh_guest_page(unsigned n, const MhImage *image, uint64_t gpa)
{
    uint64_t *pd = (uint64_t *)(MH_VA + MH_PD);
    uint64_t va = MH_GUEST_VA(n);
    uint64_t entry = (gpa & ~(LARGE_PAGE_SIZE - 1)) | image->c_bit | MH_PTE_P |
        MH_PTE_W | MH_PTE_AD | MH_PTE_PS | MH_PTE_NX;

    if (pd[MH_PD_INDEX(va)] != entry) {
        pd[MH_PD_INDEX(va)] = entry;
        asm volatile("invlpg (%0)" : : "r"(va) : "memory");
    }
    return (void *)(va + (gpa & (LARGE_PAGE_SIZE - 1)));
}

static uint64_t read_xcr0(void)
{
    uint32_t low, high;

    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (uint64_t)high << 32;
}

static void write_xcr0(uint64_t value)
{
    asm volatile("xsetbv" : : "c"(0), "a"((uint32_t)value),
                 "d"((uint32_t)(value >> 32)));
}

/*
 * If XCR0 has its reset value, the vCPU is new.  It may run on another host
 * than the vCPU that had this number before, so choose the implementation
 * again.
 */
uint64_t mh_main(unsigned n)
{
    uint64_t xcr0 = read_xcr0();

    if (xcr0 == 1) {
        if (mh_wanted_xcr0()) {
            xcr0 = mh_wanted_xcr0();
            write_xcr0(xcr0);
        }
        helper.cpu[n].impl = mh_impl(xcr0);
    }
    mh_command(&helper, n, &mh_image, (void *)MH_SHARED_VA((uint64_t)n));
    return xcr0;
}
