/*
 * Emulated AMD Platform Security Processor: ring buffer mode
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * In this mode the host writes commands to one or two queues.  A queue is a
 * page of entries and a page of their statuses.  The registers of the mailbox
 * are the control, tail and head of both queues.  The firmware executes the
 * commands of the queues, those of the high priority queue first, and does not
 * wait for the host between two commands.
 *
 * The bits behave as in the source code of the firmware for "Genoa", which AMD
 * has published.  Their names are defined here.
 */

#ifndef HW_MISC_AMD_PSP_RING_H
#define HW_MISC_AMD_PSP_RING_H

#include "exec/hwaddr.h"
#include "qemu/bitops.h"

/* Bytes of the buffer of RING_BUFFER */
#define AMD_PSP_RING_BUFFER_LEN     40

/*
 * Bits of the control register, which the host writes.  NEAR_EMPTY_INT and
 * RESUME apply to the low priority queue.  Their next higher bits, 1 and 9,
 * apply to the high priority queue.  The other bits apply to both queues.
 */
#define AMD_PSP_RING_NEAR_EMPTY_INT BIT(0)
#define AMD_PSP_RING_RESUME         BIT(8)
#define AMD_PSP_RING_CLEAR          BIT(29) /* interrupt bits of the head */
#define AMD_PSP_RING_ACTIVE         BIT(30)
#define AMD_PSP_RING_OWNED          BIT(31) /* by the host */

/*
 * Head and tail have the index of the low priority queue in the lower half and
 * that of the high priority queue in the upper half.  Each half of the head
 * also has AMD_PSP_RING_RUNNING, which is set while the queue is running.  The
 * AMD_PSP_RING_INT_* bits of the head are the reasons of interrupts.
 */
#define AMD_PSP_RING_QUEUE_SHIFT    16
#define AMD_PSP_RING_RUNNING        BIT(11)
#define AMD_PSP_RING_INT_EMPTY      BIT(28)
#define AMD_PSP_RING_INT_DONE       BIT(29)
#define AMD_PSP_RING_INT_PAUSED     BIT(30)
#define AMD_PSP_RING_INT_NEAR_EMPTY BIT(31)

/* Flags of an entry */
#define AMD_PSP_RING_INT_COMPLETE   BIT(0)
#define AMD_PSP_RING_GO_ON          BIT(1)  /* do not pause if it fails */

typedef enum AmdPspRingPriority {
    AMD_PSP_RING_LOW,
    AMD_PSP_RING_HIGH,
    AMD_PSP_RING_QUEUES,
} AmdPspRingPriority;

typedef struct AmdPspRingQueue {
    bool there;
    hwaddr entries;
    hwaddr statuses;
    uint16_t threshold;             /* nearly empty with fewer entries */
} AmdPspRingQueue;

typedef struct AmdPspRing {
    bool on;
    bool int_on_empty;
    AmdPspRingQueue queues[AMD_PSP_RING_QUEUES];
    uint32_t head;
    bool interrupt;                 /* see amd_psp_ring_interrupt() */
    /* Queue of the command that was taken last, and flags of its entry */
    AmdPspRingPriority priority;
    uint16_t flags;
} AmdPspRing;

/* Result of amd_psp_ring_next() */
typedef enum AmdPspRingStep {
    AMD_PSP_RING_OFF,               /* the mode is off */
    AMD_PSP_RING_IDLE,              /* no command until the next doorbell */
    AMD_PSP_RING_COMMAND,           /* a command was taken from a queue */
    AMD_PSP_RING_LEFT,              /* a mailbox command ended the mode */
} AmdPspRingStep;

/**
 * amd_psp_ring_enter: execute RING_BUFFER
 * @b: the command buffer
 *
 * Returns an AmdPspStatus.
 */
uint16_t amd_psp_ring_enter(AmdPspRing *r, const uint8_t *b);

/**
 * amd_psp_ring_leave: end ring buffer mode
 * @why: reason for the trace event
 *
 * amd_psp_ring_post() can still write the status of the command that was taken.
 */
void amd_psp_ring_leave(AmdPspRing *r, const char *why);

/**
 * amd_psp_ring_overlaps: whether [@pa, @pa + @len) contains a part of a queue
 */
bool amd_psp_ring_overlaps(const AmdPspRing *r, hwaddr pa, uint64_t len);

/**
 * amd_psp_ring_next: take the next command from a queue
 * @control, @tail: values of the registers
 * @id, @buffer: set to the command's ID and to the address of its buffer, if
 *               the function returns AMD_PSP_RING_COMMAND
 *
 * Called with the BQL held.  The status of the previous command must have been
 * posted.
 */
AmdPspRingStep amd_psp_ring_next(AmdPspRing *r, uint32_t control,
                                 uint32_t tail, uint32_t *id, hwaddr *buffer);

/**
 * amd_psp_ring_post: write the status of the command that was taken
 * @status: AmdPspStatus, or the status of a fault
 *
 * Called with the BQL held.
 */
void amd_psp_ring_post(AmdPspRing *r, uint16_t status);

/**
 * amd_psp_ring_skip: move the head past the command that was taken
 *
 * Does not write a status.  Implements the fault "skip".  Called with the BQL
 * held.
 */
void amd_psp_ring_skip(AmdPspRing *r);

/**
 * amd_psp_ring_interrupt: return whether an interrupt is due, and clear it
 */
bool amd_psp_ring_interrupt(AmdPspRing *r);

#endif
