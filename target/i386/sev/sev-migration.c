/*
 * Live migration of SEV guests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest tells which of its pages are private (KVM_HC_MAP_GPA_RANGE) and
 * that it can be moved (MSR_KVM_MIGRATION_CONTROL); the firmware packs
 * private pages for the destination's firmware (SEND_*) and unpacks them
 * there (RECEIVE_*).  What is on the wire is in sev-migration-wire.c.
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <linux/psp-sev.h>
#include "linux/kvm-page-enc.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-sev-migration-target.h"
#include "qapi/visitor.h"
#include "qapi/qapi-visit-common.h"
#include "qemu/error-report.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "hw/boards.h"
#include "hw/i386/x86.h"
#include "kvm/kvm_i386.h"
#include "migration/blocker.h"
#include "migration/misc.h"
#include "monitor/monitor.h"
#include "sev.h"
#include "sev-migration.h"
#include "sev-migration-error.h"
#include "sev-migration-wire.h"
#include "standard-headers/asm-x86/kvm_para.h"
#include "system/confidential-guest-migration.h"
#include "system/hostmem.h"
#include "system/kvm.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "trace.h"

/* KVM_HC_MAP_GPA_RANGE: the state, and the guest's page size, which is KVM's */
#define MAP_GPA_RANGE_KNOWN     (KVM_MAP_GPA_RANGE_ENCRYPTED | 0xf)

/* Bytes of a packet header: SEV API 0.24, table "SEND_UPDATE_DATA" */
#define SEV_PACKET_HEADER_LEN   52

/* What a guest finds in RAX: <linux/kvm_para.h> */
#define HC_OK           0
#define HC_EINVAL       ((uint64_t)-22)
#define HC_EAGAIN       ((uint64_t)-11)

/* The sev-guest of this machine that can migrate, or NULL */
static ConfidentialGuestSupport *sev_migration_guest(void)
{
    ConfidentialGuestSupport *cgs = MACHINE(qdev_get_machine())->cgs;

    if (!object_dynamic_cast(OBJECT(cgs), TYPE_SEV_GUEST)) {
        return NULL;
    }
    return cgs;
}

static uint32_t guest_policy(ConfidentialGuestSupport *cgs)
{
    return object_property_get_uint(OBJECT(cgs), "policy", &error_abort);
}

int sev_guest_cmd(ConfidentialGuestSupport *cgs, int cmd, void *data,
                  int *fw_error)
{
    return sev_ioctl(sev_guest_fd(cgs), cmd, data, fw_error);
}

/*
 * State: which pages are private
 */

static bool is_in_place(const RAMBlock *rb)
{
    return rb->flags & RAM_GUEST_MEMFD_IN_PLACE;
}

static bool is_guest_ram(const RAMBlock *rb)
{
    return object_dynamic_cast(memory_region_owner(rb->mr),
                               TYPE_MEMORY_BACKEND);
}

bool sev_migration_ram_unpinned(void *host)
{
    SevMigration *m = sev_guest_migration(sev_migration_guest());
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(host, false, &offset);

    /* guest_memfd pages do not move */
    return g_hash_table_remove(m->unmapped, host) || (rb && is_in_place(rb));
}

bool sev_migration_ram_added(void *host)
{
    SevMigration *m = sev_guest_migration(sev_migration_guest());
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(host, false, &offset);

    if (!rb) {
        return false;
    }
    if (is_in_place(rb)) {
        /* Its backend gives it its bitmap */
        return true;
    }
    if (is_guest_ram(rb)) {
        /* Not every backend becomes RAM of the guest: see ram_mapped() */
        g_hash_table_add(m->unmapped, host);
        return true;
    }
    /*
     * ROMs, VGA and blobs are shared, except for what LAUNCH_UPDATE encrypts.
     */
    return false;
}

/* The guest cannot use memory that is not pinned */
static void cannot_use_ram(Error *err)
{
    error_report_err(err);
    if (!phase_check(PHASE_MACHINE_READY)) {
        exit(1);
    }
    /* It was plugged in: nothing of the guest is lost while it does not run */
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
}

/*
 * A memory backend becomes RAM of the guest: pin its pages, which must not
 * move because they are encrypted for their physical address.  From now on
 * they are private until the guest says otherwise: it encrypts all that it
 * does not share.  BQL.
 */
static void ram_mapped(MemoryListener *listener, MemoryRegionSection *section)
{
    SevMigration *m = container_of(listener, SevMigration, listener);
    RAMBlock *rb = section->mr->ram_block;
    struct kvm_enc_region range;
    Error *err = NULL;
    int ret;

    if (!rb || !is_guest_ram(rb)) {
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
    if (!g_hash_table_remove(m->unmapped, rb->host)) {
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
        g_hash_table_add(m->unmapped, rb->host);
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

    if (!sev_migration_enabled() || !rb || !len || is_in_place(rb)) {
        return;
    }
    first = offset >> TARGET_PAGE_BITS;
    last = (offset + len - 1) >> TARGET_PAGE_BITS;
    encbitmap_init(rb, NULL, false);
    encbitmap_set(rb, first, last - first + 1, true);
}

bool sev_migration_enabled(void)
{
    ConfidentialGuestSupport *cgs = sev_migration_guest();

    return cgs && sev_guest_migration(cgs)->enabled;
}

uint32_t sev_migration_kvm_features(void)
{
    if (!sev_migration_enabled()) {
        return 0;
    }
    /* KVM leaves both to user space, and so never says that it has them */
    return BIT(KVM_FEATURE_HC_MAP_GPA_RANGE) |
           BIT(KVM_FEATURE_MIGRATION_CONTROL);
}

static void set_state_lost(SevMigration *m, Error *err)
{
    trace_sev_migration_state_lost(error_get_pretty(err));
    qatomic_set(&m->state_lost, true);
    error_reportf_err(err, "SEV: ");
    error_printf("The guest runs on, but cannot be migrated before its next "
                 "reset.\n");
}

/*
 * The guest tells the state of its pages for the first time, and counts on
 * all of them being private until it says otherwise.  Those of guest_memfds
 * are not: firmware that does not tell shares buffers with devices.  Now it
 * is time, also for memory that the guest has from its firmware and never
 * mentions (ACPI tables, runtime services), for what is to be plugged in
 * later, and for pages that no guest address leads to now: the guest can
 * reach those behind PAM registers later without telling of them again.
 */
static bool announce(SevMigration *m, Error **errp)
{
    unsigned nblocks = 0;
    RAMBlock *rb;

    if (m->announced) {
        return true;
    }
    m->announced = true;
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (!is_in_place(rb)) {
            continue;
        }
        if (encbitmap_convert(rb, 0, rb->max_length, true, NULL, errp) < 0) {
            return false;
        }
        nblocks++;
    }
    trace_sev_migration_announce(nblocks);
    return true;
}

/* Memory that is plugged in: private, as all that the guest has not shared */
static bool sev_guest_memfd_added(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                                  Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);

    QEMU_LOCK_GUARD(&m->lock);
    return !m->announced ||
           !encbitmap_convert(rb, 0, rb->max_length, true, NULL, errp);
}

/* Returns the guest's result; @errp is set if a state is lost */
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

        /* Where there is no RAM, everything is shared */
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

    /* KVM has looked at the first three, but need not have */
    if (!QEMU_IS_ALIGNED(gpa, TARGET_PAGE_SIZE) || !npages ||
        npages > (UINT64_MAX >> TARGET_PAGE_BITS) ||
        gpa + (npages << TARGET_PAGE_BITS) < gpa ||
        attributes & ~(uint64_t)MAP_GPA_RANGE_KNOWN) {
        return HC_EINVAL;
    }
    QEMU_LOCK_GUARD(&m->lock);
    if (!announce(m, &err)) {
        set_state_lost(m, err);
        return HC_EAGAIN;
    }
    result = convert_range(gpa, npages << TARGET_PAGE_BITS,
                           attributes & KVM_MAP_GPA_RANGE_ENCRYPTED, &err);
    if (err) {
        /* Linux does not look at the result */
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

    /* Not every KVM clears it before the exit */
    run->hypercall.ret = map_gpa_range(m, gpa, npages, attributes);
    trace_sev_migration_map_gpa_range(gpa, npages, attributes,
                                      run->hypercall.ret);
    return 0;
}

/*
 * Consent
 */

bool sev_migration_rdmsr(X86CPU *cpu, uint32_t msr, uint64_t *val)
{
    *val = qatomic_read(&sev_guest_migration(sev_migration_guest())->control);
    return true;
}

bool sev_migration_wrmsr(X86CPU *cpu, uint32_t msr, uint64_t val)
{
    SevMigration *m = sev_guest_migration(sev_migration_guest());

    if (val & ~(uint64_t)KVM_MIGRATION_READY) {
        return false;
    }
    trace_sev_migration_control(val);
    qatomic_set(&m->control, val);
    return true;
}

static bool check_consent(SevMigration *m, Error **errp)
{
    if (qatomic_read(&m->control) & KVM_MIGRATION_READY) {
        return true;
    }
    error_setg(errp, "SEV: the guest has not agreed to be migrated: READY is "
               "not set in MSR_KVM_MIGRATION_CONTROL, which Linux does while "
               "it boots, if the UEFI variable SevLiveMigrationEnabled exists");
    return false;
}

static bool check_state_known(SevMigration *m, Error **errp)
{
    if (!qatomic_read(&m->state_lost)) {
        return true;
    }
    error_setg(errp, "SEV: a page of the guest could not be converted, so it "
               "is not known which pages are private: see the message of that "
               "time in QEMU's log, and reset the guest");
    return false;
}

static void sev_migration_reset(void *opaque)
{
    ConfidentialGuestSupport *cgs = opaque;
    SevMigration *m = sev_guest_migration(cgs);
    RAMBlock *rb;

    switch (sev_guest_state(cgs)) {
    case SEV_STATE_RUNNING:
    case SEV_STATE_SEND_UPDATE:
    case SEV_STATE_SENT:
        break;
    default:
        /* Nothing has run here yet */
        return;
    }
    trace_sev_migration_control(0);
    qatomic_set(&m->control, 0);
    QEMU_LOCK_GUARD(&m->lock);
    m->announced = false;
    qatomic_set(&m->state_lost, false);
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        Error *err = NULL;

        /* What was launched encrypted (the firmware's flash) still is */
        if (is_guest_ram(rb) && encbitmap_npages(rb) &&
            encbitmap_convert(rb, 0, rb->used_length, !is_in_place(rb), NULL,
                              &err) < 0) {
            set_state_lost(m, err);
        }
    }
}

/*
 * Can it migrate at all?
 */

static bool kernel_offers(Error **errp)
{
    int hc = kvm_vm_check_extension(kvm_state, KVM_CAP_EXIT_HYPERCALL);
    int msr = kvm_vm_check_extension(kvm_state, KVM_CAP_X86_USER_SPACE_MSR);

    if (hc <= 0 || !(hc & BIT(KVM_HC_MAP_GPA_RANGE))) {
        error_setg(errp, "SEV: the host's KVM does not hand "
                   "KVM_HC_MAP_GPA_RANGE to QEMU (KVM_CAP_EXIT_HYPERCALL)");
    } else if (msr <= 0) {
        error_setg(errp, "SEV: the host's KVM does not hand MSRs to QEMU "
                   "(KVM_CAP_X86_USER_SPACE_MSR)");
    } else if (!kvm_enable_hypercall(BIT_ULL(KVM_HC_MAP_GPA_RANGE))) {
        error_setg(errp, "SEV: KVM_CAP_EXIT_HYPERCALL cannot be enabled");
    } else {
        return true;
    }
    return false;
}

bool sev_migration_kvm_init(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    uint32_t policy = guest_policy(cgs);
    Error *why = NULL;

    qemu_mutex_init(&m->lock);
    m->unmapped = g_hash_table_new(NULL, NULL);
    m->listener = (MemoryListener) {
        .name = "sev-ram",
        .region_add = ram_mapped,
    };
    memory_listener_register(&m->listener, &address_space_memory);
    if (m->mode == ON_OFF_AUTO_OFF) {
        error_setg(&why, "SEV: migration is switched off (sev-guest "
                   "property migration=off)");
    } else if (policy & SEV_POLICY_ES) {
        error_setg(&why, "SEV: policy 0x%x has ES (0x%x), and the register "
                   "state of SEV-ES guests cannot be sent", policy,
                   SEV_POLICY_ES);
    } else if (kernel_offers(&why)) {
        m->enabled = true;
        qemu_register_reset(sev_migration_reset, cgs);
        if (policy & SEV_POLICY_NOSEND) {
            error_setg(&why, "SEV: policy 0x%x has NOSEND (0x%x): the guest's "
                       "owner does not allow it to leave this host", policy,
                       SEV_POLICY_NOSEND);
        }
    }
    trace_sev_migration_offer(m->enabled, why ? error_get_pretty(why) : "yes");
    if (!m->enabled && m->mode == ON_OFF_AUTO_ON) {
        error_propagate(errp, why);
        return false;
    }
    if (why) {
        m->reason = why;
        return migrate_add_blocker(&m->reason, errp) >= 0;
    }
    return true;
}

bool sev_migration_needs_init2(ConfidentialGuestSupport *cgs)
{
    bool needed;

    /*
     * The VM type decides which features the initial VMSA has, and the VMSA
     * is part of the launch measurement of a guest with SEV-ES.  Such a guest
     * cannot have in-place memory, so it keeps the type that it has without
     * our module.  The measurement of other guests does not depend on the type.
     *
     * A kernel that can keep private memory in guest_memfd does it for the
     * newer VM type only.  Whether RAM will be one is not known yet, because
     * memory backends are created after the VM.
     */
    needed = !(guest_policy(cgs) & SEV_POLICY_ES) &&
             kvm_check_extension(KVM_STATE(current_accel()),
                                 KVM_CAP_SEV_PRIVATE_MEM) > 0;
    trace_sev_migration_needs_init2(guest_policy(cgs), needed);
    return needed;
}

bool sev_migration_incoming(ConfidentialGuestSupport *cgs)
{
    return object_dynamic_cast(OBJECT(cgs), TYPE_SEV_GUEST) &&
           runstate_check(RUN_STATE_INMIGRATE);
}

static bool sev_prepare_guest_memfd(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    MachineState *ms = MACHINE(qdev_get_machine());
    int ret;

    if (!m->enabled) {
        error_setg(errp, "SEV: guest_memfd RAM would stay shared, because the "
                   "guest is not asked which pages are private: %s",
                   error_get_pretty(m->reason));
        return false;
    }
    if (object_dynamic_cast(OBJECT(ms), TYPE_X86_MACHINE)) {
        X86MachineState *x86ms = X86_MACHINE(ms);

        /* The kernel has one memory slot address space for these VMs */
        if (x86ms->smm == ON_OFF_AUTO_ON) {
            error_setg(errp, "SEV: guest_memfd RAM does not go with SMM");
            error_append_hint(errp, "Use -machine smm=off, and firmware that "
                              "does not need it.\n");
            return false;
        }
        x86ms->smm = ON_OFF_AUTO_OFF;
    }
    ret = kvm_vm_enable_cap(kvm_state, KVM_CAP_SEV_PRIVATE_MEM, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "SEV: KVM does not let guest_memfd keep "
                         "the private memory of this VM "
                         "(KVM_CAP_SEV_PRIVATE_MEM)");
        error_append_hint(errp, "A VM of the legacy type cannot: try "
                          "-object sev-guest,legacy-vm-type=off\n");
        return false;
    }
    return true;
}

static bool sev_can_run(ConfidentialGuestSupport *cgs, Error **errp)
{
    switch (sev_guest_state(cgs)) {
    case SEV_STATE_UNINIT:
    case SEV_STATE_RECEIVE_UPDATE:
        error_setg(errp, "SEV: this guest was to be received by migration, "
                   "and has not been: there is nothing to run");
        return false;
    default:
        return true;
    }
}

bool sev_must_finish_launch(ConfidentialGuestSupport *cgs)
{
    Error *err = NULL;

    switch (sev_guest_state(cgs)) {
    case SEV_STATE_LAUNCH_UPDATE:
    case SEV_STATE_LAUNCH_SECRET:
        return true;
    case SEV_STATE_RUNNING:
    case SEV_STATE_SEND_UPDATE:
    case SEV_STATE_SENT:        /* taken back: send_done() has its turn */
        return false;
    default:
        /* It must not run, and this is too late for anything but this */
        sev_can_run(cgs, &err);
        error_report_err(err);
        exit(1);
    }
}

/*
 * Send
 */

/* What the guest has to do, for query-migrate */
static bool sev_is_willing(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);

    /* The rest of the reasons are migration blockers */
    return m->reason || (check_consent(m, errp) && check_state_known(m, errp));
}

/* Nothing is missing but what must be known of the destination */
static bool can_leave(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);

    if (m->reason) {
        error_propagate(errp, error_copy(m->reason));
        return false;
    }
    if (sev_guest_state(cgs) == SEV_STATE_SENT) {
        error_setg(errp, "SEV: the guest has been sent to another host, and "
                   "may run there: if it does not, cont takes it back");
        return false;
    }
    if (sev_guest_state(cgs) != SEV_STATE_RUNNING) {
        error_setg(errp, "SEV: a guest in state '%s' cannot be sent",
                   SevState_str(sev_guest_state(cgs)));
        return false;
    }
    return check_consent(m, errp) && check_state_known(m, errp);
}

SevMigrationInfo *sev_migration_info(void)
{
    ConfidentialGuestSupport *cgs = sev_migration_guest();
    SevMigration *m = sev_guest_migration(cgs);
    SevMigrationInfo *info = g_new0(SevMigrationInfo, 1);
    Error *why = NULL;
    RAMBlock *rb;

    info->offered = m->enabled;
    info->ready = qatomic_read(&m->control) & KVM_MIGRATION_READY;
    if (!can_leave(cgs, &why)) {
        info->blocked = g_strdup(error_get_pretty(why));
        error_free(why);
    }
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        uint64_t npages = encbitmap_npages(rb), nprivate;

        if (npages) {
            npages = MIN(npages, rb->used_length >> TARGET_PAGE_BITS);
            nprivate = encbitmap_count(rb, 0, npages);
            info->private_pages += nprivate;
            info->shared_pages += npages - nprivate;
        }
    }
    return info;
}

void sev_migration_print(Monitor *mon, const SevMigrationInfo *info)
{
    monitor_printf(mon, "migration: %s\n", info->blocked ?: "possible");
    monitor_printf(mon, "private pages: %" PRIu64 ", shared: %" PRIu64 "\n",
                   info->private_pages, info->shared_pages);
}

static bool sev_can_send(ConfidentialGuestSupport *cgs, Error **errp)
{
    if (!can_leave(cgs, errp)) {
        return false;
    }
    if (!sev_guest_migration(cgs)->certificates.pdh) {
        error_setg(errp, "SEV: the certificates of the destination's platform "
                   "are not set: use migrate-set-sev-info before each migrate "
                   "that follows a completed one");
        return false;
    }
    return true;
}

static void send_cancel(ConfidentialGuestSupport *cgs)
{
    SevMigration *m = sev_guest_migration(cgs);
    int fw_error, ret;

    ret = sev_guest_cmd(cgs, KVM_SEV_SEND_CANCEL, NULL, &fw_error);
    trace_sev_migration_send_cancel(ret, fw_error);
    m->cancel_due = ret < 0;
    if (ret < 0) {
        Error *err = NULL;

        /* The guest runs on all the same, and the next migration tries again */
        sev_cmd_error(&err, "SEND_CANCEL", ret, fw_error);
        warn_reportf_err(err, "The session with the firmware stays open, the "
                         "guest runs on: ");
    }
    sev_guest_set_state(cgs, SEV_STATE_RUNNING);
}

/* After SEND_START: how long a packet's header is */
static bool query_hdr_len(ConfidentialGuestSupport *cgs, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    struct kvm_sev_send_update_data query = {};
    int fw_error, ret;

    /* With a length of 0 it fails and tells */
    ret = sev_guest_cmd(cgs, KVM_SEV_SEND_UPDATE_DATA, &query, &fw_error);
    if (!query.hdr_len) {
        sev_cmd_error(errp, "SEND_UPDATE_DATA (length of a packet header)",
                      ret, fw_error);
        return false;
    }
    if (query.hdr_len > SEV_WIRE_HDR_MAX) {
        error_setg(errp, "SEV: packet headers of %u bytes, expected at most "
                   "%d", query.hdr_len, SEV_WIRE_HDR_MAX);
        return false;
    }
    m->hdr_len = query.hdr_len;
    return true;
}

static bool sev_send_start(ConfidentialGuestSupport *cgs, GByteArray *session,
                           Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    g_autofree uint8_t *own_pdh = NULL, *own_plat = NULL, *data = NULL;
    const SevCertificates *certs = &m->certificates;
    size_t own_pdh_len, own_plat_len;
    struct kvm_sev_send_start start = {};
    int fw_error, ret;

    if (!sev_can_send(cgs, errp)) {
        return false;
    }
    /* The destination needs it for its half of the key agreement */
    if (sev_get_pdh_info(sev_guest_fd(cgs), &own_pdh, &own_pdh_len, &own_plat,
                         &own_plat_len, errp)) {
        return false;
    }
    if (!own_pdh_len || own_pdh_len > SEV_WIRE_PDH_MAX) {
        error_setg(errp, "SEV: PDH certificate of %zu bytes, expected at most "
                   "%d", own_pdh_len, (int)SEV_WIRE_PDH_MAX);
        return false;
    }

    if (m->cancel_due) {
        send_cancel(cgs);
    }
    /* With a length of 0 it fails and tells */
    ret = sev_guest_cmd(cgs, KVM_SEV_SEND_START, &start, &fw_error);
    if (!start.session_len) {
        sev_cmd_error(errp, "SEND_START (length of a session)", ret,
                      fw_error);
        return false;
    }
    if (start.session_len > SEV_WIRE_SESSION_MAX) {
        error_setg(errp, "SEV: session of %u bytes, expected at most %d",
                   start.session_len, (int)SEV_WIRE_SESSION_MAX);
        return false;
    }
    data = g_malloc0(start.session_len);
    start.pdh_cert_uaddr = (uintptr_t)certs->pdh;
    start.pdh_cert_len = certs->pdh_len;
    start.plat_certs_uaddr = (uintptr_t)certs->plat;
    start.plat_certs_len = certs->plat_len;
    start.amd_certs_uaddr = (uintptr_t)certs->amd;
    start.amd_certs_len = certs->amd_len;
    start.session_uaddr = (uintptr_t)data;
    ret = sev_guest_cmd(cgs, KVM_SEV_SEND_START, &start, &fw_error);
    if (ret < 0) {
        sev_cmd_error(errp, "SEND_START", ret, fw_error);
        return false;
    }
    sev_guest_set_state(cgs, SEV_STATE_SEND_UPDATE);
    if (!query_hdr_len(cgs, errp)) {
        send_cancel(cgs);
        return false;
    }
    sev_packets_open(&m->packets, cgs);
    m->pages = 0;
    m->send_faults = 0;
    sev_wire_put_session(session, &(SevWireSession) {
        .cbitpos = sev_get_cbit_position(),
        .policy = start.policy,
        .pdh = own_pdh,
        .pdh_len = own_pdh_len,
        .session = data,
        .session_len = start.session_len,
    });
    trace_sev_migration_send_start(start.policy, start.session_len,
                                   m->hdr_len);
    return true;
}

/* Thread of the return path */
static bool sev_send_answer(ConfidentialGuestSupport *cgs, const uint8_t *data,
                            size_t len, Error **errp)
{
    size_t npages;

    if (!sev_wire_get_answer(data, len, &npages, errp)) {
        return false;
    }
    sev_packets_agree(&sev_guest_migration(cgs)->packets, npages);
    return true;
}

/* Is that why page @offset of @rb could not be packed? */
static bool changed_state(RAMBlock *rb, uint64_t offset, int ret)
{
    return ret == -EAGAIN ||
           (ret == -EFAULT && !encbitmap_test(rb, offset >> TARGET_PAGE_BITS));
}

/*
 * Page @offset of @rb could not be packed.  Returns -EAGAIN if it may be
 * possible later; @errp is set all the same, for the case that there is no
 * later.
 */
static int send_error(SevMigration *m, RAMBlock *rb, uint64_t offset, int ret,
                      int fw_error, uint32_t hdr_len, Error **errp)
{
    ERRP_GUARD();
    bool retry = sev_send_may_retry(&m->send_faults, ret);

    if (retry) {
        trace_sev_migration_page_changed(rb->idstr, offset, ret);
    }
    if (changed_state(rb, offset, ret)) {
        error_setg(errp, "SEV: the page changed its state");
    } else if (ret == -EPROTO) {
        error_setg(errp, "SEV: SEND_UPDATE_DATA made a packet that has not a "
                   "header of %u bytes and at most a page", hdr_len);
    } else {
        sev_cmd_error(errp, "SEND_UPDATE_DATA", ret, fw_error);
    }
    error_prepend(errp, "block %s, offset 0x%" PRIx64 ": ", rb->idstr,
                  offset);
    return retry ? -EAGAIN : ret;
}

static int sev_send_pages(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                          uint64_t offset, size_t npages, GByteArray *out,
                          Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    KvmPrivateAccessHold hold;
    int fw_error, ret;
    size_t done;

    if (!check_consent(m, errp) || !check_state_known(m, errp)) {
        return -EPERM;
    }
    kvm_private_access_hold(&hold, rb->host + offset,
                            npages * TARGET_PAGE_SIZE);
    ret = sev_packets_send(&m->packets, cgs, rb->host + offset, m->hdr_len,
                           npages, &done, &fw_error);
    kvm_private_access_release(&hold);
    offset += done * TARGET_PAGE_SIZE;
    if (done) {
        m->send_faults = 0;
    }
    if (ret < 0 && !(done && changed_state(rb, offset, ret))) {
        return send_error(m, rb, offset, ret, fw_error, m->hdr_len, errp);
    }
    for (size_t i = 0; i < m->packets.npackets; i++) {
        sev_wire_put_packet(out, &m->packets.packet[i]);
    }
    m->pages += done;
    return done;
}

static bool sev_send_final(ConfidentialGuestSupport *cgs, GByteArray *final,
                           Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);

    /* The guest is stopped: it cannot take its word back after this */
    if (!check_consent(m, errp) || !check_state_known(m, errp)) {
        return false;
    }
    sev_wire_put_final(final, qatomic_read(&m->control));
    trace_sev_migration_send_final(m->pages,
                                   stat64_get(&m->packets.calls));
    return true;
}

static uint64_t sev_send_calls(ConfidentialGuestSupport *cgs)
{
    return stat64_get(&sev_guest_migration(cgs)->packets.calls);
}

/* The firmware's session stays open: SEND_CANCEL can take the guest back */
static void sev_send_completed(ConfidentialGuestSupport *cgs)
{
    SevMigration *m = sev_guest_migration(cgs);

    sev_packets_close(&m->packets);
    sev_certificates_clear(&m->certificates);
    sev_guest_set_state(cgs, SEV_STATE_SENT);
}

/*
 * SEND_FINISH adds nothing to what is sent and makes the guest unusable here,
 * so it waits until QEMU ends.
 */
static void sev_send_done(ConfidentialGuestSupport *cgs, bool finish)
{
    Error *err = NULL;
    int fw_error, ret;

    sev_packets_close(&sev_guest_migration(cgs)->packets);
    if (!finish) {
        send_cancel(cgs);
        return;
    }
    ret = sev_guest_cmd(cgs, KVM_SEV_SEND_FINISH, NULL, &fw_error);
    trace_sev_migration_send_finish(ret, fw_error);
    if (ret < 0) {
        sev_cmd_error(&err, "SEND_FINISH", ret, fw_error);
        warn_reportf_err(err, "The guest has moved, and this QEMU ends without "
                         "finishing the session with the firmware: ");
    }
}

/*
 * Receive
 */

static bool sev_receive_start(ConfidentialGuestSupport *cgs,
                              const uint8_t *session, size_t len, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    struct kvm_sev_receive_start start = {};
    SevWireSession s;
    int fw_error, ret;

    if (sev_guest_state(cgs) != SEV_STATE_UNINIT) {
        error_setg(errp, "SEV: a guest in state '%s' cannot be received",
                   SevState_str(sev_guest_state(cgs)));
        return false;
    }
    if (!m->enabled) {
        error_setg(errp, "SEV: no guest can be received here: %s",
                   error_get_pretty(m->reason));
        return false;
    }
    if (!sev_wire_get_session(session, len, &s, errp)) {
        return false;
    }
    if (s.cbitpos != sev_get_cbit_position()) {
        error_setg(errp, "SEV: the C-bit of the incoming guest is %u, that of "
                   "this host %u: it is in the guest's page tables",
                   s.cbitpos, sev_get_cbit_position());
        return false;
    }
    if (s.policy != guest_policy(cgs)) {
        error_setg(errp, "SEV: the incoming guest has policy 0x%x, this "
                   "sev-guest 0x%x: start both sides with the same",
                   s.policy, guest_policy(cgs));
        return false;
    }
    start.policy = s.policy;
    start.pdh_uaddr = (uintptr_t)s.pdh;
    start.pdh_len = s.pdh_len;
    start.session_uaddr = (uintptr_t)s.session;
    start.session_len = s.session_len;
    ret = sev_guest_cmd(cgs, KVM_SEV_RECEIVE_START, &start, &fw_error);
    if (ret < 0) {
        sev_cmd_error(errp, "RECEIVE_START", ret, fw_error);
        return false;
    }
    object_property_set_uint(OBJECT(cgs), "handle", start.handle,
                             &error_abort);
    sev_guest_set_state(cgs, SEV_STATE_RECEIVE_UPDATE);
    sev_packets_open(&m->packets, cgs);
    m->pages = 0;
    trace_sev_migration_receive_start(s.policy, start.handle);
    return true;
}

/* A block of in-place memory, if all RAM of the guest is that; else NULL */
static RAMBlock *in_place_block(void)
{
    RAMBlock *rb, *found = NULL;

    RAMBLOCK_FOREACH(rb) {
        if (is_in_place(rb)) {
            found = rb;
        } else if (is_guest_ram(rb) && encbitmap_npages(rb)) {
            return NULL;
        }
    }
    return found;
}

/* See sev_packets_probe().  The pages are shared and empty, before and after. */
static void probe_firmware(ConfidentialGuestSupport *cgs, RAMBlock *rb)
{
    SevMigration *m = sev_guest_migration(cgs);
    const uint64_t size = SEV_WIRE_PACKET_PAGES * TARGET_PAGE_SIZE;
    KvmPrivateAccessHold hold;

    if (rb->used_length < size || encbitmap_count(rb, 0, SEV_WIRE_PACKET_PAGES) ||
        encbitmap_convert(rb, 0, size, true, NULL, NULL) < 0) {
        m->packets.limit = 1;
        return;
    }
    kvm_private_access_hold(&hold, rb->host, size);
    sev_packets_probe(&m->packets, cgs, rb->host, SEV_PACKET_HEADER_LEN);
    kvm_private_access_release(&hold);
    if (encbitmap_convert(rb, 0, size, false, NULL, NULL) < 0) {
        m->packets.limit = 1;
    }
}

static void sev_receive_answer(ConfidentialGuestSupport *cgs,
                               GByteArray *answer)
{
    SevMigration *m = sev_guest_migration(cgs);
    size_t npages = 1;
    RAMBlock *rb;

    if (m->packets.limit > 1) {
        RCU_READ_LOCK_GUARD();
        rb = in_place_block();
        if (rb) {
            probe_firmware(cgs, rb);
            npages = m->packets.limit;
        }
    }
    trace_sev_migration_receive_answer(npages);
    sev_wire_put_answer(answer, npages);
}

static bool sev_receive_pages(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                              uint64_t offset, size_t npages,
                              const uint8_t *in, size_t len, Error **errp)
{
    ERRP_GUARD();
    SevMigration *m = sev_guest_migration(cgs);
    SevPackets *p = &m->packets;
    KvmPrivateAccessHold hold;
    size_t pos = 0, done = 0;
    int fw_error, ret;

    if (sev_guest_state(cgs) != SEV_STATE_RECEIVE_UPDATE) {
        error_setg(errp, "SEV: private pages without a session before them");
        return false;
    }
    for (p->npackets = 0; done < npages; p->npackets++) {
        SevWirePacket *packet = &p->packet[p->npackets];

        if (!sev_wire_get_packet(in, len, &pos, packet, errp)) {
            goto fail;
        }
        if (sev_wire_packet_pages(packet) > npages - done) {
            error_setg(errp, "SEV: a packet of %zu pages in a record that "
                       "has %zu left", sev_wire_packet_pages(packet),
                       npages - done);
            goto fail;
        }
        done += sev_wire_packet_pages(packet);
    }
    if (pos != len) {
        error_setg(errp, "block %s, offset 0x%" PRIx64 ": SEV: %zu bytes left "
                   "after the packets of %zu pages", rb->idstr, offset,
                   len - pos, npages);
        return false;
    }
    kvm_private_access_hold(&hold, rb->host + offset,
                            npages * TARGET_PAGE_SIZE);
    ret = sev_packets_receive(p, cgs, rb->host + offset, npages, &done,
                              &fw_error);
    kvm_private_access_release(&hold);
    if (ret == -EOPNOTSUPP && !(p->limit > 1 && is_in_place(rb))) {
        /* The kernel makes the pages of guest_memfds only contiguous */
        error_setg(errp, "SEV: a packet of several pages, which this host can "
                   "receive only into in-place memory, and which the source "
                   "was not told to send");
        goto fail;
    } else if (ret == -EPROTO) {
        error_setg(errp, "SEV: packets of several pages, and other headers "
                   "or parts of pages beside them");
        goto fail;
    } else if (ret < 0) {
        sev_cmd_error(errp, "RECEIVE_UPDATE_DATA", ret, fw_error);
        goto fail;
    }
    m->pages += npages;
    return true;

fail:
    error_prepend(errp, "block %s, offset 0x%" PRIx64 ": ", rb->idstr,
                  offset + done * TARGET_PAGE_SIZE);
    return false;
}

static bool sev_receive_final(ConfidentialGuestSupport *cgs,
                              const uint8_t *final, size_t len, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    uint64_t control;
    int fw_error, ret;

    if (sev_guest_state(cgs) != SEV_STATE_RECEIVE_UPDATE) {
        error_setg(errp, "SEV: end of the private pages without a session");
        return false;
    }
    if (!sev_wire_get_final(final, len, &control, errp)) {
        return false;
    }
    if (control != KVM_MIGRATION_READY) {
        error_setg(errp, "SEV: MSR_KVM_MIGRATION_CONTROL is 0x%" PRIx64
                   " in the stream, expected READY (0x%x)", control,
                   KVM_MIGRATION_READY);
        return false;
    }
    ret = sev_guest_cmd(cgs, KVM_SEV_RECEIVE_FINISH, NULL, &fw_error);
    if (ret < 0) {
        sev_cmd_error(errp, "RECEIVE_FINISH", ret, fw_error);
        return false;
    }
    sev_packets_close(&m->packets);
    qatomic_set(&m->control, control);
    WITH_QEMU_LOCK_GUARD(&m->lock) {
        m->announced = true;
    }
    sev_guest_set_state(cgs, SEV_STATE_RUNNING);
    trace_sev_migration_receive_final(m->pages,
                                      stat64_get(&m->packets.calls));
    return true;
}

static const ConfidentialGuestMigrationOps sev_migration_ops = {
    .can_send = sev_can_send,
    .is_willing = sev_is_willing,
    .send_start = sev_send_start,
    .send_answer = sev_send_answer,
    .send_pages = sev_send_pages,
    .send_final = sev_send_final,
    .send_completed = sev_send_completed,
    .send_done = sev_send_done,
    .send_calls = sev_send_calls,
    .receive_start = sev_receive_start,
    .receive_answer = sev_receive_answer,
    .receive_pages = sev_receive_pages,
    .receive_final = sev_receive_final,
    .can_run = sev_can_run,
    .prepare_guest_memfd = sev_prepare_guest_memfd,
    .guest_memfd_added = sev_guest_memfd_added,
};

static void get_mode(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(obj);
    OnOffAuto mode = sev_guest_migration(cgs)->mode;

    visit_type_OnOffAuto(v, name, &mode, errp);
}

static void set_mode(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(obj);

    if (cgs->ready) {
        error_setg(errp, "%s cannot be changed once the guest is made", name);
        return;
    }
    visit_type_OnOffAuto(v, name, &sev_guest_migration(cgs)->mode, errp);
}

void sev_migration_class_init(ObjectClass *oc)
{
    ConfidentialGuestSupportClass *klass = CONFIDENTIAL_GUEST_SUPPORT_CLASS(oc);

    klass->migration = &sev_migration_ops;
    object_class_property_add(oc, "migration", "OnOffAuto", get_mode, set_mode,
                              NULL, NULL);
    object_class_property_set_description(oc, "migration",
            "offer the guest what it needs to be migrated (auto: if the kernel can)");
}

void qmp_migrate_set_sev_info(const char *pdh, const char *plat_cert,
                              const char *amd_cert, Error **errp)
{
    ConfidentialGuestSupport *cgs = sev_migration_guest();

    if (!cgs) {
        error_setg(errp, "This guest is not an SEV guest (-object sev-guest)");
        return;
    }
    sev_certificates_set(&sev_guest_migration(cgs)->certificates, pdh,
                         plat_cert, amd_cert, errp);
}
