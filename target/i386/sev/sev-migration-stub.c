/*
 * Migration of SEV guests, for a QEMU that is built without SEV
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-sev-migration-target.h"

void qmp_migrate_set_sev_info(const char *pdh, const char *plat_cert,
                              const char *amd_cert, Error **errp)
{
    error_setg(errp, "SEV is not available in this QEMU");
}
