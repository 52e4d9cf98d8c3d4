/*
 * Message with the destination's reason for a failed migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "encrypted-reason.h"
#include "encrypted-records.h"
#include "migration/migration.h"
#include "trace.h"

/* How long the source waits for the reason after the connection has failed */
#define AWAIT_MS 1000
#define AWAIT_POLL_MS 5

void encrypted_reason_prepare(MigrationState *s, bool announce)
{
    EncryptedReason *r = &s->encrypted.reason;

    qatomic_set(&r->received, false);
    qatomic_set(&r->ended, false);
    qatomic_set(&r->own_error, false);
    qatomic_set(&r->announced, announce);
}

void encrypted_reason_own_error(MigrationState *s)
{
    qatomic_set(&s->encrypted.reason.own_error, true);
}

bool encrypted_reason_receive(MigrationState *s, QEMUFile *rp, uint16_t type,
                              uint16_t len)
{
    EncryptedReason *r = &s->encrypted.reason;
    uint8_t data[ENCRYPTED_REASON_MAX];
    g_autofree char *text = NULL;
    Error *err = NULL;

    if (type != ENCRYPTED_REASON_MESSAGE || !len || len > sizeof(data) ||
        !qatomic_read(&r->announced) || qatomic_read(&r->received)) {
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
    text = encrypted_reason_text(data, len);
    trace_encrypted_reason_receive(text);
    error_setg(&err, "destination: %s", text);
    WITH_QEMU_LOCK_GUARD(&s->error_mutex) {
        error_free(s->error);
        s->error = err;
    }
    qatomic_set(&r->received, true);
    return true;
}

void encrypted_reason_ended(MigrationState *s)
{
    qatomic_set(&s->encrypted.reason.ended, true);
}

void encrypted_reason_await(MigrationState *s)
{
    EncryptedReason *r = &s->encrypted.reason;
    int64_t end = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + AWAIT_MS;

    if (bql_locked()) {
        /*
         * Do not wait, because QMP and the guest would then wait for the BQL,
         * which the caller holds
         */
        return;
    }
    while (qatomic_read(&r->announced) && s->rp_state.rp_thread_created &&
           !qatomic_read(&r->received) && !qatomic_read(&r->ended) &&
           !qatomic_read(&r->own_error) &&
           s->state != MIGRATION_STATUS_CANCELLING &&
           qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < end) {
        g_usleep(AWAIT_POLL_MS * 1000);
    }
}

void encrypted_reason_send(MigrationIncomingState *mis)
{
    MigrationState *s = migrate_get_current();
    g_autofree char *text = NULL;
    size_t len;

    if (!qatomic_read(&mis->encrypted.send_reason) ||
        !qemu_file_get_error(mis->from_src_file)) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&s->error_mutex) {
        if (s->error) {
            text = g_strdup(error_get_pretty(s->error));
        }
    }
    if (!text || g_str_has_prefix(text, "load of migration failed")) {
        /*
         * Refer to the log: many functions of QEMU report an error there
         * without returning it
         */
        g_autofree char *what = g_steal_pointer(&text);

        text = g_strdup_printf("%s: the destination's log says why",
                               what ?: "the migration failed");
    }
    len = encrypted_reason_len(text);
    trace_encrypted_reason_send(text);
    QEMU_LOCK_GUARD(&mis->rp_mutex);
    qemu_put_be16(mis->to_src_file, ENCRYPTED_REASON_MESSAGE);
    qemu_put_be16(mis->to_src_file, len);
    qemu_put_buffer(mis->to_src_file, (uint8_t *)text, len);
    qemu_fflush(mis->to_src_file);
}

void encrypted_reason_stop_reading(void)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    if (qatomic_read(&mis->encrypted.send_reason) && mis->from_src_file) {
        qio_channel_shutdown(qemu_file_get_ioc(mis->from_src_file),
                             QIO_CHANNEL_SHUTDOWN_READ, NULL);
    }
}
