/*
 * Accesses by QEMU to private pages of a mapped guest_memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The kernel raises SIGBUS when QEMU touches a private page through the mapping
 * of a guest_memfd that is converted in place.  Any code that holds a pointer
 * into guest memory can do that: a monitor command, an emulated device, a dump
 * of registers and code.  Even code that means to access shared pages only can
 * do that, if the guest converts the page at the same time.
 *
 * A handler for SIGBUS maps a page of zeros in the place of the private one,
 * and the access goes on: reads give zeros, writes are lost.  When the page
 * becomes shared, QEMU maps the file there again.  Accesses to shared pages,
 * and accesses in machines without such a guest_memfd, cost nothing.  See
 * docs/devel/migration/private-access.rst.
 *
 * Locking: a spinlock in kvm-private-access.c protects the state.  The signal
 * handler takes it as well, so code that holds it must not access guest memory.
 */
#ifndef SYSTEM_KVM_PRIVATE_ACCESS_H
#define SYSTEM_KVM_PRIVATE_ACCESS_H

#include "qemu/queue.h"

/**
 * kvm_private_access_add: let QEMU survive its accesses to private pages of a
 * mapping
 * @host: address of the mapping, aligned to the host's page size
 * @size: bytes, a multiple of the host's page size
 * @fd: the guest_memfd, mapped from its offset 0 on with MAP_SHARED.  It stays
 *      open until kvm_private_access_remove().
 * @name: for messages
 *
 * The first call installs the signal handler.  Called by the main thread with
 * the BQL held.
 */
void kvm_private_access_add(void *host, size_t size, int fd, const char *name);

/**
 * kvm_private_access_remove: undo kvm_private_access_add()
 *
 * Called with the BQL held, before the memory is unmapped.
 */
void kvm_private_access_remove(void *host);

/**
 * kvm_private_access_restore: undo what the signal handler has done: map the
 * guest_memfd again in the place of the handler's pages of zeros
 * @host, @size: the range in which to do this; NULL, SIZE_MAX: in all memory
 *
 * Called after a conversion to shared.
 */
void kvm_private_access_restore(void *host, size_t size);

/**
 * kvm_private_access_poisoned: has an access found bad memory in a range?
 * @host, @size: the range, in bytes
 *
 * The signal handler also maps a page of zeros in the place of a page whose
 * memory is bad (a machine check).  A reader that must not take these zeros for
 * the page's contents calls this function after it has read the page.  Once the
 * result is true, it stays true until kvm_private_access_remove().
 *
 * Context: any thread.
 */
bool kvm_private_access_poisoned(const void *host, size_t size);

/**
 * KvmPrivateAccessHold: a range in which the signal handler does not replace
 * private pages by pages of zeros
 */
typedef struct KvmPrivateAccessHold {
    char *host;
    size_t size;
    QLIST_ENTRY(KvmPrivateAccessHold) next;
} KvmPrivateAccessHold;

/**
 * kvm_private_access_hold: keep the file mapped in [@host, @host + @size)
 *
 * Used around ioctls that find private pages by their host address.  Without
 * the hold, the kernel could find a page of zeros there, which the signal
 * handler has mapped in the place of the private page.  A thread that accesses
 * a private page in the range waits in the signal handler for
 * kvm_private_access_release().  Until that call, the caller must not touch
 * guest memory, because it would wait for itself, nor take a lock, because a
 * thread that holds the lock may be waiting in the signal handler.
 */
void kvm_private_access_hold(KvmPrivateAccessHold *hold, void *host,
                             size_t size);
void kvm_private_access_release(KvmPrivateAccessHold *hold);

static inline KvmPrivateAccessHold *
kvm_private_access_auto_hold(KvmPrivateAccessHold *hold, void *host,
                             size_t size)
{
    kvm_private_access_hold(hold, host, size);
    return hold;
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(KvmPrivateAccessHold, kvm_private_access_release)

/** KVM_PRIVATE_ACCESS_HOLD_GUARD: hold a range until the end of the block */
#define KVM_PRIVATE_ACCESS_HOLD_GUARD(host, size)                           \
    g_autoptr(KvmPrivateAccessHold)                                         \
    glue(private_access_hold, __COUNTER__) G_GNUC_UNUSED =                  \
        kvm_private_access_auto_hold(&(KvmPrivateAccessHold) {}, host, size)

#endif
