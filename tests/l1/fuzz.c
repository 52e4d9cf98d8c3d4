/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Make ioctls with random arguments, many of them boundary values, and compare
 * the result of each ioctl and the state of the pages with a model.
 *
 *   l1-fuzz [SECONDS [SEED]]
 *
 * The program runs the seeds of fuzz-seeds.h first, and then new random seeds
 * for SECONDS.  Without arguments, it runs 10 seconds with consecutive seeds
 * from FIRST_SEED on.  For a failed seed it prints the command that repeats the
 * failure: "l1-fuzz 0 SEED".
 */
#define _GNU_SOURCE
#include <sys/random.h>
#include <sys/utsname.h>
#include "sev-transport.h"

#define STEPS           150
#define FILES           2
#define FILE_PAGES      256ULL
#define SLOTS           4
#define GFNS            4096            /* the model has gfns below this one */
#define ANON_PAGES      64
#define BUFFER          8192
#define FIRST_SEED      0x1000

struct slot {
    bool used, gmem;
    int file;
    uint64_t gfn, pages, offset, address;
    uint32_t flags;
};

static struct {
    struct vm vm;                       /* its guest_memfd is file 0 */
    int fd[FILES];
    uint8_t *map[FILES], *anon;
    bool private[FILES][FILE_PAGES];
    struct slot slot[SLOTS];
    uint64_t generation;
    uint8_t bits[BUFFER];               /* bitmap with this generation */
    uint64_t bits_first, bits_pages;
} m;

/*
 * @buffer has BUFFER bytes, and the memory after it is not mapped.  @read_only
 * is a page that cannot be written.
 */
static uint8_t *buffer, *read_only;
static uint64_t state;
static char what[512];
static bool failed, forgetful;
static long calls, refused, by_call[16];

static const uint64_t replay[] = {
#include "fuzz-seeds.h"
};

static uint64_t rnd(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15ULL;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

static uint64_t below(uint64_t n)
{
    return rnd() % n;
}

static bool one_in(uint64_t n)
{
    return !below(n);
}

/* A random number, often a boundary value */
static uint64_t odd(void)
{
    static const uint64_t odds[] = {
        0, 1, 7, 0xfff, 0x1000, 0x1001, 0x7fffffff, 0x80000000, 0xffffffff,
        0x100000000, 1ULL << 47, (1ULL << 47) - PAGE, 1ULL << 51, 1ULL << 52,
        (1ULL << 52) - 1, 1ULL << 62, (1ULL << 63) - 1, 1ULL << 63,
        -PAGE, -PAGE - 1, -1ULL,
    };

    return one_in(4) ? rnd() : odds[below(sizeof(odds) / sizeof(odds[0]))];
}

static void __attribute__((format(printf, 1, 2))) fail(const char *fmt, ...)
{
    va_list ap;

    failed = true;
    printf("# %s: ", what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

/* Check a call's result.  @want is 0 or -errno, or 1 if any result is right. */
static void expect(int got, int want)
{
    calls++;
    refused += got < 0;
    if (want != 1 && (got < 0 ? got : 0) != want) {
        fail("%s, not %s", strerror(got < 0 ? -got : 0), strerror(-want));
    }
}

/*
 * Returns the address to pass to an ioctl whose argument is @args: usually that
 * of a copy of @args in @buffer.  At random, the function instead sets
 * @no_write and returns the address of a copy in a page that the kernel cannot
 * write, or sets @fault and returns an address that the kernel cannot read.
 */
static void *place(const void *args, size_t size, bool *fault, bool *no_write)
{
    uint8_t *p = buffer + BUFFER - 512;

    *fault = *no_write = false;
    if (one_in(16)) {
        *no_write = true;
        mprotect(read_only, PAGE, PROT_READ | PROT_WRITE);
        memcpy(read_only, args, size);
        mprotect(read_only, PAGE, PROT_READ);
        return read_only;
    }
    if (one_in(16)) {
        void *const bad[] = {
            NULL, (void *)0x1000, (void *)-4096, (void *)(1ULL << 63),
            buffer + BUFFER - size + 1,
        };

        *fault = true;
        return bad[below(5)];
    }
    memcpy(p, args, size);
    return p;
}

/* The slot that contains @gfn, or NULL */
static struct slot *slot_of(uint64_t gfn)
{
    for (int i = 0; i < SLOTS; i++) {
        struct slot *s = &m.slot[i];

        if (s->used && gfn >= s->gfn && gfn - s->gfn < s->pages) {
            return s;
        }
    }
    return NULL;
}

static bool is_private(uint64_t gfn)
{
    struct slot *s = slot_of(gfn);

    return s && s->gmem && m.private[s->file][s->offset + gfn - s->gfn];
}

static void convert(void)
{
    int f = below(FILES);
    struct kvm_memory_attributes2 args = {
        .attributes = one_in(2) ? PRIVATE : SHARED, .error_offset = rnd(),
    }, *p;
    bool fault, no_write;
    uint64_t end = 0;
    int want = 0;

    args.offset = below(FILE_PAGES) * PAGE;
    args.size = (1 + below(FILE_PAGES - args.offset / PAGE)) * PAGE;
    if (one_in(3)) {
        __u64 *fields[] = {
            &args.offset, &args.size, &args.attributes, &args.flags,
            &args.reserved[below(11)], &args.offset, &args.size,
        };

        *fields[below(7)] = odd();
    }
    snprintf(what, sizeof(what), "convert file %d offset %#llx size %#llx "
             "attributes %#llx flags %#llx", f, (long long)args.offset,
             (long long)args.size, (long long)args.attributes,
             (long long)args.flags);
    p = place(&args, sizeof(args), &fault, &no_write);
    if (fault) {
        want = -EFAULT;
    } else if (args.flags || (args.attributes & ~PRIVATE) || !args.size ||
               args.offset % PAGE || args.size % PAGE ||
               __builtin_add_overflow(args.offset, args.size, &end) ||
               end > FILE_PAGES * PAGE) {
        want = -EINVAL;
    }
    for (int i = 0; i < 11; i++) {
        want = !want && args.reserved[i] ? -EINVAL : want;
    }
    if (want && no_write) {
        want = -EFAULT;     /* error_offset cannot be written */
    }
    expect(xioctl(m.fd[f], KVM_SET_MEMORY_ATTRIBUTES2, p), want);
    if (want == -EINVAL && p->error_offset != args.offset) {
        fail("error_offset %#llx", (long long)p->error_offset);
    }
    if (want || forgetful) {
        return;
    }
    for (uint64_t i = args.offset / PAGE; i < end / PAGE; i++) {
        m.private[f][i] = args.attributes;
    }
}

/* Choose the arguments of KVM_GET_PAGE_ENC_BITMAP, except for the buffer */
static struct kvm_page_enc_bitmap bitmap_args(void)
{
    static const uint64_t some[] = { 1, 7, 8, 9, 63, 64, 65, 4095 };
    struct kvm_page_enc_bitmap args = {
        .start_gfn = below(GFNS), .num_pages = 1 + below(GFNS),
    };

    if (one_in(3)) {
        args.num_pages = some[below(8)];
    }
    if (one_in(3)) {
        args.flags = KVM_PAGE_ENC_BITMAP_IF_CHANGED;
        args.generation = one_in(8) ? odd() : m.generation;
        args.start_gfn = m.bits_pages ? m.bits_first : 0;
        args.num_pages = m.bits_pages ? m.bits_pages : 1;
    }
    if (one_in(3)) {
        __u64 *fields[] = {
            &args.start_gfn, &args.num_pages, &args.flags,
            &args.reserved[below(3)], &args.start_gfn, &args.num_pages,
        };

        *fields[below(6)] = odd();
    }
    if (one_in(8)) {
        args.start_gfn = (1ULL << 52) - args.num_pages + below(2);
    }
    return args;
}

static uint64_t bitmap_bytes(const struct kvm_page_enc_bitmap *args)
{
    return args->num_pages / 8 + !!(args->num_pages % 8);
}

/*
 * Let the bitmap begin at the start of @buffer or end at its middle, or pass an
 * address that the kernel cannot write
 */
static uint8_t *bitmap_buffer(uint64_t bytes)
{
    uint8_t *to = buffer;

    if (bytes <= BUFFER / 2) {
        to = buffer + (one_in(2) ? 0 : BUFFER / 2 - bytes);
    }
    if (one_in(12)) {
        to = one_in(2) ? read_only : (uint8_t *)odd();
    }
    return to;
}

/*
 * Returns the result that KVM_GET_PAGE_ENC_BITMAP must have, or 1 for any.
 * @no_write: the argument cannot be written.
 */
static int bitmap_result(const struct kvm_page_enc_bitmap *args, bool no_write)
{
    uint8_t *to = (uint8_t *)(uintptr_t)args->enc_bitmap;
    uint64_t bytes = bitmap_bytes(args), end;

    if ((args->flags & ~KVM_PAGE_ENC_BITMAP_IF_CHANGED) ||
        args->reserved[0] || args->reserved[1] || args->reserved[2] ||
        !args->num_pages ||
        __builtin_add_overflow(args->start_gfn, args->num_pages, &end) ||
        end > 1ULL << 52) {
        return -EINVAL;
    }
    if (to < buffer || to > buffer + BUFFER / 2) {
        return -EFAULT;
    }
    if (bytes > (uint64_t)(buffer + BUFFER - to) || no_write) {
        return -EFAULT;
    }
    /*
     * The bitmap and the argument may overlap in @buffer, so the test checks
     * neither
     */
    return bytes > BUFFER / 2;
}

/*
 * KVM has returned "unchanged" in @p for the arguments @args.  The pages must
 * have the state that they had in the last bitmap.
 */
static void bitmap_unchanged(const struct kvm_page_enc_bitmap *args,
                             const struct kvm_page_enc_bitmap *p)
{
    if (!(args->flags & KVM_PAGE_ENC_BITMAP_IF_CHANGED) ||
        p->generation != args->generation || p->generation != m.generation) {
        fail("unchanged since generation %lld", (long long)p->generation);
    }
    for (uint64_t i = 0; i < m.bits_pages; i++) {
        if ((m.bits[i / 8] >> (i % 8) & 1) != is_private(m.bits_first + i)) {
            fail("unchanged, but gfn %#llx is not",
                 (long long)(m.bits_first + i));
            break;
        }
    }
}

/*
 * Check the bitmap that KVM has written for the arguments @args, and all bits
 * beside it.  Returns whether the bitmap is right.
 */
static bool bitmap_right(const struct kvm_page_enc_bitmap *args)
{
    const uint8_t *to = (uint8_t *)(uintptr_t)args->enc_bitmap;
    uint64_t bytes = bitmap_bytes(args), n = args->num_pages;

    for (uint64_t i = 0; i < bytes * 8; i++) {
        bool is = to[i / 8] >> (i % 8) & 1;

        if (is != (i < n ? is_private(args->start_gfn + i) : 0xa5 >> (i % 8) & 1)) {
            fail("gfn %#llx is %s", (long long)(args->start_gfn + i),
                 is ? "private" : "shared");
            return false;
        }
    }
    if (to[bytes] != 0xa5 || (to > buffer && to[-1] != 0xa5)) {
        fail("a byte beside the bitmap was written");
    }
    return true;
}

static void bitmap(void)
{
    struct kvm_page_enc_bitmap args = bitmap_args(), *p;
    uint8_t *to = bitmap_buffer(bitmap_bytes(&args));
    bool fault, no_write;
    int want, r;

    args.enc_bitmap = (uintptr_t)to;
    snprintf(what, sizeof(what), "bitmap gfn %#llx pages %#llx at %p flags "
             "%#llx generation %lld", (long long)args.start_gfn,
             (long long)args.num_pages, to, (long long)args.flags,
             (long long)args.generation);
    memset(buffer, 0xa5, BUFFER);
    p = place(&args, sizeof(args), &fault, &no_write);
    want = fault ? -EFAULT : bitmap_result(&args, no_write);
    r = xioctl(m.vm.fd, KVM_GET_PAGE_ENC_BITMAP, p);
    if (!r && want == -EFAULT && !no_write && !fault &&
        (p->flags & KVM_PAGE_ENC_BITMAP_UNCHANGED)) {
        want = 0;       /* KVM does not write an unchanged bitmap */
    }
    expect(r, want);
    if (r || want) {
        return;
    }
    if (!p->generation) {
        fail("no generation");
    }
    if (p->flags & KVM_PAGE_ENC_BITMAP_UNCHANGED) {
        bitmap_unchanged(&args, p);
    } else if (bitmap_right(&args)) {
        m.generation = p->generation;
        m.bits_first = args.start_gfn;
        m.bits_pages = args.num_pages;
        memcpy(m.bits, to, bitmap_bytes(&args));
    }
}

static bool slots_overlap(int id, uint64_t gfn, uint64_t pages)
{
    for (int i = 0; i < SLOTS; i++) {
        if (i != id && m.slot[i].used && gfn < m.slot[i].gfn + m.slot[i].pages &&
            m.slot[i].gfn < gfn + pages) {
            return true;
        }
    }
    return false;
}

/* Are the fields of @r valid, whatever slots there are? */
static bool is_region(const struct kvm_userspace_memory_region2 *r)
{
    const uint32_t gmem = KVM_MEM_GUEST_MEMFD, log = KVM_MEM_LOG_DIRTY_PAGES;
    bool is_gmem = r->flags & gmem;
    uint64_t end;

    if ((r->flags & ~(log | gmem | (is_gmem ? 0 : KVM_MEM_READONLY))) ||
        r->memory_size % PAGE || r->guest_phys_addr % PAGE ||
        r->userspace_addr % PAGE ||
        __builtin_add_overflow(r->userspace_addr, r->memory_size, &end) ||
        end > (1ULL << 47) - PAGE) {
        return false;
    }
    if (is_gmem && (r->guest_memfd_offset % PAGE ||
                    r->guest_memfd_offset + r->memory_size <
                    r->guest_memfd_offset)) {
        return false;
    }
    return r->slot < SLOTS &&
           r->guest_phys_addr + r->memory_size >= r->guest_phys_addr &&
           r->memory_size / PAGE <= 0x7fffffff;
}

/* Can the used slot @s be changed to @r, which is not a deletion? */
static bool can_change(const struct slot *s,
                       const struct kvm_userspace_memory_region2 *r, int file,
                       bool foreign)
{
    if (r->flags & KVM_MEM_GUEST_MEMFD &&
        (!s->gmem || foreign || file != s->file ||
         r->guest_phys_addr / PAGE != s->gfn ||
         r->guest_memfd_offset / PAGE != s->offset)) {
        return false;
    }
    return r->userspace_addr == s->address &&
           r->memory_size / PAGE == s->pages &&
           !((r->flags ^ s->flags) & (KVM_MEM_READONLY | KVM_MEM_GUEST_MEMFD));
}

/* Does a slot have one of the @pages pages of file @file from @first on? */
static bool files_overlap(int file, uint64_t first, uint64_t pages)
{
    for (int i = 0; i < SLOTS; i++) {
        const struct slot *o = &m.slot[i];

        if (o->used && o->gmem && o->file == file &&
            first < o->offset + o->pages && o->offset < first + pages) {
            return true;
        }
    }
    return false;
}

/*
 * Linux 7.2 binds a slot to its guest_memfd before it checks the slot's address,
 * and Linux 7.3 after that
 */
static bool binds_first(void)
{
    struct utsname name;
    int major, minor;

    return !uname(&name) &&
           sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
           (major < 7 || (major == 7 && minor < 3));
}

/*
 * Returns the result that KVM_SET_USER_MEMORY_REGION2 must have for @r, and
 * updates the model if the call must succeed.  @foreign: r->guest_memfd is not
 * a guest_memfd of this VM.
 */
static int set_region(const struct kvm_userspace_memory_region2 *r, int file,
                      bool foreign)
{
    uint64_t pages = r->memory_size / PAGE, gfn = r->guest_phys_addr / PAGE;
    uint64_t offset = r->guest_memfd_offset / PAGE;
    bool is_gmem = r->flags & KVM_MEM_GUEST_MEMFD, bound, too_high;
    struct slot *s;

    if (!is_region(r)) {
        return -EINVAL;
    }
    s = &m.slot[r->slot];
    if (!r->memory_size) {
        if (!s->used) {
            return -EINVAL;
        }
        s->used = false;
        return 0;
    }
    if (s->used && !can_change(s, r, file, foreign)) {
        return -EINVAL;
    }
    if ((!s->used || gfn != s->gfn) && slots_overlap(r->slot, gfn, pages)) {
        return -EEXIST;
    }
    if (!s->used && is_gmem) {
        if (foreign) {
            return r->guest_memfd == ~0U ? -EBADF : -EINVAL;
        }
        if (r->guest_memfd_offset + r->memory_size > FILE_PAGES * PAGE) {
            return -EINVAL;
        }
    }
    bound = !s->used && is_gmem && files_overlap(file, offset, pages);
    too_high = gfn + pages > 1ULL << 40;
    if (bound && (!too_high || binds_first())) {
        return -EEXIST;
    }
    if (too_high) {
        return -EINVAL;
    }
    *s = (struct slot) {
        .used = true, .gmem = is_gmem, .file = file, .gfn = gfn,
        .pages = pages, .offset = is_gmem ? offset : 0,
        .address = r->userspace_addr, .flags = r->flags,
    };
    return 0;
}

static void region(void)
{
    int file = below(FILES), want;
    bool fault, no_write, foreign = false;
    struct kvm_userspace_memory_region2 r = {
        .slot = below(SLOTS), .flags = one_in(2) ? KVM_MEM_LOG_DIRTY_PAGES : 0,
    };
    const struct slot *s = &m.slot[r.slot];

    if (s->used && !one_in(4)) {        /* change it, or delete it */
        file = s->file;
        r.flags |= s->flags & ~KVM_MEM_LOG_DIRTY_PAGES;
        r.guest_phys_addr = s->gfn * PAGE;
        r.memory_size = one_in(3) ? 0 : s->pages * PAGE;
        r.userspace_addr = s->address;
        r.guest_memfd_offset = s->offset * PAGE;
    } else if (r.slot == SLOTS - 1) {   /* no guest_memfd */
        r.guest_phys_addr = below(GFNS - ANON_PAGES) * PAGE;
        r.memory_size = (1 + below(ANON_PAGES)) * PAGE;
        r.userspace_addr = (uintptr_t)m.anon;
    } else {
        uint64_t first = below(FILE_PAGES);

        r.flags |= KVM_MEM_GUEST_MEMFD;
        r.guest_phys_addr = below(GFNS - FILE_PAGES) * PAGE;
        r.memory_size = (1 + below(FILE_PAGES - first)) * PAGE;
        r.guest_memfd_offset = first * PAGE;
        r.userspace_addr = (uintptr_t)m.map[file] + first * PAGE;
    }
    r.guest_memfd = m.fd[file];
    if (one_in(3)) {
        uint64_t bad = odd();

        switch (below(7)) {
        case 0: r.flags ^= 1U << below(32); break;
        case 1: r.slot = one_in(2) ? bad | 1U << 20 : below(SLOTS); break;
        case 2: r.guest_phys_addr = bad; break;
        case 3: r.memory_size = bad; break;
        case 4: r.userspace_addr = bad; break;
        case 5: r.guest_memfd_offset = bad; break;
        case 6: foreign = true; r.guest_memfd = one_in(2) ? -1 : kvm_fd; break;
        }
    }
    snprintf(what, sizeof(what), "region slot %#x flags %#x gpa %#llx size %#llx "
             "address %#llx file %d (%s) offset %#llx", r.slot, r.flags,
             (long long)r.guest_phys_addr, (long long)r.memory_size,
             (long long)r.userspace_addr, file, foreign ? "no" : "yes",
             (long long)r.guest_memfd_offset);
    /* Skip calls that would succeed but create a slot outside of the model */
    if (r.guest_phys_addr / PAGE + r.memory_size / PAGE > GFNS &&
        r.guest_phys_addr / PAGE + r.memory_size / PAGE <= 1ULL << 40 &&
        r.memory_size) {
        return;
    }
    if (!(r.flags & KVM_MEM_GUEST_MEMFD) && r.memory_size > ANON_PAGES * PAGE &&
        r.memory_size < 1ULL << 47) {
        return;
    }
    if (!place(&r, sizeof(r), &fault, &no_write) || fault) {
        void *p = (void *)0x1000;

        expect(xioctl(m.vm.fd, KVM_SET_USER_MEMORY_REGION2, p), -EFAULT);
        return;
    }
    want = set_region(&r, file, foreign);
    expect(xioctl(m.vm.fd, KVM_SET_USER_MEMORY_REGION2, &r), want);
}

/*
 * The attributes are in the guest_memfds, so KVM refuses to set attributes of
 * the VM
 */
static void vm_attributes(void)
{
    struct kvm_memory_attributes args = {
        .address = below(GFNS) * PAGE, .attributes = one_in(2) ? PRIVATE : 0,
    };

    args.size = (1 + below(GFNS - args.address / PAGE)) * PAGE;
    if (one_in(3)) {
        switch (below(4)) {
        case 0: args.address += 1 + below(PAGE - 1); break;
        case 1: args.size = one_in(2) ? 0 : 1 + below(PAGE - 1); break;
        case 2: args.attributes = 1ULL << below(64); break;
        case 3: args.flags = odd() | 1; break;
        }
    }
    snprintf(what, sizeof(what), "VM attributes %#llx size %#llx are %#llx flags "
             "%#llx", (long long)args.address, (long long)args.size,
             (long long)args.attributes, (long long)args.flags);
    expect(xioctl(m.vm.fd, KVM_SET_MEMORY_ATTRIBUTES, &args), -EINVAL);
}

static void enable_cap(void)
{
    static const int types[] = { KVM_X86_DEFAULT_VM, KVM_X86_SW_PROTECTED_VM,
                                 KVM_X86_SEV_VM };
    struct kvm_enable_cap cap = { .cap = KVM_CAP_SEV_PRIVATE_MEM };
    int type = types[below(3)], fd, vcpu = -1, want = 0;
    bool busy = one_in(3), slot = busy && one_in(2), fault, no_write;

    fd = CHECK(ioctl(kvm_fd, KVM_CREATE_VM, type));
    if (slot) {
        struct kvm_userspace_memory_region r = {
            .memory_size = PAGE, .userspace_addr = (uintptr_t)m.anon,
        };

        CHECK(ioctl(fd, KVM_SET_USER_MEMORY_REGION, &r));
    } else if (busy) {
        vcpu = CHECK(ioctl(fd, KVM_CREATE_VCPU, 0));
    }
    if (one_in(2)) {
        if (one_in(2)) {
            cap.flags = odd();
        } else {
            cap.args[below(4)] = odd();
        }
    }
    snprintf(what, sizeof(what), "enable, VM of type %d, %s, flags %#x", type,
             busy ? slot ? "slot" : "vCPU" : "fresh", cap.flags);
    if (cap.flags || type != KVM_X86_SEV_VM || cap.args[0] || cap.args[1] ||
        cap.args[2] || cap.args[3]) {
        want = -EINVAL;
    } else if (busy) {
        want = -EBUSY;
    }
    void *p = place(&cap, sizeof(cap), &fault, &no_write);
    expect(xioctl(fd, KVM_ENABLE_CAP, p), fault ? -EFAULT : want);
    if (!fault && !want) {
        expect(xioctl(fd, KVM_ENABLE_CAP, p), 0);
    }
    if (vcpu >= 0) {
        close(vcpu);
    }
    close(fd);
}

static void create(void)
{
    const uint64_t flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    struct kvm_create_guest_memfd args = {
        .size = (1 + below(64)) * PAGE, .flags = below(4),
    };
    bool fault, no_write;
    int want = 0, fd;

    if (one_in(2)) {
        args.size = one_in(4) ? odd() : args.size + odd();
    }
    if (one_in(4)) {
        args.flags = odd();
    }
    /*
     * Skip sizes for which the attributes need so much memory that the result
     * depends on how much is free
     */
    if (args.size > 1ULL << 30 && args.size < 1ULL << 50) {
        return;
    }
    snprintf(what, sizeof(what), "guest_memfd of %#llx, flags %#llx",
             (long long)args.size, (long long)args.flags);
    void *p = place(&args, sizeof(args), &fault, &no_write);
    if (fault) {
        want = -EFAULT;
    } else if ((args.flags & ~flags) || !args.size ||
               args.size > INT64_MAX || args.size % PAGE) {
        want = -EINVAL;
    } else if (args.size >= 1ULL << 50) {
        want = -ENOMEM;
    }
    fd = xioctl(m.vm.fd, KVM_CREATE_GUEST_MEMFD, p);
    expect(fd, want);
    if (fd >= 0) {
        struct kvm_memory_attributes2 convert = {
            .offset = args.size - PAGE, .size = PAGE, .attributes = PRIVATE,
        };

        expect(xioctl(fd, KVM_SET_MEMORY_ATTRIBUTES2, &convert), 0);
        close(fd);
    }
}

/* Is a guest_memfd mapped at this host address? */
static bool in_file(uint64_t address)
{
    for (int f = 0; f < FILES; f++) {
        if (address >= (uintptr_t)m.map[f] &&
            address - (uintptr_t)m.map[f] < FILE_PAGES * PAGE) {
            return true;
        }
    }
    return false;
}

/* Can the host write to this host address? */
static bool open_to_host(uint64_t address)
{
    uint64_t anon = (uintptr_t)m.anon;

    for (int f = 0; f < FILES; f++) {
        uint64_t i = (address - (uintptr_t)m.map[f]) / PAGE;

        if (address >= (uintptr_t)m.map[f] && i < FILE_PAGES) {
            return !m.private[f][i];
        }
    }
    return address >= anon && address < anon + ANON_PAGES * PAGE;
}

/*
 * The result that KVM must have when it pins the pages of a range.  If the
 * first page is in a mapping of a guest_memfd, all pages must be in mappings of
 * guest_memfds; they may be private, and need not be in a slot.  If the first
 * page is elsewhere, the host must be able to write all pages.
 */
static int pin(uint64_t address, uint64_t length)
{
    uint64_t first = address & -PAGE, last = (address + length - 1) & -PAGE;
    bool file = in_file(first);

    /* "a < end" would be wrong: @last may be the address space's last page */
    for (uint64_t a = first; file ? in_file(a) : open_to_host(a); a += PAGE) {
        if (a == last) {
            return 0;
        }
    }
    return file ? -EFAULT : -ENOMEM;
}

static uint64_t guest_address(void)
{
    uint64_t base[] = { (uintptr_t)m.map[0], (uintptr_t)m.map[1],
                        (uintptr_t)m.anon };
    const struct slot *s = &m.slot[below(SLOTS)];

    if (one_in(12)) {
        return odd();
    }
    if (s->used && !one_in(4)) {
        return s->address + below(s->pages) * PAGE;
    }
    return base[below(3)] + below(ANON_PAGES) * PAGE;
}

static void launch_update(void)
{
    struct kvm_sev_launch_update_data args = {
        .uaddr = guest_address(), .len = (1 + below(16)) * PAGE,
    };
    bool fault, no_write;
    int want, r;
    void *p;

    if (one_in(3)) {
        args.len = one_in(3) ? odd() : 16 * below(1024);
    }
    if (one_in(4)) {
        args.uaddr += one_in(2) ? 16 * below(256) : below(PAGE);
    }
    if (args.len > 1U << 26) {
        args.len = 1U << 26;
    }
    snprintf(what, sizeof(what), "launch update %#llx, %#x bytes",
             (long long)args.uaddr, args.len);
    p = place(&args, sizeof(args), &fault, &no_write);
    if (fault) {
        want = -EFAULT;
    } else if (!args.len || args.uaddr + args.len < args.uaddr) {
        want = -EINVAL;
    } else {
        want = pin(args.uaddr, args.len);
        if (!want && (args.uaddr | args.len) & 15) {
            want = -EIO;
        }
    }
    r = sev_cmd(&m.vm, KVM_SEV_LAUNCH_UPDATE_DATA, p);
    expect(r, want);
}

static void send_page(bool receive)
{
    static struct packet packet;
    struct kvm_sev_send_update_data args = {
        .hdr_uaddr = (uintptr_t)packet.header, .hdr_len = HEADER_SIZE,
        .guest_uaddr = guest_address(), .guest_len = PAGE,
        .trans_uaddr = (uintptr_t)packet.data, .trans_len = PAGE,
    };
    bool fault, no_write;
    int want = 1, r;
    void *p;

    if (one_in(3)) {
        switch (below(6)) {
        case 0: args.hdr_uaddr = odd(); break;
        case 1: args.hdr_len = below(PAGE); break;
        case 2: args.guest_len = one_in(2) ? odd() : below(2 * PAGE); break;
        case 3: args.trans_uaddr = odd(); break;
        case 4: args.trans_len = below(2 * PAGE); break;
        case 5: args.guest_uaddr += below(PAGE); break;
        }
    }
    snprintf(what, sizeof(what), "%s header %#llx %#x guest %#llx %#x data "
             "%#llx %#x", receive ? "receive" : "send",
             (long long)args.hdr_uaddr, args.hdr_len,
             (long long)args.guest_uaddr, args.guest_len,
             (long long)args.trans_uaddr, args.trans_len);
    p = place(&args, sizeof(args), &fault, &no_write);
    if (fault) {
        want = -EFAULT;
    } else if (!args.hdr_len || !args.trans_len) {
        want = receive ? -EINVAL : 1;
    } else if (!args.hdr_uaddr || !args.guest_uaddr || !args.guest_len ||
               !args.trans_uaddr || args.guest_len > PAGE ||
               args.guest_len + args.guest_uaddr % PAGE > PAGE) {
        want = -EINVAL;
    } else if (args.hdr_uaddr != (uintptr_t)packet.header ||
               args.trans_uaddr != (uintptr_t)packet.data) {
        /*
         * A buffer has a random address, which KVM may be unable to access.
         * The error then depends on the ioctl: KVM reads the buffers before it
         * issues a receive command, but writes them only after a send command
         * has succeeded.  The test therefore accepts any result.
         */
        want = 1;
    } else {
        /* The firmware refuses the command, because no session is open */
        want = pin(args.guest_uaddr & -PAGE, PAGE) ?: -EIO;
    }
    r = sev_cmd(&m.vm, receive ? KVM_SEV_RECEIVE_UPDATE_DATA :
                                 KVM_SEV_SEND_UPDATE_DATA, p);
    expect(r, want);
}

static void debug(void)
{
    struct kvm_sev_dbg args = {
        .src_uaddr = guest_address(), .dst_uaddr = guest_address(),
        .len = one_in(4) ? 1 + below(2 * PAGE) : 16 * (1 + below(64)),
    };
    int want = 1;

    if (one_in(6)) {
        args.len = 0;
        want = -EINVAL;
    } else if (pin(args.src_uaddr, 1) || pin(args.dst_uaddr, 1)) {
        want = args.src_uaddr && args.dst_uaddr &&
               args.src_uaddr + args.len > args.src_uaddr &&
               args.dst_uaddr + args.len > args.dst_uaddr ? -ENOMEM : -EINVAL;
    }
    snprintf(what, sizeof(what), "debug %#llx to %#llx, %#x bytes",
             (long long)args.src_uaddr, (long long)args.dst_uaddr, args.len);
    expect(sev_cmd(&m.vm, one_in(2) ? KVM_SEV_DBG_DECRYPT : KVM_SEV_DBG_ENCRYPT,
                   &args), want);
}

static void enc_region(void)
{
    struct kvm_enc_region args = {
        .addr = guest_address(), .size = (1 + below(16)) * PAGE,
    };
    bool mapped = true;
    uint64_t pages;
    int want = 0;

    if (one_in(4)) {
        args.size = one_in(3) ? odd() : below(16 * PAGE);
    }
    snprintf(what, sizeof(what), "register %#llx, %#llx bytes",
             (long long)args.addr, (long long)args.size);
    pages = args.size < 1U << 24 ? (args.addr % PAGE + args.size + PAGE - 1) / PAGE
                                 : 0;
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t a = (args.addr & -PAGE) + i * PAGE;
        bool in = false;

        for (int f = 0; f < FILES; f++) {
            in |= a >= (uintptr_t)m.map[f] &&
                  a < (uintptr_t)m.map[f] + FILE_PAGES * PAGE;
        }
        mapped &= in;
    }
    if (!args.size || args.addr + args.size < args.addr) {
        want = -EINVAL;
    } else if (args.size >= 1U << 24) {
        want = 1;
    } else if (mapped) {
        want = 0;
    } else {
        want = 1;       /* KVM tries to pin the range */
    }
    /* Skip calls that may pin pages: a pinned page cannot be converted later */
    if (want == 1) {
        return;
    }
    expect(xioctl(m.vm.fd, KVM_MEMORY_ENCRYPT_REG_REGION, &args), want);
    expect(xioctl(m.vm.fd, KVM_MEMORY_ENCRYPT_UNREG_REGION, &args), want);
}

static void punch(void)
{
    uint64_t first = below(FILE_PAGES), pages = 1 + below(FILE_PAGES - first);
    int f = below(FILES);

    snprintf(what, sizeof(what), "hole in file %d, [%#llx, %#llx)", f,
             (long long)first, (long long)(first + pages));
    expect(fallocate(m.fd[f], FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                     first * PAGE, pages * PAGE) ? -errno : 0, 0);
}

/*
 * Compare the bitmap of all gfns, and the host's accesses to some pages of one
 * file, with the model
 */
static void verify(void)
{
    static uint8_t bits[GFNS / 8];
    int f = below(FILES);
    uint64_t i;

    snprintf(what + strlen(what), sizeof(what) - strlen(what), " and then");
    if (vm_bitmap(&m.vm, 0, GFNS, bits)) {
        fail("no bitmap");
    }
    for (i = 0; i < GFNS; i++) {
        if ((bits[i / 8] >> (i % 8) & 1) != is_private(i)) {
            fail("gfn %#llx is %s", (long long)i,
                 is_private(i) ? "shared" : "private");
            return;
        }
    }
    for (i = below(16); i < FILE_PAGES; i += 16) {
        if (touch(m.map[f] + i * PAGE) != (m.private[f][i] ? SIGBUS : 0)) {
            fail("page %#llx of file %d is open to the host or not",
                 (long long)i, f);
            return;
        }
    }
}

static void begin(void)
{
    enum vm_type type = one_in(2) ? VM_SEV : VM_SW_PROTECTED;

    memset(&m, 0, sizeof(m));
    vm_create(&m.vm, type, FILE_PAGES * PAGE);
    m.fd[0] = m.vm.gmem;
    m.map[0] = m.vm.mem;
    for (int f = 1; f < FILES; f++) {
        m.fd[f] = vm_gmem(&m.vm, FILE_PAGES * PAGE, GUEST_MEMFD_FLAG_MMAP |
                                                    GUEST_MEMFD_FLAG_INIT_SHARED);
        /*
         * Leave a gap after the mapping, so that no other mapping begins at its
         * end
         */
        m.map[f] = mmap(NULL, (FILE_PAGES + 1) * PAGE, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        m.map[f] = mmap(m.map[f], FILE_PAGES * PAGE, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_FIXED, m.fd[f], 0);
    }
    m.anon = mmap(NULL, (ANON_PAGES + 1) * PAGE, PROT_NONE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mprotect(m.anon, ANON_PAGES * PAGE, PROT_READ | PROT_WRITE));
    if (type == VM_SEV) {
        struct kvm_sev_launch_start launch = { 0 };

        SEV_MUST(&m.vm, KVM_SEV_LAUNCH_START, &launch);
    }
}

static void end(void)
{
    munmap(m.anon, (ANON_PAGES + 1) * PAGE);
    for (int f = 1; f < FILES; f++) {
        munmap(m.map[f], (FILE_PAGES + 1) * PAGE);
        close(m.fd[f]);
    }
    vm_destroy(&m.vm);
}

/*
 * Make STEPS random calls.  Returns whether all of them agreed with the model.
 */
static bool run(uint64_t seed)
{
    state = seed;
    failed = false;
    begin();
    for (int i = 0; i < STEPS && !failed; i++) {
        unsigned call = below(m.vm.type == VM_SEV ? 15 : 10);

        switch (call) {
        case 0: case 1: convert(); break;
        case 2: case 3: bitmap(); break;
        case 4: case 5: region(); break;
        case 6: vm_attributes(); break;
        case 7: enable_cap(); break;
        case 8: create(); break;
        case 9: punch(); break;
        case 10: launch_update(); break;
        case 11: send_page(false); break;
        case 12: send_page(true); break;
        case 13: debug(); break;
        case 14: enc_region(); break;
        }
        by_call[call]++;
        if (!failed && one_in(8)) {
            verify();
        }
    }
    end();
    if (failed) {
        note("again: l1-fuzz 0 %#llx", (long long)seed);
    }
    return !failed;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 10, until;
    uint64_t seed, first;
    int bad = 0, n = 0;

    vm_require(VM_SW_PROTECTED);
    vm_require(VM_SEV);
    buffer = mmap(NULL, BUFFER + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
                  -1, 0);
    CHECK(mprotect(buffer, BUFFER, PROT_READ | PROT_WRITE));
    read_only = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (argc > 2) {
        ok(run(strtoull(argv[2], NULL, 0)),
           "the model agrees with KVM for seed %s", argv[2]);
        return done_testing();
    }
    forgetful = true;
    ok(!run(replay[0]), "the program notices a model that forgets conversions");
    forgetful = false;
    for (unsigned i = 0; i < sizeof(replay) / sizeof(replay[0]); i++) {
        bad += !run(replay[i]);
        n++;
    }
    ok(!bad, "the model agrees with KVM for %d kept seeds (%d failed)", n, bad);

    /*
     * Without arguments the seeds begin at FIRST_SEED.  All such runs use the
     * same seeds, so the next run repeats a failure.  With the argument
     * SECONDS, the seeds begin at a random number.
     */
    first = FIRST_SEED;
    if (argc > 1 && getrandom(&first, sizeof(first), 0) != sizeof(first)) {
        bail("getrandom");
    }
    note("seeds from %#llx on", (long long)first);
    bad = n = 0;
    until = now() + seconds;
    for (seed = first; now() < until && bad < 5; seed++, n++) {
        bad += !run(seed);
    }
    ok(n && !bad,
       "the model agrees with KVM for %d new seeds (%d failed)", n, bad);
    bad = 0;
    for (int i = 0; i < 15; i++) {
        note("call %d: %ld times", i, by_call[i]);
        bad += !by_call[i];
    }
    ok(calls > 100 && refused > calls / 20 && refused < calls * 19 / 20,
       "between 5%% and 95%% of %ld calls were refused (%ld)", calls, refused);
    ok(!bad, "the seeds made each kind of call at least once");
    return done_testing();
}
