// SPDX-License-Identifier: GPL-2.0
/*
 * This module lets xa_store_range() in kvm_gmem_rebind() fail after half of its
 * range.  kvm_gmem_rebind() has an error path for this case, which needs a
 * test.  A lack of memory cannot cause the error, because the entries that the
 * store overwrites exist.
 *
 * Only calls by a process named l1-fail-rebind fail, and only while the
 * parameter "left" is not 0.  Each failure decrements it.
 *
 * The module uses a kretprobe, which changes the arguments and the result of
 * the function.  A kprobe whose handler returns to the caller of the function
 * would stop working soon after its registration, when the kernel optimizes it
 * to a jump (CONFIG_OPTPROBES).
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
		return 1;	/* do not change this call */
	left--;
	regs->dx = regs->si + (regs->dx - regs->si) / 2;
	return 0;
}
NOKPROBE_SYMBOL(store_entered);

static int store_returned(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	/* xas_result() returns this value for -ENOMEM */
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
