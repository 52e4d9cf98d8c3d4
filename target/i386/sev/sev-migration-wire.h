/*
 * What the SEV send path puts on the wire, and reads back from it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Four blobs, specified in docs/specs/sev-migration-payload.rst.  Nothing
 * here knows KVM or a device: bytes in, structs out.  Everything that is
 * parsed comes from the other host and is not to be trusted.
 */
#ifndef TARGET_I386_SEV_MIGRATION_WIRE_H
#define TARGET_I386_SEV_MIGRATION_WIRE_H

#include "qemu/units.h"

/* Version of the session, of the answer and of the final blob */
#define SEV_WIRE_VERSION        1

/*
 * The firmware's PDH certificate has 2084 bytes and its session 112 (SEV API
 * 0.24, chapters 4 and C); the limits leave room for a later one.
 */
#define SEV_WIRE_PDH_MAX        (16 * KiB)
#define SEV_WIRE_SESSION_MAX    (16 * KiB)

/*
 * A packet header has 52 bytes, and a page no more than its own size.  What
 * KVM asks the firmware to put into one packet is 16 KiB at most.
 */
#define SEV_WIRE_HDR_MAX        256
#define SEV_WIRE_PAGE           (4 * KiB)
#define SEV_WIRE_PACKET_PAGES   4
#define SEV_WIRE_TRANS_MAX      (SEV_WIRE_PACKET_PAGES * SEV_WIRE_PAGE)

/**
 * SevWireSession: what RECEIVE_START needs, and the guest
 * @cbitpos: position of the C-bit in the guest's page tables
 * @policy: of the guest
 * @pdh: the source's PDH certificate
 * @session: the session that SEND_START made
 *
 * Pointers are into the blob that was parsed.
 */
typedef struct SevWireSession {
    uint16_t cbitpos;
    uint32_t policy;
    const uint8_t *pdh;
    uint32_t pdh_len;
    const uint8_t *session;
    uint32_t session_len;
} SevWireSession;

/** SevWirePacket: pages that follow each other, packed by one command */
typedef struct SevWirePacket {
    const uint8_t *hdr;
    uint16_t hdr_len;
    const uint8_t *trans;
    uint16_t trans_len;
} SevWirePacket;

/** sev_wire_packet_pages: how many */
static inline size_t sev_wire_packet_pages(const SevWirePacket *packet)
{
    return (packet->trans_len + SEV_WIRE_PAGE - 1) / SEV_WIRE_PAGE;
}

/** sev_wire_put_session: append @s to @out; the lengths are in the limits */
void sev_wire_put_session(GByteArray *out, const SevWireSession *s);

/** sev_wire_get_session: all @len bytes of @buf must be one session */
bool sev_wire_get_session(const uint8_t *buf, size_t len, SevWireSession *s,
                          Error **errp);

/** sev_wire_put_packet: append @packet, whose lengths are valid, to @out */
void sev_wire_put_packet(GByteArray *out, const SevWirePacket *packet);

/**
 * sev_wire_get_packet: read the packet at *@pos of the @len bytes of @buf and
 * advance *@pos behind it
 */
bool sev_wire_get_packet(const uint8_t *buf, size_t len, size_t *pos,
                         SevWirePacket *packet, Error **errp);

/**
 * sev_wire_put_answer: append an answer to @out
 * @npages: most pages of a packet, 1 to SEV_WIRE_PACKET_PAGES
 */
void sev_wire_put_answer(GByteArray *out, size_t npages);

/**
 * sev_wire_get_answer: all @len bytes of @buf must be one answer
 * @npages: returns the most pages of a packet, 1 to SEV_WIRE_PACKET_PAGES
 */
bool sev_wire_get_answer(const uint8_t *buf, size_t len, size_t *npages,
                         Error **errp);

/** sev_wire_put_final: append the value of MSR_KVM_MIGRATION_CONTROL */
void sev_wire_put_final(GByteArray *out, uint64_t control);

/** sev_wire_get_final: all @len bytes of @buf must be one final blob */
bool sev_wire_get_final(const uint8_t *buf, size_t len, uint64_t *control,
                        Error **errp);

#endif
