/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Conversions of guest_memfds that are not simply the memory of one slot of a
 * running VM: one file in several slots, several files in one VM, a file that
 * another process converts, a file whose VM is gone, and a file that user space
 * cannot map.
 */
#define _GNU_SOURCE
#include <sys/socket.h>
#include <sys/wait.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include "guest.h"

#define SIZE    (4ULL << 20)
#define LOG     KVM_MEM_LOG_DIRTY_PAGES

/* Read which of the gfns [@gfn, @gfn + 256) are private: 4 words of @bits */
static void private_at(struct vm *vm, uint64_t gfn, uint64_t *bits)
{
    MUST(vm_bitmap(vm, gfn, 256, bits));
}

static void dirty_in(struct vm *vm, uint32_t slot, uint64_t *bits)
{
    struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bits };

    CHECK(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
}

/*
 * Slot 0 has the file's pages 0x100-0x1ff, at gfn 0x1000.  Slot 1 has the
 * file's pages 0x200-0x2ff, at gfn 0x500.  The slots are therefore adjacent in
 * the file, but in the opposite order in the guest's memory.  The file's other
 * pages are in no slot.
 */
static void two_slots(enum vm_type type)
{
    uint64_t p0[4], p1[4], d0[4], d1[4];
    struct vm vm;

    vm_create(&vm, type, SIZE);
    MUST(vm_slot(&vm, 0, LOG, 0x1000 * PAGE, 0x100 * PAGE, 0x100 * PAGE));
    MUST(vm_slot(&vm, 1, LOG, 0x500 * PAGE, 0x100 * PAGE, 0x200 * PAGE));
    vm.mem[0x1f8 * PAGE] = 1;           /* allocate only two of the pages */
    vm.mem[0x207 * PAGE] = 1;
    MUST(vm_convert(&vm, 0x1f0 * PAGE, 0x20 * PAGE, PRIVATE));
    private_at(&vm, 0x1000, p0);
    private_at(&vm, 0x500, p1);
    ok(p0[3] == 0xffffULL << 48 && !p0[0] && !p0[1] && !p0[2] &&
       p1[0] == 0xffff && !p1[1] && !p1[2] && !p1[3],
       "a conversion of a range across two slots makes its pages private in "
       "both slots");
    dirty_in(&vm, 0, d0);
    dirty_in(&vm, 1, d1);
    ok(!memcmp(p0, d0, 32) && !memcmp(p1, d1, 32),
       "a conversion of a range across two slots marks its pages dirty in both "
       "slots");
    ok(touch(vm.mem + 0x1f8 * PAGE) == SIGBUS &&
       touch(vm.mem + 0x20f * PAGE) == SIGBUS && !touch(vm.mem + 0x210 * PAGE),
       "the host cannot access pages of the range, whether or not they were "
       "allocated");
    MUST(vm_convert(&vm, 0x80 * PAGE, 0x300 * PAGE, PRIVATE));
    private_at(&vm, 0x1000, p0);
    private_at(&vm, 0x500, p1);
    ok(!~(p0[0] & p0[1] & p0[2] & p0[3] & p1[0] & p1[1] & p1[2] & p1[3]),
       "a range that begins before the first slot and ends after the last is "
       "converted");
    dirty_in(&vm, 0, d0);
    dirty_in(&vm, 1, d1);
    ok(d0[3] == ~0ULL >> 16 && !~(d0[0] & d0[1] & d0[2]) &&
       d1[0] == ~0ULL << 16 && !~(d1[1] & d1[2] & d1[3]),
       "only the pages whose state a conversion has changed are dirty");
    MUST(vm_slot(&vm, 0, 0, 0x1000 * PAGE, 0, 0));
    MUST(vm_convert(&vm, 0x1f0 * PAGE, 0x20 * PAGE, SHARED));
    private_at(&vm, 0x500, p1);
    dirty_in(&vm, 1, d1);
    ok(p1[0] == ~0ULL << 16 && d1[0] == 0xffff,
       "after one slot was deleted, a conversion still applies to the other "
       "slot");
    ok(!touch(vm.mem + 0x1f0 * PAGE) && touch(vm.mem + 0x1ef * PAGE) == SIGBUS,
       "a conversion also applies to pages of the file whose slot was deleted");
    vm_destroy(&vm);
}

static void two_files(enum vm_type type)
{
    struct kvm_userspace_memory_region2 region = {
        .slot = 1, .flags = KVM_MEM_GUEST_MEMFD, .guest_phys_addr = SIZE,
        .memory_size = SIZE,
    };
    struct kvm_memory_attributes2 args = {
        .offset = 3 * PAGE, .size = PAGE, .attributes = PRIVATE,
    };
    struct vm vm;
    uint8_t *p;
    int g;

    vm_init(&vm, type, SIZE);
    g = CHECK(vm_gmem(&vm, SIZE, GUEST_MEMFD_FLAG_MMAP |
                                 GUEST_MEMFD_FLAG_INIT_SHARED));
    p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, g, 0);
    region.guest_memfd = g;
    region.userspace_addr = (uintptr_t)p;
    MUST(xioctl(vm.fd, KVM_SET_USER_MEMORY_REGION2, &region));
    memset(p, 7, 8 * PAGE);
    MUST(xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2, &args));
    MUST(vm_convert(&vm, 5 * PAGE, PAGE, PRIVATE));
    ok(vm_is_private(&vm, SIZE / PAGE + 3) && !vm_is_private(&vm, 3) &&
       vm_is_private(&vm, 5) && !vm_is_private(&vm, SIZE / PAGE + 5) &&
       touch(p + 3 * PAGE) == SIGBUS && !touch(vm.mem + 3 * PAGE),
       "two guest_memfds of one VM have separate attributes");
    close(g);
    munmap(p, SIZE);
    ok(vm_is_private(&vm, 5) && !vm_is_private(&vm, SIZE / PAGE + 3),
       "no gfn is private in a slot whose guest_memfd was closed");
    vm_destroy(&vm);
}

/*
 * A process that has the guest_memfd's file descriptor can convert its pages,
 * even if another process owns the VM
 */
static void child(enum vm_type type)
{
    struct vm vm;
    int status;
    pid_t pid;

    vm_init(&vm, type, SIZE);
    memset(vm.mem, 9, 4 * PAGE);
    fflush(stdout);
    pid = CHECK(fork());
    if (!pid) {
        _exit(vm_convert(&vm, PAGE, PAGE, PRIVATE) != 0 ||
              touch(vm.mem + PAGE) != SIGBUS || touch(vm.mem) ||
              xioctl(vm.fd, KVM_CHECK_EXTENSION, 0) != -EIO);
    }
    CHECK(waitpid(pid, &status, 0));
    ok(!status && touch(vm.mem + PAGE) == SIGBUS && !touch(vm.mem) &&
       vm_private_is(&vm, 1, 2),
       "a conversion by a child process also takes effect in the parent");
    vm_destroy(&vm);
}

static int receive_fd(int socket)
{
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = { &byte, 1 };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
        .msg_controllen = sizeof(control),
    };

    CHECK(recvmsg(socket, &msg, 0));
    return *(int *)CMSG_DATA(CMSG_FIRSTHDR(&msg));
}

static void send_fd(int socket, int fd)
{
    char byte = 0, control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = { &byte, 1 };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
        .msg_controllen = sizeof(control),
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    *c = (struct cmsghdr) {
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
        .cmsg_len = CMSG_LEN(sizeof(int)),
    };
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    CHECK(sendmsg(socket, &msg, 0));
}

/*
 * Convert the first two pages of the guest_memfd @g, access them through a new
 * mapping, and punch a hole.  Returns whether all of this worked as it should.
 */
static bool works(int g)
{
    struct kvm_memory_attributes2 args = { .size = 2 * PAGE };
    uint8_t *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, g, 0);
    bool good = p != MAP_FAILED;

    good = good && !xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2, &args);
    good = good && !poke(p, 5);
    args.attributes = PRIVATE;
    good = good && !xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2, &args) &&
           touch(p) == SIGBUS && touch(p + PAGE) == SIGBUS;
    args.attributes = SHARED;
    good = good && !xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2, &args) &&
           !touch(p) && p[0] <= 5;
    good = good && !fallocate(g, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              0, SIZE) && !p[0];
    munmap(p, SIZE);
    return good;
}

/*
 * A guest_memfd can be used after user space has closed its VM, and after the
 * process that owned the VM has ended, because the file holds a reference to
 * the VM
 */
static void without_vm(enum vm_type type)
{
    int pair[2], g, status;
    struct vm vm;
    pid_t pid;

    vm_init(&vm, type, SIZE);
    memset(vm.mem, 1, SIZE);
    if (guest_launch(&vm, 0x40000)) {
        bail("launch");
    }
    MUST(vm_slot(&vm, 0, LOG, 0, SIZE, 0));
    g = CHECK(dup(vm.gmem));
    vm_destroy(&vm);
    ok(works(g),
       "conversions of a guest_memfd still work after the VM was closed");
    close(g);

    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    fflush(stdout);
    pid = CHECK(fork());
    if (!pid) {
        vm_init(&vm, type, SIZE);
        if (guest_launch(&vm, 0x40000)) {
            _exit(1);
        }
        send_fd(pair[1], vm.gmem);
        _exit(0);
    }
    g = receive_fd(pair[0]);
    CHECK(waitpid(pid, &status, 0));
    ok(!status && works(g),
       "conversions of a guest_memfd still work after the VM's process has "
       "ended");
    close(g);
    close(pair[0]);
    close(pair[1]);
}

/* Get the value of the VM's statistic @name */
static uint64_t stat_of(struct vm *vm, const char *name)
{
    int fd = CHECK(ioctl(vm->fd, KVM_GET_STATS_FD, NULL));
    struct kvm_stats_header header;
    uint64_t value = ~0ULL;
    char *desc;

    CHECK(pread(fd, &header, sizeof(header), 0));
    desc = malloc(sizeof(struct kvm_stats_desc) + header.name_size);
    for (unsigned i = 0; i < header.num_desc; i++) {
        struct kvm_stats_desc *d = (void *)desc;
        size_t size = sizeof(*d) + header.name_size;

        CHECK(pread(fd, desc, size, header.desc_offset + i * size));
        if (!strcmp(d->name, name)) {
            CHECK(pread(fd, &value, 8, header.data_offset + d->offset));
        }
    }
    free(desc);
    close(fd);
    return value;
}

/*
 * A guest_memfd that user space cannot map keeps attributes as well.  The
 * guest's private pages are then pages of the file, and its shared pages are
 * the memory at the slot's host address.
 */
static void not_mapped(void)
{
    const uint64_t half = GUEST_SIZE / 2, at = half + 4 * PAGE;
    struct kvm_memory_attributes2 args = { .size = half };
    struct kvm_userspace_memory_region2 region = {
        .slot = 1, .flags = KVM_MEM_GUEST_MEMFD, .guest_phys_addr = half,
        .memory_size = half,
    };
    struct vm vm;
    uint64_t *p;
    int g;

    vm_create(&vm, VM_SW_PROTECTED, GUEST_SIZE);
    MUST(vm_slot(&vm, 0, 0, 0, half, 0));
    g = CHECK(vm_gmem(&vm, half, 0));
    /*
     * Align the slot's host memory to 2 MiB and ask for huge pages.  The check
     * of pages_2m below then fails if KVM maps the memory with a 2 MiB page
     * although some pages of the slot are private.
     */
    p = mmap(NULL, 2 * half, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p = (uint64_t *)(((uintptr_t)p + half - 1) & -half);
    CHECK(madvise(p, half, MADV_HUGEPAGE));
    memset(p, 0, half);
    region.guest_memfd = g;
    region.userspace_addr = (uintptr_t)p;
    MUST(xioctl(vm.fd, KVM_SET_USER_MEMORY_REGION2, &region));
    MUST(guest_launch(&vm, half));
    ok(vm_is_private(&vm, half / PAGE) &&
       vm_is_private(&vm, GUEST_SIZE / PAGE - 1),
       "all pages of a guest_memfd that cannot be mapped are private at first");

    ok(!guest_write(&vm, at, 0x1111) && p[4 * PAGE / 8] == 0,
       "a guest's write to a private page goes to the file, not to the host's "
       "memory");
    ok(!xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2, &args) &&
       !vm_is_private(&vm, half / PAGE + 4),
       "all pages of a guest_memfd that cannot be mapped can become shared");
    p[4 * PAGE / 8] = 0x2222;
    ok(guest_read(&vm, at) == 0x2222,
       "the guest reads a shared page from the host's memory at the slot's "
       "address");
    args.offset = 4 * PAGE;
    args.size = PAGE;
    args.attributes = PRIVATE;
    ok(!xioctl(g, KVM_SET_MEMORY_ATTRIBUTES2, &args) &&
       guest_read(&vm, at) == 0x1111 && guest_read(&vm, at + PAGE) == 0,
       "after one page became private, the guest reads this page only from the "
       "file");
    ok(!guest_write(&vm, at, 0x3333) && !guest_write(&vm, at + PAGE, 0x4444) &&
       p[4 * PAGE / 8] == 0x2222 && p[5 * PAGE / 8] == 0x4444,
       "the guest's writes go to the file for private and to the host for "
       "shared pages");
    ok(!stat_of(&vm, "pages_2m"),
       "no mapping of the guest spans private and shared pages");
    close(g);
    vm_destroy(&vm);
}


/* KVM counts conversions of the VM, converted pages, and refusals */
static void statistics(enum vm_type type)
{
    struct iovec iov;
    struct vm vm;
    int fds[2];

    vm_init(&vm, type, SIZE);
    ok(stat_of(&vm, "gmem_conversions") == 0 &&
       stat_of(&vm, "gmem_pages_converted") == 0 &&
       stat_of(&vm, "gmem_conversions_refused") == 0,
       "the conversion statistics of a new VM are 0");
    MUST(vm_convert(&vm, 3 * PAGE, 5 * PAGE, PRIVATE));
    MUST(vm_convert(&vm, 0, 16 * PAGE, PRIVATE));
    ok(stat_of(&vm, "gmem_conversions") == 2 &&
       stat_of(&vm, "gmem_pages_converted") == 16,
       "the statistics count two conversions, and each converted page once");
    MUST(vm_convert(&vm, 0, 16 * PAGE, SHARED));
    MUST(vm_convert(&vm, 0, 16 * PAGE, SHARED));
    ok(stat_of(&vm, "gmem_conversions") == 4 &&
       stat_of(&vm, "gmem_pages_converted") == 32,
       "a conversion that changes nothing counts as a conversion of no pages");
    vm.mem[PAGE] = 1;
    iov = (struct iovec) { vm.mem + PAGE, 16 };
    CHECK(pipe(fds));
    CHECK(vmsplice(fds[1], &iov, 1, 0));
    ok(vm_convert(&vm, 0, 2 * PAGE, PRIVATE) == -EAGAIN &&
       stat_of(&vm, "gmem_conversions") == 4 &&
       stat_of(&vm, "gmem_pages_converted") == 32 &&
       stat_of(&vm, "gmem_conversions_refused") == 1,
       "a refused conversion increments only the statistic of refusals");
    close(fds[0]);
    close(fds[1]);
    vm_destroy(&vm);
}

/* Make KVM map all pages of a range for the guest.  Returns 0, or -errno. */
static int map_all(struct vm *vm, uint64_t gpa, uint64_t size)
{
    struct kvm_pre_fault_memory range = { .gpa = gpa, .size = size };
    int r;

    do {
        r = xioctl(vm->vcpu, KVM_PRE_FAULT_MEMORY, &range);
    } while (range.size && (!r || r == -EINTR || r == -EAGAIN));
    return r;
}

/*
 * If a guest_memfd keeps attributes, KVM maps its pages only with 4 KiB
 * mappings, before and after conversions, so that no mapping contains both
 * private and shared pages.  The VM also has ordinary memory, which KVM maps
 * with 2 MiB mappings.  This shows that the test would notice a 2 MiB mapping
 * of the guest_memfd.
 */
static void large_mappings(void)
{
    const uint64_t large = 2ULL << 20, gpa = 4ULL << 20, size = 4ULL << 20;
    struct kvm_userspace_memory_region region = {
        .slot = 1, .guest_phys_addr = gpa, .memory_size = size,
    };
    struct vm vm;
    uint8_t *p;

    vm_create(&vm, VM_SW_PROTECTED, GUEST_SIZE);
    MUST(vm_slot(&vm, 0, 0, 0, GUEST_SIZE, 0));
    p = mmap(NULL, size + large, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p = (uint8_t *)(((uintptr_t)p + large - 1) & -large);
    region.userspace_addr = (uintptr_t)p;
    CHECK(madvise(p, size, MADV_HUGEPAGE));
    memset(p, 1, size);
    CHECK(ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &region));
    guest_vcpu(&vm);

    ok(!map_all(&vm, 0, GUEST_SIZE) && !stat_of(&vm, "pages_2m") &&
       stat_of(&vm, "pages_4k") >= 1024,
       "KVM maps shared pages of a guest_memfd with 4 KiB mappings");
    MUST(vm_convert(&vm, 0, GUEST_SIZE, PRIVATE));
    ok(stat_of(&vm, "pages_4k") < 100,
       "a conversion removes the guest's mappings of the converted pages");
    ok(!map_all(&vm, 0, GUEST_SIZE) && !stat_of(&vm, "pages_2m") &&
       stat_of(&vm, "pages_4k") >= 1024,
       "KVM maps private pages of a guest_memfd with 4 KiB mappings");
    for (unsigned i = 0; i < 1024; i += 3) {
        MUST(vm_convert(&vm, i * PAGE, PAGE, SHARED));
    }
    ok(!map_all(&vm, 0, GUEST_SIZE) && !stat_of(&vm, "pages_2m"),
       "KVM uses 4 KiB mappings if every third page is shared");
    MUST(vm_slot(&vm, 0, LOG, 0, GUEST_SIZE, 0));
    ok(!map_all(&vm, 0, GUEST_SIZE) && !stat_of(&vm, "pages_2m"),
       "KVM uses 4 KiB mappings while the slot's dirty log is on");
    MUST(vm_slot(&vm, 0, 0, 0, GUEST_SIZE, 0));
    ok(!map_all(&vm, 0, GUEST_SIZE) && !stat_of(&vm, "pages_2m"),
       "KVM uses 4 KiB mappings after the slot's dirty log was switched off");
    ok(!map_all(&vm, gpa, size) && stat_of(&vm, "pages_2m") == 2,
       "KVM maps ordinary memory beside a guest_memfd with 2 MiB mappings");
    vm_destroy(&vm);
}

int main(void)
{
    static const enum vm_type types[] = { VM_SW_PROTECTED, VM_SEV };

    vm_require(VM_SW_PROTECTED);
    vm_require(VM_SEV);
    for (unsigned i = 0; i < 2; i++) {
        note("%s VM", vm_type_name(types[i]));
        two_slots(types[i]);
        two_files(types[i]);
        child(types[i]);
        without_vm(types[i]);
        statistics(types[i]);
    }
    not_mapped();
    large_mappings();
    return done_testing();
}
