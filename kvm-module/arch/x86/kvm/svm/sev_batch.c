// SPDX-License-Identifier: GPL-2.0
/*
 * SEND_UPDATE_DATA and RECEIVE_UPDATE_DATA for many pages in one call.
 *
 * The firmware takes milliseconds for a command, of which the pages are the
 * least part, so a command takes as many as it may.  The firmware knows physical
 * addresses only: they are pages that follow each other in memory, at the
 * receiver as well, since a packet cannot be split.
 *
 * What a batch saves besides is the way to the kernel and back, buffers, and the
 * copy of arguments.  What it must not do is to keep others from the VM for as
 * long as it takes.  So kvm->lock, which vCPUs' and memory ioctls want, is held
 * for a command at a time, and not while user memory is copied; a page is pinned
 * for its own command only, so that conversions of the others go on; and what
 * the VM is, is asked again for each.
 */
#include <linux/kvm_host.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/psp.h>
#include <linux/psp-sev.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "svm.h"
#include "sev_batch.h"

/**
 * struct sev_batch - what the pages of one call have in common
 * @kvm: an SEV VM
 * @send: from guest memory, otherwise to it
 * @args: of the caller
 * @max: pages of a packet, at most: 1 or SEV_PACKET_PAGES
 * @hdr: buffer for a packet's header, @args.hdr_len bytes
 * @trans: buffer for a packet, @max pages
 */
struct sev_batch {
	struct kvm *kvm;
	bool send;
	struct kvm_sev_update_batch args;
	u32 max;
	void *hdr;
	void *trans;
};

/*
 * The firmware that AMD has published (AMD-ASPFW) takes 20 KiB in one command;
 * 16 is what can be allocated.
 */
#define SEV_PACKET_PAGES	KVM_GMEM_BLOCK
static_assert(SEV_PACKET_PAGES == KVM_SEV_UPDATE_BATCH_PACKET_MAX);

/* May the VM be sent or received, as far as KVM can tell? */
static int sev_batch_check_vm(struct kvm *kvm)
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

	/* Of other memory nobody can say that its pages follow each other. */
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

/*
 * One command of the firmware, between guest memory and the buffers: all of
 * @npages to receive, as many as follow each other to send.  Returns how many.
 */
static int sev_batch_issue(struct sev_batch *batch, unsigned long uaddr,
			   int npages, int *error)
{
	struct sev_data_send_update_data data = {
		.hdr_address = __psp_pa(batch->hdr),
		.hdr_len = batch->args.hdr_len,
		.trans_address = __psp_pa(batch->trans),
	};
	struct page *pages[SEV_PACKET_PAGES];
	struct kvm *kvm = batch->kvm;
	bool ordinary;
	int n, r;

	/* Both commands have the same argument. */
	BUILD_BUG_ON(sizeof(data) != sizeof(struct sev_data_receive_update_data));

	ACQUIRE(mutex_kill, lock)(&kvm->lock);
	if (ACQUIRE_ERR(mutex_kill, &lock))
		return -EINTR;

	r = sev_batch_check_vm(kvm);
	if (r)
		return r;

	/* From here on they can become shared, but then they are dirty, too. */
	n = kvm_gmem_pin_block(kvm, uaddr, npages, !batch->send, pages);
	ordinary = n == -ENOENT;
	if (ordinary) {
		if (!batch->send && npages > 1)
			return -EOPNOTSUPP;
		pages[0] = sev_pin_page(kvm, uaddr, batch->send ? 0 : FOLL_WRITE);
		n = IS_ERR(pages[0]) ? PTR_ERR(pages[0]) : 1;
	}
	if (n < 0)
		return n;

	/* What the firmware writes must not be overwritten from a cache. */
	if (!batch->send)
		sev_clflush_pages(pages, n);

	data.handle = to_kvm_sev_info(kvm)->handle;
	data.guest_address = page_to_phys(pages[0]) | sev_me_mask;
	data.guest_len = n << PAGE_SHIFT;
	data.trans_len = data.guest_len;
	r = sev_issue_cmd(kvm, batch->send ? SEV_CMD_SEND_UPDATE_DATA :
					     SEV_CMD_RECEIVE_UPDATE_DATA,
			  &data, error);

	if (ordinary)
		sev_unpin_page(kvm, pages[0]);
	else
		unpin_user_pages(pages, n);
	return r ?: n;
}

/* How many pages the packet has that begins with page @i, as the caller says */
static int sev_batch_packet_pages(const struct sev_batch *batch, u32 i)
{
	u8 n;

	if (batch->max == 1)
		return 1;
	if (get_user(n, (u8 __user *)u64_to_user_ptr(batch->args.packets_uaddr) + i))
		return -EFAULT;
	return n && n <= batch->max && n <= batch->args.count - i ? n : -EINVAL;
}

static int sev_batch_tell_pages(const struct sev_batch *batch, u32 i, u8 n)
{
	u8 packets[SEV_PACKET_PAGES] = { n };

	/* Those within a packet begin none */
	if ((batch->args.flags & KVM_SEV_UPDATE_BATCH_PACKETS) &&
	    copy_to_user(u64_to_user_ptr(batch->args.packets_uaddr) + i,
			 packets, n))
		return -EFAULT;
	return 0;
}

/* The packet that begins with page @i.  Returns how many pages it has. */
static int sev_batch_packet(struct sev_batch *batch, u32 i, int *error)
{
	const struct kvm_sev_update_batch *args = &batch->args;
	void __user *trans = u64_to_user_ptr(args->trans_uaddr +
					     ((u64)i << PAGE_SHIFT));
	void __user *hdr = u64_to_user_ptr(args->hdr_uaddr +
					   (u64)i * args->hdr_len);
	unsigned long uaddr = args->guest_uaddr + ((u64)i << PAGE_SHIFT);
	int n, r;

	if (batch->send) {
		n = min(batch->max, args->count - i);
	} else {
		n = sev_batch_packet_pages(batch, i);
		if (n < 0)
			return n;
		if (copy_from_user(batch->hdr, hdr, args->hdr_len) ||
		    copy_from_user(batch->trans, trans, n << PAGE_SHIFT))
			return -EFAULT;
	}

	r = sev_batch_issue(batch, uaddr, n, error);
	if (r == -EIO && *error == SEV_RET_INVALID_LEN && batch->send && n > 1) {
		/* Another firmware may take less, but a page it always did */
		batch->max = 1;
		*error = 0;
		r = sev_batch_issue(batch, uaddr, 1, error);
	}
	if (r < 0)
		return r;

	if (batch->send && (copy_to_user(hdr, batch->hdr, args->hdr_len) ||
			    copy_to_user(trans, batch->trans, r << PAGE_SHIFT) ||
			    sev_batch_tell_pages(batch, i, r)))
		return -EFAULT;
	return r;
}

static int sev_batch_pages(struct sev_batch *batch, u32 *done, int *error)
{
	unsigned int order;
	int r;

	if (!batch->args.count)
		return 0;

	batch->max = batch->args.flags & KVM_SEV_UPDATE_BATCH_PACKETS ?
		     SEV_PACKET_PAGES : 1;
	order = ilog2(batch->max);
	/* Zeroed: a firmware that writes less must not give memory away. */
	batch->hdr = kzalloc(batch->args.hdr_len, GFP_KERNEL_ACCOUNT);
	batch->trans = (void *)__get_free_pages(GFP_KERNEL_ACCOUNT | __GFP_ZERO,
						order);
	r = batch->hdr && batch->trans ? 0 : -ENOMEM;

	while (r >= 0 && *done < batch->args.count) {
		if (signal_pending(current)) {
			r = -EINTR;
			break;
		}
		r = sev_batch_packet(batch, *done, error);
		if (r > 0)
			*done += r;
		cond_resched();
	}

	free_pages((unsigned long)batch->trans, order);
	kfree(batch->hdr);
	return min(r, 0);
}

/**
 * sev_update_batch - KVM_SEV_SEND_UPDATE_BATCH, KVM_SEV_RECEIVE_UPDATE_BATCH
 * @kvm: the VM
 * @argp: struct kvm_sev_cmd of the caller, for the firmware's error
 * @cmd: copy of it
 *
 * The caller does not hold kvm->lock.
 *
 * Return: 0 if all pages are done, otherwise the error of the first that is not.
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
