/*
 * Memory of the migration helper of an SEV guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The helper has private memory, which begins as an image that the launch
 * encrypts and measures, and a window that it shares with QEMU.  Both are above
 * the guest's RAM, reserved in its memory map, and never migrated as RAM.
 */
#ifndef TARGET_I386_SEV_HELPER_MEMORY_H
#define TARGET_I386_SEV_HELPER_MEMORY_H

#include "exec/memory.h"
#include "pc-bios/sev-migration-helper/mh.h"

/*
 * No RAM of a guest is at or above this address.  The helper's image contains
 * the address, so a new value would change the launch measurement.
 */
#define SEV_HELPER_GPA_LIMIT (1ULL << 46)

/**
 * SevHelperMemory: the helper's memory in a machine
 * @private_gpa, @shared_gpa: guest-physical addresses
 * @entry: virtual address of the helper's first instruction; 0 if not known
 *         yet, because the image arrives by migration
 */
typedef struct SevHelperMemory {
    MemoryRegion private_mr;
    MemoryRegion shared_mr;
    uint64_t private_gpa;
    uint64_t shared_gpa;
    uint64_t entry;
} SevHelperMemory;

/**
 * sev_helper_memory_read: read and check the helper's file
 * @path: name of the file.  QEMU looks for the file in the directories in which
 *        it looks for other firmware files.
 *
 * Returns an image of MH_PRIVATE_SIZE bytes, to be freed with g_free, or NULL.
 */
uint8_t *sev_helper_memory_read(const char *path, Error **errp);

/**
 * sev_helper_memory_place: put the memory at @gpa, a multiple of 2 MiB, and
 * reserve it.  The machine's memory map is not complete yet.  BQL.
 * @image: from sev_helper_memory_read(), or NULL if the image arrives by
 *         migration.  The function writes the parameters and page tables of the
 *         helper, which contain the addresses of the memory, to @image.
 *
 * Returns the guest-physical address of the end of the memory.
 */
uint64_t sev_helper_memory_place(SevHelperMemory *m, uint64_t gpa,
                                 uint8_t *image);

/** sev_helper_memory_private: host address of the private memory */
uint8_t *sev_helper_memory_private(SevHelperMemory *m);

/**
 * sev_helper_memory_shared: host address of the memory that vCPU @cpu of the
 * helper shares with QEMU
 */
uint8_t *sev_helper_memory_shared(SevHelperMemory *m, unsigned cpu);

#endif
