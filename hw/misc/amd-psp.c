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
#include "qapi/error.h"
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

struct AmdPspState {
    PCIDevice parent_obj;

    MemoryRegion mmio;
    QEMUBH *done_bh;
    Error *migration_blocker;
    char *seed;

    uint32_t inten;
    uint32_t intsts;
    uint32_t cmdresp;
    uint32_t cmdbuf_lo;
    uint32_t cmdbuf_hi;

    /* The command that executes as safe work; under the BQL */
    bool busy;
    uint32_t command;
    hwaddr buffer;
    AmdPspStatus status;

    /* Protects platform: safe work does not hold the BQL.  Comes after it. */
    QemuMutex lock;
    AmdPspPlatform platform;
};

static AmdPspStatus amd_psp_run(AmdPspState *s, uint32_t id, hwaddr buffer)
{
    int64_t start = get_clock();
    AmdPspStatus status;

    qemu_mutex_lock(&s->lock);
    status = amd_psp_execute(&s->platform, id, buffer);
    qemu_mutex_unlock(&s->lock);
    trace_amd_psp_command(amd_psp_command_name(id), id, status,
                          (get_clock() - start) / SCALE_US);
    return status;
}

static void amd_psp_update_irq(AmdPspState *s)
{
    if (s->inten & s->intsts) {
        msi_notify(PCI_DEVICE(s), 0);
    }
}

static void amd_psp_done(AmdPspState *s, AmdPspStatus status)
{
    bool ioc = s->cmdresp & CMDRESP_IOC;

    s->cmdresp = (s->cmdresp & ~(uint32_t)UINT16_MAX) | CMDRESP_DONE | status;
    if (ioc) {
        s->intsts |= INT_CMD_DONE;
        amd_psp_update_irq(s);
    }
}

static void amd_psp_done_bh(void *opaque)
{
    AmdPspState *s = opaque;

    if (s->busy) {
        s->busy = false;
        amd_psp_done(s, s->status);
    }
}

/* With all vCPUs stopped, and without the BQL */
static void amd_psp_work(CPUState *cs, run_on_cpu_data data)
{
    AmdPspState *s = data.host_ptr;

    if (qatomic_read(&s->busy)) {
        s->status = amd_psp_run(s, s->command, s->buffer);
        qemu_bh_schedule(s->done_bh);
    }
}

static void amd_psp_start(AmdPspState *s, uint32_t value)
{
    uint32_t id = extract32(value, CMDRESP_CMD_SHIFT, CMDRESP_CMD_LEN);
    hwaddr buffer = deposit64(s->cmdbuf_lo, 32, 32, s->cmdbuf_hi);

    if (s->busy) {
        qemu_log_mask(LOG_GUEST_ERROR,
                      "amd-psp: command 0x%x while another executes\n", id);
        return;
    }
    s->cmdresp = value & (CMDRESP_IOC | MAKE_64BIT_MASK(CMDRESP_CMD_SHIFT,
                                                        CMDRESP_CMD_LEN));
    if (current_cpu && !amd_psp_command_stops_cpus(id)) {
        amd_psp_done(s, amd_psp_run(s, id, buffer));
        return;
    }
    /* Or nobody knows what the vCPUs do: the write is not of one of them */
    s->busy = true;
    s->command = id;
    s->buffer = buffer;
    async_safe_run_on_cpu(current_cpu ?: first_cpu, amd_psp_work,
                          RUN_ON_CPU_HOST_PTR(s));
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
    amd_psp_platform_init(&s->platform, seed);
    s->done_bh = qemu_bh_new_guarded(amd_psp_done_bh, s,
                                     &DEVICE(dev)->mem_reentrancy_guard);
    memory_region_init_io(&s->mmio, OBJECT(s), &amd_psp_ops, s, TYPE_AMD_PSP,
                          AMD_PSP_BAR_SIZE);
    pci_register_bar(dev, AMD_PSP_BAR, PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_TYPE_64, &s->mmio);
}

static void amd_psp_exit(PCIDevice *dev)
{
    AmdPspState *s = AMD_PSP(dev);

    amd_psp_platform_reset(&s->platform);
    qemu_bh_delete(s->done_bh);
    qemu_mutex_destroy(&s->lock);
    msi_uninit(dev);
    migrate_del_blocker(&s->migration_blocker);
}

static const Property amd_psp_properties[] = {
    DEFINE_PROP_STRING("seed", AmdPspState, seed),
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
}

static const TypeInfo amd_psp_types[] = {
    {
        .name = TYPE_AMD_PSP,
        .parent = TYPE_PCI_DEVICE,
        .instance_size = sizeof(AmdPspState),
        .class_init = amd_psp_class_init,
        .interfaces = (InterfaceInfo[]) {
            { INTERFACE_CONVENTIONAL_PCI_DEVICE },
            { },
        },
    },
};

DEFINE_TYPES(amd_psp_types)
