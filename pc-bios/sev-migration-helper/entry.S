/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Header of the image, and the code by which a vCPU enters and leaves the
 * helper
 */
#include "mh.h"

#define STACK_SIZE 896

    .section .header, "ax"
    .globl mh_image
mh_image:
    .ascii "SEVMHLP1"
    .long MH_VERSION
    .long _start - mh_image
    .long text_size, data_end
    .long MH_CPUS, MH_CHANNELS
    .quad 0, 0, 0, 0

/*
 * Each command begins here, on an empty stack.  EDI is the number of the vCPU.
 * A vCPU whose number is wrong or in use must not touch a stack: it ends with
 * a triple fault.
 */
    .globl _start
_start:
    cmp $MH_CPUS, %edi
    jae dead
    mov %edi, %ebx
    lock btsl $0, running(, %rbx, 4)
    jc dead
    imul $STACK_SIZE, %rbx, %rax
    lea stacks + STACK_SIZE(%rax), %rsp
    call mh_main

    /*
     * Clear all registers, because the VMM of a guest without SEV-ES can read
     * them, and they have contained keys and contents of pages.  mh_main has
     * returned XCR0, which says which vector registers are enabled.
     */
    pxor %xmm0, %xmm0
    test $0x4, %al
    jz 1f
    vzeroall
    test $0x80, %al
    jz 2f
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vpxorq %zmm\n, %zmm\n, %zmm\n
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kxorw %k\n, %k\n, %k\n
    .endr
    jmp 2f
1:
    .irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    pxor %xmm\n, %xmm\n
    .endr
2:
    xor %esp, %esp
    movl $0, running(, %rbx, 4)
    mov %ebx, %edi
    xor %eax, %eax
    xor %ebx, %ebx
    xor %ecx, %ecx
    xor %edx, %edx
    xor %esi, %esi
    xor %ebp, %ebp
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    xor %r\n\()d, %r\n\()d
    .endr
    out %al, $MH_PORT
    jmp _start
dead:
    ud2

    .bss
    .balign 16
stacks:
    .space MH_CPUS * STACK_SIZE
running:
    .space MH_CPUS * 4

    .section .note.GNU-stack, "", @progbits
