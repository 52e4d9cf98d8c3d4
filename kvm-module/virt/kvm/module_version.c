// SPDX-License-Identifier: GPL-2.0
/*
 * The version of the module, for modinfo and /sys/module/NAME/version.  It distinguishes
 * this build of KVM from the distribution's, whose modules have no version.  DKMS needs
 * the version as well: it would not install a module that is built from the
 * distribution's source without changes.
 *
 * This file is built once for each module, see Kbuild.
 */
#include <linux/module.h>

MODULE_VERSION("kvm-page-enc-" KVM_PAGE_ENC_VERSION);
/* Version of the distribution's source package, if the module is built from one */
MODULE_INFO(linux_source, KVM_PAGE_ENC_LINUX_SOURCE);
