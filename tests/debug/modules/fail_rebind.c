// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the store of kvm_gmem_rebind() fail halfway, which memory that runs out
 * cannot: the entries that it overwrites are there.  Who reads the code does not
 * know that for sure, so what follows a failure has to work.
 *
 * Only for a process named l1-fail-rebind.  left counts down to 0, then nothing
 * fails any more.
 *
 * A kretprobe, which changes arguments and result only.  A kprobe that returns
 * to the caller by itself would do nothing once the kernel has made a jump of it
 * (CONFIG_OPTPROBES), a moment after it was registered.
 */
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/xarray.h>

static int left;
module_param(left, int, 0644);

/* void *xa_store_range(xa, first, last, entry, gfp) */
static int store_entered(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	if (strcmp(current->comm, "l1-fail-rebind") || left <= 0)
		return 1;	/* not this one */
	left--;
	regs->dx = regs->si + (regs->dx - regs->si) / 2;
	return 0;
}
NOKPROBE_SYMBOL(store_entered);

static int store_returned(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	/* What xas_result() makes of -ENOMEM */
	regs_set_return_value(regs, (unsigned long)xa_mk_internal(-ENOMEM));
	return 0;
}
NOKPROBE_SYMBOL(store_returned);

static struct kretprobe store = {
	.kp.symbol_name = "xa_store_range",
	.entry_handler = store_entered,
	.handler = store_returned,
	.maxactive = 16,
};

static int __init fail_rebind_init(void)
{
	return register_kretprobe(&store);
}

static void __exit fail_rebind_exit(void)
{
	unregister_kretprobe(&store);
}

module_init(fail_rebind_init);
module_exit(fail_rebind_exit);
MODULE_DESCRIPTION("The store of kvm_gmem_rebind() fails");
MODULE_LICENSE("GPL");
