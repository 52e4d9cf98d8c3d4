// SPDX-License-Identifier: GPL-2.0
/*
 * This module provokes an error that a debug kernel must report.  A test of
 * tests/debug/kernel-log uses it.  The parameter "what" selects the error:
 * warning, use-after-free, leak, lock, sleep or race.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

static char *what = "";
module_param(what, charp, 0444);

static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);
static DEFINE_SPINLOCK(spin);
static long shared;

static void provoke_use_after_free(void)
{
	char *p = kmalloc(64, GFP_KERNEL);

	kfree(p);
	OPTIMIZER_HIDE_VAR(p);
	pr_info("%d\n", READ_ONCE(*p));
}

static void provoke_leak(void)
{
	char *p = kmalloc(4000, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
	p = NULL;
	OPTIMIZER_HIDE_VAR(p);
}

static void provoke_lock(void)
{
	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);
	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

static void provoke_sleep(void)
{
	spin_lock(&spin);
	msleep(20);
	spin_unlock(&spin);
}

static int provoke_writer(void *unused)
{
	while (!kthread_should_stop()) {
		shared++;
		cond_resched();
	}
	return 0;
}

static noinline void provoke_race(void)
{
	struct task_struct *writer = kthread_run(provoke_writer, NULL, "provoke");
	unsigned long end = jiffies + 5 * HZ;

	if (IS_ERR(writer))
		return;
	while (time_before(jiffies, end)) {
		shared++;
		barrier();	/* keep the compiler from merging the additions */
		cond_resched();
	}
	kthread_stop(writer);
}

static int __init provoke_init(void)
{
	WARN(!strcmp(what, "warning"), "provoked");
	if (!strcmp(what, "use-after-free"))
		provoke_use_after_free();
	if (!strcmp(what, "leak"))
		provoke_leak();
	if (!strcmp(what, "lock"))
		provoke_lock();
	if (!strcmp(what, "sleep"))
		provoke_sleep();
	if (!strcmp(what, "race"))
		provoke_race();
	return 0;
}

static void __exit provoke_exit(void)
{
}

module_init(provoke_init);
module_exit(provoke_exit);
MODULE_DESCRIPTION("Errors on purpose");
MODULE_LICENSE("GPL");
