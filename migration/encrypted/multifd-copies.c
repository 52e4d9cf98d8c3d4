/*
 * Copies of shared pages in multifd's channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/memalign.h"
#include "migration/multifd.h"
#include "multifd-copies.h"

MultiFDCopies *multifd_copies_new(void)
{
    size_t n = multifd_ram_page_count();
    MultiFDCopies *c = g_new0(MultiFDCopies, 1);

    c->host = qemu_memalign(qemu_real_host_page_size(),
                            n * multifd_ram_page_size());
    c->offset = g_new0(ram_addr_t, n);
    return c;
}

void multifd_copies_free(MultiFDCopies *c)
{
    if (c) {
        qemu_vfree(c->host);
        g_free(c->offset);
        g_free(c);
    }
}
