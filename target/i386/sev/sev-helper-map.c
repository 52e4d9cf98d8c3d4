/*
 * Guest-physical addresses of RAMBlocks, for the migration helper
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/range.h"
#include "qemu/rcu.h"
#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "sev-helper-map.h"
#include "sev-migration-internal.h"
#include "trace.h"

/* Priority of memory regions that uncover hidden RAM: above all others */
#define UNCOVER_PRIORITY INT_MAX

/* Contiguous bytes of a RAMBlock at a guest-physical address */
typedef struct Place {
    RAMBlock *rb;
    uint64_t offset;
    hwaddr gpa;
    uint64_t size;
} Place;

/* Addresses at which a device or a register can hide RAM at any time */
typedef struct Hider {
    hwaddr gpa;
    uint64_t size;
} Hider;

/*
 * While @mr is enabled, a vCPU that accesses the guest-physical addresses of
 * @place accesses the RAMBlock of @place, even if a device or a PAM register
 * would hide the RAMBlock there.  QEMU disables @mr when @mr is not needed, and
 * never frees it, because a flat view may contain it.
 */
typedef struct Uncover {
    Place place;
    MemoryRegion mr;
} Uncover;

struct SevHelperMap {
    GPtrArray *uncovers; /* Uncover; belongs to the helper; BQL */
    GArray *places;     /* Place, the largest ones first */
    GArray *hiders;     /* Hider */
    bool uncovered;     /* BQL */
};

static gint compare_places(gconstpointer a, gconstpointer b)
{
    const Place *p = a, *q = b;

    if (p->size != q->size) {
        return p->size > q->size ? -1 : 1;
    }
    return p->gpa < q->gpa ? -1 : p->gpa > q->gpa;
}

/*
 * Add the place of @mr, which begins at @base.  If @mr is a container, add the
 * places of its subregions instead.  BQL.
 */
static void add_places(GArray *places, MemoryRegion *mr, hwaddr base)
{
    Place p = { .gpa = base, .size = memory_region_size(mr) };
    MemoryRegion *sub, *end = mr;

    while (end->alias) {
        p.offset += end->alias_offset;
        end = end->alias;
    }
    p.rb = end->ram_block;
    if (p.rb) {
        if (encbitmap_npages(p.rb)) {
            g_array_append_val(places, p);
        }
        return;
    }
    if (end != mr) {
        /* No alias of a container contains RAM that can be private */
        return;
    }
    QTAILQ_FOREACH(sub, &mr->subregions, subregions_link) {
        add_places(places, sub, base + sub->addr);
    }
}

/*
 * Find the memory regions that hide RAM while they are enabled, because they
 * overlap RAM and have a higher priority, such as those of PAM registers and of
 * SMRAM.  A region that is disabled at present counts, too.  BQL.
 */
static void add_hiders(GArray *hiders)
{
    MemoryRegion *sub, *system = get_system_memory();

    QTAILQ_FOREACH(sub, &system->subregions, subregions_link) {
        Hider h = { .gpa = sub->addr, .size = memory_region_size(sub) };

        if (sub->priority > 0 && sub->priority < UNCOVER_PRIORITY) {
            g_array_append_val(hiders, h);
        }
    }
}

/*
 * Remove each place that overlaps a larger place of another RAMBlock.  For
 * example, PC firmware has an alias below 1 MiB, in the middle of RAM.  If QEMU
 * uncovered this alias, the helper would access the firmware instead of the RAM
 * at the same addresses.
 */
static void remove_overlaps(GArray *places)
{
    for (guint i = 0; i < places->len; i++) {
        const Place *p = &g_array_index(places, Place, i);

        for (guint j = places->len - 1; j > i; j--) {
            const Place *q = &g_array_index(places, Place, j);

            if (q->rb != p->rb && ranges_overlap(p->gpa, p->size, q->gpa,
                                                 q->size)) {
                g_array_remove_index(places, j);
            }
        }
    }
}

SevHelperMap *sev_helper_map_new(GPtrArray *uncovers)
{
    SevHelperMap *map = g_new0(SevHelperMap, 1);

    assert(bql_locked());
    map->uncovers = uncovers;
    map->places = g_array_new(false, false, sizeof(Place));
    map->hiders = g_array_new(false, false, sizeof(Hider));
    add_hiders(map->hiders);
    add_places(map->places, get_system_memory(), 0);
    /*
     * A page can be in several places, because PAM registers have memory
     * regions with parts of the RAM.  sev_helper_map_find() returns the address
     * from the first place that contains the page.  This address must be the
     * same at the source and at the destination.  Put the largest places first,
     * so that the first one is the place of the whole RAM, which is the same at
     * both hosts.
     */
    g_array_sort(map->places, compare_places);
    remove_overlaps(map->places);
    return map;
}

void sev_helper_map_free(SevHelperMap *map)
{
    if (map) {
        sev_helper_map_cover(map);
        g_array_unref(map->places);
        g_array_unref(map->hiders);
        g_free(map);
    }
}

bool sev_helper_map_find(const SevHelperMap *map, RAMBlock *rb,
                         uint64_t offset, hwaddr *gpa)
{
    for (guint i = 0; i < map->places->len; i++) {
        const Place *p = &g_array_index(map->places, Place, i);

        if (p->rb == rb && offset >= p->offset &&
            offset - p->offset < p->size) {
            *gpa = p->gpa + (offset - p->offset);
            return true;
        }
    }
    return false;
}

bool sev_helper_map_addresses(const SevHelperMap *map, RAMBlock *rb,
                              uint64_t offset, size_t npages, uint64_t *gpa,
                              Error **errp)
{
    for (size_t i = 0; i < npages; i++) {
        uint64_t at = offset + i * TARGET_PAGE_SIZE;

        if (!sev_helper_map_find(map, rb, at, &gpa[i])) {
            error_setg(errp, "block %s, offset 0x%" PRIx64 ": the page has no "
                       "guest-physical address", rb->idstr, at);
            return false;
        }
    }
    return true;
}

/*
 * Find out whether a vCPU that reads (or writes, if @write) the guest-physical
 * address @gpa accesses byte @offset of @rb.
 * @visible: returns the answer
 *
 * Returns for how many bytes from @gpa on, at most @size, the answer is valid.
 */
static uint64_t look_up(RAMBlock *rb, uint64_t offset, hwaddr gpa,
                        uint64_t size, bool write, bool *visible)
{
    MemoryRegionSection sec = memory_region_find(get_system_memory(), gpa,
                                                 size);
    uint64_t len = int128_get64(sec.size);

    *visible = false;
    if (!sec.mr) {
        return size;
    }
    if (sec.offset_within_address_space > gpa) {
        len = sec.offset_within_address_space - gpa;
    } else {
        /*
         * Compare host addresses and not RAMBlocks, because a region that
         * uncovers flash memory has a RAMBlock of its own
         */
        *visible = sec.mr->ram_block && memory_region_is_ram(sec.mr) &&
            sec.mr->ram_block->host + sec.offset_within_region ==
            rb->host + offset &&
            !(write && (sec.mr->readonly || memory_region_is_romd(sec.mr)));
    }
    memory_region_unref(sec.mr);
    return MIN(len, size);
}

bool sev_helper_map_visible(const SevHelperMap *map, RAMBlock *rb,
                            uint64_t offset, hwaddr gpa)
{
    bool visible;

    for (guint i = 0; i < map->hiders->len; i++) {
        const Hider *h = &g_array_index(map->hiders, Hider, i);

        if (gpa >= h->gpa && gpa - h->gpa < h->size) {
            return false;
        }
    }
    look_up(rb, offset, gpa, TARGET_PAGE_SIZE, false, &visible);
    return visible;
}

static Uncover *find_uncover(const SevHelperMap *map, const Place *p)
{
    for (guint i = 0; i < map->uncovers->len; i++) {
        Uncover *u = g_ptr_array_index(map->uncovers, i);

        if (!memcmp(&u->place, p, sizeof(*p))) {
            return u;
        }
    }
    return NULL;
}

static bool is_flash(const RAMBlock *rb)
{
    return rb->mr->rom_device || rb->mr->readonly;
}

/* Create the region that uncovers @p, in disabled state.  BQL. */
static Uncover *add_uncover(SevHelperMap *map, const Place *p)
{
    Uncover *u = g_new0(Uncover, 1);

    u->place = *p;
    if (is_flash(p->rb)) {
        /*
         * Map the memory as RAM.  Through an alias, a write would be a command
         * to the flash device instead of changing the memory.
         */
        memory_region_init_ram_ptr(&u->mr, NULL, "sev-helper-uncovered",
                                   p->size, p->rb->host + p->offset);
    } else {
        memory_region_init_alias(&u->mr, NULL, "sev-helper-uncovered",
                                 p->rb->mr, p->offset, p->size);
    }
    memory_region_set_enabled(&u->mr, false);
    memory_region_add_subregion_overlap(get_system_memory(), p->gpa, &u->mr,
                                        UNCOVER_PRIORITY);
    g_ptr_array_add(map->uncovers, u);
    return u;
}

/* Put @p above everything else at its address.  BQL. */
static void uncover(SevHelperMap *map, const Place *p)
{
    Uncover *u = find_uncover(map, p) ?: add_uncover(map, p);

    trace_sev_helper_map_uncover(p->rb->idstr, p->offset, p->gpa, p->size);
    memory_region_set_enabled(&u->mr, true);
}

GPtrArray *sev_helper_map_prepare(void)
{
    GPtrArray *uncovers = g_ptr_array_new();
    SevHelperMap *map = sev_helper_map_new(uncovers);

    for (guint i = 0; i < map->places->len; i++) {
        const Place *p = &g_array_index(map->places, Place, i);

        /*
         * A region that uncovers flash memory has a RAMBlock of its own.  QEMU
         * notifies block devices when a RAMBlock is created, and cannot do so
         * in the coroutine that loads a guest, so create the region now.
         */
        if (is_flash(p->rb)) {
            add_uncover(map, p);
        }
    }
    sev_helper_map_free(map);
    return uncovers;
}

void sev_helper_map_uncover(SevHelperMap *map)
{
    assert(bql_locked());
    if (map->uncovered) {
        return;
    }
    map->uncovered = true;
    memory_region_transaction_begin();
    for (guint i = 0; i < map->places->len; i++) {
        const Place *p = &g_array_index(map->places, Place, i);
        uint64_t done = 0;

        while (done < p->size) {
            hwaddr gpa, at = p->gpa + done;
            bool visible;
            uint64_t len = look_up(p->rb, p->offset + done, at,
                                   p->size - done, true, &visible);

            /*
             * A page can be in several places.  The helper accesses the page
             * at the address from sev_helper_map_find(), so uncover the page
             * only there.
             */
            if (!visible && sev_helper_map_find(map, p->rb, p->offset + done,
                                                &gpa) && gpa == at) {
                uncover(map, &(Place) { .rb = p->rb,
                                        .offset = p->offset + done,
                                        .gpa = at, .size = len });
            }
            done += len;
        }
    }
    memory_region_transaction_commit();
}

bool sev_helper_map_is_uncovered(const SevHelperMap *map)
{
    return map->uncovered;
}

void sev_helper_map_cover(SevHelperMap *map)
{
    assert(bql_locked());
    if (!map->uncovered) {
        return;
    }
    map->uncovered = false;
    memory_region_transaction_begin();
    for (guint i = 0; i < map->uncovers->len; i++) {
        Uncover *u = g_ptr_array_index(map->uncovers, i);

        memory_region_set_enabled(&u->mr, false);
    }
    memory_region_transaction_commit();
}
