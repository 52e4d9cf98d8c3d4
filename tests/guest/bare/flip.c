/*
 * A guest that converts pages as fast as it can and checks their contents
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The contents of each page of an area follow from a count, which the guest
 * keeps in private memory outside of the area.  In a step, the guest chooses a
 * run of pages, checks that they have the contents that it last wrote, converts
 * them, and writes to them.  It always writes to a page whose state has
 * changed, because the contents after a conversion are undefined.  It writes to
 * the other pages in half of the steps.  After each pass the guest checks all
 * pages.  It thus finds a page that was migrated by the wrong path, or that was
 * not sent again after it was converted or written.
 *
 * With PAM=1 the area is memory that the PAM registers of q35 hide at reset, and
 * the guest makes it visible.  With PAM=2 the guest hides the area again after
 * each pass, so that a migration usually happens while the area is hidden.
 *
 * With PAUSE=N the guest counts to N between the flush of pages and their
 * conversion to private, so that a migration usually happens at this point.
 *
 * If the machine has an empty slot for memory, the guest prints "no memory yet"
 * and waits until memory is plugged in.  This memory is the area.
 *
 * Output on the console after each pass:
 *   flip PASS converted PAGES calls CALLS retries RETRIES bad BAD
 */
#include <stdint.h>

#define PAGE 4096ul
#ifndef AREA
#define AREA (4ul << 20)
#endif
#ifndef PAGES
#define PAGES 1024u
#endif
#ifndef PAM
#define PAM 0
#endif
#define SHARED (1ul << 39)      /* offset of the shared mapping, see start.S */
/* a page that the guest converts but never uses */
#define TOLD (2ul << 20)
#define RUN_MAX 64
#ifndef STEPS
#define STEPS 128               /* number of steps in a pass */
#endif
#ifndef PAUSE
#define PAUSE 0u
#endif

#define MSR_MIGRATION_CONTROL 0x4b564d08
#define MIGRATION_READY 1
#define HC_MAP_GPA_RANGE 12
#define MAP_ENCRYPTED (1 << 4)

/*
 * The PAM registers of q35's host bridge, device 0.  They control
 * 0xf0000-0xfffff and 0xc0000-0xeffff.
 */
#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc
#define PAM_FIRST 0x90
#define PAM_LAST 0x96
/*
 * The value that makes both ranges of a PAM register visible.  PAM_FIRST
 * controls only one range, with its upper 4 bits.
 */
#define PAM_OPEN 0x33

/* docs/specs/acpi_mem_hotplug.rst */
#define SLOT_SELECT 0xa00
#define SLOT_FLAGS 0xa14
#define SLOT_ENABLED 1

/* volatile, because the guest must notice memory that changes by itself */
typedef volatile uint64_t Word;

static uint32_t count_of[PAGES];
static uint8_t is_shared[PAGES];
static uint32_t count;
static uint64_t converted, calls, retries, bad;

static inline void out(uint16_t port, uint8_t val)
{
    asm volatile("outb %0, %1" : : "a"(val), "Nd"(port));
}

static inline uint8_t in(uint16_t port)
{
    uint8_t val;

    asm volatile("inb %1, %0" : "=a"(val) : "Nd"(port));
    return val;
}

static inline void wrmsr(uint32_t msr, uint64_t val)
{
    asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)val),
                 "d"((uint32_t)(val >> 32)));
}

static long map_gpa_range(uint64_t gpa, uint64_t npages, uint64_t attributes)
{
    long ret;

    asm volatile("vmmcall" : "=a"(ret) : "a"(HC_MAP_GPA_RANGE), "b"(gpa),
                 "c"(npages), "d"(attributes) : "memory");
    return ret;
}

static void say(const char *s)
{
    while (*s) {
        out(0x3f8, *s++);
    }
}

static void say_number(const char *name, uint64_t n)
{
    char text[24], *p = text + sizeof(text);

    *--p = 0;
    do {
        *--p = '0' + n % 10;
        n /= 10;
    } while (n);
    say(name);
    say(p);
}

static uint32_t random_below(uint32_t n)
{
    static uint64_t x = 88172645463325252ull;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (x >> 20) % n;
}

/* The address at which the guest accesses the page in its current state */
static Word *page_at(uint32_t page)
{
    return (Word *)(AREA + page * PAGE +
                    (is_shared[page] ? SHARED : 0));
}

/* The contents of word @i of @page.  The guest uses one word per cache line. */
static uint64_t word_of(uint32_t page, uint32_t i)
{
    return ((uint64_t)count_of[page] << 32 | page) * 0x9e3779b97f4a7c15ull + i;
}

static void fill(uint32_t page)
{
    Word *p = page_at(page);

    count_of[page] = ++count;
    for (uint32_t i = 0; i < PAGE / 8; i += 8) {
        p[i] = word_of(page, i);
    }
}

static void look(uint32_t page)
{
    Word *p = page_at(page);

    for (uint32_t i = 0; i < PAGE / 8; i += 8) {
        if (p[i] != word_of(page, i)) {
            bad++;
            /*
             * Restore the contents, so that the next check of this page does
             * not count the same error again
             */
            fill(page);
            return;
        }
    }
}

/*
 * Flush the page from the caches through the mapping for its state before the
 * conversion.  Processors can have separate lines for accesses with and without
 * the C-bit.  Without the flush, a dirty line from before the conversion could
 * be written back later and destroy newer contents.  Linux flushes for the same
 * reason.
 */
static void flush(uint32_t page)
{
    Word *p = page_at(page);

    for (uint32_t i = 0; i < PAGE / 8; i += 8) {
        asm volatile("clflush %0" : "+m"(p[i]));
    }
    asm volatile("mfence" : : : "memory");
}

static void pause(uint32_t n)
{
    for (volatile uint32_t i = 0; i < n; i++) {
    }
}

static void step(void)
{
    uint32_t first = random_below(PAGES), n = 1 + random_below(RUN_MAX);
    uint32_t to_shared = random_below(2), rewrite = random_below(2);

    if (n > PAGES - first) {
        n = PAGES - first;
    }
    for (uint32_t i = first; i < first + n; i++) {
        look(i);
        if (is_shared[i] != to_shared) {
            flush(i);
        }
    }
    if (!to_shared) {
        pause(PAUSE);
    }
    while (map_gpa_range(AREA + first * PAGE, n,
                         to_shared ? 0 : MAP_ENCRYPTED)) {
        retries++;
    }
    calls++;
    for (uint32_t i = first; i < first + n; i++) {
        if (is_shared[i] != to_shared) {
            is_shared[i] = to_shared;
            converted++;
        } else if (!rewrite) {
            continue;
        }
        fill(i);
    }
}

static void set_pam(int open)
{
    for (uint8_t reg = PAM_FIRST; reg <= PAM_LAST; reg++) {
        asm volatile("outl %0, %1" : : "a"(0x80000000u | (reg & ~3)),
                     "Nd"((uint16_t)PCI_ADDRESS));
        out(PCI_DATA + (reg & 3),
            !open ? 0 : reg == PAM_FIRST ? PAM_OPEN & 0xf0 : PAM_OPEN);
    }
}

/*
 * Return false if the guest must wait because the first slot for plugged memory
 * is empty.  On a machine without such slots, the read returns all ones, so
 * this function returns true and the guest does not wait.
 */
static int has_memory(void)
{
    asm volatile("outl %0, %1" : : "a"(0), "Nd"((uint16_t)SLOT_SELECT));
    return in(SLOT_FLAGS) & SLOT_ENABLED;
}

void main(void)
{
    /*
     * @is_shared says that all pages are private, but QEMU makes in-place RAM
     * private only at the guest's first hypercall.  So the guest makes a
     * hypercall before it writes to its pages, and repeats this hypercall until
     * it succeeds.
     */
    while (map_gpa_range(TOLD, 1, MAP_ENCRYPTED)) {
        retries++;
    }
    if (!has_memory()) {
        say("no memory yet\n");
        while (!has_memory()) {
        }
    }
    if (PAM) {
        set_pam(1);
    }
    for (uint32_t i = 0; i < PAGES; i++) {
        fill(i);
    }
    wrmsr(MSR_MIGRATION_CONTROL, MIGRATION_READY);
    for (uint64_t pass = 0; ; pass++) {
        if (PAM) {
            set_pam(1);
        }
        for (int i = 0; i < STEPS; i++) {
            step();
        }
        for (uint32_t i = 0; i < PAGES; i++) {
            look(i);
        }
        if (PAM > 1) {
            set_pam(0);
            pause(10000000);
        }
        say_number("flip ", pass);
        say_number(" converted ", converted);
        say_number(" calls ", calls);
        say_number(" retries ", retries);
        say_number(" bad ", bad);
        say("\n");
    }
}
