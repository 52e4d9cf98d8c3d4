/*
 * Emulated AMD Platform Security Processor: ring buffer mode
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The host can write queues and registers at any time.  Therefore each value is
 * read once, an index always has eight bits, and each access checks whether the
 * page is RAM.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/range.h"
#include "hw/misc/amd-psp.h"
#include "hw/misc/amd-psp-ring.h"
#include "trace.h"

/* A page of entries: [0] command, [2] flags, [8] address of the buffer */
#define PAGE_LEN        4096
#define ENTRY_LEN       16
#define ENTRY_FLAGS     2
#define ENTRY_BUFFER    8
/* A page of statuses: [0] status, [8] extended error, which is always 0 */
#define STATUS_LEN      16

/*
 * Offsets of fields in the buffer of RING_BUFFER.  All but the last are offsets
 * for the low priority queue.  The same fields for the high priority queue
 * follow at once.
 */
#define BUFFER_PAGES    0   /* entries and statuses of each queue */
#define BUFFER_SIZES    32
#define BUFFER_THRESHOLDS 34
#define BUFFER_INT_ON_EMPTY 38

QEMU_BUILD_BUG_ON(PAGE_LEN != ENTRY_LEN << 8 || PAGE_LEN != STATUS_LEN << 8);

static const char *queue_name(AmdPspRingPriority prio)
{
    return prio == AMD_PSP_RING_HIGH ? "high" : "low";
}

/* Get the index of one queue from @value of the head or of the tail register */
static uint8_t queue_index(uint32_t value, AmdPspRingPriority prio)
{
    return value >> (prio * AMD_PSP_RING_QUEUE_SHIFT);
}

static uint32_t queue_running(AmdPspRingPriority prio)
{
    return AMD_PSP_RING_RUNNING << (prio * AMD_PSP_RING_QUEUE_SHIFT);
}

static bool page_is_good(hwaddr pa)
{
    return pa % PAGE_LEN == 0 && sev_memory_is_ram(pa, PAGE_LEN);
}

uint16_t amd_psp_ring_enter(AmdPspRing *r, const uint8_t *b)
{
    AmdPspRing new = { .on = true };

    if (r->on || b[BUFFER_SIZES] != 1 || b[BUFFER_SIZES + 1] > 1) {
        return AMD_PSP_INVALID_PARAM;
    }
    for (unsigned i = 0; i < AMD_PSP_RING_QUEUES; i++) {
        AmdPspRingQueue *q = &new.queues[i];

        if (!b[BUFFER_SIZES + i]) {
            continue;
        }
        q->there = true;
        q->entries = ldq_le_p(b + BUFFER_PAGES + i * 16) & ~sev_memory_cbit();
        q->statuses = ldq_le_p(b + BUFFER_PAGES + i * 16 + 8) &
                      ~sev_memory_cbit();
        q->threshold = lduw_le_p(b + BUFFER_THRESHOLDS + i * 2);
        if (!page_is_good(q->entries) || !page_is_good(q->statuses)) {
            return AMD_PSP_INVALID_ADDRESS;
        }
        new.head |= queue_running(i);
    }
    new.int_on_empty = lduw_le_p(b + BUFFER_INT_ON_EMPTY) & 1;
    *r = new;
    trace_amd_psp_ring_enter(new.queues[AMD_PSP_RING_LOW].entries,
                             new.queues[AMD_PSP_RING_LOW].statuses,
                             new.queues[AMD_PSP_RING_HIGH].entries,
                             new.queues[AMD_PSP_RING_HIGH].statuses);
    return AMD_PSP_SUCCESS;
}

void amd_psp_ring_leave(AmdPspRing *r, const char *why)
{
    if (r->on) {
        trace_amd_psp_ring_leave(why);
    }
    r->on = false;
}

bool amd_psp_ring_overlaps(const AmdPspRing *r, hwaddr pa, uint64_t len)
{
    for (unsigned i = 0; r->on && len && i < AMD_PSP_RING_QUEUES; i++) {
        const AmdPspRingQueue *q = &r->queues[i];

        if (q->there &&
            (ranges_overlap(pa, len, q->entries, PAGE_LEN) ||
             ranges_overlap(pa, len, q->statuses, PAGE_LEN))) {
            return true;
        }
    }
    return false;
}

static void queue_pause(AmdPspRing *r, AmdPspRingPriority prio,
                        const char *why)
{
    r->head &= ~queue_running(prio);
    r->head |= AMD_PSP_RING_INT_PAUSED;
    r->interrupt = true;
    trace_amd_psp_ring_pause(queue_name(prio), queue_index(r->head, prio),
                             why);
}

/*
 * Resume the queues whose RESUME bit is set in the control register.  The
 * firmware executes their commands only after the host has cleared the bit,
 * see queue_look().
 */
static void queues_resume(AmdPspRing *r, uint32_t control)
{
    for (unsigned i = 0; i < AMD_PSP_RING_QUEUES; i++) {
        if (r->queues[i].there && control & (AMD_PSP_RING_RESUME << i)) {
            r->head |= queue_running(i);
        }
    }
}

/* Whether a queue is running and has a command */
static bool queue_look(AmdPspRing *r, AmdPspRingPriority prio,
                       uint32_t control, uint32_t tail)
{
    uint8_t depth = queue_index(tail, prio) - queue_index(r->head, prio);

    if (!(r->head & queue_running(prio)) ||
        control & (AMD_PSP_RING_RESUME << prio)) {
        return false;
    }
    if (depth < r->queues[prio].threshold &&
        control & (AMD_PSP_RING_NEAR_EMPTY_INT << prio)) {
        r->head |= AMD_PSP_RING_INT_NEAR_EMPTY;
        r->interrupt = true;
    }
    return depth;
}

AmdPspRingStep amd_psp_ring_next(AmdPspRing *r, uint32_t control,
                                 uint32_t tail, uint32_t *id, hwaddr *buffer)
{
    const uint32_t active = AMD_PSP_RING_ACTIVE | AMD_PSP_RING_OWNED;
    uint8_t entry[ENTRY_LEN];

    if (!r->on) {
        return AMD_PSP_RING_OFF;
    }
    if ((control & active) != active) {
        amd_psp_ring_leave(r, "a command for the mailbox");
        return AMD_PSP_RING_LEFT;
    }
    if (control & AMD_PSP_RING_CLEAR) {
        r->head &= ~(AMD_PSP_RING_INT_EMPTY | AMD_PSP_RING_INT_DONE |
                     AMD_PSP_RING_INT_PAUSED | AMD_PSP_RING_INT_NEAR_EMPTY);
    }
    queues_resume(r, control);
    if (queue_look(r, AMD_PSP_RING_HIGH, control, tail)) {
        r->priority = AMD_PSP_RING_HIGH;
    } else if (queue_look(r, AMD_PSP_RING_LOW, control, tail)) {
        r->priority = AMD_PSP_RING_LOW;
    } else {
        if (r->int_on_empty) {
            r->head |= AMD_PSP_RING_INT_EMPTY;
            r->interrupt = true;
        }
        return AMD_PSP_RING_IDLE;
    }
    if (!sev_memory_dma_read(r->queues[r->priority].entries +
                             queue_index(r->head, r->priority) * ENTRY_LEN,
                             entry, sizeof(entry))) {
        queue_pause(r, r->priority, "its entries are not RAM any more");
        return AMD_PSP_RING_IDLE;
    }
    *id = lduw_le_p(entry);
    *buffer = ldq_le_p(entry + ENTRY_BUFFER);
    r->flags = lduw_le_p(entry + ENTRY_FLAGS);
    return AMD_PSP_RING_COMMAND;
}

/* Move the head past the current command, which has ended */
static void queue_advance(AmdPspRing *r)
{
    /* The index wraps at the end of the page */
    r->head = deposit32(r->head, r->priority * AMD_PSP_RING_QUEUE_SHIFT, 8,
                        (uint8_t)(queue_index(r->head, r->priority) + 1));
    if (r->flags & AMD_PSP_RING_INT_COMPLETE) {
        r->head |= AMD_PSP_RING_INT_DONE;
        r->interrupt = true;
    }
}

void amd_psp_ring_post(AmdPspRing *r, uint16_t status)
{
    uint8_t index = queue_index(r->head, r->priority);
    uint8_t entry[STATUS_LEN] = { 0 };
    bool posted;

    stw_le_p(entry, status);
    posted = sev_memory_dma_write(r->queues[r->priority].statuses +
                                  index * STATUS_LEN, entry, sizeof(entry));
    queue_advance(r);
    if (!posted) {
        queue_pause(r, r->priority, "its statuses are not RAM any more");
    } else if (status && !(r->flags & AMD_PSP_RING_GO_ON)) {
        queue_pause(r, r->priority, "a command failed");
    }
}

void amd_psp_ring_skip(AmdPspRing *r)
{
    queue_advance(r);
}

bool amd_psp_ring_interrupt(AmdPspRing *r)
{
    bool interrupt = r->interrupt;

    r->interrupt = false;
    return interrupt;
}
