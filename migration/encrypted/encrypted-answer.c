/*
 * The destination platform's answer to the source's session
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qapi/error.h"
#include "encrypted-answer.h"
#include "encrypted-records.h"
#include "migration/migration.h"
#include "trace.h"

void encrypted_answer_prepare(MigrationState *s)
{
    s->encrypted.answer = (EncryptedAnswer) {};
}

uint32_t encrypted_answer_announce(MigrationState *s,
                                   ConfidentialGuestSupport *cgs,
                                   const ConfidentialGuestMigrationOps *ops)
{
    if (!ops->send_answer) {
        return 0;
    }
    s->encrypted.answer.cgs = cgs;
    qatomic_store_release(&s->encrypted.answer.ops, ops);
    return ENCRYPTED_SESSION_ANSWER;
}

bool encrypted_answer_receive(MigrationState *s, QEMUFile *rp, uint16_t type,
                              uint16_t len)
{
    EncryptedAnswer *a = &s->encrypted.answer;
    const ConfidentialGuestMigrationOps *ops = qatomic_load_acquire(&a->ops);
    uint8_t data[ENCRYPTED_ANSWER_MAX];
    Error *err = NULL;

    if (type != ENCRYPTED_ANSWER_MESSAGE || !len || len > sizeof(data) ||
        !ops || a->received) {
        return false;
    }
    if (qemu_get_buffer(rp, data, len) != len) {
        /*
         * Reading from @rp failed.  Return true nevertheless, because false
         * would mean that the type of the message is not expected.  The caller
         * finds the error in @rp when it reads the next message.
         */
        return true;
    }
    trace_encrypted_answer_receive(len);
    a->received = true;
    if (!ops->send_answer(a->cgs, data, len, &err)) {
        error_prepend(&err, "The destination's answer to the session: ");
        migrate_set_error(s, err);
        error_free(err);
        return false;
    }
    return true;
}

void encrypted_answer_send(MigrationIncomingState *mis,
                           ConfidentialGuestSupport *cgs,
                           const ConfidentialGuestMigrationOps *ops,
                           const uint8_t *header, const uint8_t *body,
                           size_t len)
{
    g_autoptr(GByteArray) answer = g_byte_array_new();
    uint32_t flags;

    if (!encrypted_session_flags(header, body, len, &flags) ||
        !(flags & ENCRYPTED_SESSION_ANSWER) || !ops->receive_answer ||
        !mis->to_src_file) {
        return;
    }
    ops->receive_answer(cgs, answer);
    assert(answer->len <= ENCRYPTED_ANSWER_MAX);
    if (!answer->len) {
        return;
    }
    trace_encrypted_answer_send(answer->len);
    QEMU_LOCK_GUARD(&mis->rp_mutex);
    qemu_put_be16(mis->to_src_file, ENCRYPTED_ANSWER_MESSAGE);
    qemu_put_be16(mis->to_src_file, answer->len);
    qemu_put_buffer(mis->to_src_file, answer->data, answer->len);
    qemu_fflush(mis->to_src_file);
}
