/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The migration helper inside a Linux program
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "native.h"

const uint8_t *random_bytes;
size_t random_left;
bool random_fails;

static void *allocate(size_t size)
{
#ifdef NATIVE_HEAP
    /* ASAN detects accesses beyond the end */
    return memset(aligned_alloc(MH_PAGE_SIZE, size), 0, size);
#else
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        abort();
    }
    return p;
#endif
}

static void release(void *p, size_t size)
{
#ifdef NATIVE_HEAP
    (void)size;
    free(p);
#else
    munmap(p, size);
#endif
}

bool mh_random(void *buf, size_t size)
{
    if (random_fails) {
        return false;
    }
    if (!random_bytes) {
        return mh_rdrand(buf, size);
    }
    if (size > random_left) {
        return false;
    }
    memcpy(buf, random_bytes, size);
    random_bytes += size;
    random_left -= size;
    return true;
}

void *mh_guest_page(unsigned n, const MhImage *image, uint64_t gpa)
{
    Native *native = (Native *)((uint8_t *)image - offsetof(Native, image));

    (void)n;
    native->mapped = gpa;
    if (gpa >= ALIAS) {
        gpa -= ALIAS;
    }
    /*
     * Under KVM, an access to an address without memory would end the command;
     * here such addresses wrap
     */
    return native->guest + gpa % GUEST_SIZE;
}

Native *native_new(uint32_t impl)
{
    Native *native = aligned_alloc(64, (sizeof(*native) + 63) / 64 * 64);
    unsigned n;

    memset(native, 0, sizeof(*native));
    native->image = (MhImage) {
        .private_gpa = PRIVATE_GPA, .shared_gpa = SHARED_GPA,
        .c_bit = 1ULL << 47, .gpa_limit = GPA_LIMIT,
    };
    native->guest = allocate(GUEST_SIZE);
    for (n = 0; n < MH_CPUS; n++) {
        native->shared[n] = allocate(MH_CPU_SHARED_SIZE);
        native->helper.cpu[n].impl = impl;
    }
    return native;
}

Native *native_copy(const Native *from)
{
    Native *native = native_new(0);

    native->helper = from->helper;
    return native;
}

void native_free(Native *native)
{
    unsigned n;

    release(native->guest, GUEST_SIZE);
    for (n = 0; n < MH_CPUS; n++) {
        release(native->shared[n], MH_CPU_SHARED_SIZE);
    }
    free(native);
}

void native_each_impl(void (*f)(uint32_t impl))
{
    uint32_t low, high, impl;

    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    for (impl = 1; impl <= mh_impl(low); impl++) {
        f(impl);
    }
}

uint32_t native_run(Native *native, unsigned n, uint32_t command)
{
    mailbox(native, n)->command = command;
    mailbox(native, n)->status = MH_RUNNING;
    mh_command(&native->helper, n, &native->image, native->shared[n]);
    return mailbox(native, n)->status;
}
