/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The macros that Linux's AES-GCM assembly expects from this header
 *
 * Each function gets a section, so that the linker drops the ones that the
 * helper does not call.
 */
#ifndef SEV_MIGRATION_HELPER_LINKAGE_H
#define SEV_MIGRATION_HELPER_LINKAGE_H

.macro function_start name
    .pushsection .text.\name, "ax", @progbits
    .globl \name
    .type \name, @function
    .p2align 4
    .set \name, .
.endm

#define SYM_FUNC_START(name) function_start name
#define SYM_FUNC_END(name) .popsection
#define RET ret

#endif
