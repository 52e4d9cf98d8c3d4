/*
 * Receiving an SEV guest by its migration helper
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The firmware unpacks private pages until it has unpacked the helper's memory.
 * Then RECEIVE_FINISH ends the firmware's session, and the helper opens all
 * other private pages.
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "cpu.h"
#include "exec/ramblock.h"
#include "kvm/kvm_i386.h"
#include "sev.h"
#include "sev-helper.h"
#include "sev-migration-wire.h"
#include "system/kvm.h"
#include "trace.h"

static void set_phase(SevHelper *h, SevHelperPhase phase)
{
    trace_sev_helper_phase(phase);
    qatomic_store_release(&h->phase, phase);
}

/* What docs/specs/sev-migration-helper.rst requires of the processor */
static bool check_processor(Error **errp)
{
    const uint32_t wanted = CPUID_EXT_AES | CPUID_EXT_PCLMULQDQ |
                            CPUID_EXT_SSE41 | CPUID_EXT_XSAVE | CPUID_EXT_AVX |
                            CPUID_EXT_RDRAND;
    uint32_t ecx = kvm_arch_get_supported_cpuid(kvm_state, 1, 0, R_ECX);

    if ((ecx & wanted) != wanted) {
        error_setg(errp, "SEV: this host's processor lacks AES, PCLMULQDQ, "
                   "SSE4.1, AVX or RDRAND, which the migration helper uses");
        return false;
    }
    return true;
}

uint8_t sev_helper_receive_answer(SevMigration *m)
{
    SevHelper *h = m->helper;
    Error *err = NULL;

    if (!h) {
        return SEV_WIRE_HELPER_NONE;
    }
    if (!check_processor(&err) || !sev_helper_open(h, &err)) {
        sev_helper_set_why_not(h, err);
        return SEV_WIRE_HELPER_UNABLE;
    }
    set_phase(h, SEV_HELPER_ACCEPTED);
    return MH_VERSION;
}

/*
 * Check that the source's helper, which @w describes, fits the memory that this
 * machine has for the helper: version, addresses, size and entry
 */
static bool check_place(const SevHelperMemory *memory, const SevWireHelper *w,
                        Error **errp)
{
    if (w->version != MH_VERSION) {
        error_setg(errp, "SEV: migration helper of version %" PRIu32
                   ", expected %d", w->version, MH_VERSION);
        return false;
    }
    if (w->private_gpa != memory->private_gpa ||
        w->shared_gpa != memory->shared_gpa) {
        error_setg(errp, "SEV: the migration helper is at guest addresses 0x%"
                   PRIx64 " and 0x%" PRIx64 " at the source, at 0x%" PRIx64
                   " and 0x%" PRIx64 " here: start both sides with the same "
                   "memory", w->private_gpa, w->shared_gpa,
                   memory->private_gpa, memory->shared_gpa);
        return false;
    }
    if (w->npages != MH_PRIVATE_SIZE / TARGET_PAGE_SIZE ||
        w->entry >= MH_TABLES) {
        error_setg(errp, "SEV: migration helper of %" PRIu32 " pages that "
                   "begins at offset 0x%" PRIx64, w->npages, w->entry);
        return false;
    }
    return true;
}

/*
 * Let the firmware unpack the helper's memory, and end the firmware's session
 * with RECEIVE_FINISH
 */
static bool unpack_helper(ConfidentialGuestSupport *cgs, const uint8_t *in,
                          size_t len, size_t npages, Error **errp)
{
    SevMigration *m = sev_guest_migration(cgs);
    int fw_error, ret;
    size_t done;

    if (!sev_packets_get(&m->packets, in, len, npages, &done, errp)) {
        return false;
    }
    ret = sev_packets_receive(&m->packets, cgs,
                              sev_helper_memory_private(&m->helper->memory),
                              npages, &done, &fw_error);
    if (ret < 0) {
        sev_cmd_error(errp, "RECEIVE_UPDATE_DATA (migration helper)", ret,
                      fw_error);
        return false;
    }
    ret = sev_guest_cmd(cgs, KVM_SEV_RECEIVE_FINISH, NULL, &fw_error);
    if (ret < 0) {
        sev_cmd_error(errp, "RECEIVE_FINISH", ret, fw_error);
        return false;
    }
    m->finish_due = false;
    return true;
}

bool sev_helper_receive_data(ConfidentialGuestSupport *cgs,
                             const uint8_t *data, size_t len, Error **errp)
{
    SevHelper *h = sev_guest_migration(cgs)->helper;
    unsigned ncpus;
    SevWireHelper w;
    size_t pos;

    if (sev_helper_get_phase(h) != SEV_HELPER_ACCEPTED) {
        error_setg(errp, "SEV: the source has sent a migration helper that "
                   "this QEMU has not accepted");
        return false;
    }
    if (!sev_wire_get_helper(data, len, &pos, &w, errp) ||
        !check_place(&h->memory, &w, errp) ||
        !unpack_helper(cgs, data + pos, len - pos, w.npages, errp)) {
        return false;
    }
    /*
     * The address of the helper's first instruction is known now.  Open the
     * vCPUs again, because only that sets their registers to this address.
     */
    h->memory.entry = MH_VA + w.entry;
    ncpus = h->cpus.n;
    sev_helper_cpus_close(&h->cpus);
    if (!sev_helper_cpus_open(&h->cpus, ncpus, errp) ||
        !sev_helper_command(&h->cpus, MH_RECEIVE, errp)) {
        return false;
    }
    h->present = true;
    /*
     * The helper must be able to write to every page.  Uncovering pages is
     * allowed, because the guest does not run yet.
     */
    sev_helper_map_uncover(h->map);
    set_phase(h, SEV_HELPER_RECEIVING);
    return true;
}

void sev_helper_receive_private(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                                uint64_t offset, uint64_t npages)
{
    /*
     * QEMU may have written to these pages while they were shared.  Flush these
     * writes, so that they do not overwrite what the helper writes later.
     */
    if (sev_helper_get_phase(sev_guest_migration(cgs)->helper) !=
        SEV_HELPER_OFF) {
        sev_cache_flush_pages(rb, offset, npages);
    }
}

bool sev_helper_receive_pages(SevHelper *h, RAMBlock *rb, uint64_t offset,
                              size_t npages, const uint8_t *in, size_t len,
                              Error **errp)
{
    ERRP_GUARD();
    uint64_t gpa[CGS_MIGRATION_PAGES_MAX];

    assert(npages <= CGS_MIGRATION_PAGES_MAX);
    if (!sev_helper_map_addresses(h->map, rb, offset, npages, gpa, errp)) {
        return false;
    }
    if (!sev_helper_open_batch(&h->cpus, gpa, npages, in, len, errp)) {
        error_prepend(errp, "block %s, offset 0x%" PRIx64 ": ", rb->idstr,
                      offset);
        return false;
    }
    stat64_add(&h->pages, npages);
    return true;
}

size_t sev_helper_final_len(const SevHelper *h, size_t len)
{
    return sev_helper_get_phase(h) == SEV_HELPER_RECEIVING &&
           len > SEV_WIRE_FINAL_SIZE ? len - SEV_WIRE_FINAL_SIZE : 0;
}

bool sev_helper_receive_final(SevHelper *h, const uint8_t *in, size_t len,
                              Error **errp)
{
    return sev_helper_get_phase(h) != SEV_HELPER_RECEIVING ||
           sev_helper_open_end(&h->cpus, in, len, errp);
}

void sev_helper_receive_done(SevMigration *m)
{
    if (m->helper && m->helper->map) {
        sev_helper_close(m->helper);
    }
}
