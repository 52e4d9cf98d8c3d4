/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A bug that the fuzzer of the migration helper must find: the helper accepts
 * batches of up to 1024 pages, although its shared memory has room for 512.
 */
#undef MH_BATCH_PAGES
#define MH_BATCH_PAGES 1024
