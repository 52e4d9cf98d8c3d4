/* SPDX-License-Identifier: GPL-2.0 */
/* Groups of packets for the SEV firmware */
#ifndef __SVM_SEV_GROUP_H
#define __SVM_SEV_GROUP_H

#include <linux/kvm-page-enc.h>
#include <linux/kvm_host.h>
#include <linux/psp-sev-ring.h>

/*
 * The firmware that AMD has published (AMD-ASPFW) accepts up to 20 KiB per command.
 * The buffer of a packet comes from the page allocator, which allocates powers of two,
 * and 16 KiB is the largest power of two below 20 KiB.
 */
#define SEV_PACKET_PAGES	KVM_SEV_UPDATE_BATCH_PACKET_MAX

/**
 * struct sev_packet - packet of one command
 * @hdr: buffer for its header
 * @trans: buffer for its data
 * @npages: number of pages
 * @pages: pages of the guest, pinned while the command is issued
 * @ordinary: the pages do not belong to a guest_memfd
 */
struct sev_packet {
	void *hdr;
	void *trans;
	u32 npages;
	struct page *pages[SEV_PACKET_PAGES];
	bool ordinary;
};

struct sev_group_cmd;

/**
 * struct sev_group - packets and the arguments of their commands
 * @kvm: an SEV VM
 * @send: true: send guest memory; false: receive it
 * @hdr_len: size of a header, in bytes
 * @max: maximum number of pages in a packet: 1 or SEV_PACKET_PAGES
 * @order: order of a packet's data buffer
 * @room: number of @packets that have buffers
 * @packets: packets in the order of the guest's memory
 * @cmds: arguments of the commands
 * @issue: sev_issue_cmds_external_user(), or NULL
 */
struct sev_group {
	struct kvm *kvm;
	bool send;
	u32 hdr_len;
	u32 max;
	unsigned int order;
	u32 room;
	struct sev_packet *packets;
	struct sev_group_cmd *cmds;
	typeof(sev_issue_cmds_external_user) *issue;
};

/* arch/x86/kvm/svm/sev_group.c */
int sev_group_init(struct sev_group *group, struct kvm *kvm, bool send,
		   u32 hdr_len, u32 max);
void sev_group_destroy(struct sev_group *group);
u32 sev_group_packets(struct sev_group *group, u32 npages);
u32 sev_group_issue(struct sev_group *group, unsigned long uaddr, u32 n,
		    u32 npages, int *ret, int *error);

#endif /* __SVM_SEV_GROUP_H */
