/*
 * Pages of confidential guests in multifd's channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * multifd's methods read and write pages of a RAMBlock, without a lock and
 * some time after or before it is known what the pages are.  So they are
 * given another one: a block whose memory are copies, and which has the name
 * of the block that the pages are of.  Nothing else in it is used.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/memalign.h"
#include "qapi/error.h"
#include "block/thread-pool.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "encrypted-pages.h"
#include "multifd-encrypted.h"

typedef struct MultiFDCopies {
    RAMBlock block;
    /* The block that they are of, or NULL */
    RAMBlock *of;
    /* Offset of each in @of; of those that came, normal pages come first */
    ram_addr_t *offset;
} MultiFDCopies;

static MultiFDCopies *copies_new(void)
{
    size_t n = multifd_ram_page_count();
    MultiFDCopies *c = g_new0(MultiFDCopies, 1);

    c->block.host = qemu_memalign(qemu_real_host_page_size(),
                                  n * multifd_ram_page_size());
    c->block.used_length = n * multifd_ram_page_size();
    c->block.max_length = c->block.used_length;
    c->block.receivedmap = bitmap_new(n);
    c->offset = g_new0(ram_addr_t, n);
    return c;
}

static void copies_free(MultiFDCopies *c)
{
    if (c) {
        qemu_vfree(c->block.host);
        g_free(c->block.receivedmap);
        g_free(c->offset);
        g_free(c);
    }
}

static void copies_of(MultiFDCopies *c, RAMBlock *rb)
{
    c->of = rb;
    pstrcpy(c->block.idstr, sizeof(c->block.idstr), rb->idstr);
}

/* Source */

/* What the next packet will have */
static MultiFDSendData *queue;

void multifd_encrypted_save_setup(void)
{
    queue = multifd_send_data_alloc();
}

void multifd_encrypted_save_cleanup(void)
{
    g_clear_pointer(&queue, multifd_send_data_free);
}

bool multifd_encrypted_flush(void)
{
    if (!queue || multifd_payload_empty(queue)) {
        return true;
    }
    if (!queue->u.ram.num) {
        multifd_send_data_clear(queue);
        return true;
    }
    return multifd_send(&queue);
}

uint8_t *multifd_encrypted_room(RAMBlock *rb)
{
    MultiFDPages_t *pages = &queue->u.ram;

    if (!multifd_payload_empty(queue) &&
        (pages->copies->of != rb || pages->num == multifd_ram_page_count()) &&
        !multifd_encrypted_flush()) {
        return NULL;
    }
    /* It may be another one */
    pages = &queue->u.ram;
    if (multifd_payload_empty(queue)) {
        multifd_set_payload_type(queue, MULTIFD_PAYLOAD_RAM);
        if (!pages->copies) {
            pages->copies = copies_new();
        }
        copies_of(pages->copies, rb);
        pages->block = &pages->copies->block;
        pages->num = 0;
        pages->normal_num = 0;
    }
    return pages->block->host + (size_t)pages->num * multifd_ram_page_size();
}

void multifd_encrypted_queue(ram_addr_t offset)
{
    MultiFDPages_t *pages = &queue->u.ram;

    pages->copies->offset[pages->num] = offset;
    pages->offset[pages->num] = (ram_addr_t)pages->num *
                                multifd_ram_page_size();
    pages->num++;
}

void multifd_encrypted_free(MultiFDPages_t *pages)
{
    g_clear_pointer(&pages->copies, copies_free);
}

ram_addr_t multifd_encrypted_offset(const MultiFDPages_t *pages, int i)
{
    ram_addr_t at = pages->offset[i];

    if (!pages->copies || pages->block != &pages->copies->block) {
        return at;
    }
    /* The search for zero pages has changed their order */
    return pages->copies->offset[at / multifd_ram_page_size()];
}

/* Destination */

int multifd_encrypted_recv_stage(MultiFDRecvParams *p, Error **errp)
{
    uint32_t size = multifd_ram_page_size(), n = 0;

    if (!encbitmap_npages(p->block)) {
        return 0;
    }
    if (!p->copies) {
        p->copies = copies_new();
    }
    /* The caller has looked: together they are no more than fit */
    for (uint32_t i = 0; i < p->normal_num; i++) {
        p->copies->offset[n] = p->normal[i];
        p->normal[i] = (ram_addr_t)n++ * size;
    }
    for (uint32_t i = 0; i < p->zero_num; i++) {
        p->copies->offset[n] = p->zero[i];
        p->zero[i] = (ram_addr_t)n++ * size;
    }
    copies_of(p->copies, p->block);
    p->block = &p->copies->block;
    p->host = p->block->host;
    return 0;
}

int multifd_encrypted_recv_place(MultiFDRecvParams *p, Error **errp)
{
    MultiFDCopies *c = p->copies;
    RAMBlock *rb = c ? c->of : NULL;

    if (!rb) {
        return 0;
    }
    c->of = NULL;
    return encrypted_pages_load_copies(rb, c->offset, p->normal_num,
                                       p->zero_num, c->block.host, errp) ?
           0 : -1;
}

void multifd_encrypted_recv_free(MultiFDRecvParams *p)
{
    g_clear_pointer(&p->copies, copies_free);
}

static int wait_thread(void *opaque)
{
    qemu_sem_wait(opaque);
    return 0;
}

void coroutine_mixed_fn multifd_encrypted_recv_wait(QemuSemaphore *sem)
{
    if (!encrypted_pages_load_yields()) {
        qemu_sem_wait(sem);
    } else if (qemu_sem_timedwait(sem, 0)) {
        thread_pool_submit_co(wait_thread, sem);
    }
}

static int join_thread(void *opaque)
{
    qemu_thread_join(opaque);
    return 0;
}

void coroutine_mixed_fn multifd_encrypted_recv_join(QemuThread *thread)
{
    if (!encrypted_pages_load_yields()) {
        qemu_thread_join(thread);
    } else {
        thread_pool_submit_co(join_thread, thread);
    }
}
