// SPDX-License-Identifier: GPL-2.0
/*
 * Groups of packets: SEND_UPDATE_DATA and RECEIVE_UPDATE_DATA commands that one
 * doorbell passes to the firmware, in its ring buffer mode.
 *
 * Our ccp implements the mode (drivers/crypto/ccp/sev-ring.c).  If the initramfs has
 * loaded the distribution's ccp instead, kvm-amd issues the commands one by
 * one.  kvm-amd must work with either ccp, so it does not link to
 * sev_issue_cmds_external_user(), which only our ccp exports.  Instead, kvm-amd
 * looks the symbol up and holds a reference to it for the duration of a batch.
 */
#include <linux/file.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/psp.h>
#include <linux/psp-sev.h>
#include <linux/slab.h>

#include "svm.h"
#include "sev_batch.h"
#include "sev_group.h"

/*
 * Argument of a command.  SEND_UPDATE_DATA and RECEIVE_UPDATE_DATA have arguments of
 * the same layout.  The arguments of all commands of a group fit in one page.
 */
struct sev_group_cmd {
	struct sev_data_send_update_data data;
} __aligned(64);
static_assert(sizeof(struct sev_data_send_update_data) ==
	      sizeof(struct sev_data_receive_update_data));

/*
 * Entering the ring buffer mode takes one command, and leaving it takes another
 * one.  A group of fewer packets than SEV_GROUP_MIN would hardly be faster than
 * single commands.
 */
#define SEV_GROUP_MIN	4U
#define SEV_GROUP_MAX	((u32)(PAGE_SIZE / sizeof(struct sev_group_cmd)))
static_assert(SEV_GROUP_MAX <= SEV_RING_MAX);
/* Maximum time to hold kvm->lock and to pin pages */
#define SEV_GROUP_NS	(20ULL * NSEC_PER_MSEC)
/*
 * After a slow group has reduced the number of packets in a group: number of
 * groups and single commands before a larger group is tried
 */
#define SEV_PACE_HOLD	64

/**
 * struct sev_pace - the best number of packets in a group, determined by measurement
 * @packets: number of packets; 1 if groups are not faster
 * @hold: number of groups and single commands until a larger group may be
 *	tried; a slow group can reduce @packets earlier
 * @good: the last group was faster than single commands, and took at most
 *	SEV_GROUP_NS
 * @single_ns: duration of a single command by number of pages, in nanoseconds; 0 if
 *	unknown
 *
 * A group is faster than single commands if the firmware spends most of the time of a
 * command on the doorbell, and not on the command itself.  The measured time includes
 * commands of other VMs that run in between, so a group can be slow although
 * its size is right.  If @good is true, sev_pace_group() therefore ignores one
 * slow group, and reduces @packets only if the next group is slow as well.
 * @good is false at first, so sev_pace_group() does not ignore a slow first
 * group.
 *
 * All VMs share the structure, which has no lock: each field is written with a single
 * store, and a race at most results in a group of another size.
 */
struct sev_pace {
	u32 packets;
	u32 hold;
	bool good;
	u64 single_ns[SEV_PACKET_PAGES];
};

/*
 * Indexed by struct sev_group.send.  @hold is 1 so that the first command is a single
 * one, which measures @single_ns before the first group is tried.
 */
static struct sev_pace sev_paces[2] = {
	{ .packets = 1, .hold = 1 }, { .packets = 1, .hold = 1 },
};

static u32 sev_pace_packets(struct sev_pace *pace)
{
	u32 packets = READ_ONCE(pace->packets);

	return packets > 1 || READ_ONCE(pace->hold) ? packets : SEV_GROUP_MIN;
}

static void sev_pace_set(struct sev_pace *pace, u32 packets, u32 hold)
{
	WRITE_ONCE(pace->packets, packets);
	WRITE_ONCE(pace->hold, hold);
}

static void sev_pace_single(struct sev_pace *pace, u32 npages, u64 ns)
{
	u64 *single = &pace->single_ns[npages - 1], old = READ_ONCE(*single);
	u32 hold = READ_ONCE(pace->hold);

	/*
	 * Use a moving average, because @ns is too long if the thread was
	 * preempted.
	 */
	WRITE_ONCE(*single, old ? old - old / 4 + ns / 4 : ns);
	if (hold)
		WRITE_ONCE(pace->hold, hold - 1);
}

/*
 * Get the duration of a single command of @npages pages.  If it is unknown, get the
 * duration of a command of another size.
 */
static u64 sev_pace_single_ns(struct sev_pace *pace, u32 npages)
{
	u64 ns = READ_ONCE(pace->single_ns[npages - 1]);

	for (u32 i = 0; !ns && i < SEV_PACKET_PAGES; i++)
		ns = READ_ONCE(pace->single_ns[i]);
	return ns;
}

/*
 * Adjust the number of packets in a group.  The last group had @n packets and
 * took @ns; single commands would have taken @single_ns.
 */
static void sev_pace_group(struct sev_pace *pace, u32 n, u64 ns, u64 single_ns)
{
	u32 packets = READ_ONCE(pace->packets), hold = READ_ONCE(pace->hold);
	bool good = ns <= min(single_ns, SEV_GROUP_NS), was_good = READ_ONCE(pace->good);

	WRITE_ONCE(pace->good, good);
	if (!good && was_good)
		return;
	if (ns > single_ns)
		sev_pace_set(pace, 1, SEV_PACE_HOLD);
	else if (ns > SEV_GROUP_NS)
		sev_pace_set(pace, max(n / 2, SEV_GROUP_MIN), SEV_PACE_HOLD);
	else if (hold)
		WRITE_ONCE(pace->hold, hold - 1);
	else if (n >= packets)
		WRITE_ONCE(pace->packets, min(2 * n, SEV_GROUP_MAX));
}

/**
 * sev_group_init - initialize a group
 * @group: the group; the caller must call sev_group_destroy() even if this fails
 * @kvm: an SEV VM
 * @send: true: send guest memory; false: receive it
 * @hdr_len: size of a header, in bytes
 * @max: maximum number of pages in a packet: 1 or SEV_PACKET_PAGES
 *
 * Return: 0 or -%ENOMEM.
 */
int sev_group_init(struct sev_group *group, struct kvm *kvm, bool send,
		   u32 hdr_len, u32 max)
{
	*group = (struct sev_group) {
		.kvm = kvm,
		.send = send,
		.hdr_len = hdr_len,
		.max = max,
		.order = ilog2(max),
		.issue = symbol_get(sev_issue_cmds_external_user),
	};
	group->packets = kcalloc(SEV_GROUP_MAX, sizeof(*group->packets),
				 GFP_KERNEL_ACCOUNT);
	group->cmds = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	return group->packets && group->cmds ? 0 : -ENOMEM;
}

void sev_group_destroy(struct sev_group *group)
{
	while (group->room) {
		struct sev_packet *packet = &group->packets[--group->room];

		free_pages((unsigned long)packet->trans, group->order);
		kfree(packet->hdr);
	}
	free_page((unsigned long)group->cmds);
	kfree(group->packets);
	if (group->issue)
		symbol_put(sev_issue_cmds_external_user);
}

/* Allocate the buffers of one more packet. */
static bool sev_group_add_room(struct sev_group *group)
{
	struct sev_packet *packet = &group->packets[group->room];
	/* Zeroed, because user space gets the whole buffer even if the firmware writes less. */
	gfp_t gfp = GFP_KERNEL_ACCOUNT | __GFP_ZERO;

	/*
	 * The batch can go on with only the first packet, so let the
	 * allocations for further packets fail quickly.
	 */
	if (group->room)
		gfp |= __GFP_NORETRY | __GFP_NOWARN;

	packet->hdr = kmalloc(group->hdr_len, gfp);
	packet->trans = (void *)__get_free_pages(gfp, group->order);
	if (!packet->hdr || !packet->trans) {
		kfree(packet->hdr);
		free_pages((unsigned long)packet->trans, group->order);
		return false;
	}
	group->room++;
	return true;
}

/**
 * sev_group_packets - choose the number of packets and allocate their buffers
 * @group: the group
 * @npages: number of pages that are left to send or receive
 *
 * Return: number of packets, or 0 if there is no memory for the buffers of one packet.
 */
u32 sev_group_packets(struct sev_group *group, u32 npages)
{
	u32 n = group->issue ? sev_pace_packets(&sev_paces[group->send]) : 1;

	n = npages < SEV_GROUP_MIN ? 1 : min(n, npages);
	while (group->room < n && sev_group_add_room(group))
		;
	return min(n, group->room);
}

/*
 * Pin the guest memory of @packet from @uaddr on.  For receiving, pin all pages of the
 * packet.  For sending, pin as many pages as are contiguous, and set @packet->npages.
 */
static int sev_group_pin(struct sev_group *group, struct sev_packet *packet,
			 unsigned long uaddr)
{
	struct kvm *kvm = group->kvm;
	bool send = group->send;
	int n;

	/*
	 * The guest can still convert a pinned page to shared.  The conversion marks the
	 * page dirty, so the source sends it again.
	 */
	n = kvm_gmem_pin_block(kvm, uaddr, packet->npages, !send, packet->pages);
	packet->ordinary = n == -ENOENT;
	if (packet->ordinary) {
		if (!send && packet->npages > 1)
			return -EOPNOTSUPP;
		packet->pages[0] = sev_pin_page(kvm, uaddr,
						send ? 0 : FOLL_WRITE);
		n = IS_ERR(packet->pages[0]) ? PTR_ERR(packet->pages[0]) : 1;
	}
	if (n < 0)
		return n;
	packet->npages = n;

	/* A late write-back of cached lines must not overwrite the firmware's output. */
	if (!send)
		sev_clflush_pages(packet->pages, n);
	return 0;
}

static void sev_group_unpin(struct sev_group *group, struct sev_packet *packet)
{
	if (packet->ordinary)
		sev_unpin_page(group->kvm, packet->pages[0]);
	else
		unpin_user_pages(packet->pages, packet->npages);
}

static void sev_group_fill(struct sev_group *group, u32 i)
{
	struct sev_packet *packet = &group->packets[i];
	u32 len = packet->npages << PAGE_SHIFT;

	group->cmds[i].data = (struct sev_data_send_update_data) {
		.handle = to_kvm_sev_info(group->kvm)->handle,
		.hdr_address = __psp_pa(packet->hdr),
		.hdr_len = group->hdr_len,
		.guest_address = page_to_phys(packet->pages[0]) | sev_me_mask,
		.guest_len = len,
		.trans_address = __psp_pa(packet->trans),
		.trans_len = len,
	};
}

/* Issue all commands with one doorbell.  Returns -EOPNOTSUPP if that is not possible. */
static int sev_group_ring(struct sev_group *group, int cmd, u32 n, u32 *done,
			  int *error)
{
	struct sev_pace *pace = &sev_paces[group->send];
	u64 ns, single_ns = 0;
	int r;

	CLASS(fd, f)(to_kvm_sev_info(group->kvm)->fd);
	if (fd_empty(f))
		return -EBADF;

	ns = ktime_get_ns();
	r = group->issue(fd_file(f), cmd, group->cmds, sizeof(*group->cmds), n,
			 done, error);
	ns = ktime_get_ns() - ns;

	if (r == -EOPNOTSUPP)
		sev_pace_set(pace, 1, SEV_PACE_HOLD);
	if (r)
		return r;

	for (u32 i = 0; i < n; i++)
		single_ns += sev_pace_single_ns(pace, group->packets[i].npages);
	sev_pace_group(pace, n, ns, single_ns);
	return 0;
}

static int sev_group_single(struct sev_group *group, int cmd, u32 *done,
			    int *error)
{
	u64 ns = ktime_get_ns();
	int r;

	r = sev_issue_cmd(group->kvm, cmd, &group->cmds[0].data, error);
	if (r)
		return r;

	*done = 1;
	sev_pace_single(&sev_paces[group->send], group->packets[0].npages,
			ktime_get_ns() - ns);
	return 0;
}

/**
 * sev_group_issue - send or receive packets
 * @group: the packets.  The caller sets their numbers of pages for receiving; this
 *	function sets them for sending
 * @uaddr: host address of the guest's memory
 * @n: number of packets, at most the result of sev_group_packets()
 * @npages: maximum number of pages in all packets together
 * @ret: out: error of the first packet that is not done; 0 if there is no error
 * @error: out: the firmware's error, if *@ret is -%EIO
 *
 * The packets are handled in order.  The function takes kvm->lock, and holds it and
 * the pins for the whole group.  The buffers of a packet that is not done must not be
 * passed to user space.
 *
 * Return: number of packets that are done.
 */
u32 sev_group_issue(struct sev_group *group, unsigned long uaddr, u32 n,
		    u32 npages, int *ret, int *error)
{
	int cmd = group->send ? SEV_CMD_SEND_UPDATE_DATA :
				SEV_CMD_RECEIVE_UPDATE_DATA;
	u32 pinned, done = 0;
	int r = -EOPNOTSUPP;

	ACQUIRE(mutex_kill, lock)(&group->kvm->lock);
	*ret = ACQUIRE_ERR(mutex_kill, &lock) ? -EINTR :
	       sev_batch_check_vm(group->kvm);
	if (*ret)
		return 0;

	for (pinned = 0; pinned < n && npages; pinned++) {
		struct sev_packet *packet = &group->packets[pinned];

		if (group->send)
			packet->npages = min(group->max, npages);
		*ret = sev_group_pin(group, packet, uaddr);
		if (*ret)
			break;
		sev_group_fill(group, pinned);
		uaddr += (unsigned long)packet->npages << PAGE_SHIFT;
		npages -= packet->npages;
	}
	if (!pinned)
		return 0;

	if (pinned >= SEV_GROUP_MIN)
		r = sev_group_ring(group, cmd, pinned, &done, error);
	/*
	 * Issue only the first command, so that kvm->lock is not held for several of
	 * them.  The caller calls this function again for the other packets.
	 */
	if (r == -EOPNOTSUPP)
		r = sev_group_single(group, cmd, &done, error);

	for (u32 i = 0; i < pinned; i++)
		sev_group_unpin(group, &group->packets[i]);

	/*
	 * If a packet could not be pinned, *@ret has its error.  Keep this error
	 * only if all packets before it are done.
	 */
	if (r || done < pinned)
		*ret = r;
	return done;
}
