// SPDX-License-Identifier: GPL-2.0
/*
 * Pages on their way to the LRU lists.
 *
 * A page that was just allocated waits in a batch of its CPU, which holds a
 * reference to it: to a conversion it looks as if somebody used the page.
 * lru_add_drain_all() would end that, but modules cannot call it.
 * __folio_batch_release() can be called, and empties the batches of the CPU
 * that it runs on before anything else.
 *
 * The work that calls it may not run for a long time, or ever: a CPU can be
 * busy with a real-time task.  So a conversion asks only the CPUs which have
 * given pages to its file, does not wait for the work of others, stops waiting
 * after a while, and can be killed while it waits.
 */
#include <linux/cpu.h>
#include <linux/folio_batch.h>
#include <linux/jiffies.h>
#include <linux/kvm_host.h>
#include <linux/percpu.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "gmem_attributes.h"

/* Ample for a CPU that is busy, unless it is busy with a real-time task */
#define GMEM_DRAIN_TIMEOUT	msecs_to_jiffies(200)

/**
 * struct gmem_drain - drains of one CPU
 * @work: the next one, if it is pending
 * @asked: jiffies when it was queued
 * @began: how many have begun
 * @done: how many of those have ended
 */
struct gmem_drain {
	struct work_struct work;
	unsigned long asked;
	unsigned long began;
	unsigned long done;
};

/* LRU batches belong to CPUs, not to VMs or files, and so do their drains. */
static DEFINE_PER_CPU(struct gmem_drain, gmem_drains);
static DECLARE_WAIT_QUEUE_HEAD(gmem_drain_wait);

static void gmem_drain_cpu(struct work_struct *work)
{
	struct gmem_drain *drain = container_of(work, struct gmem_drain, work);
	struct folio *folio = page_folio(ZERO_PAGE(0));
	unsigned long began = drain->began + 1;
	struct folio_batch batch;

	/*
	 * A page that was in this CPU's batch before somebody read the old number
	 * is in it still.  Pages come into the batch on this CPU only, so that
	 * needs no barrier.
	 */
	WRITE_ONCE(drain->began, began);

	/* It wants a folio to release, any will do. */
	folio_batch_init(&batch);
	folio_get(folio);
	folio_batch_add(&batch, folio);
	__folio_batch_release(&batch);

	/* For gmem_drained(): the references are gone before it is done. */
	smp_store_release(&drain->done, began);
	wake_up_all(&gmem_drain_wait);
}

/* Are the drains over that were asked of @cpus, @until those numbers? */
static bool gmem_drained(const unsigned long *cpus, const unsigned long *until)
{
	unsigned int cpu;

	for_each_set_bit(cpu, cpus, nr_cpu_ids) {
		/* Pairs with the release in gmem_drain_cpu() */
		unsigned long done = smp_load_acquire(&per_cpu(gmem_drains, cpu).done);

		if ((long)(done - until[cpu]) < 0)
			return false;
	}
	return true;
}

/*
 * Have a drain begin on @cpu, the number of which becomes *@until.  Returns
 * whether it is worth waiting for: not if an earlier one is overdue.
 */
static bool gmem_drain_queue(unsigned int cpu, unsigned long *until)
{
	struct gmem_drain *drain = per_cpu_ptr(&gmem_drains, cpu);

	/* Any that begins after this will do, whoever has queued it. */
	*until = READ_ONCE(drain->began) + 1;
	/* A full barrier, if it is queued */
	if (queue_work_on(cpu, system_percpu_wq, &drain->work)) {
		WRITE_ONCE(drain->asked, jiffies);
		return true;
	}
	return time_before(jiffies, READ_ONCE(drain->asked) + GMEM_DRAIN_TIMEOUT);
}

/**
 * kvm_gmem_drain_lru - drop the references that LRU batches hold
 * @attributes: of the guest_memfd whose pages are meant
 * @all: on all CPUs, instead of those that are known to have had such pages
 *
 * Sleeps, for at most GMEM_DRAIN_TIMEOUT.  A CPU that has not got round to it by
 * then does it when it can.  The caller holds no lock: code that holds
 * cpus_read_lock() can want those of a VM.
 *
 * Return: 0, or -EINTR on the way to being killed.
 */
int kvm_gmem_drain_lru(struct gmem_attributes *attributes, bool all)
{
	unsigned long *cpus, *until;
	unsigned int cpu;
	long r = 0;

	cpus = bitmap_zalloc(nr_cpu_ids, GFP_KERNEL);
	until = kcalloc(nr_cpu_ids, sizeof(*until), GFP_KERNEL);
	if (!cpus || !until)
		goto free;

	cpus_read_lock();
	for_each_online_cpu(cpu) {
		/* A CPU that gets another page of the file is noted again. */
		if (!test_and_clear_bit(cpu, attributes->cpus) && !all)
			continue;
		if (gmem_drain_queue(cpu, &until[cpu]))
			__set_bit(cpu, cpus);
		else
			set_bit(cpu, attributes->cpus);
	}
	cpus_read_unlock();

	r = wait_event_killable_timeout(gmem_drain_wait, gmem_drained(cpus, until),
					GMEM_DRAIN_TIMEOUT);
	if (r <= 0) {
		for_each_set_bit(cpu, cpus, nr_cpu_ids)
			set_bit(cpu, attributes->cpus);
	}
free:
	kfree(until);
	bitmap_free(cpus);
	return r < 0 ? -EINTR : 0;
}

/* The module begins */
void kvm_gmem_lru_init(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		INIT_WORK(per_cpu_ptr(&gmem_drains.work, cpu), gmem_drain_cpu);
}

/* The module ends: no work that nobody waited for may be left */
void kvm_gmem_lru_exit(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		cancel_work_sync(per_cpu_ptr(&gmem_drains.work, cpu));
}
