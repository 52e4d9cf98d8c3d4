/*
 * Records of private pages in the migration stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Format: docs/specs/encrypted-ram-migration.rst
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "encrypted-records.h"
#include "migration/ram.h"

/* Maximum size in bytes of one entry in the session record's list of blocks */
#define BLOCK_ENTRY_MAX (1 + 255 + 8)

const EncryptedRecordType encrypted_record_types[ENCRYPTED_RECORD__MAX] = {
    [ENCRYPTED_RECORD_SESSION] = {
        "session", ENCRYPTED_SESSION_FIXED,
        ENCRYPTED_SESSION_FIXED + ENCRYPTED_BLOCKS_MAX * BLOCK_ENTRY_MAX +
        CGS_MIGRATION_SESSION_MAX
    },
    [ENCRYPTED_RECORD_PAGES] = {
        "pages", ENCRYPTED_PAGES_FIXED, ENCRYPTED_PAGES_FIXED +
        CGS_MIGRATION_PAGES_MAX * CGS_MIGRATION_PAGE_MAX
    },
    [ENCRYPTED_RECORD_STATE] = {
        "state", ENCRYPTED_STATE_FIXED,
        ENCRYPTED_STATE_FIXED + ENCRYPTED_STATE_PAGES_MAX / 8
    },
    [ENCRYPTED_RECORD_FINAL] = { "final", 0, CGS_MIGRATION_SESSION_MAX },
    [ENCRYPTED_RECORD_UNALLOCATED] = {
        "unallocated", ENCRYPTED_UNALLOCATED_FIXED, ENCRYPTED_UNALLOCATED_FIXED
    },
    [ENCRYPTED_RECORD_PLATFORM] = { "platform", 1, CGS_MIGRATION_DATA_MAX },
};

uint64_t encrypted_block_pages(const RAMBlock *rb)
{
    return rb->used_length >> qemu_target_page_bits();
}

static void put8(GByteArray *out, uint8_t v)
{
    g_byte_array_append(out, &v, sizeof(v));
}

static void put16(GByteArray *out, uint16_t v)
{
    v = cpu_to_be16(v);
    g_byte_array_append(out, (uint8_t *)&v, sizeof(v));
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

static void put_header(GByteArray *out, EncryptedRecord type, size_t len)
{
    assert(len <= encrypted_record_types[type].max);
    put64(out, RAM_SAVE_FLAG_EXTENDED);
    put8(out, ENCRYPTED_RECORD_VERSION);
    put8(out, type);
    put16(out, ENCRYPTED_RECORD_KIND);
    put32(out, len);
}

GPtrArray *encrypted_blocks(void)
{
    GPtrArray *blocks = g_ptr_array_new();
    RAMBlock *rb;

    RAMBLOCK_FOREACH(rb) {
        if (encbitmap_npages(rb) && encrypted_block_pages(rb) &&
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
    size_t len = ENCRYPTED_SESSION_FIXED + session->len;

    if (!blocks->len || blocks->len > ENCRYPTED_BLOCKS_MAX) {
        error_setg(errp, "%u RAM blocks can have private pages, expected 1 "
                   "to %u", blocks->len, ENCRYPTED_BLOCKS_MAX);
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
    put_header(out, ENCRYPTED_RECORD_SESSION, len);
    put32(out, qemu_target_page_size());
    put32(out, blocks->len);
    put32(out, session->len);
    put32(out, flags);
    for (guint i = 0; i < blocks->len; i++) {
        RAMBlock *rb = g_ptr_array_index(blocks, i);
        size_t n = strlen(rb->idstr);

        put8(out, n);
        g_byte_array_append(out, (uint8_t *)rb->idstr, n);
        put64(out, encrypted_block_pages(rb));
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
    put_header(out, ENCRYPTED_RECORD_PAGES,
               ENCRYPTED_PAGES_FIXED + payload->len);
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
    put_header(out, ENCRYPTED_RECORD_UNALLOCATED, ENCRYPTED_UNALLOCATED_FIXED);
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
    npages = MIN(encrypted_block_pages(rb) - *first, ENCRYPTED_STATE_PAGES_MAX);
    nwords = DIV_ROUND_UP(npages, 64);
    words = g_new(uint64_t, nwords);
    encbitmap_read(rb, *first, npages, words);

    put_header(out, ENCRYPTED_RECORD_STATE, ENCRYPTED_STATE_FIXED + nwords * 8);
    put32(out, *block);
    put32(out, 0);
    put64(out, *first);
    put64(out, npages);
    for (uint64_t i = 0; i < nwords; i++) {
        put64(out, le64_to_cpu(words[i]));
    }
    *first += npages;
    if (*first == encrypted_block_pages(rb)) {
        *first = 0;
        ++*block;
    }
    return true;
}

bool encrypted_record_platform(GByteArray *out, const GByteArray *data,
                               Error **errp)
{
    if (!data->len || data->len > CGS_MIGRATION_DATA_MAX) {
        error_setg(errp, "platform data of %u bytes, expected 1 to %zu",
                   data->len, (size_t)CGS_MIGRATION_DATA_MAX);
        return false;
    }
    put_header(out, ENCRYPTED_RECORD_PLATFORM, data->len);
    g_byte_array_append(out, data->data, data->len);
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
    put_header(out, ENCRYPTED_RECORD_FINAL, final->len);
    g_byte_array_append(out, final->data, final->len);
    return true;
}

size_t encrypted_reason_len(const char *text)
{
    size_t len = MIN(strlen(text), ENCRYPTED_REASON_MAX);

    /*
     * Do not cut a UTF-8 character in two.  Each of its bytes except the first
     * is 10xxxxxx.
     */
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

bool encrypted_session_flags(const uint8_t *header, const uint8_t *body,
                             size_t len, uint32_t *flags)
{
    if (header[0] != ENCRYPTED_RECORD_VERSION ||
        header[1] != ENCRYPTED_RECORD_SESSION ||
        len < ENCRYPTED_SESSION_FIXED) {
        return false;
    }
    *flags = ldl_be_p(body + 12);
    return true;
}
