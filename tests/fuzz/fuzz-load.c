/*
 * Fuzzer of the loader of private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An input is a byte that selects the destination (machine.h), followed by the
 * RAM section of a migration stream.  See docs/devel/fuzzing.rst.
 *
 * With FUZZ_SEEDS=DIR in the environment, the program writes seeds to DIR and
 * ends.  The source's own code makes the seeds.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "migration/encrypted/encrypted-records.h"
#include "migration/ram.h"
#include "target/i386/sev/sev-migration-wire.h"
#include "machine.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
                               unsigned int seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t alen,
                                 const uint8_t *b, size_t blen,
                                 uint8_t *out, size_t max, unsigned int seed);

/*
 * The first byte of an input selects the machine.  If its upper three bits are
 * those of BIG_BYTE, the input uses the big machine and takes a hundred times
 * as long as other inputs.  Therefore only the seeds that need the big machine
 * select it, and the mutation MACHINE changes only the lower five bits.
 */
#define BIG_BYTE 0xa0

static unsigned config_of(uint8_t first)
{
    return (first & 31) | ((first & 0xe0) == BIG_BYTE ? MACHINE_BIG : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!len) {
        return -1;
    }
    machine_new(config_of(data[0]));
    machine_load(data + 1, len - 1);
    machine_free();
    return 0;
}

/*
 * Seeds
 */

static void put64(GByteArray *out, uint64_t v)
{
    v = cpu_to_be64(v);
    g_byte_array_append(out, (uint8_t *)&v, sizeof(v));
}

static void put_name(GByteArray *out, const char *name)
{
    uint8_t n = strlen(name);

    g_byte_array_append(out, &n, 1);
    g_byte_array_append(out, (const uint8_t *)name, n);
}

static void put_session(GByteArray *out)
{
    g_autoptr(GPtrArray) blocks = encrypted_blocks();
    g_autoptr(GByteArray) session = g_byte_array_new();

    sev_wire_put_session(session, &(SevWireSession) {
        .policy = machine_policy,
        .below_4g = MACHINE_BELOW_4G,
        .pdh = (const uint8_t *)"PDH", .pdh_len = 3,
        .session = (const uint8_t *)"session", .session_len = 7,
    });
    g_assert(encrypted_record_session(out, blocks, 0, session, &error_abort));
}

/* Write a record of private pages; @size: bytes of each page's packet */
static void put_pages(GByteArray *out, uint32_t block, uint64_t page,
                      uint64_t n, size_t size)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    uint8_t trans[PAGE] = {};

    for (uint64_t i = 0; i < n; i++) {
        sev_wire_put_packet(payload, &(SevWirePacket) {
            .hdr = (const uint8_t *)"h", .hdr_len = 1,
            .trans = trans, .trans_len = size,
        });
    }
    g_assert(encrypted_record_pages(out, block, page * PAGE, n, payload,
                                    &error_abort));
}

/* Write packets of 4, 2 and 1 pages */
static void put_large(GByteArray *out, uint32_t block, uint64_t page,
                      uint64_t n)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    uint8_t trans[SEV_WIRE_TRANS_MAX] = {};

    for (uint64_t left = n, pages; left; left -= pages) {
        pages = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        sev_wire_put_packet(payload, &(SevWirePacket) {
            .hdr = (const uint8_t *)"h", .hdr_len = 1,
            .trans = trans, .trans_len = pages * PAGE,
        });
    }
    g_assert(encrypted_record_pages(out, block, page * PAGE, n, payload,
                                    &error_abort));
}

static void put_plain(GByteArray *out, RAMBlock *rb, uint64_t page,
                      bool again, bool zero)
{
    static const uint8_t content[PAGE] = { 1 };

    put64(out, page * PAGE | (zero ? RAM_SAVE_FLAG_ZERO : RAM_SAVE_FLAG_PAGE) |
          (again ? RAM_SAVE_FLAG_CONTINUE : 0));
    if (!again) {
        put_name(out, rb->idstr);
    }
    g_byte_array_append(out, content + zero, zero ? 1 : PAGE);
}

static void put_unallocated(GByteArray *out, const char *name, uint64_t page,
                            uint64_t n)
{
    g_autoptr(GPtrArray) blocks = encrypted_blocks();
    guint block;

    g_assert(g_ptr_array_find(blocks, machine_block(name), &block));
    encrypted_record_unallocated(out, block, page, n);
}

/*
 * Write private pages in runs of up to @run pages, and shared ones as zero
 * pages
 */
static void put_memory(GByteArray *out, unsigned run, size_t size)
{
    g_autoptr(GPtrArray) blocks = encrypted_blocks();

    for (guint i = 0; i < blocks->len; i++) {
        RAMBlock *rb = g_ptr_array_index(blocks, i);
        uint64_t end = MIN(rb->used_length / PAGE, 1000), n;
        bool named = false;

        for (uint64_t page = 0; page < end; page += n) {
            bool private;

            n = encbitmap_run(rb, page, MIN(page + run, end), &private);
            if (private) {
                put_pages(out, i, page, n, size);
            } else {
                n = 1;
                if (page % 16 == 3) {
                    put_plain(out, rb, page, named && page % 32 == 3, true);
                    named = true;
                }
            }
        }
    }
}

static void put_end(GByteArray *out)
{
    g_autoptr(GPtrArray) blocks = encrypted_blocks();
    g_autoptr(GByteArray) final = g_byte_array_new();
    uint32_t block = 0;
    uint64_t first = 0;

    while (encrypted_record_state(out, blocks, &block, &first)) {
        /* nothing */
    }
    sev_wire_put_final(final, 1);
    g_assert(encrypted_record_final(out, final, &error_abort));
    put64(out, RAM_SAVE_FLAG_EOS);
}

static void put_sizes(GByteArray *out, const char *name, uint64_t pages)
{
    put64(out, pages * PAGE | RAM_SAVE_FLAG_MEM_SIZE);
    put_name(out, name);
    put64(out, pages * PAGE);
}

/* Make pages private at the source; the state records will say so */
static void set_private(const char *name, uint64_t first, uint64_t n)
{
    RAMBlock *rb = machine_block(name);

    encbitmap_set(rb, first, n, true);
}

/*
 * Write an ITEM_BUFFER that contains a record of @n private pages.  In a
 * migration, such a record is in a packet of a multifd channel.
 */
static void put_buffer(GByteArray *out, uint64_t page, uint64_t n, size_t size)
{
    g_autoptr(GByteArray) record = g_byte_array_new();

    put_pages(record, 0, page, n, size);
    put64(out, (uint64_t)record->len * PAGE | ITEM_BUFFER);
    g_byte_array_append(out, record->data, record->len);
}

static void put_copies(GByteArray *out, uint64_t page, uint64_t ncopies,
                       uint64_t nzero)
{
    put64(out, ncopies << 16 | nzero << 24 | ITEM_COPIES);
    for (uint64_t i = 0; i < ncopies + nzero; i++) {
        put64(out, (page + i) * PAGE);
    }
}

/* No page is private */
static void seed_shared(GByteArray *out)
{
    put_session(out);
    put_end(out);
}

/* Private pages in long runs, which are never converted */
static void seed_long_runs(GByteArray *out)
{
    set_private("pc.ram", 0, 130);
    set_private("flash0", 1, 2);
    set_private("blob", 0, 5);
    put_session(out);
    put_memory(out, 64, 2);
    put_end(out);
}

/* Short runs, alternating states, and a single page */
static void seed_short_runs(GByteArray *out)
{
    set_private("pc.ram", 10, 20);
    set_private("pc.ram", 63, 3);
    set_private("blob", 4, 1);
    put_session(out);
    put_memory(out, 3, 16);
    put_plain(out, machine_block("pc.ram"), 199, false, false);
    put_end(out);
}

/* Pages are converted while they are sent */
static void seed_conversions(GByteArray *out)
{
    set_private("pc.ram", 0, 8);
    put_session(out);
    put_memory(out, 8, 1);
    put_plain(out, machine_block("pc.ram"), 5, false, true);
    put_plain(out, machine_block("pc.ram"), 6, true, true);
    put_pages(out, 0, 6, 3, 4);
    encbitmap_set(machine_block("pc.ram"), 5, 1, false);
    set_private("pc.ram", 8, 1);
    put_end(out);
}

/* The stream resizes a RAMBlock */
static void seed_resize(GByteArray *out)
{
    put_sizes(out, "blob", 100);
    machine_block("blob")->used_length = 100 * PAGE;
    set_private("blob", 70, 20);
    put_session(out);
    put_memory(out, 20, 1);
    put_end(out);
}

/* Packets of the maximum size, and of the size that the firmware uses */
static void seed_large_packets(GByteArray *out)
{
    set_private("flash0", 0, 2);
    put_session(out);
    put_memory(out, 2, PAGE);
    put_end(out);
}

/* Plain guest */
static void seed_plain_guest(GByteArray *out)
{
    put_plain(out, machine_block("pc.ram"), 1, false, true);
    put_plain(out, machine_block("pc.rom"), 1, false, true);
    put64(out, RAM_SAVE_FLAG_EOS);
}

/* No page is shared, as after launch */
static void seed_all_private(GByteArray *out)
{
    set_private("pc.ram", 0, RAM_PAGES);
    set_private("flash0", 0, 3);
    set_private("blob", 0, 5);
    put_session(out);
    put_memory(out, 64, 1);
    put_end(out);
}

/* Most pages are unallocated; one of them becomes shared */
static void seed_unallocated(GByteArray *out)
{
    set_private("pc.ram", 0, RAM_PAGES);
    set_private("blob", 0, 5);
    put_session(out);
    put_unallocated(out, "pc.ram", 0, RAM_PAGES);
    put_pages(out, 0, 20, 10, 1);
    put_plain(out, machine_block("pc.ram"), 50, false, true);
    put_unallocated(out, "pc.ram", 50, 1);
    put_plain(out, machine_block("pc.ram"), 60, false, true);
    encbitmap_set(machine_block("pc.ram"), 60, 1, false);
    put_unallocated(out, "blob", 0, 5);
    put_end(out);
}

/* Pages arrive through channels, and some are converted */
static void seed_channels(GByteArray *out)
{
    put_session(out);
    put_buffer(out, 0, 16, 1);
    put_copies(out, 4, 3, 2);
    put_copies(out, 150, 0, 7);
    put_buffer(out, 6, 40, 2);
    put_copies(out, 20, 1, 0);
    set_private("pc.ram", 0, 46);
    encbitmap_set(machine_block("pc.ram"), 4, 2, false);
    encbitmap_set(machine_block("pc.ram"), 20, 1, false);
    put_end(out);
}

/* Packets of several pages and of one page in one record */
static void seed_packet_sizes(GByteArray *out)
{
    set_private("pc.ram", 2, 7);
    put_session(out);
    put_large(out, 0, 2, 7);
    put_end(out);
}

static void (*const seed_streams[])(GByteArray *out) = {
    seed_shared,
    seed_long_runs,
    seed_short_runs,
    seed_conversions,
    seed_resize,
    seed_large_packets,
    seed_plain_guest,
    seed_all_private,
    seed_unallocated,
    seed_channels,
    seed_packet_sizes,
};

#define SEEDS G_N_ELEMENTS(seed_streams)

/* Write a stream of the big machine; @pages: whether it has private pages */
static void seed_big(GByteArray *out, bool pages)
{
    put_session(out);
    if (pages) {
        set_private("pc.ram", 0, 40);
        put_memory(out, 16, 3);
        set_private("pc.ram", BIG_PAGES - 70, 3);
        put_pages(out, 0, BIG_PAGES - 70, 3, 5);
    }
    put_end(out);
}

/*
 * Return a seed: a byte that selects the destination's machine, and a stream.
 * @config: the machine, a combination of MACHINE_*.  Machines with MACHINE_BIG
 *          have streams of their own.  All other machines get the same streams.
 * @number: number of the stream, less than SEEDS
 */
static GByteArray *seed(unsigned config, unsigned number)
{
    GByteArray *out = g_byte_array_new();
    uint8_t first = config & MACHINE_BIG ? BIG_BYTE | (config & 31) : config;

    g_byte_array_append(out, &first, 1);
    machine_new(config & MACHINE_BIG);
    if (config & MACHINE_BIG) {
        seed_big(out, number);
    } else {
        seed_streams[number](out);
    }
    machine_free();
    return out;
}

/*
 * Check that a destination accepts each seed, because a seed that is refused
 * early would cover little code
 */
static void write_seeds(const char *dir)
{
    static const unsigned configs[] = {
        0, MACHINE_PRIVATE, MACHINE_KERNEL, MACHINE_PLAIN,
        MACHINE_BATCH, MACHINE_BATCH | MACHINE_REFUSES,
        MACHINE_BATCH | MACHINE_KERNEL,
        MACHINE_PRIVATE | MACHINE_KERNEL | MACHINE_REFUSES, MACHINE_BIG,
    };

    for (unsigned number = 0; number < SEEDS; number++) {
        unsigned accepted = 0;

        for (size_t i = 0; i < G_N_ELEMENTS(configs); i++) {
            g_autofree char *path = g_strdup_printf("%s/seed-%u-%u", dir,
                                                    configs[i], number);
            g_autoptr(GByteArray) in = NULL;

            if (configs[i] & MACHINE_BIG && number > 1) {
                continue;
            }
            in = seed(configs[i], number);
            machine_new(configs[i]);
            accepted += machine_load(in->data + 1, in->len - 1);
            machine_free();
            if (!g_file_set_contents(path, (char *)in->data, in->len, NULL)) {
                fprintf(stderr, "cannot write %s\n", path);
                exit(1);
            }
        }
        if (!accepted) {
            fprintf(stderr, "seed %u is accepted by no machine\n", number);
            exit(1);
        }
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *dir = getenv("FUZZ_SEEDS");

    if (dir) {
        write_seeds(dir);
        exit(0);
    }
    return 0;
}

/*
 * Mutations that know the structure of an item.  Half of all mutations are
 * libFuzzer's own, which do not know this structure.
 */

#define ITEMS_MAX 256

typedef struct Item {
    const uint8_t *data;
    size_t len;
} Item;

static size_t item_len(const uint8_t *p, size_t left)
{
    uint64_t word;
    size_t len = 8, n;

    if (left < 8) {
        return left;
    }
    word = ldq_be_p(p);
    switch (word & (PAGE - 1) & ~RAM_SAVE_FLAG_CONTINUE) {
    case RAM_SAVE_FLAG_EXTENDED:
        len = left < 16 ? left : 16 + (uint64_t)ldl_be_p(p + 12);
        break;
    case RAM_SAVE_FLAG_ZERO:
    case RAM_SAVE_FLAG_PAGE:
        if (!(word & RAM_SAVE_FLAG_CONTINUE)) {
            len += left > len ? 1 + p[len] : 0;
        }
        len += word & RAM_SAVE_FLAG_PAGE ? PAGE : 1;
        break;
    case RAM_SAVE_FLAG_MEM_SIZE:
        /*
         * Assume that the item lists one RAMBlock, as in all seeds.  If the
         * item lists several, the mutations treat the rest of the list as
         * further items, which does no harm.
         */
        n = left > len ? p[len] : 0;
        len += 1 + n + 8;
        break;
    case ITEM_BUFFER:
        len += word / PAGE;
        break;
    case ITEM_COPIES:
        len += (COPIES_OF(word) + ZEROES_OF(word)) * 8;
        break;
    }
    return MIN(len, left);
}

static size_t split(const uint8_t *data, size_t len, Item *items)
{
    size_t n = 0;

    while (len && n < ITEMS_MAX) {
        size_t l = n == ITEMS_MAX - 1 ? len : item_len(data, len);

        items[n++] = (Item) { data, l };
        data += l;
        len -= l;
    }
    return n;
}

/* splitmix64, because seeding GRand takes longer than running an input */
static uint64_t rnd(uint64_t *r, uint64_t below)
{
    uint64_t v = *r += 0x9e3779b97f4a7c15;

    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9;
    v = (v ^ v >> 27) * 0x94d049bb133111eb;
    v ^= v >> 31;
    return below ? v % below : 0;
}

/* Numbers at the limits of checks */
static uint64_t odd_number(uint64_t *r, uint64_t old)
{
    static const uint64_t numbers[] = {
        0, 1, 2, 3, 63, 64, 65, 127, 128, 129, 130, 149, 150, 199, 200, 201,
        255, 256, 4096, 4097, 1 << 20, (1 << 20) + 64, 335888, INT32_MAX,
        UINT32_MAX, 1ULL << 32, INT64_MAX, UINT64_MAX, UINT64_MAX - 4095,
        UINT64_MAX >> 12, 1ULL << 52,
    };

    switch (rnd(r, 5)) {
    case 0:
        return old + 1;
    case 1:
        return old - 1;
    case 2:
        return old ^ 1ULL << rnd(r, 64);
    case 3:
        return numbers[rnd(r, G_N_ELEMENTS(numbers))] * PAGE;
    default:
        return numbers[rnd(r, G_N_ELEMENTS(numbers))];
    }
}

/* Copy @item to @p, which has room for @max bytes, and change one field */
static size_t change_item(uint64_t *r, uint8_t *p, size_t len, size_t max)
{
    bool record = len >= 16 && (ldq_be_p(p) & 0xfff) == 0x100;
    size_t fields = record ? MIN(len, 64) : MIN(len, 24), at;
    uint8_t *body = p + 16;

    if (record && p[9] == 2 && len >= 32 && rnd(r, 2)) {
        /*
         * Change the offset of the private pages, and sometimes their RAMBlock.
         * Choose small numbers, so that the pages often exist.
         */
        if (!rnd(r, 3)) {
            stl_be_p(body, rnd(r, 4));
        }
        stq_be_p(body + 8, rnd(r, RAM_PAGES + 1) * PAGE);
        return len;
    }
    switch (rnd(r, 6)) {
    case 0:     /* a 32-bit field */
        at = rnd(r, fields / 4) * 4;
        if (at + 4 <= len) {
            stl_be_p(p + at, odd_number(r, ldl_be_p(p + at)));
        }
        return len;
    case 1:     /* a 64-bit field */
        at = rnd(r, fields / 8) * 8;
        if (at + 8 <= len) {
            stq_be_p(p + at, odd_number(r, ldq_be_p(p + at)));
        }
        return len;
    case 2:     /* the type */
        if (record) {
            p[9] = rnd(r, 7);
        }
        return len;
    case 3:     /* the body, and its length in the header */
    case 4:
        if (record && max > 16) {
            size_t n = LLVMFuzzerMutate(body, len - 16, max - 16);

            stl_be_p(p + 12, n);
            return 16 + n;
        }
        return len;
    default:
        return len ? LLVMFuzzerMutate(p, len, max) : 0;
    }
}

static size_t put_item(uint8_t *out, size_t at, size_t max, Item item)
{
    size_t n = MIN(item.len, max - at);

    memcpy(out + at, item.data, n);
    return at + n;
}

/* Take an item from one of the seeds' streams */
static void fresh_item(uint64_t *r, uint8_t *out, size_t *at, size_t max)
{
    static GByteArray *seeds[SEEDS];
    GByteArray *from;
    Item items[ITEMS_MAX];
    unsigned i = rnd(r, G_N_ELEMENTS(seeds));
    size_t n;

    if (!seeds[i]) {
        seeds[i] = seed(0, i);
    }
    from = seeds[i];
    n = split(from->data + 1, from->len - 1, items);
    if (n) {
        *at = put_item(out, *at, max, items[rnd(r, n)]);
    }
}

enum { DROP, TWICE, SWAP, INSERT, END, CHANGE, CHANGE_TOO, MACHINE, BYTES };

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
                               unsigned int seed_)
{
    uint64_t state = seed_, *r = &state;
    static uint8_t *out;
    static size_t room;
    Item items[ITEMS_MAX];
    size_t n, at = 1, which, other;
    unsigned what = rnd(r, BYTES + 4);

    if (what >= BYTES || len < 2 || max < 64) {
        return LLVMFuzzerMutate(data, len, max);
    }
    if (what == MACHINE) {
        data[0] ^= 1 << rnd(r, 5);
        return len;
    }
    n = split(data + 1, len - 1, items);
    which = rnd(r, n);
    other = rnd(r, n);
    if (room < max) {
        out = g_realloc(out, max);
        room = max;
    }
    out[0] = data[0];
    for (size_t i = 0; i < n; i++) {
        Item item = items[i];
        size_t began;

        if (what == SWAP && (i == which || i == other)) {
            item = items[which + other - i];
        }
        if (i == which) {
            if (what == DROP) {
                continue;
            } else if (what == TWICE) {
                at = put_item(out, at, max, item);
            } else if (what == INSERT) {
                fresh_item(r, out, &at, max);
            } else if (what == END) {
                break;
            }
        }
        began = at;
        at = put_item(out, at, max, item);
        if (i == which && (what == CHANGE || what == CHANGE_TOO)) {
            at = began + change_item(r, out + began, at - began, max - began);
        }
    }
    memcpy(data, out, at);
    return at;
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t alen,
                                 const uint8_t *b, size_t blen,
                                 uint8_t *out, size_t max, unsigned int seed_)
{
    uint64_t state = seed_, *r = &state;
    Item ia[ITEMS_MAX], ib[ITEMS_MAX];
    size_t na, nb, at = 1;

    if (alen < 2 || blen < 2 || max < 2) {
        return 0;
    }
    out[0] = rnd(r, 2) ? a[0] : b[0];
    na = split(a + 1, alen - 1, ia);
    nb = split(b + 1, blen - 1, ib);
    for (size_t i = 0, n = rnd(r, na + 1); i < n && at < max; i++) {
        at = put_item(out, at, max, ia[i]);
    }
    for (size_t i = rnd(r, nb); i < nb && at < max; i++) {
        at = put_item(out, at, max, ib[i]);
    }
    return at;
}
