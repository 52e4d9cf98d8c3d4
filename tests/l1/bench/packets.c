/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Time to send and receive private pages in different ways: one page per call,
 * as in unmodified Linux; many pages per call; several pages per packet;
 * several pages per packet from two threads, like multifd channels; and many
 * packets per doorbell.  Results are in nanoseconds per page.  The emulated
 * PSP's cost model determines the time of the firmware.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include "bench.h"
#include "../sev-transport.h"

#define FIRST   0x20000         /* gpa of the first page to send */
#define PAGES   256
#define RING    "/sys/module/ccp/parameters/sev_ring"

enum way { SINGLE, BATCH, LARGE, THREADS, RINGED, WAYS };
static const char *const way_name[] = {
    "page", "batch", "large", "threads", "ring",
};

struct part {
    struct vm *vm;
    bool send;
    unsigned first, n;
    struct packets p;
};

static void batch(struct part *part, uint8_t *pages)
{
    uint32_t id = part->send ? KVM_SEV_SEND_UPDATE_BATCH :
                  KVM_SEV_RECEIVE_UPDATE_BATCH;
    struct packets p = {
        part->p.headers + part->first, part->p.data + part->first,
        pages ? pages + part->first : NULL,
    };

    MUST(transport_batch(part->vm, id, FIRST + part->first * PAGE, part->n, &p));
}

static void *run_large(void *opaque)
{
    struct part *part = opaque;

    batch(part, part->p.pages);
    return NULL;
}

static void run(struct part *all, enum way way)
{
    struct part half[2] = { *all, *all };
    pthread_t thread;

    switch (way) {
    case SINGLE:
        for (unsigned i = 0; i < all->n; i++) {
            struct kvm_sev_send_update_data args = {
                .hdr_uaddr = (uintptr_t)all->p.headers[i],
                .hdr_len = HEADER_SIZE,
                .guest_uaddr = (uintptr_t)all->vm->mem + FIRST + i * PAGE,
                .guest_len = PAGE,
                .trans_uaddr = (uintptr_t)all->p.data[i], .trans_len = PAGE,
            };

            MUST(sev_cmd(all->vm, all->send ? KVM_SEV_SEND_UPDATE_DATA :
                         KVM_SEV_RECEIVE_UPDATE_DATA, &args));
        }
        break;
    case BATCH:
        batch(all, NULL);
        break;
    case LARGE:
    case RINGED:
        batch(all, all->p.pages);
        break;
    default:
        half[0].n = half[1].n = half[1].first = all->n / 2;
        pthread_create(&thread, NULL, run_large, &half[1]);
        run_large(&half[0]);
        pthread_join(thread, NULL);
    }
}

/* Switch the ring buffer of ccp.ko on or off */
static void ring_set(bool on)
{
    FILE *f = fopen(RING, "w");

    if (!f || fputs(on ? "Y" : "N", f) < 0 || fclose(f)) {
        bail(RING);
    }
}

int main(int argc, char **argv)
{
    unsigned repetitions = argc > 1 ? atoi(argv[1]) : 3;
    const char *model = argc > 2 ? argv[2] : "none";
    unsigned packets = 0;
    struct packets p = {
        calloc(PAGES, HEADER_SIZE), calloc(PAGES, PAGE), calloc(PAGES, 1),
    };
    struct vm a, b;
    char what[64];

    vm_require(VM_SEV);
    vm_init(&a, VM_SEV, GUEST_SIZE);
    vm_init(&b, VM_SEV, GUEST_SIZE);
    memset(a.mem + FIRST, 1, PAGES * PAGE);
    if (guest_launch(&a, FIRST + PAGES * PAGE) || transport_start(&a, &b)) {
        bail("launch");
    }
    MUST(vm_convert(&b, 0, GUEST_SIZE, PRIVATE));
    for (unsigned r = 0; r < repetitions; r++) {
        for (enum way way = 0; way < WAYS; way++) {
            struct part send = { &a, true, 0, PAGES, p };
            struct part receive = { &b, false, 0, PAGES, p };

            ring_set(way == RINGED);
            if (way == RINGED) {
                /*
                 * Warm up: kvm-amd times the commands of these runs to choose
                 * the size of the groups in the runs below.
                 */
                run(&send, way);
                run(&receive, way);
            }
            snprintf(what, sizeof(what), "send, %s", model);
            sample("packets", what, way_name[way], PAGES * PAGE,
                   (double)TIME(run(&send, way)) / PAGES);
            snprintf(what, sizeof(what), "receive, %s", model);
            sample("packets", what, way_name[way], PAGES * PAGE,
                   (double)TIME(run(&receive, way)) / PAGES);
        }
    }
    for (unsigned i = 0; i < PAGES && p.pages[i]; i += p.pages[i]) {
        packets++;
    }
    note("%u pages in %u packets: %.2f a doorbell", PAGES, packets,
         packets ? (double)PAGES / packets : 0);
    return 0;
}
