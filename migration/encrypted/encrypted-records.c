/*
 * Records of private pages in the migration stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Format: docs/specs/encrypted-ram-migration.rst
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "encrypted-records.h"
#include "migration/ram.h"
#include "trace.h"

#define RECORD_VERSION 1

typedef enum RecordType {
    RECORD_SESSION = 1,
    RECORD_PAGES = 2,
    RECORD_STATE = 3,
    RECORD_FINAL = 4,
    RECORD_UNALLOCATED = 5,
    RECORD__MAX,
} RecordType;

/* Fixed part of each body, and limits, from the specification */
#define SESSION_FIXED ENCRYPTED_SESSION_FIXED
#define PAGES_FIXED 16
#define STATE_FIXED 24
#define UNALLOCATED_FIXED 24
#define BLOCKS_MAX 1024
#define BLOCK_ENTRY_MAX (1 + 255 + 8)
#define STATE_PAGES_MAX (1024 * 1024)

static const struct {
    const char *name;
    size_t min, max;
} record_types[RECORD__MAX] = {
    [RECORD_SESSION] = { "session", SESSION_FIXED, SESSION_FIXED +
                         BLOCKS_MAX * BLOCK_ENTRY_MAX +
                         CGS_MIGRATION_SESSION_MAX },
    [RECORD_PAGES] = { "pages", PAGES_FIXED, PAGES_FIXED +
                       CGS_MIGRATION_PAGES_MAX * CGS_MIGRATION_PAGE_MAX },
    [RECORD_STATE] = { "state", STATE_FIXED,
                       STATE_FIXED + STATE_PAGES_MAX / 8 },
    [RECORD_FINAL] = { "final", 0, CGS_MIGRATION_SESSION_MAX },
    [RECORD_UNALLOCATED] = { "unallocated", UNALLOCATED_FIXED,
                             UNALLOCATED_FIXED },
};

static uint64_t block_pages(const RAMBlock *rb)
{
    return rb->used_length >> qemu_target_page_bits();
}

/* Writing */

static void put8(GByteArray *out, uint8_t v)
{
    g_byte_array_append(out, &v, sizeof(v));
}

static void put32(GByteArray *out, uint32_t v)
{
    v = cpu_to_be32(v);
    g_byte_array_append(out, (uint8_t *)&v, sizeof(v));
}

static void put64(GByteArray *out, uint64_t v)
{
    v = cpu_to_be64(v);
    g_byte_array_append(out, (uint8_t *)&v, sizeof(v));
}

static void put_header(GByteArray *out, RecordType type, size_t len)
{
    assert(len <= record_types[type].max);
    put64(out, RAM_SAVE_FLAG_ENCRYPTED_PAGE);
    put8(out, RECORD_VERSION);
    put8(out, type);
    put8(out, 0);
    put8(out, 0);
    put32(out, len);
}

GPtrArray *encrypted_blocks(void)
{
    GPtrArray *blocks = g_ptr_array_new();
    RAMBlock *rb;

    RAMBLOCK_FOREACH(rb) {
        if (encbitmap_npages(rb) && block_pages(rb) &&
            qemu_ram_is_migratable(rb)) {
            g_ptr_array_add(blocks, rb);
        }
    }
    return blocks;
}

bool encrypted_record_session(GByteArray *out, GPtrArray *blocks,
                              uint32_t flags, const GByteArray *session,
                              Error **errp)
{
    size_t len = SESSION_FIXED + session->len;

    if (!blocks->len || blocks->len > BLOCKS_MAX) {
        error_setg(errp, "%u RAM blocks can have private pages, expected 1 "
                   "to %u", blocks->len, BLOCKS_MAX);
        return false;
    }
    if (session->len > CGS_MIGRATION_SESSION_MAX) {
        error_setg(errp, "session data of %u bytes, at most %zu fit",
                   session->len, (size_t)CGS_MIGRATION_SESSION_MAX);
        return false;
    }
    for (guint i = 0; i < blocks->len; i++) {
        RAMBlock *rb = g_ptr_array_index(blocks, i);

        len += 1 + strlen(rb->idstr) + 8;
    }
    put_header(out, RECORD_SESSION, len);
    put32(out, qemu_target_page_size());
    put32(out, blocks->len);
    put32(out, session->len);
    put32(out, flags);
    for (guint i = 0; i < blocks->len; i++) {
        RAMBlock *rb = g_ptr_array_index(blocks, i);
        size_t n = strlen(rb->idstr);

        put8(out, n);
        g_byte_array_append(out, (uint8_t *)rb->idstr, n);
        put64(out, block_pages(rb));
    }
    g_byte_array_append(out, session->data, session->len);
    return true;
}

bool encrypted_record_pages(GByteArray *out, uint32_t block, uint64_t offset,
                            size_t npages, const GByteArray *payload,
                            Error **errp)
{
    assert(npages && npages <= CGS_MIGRATION_PAGES_MAX);
    if (!payload->len || payload->len > npages * CGS_MIGRATION_PAGE_MAX) {
        error_setg(errp, "%zu private pages were packed into %u bytes, "
                   "expected 1 to %zu", npages, payload->len,
                   npages * (size_t)CGS_MIGRATION_PAGE_MAX);
        return false;
    }
    put_header(out, RECORD_PAGES, PAGES_FIXED + payload->len);
    put32(out, block);
    put32(out, npages);
    put64(out, offset);
    g_byte_array_append(out, payload->data, payload->len);
    return true;
}

void encrypted_record_unallocated(GByteArray *out, uint32_t block,
                                  uint64_t page, uint64_t npages)
{
    assert(npages);
    put_header(out, RECORD_UNALLOCATED, UNALLOCATED_FIXED);
    put32(out, block);
    put32(out, 0);
    put64(out, page);
    put64(out, npages);
}

bool encrypted_record_state(GByteArray *out, GPtrArray *blocks,
                            uint32_t *block, uint64_t *first)
{
    g_autofree uint64_t *words = NULL;
    uint64_t npages, nwords;
    RAMBlock *rb;

    if (*block >= blocks->len) {
        return false;
    }
    rb = g_ptr_array_index(blocks, *block);
    npages = MIN(block_pages(rb) - *first, STATE_PAGES_MAX);
    nwords = DIV_ROUND_UP(npages, 64);
    words = g_new(uint64_t, nwords);
    encbitmap_read(rb, *first, npages, words);

    put_header(out, RECORD_STATE, STATE_FIXED + nwords * 8);
    put32(out, *block);
    put32(out, 0);
    put64(out, *first);
    put64(out, npages);
    for (uint64_t i = 0; i < nwords; i++) {
        put64(out, le64_to_cpu(words[i]));
    }
    *first += npages;
    if (*first == block_pages(rb)) {
        *first = 0;
        ++*block;
    }
    return true;
}

bool encrypted_record_final(GByteArray *out, const GByteArray *final,
                            Error **errp)
{
    if (final->len > CGS_MIGRATION_SESSION_MAX) {
        error_setg(errp, "final data of %u bytes, at most %zu fit",
                   final->len, (size_t)CGS_MIGRATION_SESSION_MAX);
        return false;
    }
    put_header(out, RECORD_FINAL, final->len);
    g_byte_array_append(out, final->data, final->len);
    return true;
}

/* The destination's reason */

size_t encrypted_reason_len(const char *text)
{
    size_t len = MIN(strlen(text), ENCRYPTED_REASON_MAX);

    /* A character is not divided: its second byte and the next are 10xxxxxx */
    while (len && text[len] && ((uint8_t)text[len] & 0xc0) == 0x80) {
        len--;
    }
    return len;
}

char *encrypted_reason_text(const uint8_t *data, size_t len)
{
    g_autofree char *valid = g_utf8_make_valid((const char *)data, len);
    GString *out = g_string_new(NULL);

    for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);
        GUnicodeType type = g_unichar_type(c);

        if (!g_unichar_isprint(c) ||
            type == G_UNICODE_LINE_SEPARATOR ||
            type == G_UNICODE_PARAGRAPH_SEPARATOR) {
            c = '?';
        }
        g_string_append_unichar(out, c);
    }
    return g_string_free(out, false);
}

/* Reading: everything here comes from somebody who may mean harm */

typedef struct LoadBlock {
    RAMBlock *rb;
    uint64_t npages;
    /* Pages whose last record was one of private pages, allocated or not */
    unsigned long *received;
} LoadBlock;

struct EncryptedLoad {
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops;
    RecordType last;        /* 0: none yet */
    RecordType now;         /* of the header that was read, 0 outside */
    bool failed;
    LoadBlock *blocks;
    uint32_t nblocks;
    /* Where the next state record begins; state_block == nblocks: complete */
    uint32_t state_block;
    uint64_t state_page;
    uint64_t private_pages;     /* received, however often */
};

EncryptedLoad *encrypted_load_new(ConfidentialGuestSupport *cgs,
                                  const ConfidentialGuestMigrationOps *ops)
{
    EncryptedLoad *load = g_new0(EncryptedLoad, 1);

    load->cgs = cgs;
    load->ops = ops;
    return load;
}

void encrypted_load_free(EncryptedLoad *load)
{
    if (!load) {
        return;
    }
    for (uint32_t i = 0; i < load->nblocks; i++) {
        g_free(load->blocks[i].received);
    }
    g_free(load->blocks);
    g_free(load);
}

/* May a record of @type follow what was read? */
static bool check_order(EncryptedLoad *load, RecordType type, Error **errp)
{
    bool ok = false;

    switch (type) {
    case RECORD_SESSION:
        ok = load->last == 0;
        break;
    case RECORD_PAGES:
    case RECORD_UNALLOCATED:
        ok = load->last == RECORD_SESSION || load->last == RECORD_PAGES;
        break;
    case RECORD_STATE:
        ok = load->last && load->last <= RECORD_STATE;
        break;
    case RECORD_FINAL:
        ok = load->last == RECORD_STATE;
        break;
    default:
        g_assert_not_reached();
    }
    if (!ok) {
        error_setg(errp, "a record of type %s is out of order: the last "
                   "one was %s", record_types[type].name,
                   load->last ? record_types[load->last].name : "none");
    }
    return ok;
}

bool encrypted_load_header(EncryptedLoad *load, const uint8_t *header,
                           size_t *len, Error **errp)
{
    uint8_t version = header[0], type = header[1];
    uint16_t reserved = lduw_be_p(header + 2);
    uint32_t body = ldl_be_p(header + 4);

    if (load->failed || load->now) {
        error_setg(errp, "a record follows one that was refused");
        return false;
    }
    load->failed = true;
    if (version != RECORD_VERSION) {
        error_setg(errp, "records of private pages have version %u, this "
                   "QEMU knows version %u", version, RECORD_VERSION);
        return false;
    }
    if (!type || type >= RECORD__MAX || reserved) {
        error_setg(errp, "record of type %u (reserved bits 0x%x): expected "
                   "type 1 to %u (0)", type, reserved, RECORD__MAX - 1);
        return false;
    }
    if (!check_order(load, type, errp)) {
        return false;
    }
    if (body < record_types[type].min || body > record_types[type].max) {
        error_setg(errp, "record of type %s has %" PRIu32 " bytes, expected "
                   "%zu to %zu", record_types[type].name, body,
                   record_types[type].min, record_types[type].max);
        return false;
    }
    load->failed = false;
    load->now = type;
    *len = body;
    return true;
}

bool encrypted_session_flags(const uint8_t *header, const uint8_t *body,
                             size_t len, uint32_t *flags)
{
    if (header[0] != RECORD_VERSION || header[1] != RECORD_SESSION ||
        len < SESSION_FIXED) {
        return false;
    }
    *flags = ldl_be_p(body + 12);
    return true;
}

/* One entry of the session's list, which must be one of our blocks, and new */
static bool load_session_block(EncryptedLoad *load, const char *name,
                               uint64_t npages, Error **errp)
{
    RAMBlock *rb = qemu_ram_block_by_name(name);
    LoadBlock *b = &load->blocks[load->nblocks];

    if (!rb || !qemu_ram_is_migratable(rb)) {
        error_setg(errp, "block %s: there is no such block to migrate to",
                   name);
        return false;
    }
    if (!encbitmap_npages(rb)) {
        error_setg(errp, "block %s: can have private pages at the source, "
                   "but is always shared here", name);
        return false;
    }
    if (npages != block_pages(rb)) {
        error_setg(errp, "block %s: %" PRIu64 " pages at the source, %" PRIu64
                   " here", name, npages, block_pages(rb));
        return false;
    }
    for (uint32_t i = 0; i < load->nblocks; i++) {
        if (load->blocks[i].rb == rb) {
            error_setg(errp, "block %s: is in the session's list twice", name);
            return false;
        }
    }
    b->rb = rb;
    b->npages = npages;
    b->received = bitmap_new(npages);
    load->nblocks++;
    return true;
}

static bool load_session(EncryptedLoad *load, const uint8_t *p, size_t len,
                         Error **errp)
{
    uint32_t page_size = ldl_be_p(p), nblocks = ldl_be_p(p + 4);
    uint32_t nsession = ldl_be_p(p + 8), flags = ldl_be_p(p + 12);
    g_autoptr(GPtrArray) mine = NULL;

    p += SESSION_FIXED;
    len -= SESSION_FIXED;
    if (page_size != qemu_target_page_size()) {
        error_setg(errp, "pages of %" PRIu32 " bytes, expected %zu",
                   page_size, qemu_target_page_size());
        return false;
    }
    if (!nblocks || nblocks > BLOCKS_MAX ||
        nsession > CGS_MIGRATION_SESSION_MAX) {
        error_setg(errp, "session of %" PRIu32 " blocks with %" PRIu32
                   " bytes of data: expected 1 to %u blocks, up to %zu bytes",
                   nblocks, nsession, BLOCKS_MAX,
                   (size_t)CGS_MIGRATION_SESSION_MAX);
        return false;
    }
    if (flags & ~(ENCRYPTED_SESSION_FLAGS | ENCRYPTED_SESSION_OPTIONAL)) {
        error_setg(errp, "session with flags 0x%" PRIx32 ", this QEMU knows "
                   "0x%x", flags, ENCRYPTED_SESSION_FLAGS);
        return false;
    }
    load->blocks = g_new0(LoadBlock, nblocks);
    for (uint32_t i = 0; i < nblocks; i++) {
        size_t n = len ? p[0] : 0;
        char name[256];

        if (!n || len < 1 + n + 8 || memchr(p + 1, 0, n)) {
            error_setg(errp, "entry %" PRIu32 " of the session's list of "
                       "blocks is not a name and a size", i);
            return false;
        }
        memcpy(name, p + 1, n);
        name[n] = 0;
        if (!load_session_block(load, name, ldq_be_p(p + 1 + n), errp)) {
            return false;
        }
        p += 1 + n + 8;
        len -= 1 + n + 8;
    }
    if (len != nsession) {
        error_setg(errp, "%zu bytes of session data, expected %" PRIu32, len,
                   nsession);
        return false;
    }
    mine = encrypted_blocks();
    for (guint i = 0; i < mine->len; i++) {
        RAMBlock *rb = g_ptr_array_index(mine, i);
        uint32_t j = 0;

        while (j < nblocks && load->blocks[j].rb != rb) {
            j++;
        }
        if (j == nblocks) {
            error_setg(errp, "block %s: can have private pages here, but is "
                       "always shared at the source", rb->idstr);
            return false;
        }
    }
    return load->ops->receive_start(load->cgs, p, len, errp);
}

/*
 * Has @b the size of the session still?  The stream can resize some blocks
 * at any time.
 */
static bool check_size(const LoadBlock *b, Error **errp)
{
    if (block_pages(b->rb) == b->npages) {
        return true;
    }
    error_setg(errp, "block %s: %" PRIu64 " pages now, %" PRIu64 " in the "
               "session", b->rb->idstr, block_pages(b->rb), b->npages);
    return false;
}

static bool check_sizes(EncryptedLoad *load, Error **errp)
{
    for (uint32_t i = 0; i < load->nblocks; i++) {
        if (!check_size(&load->blocks[i], errp)) {
            return false;
        }
    }
    return true;
}

static LoadBlock *load_block(EncryptedLoad *load, uint32_t i, Error **errp)
{
    if (i >= load->nblocks) {
        error_setg(errp, "record for block %" PRIu32 ", the session has %"
                   PRIu32, i, load->nblocks);
        return NULL;
    }
    return check_size(&load->blocks[i], errp) ? &load->blocks[i] : NULL;
}

/* The pages [@page, @page + @npages) become private, if they are not */
static bool make_private(RAMBlock *rb, uint64_t page, uint64_t npages,
                         Error **errp)
{
    int bits = qemu_target_page_bits();

    return encbitmap_count(rb, page, npages) == npages ||
           encbitmap_convert(rb, page << bits, npages << bits, true, NULL,
                             errp) == 0;
}

static bool load_pages(EncryptedLoad *load, const uint8_t *p, size_t len,
                       Error **errp)
{
    LoadBlock *b = load_block(load, ldl_be_p(p), errp);
    uint32_t npages = ldl_be_p(p + 4);
    uint64_t offset = ldq_be_p(p + 8), page;
    int bits = qemu_target_page_bits();
    RAMBlock *rb;
    bool ok;

    if (!b) {
        return false;
    }
    rb = b->rb;
    p += PAGES_FIXED;
    len -= PAGES_FIXED;
    page = offset >> bits;
    if (!npages || npages > CGS_MIGRATION_PAGES_MAX ||
        offset & (qemu_target_page_size() - 1) ||
        page >= b->npages || npages > b->npages - page) {
        error_setg(errp, "block %s, offset 0x%" PRIx64 ": record of %" PRIu32
                   " private pages, expected 1 to %u whole ones below 0x%"
                   PRIx64, rb->idstr, offset, npages, CGS_MIGRATION_PAGES_MAX,
                   b->npages << bits);
        return false;
    }
    if (!len || len > npages * CGS_MIGRATION_PAGE_MAX) {
        error_setg(errp, "block %s, offset 0x%" PRIx64 ": %" PRIu32 " private "
                   "pages in %zu bytes, expected 1 to %zu", rb->idstr, offset,
                   npages, len, npages * (size_t)CGS_MIGRATION_PAGE_MAX);
        return false;
    }
    if (!make_private(rb, page, npages, errp)) {
        return false;
    }
    encbitmap_send_lock(rb);
    ok = load->ops->receive_pages(load->cgs, rb, offset, npages, p, len, errp);
    encbitmap_send_unlock(rb);
    if (!ok) {
        error_prepend(errp, "block %s, offset 0x%" PRIx64 ": cannot receive %"
                      PRIu32 " private pages: ", rb->idstr, offset, npages);
        return false;
    }
    bitmap_set(b->received, page, npages);
    load->private_pages += npages;
    trace_encrypted_pages_load(rb->idstr, offset, npages, len);
    return true;
}

static bool load_unallocated(EncryptedLoad *load, const uint8_t *p,
                             Error **errp)
{
    LoadBlock *b = load_block(load, ldl_be_p(p), errp);
    uint32_t reserved = ldl_be_p(p + 4);
    uint64_t page = ldq_be_p(p + 8), npages = ldq_be_p(p + 16);

    if (!b) {
        return false;
    }
    if (!npages || page >= b->npages || npages > b->npages - page ||
        reserved) {
        error_setg(errp, "block %s: record of %" PRIu64 " unallocated pages "
                   "from page %" PRIu64 " on (reserved 0x%" PRIx32 "), "
                   "expected 1 or more of %" PRIu64 " (0)", b->rb->idstr,
                   npages, page, reserved, b->npages);
        return false;
    }
    if (!make_private(b->rb, page, npages, errp)) {
        return false;
    }
    bitmap_set(b->received, page, npages);
    trace_encrypted_pages_load_unallocated(b->rb->idstr, page, npages);
    return true;
}

/* Compare the words of a state record with what is here */
static bool check_state(LoadBlock *b, uint64_t first, uint64_t npages,
                        const uint8_t *words, Error **errp)
{
    g_autofree uint64_t *here = g_new(uint64_t, DIV_ROUND_UP(npages, 64));
    g_autofree unsigned long *got = bitmap_new(ROUND_UP(npages, 64));
    int bits = qemu_target_page_bits();

    encbitmap_read(b->rb, first, npages, here);
    bitmap_copy_with_src_offset(got, b->received, first, npages);
    for (uint64_t w = 0; w < DIV_ROUND_UP(npages, 64); w++) {
        uint64_t want = ldq_be_p(words + w * 8);
        uint64_t have = le64_to_cpu(here[w]), bad, page;
        unsigned n = MIN(npages - w * 64, 64);

        if (n < 64 && want >> n) {
            error_setg(errp, "block %s: state bits beyond its end",
                       b->rb->idstr);
            return false;
        }
        bad = want ^ have;
        if (bad) {
            page = first + w * 64 + ctz64(bad);
            error_setg(errp, "block %s, offset 0x%" PRIx64 ": the page is %s "
                       "at the source but came as a %s one", b->rb->idstr,
                       page << bits, want & (bad & -bad) ? "private" :
                       "shared", want & (bad & -bad) ? "shared" : "private");
            return false;
        }
        while (want) {
            unsigned i = ctz64(want);

            if (!test_bit(w * 64 + i, got)) {
                error_setg(errp, "block %s, offset 0x%" PRIx64 ": the page is "
                           "private but was not received", b->rb->idstr,
                           (first + w * 64 + i) << bits);
                return false;
            }
            want &= want - 1;
        }
    }
    return true;
}

static bool load_state(EncryptedLoad *load, const uint8_t *p, size_t len,
                       Error **errp)
{
    uint32_t block = ldl_be_p(p), reserved = ldl_be_p(p + 4);
    uint64_t first = ldq_be_p(p + 8), npages = ldq_be_p(p + 16);
    LoadBlock *b = load_block(load, block, errp);

    if (!b) {
        return false;
    }
    if (block != load->state_block || first != load->state_page || reserved) {
        error_setg(errp, "state of block %" PRIu32 ", page %" PRIu64
                   " (reserved 0x%" PRIx32 "), expected block %" PRIu32
                   ", page %" PRIu64 " (0)", block, first, reserved,
                   load->state_block, load->state_page);
        return false;
    }
    if (!npages || npages > STATE_PAGES_MAX || npages > b->npages - first ||
        (npages % 64 && npages != b->npages - first)) {
        error_setg(errp, "block %s: state of %" PRIu64 " pages from page %"
                   PRIu64 " on, %" PRIu64 " are left", b->rb->idstr, npages,
                   first, b->npages - first);
        return false;
    }
    p += STATE_FIXED;
    len -= STATE_FIXED;
    if (len != DIV_ROUND_UP(npages, 64) * 8) {
        error_setg(errp, "block %s: state of %" PRIu64 " pages in %zu bytes",
                   b->rb->idstr, npages, len);
        return false;
    }
    if (!check_state(b, first, npages, p, errp)) {
        return false;
    }
    load->state_page += npages;
    if (load->state_page == b->npages) {
        load->state_block++;
        load->state_page = 0;
    }
    return true;
}

static bool load_final(EncryptedLoad *load, const uint8_t *p, size_t len,
                       Error **errp)
{
    if (load->state_block != load->nblocks) {
        error_setg(errp, "block %s: the state of page %" PRIu64 " is missing",
                   load->blocks[load->state_block].rb->idstr,
                   load->state_page);
        return false;
    }
    if (!check_sizes(load, errp)) {
        return false;
    }
    return load->ops->receive_final(load->cgs, p, len, errp);
}

bool encrypted_load_is_slow(const EncryptedLoad *load)
{
    return load->now == RECORD_PAGES || load->now == RECORD_UNALLOCATED;
}

bool encrypted_load_body(EncryptedLoad *load, const uint8_t *body, size_t len,
                         Error **errp)
{
    RecordType type = load->now;
    bool ok = false;

    assert(type && !load->failed);
    assert(len >= record_types[type].min && len <= record_types[type].max);
    load->now = 0;
    switch (type) {
    case RECORD_SESSION:
        ok = load_session(load, body, len, errp);
        break;
    case RECORD_PAGES:
        ok = load_pages(load, body, len, errp);
        break;
    case RECORD_STATE:
        ok = load_state(load, body, len, errp);
        break;
    case RECORD_FINAL:
        ok = load_final(load, body, len, errp);
        break;
    case RECORD_UNALLOCATED:
        ok = load_unallocated(load, body, errp);
        /* As to the order, one of pages as any other */
        type = RECORD_PAGES;
        break;
    default:
        g_assert_not_reached();
    }
    load->last = type;
    load->failed = !ok;
    return ok;
}

bool encrypted_load_pages_record(EncryptedLoad *load, const uint8_t *record,
                                 size_t len, Error **errp)
{
    const size_t head = 8 + ENCRYPTED_RECORD_HEADER;
    size_t body;

    if (len < head || ldq_be_p(record) != RAM_SAVE_FLAG_ENCRYPTED_PAGE ||
        (record[9] != RECORD_PAGES && record[9] != RECORD_UNALLOCATED)) {
        load->failed = true;
        error_setg(errp, "%zu bytes that are not a record of pages", len);
        return false;
    }
    if (!encrypted_load_header(load, record + 8, &body, errp)) {
        return false;
    }
    if (body != len - head) {
        load->failed = true;
        error_setg(errp, "record of pages of %zu bytes, expected %zu", len,
                   head + body);
        return false;
    }
    return encrypted_load_body(load, record + head, body, errp);
}

bool encrypted_load_plain(EncryptedLoad *load, RAMBlock *rb, uint64_t offset,
                          Error **errp)
{
    uint64_t page = offset >> qemu_target_page_bits();
    uint32_t i = 0;

    if (load->failed || load->now ||
        (load->last != RECORD_SESSION && load->last != RECORD_PAGES)) {
        error_setg(errp, "block %s, offset 0x%" PRIx64 ": plain page %s",
                   rb->idstr, offset, load->last ?
                   "after the state of its block" :
                   "of a block that can have private pages, from a guest "
                   "that is not confidential");
        return false;
    }
    while (i < load->nblocks && load->blocks[i].rb != rb) {
        i++;
    }
    if (i == load->nblocks) {
        /* The session had to list every block that can have private pages */
        error_setg(errp, "block %s: got private pages after the session",
                   rb->idstr);
        return false;
    }
    if (!check_size(&load->blocks[i], errp)) {
        return false;
    }
    /* The caller has looked, but not under what keeps the size as it is */
    if (page >= load->blocks[i].npages) {
        error_setg(errp, "block %s, offset 0x%" PRIx64 ": plain page beyond "
                   "its end", rb->idstr, offset);
        return false;
    }
    if (!encbitmap_test(rb, page)) {
        return true;
    }
    if (encbitmap_convert(rb, offset, qemu_target_page_size(), false, NULL,
                          errp) < 0) {
        return false;
    }
    clear_bit(page, load->blocks[i].received);
    return true;
}

bool encrypted_load_opened(const EncryptedLoad *load)
{
    return load->last > RECORD_SESSION ||
           (load->last == RECORD_SESSION && !load->failed);
}

uint64_t encrypted_load_private_pages(const EncryptedLoad *load)
{
    return load->private_pages;
}

bool encrypted_load_done(EncryptedLoad *load, Error **errp)
{
    if (load->last == RECORD_FINAL && !load->failed) {
        return check_sizes(load, errp);
    }
    error_setg(errp, "the guest's private memory is incomplete: the last "
               "record was %s, expected final",
               load->last ? record_types[load->last].name : "none");
    return false;
}
