/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Batches whose commands our ccp gives to the firmware in groups, in the
 * firmware's ring buffer mode.  The test checks that there are groups, and that
 * batches have the same results as without groups.
 *
 *   sev-ring           firmware that has the mode; the last case makes the
 *                      firmware hang in the mode
 *   sev-ring absent    firmware that does not have the mode, or that reports
 *                      success without doing its work; reloads ccp for each
 *                      case
 *
 * The mode is off by default, and the test switches it on.  The test needs
 * scripts/l1 --qmp, and a platform whose doorbell takes so long
 * (cost-doorbell-ns) that kvm-amd forms groups.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mount.h>
#include "hardware.h"
#include "sev-transport.h"

#define SEND            KVM_SEV_SEND_UPDATE_BATCH
#define RECEIVE         KVM_SEV_RECEIVE_UPDATE_BATCH
#define FIRST           0x20000         /* gpa of the pages that are sent */
#define N               192
#define BAD_MEASUREMENT 0xb
#define INVALID_PLATFORM_STATE 0x1
#define PARAMETERS      "/sys/module/ccp/parameters/"
#define TRACING         "/sys/kernel/tracing/"
#define STRING(x)       STRING_(x)
#define STRING_(x)      #x

static struct packets packets;

/* @a sends pages to @b */
static struct vm a, b;

static bool file_write(const char *path, int flags, const char *text)
{
    int fd = open(path, O_WRONLY | flags);
    bool written = fd >= 0 && write(fd, text, strlen(text)) ==
                   (ssize_t)strlen(text);

    if (fd >= 0) {
        close(fd);
    }
    return written;
}

static void must_write(const char *path, int flags, const char *text)
{
    if (!file_write(path, flags, text)) {
        bail("%s: %s", path, strerror(errno));
    }
}

/*
 * Number of groups, by their result, between the last two calls of
 * groups_look().  A kernel probe reports each return of
 * sev_issue_cmds_external_user().
 */
static struct { int good, failed, refused; } groups;
/* False if the kernel has no probes, which some debug kernels lack */
static bool watching;
#define SEEN(groups)    (!watching || (groups))

static void groups_look(void)
{
    FILE *f;
    char line[256], *ret;

    memset(&groups, 0, sizeof(groups));
    if (!watching) {
        return;
    }
    f = fopen(TRACING "trace", "r");
    while (f && fgets(line, sizeof(line), f)) {
        ret = line[0] == '#' ? NULL : strstr(line, " ret=");
        if (!ret || !strstr(line, "sev_ring_ends")) {
            continue;
        }
        switch (atoi(ret + 5)) {
        case 0: groups.good++; break;
        case -EOPNOTSUPP: groups.refused++; break;
        default: groups.failed++;
        }
    }
    if (!f) {
        bail("no trace: %s", strerror(errno));
    }
    fclose(f);
    must_write(TRACING "trace", O_TRUNC, " ");
}

static void groups_watch(void)
{
    mount("none", TRACING, "tracefs", 0, NULL);
    watching = !access(TRACING "kprobe_events", W_OK);
    if (!watching) {
        note("no probes in this kernel: groups are not seen");
        return;
    }
    must_write(TRACING "kprobe_events", O_APPEND,
               "r:sev_ring_ends sev_issue_cmds_external_user ret=$retval:s32");
    must_write(TRACING "events/kprobes/sev_ring_ends/enable", 0, "1");
    groups_look();
}

static void groups_unwatch(void)
{
    if (!watching) {
        return;
    }
    must_write(TRACING "events/kprobes/sev_ring_ends/enable", 0, "0");
    must_write(TRACING "kprobe_events", O_APPEND, "-:sev_ring_ends");
}

/* Send or receive N pages.  Returns 0 if the kernel has done all of them. */
static int batch(struct vm *vm, uint32_t id)
{
    int r = transport_batch(vm, id, FIRST, N, &packets);

    return r ?: packets.done != N;
}

static uint8_t content(unsigned page, unsigned i)
{
    return page * 7 + (i == PAGE - 1 ? 101 : i / 512);
}

static bool arrived(struct vm *vm)
{
    static uint8_t page[PAGE] __attribute__((aligned(4096)));
    unsigned bad = 0;

    for (unsigned i = 0; i < N; i++) {
        struct kvm_sev_dbg dbg = {
            .src_uaddr = (uintptr_t)vm->mem + FIRST + i * PAGE,
            .dst_uaddr = (uintptr_t)page, .len = PAGE,
        };

        SEV_MUST(vm, KVM_SEV_DBG_DECRYPT, &dbg);
        for (unsigned j = 0; j < PAGE; j++) {
            if (page[j] != content(i, j)) {
                bad++;
                break;
            }
        }
    }
    note("%u of %u pages are not what they were on the other side", bad, N);
    return !bad;
}

/*
 * Send and receive a batch.  kvm-amd tries a group after 64 single commands
 * (SEV_PACE_HOLD) at the latest, so each batch of N commands has a group.
 */
static void both_ways(struct vm *a, struct vm *b)
{
    unsigned long sent = hardware_count("SEND_UPDATE_DATA");
    unsigned long ring = hardware_count("RING_BUFFER");
    bool good;

    groups_look();
    good = !batch(a, SEND);
    groups_look();
    ok(good && SEEN(groups.good && !groups.failed),
       "%d pages are sent, some of them in %d groups", N, groups.good);
    ring = hardware_count("RING_BUFFER") - ring;
    ok(hardware_count("SEND_UPDATE_DATA") - sent == N &&
       ring && SEEN(ring <= (unsigned long)groups.good),
       "the firmware executed %lu commands for the batch and entered its ring "
       "buffer mode %lu times", hardware_count("SEND_UPDATE_DATA") - sent,
       ring);
    good = !batch(b, RECEIVE);
    groups_look();
    ok(good && SEEN(groups.good && !groups.failed),
       "pages are received, some of them in %d groups", groups.good);
}

/* Does ccp still execute a single command through the mailbox? */
static bool mailbox_works(void)
{
    struct sev_user_data_status status = { 0 };
    struct sev_issue_cmd cmd = {
        .cmd = SEV_PLATFORM_STATUS, .data = (uintptr_t)&status,
    };

    return !ioctl(sev_fd, SEV_ISSUE_CMD, &cmd) && status.state == 2;
}

/*
 * The firmware refuses a forged packet at any place in a group.  KVM reports
 * the packets before it as done, and the batch can be continued.
 */
static void forged(struct vm *b)
{
    int in_group = 0, wrong = 0, tries = 0, other = 0;

    for (unsigned p = 2; p < N && (in_group < 5 || tries < 12); p += 5) {
        unsigned long before = hardware_count("RECEIVE_UPDATE_DATA");
        unsigned long given;
        struct packets rest;
        int r;

        packets.data[p][77] ^= 1;
        r = transport_batch(b, RECEIVE, FIRST, N, &packets);
        given = hardware_count("RECEIVE_UPDATE_DATA") - before;
        groups_look();
        tries++;
        in_group += groups.failed;
        if (r != -EIO || sev_error != BAD_MEASUREMENT || packets.done != p ||
            given != p + 1) {
            note("page %u: %s, firmware %#x, %u done, %lu commands", p,
                 strerror(-r), sev_error, packets.done, given);
            wrong++;
        }
        packets.data[p][77] ^= 1;
        other += !mailbox_works();
        rest = (struct packets){ packets.headers + p, packets.data + p };
        other += transport_batch(b, RECEIVE, FIRST + p * PAGE, N - p, &rest) ||
                 rest.done != N - p;
    }
    ok(!wrong && SEEN(in_group),
       "a forged packet (%d times, %d of them in a group) fails with the "
       "firmware's error, the packets before it are done, and none after it is "
       "given to the firmware", tries, in_group);
    ok(!other,
       "the mailbox works after a forged packet, and the batch can be "
       "continued");
}

/* The firmware fails a command in the middle of a batch */
static void refused(struct vm *a, struct vm *b)
{
    static uint8_t pages[N];
    struct packets p = { packets.headers, packets.data, pages }, rest;
    unsigned done;
    int r;

    hardware_fault("\"kind\": \"status\", \"command\": \"SEND_UPDATE_DATA\", "
                   "\"nth\": 171, \"status\": 23");
    r = transport_batch(a, SEND, FIRST, N, &packets);
    ok(r == -EIO && sev_error == 23 && packets.done == 170,
       "a batch whose 171st command the firmware fails ends after %u pages "
       "with firmware error %#x", packets.done, sev_error);

    /* The firmware refuses the length of the 30th packet */
    hardware_fault("\"kind\": \"status\", \"command\": \"SEND_UPDATE_DATA\", "
                   "\"nth\": 30, \"status\": 4");
    r = transport_batch(a, SEND, FIRST, N, &p);
    done = p.done;
    groups_look();
    ok(r == -EIO && sev_error == 4 && done == 29 * 4,
       "a batch whose 30th packet of 4 pages fails with INVALID_LEN ends after "
       "%u pages", done);
    if (r != -EIO || done >= N) {
        return;
    }
    rest = (struct packets) { packets.headers + done, packets.data + done };
    ok(!transport_batch(a, SEND, FIRST + done * PAGE, N - done, &rest) &&
       rest.done == N - done,
       "pages after INVALID_LEN can be sent in packets of one page");
    ok(!transport_batch(b, RECEIVE, FIRST, done, &p) && p.done == done &&
       !transport_batch(b, RECEIVE, FIRST + done * PAGE, N - done, &rest) &&
       rest.done == N - done,
       "pages sent before and after INVALID_LEN are received");
}

static void switched_off(struct vm *a, struct vm *b)
{
    unsigned long ring = hardware_count("RING_BUFFER");
    bool good;

    must_write(PARAMETERS "sev_ring", 0, "0");
    groups_look();
    good = !batch(a, SEND) && !batch(b, RECEIVE);
    groups_look();
    ok(good && SEEN(!groups.good && !groups.failed && groups.refused) &&
       hardware_count("RING_BUFFER") == ring,
       "with sev_ring off, no page goes through the ring, although KVM asked "
       "for groups %d times", groups.refused);
    must_write(PARAMETERS "sev_ring", 0, "1");
    good = !batch(a, SEND) && !batch(b, RECEIVE);
    groups_look();
    ok(good && SEEN(groups.good) && hardware_count("RING_BUFFER") > ring,
       "with sev_ring on again, pages go through the ring in %d groups",
       groups.good);
}

static struct vm *busy;
static volatile bool stop;
static volatile long calls, others, errors;

/*
 * Call an ioctl that needs kvm->lock, and a command of the platform that needs
 * the firmware's mailbox, repeatedly
 */
static void *run_beside(void *opaque)
{
    while (!stop) {
        struct kvm_sev_guest_status status;

        errors += sev_cmd(busy, KVM_SEV_GUEST_STATUS, &status) != 0;
        calls++;
        errors += !mailbox_works();
        others++;
    }
    return opaque;
}

static void beside(struct vm *vm)
{
    struct vm_converter c = {
        .vm = vm, .offset = FIRST + 90 * PAGE, .size = 4 * PAGE,
    };
    long batches, wrong = 0, shared = 0, good = 0;
    pthread_t status, converter;

    busy = vm;
    groups_look();
    pthread_create(&status, NULL, run_beside, NULL);
    pthread_create(&converter, NULL, vm_run_converter, &c);
    for (batches = 0; batches < 300; batches++) {
        int r = transport_batch(vm, SEND, FIRST, N, &packets);

        shared += r == -EAGAIN && packets.done >= 90 && packets.done <= 93;
        wrong += r ? r != -EAGAIN || packets.done < 90 || packets.done > 93 :
                     packets.done != N;
        groups_look();
        good += groups.good;
        if (batches > 20 && SEEN(good > 20) && calls > 20 && others > 20 &&
            c.done > 20) {
            break;
        }
    }
    stop = c.stop = true;
    pthread_join(status, NULL);
    pthread_join(converter, NULL);
    MUST(vm_convert(vm, c.offset, c.size, PRIVATE));
    ok(!wrong && !errors && !c.errors && SEEN(good > 20) && calls > 20 &&
       others > 20 && c.done > 20,
       "%ld batches with %ld groups beside %ld calls for the VM, %ld for the "
       "platform, and %ld conversions (%ld refused) succeed; %ld met a shared "
       "page", batches, good, calls, others, c.done, c.refused, shared);
}

/*
 * The firmware hangs in a group.  This must be the last case, because ccp does
 * not use the PSP any more until the PSP is reset.
 */
static void hangs(struct vm *a)
{
    struct sev_user_data_status status = { 0 };
    struct sev_issue_cmd cmd = {
        .cmd = SEV_PLATFORM_STATUS, .data = (uintptr_t)&status,
    };
    unsigned long before;
    int r;

    must_write(PARAMETERS "psp_cmd_timeout", 0, "2");
    if (!mailbox_works()) {
        bail("the platform's status");
    }
    hardware_fault("\"kind\": \"hang\", \"command\": \"SEND_UPDATE_DATA\", "
                   "\"nth\": 171");
    before = hardware_count("SEND_UPDATE_DATA");
    groups_look();
    r = transport_batch(a, SEND, FIRST, N, &packets);
    groups_look();
    ok(r == -ETIMEDOUT && packets.done <= 170 && !sev_error &&
       hardware_count("SEND_UPDATE_DATA") - before == 171,
       "a batch whose 171st command hangs fails with ETIMEDOUT after %u pages",
       packets.done);
    note("it was %s", groups.failed ? "in a group" : "alone");
    ok(ioctl(sev_fd, SEV_ISSUE_CMD, &cmd) && errno == EBUSY &&
       transport_batch(a, SEND, FIRST, N, &packets) == -EBUSY && !packets.done,
       "after the firmware hung, commands and batches fail with EBUSY");
}

/* ccp does not use the ring buffer mode until its parameter is set */
static void unused(struct vm *a, struct vm *b)
{
    unsigned long ring = hardware_count("RING_BUFFER");
    char is_on = '?';
    FILE *f = fopen(PARAMETERS "sev_ring", "r");

    if (f) {
        is_on = fgetc(f);
        fclose(f);
    }
    ok(is_on == 'N' && !batch(a, SEND) && !batch(b, RECEIVE) &&
       hardware_count("RING_BUFFER") == ring,
       "sev_ring is off by default, and ccp does not ask the firmware for the "
       "ring");
}

static void absent(struct vm *a, struct vm *b)
{
    unsigned long ring = hardware_count("RING_BUFFER");
    bool good;

    hardware_fault("\"kind\": \"status\", \"command\": \"RING_BUFFER\", "
                   "\"status\": 17");
    good = !batch(a, SEND) && !batch(b, RECEIVE);
    groups_look();
    ok(good && SEEN(!groups.good && !groups.failed && groups.refused),
       "pages go one by one if the firmware has no ring buffer mode");
    ok(hardware_count("RING_BUFFER") - ring == 1,
       "ccp asks the firmware for its ring only once, though KVM wanted groups "
       "%d times", groups.refused);
}

/*
 * The firmware reports that it has entered the ring buffer mode, but still
 * takes single commands from the mailbox.  If ccp did not notice this, ccp
 * would write the tail of a queue to a register of the mailbox, and the
 * firmware would use this tail as a part of the address of a command's
 * argument.
 */
static void not_entered(void)
{
    unsigned long ring = hardware_count("RING_BUFFER");
    bool good;

    hardware_fault("\"kind\": \"skip\", \"command\": \"RING_BUFFER\"");
    good = !batch(&a, SEND) && !batch(&b, RECEIVE);
    groups_look();
    ok(good && SEEN(!groups.good && !groups.failed && groups.refused) &&
       hardware_count("RING_BUFFER") - ring == 1,
       "ccp notices that the firmware did not enter ring buffer mode, and "
       "pages go one by one");
    ok(mailbox_works(),
       "the mailbox works after the firmware did not enter ring buffer mode");
    SEV_MUST(&b, KVM_SEV_RECEIVE_FINISH, NULL);
    ok(arrived(&b),
       "all pages arrive although the firmware did not enter ring buffer mode");
}

#define SKIPPED 150     /* number of the skipped command; the first is 1 */

/*
 * The firmware skips one command of a group, executes the commands after it,
 * and moves the head over all of them.  Returns false if the skipped command
 * was not in a group, because the fault then has another effect.
 */
static bool skipped(void)
{
    struct packets rest = {
        packets.headers + SKIPPED - 1, packets.data + SKIPPED - 1,
    };
    unsigned long ring;
    bool good;
    int r;

    if (batch(&a, SEND)) {
        bail("a batch without a fault");
    }
    groups_look();
    hardware_fault("\"kind\": \"skip\", \"command\": \"SEND_UPDATE_DATA\", "
                   "\"nth\": " STRING(SKIPPED));
    r = transport_batch(&a, SEND, FIRST, N, &packets);
    groups_look();
    if (!r && SEEN(!groups.failed)) {
        return false;
    }
    ok(r == -EIO && !sev_error && packets.done == SKIPPED - 1,
       "a batch with a command that the firmware skips fails: %d, firmware "
       "%#x, %u done", r, sev_error, packets.done);
    ring = hardware_count("RING_BUFFER");
    good = !transport_batch(&a, SEND, FIRST + (SKIPPED - 1) * PAGE,
                            N - SKIPPED + 1, &rest) &&
           !batch(&b, RECEIVE);
    groups_look();
    ok(good && SEEN(!groups.good && !groups.failed && groups.refused) &&
       hardware_count("RING_BUFFER") == ring,
       "after a skipped command, pages go one by one and the ring is not used "
       "again");
    SEV_MUST(&b, KVM_SEV_RECEIVE_FINISH, NULL);
    ok(arrived(&b), "all pages arrive after a command was skipped");
    return true;
}

/*
 * The firmware restarts between two groups and forgets its guests.  Commands of
 * guests then fail, but ccp gets an answer to each of them and continues to use
 * the PSP.  Returns false if the firmware was not in ring buffer mode when it
 * restarted.
 */
static bool restarted(void)
{
    struct sev_user_data_status status = { 0 };
    struct sev_issue_cmd cmd = {
        .cmd = SEV_PLATFORM_STATUS, .data = (uintptr_t)&status,
    };
    unsigned long ring;
    bool on;
    int r;

    if (batch(&a, SEND)) {
        bail("a batch without a fault");
    }
    hardware_fault("\"kind\": \"restart\", \"command\": \"SEND_UPDATE_DATA\", "
                   "\"nth\": " STRING(N) ", \"delay-us\": 1000000");
    if (batch(&a, SEND)) {
        bail("a batch before the restart");
    }
    on = hardware_ring();
    usleep(2000000);
    if (!on) {
        return false;
    }
    ring = hardware_count("RING_BUFFER");
    r = transport_batch(&a, SEND, FIRST, N, &packets);
    ok(r == -EIO && sev_error == INVALID_PLATFORM_STATE && !packets.done &&
       hardware_count("RING_BUFFER") == ring,
       "a batch after a restart of the firmware fails: %d, firmware %#x, %u "
       "done", r, sev_error, packets.done);
    ok(!ioctl(sev_fd, SEV_ISSUE_CMD, &cmd) && !status.state,
       "after a restart of the firmware, the mailbox reports an uninitialized "
       "platform");
    return true;
}

/*
 * Create the VMs @a and @b, and open a session between them.  @a has the N
 * pages that the tests send; content() defines their contents.
 */
static bool pair_open(void)
{
    vm_require(VM_SEV);
    vm_init(&a, VM_SEV, GUEST_SIZE);
    vm_init(&b, VM_SEV, GUEST_SIZE);
    for (unsigned i = 0; i < N; i++) {
        for (unsigned j = 0; j < PAGE; j++) {
            a.mem[FIRST + i * PAGE + j] = content(i, j);
        }
    }
    if (!ok(!guest_launch(&a, FIRST + N * PAGE),
            "a guest with pages for the ring runs") ||
        !ok(!transport_start(&a, &b),
            "SEND_START and RECEIVE_START succeed before the ring is used")) {
        return false;
    }
    MUST(vm_convert(&b, 0, GUEST_SIZE, PRIVATE));
    groups_watch();
    return true;
}

static void pair_close(void)
{
    groups_unwatch();
    vm_destroy(&a);
    vm_destroy(&b);
}

/*
 * Reload ccp with the ring buffer mode enabled, and create the VMs again.  If
 * the firmware lacked the mode or did not behave as expected in it, the loaded
 * ccp does not use the mode again, so each case needs a newly loaded ccp.
 */
static bool pair_reopen(void)
{
    char line[512];
    const char *build = getenv("BUILD");

    pair_close();
    close(kvm_fd);
    close(sev_fd);
    kvm_fd = sev_fd = -1;
    snprintf(line, sizeof(line), "rmmod kvm_amd ccp && cd %s/l1/modules/module "
             "&& insmod ccp.ko sev_ring=1 psp_cmd_timeout=5 && "
             "insmod kvm-amd.ko", build ? build : "/b");
    if (system(line)) {
        bail("cannot reload the modules: %s", line);
    }
    return pair_open();
}

static void unreliable(void)
{
    bool (*const cases[])(void) = { skipped, restarted };

    if (!pair_reopen()) {
        return;
    }
    not_entered();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        unsigned tries = 0;

        do {
            if (!pair_reopen()) {
                return;
            }
        } while (!cases[i]() && ++tries < 5);
        ok(tries < 5,
           "the fault came while the firmware was in ring buffer mode, after "
           "%u tries", tries);
    }
}

int main(int argc, char **argv)
{
    bool is_absent = argc > 1 && !strcmp(argv[1], "absent");

    vm_require(VM_SEV);
    if (!hardware_open()) {
        skip_all("no port to the QMP of the hardware: scripts/l1 --qmp");
    }
    if (!ok(!access(PARAMETERS "sev_ring", R_OK),
            "the loaded ccp is ours, with the parameter sev_ring")) {
        return done_testing();
    }
    packets_init(&packets, N);
    if (!pair_open()) {
        return done_testing();
    }
    if (is_absent) {
        unused(&a, &b);
    }
    must_write(PARAMETERS "sev_ring", 0, "1");
    if (is_absent) {
        absent(&a, &b);
    } else {
        both_ways(&a, &b);
        forged(&b);
        refused(&a, &b);
        switched_off(&a, &b);
        beside(&a);
        ok(!batch(&a, SEND) && !batch(&b, RECEIVE),
           "all pages can be sent and received after the faults");
    }
    SEV_MUST(&b, KVM_SEV_RECEIVE_FINISH, NULL);
    ok(arrived(&b), "all pages arrive with the right contents");
    if (is_absent) {
        unreliable();
    } else {
        hangs(&a);
    }
    pair_close();
    return done_testing();
}
