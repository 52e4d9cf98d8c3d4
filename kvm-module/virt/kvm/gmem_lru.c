// SPDX-License-Identifier: GPL-2.0
/*
 * Pages on their way to the LRU lists.
 *
 * A page that was just allocated waits in a batch of its CPU, which holds a
 * reference to it: to a conversion it looks as if somebody used the page.
 * lru_add_drain_all() would end that, but modules cannot call it.
 * __folio_batch_release() can be called, and empties the batches of the CPU
 * that it runs on before anything else.
 */
#include <linux/cpu.h>
#include <linux/kvm_host.h>
#include <linux/mutex.h>
#include <linux/folio_batch.h>
#include <linux/percpu.h>
#include <linux/workqueue.h>

static DEFINE_MUTEX(gmem_drain_mutex);
static DEFINE_PER_CPU(struct work_struct, gmem_drain_work);

static void gmem_drain_cpu(struct work_struct *work)
{
	struct folio *folio = page_folio(ZERO_PAGE(0));
	struct folio_batch batch;

	/* It wants a folio to release, any will do. */
	folio_batch_init(&batch);
	folio_get(folio);
	folio_batch_add(&batch, folio);
	__folio_batch_release(&batch);
}

/**
 * kvm_gmem_drain_lru - drop the references that LRU batches of all CPUs hold
 *
 * Sleeps.  No lock is needed.
 */
void kvm_gmem_drain_lru(void)
{
	int cpu;

	mutex_lock(&gmem_drain_mutex);
	cpus_read_lock();
	for_each_online_cpu(cpu) {
		struct work_struct *work = per_cpu_ptr(&gmem_drain_work, cpu);

		INIT_WORK(work, gmem_drain_cpu);
		queue_work_on(cpu, system_percpu_wq, work);
	}
	for_each_online_cpu(cpu)
		flush_work(per_cpu_ptr(&gmem_drain_work, cpu));
	cpus_read_unlock();
	mutex_unlock(&gmem_drain_mutex);
}
