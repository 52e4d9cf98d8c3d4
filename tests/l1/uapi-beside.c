/* SPDX-License-Identifier: GPL-2.0-or-later */
/* <linux/kvm-page-enc.h> compiles before and after <linux/kvm.h>. */
#include <linux/kvm-page-enc.h>
#include <linux/kvm.h>
#include <linux/kvm-page-enc.h>
#include "uapi.h"
