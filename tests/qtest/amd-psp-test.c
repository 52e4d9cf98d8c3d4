/*
 * Tests of the emulated AMD PSP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The cases are in amd-psp-*-cases.c.
 */

#include "qemu/osdep.h"
#include "amd-psp-cases.h"

char *firmware, *dir, *ark, *cek;

int main(int argc, char **argv)
{
    g_autofree char *certs = NULL;
    int fd, ret;

    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_device("amd-psp")) {
        g_test_skip("QEMU has no amd-psp device: built without hogweed?");
        return 0;
    }
    add_device_tests();
    add_platform_tests();
    add_guest_tests();
    add_states_tests();
    add_transport_tests();
    add_certs_tests();
    add_debug_tests();
    add_es_tests();
    add_faults_tests();

    fd = g_file_open_tmp("amd-psp-test-XXXXXX", &firmware, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, 64 * 1024), ==, 0);
    close(fd);
    dir = g_dir_make_tmp("amd-psp-test-XXXXXX", NULL);
    g_assert_nonnull(dir);
    ark = g_strdup_printf("%s/ark", dir);
    cek = g_strdup_printf("%s/cek", dir);
    certs = g_strdup_printf("%s.cert", ark);
    ret = g_test_run();
    unlink(firmware);
    unlink(ark);
    unlink(certs);
    unlink(cek);
    rmdir(dir);
    g_free(cek);
    g_free(ark);
    g_free(dir);
    g_free(firmware);
    return ret;
}
