/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A bug that the fuzzer of the migration helper must find */
#undef MH_BATCH_PAGES
#define MH_BATCH_PAGES 1024
