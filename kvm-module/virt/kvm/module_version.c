// SPDX-License-Identifier: GPL-2.0
/*
 * The version of the module, for modinfo and /sys/module/NAME/version.  It distinguishes
 * the module from the distribution's, which has no version (kvm*) or another version
 * (ccp).  DKMS needs the version as well: without a version, a module whose source this
 * project does not change would look like the distribution's, and DKMS would not
 * install it.
 *
 * This file is built once for each module, see Kbuild.
 */
#include <linux/module.h>

MODULE_VERSION("kvm-page-enc-" KVM_PAGE_ENC_VERSION);
/* Version of the distribution's source package, if the module is built from one */
MODULE_INFO(linux_source, KVM_PAGE_ENC_LINUX_SOURCE);
