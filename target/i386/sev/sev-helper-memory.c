/*
 * Memory of the migration helper of an SEV guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/datadir.h"
#include "qemu/units.h"
#include "cpu.h"
#include "exec/address-spaces.h"
#include "hw/i386/e820_memory_layout.h"
#include "sev.h"
#include "sev-helper-memory.h"
#include "trace.h"

/* Check that a file of @len bytes with the header @h can be launched */
static bool check_image(const MhImage *h, size_t len, Error **errp)
{
    if (len <= sizeof(*h) || len > MH_TABLES) {
        error_setg(errp, "it has %zu bytes, expected %zu to %llu", len,
                   sizeof(*h) + 1, MH_TABLES);
        return false;
    }
    if (h->magic != MH_MAGIC || h->version != MH_VERSION) {
        error_setg(errp, "it is not a migration helper of version %d",
                   MH_VERSION);
        return false;
    }
    if (h->cpus != MH_CPUS || h->channels != MH_CHANNELS ||
        h->text_end % MH_PAGE_SIZE || h->data_end % MH_PAGE_SIZE ||
        h->text_end > h->data_end || h->data_end > MH_TABLES ||
        h->entry >= h->text_end) {
        error_setg(errp, "its header is not valid");
        return false;
    }
    return true;
}

uint8_t *sev_helper_memory_read(const char *path, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *file = qemu_find_file(QEMU_FILE_TYPE_BIOS, path);
    g_autofree char *data = NULL;
    g_autoptr(GError) gerr = NULL;
    uint8_t *image;
    gsize len;

    if (!file) {
        error_setg(errp, "SEV: migration helper '%s': there is no such file",
                   path);
        return NULL;
    }
    if (!g_file_get_contents(file, &data, &len, &gerr)) {
        error_setg(errp, "SEV: migration helper '%s': %s", file,
                   gerr->message);
        return NULL;
    }
    if (!check_image((MhImage *)data, len, errp)) {
        error_prepend(errp, "SEV: migration helper '%s': ", file);
        return NULL;
    }
    image = g_malloc0(MH_PRIVATE_SIZE);
    memcpy(image, data, len);
    return image;
}

/*
 * Add RAM to the machine.  Its RAMBlock is not registered for migration, so
 * QEMU neither migrates it nor has KVM log the helper's writes to it.
 */
static void add_ram(MemoryRegion *mr, const char *name, uint64_t gpa,
                    uint64_t size)
{
    memory_region_init_ram_flags_nomigrate(mr, NULL, name, size, 0,
                                           &error_fatal);
    memory_region_add_subregion(get_system_memory(), gpa, mr);
    e820_add_entry(gpa, size, E820_RESERVED);
}

uint64_t sev_helper_memory_place(SevHelperMemory *m, uint64_t gpa,
                                 uint8_t *image)
{
    m->shared_gpa = gpa;
    m->private_gpa = gpa + MH_SHARED_SIZE;
    add_ram(&m->shared_mr, "sev-helper-shared", m->shared_gpa, MH_SHARED_SIZE);
    add_ram(&m->private_mr, "sev-helper-private", m->private_gpa,
            MH_PRIVATE_SIZE);
    if (image) {
        mh_image_prepare(image, m->private_gpa, m->shared_gpa,
                         BIT_ULL(sev_get_cbit_position()),
                         SEV_HELPER_GPA_LIMIT);
        m->entry = MH_VA + ((MhImage *)image)->entry;
    }
    trace_sev_helper_memory_place(m->private_gpa, m->shared_gpa);
    return m->private_gpa + MH_PRIVATE_SIZE;
}

uint8_t *sev_helper_memory_private(SevHelperMemory *m)
{
    return memory_region_get_ram_ptr(&m->private_mr);
}

uint8_t *sev_helper_memory_shared(SevHelperMemory *m, unsigned cpu)
{
    assert(cpu < MH_CPUS);
    return (uint8_t *)memory_region_get_ram_ptr(&m->shared_mr) +
           cpu * MH_CPU_SHARED_SIZE;
}
