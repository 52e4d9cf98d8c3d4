/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KVM_SEV_SEND_UPDATE_BATCH and KVM_SEV_RECEIVE_UPDATE_BATCH must transfer the
 * same contents as commands for single pages, also if only one of the two sides
 * uses batches.  If a page fails, they must report how many pages were done.
 * Other ioctls of the VM must be able to run meanwhile.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/time.h>
#include "sev-transport.h"

#define SEND            KVM_SEV_SEND_UPDATE_BATCH
#define RECEIVE         KVM_SEV_RECEIVE_UPDATE_BATCH
#define FIRST           0x20000         /* gpa of the first page to send */
#define N               96
#define LATER           (FIRST + 2 * N * PAGE)
#define LARGE           KVM_SEV_UPDATE_BATCH_PACKETS
#define BAD_MEASUREMENT 0xb             /* SEV_RET_BAD_MEASUREMENT */

static struct packets packets;

/* The guest's contents at @gpa, read with DBG_DECRYPT */
static void plaintext(struct vm *vm, uint64_t gpa, uint8_t *out)
{
    struct kvm_sev_dbg dbg = {
        .src_uaddr = (uintptr_t)vm->mem + gpa, .dst_uaddr = (uintptr_t)out,
        .len = PAGE,
    };

    SEV_MUST(vm, KVM_SEV_DBG_DECRYPT, &dbg);
}

static int receive_one(struct vm *vm, uint64_t gpa, unsigned i)
{
    struct packet p;

    memcpy(p.header, packets.headers[i], HEADER_SIZE);
    memcpy(p.data, packets.data[i], PAGE);
    return transport_receive(vm, gpa, &p);
}

static int send_one(struct vm *vm, uint64_t gpa, unsigned i)
{
    struct packet p;
    int r = transport_send(vm, gpa, &p);

    memcpy(packets.headers[i], p.header, HEADER_SIZE);
    memcpy(packets.data[i], p.data, PAGE);
    return r;
}

static void both_ways(struct vm *a, struct vm *b)
{
    int bad = 0;

    memset(packets.headers, 0x5a, N * HEADER_SIZE);
    ok(!transport_batch(a, SEND, FIRST, N, &packets) && packets.done == N,
       "%d private pages are sent in one batch", N);
    for (unsigned i = 0; i < N / 2; i++) {
        bad += receive_one(b, FIRST + i * PAGE, i) != 0;
    }
    ok(!bad,
       "pages that were sent in a batch can be received by single commands");
    for (unsigned i = N / 2; i < N; i++) {
        bad += send_one(a, FIRST + i * PAGE, i) != 0;
    }
    packets.headers += N / 2;
    packets.data += N / 2;
    ok(!bad && !transport_batch(b, RECEIVE, FIRST + N / 2 * PAGE, N / 2,
                                &packets) && packets.done == N / 2,
       "pages that were sent by single commands can be received in one batch");
    packets.headers -= N / 2;
    packets.data -= N / 2;
}

static void arrived(struct vm *vm)
{
    static uint8_t page[PAGE] __attribute__((aligned(4096)));
    static uint8_t want[PAGE];
    int same = 0;

    for (unsigned i = 0; i < N; i++) {
        plaintext(vm, FIRST + i * PAGE, page);
        memset(want, i, PAGE - 1);
        want[PAGE - 1] = ~i;
        same += !memcmp(page, want, PAGE);
    }
    ok(same == N,
       "%d of %d pages have the same contents in the source and the "
       "destination", same, N);
}

static void partial(struct vm *a, struct vm *b)
{
    uint8_t *gap;

    MUST(vm_convert(a, FIRST + 7 * PAGE, PAGE, SHARED));
    ok(transport_batch(a, SEND, FIRST, N, &packets) == -EAGAIN &&
       packets.done == 7 && !sev_error,
       "a batch with a shared page fails with EAGAIN after the 7 pages before "
       "it");
    MUST(vm_convert(a, FIRST + 7 * PAGE, PAGE, PRIVATE));

    MUST(transport_batch(a, SEND, FIRST, N, &packets));
    packets.data[5][100] ^= 1;
    ok(transport_batch(b, RECEIVE, FIRST, N, &packets) < 0 &&
       packets.done == 5 && sev_error == BAD_MEASUREMENT,
       "a batch with a forged packet fails with the firmware's error after 5 "
       "pages");
    packets.data[5][100] ^= 1;
    packets.headers += 5;
    packets.data += 5;
    ok(!transport_batch(b, RECEIVE, FIRST + 5 * PAGE, N - 5, &packets) &&
       packets.done == N - 5,
       "a batch that failed can be continued at the page that failed");
    packets.headers -= 5;
    packets.data -= 5;
    MUST(vm_convert(b, FIRST + 3 * PAGE, PAGE, SHARED));
    ok(transport_batch(b, RECEIVE, FIRST, N, &packets) == -EAGAIN &&
       packets.done == 3,
       "receiving a batch into a shared page fails with EAGAIN after 3 pages");
    MUST(vm_convert(b, FIRST + 3 * PAGE, PAGE, PRIVATE));
    MUST(transport_batch(b, RECEIVE, FIRST, N, &packets));

    ok(transport_batch(a, SEND, GUEST_SIZE - 4 * PAGE, 5, &packets) < 0 &&
       packets.done == 4,
       "a batch past the end of memory fails after the 4 pages before the end");
    gap = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(munmap(gap + 3 * PAGE, PAGE));
    struct packets short_data = { packets.headers, (void *)gap };
    ok(transport_batch(a, SEND, FIRST, 6, &short_data) == -EFAULT &&
       short_data.done == 3,
       "sending without room for the fourth packet fails with EFAULT after 3 "
       "pages");
    ok(transport_batch(b, RECEIVE, FIRST, 6, &short_data) == -EFAULT &&
       short_data.done == 3,
       "receiving a batch whose fourth packet is not mapped is EFAULT after 3 "
       "pages");
    short_data = (struct packets){ (void *)(gap + 3 * PAGE), packets.data };
    ok(transport_batch(a, SEND, FIRST, 6, &short_data) == -EFAULT &&
       short_data.done == 0,
       "sending without room for the headers fails with EFAULT and sends no "
       "page");
    munmap(gap, 8 * PAGE);
}

static void arguments(struct vm *vm)
{
    uint8_t pages[1];
    const struct kvm_sev_update_batch good = {
        .guest_uaddr = (uintptr_t)vm->mem + FIRST,
        .hdr_uaddr = (uintptr_t)packets.headers, .hdr_len = HEADER_SIZE,
        .trans_uaddr = (uintptr_t)packets.data, .count = 1, .done = 77,
    };
    struct kvm_sev_update_batch a;
    int n = 0;

#define TRY(...) ({ a = good; __VA_ARGS__; sev_cmd(vm, SEND, &a); })
    ok(TRY() == 0 && a.done == 1, "a batch of one page succeeds");
    ok(TRY(a.count = 0) == 0 && a.done == 0,
       "a batch of 0 pages succeeds and does nothing, so that it can be a "
       "probe");
    ok(TRY(a.guest_uaddr++) == -EINVAL && a.done == 77,
       "a batch whose address is not aligned to a page fails with EINVAL");
    ok(TRY(a.hdr_len = 0) == -EINVAL && TRY(a.hdr_len = 16385) == -EINVAL &&
       TRY(a.hdr_len = ~0U) == -EINVAL,
       "a batch whose headers have size 0 or more than 16 KiB fails with "
       "EINVAL");
    ok(TRY(a.guest_uaddr = -PAGE, a.count = 2) == -EINVAL,
       "a batch whose range of addresses overflows fails with EINVAL");
    ok(TRY(a.count = ~0U) == -EFAULT && a.done == 77,
       "a batch of 2^32 - 1 pages fails with EFAULT and does nothing");
    ok(TRY(a.hdr_uaddr = -PAGE) == -EFAULT && TRY(a.trans_uaddr = -PAGE) == -EFAULT,
       "a batch with a kernel address as buffer fails with EFAULT");
    ok(TRY(a.guest_uaddr = 0) < 0 && a.done == 0,
       "a batch of guest memory at address 0 fails and sends no page");
    ok(TRY(a.hdr_len = 20) < 0 && a.done == 0 && sev_error,
       "a batch whose headers are too short fails with the firmware's error");
    for (int i = 1; i < 32; i++) {
        n += TRY(a.flags = 1U << i) == -EINVAL;
    }
    for (int i = 0; i < 2; i++) {
        n += TRY(a.reserved[i] = 1) == -EINVAL;
    }
    n += TRY(a.packets_uaddr = (uintptr_t)pages) == -EINVAL;
    ok(n == 34,
       "a batch with an unknown flag or a reserved field fails with EINVAL");
    ok(TRY(a.flags = LARGE, a.packets_uaddr = -PAGE) == -EFAULT && a.done == 77 &&
       TRY(a.flags = LARGE, a.packets_uaddr = 8) == -EFAULT && a.done == 0,
       "a batch without a valid array of pages per packet fails with EFAULT");
    ok(sev_cmd(vm, SEND, (void *)8) == -EFAULT,
       "a batch with an invalid argument pointer fails with EFAULT");
    ok(sev_cmd(vm, RECEIVE + 1, &a) == -EINVAL &&
       sev_cmd(vm, SEND - 1, &a) == -EINVAL,
       "the command numbers beside those of batches fail with EINVAL");
}

/*
 * Tests of packets with several pages.  A packet has only pages that are
 * contiguous in the host's memory.  The four pages of a gmem block are
 * contiguous, unless user space has punched holes.
 */

static int count_packets(const uint8_t *pages, unsigned n)
{
    unsigned packets = 0, i;

    for (i = 0; i < n && pages[i]; i += pages[i]) {
        packets++;
        for (unsigned j = 1; j < pages[i]; j++) {
            if (i + j >= n || pages[i + j]) {
                return -1;
            }
        }
    }
    return i == n ? (int)packets : -1;
}

/*
 * Replace the second page of each of @n gmem blocks by a page that is not
 * contiguous with the other pages of the gmem block
 */
static void scatter(struct vm *vm, uint64_t gpa, unsigned n)
{
    CHECK(fallocate(vm->gmem, FALLOC_FL_KEEP_SIZE, gpa, n * 4 * PAGE));
    for (unsigned i = 0; i < n; i++) {
        CHECK(fallocate(vm->gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        gpa + (i * 4 + 1) * PAGE, PAGE));
    }
    /*
     * The page allocator returns the page that was freed last, so the first
     * gmem block gets the page that was freed in the last gmem block, and so on
     */
    for (unsigned i = 0; i < n; i++) {
        CHECK(fallocate(vm->gmem, FALLOC_FL_KEEP_SIZE,
                        gpa + (i * 4 + 1) * PAGE, PAGE));
    }
}

/*
 * Send packets of up to four pages from @a, and receive them at @b.  @p has the
 * numbers of pages.
 */
static void large(struct vm *a, struct vm *b, struct packets *p)
{
    uint8_t *pages = p->pages;

    memset(pages, 77, N);
    ok(!transport_batch(a, SEND, FIRST, N, p) && p->done == N &&
       count_packets(pages, N) == N / 4,
       "%d pages are sent in %d packets of four pages", N, N / 4);
    ok(!transport_batch(b, RECEIVE, FIRST, N, p) && p->done == N,
       "packets of four pages can be received");
    ok(!transport_batch(a, SEND, FIRST + PAGE, 6, p) && p->done == 6 &&
       pages[0] == 3 && pages[3] == 3 && count_packets(pages, 6) == 2,
       "no packet has pages of two blocks, so that 6 pages are sent as 3 and "
       "3");
    ok(!transport_batch(b, RECEIVE, FIRST + PAGE, 6, p),
       "packets of three pages can be received");

    MUST(vm_convert(a, FIRST + 6 * PAGE, PAGE, SHARED));
    ok(transport_batch(a, SEND, FIRST, N, p) == -EAGAIN && p->done == 6 &&
       count_packets(pages, 6) == 2 && pages[4] == 2 && !sev_error,
       "a batch of large packets with a shared page fails with EAGAIN after 4 "
       "+ 2 pages");
    MUST(vm_convert(a, FIRST + 6 * PAGE, PAGE, PRIVATE));
    MUST(transport_batch(a, SEND, FIRST, N, p));
}

/* @b refuses changed packets; large() has sent them */
static void large_forged(struct vm *b, struct packets *p)
{
    uint8_t *pages = p->pages;
    int bad = 0;

    packets.data[6][100] ^= 1;
    ok(transport_batch(b, RECEIVE, FIRST, N, p) < 0 && p->done == 4 &&
       sev_error == BAD_MEASUREMENT,
       "a batch with a forged page in the second large packet fails after 4 "
       "pages");
    packets.data[6][100] ^= 1;
    pages[4] = pages[6] = 2;
    ok(transport_batch(b, RECEIVE, FIRST, N, p) < 0 && p->done == 4 &&
       sev_error == BAD_MEASUREMENT,
       "a large packet cannot be received as two smaller packets");
    pages[4] = 4;
    for (unsigned i = 0; i < 3; i++) {
        pages[8] = (const uint8_t []){ 0, 5, 255 }[i];
        bad += transport_batch(b, RECEIVE, FIRST, N, p) != -EINVAL ||
               p->done != 8;
    }
    pages[8] = 4;
    bad += transport_batch(b, RECEIVE, FIRST, 10, p) != -EINVAL || p->done != 8;
    ok(!bad,
       "packets of 0, 5, 255, or more pages than the batch has fail with "
       "EINVAL");
    MUST(vm_convert(b, FIRST + 10 * PAGE, PAGE, SHARED));
    ok(transport_batch(b, RECEIVE, FIRST, N, p) == -EAGAIN && p->done == 8,
       "receiving a large packet into a shared page fails with EAGAIN after 8 "
       "pages");
    MUST(vm_convert(b, FIRST + 10 * PAGE, PAGE, PRIVATE));
}

/*
 * A receiver whose pages are not contiguous can still receive packets of
 * several pages: KVM replaces the pages by contiguous ones
 */
static void large_scattered(struct vm *a, struct vm *b, struct packets *p)
{
    struct packets rest = *p;
    int n;

    scatter(b, FIRST, N / 4);
    ok(!transport_batch(b, RECEIVE, FIRST, N, p) && p->done == N,
       "large packets can be received where the host's pages are not "
       "contiguous");
    scatter(a, LATER, 16);
    n = transport_batch(a, SEND, LATER, 64, &rest) ? -1 :
        count_packets(rest.pages, 64);
    ok(n > 32, "64 pages that are not contiguous are sent in %d packets", n);
    ok(!transport_batch(b, RECEIVE, LATER, 64, &rest),
       "packets of pages that are not contiguous can be received");
    scatter(b, FIRST, N / 4);
    MUST(transport_batch(a, SEND, FIRST + PAGE, N - 1, p));
    ok(!transport_batch(b, RECEIVE, FIRST + PAGE, N - 1, p),
       "packets of less than a block can be received into scattered pages");
    MUST(transport_batch(a, SEND, FIRST, N, p));
    MUST(transport_batch(b, RECEIVE, FIRST, N, p));
}

/* Packets of several pages */
static void large_packets(struct vm *a, struct vm *b)
{
    static uint8_t pages[N];
    struct packets p = { packets.headers, packets.data, pages };

    large(a, b, &p);
    large_forged(b, &p);
    large_scattered(a, b, &p);
}

static void wrong_vms(void)
{
    struct vm vm;
    struct kvm_sev_update_batch a = { 0 };

    vm_init(&vm, VM_SEV, GUEST_SIZE);
    MUST(vm_convert(&vm, 0, GUEST_SIZE, PRIVATE));
    ok(transport_batch(&vm, SEND, FIRST, 2, &packets) < 0 && !packets.done,
       "a batch of a VM whose SEND_START has not run is refused");
    vm_destroy(&vm);
    vm.fd = CHECK(ioctl(kvm_fd, KVM_CREATE_VM, KVM_X86_SEV_VM));
    ok(sev_cmd(&vm, SEND, &a) == -ENOTTY,
       "a batch of a VM without KVM_SEV_INIT2 fails with ENOTTY");
    ok(vm_cap(vm.fd, KVM_CAP_SEV_UPDATE_BATCH) == 1,
       "a VM without private memory offers batches with packets of one page");
    close(vm.fd);
}

/*
 * Batches also work for ordinary memory, of a VM without
 * KVM_CAP_SEV_PRIVATE_MEM
 */
static void ordinary(void)
{
    struct kvm_userspace_memory_region region = { .memory_size = GUEST_SIZE };
    struct vm from, to = { .type = VM_SEV, .size = GUEST_SIZE, .vcpu = -1 };
    struct kvm_sev_init init = { 0 };
    struct kvm_sev_update_batch probe = { .flags = LARGE };
    uint8_t pages[N];
    struct packets several = { packets.headers, packets.data, pages };

    vm_init(&from, VM_SEV, GUEST_SIZE);
    for (unsigned i = 0; i < N; i++) {
        memset(from.mem + FIRST + i * PAGE, i, PAGE);
        from.mem[FIRST + i * PAGE + PAGE - 1] = ~i;
    }
    to.fd = CHECK(ioctl(kvm_fd, KVM_CREATE_VM, VM_SEV));
    SEV_MUST(&to, KVM_SEV_INIT2, &init);
    to.mem = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    region.userspace_addr = (uintptr_t)to.mem;
    CHECK(ioctl(to.fd, KVM_SET_USER_MEMORY_REGION, &region));
    if (guest_launch(&from, FIRST + N * PAGE) || transport_start(&from, &to)) {
        bail("launch");
    }
    ok(sev_cmd(&to, RECEIVE, &probe) == -EINVAL &&
       !sev_cmd(&from, SEND, &probe) && !transport_batch(&from, SEND, FIRST, N,
                                                         &several) &&
       transport_batch(&to, RECEIVE, FIRST, N, &several) == -EINVAL,
       "a VM with ordinary memory cannot receive packets of several pages");
    ok(!transport_batch(&from, SEND, FIRST, N, &packets) &&
       !transport_batch(&to, RECEIVE, FIRST, N, &packets) && packets.done == N,
       "a VM with ordinary memory can receive batches with packets of one "
       "page");
    SEV_MUST(&to, KVM_SEV_RECEIVE_FINISH, NULL);
    arrived(&to);
    munmap(to.mem, GUEST_SIZE);
    close(to.fd);
    vm_destroy(&from);
}

static struct vm *busy;
static volatile bool stop, sending;
static volatile long calls, errors;

/* Call an ioctl that needs kvm->lock, repeatedly */
static void *run_status(void *opaque)
{
    while (!stop) {
        struct kvm_sev_guest_status status;

        if (sending && sev_cmd(busy, KVM_SEV_GUEST_STATUS, &status)) {
            errors++;
        } else if (sending) {
            calls++;
        }
    }
    return opaque;
}

static volatile long alarms;

static void on_alarm(int sig)
{
    alarms += sig == SIGALRM;
}

/*
 * Other ioctls and conversions can succeed while a batch runs.  The batch holds
 * kvm->lock and pins pages only for one command or one group at a time, so
 * between two commands or groups other threads can take the lock and convert
 * pages.
 */
static void beside(struct vm *vm)
{
    static uint8_t pages[N];
    struct itimerval every = { { 0, 2000 }, { 0, 2000 } }, never = { { 0 } };
    struct sigaction sa = { .sa_handler = on_alarm };
    struct vm_converter c = {
        .vm = vm, .offset = FIRST + 10 * PAGE, .size = 4 * PAGE,
    };
    long batches = 0, eagain = 0, other = 0, eintr = 0, done = 0;
    struct packets p = packets;
    pthread_t thread;

    busy = vm;
    stop = false;
    pthread_create(&thread, NULL, run_status, NULL);
    while (batches < 10 || calls < 20) {
        sending = true;
        other += transport_batch(vm, SEND, FIRST, N, &packets) != 0;
        sending = false;
        if (++batches > 500) {
            break;
        }
    }
    stop = true;
    pthread_join(thread, NULL);
    ok(!other && !errors && calls >= 20,
       "%ld calls that need the VM's lock succeed beside %ld batches", calls,
       batches);

    pthread_create(&thread, NULL, vm_run_converter, &c);
    for (batches = 0; batches < 60 || c.done < 100; batches++) {
        int r;

        p.pages = batches % 2 ? pages : NULL;
        r = transport_batch(vm, SEND, FIRST, N, &p);
        eagain += r == -EAGAIN;
        other += r && r != -EAGAIN;
        other += r == -EAGAIN && (p.done < 10 || p.done > 13);
        other += !r && p.done != N;
    }
    p.pages = NULL;
    c.stop = true;
    pthread_join(thread, NULL);
    MUST(vm_convert(vm, c.offset, c.size, PRIVATE));
    ok(!other && !errors && !c.errors,
       "%ld batches beside %ld conversions (%ld refused): %ld met a shared "
       "page, %ld failed otherwise", batches, c.done, c.refused, eagain, other);

    /* A signal ends a batch between two pages */
    CHECK(sigaction(SIGALRM, &sa, NULL));
    CHECK(setitimer(ITIMER_REAL, &every, NULL));
    for (int i = 0; i < 5; i++) {
        for (done = 0; done < N; done += p.done) {
            int r;

            p.headers = packets.headers + done;
            p.data = packets.data + done;
            r = transport_batch(vm, SEND, FIRST + done * PAGE, N - done, &p);
            eintr += r == -EINTR;
            other += r && r != -EINTR;
            other += !r && p.done != N - done;
            if (p.done > N - done) {
                break;
            }
        }
        other += done != N;
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL));
    ok(!other && eintr,
       "a batch that is interrupted %ld times by %ld signals sends all pages",
       eintr, alarms);
}

int main(void)
{
    struct vm a, b;

    vm_require(VM_SEV);
    ok(vm_cap(kvm_fd, KVM_CAP_SEV_UPDATE_BATCH) ==
       KVM_SEV_UPDATE_BATCH_PACKET_MAX,
       "KVM offers KVM_CAP_SEV_UPDATE_BATCH with the largest packet");
    packets_init(&packets, N);
    vm_init(&a, VM_SEV, GUEST_SIZE);
    vm_init(&b, VM_SEV, GUEST_SIZE);
    for (unsigned i = 0; i < N; i++) {
        memset(a.mem + FIRST + i * PAGE, i, PAGE);
        a.mem[FIRST + i * PAGE + PAGE - 1] = ~i;
    }
    if (!ok(!guest_launch(&a, FIRST + N * PAGE),
            "a guest with pages for batches runs") ||
        !ok(!transport_start(&a, &b),
            "SEND_START and RECEIVE_START succeed before the batches")) {
        return done_testing();
    }
    MUST(vm_convert(&b, 0, GUEST_SIZE, PRIVATE));
    both_ways(&a, &b);
    arguments(&a);
    partial(&a, &b);
    large_packets(&a, &b);
    beside(&a);
    ok(!transport_batch(&a, SEND, FIRST, N, &packets) &&
       !transport_batch(&b, RECEIVE, FIRST, N, &packets),
       "all pages can be sent and received once more after the tests");
    ok(!sev_cmd(&a, KVM_SEV_SEND_FINISH, NULL) &&
       !sev_cmd(&b, KVM_SEV_RECEIVE_FINISH, NULL),
       "SEND_FINISH and RECEIVE_FINISH succeed after batches");
    arrived(&b);
    ok(transport_batch(&b, RECEIVE, FIRST, 1, &packets) < 0 && !packets.done,
       "no page can be received in a batch after RECEIVE_FINISH");
    vm_destroy(&a);
    vm_destroy(&b);
    wrong_vms();
    ordinary();
    return done_testing();
}
