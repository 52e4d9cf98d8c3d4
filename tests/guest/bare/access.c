/*
 * A guest that lets QEMU access its private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest gives private pages to a device that does DMA (fw_cfg).  At the end it
 * accesses MMIO with an instruction that KVM cannot emulate, so that QEMU prints
 * the bytes of the code, which is private as well.
 *
 * Console output: one line for each step, which ends with "ok" or "BAD"; then
 * "trap".
 */
#include <stdint.h>

#define PAGE 4096ul
#define AREA (4ul << 20)
#define SHARED (1ul << 39)      /* start.S */

#define HC_MAP_GPA_RANGE 12
#define MAP_ENCRYPTED (1 << 4)

/* See docs/specs/fw_cfg.rst; all fields are big-endian */
#define FW_CFG_DMA 0x514
#define FW_CFG_ERROR 1
#define FW_CFG_READ 2
#define FW_CFG_SELECT 8         /* entry 0, the signature "QEMU" */
#define SIGNATURE 0x554d4551u

typedef struct Descriptor {
    volatile uint32_t control;
    volatile uint32_t length;
    volatile uint64_t address;
} Descriptor;

static void say(const char *s)
{
    while (*s) {
        asm volatile("outb %0, %1" : : "a"(*s++), "Nd"((uint16_t)0x3f8));
    }
}

static void result(const char *what, int ok)
{
    say(what);
    say(ok ? ": ok\n" : ": BAD\n");
}

static void map_gpa_range(uint64_t gpa, uint64_t npages, uint64_t attributes)
{
    long ret;

    do {
        asm volatile("vmmcall" : "=a"(ret) : "a"(HC_MAP_GPA_RANGE), "b"(gpa),
                     "c"(npages), "d"(attributes) : "memory");
    } while (ret);
}

static void outl(uint16_t port, uint32_t val)
{
    asm volatile("outl %0, %1" : : "a"(val), "Nd"(port));
}

/*
 * Let the device write the signature to @to.  The address of the descriptor is
 * @at.  The guest writes and reads the descriptor through the mapping at @at +
 * @alias, which is private or shared.
 */
static uint32_t dma(uint64_t at, uint64_t alias, uint64_t to)
{
    Descriptor *d = (Descriptor *)(at + alias);

    d->control = __builtin_bswap32(FW_CFG_READ | FW_CFG_SELECT);
    d->length = __builtin_bswap32(4);
    d->address = __builtin_bswap64(to);
    outl(FW_CFG_DMA, __builtin_bswap32(at >> 32));
    outl(FW_CFG_DMA + 4, __builtin_bswap32(at));
    return __builtin_bswap32(d->control);
}

void main(void)
{
    uint64_t desc = AREA, target = AREA + PAGE;
    volatile uint32_t *data = (uint32_t *)target;
    volatile uint32_t *shared = (uint32_t *)(target + SHARED);
    uint32_t control;

    map_gpa_range(AREA, 2, MAP_ENCRYPTED);
    *data = 0x12345678;

    /*
     * The descriptor is private, so the device reads zeros and does nothing.
     * QEMU drops the device's answer, which it cannot write to the private
     * descriptor.
     */
    control = dma(desc, 0, target);
    result("private descriptor", control == (FW_CFG_READ | FW_CFG_SELECT) &&
           *data == 0x12345678);

    map_gpa_range(desc, 1, 0);
    control = dma(desc, SHARED, target);
    result("private target", !(control & ~FW_CFG_ERROR) &&
           *data == 0x12345678);

    /*
     * When the device accessed the private target, QEMU mapped a page of zeros
     * in place of the target.  When the target becomes shared, QEMU must map
     * the target itself again, so that the device writes there.
     */
    map_gpa_range(target, 1, 0);
    *shared = 0;
    control = dma(desc, SHARED, target);
    result("shared target", !control && *shared == SIGNATURE);

    say("trap\n");
    asm volatile("lock cmpxchg16b (%0)" : : "r"(0xfed00000ul), "a"(0), "b"(0),
                 "c"(0), "d"(0) : "memory", "cc");
    result("trap", 0);
}
