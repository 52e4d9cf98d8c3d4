/*
 * Live migration of private pages, with a test device that takes the place of
 * the platform and its firmware (hw/misc/confidential-guest-testdev.c)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"
#include "libqtest.h"
#include "libqos/malloc-pc.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_balloon.h"

#define RAM_MIB 64
#define TIMEOUT_S 60

static char *tmp;

typedef struct Pair {
    QTestState *src, *dst;
} Pair;

/*
 * Start a machine.  @opts: options of the test device, or NULL for a machine
 * without the device, whose guest is not confidential.
 */
static QTestState *start(const char *opts, const char *args)
{
    g_autofree char *dev = g_strdup_printf(
        "-device confidential-guest-testdev%s", opts ?: "");

    return qtest_initf("-machine pc -nodefaults "
                       "-global apic-common.vapic=off -bios %s/bios -m %d %s %s",
                       tmp, RAM_MIB, opts ? dev : "", args);
}

static void set_capability_to(QTestState *qts, const char *name, bool on)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-capabilities',"
                             "'arguments': { 'capabilities': [ {"
                             "'capability': %s, 'state': %i } ] } }", name, on);
}

static void set_capability(QTestState *qts, const char *name)
{
    set_capability_to(qts, name, true);
}

static void listen_at(QTestState *dst)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/socket", tmp);

    qtest_qmp_assert_success(dst, "{ 'execute': 'migrate-incoming',"
                             "'arguments': { 'uri': %s,"
                             "'exit-on-error': false } }", uri);
}

static Pair pair_start(const char *src, const char *dst)
{
    Pair p = { start(src, ""), start(dst, "-S -incoming defer") };

    set_capability(p.src, "return-path");
    set_capability(p.src, "events");
    set_capability(p.dst, "events");
    listen_at(p.dst);
    return p;
}

static void use_channels(QTestState *qts, const char *compression)
{
    set_capability(qts, "multifd");
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-parameters',"
                             "'arguments': { 'multifd-channels': 3,"
                             "'multifd-compression': %s } }", compression);
}

/*
 * Start a pair of machines with multifd.  The destination does not listen until
 * the test calls listen_at().
 */
static Pair pair_start_multifd(const char *src, const char *dst,
                               const char *compression)
{
    Pair p = { start(src, ""), start(dst, "-S -incoming defer") };

    set_capability(p.src, "return-path");
    set_capability(p.src, "events");
    set_capability(p.dst, "events");
    use_channels(p.src, compression);
    use_channels(p.dst, compression);
    return p;
}

static void pair_end(Pair p)
{
    qtest_quit(p.src);
    qtest_quit(p.dst);
}

static QDict *migrate(QTestState *src)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/socket", tmp);

    return qtest_qmp(src, "{ 'execute': 'migrate', 'arguments': {"
                     "'uri': %s } }", uri);
}

static void set_downtime(QTestState *src, int ms)
{
    qtest_qmp_assert_success(src, "{ 'execute': 'migrate-set-parameters',"
                             "'arguments': { 'downtime-limit': %d } }", ms);
}

static void migrate_starts(QTestState *src)
{
    QDict *rsp = migrate(src);

    g_assert(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
}

/*
 * Check that a migrate command is refused and that the guest runs on.  Returns
 * the error of the command.
 */
static char *migrate_refused(QTestState *src)
{
    QDict *rsp = migrate(src), *err, *st;
    char *desc;

    err = qdict_get_qdict(rsp, "error");
    g_assert(err);
    desc = g_strdup(qdict_get_str(err, "desc"));
    qobject_unref(rsp);
    st = qtest_qmp_assert_success_ref(src, "{ 'execute': 'query-status' }");
    g_assert_cmpstr(qdict_get_str(st, "status"), ==, "running");
    qobject_unref(st);
    return desc;
}

static QDict *query(QTestState *qts)
{
    return qtest_qmp_assert_success_ref(qts, "{ 'execute': 'query-migrate' }");
}

/* Wait until the migration has ended, and check that its status is @want */
static QDict *wait_end(QTestState *qts, const char *want)
{
    int64_t end = g_get_monotonic_time() + TIMEOUT_S * G_USEC_PER_SEC;

    while (g_get_monotonic_time() < end) {
        QDict *info = query(qts);
        const char *status = qdict_get_try_str(info, "status");

        if (!g_strcmp0(status, want)) {
            return info;
        }
        if (!g_strcmp0(status, "completed") || !g_strcmp0(status, "failed") ||
            !g_strcmp0(status, "cancelled")) {
            g_error("migration %s, expected %s: %s", status, want,
                    qdict_get_try_str(info, "error-desc") ?: "no error");
        }
        qobject_unref(info);
        g_usleep(20 * 1000);
    }
    g_error("migration did not end in %d s", TIMEOUT_S);
}

/* Check that the migration of @qts fails with an error that contains @why */
static void fails_with(QTestState *qts, const char *why)
{
    QDict *info = wait_end(qts, "failed");
    const char *desc = qdict_get_try_str(info, "error-desc");

    g_assert_nonnull(desc);
    if (!strstr(desc, why)) {
        g_error("expected '%s' in: %s", why, desc);
    }
    qobject_unref(info);
}

/* Return the source's error of a migration that has failed */
static char *source_error(QTestState *src)
{
    QDict *info = wait_end(src, "failed");
    char *desc = g_strdup(qdict_get_try_str(info, "error-desc"));

    g_assert_nonnull(desc);
    qobject_unref(info);
    return desc;
}

/*
 * Check that a migration fails with the destination's error @why, and that the
 * source has that error when its status becomes "failed", not only later.
 */
static void refused_by_destination(Pair p, const char *why)
{
    g_autofree char *desc = NULL;

    migrate_starts(p.src);
    desc = source_error(p.src);
    if (!g_str_has_prefix(desc, "destination: ") || !strstr(desc, why)) {
        g_error("expected 'destination: ' and '%s' in: %s", why, desc);
    }
    fails_with(p.dst, why);
}

/*
 * Like refused_by_destination(), but the source does not receive the
 * destination's error
 */
static void refused_without_reason(Pair p, const char *why)
{
    g_autofree char *desc = NULL;

    migrate_starts(p.src);
    desc = source_error(p.src);
    g_assert_null(strstr(desc, "destination: "));
    fails_with(p.dst, why);
}

static void is_running(QTestState *qts)
{
    QDict *st = qtest_qmp_assert_success_ref(qts,
                                             "{ 'execute': 'query-status' }");

    g_assert_cmpstr(qdict_get_str(st, "status"), ==, "running");
    qobject_unref(st);
}

/*
 * Wait until the guest runs again after a failed migration.  The status
 * "failed" does not suffice: a channel's thread can set it before the migration
 * thread restarts a stopped guest.
 */
static void runs_again(QTestState *qts)
{
    int64_t end = g_get_monotonic_time() + TIMEOUT_S * G_USEC_PER_SEC;
    bool running;

    do {
        QDict *st = qtest_qmp_assert_success_ref(qts, "{ 'execute':"
                                                 "'query-status' }");

        running = !strcmp(qdict_get_str(st, "status"), "running");
        qobject_unref(st);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    } while (!running);
}

static void save_ram(QTestState *qts, const char *name, char **data,
                     gsize *len)
{
    g_autofree char *file = g_build_filename(tmp, name, NULL);

    qtest_qmp_assert_success(qts, "{ 'execute': 'pmemsave', 'arguments': {"
                             "'val': 0, 'size': %d, 'filename': %s } }",
                             (int)(RAM_MIB * MiB), file);
    g_assert(g_file_get_contents(file, data, len, NULL));
    g_unlink(file);
}

static void same_ram(Pair p)
{
    g_autofree char *src = NULL, *dst = NULL;
    gsize nsrc, ndst;

    save_ram(p.src, "src", &src, &nsrc);
    save_ram(p.dst, "dst", &dst, &ndst);
    g_assert_cmpuint(nsrc, ==, RAM_MIB * MiB);
    g_assert_cmpuint(nsrc, ==, ndst);
    for (gsize i = 0; i < nsrc; i += 4096) {
        if (memcmp(src + i, dst + i, 4096)) {
            g_error("RAM differs at 0x%" G_GSIZE_MODIFIER "x", i);
        }
    }
}

/*
 * Give every third page of RAM a value that no other page has.  The guest of
 * the test device writes only to the first 8 bytes of pages, so it does not
 * overwrite these values.
 */
static void fill_ram(QTestState *qts)
{
    for (uint64_t page = 0; page < RAM_MIB * MiB / 4096; page += 3) {
        qtest_writeq(qts, page * 4096 + 8, page * 0x9e3779b97f4a7c15ULL);
    }
}

static uint64_t counter(QDict *info, const char *name)
{
    QDict *ram = qdict_get_qdict(info, "encrypted-ram");

    g_assert(ram);
    return qdict_get_int(ram, name);
}

/* Wait for a session event with @status.  Returns its number of pages. */
static uint64_t session_event(QTestState *qts, bool incoming,
                              const char *status)
{
    QDict *ev = qtest_qmp_eventwait_ref(qts, "ENCRYPTED_RAM_SESSION");
    QDict *data = qdict_get_qdict(ev, "data");
    uint64_t pages = qdict_get_int(data, "private-pages");

    g_assert_cmpint(qdict_get_bool(data, "incoming"), ==, incoming);
    g_assert_cmpstr(qdict_get_str(data, "status"), ==, status);
    qobject_unref(ev);
    return pages;
}

/*
 * Check that "recent-rounds" has the last rounds, at most 16.  If it has all
 * rounds, the sum of each counter must equal the total, and otherwise must not
 * exceed the total.
 */
static void check_rounds(QDict *info)
{
    static const char *const counters[] = {
        "private-pages", "private-bytes", "batches", "shared-pages",
        "unallocated-pages",
        "converted-pages", "again-pages", "platform-calls", "platform-time",
    };
    QDict *ram = qdict_get_qdict(info, "encrypted-ram");
    QList *rounds = qdict_get_qlist(ram, "recent-rounds");
    uint64_t last = counter(info, "rounds"), sums[G_N_ELEMENTS(counters)] = {};
    uint64_t n = qlist_size(rounds), start = 0, next = last - n + 1;
    QListEntry *e;

    g_assert_cmpuint(n, ==, MIN(last, 16));
    QLIST_FOREACH_ENTRY(rounds, e) {
        QDict *r = qobject_to(QDict, qlist_entry_obj(e));

        g_assert_cmpuint(qdict_get_int(r, "round"), ==, next++);
        g_assert_cmpuint(qdict_get_int(r, "start"), >=, start);
        start = qdict_get_int(r, "start") + qdict_get_int(r, "duration");
        for (size_t i = 0; i < G_N_ELEMENTS(counters); i++) {
            sums[i] += qdict_get_int(r, counters[i]);
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(counters); i++) {
        if (n == last) {
            g_assert_cmpuint(sums[i], ==, counter(info, counters[i]));
        } else {
            g_assert_cmpuint(sums[i], <=, counter(info, counters[i]));
        }
    }
}

static void completes(Pair p)
{
    QDict *info;
    uint64_t sent;

    qobject_unref(wait_end(p.src, "completed"));
    qobject_unref(wait_end(p.dst, "completed"));
    info = query(p.src);
    sent = counter(info, "private-pages");
    g_assert_cmpuint(sent, >, 0);
    g_assert_cmpuint(counter(info, "rounds"), >=, 1);
    check_rounds(info);
    qobject_unref(info);
    session_event(p.src, false, "opened");
    session_event(p.dst, true, "opened");
    g_assert_cmpuint(session_event(p.src, false, "finished"), ==, sent);
    g_assert_cmpuint(session_event(p.dst, true, "finished"), ==, sent);
    same_ram(p);
}

/*
 * With this option, the guest writes to pages again after they were sent, so
 * that the migration of a slow guest does not end early
 */
#define LIVE ",rewrite=on"

/*
 * Migrate a guest that has the option LIVE.  Waits for at least three rounds
 * before the migration may end.
 */
static void completes_live(Pair p)
{
    uint64_t rounds;

    set_downtime(p.src, 1);
    migrate_starts(p.src);
    do {
        QDict *info = query(p.src);

        rounds = qdict_haskey(info, "encrypted-ram") ?
                 counter(info, "rounds") : 0;
        g_assert_cmpstr(qdict_get_try_str(info, "status") ?: "none", !=,
                        "completed");
        qobject_unref(info);
        g_usleep(1000);
    } while (rounds < 4);
    set_downtime(p.src, 10000);
    completes(p);
}

/* Migrate a guest whose pages are all private and do not change */
static void test_still(void)
{
    Pair p = pair_start(",page-us=2", "");
    g_autofree char *text = NULL;
    QDict *info;

    fill_ram(p.src);
    migrate_starts(p.src);
    completes(p);
    info = query(p.src);
    g_assert_cmpuint(counter(info, "batches"), ==, RAM_MIB * MiB / 4096 / 64);
    g_assert_cmpuint(counter(info, "platform-calls"), ==,
                     RAM_MIB * MiB / 4096 / 64);
    g_assert_cmpuint(counter(info, "platform-time"), >=,
                     RAM_MIB * MiB / 4096 * 2 / 1000);
    g_assert_cmpuint(counter(info, "converted-pages"), ==, 0);
    text = qtest_hmp(p.src, "info migrate");
    g_assert_nonnull(strstr(text, "private ram: 16384 pages"));
    g_assert_cmpuint(counter(info, "private-pages"), ==, RAM_MIB * MiB / 4096);
    g_assert_cmpuint(counter(info, "shared-pages"), ==, 0);
    g_assert_cmpuint(counter(info, "again-pages"), ==, 0);
    qobject_unref(info);
    pair_end(p);
}

/* Migrate a guest that converts pages meanwhile */
static void test_conversions(void)
{
    Pair p = pair_start(LIVE ",conversions=2000,page-us=50", "");
    QDict *info;

    fill_ram(p.src);
    completes_live(p);
    info = query(p.src);
    g_assert_cmpuint(counter(info, "unallocated-pages"), ==, 0);
    g_assert_cmpuint(counter(info, "shared-pages"), >, 0);
    /* The guest makes 2000 conversions per second */
    g_assert_cmpuint(counter(info, "converted-pages"), >, 0);
    qobject_unref(info);
    pair_end(p);
}

/*
 * Get the counter @name of the round that was sent while the guest was stopped
 */
static uint64_t last_round(QDict *info, const char *name)
{
    QDict *ram = qdict_get_qdict(info, "encrypted-ram");
    QListEntry *e = QTAILQ_LAST(&qdict_get_qlist(ram, "recent-rounds")->head);

    return qdict_get_int(qobject_to(QDict, qlist_entry_obj(e)), name);
}

static void set_bandwidth(QTestState *src, int64_t bytes)
{
    qtest_qmp_assert_success(src, "{ 'execute': 'migrate-set-parameters',"
                             "'arguments': { 'max-bandwidth': %" PRId64 " } }",
                             bytes);
}

/*
 * Whether QEMU would stop the guest if it estimated the time for the remaining
 * pages only by their bytes and the last rate
 */
static bool bytes_fit(QDict *info, double limit_s)
{
    QDict *ram = qdict_get_qdict(info, "ram");

    return ram && qdict_haskey(info, "encrypted-ram") &&
           qdict_get_int(ram, "remaining") <
           qdict_get_double(ram, "mbps") * 1000 * 1000 / 8 * limit_s;
}

/*
 * Private pages that take 3 s to pack come after shared pages, which are fast.
 * QEMU must not stop the guest before the remaining pages can be packed within
 * the limit.
 */
static void test_downtime_slow_source(void)
{
    const int page_us = 750, limit_ms = 1000;
    const uint64_t pages = 16 * MiB / 4096;
    uint64_t left;
    bool fit = false;
    Pair p = pair_start(",shared-mib=48,page-us=750", "");
    QDict *info;

    for (uint64_t page = 0; page < RAM_MIB * MiB / 4096; page++) {
        /*
         * Write to each page, because QEMU would send a shared page of zeros
         * in a few bytes
         */
        qtest_writeq(p.src, page * 4096, page + 1);
    }
    set_downtime(p.src, limit_ms);
    set_bandwidth(p.src, 100 * MiB);
    migrate_starts(p.src);
    for (;;) {
        g_autofree char *status = NULL;

        info = query(p.src);
        status = g_strdup(qdict_get_str(info, "status"));
        if (!strcmp(status, "active") && !fit && bytes_fit(info, 1.0)) {
            /*
             * QEMU would stop the guest at this point if it estimated the time
             * only by bytes.  This would be too early: the platform still needs
             * more than 2 s for the private pages that are left.
             */
            fit = true;
            g_assert_cmpuint(counter(info, "private-pages"), <, pages / 4);
        }
        qobject_unref(info);
        if (!strcmp(status, "completed")) {
            break;
        }
        g_assert_cmpstr(status, !=, "failed");
        g_usleep(10 * 1000);
    }
    g_assert_true(fit);
    info = query(p.src);
    check_rounds(info);
    left = last_round(info, "private-pages");
    g_test_message("downtime %" PRId64 " ms, %" PRIu64 " private pages",
                   qdict_get_int(info, "downtime"), left);
    g_assert_cmpuint(left * page_us, <=, limit_ms * 1000);
    g_assert_cmpuint(counter(info, "private-pages"), ==, pages);
    qobject_unref(info);
    qobject_unref(wait_end(p.dst, "completed"));
    same_ram(p);
    pair_end(p);
}

/*
 * The guest always has 2048 dirty shared pages, which can be sent within the
 * limit.  If QEMU assumed that each of them takes as long as a private page, it
 * would never stop the guest.  The migration must complete.
 */
static void test_downtime_shared(void)
{
    Pair p = pair_start(",shared-mib=48,page-us=500", "");
    int64_t end = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
    bool done = false;
    QDict *info;

    fill_ram(p.src);
    set_downtime(p.src, 500);
    migrate_starts(p.src);
    while (!done) {
        info = query(p.src);
        done = !strcmp(qdict_get_str(info, "status"), "completed");
        qobject_unref(info);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        /*
         * Write to 2048 shared pages.  Packing as many private pages would take
         * 1 s, which exceeds the limit.
         */
        qtest_memset(p.src, 16 * MiB, 0x5a, 8 * MiB);
    }
    pair_end(p);
}

/* Wait until more than @npages private pages were sent */
static void wait_private(QTestState *qts, uint64_t npages)
{
    for (;;) {
        QDict *info = query(qts);
        bool under_way = qdict_haskey(info, "encrypted-ram") &&
                         counter(info, "private-pages") > npages;

        if (under_way) {
            /* recent-rounds includes the round that is in progress */
            check_rounds(info);
        }
        qobject_unref(info);
        if (under_way) {
            return;
        }
        g_usleep(1000);
    }
}

/* Make the destination listen on a free TCP port.  Returns its number. */
static char *listen_tcp(QTestState *dst)
{
    QDict *info, *address;
    char *port;

    qtest_qmp_assert_success(dst, "{ 'execute': 'migrate-incoming',"
                             "'arguments': { 'uri': 'tcp:127.0.0.1:0',"
                             "'exit-on-error': false } }");
    info = query(dst);
    address = qobject_to(QDict, qlist_peek(qdict_get_qlist(info,
                                                           "socket-address")));
    port = g_strdup(qdict_get_str(address, "port"));
    qobject_unref(info);
    return port;
}

static void migrate_to(QTestState *src, const char *uri)
{
    qtest_qmp_assert_success(src, "{ 'execute': 'migrate', 'arguments': {"
                             "'uri': %s } }", uri);
}

/*
 * The platforms are fast and the guest is idle, so the source sends every page
 * once, in the first round or while the guest is stopped.  A third round is
 * possible, because the first attempt to stop the guest syncs the dirty bitmap.
 */
static void test_downtime_fast(void)
{
    Pair p = pair_start("", "");
    QDict *info;

    fill_ram(p.src);
    set_bandwidth(p.src, 0);
    migrate_starts(p.src);
    completes(p);
    info = query(p.src);
    g_assert_cmpuint(counter(info, "private-pages"), ==, RAM_MIB * MiB / 4096);
    g_assert_cmpuint(counter(info, "rounds"), <=, 3);
    qobject_unref(info);
    pair_end(p);
}

/*
 * The destination's platform needs 4 s to unpack the private pages, and the
 * buffers of TCP hold many pages that are sent but not yet unpacked.  The
 * source must not stop the guest before the destination has unpacked these
 * pages.  The downtime is then about as short as if no page were left, far
 * below the limit.
 */
static void test_downtime_slow_destination(void)
{
    const int limit_ms = 500;
    Pair p = { start(",shared-mib=48", ""),
               start(",page-us=1000", "-S -incoming defer") };
    g_autofree char *uri = NULL, *port = NULL;
    QDict *info;

    set_capability(p.src, "return-path");
    fill_ram(p.src);
    set_downtime(p.src, limit_ms);
    set_bandwidth(p.src, 0);
    port = listen_tcp(p.dst);
    uri = g_strdup_printf("tcp:127.0.0.1:%s", port);
    migrate_to(p.src, uri);
    info = wait_end(p.src, "completed");
    g_test_message("downtime %" PRId64 " ms", qdict_get_int(info, "downtime"));
    g_assert_cmpint(qdict_get_int(info, "downtime"), <=, limit_ms * 3 / 2);
    qobject_unref(info);
    qobject_unref(wait_end(p.dst, "completed"));
    same_ram(p);
    pair_end(p);
}

/*
 * A link with a limited rate, which forwards connections from a TCP port to the
 * Unix socket "socket".  The source connects by TCP, because TCP has large
 * buffers.  Until these are full, the source writes faster than the link
 * transfers.
 */
typedef struct Link {
    int listener;
    double bytes_per_us;            /* for all connections together */
    GMutex lock;
    double free_us;                 /* time at which the link becomes idle */
} Link;

typedef struct LinkEnd {
    Link *link;                     /* NULL: no limit of the rate */
    int from, to;
} LinkEnd;

static int connect_unix(const char *name)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    g_assert_cmpint(snprintf(at.sun_path, sizeof(at.sun_path), "%s/%s", tmp,
                             name), <, sizeof(at.sun_path));
    g_assert(!connect(fd, (struct sockaddr *)&at, sizeof(at)));
    return fd;
}

static void link_carry(Link *l, size_t bytes)
{
    int64_t now = g_get_monotonic_time();
    double wait;

    g_mutex_lock(&l->lock);
    l->free_us = MAX(l->free_us, now) + bytes / l->bytes_per_us;
    wait = l->free_us - now;
    g_mutex_unlock(&l->lock);
    g_usleep(wait);
}

static void *link_thread(void *opaque)
{
    g_autofree LinkEnd *end = opaque;
    char buf[16 * KiB];
    ssize_t n;

    while ((n = read(end->from, buf, sizeof(buf))) > 0) {
        if (end->link) {
            link_carry(end->link, n);
        }
        for (ssize_t done = 0, ret; done < n; done += ret) {
            ret = send(end->to, buf + done, n - done, MSG_NOSIGNAL);
            if (ret <= 0) {
                goto out;
            }
        }
    }
out:
    shutdown(end->from, SHUT_RD);
    shutdown(end->to, SHUT_WR);
    return NULL;
}

static void link_direction(Link *link, int from, int to)
{
    LinkEnd *end = g_new(LinkEnd, 1);

    *end = (LinkEnd) { link, from, to };
    g_thread_unref(g_thread_new("link", link_thread, end));
}

static void *link_accept_thread(void *opaque)
{
    Link *l = opaque;
    int src, dst;

    while ((src = accept(l->listener, NULL, NULL)) >= 0) {
        dst = connect_unix("socket");
        link_direction(l, src, dst);
        link_direction(NULL, dst, src);
    }
    return NULL;
}

/*
 * Start a link, and return the URI of its TCP port.  The link is never freed,
 * because its threads run until the test program ends.
 */
static char *link_start(double bytes_per_second)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t len = sizeof(at);
    Link *l = g_new0(Link, 1);

    l->listener = socket(AF_INET, SOCK_STREAM, 0);
    g_assert(!bind(l->listener, (struct sockaddr *)&at, len) &&
             !listen(l->listener, 16) &&
             !getsockname(l->listener, (struct sockaddr *)&at, &len));
    l->bytes_per_us = bytes_per_second / G_USEC_PER_SEC;
    g_thread_unref(g_thread_new("accept", link_accept_thread, l));
    return g_strdup_printf("tcp:127.0.0.1:%d", ntohs(at.sin_port));
}

/*
 * The test writes to shared pages while the source packs private pages.  To
 * pack a page takes longer than to transfer it, so the source cannot derive the
 * link's rate from the rate at which it has written lately.  While the guest is
 * stopped, the source must send at most 1.5 times what the link can transfer
 * within the limit.
 */
static void test_downtime_slow_link(const void *multifd)
{
    const double link = 16 * MiB, limit_ms = 300;
    const char *opts = ",shared-mib=62,page-us=2500";
    Pair p = multifd ? pair_start_multifd(opts, "", "none") :
                       pair_start(opts, "");
    g_autofree char *uri = link_start(link);
    QDict *info;
    uint64_t left;

    if (multifd) {
        listen_at(p.dst);
    }
    qtest_memset(p.src, 62 * MiB, 0x11, 2 * MiB);
    set_downtime(p.src, limit_ms);
    set_bandwidth(p.src, 0);
    migrate_to(p.src, uri);
    wait_private(p.src, 128);
    qtest_memset(p.src, 16 * MiB, 0x22, 16 * MiB);
    info = wait_end(p.src, "completed");
    left = last_round(info, "shared-pages");
    g_test_message("downtime %" PRId64 " ms, %" PRIu64 " shared pages",
                   qdict_get_int(info, "downtime"), left);
    g_assert_cmpfloat(left * 4096, <=, 1.5 * link * limit_ms / 1000);
    g_assert_cmpuint(last_round(info, "private-pages") * 2500, <=,
                     1.5 * limit_ms * 1000);
    /*
     * The two checks of the last round would also pass if the source had few
     * shared pages to send in the whole migration.  Check that the source has
     * sent all shared pages once, and has sent those pages a second time that
     * the test wrote to during the migration.
     */
    g_assert_cmpuint(counter(info, "shared-pages"), >=,
                     (62 * MiB + 16 * MiB) / 4096);
    qobject_unref(info);
    qobject_unref(wait_end(p.dst, "completed"));
    same_ram(p);
    pair_end(p);
}

/*
 * The source requeues a page that cannot be packed because it is being
 * converted, and does not lose it
 */
static void test_busy(void)
{
    Pair p = pair_start(LIVE ",conversions=500,busy-every=7,page-us=10", "");
    QDict *info;

    fill_ram(p.src);
    completes_live(p);
    info = query(p.src);
    g_assert_cmpuint(counter(info, "again-pages"), >, 0);
    qobject_unref(info);
    pair_end(p);
}

/*
 * The test device refuses to pack pages while the guest is stopped.  The source
 * cannot requeue them, because no later round would send them, so the migration
 * must fail.  The guest then runs again at the source.
 */
static void test_busy_stopped(void)
{
    Pair p = pair_start(LIVE ",busy-stopped=on", "");

    fill_ram(p.src);
    set_downtime(p.src, 10000);
    migrate_starts(p.src);
    fails_with(p.src, "private pages: busy");
    runs_again(p.src);
    pair_end(p);
}

/*
 * If a private page was never accessed, the source sends it without contents.
 * The guest may write to such a page at a time when the dirty log does not
 * record the write.  The source must notice that the page has contents now, and
 * requeue it.
 */
static void test_unallocated(void)
{
    Pair p = pair_start(LIVE ",lazy=on,begin-touched=64,conversions=500,"
                        "page-us=300,touch-every=3", "");
    QDict *info;

    completes_live(p);
    info = query(p.src);
    g_assert_cmpuint(counter(info, "unallocated-pages"), >, 1000);
    g_assert_cmpuint(counter(info, "again-pages"), >, 0);
    qobject_unref(info);
    pair_end(p);
}

/*
 * A destination refuses a page.  The guest runs on at the source and then
 * migrates to another destination.
 */
static void test_not_authentic(void)
{
    Pair p = pair_start(",conversions=500", ",bad-page=3000");
    QDict *info;

    fill_ram(p.src);
    refused_by_destination(p, "not authentic");
    is_running(p.src);
    info = query(p.src);
    check_rounds(info);
    g_assert_cmpuint(counter(info, "private-pages"), >, 0);
    qobject_unref(info);
    session_event(p.src, false, "opened");
    session_event(p.src, false, "cancelled");
    session_event(p.dst, true, "opened");
    g_assert_cmpuint(session_event(p.dst, true, "cancelled"), <, 3000);
    qtest_quit(p.dst);

    p.dst = start("", "-S -incoming defer");
    set_capability(p.dst, "events");
    listen_at(p.dst);
    migrate_starts(p.src);
    completes(p);
    pair_end(p);
}

static void test_cancel(void)
{
    Pair p = pair_start(",page-us=300", ",page-us=300");
    uint64_t sent;
    QDict *info;

    fill_ram(p.src);
    migrate_starts(p.src);
    wait_private(p.src, 1000);
    qtest_qmp_assert_success(p.src, "{ 'execute': 'migrate_cancel' }");
    info = wait_end(p.src, "cancelled");
    is_running(p.src);
    g_assert_cmpuint(session_event(p.src, false, "opened"), ==, 0);
    sent = session_event(p.src, false, "cancelled");
    g_assert_cmpuint(sent, >, 1000);
    /* The source keeps the statistics of the failed migration */
    qobject_unref(info);
    info = query(p.src);
    check_rounds(info);
    g_assert_cmpuint(counter(info, "private-pages"), ==, sent);
    qobject_unref(info);
    pair_end(p);
}

static int64_t testdev_get(QTestState *qts, const char *property)
{
    QDict *r = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': {"
                         "'path': '/machine/peripheral/testdev',"
                         "'property': %s } }", property);
    int64_t value = qdict_get_int(r, "return");

    qobject_unref(r);
    return value;
}

/*
 * The platform takes 1.3 s to pack a run of 64 pages.  A conversion must not
 * wait until the run is packed.  The test device measures only the duration of
 * the conversion itself, which is a few microseconds.  The limit of 100 ms is
 * far longer, so that the test also passes on a busy host.
 */
static void test_no_wait(void)
{
    Pair p = pair_start(",id=testdev,conversions=50,page-us=20000", "");
    int64_t before, longest;

    fill_ram(p.src);
    migrate_starts(p.src);
    wait_private(p.src, 1);
    before = testdev_get(p.src, "converted");
    while (testdev_get(p.src, "converted") < before + 50) {
        g_usleep(10000);
    }
    qtest_qmp_assert_success(p.src, "{ 'execute': 'migrate_cancel' }");
    qobject_unref(wait_end(p.src, "cancelled"));
    longest = testdev_get(p.src, "longest-us");
    g_test_message("the longest conversion took %" PRId64 " us", longest);
    g_assert_cmpint(longest, <, 100 * 1000);
    pair_end(p);
}

/*
 * Query @qts until the source's migration has @status.  Returns the longest
 * time that @qts took to answer, in us.
 */
static int64_t longest_answer(QTestState *qts, QTestState *src,
                              const char *status)
{
    int64_t longest = 0;
    bool done = false;

    while (!done) {
        int64_t start = g_get_monotonic_time();
        QDict *info;

        qobject_unref(qtest_qmp_assert_success_ref(
                          qts, "{ 'execute': 'query-status' }"));
        longest = MAX(longest, g_get_monotonic_time() - start);
        info = query(src);
        done = !g_strcmp0(qdict_get_try_str(info, "status"), status);
        g_assert_cmpstr(qdict_get_try_str(info, "status") ?: "none", !=,
                        "failed");
        qobject_unref(info);
        g_usleep(5000);
    }
    g_test_message("the longest answer took %" PRId64 " us", longest);
    return longest;
}

/* Time to unpack a record of 64 pages, which take 10 ms each */
#define SLOW_PAGE ",page-us=10000"
#define SLOW_RECORD_US (64 * 10000)

/*
 * The destination's platform takes 0.6 s to unpack a record, and 5 s to unpack
 * all records.  The destination's main loop must not wait for the platform: it
 * must answer each query in less than half of the time of one record.
 */
static void test_slow_load(const void *multifd)
{
    const char *src = ",shared-mib=62";
    Pair p = multifd ? pair_start_multifd(src, SLOW_PAGE, "none") :
                       pair_start(src, SLOW_PAGE);

    if (multifd) {
        listen_at(p.dst);
    }
    fill_ram(p.src);
    migrate_starts(p.src);
    g_assert_cmpint(longest_answer(p.dst, p.src, "completed"), <,
                    SLOW_RECORD_US / 2);
    completes(p);
    pair_end(p);
}

/*
 * The source cancels the migration while all channels of the destination have
 * records, which the platform unpacks one after the other.  The destination's
 * main loop must not wait for them.
 */
static void test_slow_load_cancelled(void)
{
    Pair p = pair_start_multifd("", SLOW_PAGE, "none");
    int64_t longest = 0, end = 0;

    listen_at(p.dst);
    fill_ram(p.src);
    migrate_starts(p.src);
    wait_private(p.src, 3 * 64);
    qtest_qmp_assert_success(p.src, "{ 'execute': 'migrate_cancel' }");
    /* Continue to query while channels may still unpack their last record */
    while (!end || g_get_monotonic_time() < end) {
        int64_t start = g_get_monotonic_time();
        QDict *info = query(p.dst);

        longest = MAX(longest, g_get_monotonic_time() - start);
        if (!end && !g_strcmp0(qdict_get_try_str(info, "status"), "failed")) {
            end = g_get_monotonic_time() + 2 * SLOW_RECORD_US;
        }
        qobject_unref(info);
        g_usleep(5000);
    }
    g_test_message("the longest answer took %" PRId64 " us", longest);
    g_assert_cmpint(longest, <, SLOW_RECORD_US / 2);
    qobject_unref(wait_end(p.src, "cancelled"));
    pair_end(p);
}

/* Return how often @text has @what */
static unsigned occurrences(const char *text, const char *what)
{
    unsigned n = 0;

    while ((text = strstr(text, what))) {
        text += strlen(what);
        n++;
    }
    return n;
}

/* Return how often the file @log has @what */
static unsigned log_count(const char *log, const char *what)
{
    g_autofree char *text = NULL;

    g_assert(g_file_get_contents(log, &text, NULL, NULL));
    return occurrences(text, what);
}

/* Return the number of rounds of the migration that has begun at @src */
static int rounds(QTestState *src)
{
    QDict *info = query(src), *ram = qdict_get_qdict(info, "ram");
    int n = ram ? qdict_get_int(ram, "dirty-sync-count") : 0;

    qobject_unref(info);
    return n;
}

/*
 * The source's platform takes 15 s to pack the private pages of one huge page.
 * In the second round, the main thread syncs the dirty bitmap for
 * auto-converge.  The main thread must wait for the platform neither in this
 * sync nor in migrate_cancel.  The migration thread must look at the clock
 * after each record, and not only at the end of the huge page.
 */
static void slow_save(const char *dev, const char *args)
{
    g_autofree char *log = g_build_filename(tmp, "trace", NULL);
    g_autofree char *opts = g_strdup_printf(",page-us=20000,shared-mib=%d,"
                                            "rewrite=on%s", RAM_MIB - 3, dev);
    g_autofree char *src_args = g_strdup_printf("%s -D %s "
        "-trace migrate_pending_estimate -trace cpu_throttle_dirty_sync", args,
        log);
    const int64_t record_us = 64 * 20000;
    Pair p = { start(opts, src_args), start("", "-S -incoming defer") };
    int64_t start_us, longest = 0;
    unsigned iterations, synced;

    set_capability(p.src, "return-path");
    set_capability(p.src, "auto-converge");
    set_capability(p.src, "events");
    listen_at(p.dst);
    fill_ram(p.src);
    migrate_starts(p.src);
    while (rounds(p.src) < 2) {
        g_usleep(50000);
    }
    iterations = log_count(log, "migrate_pending_estimate");
    start_us = g_get_monotonic_time();
    do {
        int64_t asked = g_get_monotonic_time();

        g_assert_cmpint(asked, <, start_us + TIMEOUT_S * G_USEC_PER_SEC);
        /*
         * The main thread logs the sync when it begins, so is_running() may
         * have to wait until the sync ends
         */
        synced = log_count(log, "cpu_throttle_dirty_sync");
        is_running(p.src);
        longest = MAX(longest, g_get_monotonic_time() - asked);
        g_usleep(5000);
    } while (!synced);
    g_test_message("the longest answer took %" PRId64 " us", longest);
    g_assert_cmpint(longest, <, record_us / 2);
    /*
     * The timer of auto-converge expires every 5 s, and the main thread syncs
     * when the timer expires for the second time in the round.  In this time
     * the source has packed more than three records, and the migration thread
     * must have begun at least three iterations.
     */
    iterations = log_count(log, "migrate_pending_estimate") - iterations;
    g_assert_cmpint(g_get_monotonic_time() - start_us, >, 3 * record_us);
    g_assert_cmpuint(iterations, >=, 3);
    start_us = g_get_monotonic_time();
    qtest_qmp_assert_success(p.src, "{ 'execute': 'migrate_cancel' }");
    g_assert_cmpint(longest_answer(p.src, p.src, "cancelled"), <,
                    record_us / 2);
    /* The source finishes only the record that it was packing, then cancels */
    g_assert_cmpint(g_get_monotonic_time() - start_us, <, 2 * record_us);
    pair_end(p);
    g_unlink(log);
}

static void test_slow_save(void)
{
    slow_save(",host-page-size=64M", "");
}

/* slow_save() with the guest's memory in a hugetlb file */
static void test_slow_save_hugetlb(void)
{
    g_autofree char *meminfo = NULL, *args = NULL;
    const char *nr;

    g_assert(g_file_get_contents("/proc/meminfo", &meminfo, NULL, NULL));
    nr = strstr(meminfo, "HugePages_Free:");
    if (!nr || !strstr(meminfo, "Hugepagesize:       2048 kB") ||
        atoi(nr + strlen("HugePages_Free:")) < RAM_MIB / 2) {
        g_test_skip("not enough free huge pages of 2 MiB");
        return;
    }
    args = g_strdup_printf("-object memory-backend-memfd,id=mem,hugetlb=on,"
                           "size=%dM -machine memory-backend=mem", RAM_MIB);
    slow_save("", args);
}

/*
 * Check that blocked-reasons has one reason only: the guest has not agreed to
 * be migrated
 */
static void blocked_by_guest(QTestState *qts)
{
    QDict *info = query(qts);
    QList *reasons = qdict_get_qlist(info, "blocked-reasons");
    QString *reason;

    g_assert_nonnull(reasons);
    g_assert_cmpuint(qlist_size(reasons), ==, 1);
    reason = qobject_to(QString, qlist_peek(reasons));
    g_assert_cmpstr(qstring_get_str(reason), ==, "the guest is unwilling");
    qobject_unref(info);
}

/* If the guest has not agreed to be migrated, blocked-reasons reports this */
static void test_unwilling(void)
{
    g_autofree char *why = NULL;
    QTestState *qts = start(",unwilling=on", "");
    QDict *info;
    Pair p;

    blocked_by_guest(qts);
    set_capability(qts, "return-path");
    why = migrate_refused(qts);
    g_assert_nonnull(strstr(why, "unwilling"));
    /* The refused command neither removes the reason nor adds it once more */
    blocked_by_guest(qts);
    qtest_quit(qts);

    qts = start("", "");
    info = query(qts);
    g_assert_false(qdict_haskey(info, "blocked-reasons"));
    qobject_unref(info);
    qtest_quit(qts);

    /*
     * A destination does not know yet whether its guest is willing, so it
     * reports no reason
     */
    qts = start(",unwilling=on", "-S -incoming defer");
    info = query(qts);
    g_assert_false(qdict_haskey(info, "blocked-reasons"));
    qobject_unref(info);
    qtest_quit(qts);

    /* When the guest has arrived, the destination reports the reason */
    p = pair_start("", ",unwilling=on");
    fill_ram(p.src);
    migrate_starts(p.src);
    completes(p);
    blocked_by_guest(p.dst);
    info = query(p.src);
    g_assert_false(qdict_haskey(info, "blocked-reasons"));
    qobject_unref(info);
    pair_end(p);
}

/* The migrate command fails with a reason before QEMU connects to anything */
static void test_refused(void)
{
    static const char *const capabilities[] = {
        "xbzrle", "postcopy-ram", "dirty-bitmaps", "x-ignore-shared",
#ifdef CONFIG_REPLICATION
        "x-colo",
#endif
    };
    g_autofree char *no_return_path = NULL, *mode = NULL;
    QTestState *qts = start("", "");

    no_return_path = migrate_refused(qts);
    g_assert(strstr(no_return_path, "return-path"));
    /*
     * Users of virsh do not set capabilities, so the error also names the
     * command of virsh that migrates with a return path
     */
    g_assert(strstr(no_return_path, "virsh migrate --live"));
    qtest_quit(qts);
    for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++) {
        g_autofree char *why = NULL;

        qts = start("", "");
        set_capability(qts, "return-path");
        set_capability(qts, capabilities[i]);
        why = migrate_refused(qts);
        g_assert(strstr(why, capabilities[i]));
        qtest_quit(qts);
    }
    qts = start("", "");
    set_capability(qts, "return-path");
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-parameters',"
                             " 'arguments': { 'mode': 'cpr-reboot' } }");
    mode = migrate_refused(qts);
    g_assert(strstr(mode, "cpr-reboot"));
    qtest_quit(qts);
}

static char *run_state(QTestState *qts)
{
    QDict *st = qtest_qmp_assert_success_ref(qts,
                                             "{ 'execute': 'query-status' }");
    char *status = g_strdup(qdict_get_str(st, "status"));

    qobject_unref(st);
    return status;
}

static void assert_run_state(QTestState *qts, const char *want)
{
    g_autofree char *status = run_state(qts);

    g_assert_cmpstr(status, ==, want);
}

static void wait_run_state(QTestState *qts, const char *want)
{
    int64_t end = g_get_monotonic_time() + TIMEOUT_S * G_USEC_PER_SEC;

    for (;;) {
        g_autofree char *status = run_state(qts);

        if (!strcmp(status, want)) {
            return;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

static void cont(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
}

/* Wait until job "job" has ended, and return its error, or NULL */
static char *job_ends(QTestState *qts)
{
    int64_t end = g_get_monotonic_time() + TIMEOUT_S * G_USEC_PER_SEC;
    bool ended = false;
    char *error = NULL;

    while (!ended) {
        QDict *rsp = qtest_qmp(qts, "{ 'execute': 'query-jobs' }");
        QList *jobs = qdict_get_qlist(rsp, "return");
        QDict *job = qobject_to(QDict, qlist_peek(jobs));

        ended = !strcmp(qdict_get_str(job, "status"), "concluded");
        if (ended) {
            error = g_strdup(qdict_get_try_str(job, "error"));
        }
        qobject_unref(rsp);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    qtest_qmp_assert_success(qts, "{ 'execute': 'job-dismiss',"
                             "'arguments': { 'id': 'job' } }");
    return error;
}

/* Add the node "disk", on which a snapshot could be saved */
static void add_disk(QTestState *qts)
{
    g_autofree char *file = g_build_filename(tmp, "disk", NULL);

    qtest_qmp_assert_success(qts, "{ 'execute': 'blockdev-create',"
                             "'arguments': { 'job-id': 'job', 'options': {"
                             "'driver': 'file', 'filename': %s,"
                             "'size': 0 } } }", file);
    g_assert_null(job_ends(qts));
    qtest_qmp_assert_success(qts, "{ 'execute': 'blockdev-add',"
                             "'arguments': { 'driver': 'file',"
                             "'node-name': 'file', 'filename': %s } }", file);
    qtest_qmp_assert_success(qts, "{ 'execute': 'blockdev-create',"
                             "'arguments': { 'job-id': 'job', 'options': {"
                             "'driver': 'qcow2', 'file': 'file',"
                             "'size': 1048576 } } }");
    g_assert_null(job_ends(qts));
    qtest_qmp_assert_success(qts, "{ 'execute': 'blockdev-add',"
                             "'arguments': { 'driver': 'qcow2',"
                             "'node-name': 'disk', 'file': 'file' } }");
    g_unlink(file);
}

/*
 * QEMU has refused to load a snapshot.  Before QEMU tries to load a snapshot,
 * it stops any running or suspended guest, confidential or not.  The guest
 * stays stopped if QEMU cannot load the snapshot.  Check that cont brings the
 * guest back to state @before.
 */
static void load_refused(QTestState *qts, const char *before)
{
    if (!strcmp(before, "running") || !strcmp(before, "suspended")) {
        assert_run_state(qts, "restore-vm");
        cont(qts);
    }
    assert_run_state(qts, before);
}

/* QEMU refuses the HMP command @line, because the guest is confidential */
static void hmp_refused(QTestState *qts, const char *line)
{
    g_autofree char *hmp = qtest_hmp(qts, "%s", line);

    g_assert_nonnull(strstr(hmp, "confidential"));
}

/* The job of @command fails, because the guest is confidential */
static void snapshot_job_refused(QTestState *qts, const char *command)
{
    g_autofree char *job = NULL;

    qtest_qmp_assert_success(qts, "{ 'execute': %s,"
                             "'arguments': { 'job-id': 'job', 'tag': 'a',"
                             "'vmstate': 'disk', 'devices': [ 'disk' ] } }",
                             command);
    job = job_ends(qts);
    g_assert_nonnull(job);
    g_assert_nonnull(strstr(job, "confidential"));
}

/* Snapshots cannot be saved or loaded, and the guest does not change */
static void snapshots_refused(QTestState *qts)
{
    g_autofree char *before = run_state(qts);

    hmp_refused(qts, "savevm a");
    snapshot_job_refused(qts, "snapshot-save");
    assert_run_state(qts, before);
    hmp_refused(qts, "loadvm a");
    load_refused(qts, before);
    snapshot_job_refused(qts, "snapshot-load");
    load_refused(qts, before);
}

/* The guest asks PIIX4 for ACPI's state S3 */
static void suspend(QTestState *qts)
{
    const uint32_t pm = 0x80000000 | 1 << 11 | 3 << 8, base = 0xb000;

    qtest_outl(qts, 0xcf8, pm | 0x40);      /* PMBASE */
    qtest_outl(qts, 0xcfc, base | 1);
    qtest_outl(qts, 0xcf8, pm | 0x80);      /* PMREGMISC: enable it */
    qtest_outb(qts, 0xcfc, 1);
    qtest_outw(qts, base + 4, 1 << 13 | 1 << 10);   /* SLP_EN, S3 */
    wait_run_state(qts, "suspended");
}

/* Try snapshots in run state @state: they must not change anything */
static void test_snapshot(const void *state)
{
    static const char *const capabilities[] = { "multifd", "mapped-ram" };
    bool prelaunch = !strcmp(state, "prelaunch");
    Pair p = {
        start("", prelaunch ? "-S" : ""),
        start("", "-S -incoming defer"),
    };

    set_capability(p.src, "return-path");
    set_capability(p.src, "events");
    set_capability(p.dst, "events");
    add_disk(p.src);
    fill_ram(p.src);
    if (!strcmp(state, "paused")) {
        qtest_qmp_assert_success(p.src, "{ 'execute': 'stop' }");
    } else if (!strcmp(state, "suspended")) {
        suspend(p.src);
    }
    if (strcmp(state, "postmigrate")) {
        assert_run_state(p.src, state);
        snapshots_refused(p.src);
        for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++) {
            set_capability_to(p.src, capabilities[i], true);
            snapshots_refused(p.src);
            set_capability_to(p.src, capabilities[i], false);
        }
    }
    /* The migration fails, because no process listens on the address yet */
    qobject_unref(migrate(p.src));
    qobject_unref(wait_end(p.src, "failed"));
    if (strcmp(state, "postmigrate")) {
        snapshots_refused(p.src);
        snapshots_refused(p.src);
    }
    listen_at(p.dst);
    migrate_starts(p.src);
    completes(p);
    assert_run_state(p.src, "postmigrate");
    snapshots_refused(p.src);
    cont(p.src);
    snapshots_refused(p.src);
    pair_end(p);
}

/*
 * Check that the test device has logged exactly the session operations @want to
 * @file, and remove @file
 */
static void ops_were(const char *file, const char *want)
{
    g_autofree char *text = NULL;

    g_assert(g_file_get_contents(file, &text, NULL, NULL));
    g_assert_cmpstr(g_strdelimit(text, "\n", ' '), ==, want);
    g_unlink(file);
}

static void another_destination(Pair *p, const char *opts)
{
    qtest_quit(p->dst);
    p->dst = start(opts, "-S -incoming defer");
    set_capability(p->dst, "events");
    listen_at(p->dst);
}

static void wait_both(Pair p)
{
    qobject_unref(wait_end(p.src, "completed"));
    qobject_unref(wait_end(p.dst, "completed"));
}

/*
 * The paused destination dies after the migration has completed.  "cont" takes
 * the guest back to the source, and it can be migrated again.
 */
static void test_taken_back(const void *confidential)
{
    g_autofree char *log = g_build_filename(tmp, "ops", NULL);
    g_autofree char *opts = g_strdup_printf(",id=testdev,conversions=500,"
                                            "ops-log=%s", log);
    const char *dst = confidential ? "" : NULL;
    Pair p = pair_start(confidential ? opts : NULL, dst);
    int64_t before;

    fill_ram(p.src);
    migrate_starts(p.src);
    wait_both(p);
    same_ram(p);
    assert_run_state(p.src, "postmigrate");
    another_destination(&p, dst);
    if (confidential) {
        session_event(p.src, false, "opened");
        session_event(p.src, false, "finished");
    }
    cont(p.src);
    is_running(p.src);
    if (confidential) {
        session_event(p.src, false, "cancelled");
        ops_were(log, "start completed cancel ");
        before = testdev_get(p.src, "converted");
        while (testdev_get(p.src, "converted") < before + 5) {
            g_usleep(1000);
        }
    }
    migrate_starts(p.src);
    wait_both(p);
    same_ram(p);
    /* This time the destination continues the guest, and the source ends */
    qtest_quit(p.src);
    if (confidential) {
        ops_were(log, "start completed finish ");
    }
    cont(p.dst);
    is_running(p.dst);
    qtest_quit(p.dst);
}

/* After a migration, the guest is reset at the source and migrates again */
static void test_reset_and_leave(const void *confidential)
{
    g_autofree char *log = g_build_filename(tmp, "ops", NULL);
    g_autofree char *opts = g_strdup_printf(",ops-log=%s", log);
    const char *dst = confidential ? "" : NULL;
    Pair p = pair_start(confidential ? opts : NULL, dst);
    QDict *rsp;

    fill_ram(p.src);
    migrate_starts(p.src);
    wait_both(p);
    rsp = migrate(p.src);
    g_assert(qdict_haskey(rsp, "error"));
    qobject_unref(rsp);
    if (confidential) {
        ops_were(log, "start completed ");
    }
    another_destination(&p, dst);
    qtest_qmp_assert_success(p.src, "{ 'execute': 'system_reset' }");
    wait_run_state(p.src, "prelaunch");
    migrate_starts(p.src);
    wait_both(p);
    same_ram(p);
    pair_end(p);
    if (confidential) {
        ops_were(log, "cancel start completed finish ");
    }
}

/* A paused guest arrives paused, with and without -S at the destination */
static void test_paused(const void *confidential)
{
    const char *opts = confidential ? "" : NULL;
    Pair p = pair_start(opts, opts);

    another_destination(&p, opts);
    qtest_quit(p.dst);
    p.dst = start(opts, "-incoming defer");
    listen_at(p.dst);
    qtest_qmp_assert_success(p.src, "{ 'execute': 'stop' }");
    migrate_starts(p.src);
    wait_both(p);
    assert_run_state(p.dst, "paused");
    cont(p.dst);
    is_running(p.dst);
    pair_end(p);
}

/* A disk that another process locks so that QEMU cannot activate it */
typedef struct Disk {
    char *file;
    int fd;
} Disk;

static Disk disk_create(const char *name)
{
    Disk d = { g_build_filename(tmp, name, NULL) };

    /* A QEMU that inherited the descriptor would hold the lock, too */
    d.fd = open(d.file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_cmpint(d.fd, >=, 0);
    g_assert_cmpint(ftruncate(d.fd, MiB), ==, 0);
    return d;
}

static void disk_lock(Disk *d)
{
    /*
     * A process that locks byte 201 of the image forbids QEMU to write to the
     * image: QEMU has one such byte for each permission, 200 plus the number
     * of the permission's bit, which is 1 for BLK_PERM_WRITE
     */
    struct flock lock = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1,
    };

    g_assert_cmpint(fcntl(d->fd, F_OFD_SETLK, &lock), ==, 0);
}

static void disk_unlock(Disk *d)
{
    close(d->fd);
    d->fd = -1;
}

static void disk_end(Disk *d)
{
    if (d->fd >= 0) {
        close(d->fd);
    }
    g_unlink(d->file);
    g_free(d->file);
}

/* Start both sides with the disks @src and @dst.  The destination has no -S. */
static Pair disk_pair(const void *confidential, const Disk *src,
                      const Disk *dst)
{
    static const char drive[] = "-drive if=none,id=d,format=raw,"
        "file.locking=on,file=%s -device virtio-blk-pci,drive=d %s";
    g_autofree char *src_args = g_strdup_printf(drive, src->file, "");
    g_autofree char *dst_args = g_strdup_printf(drive, dst->file,
                                                "-incoming defer");
    const char *opts = confidential ? "" : NULL;
    Pair p = { start(opts, src_args), start(opts, dst_args) };

    listen_at(p.dst);
    return p;
}

/* Check that "cont" fails and leaves @qts in the run state @state */
static void cont_fails(QTestState *qts, const char *state)
{
    QDict *rsp = qtest_qmp(qts, "{ 'execute': 'cont' }");

    g_assert(qdict_haskey(rsp, "error"));
    qobject_unref(rsp);
    assert_run_state(qts, state);
}

/*
 * Migrate a guest while another process has locked the destination's disk @dst.
 * Check that the migration fails on both sides with the right error.
 */
static Pair fail_with_locked_disk(const void *confidential, const Disk *src,
                                  Disk *dst)
{
    static const char error[] =
        "Disks cannot be activated: Failed to get \"write\" lock";
    g_autofree char *travelled = g_strconcat("destination: ", error, NULL);
    Pair p = disk_pair(confidential, src, dst);

    set_capability(p.src, "return-path");
    disk_lock(dst);
    migrate_starts(p.src);
    /* Only the source of a confidential guest receives the error */
    fails_with(p.src, confidential ? travelled : "Sibling indicated error");
    fails_with(p.dst, error);
    return p;
}

/*
 * Another process has locked the disk when the destination has loaded the
 * guest.  The migration fails.  The source can activate its own disk if it has
 * a different one, and runs the guest at once.
 */
static void test_disk_locked(const void *confidential)
{
    Disk d = disk_create("disk"), other = disk_create("other");
    Pair p = fail_with_locked_disk(confidential, &other, &d);

    wait_run_state(p.src, "running");
    is_running(p.src);
    /* The source has the guest, so the destination must never run it */
    assert_run_state(p.dst, "inmigrate");
    disk_unlock(&d);
    cont(p.dst);
    assert_run_state(p.dst, "inmigrate");
    pair_end(p);
    disk_end(&d);
    disk_end(&other);
}

/*
 * Another process has locked the disk of both sides, so neither side can run
 * the guest.  The source keeps the guest until the lock is released.
 */
static void test_disk_locked_for_both(const void *confidential)
{
    Disk d = disk_create("disk");
    Pair p = fail_with_locked_disk(confidential, &d, &d);

    qtest_quit(p.dst);
    wait_run_state(p.src, "paused");
    cont_fails(p.src, "paused");
    disk_unlock(&d);
    cont(p.src);
    is_running(p.src);
    qtest_quit(p.src);
    disk_end(&d);
}

/*
 * Without a return path, the source has no answer to wait for, and completes.
 * The destination keeps the guest paused.
 */
static void test_disk_locked_without_answer(void)
{
    Disk d = disk_create("disk");
    Pair p = disk_pair(NULL, &d, &d);

    disk_lock(&d);
    migrate_starts(p.src);
    wait_both(p);
    assert_run_state(p.dst, "paused");
    cont_fails(p.dst, "paused");
    cont_fails(p.src, "postmigrate");
    disk_unlock(&d);
    cont(p.dst);
    is_running(p.dst);
    pair_end(p);
    disk_end(&d);
}

/*
 * QEMU refuses to change the migration mode during a migration.  The session
 * has a notifier for each mode, and every notifier can end the session.  Check
 * that the session ends exactly once.
 */
static void test_mode_changes(void)
{
    g_autofree char *log = g_build_filename(tmp, "ops", NULL);
    g_autofree char *opts = g_strdup_printf(",page-us=20,ops-log=%s", log);
    Pair p = pair_start(opts, "");
    QDict *rsp, *err;

    fill_ram(p.src);
    migrate_starts(p.src);
    wait_private(p.src, 64);
    rsp = qtest_qmp(p.src, "{ 'execute': 'migrate-set-parameters',"
                    "'arguments': { 'mode': 'cpr-reboot' } }");
    err = qdict_get_qdict(rsp, "error");
    g_assert(err);
    g_assert_nonnull(strstr(qdict_get_str(err, "desc"), "mode"));
    qobject_unref(rsp);
    /* Setting the mode that is set already is allowed */
    qtest_qmp_assert_success(p.src, "{ 'execute': 'migrate-set-parameters',"
                             "'arguments': { 'mode': 'normal',"
                             "'downtime-limit': 2000 } }");
    completes(p);
    ops_were(log, "start completed ");
    cont(p.src);
    ops_were(log, "cancel ");
    pair_end(p);
}

#define BALLOON "-object iothread,id=io -device virtio-balloon-pci,addr=4," \
                "free-page-hint=on,iothread=io"
#define HINT_QUEUE 3
#define HINT_AT offsetof(struct virtio_balloon_config, free_page_hint_cmd_id)

typedef struct Balloon {
    QTestState *qts;
    QGuestAllocator alloc;
    QPCIBus *bus;
    QVirtioPCIDevice *pci;
    QVirtioDevice *dev;
    QVirtQueue *vq;
} Balloon;

static void balloon_open(Balloon *b, QTestState *qts)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(4, 0) };
    uint64_t features;

    b->qts = qts;
    pc_alloc_init(&b->alloc, qts, ALLOC_NO_FLAGS);
    b->bus = qpci_new_pc(qts, &b->alloc);
    b->pci = virtio_pci_new(b->bus, &addr);
    g_assert_nonnull(b->pci);
    b->dev = &b->pci->vdev;
    qvirtio_pci_device_enable(b->pci);
    qvirtio_start_device(b->dev);
    features = qvirtio_get_features(b->dev);
    g_assert(features & (1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT));
    qvirtio_set_features(b->dev, features & ~((1ull << VIRTIO_RING_F_EVENT_IDX)
                                    | (1ull << VIRTIO_RING_F_INDIRECT_DESC)));
    b->vq = qvirtqueue_setup(b->dev, &b->alloc, HINT_QUEUE);
    qvirtio_set_driver_ok(b->dev);
}

static void balloon_close(Balloon *b)
{
    qvirtqueue_cleanup(b->dev->bus, b->vq, &b->alloc);
    qvirtio_pci_device_disable(b->pci);
    qos_object_destroy((QOSGraphObject *)b->pci);
    qpci_free_pc(b->bus);
    alloc_destroy(&b->alloc);
}

static void balloon_put(Balloon *b, uint64_t at, uint32_t len, bool is_hint)
{
    uint32_t head = qvirtqueue_add(b->qts, b->vq, at, len, is_hint, false);

    qvirtqueue_kick(b->qts, b->dev, b->vq, head);
    while (!qvirtqueue_get_buf(b->qts, b->vq, NULL, NULL)) {
        g_usleep(1000);
    }
}

/*
 * The guest reports half of its pages as free.  They are sent nevertheless,
 * because the destination expects every private page.
 */
static void test_hints(void)
{
    Pair p = {
        start(",page-us=150", BALLOON),
        start("", "-S -incoming defer " BALLOON),
    };
    Balloon b;
    uint64_t id_at;
    uint32_t id;
    QDict *info;

    set_capability(p.src, "return-path");
    set_capability(p.src, "events");
    set_capability(p.dst, "events");
    listen_at(p.dst);
    fill_ram(p.src);
    balloon_open(&b, p.src);
    id_at = guest_alloc(&b.alloc, sizeof(id));
    migrate_starts(p.src);
    do {
        id = qvirtio_config_readl(b.dev, HINT_AT);
    } while (id == VIRTIO_BALLOON_CMD_ID_STOP);
    qtest_writel(p.src, id_at, id);
    balloon_put(&b, id_at, sizeof(id), false);
    for (uint64_t at = RAM_MIB / 2 * MiB; at < RAM_MIB * MiB; at += 4 * MiB) {
        balloon_put(&b, at, 4 * MiB, true);
    }
    /*
     * After QEMU has synced the dirty bitmap again, it ignores the remaining
     * hints.  Check that QEMU has synced only once, before the first hint, and
     * has therefore ignored no hint.
     */
    info = query(p.src);
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(info, "ram"),
                                  "dirty-sync-count"), ==, 1);
    qobject_unref(info);
    qtest_writel(p.src, id_at, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_put(&b, id_at, sizeof(id), false);
    completes(p);
    info = query(p.src);
    g_assert_cmpuint(counter(info, "private-pages"), >=, RAM_MIB * MiB / 4096);
    qobject_unref(info);
    balloon_close(&b);
    pair_end(p);
}

/*
 * A machine without confidential guest support cannot receive a confidential
 * guest, and a machine with this support cannot receive an ordinary guest
 */
static void test_mismatch(void)
{
    Pair p = pair_start("", NULL);

    refused_by_destination(p, "no confidential guest support");
    is_running(p.src);
    pair_end(p);

    p = pair_start(NULL, "");
    refused_without_reason(p, "not confidential");
    is_running(p.src);
    pair_end(p);
}

/*
 * Start a source, and a destination with the arguments @dst.  If @capability is
 * not NULL, set this capability at the destination only.
 */
static Pair pair_start_differing(const char *dst, const char *capability)
{
    Pair p = { start("", ""), start("", dst) };

    set_capability(p.src, "return-path");
    if (capability) {
        set_capability(p.dst, capability);
    }
    listen_at(p.dst);
    return p;
}

/* Destinations whose command line differs from the source's */
static void test_differing(void)
{
    static const struct {
        const char *args, *capability, *why;
    } dst[] = {
        { "-S -incoming defer -m 32", NULL,
          "16384 pages at the source, 8192 here" },
        { "-S -incoming defer -m 128", NULL,
          "16384 pages at the source, 32768 here" },
        { "-S -incoming defer", "xbzrle", "capability xbzrle" },
        { "-S -incoming defer", "postcopy-ram", "capability postcopy-ram" },
        { "-S -incoming defer", "dirty-bitmaps", "capability dirty-bitmaps" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(dst); i++) {
        Pair p = pair_start_differing(dst[i].args, dst[i].capability);

        refused_by_destination(p, dst[i].why);
        is_running(p.src);
        pair_end(p);
    }
}

/*
 * The destination fails in code of QEMU that writes its error only to the log,
 * so the source's error refers to this log
 */
static void test_differing_device(void)
{
    Pair p = { start("", "-device virtio-rng-pci"),
               start("", "-S -incoming defer") };

    set_capability(p.src, "return-path");
    listen_at(p.dst);
    migrate_starts(p.src);
    fails_with(p.dst, "load of migration failed");
    fails_with(p.src, "the destination's log says why");
    runs_again(p.src);
    pair_end(p);
}

/* The destination ends without sending a reason */
static void test_destination_exits(void)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/socket", tmp);
    g_autofree char *incoming = g_strdup_printf("-S -incoming %s", uri);
    QTestState *src = start("", ""), *dst = start(",bad-page=3000", incoming);

    set_capability(src, "return-path");
    fill_ram(src);
    migrate_starts(src);
    fails_with(src, "destination: block pc.ram, offset");
    qtest_set_expected_status(dst, EXIT_FAILURE);
    qtest_wait_qemu(dst);
    qtest_quit(dst);
    is_running(src);
    qtest_quit(src);
}

typedef struct FakeDestination {
    int listener;
    const char *answer;
    size_t len;
} FakeDestination;

/* A false destination that sends @answer, and then only reads */
static void *fake_destination(void *opaque)
{
    FakeDestination *f = opaque;
    int fd = accept(f->listener, NULL, NULL);
    char buf[4096];

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, f->answer, f->len), ==, f->len);
    while (read(fd, buf, sizeof(buf)) > 0) {
        /* read until the source closes the connection */
    }
    close(fd);
    return NULL;
}

/* Return the error of @src when its destination sends @answer */
static char *answered(QTestState *src, const char *answer, size_t len)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    FakeDestination f = { .answer = answer, .len = len };
    GThread *thread;
    char *desc;

    f.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(at.sun_path, sizeof(at.sun_path), "%s/socket", tmp);
    g_unlink(at.sun_path);
    g_assert_cmpint(bind(f.listener, (struct sockaddr *)&at, sizeof(at)),
                    ==, 0);
    g_assert_cmpint(listen(f.listener, 1), ==, 0);
    thread = g_thread_new("destination", fake_destination, &f);
    migrate_starts(src);
    desc = source_error(src);
    g_thread_join(thread);
    close(f.listener);
    g_unlink(at.sun_path);
    return desc;
}

/*
 * If a migration fails, the destination sends the reason as a text.  The
 * source replaces bytes of this text that could do harm on a terminal, and
 * refuses a text that is empty or too long.
 */
static void test_bad_reason(void)
{
    static const char text[] = "\x45\x52\0\x09\033[2Ja\n\xff\0b";
    g_autofree char *clean = NULL, *none = NULL, *large = NULL, *plain = NULL;
    char big[4 + 1025] = "\x45\x52\x04\x01";
    QTestState *src = start(",page-us=100", "");

    set_capability(src, "return-path");
    clean = answered(src, text, 4 + 9);
    g_assert_cmpstr(clean, ==, "destination: ?[2Ja?\xef\xbf\xbd"
                    "\xef\xbf\xbd" "b");
    runs_again(src);
    none = answered(src, "\x45\x52\0\0", 4);
    g_assert(strstr(none, "invalid message 0x4552 length 0x0000"));
    runs_again(src);
    large = answered(src, big, sizeof(big));
    g_assert(strstr(large, "invalid message 0x4552 length 0x0401"));
    runs_again(src);
    qtest_quit(src);

    /*
     * If the guest is not confidential, the source refuses the message in
     * which a destination sends the reason of a failure
     */
    src = start(NULL, "");
    set_capability(src, "return-path");
    set_bandwidth(src, 1 * MiB);
    plain = answered(src, text, 4 + 9);
    g_assert(strstr(plain, "invalid message 0x4552"));
    qtest_quit(src);
}

/*
 * The destination's vendor code answers the session record, and the source's
 * vendor code reads the answer
 */
static void test_answer(void)
{
    g_autofree char *log = g_build_filename(tmp, "ops", NULL);
    g_autofree char *opts = g_strdup_printf(",page-us=20,answer=yes,"
                                            "ops-log=%s", log);
    Pair p = pair_start(opts, ",answer=yes");

    migrate_starts(p.src);
    completes(p);
    ops_were(log, "start answer completed ");
    pair_end(p);
}

/*
 * On one side, QEMU is older and does not have answers to the session record.
 * An older source does not announce that it reads an answer, so the destination
 * must not send one.  An older destination sends no answer, so the source must
 * not wait for one.
 */
static void test_answer_one_side(void)
{
    static const struct {
        const char *src, *dst;
    } pairs[] = {
        { "no-answer=on", ",answer=yes" },
        { "answer=yes", ",no-answer=on" },
    };
    g_autofree char *log = g_build_filename(tmp, "ops", NULL);

    /* An earlier case may have left its log */
    g_unlink(log);
    for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++) {
        g_autofree char *opts = g_strdup_printf(",page-us=20,ops-log=%s,%s",
                                                log, pairs[i].src);
        Pair p = pair_start(opts, pairs[i].dst);

        fill_ram(p.src);
        migrate_starts(p.src);
        completes(p);
        ops_were(log, "start completed ");
        pair_end(p);
        /* QEMU finishes the source's session when it quits */
        ops_were(log, "finish ");
    }
}

/*
 * The source refuses an answer to the session record that is empty, too long,
 * or not expected
 */
static void test_bad_answer(void)
{
    static const char twice[] = "\x45\x41\0\3yes\x45\x41\0\3yes";
    g_autofree char *early = NULL, *none = NULL, *big = NULL, *plain = NULL;
    char large[4 + 257] = "\x45\x41\x01\x01";
    QTestState *src = start(",page-us=100", "");
    Pair p;

    set_capability(src, "return-path");
    none = answered(src, "\x45\x41\0\0", 4);
    g_assert(strstr(none, "invalid message 0x4541 length 0x0000"));
    runs_again(src);
    big = answered(src, large, sizeof(large));
    g_assert(strstr(big, "invalid message 0x4541 length 0x0101"));
    runs_again(src);
    early = answered(src, twice, sizeof(twice) - 1);
    g_assert(strstr(early, "invalid message 0x4541 length 0x0003"));
    runs_again(src);
    qtest_quit(src);

    /* The source's vendor code refuses an answer */
    p = pair_start(",page-us=100,answer=yes", ",answer=no");
    migrate_starts(p.src);
    plain = source_error(p.src);
    g_assert_cmpstr(plain, ==, "The destination's answer to the session: "
                    "2 bytes that are not 'yes'");
    runs_again(p.src);
    pair_end(p);

    /* If the guest is not confidential, the source refuses any answer */
    src = start(NULL, "");
    set_capability(src, "return-path");
    set_bandwidth(src, 1 * MiB);
    g_free(plain);
    plain = answered(src, twice, sizeof(twice) - 1);
    g_assert(strstr(plain, "invalid message 0x4541"));
    qtest_quit(src);
}

/* Check that both private and shared pages were sent through the channels */
static void went_through_channels(Pair p)
{
    QDict *info = query(p.src);

    g_assert_cmpuint(qdict_get_int(qdict_get_qdict(info, "ram"),
                                   "multifd-bytes"), >,
                     counter(info, "private-bytes"));
    g_assert_cmpuint(counter(info, "shared-pages"), >, 0);
    g_assert_cmpuint(counter(info, "converted-pages"), >, 0);
    qobject_unref(info);
}

static void test_multifd(const void *compression)
{
    Pair p;

#ifndef CONFIG_ZSTD
    if (!strcmp(compression, "zstd")) {
        g_test_skip("QEMU is built without zstd");
        return;
    }
#endif
    p = pair_start_multifd(LIVE ",conversions=2000,busy-every=7,page-us=50",
                           "", compression);
    listen_at(p.dst);
    completes_live(p);
    went_through_channels(p);
    pair_end(p);
}

/*
 * With auto-converge the main thread syncs the dirty bitmap every five seconds,
 * also within a round.  The rounds of this test are longer than that, so the
 * test takes half a minute and runs only with -m slow.
 */
static void test_multifd_mid_round(void)
{
    Pair p = pair_start_multifd(",conversions=2000,page-us=1400", "", "none");
    uint64_t sent = 0, last = 0;
    bool again = false;

    set_capability(p.src, "auto-converge");
    listen_at(p.dst);
    set_downtime(p.src, 1);
    migrate_starts(p.src);
    while (!again) {
        QDict *info = query(p.src), *ram = qdict_get_qdict(info, "ram");
        uint64_t rounds = ram ? qdict_get_int(ram, "dirty-sync-count") : 0;

        if (rounds > last) {
            /*
             * This sync cannot be the end of a round, because the source has
             * sent too few pages since the last sync
             */
            uint64_t now = counter(info, "private-pages");

            again = rounds > 2 && now - sent < 5000;
            last = rounds;
            sent = now;
        }
        qobject_unref(info);
        g_usleep(10 * 1000);
    }
    set_downtime(p.src, 60000);
    completes(p);
    pair_end(p);
}

/* With multifd, the source also sends unallocated pages through channels */
static void test_multifd_unallocated(void)
{
    Pair p = pair_start_multifd(LIVE ",lazy=on,begin-touched=64,"
                                "conversions=500,page-us=300,touch-every=3",
                                "", "none");
    QDict *info;

    listen_at(p.dst);
    completes_live(p);
    went_through_channels(p);
    info = query(p.src);
    g_assert_cmpuint(counter(info, "unallocated-pages"), >, 1000);
    qobject_unref(info);
    pair_end(p);
}

static bool add_tls(QTestState *qts, const char *endpoint)
{
    QDict *rsp = qtest_qmp(qts, "{ 'execute': 'object-add', 'arguments': {"
                           "'qom-type': 'tls-creds-psk', 'id': 'tls',"
                           "'endpoint': %s, 'dir': %s } }", endpoint, tmp);
    bool ok = qdict_haskey(rsp, "return");

    qobject_unref(rsp);
    if (ok) {
        qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-parameters',"
                                 "'arguments': { 'tls-creds': 'tls' } }");
    }
    return ok;
}

static void test_multifd_tls(void)
{
    static const char key[] = "qemu:8a41c07b2f53e6d9905b6e14c7fa2d38\n";
    g_autofree char *file = g_build_filename(tmp, "keys.psk", NULL);
    Pair p = pair_start_multifd(LIVE ",conversions=2000,page-us=50", "",
                                "none");

    g_assert(g_file_set_contents(file, key, strlen(key), NULL));
    if (add_tls(p.src, "client") && add_tls(p.dst, "server")) {
        listen_at(p.dst);
        completes_live(p);
        went_through_channels(p);
    } else {
        g_test_skip("QEMU is built without TLS");
    }
    g_unlink(file);
    pair_end(p);
}

static int connect_tcp(const char *port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET,
        .sin_port = htons(atoi(port)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    g_assert_cmpint(connect(fd, (struct sockaddr *)&at, sizeof(at)), ==, 0);
    return fd;
}

typedef enum Way {
    WAY_UNIX, WAY_TCP, WAY_TCP_TLS, WAY_FD_TCP, WAY_PLAIN_GUEST,
} Way;

/*
 * QEMU warns if a confidential guest migrates through TCP without TLS, and not
 * in other cases.  The log has the warning once for each migration.
 */
static void test_warning(const void *opaque)
{
    Way way = GPOINTER_TO_INT(opaque);
    bool warns = way == WAY_TCP || way == WAY_FD_TCP;
    const char *opts = way == WAY_PLAIN_GUEST ? NULL : "";
    g_autofree char *port = NULL, *text = NULL, *uri = NULL, *said = NULL;
    g_autofree char *file = g_build_filename(tmp, "keys.psk", NULL);
    g_autofree char *log = g_build_filename(tmp, "stderr", NULL);
    /* libqtest starts QEMU by a shell, which redirects the standard error */
    g_autofree char *args = g_strdup_printf("2>%s", log);
    Pair p = { start(opts, args), start(opts, "-S -incoming defer") };
    QDict *info, *ram;

    set_capability(p.src, "return-path");
    if (way == WAY_TCP_TLS) {
        static const char key[] = "qemu:8a41c07b2f53e6d9905b6e14c7fa2d38\n";

        g_assert(g_file_set_contents(file, key, strlen(key), NULL));
        if (!add_tls(p.src, "client") || !add_tls(p.dst, "server")) {
            g_test_skip("QEMU is built without TLS");
            goto out;
        }
    }
    if (way == WAY_UNIX) {
        listen_at(p.dst);
        uri = g_strdup_printf("unix:%s/socket", tmp);
    } else {
        port = listen_tcp(p.dst);
        uri = g_strdup_printf("tcp:127.0.0.1:%s", port);
    }
    if (way == WAY_FD_TCP) {
        int fd = connect_tcp(port);

        qtest_qmp_fds_assert_success(p.src, &fd, 1, "{ 'execute': 'getfd',"
                                     "'arguments': { 'fdname': 'tcp' } }");
        close(fd);
        g_free(uri);
        uri = g_strdup("fd:tcp");
    }
    qtest_qmp_assert_success(p.src, "{ 'execute': 'migrate', 'arguments': {"
                             "'uri': %s } }", uri);
    qobject_unref(wait_end(p.src, "completed"));
    info = query(p.src);
    ram = qdict_get_qdict(info, "encrypted-ram");
    g_assert_cmpint(!!ram, ==, way != WAY_PLAIN_GUEST);
    g_assert_cmpint(ram && qdict_haskey(ram, "warning"), ==, warns);
    if (warns) {
        g_assert(strstr(qdict_get_str(ram, "warning"), "TCP without TLS"));
    }
    text = qtest_hmp(p.src, "info migrate");
    g_assert_cmpint(!!strstr(text, "warning: the migration channel"), ==,
                    warns);
    qobject_unref(info);
    g_assert(g_file_get_contents(log, &said, NULL, NULL));
    g_strdelimit(said, "\n", ' ');
    g_test_message("QEMU's standard error: %s", said);
    g_assert_cmpuint(occurrences(said, "A confidential guest is migrated: "),
                     ==, warns);
out:
    g_unlink(file);
    g_unlink(log);
    pair_end(p);
}

/*
 * At the destination, the thread of a channel refuses the last page and ends.
 * It never handles the SYNC for which the main thread waits, so the main thread
 * must stop waiting.
 */
static void test_multifd_last_page(void)
{
    g_autofree char *dst = g_strdup_printf(",page-us=100,bad-page=%d",
                                           (int)(RAM_MIB * MiB / 4096));
    Pair p = pair_start_multifd("", dst, "none");

    listen_at(p.dst);
    fill_ram(p.src);
    refused_by_destination(p, "not authentic");
    runs_again(p.src);
    pair_end(p);
}

/* At the destination, the thread of a channel refuses a page */
static void test_multifd_not_authentic(void)
{
    Pair p = pair_start_multifd(",conversions=500", ",bad-page=3000", "none");

    listen_at(p.dst);
    fill_ram(p.src);
    refused_by_destination(p, "not authentic");
    runs_again(p.src);
    session_event(p.dst, true, "opened");
    g_assert_cmpuint(session_event(p.dst, true, "cancelled"), <, 3000);
    qtest_quit(p.dst);

    p.dst = start("", "-S -incoming defer");
    set_capability(p.dst, "events");
    use_channels(p.dst, "none");
    session_event(p.src, false, "opened");
    session_event(p.src, false, "cancelled");
    listen_at(p.dst);
    migrate_starts(p.src);
    completes(p);
    pair_end(p);
}

/*
 * With multifd, too, a machine without confidential guest support cannot
 * receive a confidential guest, and a machine with this support cannot receive
 * an ordinary guest
 */
static void test_multifd_mismatch(void)
{
    Pair p = pair_start_multifd(NULL, "", "none");

    listen_at(p.dst);
    fill_ram(p.src);
    refused_without_reason(p, "not confidential");
    runs_again(p.src);
    pair_end(p);

    p = pair_start_multifd("", NULL, "none");
    listen_at(p.dst);
    refused_by_destination(p, "no confidential guest support");
    runs_again(p.src);
    pair_end(p);
}

/* The two sides differ in the compression of multifd */
static void test_multifd_differing(void)
{
    Pair p = { start("", ""), start("", "-S -incoming defer") };

    set_capability(p.src, "return-path");
    use_channels(p.src, "none");
    use_channels(p.dst, "zlib");
    listen_at(p.dst);
    refused_by_destination(p, "multifd");
    runs_again(p.src);
    pair_end(p);
}

/*
 * Only the source has the capability multifd.  No test gives it to the
 * destination alone, because the destination would wait for ever for the source
 * to connect channels.
 */
static void test_multifd_one_side(void)
{
    Pair p = { start("", ""), start("", "-S -incoming defer") };

    set_capability(p.src, "return-path");
    use_channels(p.src, "none");
    listen_at(p.dst);
    refused_by_destination(p, "multifd is on at the source and off here");
    runs_again(p.src);
    pair_end(p);
}

/*
 * Machine types up to 8.2 have zero-page-detection=legacy, with which the
 * migration thread sends zero pages itself.  The source must not use that code
 * for pages of RAMBlocks that can have private pages.
 */
static void test_multifd_legacy_zero(void)
{
    Pair p = pair_start_multifd(LIVE ",conversions=2000,page-us=50", "",
                                "none");

    qtest_qmp_assert_success(p.src, "{ 'execute': 'migrate-set-parameters',"
                             "'arguments': { 'zero-page-detection':"
                             "'legacy' } }");
    listen_at(p.dst);
    completes_live(p);
    went_through_channels(p);
    pair_end(p);
}

/*
 * On both sides, QEMU tells devices such as VFIO that they cannot send their
 * state through the channels.  The devices then refuse the migration when it
 * begins, or use the main channel.
 */
static void test_multifd_device_state(void)
{
    Pair p = pair_start_multifd(",id=testdev", ",id=testdev", "none");

    g_assert_cmpint(testdev_get(p.src, "multifd-device-state"), ==, 0);
    g_assert_cmpint(testdev_get(p.dst, "multifd-device-state"), ==, 0);
    pair_end(p);
}

/*
 * QEMU refuses to migrate with multifd-flush-after-each-section, because the
 * final records would then overtake the pages in the channels
 */
static void test_multifd_refused(void)
{
    g_autofree char *flush = NULL;
    QTestState *qts;

    qts = start("", "-global migration.multifd-flush-after-each-section=on");
    set_capability(qts, "return-path");
    use_channels(qts, "none");
    flush = migrate_refused(qts);
    g_assert(strstr(flush, "multifd-flush-after-each-section"));
    qtest_quit(qts);
}

/*
 * The host has lost the memory of a shared page.  The source could only send
 * zeros in place of the page, so the migration must fail and the source must
 * keep the guest.
 */
static void test_bad_memory(const void *multifd)
{
    const char *opts = ",shared-mib=8,bad-memory=0x5000";
    Pair p = multifd ? pair_start_multifd(opts, "", "none") :
                       pair_start(opts, "");

    if (multifd) {
        listen_at(p.dst);
    }
    fill_ram(p.src);
    migrate_starts(p.src);
    fails_with(p.src, "offset 0x5000: the host's memory is bad");
    is_running(p.src);
    pair_end(p);
}

/* Check that QEMU answers @command, with a result or an error */
static void answers(QTestState *qts, const char *command)
{
    QDict *rsp = qtest_qmp(qts, "{ 'execute': %s }", command);

    g_test_message("%s: %s", command,
                   qdict_haskey(rsp, "return") ? "result" : "error");
    g_assert(qdict_haskey(rsp, "return") || qdict_haskey(rsp, "error"));
    qobject_unref(rsp);
}

/*
 * The queries that are new or changed for encrypted pages, on a machine without
 * a confidential guest
 */
static void test_plain_queries(void)
{
    static const char *const commands[] = {
        "query-migrate", "query-migrate-parameters", "query-sev",
        "query-sev-capabilities", "query-sev-launch-measure",
        "query-sev-platform",
    };
    static const char *const info[] = {
        "info migrate", "info migrate_parameters", "info sev",
        "info sev-platform",
    };
    static const char *const machines[] = { "pc", "q35" };

    for (size_t m = 0; m < G_N_ELEMENTS(machines); m++) {
        QTestState *qts = qtest_initf("-machine %s -nodefaults -bios %s/bios",
                                      machines[m], tmp);
        QDict *rsp;

        for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
            answers(qts, commands[i]);
        }
        for (size_t i = 0; i < G_N_ELEMENTS(info); i++) {
            g_autofree char *text = qtest_hmp(qts, "%s", info[i]);

            g_assert_nonnull(text);
        }
        rsp = qtest_qmp_assert_success_ref(qts, "{ 'execute': 'query-sev' }");
        g_assert_false(qdict_get_bool(rsp, "enabled"));
        g_assert_false(qdict_haskey(rsp, "migration"));
        qobject_unref(rsp);
        rsp = qtest_qmp(qts, "{ 'execute': 'migrate-set-sev-info', "
                        "'arguments': { 'pdh': 'AA==', 'plat-cert': 'AA==', "
                        "'amd-cert': 'AA==' } }");
        g_assert(qdict_haskey(rsp, "error"));
        qobject_unref(rsp);
        qtest_quit(qts);
    }
}

/*
 * Add @test for a confidential guest, and once more for an ordinary guest,
 * which shows what QEMU does without encrypted pages
 */
static void both(const char *name, void (*test)(const void *))
{
    g_autofree char *path = g_strdup_printf("/encrypted-pages/%s", name);
    g_autofree char *control = g_strdup_printf("/encrypted-pages/control/%s",
                                               name);

    qtest_add_data_func(path, "confidential", test);
    qtest_add_data_func(control, NULL, test);
}

int main(int argc, char **argv)
{
    static const char *const states[] = {
        "prelaunch", "running", "paused", "suspended", "postmigrate",
    };
    g_autofree char *bios = NULL;
    int ret;

    g_test_init(&argc, &argv, NULL);
    tmp = g_dir_make_tmp("encrypted-pages-XXXXXX", NULL);
    g_assert_nonnull(tmp);
    /* The machine needs firmware, although no vCPU runs it */
    bios = g_build_filename(tmp, "bios", NULL);
    g_assert(g_file_set_contents(bios, g_malloc0(64 * KiB), 64 * KiB, NULL));
    qtest_add_func("/encrypted-pages/plain-queries", test_plain_queries);
    qtest_add_func("/encrypted-pages/still", test_still);
    qtest_add_func("/encrypted-pages/conversions", test_conversions);
    qtest_add_func("/encrypted-pages/downtime/slow-source",
                   test_downtime_slow_source);
    qtest_add_func("/encrypted-pages/downtime/shared",
                   test_downtime_shared);
    qtest_add_func("/encrypted-pages/downtime/fast", test_downtime_fast);
    qtest_add_func("/encrypted-pages/downtime/slow-destination",
                   test_downtime_slow_destination);
    qtest_add_data_func("/encrypted-pages/downtime/slow-link", NULL,
                        test_downtime_slow_link);
    qtest_add_data_func("/encrypted-pages/downtime/slow-link-multifd",
                        "multifd", test_downtime_slow_link);
    qtest_add_func("/encrypted-pages/busy", test_busy);
    qtest_add_func("/encrypted-pages/busy-stopped", test_busy_stopped);
    qtest_add_data_func("/encrypted-pages/bad-memory", NULL, test_bad_memory);
    qtest_add_data_func("/encrypted-pages/multifd/bad-memory", "multifd",
                        test_bad_memory);
    qtest_add_func("/encrypted-pages/unallocated", test_unallocated);
    qtest_add_func("/encrypted-pages/not-authentic", test_not_authentic);
    qtest_add_func("/encrypted-pages/cancel", test_cancel);
    qtest_add_func("/encrypted-pages/no-wait", test_no_wait);
    qtest_add_data_func("/encrypted-pages/slow-load/plain", NULL,
                        test_slow_load);
    qtest_add_data_func("/encrypted-pages/slow-load/multifd", "multifd",
                        test_slow_load);
    qtest_add_func("/encrypted-pages/slow-load/cancelled",
                   test_slow_load_cancelled);
    qtest_add_func("/encrypted-pages/slow-save/host-page", test_slow_save);
    qtest_add_func("/encrypted-pages/slow-save/hugetlb",
                   test_slow_save_hugetlb);
    qtest_add_func("/encrypted-pages/refused", test_refused);
    qtest_add_func("/encrypted-pages/unwilling", test_unwilling);
    for (size_t i = 0; i < G_N_ELEMENTS(states); i++) {
        g_autofree char *path = g_strdup_printf("/encrypted-pages/snapshot/%s",
                                                states[i]);

        qtest_add_data_func(path, states[i], test_snapshot);
    }
    both("taken-back", test_taken_back);
    both("reset-and-leave", test_reset_and_leave);
    both("paused", test_paused);
    both("disk-locked", test_disk_locked);
    both("disk-locked-for-both", test_disk_locked_for_both);
    qtest_add_func("/encrypted-pages/control/disk-locked-without-answer",
                   test_disk_locked_without_answer);
    qtest_add_func("/encrypted-pages/mode-changes", test_mode_changes);
    qtest_add_func("/encrypted-pages/mismatch", test_mismatch);
    qtest_add_func("/encrypted-pages/differing", test_differing);
    qtest_add_func("/encrypted-pages/differing-device",
                   test_differing_device);
    qtest_add_func("/encrypted-pages/destination-exits",
                   test_destination_exits);
    qtest_add_func("/encrypted-pages/bad-reason", test_bad_reason);
    qtest_add_func("/encrypted-pages/answer", test_answer);
    qtest_add_func("/encrypted-pages/answer-one-side", test_answer_one_side);
    qtest_add_func("/encrypted-pages/bad-answer", test_bad_answer);
    qtest_add_func("/encrypted-pages/hints", test_hints);
    qtest_add_data_func("/encrypted-pages/multifd/none", "none", test_multifd);
    qtest_add_data_func("/encrypted-pages/multifd/zlib", "zlib", test_multifd);
    qtest_add_data_func("/encrypted-pages/multifd/zstd", "zstd", test_multifd);
    qtest_add_func("/encrypted-pages/multifd/unallocated",
                   test_multifd_unallocated);
    if (g_test_slow()) {
        qtest_add_func("/encrypted-pages/multifd/mid-round",
                       test_multifd_mid_round);
    }
    qtest_add_func("/encrypted-pages/multifd/tls", test_multifd_tls);
    qtest_add_data_func("/encrypted-pages/warning/unix",
                        GINT_TO_POINTER(WAY_UNIX), test_warning);
    qtest_add_data_func("/encrypted-pages/warning/tcp",
                        GINT_TO_POINTER(WAY_TCP), test_warning);
    qtest_add_data_func("/encrypted-pages/warning/tls",
                        GINT_TO_POINTER(WAY_TCP_TLS), test_warning);
    qtest_add_data_func("/encrypted-pages/warning/fd",
                        GINT_TO_POINTER(WAY_FD_TCP), test_warning);
    qtest_add_data_func("/encrypted-pages/warning/plain-guest",
                        GINT_TO_POINTER(WAY_PLAIN_GUEST), test_warning);
    qtest_add_func("/encrypted-pages/multifd/not-authentic",
                   test_multifd_not_authentic);
    qtest_add_func("/encrypted-pages/multifd/last-page",
                   test_multifd_last_page);
    qtest_add_func("/encrypted-pages/multifd/mismatch",
                   test_multifd_mismatch);
    qtest_add_func("/encrypted-pages/multifd/differing",
                   test_multifd_differing);
    qtest_add_func("/encrypted-pages/multifd/one-side", test_multifd_one_side);
    qtest_add_func("/encrypted-pages/multifd/legacy-zero",
                   test_multifd_legacy_zero);
    qtest_add_func("/encrypted-pages/multifd/refused", test_multifd_refused);
    qtest_add_func("/encrypted-pages/multifd/device-state",
                   test_multifd_device_state);
    ret = g_test_run();
    g_unlink(bios);
    g_rmdir(tmp);
    g_free(tmp);
    return ret;
}
