/*
 * Guest-physical addresses of RAMBlocks, for the migration helper
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The helper only knows guest-physical addresses, and QEMU's migration code
 * knows RAMBlocks and offsets.  A page has one address for the helper: the
 * address at which a vCPU accesses the page if nothing hides it.  Two pages
 * never have the same address.
 *
 * A device or a PAM register may hide the page from vCPUs, and a vCPU cannot
 * write to flash memory.  While no vCPU of the guest runs, QEMU can uncover
 * such pages: it makes them accessible to the helper at their addresses.
 */
#ifndef TARGET_I386_SEV_HELPER_MAP_H
#define TARGET_I386_SEV_HELPER_MAP_H

#include "exec/hwaddr.h"
#include "exec/cpu-common.h"

typedef struct SevHelperMap SevHelperMap;

/**
 * sev_helper_map_prepare: create the memory regions that
 * sev_helper_map_uncover() enables for flash memory.  To be called once, when
 * the machine is complete.  BQL.
 *
 * Returns the list of these regions.  All maps of the VM share it and add
 * regions to it.  It must never be freed.
 */
GPtrArray *sev_helper_map_prepare(void);

/**
 * sev_helper_map_new: find the addresses of all RAMBlocks that can have private
 * pages.  BQL.
 * @uncovers: the value that sev_helper_map_prepare() has returned
 */
SevHelperMap *sev_helper_map_new(GPtrArray *uncovers);

/** sev_helper_map_free: cover what was uncovered, and free @map.  BQL. */
void sev_helper_map_free(SevHelperMap *map);

/**
 * sev_helper_map_find: the address of the page at byte @offset of @rb.  Returns
 * false if it has none.  Any thread.
 */
bool sev_helper_map_find(const SevHelperMap *map, RAMBlock *rb,
                         uint64_t offset, hwaddr *gpa);

/**
 * sev_helper_map_addresses: sev_helper_map_find() for @npages pages from byte
 * @offset of @rb on.  False with @errp set if one of them has no address.
 */
bool sev_helper_map_addresses(const SevHelperMap *map, RAMBlock *rb,
                              uint64_t offset, size_t npages, uint64_t *gpa,
                              Error **errp);

/**
 * sev_helper_map_visible: whether a vCPU that accesses @gpa accesses the page
 * at byte @offset of @rb, while the guest runs
 *
 * Returns false, too, if the page is in the range of a memory region, such as
 * one of a PAM register, with which the guest could hide the page at any time.
 * The guest can also hide flash memory at any time, but this function ignores
 * that, because a guest that does so harms only itself: the helper then stops,
 * and the migration fails.  Any thread.
 */
bool sev_helper_map_visible(const SevHelperMap *map, RAMBlock *rb,
                            uint64_t offset, hwaddr gpa);

/**
 * sev_helper_map_uncover: make all pages of @map visible and writable, until
 * sev_helper_map_cover() is called.  No vCPU of the guest runs.  BQL.
 */
void sev_helper_map_uncover(SevHelperMap *map);

/**
 * sev_helper_map_is_uncovered: whether sev_helper_map_uncover() was called
 * after the last call of sev_helper_map_cover().  Called by the thread that
 * calls sev_helper_map_uncover().
 */
bool sev_helper_map_is_uncovered(const SevHelperMap *map);

/** sev_helper_map_cover: undo sev_helper_map_uncover().  BQL. */
void sev_helper_map_cover(SevHelperMap *map);

#endif
