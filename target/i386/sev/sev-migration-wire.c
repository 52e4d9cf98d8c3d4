/*
 * SEV data in the migration stream: encoding and decoding
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "sev-migration-wire.h"

/* Bytes of the fixed parts; see docs/specs/sev-migration-payload.rst */
#define SESSION_FIXED   24
#define PACKET_FIXED    4
#define ANSWER_SIZE     8
/*
 * The second field of the answer contains two values.  One is the maximum size
 * of a packet.  This size is a multiple of the page size, so its low bits are
 * 0.  The bits of this mask contain the other value: the version of the helper.
 */
#define ANSWER_HELPER   0xf
#define HELPER_FIXED    32

static void put_be16(GByteArray *out, uint16_t v)
{
    v = cpu_to_be16(v);
    g_byte_array_append(out, (uint8_t *)&v, sizeof(v));
}

static void put_be32(GByteArray *out, uint32_t v)
{
    v = cpu_to_be32(v);
    g_byte_array_append(out, (uint8_t *)&v, sizeof(v));
}

static void put_be64(GByteArray *out, uint64_t v)
{
    v = cpu_to_be64(v);
    g_byte_array_append(out, (uint8_t *)&v, sizeof(v));
}

static bool check_version(uint32_t version, const char *what, Error **errp)
{
    if (version != SEV_WIRE_VERSION) {
        error_setg(errp, "SEV: %s of version %" PRIu32 ", expected %d",
                   what, version, SEV_WIRE_VERSION);
        return false;
    }
    return true;
}

static bool check_len(uint32_t len, uint32_t max, const char *what,
                      Error **errp)
{
    if (!len || len > max) {
        error_setg(errp, "SEV: %s of %" PRIu32 " bytes, expected 1 to %"
                   PRIu32, what, len, max);
        return false;
    }
    return true;
}

void sev_wire_put_session(GByteArray *out, const SevWireSession *s)
{
    assert(s->pdh_len && s->pdh_len <= SEV_WIRE_PDH_MAX);
    assert(s->session_len && s->session_len <= SEV_WIRE_SESSION_MAX);
    put_be16(out, s->cbitpos);
    put_be16(out, SEV_WIRE_VERSION);
    put_be32(out, s->policy);
    put_be32(out, s->pdh_len);
    put_be32(out, s->session_len);
    put_be64(out, s->below_4g);
    g_byte_array_append(out, s->pdh, s->pdh_len);
    g_byte_array_append(out, s->session, s->session_len);
}

bool sev_wire_get_session(const uint8_t *buf, size_t len, SevWireSession *s,
                          Error **errp)
{
    if (len < SESSION_FIXED) {
        error_setg(errp, "SEV: session cut off after %zu bytes", len);
        return false;
    }
    if (!check_version(lduw_be_p(buf + 2), "session", errp)) {
        return false;
    }
    s->cbitpos = lduw_be_p(buf);
    s->policy = ldl_be_p(buf + 4);
    s->pdh_len = ldl_be_p(buf + 8);
    s->session_len = ldl_be_p(buf + 12);
    s->below_4g = ldq_be_p(buf + 16);
    if (!check_len(s->pdh_len, SEV_WIRE_PDH_MAX, "PDH certificate", errp) ||
        !check_len(s->session_len, SEV_WIRE_SESSION_MAX, "session data",
                   errp)) {
        return false;
    }
    /* Both lengths are small, so the sum does not overflow */
    if (len != SESSION_FIXED + (size_t)s->pdh_len + s->session_len) {
        error_setg(errp, "SEV: session of %zu bytes, expected %zu", len,
                   SESSION_FIXED + (size_t)s->pdh_len + s->session_len);
        return false;
    }
    s->pdh = buf + SESSION_FIXED;
    s->session = s->pdh + s->pdh_len;
    return true;
}

/*
 * If the data is longer than one page, it must consist of whole pages, so that
 * each page's data begins at a multiple of SEV_WIRE_PAGE
 */
static bool trans_len_is_valid(uint32_t len)
{
    return len <= SEV_WIRE_PAGE || len % SEV_WIRE_PAGE == 0;
}

void sev_wire_put_packet(GByteArray *out, const SevWirePacket *packet)
{
    assert(packet->hdr_len && packet->hdr_len <= SEV_WIRE_HDR_MAX);
    assert(packet->trans_len && packet->trans_len <= SEV_WIRE_TRANS_MAX);
    assert(trans_len_is_valid(packet->trans_len));
    put_be16(out, packet->hdr_len);
    put_be16(out, packet->trans_len);
    g_byte_array_append(out, packet->hdr, packet->hdr_len);
    g_byte_array_append(out, packet->trans, packet->trans_len);
}

bool sev_wire_get_packet(const uint8_t *buf, size_t len, size_t *pos,
                         SevWirePacket *packet, Error **errp)
{
    size_t left;

    assert(*pos <= len);
    left = len - *pos;
    if (left < PACKET_FIXED) {
        error_setg(errp, "SEV: packet cut off after %zu bytes", left);
        return false;
    }
    buf += *pos;
    packet->hdr_len = lduw_be_p(buf);
    packet->trans_len = lduw_be_p(buf + 2);
    if (!check_len(packet->hdr_len, SEV_WIRE_HDR_MAX, "packet header",
                   errp) ||
        !check_len(packet->trans_len, SEV_WIRE_TRANS_MAX, "packet data",
                   errp)) {
        return false;
    }
    if (!trans_len_is_valid(packet->trans_len)) {
        error_setg(errp, "SEV: packet data of %u bytes, expected whole pages",
                   packet->trans_len);
        return false;
    }
    left -= PACKET_FIXED;
    if (left < (size_t)packet->hdr_len + packet->trans_len) {
        error_setg(errp, "SEV: packet cut off: %zu of %zu bytes", left,
                   (size_t)packet->hdr_len + packet->trans_len);
        return false;
    }
    packet->hdr = buf + PACKET_FIXED;
    packet->trans = packet->hdr + packet->hdr_len;
    *pos += PACKET_FIXED + (size_t)packet->hdr_len + packet->trans_len;
    return true;
}

void sev_wire_put_answer(GByteArray *out, size_t npages, uint8_t helper)
{
    assert(npages && npages <= SEV_WIRE_PACKET_PAGES);
    assert(helper <= ANSWER_HELPER);
    put_be32(out, SEV_WIRE_VERSION);
    put_be32(out, npages * SEV_WIRE_PAGE | helper);
}

bool sev_wire_get_answer(const uint8_t *buf, size_t len, size_t *npages,
                         uint8_t *helper, Error **errp)
{
    uint32_t bytes;

    if (len != ANSWER_SIZE) {
        error_setg(errp, "SEV: answer of %zu bytes, expected %d", len,
                   ANSWER_SIZE);
        return false;
    }
    if (!check_version(ldl_be_p(buf), "answer", errp)) {
        return false;
    }
    bytes = ldl_be_p(buf + 4);
    if (bytes < SEV_WIRE_PAGE) {
        error_setg(errp, "SEV: packets of at most %" PRIu32 " bytes, expected "
                   "%d or more", bytes, (int)SEV_WIRE_PAGE);
        return false;
    }
    /*
     * If the destination is another version of QEMU, it may accept larger
     * packets than this QEMU can make
     */
    *npages = MIN(bytes / SEV_WIRE_PAGE, SEV_WIRE_PACKET_PAGES);
    *helper = bytes & ANSWER_HELPER;
    return true;
}

void sev_wire_put_helper(GByteArray *out, const SevWireHelper *h)
{
    put_be32(out, h->version);
    put_be32(out, h->npages);
    put_be64(out, h->private_gpa);
    put_be64(out, h->shared_gpa);
    put_be64(out, h->entry);
}

bool sev_wire_get_helper(const uint8_t *buf, size_t len, size_t *pos,
                         SevWireHelper *h, Error **errp)
{
    if (len < HELPER_FIXED) {
        error_setg(errp, "SEV: migration helper cut off after %zu bytes", len);
        return false;
    }
    h->version = ldl_be_p(buf);
    h->npages = ldl_be_p(buf + 4);
    h->private_gpa = ldq_be_p(buf + 8);
    h->shared_gpa = ldq_be_p(buf + 16);
    h->entry = ldq_be_p(buf + 24);
    *pos = HELPER_FIXED;
    return true;
}

void sev_wire_put_final(GByteArray *out, uint64_t control)
{
    put_be32(out, SEV_WIRE_VERSION);
    put_be64(out, control);
}

bool sev_wire_get_final(const uint8_t *buf, size_t len, uint64_t *control,
                        Error **errp)
{
    if (len != SEV_WIRE_FINAL_SIZE) {
        error_setg(errp, "SEV: final blob of %zu bytes, expected %d", len,
                   SEV_WIRE_FINAL_SIZE);
        return false;
    }
    if (!check_version(ldl_be_p(buf), "final blob", errp)) {
        return false;
    }
    *control = ldq_be_p(buf + 4);
    return true;
}
