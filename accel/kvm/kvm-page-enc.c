/*
 * guest_memfds whose pages KVM converts in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The kernel keeps the state of each page.  This file implements the
 * EncBitmapProvider that reads and changes it.
 */
#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/kvm.h>
#include "linux/kvm-page-enc.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qemu/error-report.h"
#include "exec/address-spaces.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "net/net.h"
#include "system/confidential-guest-migration.h"
#include "system/kvm.h"
#include "system/kvm_int.h"
#include "system/kvm-page-enc.h"
#include "system/kvm-private-access.h"
#include "system/system.h"
#include "trace.h"

/*
 * Names in the <linux/kvm.h> of Linux 7.3, which QEMU's older copy does not
 * have
 */
#ifndef GUEST_MEMFD_FLAG_MMAP
#define GUEST_MEMFD_FLAG_MMAP           (1ULL << 0)
#endif
#ifndef GUEST_MEMFD_FLAG_INIT_SHARED
#define GUEST_MEMFD_FLAG_INIT_SHARED    (1ULL << 1)
#endif

/*
 * A page cannot become private while somebody holds a reference to it.  I/O
 * holds a shared page for a short time only.  If a page is still held after
 * all these retries (1 s), QEMU takes the page for permanently pinned.
 */
#define CONVERT_RETRIES         1000
#define CONVERT_RETRY_US        1000
/* Number of pages per call of mincore() */
#define ALLOCATED_CHUNK         256

/*
 * A range of guest addresses at which a RAMBlock is mapped.  A RAMBlock has
 * one piece for each such range (below and above 4 GiB).  QEMU copies the
 * kernel's bitmap of each piece, and @generation is the generation that the
 * kernel returned with the last copy.  A mutex protects the list of pieces,
 * because all RAMBlocks share the list, and a caller holds only the lock of one
 * RAMBlock.
 */
typedef struct Piece {
    RAMBlock *rb;
    uint64_t start_gfn;
    uint64_t first;             /* page in the block */
    uint64_t npages;
    uint64_t generation;
} Piece;

static GArray *pieces;
static QemuMutex pieces_lock;

/*
 * Find out whether the kernel has the ioctls: a kernel that has them rejects
 * empty arguments with EINVAL.  The function does not check a capability,
 * because old kernels have none for these ioctls.
 */
static bool probe_bitmap(void)
{
    struct kvm_page_enc_bitmap none = {};

    return kvm_vm_ioctl(kvm_state, KVM_GET_PAGE_ENC_BITMAP, &none) == -EINVAL;
}

static bool probe_convert(int fd)
{
    struct kvm_memory_attributes2 none = {};

    return ioctl(fd, KVM_SET_MEMORY_ATTRIBUTES2, &none) < 0 && errno == EINVAL;
}

/*
 * Dirty rings are per vCPU, and a conversion has no vCPU.  KVM therefore logs
 * conversions only in the dirty bitmaps of slots, which a VM with dirty rings
 * does not have by default.  KVM offers these bitmaps once the VM is in
 * in-place mode, and QEMU must enable them before the first slot.
 */
static bool prepare_dirty_ring(Error **errp)
{
    int ret;

    if (!kvm_state->kvm_dirty_ring_size ||
        kvm_state->kvm_dirty_ring_with_bitmap) {
        return true;
    }
    ret = kvm_vm_enable_cap(kvm_state, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "the host's KVM cannot log guest_memfd "
                         "with dirty rings "
                         "(KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP)");
        error_append_hint(errp, "Omit -accel kvm,dirty-ring-size=.\n");
        return false;
    }
    kvm_state->kvm_dirty_ring_with_bitmap = true;
    return true;
}

/* Does a device with the options @opts pin the guest's shared pages? */
static bool pins_shared_pages(const QDict *opts)
{
    const char *driver = qdict_get_try_str(opts, "driver");
    const char *netdev = qdict_get_try_str(opts, "netdev");
    ObjectClass *klass = driver ? object_class_by_name(driver) : NULL;
    NetClientState *nc = netdev ? qemu_find_netdev(netdev) : NULL;

    return (klass && object_class_dynamic_cast(klass, "vfio-pci")) ||
           (driver && g_str_has_prefix(driver, "vhost-vdpa-device")) ||
           (nc && nc->info->type == NET_CLIENT_DRIVER_VHOST_VDPA);
}

/*
 * VFIO and vDPA pin all shared pages until the device is removed.  A pinned
 * page cannot become private, so the next conversion would fail.  This function
 * implements DeviceListener.hide_device, which QEMU calls before it creates a
 * device, both for -device and for device_add.  The function sets @errp for a
 * device that pins pages, and never hides a device.
 */
static bool refuse_assigned_device(DeviceListener *listener, const QDict *opts,
                                   bool from_json, Error **errp)
{
    if (pins_shared_pages(opts)) {
        error_setg(errp, "RAM in a guest_memfd cannot be used with assigned "
                   "devices (%s), because they pin the guest's pages: use "
                   "memory-backend-memfd,guest-memfd=off, or no such device",
                   qdict_get_try_str(opts, "driver"));
    }
    return false;
}

static DeviceListener device_listener = {
    .hide_device = refuse_assigned_device,
};

bool kvm_page_enc_prepare(Error **errp)
{
    static bool done;
    ConfidentialGuestSupport *cgs = current_machine->cgs;
    ConfidentialGuestSupportClass *klass;

    if (done) {
        return true;
    }
    if (!kvm_enabled()) {
        error_setg(errp, "guest_memfd needs KVM (-accel kvm)");
        return false;
    }
    if (!cgs) {
        error_setg(errp, "guest_memfd RAM is for confidential guests "
                   "(-machine confidential-guest-support=...)");
        return false;
    }
    if (phase_check(PHASE_MACHINE_READY)) {
        error_setg(errp, "the machine has been created without guest_memfd "
                   "RAM, so none can be plugged in later");
        return false;
    }
    if (!probe_bitmap()) {
        error_setg(errp, "the host's KVM cannot convert guest_memfd in place "
                   "(it has no KVM_GET_PAGE_ENC_BITMAP)");
        error_append_hint(errp, "Load a kvm module that can, or use "
                          "guest-memfd=off.\n");
        return false;
    }
    klass = CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(cgs);
    if (!klass->migration || !klass->migration->prepare_guest_memfd) {
        error_setg(errp, "%s cannot have its RAM converted in place",
                   object_get_typename(OBJECT(cgs)));
        return false;
    }
    if (!klass->migration->prepare_guest_memfd(cgs, errp) ||
        !prepare_dirty_ring(errp)) {
        return false;
    }
    kvm_guest_memfd_supported = true;
    qemu_mutex_init(&pieces_lock);
    pieces = g_array_new(false, true, sizeof(Piece));
    device_listener_register(&device_listener);
    done = true;
    return true;
}

int kvm_page_enc_create_memfd(uint64_t size, Error **errp)
{
    int fd;

    if (!kvm_page_enc_prepare(errp)) {
        return -1;
    }
    fd = kvm_create_guest_memfd(size, GUEST_MEMFD_FLAG_MMAP |
                                GUEST_MEMFD_FLAG_INIT_SHARED, errp);
    if (fd < 0) {
        return -1;
    }
    if (!probe_convert(fd)) {
        error_setg(errp, "the host's KVM cannot convert this guest_memfd "
                   "(it has no KVM_SET_MEMORY_ATTRIBUTES2)");
        close(fd);
        return -1;
    }
    trace_kvm_page_enc_create_memfd(size, fd);
    return fd;
}

static int page_enc_convert(RAMBlock *rb, uint64_t offset, uint64_t size,
                            bool to_private, uint64_t *error_offset)
{
    struct kvm_memory_attributes2 attr = {
        .offset = offset,
        .size = size,
        .attributes = to_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
    };
    unsigned tries = 0;
    int ret;

    do {
        if (tries) {
            g_usleep(CONVERT_RETRY_US);
        }
        ret = ioctl(rb->guest_memfd, KVM_SET_MEMORY_ATTRIBUTES2, &attr) < 0 ?
              -errno : 0;
    } while ((ret == -EAGAIN || ret == -EINTR) && ++tries < CONVERT_RETRIES);

    if (ret == -EAGAIN) {
        *error_offset = attr.error_offset;
        /*
         * QEMU refuses the devices that refuse_assigned_device() recognizes.
         * The block drivers nvme:// and virtio-blk-vhost-vdpa also use VFIO or
         * vDPA, but are not devices, so the function does not see them.  The
         * message therefore still names VFIO and vDPA as the cause.
         */
        warn_report_once("A page of guest_memfd has been pinned for more than "
                         "a second and cannot become private: assigned devices "
                         "(VFIO, vDPA) cannot be used with RAM in a "
                         "guest_memfd");
    }
    if (!to_private) {
        kvm_private_access_restore(rb->host + offset, size);
    }
    trace_kvm_page_enc_convert(rb->idstr, offset, size, to_private, tries,
                               ret);
    return ret;
}

typedef struct FindPieces {
    RAMBlock *rb;
    GArray *found;
} FindPieces;

static bool find_piece(Int128 start, Int128 len, const MemoryRegion *mr,
                       hwaddr offset, void *opaque)
{
    FindPieces *find = opaque;
    unsigned bits = qemu_target_page_bits();
    uint64_t addr = int128_get64(start), size = int128_get64(len);
    Piece p = {
        .rb = find->rb,
        .start_gfn = addr >> bits,
        .first = offset >> bits,
        .npages = size >> bits,
    };

    /* KVM has no memory slot for a page that is only partly mapped */
    if (mr->ram_block == find->rb && p.npages &&
        !((addr | offset) & ~qemu_target_page_mask())) {
        g_array_append_val(find->found, p);
    }
    return false;
}

/*
 * Return the generation of QEMU's copy of the bitmap of @p, or 0 if QEMU has
 * no copy.  If @set is not 0, first set the generation to @set.
 */
static uint64_t piece_generation(const Piece *p, uint64_t set)
{
    QEMU_LOCK_GUARD(&pieces_lock);
    for (guint i = 0; i < pieces->len; i++) {
        Piece *q = &g_array_index(pieces, Piece, i);

        if (q->rb == p->rb && q->start_gfn == p->start_gfn &&
            q->first == p->first && q->npages == p->npages) {
            if (set) {
                q->generation = set;
            }
            return q->generation;
        }
    }
    if (set) {
        Piece new = *p;

        new.generation = set;
        g_array_append_val(pieces, new);
    }
    return set;
}

static bool sync_piece(const Piece *p, Error **errp)
{
    uint64_t words = DIV_ROUND_UP(p->npages, 64);
    g_autofree uint64_t *map = g_new0(uint64_t, words);
    struct kvm_page_enc_bitmap get = {
        .start_gfn = p->start_gfn,
        .num_pages = p->npages,
        .enc_bitmap = (uintptr_t)map,
        .generation = piece_generation(p, 0),
    };
    uint64_t changed = 0;
    int ret;

    if (get.generation) {
        get.flags = KVM_PAGE_ENC_BITMAP_IF_CHANGED;
    }
    ret = kvm_vm_ioctl(kvm_state, KVM_GET_PAGE_ENC_BITMAP, &get);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "KVM_GET_PAGE_ENC_BITMAP of %" PRIu64
                         " pages at gfn 0x%" PRIx64, p->npages, p->start_gfn);
        return false;
    }
    if (!(get.flags & KVM_PAGE_ENC_BITMAP_UNCHANGED)) {
        changed = encbitmap_update(p->rb, p->first, p->npages, map);
        piece_generation(p, get.generation);
    }
    trace_kvm_page_enc_sync(p->rb->idstr, p->start_gfn, p->npages,
                            get.generation, changed);
    return true;
}

/*
 * The function does not change the bit of a page that has no guest address,
 * such as a page behind the VGA hole.  The guest cannot convert this page, and
 * QEMU has no gfn with which to ask KVM for the page's state.
 */
static bool page_enc_sync(RAMBlock *rb, Error **errp)
{
    g_autoptr(GArray) found = g_array_new(false, true, sizeof(Piece));
    FindPieces find = { .rb = rb, .found = found };

    WITH_RCU_READ_LOCK_GUARD() {
        flatview_for_each_range(address_space_to_flatview(
                                    &address_space_memory),
                                find_piece, &find);
    }
    for (guint i = 0; i < found->len; i++) {
        if (!sync_piece(&g_array_index(found, Piece, i), errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Pages of a guest_memfd are never swapped out, so a page that is not in core
 * was never accessed.  If mincore() fails, all pages count as allocated.
 */
static uint64_t page_enc_allocated(RAMBlock *rb, uint64_t page,
                                   uint64_t npages, bool *allocated)
{
    unsigned bits = qemu_target_page_bits();
    unsigned char in_core[ALLOCATED_CHUNK];
    uint64_t run = 0;

    *allocated = true;
    if (qemu_real_host_page_size() != qemu_target_page_size()) {
        return npages;
    }
    while (run < npages) {
        size_t n = MIN(npages - run, ALLOCATED_CHUNK);

        if (mincore(rb->host + ((page + run) << bits), n << bits, in_core)) {
            memset(in_core, 1, n);
        }
        if (!run) {
            *allocated = in_core[0] & 1;
        }
        for (size_t i = 0; i < n; i++, run++) {
            if ((in_core[i] & 1) != *allocated) {
                return run;
            }
        }
    }
    return run;
}

static bool page_enc_poisoned(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    return kvm_private_access_poisoned(rb->host + offset, size);
}

static void page_enc_release(RAMBlock *rb)
{
    kvm_private_access_remove(rb->host);
}

static EncBitmapProvider page_enc_provider = {
    .name = "kvm guest_memfd",
    .convert = page_enc_convert,
    .sync = page_enc_sync,
    .allocated = page_enc_allocated,
    .poisoned = page_enc_poisoned,
    .release = page_enc_release,
};

bool kvm_page_enc_init_block(RAMBlock *rb, Error **errp)
{
    ConfidentialGuestSupport *cgs = current_machine->cgs;
    const ConfidentialGuestMigrationOps *ops =
        CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(cgs)->migration;

    assert(rb->flags & RAM_GUEST_MEMFD_IN_PLACE);
    /*
     * KVM marks converted pages in the dirty bitmap of their slot.  If a vCPU
     * changes the memory map during a conversion, QEMU can remove the slot and
     * add it again.  The slot then has a new dirty bitmap.
     *
     * With KVM_DIRTY_LOG_INITIALLY_SET, KVM sets all bits of the new bitmap.
     * The converted pages are therefore marked in the new bitmap, too, and QEMU
     * can rely on KVM to mark the converted pages that are in a slot
     * (@dirties is true).
     *
     * Without KVM_DIRTY_LOG_INITIALLY_SET, all bits of the new bitmap are
     * clear.  QEMU must then mark converted pages itself, in
     * encbitmap_convert() and encbitmap_update().  With dirty rings, QEMU never
     * uses KVM_DIRTY_LOG_INITIALLY_SET.
     */
    page_enc_provider.dirties = kvm_state->manual_dirty_log_protect &
                                KVM_DIRTY_LOG_INITIALLY_SET;
    encbitmap_init(rb, &page_enc_provider, false);
    kvm_private_access_add(rb->host, rb->max_length, rb->guest_memfd,
                           memory_region_name(rb->mr));
    return !ops->guest_memfd_added || ops->guest_memfd_added(cgs, rb, errp);
}

bool kvm_page_enc_memory_fault(const MemoryRegionSection *section,
                               bool is_private, int *ret)
{
    RAMBlock *rb = section->mr->ram_block;
    uint64_t offset = section->offset_within_region;
    bool now;

    if (!rb || !(rb->flags & RAM_GUEST_MEMFD_IN_PLACE)) {
        return false;
    }
    encbitmap_send_lock(rb);
    now = encbitmap_test(rb, offset >> qemu_target_page_bits());
    encbitmap_send_unlock(rb);
    *ret = 0;
    if (now == is_private) {
        error_report("KVM cannot give the guest the %s page at offset 0x%"
                     PRIx64 " of block %s", now ? "private" : "shared", offset,
                     rb->idstr);
        *ret = -EFAULT;
    }
    return true;
}
