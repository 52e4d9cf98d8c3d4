/* SPDX-License-Identifier: GPL-2.0-or-later */
/* <linux/kvm-page-enc.h> compiles before <linux/kvm.h>, too. */
#include <linux/kvm-page-enc.h>
#include <linux/kvm.h>
#include "uapi.h"
