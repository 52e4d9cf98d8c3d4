/*
 * Host memory backend: guest_memfd that is converted in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Guest RAM, and what QEMU sees of it, are one guest_memfd: a page is shared
 * or private, never both.  Made by the VM's file descriptor, so objects of
 * this type come after the accelerator (as all memory backends do).
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "qom/object.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "migration/blocker.h"
#include "system/hostmem.h"
#include "system/kvm-page-enc.h"

#define TYPE_MEMORY_BACKEND_GUEST_MEMFD "memory-backend-guest-memfd"

/* What the base class offers and a private page does not allow */
static bool check_options(HostMemoryBackend *backend, Error **errp)
{
    const char *option = NULL, *why = NULL;

    if (!backend->size) {
        error_setg(errp, "can't create backend with size 0");
        return false;
    }
    if (!QEMU_IS_ALIGNED(backend->size, qemu_real_host_page_size())) {
        error_setg(errp, "backend '%s' memory size must be multiple of the "
                   "host's page size", TYPE_MEMORY_BACKEND_GUEST_MEMFD);
        return false;
    }
    if (!backend->share) {
        option = "share=off";
        why = "its only copy is the one that the guest runs on";
    } else if (backend->merge) {
        option = "merge=on";
        why = "private pages are encrypted, no two are the same";
    } else if (backend->dump) {
        option = "dump=on";
        why = "private pages cannot be read";
    } else if (backend->prealloc) {
        option = "prealloc=on";
        why = "the kernel allocates its pages when they are first used";
    } else if (!backend->reserve) {
        option = "reserve=off";
        why = "no swap space is ever reserved for it";
    } else if (backend->guest_memfd) {
        error_setg(errp, "this confidential guest keeps private pages in "
                   "guest_memfds of its own: use another memory backend");
        return false;
    }
    if (option) {
        error_setg(errp, "%s does not support %s: %s",
                   TYPE_MEMORY_BACKEND_GUEST_MEMFD, option, why);
        return false;
    }
    return true;
}

static bool
guest_memfd_backend_memory_alloc(HostMemoryBackend *backend, Error **errp)
{
    g_autofree char *name = host_memory_backend_get_name(backend);
    RAMBlock *rb;
    int fd;

    if (!check_options(backend, errp)) {
        return false;
    }
    fd = kvm_page_enc_create_memfd(backend->size, errp);
    if (fd < 0) {
        return false;
    }
    backend->aligned = true;
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

    error_setg(&rb->cpr_blocker, "Memory region %s is a guest_memfd, which "
               "is not supported with CPR.", name);
    return migrate_add_blocker_modes(&rb->cpr_blocker, errp,
                                     MIG_MODE_CPR_TRANSFER, -1) >= 0;
}

static void guest_memfd_backend_instance_init(Object *obj)
{
    HostMemoryBackend *backend = MEMORY_BACKEND(obj);

    backend->share = true;
    backend->merge = false;
    backend->dump = false;
}

static void guest_memfd_backend_class_init(ObjectClass *oc, void *data)
{
    HostMemoryBackendClass *bc = MEMORY_BACKEND_CLASS(oc);

    bc->alloc = guest_memfd_backend_memory_alloc;
}

static const TypeInfo guest_memfd_backend_info = {
    .name = TYPE_MEMORY_BACKEND_GUEST_MEMFD,
    .parent = TYPE_MEMORY_BACKEND,
    .instance_init = guest_memfd_backend_instance_init,
    .class_init = guest_memfd_backend_class_init,
};

static void register_types(void)
{
    type_register_static(&guest_memfd_backend_info);
}

type_init(register_types);
