# Probe guest: does an accelerator run ordinary guests? A PVH kernel of one page: it enters long mode, does a
# cmpxchg16b and a loop of 20 million rounds, and leaves by isa-debug-exit with 0, which makes QEMU end with 1.
# An accelerator that only looks like one hangs, crawls or dies here.
.section .note.pvh, "a", @note
    .long 4, 4, 18
    .asciz "Xen"
    .long _start
.text
.code32
.globl _start
_start:
    cli
    movl $directory + 3, %eax
    movl %eax, pointers
    movl $pointers + 3, root
    movl $0x83, directory           # one page of 2 MiB, mapped onto itself
    movl $root, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x20, %eax                 # PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx          # EFER: long mode
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax
    movl %eax, %cr0
    lgdt table_pointer
    ljmp $8, $long_mode
.code64
long_mode:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    leaq word(%rip), %rdi
    xorl %eax, %eax
    xorl %edx, %edx
    xorl %ebx, %ebx
    xorl %ecx, %ecx
    lock cmpxchg16b (%rdi)
    movl $20000000, %ecx
1:  decl %ecx
    jnz 1b
    movw $0xf4, %dx
    xorl %eax, %eax
    outl %eax, %dx
2:  hlt
    jmp 2b
.data
.align 16
table: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
table_pointer:
    .word 23
    .long table
.align 16
word: .fill 16, 1, 0
.bss
.align 4096
root: .skip 4096
pointers: .skip 4096
directory: .skip 4096
