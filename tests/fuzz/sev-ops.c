/*
 * Operations that receive an SEV guest, for the fuzzer of the loader
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The functions of QEMU that only the source calls are not linked.  A call of
 * one of them would trap (tests/fuzz/build).
 */
#include "qemu/osdep.h"
#include "target/i386/sev/sev-helper.h"
#include "machine.h"

const ConfidentialGuestMigrationOps sev_receive_ops = {
    .receive_start = sev_receive_start,
    .receive_answer = sev_receive_answer,
    .receive_data = sev_helper_receive_data,
    .receive_private = sev_helper_receive_private,
    .receive_pages = sev_receive_pages,
    .receive_final = sev_receive_final,
};
