/*
 * Tests of the records of private pages in the migration stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "encbitmap-fixture.h"
#include "../../migration/encrypted/encrypted-receiver.h"
#include "../../migration/encrypted/encrypted-records.h"

enum { SESSION = 1, PAGES, STATE, FINAL, UNALLOCATED, PLATFORM };

/* Vendor code that packs a page as the 8 bytes of its offset */
static struct {
    GByteArray *session;
    GByteArray *final;
    unsigned starts, pages, finals, data, converted;
    bool refuse_pages;
} vendor;

static void vendor_reset(void)
{
    g_clear_pointer(&vendor.session, g_byte_array_unref);
    g_clear_pointer(&vendor.final, g_byte_array_unref);
    memset(&vendor, 0, sizeof(vendor));
}

static bool receive_start(ConfidentialGuestSupport *cgs,
                          const uint8_t *session, size_t len, Error **errp)
{
    vendor.starts++;
    vendor.session = g_byte_array_new();
    g_byte_array_append(vendor.session, session, len);
    return true;
}

static bool receive_pages(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                          uint64_t offset, size_t npages,
                          const uint8_t *in, size_t len, Error **errp)
{
    /*
     * The receiver makes pages private before it calls this function; see
     * confidential-guest-migration.h
     */
    g_assert_cmpuint(encbitmap_count(rb, offset / PAGE, npages), ==, npages);
    if (vendor.refuse_pages || len != npages * 8) {
        error_setg(errp, "offset 0x%" PRIx64 ": bad measurement", offset);
        return false;
    }
    for (size_t i = 0; i < npages; i++) {
        if (ldq_be_p(in + i * 8) != offset + i * PAGE) {
            error_setg(errp, "offset 0x%" PRIx64 ": page was moved", offset);
            return false;
        }
    }
    vendor.pages += npages;
    return true;
}

static bool receive_final(ConfidentialGuestSupport *cgs,
                          const uint8_t *final, size_t len, Error **errp)
{
    vendor.finals++;
    vendor.final = g_byte_array_new();
    g_byte_array_append(vendor.final, final, len);
    return true;
}

static bool receive_data(ConfidentialGuestSupport *cgs, const uint8_t *data,
                         size_t len, Error **errp)
{
    if (len != 16 || memcmp(data, "for the platform", len)) {
        error_setg(errp, "platform data that nobody has sent");
        return false;
    }
    vendor.data++;
    return true;
}

/*
 * The receiver calls this function before it converts the pages to private,
 * because vendor code cannot access them after the conversion.  At least one
 * page is still shared.
 */
static void receive_private(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                            uint64_t offset, uint64_t npages)
{
    g_assert_cmpuint(encbitmap_count(rb, offset / PAGE, npages), <, npages);
    vendor.converted++;
}

static const ConfidentialGuestMigrationOps vendor_ops = {
    .receive_start = receive_start,
    .receive_data = receive_data,
    .receive_private = receive_private,
    .receive_pages = receive_pages,
    .receive_final = receive_final,
};

static RAMBlock *ram, *flash, *rom, *local;

/*
 * Create a machine that is both source and destination of the records.  Either
 * all of its pages are private or all are shared.
 */
static void machine_new(bool all_private)
{
    ram = block_new("pc.ram", 200);
    rom = block_new("pc.rom", 8);
    flash = block_new("flash0", 3);
    local = block_new("local", 8);
    test_block(local)->not_migratable = true;
    encbitmap_init(ram, NULL, all_private);
    encbitmap_init(flash, NULL, all_private);
    encbitmap_init(local, NULL, all_private);
}

static void machine_free(void)
{
    block_free(ram);
    block_free(rom);
    block_free(flash);
    block_free(local);
}

static GByteArray *bytes(const char *s)
{
    GByteArray *b = g_byte_array_new();

    g_byte_array_append(b, (const uint8_t *)s, strlen(s));
    return b;
}

static void put_session(GByteArray *out)
{
    g_autoptr(GPtrArray) blocks = encrypted_blocks();
    g_autoptr(GByteArray) session = bytes("a session");

    g_assert(encrypted_record_session(out, blocks, 0, session, &error_abort));
}

static void put_pages(GByteArray *out, uint32_t block, uint64_t page,
                      size_t n)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();

    for (size_t i = 0; i < n; i++) {
        uint64_t at = cpu_to_be64((page + i) * PAGE);

        g_byte_array_append(payload, (uint8_t *)&at, 8);
    }
    g_assert(encrypted_record_pages(out, block, page * PAGE, n, payload,
                                    &error_abort));
}

/* Append records of all private pages, with up to 64 pages in each record */
static void put_all_pages(GByteArray *out)
{
    g_autoptr(GPtrArray) blocks = encrypted_blocks();

    for (guint i = 0; i < blocks->len; i++) {
        RAMBlock *rb = g_ptr_array_index(blocks, i);
        uint64_t end = rb->used_length / PAGE, n;

        for (uint64_t page = 0; page < end; page += n) {
            bool p;

            n = encbitmap_run(rb, page, MIN(page + 64, end), &p);
            if (p) {
                put_pages(out, i, page, n);
            }
        }
    }
}

static void put_state(GByteArray *out)
{
    g_autoptr(GPtrArray) blocks = encrypted_blocks();
    uint32_t block = 0;
    uint64_t first = 0;

    while (encrypted_record_state(out, blocks, &block, &first)) {
        /* nothing */
    }
}

static void put_final(GByteArray *out)
{
    g_autoptr(GByteArray) final = bytes("the end");

    g_assert(encrypted_record_final(out, final, &error_abort));
}

/* Append a record, which need not be valid */
static void put_raw(GByteArray *out, uint8_t type, const GByteArray *body)
{
    uint8_t header[16] = { [6] = 1, [8] = 1, [9] = type };

    stl_be_p(header + 12, body->len);
    g_byte_array_append(out, header, sizeof(header));
    g_byte_array_append(out, body->data, body->len);
}

/* Read one record from @in at @at, as a channel does */
static bool load_one(EncryptedReceiver *load, const GByteArray *in, size_t *at,
                     Error **errp)
{
    g_autofree uint8_t *body = NULL;
    size_t len, left = in->len - *at;

    if (left < 16 || ldq_be_p(in->data + *at) != 0x100) {
        error_setg(errp, "channel: not a record");
        return false;
    }
    if (!encrypted_receiver_header(load, in->data + *at + 8, &len, errp)) {
        return false;
    }
    g_assert_cmpuint(len, <=, 512 * KiB);
    if (len > left - 16) {
        error_setg(errp, "channel: short read");
        return false;
    }
    /*
     * Copy the body to a buffer of @len bytes, so that a sanitizer detects
     * reads after the buffer
     */
    body = g_malloc(len);
    memcpy(body, in->data + *at + 16, len);
    *at += 16 + len;
    return encrypted_receiver_body(load, body, len, errp);
}

static bool load_all(EncryptedReceiver *load, const GByteArray *in,
                     Error **errp)
{
    size_t at = 0;

    while (at < in->len) {
        if (!load_one(load, in, &at, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Check that @in is refused with an error that contains @say, and that the
 * receiver accepts nothing afterwards
 */
static void refused(EncryptedReceiver *load, const GByteArray *in,
                    const char *say)
{
    g_autoptr(GByteArray) more = g_byte_array_new();
    Error *err = NULL;

    g_assert(!load_all(load, in, &err));
    if (!strstr(error_get_pretty(err), say)) {
        g_error("expected '%s' in: %s", say, error_get_pretty(err));
    }
    g_clear_pointer(&err, error_free);
    put_final(more);
    g_assert(!load_all(load, more, &err));
    g_clear_pointer(&err, error_free);
    g_assert(!encrypted_receiver_done(load, &err));
    g_clear_pointer(&err, error_free);
    g_assert_cmpuint(vendor.finals, ==, 0);
}

/* Return a receiver that has read the session record */
static EncryptedReceiver *load_with_session(void)
{
    EncryptedReceiver *load = encrypted_receiver_new(NULL, &vendor_ops);
    g_autoptr(GByteArray) in = g_byte_array_new();

    vendor_reset();
    put_session(in);
    g_assert(load_all(load, in, &error_abort));
    return load;
}

/* Check that @in is refused after the session record */
static void refused_in_session(const GByteArray *in, const char *say)
{
    EncryptedReceiver *load = load_with_session();

    refused(load, in, say);
    encrypted_receiver_free(load);
}

static void test_round_trip(void)
{
    EncryptedReceiver *load = encrypted_receiver_new(NULL, &vendor_ops);
    g_autoptr(GByteArray) in = g_byte_array_new();
    g_autoptr(GByteArray) end = g_byte_array_new();
    Error *err = NULL;

    vendor_reset();
    machine_new(true);
    encbitmap_set(ram, 10, 20, false);
    encbitmap_set(flash, 1, 1, false);
    put_session(in);
    put_all_pages(in);
    put_state(end);
    put_final(end);
    machine_free();

    /*
     * At the destination, all pages are shared at first.  The receiver must
     * give them the states that they have at the source.
     */
    machine_new(false);
    g_assert(!encrypted_receiver_done(load, &err));
    error_free_or_abort(&err);
    g_assert(load_all(load, in, &error_abort));
    g_assert_cmpuint(vendor.pages, ==, 180 + 2);
    g_assert_cmpuint(vendor.converted, >, 0);
    g_assert_cmpmem(vendor.session->data, vendor.session->len, "a session", 9);
    g_assert_cmpuint(encbitmap_count(ram, 0, 200), ==, 180);
    g_assert_cmpuint(encbitmap_count(ram, 10, 20), ==, 0);
    /* The source sends these shared pages without records */
    for (unsigned i = 10; i < 30; i++) {
        g_assert(encrypted_receiver_plain(load, ram, i * PAGE, &error_abort));
    }
    g_assert(!encrypted_receiver_done(load, &err));
    error_free_or_abort(&err);
    g_assert(load_all(load, end, &error_abort));
    g_assert(encrypted_receiver_done(load, &error_abort));
    g_assert_cmpmem(vendor.final->data, vendor.final->len, "the end", 7);
    g_assert_cmpuint(encbitmap_count(local, 0, 8), ==, 0);
    encrypted_receiver_free(load);
    machine_free();
}

/*
 * The source sends a page first in one state and then in the other.  The state
 * in which it was sent last must match the state record.
 */
static void test_flip(void)
{
    EncryptedReceiver *load;
    g_autoptr(GByteArray) one = g_byte_array_new();
    g_autoptr(GByteArray) in = g_byte_array_new();

    machine_new(false);
    load = load_with_session();
    put_pages(one, 0, 63, 3);
    g_assert(load_all(load, one, &error_abort));
    g_assert(encrypted_receiver_plain(load, ram, 64 * PAGE, &error_abort));
    g_assert_cmpuint(encbitmap_count(ram, 0, 200), ==, 2);
    g_assert(!encbitmap_test(ram, 64));
    put_state(in);
    g_assert(load_all(load, in, &error_abort));
    encrypted_receiver_free(load);

    /*
     * The state record says that a page is private, but the destination has
     * received it last as a shared page
     */
    machine_free();
    machine_new(false);
    load = load_with_session();
    g_assert(load_all(load, one, &error_abort));
    g_assert(encrypted_receiver_plain(load, ram, 64 * PAGE, &error_abort));
    encbitmap_set(ram, 64, 1, true);
    g_byte_array_set_size(in, 0);
    put_state(in);
    refused(load, in, "offset 0x40000: the page is private but was not "
            "received");
    encrypted_receiver_free(load);
    machine_free();
}

static void test_header(void)
{
    static const struct {
        unsigned at;
        uint8_t val;
        const char *say;
    } bad[] = {
        { 8, 0, "version 0" }, { 8, 2, "version 2" }, { 8, 255, "version 255" },
        { 9, 0, "type 0" }, { 9, 7, "type 7" }, { 9, 255, "type 255" },
        { 10, 1, "kind 256" }, { 11, 0x80, "kind 128" },
        { 12, 0xff, "bytes, expected" }, { 12, 1, "bytes, expected" },
        { 6, 2, "not a record" }, { 0, 1, "not a record" },
    };

    machine_new(true);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        EncryptedReceiver *load = encrypted_receiver_new(NULL, &vendor_ops);
        g_autoptr(GByteArray) in = g_byte_array_new();

        vendor_reset();
        put_session(in);
        in->data[bad[i].at] = bad[i].val;
        refused(load, in, bad[i].say);
        g_assert_cmpuint(vendor.starts, ==, 0);
        encrypted_receiver_free(load);
    }
    machine_free();
}

/* The receiver checks the minimum and the maximum length of each record type */
static void test_lengths(void)
{
    static const struct {
        uint8_t type;
        uint32_t min, max;
    } limits[] = {
        { SESSION, 16, 16 + 1024 * 264 + 65536 },
        { PAGES, 16, 16 + 64 * 4608 },
        { STATE, 24, 24 + 131072 },
        { FINAL, 0, 65536 },
        { UNALLOCATED, 24, 24 },
        { PLATFORM, 1, 131072 },
    };

    machine_new(false);
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        uint32_t lens[] = { limits[i].min - 1, limits[i].min, limits[i].max,
                            limits[i].max + 1, INT32_MAX, UINT32_MAX };

        for (size_t j = 0; j < ARRAY_SIZE(lens); j++) {
            EncryptedReceiver *load = limits[i].type == SESSION ?
                encrypted_receiver_new(NULL, &vendor_ops) : load_with_session();
            uint8_t header[8] = { 1, limits[i].type };
            Error *err = NULL;
            size_t len = 4711;

            if (limits[i].type == FINAL) {
                g_autoptr(GByteArray) in = g_byte_array_new();

                put_state(in);
                g_assert(load_all(load, in, &error_abort));
            }
            stl_be_p(header + 4, lens[j]);
            if (lens[j] >= limits[i].min && lens[j] <= limits[i].max) {
                g_assert(encrypted_receiver_header(load, header, &len,
                                               &error_abort));
                g_assert_cmpuint(len, ==, lens[j]);
            } else {
                g_assert(!encrypted_receiver_header(load, header, &len, &err));
                error_free_or_abort(&err);
                g_assert_cmpuint(len, ==, 4711);
            }
            encrypted_receiver_free(load);
        }
    }
    machine_free();
}

static void put_platform(GByteArray *out)
{
    g_autoptr(GByteArray) data = bytes("for the platform");

    g_assert(encrypted_record_platform(out, data, &error_abort));
}

/*
 * After the session record and before the state records, the receiver passes
 * each platform record to receive_data().  If the vendor code has no
 * receive_data(), the receiver refuses platform records.
 */
static void test_platform(void)
{
    ConfidentialGuestMigrationOps without = vendor_ops;
    EncryptedReceiver *load;
    g_autoptr(GByteArray) in = g_byte_array_new();
    g_autoptr(GByteArray) big = g_byte_array_new();
    Error *err = NULL;

    machine_new(true);
    load = load_with_session();
    put_platform(in);
    put_all_pages(in);
    put_platform(in);
    put_state(in);
    put_final(in);
    g_assert(load_all(load, in, &error_abort));
    g_assert(encrypted_receiver_done(load, &error_abort));
    g_assert_cmpuint(vendor.data, ==, 2);
    encrypted_receiver_free(load);

    g_byte_array_set_size(in, 0);
    vendor_reset();
    without.receive_data = NULL;
    load = encrypted_receiver_new(NULL, &without);
    put_session(in);
    put_platform(in);
    refused(load, in, "platform");
    encrypted_receiver_free(load);
    machine_free();

    g_byte_array_set_size(in, 0);
    g_assert(!encrypted_record_platform(in, big, &err));
    error_free_or_abort(&err);
    g_byte_array_set_size(big, 128 * KiB + 1);
    g_assert(!encrypted_record_platform(in, big, &err));
    error_free_or_abort(&err);
    g_assert_cmpuint(in->len, ==, 0);
}

static void put_type(GByteArray *out, char type)
{
    switch (type) {
    case 's':
        put_session(out);
        break;
    case 'p':
        put_pages(out, 0, 5, 1);
        break;
    case 'u':
        encrypted_record_unallocated(out, 0, 5, 1);
        break;
    case 'd':
        put_platform(out);
        break;
    case 'b':
        put_state(out);
        break;
    case 'f':
        put_final(out);
        break;
    }
}

static void test_order(void)
{
    static const char *const bad[] = {
        "p", "b", "f", "ss", "sps", "sf", "spf", "spbp", "spbs", "spbb",
        "spbfp", "spbfs", "spbfb", "spbff", "u", "sus", "suf", "supbu",
        "subfu", "d", "sds", "sdf", "spbd", "spbfd",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        EncryptedReceiver *load = encrypted_receiver_new(NULL, &vendor_ops);
        size_t n = strlen(bad[i]);
        Error *err = NULL;

        vendor_reset();
        machine_new(false);
        for (size_t j = 0; j < n; j++) {
            g_autoptr(GByteArray) in = g_byte_array_new();

            put_type(in, bad[i][j]);
            if (j < n - 1) {
                g_assert(load_all(load, in, &error_abort));
            } else {
                g_assert(!load_all(load, in, &err));
                error_free_or_abort(&err);
            }
        }
        g_assert(!encrypted_receiver_done(load, &err));
        error_free_or_abort(&err);
        encrypted_receiver_free(load);
        machine_free();
    }
}

static void plain_refused(EncryptedReceiver *load, const char *say)
{
    Error *err = NULL;

    g_assert(!encrypted_receiver_plain(load, ram, 7 * PAGE, &err));
    g_assert(strstr(error_get_pretty(err), "pc.ram"));
    g_assert(strstr(error_get_pretty(err), "0x7000"));
    g_assert(strstr(error_get_pretty(err), say));
    error_free(err);
}

static void test_plain_order(void)
{
    EncryptedReceiver *load = encrypted_receiver_new(NULL, &vendor_ops);
    g_autoptr(GByteArray) in = g_byte_array_new();
    Error *err = NULL;

    vendor_reset();
    machine_new(false);
    plain_refused(load, "not confidential");
    put_session(in);
    g_assert(load_all(load, in, &error_abort));
    g_assert(encrypted_receiver_plain(load, ram, 7 * PAGE, &error_abort));
    g_assert(encrypted_receiver_plain(load, ram, 199 * PAGE, &error_abort));
    g_assert(!encrypted_receiver_plain(load, ram, 200 * PAGE, &err));
    g_assert(strstr(error_get_pretty(err), "beyond"));
    error_free(err);
    g_byte_array_set_size(in, 0);
    put_state(in);
    g_assert(load_all(load, in, &error_abort));
    plain_refused(load, "after the state");
    encrypted_receiver_free(load);
    machine_free();
}

static void session_head(GByteArray *b, uint32_t page_size, uint32_t nblocks,
                         uint32_t len, uint32_t flags)
{
    uint8_t head[16];

    stl_be_p(head, page_size);
    stl_be_p(head + 4, nblocks);
    stl_be_p(head + 8, len);
    stl_be_p(head + 12, flags);
    g_byte_array_append(b, head, sizeof(head));
}

static void session_block(GByteArray *b, const char *name, uint8_t n,
                          uint64_t npages)
{
    uint8_t size[8];

    stq_be_p(size, npages);
    g_byte_array_append(b, &n, 1);
    g_byte_array_append(b, (const uint8_t *)name, n);
    g_byte_array_append(b, size, 8);
}

/* Append the entries of both RAMBlocks that can have private pages */
static void session_both_blocks(GByteArray *b)
{
    session_block(b, "pc.ram", 6, 200);
    session_block(b, "flash0", 6, 3);
}

/* Check that a session record with the body @b is refused */
static void session_refused(const GByteArray *b, const char *say)
{
    EncryptedReceiver *load = encrypted_receiver_new(NULL, &vendor_ops);
    g_autoptr(GByteArray) in = g_byte_array_new();

    vendor_reset();
    put_raw(in, SESSION, b);
    refused(load, in, say);
    g_assert_cmpuint(vendor.starts, ==, 0);
    encrypted_receiver_free(load);
}

/* The first 16 bytes are wrong, or do not fit the two entries after them */
static void session_heads_refused(void)
{
    static const struct {
        uint32_t page_size, nblocks, len, flags;
        const char *say;
    } bad[] = {
        { 65536, 2, 0, 0, "expected 4096" },
        { 4096, 1025, 0, 0, "session of 1025 blocks" },
        { 4096, UINT32_MAX, 0, 0, "session of 4294967295 blocks" },
        { 4096, 2, 0, 4, "flags 0x4, this QEMU knows 0x3" },
        { 4096, 2, 65537, 0, "65537 bytes of data" },
        /* one entry less than announced */
        { 4096, 3, 0, 0, "entry 2" },
        /* receiver takes an unannounced entry for session data */
        { 4096, 1, 0, 0, "session data" },
        /* less data than announced */
        { 4096, 2, 1, 0, "0 bytes of session data" },
    };
    g_autoptr(GByteArray) none = g_byte_array_new();

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) b = g_byte_array_new();

        session_head(b, bad[i].page_size, bad[i].nblocks, bad[i].len,
                     bad[i].flags);
        session_both_blocks(b);
        session_refused(b, bad[i].say);
    }
    session_head(none, 4096, 0, 0, 0);
    session_refused(none, "session of 0 blocks");
}

/* An entry is wrong, or the entry of a RAMBlock is missing */
static void session_entries_refused(void)
{
    static const struct {
        const char *name;
        uint8_t n;
        uint64_t npages;
        bool alone;     /* without the entries of both RAMBlocks after it */
        const char *say;
    } bad[] = {
        { "nvdimm", 6, 10, false, "block nvdimm" },
        { "pc.rom", 6, 8, false, "always shared here" },
        { "local", 5, 8, false, "block local" },
        { "flash0", 6, 3, false, "twice" },
        { "flash0", 6, 3, true, "block pc.ram: can have private pages here" },
        { "pc.ram", 6, 201, true, "201 pages at the source, 200 here" },
        { "pc.ram", 6, UINT64_MAX, true, "block pc.ram" },
        { "pc.ram\0x", 8, 200, true, "entry 0" },
        { "", 0, 200, false, "entry 0" },
    };
    g_autoptr(GByteArray) cut = g_byte_array_new();

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) b = g_byte_array_new();

        session_head(b, 4096, bad[i].alone ? 1 : 3, 0, 0);
        session_block(b, bad[i].name, bad[i].n, bad[i].npages);
        if (!bad[i].alone) {
            session_both_blocks(b);
        }
        session_refused(b, bad[i].say);
    }
    /* A name that is longer than the rest of the record */
    session_head(cut, 4096, 1, 0, 0);
    g_byte_array_append(cut, (const uint8_t *)"\xffpc.ram", 7);
    session_refused(cut, "entry 0");
}

static void test_session(void)
{
    machine_new(false);
    session_heads_refused();
    session_entries_refused();
    machine_free();
}

static void test_pages(void)
{
    static const struct {
        uint32_t block, count;
        uint64_t offset;
        size_t payload;
        const char *say;
    } bad[] = {
        { 2, 1, 0, 8, "block 2" },
        { UINT32_MAX, 1, 0, 8, "block 4294967295" },
        { 0, 0, 0, 8, "record of 0 private pages" },
        { 0, 65, 0, 8, "record of 65 private pages" },
        { 0, UINT32_MAX, 0, 8, "record of 4294967295 private pages" },
        { 0, 1, 1, 8,
          "offset 0x1: record of 1 private" },
        { 0, 1, PAGE - 1, 8,
          "offset 0xfff: record of 1 private" },
        { 0, 1, 200 * PAGE, 8,
          "offset 0xc8000: record of 1 private" },
        { 0, 2, 199 * PAGE, 16,
          "offset 0xc7000: record of 2 private" },
        { 0, 64, 137 * PAGE, 8 * 64,
          "offset 0x89000: record of 64 private" },
        { 0, 1, -PAGE, 8,
          "offset 0xfffffffffffff000: record of 1 private" },
        { 0, 64, -PAGE, 8,
          "offset 0xfffffffffffff000: record of 64 private" },
        { 1, 1, 3 * PAGE, 8,
          "block flash0, offset 0x3000: record of 1 private" },
        { 0, 1, 0, 0, "in 0 bytes" },
        { 0, 1, 0, 4609, "in 4609 bytes" },
        { 0, 2, 0, 9217, "in 9217 bytes" },
    };

    machine_new(false);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) in = g_byte_array_new();
        g_autoptr(GByteArray) b = g_byte_array_new();

        g_byte_array_set_size(b, 16 + bad[i].payload);
        memset(b->data, 0, b->len);
        stl_be_p(b->data, bad[i].block);
        stl_be_p(b->data + 4, bad[i].count);
        stq_be_p(b->data + 8, bad[i].offset);
        put_raw(in, PAGES, b);
        refused_in_session(in, bad[i].say);
        /* No page was changed */
        g_assert_cmpuint(vendor.pages, ==, 0);
        g_assert_cmpuint(encbitmap_count(ram, 0, 200), ==, 0);
        g_assert_cmpuint(encbitmap_count(flash, 0, 3), ==, 0);
    }
    machine_free();
}

static void test_pages_refused(void)
{
    EncryptedReceiver *load;
    g_autoptr(GByteArray) in = g_byte_array_new();

    machine_new(false);
    load = load_with_session();
    vendor.refuse_pages = true;
    put_pages(in, 1, 1, 2);
    refused(load, in, "block flash0, offset 0x1000: cannot receive 2 private "
            "pages: offset 0x1000: bad measurement");
    encrypted_receiver_free(load);

    /*
     * Change the record's offset from 0x1000 to 0.  The packed pages still
     * contain the offsets from 0x1000 on.
     */
    stq_be_p(in->data + 16 + 8, 0);
    refused_in_session(in, "page was moved");
    machine_free();
}

/*
 * A record of unallocated pages makes the pages private and counts them as
 * received
 */
static void unallocated_received(void)
{
    g_autoptr(GByteArray) pages = g_byte_array_new();
    g_autoptr(GByteArray) again = g_byte_array_new();
    g_autoptr(GByteArray) end = g_byte_array_new();
    EncryptedReceiver *load;

    machine_new(true);
    put_state(end);
    put_final(end);
    machine_free();
    machine_new(false);
    load = load_with_session();
    put_pages(pages, 0, 30, 10);
    encrypted_record_unallocated(pages, 0, 0, 30);
    encrypted_record_unallocated(pages, 0, 35, 165);
    encrypted_record_unallocated(pages, 1, 0, 3);
    g_assert(load_all(load, pages, &error_abort));
    g_assert_cmpuint(vendor.pages, ==, 10);
    g_assert_cmpuint(encrypted_receiver_private_pages(load), ==, 10);
    g_assert_cmpuint(encbitmap_count(ram, 0, 200), ==, 200);
    /*
     * The source sends a page as shared and then as unallocated, so the page is
     * private in the end
     */
    g_assert(encrypted_receiver_plain(load, ram, 50 * PAGE, &error_abort));
    g_assert(!encbitmap_test(ram, 50));
    encrypted_record_unallocated(again, 0, 50, 1);
    g_assert(load_all(load, again, &error_abort));
    g_assert(load_all(load, end, &error_abort));
    g_assert(encrypted_receiver_done(load, &error_abort));
    encrypted_receiver_free(load);
    machine_free();
}

static void unallocated_refused(void)
{
    static const struct {
        uint32_t block, reserved;
        uint64_t page, npages;
        const char *say;
    } bad[] = {
        { 2, 0, 0, 1, "block 2" },
        { 0, 1, 0, 1, "(reserved 0x1)" },
        { 0, 0, 0, 0, "block pc.ram: record of 0 unallocated" },
        { 0, 0, 200, 1, "from page 200 on" },
        { 0, 0, 199, 2, "record of 2 unallocated" },
        { 0, 0, 1, UINT64_MAX, "record of 18446744073709551615 unallocated" },
        { 0, 0, UINT64_MAX, 1, "from page 18446744073709551615 on" },
        { 1, 0, 1, 3, "block flash0: record of 3 unallocated" },
    };

    machine_new(false);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) in = g_byte_array_new();
        g_autoptr(GByteArray) b = g_byte_array_new();

        g_byte_array_set_size(b, 24);
        stl_be_p(b->data, bad[i].block);
        stl_be_p(b->data + 4, bad[i].reserved);
        stq_be_p(b->data + 8, bad[i].page);
        stq_be_p(b->data + 16, bad[i].npages);
        put_raw(in, UNALLOCATED, b);
        refused_in_session(in, bad[i].say);
        g_assert_cmpuint(encbitmap_count(ram, 0, 200), ==, 0);
        g_assert_cmpuint(encbitmap_count(flash, 0, 3), ==, 0);
    }
    machine_free();
}

static void test_unallocated(void)
{
    unallocated_received();
    unallocated_refused();
}

static int convert_busy(RAMBlock *rb, uint64_t offset, uint64_t size,
                        bool to_private, uint64_t *error_offset)
{
    *error_offset = offset;
    return -EAGAIN;
}

/* The destination cannot convert a page to the state in which it arrives */
static void test_convert_fails(void)
{
    static const EncBitmapProvider busy = {
        .name = "busy", .convert = convert_busy,
    };
    g_autoptr(GByteArray) in = g_byte_array_new();
    EncryptedReceiver *load;
    Error *err = NULL;

    ram = block_new("pc.ram", 200);
    encbitmap_init(ram, &busy, false);
    put_pages(in, 0, 3, 1);
    refused_in_session(in, "to private");
    g_assert_cmpuint(vendor.pages, ==, 0);

    g_byte_array_set_size(in, 0);
    encrypted_record_unallocated(in, 0, 3, 1);
    refused_in_session(in, "to private");

    load = load_with_session();
    encbitmap_set(ram, 3, 1, true);
    g_assert(!encrypted_receiver_plain(load, ram, 3 * PAGE, &err));
    g_assert(strstr(error_get_pretty(err), "to shared"));
    error_free(err);
    encrypted_receiver_free(load);
    block_free(ram);
}

/* Append a state record of @nwords words of zeros */
static void put_raw_state(GByteArray *out, uint32_t block, uint32_t reserved,
                          uint64_t first, uint64_t npages, size_t nwords)
{
    g_autoptr(GByteArray) b = g_byte_array_new();

    g_byte_array_set_size(b, 24 + nwords * 8);
    memset(b->data, 0, b->len);
    stl_be_p(b->data, block);
    stl_be_p(b->data + 4, reserved);
    stq_be_p(b->data + 8, first);
    stq_be_p(b->data + 16, npages);
    put_raw(out, STATE, b);
}

/* The fields of the first state record are wrong */
static void state_fields_refused(void)
{
    static const struct {
        uint32_t block, reserved;
        uint64_t first, npages;
        size_t nwords;
        const char *say;
    } bad[] = {
        { 1, 0, 0, 3, 1, "expected block 0, page 0" },
        { 2, 0, 0, 3, 1, "block 2" },
        { 0, 0, 64, 136, 3, "expected block 0, page 0" },
        { 0, 1, 0, 200, 4, "reserved 0x1" },
        { 0, 0, 0, 0, 0, "state of 0 pages" },
        { 0, 0, 0, 201, 4, "state of 201 pages" },
        { 0, 0, 0, UINT64_MAX, 4, "200 are left" },
        { 0, 0, 0, 1 << 20, 4, "200 are left" },
        { 0, 0, 0, 100, 2, "state of 100 pages" },
        { 0, 0, 0, 200, 3, "in 24 bytes" },
        { 0, 0, 0, 200, 5, "in 40 bytes" },
        { 0, 0, 0, 64, 0, "in 0 bytes" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) in = g_byte_array_new();

        put_raw_state(in, bad[i].block, bad[i].reserved, bad[i].first,
                      bad[i].npages, bad[i].nwords);
        refused_in_session(in, bad[i].say);
    }
}

/*
 * The state records end before the last page of the first RAMBlock, or before
 * the first page of the second RAMBlock
 */
static void state_end_refused(void)
{
    g_autoptr(GByteArray) one = g_byte_array_new();
    g_autoptr(GByteArray) all = g_byte_array_new();

    put_raw_state(one, 0, 0, 0, 64, 1);
    put_final(one);
    refused_in_session(one, "block pc.ram: the state of page 64 is missing");
    put_raw_state(all, 0, 0, 0, 64, 1);
    put_raw_state(all, 0, 0, 64, 136, 3);
    put_final(all);
    refused_in_session(all, "block flash0: the state of page 0 is missing");
}

/*
 * Check that a state record of pc.ram is refused in which only the bit of @page
 * is 1
 */
static void state_bit_refused(unsigned page, const char *say)
{
    g_autoptr(GByteArray) in = g_byte_array_new();

    put_raw_state(in, 0, 0, 0, 200, 4);
    stq_be_p(in->data + 16 + 24 + page / 64 * 8, 1ULL << (page % 64));
    refused_in_session(in, say);
}

/* A page is private on both sides but was not sent */
static void state_unsent_refused(void)
{
    g_autoptr(GByteArray) in = g_byte_array_new();

    put_pages(in, 0, 0, 64);
    put_pages(in, 0, 64, 64);
    put_pages(in, 0, 128, 63);
    put_pages(in, 0, 192, 8);
    put_pages(in, 1, 0, 3);
    put_state(in);
    refused_in_session(in, "offset 0xbf000: the page is private but was not "
                       "received");
}

static void test_state(void)
{
    g_autoptr(GByteArray) shared = g_byte_array_new();

    machine_new(false);
    state_fields_refused();
    state_end_refused();
    /* Page 200 is after the last page of the RAMBlock */
    state_bit_refused(200, "beyond its end");
    /*
     * A page is private at the source and shared at the destination, or the
     * reverse
     */
    state_bit_refused(69, "offset 0x45000: the page is private at the source");
    encbitmap_set(ram, 199, 1, true);
    put_raw_state(shared, 0, 0, 0, 200, 4);
    refused_in_session(shared,
                       "offset 0xc7000: the page is shared at the source");
    machine_free();

    machine_new(true);
    state_unsent_refused();
    machine_free();
}

/*
 * The stream can resize a resizable RAMBlock after the session record has given
 * its number of pages.  The receiver must then refuse every page of the
 * RAMBlock.
 */
static void test_resized(void)
{
    static const struct {
        uint64_t pages;     /* after the session record */
        uint64_t at;        /* page that is sent after the resize */
    } to[] = { { 200, 70 }, { 200, 2 }, { 3, 4 }, { 3, 2 } };
    g_autoptr(GByteArray) in = g_byte_array_new();
    g_autoptr(GByteArray) end = g_byte_array_new();
    EncryptedReceiver *load;
    Error *err = NULL;

    ram = block_new("pc.ram", 300);
    for (size_t i = 0; i < ARRAY_SIZE(to); i++) {
        encbitmap_free(ram);
        encbitmap_init(ram, NULL, true);
        ram->used_length = 5 * PAGE;
        load = load_with_session();
        ram->used_length = to[i].pages * PAGE;
        g_assert(!encrypted_receiver_plain(load, ram, to[i].at * PAGE, &err));
        g_assert(strstr(error_get_pretty(err), "block pc.ram"));
        g_assert(strstr(error_get_pretty(err), "5 in the session"));
        g_clear_pointer(&err, error_free);
        g_assert_cmpuint(encbitmap_count(ram, 0, 300), ==, 300);
        encrypted_receiver_free(load);

        ram->used_length = 5 * PAGE;
        load = load_with_session();
        ram->used_length = to[i].pages * PAGE;
        g_byte_array_set_size(in, 0);
        put_pages(in, 0, to[i].at, 1);
        refused(load, in, "5 in the session");
        g_assert_cmpuint(vendor.pages, ==, 0);
        encrypted_receiver_free(load);
    }

    /*
     * The RAMBlock is resized after the state records, or after the final
     * record
     */
    for (int final = 0; final < 2; final++) {
        ram->used_length = 5 * PAGE;
        load = load_with_session();
        g_byte_array_set_size(in, 0);
        g_byte_array_set_size(end, 0);
        put_pages(in, 0, 0, 5);
        put_state(in);
        put_final(final ? in : end);
        g_assert(load_all(load, in, &error_abort));
        ram->used_length = 6 * PAGE;
        g_assert(final || !load_all(load, end, &err));
        g_clear_pointer(&err, error_free);
        g_assert_cmpuint(vendor.finals, ==, final);
        g_assert(!encrypted_receiver_done(load, &err));
        error_free_or_abort(&err);
        encrypted_receiver_free(load);
    }
    block_free(ram);
}

/* A RAMBlock whose state does not fit into one record */
static void test_big_block(void)
{
    enum { NPAGES = (1 << 20) + 100 };
    g_autoptr(GByteArray) in = g_byte_array_new();
    EncryptedReceiver *load;

    ram = block_new("pc.ram", NPAGES);
    encbitmap_init(ram, NULL, false);
    load = load_with_session();
    put_pages(in, 0, (1 << 20) - 3, 64);
    put_pages(in, 0, NPAGES - 1, 1);
    g_assert(load_all(load, in, &error_abort));
    g_byte_array_set_size(in, 0);
    put_state(in);
    g_assert_cmpuint(in->len, ==, 16 + 24 + 131072 + 16 + 24 + 16);
    put_final(in);
    g_assert(load_all(load, in, &error_abort));
    g_assert(encrypted_receiver_done(load, &error_abort));
    encrypted_receiver_free(load);
    block_free(ram);
}

static void test_write_limits(void)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autoptr(GByteArray) big = g_byte_array_new();
    g_autoptr(GByteArray) none = g_byte_array_new();
    g_autoptr(GPtrArray) blocks = NULL;
    Error *err = NULL;

    machine_new(true);
    blocks = encrypted_blocks();
    g_assert_cmpuint(blocks->len, ==, 2);
    g_byte_array_set_size(big, 65537);
    g_assert(!encrypted_record_session(out, blocks, 0, big, &err));
    error_free_or_abort(&err);
    g_assert(!encrypted_record_final(out, big, &err));
    error_free_or_abort(&err);
    g_assert(!encrypted_record_pages(out, 0, 0, 1, none, &err));
    error_free_or_abort(&err);
    g_assert(!encrypted_record_pages(out, 0, 0, 14, big, &err));
    error_free_or_abort(&err);
    g_assert_cmpuint(out->len, ==, 0);
    g_ptr_array_set_size(blocks, 0);
    g_assert(!encrypted_record_session(out, blocks, 0, none, &err));
    error_free_or_abort(&err);
    machine_free();
}

/*
 * The receiver refuses a stream that is cut off at any byte.  It accepts a
 * stream with changed bytes only if all pages and states are right.
 */
static void test_damage(void)
{
    g_autoptr(GByteArray) good = g_byte_array_new();
    unsigned loaded = 0;

    machine_new(true);
    encbitmap_set(ram, 10, 20, false);
    put_session(good);
    put_all_pages(good);
    put_state(good);
    put_final(good);
    machine_free();

    for (int i = 0; i < 20000; i++) {
        g_autoptr(GByteArray) in = g_byte_array_new();
        EncryptedReceiver *load = encrypted_receiver_new(NULL, &vendor_ops);
        Error *err = NULL;

        vendor_reset();
        machine_new(false);
        g_byte_array_append(in, good->data, good->len);
        if (i < good->len) {
            g_byte_array_set_size(in, i);
        } else {
            for (int n = g_test_rand_int_range(1, 4); n; n--) {
                /*
                 * The first 100 bytes are the session record and the beginning
                 * of the first record of pages.  Most of the other bytes are
                 * packed pages.  Make half of the changes in the first 100
                 * bytes, so that enough changes hit lengths and numbers.
                 */
                in->data[g_test_rand_int_range(0, 2) ?
                         g_test_rand_int_range(0, 100) :
                         g_test_rand_int_range(0, in->len)] =
                    g_test_rand_int();
            }
        }
        if (!load_all(load, in, &err)) {
            error_free_or_abort(&err);
        }
        if (encrypted_receiver_done(load, &err)) {
            /* The receiver has accepted the stream, so all states are right */
            g_assert_cmpuint(encbitmap_count(ram, 0, 200), ==, 180);
            g_assert_cmpuint(encbitmap_count(ram, 10, 20), ==, 0);
            g_assert_cmpuint(vendor.pages, ==, 183);
            loaded++;
        } else {
            error_free_or_abort(&err);
        }
        encrypted_receiver_free(load);
        machine_free();
    }
    /*
     * Some changed streams load, because the test's vendor code does not
     * detect all changes of its data
     */
    g_test_message("%u of 20000 damaged streams loaded", loaded);
    g_assert_cmpuint(loaded, <, 10000);
}

/*
 * Pass the first @len bytes of @record to the receiver, as a channel of multifd
 * does.  Check that the receiver refuses these bytes, and that the error
 * contains @say.
 */
static void refused_record(const GByteArray *record, size_t len,
                           const char *say)
{
    EncryptedReceiver *load;
    /* A sanitizer detects reads after @copy, because it has only @len bytes */
    g_autofree uint8_t *copy = g_memdup2(record->data, len);
    g_autoptr(GByteArray) more = g_byte_array_new();
    Error *err = NULL;

    machine_new(false);
    load = load_with_session();
    g_assert(!encrypted_receiver_pages_record(load, copy, len, &err));
    if (!strstr(error_get_pretty(err), say)) {
        g_error("expected '%s' in: %s", say, error_get_pretty(err));
    }
    g_clear_pointer(&err, error_free);
    g_assert_cmpuint(vendor.pages, ==, 0);
    /* After an error, the receiver accepts nothing from any channel */
    put_pages(more, 0, 1, 1);
    g_assert(!encrypted_receiver_pages_record(load, more->data, more->len,
                                              &err));
    g_clear_pointer(&err, error_free);
    g_assert(!load_all(load, more, &err));
    g_clear_pointer(&err, error_free);
    g_assert(!encrypted_receiver_plain(load, ram, PAGE, &err));
    error_free(err);
    encrypted_receiver_free(load);
    machine_free();
}

static void test_pages_record(void)
{
    static const uint8_t others[] = { SESSION, STATE, FINAL, 0, 6 };
    g_autoptr(GByteArray) in = g_byte_array_new();
    EncryptedReceiver *load;

    machine_new(false);
    load = load_with_session();
    put_pages(in, 0, 5, 3);
    g_assert(encrypted_receiver_pages_record(load, in->data, in->len,
                                         &error_abort));
    g_assert_cmpuint(vendor.pages, ==, 3);
    g_assert_cmpuint(encbitmap_count(ram, 0, 200), ==, 3);
    g_assert_cmpuint(encbitmap_count(ram, 5, 3), ==, 3);
    g_byte_array_set_size(in, 0);
    encrypted_record_unallocated(in, 0, 100, 20);
    g_assert(encrypted_receiver_pages_record(load, in->data, in->len,
                                         &error_abort));
    g_assert_cmpuint(encbitmap_count(ram, 100, 20), ==, 20);
    encrypted_receiver_free(load);
    machine_free();

    g_byte_array_set_size(in, 0);
    put_pages(in, 0, 5, 3);
    for (size_t len = 1; len < in->len; len++) {
        refused_record(in, len, len < 16 ? "not a record" : "expected");
    }
    g_byte_array_append(in, (const uint8_t *)"", 1);
    refused_record(in, in->len, "expected");
    g_byte_array_set_size(in, in->len - 1);
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        in->data[9] = others[i];
        refused_record(in, in->len, "not a record of pages");
    }
    in->data[9] = PAGES;
    in->data[0] ^= 1;
    refused_record(in, in->len, "not a record");
    in->data[0] ^= 1;
    stl_be_p(in->data + 12, UINT32_MAX);
    refused_record(in, in->len, "expected");
}

/* A record of pages before the session record is refused */
static void test_pages_record_first(void)
{
    EncryptedReceiver *load = encrypted_receiver_new(NULL, &vendor_ops);
    g_autoptr(GByteArray) in = g_byte_array_new();
    Error *err = NULL;

    vendor_reset();
    machine_new(false);
    put_pages(in, 0, 5, 3);
    g_assert(!encrypted_receiver_pages_record(load, in->data, in->len, &err));
    g_assert(strstr(error_get_pretty(err), "out of order"));
    error_free(err);
    encrypted_receiver_free(load);
    machine_free();
}

/*
 * encrypted_session_flags() reads the flags from the first 16 bytes of the body
 * of a session record.  It refuses fewer bytes, another version and another
 * type of record.
 */
static void test_session_flags(void)
{
    g_autoptr(GByteArray) session = bytes("a session");
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autoptr(GPtrArray) blocks = NULL;
    uint32_t flags = 0;

    machine_new(true);
    blocks = encrypted_blocks();
    g_assert(encrypted_record_session(out, blocks, ENCRYPTED_SESSION_MULTIFD,
                                      session, &error_abort));
    g_assert(encrypted_session_flags(out->data + 8, out->data + 16, 16,
                                     &flags));
    g_assert_cmphex(flags, ==, ENCRYPTED_SESSION_MULTIFD);
    g_assert(!encrypted_session_flags(out->data + 8, out->data + 16, 15,
                                      &flags));
    out->data[8] = 2;
    g_assert(!encrypted_session_flags(out->data + 8, out->data + 16, 16,
                                      &flags));
    out->data[8] = 1;
    out->data[9] = 4;
    g_assert(!encrypted_session_flags(out->data + 8, out->data + 16, 16,
                                      &flags));
    machine_free();
}

/* A destination accepts a session with flags that it may ignore */
static void test_optional_flags(void)
{
    static const uint32_t flags[] = { ENCRYPTED_SESSION_ANSWER, 0x80000000,
                                      0xffff0000 };

    machine_new(false);
    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++) {
        EncryptedReceiver *load = encrypted_receiver_new(NULL, &vendor_ops);
        g_autoptr(GByteArray) in = g_byte_array_new();
        g_autoptr(GByteArray) b = g_byte_array_new();

        vendor_reset();
        session_head(b, 4096, 2, 0, flags[i]);
        session_both_blocks(b);
        put_raw(in, SESSION, b);
        g_assert(load_all(load, in, &error_abort));
        g_assert_cmpuint(vendor.starts, ==, 1);
        encrypted_receiver_free(load);
    }
    machine_free();
}

static void reason_is(const char *data, size_t len, const char *want)
{
    g_autofree char *text = encrypted_reason_text((const uint8_t *)data, len);

    g_assert_cmpstr(text, ==, want);
}

/*
 * The destination sends a text to the source.  The source replaces those
 * characters of the text that could do harm on a terminal.
 */
static void test_reason_text(void)
{
    reason_is("block pc.ram, offset 0x1000: \xc3\xa4", 31,
              "block pc.ram, offset 0x1000: \xc3\xa4");
    reason_is("", 0, "");
    reason_is("a\033[2Jb\nc\td\177e", 12, "a?[2Jb?c?d?e");
    /*
     * Replace bytes that are not UTF-8, a part of a character, an overlong
     * encoding, and a zero byte
     */
    reason_is("a\xff" "b\xc3", 4, "a\xef\xbf\xbd" "b\xef\xbf\xbd");
    reason_is("\xc0\x8a", 2, "\xef\xbf\xbd\xef\xbf\xbd");
    reason_is("a\0b", 3, "a\xef\xbf\xbd" "b");
    /*
     * Replace a line separator, and a character that overrides text direction
     */
    reason_is("a\xe2\x80\xa8" "b\xe2\x80\xae" "c", 9, "a?b?c");
}

static void test_reason_len(void)
{
    g_autofree char *text = g_strnfill(ENCRYPTED_REASON_MAX + 10, 'a');

    g_assert_cmpuint(encrypted_reason_len(""), ==, 0);
    g_assert_cmpuint(encrypted_reason_len("\xc3\xa4"), ==, 2);
    g_assert_cmpuint(encrypted_reason_len(text), ==, ENCRYPTED_REASON_MAX);
    /*
     * If a character of three bytes begins before the limit and ends after it,
     * none of its bytes counts
     */
    memcpy(text + ENCRYPTED_REASON_MAX - 1, "\xe2\x82\xac", 3);
    g_assert_cmpuint(encrypted_reason_len(text), ==,
                     ENCRYPTED_REASON_MAX - 1);
    memcpy(text + ENCRYPTED_REASON_MAX - 3, "\xe2\x82\xac", 3);
    text[ENCRYPTED_REASON_MAX] = 'a';
    g_assert_cmpuint(encrypted_reason_len(text), ==, ENCRYPTED_REASON_MAX);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/encrypted-records/round-trip", test_round_trip);
    g_test_add_func("/encrypted-records/flip", test_flip);
    g_test_add_func("/encrypted-records/header", test_header);
    g_test_add_func("/encrypted-records/lengths", test_lengths);
    g_test_add_func("/encrypted-records/order", test_order);
    g_test_add_func("/encrypted-records/platform", test_platform);
    g_test_add_func("/encrypted-records/plain-order", test_plain_order);
    g_test_add_func("/encrypted-records/session", test_session);
    g_test_add_func("/encrypted-records/session-flags", test_session_flags);
    g_test_add_func("/encrypted-records/optional-flags", test_optional_flags);
    g_test_add_func("/encrypted-records/reason-text", test_reason_text);
    g_test_add_func("/encrypted-records/reason-len", test_reason_len);
    g_test_add_func("/encrypted-records/pages", test_pages);
    g_test_add_func("/encrypted-records/pages-refused", test_pages_refused);
    g_test_add_func("/encrypted-records/unallocated", test_unallocated);
    g_test_add_func("/encrypted-records/convert-fails", test_convert_fails);
    g_test_add_func("/encrypted-records/pages-record", test_pages_record);
    g_test_add_func("/encrypted-records/pages-record-first",
                    test_pages_record_first);
    g_test_add_func("/encrypted-records/state", test_state);
    g_test_add_func("/encrypted-records/resized", test_resized);
    g_test_add_func("/encrypted-records/big-block", test_big_block);
    g_test_add_func("/encrypted-records/write-limits", test_write_limits);
    g_test_add_func("/encrypted-records/damage", test_damage);
    return g_test_run();
}
