/*
 * Pages of a confidential guest from multifd's channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/thread-pool.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "encrypted-load.h"
#include "multifd-copies.h"
#include "multifd-encrypted-recv.h"

bool multifd_encrypted_recv_check(MultiFDRecvParams *p, Error **errp)
{
    return encrypted_load_check_buffer(p->packet_dev_state->idstr,
                                       p->next_packet_size, errp);
}

/*
 * multifd's methods set and test bits in the RAMBlock's received bitmap at the
 * offsets in @p->normal and @p->zero.  multifd_encrypted_recv_stage() replaces
 * these offsets in the RAMBlock by offsets in the memory for copies, so the
 * bits do not say which pages of the RAMBlock were received.  That is harmless:
 * nothing else reads the bitmap, because postcopy is refused.  However, the
 * bitmap must have a bit for each of the new offsets, which this function
 * checks.
 */
static bool check_received_map(MultiFDRecvParams *p, Error **errp)
{
    RAMBlock *rb = p->block;

    if (!rb->receivedmap) {
        error_setg(errp, "block %s: a channel has pages before the section of "
                   "RAM", rb->idstr);
        return false;
    }
    if (p->normal_num + p->zero_num >
        rb->used_length / multifd_ram_page_size()) {
        error_setg(errp, "block %s: a channel has a packet of %u pages, the "
                   "block has fewer", rb->idstr, p->normal_num + p->zero_num);
        return false;
    }
    return true;
}

int multifd_encrypted_recv_stage(MultiFDRecvParams *p, Error **errp)
{
    uint32_t size = multifd_ram_page_size(), n = 0;
    MultiFDCopies *c = p->copies;

    if (!encbitmap_npages(p->block)) {
        return 0;
    }
    if (!check_received_map(p, errp)) {
        return -1;
    }
    if (!c) {
        c = p->copies = multifd_copies_new();
    }
    /*
     * @c has room for all pages of the packet: multifd has checked that the
     * packet has at most multifd_ram_page_count() pages
     */
    for (uint32_t i = 0; i < p->normal_num; i++) {
        c->offset[n] = p->normal[i];
        p->normal[i] = (ram_addr_t)n++ * size;
    }
    for (uint32_t i = 0; i < p->zero_num; i++) {
        c->offset[n] = p->zero[i];
        p->zero[i] = (ram_addr_t)n++ * size;
    }
    c->of = p->block;
    p->host = c->host;
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
    return encrypted_load_copies(rb, c->offset, p->normal_num, p->zero_num,
                                 c->host, errp) ? 0 : -1;
}

void multifd_encrypted_recv_free(MultiFDRecvParams *p)
{
    g_clear_pointer(&p->copies, multifd_copies_free);
}

static int wait_thread(void *opaque)
{
    qemu_sem_wait(opaque);
    return 0;
}

void coroutine_mixed_fn multifd_encrypted_recv_wait(QemuSemaphore *sem)
{
    if (!encrypted_load_yields()) {
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
    if (!encrypted_load_yields()) {
        qemu_thread_join(thread);
    } else {
        thread_pool_submit_co(join_thread, thread);
    }
}
