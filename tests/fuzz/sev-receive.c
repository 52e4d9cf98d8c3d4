/*
 * The receiving half of SEV's migration, for the fuzzer of the loader
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The file that QEMU is built from, as it is.  What it needs of QEMU to send
 * is not there: a call of that would trap (tests/fuzz/build).
 */
#include "../../target/i386/sev/sev-migration.c"
#include "machine.h"

const ConfidentialGuestMigrationOps sev_receive_ops = {
    .receive_start = sev_receive_start,
    .receive_pages = sev_receive_pages,
    .receive_final = sev_receive_final,
};
