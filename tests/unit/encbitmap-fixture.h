/*
 * RAMBlocks with encryption bitmaps, without a machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * This file replaces the functions of physmem.c and memory.c that encbitmap.c
 * and encrypted-records.c call.  One file of a program may include this header.
 */
#ifndef TESTS_UNIT_ENCBITMAP_FIXTURE_H
#define TESTS_UNIT_ENCBITMAP_FIXTURE_H

#include "qemu/rcu_queue.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "exec/page-vary.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"

#define PAGE_BITS 12
#define PAGE (1ULL << PAGE_BITS)

RAMList ram_list = { .blocks = QLIST_HEAD_INITIALIZER(ram_list.blocks) };
extern const TargetPageBits target_page;
const TargetPageBits target_page = {
    .decided = true, .bits = PAGE_BITS, .mask = -1ull << PAGE_BITS,
};

typedef struct TestBlock {
    MemoryRegion mr;
    RAMBlock rb;
    bool not_migratable;
    /*
     * One byte for each page: 1 if memory_region_set_dirty() was called for it
     */
    uint8_t *dirty;
} TestBlock;

static TestBlock *test_block(RAMBlock *rb)
{
    return container_of(rb, TestBlock, rb);
}

void memory_region_set_dirty(MemoryRegion *mr, hwaddr addr, hwaddr size)
{
    TestBlock *tb = container_of(mr, TestBlock, mr);

    g_assert(!(addr % PAGE) && !(size % PAGE));
    g_assert(addr <= tb->rb.max_length && size <= tb->rb.max_length - addr);
    memset(tb->dirty + addr / PAGE, 1, size / PAGE);
}

bool qemu_ram_is_migratable(RAMBlock *rb)
{
    return !test_block(rb)->not_migratable;
}

RAMBlock *qemu_ram_block_by_name(const char *name)
{
    RAMBlock *rb;

    RAMBLOCK_FOREACH(rb) {
        if (!strcmp(rb->idstr, name)) {
            return rb;
        }
    }
    return NULL;
}

static RAMBlock *block_new(const char *name, uint64_t npages)
{
    TestBlock *tb = g_new0(TestBlock, 1);
    RAMBlock *last = NULL, *rb;

    pstrcpy(tb->rb.idstr, sizeof(tb->rb.idstr), name);
    tb->rb.mr = &tb->mr;
    tb->rb.used_length = tb->rb.max_length = npages * PAGE;
    tb->dirty = g_new0(uint8_t, npages);
    RAMBLOCK_FOREACH(rb) {
        last = rb;
    }
    if (last) {
        QLIST_INSERT_AFTER_RCU(last, &tb->rb, next);
    } else {
        QLIST_INSERT_HEAD_RCU(&ram_list.blocks, &tb->rb, next);
    }
    return &tb->rb;
}

static void block_free(RAMBlock *rb)
{
    TestBlock *tb = test_block(rb);

    encbitmap_free(rb);
    g_assert(!rb->encbmap);
    QLIST_REMOVE_RCU(rb, next);
    g_free(tb->dirty);
    g_free(tb);
}

#endif
