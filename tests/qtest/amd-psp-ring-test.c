/*
 * The ring buffer mode of the emulated AMD PSP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Like amd-psp-mailbox.h, this file has its own definitions of bits and offsets
 * instead of the device's.  amd-psp-test.c tests the commands themselves.
 */

#include "qemu/osdep.h"
#include "amd-psp-mailbox.h"

/*
 * Control register: bits of the low queue; those of the high queue are one bit
 * higher
 */
#define NEAR_INT    (1u << 0)
#define RESUME      (1u << 8)
#define CLEAR       (1u << 29)
#define GO          (3u << 30)

/* Head register */
#define LOW_RUNS    (1u << 11)
#define HIGH_AT(i)  ((i) << 16)
#define HIGH_RUNS   (1u << 27)
#define EMPTY       (1u << 28)
#define COMPLETE    (1u << 29)
#define PAUSED      (1u << 30)
#define NEAR        (1u << 31)
#define INTS        (15u << 28)

/* Flags of an entry */
#define INT_DONE    1
#define GO_ON       2

/* Layout of the machine's memory */
#define BUF         0x100000    /* buffer of commands in the mailbox */
#define ARG         0x110000    /* buffers of the entries, 256 bytes each */
#define OUT         0x120000
#define LOW         0x130000    /* entries, followed by statuses */
#define HIGH        0x140000
#define MSI_ADDR    0x150000
#define GUEST       0x160000
#define NOT_RAM     0xfed00000
#define CBIT        (1ull << 47)

#define PAGE        0x1000

/* Firmware commands, and a number that is no command */
#define INIT        0x01
#define SHUTDOWN    0x02
#define STATUS      0x04
#define DF_FLUSH    0x0a
#define GET_ID      0x0c
#define RING_BUFFER 0x0f
#define NONE        0x7f

/*
 * Requests to vcpu_code, which runs on a vCPU only in test_vcpu().  The vCPU
 * writes registers on behalf of the test, as a host's driver would, so that the
 * device executes commands while the vCPU's write is in progress.
 */
#define TODO        0x500       /* if not 0: write WHAT to WHERE */
#define TODO_WHERE  0x504
#define TODO_WHAT   0x508

#define CODE_AT     0xffff0000
#define CODE_LEN    0x10000
#define RESET_AT    0xfff0

static const uint8_t vcpu_code[] = {
    0xfa,                                       /*    cli */
    0x2e, 0x66, 0x0f, 0x01, 0x16, 0x58, 0x00,   /*    lgdt cs:[0x58] */
    0x0f, 0x20, 0xc0,                           /*    mov eax, cr0 */
    0x0c, 0x01,                                 /*    or al, 1 */
    0x0f, 0x22, 0xc0,                           /*    mov cr0, eax */
    0x66, 0xea, 0x18, 0, 0xff, 0xff, 0x08, 0,   /*    jmp 8:CODE_AT + 0x18 */
    0x66, 0xb8, 0x10, 0,                        /*    mov ax, 0x10 */
    0x8e, 0xd8,                                 /*    mov ds, ax */
    0xf3, 0x90,                                 /* 1: pause */
    0x80, 0x3d, 0x00, 0x05, 0, 0, 0,            /*    cmp byte [TODO], 0 */
    0x74, 0xf5,                                 /*    je 1b */
    0x8b, 0x1d, 0x04, 0x05, 0, 0,               /*    mov ebx, [TODO_WHERE] */
    0xa1, 0x08, 0x05, 0, 0,                     /*    mov eax, [TODO_WHAT] */
    0x89, 0x03,                                 /*    mov [ebx], eax */
    0xc6, 0x05, 0x00, 0x05, 0, 0, 0,            /*    mov byte [TODO], 0 */
    0xeb, 0xdf,                                 /*    jmp 1b */
    0, 0, 0, 0, 0, 0, 0, 0, 0,                  /* 0x40: segments */
    0xff, 0xff, 0, 0, 0, 0x9a, 0xcf, 0,
    0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0,
    0x17, 0, 0x40, 0, 0xff, 0xff,               /* 0x58: their table */
};

static char *firmware;

static void psp_open_accel(Psp *p, const char *accel, const char *options)
{
    memset(p, 0, sizeof(*p));
    p->qts = qtest_initf("%s -nodefaults -machine q35 -bios %s "
                         "-cpu EPYC-Milan,+svm,+sev "
                         "-device amd-psp,id=psp,addr=04.0%s", accel, firmware,
                         options);
    psp_attach(p);
}

static void psp_open(Psp *p, const char *options)
{
    psp_open_accel(p, "", options);
}

static void psp_reset(Psp *p)
{
    qtest_system_reset(p->qts);
    p->bar = qpci_iomap(p->dev, 2, NULL);
    qpci_device_enable(p->dev);
}

static void vcpu_write(Psp *p, uint64_t reg, uint32_t value)
{
    g_assert_cmphex(p->bar.addr >> 32, ==, 0);
    qtest_writel(p->qts, TODO_WHERE, p->bar.addr + reg);
    qtest_writel(p->qts, TODO_WHAT, value);
    qtest_writeb(p->qts, TODO, 1);
    for (int i = 0; qtest_readb(p->qts, TODO); i++) {
        g_assert_cmpint(i, <, 100000);
        g_usleep(100);
    }
}

/* Execute a command in the mailbox.  Returns the status. */
static unsigned psp_cmd(Psp *p, unsigned cmd)
{
    return psp_cmd_at(p, cmd, BUF, false);
}

static void clear(Psp *p)
{
    qtest_memset(p->qts, BUF, 0, 128);
}

static void psp_init(Psp *p)
{
    clear(p);
    g_assert_cmphex(psp_cmd(p, INIT), ==, 0);
    g_assert_cmphex(psp_cmd(p, DF_FLUSH), ==, 0);
}

static bool query_is(Psp *p, const char *key)
{
    QDict *info = psp_query(p);
    bool is = qdict_get_bool(info, key);

    qobject_unref(info);
    return is;
}

/* Argument of RING_BUFFER */
typedef struct Config {
    uint64_t pages[4];
    uint8_t sizes[2];
    uint16_t thresholds[2];
    uint16_t int_on_empty;
} Config;

static const Config low_only = {
    .pages = { LOW, LOW + PAGE }, .sizes = { 1 }, .int_on_empty = 1,
};
static const Config both = {
    .pages = { LOW, LOW + PAGE, HIGH, HIGH + PAGE }, .sizes = { 1, 1 },
};

static void put_config(Psp *p, const Config *c)
{
    QEMU_BUILD_BUG_ON(sizeof(*c) != 0x28);
    qtest_memwrite(p->qts, BUF, c, sizeof(*c));
}

static unsigned ring_enter(Psp *p, const Config *c)
{
    put_config(p, c);
    return psp_cmd(p, RING_BUFFER);
}

/* Fill the statuses with a value that the firmware never writes as a status */
static void forget_statuses(Psp *p)
{
    qtest_memset(p->qts, LOW + PAGE, 0xaa, PAGE);
    qtest_memset(p->qts, HIGH + PAGE, 0xaa, PAGE);
}

/* Initialize the platform and enter ring buffer mode */
static void ring_open(Psp *p, const char *options, const Config *c)
{
    psp_open(p, options);
    p->step = *options ? 10000 : 0;
    psp_init(p);
    forget_statuses(p);
    g_assert_cmphex(ring_enter(p, c), ==, 0);
}

static void put_entry(Psp *p, uint64_t queue, unsigned index, unsigned cmd,
                      unsigned flags, uint64_t buf)
{
    uint64_t at = queue + index * 16;

    qtest_writew(p->qts, at, cmd);
    qtest_writew(p->qts, at + 2, flags);
    qtest_writel(p->qts, at + 4, 0x12345678);
    qtest_writeq(p->qts, at + 8, buf);
}

static void put_entries(Psp *p, uint64_t queue, unsigned index, unsigned n,
                        unsigned cmd)
{
    for (; n--; index++) {
        put_entry(p, queue, index % 256, cmd, 0, ARG + index % 256 * 256);
    }
}

static void assert_status(Psp *p, uint64_t queue, unsigned index,
                          unsigned status)
{
    uint64_t at = queue + PAGE + index * 16;

    g_assert_cmphex(qtest_readw(p->qts, at), ==, status);
    g_assert_cmphex(qtest_readw(p->qts, at + 2), ==, 0);
    g_assert_cmphex(qtest_readl(p->qts, at + 4), ==, 0);
    g_assert_cmphex(qtest_readq(p->qts, at + 8), ==, 0);
}

static void assert_not_posted(Psp *p, uint64_t queue, unsigned index)
{
    g_assert_cmphex(qtest_readq(p->qts, queue + PAGE + index * 16), ==,
                    0xaaaaaaaaaaaaaaaaull);
}

static void ring_go(Psp *p, uint32_t tail, uint32_t control)
{
    psp_write(p, CMDBUF_HI, tail);
    psp_write(p, CMDRESP, GO | control);
}

static void await_head(Psp *p, uint32_t head)
{
    psp_await(p, CMDBUF_LO, ~0u, head);
}

/* Execute one command in the low queue, at @index.  Returns its status. */
static unsigned ring_cmd(Psp *p, unsigned index, unsigned cmd, uint64_t buf)
{
    put_entry(p, LOW, index, cmd, GO_ON, buf);
    ring_go(p, index + 1, CLEAR);
    await_head(p, LOW_RUNS | EMPTY | (index + 1));
    return qtest_readw(p->qts, LOW + PAGE + index * 16);
}

/* RING_BUFFER refuses invalid arguments, and the mode then stays off */
static void test_enter(void)
{
    static const Config bad_param[] = {
        { .pages = { LOW, LOW + PAGE }, .sizes = { 0 } },
        { .pages = { LOW, LOW + PAGE }, .sizes = { 2 } },
        { .pages = { LOW, LOW + PAGE, HIGH, HIGH + PAGE }, .sizes = { 0, 1 } },
        { .pages = { LOW, LOW + PAGE, HIGH, HIGH + PAGE }, .sizes = { 1, 2 } },
    };
    static const uint64_t bad_pages[] = {
        LOW + 16, LOW + 0x800, NOT_RAM, 1ull << 40, 0xfffffffffffff000,
        0x8000000,      /* the end of RAM */
    };
    g_autofree char *text = NULL;
    Config c = both;
    Psp p;

    psp_open(&p, "");
    g_assert_cmphex(ring_enter(&p, &low_only), ==, 0x01);
    psp_init(&p);
    for (unsigned i = 0; i < ARRAY_SIZE(bad_param); i++) {
        g_assert_cmphex(ring_enter(&p, &bad_param[i]), ==, 0x16);
    }
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned k = 0; k < ARRAY_SIZE(bad_pages); k++) {
            c = both;
            c.pages[i] = bad_pages[k];
            g_assert_cmphex(ring_enter(&p, &c), ==, 0x09);
        }
    }
    psp_give(&p, RING_BUFFER, NOT_RAM, false);
    g_assert_cmphex(psp_wait(&p, RING_BUFFER), ==, 0x09);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, NOT_RAM);
    g_assert(!query_is(&p, "ring"));
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, STATUS), ==, 0);

    /*
     * RING_BUFFER ignores the pages of a queue of size 0, and the C-bit of an
     * address
     */
    c = low_only;
    c.pages[0] |= CBIT;
    c.pages[2] = NOT_RAM;
    put_config(&p, &c);
    psp_give(&p, RING_BUFFER, BUF | CBIT, false);
    g_assert_cmphex(psp_wait(&p, RING_BUFFER), ==, 0);
    g_assert(query_is(&p, "ring"));
    text = qtest_hmp(p.qts, "info sev-platform");
    g_assert_nonnull(strstr(text, "0 active, ring buffer mode"));
    /* A write to the control register updates the head register */
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, 0);
    g_assert_cmphex(psp_read(&p, CMDBUF_HI), ==, 0);
    ring_go(&p, 0, 0);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, LOW_RUNS | EMPTY);
    /* RING_BUFFER in a queue is refused, because the mode is on already */
    put_config(&p, &low_only);
    g_assert_cmphex(ring_cmd(&p, 0, RING_BUFFER, BUF), ==, 0x16);
    g_assert(query_is(&p, "ring"));
    g_assert_cmphex(psp_cmd(&p, RING_BUFFER), ==, 0x1f);
    g_assert(!query_is(&p, "ring"));

    /* Enter the mode with a guest and with both queues */
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0);
    g_assert_cmphex(ring_enter(&p, &both), ==, 0);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, 0);
    ring_go(&p, 0, 0);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, LOW_RUNS | HIGH_RUNS);
    psp_close(&p);
}

/* One doorbell executes several commands */
static void test_batch(void)
{
    Psp p;

    ring_open(&p, "", &low_only);
    for (unsigned i = 0; i < 10; i++) {
        put_entry(&p, LOW, i, STATUS, 0,
                  (ARG + i * 256) | (i & 1 ? CBIT : 0));
    }
    ring_go(&p, 10, CLEAR);
    await_head(&p, LOW_RUNS | EMPTY | 10);
    g_assert_cmphex(psp_read(&p, CMDRESP), ==, GO | CLEAR);
    g_assert_cmphex(psp_read(&p, CMDBUF_HI), ==, 10);
    for (unsigned i = 0; i < 10; i++) {
        assert_status(&p, LOW, i, 0);
        g_assert_cmpuint(qtest_readb(p.qts, ARG + i * 256), ==, 1);
        g_assert_cmpuint(qtest_readb(p.qts, ARG + i * 256 + 1), ==, 55);
    }
    assert_not_posted(&p, LOW, 10);
    g_assert_cmpuint(qtest_readb(p.qts, ARG + 10 * 256), ==, 0);
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "count"), ==, 10);
    g_assert_cmpuint(psp_stat_of(&p, "RING_BUFFER", "count"), ==, 1);

    /*
     * The tail did not change, so at the next doorbell the firmware finds no
     * entry to execute and reports the same head
     */
    ring_go(&p, 10, CLEAR);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, LOW_RUNS | EMPTY | 10);
    psp_close(&p);
}

/* After the last entry, the queue continues with the first one */
static void test_wrap(void)
{
    Psp p;

    ring_open(&p, "", &low_only);
    put_entries(&p, LOW, 0, 255, STATUS);
    ring_go(&p, 255, CLEAR);
    await_head(&p, LOW_RUNS | EMPTY | 255);
    assert_status(&p, LOW, 254, 0);
    assert_not_posted(&p, LOW, 255);

    forget_statuses(&p);
    put_entries(&p, LOW, 255, 100, DF_FLUSH);
    ring_go(&p, 99, CLEAR);
    await_head(&p, LOW_RUNS | EMPTY | 99);
    assert_status(&p, LOW, 255, 0);
    assert_status(&p, LOW, 0, 0);
    assert_status(&p, LOW, 98, 0);
    assert_not_posted(&p, LOW, 99);
    assert_not_posted(&p, LOW, 254);
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "count"), ==, 255);
    g_assert_cmpuint(psp_stat_of(&p, "DF_FLUSH", "count"), ==, 101);
    psp_close(&p);
}

/* A command that fails pauses its queue, unless its entry has the flag GO_ON */
static void test_pause(void)
{
    Psp p;

    ring_open(&p, "", &low_only);
    put_entries(&p, LOW, 0, 5, STATUS);
    put_entry(&p, LOW, 1, NONE, 0, 0);
    put_entry(&p, LOW, 3, NONE, GO_ON, 0);
    ring_go(&p, 5, 0);
    await_head(&p, PAUSED | EMPTY | 2);
    assert_status(&p, LOW, 0, 0);
    assert_status(&p, LOW, 1, 0x11);
    assert_not_posted(&p, LOW, 2);

    /*
     * A doorbell without RESUME does not resume the queue.  Because of CLEAR,
     * the firmware first clears PAUSED and EMPTY.  It takes no entry from a
     * paused queue and has no other queue, so it then sets EMPTY again.
     */
    ring_go(&p, 5, CLEAR);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, EMPTY | 2);
    /*
     * RESUME lets the queue run again, but the firmware executes none of its
     * entries while RESUME is set.  The next doorbell, without RESUME, executes
     * them.
     */
    ring_go(&p, 5, CLEAR | RESUME);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, LOW_RUNS | EMPTY | 2);
    g_assert(!query_is(&p, "busy"));
    ring_go(&p, 5, CLEAR);
    await_head(&p, LOW_RUNS | EMPTY | 5);
    assert_status(&p, LOW, 2, 0);
    assert_status(&p, LOW, 3, 0x11);
    assert_status(&p, LOW, 4, 0);
    g_assert_cmpuint(psp_stat_of(&p, "unknown", "failed"), ==, 2);

    /*
     * Entry 5 fails, so the firmware pauses the queue and sets PAUSED.  CLEAR
     * is set in the control register, so the firmware clears PAUSED when it
     * looks for the next entry.
     */
    put_entry(&p, LOW, 5, NONE, 0, 0);
    ring_go(&p, 6, CLEAR);
    await_head(&p, EMPTY | 6);
    psp_close(&p);
}

/* A pause of one queue does not affect the other queue */
static void test_pause_one(void)
{
    Psp p;

    ring_open(&p, "", &both);
    put_entries(&p, HIGH, 0, 2, STATUS);
    put_entry(&p, HIGH, 0, NONE, 0, 0);
    put_entries(&p, LOW, 0, 2, STATUS);
    ring_go(&p, HIGH_AT(2) | 2, 0);
    await_head(&p, PAUSED | LOW_RUNS | HIGH_AT(1) | 2);
    assert_status(&p, HIGH, 0, 0x11);
    assert_not_posted(&p, HIGH, 1);
    assert_status(&p, LOW, 1, 0);

    /*
     * A doorbell with RESUME executes no entries of a queue that runs already
     */
    put_entries(&p, LOW, 2, 1, STATUS);
    ring_go(&p, HIGH_AT(2) | 3, CLEAR | RESUME);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, LOW_RUNS | HIGH_AT(1) | 2);
    ring_go(&p, HIGH_AT(2) | 3, RESUME << 1);
    await_head(&p, LOW_RUNS | HIGH_RUNS | HIGH_AT(1) | 3);
    assert_not_posted(&p, HIGH, 1);
    ring_go(&p, HIGH_AT(2) | 3, 0);
    await_head(&p, LOW_RUNS | HIGH_RUNS | HIGH_AT(2) | 3);
    assert_status(&p, HIGH, 1, 0);
    psp_close(&p);

    /*
     * If the host has configured no high queue, the firmware ignores the bits
     * for a high queue in the tail and control registers
     */
    ring_open(&p, "", &low_only);
    put_entries(&p, HIGH, 0, 1, STATUS);
    ring_go(&p, HIGH_AT(1), RESUME << 1);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, LOW_RUNS | EMPTY);
    ring_go(&p, HIGH_AT(1), 0);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, LOW_RUNS | EMPTY);
    g_assert(!query_is(&p, "busy"));
    psp_close(&p);
}

/* Was there an interrupt?  Clears it. */
static bool interrupted(Psp *p)
{
    bool was = psp_read(p, INTSTS) & 2;

    g_assert_cmphex(qtest_readl(p->qts, MSI_ADDR), ==, was ? MSI_DATA : 0);
    psp_write(p, INTSTS, 2);
    qtest_writel(p->qts, MSI_ADDR, 0);
    return was;
}

/* Entries 0 to 3 of the low queue: interrupts at the end of a command */
static void interrupts_of_entries(Psp *p)
{
    /* A command whose entry requests no interrupt raises none */
    put_entries(p, LOW, 0, 8, STATUS);
    ring_go(p, 1, 0);
    await_head(p, LOW_RUNS | HIGH_RUNS | 1);
    ring_go(p, 1, 0);
    g_assert(!interrupted(p));
    /*
     * An entry with INT_DONE raises an interrupt at the end of its command.
     * COMPLETE stays set until a doorbell with CLEAR, but a bit that is still
     * set does not raise another interrupt at the next doorbell.
     */
    put_entry(p, LOW, 1, STATUS, INT_DONE, ARG);
    ring_go(p, 2, 0);
    await_head(p, COMPLETE | LOW_RUNS | HIGH_RUNS | 2);
    g_assert(interrupted(p));
    ring_go(p, 2, 0);
    g_assert(!interrupted(p));
    g_assert_cmphex(psp_read(p, CMDBUF_LO) & INTS, ==, COMPLETE);
    ring_go(p, 2, CLEAR);
    g_assert_cmphex(psp_read(p, CMDBUF_LO) & INTS, ==, 0);
    /*
     * An entry with INT_DONE raises an interrupt even if its command fails.
     * The pause of a queue raises an interrupt even without INT_DONE.
     */
    put_entry(p, LOW, 2, NONE, INT_DONE | GO_ON, 0);
    ring_go(p, 3, 0);
    await_head(p, COMPLETE | LOW_RUNS | HIGH_RUNS | 3);
    g_assert(interrupted(p));
    put_entry(p, LOW, 3, NONE, 0, 0);
    ring_go(p, 4, 0);
    await_head(p, COMPLETE | PAUSED | HIGH_RUNS | 4);
    g_assert(interrupted(p));
}

/*
 * A command in the mailbox raises an interrupt only if the host sets bit 0 of
 * CMDRESP.  The test writes STATUS without this bit; STATUS also ends ring
 * buffer mode.  The test then writes RING_BUFFER, with the argument @c, with
 * this bit.
 */
static void interrupts_of_mailbox(Psp *p, const Config *c)
{
    g_assert_cmphex(psp_cmd(p, STATUS), ==, 0x1f);
    g_assert(!interrupted(p));
    put_config(p, c);
    psp_write(p, CMDBUF_LO, BUF);
    psp_write(p, CMDRESP, RING_BUFFER << 16 | 1);
    g_assert_cmphex(psp_wait(p, RING_BUFFER), ==, 0);
    g_assert(interrupted(p));
}

/* The low queue is nearly empty if it has fewer than two entries */
static void interrupts_of_threshold(Psp *p)
{
    /*
     * A queue with two entries is not nearly empty.  A queue with one entry is
     * nearly empty, but the interrupt for this is disabled.
     */
    put_entries(p, LOW, 0, 8, STATUS);
    ring_go(p, 3, 0);
    await_head(p, LOW_RUNS | HIGH_RUNS | 3);
    g_assert(!interrupted(p));
    /* The interrupt is enabled for the high queue only */
    ring_go(p, 4, NEAR_INT << 1);
    await_head(p, LOW_RUNS | HIGH_RUNS | 4);
    g_assert(!interrupted(p));
    ring_go(p, 5, NEAR_INT);
    await_head(p, NEAR | LOW_RUNS | HIGH_RUNS | 5);
    g_assert(interrupted(p));
    /*
     * The queue has three entries when the firmware takes entry 5 and two when
     * it takes entry 6, so the queue is not nearly empty.  Entry 6 fails, so
     * the firmware pauses the queue.  Then only entry 7 is left, but the
     * firmware does not set NEAR for a queue that is paused.
     */
    put_entry(p, LOW, 6, NONE, 0, 0);
    ring_go(p, 8, NEAR_INT | CLEAR);
    await_head(p, HIGH_RUNS | 7);
    g_assert(interrupted(p));
}

static void test_interrupts(void)
{
    Config near = both;
    Psp p;

    ring_open(&p, "", &both);
    psp_enable_msi(&p, MSI_ADDR);
    psp_write(&p, INTEN, 2);
    g_assert(!interrupted(&p));
    interrupts_of_entries(&p);
    near.int_on_empty = 0xfffe;
    near.thresholds[0] = 2;
    interrupts_of_mailbox(&p, &near);
    interrupts_of_threshold(&p);
    psp_close(&p);
}

/*
 * Wait until the device has executed @name: the busy time of this command then
 * differs from @before.  Afterwards only the virtual clock determines when the
 * command ends.
 */
static void await_executed(Psp *p, const char *name, uint64_t before)
{
    for (int i = 0; i < 100000; i++) {
        if (psp_stat_of(p, name, "busy-ns") != before) {
            return;
        }
        g_usleep(100);
    }
    g_assert_not_reached();
}

/*
 * Check that the present command ends after exactly @ns of virtual time: the
 * head register must become @head then, and not 1 ns earlier.
 */
static void assert_takes(Psp *p, const char *name, uint64_t *busy_ns,
                         int64_t ns, uint32_t head)
{
    await_executed(p, name, *busy_ns);
    *busy_ns = psp_stat_of(p, name, "busy-ns");
    qtest_clock_step(p->qts, ns - 1);
    g_assert_cmphex(psp_read(p, CMDBUF_LO), !=, head);
    qtest_clock_step(p->qts, 1);
    g_assert_cmphex(psp_read(p, CMDBUF_LO), ==, head);
}

#define COSTS ",cost-doorbell-ns=500,cost-command-ns=1000"

/*
 * The firmware needs the time cost-doorbell-ns once for each doorbell, however
 * many entries it then executes
 */
static void test_costs(void)
{
    uint64_t busy = 0;
    Psp p;

    ring_open(&p, COSTS, &low_only);
    put_entries(&p, LOW, 0, 8, STATUS);
    ring_go(&p, 3, CLEAR);
    assert_takes(&p, "PLATFORM_STATUS", &busy, 1500, LOW_RUNS | 1);
    assert_status(&p, LOW, 0, 0);
    assert_not_posted(&p, LOW, 1);
    assert_takes(&p, "PLATFORM_STATUS", &busy, 1000, LOW_RUNS | 2);
    assert_takes(&p, "PLATFORM_STATUS", &busy, 1000, LOW_RUNS | EMPTY | 3);
    g_assert(!query_is(&p, "busy"));

    /*
     * The host adds an entry while the firmware executes an earlier one.  The
     * second doorbell then costs no time, because the firmware reads the tail
     * when the earlier entry is done.
     */
    ring_go(&p, 4, CLEAR);
    await_executed(&p, "PLATFORM_STATUS", busy);
    ring_go(&p, 5, CLEAR);
    assert_takes(&p, "PLATFORM_STATUS", &busy, 1500, LOW_RUNS | 4);
    assert_takes(&p, "PLATFORM_STATUS", &busy, 1000, LOW_RUNS | EMPTY | 5);

    /*
     * A command in the mailbox ends the mode and is not executed, so it takes
     * only the time of the doorbell
     */
    psp_give(&p, STATUS, BUF, false);
    qtest_clock_step(p.qts, 499);
    g_assert_cmphex(psp_read(&p, CMDRESP), ==, STATUS << 16);
    qtest_clock_step(p.qts, 1);
    g_assert_cmphex(psp_read(&p, CMDRESP), ==, DONE | STATUS << 16 | 0x1f);
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "busy-ns"), ==, busy);
    psp_close(&p);
}

/*
 * Each time the firmware takes an entry, it takes one from the low queue only
 * if the high queue is empty
 */
static void test_priority(void)
{
    const uint32_t run = LOW_RUNS | HIGH_RUNS;
    uint64_t busy = 0;
    Psp p;

    ring_open(&p, COSTS, &both);
    put_entries(&p, LOW, 0, 2, STATUS);
    put_entries(&p, HIGH, 0, 3, STATUS);
    ring_go(&p, HIGH_AT(2) | 2, 0);
    assert_takes(&p, "PLATFORM_STATUS", &busy, 1500, run | HIGH_AT(1));
    assert_takes(&p, "PLATFORM_STATUS", &busy, 1000, run | HIGH_AT(2));
    await_executed(&p, "PLATFORM_STATUS", busy);
    ring_go(&p, HIGH_AT(3) | 2, 0);
    assert_takes(&p, "PLATFORM_STATUS", &busy, 1000, run | HIGH_AT(2) | 1);
    assert_takes(&p, "PLATFORM_STATUS", &busy, 1000, run | HIGH_AT(3) | 1);
    assert_takes(&p, "PLATFORM_STATUS", &busy, 1000, run | HIGH_AT(3) | 2);
    psp_close(&p);
}

/* A command in the mailbox ends the mode and is not executed */
static void test_leave(void)
{
    static const uint32_t also[] = { 1u << 31, 1u << 30, 0 };
    uint64_t busy = 0;
    Psp p;

    ring_open(&p, "", &low_only);
    put_entries(&p, LOW, 0, 4, STATUS);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, STATUS), ==, 0x1f);
    g_assert_cmpuint(qtest_readb(p.qts, BUF), ==, 0);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, BUF);
    g_assert_cmphex(psp_cmd(&p, STATUS), ==, 0);
    g_assert_cmpuint(qtest_readb(p.qts, BUF), ==, 1);
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "count"), ==, 2);
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "failed"), ==, 1);

    /*
     * In ring buffer mode, a write to CMDRESP is a doorbell only if bits 30 and
     * 31 of the value are both set.  A write of any other value ends the mode.
     */
    for (unsigned i = 0; i < ARRAY_SIZE(also); i++) {
        g_assert_cmphex(ring_enter(&p, &low_only), ==, 0);
        psp_write(&p, CMDBUF_HI, 1);
        psp_write(&p, CMDRESP, also[i] | STATUS << 16);
        g_assert_cmphex(psp_wait(&p, STATUS), ==, 0x1f);
        assert_not_posted(&p, LOW, 0);
        g_assert(!query_is(&p, "ring"));
    }
    psp_close(&p);

    /*
     * If the mode ends while a command of a queue executes, this command is
     * completed, and the next one does not begin
     */
    ring_open(&p, COSTS, &low_only);
    put_entries(&p, LOW, 0, 4, STATUS);
    ring_go(&p, 4, CLEAR);
    await_executed(&p, "PLATFORM_STATUS", busy);
    psp_give(&p, DF_FLUSH, BUF, false);
    g_assert_cmphex(psp_wait(&p, DF_FLUSH), ==, 0x1f);
    assert_status(&p, LOW, 0, 0);
    assert_not_posted(&p, LOW, 1);
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "count"), ==, 1);
    g_assert(!query_is(&p, "ring"));
    psp_close(&p);
}

/*
 * SHUTDOWN in a queue ends the mode.  The firmware still writes the status of
 * SHUTDOWN to the queue's statuses.
 */
static void test_shutdown(void)
{
    Psp p;

    ring_open(&p, "", &low_only);
    put_entries(&p, LOW, 0, 3, STATUS);
    put_entry(&p, LOW, 1, SHUTDOWN, INT_DONE, 0);
    ring_go(&p, 3, CLEAR);
    await_head(&p, COMPLETE | LOW_RUNS | 2);
    assert_status(&p, LOW, 1, 0);
    assert_not_posted(&p, LOW, 2);
    g_assert(!query_is(&p, "ring"));
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "count"), ==, 1);
    psp_init(&p);
    psp_close(&p);
}

/*
 * SHUTDOWN in the mailbox ends ring buffer mode and does not shut the platform
 * down
 */
static void test_shutdown_mailbox(void)
{
    Psp p;

    ring_open(&p, "", &low_only);
    g_assert_cmphex(psp_cmd(&p, SHUTDOWN), ==, 0x1f);
    g_assert_cmphex(psp_cmd(&p, INIT), ==, 0x01);
    g_assert_cmphex(psp_cmd(&p, SHUTDOWN), ==, 0);
    psp_init(&p);
    psp_close(&p);
}

/*
 * Execute one command in the low queue, at @index, while both queues run.
 * assert_status() checks the result.
 */
static void both_cmd(Psp *p, unsigned index, unsigned cmd, uint64_t buf)
{
    put_entry(p, LOW, index, cmd, GO_ON, buf);
    ring_go(p, index + 1, CLEAR);
    await_head(p, LOW_RUNS | HIGH_RUNS | EMPTY | (index + 1));
}

/*
 * Execute three commands, at @index and after it, that use memory at @to.  The
 * firmware refuses them with @status if the memory is in the pages of a queue.
 */
static void overlap_cmds(Psp *p, unsigned index, uint32_t handle, uint64_t to,
                         unsigned status)
{
    /* A command writes its output to @to */
    qtest_writeq(p->qts, ARG, to);
    qtest_writel(p->qts, ARG + 8, 64);
    both_cmd(p, index, GET_ID, ARG);
    assert_status(p, LOW, index, status);
    /* The buffer of a command is at @to */
    both_cmd(p, index + 1, STATUS, to);
    if (to != LOW - 63) {
        assert_status(p, LOW, index + 1, status);
    }
    /* The guest memory for a command is at @to */
    qtest_memset(p->qts, ARG, 0, 64);
    qtest_writel(p->qts, ARG, handle);
    qtest_writeq(p->qts, ARG + 8, to & ~15ull);
    qtest_writel(p->qts, ARG + 16, 64);
    both_cmd(p, index + 2, 0x31, ARG);
    if ((to & 15) == 0) {
        assert_status(p, LOW, index + 2, status);
    }
}

/*
 * The firmware refuses ACTIVATE_EX if the list of cores that it would read is
 * in the pages of a queue
 */
static void overlap_activate_ex(Psp *p, unsigned index, uint32_t handle)
{
    qtest_memset(p->qts, ARG, 0, 64);
    qtest_writel(p->qts, ARG, 24);
    qtest_writel(p->qts, ARG + 4, handle);
    qtest_writel(p->qts, ARG + 8, 2);
    qtest_writel(p->qts, ARG + 12, 1);
    qtest_writeq(p->qts, ARG + 16, LOW + 8);
    both_cmd(p, index, 0x25, ARG);
    assert_status(p, LOW, index, 0x09);
}

/*
 * The pages of a queue belong to the firmware: no command reads or writes them
 */
static void test_overlap(void)
{
    static const uint64_t good[] = {
        LOW - 64, HIGH - 64, LOW + 2 * PAGE, HIGH + 2 * PAGE,
    };
    static const uint64_t bad[] = {
        LOW - 63, LOW, LOW + 0x800, LOW + PAGE, LOW + 2 * PAGE - 1,
        HIGH - 1, HIGH + PAGE, HIGH + 2 * PAGE - 64, (HIGH + 64) | CBIT,
    };
    Config c = both;
    unsigned n = 0;
    uint32_t handle;
    Psp p;

    c.int_on_empty = 1;
    psp_open(&p, "");
    psp_init(&p);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0);
    handle = qtest_readl(p.qts, BUF);
    qtest_writel(p.qts, BUF + 4, 1);
    g_assert_cmphex(psp_cmd(&p, 0x21), ==, 0);      /* ACTIVATE */
    g_assert_cmphex(ring_enter(&p, &c), ==, 0);

    for (unsigned i = 0; i < ARRAY_SIZE(good); i++, n += 3) {
        overlap_cmds(&p, n, handle, good[i], 0);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++, n += 3) {
        overlap_cmds(&p, n, handle, bad[i], 0x09);
    }
    overlap_activate_ex(&p, n, handle);

    /* After ring buffer mode has ended, commands can write to these pages */
    g_assert_cmphex(psp_cmd(&p, STATUS), ==, 0x1f);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        clear(&p);
        qtest_writeq(p.qts, BUF, bad[i]);
        qtest_writel(p.qts, BUF + 8, 64);
        g_assert_cmphex(psp_cmd(&p, GET_ID), ==, 0);
    }
    psp_close(&p);
}

/* PAM1 of the host bridge switches RAM at 0xc0000 on and off */
static void set_pam(Psp *p, bool ram)
{
    qtest_outl(p->qts, 0xcf8, 0x80000090);
    qtest_outb(p->qts, 0xcfd, ram ? 0x33 : 0);
}

/* The host switches off the RAM of a queue while the queue is used */
static void test_no_ram(void)
{
    Config c = low_only;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    put_entries(&p, LOW, 0, 4, STATUS);
    c.pages[1] = 0xc0000;
    set_pam(&p, false);
    g_assert_cmphex(ring_enter(&p, &c), ==, 0x09);
    set_pam(&p, true);
    g_assert_cmphex(ring_enter(&p, &c), ==, 0);
    set_pam(&p, false);
    ring_go(&p, 2, 0);
    await_head(&p, PAUSED | EMPTY | 1);
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "count"), ==, 1);

    set_pam(&p, true);
    ring_go(&p, 2, CLEAR | RESUME);
    ring_go(&p, 2, CLEAR);
    await_head(&p, LOW_RUNS | EMPTY | 2);
    g_assert_cmphex(qtest_readw(p.qts, 0xc0000 + 16), ==, 0);
    g_assert_cmphex(psp_cmd(&p, STATUS), ==, 0x1f);

    /* Entries that cannot be read are not executed */
    c = low_only;
    c.pages[0] = 0xc0000;
    put_entries(&p, 0xc0000, 0, 4, STATUS);
    g_assert_cmphex(ring_enter(&p, &c), ==, 0);
    set_pam(&p, false);
    ring_go(&p, 2, 0);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, PAUSED);
    g_assert(!query_is(&p, "busy"));
    psp_close(&p);
}

/* Entries 0 to 3: the third command fails, and the firmware pauses the queue */
static void fault_status(Psp *p)
{
    psp_inject(p, "[{'kind': 'status', 'command': 'PLATFORM_STATUS', 'nth': 3,"
                  "  'status': 23}]");
    ring_go(p, 4, 0);
    await_head(p, PAUSED | EMPTY | 3);
    assert_status(p, LOW, 1, 0);
    assert_status(p, LOW, 2, 23);
    g_assert_cmpuint(qtest_readb(p->qts, ARG + 2 * 256), ==, 0);
    g_assert_cmpuint(psp_stat_of(p, "PLATFORM_STATUS", "faults"), ==, 1);
    g_assert(interrupted(p));
    ring_go(p, 4, CLEAR | RESUME);
    g_assert(interrupted(p));
}

/*
 * Entries 4 and 5: corrupt the first byte of the second command's output.  This
 * byte is the API's major version, which is 1 in the output of the other
 * commands.
 */
static void fault_corrupt(Psp *p)
{
    psp_inject(p, "[{'kind': 'corrupt', 'offset': 0, 'nth': 2}]");
    ring_go(p, 6, CLEAR);
    await_head(p, LOW_RUNS | EMPTY | 6);
    assert_status(p, LOW, 4, 0);
    g_assert_cmpuint(qtest_readb(p->qts, ARG + 3 * 256), ==, 1);
    g_assert_cmpuint(qtest_readb(p->qts, ARG + 4 * 256), ==, 0);
    g_assert_cmpuint(qtest_readb(p->qts, ARG + 5 * 256), ==, 1);
    g_assert(interrupted(p));
}

/* Entries 6 to 9, two for each doorbell */
static void fault_no_interrupt(Psp *p)
{
    /*
     * If the fault "no-interrupt" hits the last command of a doorbell, there
     * is no interrupt.  The next doorbell raises an interrupt again.
     */
    psp_inject(p, "[{'kind': 'no-interrupt', 'nth': 2}]");
    ring_go(p, 8, CLEAR);
    await_head(p, LOW_RUNS | EMPTY | 8);
    g_assert(!interrupted(p));
    ring_go(p, 8, CLEAR);
    g_assert(interrupted(p));
    /*
     * If the fault hits an earlier command of the doorbell, there is an
     * interrupt
     */
    psp_inject(p, "[{'kind': 'no-interrupt'}]");
    ring_go(p, 10, CLEAR);
    await_head(p, LOW_RUNS | EMPTY | 10);
    g_assert(interrupted(p));
}

/*
 * Entries 10 and 11: a late command delays the commands that follow it in the
 * queue
 */
static void fault_late(Psp *p)
{
    uint64_t busy = psp_stat_of(p, "PLATFORM_STATUS", "busy-ns");

    psp_inject(p, "[{'kind': 'late', 'delay-us': 3000000}]");
    ring_go(p, 12, CLEAR);
    await_executed(p, "PLATFORM_STATUS", busy);
    qtest_clock_step(p->qts, 2999999999);
    g_assert_cmphex(psp_read(p, CMDBUF_LO), ==, LOW_RUNS | 10);
    assert_not_posted(p, LOW, 10);
    qtest_clock_step(p->qts, 1);
    await_head(p, LOW_RUNS | EMPTY | 12);
    g_assert(interrupted(p));
}

/* Faults apply to the commands that end and begin ring buffer mode */
static void fault_of_mode(Psp *p)
{
    psp_inject(p, "[{'kind': 'status', 'status': 24}]");
    g_assert_cmphex(psp_cmd(p, STATUS), ==, 24);
    g_assert(!query_is(p, "ring"));
    g_assert_cmphex(psp_cmd(p, STATUS), ==, 0);
    psp_inject(p, "[{'kind': 'status', 'status': 24,"
                  "  'command': 'RING_BUFFER'}]");
    g_assert_cmphex(ring_enter(p, &low_only), ==, 24);
    g_assert(!query_is(p, "ring"));
    g_assert_cmphex(psp_cmd(p, STATUS), ==, 0);
}

/* Faults apply to commands in queues as well */
static void test_faults(void)
{
    Psp p;

    ring_open(&p, "", &low_only);
    psp_enable_msi(&p, MSI_ADDR);
    psp_write(&p, INTEN, 2);
    put_entries(&p, LOW, 0, 20, STATUS);
    fault_status(&p);
    fault_corrupt(&p);
    fault_no_interrupt(&p);
    fault_late(&p);
    fault_of_mode(&p);
    psp_close(&p);
}

/*
 * The fault "skip": the firmware does not execute a command of a queue and
 * writes no status for it
 */
static void test_fault_skip(void)
{
    Psp p;

    ring_open(&p, "", &low_only);
    put_entries(&p, LOW, 0, 4, STATUS);
    psp_inject(&p, "[{'kind': 'skip', 'command': 'PLATFORM_STATUS',"
                   "  'nth': 2}]");
    ring_go(&p, 4, CLEAR);
    await_head(&p, LOW_RUNS | EMPTY | 4);
    assert_status(&p, LOW, 0, 0);
    assert_not_posted(&p, LOW, 1);
    assert_status(&p, LOW, 2, 0);
    g_assert_cmpuint(qtest_readb(p.qts, ARG), ==, 1);
    g_assert_cmpuint(qtest_readb(p.qts, ARG + 256), ==, 0);
    g_assert_cmpuint(qtest_readb(p.qts, ARG + 2 * 256), ==, 1);
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "faults"), ==, 1);
    g_assert_cmphex(psp_cmd(&p, STATUS), ==, 0x1f);

    /*
     * The fault also affects a command in the mailbox: the firmware does not
     * execute RING_BUFFER, so ring buffer mode stays off, but the firmware
     * reports success.
     */
    psp_inject(&p, "[{'kind': 'skip'}]");
    g_assert_cmphex(ring_enter(&p, &low_only), ==, 0);
    g_assert(!query_is(&p, "ring"));
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, BUF);
    psp_close(&p);
}

/*
 * The fault "restart": the firmware restarts and loses all state except the
 * enabled interrupts
 */
static void test_fault_restart(void)
{
    g_autofree char *text = NULL;
    Psp p;

    ring_open(&p, "", &low_only);
    psp_write(&p, INTEN, 2);
    put_entries(&p, LOW, 0, 8, STATUS);
    psp_inject(&p, "[{'kind': 'restart', 'delay-us': 1000, 'nth': 2}]");
    text = qtest_hmp(p.qts, "info sev-platform");
    g_assert_nonnull(strstr(text, "fault: restart after 1000 us, at "));
    ring_go(&p, 2, CLEAR);
    await_head(&p, LOW_RUNS | EMPTY | 2);
    assert_status(&p, LOW, 1, 0);
    g_assert(query_is(&p, "ring"));
    qtest_clock_step(p.qts, 999999);
    g_assert(query_is(&p, "ring"));
    qtest_clock_step(p.qts, 1);
    psp_await(&p, CMDRESP, ~0u, 0);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, 0);
    g_assert_cmphex(psp_read(&p, CMDBUF_HI), ==, 0);
    g_assert_cmphex(psp_read(&p, INTEN), ==, 2);
    g_assert(!query_is(&p, "ring"));

    /*
     * The restart has ended the mode, so the firmware takes the next command
     * from the mailbox.  The restart has also put the platform into the state
     * UNINIT.
     */
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, STATUS), ==, 0);
    g_assert_cmpuint(qtest_readb(p.qts, BUF + 2), ==, 0);
    g_assert_cmphex(psp_cmd(&p, DF_FLUSH), ==, 0x01);
    psp_init(&p);
    forget_statuses(&p);
    g_assert_cmphex(ring_enter(&p, &low_only), ==, 0);

    /* A restart during a long command: the command never ends */
    psp_inject(&p, "[{'kind': 'restart', 'delay-us': 1000},"
                   " {'kind': 'late', 'delay-us': 5000, 'nth': 2}]");
    ring_go(&p, 3, CLEAR);
    psp_await(&p, CMDBUF_LO, 0xff, 1);
    qtest_clock_step(p.qts, 10000000);
    psp_await(&p, CMDRESP, ~0u, 0);
    assert_not_posted(&p, LOW, 1);
    psp_init(&p);
    psp_close(&p);
}

/* The fault "hang": the firmware executes no command until it is reset */
static void test_hang(void)
{
    Psp p;

    ring_open(&p, "", &low_only);
    put_entries(&p, LOW, 0, 4, STATUS);
    psp_inject(&p, "[{'kind': 'hang', 'nth': 2}]");
    ring_go(&p, 4, CLEAR);
    await_head(&p, LOW_RUNS | 1);
    g_assert(query_is(&p, "hung"));
    ring_go(&p, 3, CLEAR);
    qtest_clock_step(p.qts, 1000 * 1000 * 1000);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, LOW_RUNS | 1);
    /* Leaving the mode does not help */
    psp_give(&p, STATUS, BUF, false);
    qtest_clock_step(p.qts, 1000 * 1000 * 1000);
    g_assert_cmphex(psp_read(&p, CMDRESP), ==, STATUS << 16);
    assert_not_posted(&p, LOW, 1);

    psp_reset(&p);
    g_assert(!query_is(&p, "hung"));
    g_assert(!query_is(&p, "ring"));
    psp_init(&p);
    g_assert_cmphex(ring_enter(&p, &low_only), ==, 0);
    ring_go(&p, 2, CLEAR);
    await_head(&p, LOW_RUNS | EMPTY | 2);
    psp_close(&p);
}

/* After a reset, the device never writes the status of an unfinished command */
static void test_reset(void)
{
    Psp p;

    ring_open(&p, COSTS, &both);
    put_entries(&p, LOW, 0, 4, STATUS);
    ring_go(&p, 4, CLEAR);
    await_executed(&p, "PLATFORM_STATUS", 0);
    psp_reset(&p);
    g_assert(!query_is(&p, "busy"));
    g_assert(!query_is(&p, "ring"));
    qtest_clock_step(p.qts, 1000 * 1000);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, 0);
    g_assert_cmphex(psp_read(&p, CMDBUF_HI), ==, 0);
    g_assert_cmphex(psp_read(&p, CMDRESP), ==, 0);
    assert_not_posted(&p, LOW, 0);
    assert_not_posted(&p, LOW, 1);
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "count"), ==, 1);
    psp_init(&p);
    psp_close(&p);
}

static void test_trace(void)
{
    g_autofree char *path = NULL, *options = NULL, *text = NULL;
    int fd;
    Psp p;

    fd = g_file_open_tmp("amd-psp-ring-test-XXXXXX", &path, NULL);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
    options = g_strdup_printf(" -D %s -d trace:amd_psp_ring_enter,"
                              "trace:amd_psp_ring_leave,"
                              "trace:amd_psp_ring_pause,"
                              "trace:amd_psp_request", path);
    psp_open(&p, options);
    psp_init(&p);
    g_assert_cmphex(ring_enter(&p, &low_only), ==, 0);
    put_entry(&p, LOW, 0, NONE, 0, 0);
    ring_go(&p, 1, 0);
    await_head(&p, PAUSED | EMPTY | 1);
    g_assert_cmphex(psp_cmd(&p, STATUS), ==, 0x1f);
    psp_close(&p);

    text = psp_take_trace(path);
    if (!*text) {
        g_test_skip("QEMU was built without the trace backend 'log'");
        return;
    }
    g_assert_nonnull(strstr(text, "RING_BUFFER: low 0x130000, "
                            "low-status 0x131000, "));
    g_assert_nonnull(strstr(text, "int-on-empty 0x1"));
    g_assert_nonnull(strstr(text, "low queue 0x130000, its statuses "
                            "0x131000; "));
    g_assert_nonnull(strstr(text, "low queue before entry 1: a command "
                            "failed"));
    g_assert_nonnull(strstr(text, "a command for the mailbox"));
}

/*
 * If a vCPU writes the doorbell, the device executes the commands within this
 * write.  There are two exceptions, which the device executes later: commands
 * for which all vCPUs must stop, and commands that exceed the limits for one
 * write.
 */
static void test_vcpu(void)
{
    Psp p;

    psp_open_accel(&p, "-accel tcg", "");
    p.write = vcpu_write;
    psp_enable_msi(&p, MSI_ADDR);
    psp_write(&p, INTEN, 2);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, INIT), ==, 0);
    forget_statuses(&p);
    g_assert_cmphex(ring_enter(&p, &low_only), ==, 0);
    put_entries(&p, LOW, 0, 8, STATUS);
    ring_go(&p, 8, CLEAR);
    /* When the vCPU's write ends, the device has executed all commands */
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, LOW_RUNS | EMPTY | 8);
    g_assert(interrupted(&p));
    for (unsigned i = 0; i < 8; i++) {
        assert_status(&p, LOW, i, 0);
    }

    put_entries(&p, LOW, 8, 200, STATUS);
    ring_go(&p, 208, CLEAR);
    await_head(&p, LOW_RUNS | EMPTY | 208);
    assert_status(&p, LOW, 207, 0);
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "count"), ==, 208);
    g_assert(interrupted(&p));

    put_entries(&p, LOW, 208, 40, STATUS);
    put_entry(&p, LOW, 210, 0x22, GO_ON, ARG);      /* DEACTIVATE */
    ring_go(&p, 248, CLEAR);
    await_head(&p, LOW_RUNS | EMPTY | 248);
    assert_status(&p, LOW, 209, 0);
    assert_status(&p, LOW, 210, 0x01);
    assert_status(&p, LOW, 247, 0);

    put_entries(&p, LOW, 248, 3, SHUTDOWN);
    ring_go(&p, 251, CLEAR);
    await_head(&p, LOW_RUNS | 249);
    assert_status(&p, LOW, 248, 0);
    assert_not_posted(&p, LOW, 249);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, INIT), ==, 0);
    psp_close(&p);
}

int main(int argc, char **argv)
{
    int fd, ret;

    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_device("amd-psp")) {
        g_test_skip("QEMU has no amd-psp device: built without hogweed?");
        return 0;
    }
    qtest_add_func("/amd-psp-ring/enter", test_enter);
    qtest_add_func("/amd-psp-ring/batch", test_batch);
    qtest_add_func("/amd-psp-ring/wrap", test_wrap);
    qtest_add_func("/amd-psp-ring/pause", test_pause);
    qtest_add_func("/amd-psp-ring/pause/one", test_pause_one);
    qtest_add_func("/amd-psp-ring/interrupts", test_interrupts);
    qtest_add_func("/amd-psp-ring/costs", test_costs);
    qtest_add_func("/amd-psp-ring/priority", test_priority);
    qtest_add_func("/amd-psp-ring/leave", test_leave);
    qtest_add_func("/amd-psp-ring/shutdown", test_shutdown);
    qtest_add_func("/amd-psp-ring/shutdown/mailbox", test_shutdown_mailbox);
    qtest_add_func("/amd-psp-ring/overlap", test_overlap);
    qtest_add_func("/amd-psp-ring/no-ram", test_no_ram);
    qtest_add_func("/amd-psp-ring/faults", test_faults);
    qtest_add_func("/amd-psp-ring/fault/skip", test_fault_skip);
    qtest_add_func("/amd-psp-ring/fault/restart", test_fault_restart);
    qtest_add_func("/amd-psp-ring/hang", test_hang);
    qtest_add_func("/amd-psp-ring/reset", test_reset);
    qtest_add_func("/amd-psp-ring/trace", test_trace);
    if (qtest_has_accel("tcg")) {
        qtest_add_func("/amd-psp-ring/vcpu", test_vcpu);
    }

    fd = g_file_open_tmp("amd-psp-ring-test-XXXXXX", &firmware, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, CODE_LEN), ==, 0);
    g_assert_cmpint(pwrite(fd, vcpu_code, sizeof(vcpu_code), 0), ==,
                    sizeof(vcpu_code));
    /*
     * The vCPU starts at RESET_AT, where it finds a jump to vcpu_code at offset
     * 0: the 16-bit instruction pointer wraps from 0xfff3 + 0xd to 0
     */
    g_assert_cmpint(pwrite(fd, "\xe9\x0d", 3, RESET_AT), ==, 3);
    close(fd);
    ret = g_test_run();
    unlink(firmware);
    g_free(firmware);
    return ret;
}
