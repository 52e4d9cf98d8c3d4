/*
 * The mailbox of the emulated AMD PSP, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * This file has its own definitions of bits and offsets instead of the
 * device's.  They are an interface to drivers, and a test that used the
 * device's definitions would not notice a change.
 */

#ifndef TESTS_QTEST_AMD_PSP_MAILBOX_H
#define TESTS_QTEST_AMD_PSP_MAILBOX_H

#include "libqtest.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "libqos/pci.h"
#include "libqos/pci-pc.h"
#include "hw/pci/pci_regs.h"

/* Registers */
#define INTEN       0x10690
#define INTSTS      0x10694
#define CMDRESP     0x10980
#define CMDBUF_LO   0x109e0
#define CMDBUF_HI   0x109e4

#define DONE        (1u << 31)

#define MSI_DATA    0x5a5a

typedef struct Psp Psp;
struct Psp {
    QTestState *qts;
    QPCIBus *bus;
    QPCIDevice *dev;
    QPCIBar bar;
    /* by how many ns each step of a wait advances virtual time */
    int64_t step;
    /*
     * psp_write() calls this function to write a register.  If it is NULL,
     * psp_write() writes the register through qtest, without a vCPU.
     */
    void (*write)(Psp *p, uint64_t reg, uint32_t value);
};

/*
 * Set up the device of p->qts.  Map the BAR before the device is enabled.
 * Mapping writes ones to the BAR to find its size, and the BAR of an enabled
 * device would then cover the ROM that vCPUs execute.
 */
static inline void psp_attach(Psp *p)
{
    p->bus = qpci_new_pc(p->qts, NULL);
    p->dev = qpci_device_find(p->bus, QPCI_DEVFN(4, 0));
    g_assert_nonnull(p->dev);
    g_assert_cmphex(qpci_config_readw(p->dev, PCI_VENDOR_ID), ==, 0x1022);
    g_assert_cmphex(qpci_config_readw(p->dev, PCI_DEVICE_ID), ==, 0x14ca);
    g_assert_cmphex(qpci_config_readw(p->dev, PCI_CLASS_DEVICE), ==, 0x1080);
    p->bar = qpci_iomap(p->dev, 2, NULL);
    qpci_device_enable(p->dev);
}

static inline void psp_close(Psp *p)
{
    g_free(p->dev);
    qpci_free_pc(p->bus);
    qtest_quit(p->qts);
}

static inline uint32_t psp_read(Psp *p, uint64_t reg)
{
    return qpci_io_readl(p->dev, p->bar, reg);
}

static inline void psp_write(Psp *p, uint64_t reg, uint32_t value)
{
    if (p->write) {
        p->write(p, reg, value);
    } else {
        qpci_io_writel(p->dev, p->bar, reg, value);
    }
}

/*
 * Read a register until its bits @mask are @value.  The device executes
 * commands in parallel with the test, so the first read may be too early.
 */
static inline void psp_await(Psp *p, uint64_t reg, uint32_t mask,
                             uint32_t value)
{
    for (int i = 0; i < 1100; i++) {
        if ((psp_read(p, reg) & mask) == value) {
            return;
        }
        if (p->step) {
            qtest_clock_step(p->qts, p->step);
        }
        g_usleep(i < 100 ? 100 : 10000);
    }
    g_assert_cmphex(psp_read(p, reg) & mask, ==, value);
}

static inline void psp_give(Psp *p, unsigned cmd, uint64_t buf, bool ioc)
{
    psp_write(p, CMDBUF_LO, buf);
    psp_write(p, CMDBUF_HI, buf >> 32);
    psp_write(p, CMDRESP, cmd << 16 | ioc);
}

/* Wait for the end of a command.  Returns its status. */
static inline unsigned psp_wait(Psp *p, unsigned cmd)
{
    psp_await(p, CMDRESP, DONE, DONE);
    g_assert_cmphex(psp_read(p, CMDRESP) >> 16 & 0x7ff, ==, cmd);
    return psp_read(p, CMDRESP) & 0xffff;
}

/* Execute a command with the buffer at @buf.  Returns its status. */
static inline unsigned psp_cmd_at(Psp *p, unsigned cmd, uint64_t buf, bool ioc)
{
    psp_give(p, cmd, buf, ioc);
    return psp_wait(p, cmd);
}

/* Let the device write its MSI to RAM at @addr, where the test can read it */
static inline void psp_enable_msi(Psp *p, uint32_t addr)
{
    uint8_t cap = qpci_find_capability(p->dev, PCI_CAP_ID_MSI, 0);

    g_assert_cmpuint(cap, !=, 0);
    qpci_config_writel(p->dev, cap + PCI_MSI_ADDRESS_LO, addr);
    qpci_config_writel(p->dev, cap + PCI_MSI_ADDRESS_HI, 0);
    qpci_config_writew(p->dev, cap + PCI_MSI_DATA_64, MSI_DATA);
    qpci_config_writew(p->dev, cap + PCI_MSI_FLAGS,
                       qpci_config_readw(p->dev, cap + PCI_MSI_FLAGS) |
                       PCI_MSI_FLAGS_ENABLE);
    qtest_writel(p->qts, addr, 0);
}

/* Set the property @name of the device.  Returns QMP's answer. */
static inline QDict *psp_set_property(Psp *p, const char *name,
                                      const char *json)
{
    return qtest_qmp(p->qts, "{'execute': 'qom-set', 'arguments': {"
                     "'path': '/machine/peripheral/psp',"
                     "'property': %s, 'value': %p}}", name,
                     qobject_from_json(json, &error_abort));
}

static inline void psp_inject(Psp *p, const char *json)
{
    QDict *answer = psp_set_property(p, "faults", json);

    g_assert(qdict_haskey(answer, "return"));
    qobject_unref(answer);
}

static inline QDict *psp_query(Psp *p)
{
    QDict *answer = qtest_qmp(p->qts, "{'execute': 'query-sev-platform'}");
    QList *list = qdict_get_qlist(answer, "return");
    QDict *info = qobject_to(QDict, qlist_pop(list));

    g_assert_nonnull(info);
    g_assert(qlist_empty(list));
    qobject_unref(answer);
    return info;
}

/*
 * Call query-sev-platform and return the number @key of its result.  If
 * @command is not NULL, return the number @key of the statistics of @command.
 */
static inline uint64_t psp_stat_of(Psp *p, const char *command,
                                   const char *key)
{
    QDict *info = psp_query(p);
    uint64_t value = 0;
    QListEntry *e;

    if (!command) {
        value = qnum_get_uint(qobject_to(QNum, qdict_get(info, key)));
    } else {
        QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "commands"), e) {
            QDict *c = qobject_to(QDict, qlist_entry_obj(e));

            if (g_str_equal(qdict_get_str(c, "command"), command)) {
                value = qnum_get_uint(qobject_to(QNum, qdict_get(c, key)));
            }
        }
    }
    qobject_unref(info);
    return value;
}

/*
 * Return the trace events that QEMU has written to the file @path, and delete
 * the file.  QEMU must have ended.  Without the trace backend 'log' the text is
 * empty.
 */
static inline char *psp_take_trace(const char *path)
{
    char *text;

    g_assert(g_file_get_contents(path, &text, NULL, NULL));
    unlink(path);
    return text;
}

#endif
