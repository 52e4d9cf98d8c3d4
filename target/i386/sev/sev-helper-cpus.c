/*
 * Commands for the migration helper of an SEV guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "cpu.h"
#include "sev.h"
#include "sev-helper-cpus.h"
#include "trace.h"

static const char *const status_names[MH_STATUS_MAX] = {
    [MH_OK] = "success",
    [MH_ERR_COMMAND] = "it does not know the command",
    [MH_ERR_STATE] = "the command is not allowed in its state",
    [MH_ERR_BUSY] = "it is busy",
    [MH_ERR_CPU] = "the processor lacks AES, PCLMULQDQ, SSE4.1, AVX or RDRAND",
    [MH_ERR_ENTROPY] = "the processor has no random numbers",
    [MH_ERR_COUNT] = "the number of pages is wrong",
    [MH_ERR_CHANNEL] = "the number of the channel is wrong",
    [MH_ERR_ADDRESS] = "the address is not one of the guest's RAM",
    [MH_ERR_FORMAT] = "the batch is malformed",
    [MH_ERR_TAG] = "the page was changed or moved, or has another key",
    [MH_ERR_SESSION] = "the batch is of another session",
    [MH_ERR_REPLAYED] = "the batch was opened before",
    [MH_ERR_MISSING] = "a batch before it is missing",
    [MH_ERR_BEHIND] = "a batch of an earlier round is missing",
    [MH_ERR_BROKEN] = "a batch before it was refused",
};

void sev_helper_cpus_init(SevHelperCpus *c, SevHelperMemory *memory)
{
    c->memory = memory;
    qemu_mutex_init(&c->lock);
    qemu_cond_init(&c->changed);
}

bool sev_helper_cpus_open(SevHelperCpus *c, unsigned n, Error **errp)
{
    assert(bql_locked() && !c->n && n <= MH_CPUS);
    if (c->broken) {
        error_setg(errp, "SEV: the migration helper has failed before in this "
                   "QEMU");
        return false;
    }
    while (c->n < n) {
        SevHelperEntry entry = {
            .rip = c->memory->entry,
            .rdi = c->n,
            .cr3 = (c->memory->private_gpa + MH_PML4) |
                   BIT_ULL(sev_get_cbit_position()),
        };

        c->vcpu[c->n] = sev_helper_vcpu_new(&c->kvm, c->n, &entry, MH_PORT,
                                            errp);
        if (!c->vcpu[c->n]) {
            sev_helper_cpus_close(c);
            return false;
        }
        c->n++;
    }
    c->idle = (1u << n) - 1;
    return true;
}

void sev_helper_cpus_close(SevHelperCpus *c)
{
    while (c->n) {
        c->n--;
        sev_helper_vcpu_free(c->vcpu[c->n]);
        c->vcpu[c->n] = NULL;
    }
}

/*
 * Wait until a vCPU is idle, and take it.  If the command is @exclusive, wait
 * until all vCPUs are idle, and take all.  Returns the vCPU for the command.
 */
static unsigned take_cpu(SevHelperCpus *c, bool exclusive)
{
    unsigned all = (1u << c->n) - 1, cpu;

    assert(c->n);
    QEMU_LOCK_GUARD(&c->lock);
    while (exclusive ? c->idle != all : !c->idle) {
        qemu_cond_wait(&c->changed, &c->lock);
    }
    cpu = ctz32(c->idle);
    c->idle &= exclusive ? 0 : ~(1u << cpu);
    return cpu;
}

static void give_cpu(SevHelperCpus *c, unsigned cpu, bool exclusive)
{
    QEMU_LOCK_GUARD(&c->lock);
    c->idle |= exclusive ? (1u << c->n) - 1 : 1u << cpu;
    qemu_cond_broadcast(&c->changed);
}

static MhMailbox *mailbox_of(SevHelperCpus *c, unsigned cpu)
{
    return (MhMailbox *)(sev_helper_memory_shared(c->memory, cpu) +
                         MH_MAILBOX);
}

static MhPage *pages_of(SevHelperCpus *c, unsigned cpu)
{
    return (MhPage *)(sev_helper_memory_shared(c->memory, cpu) + MH_PAGES);
}

static uint8_t *data_of(SevHelperCpus *c, unsigned cpu)
{
    return sev_helper_memory_shared(c->memory, cpu) + MH_DATA;
}

/*
 * Called if a command ended without a status, or with an unknown one.  QEMU
 * then does not know the state of the helper and must not run another command.
 */
static void set_broken(SevHelperCpus *c)
{
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        c->broken = true;
    }
}

static bool is_broken(SevHelperCpus *c)
{
    QEMU_LOCK_GUARD(&c->lock);
    return c->broken;
}

/*
 * Run @command, whose arguments are in the mailbox, on vCPU @cpu.
 * @done: returns the number of pages that the helper sealed or opened
 */
static bool run(SevHelperCpus *c, unsigned cpu, MhCommand command,
                uint32_t *done, Error **errp)
{
    MhMailbox *m = mailbox_of(c, cpu);
    uint32_t status;

    *done = 0;
    if (is_broken(c)) {
        error_setg(errp, "SEV: the migration helper has failed before");
        return false;
    }
    m->command = command;
    qatomic_store_release(&m->status, MH_RUNNING);
    if (!sev_helper_vcpu_run(c->vcpu[cpu], errp)) {
        set_broken(c);
        return false;
    }
    status = qatomic_load_acquire(&m->status);
    *done = m->done;
    trace_sev_helper_command(cpu, command, status, *done, m->state, m->impl);
    if (status == MH_OK) {
        return true;
    }
    if (status >= MH_STATUS_MAX || !status_names[status]) {
        error_setg(errp, "SEV: the migration helper answers command %d with "
                   "status 0x%" PRIx32, command, status);
        set_broken(c);
        return false;
    }
    error_setg(errp, "SEV: the migration helper refuses command %d: %s",
               command, status_names[status]);
    return false;
}

bool sev_helper_command(SevHelperCpus *c, MhCommand command, Error **errp)
{
    unsigned cpu = take_cpu(c, true);
    uint32_t done;
    bool ok = run(c, cpu, command, &done, errp);

    give_cpu(c, cpu, true);
    return ok;
}

bool sev_helper_seal(SevHelperCpus *c, unsigned channel, const uint64_t *gpa,
                     size_t n, GByteArray *out, Error **errp)
{
    ERRP_GUARD();
    unsigned cpu = take_cpu(c, false);
    MhMailbox *m = mailbox_of(c, cpu);
    MhPage *page = pages_of(c, cpu);
    uint32_t done;
    bool ok;

    assert(n && n <= MH_BATCH_PAGES && channel < MH_CHANNELS);
    m->channel = channel;
    m->count = n;
    for (size_t i = 0; i < n; i++) {
        page[i].gpa = gpa[i];
    }
    ok = run(c, cpu, MH_SEAL, &done, errp);
    if (ok) {
        g_byte_array_append(out, (uint8_t *)&m->batch, sizeof(m->batch));
        g_byte_array_append(out, (uint8_t *)page, n * sizeof(*page));
        g_byte_array_append(out, data_of(c, cpu), n * MH_PAGE_SIZE);
    } else if (done < n) {
        error_prepend(errp, "address 0x%" PRIx64 ": ", gpa[done]);
    }
    give_cpu(c, cpu, false);
    return ok;
}

bool sev_helper_seal_end(SevHelperCpus *c, GByteArray *out, Error **errp)
{
    unsigned cpu = take_cpu(c, true);
    MhMailbox *m = mailbox_of(c, cpu);
    uint32_t done;
    bool ok;

    m->channel = 0;
    m->count = 0;
    ok = run(c, cpu, MH_SEAL_END, &done, errp);
    if (ok) {
        g_byte_array_append(out, (uint8_t *)&m->batch, sizeof(m->batch));
    }
    give_cpu(c, cpu, true);
    return ok;
}

/* Whether @in is a batch of pages with these addresses */
static bool check_batch(const uint64_t *gpa, size_t n, const uint8_t *in,
                        size_t len, Error **errp)
{
    size_t want = sizeof(MhBatch) + n * (sizeof(MhPage) + MH_PAGE_SIZE);

    if (len != want) {
        error_setg(errp, "SEV: the migration helper's batch of %zu pages has "
                   "%zu bytes, expected %zu", n, len, want);
        return false;
    }
    if (lduw_le_p(in + offsetof(MhBatch, kind)) != MH_KIND_PAGES ||
        lduw_le_p(in + offsetof(MhBatch, count)) != n) {
        error_setg(errp, "SEV: the migration helper's batch does not contain "
                   "%zu pages", n);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t at = ldq_le_p(in + sizeof(MhBatch) + i * sizeof(MhPage));

        if (at != gpa[i]) {
            error_setg(errp, "SEV: the page is at guest address 0x%" PRIx64
                       " at the source and at 0x%" PRIx64 " here: start both "
                       "sides with the same memory", at, gpa[i]);
            return false;
        }
    }
    return true;
}

bool sev_helper_open_batch(SevHelperCpus *c, const uint64_t *gpa, size_t n,
                           const uint8_t *in, size_t len, Error **errp)
{
    const uint8_t *headers = in + sizeof(MhBatch);
    uint32_t done;
    unsigned cpu;
    MhMailbox *m;
    bool ok;

    assert(n && n <= MH_BATCH_PAGES);
    if (!check_batch(gpa, n, in, len, errp)) {
        return false;
    }
    cpu = take_cpu(c, false);
    m = mailbox_of(c, cpu);
    m->alias = 0;
    memcpy(&m->batch, in, sizeof(m->batch));
    memcpy(pages_of(c, cpu), headers, n * sizeof(MhPage));
    memcpy(data_of(c, cpu), headers + n * sizeof(MhPage), n * MH_PAGE_SIZE);
    ok = run(c, cpu, MH_OPEN, &done, errp);
    give_cpu(c, cpu, false);
    return ok;
}

bool sev_helper_open_end(SevHelperCpus *c, const uint8_t *in, size_t len,
                         Error **errp)
{
    uint32_t done;
    unsigned cpu;
    MhMailbox *m;
    bool ok;

    if (len != sizeof(MhBatch) ||
        lduw_le_p(in + offsetof(MhBatch, kind)) != MH_KIND_END) {
        error_setg(errp, "SEV: %zu bytes that are not the migration helper's "
                   "last batch", len);
        return false;
    }
    cpu = take_cpu(c, true);
    m = mailbox_of(c, cpu);
    m->alias = 0;
    memcpy(&m->batch, in, sizeof(m->batch));
    ok = run(c, cpu, MH_OPEN, &done, errp);
    give_cpu(c, cpu, true);
    return ok;
}
