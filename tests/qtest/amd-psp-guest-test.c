/*
 * SEV guests on the emulated platform, without operating systems
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The machine runs a hypervisor of 130 bytes, which executes the commands of
 * the test, and a guest of 70 bytes.  The test checks whether the guest's
 * memory can be read outside of the guest.  The test itself creates page tables
 * and the VMCB in the machine's memory, and issues the commands of the PSP.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "amd-psp-mailbox.h"

/*
 * Addresses in the machine's memory.  The guest's pages are those from CODE to
 * VMSA.  They are private unless their comment says "shared".
 */
#define TODO            0x500   /* the hypervisor's next command, DO_* */
#define DID             0x504   /* number of commands that it has executed */
#define PAGE            0x6000  /* the page for DO_WRITE and DO_FLUSH */
#define PDPT            0x11000 /* the hypervisor's page tables */
#define PD_LOW          0x12000
#define PD_HIGH         0x13000
#define VMCB            0x14000
#define NESTED_PDPT     0x16000
#define NESTED_PD       0x17000
#define CODE            0x20000 /* the guest's code */
#define SECRET          0x21000
#define GUEST_PDPT      0x22000
#define GUEST_PD        0x23000
#define SHARED          0x24000 /* shared */
#define FLAG            0x25000 /* shared: the guest exits if FLAG is not 0 */
#define TOUCH           (FLAG + 4) /* shared: address of a value to increment */
#define VMSA            0x26000 /* private: state of a vCPU with SEV-ES */
#define BUF             0x30000 /* command buffer of the PSP */
#define MEMORY_END      0x40000
#define TMR             0x800000 /* memory that the firmware needs for SEV-ES */

/* Guest address of the shared view of the same memory */
#define GUEST_SHARED    0x200000

#define DO_WBINVD       1
#define DO_VMRUN        2
#define DO_WRITE        3
#define DO_FLUSH        4

/* Page table entries.  LARGE: present, writable, accessed, dirty, 2 MiB */
#define ENTRY           0x01
#define LARGE           0xe3
#define USER            0x04

/* Exit codes, and a bit of EXITINFO1 of nested page faults */
#define EXIT_VMMCALL    0x81
#define EXIT_NPF        0x400
#define EXIT_VMGEXIT    0x403
#define EXIT_INVALID    UINT64_MAX
#define NPF_RSVD        (1 << 3)

static const uint8_t hypervisor[] = {
    0xfa,                               /*     cli */
    0x31, 0xc0, 0x8e, 0xd8,             /*     ds = 0 */
    0x66, 0xb8, 0x20, 0, 0, 0,
    0x0f, 0x22, 0xe0,                   /*     cr4 = PAE */
    0x66, 0xb8, 0, 0x10, 0x01, 0,
    0x0f, 0x22, 0xd8,                   /*     cr3 = PDPT */
    0x66, 0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32,
    0x80, 0xcc, 0x10, 0x0f, 0x30,       /*     EFER |= SVME */
    0x66, 0xb9, 0x17, 0x01, 0x01, 0xc0,
    0x66, 0xb8, 0, 0x50, 0x01, 0, 0x66, 0x31, 0xd2,
    0x0f, 0x30,                         /*     VM_HSAVE_PA = 0x15000 */
    0x66, 0xb8, 0x11, 0, 0, 0x80,
    0x0f, 0x22, 0xc0,                   /*     cr0 = PG | ET | PE */
    0xf3, 0x90,                         /* 1:  pause */
    0xa0, 0x00, 0x05,                   /*     al = [TODO] */
    0x3c, DO_WBINVD, 0x74, 0x1a,        /*     je 3f */
    0x3c, DO_VMRUN, 0x74, 0x0a,         /*     je 2f */
    0x3c, DO_WRITE, 0x74, 0x16,         /*     je 4f */
    0x3c, DO_FLUSH, 0x74, 0x19,         /*     je 5f */
    0xeb, 0xe9,                         /*     jmp 1b */
    0x66, 0xb8, 0, 0x40, 0x01, 0,       /* 2: */
    0x67, 0x0f, 0x01, 0xd8,             /*     vmrun VMCB */
    0xeb, 0x1a,                         /*     jmp 7f */
    0x0f, 0x09,                         /* 3:  wbinvd */
    0xeb, 0x16,                         /*     jmp 7f */
    0xc6, 0x06, 0x00, 0x60, 1,          /* 4:  [PAGE] = 1 */
    0xeb, 0x0f,                         /*     jmp 7f */
    0xbe, 0x00, 0x60,                   /* 5:  si = PAGE */
    0x0f, 0xae, 0x3c,                   /* 6:  clflush [si] */
    0x83, 0xc6, 0x40,                   /*     si += 64 */
    0x81, 0xfe, 0x00, 0x70,             /*     si == PAGE + 4096? */
    0x75, 0xf4,                         /*     jne 6b */
    0xc6, 0x06, 0x00, 0x05, 0,          /* 7:  [TODO] = 0 */
    0x66, 0xff, 0x06, 0x04, 0x05,       /*     [DID]++ */
    0xeb, 0xb7,                         /*     jmp 1b */
};
static const uint8_t reset_vector[] = { 0xe9, 0x0d, 0x00 };

static const uint8_t guest[] = {
    0xc7, 0x05, 0, 0x10, 2, 0, 'P', 'R', 'I', 'V',
    0xc7, 0x05, 4, 0x10, 2, 0, 'A', 'T', 'E', '!',
    0xc7, 0x05, 0, 0x40, 0x22, 0, 'S', 'H', 'A', 'R',
    0xc7, 0x05, 4, 0x40, 0x22, 0, 'E', 'D', '!', '!',
    0xff, 0x05, 0x10, 0x10, 2, 0,       /* 1:  [SECRET + 16]++ */
    0xa1, 0x04, 0x50, 0x22, 0,          /*     eax = [TOUCH] */
    0x85, 0xc0, 0x74, 0x02,             /*     eax == 0? je 2f */
    0xff, 0x00,                         /*     [eax]++ */
    0x83, 0x3d, 0, 0x50, 0x22, 0, 0,    /* 2:  [FLAG]? */
    0x74, 0xe6,                         /*     je 1b */
    0x0f, 0x01, 0xd9,                   /*     vmmcall */
    0xeb, 0xe1,                         /*     jmp 1b */
};
static const uint8_t es_guest[] = {
    0x40,                               /* 1:  eax++ */
    0xa3, 0x10, 0x10, 2, 0,             /*     [SECRET + 16] = eax */
    0xf3, 0x0f, 0x01, 0xd9,             /*     vmgexit */
    0xeb, 0xf4,                         /*     jmp 1b */
};
static const char marker[] = "PRIVATE!", shared_marker[] = "SHARED!!";
#define MARKER_LEN      8

typedef struct Host {
    QTestState *qts;
    QPCIBus *bus;
    QPCIDevice *psp;
    QPCIBar bar;
    unsigned cbit;
    bool es;            /* the guest has SEV-ES */
    uint32_t handle;
} Host;

static char *dir, *firmware;

static unsigned psp_cmd(Host *h, unsigned cmd)
{
    uint32_t resp;
    int i;

    qpci_io_writel(h->psp, h->bar, CMDBUF_LO, BUF);
    qpci_io_writel(h->psp, h->bar, CMDBUF_HI, 0);
    qpci_io_writel(h->psp, h->bar, CMDRESP, cmd << 16);
    for (i = 0; i < 3000; i++) {
        resp = qpci_io_readl(h->psp, h->bar, CMDRESP);
        if (resp & DONE) {
            return resp & 0xffff;
        }
        g_usleep(i < 100 ? 100 : 10000);
    }
    g_assert_not_reached();
}

/*
 * Issue a PSP command whose buffer has the guest's handle at offset 0.  At
 * offset 4, the buffer has the policy for LAUNCH_START, the ASID for ACTIVATE.
 */
static void guest_cmd(Host *h, unsigned cmd, uint64_t at8, uint32_t at16)
{
    qtest_memset(h->qts, BUF, 0, 64);
    qtest_writel(h->qts, BUF, h->handle);
    qtest_writel(h->qts, BUF + 4,
                 cmd == 0x21 ? 1 : cmd == 0x30 && h->es ? 1 << 2 : 0);
    qtest_writeq(h->qts, BUF + 8, at8);
    qtest_writel(h->qts, BUF + 16, at16);
    g_assert_cmphex(psp_cmd(h, cmd), ==, 0);
}

/* Let the hypervisor begin to execute the command @what */
static void begin(Host *h, uint8_t what)
{
    qtest_writeb(h->qts, TODO, what);
}

/* Wait until the hypervisor has executed the command */
static void done(Host *h)
{
    int i;

    for (i = 0; qtest_readb(h->qts, TODO); i++) {
        g_assert_cmpint(i, <, 6000);
        g_usleep(i < 100 ? 100 : 10000);
    }
}

static void put_table(Host *h, uint64_t table, unsigned index, uint64_t entry)
{
    qtest_writeq(h->qts, table + index * 8, entry);
}

static void put_segment(Host *h, uint64_t pa, uint16_t attributes)
{
    qtest_writew(h->qts, pa, 8);
    qtest_writew(h->qts, pa + 2, attributes);
    qtest_writel(h->qts, pa + 4, 0xffffffff);
}

/* Write the guest's initial state to @save, a VMSA or the VMCB's save area */
static void put_state(Host *h, uint64_t save)
{
    put_segment(h, save, 0xc93);
    put_segment(h, save + 0x10, 0xc9b);
    put_segment(h, save + 0x20, 0xc93);
    put_segment(h, save + 0x30, 0xc93);
    qtest_writeq(h->qts, save + 0xd0, 1 << 12);         /* EFER: SVME */
    qtest_writeq(h->qts, save + 0x148, 1 << 5);         /* CR4: PAE */
    qtest_writeq(h->qts, save + 0x150, GUEST_PDPT);
    qtest_writeq(h->qts, save + 0x158, 0x80000011);     /* CR0: PG, ET, PE */
    qtest_writeq(h->qts, save + 0x160, 0x400);          /* DR7 */
    qtest_writeq(h->qts, save + 0x168, 0xffff0ff0);     /* DR6 */
    qtest_writeq(h->qts, save + 0x170, 2);              /* RFLAGS */
    qtest_writeq(h->qts, save + 0x178, CODE);           /* RIP */
    qtest_writeq(h->qts, save + 0x268, 0x0007040600070406);     /* PAT */
}

static void make_vmcb(Host *h)
{
    qtest_memset(h->qts, VMCB, 0, 4096);
    qtest_writel(h->qts, VMCB + 0x10, 3);       /* intercept VMRUN, VMMCALL */
    qtest_writel(h->qts, VMCB + 0x58, 1);       /* ASID */
    qtest_writeb(h->qts, VMCB + 0x5c, 1);       /* flush TLBs */
    /* nested paging, SEV, SEV-ES */
    qtest_writeq(h->qts, VMCB + 0x90, h->es ? 7 : 3);
    qtest_writeq(h->qts, VMCB + 0xb0, NESTED_PDPT);
    if (h->es) {
        qtest_writeq(h->qts, VMCB + 0x108, VMSA);
        put_state(h, VMSA);
        qtest_writeq(h->qts, VMSA + 0x3e8, 1);          /* XCR0: x87 */
    } else {
        put_state(h, VMCB + 0x400);
    }
}

/* Launch the guest on a machine that was just started or reset */
static void launch(Host *h)
{
    static const uint64_t updated[] = { CODE, SECRET, GUEST_PDPT, GUEST_PD };
    uint64_t private = 1ull << h->cbit;
    unsigned i;

    h->bus = qpci_new_pc(h->qts, NULL);
    h->psp = qpci_device_find(h->bus, QPCI_DEVFN(4, 0));
    g_assert_nonnull(h->psp);
    /*
     * Map the BAR before the device is enabled.  Mapping writes ones to the BAR
     * to find its size, and the BAR of an enabled device would then cover the
     * ROM with the hypervisor's code.
     */
    h->bar = qpci_iomap(h->psp, 2, NULL);
    qpci_device_enable(h->psp);

    qtest_memset(h->qts, CODE, 0, MEMORY_END - CODE);
    if (h->es) {
        qtest_memwrite(h->qts, CODE, es_guest, sizeof(es_guest));
    } else {
        qtest_memwrite(h->qts, CODE, guest, sizeof(guest));
    }
    put_table(h, GUEST_PDPT, 0, GUEST_PD | ENTRY);
    put_table(h, GUEST_PD, 0, private | LARGE);
    put_table(h, GUEST_PD, GUEST_SHARED >> 21, LARGE);
    make_vmcb(h);

    qtest_memset(h->qts, BUF, 0, 64);
    if (h->es) {
        qtest_writel(h->qts, BUF, 1);
        qtest_writeq(h->qts, BUF + 8, TMR);
        qtest_writel(h->qts, BUF + 16, 1 << 20);
    }
    g_assert_cmphex(psp_cmd(h, 0x01), ==, 0);           /* INIT */
    begin(h, DO_WBINVD);
    done(h);
    g_assert_cmphex(psp_cmd(h, 0x0a), ==, 0);           /* DF_FLUSH */
    h->handle = 0;
    guest_cmd(h, 0x30, 0, 0);                           /* LAUNCH_START */
    h->handle = qtest_readl(h->qts, BUF);
    guest_cmd(h, 0x21, 0, 0);                           /* ACTIVATE */
    for (i = 0; i < ARRAY_SIZE(updated); i++) {
        guest_cmd(h, 0x31, updated[i], 4096);           /* LAUNCH_UPDATE_DATA */
    }
    if (h->es) {
        guest_cmd(h, 0x32, VMSA, 4096);                 /* LAUNCH_UPDATE_VMSA */
    }
    guest_cmd(h, 0x33, BUF + 256, 48);                  /* LAUNCH_MEASURE */
    guest_cmd(h, 0x35, 0, 0);                           /* LAUNCH_FINISH */
}

static void open_host_for(Host *h, bool es, unsigned cbit, const char *options)
{
    unsigned i;

    h->es = es;
    h->cbit = cbit;
    h->qts = qtest_initf("-accel tcg -nodefaults -machine q35 -m 16M -bios %s "
                         "-cpu EPYC-Milan,+svm,+npt,+sev,sev-cbitpos=%u,"
                         "sev-es-asids=%d "
                         "-device amd-psp,id=psp,addr=04.0 -S %s",
                         firmware, cbit, es, options);
    put_table(h, PDPT, 0, PD_LOW | ENTRY);
    put_table(h, PDPT, 3, PD_HIGH | ENTRY);
    put_table(h, NESTED_PDPT, 0, NESTED_PD | ENTRY);
    for (i = 0; i < 512; i++) {
        put_table(h, PD_LOW, i, ((uint64_t)i << 21) | LARGE);
        put_table(h, PD_HIGH, i, (3ull << 30) | ((uint64_t)i << 21) | LARGE);
        put_table(h, NESTED_PD, i, ((uint64_t)i << 21) | LARGE | USER);
    }
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'cont' }");
    launch(h);
}

static void open_host(Host *h, unsigned cbit, const char *options)
{
    open_host_for(h, false, cbit, options);
}

static void detach(Host *h)
{
    g_free(h->psp);
    qpci_free_pc(h->bus);
}

static void close_host(Host *h)
{
    detach(h);
    qtest_quit(h->qts);
}

/* Start the guest, and return while it is running */
static void run(Host *h)
{
    int i;

    begin(h, DO_VMRUN);
    for (i = 0; qtest_readl(h->qts, SHARED + 4) != 0x21214445; i++) {
        if (qtest_readb(h->qts, TODO) != DO_VMRUN) {
            g_error("the guest exited with 0x%" PRIx64 " (0x%" PRIx64
                    ", 0x%" PRIx64 ") at 0x%" PRIx64,
                    qtest_readq(h->qts, VMCB + 0x70),
                    qtest_readq(h->qts, VMCB + 0x78),
                    qtest_readq(h->qts, VMCB + 0x80),
                    qtest_readq(h->qts, VMCB + 0x578));
        }
        g_assert_cmpint(i, <, 3000);
        g_usleep(10000);
    }
}

/* Make the running guest exit, and return the exit code */
static uint64_t stop(Host *h)
{
    qtest_writel(h->qts, FLAG, 1);
    done(h);
    qtest_writel(h->qts, FLAG, 0);
    return qtest_readq(h->qts, VMCB + 0x70);
}

/* Get a member of "memory" in the result of query-sev-platform */
static int64_t memory(Host *h, const char *member)
{
    QDict *r = qtest_qmp(h->qts, "{ 'execute': 'query-sev-platform' }");
    QDict *psp = qobject_to(QDict, qlist_peek(qdict_get_qlist(r, "return")));
    int64_t n = qdict_get_int(qdict_get_qdict(psp, "memory"), member);

    qobject_unref(r);
    return n;
}

/* Run the SEV-ES guest until it exits, and return the exit code */
static uint64_t run_es(Host *h)
{
    begin(h, DO_VMRUN);
    done(h);
    return qtest_readq(h->qts, VMCB + 0x70);
}

/* Decrypt the page with the marker by DBG_DECRYPT, which the policy allows */
static void read_secret(Host *h, uint8_t *buf, size_t len)
{
    qtest_memset(h->qts, BUF, 0, 64);
    qtest_writel(h->qts, BUF, h->handle);
    qtest_writeq(h->qts, BUF + 8, SECRET);
    qtest_writeq(h->qts, BUF + 16, BUF + 512);
    qtest_writel(h->qts, BUF + 24, 64);
    g_assert_cmphex(psp_cmd(h, 0x60), ==, 0);           /* DBG_DECRYPT */
    qtest_memread(h->qts, BUF + 512, buf, len);
}

static void test_runs(const void *cbit)
{
    uint8_t buf[32];
    Host h;

    open_host(&h, GPOINTER_TO_UINT(cbit), "");
    run(&h);
    g_assert_cmphex(stop(&h), ==, EXIT_VMMCALL);
    read_secret(&h, buf, sizeof(buf));
    g_assert_cmpmem(buf, MARKER_LEN, marker, MARKER_LEN);
    g_assert_cmpuint(ldl_le_p(buf + 16), >, 0);
    close_host(&h);
}

/*
 * With memory encryption, physical addresses have 5 bits fewer.  In nested page
 * tables, all bits above the remaining ones are reserved.  KVM sets reserved
 * bits so that the guest's accesses to MMIO cause faults.
 */
static void test_reserved(const void *cbit)
{
    const uint64_t entry = LARGE | USER;
    unsigned bit;
    Host h;

    open_host(&h, GPOINTER_TO_UINT(cbit), "");
    for (bit = h.cbit + 1 - 5; bit < 52; bit++) {
        put_table(&h, NESTED_PD, 0, entry | 1ull << bit);
        begin(&h, DO_VMRUN);
        done(&h);
        g_assert_cmphex(qtest_readq(h.qts, VMCB + 0x70), ==, EXIT_NPF);
        g_assert_cmphex(qtest_readq(h.qts, VMCB + 0x78) & NPF_RSVD, ==,
                        NPF_RSVD);
    }
    /* A fault because of a non-present entry must not report reserved bits */
    put_table(&h, NESTED_PD, 0, 0);
    begin(&h, DO_VMRUN);
    done(&h);
    g_assert_cmphex(qtest_readq(h.qts, VMCB + 0x70), ==, EXIT_NPF);
    g_assert_cmphex(qtest_readq(h.qts, VMCB + 0x78) & NPF_RSVD, ==, 0);
    put_table(&h, NESTED_PD, 0, entry);
    run(&h);
    g_assert_cmphex(stop(&h), ==, EXIT_VMMCALL);
    close_host(&h);
}

/* Check that the guest is still running and that its pages are plaintext */
static void assert_plaintext(Host *h)
{
    g_assert_cmpint(memory(h, "plaintext"), >, 0);
    g_assert_cmphex(qtest_readb(h->qts, TODO), ==, DO_VMRUN);
}

static bool has(const char *data, size_t len, const char *what)
{
    return memmem(data, len, what, MARKER_LEN);
}

/* Check that @data contains the shared marker and not the private one */
static void assert_ciphertext(const char *data, size_t len)
{
    g_assert_true(has(data, len, shared_marker));
    g_assert_false(has(data, len, marker));
}

static char *monitor(Host *h, const char *line)
{
    return qtest_hmp(h->qts, "%s", line);
}

/* Check which of the two markers the monitor prints, in 32-bit words */
static void test_monitor(void)
{
    static const char *private[] = { "0x56495250", "0x21455441" };
    static const char *shared[] = { "0x52414853", "0x21214445" };
    /* The hypervisor's virtual addresses are equal to physical addresses */
    static const char *commands[] = { "xp", "x" };
    unsigned i, j;
    Host h;

    open_host(&h, 47, "");
    run(&h);
    for (i = 0; i < ARRAY_SIZE(commands); i++) {
        g_autofree char *line = g_strdup_printf("%s /2048wx 0x%x", commands[i],
                                                SECRET);
        g_autofree char *control = g_strdup_printf("%s /2wx 0x%x", commands[i],
                                                   SHARED);
        g_autofree char *text = NULL, *control_text = NULL;

        if (i) {
            stop(&h);
        }
        g_assert_cmpint(memory(&h, "plaintext"), >, 0);
        text = monitor(&h, line);
        control_text = monitor(&h, control);
        for (j = 0; j < ARRAY_SIZE(private); j++) {
            g_assert_null(strstr(text, private[j]));
            g_assert_nonnull(strstr(control_text, shared[j]));
        }
        g_assert_nonnull(strstr(text, "0000000000021000: 0x"));
    }
    close_host(&h);
}

/* Save guest memory to files, and check which marker each file contains */
static void test_files(void)
{
    g_autofree char *name = g_strdup_printf("%s/memory", dir);
    g_autofree char *protocol = g_strdup_printf("file:%s", name);
    g_autofree char *data = NULL, *core = NULL;
    gsize len;
    Host h;

    open_host(&h, 47, "");
    run(&h);
    assert_plaintext(&h);
    qtest_qmp_assert_success(h.qts, "{ 'execute': 'pmemsave', 'arguments': "
                             "{ 'val': 0, 'size': %d, 'filename': %s } }",
                             16 << 20, name);
    assert_plaintext(&h);
    g_assert(g_file_get_contents(name, &data, &len, NULL));
    g_assert_cmpuint(len, ==, 16 << 20);
    assert_ciphertext(data, len);
    unlink(name);

    qtest_qmp_assert_success(h.qts, "{ 'execute': 'dump-guest-memory', "
                             "'arguments': { 'paging': false, "
                             "'protocol': %s } }", protocol);
    g_assert(g_file_get_contents(name, &core, &len, NULL));
    g_assert_cmpuint(len, >, 16 << 20);
    assert_ciphertext(core, len);
    unlink(name);
    /* Check that the guest still runs */
    g_assert_cmphex(stop(&h), ==, EXIT_VMMCALL);
    close_host(&h);
}

/* Send the packet @body to the gdbstub, and return the reply */
static char *gdb_ask(int fd, const char *body)
{
    g_autofree char *packet = NULL;
    GString *reply = g_string_new(NULL);
    uint8_t sum = 0;
    const char *p;
    char c;

    for (p = body; *p; p++) {
        sum += *p;
    }
    packet = g_strdup_printf("$%s#%02x", body, sum);
    g_assert_cmpint(write(fd, packet, strlen(packet)), ==, strlen(packet));
    do {
        g_assert_cmpint(read(fd, &c, 1), ==, 1);
        g_assert_cmpint(c, !=, '-');
    } while (c != '$');
    for (;;) {
        g_assert_cmpint(read(fd, &c, 1), ==, 1);
        if (c == '#') {
            break;
        }
        g_string_append_c(reply, c);
    }
    /* Read the checksum without checking it */
    g_assert_cmpint(read(fd, &c, 1), ==, 1);
    g_assert_cmpint(read(fd, &c, 1), ==, 1);
    g_assert_cmpint(write(fd, "+", 1), ==, 1);
    return g_string_free(reply, false);
}

/* Read @len bytes of physical memory, and return two hex digits per byte */
static char *gdb_read(int fd, uint64_t pa, size_t len)
{
    g_autofree char *body = g_strdup_printf("m%" PRIx64 ",%zx", pa, len);
    char *digits = gdb_ask(fd, body);

    g_assert_cmpuint(strlen(digits), ==, 2 * len);
    return digits;
}

static void test_gdb(void)
{
    g_autofree char *name = g_strdup_printf("%s/gdb", dir);
    g_autofree char *options = g_strdup_printf(
        "-chardev socket,id=gdb,path=%s,server=on,wait=off -gdb chardev:gdb",
        name);
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    g_autofree char *mode = NULL, *private = NULL, *shared = NULL;
    int fd;
    Host h;

    open_host(&h, 47, options);
    run(&h);
    assert_plaintext(&h);
    pstrcpy(addr.sun_path, sizeof(addr.sun_path), name);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), ==,
                    0);
    mode = gdb_ask(fd, "Qqemu.PhyMemMode:1");
    g_assert_cmpstr(mode, ==, "OK");
    private = gdb_read(fd, SECRET, 256);
    shared = gdb_read(fd, SHARED, 256);
    /*
     * @shared begins with "SHARED!!" and zeros.  @private is ciphertext, so it
     * contains neither "PRIVATE!" nor 16 zero bytes.
     */
    g_assert_true(g_str_has_prefix(shared, "5348415245442121" "00000000"));
    g_assert_null(strstr(private, "5052495641544521"));
    g_assert_null(strstr(private, "00000000000000000000000000000000"));
    close(fd);
    unlink(name);
    close_host(&h);
}

/* Let the device fw_cfg write @len bytes of its signature to @to by DMA */
static void fw_cfg_dma(Host *h, uint64_t to, uint32_t len)
{
    uint8_t access[16];

    /* Command: select and read the signature */
    stl_be_p(access, 0u << 16 | 1 << 3 | 1 << 1);
    stl_be_p(access + 4, len);
    stq_be_p(access + 8, to);
    qtest_memwrite(h->qts, BUF + 1024, access, sizeof(access));
    qtest_outl(h->qts, 0x514, 0);
    qtest_outl(h->qts, 0x518, bswap32(BUF + 1024));
    g_assert_cmphex(qtest_readl(h->qts, BUF + 1024), ==, 0);
}

static void test_dma(void)
{
    g_autofree char *name = g_strdup_printf("%s/trace", dir);
    g_autofree char *options = g_strdup_printf(
        "-trace sev_memory_bypassed,file=%s", name);
    g_autofree char *text = NULL, *info = NULL;
    uint8_t before[64], buf[64];
    int64_t reads, writes;
    Host h;

    open_host(&h, 47, options);
    /*
     * QEMU counts DMA to plaintext pages only.  The page at MEMORY_END is never
     * plaintext, because the guest does not use it.
     */
    fw_cfg_dma(&h, MEMORY_END, 4);
    g_assert_cmpint(memory(&h, "bypassing-writes"), ==, 0);
    run(&h);
    fw_cfg_dma(&h, MEMORY_END, 4);
    qtest_memread(h.qts, MEMORY_END, buf, 4);
    g_assert_cmpmem(buf, 4, "QEMU", 4);
    reads = memory(&h, "bypassing-reads");
    writes = memory(&h, "bypassing-writes");
    g_assert_cmpint(reads, ==, 0);
    g_assert_cmpint(writes, ==, 0);

    assert_plaintext(&h);
    fw_cfg_dma(&h, SECRET + 32, 4);
    g_assert_cmpint(memory(&h, "bypassing-writes"), ==, writes + 1);
    g_assert_cmpint(memory(&h, "bypassing-reads"), ==, reads);
    qtest_memread(h.qts, SECRET + 32, buf, 4);
    g_assert_cmpmem(buf, 4, "QEMU", 4);
    g_assert_cmpint(memory(&h, "bypassing-reads"), ==, reads + 1);
    info = monitor(&h, "info sev-platform");
    g_test_message("%s", info);
    g_assert_nonnull(strstr(info, "by no vCPU: 1 pages read, 1 written"));

    /* The guest finds garbage in the 16-byte block to which the device wrote */
    g_assert_cmphex(stop(&h), ==, EXIT_VMMCALL);
    read_secret(&h, buf, sizeof(buf));
    g_assert_cmpmem(buf, MARKER_LEN, marker, MARKER_LEN);
    g_assert_false(buffer_is_zero(buf + 32, 16));
    g_assert_true(buffer_is_zero(buf + 48, 16));

    /* WBINVD makes QEMU encrypt all plaintext pages, so no DMA is counted */
    begin(&h, DO_WBINVD);
    done(&h);
    g_assert_cmpint(memory(&h, "plaintext"), ==, 0);
    g_assert_cmpint(memory(&h, "written-back"), >, 0);
    qtest_memread(h.qts, SECRET, before, sizeof(before));
    fw_cfg_dma(&h, SECRET, 4);
    g_assert_cmpint(memory(&h, "bypassing-writes"), ==, writes + 1);
    g_assert_cmpint(memory(&h, "bypassing-reads"), ==, reads + 1);
    close_host(&h);
    text = psp_take_trace(name);
    g_assert_nonnull(strstr(text, "0x21000: plaintext of ASID 1, write"));
    g_assert_nonnull(strstr(text, "0x21000: plaintext of ASID 1, read"));
}

static void set_cache_check(Host *h, const char *mode)
{
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'qom-set', 'arguments': "
                             "{ 'path': '/machine/peripheral/psp', "
                             "'property': 'cache-check', 'value': %s } }",
                             mode);
}

static void hypervisor_does(Host *h, uint8_t what)
{
    begin(h, what);
    done(h);
}

/* Run the guest from its first instruction; it writes to PAGE and exits */
static void guest_writes(Host *h)
{
    qtest_writel(h->qts, TOUCH, PAGE);
    qtest_writeq(h->qts, VMCB + 0x578, CODE);
    begin(h, DO_VMRUN);
    g_assert_cmphex(stop(h), ==, EXIT_VMMCALL);
    qtest_writel(h->qts, TOUCH, 0);
}

static void debug_encrypts(Host *h)
{
    qtest_memset(h->qts, BUF, 0, 64);
    qtest_writel(h->qts, BUF, h->handle);
    qtest_writeq(h->qts, BUF + 8, BUF + 512);
    qtest_writeq(h->qts, BUF + 16, PAGE);
    qtest_writel(h->qts, BUF + 24, 64);
    g_assert_cmphex(psp_cmd(h, 0x61), ==, 0);
}

static void debug_decrypts(Host *h)
{
    qtest_memset(h->qts, BUF, 0, 64);
    qtest_writel(h->qts, BUF, h->handle);
    qtest_writeq(h->qts, BUF + 8, PAGE);
    qtest_writeq(h->qts, BUF + 16, BUF + 512);
    qtest_writel(h->qts, BUF + 24, 64);
    g_assert_cmphex(psp_cmd(h, 0x60), ==, 0);
}

static void assert_unflushed(Host *h, int64_t by_host, int64_t by_guest,
                             int64_t commands)
{
    g_assert_cmpint(memory(h, "unflushed-host-writes"), ==, by_host);
    g_assert_cmpint(memory(h, "unflushed-guest-writes"), ==, by_guest);
    g_assert_cmpint(memory(h, "unflushed-commands"), ==, commands);
}

/*
 * QEMU counts no access after the hypervisor has flushed its lines of the page
 * with CLFLUSH, or all lines with WBINVD
 */
static void flushed_not_counted(Host *h)
{
    hypervisor_does(h, DO_WRITE);
    hypervisor_does(h, DO_FLUSH);
    guest_writes(h);
    hypervisor_does(h, DO_WBINVD);
    hypervisor_does(h, DO_WRITE);
    hypervisor_does(h, DO_WBINVD);
    guest_writes(h);
    hypervisor_does(h, DO_WBINVD);
    hypervisor_does(h, DO_WRITE);
    hypervisor_does(h, DO_FLUSH);
    debug_encrypts(h);
    assert_unflushed(h, 0, 0, 0);
}

/* QEMU counts one access of each kind */
static void unflushed_counted(Host *h)
{
    g_autofree char *info = NULL;

    /* A flush is not sufficient if the page is written again after it */
    hypervisor_does(h, DO_WRITE);
    hypervisor_does(h, DO_FLUSH);
    hypervisor_does(h, DO_WRITE);
    guest_writes(h);
    assert_unflushed(h, 1, 0, 0);
    /* CLFLUSH by the host does not flush the lines of the guest */
    hypervisor_does(h, DO_WRITE);
    assert_unflushed(h, 1, 1, 0);
    debug_encrypts(h);
    assert_unflushed(h, 1, 1, 1);
    info = monitor(h, "info sev-platform");
    g_assert_nonnull(strstr(info, "before a flush: 1 written by the host, "
                            "1 by guests, 1 used by commands"));
}

/*
 * With "fatal", QEMU exits if the guest writes to a page with unflushed lines.
 * After unflushed_counted(), only the last access of this function is counted.
 */
static void unflushed_not_fatal(Host *h)
{
    /* The hypervisor has flushed the lines */
    hypervisor_does(h, DO_WBINVD);
    set_cache_check(h, "fatal");
    hypervisor_does(h, DO_WRITE);
    hypervisor_does(h, DO_FLUSH);
    guest_writes(h);
    /*
     * If a firmware command only reads a page with unflushed lines, QEMU counts
     * this, but does not exit.  A hypervisor cannot prevent this case: the
     * guest may write to a page while SEND_UPDATE_DATA packs it.
     */
    hypervisor_does(h, DO_WBINVD);
    hypervisor_does(h, DO_WRITE);
    debug_decrypts(h);
    assert_unflushed(h, 1, 1, 2);
}

/* The guest writes to a page with unflushed lines, and QEMU exits */
static void unflushed_fatal(Host *h)
{
    hypervisor_does(h, DO_WBINVD);
    hypervisor_does(h, DO_WRITE);
    qtest_writel(h->qts, TOUCH, PAGE);
    qtest_writeq(h->qts, VMCB + 0x578, CODE);
    qtest_set_expected_status(h->qts, 1);
    detach(h);
    qtest_writeb(h->qts, TODO, DO_VMRUN);
    qtest_wait_qemu(h->qts);
    qtest_quit(h->qts);
}

/*
 * A vCPU writes to a page with one value of the C-bit.  Then a vCPU writes to
 * the page with the other value, or a firmware command uses the page.  QEMU
 * counts the second access if the lines of the first one are still unflushed.
 */
static void test_unflushed(void)
{
    g_autofree char *name = g_strdup_printf("%s/trace", dir);
    g_autofree char *options = g_strdup_printf(
        "-trace sev_memory_unflushed,file=%s", name);
    g_autofree char *text = NULL;
    Host h;

    open_host(&h, 47, options);
    run(&h);
    g_assert_cmphex(stop(&h), ==, EXIT_VMMCALL);
    assert_unflushed(&h, 0, 0, 0);
    flushed_not_counted(&h);
    unflushed_counted(&h);

    set_cache_check(&h, "off");
    hypervisor_does(&h, DO_WBINVD);
    hypervisor_does(&h, DO_WRITE);
    guest_writes(&h);
    assert_unflushed(&h, 1, 1, 1);

    unflushed_not_fatal(&h);
    unflushed_fatal(&h);
    text = psp_take_trace(name);
    g_assert_nonnull(strstr(text, "0x6000: written with ASID 0, not flushed, "
                            "used with ASID 1 by a vCPU"));
    g_assert_nonnull(strstr(text, "0x6000: written with ASID 1, not flushed, "
                            "used with ASID 0 by a vCPU"));
    g_assert_nonnull(strstr(text, "0x6000: written with ASID 0, not flushed, "
                            "used with ASID 1 by a command"));
}

/*
 * The hypervisor and the guest write to one page in turn.  QEMU must not add
 * the page to the list of plaintext pages again each time.
 */
static void test_flips(void)
{
    g_autofree char *name = g_strdup_printf("%s/trace", dir);
    g_autofree char *options = g_strdup_printf(
        "-trace sev_memory_write_back,file=%s", name);
    g_autofree char *text = NULL;
    unsigned i, pages, listed;
    const char *line;
    Host h;

    open_host(&h, 47, options);
    run(&h);
    g_assert_cmphex(stop(&h), ==, EXIT_VMMCALL);
    for (i = 0; i < 50; i++) {
        hypervisor_does(&h, DO_WRITE);
        guest_writes(&h);
    }
    g_assert_cmpint(memory(&h, "decrypted"), >=, 50);
    hypervisor_does(&h, DO_WBINVD);
    close_host(&h);
    text = psp_take_trace(name);
    line = strstr(text, "ASID 0 (0: all): ");
    while (line && sscanf(line, "ASID 0 (0: all): %u pages of %u listed",
                          &pages, &listed) == 2 && !pages) {
        line = strstr(line + 1, "ASID 0 (0: all): ");
    }
    g_assert_nonnull(line);
    g_assert_cmpuint(pages, >, 0);
    g_assert_cmpuint(listed, <, 20);
}

/* VMRUN needs an ASID that the firmware has made valid by LAUNCH_FINISH */
static void test_valid(void)
{
    Host h;

    open_host(&h, 47, "");
    run(&h);
    g_assert_cmphex(stop(&h), ==, EXIT_VMMCALL);
    hypervisor_does(&h, DO_WBINVD);
    guest_cmd(&h, 0x22, 0, 0);                          /* DEACTIVATE */
    hypervisor_does(&h, DO_WBINVD);
    g_assert_cmphex(psp_cmd(&h, 0x0a), ==, 0);
    qtest_writeq(h.qts, VMCB + 0x578, CODE);
    hypervisor_does(&h, DO_VMRUN);
    g_assert_cmphex(qtest_readq(h.qts, VMCB + 0x70), ==, EXIT_INVALID);

    /*
     * ACTIVATE gives the ASID to a new guest, which cannot run before
     * LAUNCH_FINISH
     */
    h.handle = 0;
    guest_cmd(&h, 0x30, 0, 0);
    h.handle = qtest_readl(h.qts, BUF);
    guest_cmd(&h, 0x21, 0, 0);
    hypervisor_does(&h, DO_VMRUN);
    g_assert_cmphex(qtest_readq(h.qts, VMCB + 0x70), ==, EXIT_INVALID);
    guest_cmd(&h, 0x33, BUF + 256, 48);
    hypervisor_does(&h, DO_VMRUN);
    g_assert_cmphex(qtest_readq(h.qts, VMCB + 0x70), ==, EXIT_INVALID);
    guest_cmd(&h, 0x35, 0, 0);
    /*
     * VMRUN runs the guest now.  The test has loaded no code for this guest, so
     * the guest exits, but not with EXIT_INVALID.
     */
    hypervisor_does(&h, DO_VMRUN);
    g_assert_cmphex(qtest_readq(h.qts, VMCB + 0x70), !=, EXIT_INVALID);
    close_host(&h);
}

/* Get the counter of the SEV-ES guest */
static uint32_t es_count(Host *h)
{
    uint8_t buf[32];

    read_secret(h, buf, sizeof(buf));
    return ldl_le_p(buf + 16);
}

/*
 * #VMEXIT stores the checksum of the VMSA.  VMRUN rejects a VMSA that the host
 * has changed or replaced by an older one.
 */
static void test_vmsa(void)
{
    g_autofree char *name = g_strdup_printf("%s/trace", dir);
    g_autofree char *options = g_strdup_printf(
        "-trace sev_es_bad_vmsa,file=%s", name);
    g_autofree char *text = NULL;
    uint8_t old[4096], vmsa[4096];
    Host h;

    open_host_for(&h, true, 47, options);
    g_assert_cmphex(run_es(&h), ==, EXIT_VMGEXIT);
    g_assert_cmpuint(es_count(&h), ==, 1);
    qtest_memread(h.qts, VMSA, old, sizeof(old));
    g_assert_cmphex(run_es(&h), ==, EXIT_VMGEXIT);
    g_assert_cmpuint(es_count(&h), ==, 2);
    qtest_memread(h.qts, VMSA, vmsa, sizeof(vmsa));
    qtest_writeb(h.qts, VMSA + 0x200, vmsa[0x200] ^ 1);
    g_assert_cmphex(run_es(&h), ==, EXIT_INVALID);
    qtest_memwrite(h.qts, VMSA, old, sizeof(old));
    g_assert_cmphex(run_es(&h), ==, EXIT_INVALID);
    g_assert_cmpuint(es_count(&h), ==, 2);
    qtest_memwrite(h.qts, VMSA, vmsa, sizeof(vmsa));
    g_assert_cmphex(run_es(&h), ==, EXIT_VMGEXIT);
    g_assert_cmpuint(es_count(&h), ==, 3);
    close_host(&h);
    text = psp_take_trace(name);
    g_assert_nonnull(strstr(text, "ASID 1: the VMSA at 0x26000 "));
}

/* A reset while the guest runs removes the guest's keys and plaintext pages */
static void test_reset(void)
{
    uint8_t private[64], again[64], buf[32];
    QDict *r, *psp;
    Host h;

    open_host(&h, 47, "");
    run(&h);
    assert_plaintext(&h);
    qtest_memread(h.qts, SECRET + 64, private, sizeof(private));
    /*
     * Stop the VM: after the reset, the hypervisor would otherwise execute the
     * command in TODO
     */
    qtest_qmp_assert_success(h.qts, "{ 'execute': 'stop' }");
    qtest_system_reset(h.qts);
    detach(&h);
    r = qtest_qmp(h.qts, "{ 'execute': 'query-sev-platform' }");
    psp = qobject_to(QDict, qlist_peek(qdict_get_qlist(r, "return")));
    g_assert_cmpstr(qdict_get_str(psp, "state"), ==, "uninit");
    g_assert_cmpint(qdict_get_int(psp, "guests"), ==, 0);
    g_assert_cmpint(qdict_get_int(psp, "active"), ==, 0);
    qobject_unref(r);
    g_assert_cmpint(memory(&h, "plaintext"), ==, 0);
    qtest_memread(h.qts, SECRET + 64, again, sizeof(again));
    g_assert_cmpmem(private, sizeof(private), again, sizeof(again));

    /* Check that another guest can be launched and run */
    qtest_writel(h.qts, TODO, 0);
    qtest_qmp_assert_success(h.qts, "{ 'execute': 'cont' }");
    launch(&h);
    run(&h);
    g_assert_cmphex(stop(&h), ==, EXIT_VMMCALL);
    read_secret(&h, buf, sizeof(buf));
    g_assert_cmpmem(buf, MARKER_LEN, marker, MARKER_LEN);
    close_host(&h);
}

/* Get property @name of the machine's first CPU */
static bool cpu_has(QTestState *qts, const char *name)
{
    QDict *cpus = qtest_qmp(qts, "{ 'execute': 'query-cpus-fast' }"), *r;
    QDict *cpu = qobject_to(QDict, qlist_peek(qdict_get_qlist(cpus, "return")));
    bool value;

    r = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': { 'path': %s,"
                  "'property': %s } }", qdict_get_str(cpu, "qom-path"), name);
    value = qdict_get_bool(r, "return");
    qobject_unref(r);
    qobject_unref(cpus);
    return value;
}

/*
 * TCG supports the features in @features only for CPUs with sev=on.  Without
 * sev=on, the CPU model "max" lacks the features, and QEMU does not give them
 * to a CPU even if -cpu requests them.  CPUs without sev=on thus do not change.
 */
static void test_cpu_models(const void *sev)
{
    static const char *const features[] = {
        "nrip-save", "flushbyasid", "decodeassists",
    };
    /*
     * The test uses "svm=on" rather than "+svm": QEMU would add "+svm" to
     * every CPU, and thus also to the CPU "max" that query-cpu-model-expansion
     * creates
     */
    QTestState *qts = qtest_initf(
        "-accel tcg -nodefaults -machine q35 -m 16M -bios %s -S "
        "-cpu EPYC-Milan,svm=on,npt=on,nrip-save=on,flushbyasid=on,"
        "decodeassists=on%s", firmware, sev ? ",sev=on" : "");
    QDict *r = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-cpu-model-expansion', 'arguments': {"
        "'type': 'full', 'model': { 'name': 'max', 'props': {"
        "'sev': %i } } } }", !!sev);
    QDict *max = qdict_get_qdict(qdict_get_qdict(r, "model"), "props");

    /* TCG has npt for every CPU, so both queries must report it */
    g_assert_true(qdict_get_bool(max, "npt"));
    g_assert_true(cpu_has(qts, "npt"));
    for (size_t i = 0; i < G_N_ELEMENTS(features); i++) {
        g_test_message("%s", features[i]);
        g_assert_cmpint(qdict_get_bool(max, features[i]), ==, !!sev);
        g_assert_cmpint(cpu_has(qts, features[i]), ==, !!sev);
    }
    qobject_unref(r);
    qtest_quit(qts);
}

/* QEMU can quit while the guest runs */
static void test_quit(void)
{
    Host h;

    open_host(&h, 47, "");
    run(&h);
    assert_plaintext(&h);
    detach(&h);
    qtest_qmp_assert_success(h.qts, "{ 'execute': 'quit' }");
    qtest_wait_qemu(h.qts);
    qtest_quit(h.qts);
}

int main(int argc, char **argv)
{
    g_autofree char *rom = g_malloc0(64 * 1024);
    int ret;

    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_accel("tcg") || !qtest_has_device("amd-psp")) {
        g_test_skip("QEMU has no TCG, or no amd-psp device: built without "
                    "hogweed?");
        return 0;
    }
    qtest_add_data_func("/amd-psp-guest/runs/47", GUINT_TO_POINTER(47),
                        test_runs);
    qtest_add_data_func("/amd-psp-guest/runs/51", GUINT_TO_POINTER(51),
                        test_runs);
    qtest_add_data_func("/amd-psp-guest/reserved/47", GUINT_TO_POINTER(47),
                        test_reserved);
    qtest_add_data_func("/amd-psp-guest/reserved/51", GUINT_TO_POINTER(51),
                        test_reserved);
    qtest_add_func("/amd-psp-guest/monitor", test_monitor);
    qtest_add_func("/amd-psp-guest/files", test_files);
    qtest_add_func("/amd-psp-guest/gdb", test_gdb);
    qtest_add_func("/amd-psp-guest/dma", test_dma);
    qtest_add_func("/amd-psp-guest/unflushed", test_unflushed);
    qtest_add_func("/amd-psp-guest/flips", test_flips);
    qtest_add_func("/amd-psp-guest/valid", test_valid);
    qtest_add_func("/amd-psp-guest/vmsa", test_vmsa);
    qtest_add_func("/amd-psp-guest/reset", test_reset);
    qtest_add_func("/amd-psp-guest/quit", test_quit);
    qtest_add_data_func("/amd-psp-guest/cpu-models/plain", NULL,
                        test_cpu_models);
    qtest_add_data_func("/amd-psp-guest/cpu-models/sev", "sev",
                        test_cpu_models);

    dir = g_dir_make_tmp("amd-psp-guest-XXXXXX", NULL);
    g_assert_nonnull(dir);
    firmware = g_strdup_printf("%s/firmware", dir);
    memcpy(rom, hypervisor, sizeof(hypervisor));
    memcpy(rom + 0xfff0, reset_vector, sizeof(reset_vector));
    g_assert(g_file_set_contents(firmware, rom, 64 * 1024, NULL));
    ret = g_test_run();
    unlink(firmware);
    rmdir(dir);
    g_free(firmware);
    g_free(dir);
    return ret;
}
