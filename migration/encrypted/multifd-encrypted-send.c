/*
 * Pages of a confidential guest to multifd's channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/rcu.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "encrypted-records.h"
#include "multifd-copies.h"
#include "multifd-encrypted-send.h"

/*
 * Instance of a packet that contains a job.  Before the channel sends the
 * packet, it replaces the job by a record, and this number by
 * ENCRYPTED_RECORD_INSTANCE.
 */
#define JOB_INSTANCE (ENCRYPTED_RECORD_INSTANCE + 1)

/*
 * The packet that is being filled with shared pages.  multifd_send() gives the
 * packet to a channel and stores an empty packet in its place.
 */
static MultiFDSendData **current_packet(void)
{
    return &migrate_get_current()->encrypted.packet;
}

void multifd_encrypted_send_setup(void)
{
    *current_packet() = multifd_send_data_alloc();
}

void multifd_encrypted_send_cleanup(void)
{
    g_clear_pointer(current_packet(), multifd_send_data_free);
}

bool multifd_encrypted_send_record(const GByteArray *record)
{
    return multifd_queue_device_state((char *)ENCRYPTED_RECORD_IDSTR,
                                      ENCRYPTED_RECORD_INSTANCE,
                                      (char *)record->data, record->len);
}

bool multifd_encrypted_send_job(const MultiFDEncryptedJob *job)
{
    return multifd_queue_device_state((char *)ENCRYPTED_RECORD_IDSTR,
                                      JOB_INSTANCE, (char *)job, sizeof(*job));
}

/* If @data is a job, replace it by its record.  @channel counts from 0. */
static bool pack_job(unsigned channel, MultiFDDeviceState_t *data, Error **errp)
{
    g_autoptr(GByteArray) record = NULL;
    g_autofree MultiFDEncryptedJob *job = NULL;

    if (data->instance_id != JOB_INSTANCE ||
        strcmp(data->idstr, ENCRYPTED_RECORD_IDSTR)) {
        return true;
    }
    record = g_byte_array_new();
    job = g_memdup2(data->buf, sizeof(*job));
    WITH_RCU_READ_LOCK_GUARD() {
        if (!job->pack(job, channel + 1, record, errp)) {
            return false;
        }
    }
    g_free(data->buf);
    data->buf_len = record->len;
    data->buf = (char *)g_byte_array_free(g_steal_pointer(&record), false);
    data->instance_id = ENCRYPTED_RECORD_INSTANCE;
    return true;
}

int multifd_encrypted_send_prepare(MultiFDSendParams *p, Error **errp)
{
    if (!pack_job(p->id, &p->data->u.device_state, errp)) {
        return -1;
    }
    multifd_device_state_send_prepare(p);
    return 0;
}

bool multifd_encrypted_send_flush(void)
{
    MultiFDSendData **packet = current_packet();

    if (!*packet || multifd_payload_empty(*packet)) {
        return true;
    }
    if (!(*packet)->u.ram.num) {
        multifd_send_data_clear(*packet);
        return true;
    }
    return multifd_send(packet);
}

static bool is_full(MultiFDSendData *packet, RAMBlock *rb)
{
    MultiFDPages_t *pages = &packet->u.ram;

    return !multifd_payload_empty(packet) &&
           (pages->copies->of != rb || pages->num == multifd_ram_page_count());
}

uint8_t *multifd_encrypted_send_room(RAMBlock *rb)
{
    MultiFDSendData **packet = current_packet();
    MultiFDPages_t *pages;

    if (is_full(*packet, rb) && !multifd_encrypted_send_flush()) {
        return NULL;
    }
    pages = &(*packet)->u.ram;
    if (multifd_payload_empty(*packet)) {
        multifd_set_payload_type(*packet, MULTIFD_PAYLOAD_RAM);
        if (!pages->copies) {
            pages->copies = multifd_copies_new();
        }
        pages->copies->of = rb;
        pages->block = rb;
        pages->host = pages->copies->host;
        pages->num = 0;
        pages->normal_num = 0;
    }
    return pages->host + (size_t)pages->num * multifd_ram_page_size();
}

void multifd_encrypted_send_queue(ram_addr_t offset)
{
    MultiFDPages_t *pages = &(*current_packet())->u.ram;

    pages->copies->offset[pages->num] = offset;
    pages->offset[pages->num] = (ram_addr_t)pages->num *
                                multifd_ram_page_size();
    pages->num++;
}

void multifd_encrypted_send_free(MultiFDPages_t *pages)
{
    g_clear_pointer(&pages->copies, multifd_copies_free);
}

ram_addr_t multifd_encrypted_send_offset(const MultiFDPages_t *pages, int i)
{
    ram_addr_t at = pages->offset[i];

    if (!pages->copies || pages->host != pages->copies->host) {
        return at;
    }
    /*
     * Compute the index from the offset, and do not use @i: multifd's search
     * for zero pages has changed the order of pages->offset[], but not that of
     * the copies.
     */
    return pages->copies->offset[at / multifd_ram_page_size()];
}
