/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Send and receive memory between two SEV VMs of one host. */
#ifndef TESTS_L1_SEV_TRANSPORT_H
#define TESTS_L1_SEV_TRANSPORT_H

#include <linux/psp-sev.h>
#include "guest.h"

#define SESSION_SIZE    128
#define HEADER_SIZE     52

struct packet {
    uint8_t header[HEADER_SIZE];
    uint8_t data[4096];
};

/* The PDH and the certificate chain of this host's firmware */
struct platform {
    uint8_t pdh[4096], chain[16384];
    uint32_t pdh_size, chain_size;
};

static void platform_export(struct platform *p)
{
    struct sev_user_data_pdh_cert_export export = {
        .pdh_cert_address = (uintptr_t)p->pdh,
        .pdh_cert_len = sizeof(p->pdh),
        .cert_chain_address = (uintptr_t)p->chain,
        .cert_chain_len = sizeof(p->chain),
    };
    struct sev_issue_cmd cmd = {
        .cmd = SEV_PDH_CERT_EXPORT, .data = (uintptr_t)&export,
    };

    if (ioctl(sev_fd, SEV_ISSUE_CMD, &cmd) < 0) {
        /*
         * The firmware exports no certificates.  Use fixed bytes of the
         * usual sizes.  SEND_START succeeds with them only if the firmware
         * does not check certificates.
         */
        note("PDH_CERT_EXPORT: %s, firmware %#x", strerror(errno), cmd.error);
        p->pdh_size = 2084;
        p->chain_size = 3 * 2084;
        memset(p->pdh, 1, p->pdh_size);
        memset(p->chain, 1, p->chain_size);
        return;
    }
    p->pdh_size = export.pdh_cert_len;
    p->chain_size = export.cert_chain_len;
}

/* Read the platform's ASK and ARK.  Returns their size in bytes. */
static uint32_t amd_certs(uint8_t *certs, size_t size)
{
    const char *path = getenv("SEV_AMD_CERT");
    FILE *f = path ? fopen(path, "rb") : NULL;
    size_t n = 0;

    if (f) {
        n = fread(certs, 1, size, f);
        fclose(f);
    } else {
        note("SEV_AMD_CERT: no such file; firmware may want it");
    }
    /* The kernel refuses size 0 */
    return n ? n : 1;
}

/* Open a session between two VMs.  Returns 0, or -errno with sev_error set. */
static int __attribute__((unused))
transport_start(struct vm *from, struct vm *to)
{
    static struct platform p;
    static uint8_t amd[2 * 4096];
    uint8_t session[SESSION_SIZE];
    struct kvm_sev_send_start send;
    struct kvm_sev_receive_start receive;
    uint32_t amd_len;
    int r;

    platform_export(&p);
    amd_len = amd_certs(amd, sizeof(amd));
    send = (struct kvm_sev_send_start) {
        .pdh_cert_uaddr = (uintptr_t)p.pdh, .pdh_cert_len = p.pdh_size,
        .plat_certs_uaddr = (uintptr_t)p.chain, .plat_certs_len = p.chain_size,
        .amd_certs_uaddr = (uintptr_t)amd, .amd_certs_len = amd_len,
        .session_uaddr = (uintptr_t)session, .session_len = sizeof(session),
    };
    r = sev_cmd(from, KVM_SEV_SEND_START, &send);
    if (r) {
        note("SEND_START: %s, firmware %#x", strerror(-r), sev_error);
        return r;
    }
    receive = (struct kvm_sev_receive_start) {
        .policy = send.policy,
        .pdh_uaddr = (uintptr_t)p.pdh, .pdh_len = p.pdh_size,
        .session_uaddr = (uintptr_t)session, .session_len = send.session_len,
    };
    r = sev_cmd(to, KVM_SEV_RECEIVE_START, &receive);
    if (r) {
        note("RECEIVE_START: %s, firmware %#x", strerror(-r), sev_error);
    }
    return r;
}

static int __attribute__((unused))
transport_send(struct vm *vm, uint64_t gpa, struct packet *packet)
{
    struct kvm_sev_send_update_data args = {
        .hdr_uaddr = (uintptr_t)packet->header, .hdr_len = HEADER_SIZE,
        .guest_uaddr = (uintptr_t)vm->mem + gpa, .guest_len = PAGE,
        .trans_uaddr = (uintptr_t)packet->data, .trans_len = PAGE,
    };

    return sev_cmd(vm, KVM_SEV_SEND_UPDATE_DATA, &args);
}

static int __attribute__((unused))
transport_receive(struct vm *vm, uint64_t gpa, struct packet *packet)
{
    struct kvm_sev_receive_update_data args = {
        .hdr_uaddr = (uintptr_t)packet->header, .hdr_len = HEADER_SIZE,
        .guest_uaddr = (uintptr_t)vm->mem + gpa, .guest_len = PAGE,
        .trans_uaddr = (uintptr_t)packet->data, .trans_len = PAGE,
    };

    return sev_cmd(vm, KVM_SEV_RECEIVE_UPDATE_DATA, &args);
}

/*
 * Buffers and result of transport_batch().
 * @pages: NULL if each packet has one page.  Otherwise, packets can have
 *         several pages, and @pages is an array with one entry for each page.
 *         The entry of a packet's first page is the number of pages in the
 *         packet.
 * @done: number of pages that KVM has reported as done, or all ones if it has
 *        reported nothing
 */
struct packets {
    uint8_t (*headers)[HEADER_SIZE];
    uint8_t (*data)[4096];
    uint8_t *pages;
    uint32_t done;
};

/* Allocate buffers for @n packets of one page */
static void __attribute__((unused))
packets_init(struct packets *packets, unsigned n)
{
    packets->headers = calloc(n, HEADER_SIZE);
    packets->data = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/*
 * Send or receive @count pages from @gpa on with the batch command @id.
 * Returns 0, or -errno with sev_error set.
 */
static int __attribute__((unused))
transport_batch(struct vm *vm, uint32_t id, uint64_t gpa, uint32_t count,
                struct packets *packets)
{
    struct kvm_sev_update_batch args = {
        .guest_uaddr = (uintptr_t)vm->mem + gpa,
        .hdr_uaddr = (uintptr_t)packets->headers, .hdr_len = HEADER_SIZE,
        .trans_uaddr = (uintptr_t)packets->data,
        .count = count, .done = ~0U,
        .flags = packets->pages ? KVM_SEV_UPDATE_BATCH_PACKETS : 0,
        .packets_uaddr = (uintptr_t)packets->pages,
    };
    int r = sev_cmd(vm, id, &args);

    packets->done = args.done;
    return r;
}

#endif
