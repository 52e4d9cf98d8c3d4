// SPDX-License-Identifier: GPL-2.0
/*
 * Says whose build of KVM this is, in modinfo and in /sys/module/NAME/version:
 * the distribution's modules have no version.  DKMS needs it, too, or it
 * would not install a module whose source is the distribution's.
 *
 * Built once for each module, see Kbuild.
 */
#include <linux/module.h>

MODULE_VERSION("kvm-page-enc-" KVM_PAGE_ENC_VERSION);
/* The version of the distribution's source package, where one was used */
MODULE_INFO(linux_source, KVM_PAGE_ENC_LINUX_SOURCE);
