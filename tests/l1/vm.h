/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small VM, set up as QEMU does it: its memory is one mapped guest_memfd,
 * and all pages are shared at first.  The VM is a software-protected VM or an
 * SEV VM with KVM_CAP_SEV_PRIVATE_MEM.
 */
#ifndef TESTS_L1_VM_H
#define TESTS_L1_VM_H

#include <cpuid.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <linux/kvm-page-enc.h>
#include "harness.h"

/* Definitions that <linux/kvm.h> of Debian 13 lacks */
#ifndef KVM_CAP_GUEST_MEMFD_FLAGS
#define KVM_CAP_GUEST_MEMFD_FLAGS       244
#endif
#ifndef GUEST_MEMFD_FLAG_MMAP
#define GUEST_MEMFD_FLAG_MMAP           (1ULL << 0)
#define GUEST_MEMFD_FLAG_INIT_SHARED    (1ULL << 1)
#endif

#define PAGE            4096ULL
#define PRIVATE         KVM_MEMORY_ATTRIBUTE_PRIVATE
#define SHARED          0

enum vm_type {
    VM_SW_PROTECTED = KVM_X86_SW_PROTECTED_VM,
    VM_SEV = KVM_X86_SEV_VM,
};

struct vm {
    enum vm_type type;
    int fd, gmem, vcpu, vcpus;
    uint8_t *mem;
    size_t size;
    struct kvm_run *run;
    uint64_t cbit;
};

static int kvm_fd = -1, sev_fd = -1;

/* ioctl() that returns -errno on error */
static int xioctl(int fd, unsigned long request, void *arg)
{
    int r = ioctl(fd, request, arg);

    return r < 0 ? -errno : r;
}

static int vm_cap(int fd, unsigned long cap)
{
    return xioctl(fd, KVM_CHECK_EXTENSION, (void *)cap);
}

static const char *vm_type_name(enum vm_type type)
{
    return type == VM_SEV ? "SEV" : "software-protected";
}

/* Skip the program if KVM cannot create VMs of @type */
static void __attribute__((unused)) vm_require(enum vm_type type)
{
    if (kvm_fd < 0) {
        kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (kvm_fd < 0) {
            skip_all("no /dev/kvm: %s", strerror(errno));
        }
    }
    if (!(vm_cap(kvm_fd, KVM_CAP_VM_TYPES) & (1 << type))) {
        skip_all("this kernel has no %s VMs", vm_type_name(type));
    }
    if (vm_cap(kvm_fd, KVM_CAP_PAGE_ENC_BITMAP) != 1) {
        skip_all("not our KVM module");
    }
    if (type == VM_SEV && sev_fd < 0) {
        sev_fd = open("/dev/sev", O_RDWR | O_CLOEXEC);
        if (sev_fd < 0) {
            skip_all("no /dev/sev: %s", strerror(errno));
        }
    }
}

/* Status that the firmware has returned for the last sev_cmd() */
static uint32_t sev_error;

/* Issue a KVM_SEV_* command.  Returns 0, or -errno with sev_error set. */
static int sev_cmd(struct vm *vm, uint32_t id, void *data)
{
    struct kvm_sev_cmd cmd = {
        .id = id, .data = (uintptr_t)data, .sev_fd = sev_fd,
    };
    int r = xioctl(vm->fd, KVM_MEMORY_ENCRYPT_OP, &cmd);

    sev_error = cmd.error;
    return r;
}

/* Like sev_cmd(), but end the program if the command fails */
#define SEV_MUST(vm, id, data) do {                                     \
    if (sev_cmd(vm, id, data)) {                                        \
        bail("%s:%d: %s, firmware %#x", __FILE__, __LINE__, #id, sev_error); \
    }                                                                   \
} while (0)

static int vm_gmem(struct vm *vm, uint64_t size, uint64_t flags)
{
    struct kvm_create_guest_memfd args = { .size = size, .flags = flags };

    return xioctl(vm->fd, KVM_CREATE_GUEST_MEMFD, &args);
}

static int vm_slot(struct vm *vm, uint32_t slot, uint32_t flags, uint64_t gpa,
                   uint64_t size, uint64_t offset)
{
    struct kvm_userspace_memory_region2 region = {
        .slot = slot,
        .flags = flags | KVM_MEM_GUEST_MEMFD,
        .guest_phys_addr = gpa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)vm->mem + offset,
        .guest_memfd = vm->gmem,
        .guest_memfd_offset = offset,
    };

    return xioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, &region);
}

/*
 * Set whether software-protected VMs that are created from now on keep
 * attributes in their guest_memfds
 */
static void __attribute__((unused)) vm_in_place(bool in_place)
{
    int fd = open("/sys/module/kvm/parameters/gmem_in_place_conversion",
                  O_WRONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT && !in_place) {
        /* A KVM without the parameter keeps attributes in the VM only */
        return;
    }
    if (fd < 0 || write(fd, in_place ? "Y" : "N", 1) != 1) {
        bail("kvm.gmem_in_place_conversion");
    }
    close(fd);
}

/* Create a VM and its guest_memfd, without a memory slot */
static void vm_create(struct vm *vm, enum vm_type type, size_t size)
{
    *vm = (struct vm) { .type = type, .size = size, .vcpu = -1 };
    if (type == VM_SW_PROTECTED) {
        vm_in_place(true);
    }
    vm->fd = ioctl(kvm_fd, KVM_CREATE_VM, type);
    if (vm->fd < 0) {
        bail("KVM_CREATE_VM");
    }
    if (type == VM_SEV) {
        struct kvm_enable_cap cap = { .cap = KVM_CAP_SEV_PRIVATE_MEM };
        struct kvm_sev_init init = { 0 };
        uint32_t a, b, c, d;

        CHECK(ioctl(vm->fd, KVM_ENABLE_CAP, &cap));
        SEV_MUST(vm, KVM_SEV_INIT2, &init);
        __cpuid(0x8000001f, a, b, c, d);
        vm->cbit = 1ULL << (b & 63);
    }
    vm->gmem = vm_gmem(vm, size, GUEST_MEMFD_FLAG_MMAP |
                                 GUEST_MEMFD_FLAG_INIT_SHARED);
    if (vm->gmem < 0) {
        errno = -vm->gmem;
        bail("KVM_CREATE_GUEST_MEMFD");
    }
    /*
     * Leave a gap after the mapping, so that addresses after its end are
     * invalid
     */
    vm->mem = mmap(NULL, size + PAGE, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (vm->mem == MAP_FAILED) {
        bail("mmap");
    }
    vm->mem = mmap(vm->mem, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_FIXED, vm->gmem, 0);
    if (vm->mem == MAP_FAILED) {
        bail("mmap of the guest_memfd");
    }
}

/* Like vm_create(), with the whole guest_memfd in slot 0 at guest address 0 */
static void __attribute__((unused))
vm_init(struct vm *vm, enum vm_type type, size_t size)
{
    vm_create(vm, type, size);
    if (type == VM_SEV) {
        /* Like QEMU, register the memory before the slot exists */
        struct kvm_enc_region region = { (uintptr_t)vm->mem, size };

        CHECK(ioctl(vm->fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region));
    }
    if (vm_slot(vm, 0, 0, 0, size, 0)) {
        bail("memory slot");
    }
}

static void __attribute__((unused)) vm_destroy(struct vm *vm)
{
    munmap(vm->mem, vm->size + PAGE);
    if (vm->vcpu >= 0) {
        munmap(vm->run, ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0));
        close(vm->vcpu);
    }
    close(vm->gmem);
    close(vm->fd);
}

/* error_offset of the last vm_convert() */
static uint64_t convert_held;

#define NOT_SET         0x5a5a5a5a5a5a5a5aULL

static int __attribute__((unused))
vm_convert(struct vm *vm, uint64_t offset, uint64_t size, uint64_t attributes)
{
    struct kvm_memory_attributes2 args = {
        .offset = offset, .size = size, .attributes = attributes,
        .error_offset = NOT_SET,
    };
    int r = xioctl(vm->gmem, KVM_SET_MEMORY_ATTRIBUTES2, &args);

    convert_held = args.error_offset;
    return r;
}

/* Thread that converts a range back and forth until @stop is set */
struct vm_converter {
    struct vm *vm;
    uint64_t offset, size;
    bool private;               /* state of the next conversion */
    volatile bool stop;
    volatile long done, refused, errors;
};

static void __attribute__((unused)) *vm_run_converter(void *opaque)
{
    struct vm_converter *c = opaque;

    while (!c->stop) {
        int r = vm_convert(c->vm, c->offset, c->size,
                           c->private ? PRIVATE : SHARED);

        if (!r) {
            c->private = !c->private;
            c->done++;
        } else if (r == -EAGAIN) {
            c->refused++;
        } else {
            c->errors++;
        }
    }
    return NULL;
}

static int __attribute__((unused))
vm_bitmap(struct vm *vm, uint64_t gfn, uint64_t pages, void *bits)
{
    struct kvm_page_enc_bitmap args = {
        .start_gfn = gfn, .num_pages = pages, .enc_bitmap = (uintptr_t)bits,
    };

    return xioctl(vm->fd, KVM_GET_PAGE_ENC_BITMAP, &args);
}

/* Is page @gfn private according to KVM_GET_PAGE_ENC_BITMAP? */
static bool __attribute__((unused)) vm_is_private(struct vm *vm, uint64_t gfn)
{
    uint8_t bits = 0;

    if (vm_bitmap(vm, gfn, 1, &bits)) {
        bail("KVM_GET_PAGE_ENC_BITMAP of gfn %#llx", (long long)gfn);
    }
    return bits & 1;
}

/* Are exactly the pages [@first, @end) of the VM private? */
static bool __attribute__((unused))
vm_private_is(struct vm *vm, uint64_t first, uint64_t end)
{
    uint64_t pages = vm->size / PAGE, i;
    uint8_t *bits = calloc(1, pages / 8 + 1);
    bool same = !vm_bitmap(vm, 0, pages, bits);

    for (i = 0; i < pages && same; i++) {
        if ((bits[i / 8] >> (i % 8) & 1) != (i >= first && i < end)) {
            note("page %#llx is %s", (long long)i,
                 i >= first && i < end ? "shared" : "private");
            same = false;
        }
    }
    free(bits);
    return same;
}

#endif
