/*
 * State of an SEV guest's pages: private or shared
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A memory backend that becomes RAM of the guest is pinned and gets an
 * encryption bitmap (exec/encbitmap.h).  The guest reports conversions with
 * the hypercall KVM_HC_MAP_GPA_RANGE.
 *
 * Before the guest's first hypercall, all pages of ordinary memory are private,
 * and all pages of in-place memory are shared (sev-in-place.c).
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/rcu.h"
#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "hw/boards.h"
#include "sev-migration-internal.h"
#include "system/hostmem.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "trace.h"

/* Attributes of KVM_HC_MAP_GPA_RANGE: the state, and the page size (ignored) */
#define MAP_GPA_RANGE_KNOWN     (KVM_MAP_GPA_RANGE_ENCRYPTED | 0xf)

/* Results of a hypercall, as <linux/kvm_para.h> defines them for the guest */
#define HC_OK           0
#define HC_EINVAL       ((uint64_t)-22)
#define HC_EAGAIN       ((uint64_t)-11)

bool sev_ram_is_guest_ram(const RAMBlock *rb)
{
    return object_dynamic_cast(memory_region_owner(rb->mr),
                               TYPE_MEMORY_BACKEND);
}

bool sev_migration_ram_unpinned(void *host)
{
    SevMigration *m = sev_guest_migration(sev_migration_guest());

    return g_hash_table_remove(m->unpinned, host);
}

bool sev_migration_ram_added(void *host)
{
    SevMigration *m = sev_guest_migration(sev_migration_guest());
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(host, false, &offset);

    /*
     * ram_mapped() pins only RAMBlocks of memory backends.  Let the caller pin
     * the other RAMBlocks now, such as ROMs and VGA memory.  They are shared
     * unless LAUNCH_UPDATE encrypts them.
     */
    if (!rb || !sev_ram_is_guest_ram(rb)) {
        return false;
    }
    /* ram_mapped() pins ordinary memory when it becomes RAM of the guest */
    g_hash_table_add(m->unpinned, host);
    return true;
}

/*
 * The guest cannot use memory that is not pinned.  While QEMU creates the
 * machine, end QEMU.  After that, only stop the guest.
 */
static void cannot_use_ram(Error *err)
{
    error_report_err(err);
    if (!phase_check(PHASE_MACHINE_READY)) {
        exit(1);
    }
    /* The memory was hot-plugged: stop the guest, so that it loses nothing */
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
}

/*
 * Called with the BQL when a memory backend becomes RAM of the guest.  Pin the
 * backend's pages, which must not move, because their encryption depends on the
 * physical address.  A page is private until the guest reports it as shared.
 */
static void ram_mapped(MemoryListener *listener, MemoryRegionSection *section)
{
    SevMigration *m = container_of(listener, SevMigration, listener);
    RAMBlock *rb = section->mr->ram_block;
    struct kvm_enc_region range;
    Error *err = NULL;
    int ret;

    if (!rb || !sev_ram_is_guest_ram(rb)) {
        return;
    }
    if (sev_ram_is_in_place(rb)) {
        /*
         * Nothing is left to do for in-place memory: its pages do not move,
         * and the memory backend has created the encryption bitmap
         */
        return;
    }
    if (!QEMU_IS_ALIGNED(memory_region_size(rb->mr), TARGET_PAGE_SIZE)) {
        error_setg(&err, "SEV: memory backend %s has 0x%" PRIx64 " bytes, and "
                   "part of a page cannot be encrypted: use a multiple of %d "
                   "bytes", memory_region_name(rb->mr),
                   memory_region_size(rb->mr), (int)TARGET_PAGE_SIZE);
        cannot_use_ram(err);
        return;
    }
    if (!g_hash_table_remove(m->unpinned, rb->host)) {
        return;
    }
    range = (struct kvm_enc_region) {
        .addr = (uintptr_t)rb->host,
        .size = rb->max_length,
    };
    ret = kvm_vm_ioctl(kvm_state, KVM_MEMORY_ENCRYPT_REG_REGION, &range);
    trace_sev_migration_ram_mapped(memory_region_name(rb->mr), rb->host,
                                   rb->max_length, ret);
    if (ret < 0) {
        g_hash_table_add(m->unpinned, rb->host);
        error_setg_errno(&err, -ret, "SEV: memory backend %s: KVM cannot pin "
                         "its 0x%" PRIx64 " bytes (the limit of locked memory "
                         "has to be as large)", memory_region_name(rb->mr),
                         (uint64_t)rb->max_length);
        cannot_use_ram(err);
        return;
    }
    if (m->enabled) {
        encbitmap_init(rb, NULL, true);
    }
}

void sev_migration_launch_update(void *host, uint64_t len)
{
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(host, false, &offset);
    uint64_t first, last;

    if (!sev_migration_enabled() || !rb || !len) {
        return;
    }
    if (sev_ram_is_in_place(rb)) {
        return;
    }
    first = offset >> TARGET_PAGE_BITS;
    last = (offset + len - 1) >> TARGET_PAGE_BITS;
    encbitmap_init(rb, NULL, false);
    encbitmap_set(rb, first, last - first + 1, true);
}

/*
 * A conversion failed, so the bitmap and the guest no longer agree.  An error
 * as the result of the hypercall would not help, because Linux ignores it and
 * continues.
 */
static void set_state_lost(SevMigration *m, Error *err)
{
    trace_sev_migration_state_lost(error_get_pretty(err));
    qatomic_set(&m->state_lost, true);
    error_reportf_err(err, "SEV: ");
    error_printf("The guest runs on, but cannot be migrated before its next "
                 "reset.\n");
}

/*
 * Returns the value that the hypercall returns to the guest.  If a conversion
 * failed, @errp is set.
 */
static uint64_t convert_range(hwaddr gpa, uint64_t size, bool to_private,
                              Error **errp)
{
    hwaddr end = gpa + size;
    uint64_t result = HC_OK;

    while (gpa < end) {
        MemoryRegionSection sec = memory_region_find(get_system_memory(), gpa,
                                                     end - gpa);
        RAMBlock *rb;
        uint64_t len;

        /* Addresses without RAM are always shared */
        if (!sec.mr) {
            return to_private ? HC_EINVAL : result;
        }
        len = int128_get64(sec.size);
        if (to_private && sec.offset_within_address_space != gpa) {
            result = HC_EINVAL;
        }
        rb = memory_region_is_ram(sec.mr) ? sec.mr->ram_block : NULL;
        if (rb && encbitmap_npages(rb)) {
            int ret = encbitmap_convert(rb, sec.offset_within_region, len,
                                        to_private, NULL, errp);

            if (ret < 0) {
                memory_region_unref(sec.mr);
                return ret == -EAGAIN ? HC_EAGAIN : HC_EINVAL;
            }
        } else if (to_private) {
            result = HC_EINVAL;
        }
        gpa = sec.offset_within_address_space + len;
        memory_region_unref(sec.mr);
    }
    return result;
}

static uint64_t map_gpa_range(SevMigration *m, uint64_t gpa, uint64_t npages,
                              uint64_t attributes)
{
    Error *err = NULL;
    uint64_t result;

    /*
     * KVM checks the range, too, but its documentation does not promise this
     * check
     */
    if (!QEMU_IS_ALIGNED(gpa, TARGET_PAGE_SIZE) || !npages ||
        npages > (UINT64_MAX >> TARGET_PAGE_BITS) ||
        gpa + (npages << TARGET_PAGE_BITS) < gpa ||
        attributes & ~(uint64_t)MAP_GPA_RANGE_KNOWN) {
        return HC_EINVAL;
    }
    QEMU_LOCK_GUARD(&m->lock);
    if (!sev_in_place_announce(m, &err)) {
        set_state_lost(m, err);
        return HC_EAGAIN;
    }
    result = convert_range(gpa, npages << TARGET_PAGE_BITS,
                           attributes & KVM_MAP_GPA_RANGE_ENCRYPTED, &err);
    if (err) {
        set_state_lost(m, err);
    }
    return result;
}

int sev_migration_handle_hypercall(struct kvm_run *run)
{
    SevMigration *m = sev_guest_migration(sev_migration_guest());
    uint64_t gpa = run->hypercall.args[0];
    uint64_t npages = run->hypercall.args[1];
    uint64_t attributes = run->hypercall.args[2];

    /*
     * Set the result in any case: some kernels do not clear it before the exit
     */
    run->hypercall.ret = map_gpa_range(m, gpa, npages, attributes);
    trace_sev_migration_map_gpa_range(gpa, npages, attributes,
                                      run->hypercall.ret);
    return 0;
}

bool sev_page_state_known(SevMigration *m, Error **errp)
{
    if (!qatomic_read(&m->state_lost)) {
        return true;
    }
    error_setg(errp, "SEV: a page of the guest could not be converted, so it "
               "is not known which pages are private: see the message of that "
               "time in QEMU's log, and reset the guest");
    return false;
}

void sev_page_state_init(SevMigration *m)
{
    qemu_mutex_init(&m->lock);
    m->unpinned = g_hash_table_new(NULL, NULL);
    m->listener = (MemoryListener) {
        .name = "sev-ram",
        .region_add = ram_mapped,
    };
    memory_listener_register(&m->listener, &address_space_memory);
}

static void reset_block(SevMigration *m, RAMBlock *rb)
{
    bool to_private = true;
    Error *err = NULL;

    /* Memory that was launched encrypted, such as flash, stays private */
    if (!sev_ram_is_guest_ram(rb) || !encbitmap_npages(rb)) {
        return;
    }
    if (sev_ram_is_in_place(rb)) {
        to_private = false;
    }
    if (encbitmap_convert(rb, 0, rb->used_length, to_private, NULL,
                          &err) < 0) {
        set_state_lost(m, err);
    }
}

void sev_page_state_reset(SevMigration *m)
{
    RAMBlock *rb;

    QEMU_LOCK_GUARD(&m->lock);
    sev_in_place_reset(m);
    qatomic_set(&m->state_lost, false);
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        reset_block(m, rb);
    }
}
