/*
 * Emulated AMD Platform Security Processor: the PCI device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The device is a mailbox in BAR 2.  The host writes the address of a command
 * buffer, then the command.  The device sets the response bit and the status,
 * and sends an MSI if the command requested one.  The registers are those that
 * Linux's ccp driver uses for a processor with SEV and without TEE (pspv4 in
 * sp-pci.c).
 *
 * A command executes within the write of the register.  The vCPU that wrote it
 * waits, and no other vCPU can change the view of a page meanwhile.  Commands
 * that change views themselves need all vCPUs to stop, so they execute as safe
 * work.
 *
 * In ring buffer mode (amd-psp-ring.h) the same registers are the control, tail
 * and head of queues.  A command of a queue executes in the same ways as one of
 * the mailbox.  The device starts the next command of a queue when the previous
 * one has ended.
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

/*
 * This value must not be all ones, because Linux's driver would then assume
 * that there is no firmware
 */
#define BOOTLOADER_VERSION  0x00010000

#define FEATURE_SEV         BIT(0)

/*
 * A vCPU that writes to a register executes commands of the ring's queues while
 * it holds the BQL.  After this number of commands, or after this time, it
 * leaves the next command to safe work.
 */
#define COMMANDS_AT_ONCE    64
#define AT_ONCE_NS          (2 * SCALE_MS)

/* Counters of one command, see SevPlatformCommandStats */
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
    QEMUBH *continue_bh;
    QEMUBH *restarted_bh;
    QEMUTimer *end_timer;
    QEMUTimer *restart_timer;           /* for the fault "restart" */
    Error *migration_blocker;
    char *seed;
    char *ark;                          /* file of the authority */
    char *cek;                          /* file for the signed CEK */
    bool always_check_certs;
    bool export_signed_cek;
    AmdPspAuthority *authority;

    uint32_t inten;
    uint32_t intsts;
    uint32_t cmdresp;
    uint32_t cmdbuf_lo;
    uint32_t cmdbuf_hi;

    /* Costs, pending faults and counters; protected by the BQL */
    AmdPspCosts costs;
    SevPlatformFaultList *faults;
    AmdPspCounter counters[AMD_PSP_COMMAND__MAX];

    /*
     * The current command; protected by the BQL.  While safe work executes the
     * command without the BQL, nothing else accesses these members until the
     * safe work schedules executed_bh.
     */
    bool busy;
    bool to_work;                       /* safe work must execute the command */
    bool hung;                          /* the command never ends */
    bool queued;                        /* the command is from a queue */
    bool left;                          /* it ended the mode: not executed */
    bool doorbell;                      /* first command after a doorbell */
    bool faulty;                        /* @fault applies to the command */
    SevPlatformFault fault;
    uint32_t command;
    hwaddr buffer;
    int64_t start;                      /* virtual time */
    uint32_t status;                    /* AmdPspStatus, or one of a fault */
    uint64_t guest_bytes;
    uint64_t busy_ns;

    /*
     * Protects @platform.  The BQL does not protect @platform, because
     * functions that async_safe_run_on_cpu() runs access @platform without the
     * BQL.  A thread that needs both locks takes the BQL first.
     */
    QemuMutex lock;
    AmdPspPlatform platform;
};

/* Index of the counter for all unknown commands */
#define COUNTER_UNKNOWN     0

static AmdPspCounter *amd_psp_counter(AmdPspState *s, uint32_t id)
{
    return &s->counters[amd_psp_command_known(id) ? id : COUNTER_UNKNOWN];
}

static bool amd_psp_has_fault(AmdPspState *s, SevPlatformFaultKind kind)
{
    return s->faulty && s->fault.kind == kind;
}

/* Execute s->command.  Called in a context that amd_psp_execute() allows. */
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
    s->busy_ns += get_clock() - start;
    if (s->status == AMD_PSP_CONTINUE) {
        return;
    }
    trace_amd_psp_command(amd_psp_command_name(s->command), s->command,
                          s->status, s->busy_ns / SCALE_US);
}

static void amd_psp_update_irq(AmdPspState *s)
{
    if (s->inten & s->intsts) {
        msi_notify(PCI_DEVICE(s), 0);
    }
}

/* Send an interrupt, unless a fault suppresses it */
static void amd_psp_interrupt(AmdPspState *s)
{
    if (!amd_psp_has_fault(s, SEV_PLATFORM_FAULT_KIND_NO_INTERRUPT)) {
        s->intsts |= INT_CMD_DONE;
        amd_psp_update_irq(s);
    }
}

static bool amd_psp_ring_on(AmdPspState *s)
{
    QEMU_LOCK_GUARD(&s->lock);
    return s->platform.ring.on;
}

/* Copy the ring's head to its register, and send an interrupt if one is due */
static void amd_psp_ring_show(AmdPspState *s)
{
    bool interrupt;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->cmdbuf_lo = s->platform.ring.head;
        interrupt = amd_psp_ring_interrupt(&s->platform.ring);
    }
    if (interrupt) {
        amd_psp_interrupt(s);
    }
}

/* Tell the host that the command has ended */
static void amd_psp_end(AmdPspState *s)
{
    AmdPspCounter *c = amd_psp_counter(s, s->command);
    bool ioc = s->cmdresp & CMDRESP_IOC;

    s->busy = false;
    c->last_status = s->status;
    c->failed += !!s->status;
    if (s->queued) {
        WITH_QEMU_LOCK_GUARD(&s->lock) {
            if (amd_psp_has_fault(s, SEV_PLATFORM_FAULT_KIND_SKIP)) {
                amd_psp_ring_skip(&s->platform.ring);
            } else {
                amd_psp_ring_post(&s->platform.ring, s->status);
            }
        }
        amd_psp_ring_show(s);
        return;
    }
    s->cmdresp = (s->cmdresp & ~(uint32_t)UINT16_MAX) | CMDRESP_DONE |
                 s->status;
    if (amd_psp_ring_on(s)) {
        /*
         * The command was RING_BUFFER, so these registers are now the tail and
         * the head.  The head stays 0 until the host writes the control
         * register.
         */
        s->cmdbuf_hi = 0;
        s->cmdbuf_lo = 0;
    }
    if (ioc) {
        amd_psp_interrupt(s);
    }
}

/*
 * Continue or end s->command, which has the status s->status.  If the status is
 * AMD_PSP_CONTINUE, only a part of the command is done, and the function
 * schedules the rest.  Otherwise the function ends the command at once if the
 * command's minimum time (AmdPspCosts) has passed.  If not, end_timer ends the
 * command at the end of this time.
 */
static void amd_psp_executed(AmdPspState *s)
{
    AmdPspCounter *c = amd_psp_counter(s, s->command);
    int64_t end = s->start;

    if (s->status == AMD_PSP_CONTINUE) {
        /*
         * Let vCPUs run and other threads take the BQL before the command
         * continues
         */
        qemu_bh_schedule(s->continue_bh);
        return;
    }
    if (s->doorbell) {
        end += amd_psp_costs_doorbell(&s->costs, s->command);
        s->doorbell = false;
    }
    if (!s->left) {
        end += amd_psp_costs_execute(&s->costs, s->command, s->guest_bytes);
    }
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

/* Safe work: all vCPUs are stopped, and the BQL is not held */
static void amd_psp_work(CPUState *cs, run_on_cpu_data data)
{
    AmdPspState *s = data.host_ptr;

    /*
     * If a reset has ended the command before this function runs, the reset has
     * cleared to_work
     */
    if (qatomic_xchg(&s->to_work, false)) {
        amd_psp_run(s);
        qemu_bh_schedule(s->executed_bh);
    }
}

/* Execute s->command as safe work */
static void amd_psp_run_as_work(AmdPspState *s)
{
    qatomic_set(&s->to_work, true);
    async_safe_run_on_cpu(current_cpu ?: first_cpu, amd_psp_work,
                          RUN_ON_CPU_HOST_PTR(s));
}

static void amd_psp_continue_bh(void *opaque)
{
    AmdPspState *s = opaque;

    if (s->busy) {
        amd_psp_run_as_work(s);
    }
}

/*
 * Start the command @id.  @here: the calling thread, if it is a vCPU, may
 * execute the command before this function returns
 */
static void amd_psp_start(AmdPspState *s, uint32_t id, hwaddr buffer,
                          bool here)
{
    s->command = id;
    s->buffer = buffer;
    s->start = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    s->guest_bytes = 0;
    s->busy_ns = 0;
    s->busy = true;

    amd_psp_counter(s, id)->count++;
    s->faulty = amd_psp_faults_next(&s->faults, id, &s->fault);
    if (s->faulty) {
        amd_psp_counter(s, id)->faults++;
        trace_amd_psp_fault(amd_psp_command_name(id), id,
                            SevPlatformFaultKind_str(s->fault.kind));
    }
    if (amd_psp_has_fault(s, SEV_PLATFORM_FAULT_KIND_RESTART)) {
        timer_mod(s->restart_timer, s->start + (int64_t)SCALE_US *
                  s->fault.u.restart.delay_us);
    }
    if (amd_psp_has_fault(s, SEV_PLATFORM_FAULT_KIND_HANG)) {
        s->hung = true;
    } else if (amd_psp_has_fault(s, SEV_PLATFORM_FAULT_KIND_SKIP)) {
        s->status = AMD_PSP_SUCCESS;
        amd_psp_executed(s);
    } else if (amd_psp_has_fault(s, SEV_PLATFORM_FAULT_KIND_STATUS)) {
        s->status = s->fault.u.status.status;
        amd_psp_executed(s);
    } else if (s->left) {
        s->status = AMD_PSP_EXIT_RING_BUFFER;
        amd_psp_executed(s);
    } else if (current_cpu && here && !amd_psp_command_stops_cpus(id)) {
        amd_psp_run(s);
        amd_psp_executed(s);
    } else {
        amd_psp_run_as_work(s);
    }
}

/*
 * Start the command in the mailbox.  @left: the command has ended ring buffer
 * mode.  The device does not execute such a command, and only reports
 * AMD_PSP_EXIT_RING_BUFFER.
 */
static void amd_psp_start_mailbox(AmdPspState *s, bool left)
{
    s->cmdresp &= CMDRESP_IOC | MAKE_64BIT_MASK(CMDRESP_CMD_SHIFT,
                                                CMDRESP_CMD_LEN);
    s->queued = false;
    s->left = left;
    amd_psp_start(s, extract32(s->cmdresp, CMDRESP_CMD_SHIFT, CMDRESP_CMD_LEN),
                  deposit64(s->cmdbuf_lo, 32, 32, s->cmdbuf_hi), true);
}

/*
 * Start the next command of the ring.  Returns false if the ring has no
 * command.  The device then does nothing until the host adds a command and
 * writes the control register.  @here: see amd_psp_start()
 */
static bool amd_psp_start_next(AmdPspState *s, bool here)
{
    AmdPspRingStep step;
    hwaddr buffer;
    uint32_t id;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        step = amd_psp_ring_next(&s->platform.ring, s->cmdresp, s->cmdbuf_hi,
                                 &id, &buffer);
        if (step == AMD_PSP_RING_COMMAND) {
            /*
             * Show the head's new value: the host may have cleared bits of the
             * head or resumed a queue
             */
            s->cmdbuf_lo = s->platform.ring.head;
        }
    }
    switch (step) {
    case AMD_PSP_RING_COMMAND:
        s->queued = true;
        s->left = false;
        amd_psp_start(s, id, buffer, here);
        return true;
    case AMD_PSP_RING_LEFT:
        amd_psp_start_mailbox(s, true);
        return false;
    case AMD_PSP_RING_IDLE:
        amd_psp_ring_show(s);
        return false;
    case AMD_PSP_RING_OFF:
        return false;
    }
    g_assert_not_reached();
}

/*
 * Start one command after another, until a command does not end immediately.
 * The host cannot add commands while we hold the BQL, so the loop is bounded by
 * the size of the queues.
 */
static void amd_psp_go_on(AmdPspState *s)
{
    int64_t start = get_clock();
    unsigned n = 0;

    while (!s->busy &&
           amd_psp_start_next(s, n < COMMANDS_AT_ONCE &&
                              get_clock() - start < AT_ONCE_NS)) {
        n++;
    }
}

static void amd_psp_end_timer(void *opaque)
{
    AmdPspState *s = opaque;

    amd_psp_end(s);
    if (s->queued) {
        amd_psp_go_on(s);
    }
}

static void amd_psp_executed_bh(void *opaque)
{
    AmdPspState *s = opaque;

    if (!s->busy) {
        return;
    }
    amd_psp_executed(s);
    if (s->queued) {
        amd_psp_go_on(s);
    }
}

static void amd_psp_doorbell(AmdPspState *s, uint32_t value)
{
    bool ring = amd_psp_ring_on(s);

    if (s->busy && !(ring && s->queued)) {
        qemu_log_mask(LOG_GUEST_ERROR,
                      "amd-psp: command 0x%x while another executes\n",
                      extract32(value, CMDRESP_CMD_SHIFT, CMDRESP_CMD_LEN));
        return;
    }
    s->cmdresp = value;
    if (s->busy) {
        /*
         * A command of the ring executes.  When it has ended,
         * amd_psp_start_next() reads the new value of cmdresp.
         */
        return;
    }
    s->doorbell = true;
    s->faulty = false;
    if (ring) {
        amd_psp_go_on(s);
    } else {
        amd_psp_start_mailbox(s, false);
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
        amd_psp_doorbell(s, value);
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

/* Drop the current command, and execute no further command of a queue */
static void amd_psp_stop(AmdPspState *s)
{
    timer_del(s->end_timer);
    timer_del(s->restart_timer);
    qemu_bh_cancel(s->executed_bh);
    qemu_bh_cancel(s->continue_bh);
    qemu_bh_cancel(s->restarted_bh);
    qatomic_set(&s->to_work, false);
}

/* Stop, leave ring buffer mode, and clear the registers */
static void amd_psp_reset_mailbox(AmdPspState *s)
{
    amd_psp_stop(s);
    s->cmdresp = 0;
    s->cmdbuf_lo = 0;
    s->cmdbuf_hi = 0;
    s->hung = false;
    s->queued = false;
    s->busy = false;
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        amd_psp_ring_leave(&s->platform.ring, "the device is reset");
        s->platform.continued = false;
    }
}

static void amd_psp_restarted_bh(void *opaque)
{
    amd_psp_reset_mailbox(opaque);
}

static void amd_psp_restart_work(CPUState *cs, run_on_cpu_data data)
{
    AmdPspState *s = data.host_ptr;

    amd_psp_reset_platform(cs, data);
    qemu_bh_schedule(s->restarted_bh);
}

/*
 * Clear the registers only after the platform has been reset, because a driver
 * may send commands as soon as it reads 0 from the registers.
 */
static void amd_psp_restart_timer(void *opaque)
{
    AmdPspState *s = opaque;

    amd_psp_stop(s);
    s->hung = true;
    s->busy = true;
    async_safe_run_on_cpu(first_cpu, amd_psp_restart_work,
                          RUN_ON_CPU_HOST_PTR(s));
}

static void amd_psp_reset_hold(Object *obj, ResetType type)
{
    AmdPspState *s = AMD_PSP(obj);

    s->inten = 0;
    s->intsts = 0;
    amd_psp_reset_mailbox(s);
    if (current_cpu) {
        /*
         * A vCPU has reset the bus, so vCPUs run.  No vCPU may run during
         * amd_psp_platform_reset(), so safe work calls it.
         */
        async_safe_run_on_cpu(current_cpu, amd_psp_reset_platform,
                              RUN_ON_CPU_HOST_PTR(s));
    } else {
        amd_psp_reset_platform(NULL, RUN_ON_CPU_HOST_PTR(s));
    }
}

/*
 * Make the seed of the platform's ID and keys: the hash of the property "seed"
 * or, if this property is not set, random bytes
 */
static bool amd_psp_make_seed(AmdPspState *s, uint8_t *seed, Error **errp)
{
    size_t len = AMD_PSP_SEED_LEN;

    if (!s->seed) {
        return qcrypto_random_bytes(seed, len, errp) == 0;
    }
    return qcrypto_hash_bytes(QCRYPTO_HASH_ALGO_SHA256, s->seed,
                              strlen(s->seed), &seed, &len, errp) == 0;
}

/*
 * Write the signed CEK to a file.  For processors of AMD, AMD provides this
 * certificate on a server.
 */
static bool amd_psp_write_cek(AmdPspState *s, Error **errp)
{
    g_autoptr(GError) err = NULL;

    if (!s->cek) {
        return true;
    }
    if (!s->authority) {
        error_setg(errp, "amd-psp: 'cek' is a file for the CEK that the ASK "
                   "has signed: set 'ark', too");
        return false;
    }
    if (!g_file_set_contents(s->cek, (const char *)s->platform.signed_cek,
                             sizeof(s->platform.signed_cek), &err)) {
        error_setg(errp, "amd-psp: cannot write the signed CEK: %s",
                   err->message);
        return false;
    }
    return true;
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
    s->platform.always_check_certs = s->always_check_certs;
    s->platform.export_signed_cek = s->export_signed_cek;
    if (!amd_psp_write_cek(s, errp)) {
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
    s->continue_bh = qemu_bh_new_guarded(amd_psp_continue_bh, s,
                                         &DEVICE(dev)->mem_reentrancy_guard);
    s->restarted_bh = qemu_bh_new_guarded(amd_psp_restarted_bh, s,
                                          &DEVICE(dev)->mem_reentrancy_guard);
    s->end_timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, amd_psp_end_timer, s);
    s->restart_timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, amd_psp_restart_timer,
                                    s);
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
    timer_free(s->restart_timer);
    qemu_bh_delete(s->executed_bh);
    qemu_bh_delete(s->continue_bh);
    qemu_bh_delete(s->restarted_bh);
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

/* Called with s->lock held */
static SevPlatformGuestList *amd_psp_query_guests(AmdPspState *s)
{
    SevPlatformGuestList *list = NULL, **tail = &list;

    /* The QAPI enum has the order of the API's values */
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
    memory->unflushed_host_writes = stats.unflushed_host_writes;
    memory->unflushed_guest_writes = stats.unflushed_guest_writes;
    memory->unflushed_commands = stats.unflushed_commands;
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
        info->ring = s->platform.ring.on;
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

static int amd_psp_get_cache_check(Object *obj, Error **errp)
{
    QEMU_BUILD_BUG_ON((int)SEV_PLATFORM_CACHE_CHECK_FATAL !=
                      (int)SEV_MEMORY_CACHE_CHECK_FATAL);
    return sev_memory_cache_check();
}

static void amd_psp_set_cache_check(Object *obj, int value, Error **errp)
{
    if (!sev_memory_max_asid()) {
        error_setg(errp, "amd-psp needs CPUs that are an SEV host");
        return;
    }
    sev_memory_set_cache_check(value);
}

static void amd_psp_init(Object *obj)
{
    AmdPspState *s = AMD_PSP(obj);

    object_property_add_uint32_ptr(obj, "send-packet-max",
                                   &s->platform.send_packet_max,
                                   OBJ_PROP_FLAG_READWRITE);
    object_property_add_uint32_ptr(obj, "receive-packet-max",
                                   &s->platform.receive_packet_max,
                                   OBJ_PROP_FLAG_READWRITE);
    object_property_set_description(obj, "send-packet-max",
        "Most bytes of a packet that SEND_UPDATE_DATA makes; to be set while the "
        "machine runs (default: 0, which is 16384)");
    object_property_set_description(obj, "receive-packet-max",
        "Most bytes of a packet that RECEIVE_UPDATE_DATA takes; to be set while "
        "the machine runs (default: 0, which is 16384)");
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
    DEFINE_PROP_STRING("cek", AmdPspState, cek),
    DEFINE_PROP_BOOL("always-check-certs", AmdPspState, always_check_certs,
                     false),
    DEFINE_PROP_BOOL("export-signed-cek", AmdPspState, export_signed_cek,
                     false),
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
    /* Unplugging would lose the keys with which memory is encrypted */
    dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, amd_psp_properties);
    object_class_property_add(klass, "faults", "SevPlatformFaultList",
                              amd_psp_get_faults, amd_psp_set_faults,
                              NULL, NULL);
    object_class_property_set_description(klass, "faults",
        "Faults to inject into commands; can be set with qom-set at any time");
    object_class_property_add(klass, "costs", "SevPlatformCommandCostList",
                              amd_psp_get_costs, amd_psp_set_costs,
                              NULL, NULL);
    object_class_property_set_description(klass, "costs",
        "Minimum times of single commands; can be set with qom-set any time");
    object_class_property_add_enum(klass, "cache-check",
                                   "SevPlatformCacheCheck",
                                   &SevPlatformCacheCheck_lookup,
                                   amd_psp_get_cache_check,
                                   amd_psp_set_cache_check);
    object_class_property_set_description(klass, "cache-check",
        "What to do if a page is used before cache lines that were written "
        "with another key are flushed: off, count (default), fatal");
    object_class_property_set_description(klass, "seed",
        "Name of the platform's identity and keys (default: a new platform)");
    object_class_property_set_description(klass, "ark",
        "File with the keys of the authority that signs the platform; created "
        "with FILE.cert if it does not exist (default: no authority)");
    object_class_property_set_description(klass, "cek",
        "File for the platform's CEK certificate with the ASK's signature; "
        "PDH_CERT_EXPORT exports it without the signature");
    object_class_property_set_description(klass, "always-check-certs",
        "SEND_START checks the destination's certificates even if the guest's "
        "policy does not require it (default: off, as in AMD's firmware)");
    object_class_property_set_description(klass, "export-signed-cek",
        "PDH_CERT_EXPORT exports the signed CEK (default: off, as in AMD's "
        "firmware)");
    object_class_property_set_description(klass, "cost-doorbell-ns",
        "Minimum time to pass a command to the firmware");
    object_class_property_set_description(klass, "cost-command-ns",
        "Minimum time to execute a command, in addition");
    object_class_property_set_description(klass, "cost-kib-ns",
        "Minimum time for each KiB of guest memory, in addition");
}

static const TypeInfo amd_psp_types[] = {
    {
        .name = TYPE_AMD_PSP,
        .parent = TYPE_PCI_DEVICE,
        .instance_size = sizeof(AmdPspState),
        .instance_init = amd_psp_init,
        .instance_finalize = amd_psp_finalize,
        .class_init = amd_psp_class_init,
        .interfaces = (InterfaceInfo[]) {
            { INTERFACE_CONVENTIONAL_PCI_DEVICE },
            { },
        },
    },
};

DEFINE_TYPES(amd_psp_types)
