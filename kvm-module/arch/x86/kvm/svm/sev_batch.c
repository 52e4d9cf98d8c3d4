// SPDX-License-Identifier: GPL-2.0
/*
 * SEND_UPDATE_DATA and RECEIVE_UPDATE_DATA for many pages in one call.
 *
 * The firmware takes one page a command and milliseconds for it.  What a batch
 * saves is the way to the kernel and back, buffers, and the copy of arguments,
 * for each; what it must not do is to keep others from the VM for as long as it
 * takes.  So kvm->lock, which vCPUs' and memory ioctls want, is held for a page
 * at a time, and not while user memory is copied; a page is pinned for its own
 * command only, so that conversions of the others go on; and what the VM is, is
 * asked again for each.
 */
#include <linux/kvm_host.h>
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
 * @hdr: buffer for a packet's header, @args.hdr_len bytes
 * @trans: buffer for a packet, a page
 */
struct sev_batch {
	struct kvm *kvm;
	bool send;
	struct kvm_sev_update_batch args;
	void *hdr;
	void *trans;
};

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

static int sev_batch_check_args(const struct kvm_sev_update_batch *args)
{
	u64 end;

	if (args->flags || memchr_inv(args->reserved, 0, sizeof(args->reserved)))
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
		       (u64)args->count << PAGE_SHIFT))
		return -EFAULT;
	return 0;
}

/* One command of the firmware, between guest memory and the buffers */
static int sev_batch_issue(struct sev_batch *batch, unsigned long uaddr,
			   int *error)
{
	struct sev_data_send_update_data data = {
		.hdr_address = __psp_pa(batch->hdr),
		.hdr_len = batch->args.hdr_len,
		.guest_len = PAGE_SIZE,
		.trans_address = __psp_pa(batch->trans),
		.trans_len = PAGE_SIZE,
	};
	struct kvm *kvm = batch->kvm;
	struct page *page;
	int r;

	/* Both commands have the same argument. */
	BUILD_BUG_ON(sizeof(data) != sizeof(struct sev_data_receive_update_data));

	ACQUIRE(mutex_kill, lock)(&kvm->lock);
	if (ACQUIRE_ERR(mutex_kill, &lock))
		return -EINTR;

	r = sev_batch_check_vm(kvm);
	if (r)
		return r;

	page = sev_pin_page(kvm, uaddr, batch->send ? 0 : FOLL_WRITE);
	if (IS_ERR(page))
		return PTR_ERR(page);

	/* From here on it can become shared, but then it is dirty, too. */
	if (kvm_gmem_uaddr_is_shared(kvm, uaddr)) {
		r = -EAGAIN;
		goto unpin;
	}

	/* What the firmware writes must not be overwritten from a cache. */
	if (!batch->send)
		sev_clflush_pages(&page, 1);

	data.handle = to_kvm_sev_info(kvm)->handle;
	data.guest_address = page_to_phys(page) | sev_me_mask;
	r = sev_issue_cmd(kvm, batch->send ? SEV_CMD_SEND_UPDATE_DATA :
					     SEV_CMD_RECEIVE_UPDATE_DATA,
			  &data, error);
unpin:
	sev_unpin_page(kvm, page);
	return r;
}

static int sev_batch_page(struct sev_batch *batch, u32 i, int *error)
{
	const struct kvm_sev_update_batch *args = &batch->args;
	void __user *trans = u64_to_user_ptr(args->trans_uaddr +
					     ((u64)i << PAGE_SHIFT));
	void __user *hdr = u64_to_user_ptr(args->hdr_uaddr +
					   (u64)i * args->hdr_len);
	unsigned long uaddr = args->guest_uaddr + ((u64)i << PAGE_SHIFT);
	int r;

	if (!batch->send && (copy_from_user(batch->hdr, hdr, args->hdr_len) ||
			     copy_from_user(batch->trans, trans, PAGE_SIZE)))
		return -EFAULT;

	r = sev_batch_issue(batch, uaddr, error);
	if (r)
		return r;

	if (batch->send && (copy_to_user(hdr, batch->hdr, args->hdr_len) ||
			    copy_to_user(trans, batch->trans, PAGE_SIZE)))
		return -EFAULT;
	return 0;
}

static int sev_batch_pages(struct sev_batch *batch, u32 *done, int *error)
{
	int r;

	if (!batch->args.count)
		return 0;

	/* Zeroed: a firmware that writes less must not give memory away. */
	batch->hdr = kzalloc(batch->args.hdr_len, GFP_KERNEL_ACCOUNT);
	batch->trans = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	r = batch->hdr && batch->trans ? 0 : -ENOMEM;

	while (!r && *done < batch->args.count) {
		if (signal_pending(current)) {
			r = -EINTR;
			break;
		}
		r = sev_batch_page(batch, *done, error);
		if (!r)
			++*done;
		cond_resched();
	}

	free_page((unsigned long)batch->trans);
	kfree(batch->hdr);
	return r;
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
	r = sev_batch_check_args(&batch.args);
	if (r)
		return r;

	cmd->error = 0;
	r = sev_batch_pages(&batch, &done, &cmd->error);

	if (put_user(done, &uargs->done) || copy_to_user(argp, cmd, sizeof(*cmd)))
		return -EFAULT;
	return r;
}
