// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ring buffer mode of the PSP: many commands with one doorbell.
 *
 * The command RING_BUFFER gives the firmware a queue in memory and changes the
 * meaning of the mailbox's registers:
 *
 * - The command register becomes a control register.
 * - The register for the low half of the argument's address becomes the head:
 *   the index up to which the firmware has emptied the queue.
 * - The register for the high half becomes the tail: the index up to which the
 *   host has filled the queue.
 *
 * When the host next writes a command to the mailbox, the firmware leaves the
 * mode and does not execute this command.
 *
 * The rest of this driver and its users use the mailbox.  All of them call
 * __sev_do_cmd_locked(), which leaves the mode before it writes to the mailbox.
 * The mode stays on until then, because groups of commands usually follow each
 * other, and entering and leaving the mode take a command each.
 */
#include <linux/bitfield.h>
#include <linux/irqflags.h>
#include <linux/jiffies.h>
#include <linux/lockdep.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/psp.h>
#include <linux/psp-sev.h>
#include <linux/psp-sev-ring.h>
#include <linux/wait.h>

#include "psp-dev.h"
#include "sev-dev.h"

/*
 * Bits of the control register, which is the command register in mailbox mode
 */
#define SEV_RING_CLEAR		BIT(29)	/* clear the status bits of the head */
#define SEV_RING_ACTIVE		BIT(30)
#define SEV_RING_HOST		BIT(31)	/* PSP_CMDRESP_RESP, for sev_irq_handler() */

/*
 * Bits of the head register, which has the low half of the argument's address
 * in mailbox mode
 */
#define SEV_RING_HEAD_LOW	GENMASK(7, 0)
#define SEV_RING_RUNNING	BIT(11)	/* cleared when a command fails */
#define SEV_RING_EMPTY		BIT(28)

/*
 * Bits of the tail register, which has the high half of the argument's address
 * in mailbox mode
 */
#define SEV_RING_TAIL_LOW	GENMASK(7, 0)

/* If @flags is 0, a failing command pauses the queue, and success raises no interrupt. */
struct sev_ring_cmd {
	u16 id;
	u16 flags;
	u32 unused;
	u64 address;
} __packed;

struct sev_ring_status {
	u16 status;
	u16 reserved1;
	u32 reserved2;
	u64 extended_error;
} __packed;

/*
 * The driver stores this value as the status of each command before it rings
 * the doorbell.  If a status still has this value, the firmware has not written
 * the status.
 */
#define SEV_RING_NO_STATUS	0xffff

/**
 * struct sev_ring - state of the ring buffer mode of a device
 * @cmds: page of the low priority queue; the other queue is not used
 * @statuses: page for the statuses of @cmds
 * @absent: the firmware does not have the mode, or did not behave as expected
 * @on: the mode was entered and not left
 * @next: index of the next entry to fill.  Between two groups, the queue is empty, so
 *	this is also the index of the firmware's head.
 *
 * Protected by sev_cmd_mutex.
 */
struct sev_ring {
	struct sev_ring_cmd *cmds;
	struct sev_ring_status *statuses;
	bool absent;
	bool on;
	u8 next;
};

/* Off by default, because this code has only been tested with an emulated PSP */
static bool sev_ring_enabled;
module_param_named(sev_ring, sev_ring_enabled, bool, 0644);
MODULE_PARM_DESC(sev_ring, " Use the ring buffer mode of the PSP, if it has it (default: N)");

/* Get or allocate the state of the device.  devm frees it with the device. */
static struct sev_ring *sev_ring_get(struct sev_device *sev)
{
	struct sev_ring *ring = sev->ring;

	lockdep_assert_held(&sev_cmd_mutex);

	/* A queue has 256 entries, so an index of type u8 wraps where the queue does */
	BUILD_BUG_ON(SEV_RING_MAX != U8_MAX);
	BUILD_BUG_ON((SEV_RING_MAX + 1) * sizeof(*ring->cmds) != PAGE_SIZE);
	BUILD_BUG_ON((SEV_RING_MAX + 1) * sizeof(*ring->statuses) != PAGE_SIZE);

	if (ring)
		return ring;

	ring = devm_kzalloc(sev->dev, sizeof(*ring), GFP_KERNEL);
	if (!ring)
		return NULL;

	ring->cmds = (void *)devm_get_free_pages(sev->dev, GFP_KERNEL, 1);
	if (!ring->cmds) {
		devm_kfree(sev->dev, ring);
		return NULL;
	}
	ring->statuses = (void *)ring->cmds + PAGE_SIZE;

	sev->ring = ring;
	return ring;
}

/*
 * Check that the firmware is in the mode.  A PSP that was reset, or that reported
 * success for RING_BUFFER but did not enter the mode, uses the registers as a mailbox:
 * it would interpret the tail as an address and the control register as a command.
 * @entered: the last command was RING_BUFFER, and the driver has not written to
 *	the registers since
 */
static bool sev_ring_is_on(struct sev_device *sev, struct sev_ring *ring,
			   bool entered)
{
	u32 control = ioread32(sev->io_regs + sev->vdata->cmdresp_reg);
	u32 head = ioread32(sev->io_regs + sev->vdata->cmdbuff_addr_lo_reg);

	/*
	 * RING_BUFFER sets the head to 0.  In mailbox mode, the register would still hold
	 * the address of RING_BUFFER's argument.
	 */
	if (entered)
		return !head;
	return (control & SEV_RING_ACTIVE) &&
	       FIELD_GET(SEV_RING_HEAD_LOW, head) == ring->next;
}

/* Return to the mailbox and never use the mode again */
static int sev_ring_give_up(struct sev_device *sev, struct sev_ring *ring)
{
	dev_err(sev->dev,
		"SEV: the PSP is not in the ring buffer mode that it had entered (was it reset?), the mode will not be used again\n");
	ring->absent = true;
	return sev_ring_leave(sev) ?: -EOPNOTSUPP;
}

static int sev_ring_enter(struct sev_device *sev, struct sev_ring *ring)
{
	struct sev_data_ring_buffer data = {
		.low_cmds = __psp_pa(ring->cmds),
		.low_statuses = __psp_pa(ring->statuses),
		.low_size = 1,
		.flags = SEV_RING_INT_ON_EMPTY,
	};
	int error = 0, ret;

	lockdep_assert_held(&sev_cmd_mutex);

	if (ring->on)
		return sev_ring_is_on(sev, ring, false) ? 0 :
		       sev_ring_give_up(sev, ring);

	ret = __sev_do_cmd_locked(SEV_CMD_RING_BUFFER, &data, &error);
	if (!ret) {
		ring->on = true;
		ring->next = 0;
		if (!sev_ring_is_on(sev, ring, true))
			return sev_ring_give_up(sev, ring);
	}
	if (ret != -EIO)
		return ret;

	/*
	 * INVALID_PLATFORM_STATE means that the platform is not initialized,
	 * and not that the firmware lacks the mode.  The caller then issues
	 * single commands, which fail with the same error.
	 */
	if (error != SEV_RET_INVALID_PLATFORM_STATE) {
		dev_info(sev->dev, "SEV: no ring buffer mode (%#x)\n", error);
		ring->absent = true;
	}
	return -EOPNOTSUPP;
}

/**
 * sev_ring_leave - leave the ring buffer mode
 * @sev: the device
 *
 * The caller holds sev_cmd_mutex and is about to write to the mailbox.
 *
 * Return: 0, or -%EBUSY if the PSP did not answer and is not used any more (psp_dead).
 */
int sev_ring_leave(struct sev_device *sev)
{
	struct sev_user_data_status status = { };
	struct sev_ring *ring = sev->ring;
	int error = 0, ret;

	lockdep_assert_held(&sev_cmd_mutex);

	if (!ring || !ring->on)
		return 0;

	ring->on = false;
	ret = __sev_do_cmd_locked(SEV_CMD_PLATFORM_STATUS, &status, &error);
	if (ret == -EIO && error == SEV_RET_EXIT_RING_BUFFER)
		return 0;

	/*
	 * If the PSP did not answer, psp_dead is set by now.  If the PSP answered, the
	 * mailbox works and the guests are not affected, but the firmware was not in
	 * the mode as expected, so do not use the mode again.
	 */
	dev_err(sev->dev,
		"SEV: the ring buffer was left with %d, %#x, it will not be used again\n",
		ret, error);
	ring->absent = true;
	return psp_dead ? -EBUSY : 0;
}

/*
 * Has the firmware stopped, at a command that failed or after the last command?
 * The firmware reports a paused queue as empty.  SEV_RING_EMPTY alone is not
 * enough: it may be left over from the previous group.  A cleared SEV_RING_RUNNING
 * alone is not enough either: the firmware may not have looked at the queue yet.
 * The status bit for a pause cannot be used: sev_ring_run() sets SEV_RING_CLEAR
 * in the control register, so the firmware clears this bit again when it next
 * looks at the queue.
 */
static bool sev_ring_stopped(unsigned int head, u8 tail)
{
	return (head & SEV_RING_EMPTY) &&
	       (!(head & SEV_RING_RUNNING) ||
		FIELD_GET(SEV_RING_HEAD_LOW, head) == tail);
}

/* Fill the queue, ring the doorbell and wait until the firmware stops.  Sets *@head. */
static int sev_ring_run(struct sev_device *sev, struct sev_ring *ring, int cmd,
			phys_addr_t data, size_t size, unsigned int n,
			unsigned int *head)
{
	void __iomem *head_reg = sev->io_regs + sev->vdata->cmdbuff_addr_lo_reg;
	void __iomem *tail_reg = sev->io_regs + sev->vdata->cmdbuff_addr_hi_reg;
	u8 tail = ring->next, last = tail;
	unsigned long moved;

	lockdep_assert_held(&sev_cmd_mutex);

	for (; n; n--, tail++, data += size) {
		ring->cmds[tail] = (struct sev_ring_cmd) {
			.id = cmd,
			.address = data,
		};
		ring->statuses[tail].status = SEV_RING_NO_STATUS;
	}

	sev->int_rcvd = 0;
	iowrite32(FIELD_PREP(SEV_RING_TAIL_LOW, tail), tail_reg);
	iowrite32(SEV_RING_HOST | SEV_RING_ACTIVE | SEV_RING_CLEAR,
		  sev->io_regs + sev->vdata->cmdresp_reg);

	/*
	 * The timeout applies to each command, so read the head every second to
	 * find out whether a command has finished.
	 */
	moved = jiffies;
	do {
		wait_event_timeout(sev->int_queue, sev->int_rcvd, HZ);
		/*
		 * Clear int_rcvd before reading the head: clearing it
		 * afterwards could lose an interrupt
		 */
		sev->int_rcvd = 0;
		*head = ioread32(head_reg);
		if (FIELD_GET(SEV_RING_HEAD_LOW, *head) != last) {
			last = FIELD_GET(SEV_RING_HEAD_LOW, *head);
			moved = jiffies;
		}
		if (sev_ring_stopped(*head, tail))
			return 0;
	} while (time_before(jiffies, moved + psp_timeout * HZ));

	/*
	 * The caller will reuse the memory of the arguments, so the firmware
	 * must not execute the remaining commands if it responds later.  Clear
	 * the queue: after its current command, the firmware then finds an
	 * invalid command, which pauses the queue.
	 */
	memset(ring->cmds, 0, PAGE_SIZE);
	dev_err(sev->dev,
		"sev command %#x in the ring buffer timed out, disabling PSP\n", cmd);
	psp_dead = true;
	return -ETIMEDOUT;
}

/*
 * Get the number of commands that succeeded and the status of the first one that
 * did not.  The head only limits how many statuses this function reads.  It does not
 * prove that the firmware has executed a command; only a written status does.
 */
static int sev_ring_result(struct sev_device *sev, struct sev_ring *ring,
			   unsigned int head, unsigned int n,
			   unsigned int *done, int *error)
{
	u8 seen = FIELD_GET(SEV_RING_HEAD_LOW, head) - ring->next;
	u16 status = SEV_RING_NO_STATUS;
	unsigned int i;

	for (i = 0; i < min(seen, n); i++) {
		status = READ_ONCE(ring->statuses[(u8)(ring->next + i)].status);
		if (status)
			break;
	}

	*done = i;
	if (i == n && seen == n) {
		ring->next += n;
		return 0;
	}

	if (i < seen && seen <= n && status != SEV_RING_NO_STATUS) {
		*error = status;
	} else {
		dev_err(sev->dev,
			"SEV: ring buffer stopped at %u of %u (%#010x), it will not be used again\n",
			i, n, head);
		ring->absent = true;
	}
	return -EIO;
}

static int sev_do_cmds_locked(int cmd, void *data, size_t size, unsigned int n,
			      unsigned int *done, int *psp_ret)
{
	struct psp_device *psp = psp_master;
	struct sev_device *sev;
	struct sev_ring *ring;
	unsigned int head;
	int ret;

	lockdep_assert_held(&sev_cmd_mutex);

	if (!psp || !psp->sev_data)
		return -ENODEV;

	if (psp_dead)
		return -EBUSY;

	/*
	 * With SNP, the firmware must own the memory to which it writes.  Only
	 * __sev_do_cmd_locked() transfers the ownership, and it issues single commands.
	 */
	sev = psp->sev_data;
	if (!READ_ONCE(sev_ring_enabled) || sev->snp_initialized)
		return -EOPNOTSUPP;

	ring = sev_ring_get(sev);
	if (!ring || ring->absent)
		return -EOPNOTSUPP;

	ret = sev_ring_enter(sev, ring);
	if (ret)
		return ret;

	dev_dbg(sev->dev, "sev command id %#x, %u of them, timeout %us\n",
		cmd, n, psp_timeout);

	ret = sev_ring_run(sev, ring, cmd, __psp_pa(data), size, n, &head);
	if (ret)
		return ret;

	ret = sev_ring_result(sev, ring, head, n, done, psp_ret);
	/*
	 * The queue is paused at the failed command and still contains the commands after
	 * it.  Leaving the mode discards them.
	 */
	if (ret)
		sev_ring_leave(sev);
	return ret;
}

/* Get the length of the argument of @cmd, or 0 if the command must not be queued. */
static size_t sev_ring_cmd_len(int cmd)
{
	switch (cmd) {
	case SEV_CMD_SEND_UPDATE_DATA:
		return sizeof(struct sev_data_send_update_data);
	case SEV_CMD_RECEIVE_UPDATE_DATA:
		return sizeof(struct sev_data_receive_update_data);
	default:
		return 0;
	}
}

/**
 * sev_issue_cmds_external_user - issue many SEV commands of one kind
 * @filep: SEV device file pointer
 * @cmd: SEND_UPDATE_DATA or RECEIVE_UPDATE_DATA
 * @data: array of @n arguments in physically contiguous memory, from kmalloc() or
 *	from the page allocator
 * @size: size of an element of the array, in bytes; it may contain padding
 * @n: number of commands, at most SEV_RING_MAX
 * @done: out: the number of commands that succeeded
 * @psp_ret: out: the firmware's code for the first command that failed
 *
 * The firmware executes the commands in order, up to the first one that fails.
 *
 * Context: process context; sleeps for as long as the commands take.
 *
 * Return: 0 if all have succeeded;
 * -%EOPNOTSUPP: no command was issued; the caller should issue the commands one
 *               by one
 * -%EINVAL:     the command or the memory is not supported
 * -%EBADF:      not an SEV device file
 * -%ENODEV:     there is no SEV device
 * -%EBUSY:      the PSP is not used any more after an earlier timeout
 * -%ETIMEDOUT:  the PSP did not answer and is not used any more; it is unknown
 *               which commands were executed
 * -%EIO:        a command failed; *@psp_ret is 0 if the firmware returned no
 *               status for it
 */
int sev_issue_cmds_external_user(struct file *filep, int cmd, void *data,
				 size_t size, unsigned int n,
				 unsigned int *done, int *psp_ret)
{
	size_t len = sev_ring_cmd_len(cmd);
	int ret;

	*done = 0;
	*psp_ret = 0;

	if (!filep || filep->f_op != &sev_fops)
		return -EBADF;

	if (!len || size < len || !n || n > SEV_RING_MAX ||
	    WARN_ON_ONCE(!virt_addr_valid(data) ||
			 !virt_addr_valid(data + n * size - 1)))
		return -EINVAL;

	/*
	 * While interrupts are disabled, which happens in a panic, the
	 * interrupt for which sev_ring_run() waits is not delivered.
	 */
	if (irqs_disabled())
		return -EOPNOTSUPP;

	mutex_lock(&sev_cmd_mutex);
	ret = sev_do_cmds_locked(cmd, data, size, n, done, psp_ret);
	mutex_unlock(&sev_cmd_mutex);

	return ret;
}
EXPORT_SYMBOL_GPL(sev_issue_cmds_external_user);
