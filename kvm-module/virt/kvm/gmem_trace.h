/* SPDX-License-Identifier: GPL-2.0-only */
/* Trace events of guest_memfds that keep attributes: kvm_gmem:* */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvm_gmem

#if !defined(_KVM_GMEM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _KVM_GMEM_TRACE_H

#include <linux/tracepoint.h>

/* A KVM_SET_MEMORY_ATTRIBUTES2 call ended.  @held is valid only if @ret is -EAGAIN (-11). */
TRACE_EVENT(kvm_gmem_convert,
	TP_PROTO(unsigned long ino, pgoff_t start, pgoff_t end, bool private,
		 int ret, pgoff_t held),
	TP_ARGS(ino, start, end, private, ret, held),

	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(pgoff_t, start)
		__field(pgoff_t, end)
		__field(bool, private)
		__field(int, ret)
		__field(pgoff_t, held)
	),

	TP_fast_assign(
		__entry->ino = ino;
		__entry->start = start;
		__entry->end = end;
		__entry->private = private;
		__entry->ret = ret;
		__entry->held = ret == -EAGAIN ? held : 0;
	),

	TP_printk("ino %lu pages [%#lx, %#lx) to %s: ret %d held %#lx",
		  __entry->ino, __entry->start, __entry->end,
		  __entry->private ? "private" : "shared", __entry->ret,
		  __entry->held)
);

/* Contiguous pages were pinned.  @replaced: the old pages were replaced first. */
TRACE_EVENT(kvm_gmem_pin_block,
	TP_PROTO(unsigned long ino, pgoff_t index, int npages, bool replaced,
		 int ret),
	TP_ARGS(ino, index, npages, replaced, ret),

	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(pgoff_t, index)
		__field(int, npages)
		__field(bool, replaced)
		__field(int, ret)
	),

	TP_fast_assign(
		__entry->ino = ino;
		__entry->index = index;
		__entry->npages = npages;
		__entry->replaced = replaced;
		__entry->ret = ret;
	),

	TP_printk("ino %lu page %#lx: %d wanted, ret %d%s", __entry->ino,
		  __entry->index, __entry->npages, __entry->ret,
		  __entry->replaced ? ", replaced" : "")
);

#endif /* _KVM_GMEM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE gmem_trace

/* This part must be outside protection */
#include <trace/define_trace.h>
