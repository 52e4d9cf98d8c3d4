/*
 * Memory of a memory-backend-memfd that is a guest_memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU maps the same guest_memfd that contains the guest's RAM.  A page is
 * either shared or private, never both, and KVM converts it in place.  KVM
 * creates the file for one VM, so the VM must exist before the backend.  This
 * is the case, because QEMU creates the accelerator, and with it the VM, before
 * all memory backends.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "migration/blocker.h"
#include "migration/postcopy-ram.h"
#include "system/hostmem.h"
#include "system/hostmem-guest-memfd.h"
#include "system/kvm-page-enc.h"
#include "trace.h"

/* Refuse options that a memfd supports and a guest_memfd does not support */
static bool check_options(HostMemoryBackend *backend, bool hugetlb,
                          Error **errp)
{
    const char *option = NULL, *why = NULL;

    if (!QEMU_IS_ALIGNED(backend->size, qemu_real_host_page_size())) {
        error_setg(errp, "guest-memfd=on needs a size that is a multiple of "
                   "the host's page size");
        return false;
    }
    if (backend->guest_memfd) {
        error_setg(errp, "this confidential guest keeps its private pages in "
                   "guest_memfds of its own: use guest-memfd=off");
        return false;
    }
    if (!backend->share) {
        option = "share=off";
        why = "the guest and QEMU use the same pages";
    } else if (hugetlb) {
        option = "hugetlb=on";
        why = "a guest_memfd has no huge pages";
    } else if (backend->prealloc) {
        option = "prealloc=on";
        why = "the kernel allocates a page when the page is first used";
    } else if (!backend->reserve) {
        option = "reserve=off";
        why = "no swap space is ever reserved for a guest_memfd";
    }
    if (option) {
        error_setg(errp, "guest-memfd=on cannot be combined with %s: %s",
                   option, why);
        return false;
    }
    return true;
}

bool hostmem_guest_memfd_wanted(HostMemoryBackend *backend, OnOffAuto mode,
                                bool hugetlb)
{
    g_autoptr(Error) reason = NULL;

    if (mode == ON_OFF_AUTO_AUTO) {
        mode = check_options(backend, hugetlb, &reason) &&
               kvm_page_enc_prepare(&reason) ? ON_OFF_AUTO_ON : ON_OFF_AUTO_OFF;
        trace_hostmem_guest_memfd_auto(OnOffAuto_str(mode), reason ?
                                       error_get_pretty(reason) : "");
    }
    return mode == ON_OFF_AUTO_ON;
}

/*
 * Without this notifier, QEMU would refuse postcopy as well, but with the advice
 * to use another file system.
 */
static int refuse_postcopy(NotifierWithReturn *notifier, void *data,
                           Error **errp)
{
    struct PostcopyNotifyData *notify = data;
    RAMBlock *rb;

    if (notify->reason != POSTCOPY_NOTIFY_PROBE) {
        return 0;
    }
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (rb->flags & RAM_GUEST_MEMFD_IN_PLACE) {
            error_setg(errp, "memory region %s is a guest_memfd: migrate "
                       "without postcopy", rb->idstr);
            return -ENOTSUP;
        }
    }
    return 0;
}

static NotifierWithReturn postcopy_notifier = { .notify = refuse_postcopy };

bool hostmem_guest_memfd_alloc(HostMemoryBackend *backend, bool hugetlb,
                               Error **errp)
{
    g_autofree char *name = NULL;
    RAMBlock *rb;
    int fd;

    if (!check_options(backend, hugetlb, errp)) {
        return false;
    }
    fd = kvm_page_enc_create_memfd(backend->size, errp);
    if (fd < 0) {
        return false;
    }
    /*
     * The defaults of merge and dump come from -machine.  Turn both off,
     * because neither KSM nor a core dump can read private pages.
     */
    backend->merge = false;
    backend->dump = false;
    backend->aligned = true;
    name = host_memory_backend_get_name(backend);
    if (!memory_region_init_ram_from_fd(&backend->mr, OBJECT(backend), name,
                                        backend->size, RAM_SHARED |
                                        RAM_GUEST_MEMFD_IN_PLACE, fd, 0,
                                        errp)) {
        close(fd);
        return false;
    }
    rb = backend->mr.ram_block;
    if (!kvm_page_enc_init_block(rb, errp)) {
        return false;
    }

    if (!QLIST_IS_INSERTED(&postcopy_notifier, node)) {
        postcopy_add_notifier(&postcopy_notifier);
    }
    error_setg(&rb->cpr_blocker, "Memory region %s is a guest_memfd, which "
               "is not supported with CPR.", name);
    return migrate_add_blocker_modes(&rb->cpr_blocker, errp,
                                     MIG_MODE_CPR_TRANSFER, -1) >= 0;
}
