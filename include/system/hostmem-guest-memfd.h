/*
 * Memory of a memory-backend-memfd that is a guest_memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_HOSTMEM_GUEST_MEMFD_H
#define SYSTEM_HOSTMEM_GUEST_MEMFD_H

#include "qapi/qapi-types-common.h"
#include "system/hostmem.h"

/**
 * hostmem_guest_memfd_wanted: decide whether a backend's memory is a guest_memfd
 * @backend: the backend, with all its options set
 * @mode: the value of its guest-memfd option
 * @hugetlb: the value of its hugetlb option
 *
 * "auto" means "on" for a confidential guest if the host's kernel can convert
 * pages in place and no other option of @backend excludes a guest_memfd.
 * In all other cases "auto" means "off", and the trace event
 * hostmem_guest_memfd_auto has the reason.
 *
 * Context: BQL.
 */
bool hostmem_guest_memfd_wanted(HostMemoryBackend *backend, OnOffAuto mode,
                                bool hugetlb);

/**
 * hostmem_guest_memfd_alloc: create a guest_memfd and the backend's RAM in it
 * @backend: the backend, with all its options set
 * @hugetlb: the value of its hugetlb option
 * @errp: what the host, the machine or an option does not allow
 *
 * All pages start shared.
 *
 * Context: BQL.
 * Returns: whether @backend has its RAM.
 */
bool hostmem_guest_memfd_alloc(HostMemoryBackend *backend, bool hugetlb,
                               Error **errp);

#endif
