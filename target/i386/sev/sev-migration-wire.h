/*
 * SEV data in the migration stream: encoding and decoding
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * docs/specs/sev-migration-payload.rst specifies the data.  The functions
 * only convert between bytes and structs; they use neither KVM nor a device.
 * All input of the decoding functions is untrusted.
 */
#ifndef TARGET_I386_SEV_MIGRATION_WIRE_H
#define TARGET_I386_SEV_MIGRATION_WIRE_H

#include "qemu/units.h"

/* Version of the data in the stream */
#define SEV_WIRE_VERSION        1

/*
 * The firmware's PDH certificate has 2084 bytes, and its session has 112 (SEV
 * API 0.24, appendix C and chapter 4).  The limits leave room for later
 * versions.
 */
#define SEV_WIRE_PDH_MAX        (16 * KiB)
#define SEV_WIRE_SESSION_MAX    (16 * KiB)

/*
 * A packet header of SEV API 0.24 has 52 bytes.  A packet has at most four
 * pages, and its data is not longer than these pages.
 */
#define SEV_WIRE_HDR_MAX        256
#define SEV_WIRE_PAGE           (4 * KiB)
#define SEV_WIRE_PACKET_PAGES   4
#define SEV_WIRE_TRANS_MAX      (SEV_WIRE_PACKET_PAGES * SEV_WIRE_PAGE)

/* Bytes of final data */
#define SEV_WIRE_FINAL_SIZE     12

/**
 * SevWireSession: input of RECEIVE_START, and what the destination must check
 * @cbitpos: position of the C-bit in the guest's page tables
 * @policy: the guest's policy
 * @below_4g: bytes of the guest's RAM below 4 GiB; the rest is above
 * @pdh: the source's PDH certificate
 * @session: the session that SEND_START made
 *
 * After decoding, the pointers point into the buffer that was decoded.
 */
typedef struct SevWireSession {
    uint16_t cbitpos;
    uint32_t policy;
    uint64_t below_4g;
    const uint8_t *pdh;
    uint32_t pdh_len;
    const uint8_t *session;
    uint32_t session_len;
} SevWireSession;

/** SevWirePacket: contiguous pages that one firmware command packed */
typedef struct SevWirePacket {
    const uint8_t *hdr;
    uint16_t hdr_len;
    const uint8_t *trans;
    uint16_t trans_len;
} SevWirePacket;

/** sev_wire_packet_pages: number of pages in @packet */
static inline size_t sev_wire_packet_pages(const SevWirePacket *packet)
{
    return (packet->trans_len + SEV_WIRE_PAGE - 1) / SEV_WIRE_PAGE;
}

/** sev_wire_put_session: append @s, whose lengths are valid, to @out */
void sev_wire_put_session(GByteArray *out, const SevWireSession *s);

/** sev_wire_get_session: decode @buf, which must be exactly one session */
bool sev_wire_get_session(const uint8_t *buf, size_t len, SevWireSession *s,
                          Error **errp);

/** sev_wire_put_packet: append @packet, whose lengths are valid, to @out */
void sev_wire_put_packet(GByteArray *out, const SevWirePacket *packet);

/**
 * sev_wire_get_packet: decode the packet at offset *@pos of @buf, and advance
 * *@pos to the byte after it
 */
bool sev_wire_get_packet(const uint8_t *buf, size_t len, size_t *pos,
                         SevWirePacket *packet, Error **errp);

/*
 * Version of the migration helper in an answer; 1 to 14 are versions of its
 * interface
 */
#define SEV_WIRE_HELPER_NONE    0       /* the machine has no helper */
#define SEV_WIRE_HELPER_UNABLE  0xf     /* its helper cannot run */

/**
 * sev_wire_put_answer: append an answer to @out
 * @npages: maximum number of pages in a packet, 1 to SEV_WIRE_PACKET_PAGES
 * @helper: version of the helper that is accepted, or SEV_WIRE_HELPER_*
 */
void sev_wire_put_answer(GByteArray *out, size_t npages, uint8_t helper);

/**
 * sev_wire_get_answer: decode @buf, which must be exactly one answer
 * @npages: returns the maximum number of pages in a packet, 1 to
 *          SEV_WIRE_PACKET_PAGES
 * @helper: returns the version of the helper, or SEV_WIRE_HELPER_*
 */
bool sev_wire_get_answer(const uint8_t *buf, size_t len, size_t *npages,
                         uint8_t *helper, Error **errp);

/**
 * SevWireHelper: the beginning of the platform data.  The source sends the
 * helper's private memory as platform data; see
 * docs/specs/sev-migration-payload.rst.
 * @version: version of the helper's interface
 * @npages: number of pages of the helper's private memory; the packets with
 *          these pages follow this struct
 * @private_gpa, @shared_gpa: guest-physical addresses of the helper's memory
 * @entry: offset of the helper's first instruction in the private memory
 */
typedef struct SevWireHelper {
    uint32_t version;
    uint32_t npages;
    uint64_t private_gpa;
    uint64_t shared_gpa;
    uint64_t entry;
} SevWireHelper;

/** sev_wire_put_helper: append @h to @out; the packets follow */
void sev_wire_put_helper(GByteArray *out, const SevWireHelper *h);

/**
 * sev_wire_get_helper: decode the beginning of @buf, and advance *@pos to the
 * packets
 */
bool sev_wire_get_helper(const uint8_t *buf, size_t len, size_t *pos,
                         SevWireHelper *h, Error **errp);

/** sev_wire_put_final: append the value of MSR_KVM_MIGRATION_CONTROL */
void sev_wire_put_final(GByteArray *out, uint64_t control);

/** sev_wire_get_final: decode @buf, which must be exactly one final blob */
bool sev_wire_get_final(const uint8_t *buf, size_t len, uint64_t *control,
                        Error **errp);

#endif
