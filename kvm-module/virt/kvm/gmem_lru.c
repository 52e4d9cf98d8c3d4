// SPDX-License-Identifier: GPL-2.0
/*
 * Drain LRU batches.
 *
 * A page that was just allocated is in an LRU batch of its CPU, and the batch has a
 * reference to it.  A conversion cannot distinguish this reference from that of a user
 * of the page.  lru_add_drain_all() would drop the references, but modules cannot call
 * it.  Modules can call __folio_batch_release(), which first drains the batches of the
 * CPU on which it runs.  A conversion therefore queues a work item on each CPU
 * that it wants to drain, and waits for these work items.
 *
 * A CPU that is busy with a real-time task may run its work item late or never.
 * A conversion therefore first drains only the CPUs that have allocated pages
 * of its file.  It drains all CPUs only if it still finds a reference
 * afterwards.  A conversion does not wait for a CPU that is already late with
 * an earlier work item.  It waits for the other CPUs at most
 * GMEM_DRAIN_TIMEOUT, and a fatal signal ends the wait.
 */
#include <linux/cpu.h>
#include <linux/folio_batch.h>
#include <linux/jiffies.h>
#include <linux/kvm_host.h>
#include <linux/percpu.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "gmem_attributes.h"

/* Enough for every CPU that is not busy with a real-time task */
#define GMEM_DRAIN_TIMEOUT	msecs_to_jiffies(200)

/**
 * struct gmem_drain - drains of one CPU
 * @work: the next drain, if it is pending
 * @asked: jiffies when @work was queued
 * @began: number of drains that have begun
 * @done: number of drains that have ended
 */
struct gmem_drain {
	struct work_struct work;
	unsigned long asked;
	unsigned long began;
	unsigned long done;
};

/* A CPU has one LRU batch for all VMs and files, so each CPU has one drain. */
static DEFINE_PER_CPU(struct gmem_drain, gmem_drains);
static DECLARE_WAIT_QUEUE_HEAD(gmem_drain_wait);

static void gmem_drain_cpu(struct work_struct *work)
{
	struct gmem_drain *drain = container_of(work, struct gmem_drain, work);
	struct folio *folio = page_folio(ZERO_PAGE(0));
	unsigned long began = drain->began + 1;
	struct folio_batch batch;

	/*
	 * gmem_drain_queue() reads drain->began and makes its caller wait for
	 * the drain with the next number.  If gmem_drain_queue() reads the
	 * value from before this store, the next number is that of this drain.
	 * This drain is sufficient for the caller, because the code below
	 * drains all pages that were in the batch when gmem_drain_queue() read
	 * drain->began.  No barrier is needed between this store and the code
	 * below, because only this CPU adds pages to its batch.
	 */
	WRITE_ONCE(drain->began, began);

	/* __folio_batch_release() needs a folio to release.  Any folio will do. */
	folio_batch_init(&batch);
	folio_get(folio);
	folio_batch_add(&batch, folio);
	__folio_batch_release(&batch);

	/* Pairs with gmem_drained(): references are dropped before @done changes. */
	smp_store_release(&drain->done, began);
	wake_up_all(&gmem_drain_wait);
}

/* Has each CPU in @cpus finished the drain whose number is in @until? */
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
 * Queue a drain on @cpu, and set *@until to its number.  Returns false if the
 * caller should not wait for it, because an earlier drain is overdue.
 */
static bool gmem_drain_queue(unsigned int cpu, unsigned long *until)
{
	struct gmem_drain *drain = per_cpu_ptr(&gmem_drains, cpu);

	/*
	 * Any drain that begins after this read of the number is sufficient,
	 * even if another task queued it.
	 */
	*until = READ_ONCE(drain->began) + 1;
	/*
	 * If queue_work_on() queues the work, it is a full barrier, so the read
	 * above comes before the drain increments drain->began.
	 */
	if (queue_work_on(cpu, system_percpu_wq, &drain->work)) {
		WRITE_ONCE(drain->asked, jiffies);
		return true;
	}
	return time_before(jiffies, READ_ONCE(drain->asked) + GMEM_DRAIN_TIMEOUT);
}

/**
 * kvm_gmem_drain_lru - drop the references that LRU batches hold
 * @attributes: attributes of the guest_memfd with the pages
 * @all: drain all CPUs, and not only those that have allocated pages of the file
 *
 * Sleeps for at most GMEM_DRAIN_TIMEOUT.  A CPU that is late drains its batches
 * later.  The caller holds no lock: this function takes cpus_read_lock(), and
 * code that holds cpus_read_lock() can wait for the locks of a VM.
 *
 * Return: 0, or -EINTR if a fatal signal is pending.
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
		/*
		 * Clear the bit before the drain is queued.  A CPU that
		 * allocates another page of the file after that sets its bit
		 * again, so a later call drains this CPU, too.
		 */
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

/* Called when the module is loaded */
void kvm_gmem_lru_init(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		INIT_WORK(per_cpu_ptr(&gmem_drains.work, cpu), gmem_drain_cpu);
}

/* Called when the module is unloaded.  Cancels drains that are still queued. */
void kvm_gmem_lru_exit(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		cancel_work_sync(per_cpu_ptr(&gmem_drains.work, cpu));
}
