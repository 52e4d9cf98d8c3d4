/* SPDX-License-Identifier: GPL-2.0-or-later */
/* <linux/kvm-page-enc.h> compiles with nothing before it. */
#include <linux/kvm-page-enc.h>
#include "uapi.h"
