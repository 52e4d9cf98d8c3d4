// SPDX-License-Identifier: GPL-2.0
/*
 * Makes kvm_gmem_rebind() fail, which memory that runs out cannot: the entries
 * that it overwrites are there.  Who reads the code does not know that for
 * sure, so what follows a failure has to work.
 *
 * fail=1: the call itself fails.  fail=2: the store in it does, after which it
 * undoes what it did.  Only for a process named l1-fail-rebind; left counts
 * down to 0, then nothing fails any more.
 */
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/xarray.h>

static int fail;
module_param(fail, int, 0644);
static int left;
module_param(left, int, 0644);
static bool inside;

static bool mine(void)
{
	return !strcmp(current->comm, "l1-fail-rebind");
}

/* Go back to the caller with @value */
static int return_now(struct pt_regs *regs, unsigned long value)
{
	regs->ip = *(unsigned long *)regs->sp;
	regs->sp += sizeof(long);
	regs->ax = value;
	return 1;
}

static int rebind_entered(struct kprobe *p, struct pt_regs *regs)
{
	if (!mine() || left <= 0)
		return 0;
	if (fail == 2) {
		inside = true;
		return 0;
	}
	left--;
	return return_now(regs, (unsigned long)-ENOMEM);
}
NOKPROBE_SYMBOL(rebind_entered);

static int store_entered(struct kprobe *p, struct pt_regs *regs)
{
	if (!inside || !mine())
		return 0;
	inside = false;
	left--;
	/* What xas_result() makes of -ENOMEM */
	return return_now(regs, (unsigned long)xa_mk_internal(-ENOMEM) & ~0UL);
}
NOKPROBE_SYMBOL(store_entered);

static struct kprobe rebind = {
	.symbol_name = "kvm_gmem_rebind",
	.pre_handler = rebind_entered,
};

static struct kprobe store = {
	.symbol_name = "xa_store_range",
	.pre_handler = store_entered,
};

static int __init fail_rebind_init(void)
{
	int r = register_kprobe(&rebind);

	if (r)
		return r;
	r = register_kprobe(&store);
	if (r)
		unregister_kprobe(&rebind);
	return r;
}

static void __exit fail_rebind_exit(void)
{
	unregister_kprobe(&store);
	unregister_kprobe(&rebind);
}

module_init(fail_rebind_init);
module_exit(fail_rebind_exit);
MODULE_DESCRIPTION("kvm_gmem_rebind() fails");
MODULE_LICENSE("GPL");
