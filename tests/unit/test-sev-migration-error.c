/*
 * Tests of names and advice for errors of the SEV firmware
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <linux/psp-sev.h>
#include "qapi/error.h"
#include "../../target/i386/sev/sev-migration-error.h"

static void test_every_answer(void)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

    /*
     * All codes up to SEV_RET_SECURE_DATA_INVALID belong to SEV; later codes
     * belong to SNP
     */
    for (int code = 0; code <= SEV_RET_SECURE_DATA_INVALID; code++) {
        const char *name = sev_fw_error_name(code);

        g_assert_cmpstr(name, !=, "unknown");
        g_assert_true(g_hash_table_add(names, (void *)name));
        g_assert_cmpuint(strlen(sev_fw_error_advice(code)), >, 10);
    }
}

static void test_unknown(void)
{
    static const int codes[] = {
        INT_MIN, -1, SEV_RET_SECURE_DATA_INVALID + 1, 0x10000, INT_MAX,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(codes); i++) {
        g_assert_cmpstr(sev_fw_error_name(codes[i]), ==, "unknown");
        g_assert_nonnull(sev_fw_error_advice(codes[i]));
    }
}

/* Check that the error of a failed command begins with @want */
static void check(const char *cmd, int ret, int fw_error, const char *want)
{
    Error *err = NULL;

    sev_cmd_error(&err, cmd, ret, fw_error);
    g_assert_nonnull(err);
    if (!g_str_has_prefix(error_get_pretty(err), want)) {
        g_error("'%s' does not begin with '%s'", error_get_pretty(err), want);
    }
    error_free(err);
}

/*
 * Check that sev_send_result() returns @want if the command has packed @done
 * pages and has then returned @ret for the next page.  @is_private: whether
 * this next page is private now.  @why: the beginning of the error; NULL if
 * there is no error.
 */
static void sends(unsigned *faults, size_t done, int ret, bool is_private,
                  int want, const char *why)
{
    const SevSendOutcome outcome = {
        .done = done,
        .ret = ret,
        .fw_error = ret == -EIO ? SEV_RET_HWSEV_RET_PLATFORM : 0,
        .is_private = is_private,
        .hdr_len = 52,
    };
    Error *err = NULL;

    g_assert_cmpint(sev_send_result(&outcome, faults, &err), ==, want);
    g_assert_cmpint(!!err, ==, !!why);
    if (why && !g_str_has_prefix(error_get_pretty(err), why)) {
        g_error("'%s' does not begin with '%s'", error_get_pretty(err), why);
    }
    error_free(err);
}

/*
 * Check for each result of the command, with and without packed pages, and for
 * both states of the next page, whether sev_send_result() sends the packed
 * pages, requeues the run or fails the migration.  A conversion to shared can
 * cause EFAULT even if the page is private now, because the guest may have
 * converted the page back.  sev_send_result() must therefore requeue the run in
 * this case, too.
 */
static void test_send(void)
{
    static const char changed[] = "SEV: the page changed its state";
    static const char failed[] = "SEV: SEND_UPDATE_DATA failed in the kernel, "
                                 "without an answer of the firmware: Bad addr";
    static const char firmware[] = "SEV: SEND_UPDATE_DATA failed: firmware "
                                   "error HWERROR_PLATFORM (";
    static const char packet[] = "SEV: SEND_UPDATE_DATA made a packet that has "
                                 "not a header of 52 bytes";
    static const struct {
        int ret;
        bool is_private;
        int none, some;         /* results if 0 pages and 3 pages were packed */
        const char *why;        /* error of a negative result */
    } rows[] = {
        { 0, false, 0, 3, NULL },
        { 0, true, 0, 3, NULL },
        { -EAGAIN, false, -EAGAIN, 3, changed },
        { -EAGAIN, true, -EAGAIN, 3, changed },
        { -EFAULT, false, -EAGAIN, 3, changed },
        { -EFAULT, true, -EAGAIN, -EAGAIN, failed },
        { -EPROTO, false, -EPROTO, -EPROTO, packet },
        { -EPROTO, true, -EPROTO, -EPROTO, packet },
        { -EIO, false, -EIO, -EIO, firmware },
        { -EIO, true, -EIO, -EIO, firmware },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        unsigned faults = 0;

        g_test_message("%s, page is %s", strerror(-rows[i].ret),
                       rows[i].is_private ? "private" : "shared");
        sends(&faults, 0, rows[i].ret, rows[i].is_private, rows[i].none,
              rows[i].none < 0 ? rows[i].why : NULL);
        g_assert_cmpuint(faults, ==, rows[i].ret == -EFAULT);
        /* Packed pages reset the number of EFAULT in a row */
        faults = SEV_SEND_FAULTS_MAX - 1;
        sends(&faults, 3, rows[i].ret, rows[i].is_private, rows[i].some,
              rows[i].some < 0 ? rows[i].why : NULL);
        g_assert_cmpuint(faults, ==, rows[i].ret == -EFAULT &&
                         rows[i].is_private);
    }
}

/*
 * If the command can never pack a page, it fails with EFAULT each time, so
 * sev_send_result() limits the number of EFAULT in a row.  EAGAIN neither
 * increases nor resets this number.  A packed page resets it.
 */
static void test_retry(void)
{
    unsigned faults = 0;

    for (int i = 1; i < SEV_SEND_FAULTS_MAX; i++) {
        sends(&faults, 0, -EFAULT, true, -EAGAIN, "SEV: SEND_UPDATE_DATA");
        sends(&faults, 0, -EAGAIN, true, -EAGAIN, "SEV: the page changed");
    }
    sends(&faults, 0, -EFAULT, true, -EFAULT, "SEV: SEND_UPDATE_DATA");
    sends(&faults, 0, -EAGAIN, true, -EAGAIN, "SEV: the page changed");
    sends(&faults, 1, 0, true, 1, NULL);
    sends(&faults, 0, -EFAULT, true, -EAGAIN, "SEV: SEND_UPDATE_DATA");
}

/*
 * The destination's host exports the CEK without AMD's signature.  If the bit
 * SEV is set in the guest's policy, SEND_START verifies this signature and
 * rejects the exported chain.  The advice must then tell the user to replace
 * the CEK in the chain.
 */
static void test_signed_cek(void)
{
    static const int codes[] = {
        SEV_RET_INVALID_CERTIFICATE, SEV_RET_BAD_SIGNATURE,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(codes); i++) {
        const char *advice = sev_fw_error_advice(codes[i]);

        g_assert_nonnull(strstr(advice, "policy has SEV (0x20)"));
        g_assert_nonnull(strstr(advice, "CEK that AMD has signed"));
    }
}

static void test_message(void)
{
    check("SEND_START", -EIO, SEV_RET_INVALID_CERTIFICATE,
          "SEV: SEND_START failed: firmware error INVALID_CERTIFICATE (6): "
          "the firmware rejects a certificate: give migrate-set-sev-info");
    /*
     * The message says that a certificate or a session may be wrong, and does
     * not ask the user to report a bug
     */
    check("SEND_START", -EIO, SEV_RET_INVALID_LEN,
          "SEV: SEND_START failed: firmware error INVALID_LENGTH (4): a "
          "certificate or a session");
    check("RECEIVE_UPDATE_DATA", -EIO, SEV_RET_BAD_MEASUREMENT,
          "SEV: RECEIVE_UPDATE_DATA failed: firmware error BAD_MEASUREMENT "
          "(11): the data was changed");
    check("SEND_FINISH", -EIO, 0xffff,
          "SEV: SEND_FINISH failed: firmware error unknown (65535): see");
    /*
     * The kernel has failed without a firmware command.  In this case, older
     * kernels report the firmware error 0, and newer kernels report
     * SEV_RET_NO_FW_CALL.
     */
    check("SEND_UPDATE_DATA", -EFAULT, 0,
          "SEV: SEND_UPDATE_DATA failed in the kernel, without an answer of "
          "the firmware: Bad address");
    check("SEND_UPDATE_DATA", -ENOMEM, SEV_RET_NO_FW_CALL,
          "SEV: SEND_UPDATE_DATA failed in the kernel, without an answer of "
          "the firmware: Cannot allocate memory");
}

static void check_init(bool es, int ret, int fw_error, const char *want)
{
    Error *err = NULL;

    sev_init_error(&err, es, ret, fw_error);
    g_assert_nonnull(err);
    if (!g_str_has_prefix(error_get_pretty(err), want)) {
        g_error("'%s' does not begin with '%s'", error_get_pretty(err), want);
    }
    error_free(err);
}

static void test_init(void)
{
    check_init(false, -EBUSY, 0, "SEV: no ASID is free for an SEV guest: ");
    check_init(true, -EBUSY, -1, "SEV: no ASID is free for an SEV-ES guest: ");
    check_init(false, -EIO, SEV_RET_INVALID_PLATFORM_STATE,
               "SEV: initialization of the VM failed: firmware error "
               "INVALID_PLATFORM_STATE (1): ");
    check_init(false, -EINVAL, 0, "SEV: initialization of the VM failed in "
               "the kernel, without an answer of the firmware: Invalid");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sev-migration-error/every-answer", test_every_answer);
    g_test_add_func("/sev-migration-error/unknown", test_unknown);
    g_test_add_func("/sev-migration-error/send", test_send);
    g_test_add_func("/sev-migration-error/retry", test_retry);
    g_test_add_func("/sev-migration-error/signed-cek", test_signed_cek);
    g_test_add_func("/sev-migration-error/message", test_message);
    g_test_add_func("/sev-migration-error/init", test_init);
    return g_test_run();
}
