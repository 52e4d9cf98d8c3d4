/*
 * Receiver of private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All input is untrusted.  Format: docs/specs/encrypted-ram-migration.rst
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "encrypted-receiver.h"
#include "migration/ram.h"
#include "trace.h"

typedef struct ReceivedBlock {
    RAMBlock *rb;
    uint64_t npages;
    /* Pages that were last received as private, with or without contents */
    unsigned long *received;
} ReceivedBlock;

struct EncryptedReceiver {
    ConfidentialGuestSupport *cgs;
    const ConfidentialGuestMigrationOps *ops;
    EncryptedRecord last;       /* type of the last record, 0: none yet */
    EncryptedRecord now;        /* type of the record whose body is due */
    bool failed;                /* nothing more is accepted */
    ReceivedBlock *blocks;
    uint32_t nblocks;
    /*
     * Block and page at which the next state record must begin.  The block is
     * @nblocks when all state records have been received.
     */
    uint32_t state_block;
    uint64_t state_page;
    uint64_t private_pages;     /* pages in all records of pages */
};

EncryptedReceiver *
encrypted_receiver_new(ConfidentialGuestSupport *cgs,
                       const ConfidentialGuestMigrationOps *ops)
{
    EncryptedReceiver *r = g_new0(EncryptedReceiver, 1);

    r->cgs = cgs;
    r->ops = ops;
    return r;
}

void encrypted_receiver_free(EncryptedReceiver *r)
{
    if (!r) {
        return;
    }
    for (uint32_t i = 0; i < r->nblocks; i++) {
        g_free(r->blocks[i].received);
    }
    g_free(r->blocks);
    g_free(r);
}

/* Whether a plain page or a record of pages may follow the last record */
static bool expects_pages(const EncryptedReceiver *r)
{
    return r->last == ENCRYPTED_RECORD_SESSION ||
           r->last == ENCRYPTED_RECORD_PAGES;
}

/* Check that a record of @type may follow the last record */
static bool check_order(EncryptedReceiver *r, EncryptedRecord type,
                        Error **errp)
{
    bool ok = false;

    switch (type) {
    case ENCRYPTED_RECORD_SESSION:
        ok = r->last == 0;
        break;
    case ENCRYPTED_RECORD_PAGES:
    case ENCRYPTED_RECORD_UNALLOCATED:
    case ENCRYPTED_RECORD_PLATFORM:
        ok = expects_pages(r);
        break;
    case ENCRYPTED_RECORD_STATE:
        ok = r->last && r->last <= ENCRYPTED_RECORD_STATE;
        break;
    case ENCRYPTED_RECORD_FINAL:
        ok = r->last == ENCRYPTED_RECORD_STATE;
        break;
    default:
        g_assert_not_reached();
    }
    if (!ok) {
        error_setg(errp, "a record of type %s is out of order: the last "
                   "one was %s", encrypted_record_types[type].name,
                   r->last ? encrypted_record_types[r->last].name : "none");
    }
    return ok;
}

bool encrypted_receiver_header(EncryptedReceiver *r, const uint8_t *header,
                               size_t *len, Error **errp)
{
    uint8_t version = header[0], type = header[1];
    uint16_t kind = lduw_be_p(header + 2);
    uint32_t body = ldl_be_p(header + 4);
    const EncryptedRecordType *limits;

    if (r->failed || r->now) {
        error_setg(errp, "a record follows one that was refused");
        return false;
    }
    r->failed = true;
    if (kind != ENCRYPTED_RECORD_KIND) {
        error_setg(errp, "extended record of kind %u, this QEMU knows kind %u",
                   kind, ENCRYPTED_RECORD_KIND);
        return false;
    }
    if (version != ENCRYPTED_RECORD_VERSION) {
        error_setg(errp, "records of private pages have version %u, this "
                   "QEMU knows version %u", version, ENCRYPTED_RECORD_VERSION);
        return false;
    }
    if (!type || type >= ENCRYPTED_RECORD__MAX) {
        error_setg(errp, "the record has type %u, but this QEMU knows only "
                   "types 1 to %u", type, ENCRYPTED_RECORD__MAX - 1);
        return false;
    }
    if (!check_order(r, type, errp)) {
        return false;
    }
    limits = &encrypted_record_types[type];
    if (body < limits->min || body > limits->max) {
        error_setg(errp, "record of type %s has %" PRIu32 " bytes, expected "
                   "%zu to %zu", limits->name, body, limits->min, limits->max);
        return false;
    }
    r->failed = false;
    r->now = type;
    *len = body;
    return true;
}

/*
 * Add a block of the session record's list.  The block must exist on this
 * machine and must not be in the list twice.
 */
static bool receive_session_block(EncryptedReceiver *r, const char *name,
                                  uint64_t npages, Error **errp)
{
    RAMBlock *rb = qemu_ram_block_by_name(name);
    ReceivedBlock *b = &r->blocks[r->nblocks];

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
    if (npages != encrypted_block_pages(rb)) {
        error_setg(errp, "block %s: %" PRIu64 " pages at the source, %" PRIu64
                   " here", name, npages, encrypted_block_pages(rb));
        return false;
    }
    for (uint32_t i = 0; i < r->nblocks; i++) {
        if (r->blocks[i].rb == rb) {
            error_setg(errp, "block %s: is in the session's list twice", name);
            return false;
        }
    }
    b->rb = rb;
    b->npages = npages;
    b->received = bitmap_new(npages);
    r->nblocks++;
    return true;
}

/*
 * Read the list of @nblocks blocks in the session record.  Advances @p and
 * @len to what follows the list.
 */
static bool receive_session_blocks(EncryptedReceiver *r, uint32_t nblocks,
                                   const uint8_t **p, size_t *len,
                                   Error **errp)
{
    r->blocks = g_new0(ReceivedBlock, nblocks);
    for (uint32_t i = 0; i < nblocks; i++) {
        size_t n = *len ? (*p)[0] : 0;
        char name[256];

        if (!n || *len < 1 + n + 8 || memchr(*p + 1, 0, n)) {
            error_setg(errp, "entry %" PRIu32 " of the session's list of "
                       "blocks is not a name and a size", i);
            return false;
        }
        memcpy(name, *p + 1, n);
        name[n] = 0;
        if (!receive_session_block(r, name, ldq_be_p(*p + 1 + n), errp)) {
            return false;
        }
        *p += 1 + n + 8;
        *len -= 1 + n + 8;
    }
    return true;
}

/* Check that the session has every block that can have private pages */
static bool check_all_listed(EncryptedReceiver *r, Error **errp)
{
    g_autoptr(GPtrArray) here = encrypted_blocks();

    for (guint i = 0; i < here->len; i++) {
        RAMBlock *rb = g_ptr_array_index(here, i);
        uint32_t j = 0;

        while (j < r->nblocks && r->blocks[j].rb != rb) {
            j++;
        }
        if (j == r->nblocks) {
            error_setg(errp, "block %s: can have private pages here, but is "
                       "always shared at the source", rb->idstr);
            return false;
        }
    }
    return true;
}

static bool receive_session(EncryptedReceiver *r, const uint8_t *p, size_t len,
                            Error **errp)
{
    uint32_t page_size = ldl_be_p(p), nblocks = ldl_be_p(p + 4);
    uint32_t nsession = ldl_be_p(p + 8), flags = ldl_be_p(p + 12);

    p += ENCRYPTED_SESSION_FIXED;
    len -= ENCRYPTED_SESSION_FIXED;
    if (page_size != qemu_target_page_size()) {
        error_setg(errp, "pages of %" PRIu32 " bytes, expected %zu",
                   page_size, qemu_target_page_size());
        return false;
    }
    if (!nblocks || nblocks > ENCRYPTED_BLOCKS_MAX ||
        nsession > CGS_MIGRATION_SESSION_MAX) {
        error_setg(errp, "session of %" PRIu32 " blocks with %" PRIu32
                   " bytes of data: expected 1 to %u blocks, up to %zu bytes",
                   nblocks, nsession, ENCRYPTED_BLOCKS_MAX,
                   (size_t)CGS_MIGRATION_SESSION_MAX);
        return false;
    }
    if (flags & ~(ENCRYPTED_SESSION_FLAGS | ENCRYPTED_SESSION_OPTIONAL)) {
        error_setg(errp, "session with flags 0x%" PRIx32 ", this QEMU knows "
                   "0x%x", flags, ENCRYPTED_SESSION_FLAGS);
        return false;
    }
    if (!receive_session_blocks(r, nblocks, &p, &len, errp)) {
        return false;
    }
    if (len != nsession) {
        error_setg(errp, "%zu bytes of session data, expected %" PRIu32, len,
                   nsession);
        return false;
    }
    if (!check_all_listed(r, errp)) {
        return false;
    }
    return r->ops->receive_start(r->cgs, p, len, errp);
}

/*
 * Check that @b still has the size that the session record has announced.  The
 * stream can resize some blocks at any time.
 */
static bool check_size(const ReceivedBlock *b, Error **errp)
{
    if (encrypted_block_pages(b->rb) == b->npages) {
        return true;
    }
    error_setg(errp, "block %s: %" PRIu64 " pages now, %" PRIu64 " in the "
               "session", b->rb->idstr, encrypted_block_pages(b->rb),
               b->npages);
    return false;
}

static bool check_sizes(EncryptedReceiver *r, Error **errp)
{
    for (uint32_t i = 0; i < r->nblocks; i++) {
        if (!check_size(&r->blocks[i], errp)) {
            return false;
        }
    }
    return true;
}

static ReceivedBlock *find_block(EncryptedReceiver *r, uint32_t i, Error **errp)
{
    if (i >= r->nblocks) {
        error_setg(errp, "record for block %" PRIu32 ", the session has %"
                   PRIu32, i, r->nblocks);
        return NULL;
    }
    return check_size(&r->blocks[i], errp) ? &r->blocks[i] : NULL;
}

/* Convert the pages [@page, @page + @npages) to private if they are not */
static bool make_private(EncryptedReceiver *r, RAMBlock *rb, uint64_t page,
                         uint64_t npages, Error **errp)
{
    int bits = qemu_target_page_bits();

    if (encbitmap_count(rb, page, npages) == npages) {
        return true;
    }
    if (r->ops->receive_private) {
        r->ops->receive_private(r->cgs, rb, page << bits, npages);
    }
    return encbitmap_convert(rb, page << bits, npages << bits, true, NULL,
                             errp) == 0;
}

static bool receive_pages(EncryptedReceiver *r, const uint8_t *p, size_t len,
                          Error **errp)
{
    ReceivedBlock *b = find_block(r, ldl_be_p(p), errp);
    uint32_t npages = ldl_be_p(p + 4);
    uint64_t offset = ldq_be_p(p + 8), page;
    int bits = qemu_target_page_bits();
    RAMBlock *rb;
    bool ok;

    if (!b) {
        return false;
    }
    rb = b->rb;
    p += ENCRYPTED_PAGES_FIXED;
    len -= ENCRYPTED_PAGES_FIXED;
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
    if (!make_private(r, rb, page, npages, errp)) {
        return false;
    }
    encbitmap_send_lock(rb);
    ok = r->ops->receive_pages(r->cgs, rb, offset, npages, p, len, errp);
    encbitmap_send_unlock(rb);
    if (!ok) {
        error_prepend(errp, "block %s, offset 0x%" PRIx64 ": cannot receive %"
                      PRIu32 " private pages: ", rb->idstr, offset, npages);
        return false;
    }
    bitmap_set(b->received, page, npages);
    r->private_pages += npages;
    trace_encrypted_pages_load(rb->idstr, offset, npages, len);
    return true;
}

static bool receive_unallocated(EncryptedReceiver *r, const uint8_t *p,
                                Error **errp)
{
    ReceivedBlock *b = find_block(r, ldl_be_p(p), errp);
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
    if (!make_private(r, b->rb, page, npages, errp)) {
        return false;
    }
    bitmap_set(b->received, page, npages);
    trace_encrypted_pages_load_unallocated(b->rb->idstr, page, npages);
    return true;
}

/*
 * Compare @words, which are the state of the pages at the source, with the
 * encryption bitmap here, and check that every private page was received
 */
static bool check_state(ReceivedBlock *b, uint64_t first, uint64_t npages,
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

static bool receive_state(EncryptedReceiver *r, const uint8_t *p, size_t len,
                          Error **errp)
{
    uint32_t block = ldl_be_p(p), reserved = ldl_be_p(p + 4);
    uint64_t first = ldq_be_p(p + 8), npages = ldq_be_p(p + 16);
    ReceivedBlock *b = find_block(r, block, errp);

    if (!b) {
        return false;
    }
    if (block != r->state_block || first != r->state_page || reserved) {
        error_setg(errp, "the record of the state of pages begins with block %"
                   PRIu32 ", page %" PRIu64 " (reserved 0x%" PRIx32 "), "
                   "expected block %" PRIu32 ", page %" PRIu64
                   " (reserved 0)", block, first, reserved, r->state_block,
                   r->state_page);
        return false;
    }
    if (!npages || npages > ENCRYPTED_STATE_PAGES_MAX ||
        npages > b->npages - first ||
        (npages % 64 && npages != b->npages - first)) {
        error_setg(errp, "block %s: state of %" PRIu64 " pages from page %"
                   PRIu64 " on, %" PRIu64 " are left", b->rb->idstr, npages,
                   first, b->npages - first);
        return false;
    }
    p += ENCRYPTED_STATE_FIXED;
    len -= ENCRYPTED_STATE_FIXED;
    if (len != DIV_ROUND_UP(npages, 64) * 8) {
        error_setg(errp, "block %s: state of %" PRIu64 " pages in %zu bytes",
                   b->rb->idstr, npages, len);
        return false;
    }
    if (!check_state(b, first, npages, p, errp)) {
        return false;
    }
    r->state_page += npages;
    if (r->state_page == b->npages) {
        r->state_block++;
        r->state_page = 0;
    }
    return true;
}

static bool receive_platform(EncryptedReceiver *r, const uint8_t *p,
                             size_t len, Error **errp)
{
    if (!r->ops->receive_data) {
        error_setg(errp, "a record of type platform, which this machine's "
                   "confidential guest support does not know");
        return false;
    }
    return r->ops->receive_data(r->cgs, p, len, errp);
}

static bool receive_final(EncryptedReceiver *r, const uint8_t *p, size_t len,
                          Error **errp)
{
    if (r->state_block != r->nblocks) {
        error_setg(errp, "block %s: the state of page %" PRIu64 " is missing",
                   r->blocks[r->state_block].rb->idstr, r->state_page);
        return false;
    }
    if (!check_sizes(r, errp)) {
        return false;
    }
    return r->ops->receive_final(r->cgs, p, len, errp);
}

bool encrypted_receiver_is_slow(const EncryptedReceiver *r)
{
    return r->now == ENCRYPTED_RECORD_PAGES ||
           r->now == ENCRYPTED_RECORD_UNALLOCATED;
}

bool encrypted_receiver_body(EncryptedReceiver *r, const uint8_t *body,
                             size_t len, Error **errp)
{
    EncryptedRecord type = r->now;
    bool ok = false;

    assert(type && !r->failed);
    assert(len >= encrypted_record_types[type].min &&
           len <= encrypted_record_types[type].max);
    r->now = 0;
    switch (type) {
    case ENCRYPTED_RECORD_SESSION:
        ok = receive_session(r, body, len, errp);
        break;
    case ENCRYPTED_RECORD_PAGES:
        ok = receive_pages(r, body, len, errp);
        break;
    case ENCRYPTED_RECORD_STATE:
        ok = receive_state(r, body, len, errp);
        break;
    case ENCRYPTED_RECORD_FINAL:
        ok = receive_final(r, body, len, errp);
        break;
    case ENCRYPTED_RECORD_UNALLOCATED:
        ok = receive_unallocated(r, body, errp);
        /*
         * Records of pages, of unallocated pages and of platform data may
         * follow each other in any order.  check_order() therefore need not
         * distinguish them: @last is ENCRYPTED_RECORD_PAGES after each of them.
         */
        type = ENCRYPTED_RECORD_PAGES;
        break;
    case ENCRYPTED_RECORD_PLATFORM:
        ok = receive_platform(r, body, len, errp);
        type = ENCRYPTED_RECORD_PAGES;
        break;
    default:
        g_assert_not_reached();
    }
    r->last = type;
    r->failed = !ok;
    return ok;
}

bool encrypted_receiver_pages_record(EncryptedReceiver *r,
                                     const uint8_t *record, size_t len,
                                     Error **errp)
{
    const size_t head = 8 + ENCRYPTED_RECORD_HEADER;
    size_t body;

    if (len < head || ldq_be_p(record) != RAM_SAVE_FLAG_EXTENDED ||
        (record[9] != ENCRYPTED_RECORD_PAGES &&
         record[9] != ENCRYPTED_RECORD_UNALLOCATED)) {
        r->failed = true;
        error_setg(errp, "a channel of multifd has sent %zu bytes that are not "
                   "a record of pages", len);
        return false;
    }
    if (!encrypted_receiver_header(r, record + 8, &body, errp)) {
        return false;
    }
    if (body != len - head) {
        r->failed = true;
        error_setg(errp, "record of pages of %zu bytes, expected %zu", len,
                   head + body);
        return false;
    }
    return encrypted_receiver_body(r, record + head, body, errp);
}

bool encrypted_receiver_plain(EncryptedReceiver *r, RAMBlock *rb,
                              uint64_t offset, Error **errp)
{
    uint64_t page = offset >> qemu_target_page_bits();
    uint32_t i = 0;

    if (r->failed || r->now || !expects_pages(r)) {
        error_setg(errp, "block %s, offset 0x%" PRIx64 ": plain page %s",
                   rb->idstr, offset, r->last ?
                   "after the state of its block" :
                   "of a block that can have private pages, from a guest "
                   "that is not confidential");
        return false;
    }
    while (i < r->nblocks && r->blocks[i].rb != rb) {
        i++;
    }
    if (i == r->nblocks) {
        /*
         * The session record has listed all blocks that could have private
         * pages at that time, so @rb became such a block later
         */
        error_setg(errp, "block %s: got private pages after the session",
                   rb->idstr);
        return false;
    }
    if (!check_size(&r->blocks[i], errp)) {
        return false;
    }
    /*
     * Check the page again, because the size of the block can have changed
     * since the caller checked the offset
     */
    if (page >= r->blocks[i].npages) {
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
    clear_bit(page, r->blocks[i].received);
    return true;
}

bool encrypted_receiver_opened(const EncryptedReceiver *r)
{
    return r->last > ENCRYPTED_RECORD_SESSION ||
           (r->last == ENCRYPTED_RECORD_SESSION && !r->failed);
}

uint64_t encrypted_receiver_private_pages(const EncryptedReceiver *r)
{
    return r->private_pages;
}

bool encrypted_receiver_done(EncryptedReceiver *r, Error **errp)
{
    if (r->last == ENCRYPTED_RECORD_FINAL && !r->failed) {
        return check_sizes(r, errp);
    }
    error_setg(errp, "the guest's private memory is incomplete: the last "
               "record was %s, expected final",
               r->last ? encrypted_record_types[r->last].name : "none");
    return false;
}
