/* SPDX-License-Identifier: GPL-2.0-or-later */
/* <linux/kvm-page-enc.h> compiles if it is the first header. */
#include <linux/kvm-page-enc.h>
#include "uapi.h"
