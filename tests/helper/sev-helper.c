/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The migration helper in SEV VMs.  The test launches the helper together with
 * a guest.  The firmware moves the helper's pages to another VM.  Then the
 * helpers of the two VMs move all other pages.
 *
 * The VMs have ordinary memory.  With the module of this project, the test
 * repeats all cases with VMs whose memory is a guest_memfd.  BUILD is the
 * directory in which the helper was built.
 */
#define _GNU_SOURCE
#include "../l1/sev-transport.h"
#include "../../pc-bios/sev-migration-helper/mh.h"

#define SIZE            (32ULL << 20)
#define RAM_SIZE        (2ULL << 20)
#define PRIVATE_GPA     (4ULL << 20)
#define SHARED_GPA      (8ULL << 20)
#define PAGES           256
#define FIRST           0x10
#define HELPERS         2
#define VCPU_ID         100

struct helper {
    int fd;
    struct kvm_run *run;
    MhMailbox *mailbox;
    MhPage *pages;
    uint8_t *data;
};

static bool in_memfd;

static void pattern(uint8_t *p, uint64_t page)
{
    uint64_t *words = (uint64_t *)p;

    for (unsigned i = 0; i < PAGE / 8; i++) {
        words[i] = (page << 16 | i) * 0x9e3779b97f4a7c15ULL;
    }
}

/* A VM with all its memory in one slot */
static void new_vm(struct vm *vm)
{
    struct kvm_userspace_memory_region slot = { .memory_size = SIZE };
    struct kvm_enc_region region = { .size = SIZE };
    struct kvm_sev_init init = { 0 };
    uint32_t a, b, c, d;

    if (in_memfd) {
        vm_init(vm, VM_SEV, SIZE);
        MUST(vm_convert(vm, 0, RAM_SIZE, PRIVATE));
        MUST(vm_convert(vm, PRIVATE_GPA, MH_PRIVATE_SIZE, PRIVATE));
        return;
    }
    *vm = (struct vm) { .type = VM_SEV, .size = SIZE, .vcpu = -1, .gmem = -1 };
    vm->fd = CHECK(ioctl(kvm_fd, KVM_CREATE_VM, KVM_X86_SEV_VM));
    SEV_MUST(vm, KVM_SEV_INIT2, &init);
    __cpuid(0x8000001f, a, b, c, d);
    vm->cbit = 1ULL << (b & 63);
    vm->mem = mmap(NULL, SIZE + PAGE, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    region.addr = slot.userspace_addr = (uintptr_t)vm->mem;
    CHECK(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot));
    CHECK(ioctl(vm->fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region));
}

static void read_image(uint8_t *image)
{
    const char *build = getenv("BUILD");
    char path[4096];
    FILE *f;

    snprintf(path, sizeof(path), "%s/helper/sev-migration-helper.bin",
             build ? build : "/b");
    f = fopen(path, "rb");
    if (!f || !fread(image, 1, MH_TABLES, f)) {
        bail("%s", path);
    }
    fclose(f);
}

static void launch_data(struct vm *vm, uint64_t gpa, uint64_t size)
{
    struct kvm_sev_launch_update_data args = {
        .uaddr = (uintptr_t)vm->mem + gpa, .len = size,
    };

    SEV_MUST(vm, KVM_SEV_LAUNCH_UPDATE_DATA, &args);
}

/*
 * Launch a guest that has PAGES pages with contents, together with the helper
 */
static void launch(struct vm *vm)
{
    static uint8_t image[MH_PRIVATE_SIZE];
    struct kvm_sev_launch_start start = { 0 };
    uint8_t digest[48];
    struct kvm_sev_launch_measure measure = { (uintptr_t)digest, 48 };

    read_image(image);
    if (in_memfd) {
        vm_init(vm, VM_SEV, SIZE);
    } else {
        new_vm(vm);
    }
    mh_image_prepare(image, PRIVATE_GPA, SHARED_GPA, vm->cbit, 1ULL << 40);
    memcpy(vm->mem + PRIVATE_GPA, image, sizeof(image));
    memset(vm->mem, 0, RAM_SIZE);
    for (uint64_t i = 0; i < PAGES; i++) {
        pattern(vm->mem + (FIRST + i) * PAGE, i);
    }
    if (in_memfd) {
        MUST(vm_convert(vm, 0, RAM_SIZE, PRIVATE));
        MUST(vm_convert(vm, PRIVATE_GPA, MH_PRIVATE_SIZE, PRIVATE));
    }
    SEV_MUST(vm, KVM_SEV_LAUNCH_START, &start);
    launch_data(vm, 0, RAM_SIZE);
    launch_data(vm, PRIVATE_GPA, MH_PRIVATE_SIZE);
    SEV_MUST(vm, KVM_SEV_LAUNCH_MEASURE, &measure);
    SEV_MUST(vm, KVM_SEV_LAUNCH_FINISH, NULL);
}

/* Create helper vCPU @n in the state that the specification requires */
static void helper_new(struct vm *vm, struct helper *helper, unsigned n)
{
    const MhImage *image;
    static uint8_t file[MH_TABLES];
    struct kvm_regs regs = { .rdi = n, .rflags = 2 };
    uint8_t *shared = vm->mem + SHARED_GPA + n * MH_CPU_SHARED_SIZE;
    struct kvm_sregs sregs;

    read_image(file);
    image = (const MhImage *)file;
    regs.rip = MH_VA + image->entry;
    *helper = (struct helper) {
        .fd = CHECK(ioctl(vm->fd, KVM_CREATE_VCPU, VCPU_ID + n)),
        .mailbox = (void *)(shared + MH_MAILBOX),
        .pages = (void *)(shared + MH_PAGES), .data = shared + MH_DATA,
    };
    helper->run = mmap(NULL, CHECK(ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0)),
                       PROT_READ | PROT_WRITE, MAP_SHARED, helper->fd, 0);
    guest_cpuid(helper->fd);
    CHECK(ioctl(helper->fd, KVM_GET_SREGS, &sregs));
    sregs.cr0 = 0x80010033;
    sregs.cr4 = 0x40620;
    sregs.efer = 0xd00;
    sregs.cr3 = (PRIVATE_GPA + MH_PML4) | vm->cbit;
    sregs.apic_base &= ~0x800ULL;
    guest_segment(&sregs.cs, 11, true);
    guest_segment(&sregs.ds, 3, false);
    sregs.es = sregs.ss = sregs.fs = sregs.gs = sregs.ds;
    CHECK(ioctl(helper->fd, KVM_SET_SREGS, &sregs));
    CHECK(ioctl(helper->fd, KVM_SET_REGS, &regs));
}

/* Returns the status of the command, or -1 if the vCPU does not complete it */
static int command(struct helper *helper, uint32_t what)
{
    helper->mailbox->command = what;
    helper->mailbox->status = MH_RUNNING;
    for (;;) {
        int r = xioctl(helper->fd, KVM_RUN, NULL);
        struct kvm_regs regs;

        if (r == -EINTR || r == -EAGAIN) {
            continue;
        }
        if (!r && helper->run->exit_reason == KVM_EXIT_IO &&
            helper->run->io.port == MH_PORT) {
            return helper->mailbox->status;
        }
        CHECK(ioctl(helper->fd, KVM_GET_REGS, &regs));
        note("command %u: %s, exit %u, rip 0x%llx", what, strerror(-r),
             helper->run->exit_reason, regs.rip);
        return -1;
    }
}

/* Are the registers, which the VMM of an SEV guest sees, clear? */
static bool registers_are_clear(struct helper *helper, unsigned n)
{
    struct kvm_regs r;
    struct kvm_xsave xsave;
    uint8_t *bytes = (uint8_t *)&xsave;
    uint64_t any;
    unsigned i;

    CHECK(ioctl(helper->fd, KVM_GET_REGS, &r));
    any = r.rax | r.rbx | r.rcx | r.rdx | r.rsi | r.rbp | r.rsp | r.r8 | r.r9 |
        r.r10 | r.r11 | r.r12 | r.r13 | r.r14 | r.r15;
    CHECK(ioctl(helper->fd, KVM_GET_XSAVE, &xsave));
    for (i = 0; i < 256; i++) {
        any |= bytes[160 + i] | bytes[576 + i];     /* XMM, upper YMM */
    }
    return !any && r.rdi == n;
}

static int carry(struct helper *from, struct helper *to, unsigned channel,
                 uint64_t page, unsigned count)
{
    int r;

    from->mailbox->channel = channel;
    from->mailbox->count = count;
    for (unsigned i = 0; i < count; i++) {
        from->pages[i].gpa = (page + i) * PAGE;
    }
    r = command(from, MH_SEAL);
    if (r) {
        return r;
    }
    to->mailbox->batch = from->mailbox->batch;
    to->mailbox->alias = 0;
    memcpy(to->pages, from->pages, count * sizeof(MhPage));
    memcpy(to->data, from->data, count * PAGE);
    return command(to, MH_OPEN);
}

static int wrong_pages(struct vm *vm)
{
    static uint8_t page[PAGE], want[PAGE];
    int wrong = 0;

    for (uint64_t i = 0; i < PAGES; i++) {
        struct kvm_sev_dbg dbg = {
            .src_uaddr = (uintptr_t)vm->mem + (FIRST + i) * PAGE,
            .dst_uaddr = (uintptr_t)page, .len = PAGE,
        };

        SEV_MUST(vm, KVM_SEV_DBG_DECRYPT, &dbg);
        pattern(want, i);
        wrong += memcmp(page, want, PAGE) != 0;
    }
    return wrong;
}

static void test_refusals(struct helper *from, struct helper *to)
{
    ok(carry(from, to, 0, FIRST, 1) == 0,
       "the receiving helper opens a page that the sending helper sealed");
    ok(command(to, MH_OPEN) == MH_ERR_REPLAYED,
       "the helper refuses a batch that it has opened before");
    to->data[100] ^= 1;
    to->mailbox->batch.sequence++;
    ok(command(to, MH_OPEN) == MH_ERR_TAG,
       "the helper refuses a batch whose header was changed");
    from->pages[0].gpa = PRIVATE_GPA + PAGE;
    ok(command(from, MH_SEAL) == MH_ERR_ADDRESS,
       "the helper does not seal its own pages");
    ok(command(from, MH_OPEN) == MH_ERR_STATE &&
       command(to, MH_SEAL) == MH_ERR_STATE,
       "a sending helper does not open, and a receiving helper does not seal");
}

static void test(bool memfd)
{
    struct vm a, b;
    struct helper from[HELPERS], to[HELPERS];
    static uint8_t page[PAGE];
    struct packet packet;
    int failed = 0;

    in_memfd = memfd;
    note("%s", memfd ? "guest_memfd" : "ordinary memory");
    launch(&a);
    for (unsigned n = 0; n < HELPERS; n++) {
        helper_new(&a, &from[n], n);
    }
    ok(!command(&from[0], MH_QUERY) && from[0].mailbox->state == MH_LAUNCHED &&
       from[0].mailbox->impl, "the helper runs in the source");
    note("implementation %u", from[0].mailbox->impl);
    ok(!command(&from[1], MH_NEW_KEY) && !command(&from[0], MH_QUERY) &&
       from[0].mailbox->state == MH_KEYED,
       "both vCPUs of the helper have the same key");
    new_vm(&b);
    MUST(transport_start(&a, &b));
    for (uint64_t i = 0; i < MH_PRIVATE_SIZE; i += PAGE) {
        failed += transport_send(&a, PRIVATE_GPA + i, &packet) ||
            transport_receive(&b, PRIVATE_GPA + i, &packet);
    }
    ok(!failed && !sev_cmd(&b, KVM_SEV_RECEIVE_FINISH, NULL),
       "the firmware sends and receives the helper's private memory");
    for (unsigned n = 0; n < HELPERS; n++) {
        helper_new(&b, &to[n], n);
    }
    ok(!command(&from[0], MH_SEND) && !command(&to[0], MH_RECEIVE),
       "one helper becomes the sender and the other the receiver");
    test_refusals(&from[0], &to[0]);
    for (unsigned i = 0; i < PAGES; i += 32) {
        unsigned n = i / 32 % HELPERS;

        failed += carry(&from[n], &to[n], n, FIRST + i, 32) != 0;
    }
    ok(!failed, "%d pages go from helper to helper", PAGES);
    /*
     * from[0].data contains the last batch that from[0] sealed.  Search it for
     * the first 16 bytes of plaintext of the batch's first page.  As a control,
     * write these bytes to the end of the batch and search again: this search
     * must find them.
     */
    pattern(page, PAGES - 64);
    ok(!memmem(from[0].data, 32 * PAGE, page, 16),
       "the VMM finds only ciphertext in the pages that the helper sealed");
    memcpy(from[0].data + 32 * PAGE - 16, page, 16);
    ok(memmem(from[0].data, 32 * PAGE, page, 16),
       "the VMM would find plaintext in the pages that the helper sealed");
    ok(registers_are_clear(&from[1], 1) && registers_are_clear(&to[1], 1),
       "registers are clear when the helper exits");
    from[0].mailbox->channel = 0;
    ok(!command(&from[0], MH_SEAL_END),
       "the sending helper seals the end of the migration");
    to[1].mailbox->batch = from[0].mailbox->batch;
    ok(!command(&to[1], MH_OPEN) && to[1].mailbox->state == MH_ENDED,
       "the receiving helper accepts the end of the migration");
    ok(!wrong_pages(&b),
       "all pages that the helpers moved have the right contents in the "
       "destination");
    ok(!sev_cmd(&a, KVM_SEV_SEND_FINISH, NULL),
       "SEND_FINISH succeeds after the helpers moved the pages");
    for (unsigned n = 0; n < HELPERS; n++) {
        close(from[n].fd);
        close(to[n].fd);
    }
    close(a.fd);
    close(b.fd);
}

int main(void)
{
    alarm(200);
    kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    sev_fd = open("/dev/sev", O_RDWR | O_CLOEXEC);
    if (kvm_fd < 0 || sev_fd < 0) {
        skip_all("no SEV");
    }
    test(false);
    if (vm_cap(kvm_fd, KVM_CAP_PAGE_ENC_BITMAP) == 1) {
        test(true);
    }
    return done_testing();
}
