/*
 * Emulated AMD Platform Security Processor: ring buffer mode
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * In this mode the host puts commands into one or two queues, each a page of
 * entries and a page of their statuses, and the mailbox's registers are
 * control, tail and head of both.  The firmware executes what is in the
 * queues, the high one first, without the host between two commands.
 *
 * Names of the bits are ours; what they mean is what the source of the
 * firmware for "Genoa", which AMD has published, does with them.
 */

#ifndef HW_MISC_AMD_PSP_RING_H
#define HW_MISC_AMD_PSP_RING_H

#include "exec/hwaddr.h"
#include "qemu/bitops.h"

/* What RING_BUFFER takes */
#define AMD_PSP_RING_BUFFER_LEN     40

/* Control, which the host writes; the bit for the high queue is the next */
#define AMD_PSP_RING_NEAR_EMPTY_INT BIT(0)
#define AMD_PSP_RING_RESUME         BIT(8)
#define AMD_PSP_RING_CLEAR          BIT(29) /* the head's interrupt bits */
#define AMD_PSP_RING_ACTIVE         BIT(30)
#define AMD_PSP_RING_OWNED          BIT(31) /* by the host */

/*
 * Head and tail: the low queue's index, then the high one's.  The head's other
 * bits are here: those of the low queue, to be shifted for the high one, and
 * then what interrupts were for.
 */
#define AMD_PSP_RING_QUEUE_SHIFT    16
#define AMD_PSP_RING_RUNNING        BIT(11)
#define AMD_PSP_RING_INT_EMPTY      BIT(28)
#define AMD_PSP_RING_INT_DONE       BIT(29)
#define AMD_PSP_RING_INT_PAUSED     BIT(30)
#define AMD_PSP_RING_INT_NEAR_EMPTY BIT(31)

/* Flags of an entry */
#define AMD_PSP_RING_INT_COMPLETE   BIT(0)
#define AMD_PSP_RING_GO_ON          BIT(1)  /* although it failed */

typedef enum AmdPspRingPriority {
    AMD_PSP_RING_LOW,
    AMD_PSP_RING_HIGH,
    AMD_PSP_RING_QUEUES,
} AmdPspRingPriority;

typedef struct AmdPspRingQueue {
    bool there;
    hwaddr entries;
    hwaddr statuses;
    uint16_t threshold;             /* entries; fewer are near empty */
} AmdPspRingQueue;

typedef struct AmdPspRing {
    bool on;
    bool int_on_empty;
    AmdPspRingQueue queues[AMD_PSP_RING_QUEUES];
    uint32_t head;
    bool interrupt;                 /* is due, see amd_psp_ring_interrupt() */
    /* The command that was taken last */
    AmdPspRingPriority priority;
    uint16_t flags;
} AmdPspRing;

/* What there is to do */
typedef enum AmdPspRingStep {
    AMD_PSP_RING_OFF,               /* nothing: the mode is off */
    AMD_PSP_RING_IDLE,              /* nothing until the next doorbell */
    AMD_PSP_RING_COMMAND,           /* a command of a queue */
    AMD_PSP_RING_LEFT,              /* what was a command to the mailbox */
} AmdPspRingStep;

/**
 * amd_psp_ring_enter: execute RING_BUFFER
 * @b: its buffer
 *
 * Returns an AmdPspStatus.
 */
uint16_t amd_psp_ring_enter(AmdPspRing *r, const uint8_t *b);

/**
 * amd_psp_ring_leave: the mode ends
 * @why: for a trace
 *
 * A command that was taken can still be posted.
 */
void amd_psp_ring_leave(AmdPspRing *r, const char *why);

/**
 * amd_psp_ring_overlaps: whether the firmware has pages of
 * [@pa, @pa + @len) for its queues
 */
bool amd_psp_ring_overlaps(const AmdPspRing *r, hwaddr pa, uint64_t len);

/**
 * amd_psp_ring_next: take the next command
 * @control, @tail: what the host wrote
 * @id, @buffer: set to the command's if there is one
 *
 * With the BQL.  What was taken before must have been posted.
 */
AmdPspRingStep amd_psp_ring_next(AmdPspRing *r, uint32_t control,
                                 uint32_t tail, uint32_t *id, hwaddr *buffer);

/**
 * amd_psp_ring_post: the command that was taken has ended
 * @status: AmdPspStatus, or that of a fault
 *
 * With the BQL.
 */
void amd_psp_ring_post(AmdPspRing *r, uint16_t status);

/**
 * amd_psp_ring_skip: move the head behind the command that was taken
 *
 * For a fault: the status of the command is not written.  With the BQL.
 */
void amd_psp_ring_skip(AmdPspRing *r);

/**
 * amd_psp_ring_interrupt: whether the host is to be interrupted; not again
 */
bool amd_psp_ring_interrupt(AmdPspRing *r);

#endif
