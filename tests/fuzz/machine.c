/*
 * Fuzzer of the loader of private pages: the functions of QEMU, KVM and the
 * firmware that the loader calls
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <linux/psp-sev.h>
#include <sys/mman.h>
#include <sanitizer/allocator_interface.h>
#include <sanitizer/asan_interface.h>
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/module.h"
#include "qemu/rcu_queue.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "linux/kvm-page-enc.h"
#include "cpu.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "exec/page-vary.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "hw/boards.h"
#include "migration/encrypted/encrypted-load.h"
#include "migration/encrypted/encrypted-records.h"
#include "migration/migration.h"
#include "migration/ram.h"
#include "system/kvm-private-access.h"
#include "target/i386/sev/sev-helper.h"
#include "target/i386/sev/sev-migration.h"
#include "target/i386/sev/sev-migration-wire.h"
#include "machine.h"

/* Unlike assert(), prints its own message and cannot be compiled out */
#define MUST(what) do {                                              \
        if (!(what)) {                                               \
            fprintf(stderr, "%s:%d: must be: %s\n", __FILE__,        \
                    __LINE__, #what);                                \
            abort();                                                 \
        }                                                            \
    } while (0)

#define NBLOCKS 5
#define SEV_FD 5
#define HANDLE 77

typedef struct Block {
    MemoryRegion mr;
    RAMBlock rb;
    bool resizable;
    bool not_migratable;
    /*
     * Bitmaps with a bit for each page.
     * @came: set when the firmware receives the page, or when a record reports
     *        the page as unallocated; cleared when the stream delivers shared
     *        contents of the page
     * @said: the last state record for the page reports it as private
     * @kernel: the page is private in the attributes that KVM keeps
     */
    unsigned long *came, *said, *kernel;
} Block;

static struct {
    unsigned config;
    Block blocks[NBLOCKS];
    size_t nblocks;
    /* The migration stream */
    const uint8_t *data;
    size_t len, at;
    bool ended;
    /* Number of error messages and of conversions by the loader */
    unsigned reasons;
    unsigned converts;
    /*
     * State of the firmware, and how often it executed each command.  @signals
     * counts the times at which a signal could interrupt a batch.
     */
    SevState state;
    unsigned starts, updates, finishes, signals;
} m;

RAMList ram_list = { .blocks = QLIST_HEAD_INITIALIZER(ram_list.blocks) };
extern const TargetPageBits target_page;
const TargetPageBits target_page = {
    .decided = true, .bits = PAGE_BITS, .mask = -1ull << PAGE_BITS,
};

/* The machine's confidential guest */
const uint32_t machine_policy = 1;
static SevMigration migration = { .enabled = true };
static MachineState machine;
MachineState *current_machine = &machine;

static Block *block_of(RAMBlock *rb)
{
    return container_of(rb, Block, rb);
}

static uint64_t used_pages(const RAMBlock *rb)
{
    return rb->used_length >> PAGE_BITS;
}

/* Error messages */

int error_vprintf(const char *fmt, va_list ap)
{
    m.reasons++;
    return 0;
}

int error_vprintf_unless_qmp(const char *fmt, va_list ap)
{
    return error_vprintf(fmt, ap);
}

void migrate_set_error(MigrationState *s, const Error *err)
{
    MUST(err && *error_get_pretty((Error *)err));
}

/* All migration capabilities are off */

#define OFF(name) bool name(void) { return false; }
OFF(migrate_background_snapshot)
OFF(migrate_colo)
OFF(migrate_dirty_bitmaps)
OFF(migrate_events)
OFF(migrate_ignore_shared)
OFF(migrate_mapped_ram)
OFF(migrate_multifd)
OFF(migrate_multifd_flush_after_each_section)
OFF(migrate_postcopy_ram)
OFF(migrate_rdma)
OFF(migrate_xbzrle)
OFF(migrate_zero_copy_send)

MigMode migrate_mode(void)
{
    return MIG_MODE_NORMAL;
}

MigrationState *migrate_get_current(void)
{
    return NULL;
}

/*
 * The files under test use only three members of the returned struct:
 * @encrypted, which encrypted_load_init() initializes; @state; and
 * @to_src_file, which is NULL, because this machine has no return path.
 */
MigrationIncomingState *migration_incoming_get_current(void)
{
    static MigrationIncomingState incoming;
    static bool initialized;

    if (!initialized) {
        encrypted_load_init(&incoming.encrypted);
        initialized = true;
    }
    return &incoming;
}

/*
 * No guest runs in this machine, so no line that the caches write back later
 * can overwrite the private data of a guest
 */
void sev_cache_flush_shared(void)
{
}

void sev_cache_flush_pages(RAMBlock *rb, uint64_t offset, uint64_t npages)
{
}

/* This machine has no migration helper */
SevHelperPhase sev_helper_get_phase(const SevHelper *h)
{
    MUST(!h);
    return SEV_HELPER_OFF;
}

/*
 * No thread converts pages while the firmware uses them, so these functions
 * need not prevent conversions
 */

void kvm_private_access_hold(KvmPrivateAccessHold *hold, void *host,
                             size_t size)
{
    MUST(size);
}

void kvm_private_access_release(KvmPrivateAccessHold *hold)
{
}

/*
 * The ConfidentialGuestSupport object of the simulated machine.  Its migration
 * operations are those of an SEV guest.
 */

#define TYPE_FUZZ_GUEST "fuzz-guest"

static uint32_t guest_policy, guest_handle;

static void guest_init(Object *obj)
{
    /*
     * There is one guest only.  A class_init function could not do this for all
     * versions of QEMU, because the type of its last argument has changed.
     */
    CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(obj)->migration = &sev_receive_ops;
    guest_policy = machine_policy;
    object_property_add_uint32_ptr(obj, "policy", &guest_policy,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint32_ptr(obj, "handle", &guest_handle,
                                   OBJ_PROP_FLAG_READWRITE);
}

static const TypeInfo guest_types[] = {
    {
        .name = TYPE_CONFIDENTIAL_GUEST_SUPPORT,
        .parent = TYPE_OBJECT,
        .class_size = sizeof(ConfidentialGuestSupportClass),
        .instance_size = sizeof(ConfidentialGuestSupport),
    }, {
        .name = TYPE_FUZZ_GUEST,
        .parent = TYPE_CONFIDENTIAL_GUEST_SUPPORT,
        .instance_init = guest_init,
    },
};

static ConfidentialGuestSupport *guest(void)
{
    static Object *obj;

    if (!obj) {
        module_call_init(MODULE_INIT_QOM);
        type_register_static_array(guest_types, ARRAY_SIZE(guest_types));
        obj = object_new(TYPE_FUZZ_GUEST);
        qemu_mutex_init(&migration.lock);
    }
    return CONFIDENTIAL_GUEST_SUPPORT(obj);
}

/* RAM */

RAMBlock *machine_block(const char *name)
{
    for (size_t i = 0; i < m.nblocks; i++) {
        if (!strcmp(m.blocks[i].rb.idstr, name)) {
            return &m.blocks[i].rb;
        }
    }
    return NULL;
}

RAMBlock *qemu_ram_block_by_name(const char *name)
{
    return machine_block(name);
}

bool qemu_ram_is_migratable(RAMBlock *rb)
{
    return !block_of(rb)->not_migratable;
}

void memory_region_set_dirty(MemoryRegion *mr, hwaddr addr, hwaddr size)
{
    RAMBlock *rb = &container_of(mr, Block, mr)->rb;

    MUST(!(addr % PAGE) && !(size % PAGE));
    MUST(addr <= rb->max_length && size <= rb->max_length - addr);
}

/* Convert pages like KVM does; every 31st conversion fails with EAGAIN */
static int kernel_convert(RAMBlock *rb, uint64_t offset, uint64_t size,
                          bool to_private, uint64_t *error_offset)
{
    Block *b = block_of(rb);

    MUST(size && !(offset % PAGE) && !(size % PAGE));
    MUST(offset <= rb->max_length && size <= rb->max_length - offset);
    if (++m.converts % 31 == 0) {
        *error_offset = offset;
        return -EAGAIN;
    }
    if (to_private) {
        bitmap_set(b->kernel, offset / PAGE, size / PAGE);
    } else {
        bitmap_clear(b->kernel, offset / PAGE, size / PAGE);
    }
    return 0;
}

static const EncBitmapProvider kernel = {
    .name = "fuzz", .convert = kernel_convert,
};

/*
 * Get the memory of block @i.  An access to the gap after the memory ends the
 * fuzzer with SIGSEGV.  All inputs use the same memory, because its contents do
 * not matter.
 */
static uint8_t *host_memory(size_t i)
{
    static uint8_t *memory;
    const size_t each = 2 * BIG_PAGES * PAGE;

    if (!memory) {
        memory = mmap(NULL, NBLOCKS * each, PROT_NONE, MAP_PRIVATE |
                      MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        MUST(memory != MAP_FAILED);
        for (size_t j = 0; j < NBLOCKS; j++) {
            MUST(!mprotect(memory + j * each, each / 2,
                           PROT_READ | PROT_WRITE));
        }
    }
    return memory + i * each;
}

static void block_add(const char *name, uint64_t used, uint64_t max,
                      bool has_state)
{
    Block *b = &m.blocks[m.nblocks++], *last = b - 1;
    bool private = m.config & MACHINE_PRIVATE;

    pstrcpy(b->rb.idstr, sizeof(b->rb.idstr), name);
    b->rb.mr = &b->mr;
    b->rb.used_length = used * PAGE;
    b->rb.max_length = max * PAGE;
    b->resizable = used != max;
    b->came = bitmap_new(max);
    b->said = bitmap_new(max);
    b->kernel = bitmap_new(max);
    b->rb.host = host_memory(b - m.blocks);
    if (b == m.blocks) {
        QLIST_INSERT_HEAD_RCU(&ram_list.blocks, &b->rb, next);
    } else {
        QLIST_INSERT_AFTER_RCU(&last->rb, &b->rb, next);
    }
    if (has_state) {
        if (private) {
            bitmap_set(b->kernel, 0, max);
        }
        encbitmap_init(&b->rb, m.config & MACHINE_KERNEL ? &kernel : NULL,
                       private);
    }
}

void machine_new(unsigned config)
{
    memset(&m, 0, sizeof(m));
    m.config = config;
    machine.cgs = config & MACHINE_PLAIN ? NULL : guest();
    migration.control = 0;
    migration.announced = false;
    migration.packets.batch.limit = 0;
    if (config & MACHINE_BIG) {
        block_add("pc.ram", BIG_PAGES, BIG_PAGES, true);
        return;
    }
    block_add("pc.ram", RAM_PAGES, RAM_PAGES, true);
    block_add("pc.rom", 8, 8, false);
    block_add("flash0", 3, 3, true);
    /* The stream can resize this block, like the block of a ROM */
    block_add("blob", 5, 150, true);
    block_add("local", 8, 8, true);
    m.blocks[m.nblocks - 1].not_migratable = true;
}

void machine_free(void)
{
    for (size_t i = 0; i < m.nblocks; i++) {
        Block *b = &m.blocks[i];

        encbitmap_free(&b->rb);
        QLIST_REMOVE_RCU(&b->rb, next);
        g_free(b->came);
        g_free(b->said);
        g_free(b->kernel);
    }
    m.nblocks = 0;
}

/* The guest and the firmware: replacements of functions in target/i386/sev.c */

SevMigration *sev_guest_migration(ConfidentialGuestSupport *c)
{
    return &migration;
}

uint64_t sev_ram_below_4g(void)
{
    return MACHINE_BELOW_4G;
}

uint32_t sev_get_cbit_position(void)
{
    return 0;
}

SevState sev_guest_state(ConfidentialGuestSupport *c)
{
    return m.state;
}

void sev_guest_set_state(ConfidentialGuestSupport *c, SevState state)
{
    MUST(state != SEV_STATE_RECEIVE_UPDATE || guest_handle == HANDLE);
    m.state = state;
}

int sev_guest_fd(ConfidentialGuestSupport *c)
{
    return SEV_FD;
}

/* Read all bytes of a buffer, so that ASAN detects a size that is too large */
static unsigned read_all(uint64_t at, size_t len)
{
    const uint8_t *p = (const uint8_t *)(uintptr_t)at;
    unsigned sum = 0;

    for (size_t i = 0; i < len; i++) {
        sum += p[i];
    }
    return sum;
}

static bool receive_start(const struct kvm_sev_receive_start *start)
{
    /* RECEIVE_START must be issued once, before the first page */
    MUST(m.state == SEV_STATE_UNINIT && !m.starts && !m.updates);
    MUST(start->pdh_len && start->pdh_len <= SEV_WIRE_PDH_MAX);
    MUST(start->session_len && start->session_len <= SEV_WIRE_SESSION_MAX);
    MUST(start->policy == machine_policy);
    if (m.config & MACHINE_REFUSES &&
        read_all(start->session_uaddr, start->session_len) % 16 == 1) {
        return false;
    }
    read_all(start->pdh_uaddr, start->pdh_len);
    m.starts++;
    return true;
}

/* Receive one page of a packet.  Returns false if the firmware rejects it */
static bool receive_page(uint64_t guest, uint64_t hdr, uint32_t hdr_len,
                         uint64_t trans, uint32_t trans_len)
{
    uint8_t *to = (uint8_t *)(uintptr_t)guest;
    Block *b = NULL;
    uint64_t page;
    unsigned sum;

    MUST(m.state == SEV_STATE_RECEIVE_UPDATE && m.starts == 1 && !m.finishes);
    MUST(hdr_len && hdr_len <= SEV_WIRE_HDR_MAX);
    MUST(trans_len && trans_len <= PAGE);
    sum = read_all(hdr, hdr_len);
    if (!sum) {
        /* sev_batch_probe() sends a header of zeros, which firmware refuses */
        return false;
    }
    sum += read_all(trans, trans_len);
    for (size_t i = 0; i < m.nblocks; i++) {
        RAMBlock *rb = &m.blocks[i].rb;

        if (to >= rb->host && to < rb->host + rb->used_length) {
            b = &m.blocks[i];
        }
    }
    /* The page must be private, and within the current size of a block */
    MUST(b && !b->not_migratable && !((to - b->rb.host) % PAGE));
    page = (to - b->rb.host) / PAGE;
    MUST(encbitmap_test(&b->rb, page));
    MUST(!(m.config & MACHINE_KERNEL) || test_bit(page, b->kernel));
    m.updates++;
    if (m.config & MACHINE_REFUSES && sum % 16 == 1) {
        return false;
    }
    set_bit(page, b->came);
    return true;
}

/*
 * Does KVM accept packets of several pages?  The pages of such a packet must be
 * contiguous in the host's memory, which KVM ensures only in a guest_memfd.
 * Only machines with MACHINE_KERNEL have a guest_memfd.
 */
static bool takes_large(void)
{
    return m.config & MACHINE_BATCH && m.config & MACHINE_KERNEL;
}

static int receive_batch(struct kvm_sev_update_batch *b, bool *ok)
{
    const uint8_t *packets = (const uint8_t *)(uintptr_t)b->packets_uaddr;
    uint32_t n;

    MUST(m.config & MACHINE_BATCH && b->count);
    MUST(!b->flags || (b->flags == KVM_SEV_UPDATE_BATCH_PACKETS &&
                       takes_large()));
    for (b->done = 0; b->done < b->count; b->done += n) {
        uint64_t hdr = b->hdr_uaddr + (uint64_t)b->done * b->hdr_len;

        /* Simulate a signal, after which the caller must continue the batch */
        if (b->done && ++m.signals % 13 == 0) {
            return -EINTR;
        }
        n = b->flags ? packets[b->done] : 1;
        MUST(n && n <= KVM_SEV_UPDATE_BATCH_PACKET_MAX &&
             n <= b->count - b->done);
        for (uint32_t i = b->done; i < b->done + n; i++) {
            *ok = receive_page(b->guest_uaddr + i * PAGE, hdr, b->hdr_len,
                               b->trans_uaddr + i * PAGE, PAGE);
            if (!*ok) {
                return -EIO;
            }
        }
    }
    return 0;
}

int sev_ioctl(int fd, int cmd, void *data, int *fw_error)
{
    struct kvm_sev_receive_update_data *up = data;
    bool ok = true;
    int ret = 0;

    MUST(fd == SEV_FD);
    switch (cmd) {
    case KVM_SEV_RECEIVE_START:
        guest_handle = 0;
        ok = receive_start(data);
        ((struct kvm_sev_receive_start *)data)->handle = HANDLE;
        break;
    case KVM_SEV_RECEIVE_UPDATE_DATA:
        MUST(up->guest_len == PAGE);
        ok = receive_page(up->guest_uaddr, up->hdr_uaddr, up->hdr_len,
                          up->trans_uaddr, up->trans_len);
        break;
    case KVM_SEV_SEND_UPDATE_BATCH:     /* the caller probes for batches */
        ret = m.config & MACHINE_BATCH &&
              (takes_large() ||
               !((struct kvm_sev_update_batch *)data)->flags) ? 0 : -EINVAL;
        break;
    case KVM_SEV_RECEIVE_UPDATE_BATCH:
        ret = receive_batch(data, &ok);
        break;
    case KVM_SEV_RECEIVE_FINISH:
        MUST(m.state == SEV_STATE_RECEIVE_UPDATE && !m.finishes);
        m.finishes++;
        break;
    default:
        MUST(!"a command of the receiving side");
    }
    *fw_error = ok ? 0 : SEV_RET_BAD_MEASUREMENT;
    return ok ? ret : -EIO;
}

/* The migration stream */

size_t qemu_get_buffer(QEMUFile *f, uint8_t *buf, size_t size)
{
    size_t n = MIN(size, m.len - m.at);

#if __has_feature(address_sanitizer)
    if (__sanitizer_get_ownership(buf)) {
        /* Poison the rest of a buffer that was allocated for a longer record */
        size_t room = MAX(size, __sanitizer_get_allocated_size(buf));

        ASAN_UNPOISON_MEMORY_REGION(buf, room);
        ASAN_POISON_MEMORY_REGION(buf + size, room - size);
    }
#endif
    memcpy(buf, m.data + m.at, n);
    m.at += n;
    m.ended |= n < size;
    return n;
}

int qemu_file_get_error(QEMUFile *f)
{
    return m.ended ? -EIO : 0;
}

void qemu_file_set_error(QEMUFile *f, int ret)
{
}

static uint64_t get_be64(void)
{
    uint8_t buf[8] = {};

    qemu_get_buffer(NULL, buf, sizeof(buf));
    return ldq_be_p(buf);
}

static bool get_name(char *name)
{
    uint8_t n = 0;

    qemu_get_buffer(NULL, &n, 1);
    if (qemu_get_buffer(NULL, (uint8_t *)name, n) != n) {
        return false;
    }
    name[n] = 0;
    return true;
}

/*
 * Read the RAM section like migration/ram.c.  This code is not under test; it
 * calls the loader in the same states as QEMU does.
 */

static bool load_sizes(uint64_t total)
{
    while (total && !m.ended) {
        char name[256];
        RAMBlock *rb = get_name(name) ? machine_block(name) : NULL;
        uint64_t len = get_be64();

        if (m.ended || !rb || block_of(rb)->not_migratable || len > total) {
            return false;
        }
        total -= len;
        len = ROUND_UP(len, PAGE);
        if (len != rb->used_length) {
            if (!block_of(rb)->resizable || len > rb->max_length) {
                return false;
            }
            rb->used_length = len;
        }
    }
    return !m.ended;
}

static bool load_plain(uint64_t word, RAMBlock **last)
{
    uint64_t offset = word & -PAGE;
    size_t len = word & RAM_SAVE_FLAG_PAGE ? PAGE : 1;
    uint8_t content[PAGE];
    RAMBlock *rb = *last;

    if (!(word & RAM_SAVE_FLAG_CONTINUE)) {
        char name[256];

        rb = get_name(name) ? machine_block(name) : NULL;
    }
    if (!rb || block_of(rb)->not_migratable || offset >= rb->used_length) {
        return false;
    }
    *last = rb;
    if (!encrypted_load_plain(rb, offset)) {
        MUST(m.reasons);
        return false;
    }
    /* The page must be shared, because QEMU writes to it */
    MUST(!encbitmap_test(rb, offset / PAGE));
    clear_bit(offset / PAGE, block_of(rb)->came);
    return qemu_get_buffer(NULL, content, len) == len;
}

/*
 * The contents of accepted records, parsed without the loader's code.  The
 * loader has checked that the records are well-formed.
 */
static struct {
    Block *blocks[NBLOCKS];
    size_t n;
} session;

static void note_session(const uint8_t *body)
{
    uint32_t n = ldl_be_p(body + 4);

    MUST(n <= NBLOCKS);
    body += 16;
    for (uint32_t i = 0; i < n; i++) {
        g_autofree char *name = g_strndup((char *)body + 1, body[0]);
        RAMBlock *rb = machine_block(name);

        MUST(rb && ldq_be_p(body + 1 + body[0]) == used_pages(rb));
        session.blocks[i] = block_of(rb);
        body += 1 + body[0] + 8;
    }
    session.n = n;
}

static void note_state(const uint8_t *body)
{
    uint64_t first = ldq_be_p(body + 8), n = ldq_be_p(body + 16);
    uint32_t index = ldl_be_p(body);

    MUST(index < session.n);
    MUST(first + n <= session.blocks[index]->rb.max_length / PAGE);
    MUST(!(first % BITS_PER_LONG));
    for (uint64_t i = 0; i < n; i += BITS_PER_LONG) {
        session.blocks[index]->said[BIT_WORD(first + i)] =
            ldq_be_p(body + 24 + i / 8);
    }
}

static void note_unallocated(const uint8_t *body)
{
    uint64_t page = ldq_be_p(body + 8), n = ldq_be_p(body + 16);
    uint32_t index = ldl_be_p(body);
    Block *b;

    MUST(index < session.n);
    b = session.blocks[index];
    MUST(n && page < used_pages(&b->rb) && n <= used_pages(&b->rb) - page);
    bitmap_set(b->came, page, n);
}

static bool load_record(uint64_t word)
{
    const uint8_t *record = m.data + m.at;
    int ret = encrypted_load_record(NULL, word);

    if (ret) {
        MUST(ret < 0 && m.reasons);
        return false;
    }
    MUST(machine.cgs && !m.ended);
    if (record[1] == 1) {
        note_session(record + ENCRYPTED_RECORD_HEADER);
    } else if (record[1] == 3) {
        note_state(record + ENCRYPTED_RECORD_HEADER);
    } else if (record[1] == 5) {
        note_unallocated(record + ENCRYPTED_RECORD_HEADER);
    }
    return true;
}

/* Check what must be true when the loader lets the guest start */
static void check_done(void)
{
    MUST(m.starts == 1 && m.finishes == 1);
    MUST(m.state == SEV_STATE_RUNNING && migration.control == 1);
    for (size_t i = 0; i < m.nblocks; i++) {
        Block *b = &m.blocks[i];
        bool kept = m.config & MACHINE_KERNEL;
        g_autofree unsigned long *here = NULL;
        uint64_t npages;

        if (!encbitmap_npages(&b->rb) || b->not_migratable) {
            continue;
        }
        npages = used_pages(&b->rb);
        here = bitmap_new(npages);
        encbitmap_read(&b->rb, 0, npages, (uint64_t *)here);
        MUST(bitmap_equal(here, b->came, npages));
        MUST(bitmap_equal(here, b->said, npages));
        MUST(!kept || bitmap_equal(here, b->kernel, npages));
    }
}

static bool load_buffer(uint64_t word)
{
    size_t len = word >> PAGE_BITS;
    const uint8_t *record = m.data + m.at;
    g_autofree char *copy = NULL;
    char idstr[256];
    Error *err = NULL;

    /*
     * A name in a stream need not be zero-terminated.  RAM_SAVE_FLAG_CONTINUE
     * selects such a name.
     */
    memset(idstr, 'x', sizeof(idstr));
    memcpy(idstr, "ram", sizeof("ram"));
    if (word & RAM_SAVE_FLAG_CONTINUE) {
        idstr[3] = 'x';
    }
    if (!encrypted_load_check_buffer(idstr, len, &err)) {
        MUST(err && machine.cgs);
        error_free(err);
        return false;
    }
    MUST(!(word & RAM_SAVE_FLAG_CONTINUE) || !machine.cgs);
    if (len > m.len - m.at) {
        return false;
    }
    copy = g_memdup2(record, len);
    m.at += len;
    if (!encrypted_load_buffer(NULL, copy, len, &err)) {
        MUST(err);
        error_free(err);
        return false;
    }
    MUST(machine.cgs && (record[9] == 2 || record[9] == 5));
    if (record[9] == 5) {
        note_unallocated(record + 8 + ENCRYPTED_RECORD_HEADER);
    }
    return true;
}

static bool load_copies(uint64_t word)
{
    RAMBlock *rb = machine_block(word >> 40 & 1 ? "blob" : "pc.ram");
    uint32_t ncopies = COPIES_OF(word), nzero = ZEROES_OF(word);
    g_autofree uint8_t *copies = g_malloc0(ncopies * PAGE);
    ram_addr_t offset[14];
    Error *err = NULL;

    for (uint32_t i = 0; i < ncopies + nzero; i++) {
        offset[i] = get_be64();
    }
    if (m.ended || !rb || !encbitmap_npages(rb)) {
        return false;
    }
    if (!encrypted_load_copies(rb, offset, ncopies, nzero, copies,
                                     &err)) {
        MUST(err);
        error_free(err);
        return false;
    }
    for (uint32_t i = 0; i < ncopies + nzero; i++) {
        MUST(!(offset[i] % PAGE) && offset[i] < rb->used_length);
        MUST(!encbitmap_test(rb, offset[i] / PAGE));
        clear_bit(offset[i] / PAGE, block_of(rb)->came);
    }
    return true;
}

static bool load_items(void)
{
    RAMBlock *last = NULL;

    while (m.at < m.len) {
        uint64_t word = get_be64();
        bool ok;

        if (m.ended) {
            return false;
        }
        switch (word & (PAGE - 1) & ~RAM_SAVE_FLAG_CONTINUE) {
        case RAM_SAVE_FLAG_MEM_SIZE:
            ok = load_sizes(word & -PAGE);
            break;
        case RAM_SAVE_FLAG_ZERO:
        case RAM_SAVE_FLAG_PAGE:
            ok = load_plain(word, &last);
            break;
        case RAM_SAVE_FLAG_EXTENDED:
            ok = load_record(word);
            break;
        case RAM_SAVE_FLAG_EOS:
            ok = true;
            break;
        case ITEM_BUFFER:
            ok = load_buffer(word);
            break;
        case ITEM_COPIES:
            ok = load_copies(word);
            break;
        default:
            ok = false;
        }
        if (!ok) {
            return false;
        }
    }
    return true;
}

bool machine_load(const uint8_t *data, size_t len)
{
    bool ok, done;

    memset(&session, 0, sizeof(session));
    m.data = data;
    m.len = len;
    MUST(encrypted_load_setup(&error_abort));
    ok = load_items();
    m.reasons = 0;
    /* QEMU calls encrypted_load_done() only if all records were accepted */
    done = ok && encrypted_load_done(NULL);
    if (done && machine.cgs) {
        check_done();
    } else if (ok) {
        MUST(done || m.reasons);
    }
    encrypted_load_cleanup();
    return done;
}
