/* SPDX-License-Identifier: GPL-2.0 */
/* SEND_UPDATE_DATA and RECEIVE_UPDATE_DATA for many pages in one call. */
#ifndef __SVM_SEV_BATCH_H
#define __SVM_SEV_BATCH_H

#include <linux/kvm-page-enc.h>
#include <linux/kvm_host.h>

/* arch/x86/kvm/svm/sev_batch.c */
static inline bool sev_is_batch(u32 id)
{
	return id == KVM_SEV_SEND_UPDATE_BATCH ||
	       id == KVM_SEV_RECEIVE_UPDATE_BATCH;
}

int sev_batch_check_vm(struct kvm *kvm);
int sev_update_batch(struct kvm *kvm, void __user *argp,
		     struct kvm_sev_cmd *cmd);

/*
 * arch/x86/kvm/svm/sev.c: the hook in that file makes these symbols non-static
 */
extern unsigned long sev_me_mask;
int sev_issue_cmd(struct kvm *kvm, int id, void *data, int *error);
struct page *sev_pin_page(struct kvm *kvm, unsigned long addr,
			  unsigned int flags);
void sev_unpin_page(struct kvm *kvm, struct page *page);
void sev_clflush_pages(struct page *pages[], unsigned long npages);

#endif /* __SVM_SEV_BATCH_H */
