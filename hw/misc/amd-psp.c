/*
 * Emulated AMD Platform Security Processor: the PCI device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A mailbox in BAR 2: the host writes the address of a command buffer, then
 * the command; the device sets the response bit and the status, and sends an
 * MSI if it was asked for one.  The registers are those that Linux's ccp
 * driver uses for a processor with SEV and without TEE (pspv4 in sp-pci.c).
 *
 * Commands execute within the write of the register: the vCPU that wrote it
 * waits, and no other can change the view of a page meanwhile.  The few that
 * change views themselves need all vCPUs to stop and execute as safe work.
 */

#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-sev-platform.h"
#include "qemu/bitops.h"
#include "qemu/log.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "crypto/hash.h"
#include "crypto/random.h"
#include "hw/core/cpu.h"
#include "hw/misc/amd-psp.h"
#include "hw/misc/amd-psp-authority.h"
#include "hw/misc/amd-psp-costs.h"
#include "hw/misc/amd-psp-faults.h"
#include "hw/pci/msi.h"
#include "hw/pci/pci_device.h"
#include "hw/qdev-properties.h"
#include "migration/blocker.h"
#include "trace.h"

OBJECT_DECLARE_SIMPLE_TYPE(AmdPspState, AMD_PSP)

#define AMD_PSP_DEVICE_ID   0x14ca
#define AMD_PSP_PCI_CLASS   0x1080  /* another encryption controller */

#define AMD_PSP_BAR         2
#define AMD_PSP_BAR_SIZE    (1 * MiB)

/* Registers */
#define REG_INTEN           0x10690
#define REG_INTSTS          0x10694 /* write 1 to clear */
#define REG_CMDRESP         0x10980
#define REG_CMDBUF_LO       0x109e0
#define REG_CMDBUF_HI       0x109e4
#define REG_BOOTLOADER      0x109ec
#define REG_FEATURE         0x109fc

#define INT_CMD_DONE        BIT(1)

#define CMDRESP_IOC         BIT(0)  /* interrupt on completion */
#define CMDRESP_CMD_SHIFT   16
#define CMDRESP_CMD_LEN     11
#define CMDRESP_DONE        BIT(31)

/* Anything but all ones: the firmware is there */
#define BOOTLOADER_VERSION  0x00010000

#define FEATURE_SEV         BIT(0)

/* Of one kind of command, see SevPlatformCommandStats */
typedef struct AmdPspCounter {
    uint64_t count;
    uint64_t failed;
    uint64_t faults;
    uint64_t guest_bytes;
    uint64_t busy_ns;
    uint16_t last_status;
} AmdPspCounter;

struct AmdPspState {
    PCIDevice parent_obj;

    MemoryRegion mmio;
    QEMUBH *executed_bh;
    QEMUTimer *end_timer;
    Error *migration_blocker;
    char *seed;
    char *ark;                          /* file of the authority */
    AmdPspAuthority *authority;

    uint32_t inten;
    uint32_t intsts;
    uint32_t cmdresp;
    uint32_t cmdbuf_lo;
    uint32_t cmdbuf_hi;

    /* Costs, faults that are still to happen, and counters; under the BQL */
    AmdPspCosts costs;
    SevPlatformFaultList *faults;
    AmdPspCounter counters[AMD_PSP_COMMAND__MAX];

    /*
     * The command that executes.  Under the BQL, but for safe work, which
     * has it to itself until it schedules executed_bh.
     */
    bool busy;
    bool hung;                          /* and will never end */
    bool faulty;                        /* fault happens to it */
    SevPlatformFault fault;
    uint32_t command;
    hwaddr buffer;
    int64_t start;                      /* virtual time */
    uint16_t status;                    /* AmdPspStatus, or that of a fault */
    uint64_t guest_bytes;
    uint64_t busy_ns;

    /* Protects platform: safe work does not hold the BQL.  Comes after it. */
    QemuMutex lock;
    AmdPspPlatform platform;
};

/* Index of the counter of all commands that there are not */
#define COUNTER_UNKNOWN     0

static AmdPspCounter *amd_psp_counter(AmdPspState *s, uint32_t id)
{
    return &s->counters[amd_psp_command_known(id) ? id : COUNTER_UNKNOWN];
}

static bool amd_psp_has_fault(AmdPspState *s, SevPlatformFaultKind kind)
{
    return s->faulty && s->fault.kind == kind;
}

/* Execute s->command; in a context for amd_psp_execute() */
static void amd_psp_run(AmdPspState *s)
{
    int64_t start = get_clock(), corrupt = -1;

    if (amd_psp_has_fault(s, SEV_PLATFORM_FAULT_KIND_CORRUPT)) {
        corrupt = s->fault.u.corrupt.has_offset ?
                  s->fault.u.corrupt.offset : 0;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->status = amd_psp_execute(&s->platform, s->command, s->buffer,
                                    corrupt);
        s->guest_bytes = s->platform.guest_bytes;
    }
    s->busy_ns = get_clock() - start;
    trace_amd_psp_command(amd_psp_command_name(s->command), s->command,
                          s->status, s->busy_ns / SCALE_US);
}

static void amd_psp_update_irq(AmdPspState *s)
{
    if (s->inten & s->intsts) {
        msi_notify(PCI_DEVICE(s), 0);
    }
}

/* The command ends for the host */
static void amd_psp_end(void *opaque)
{
    AmdPspState *s = opaque;
    AmdPspCounter *c = amd_psp_counter(s, s->command);
    bool ioc = s->cmdresp & CMDRESP_IOC;

    qatomic_set(&s->busy, false);
    c->last_status = s->status;
    c->failed += !!s->status;
    s->cmdresp = (s->cmdresp & ~(uint32_t)UINT16_MAX) | CMDRESP_DONE |
                 s->status;
    if (ioc && !amd_psp_has_fault(s, SEV_PLATFORM_FAULT_KIND_NO_INTERRUPT)) {
        s->intsts |= INT_CMD_DONE;
        amd_psp_update_irq(s);
    }
}

/* s->status is there; when does the host get to know? */
static void amd_psp_executed(AmdPspState *s)
{
    AmdPspCounter *c = amd_psp_counter(s, s->command);
    int64_t end = s->start + amd_psp_costs_of(&s->costs, s->command,
                                              s->guest_bytes);

    c->guest_bytes += s->guest_bytes;
    c->busy_ns += s->busy_ns;
    if (amd_psp_has_fault(s, SEV_PLATFORM_FAULT_KIND_LATE)) {
        end += (int64_t)s->fault.u.late.delay_us * SCALE_US;
    }
    if (end > qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL)) {
        timer_mod(s->end_timer, end);
    } else {
        amd_psp_end(s);
    }
}

static void amd_psp_executed_bh(void *opaque)
{
    AmdPspState *s = opaque;

    if (s->busy) {
        amd_psp_executed(s);
    }
}

/* With all vCPUs stopped, and without the BQL */
static void amd_psp_work(CPUState *cs, run_on_cpu_data data)
{
    AmdPspState *s = data.host_ptr;

    if (qatomic_read(&s->busy)) {
        amd_psp_run(s);
        qemu_bh_schedule(s->executed_bh);
    }
}

static void amd_psp_start(AmdPspState *s, uint32_t value)
{
    uint32_t id = extract32(value, CMDRESP_CMD_SHIFT, CMDRESP_CMD_LEN);

    if (s->busy) {
        qemu_log_mask(LOG_GUEST_ERROR,
                      "amd-psp: command 0x%x while another executes\n", id);
        return;
    }
    s->cmdresp = value & (CMDRESP_IOC | MAKE_64BIT_MASK(CMDRESP_CMD_SHIFT,
                                                        CMDRESP_CMD_LEN));
    s->command = id;
    s->buffer = deposit64(s->cmdbuf_lo, 32, 32, s->cmdbuf_hi);
    s->start = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    s->guest_bytes = 0;
    s->busy_ns = 0;
    qatomic_set(&s->busy, true);

    amd_psp_counter(s, id)->count++;
    s->faulty = amd_psp_faults_next(&s->faults, id, &s->fault);
    if (s->faulty) {
        amd_psp_counter(s, id)->faults++;
        trace_amd_psp_fault(amd_psp_command_name(id), id,
                            SevPlatformFaultKind_str(s->fault.kind));
    }
    if (amd_psp_has_fault(s, SEV_PLATFORM_FAULT_KIND_HANG)) {
        s->hung = true;
    } else if (amd_psp_has_fault(s, SEV_PLATFORM_FAULT_KIND_STATUS)) {
        s->status = s->fault.u.status.status;
        amd_psp_executed(s);
    } else if (current_cpu && !amd_psp_command_stops_cpus(id)) {
        amd_psp_run(s);
        amd_psp_executed(s);
    } else {
        /* Or nobody knows what the vCPUs do: the write is not of one of them */
        async_safe_run_on_cpu(current_cpu ?: first_cpu, amd_psp_work,
                              RUN_ON_CPU_HOST_PTR(s));
    }
}

static uint64_t amd_psp_read(void *opaque, hwaddr addr, unsigned size)
{
    AmdPspState *s = opaque;
    uint64_t value = 0;

    switch (addr) {
    case REG_INTEN:
        value = s->inten;
        break;
    case REG_INTSTS:
        value = s->intsts;
        break;
    case REG_CMDRESP:
        value = s->cmdresp;
        break;
    case REG_CMDBUF_LO:
        value = s->cmdbuf_lo;
        break;
    case REG_CMDBUF_HI:
        value = s->cmdbuf_hi;
        break;
    case REG_BOOTLOADER:
        value = BOOTLOADER_VERSION;
        break;
    case REG_FEATURE:
        value = FEATURE_SEV;
        break;
    default:
        qemu_log_mask(LOG_UNIMP, "amd-psp: read of register 0x%" HWADDR_PRIx
                      "\n", addr);
        break;
    }
    trace_amd_psp_read(addr, value);
    return value;
}

static void amd_psp_write(void *opaque, hwaddr addr, uint64_t value,
                          unsigned size)
{
    AmdPspState *s = opaque;

    trace_amd_psp_write(addr, value);
    switch (addr) {
    case REG_INTEN:
        s->inten = value;
        amd_psp_update_irq(s);
        break;
    case REG_INTSTS:
        s->intsts &= ~value;
        break;
    case REG_CMDRESP:
        amd_psp_start(s, value);
        break;
    case REG_CMDBUF_LO:
        s->cmdbuf_lo = value;
        break;
    case REG_CMDBUF_HI:
        s->cmdbuf_hi = value;
        break;
    default:
        qemu_log_mask(LOG_UNIMP, "amd-psp: write of register 0x%" HWADDR_PRIx
                      "\n", addr);
        break;
    }
}

static const MemoryRegionOps amd_psp_ops = {
    .read = amd_psp_read,
    .write = amd_psp_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 4, .max_access_size = 4 },
    .impl = { .min_access_size = 4, .max_access_size = 4 },
};

static void amd_psp_reset_platform(CPUState *cs, run_on_cpu_data data)
{
    AmdPspState *s = data.host_ptr;

    QEMU_LOCK_GUARD(&s->lock);
    amd_psp_platform_reset(&s->platform);
}

static void amd_psp_reset_hold(Object *obj, ResetType type)
{
    AmdPspState *s = AMD_PSP(obj);

    s->inten = 0;
    s->intsts = 0;
    s->cmdresp = 0;
    s->cmdbuf_lo = 0;
    s->cmdbuf_hi = 0;
    timer_del(s->end_timer);
    s->hung = false;
    qatomic_set(&s->busy, false);
    if (current_cpu) {
        /* A reset of the bus by the guest, whose other vCPUs run on */
        async_safe_run_on_cpu(current_cpu, amd_psp_reset_platform,
                              RUN_ON_CPU_HOST_PTR(s));
    } else {
        amd_psp_reset_platform(NULL, RUN_ON_CPU_HOST_PTR(s));
    }
}

/* 32 bytes that are the platform's identity: from its name, or random */
static bool amd_psp_make_seed(AmdPspState *s, uint8_t *seed, Error **errp)
{
    size_t len = AMD_PSP_SEED_LEN;

    if (!s->seed) {
        return qcrypto_random_bytes(seed, len, errp) == 0;
    }
    return qcrypto_hash_bytes(QCRYPTO_HASH_ALGO_SHA256, s->seed,
                              strlen(s->seed), &seed, &len, errp) == 0;
}

static void amd_psp_realize(PCIDevice *dev, Error **errp)
{
    AmdPspState *s = AMD_PSP(dev);
    uint8_t seed[AMD_PSP_SEED_LEN];

    if (!sev_memory_max_asid()) {
        error_setg(errp, "amd-psp needs CPUs that are an SEV host");
        error_append_hint(errp, "Use, for instance, "
                          "-accel tcg -cpu EPYC-Milan,+svm,+sev\n");
        return;
    }
    if (!amd_psp_make_seed(s, seed, errp)) {
        return;
    }
    if (s->ark) {
        s->authority = amd_psp_authority_open(s->ark, errp);
        if (!s->authority) {
            return;
        }
    }
    if (!amd_psp_platform_init(&s->platform, seed, s->authority)) {
        error_setg(errp, "the keys in '%s' cannot sign", s->ark);
        return;
    }
    error_setg(&s->migration_blocker,
               "amd-psp: keys and encrypted memory of SEV guests that run in "
               "this machine cannot leave it");
    if (migrate_add_blocker(&s->migration_blocker, errp) < 0) {
        return;
    }
    if (msi_init(dev, 0, 1, true, false, errp)) {
        migrate_del_blocker(&s->migration_blocker);
        return;
    }
    qemu_mutex_init(&s->lock);
    s->executed_bh = qemu_bh_new_guarded(amd_psp_executed_bh, s,
                                         &DEVICE(dev)->mem_reentrancy_guard);
    s->end_timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, amd_psp_end, s);
    memory_region_init_io(&s->mmio, OBJECT(s), &amd_psp_ops, s, TYPE_AMD_PSP,
                          AMD_PSP_BAR_SIZE);
    pci_register_bar(dev, AMD_PSP_BAR, PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_TYPE_64, &s->mmio);
}

static void amd_psp_exit(PCIDevice *dev)
{
    AmdPspState *s = AMD_PSP(dev);

    amd_psp_platform_reset(&s->platform);
    timer_free(s->end_timer);
    qemu_bh_delete(s->executed_bh);
    qemu_mutex_destroy(&s->lock);
    msi_uninit(dev);
    migrate_del_blocker(&s->migration_blocker);
}

static SevPlatformCommandStatsList *amd_psp_query_commands(AmdPspState *s)
{
    SevPlatformCommandStatsList *list = NULL, **tail = &list;
    uint32_t id;

    for (id = 0; id < ARRAY_SIZE(s->counters); id++) {
        const AmdPspCounter *c = &s->counters[id];
        SevPlatformCommandStats *stats;

        if (!c->count) {
            continue;
        }
        stats = g_new0(SevPlatformCommandStats, 1);
        stats->command = g_strdup(amd_psp_command_name(id));
        stats->count = c->count;
        stats->failed = c->failed;
        stats->faults = c->faults;
        stats->last_status = c->last_status;
        stats->guest_bytes = c->guest_bytes;
        stats->busy_ns = c->busy_ns;
        QAPI_LIST_APPEND(tail, stats);
    }
    return list;
}

/* The lock must be held */
static SevPlatformGuestList *amd_psp_query_guests(AmdPspState *s)
{
    SevPlatformGuestList *list = NULL, **tail = &list;

    /* In the order of the API's values */
    QEMU_BUILD_BUG_ON((int)SEV_PLATFORM_GUEST_STATE_SENT !=
                      (int)AMD_PSP_GUEST_SENT);
    for (size_t i = 0; i < ARRAY_SIZE(s->platform.guests); i++) {
        const AmdPspGuest *g = &s->platform.guests[i];
        SevPlatformGuest *guest;

        if (!g->handle) {
            continue;
        }
        guest = g_new0(SevPlatformGuest, 1);
        guest->handle = g->handle;
        guest->asid = g->asid;
        guest->state = (SevPlatformGuestState)g->state;
        QAPI_LIST_APPEND(tail, guest);
    }
    return list;
}

static SevPlatformMemory *amd_psp_query_memory(void)
{
    SevPlatformMemory *memory = g_new0(SevPlatformMemory, 1);
    SevMemoryStats stats;

    sev_memory_stats(&stats);
    memory->plaintext = stats.plaintext;
    memory->decrypted = stats.decrypted;
    memory->encrypted = stats.encrypted;
    memory->written_back = stats.written_back;
    memory->bypassing_reads = stats.bypassing_reads;
    memory->bypassing_writes = stats.bypassing_writes;
    return memory;
}

SevPlatformInfo *amd_psp_query(DeviceState *dev)
{
    AmdPspState *s = AMD_PSP(dev);
    SevPlatformInfo *info = g_new0(SevPlatformInfo, 1);
    unsigned guests, active;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        switch (amd_psp_platform_state(&s->platform, &guests, &active)) {
        case AMD_PSP_PLATFORM_UNINIT:
            info->state = SEV_PLATFORM_STATE_UNINIT;
            break;
        case AMD_PSP_PLATFORM_INIT:
            info->state = SEV_PLATFORM_STATE_INIT;
            break;
        case AMD_PSP_PLATFORM_WORKING:
            info->state = SEV_PLATFORM_STATE_WORKING;
            break;
        }
        info->contexts = amd_psp_query_guests(s);
    }
    info->qom_path = object_get_canonical_path(OBJECT(dev));
    info->guests = guests;
    info->active = active;
    info->busy = s->busy;
    info->hung = s->hung;
    info->memory = amd_psp_query_memory();
    info->faults = QAPI_CLONE(SevPlatformFaultList, s->faults);
    info->costs = QAPI_CLONE(SevPlatformCommandCostList, s->costs.own);
    info->commands = amd_psp_query_commands(s);
    return info;
}

static void amd_psp_get_faults(Object *obj, Visitor *v, const char *name,
                               void *opaque, Error **errp)
{
    AmdPspState *s = AMD_PSP(obj);

    visit_type_SevPlatformFaultList(v, name, &s->faults, errp);
}

static void amd_psp_set_faults(Object *obj, Visitor *v, const char *name,
                               void *opaque, Error **errp)
{
    AmdPspState *s = AMD_PSP(obj);
    SevPlatformFaultList *faults = NULL;

    if (!visit_type_SevPlatformFaultList(v, name, &faults, errp)) {
        return;
    }
    if (!amd_psp_faults_check(faults, errp)) {
        qapi_free_SevPlatformFaultList(faults);
        return;
    }
    qapi_free_SevPlatformFaultList(s->faults);
    s->faults = faults;
}

static void amd_psp_get_costs(Object *obj, Visitor *v, const char *name,
                              void *opaque, Error **errp)
{
    AmdPspState *s = AMD_PSP(obj);

    visit_type_SevPlatformCommandCostList(v, name, &s->costs.own, errp);
}

static void amd_psp_set_costs(Object *obj, Visitor *v, const char *name,
                              void *opaque, Error **errp)
{
    AmdPspState *s = AMD_PSP(obj);
    SevPlatformCommandCostList *own = NULL;

    if (!visit_type_SevPlatformCommandCostList(v, name, &own, errp)) {
        return;
    }
    if (!amd_psp_costs_check(own, errp)) {
        qapi_free_SevPlatformCommandCostList(own);
        return;
    }
    qapi_free_SevPlatformCommandCostList(s->costs.own);
    s->costs.own = own;
}

static void amd_psp_finalize(Object *obj)
{
    qapi_free_SevPlatformFaultList(AMD_PSP(obj)->faults);
    qapi_free_SevPlatformCommandCostList(AMD_PSP(obj)->costs.own);
    amd_psp_authority_free(AMD_PSP(obj)->authority);
}

static const Property amd_psp_properties[] = {
    DEFINE_PROP_STRING("seed", AmdPspState, seed),
    DEFINE_PROP_STRING("ark", AmdPspState, ark),
    DEFINE_PROP_UINT32("cost-doorbell-ns", AmdPspState, costs.doorbell, 0),
    DEFINE_PROP_UINT32("cost-command-ns", AmdPspState, costs.command, 0),
    DEFINE_PROP_UINT32("cost-kib-ns", AmdPspState, costs.kib, 0),
};

static void amd_psp_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    k->realize = amd_psp_realize;
    k->exit = amd_psp_exit;
    k->vendor_id = PCI_VENDOR_ID_AMD;
    k->device_id = AMD_PSP_DEVICE_ID;
    k->class_id = AMD_PSP_PCI_CLASS;
    rc->phases.hold = amd_psp_reset_hold;
    dc->desc = "AMD Platform Security Processor with SEV, emulated";
    /* Memory is encrypted with keys that live in it */
    dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, amd_psp_properties);
    object_class_property_add(klass, "faults", "SevPlatformFaultList",
                              amd_psp_get_faults, amd_psp_set_faults,
                              NULL, NULL);
    object_class_property_set_description(klass, "faults",
        "What goes wrong with commands; also with qom-set, at any time");
    object_class_property_add(klass, "costs", "SevPlatformCommandCostList",
                              amd_psp_get_costs, amd_psp_set_costs,
                              NULL, NULL);
    object_class_property_set_description(klass, "costs",
        "What single commands take instead; also with qom-set, at any time");
    object_class_property_set_description(klass, "seed",
        "Name of the platform's identity and keys (default: a new platform)");
    object_class_property_set_description(klass, "ark",
        "File with the root keys of the platform's certificates, which is made "
        "if it is not there, as is FILE.cert (default: there is no root)");
    object_class_property_set_description(klass, "cost-doorbell-ns",
        "Least time that giving a command takes");
    object_class_property_set_description(klass, "cost-command-ns",
        "Least time that executing a command takes, in addition");
    object_class_property_set_description(klass, "cost-kib-ns",
        "Least time that a KiB of guest memory takes, in addition");
}

static const TypeInfo amd_psp_types[] = {
    {
        .name = TYPE_AMD_PSP,
        .parent = TYPE_PCI_DEVICE,
        .instance_size = sizeof(AmdPspState),
        .instance_finalize = amd_psp_finalize,
        .class_init = amd_psp_class_init,
        .interfaces = (InterfaceInfo[]) {
            { INTERFACE_CONVENTIONAL_PCI_DEVICE },
            { },
        },
    },
};

DEFINE_TYPES(amd_psp_types)
