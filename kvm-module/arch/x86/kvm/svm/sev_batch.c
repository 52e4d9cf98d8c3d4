// SPDX-License-Identifier: GPL-2.0
/*
 * SEND_UPDATE_DATA and RECEIVE_UPDATE_DATA for many pages in one call.
 *
 * The firmware takes milliseconds for a command, and most of this time does not depend
 * on the number of pages.  A command therefore handles as many pages as possible.
 * The firmware uses physical addresses, so the pages of a packet must be contiguous
 * in memory.  This also applies at the destination, because a packet cannot be split.
 *
 * A batch also saves system calls, buffers, copies of arguments and, for a group of
 * commands (sev_group.c), doorbells.  A batch must not block other users of
 * the VM for its whole duration.  The code therefore holds kvm->lock and pins
 * pages only for one command or for one group of about 20 ms, and not while it
 * copies user memory.  Each time that the code takes kvm->lock, it checks the
 * state of the VM again.
 */
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/psp-sev.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "svm.h"
#include "sev_batch.h"
#include "sev_group.h"

/**
 * struct sev_batch - state of one call
 * @kvm: an SEV VM
 * @send: true: send guest memory; false: receive it
 * @args: arguments of the caller
 * @group: the next packets to send or receive
 */
struct sev_batch {
	struct kvm *kvm;
	bool send;
	struct kvm_sev_update_batch args;
	struct sev_group group;
};

/* Return an error if the VM is in a state in which it cannot be sent or received. */
int sev_batch_check_vm(struct kvm *kvm)
{
	struct kvm_sev_info *sev = to_kvm_sev_info(kvm);

	lockdep_assert_held(&kvm->lock);

	if (!sev->active)
		return -ENOTTY;
	if (kvm->arch.vm_type == KVM_X86_SNP_VM)
		return -EPERM;
	if (sev->enc_context_owner)
		return -EINVAL;
	return 0;
}

static int sev_batch_check_args(struct kvm *kvm,
				const struct kvm_sev_update_batch *args)
{
	bool packets = args->flags & KVM_SEV_UPDATE_BATCH_PACKETS;
	u64 end;

	/*
	 * The pages of a packet must be contiguous in memory.  KVM allocates
	 * contiguous pages only for VMs in in-place mode, so only these VMs may
	 * have packets of several pages.
	 */
	if ((args->flags & ~KVM_SEV_UPDATE_BATCH_PACKETS) ||
	    (packets && !kvm_private_mem_enabled(kvm)) ||
	    (!packets && args->packets_uaddr) ||
	    memchr_inv(args->reserved, 0, sizeof(args->reserved)))
		return -EINVAL;
	if (!args->count)
		return 0;
	if (!PAGE_ALIGNED(args->guest_uaddr) || !args->hdr_len ||
	    args->hdr_len > SEV_FW_BLOB_MAX_SIZE ||
	    check_add_overflow(args->guest_uaddr, (u64)args->count << PAGE_SHIFT, &end))
		return -EINVAL;
	if (!access_ok(u64_to_user_ptr(args->hdr_uaddr),
		       (u64)args->count * args->hdr_len) ||
	    !access_ok(u64_to_user_ptr(args->trans_uaddr),
		       (u64)args->count << PAGE_SHIFT) ||
	    (packets && !access_ok(u64_to_user_ptr(args->packets_uaddr),
				   args->count)))
		return -EFAULT;
	return 0;
}

/* User address of the header of the packet that begins with page @i */
static void __user *sev_batch_hdr(const struct sev_batch *batch, u32 i)
{
	return u64_to_user_ptr(batch->args.hdr_uaddr +
			       (u64)i * batch->args.hdr_len);
}

static void __user *sev_batch_trans(const struct sev_batch *batch, u32 i)
{
	return u64_to_user_ptr(batch->args.trans_uaddr + ((u64)i << PAGE_SHIFT));
}

/* Get the caller's number of pages for the packet that begins with page @i, or an error. */
static int sev_batch_packet_pages(const struct sev_batch *batch, u32 i)
{
	u8 n;

	if (batch->group.max == 1)
		return 1;
	if (get_user(n, (u8 __user *)u64_to_user_ptr(batch->args.packets_uaddr) + i))
		return -EFAULT;
	return n && n <= batch->group.max && n <= batch->args.count - i ? n : -EINVAL;
}

/* Tell the caller that the packet that begins with page @i has @n pages. */
static int sev_batch_tell_pages(const struct sev_batch *batch, u32 i, u8 n)
{
	u8 packets[SEV_PACKET_PAGES] = { n };

	/* The entry of the first page gets @n, those of the packet's other pages get 0. */
	if ((batch->args.flags & KVM_SEV_UPDATE_BATCH_PACKETS) &&
	    copy_to_user(u64_to_user_ptr(batch->args.packets_uaddr) + i,
			 packets, n))
		return -EFAULT;
	return 0;
}

/*
 * Copy at most @n of the caller's packets, from page @i on, to the group.  Returns the
 * number of copied packets, and sets *@ret if the next packet could not be copied.
 */
static u32 sev_batch_read(struct sev_batch *batch, u32 i, u32 n, int *ret)
{
	const struct kvm_sev_update_batch *args = &batch->args;
	u32 k;

	for (k = 0; k < n && i < args->count; k++) {
		struct sev_packet *packet = &batch->group.packets[k];
		int npages = sev_batch_packet_pages(batch, i);

		if (npages < 0) {
			*ret = npages;
			break;
		}
		if (copy_from_user(packet->hdr, sev_batch_hdr(batch, i),
				   args->hdr_len) ||
		    copy_from_user(packet->trans, sev_batch_trans(batch, i),
				   npages << PAGE_SHIFT)) {
			*ret = -EFAULT;
			break;
		}
		packet->npages = npages;
		i += npages;
	}
	return k;
}

/* Copy a packet to the caller after it was sent.  The packet begins with page @i. */
static int sev_batch_write(struct sev_batch *batch, u32 i,
			   const struct sev_packet *packet)
{
	if (copy_to_user(sev_batch_hdr(batch, i), packet->hdr,
			 batch->args.hdr_len) ||
	    copy_to_user(sev_batch_trans(batch, i), packet->trans,
			 packet->npages << PAGE_SHIFT))
		return -EFAULT;
	return sev_batch_tell_pages(batch, i, packet->npages);
}

/*
 * Send or receive the next packets.  Even after an error, add the number of
 * pages that are done to *@done.
 */
static int sev_batch_packets(struct sev_batch *batch, u32 *done, int *error)
{
	const struct kvm_sev_update_batch *args = &batch->args;
	struct sev_group *group = &batch->group;
	unsigned long uaddr = args->guest_uaddr + ((u64)*done << PAGE_SHIFT);
	u32 n, issued, npages = args->count - *done;
	int r, unread = 0;

	n = sev_group_packets(group, npages);
	if (!n)
		return -ENOMEM;
	if (!batch->send) {
		n = sev_batch_read(batch, *done, n, &unread);
		if (!n)
			return unread;
	}

	issued = sev_group_issue(group, uaddr, n, npages, &r, error);
	for (u32 k = 0; k < issued; k++) {
		const struct sev_packet *packet = &group->packets[k];

		if (batch->send && sev_batch_write(batch, *done, packet))
			return -EFAULT;
		*done += packet->npages;
	}

	/*
	 * The packet that sev_batch_read() could not copy comes after the @n
	 * packets.  Return its error only if all @n packets are done.
	 */
	return r || issued < n ? r : unread;
}

static int sev_batch_pages(struct sev_batch *batch, u32 *done, int *error)
{
	const struct kvm_sev_update_batch *args = &batch->args;
	int r;

	if (!args->count)
		return 0;

	r = sev_group_init(&batch->group, batch->kvm, batch->send, args->hdr_len,
			   args->flags & KVM_SEV_UPDATE_BATCH_PACKETS ?
			   SEV_PACKET_PAGES : 1);

	while (!r && *done < args->count) {
		if (signal_pending(current)) {
			r = -EINTR;
			break;
		}
		r = sev_batch_packets(batch, done, error);
		cond_resched();
	}

	sev_group_destroy(&batch->group);
	return r;
}

/**
 * sev_update_batch - handle KVM_SEV_SEND_UPDATE_BATCH and KVM_SEV_RECEIVE_UPDATE_BATCH
 * @kvm: the VM
 * @argp: struct kvm_sev_cmd of the caller, for the firmware's error
 * @cmd: copy of @argp
 *
 * The caller does not hold kvm->lock.
 *
 * Return: 0 if all pages are done, otherwise the error of the first page that was not
 * sent or received.
 */
int sev_update_batch(struct kvm *kvm, void __user *argp,
		     struct kvm_sev_cmd *cmd)
{
	struct kvm_sev_update_batch __user *uargs = u64_to_user_ptr(cmd->data);
	struct sev_batch batch = {
		.kvm = kvm,
		.send = cmd->id == KVM_SEV_SEND_UPDATE_BATCH,
	};
	u32 done = 0;
	int r;

	if (mutex_lock_killable(&kvm->lock))
		return -EINTR;
	r = sev_batch_check_vm(kvm);
	mutex_unlock(&kvm->lock);
	if (r)
		return r;

	if (copy_from_user(&batch.args, uargs, sizeof(batch.args)))
		return -EFAULT;
	r = sev_batch_check_args(kvm, &batch.args);
	if (r)
		return r;

	cmd->error = 0;
	r = sev_batch_pages(&batch, &done, &cmd->error);

	if (put_user(done, &uargs->done) || copy_to_user(argp, cmd, sizeof(*cmd)))
		return -EFAULT;
	return r;
}
