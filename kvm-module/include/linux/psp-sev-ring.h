/* SPDX-License-Identifier: GPL-2.0 */
/* Interface to issue many commands of the SEV firmware with one doorbell */
#ifndef __PSP_SEV_RING_H__
#define __PSP_SEV_RING_H__

#include <linux/types.h>

struct file;

/* This platform command is missing in <linux/psp-sev.h>. */
#define SEV_CMD_RING_BUFFER	0x00F

/*
 * Maximum number of commands in a queue.  The queue has 256 entries, but with all of
 * them in use, head and tail would be equal, as in an empty queue.
 */
#define SEV_RING_MAX		255

/**
 * struct sev_data_ring_buffer - RING_BUFFER command parameters
 *
 * @low_cmds: physical address of the page of commands of the low priority queue
 * @low_statuses: physical address of the page of the statuses of these commands
 * @high_cmds: physical address of the page of commands of the high priority queue
 * @high_statuses: physical address of the page of the statuses of these commands
 * @low_size: number of pages of commands of the low priority queue: 1
 * @high_size: number of pages of commands of the high priority queue: 0 or 1
 * @low_threshold: number of remaining commands at which the low priority queue counts
 *	as nearly empty, or 0
 * @high_threshold: number of remaining commands at which the high priority queue
 *	counts as nearly empty, or 0
 * @flags: SEV_RING_INT_ON_EMPTY
 */
struct sev_data_ring_buffer {
	u64 low_cmds;				/* In */
	u64 low_statuses;			/* In */
	u64 high_cmds;				/* In */
	u64 high_statuses;			/* In */
	u8 low_size;				/* In */
	u8 high_size;				/* In */
	u16 low_threshold;			/* In */
	u16 high_threshold;			/* In */
	u16 flags;				/* In */
} __packed;

/* Raise an interrupt when all queues are empty */
#define SEV_RING_INT_ON_EMPTY	1

/* drivers/crypto/ccp/sev-ring.c */
int sev_issue_cmds_external_user(struct file *filep, int cmd, void *data,
				 size_t size, unsigned int n,
				 unsigned int *done, int *psp_ret);

#endif	/* __PSP_SEV_RING_H__ */
