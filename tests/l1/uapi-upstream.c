/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * <linux/kvm-page-enc.h> compiles beside a <linux/kvm.h> that defines upstream's
 * names, and then uses those definitions.
 */
#include <linux/kvm.h>
#include <linux/kvm-page-enc.h>
#include "uapi.h"
