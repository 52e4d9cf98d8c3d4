/*
 * Place of the migration helper of an SEV guest: functions for the machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TARGET_I386_SEV_HELPER_PLACE_H
#define TARGET_I386_SEV_HELPER_PLACE_H

#ifndef CONFIG_USER_ONLY
#include CONFIG_DEVICES /* CONFIG_SEV */
#endif

#if defined(CONFIG_SEV) && !defined(CONFIG_USER_ONLY)

/**
 * sev_helper_place: if the guest has a migration helper, put the helper's
 * memory at guest-physical address @gpa and reserve the addresses of this
 * memory.  Unless the guest arrives by migration, launch the helper; QEMU ends
 * if that fails.  The memory map is not complete yet.  BQL.
 */
void sev_helper_place(uint64_t gpa);

/**
 * sev_helper_end: the guest-physical address of the end of the helper's memory,
 * or @gpa if @gpa is higher or if the guest has no helper
 */
uint64_t sev_helper_end(uint64_t gpa);

#else

static inline void sev_helper_place(uint64_t gpa)
{
}

static inline uint64_t sev_helper_end(uint64_t gpa)
{
    return gpa;
}

#endif

#endif
