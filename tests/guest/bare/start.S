/*
 * Start code of guests of a few KiB, from the reset vector to main() in long
 * mode
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The image is a flash device of 64 KiB that ends at 4 GiB.  The page tables
 * map memory twice: at its own address with the C-bit (private), and at its
 * address plus SHARED without the C-bit (shared).  While paging is off, all
 * accesses of an SEV guest are private.
 *
 *   0x08000  page tables
 *   0x90000  end of the stack
 *  0x100000  the program, copied from the flash
 */
	.set	TABLES, 0x8000
	.set	STACK, 0x90000
	.set	C_BIT_LEAF, 0x8000001f

	.section .start, "ax"
	.code16
start16:
	cli
	lgdtl	%cs:gdt_low
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$8, $start32

	.code32
start32:
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$STACK, %esp

	/* Copy the program, and clear the memory after it */
	cld
	movl	$program_in_flash, %esi
	movl	$program_start, %edi
	movl	$program_size, %ecx
	rep movsb
	movl	$bss_size, %ecx
	xorl	%eax, %eax
	rep stosb

	/* EBP: upper half of a page table entry, with the C-bit */
	movl	$C_BIT_LEAF, %eax
	cpuid
	movl	%ebx, %ecx
	andl	$0x3f, %ecx
	subl	$32, %ecx
	movl	$1, %ebp
	shll	%cl, %ebp

	movl	$TABLES, %edi
	movl	$(8 * 4096 / 4), %ecx
	xorl	%eax, %eax
	rep stosl
	/* The CPU reads page tables as private, whatever an entry's C-bit is */
	movl	$(TABLES + 0x1003), TABLES
	movl	$(TABLES + 0x2003), TABLES + 8
	movl	%ebp, TABLES + 4
	movl	%ebp, TABLES + 12
	/* Map GiB 1, GiB 4 (which has the flash) and GiB 5 as private */
	movl	$(TABLES + 0x3003), TABLES + 0x1000
	movl	$(TABLES + 0x4003), TABLES + 0x1018
	movl	%ebp, TABLES + 0x1004
	movl	%ebp, TABLES + 0x101c
	movl	$(TABLES + 0x6003), TABLES + 0x1020
	movl	%ebp, TABLES + 0x1024
	/* Map GiB 1 and GiB 5 as shared */
	movl	$(TABLES + 0x5003), TABLES + 0x2000
	movl	%ebp, TABLES + 0x2004
	movl	$(TABLES + 0x7003), TABLES + 0x2020
	movl	%ebp, TABLES + 0x2024
	xorl	%ecx, %ecx
1:	movl	%ecx, %eax
	shll	$21, %eax
	orl	$0x83, %eax
	movl	%eax, TABLES + 0x3000(,%ecx,8)
	movl	%ebp, TABLES + 0x3004(,%ecx,8)
	movl	%eax, TABLES + 0x5000(,%ecx,8)
	movl	%eax, TABLES + 0x6000(,%ecx,8)
	movl	%ebp, TABLES + 0x6004(,%ecx,8)
	orl	$1, TABLES + 0x6004(,%ecx,8)
	movl	%eax, TABLES + 0x7000(,%ecx,8)
	movl	$1, TABLES + 0x7004(,%ecx,8)
	orl	$0xc0000000, %eax
	movl	%eax, TABLES + 0x4000(,%ecx,8)
	movl	%ebp, TABLES + 0x4004(,%ecx,8)
	incl	%ecx
	cmpl	$512, %ecx
	jne	1b

	movl	%cr4, %eax
	orl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$TABLES, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER: long mode */
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	ljmpl	$24, $start64

	.code64
start64:
	movl	$STACK, %esp
	movl	$main, %eax
	call	*%rax
1:	hlt
	jmp	1b

	.balign	8
gdt:	.quad	0
	.quad	0x00cf9b000000ffff	/* 32-bit code */
	.quad	0x00cf93000000ffff	/* data */
	.quad	0x00af9b000000ffff	/* 64-bit code */
	.globl	gdt_pointer
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.section .reset, "ax"
	.code16
	jmp	start16
	.balign	16
