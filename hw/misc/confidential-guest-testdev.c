/*
 * Simulated confidential guest, for tests of the migration code
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The device encrypts nothing and protects nothing.  It makes the machine look
 * like one with confidential guest support whose RAM has private pages, on any
 * accelerator.  It also simulates the guest: while the machine runs, the device
 * converts random ranges of pages and writes to them.  A packed page consists
 * of its offset and its contents.  The path of private pages can thus be tested
 * without KVM and without a platform; see tests/qtest/encrypted-pages-test.c.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qemu/rcu.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "migration/misc.h"
#include "system/confidential-guest-migration.h"
#include "system/runstate.h"

#define TYPE_CGTEST "confidential-guest-testdev"
#define TYPE_CGTEST_GUEST "confidential-guest-test"
OBJECT_DECLARE_SIMPLE_TYPE(CGTestState, CGTEST)
OBJECT_DECLARE_SIMPLE_TYPE(CGTestGuest, CGTEST_GUEST)

#define SESSION "session"
#define FINAL "final"

struct CGTestState {
    DeviceState parent_obj;

    uint32_t conversions;   /* conversions per second; 0: none */
    uint32_t busy_every;    /* refuse each n-th run with -EAGAIN; 0: none */
    bool busy_stopped;      /* refuse each run while the guest is stopped */
    uint32_t page_us;       /* time to pack or unpack a page, in us */
    bool rewrite;           /* mark sent pages dirty while the guest runs */
    uint64_t bad_page;      /* refuse the n-th received page; 0: none */
    bool lazy;              /* a page has no memory until it is written */
    /* lazy: number of pages at the start of RAM that have memory initially */
    uint64_t begin_touched;
    /* lazy: the guest writes to each n-th run reported unallocated; 0: none */
    uint32_t touch_every;
    uint64_t bad_memory;    /* offset of a page to report as bad; 0: none */
    uint32_t shared_mib;    /* MiB of RAM, from its start, that are shared */
    uint64_t host_page_size; /* page size to set in the RAMBlock; 0: keep it */
    bool unwilling;         /* the guest has not agreed to be migrated */
    /* Calls that open or end an outgoing session are appended to this file */
    char *ops_log;
    /* Answer that the destination sends and that the source expects */
    char *answer;
    /* Imitate older vendor code, which lacks send_answer and receive_answer */
    bool no_answer;

    RAMBlock *rb;
    unsigned long *touched; /* pages that have memory; NULL if not lazy */
    uint64_t converted;     /* number of conversions; BQL */
    int64_t longest_us;     /* duration of the longest conversion; BQL */
    /*
     * @told_page, @told_run: first page and length of the run that the last
     * call of cgtest_allocated() reported as unallocated.  Both are 0 if the
     * last call reported an allocated run, or if it was a repeated call.  In a
     * repeated call, the sender asks for exactly the run that the previous call
     * has stored in @told_page and @told_run.
     * @told: number of calls that reported an unallocated run, without the
     * repeated calls; 0 if touch_every is 0
     */
    uint64_t told_page, told_run, told;
    QemuThread thread;
};

struct CGTestGuest {
    ConfidentialGuestSupport parent_obj;

    CGTestState *dev;
    bool sending;
    bool completed;         /* migration completed; sending is still set */
    uint64_t runs_sent;
    uint64_t calls;         /* number of runs packed; atomic */
    uint64_t pages_received;
};

static void log_op(CGTestGuest *g, const char *op)
{
    FILE *f;

    if (g->dev->ops_log) {
        f = fopen(g->dev->ops_log, "a");
        assert(f && fprintf(f, "%s\n", op) > 0 && !fclose(f));
    }
}

static bool check_blob(const uint8_t *p, size_t len, const char *want,
                       Error **errp)
{
    if (len != strlen(want) || memcmp(p, want, len)) {
        error_setg(errp, "%zu bytes that are not '%s'", len, want);
        return false;
    }
    return true;
}

static bool cgtest_is_willing(ConfidentialGuestSupport *cgs, Error **errp)
{
    if (CGTEST_GUEST(cgs)->dev->unwilling) {
        error_setg(errp, "the guest is unwilling");
        return false;
    }
    return true;
}

static bool cgtest_can_send(ConfidentialGuestSupport *cgs, Error **errp)
{
    return cgtest_is_willing(cgs, errp);
}

static bool cgtest_send_start(ConfidentialGuestSupport *cgs,
                              GByteArray *session, Error **errp)
{
    CGTestGuest *g = CGTEST_GUEST(cgs);

    assert(!g->sending);
    log_op(g, "start");
    g->sending = true;
    qatomic_set(&g->calls, 0);
    g_byte_array_append(session, (const uint8_t *)SESSION, strlen(SESSION));
    return true;
}

static bool cgtest_send_answer(ConfidentialGuestSupport *cgs,
                               const uint8_t *data, size_t len, Error **errp)
{
    CGTestGuest *g = CGTEST_GUEST(cgs);

    assert(g->sending && !g->completed);
    log_op(g, "answer");
    return !g->dev->answer || check_blob(data, len, g->dev->answer, errp);
}

static int cgtest_send_pages(ConfidentialGuestSupport *cgs, unsigned channel,
                             RAMBlock *rb, uint64_t offset, size_t npages,
                             GByteArray *out, Error **errp)
{
    CGTestGuest *g = CGTEST_GUEST(cgs);
    size_t size = qemu_target_page_size();
    uint64_t page = offset / size, run;
    size_t began = out->len;
    bool is_private;

    assert(g->sending && !g->completed && rb == g->dev->rb && npages);
    assert(npages <= CGS_MIGRATION_PAGES_MAX);
    if (runstate_is_running() ?
        g->dev->busy_every && ++g->runs_sent % g->dev->busy_every == 0 :
        g->dev->busy_stopped) {
        /* The sender must discard what a failed call has appended */
        g_byte_array_append(out, (const uint8_t *)"rubbish", 7);
        error_setg(errp, "busy");
        return -EAGAIN;
    }
    for (size_t i = 0; i < npages; i++) {
        uint64_t at = cpu_to_be64(offset + i * size);

        g_byte_array_append(out, (uint8_t *)&at, sizeof(at));
        g_byte_array_append(out, rb->host + offset + i * size, size);
    }
    g_usleep(g->dev->page_us * npages);
    qatomic_set(&g->calls, g->calls + 1);
    run = encbitmap_run(rb, page, page + npages, &is_private);
    if (!is_private) {
        error_setg(errp, "converted");
        return -EAGAIN;
    }
    g_byte_array_set_size(out, began + run * (sizeof(uint64_t) + size));
    if (g->dev->rewrite && runstate_is_running()) {
        memory_region_set_dirty(rb->mr, offset, run * size);
    }
    return run;
}

static uint64_t cgtest_send_calls(ConfidentialGuestSupport *cgs)
{
    CGTestGuest *g = CGTEST_GUEST(cgs);

    assert(g->sending && !g->completed);
    return qatomic_read(&g->calls);
}

static bool cgtest_send_final(ConfidentialGuestSupport *cgs,
                              GByteArray *final, Error **errp)
{
    assert(CGTEST_GUEST(cgs)->sending);
    g_byte_array_append(final, (const uint8_t *)FINAL, strlen(FINAL));
    return true;
}

static void cgtest_send_completed(ConfidentialGuestSupport *cgs)
{
    CGTestGuest *g = CGTEST_GUEST(cgs);

    assert(g->sending && !g->completed);
    log_op(g, "completed");
    g->completed = true;
    /* The guest must not run on both sides */
    assert(runstate_check(RUN_STATE_POSTMIGRATE));
}

static void cgtest_send_done(ConfidentialGuestSupport *cgs, bool finish)
{
    CGTestGuest *g = CGTEST_GUEST(cgs);

    assert(g->sending && (g->completed || !finish));
    log_op(g, finish ? "finish" : "cancel");
    g->sending = g->completed = false;
}

static bool cgtest_receive_start(ConfidentialGuestSupport *cgs,
                                 const uint8_t *session, size_t len,
                                 Error **errp)
{
    return check_blob(session, len, SESSION, errp);
}

static void cgtest_receive_answer(ConfidentialGuestSupport *cgs,
                                  GByteArray *answer)
{
    const char *text = CGTEST_GUEST(cgs)->dev->answer;

    if (text) {
        g_byte_array_append(answer, (const uint8_t *)text, strlen(text));
    }
}

static bool cgtest_receive_pages(ConfidentialGuestSupport *cgs, RAMBlock *rb,
                                 uint64_t offset, size_t npages,
                                 const uint8_t *in, size_t len, Error **errp)
{
    CGTestGuest *g = CGTEST_GUEST(cgs);
    size_t size = qemu_target_page_size(), packed = sizeof(uint64_t) + size;

    assert(rb == g->dev->rb);
    assert(encbitmap_count(rb, offset / size, npages) == npages);
    if (len != npages * packed) {
        error_setg(errp, "%zu pages in %zu bytes", npages, len);
        return false;
    }
    for (size_t i = 0; i < npages; i++) {
        uint64_t at = offset + i * size;

        if (ldq_be_p(in + i * packed) != at ||
            ++g->pages_received == g->dev->bad_page) {
            error_setg(errp, "offset 0x%" PRIx64 ": not authentic", at);
            return false;
        }
        memcpy(rb->host + at, in + i * packed + sizeof(uint64_t), size);
    }
    g_usleep(g->dev->page_us * npages);
    return true;
}

static bool cgtest_receive_final(ConfidentialGuestSupport *cgs,
                                 const uint8_t *final, size_t len,
                                 Error **errp)
{
    return check_blob(final, len, FINAL, errp);
}

static const ConfidentialGuestMigrationOps cgtest_ops = {
    .can_send = cgtest_can_send,
    .is_willing = cgtest_is_willing,
    .send_start = cgtest_send_start,
    .send_answer = cgtest_send_answer,
    .send_pages = cgtest_send_pages,
    .send_final = cgtest_send_final,
    .send_completed = cgtest_send_completed,
    .send_done = cgtest_send_done,
    .send_calls = cgtest_send_calls,
    .receive_start = cgtest_receive_start,
    .receive_answer = cgtest_receive_answer,
    .receive_pages = cgtest_receive_pages,
    .receive_final = cgtest_receive_final,
};

/* Remove send_answer and receive_answer from the operations of @g's class */
static void forget_answers(CGTestGuest *g)
{
    static ConfidentialGuestMigrationOps older_ops;

    older_ops = cgtest_ops;
    older_ops.send_answer = NULL;
    older_ops.receive_answer = NULL;
    /*
     * A machine has only one guest, so this change of the class affects no
     * other guest
     */
    CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(g)->migration = &older_ops;
}

static void touch(CGTestState *s, uint64_t page, uint64_t value)
{
    stq_he_p(s->rb->host + page * qemu_target_page_size(), value);
    if (s->touched) {
        set_bit_atomic(page, s->touched);
    }
}

static int cgtest_convert(RAMBlock *rb, uint64_t offset, uint64_t size,
                          bool to_private, uint64_t *error_offset)
{
    return 0;
}

static CGTestState *the_testdev(void)
{
    return CGTEST_GUEST(current_machine->cgs)->dev;
}

/*
 * The guest can write to a page after the sender has seen that the page is
 * unallocated and before writes are logged.  Nothing then marks the page dirty.
 * This function simulates such writes.  When the sender asks for the same run
 * again, writes are logged, so the function does not write.
 */
static uint64_t cgtest_allocated(RAMBlock *rb, uint64_t page, uint64_t npages,
                                 bool *allocated)
{
    CGTestState *s = the_testdev();
    bool again = page == s->told_page && npages == s->told_run;
    uint64_t end;

    *allocated = test_bit(page, s->touched);
    end = *allocated ? find_next_zero_bit(s->touched, page + npages, page) :
                       find_next_bit(s->touched, page + npages, page);
    s->told_page = s->told_run = 0;
    if (!*allocated && !again) {
        s->told_page = page;
        s->told_run = end - page;
        if (s->touch_every && ++s->told % s->touch_every == 0 &&
            runstate_is_running()) {
            touch(s, page + (end - page) / 2, s->told);
        }
    }
    return end - page;
}

static const EncBitmapProvider cgtest_lazy_provider = {
    .name = "test device",
    .convert = cgtest_convert,
    .allocated = cgtest_allocated,
};

static bool cgtest_poisoned(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    CGTestState *s = the_testdev();

    return s->bad_memory >= offset && s->bad_memory - offset < size;
}

static const EncBitmapProvider cgtest_bad_memory_provider = {
    .name = "test device",
    .convert = cgtest_convert,
    .poisoned = cgtest_poisoned,
};

/*
 * Convert a random range of pages and, half of the time, write to each of its
 * pages.  Writing every time would hide a conversion that does not mark its
 * pages dirty.
 */
static void convert_and_write(CGTestState *s, GRand *rand, uint64_t count)
{
    size_t size = qemu_target_page_size();
    uint64_t npages = encbitmap_npages(s->rb);
    uint64_t first = g_rand_int_range(rand, 0, npages);
    uint64_t n = MIN(g_rand_int_range(rand, 1, 100), npages - first);
    int64_t start = qemu_clock_get_us(QEMU_CLOCK_REALTIME);

    /*
     * The caller has checked that the guest runs.  After the migration has
     * completed, the guest runs on the source only if the source takes the
     * guest back, and cgtest_send_done() clears @completed before that.
     */
    assert(!CGTEST_GUEST(current_machine->cgs)->completed);
    encbitmap_convert(s->rb, first * size, n * size, g_rand_boolean(rand),
                      NULL, &error_abort);
    s->converted++;
    s->longest_us = MAX(s->longest_us,
                        qemu_clock_get_us(QEMU_CLOCK_REALTIME) - start);
    if (g_rand_boolean(rand)) {
        return;
    }
    for (uint64_t i = first; i < first + n; i++) {
        /*
         * Half of the writes are zeros.  If the page contained only zeros, it
         * stays a zero page, so the test also migrates zero pages.
         */
        touch(s, i, count & 2 ? count : 0);
    }
    memory_region_set_dirty(s->rb->mr, first * size, n * size);
}

static void *cgtest_guest_thread(void *opaque)
{
    CGTestState *s = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(s->conversions);

    rcu_register_thread();
    for (uint64_t count = 1; ; count++) {
        g_usleep(G_USEC_PER_SEC / s->conversions);
        bql_lock();
        if (runstate_is_running()) {
            convert_and_write(s, rand, count);
        }
        bql_unlock();
    }
    return NULL;
}

static void cgtest_realize(DeviceState *dev, Error **errp)
{
    CGTestState *s = CGTEST(dev);
    MachineState *ms = current_machine;
    CGTestGuest *g;
    uint64_t npages;

    if (ms->cgs || !ms->ram || !ms->ram->ram_block) {
        error_setg(errp, "needs a machine with RAM and without confidential "
                   "guest support");
        return;
    }
    s->rb = ms->ram->ram_block;
    if (s->shared_mib > ms->ram_size / MiB) {
        error_setg(errp, "shared-mib is more than there is RAM");
        return;
    }
    if (s->host_page_size) {
        if (!is_power_of_2(s->host_page_size) ||
            s->host_page_size < qemu_target_page_size()) {
            error_setg(errp, "host-page-size is not a power of two, or less "
                       "than a page of the guest");
            return;
        }
        s->rb->page_size = s->host_page_size;
    }
    if (s->lazy) {
        npages = s->rb->max_length / qemu_target_page_size();
        s->touched = bitmap_new(npages);
        bitmap_set(s->touched, 0, MIN(npages, s->begin_touched));
    }
    encbitmap_init(s->rb, s->lazy ? &cgtest_lazy_provider :
                   s->bad_memory ? &cgtest_bad_memory_provider : NULL, true);
    encbitmap_set(s->rb, 0, s->shared_mib * MiB / qemu_target_page_size(),
                  false);
    g = CGTEST_GUEST(object_new(TYPE_CGTEST_GUEST));
    g->dev = s;
    if (s->no_answer) {
        forget_answers(g);
    }
    ms->cgs = CONFIDENTIAL_GUEST_SUPPORT(g);
    ms->cgs->ready = true;
    if (s->conversions) {
        qemu_thread_create(&s->thread, "cgtest-guest", cgtest_guest_thread, s,
                           QEMU_THREAD_DETACHED);
    }
}

static void get_converted(Object *obj, Visitor *v, const char *name,
                          void *opaque, Error **errp)
{
    visit_type_uint64(v, name, &CGTEST(obj)->converted, errp);
}

static void get_longest(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    visit_type_int64(v, name, &CGTEST(obj)->longest_us, errp);
}

/*
 * VFIO calls multifd_device_state_supported() before it sends device state in
 * multifd's channels.  The property lets a test check the result without VFIO.
 */
static void get_device_state(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    uint64_t supported = multifd_device_state_supported();

    visit_type_uint64(v, name, &supported, errp);
}

static const Property cgtest_properties[] = {
    DEFINE_PROP_UINT32("conversions", CGTestState, conversions, 0),
    DEFINE_PROP_UINT32("busy-every", CGTestState, busy_every, 0),
    DEFINE_PROP_BOOL("busy-stopped", CGTestState, busy_stopped, false),
    DEFINE_PROP_UINT32("page-us", CGTestState, page_us, 0),
    DEFINE_PROP_BOOL("rewrite", CGTestState, rewrite, false),
    DEFINE_PROP_UINT32("shared-mib", CGTestState, shared_mib, 0),
    DEFINE_PROP_SIZE("host-page-size", CGTestState, host_page_size, 0),
    DEFINE_PROP_UINT64("bad-page", CGTestState, bad_page, 0),
    DEFINE_PROP_UINT64("bad-memory", CGTestState, bad_memory, 0),
    DEFINE_PROP_BOOL("lazy", CGTestState, lazy, false),
    DEFINE_PROP_UINT64("begin-touched", CGTestState, begin_touched, 0),
    DEFINE_PROP_UINT32("touch-every", CGTestState, touch_every, 0),
    DEFINE_PROP_BOOL("unwilling", CGTestState, unwilling, false),
    DEFINE_PROP_STRING("ops-log", CGTestState, ops_log),
    DEFINE_PROP_STRING("answer", CGTestState, answer),
    DEFINE_PROP_BOOL("no-answer", CGTestState, no_answer, false),
};

static void cgtest_class_init(ObjectClass *oc, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(oc);

    dc->desc = "Test of migration code: claims to be a confidential guest";
    dc->realize = cgtest_realize;
    dc->user_creatable = true;
    dc->hotpluggable = false;
    device_class_set_props(dc, cgtest_properties);
    object_class_property_add(oc, "converted", "uint64", get_converted, NULL,
                              NULL, NULL);
    object_class_property_add(oc, "longest-us", "int64", get_longest, NULL,
                              NULL, NULL);
    object_class_property_add(oc, "multifd-device-state", "uint64",
                              get_device_state, NULL, NULL, NULL);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static void cgtest_guest_class_init(ObjectClass *oc, void *data)
{
    CONFIDENTIAL_GUEST_SUPPORT_CLASS(oc)->migration = &cgtest_ops;
}

static const TypeInfo cgtest_types[] = {
    {
        .name = TYPE_CGTEST,
        .parent = TYPE_DEVICE,
        .instance_size = sizeof(CGTestState),
        .class_init = cgtest_class_init,
    }, {
        .name = TYPE_CGTEST_GUEST,
        .parent = TYPE_CONFIDENTIAL_GUEST_SUPPORT,
        .instance_size = sizeof(CGTestGuest),
        .class_init = cgtest_guest_class_init,
    },
};

DEFINE_TYPES(cgtest_types)
