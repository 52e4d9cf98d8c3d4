/*
 * Migration parameters: certificates of an SEV guest's destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/base64.h"
#include "migration/sev-destination.h"
#include "migration/migration.h"
#include "monitor/monitor.h"
#include "sev-certificates.h"

const SevDestination *migrate_sev_destination(void)
{
    return qapi_MigrationParameters_base(&migrate_get_current()->parameters);
}

typedef bool (*CheckCertificate)(const uint8_t *data, size_t len, Error **errp);

/* @where: from whom the operator gets it */
static bool check_certificate(const char *value, const char *name,
                              CheckCertificate check, const char *where,
                              Error **errp)
{
    ERRP_GUARD();
    g_autofree uint8_t *data = NULL;
    size_t len;

    if (!value || !*value) {
        return true;
    }
    data = qbase64_decode(value, -1, &len, errp);
    if (data && check(data, len, errp)) {
        return true;
    }
    error_prepend(errp, "Parameter '%s' (%s, encoded with base64): ", name,
                  where);
    return false;
}

bool sev_destination_check(const MigrationParameters *params, Error **errp)
{
    const SevDestination *d = qapi_MigrationParameters_base(params);

    return check_certificate(d->sev_pdh, "sev-pdh", sev_check_pdh,
                             "'pdh' of the destination's "
                             "query-sev-capabilities", errp) &&
           check_certificate(d->sev_plat_cert, "sev-plat-cert",
                             sev_check_plat_certs,
                             "'cert-chain' of the destination's "
                             "query-sev-capabilities", errp) &&
           check_certificate(d->sev_amd_cert, "sev-amd-cert",
                             sev_check_amd_certs,
                             "AMD's file with the ASK and the ARK of the "
                             "destination's chip", errp);
}

static void set_string(char **to, const char *from)
{
    if (from) {
        g_free(*to);
        *to = g_strdup(from);
    }
}

static void set(SevDestination *to, const SevDestination *from)
{
    set_string(&to->sev_pdh, from->sev_pdh);
    set_string(&to->sev_plat_cert, from->sev_plat_cert);
    set_string(&to->sev_amd_cert, from->sev_amd_cert);
}

void sev_destination_query(MigrationParameters *to,
                           const MigrationParameters *from)
{
    set(qapi_MigrationParameters_base(to), qapi_MigrationParameters_base(from));
}

void sev_destination_apply(MigrationParameters *to,
                           const MigrateSetParameters *from)
{
    set(qapi_MigrationParameters_base(to),
        qapi_MigrateSetParameters_base(from));
}

void sev_destination_overlay(MigrationParameters *dest,
                             const MigrateSetParameters *params)
{
    SevDestination *to = qapi_MigrationParameters_base(dest);
    const SevDestination *from = qapi_MigrateSetParameters_base(params);

    to->sev_pdh = from->sev_pdh ?: to->sev_pdh;
    to->sev_plat_cert = from->sev_plat_cert ?: to->sev_plat_cert;
    to->sev_amd_cert = from->sev_amd_cert ?: to->sev_amd_cert;
}

/* Where certificate @param is */
static char **cert_of(SevDestination *d, MigrationParameter param)
{
    switch (param) {
    case MIGRATION_PARAMETER_SEV_PDH:
        return &d->sev_pdh;
    case MIGRATION_PARAMETER_SEV_PLAT_CERT:
        return &d->sev_plat_cert;
    case MIGRATION_PARAMETER_SEV_AMD_CERT:
        return &d->sev_amd_cert;
    default:
        g_assert_not_reached();
    }
}

void sev_destination_visit(MigrateSetParameters *params,
                           MigrationParameter param, Visitor *v, Error **errp)
{
    SevDestination *d = qapi_MigrateSetParameters_base(params);
    const char *name = MigrationParameter_str(param);

    visit_type_str(v, name, cert_of(d, param), errp);
}

void sev_destination_print(Monitor *mon, MigrationParameters *params)
{
    SevDestination *d = qapi_MigrationParameters_base(params);

    for (MigrationParameter p = MIGRATION_PARAMETER_SEV_PDH;
         p <= MIGRATION_PARAMETER_SEV_AMD_CERT; p++) {
        const char *value = *cert_of(d, p);

        /* Thousands of characters each: only whether they are there */
        if (value && *value) {
            monitor_printf(mon, "%s: set\n", MigrationParameter_str(p));
        }
    }
}
