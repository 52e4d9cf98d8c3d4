/*
 * Fuzzer of the emulated AMD PSP's mailbox and queues
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An input describes the actions of a host, which fills command buffers and
 * issues commands, one at a time or in queues.  See docs/devel/fuzzing.rst.
 * This file replaces RAM and the keys of ASIDs; everything else is the code of
 * the device.
 *
 * If FUZZ_SEEDS=DIR is set, the fuzzer writes seed inputs to DIR, in which
 * guests are launched and migrated.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qapi/error.h"
#include "crypto/random.h"
#include "hw/misc/amd-psp.h"
#include "hw/misc/sev-vmsa.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/*
 * The host's memory consists of two areas with a hole between them.  Each area
 * is an allocation of its own, so that ASAN detects accesses beyond its end.
 */
#define RAM_LEN     0x20000
#define HIGH        0x40000
#define CBIT        (1ull << 47)
#define MAX_ASID    4
#define TMR         0x100000
#define TMR_LEN     0x100000
/* The part of the TMR that contains the checksums of VMSAs */
#define CHECKSUMS   (TMR + TMR_LEN / 2)
#define CHECKSUMS_LEN (AMD_PSP_MAX_VMSAS * SEV_VMSA_CHECKSUM_LEN)

static uint8_t *low, *high, *checksums;
static bool keyed[MAX_ASID + 1], valid[MAX_ASID + 1];
/* Highest ASID with SEV-ES; depends on FLAG_ES in the input's first record */
static unsigned max_es_asid;

/* The current input */
static const uint8_t *input;
static size_t input_len;

static AmdPspAuthority *authority;
static AmdPspPlatform fresh, psp;

/* Use pseudo-random numbers, so that an input always has the same effects */
static bool deterministic;
static uint64_t random_state;

int qcrypto_random_bytes(void *buf, size_t len, Error **errp)
{
    uint8_t *p = buf;

    if (!deterministic) {
        return getentropy(buf, len) ? -1 : 0;
    }
    for (; len; len--) {
        random_state = random_state * 6364136223846793005ull + 1;
        *p++ = random_state >> 56;
    }
    return 0;
}

static uint8_t *ram(hwaddr pa, size_t len)
{
    uint8_t *piece = pa < HIGH ? low : high;
    hwaddr at = pa < HIGH ? pa : pa - HIGH;

    if (pa >= CHECKSUMS) {
        at = pa - CHECKSUMS;
        return at <= CHECKSUMS_LEN && len <= CHECKSUMS_LEN - at ?
               checksums + at : NULL;
    }
    return at <= RAM_LEN && len <= RAM_LEN - at ? piece + at : NULL;
}

#define MUST(what, ...) do {                            \
        if (!(what)) {                                  \
            fprintf(stderr, "must be: " __VA_ARGS__);   \
            fputc('\n', stderr);                        \
            abort();                                    \
        }                                               \
    } while (0)

unsigned sev_memory_max_asid(void)
{
    return MAX_ASID;
}

unsigned sev_memory_max_es_asid(void)
{
    return max_es_asid;
}

uint64_t sev_memory_cbit(void)
{
    return CBIT;
}

bool sev_memory_has_key(unsigned asid)
{
    MUST(asid && asid <= MAX_ASID, "an ASID that there is: %u", asid);
    return keyed[asid];
}

bool sev_memory_set_key(unsigned asid, const uint8_t *key, Error **errp)
{
    MUST(!sev_memory_has_key(asid), "ASID %u has no key", asid);
    keyed[asid] = true;
    return true;
}

void sev_memory_set_asid_valid(unsigned asid)
{
    MUST(sev_memory_has_key(asid), "a valid ASID has a key: %u", asid);
    valid[asid] = true;
}

bool sev_memory_asid_valid(unsigned asid)
{
    return valid[asid];
}

void sev_memory_clear_key(unsigned asid)
{
    MUST(asid && asid <= MAX_ASID, "an ASID that there is: %u", asid);
    keyed[asid] = valid[asid] = false;
}

void sev_memory_forget_wbinvd(void)
{
}

bool sev_memory_all_wbinvd(void)
{
    return true;
}

void sev_memory_watch(void)
{
}

void sev_memory_command_uses(hwaddr pa, size_t len, unsigned asid,
                             SevMemoryCommandAccess access)
{
}

bool sev_memory_is_ram(hwaddr pa, size_t len)
{
    /*
     * INIT asks whether the whole TMR is RAM.  ram() would deny this, because
     * it has memory only for the checksums in the TMR.
     */
    return ram(pa, len) || (pa == TMR && len == TMR_LEN);
}

static bool copy(hwaddr pa, unsigned asid, void *to, const void *from,
                 size_t len)
{
    size_t i;

    MUST(!asid || sev_memory_has_key(asid), "a guest that is active");
    if (!ram(pa, len)) {
        return false;
    }
    memcpy(to, from, len);
    for (i = 0; asid && i < len; i++) {
        ((uint8_t *)to)[i] ^= asid * 0x55;
    }
    return true;
}

bool sev_memory_read(hwaddr pa, unsigned asid, void *buf, size_t len)
{
    return copy(pa, asid, buf, ram(pa, len), len);
}

/*
 * Does @buf contain @key?  libFuzzer copies the operands of the comparisons
 * that it sees into new inputs, and leaks() ignores a key that the input
 * contains.  libFuzzer must not see the comparisons with @key, so this function
 * does not call memmem() and is not instrumented.
 */
__attribute__((no_sanitize("coverage")))
static bool has(const uint8_t *buf, size_t len, const uint8_t *key,
                size_t key_len)
{
    size_t i, k, zeros = 0;

    for (k = 0; k < key_len; k++) {
        zeros += !key[k];
    }
    /* The key is not set */
    if (zeros == key_len) {
        return false;
    }
    for (i = 0; i + key_len <= len; i++) {
        for (k = 0; k < key_len && buf[i + k] == key[k]; k++) {
        }
        if (k == key_len) {
            return true;
        }
    }
    return false;
}

/* Does @buf contain @key, while the input does not contain it? */
static bool leaks(const uint8_t *buf, size_t len, const uint8_t *key,
                  size_t key_len)
{
    return has(buf, len, key, key_len) && !has(input, input_len, key, key_len);
}

bool sev_memory_dma_read(hwaddr pa, void *buf, size_t len)
{
    return copy(pa, SEV_MEMORY_RAW, buf, ram(pa, len), len);
}

/*
 * The firmware uses this function only to write the status of a command that it
 * took from a queue.  Therefore only a queue's page of statuses is allowed.
 */
bool sev_memory_dma_write(hwaddr pa, const void *buf, size_t len)
{
    hwaddr page = pa & ~(hwaddr)0xfff;

    MUST(len == 16 && pa % 16 == 0, "a status");
    MUST(page == psp.ring.queues[AMD_PSP_RING_LOW].statuses ||
         (psp.ring.queues[AMD_PSP_RING_HIGH].there &&
          page == psp.ring.queues[AMD_PSP_RING_HIGH].statuses),
         "in its page");
    return copy(pa, SEV_MEMORY_RAW, ram(pa, len), buf, len);
}

bool sev_memory_write(hwaddr pa, unsigned asid, const void *buf, size_t len)
{
    size_t i;

    MUST(!amd_psp_ring_overlaps(&psp.ring, pa, len), "nothing in the queues");
    MUST(!leaks(buf, len, psp.seed, sizeof(psp.seed)) &&
         !leaks(buf, len, psp.pdh.d, sizeof(psp.pdh.d)) &&
         !leaks(buf, len, psp.pek.d, sizeof(psp.pek.d)) &&
         !leaks(buf, len, psp.cek.d, sizeof(psp.cek.d)),
         "no keys of the platform in what is written");
    for (i = 0; i < ARRAY_SIZE(psp.guests); i++) {
        const AmdPspGuest *g = &psp.guests[i];

        MUST(!g->handle ||
             (!leaks(buf, len, g->vek, sizeof(g->vek)) &&
              !leaks(buf, len, (const uint8_t *)&g->transport,
                     sizeof(g->transport))),
             "no keys of a guest in what is written");
    }
    return copy(pa, asid, ram(pa, len), buf, len);
}

/* Check the invariants of the platform, which must hold after every command */
static void check_platform(void)
{
    unsigned owners[MAX_ASID + 1] = { 0 };
    size_t i, k;

    for (i = 0; i < ARRAY_SIZE(psp.guests); i++) {
        const AmdPspGuest *g = &psp.guests[i];

        if (!g->handle) {
            continue;
        }
        MUST(psp.initialized, "no guests before INIT");
        MUST(g->state >= AMD_PSP_GUEST_LUPDATE &&
             g->state <= AMD_PSP_GUEST_SENT, "a state: %d", g->state);
        MUST(g->asid <= MAX_ASID, "an ASID: %u", g->asid);
        MUST(!g->asid || !(g->policy & AMD_PSP_POLICY_ES) ==
             (g->asid > max_es_asid),
             "an ASID for the policy 0x%x: %u", g->policy, g->asid);
        owners[g->asid]++;
        for (k = 0; k < i; k++) {
            MUST(psp.guests[k].handle != g->handle, "handles that differ");
        }
    }
    for (i = 1; i <= MAX_ASID; i++) {
        MUST(owners[i] == keyed[i], "one guest with ASID %zu: %u", i,
             owners[i]);
    }
    MUST(!psp.ring.on || psp.initialized, "no queues before INIT");
}

/*
 * An input is a sequence of records.  A record is this header, followed by @len
 * bytes of data.  @flags: a combination of FLAG_*
 */
typedef struct Record {
    uint8_t len;
    uint8_t command;
    uint8_t flags;
} Record;

enum {
    /*
     * The record issues no command.  The first two bytes of its data are an
     * address in RAM, to which the fuzzer writes the other bytes of the data.
     */
    FLAG_DATA = 1,
    FLAG_FAR = 2,       /* the command buffer is at the end of RAM */
    FLAG_NOWHERE = 4,   /* the command buffer is not in RAM */
    FLAG_UNKNOWN = 8,   /* the command does not exist */
    FLAG_CBIT = 16,     /* the address of the command buffer has the C-bit */
    FLAG_CORRUPT = 32,  /* flip a bit of the output, like fault injection */
    FLAG_KEEP = 64,     /* do not change the command buffer */
    FLAG_ES = 128,      /* only in the first record: enable SEV-ES */
};

/*
 * A record whose @command has this value does not issue a command.  Instead, it
 * writes its data to the control and tail registers of the ring.
 */
#define DOORBELL    0xf0

/* Maximum number of commands of an input; longer inputs do not find more */
#define COMMANDS_MAX 256

#define BUFFER      0x100
#define RECORD_LEN  3

/*
 * Execute queued commands like the device does after the host has written the
 * control register.  Returns the number of executed commands.
 */
static unsigned doorbell(uint32_t control, uint32_t tail)
{
    AmdPspRing *r = &psp.ring;
    unsigned n = 0;
    hwaddr buffer;
    uint32_t id;

    while (amd_psp_ring_next(r, control, tail, &id, &buffer) ==
           AMD_PSP_RING_COMMAND) {
        MUST(r->on, "the mode, where there is a command");
        MUST(n++ < 2 * 255, "as many commands as queues have");
        amd_psp_ring_post(r, amd_psp_execute(&psp, id, buffer, -1));
        amd_psp_ring_interrupt(r);
        check_platform();
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    unsigned records = 0, commands = 0;

    psp = fresh;
    input = data;
    input_len = len;
    random_state = 1;
    max_es_asid = len >= RECORD_LEN && (data[2] & FLAG_ES) ? 2 : 0;
    memset(low, 0, RAM_LEN);
    memset(checksums, 0, CHECKSUMS_LEN);
    memset(high, 0, RAM_LEN);
    memcpy(low + 0x4000, amd_psp_authority_certs(authority),
           AMD_PSP_ASK_ARK_LEN);
    while (len >= RECORD_LEN && records++ < 64 && commands < COMMANDS_MAX) {
        Record r = { data[0], data[1], data[2] };
        hwaddr pa = BUFFER;
        size_t n;

        data += RECORD_LEN;
        len -= RECORD_LEN;
        n = MIN(r.len, len);
        if (r.flags & FLAG_DATA) {
            if (n > 2) {
                memcpy(low + MIN(lduw_le_p(data), RAM_LEN - n), data + 2,
                       n - 2);
            }
        } else if (r.command == DOORBELL) {
            if (n >= 8) {
                commands += doorbell(ldl_le_p(data), ldl_le_p(data + 4));
            }
        } else if (psp.ring.on) {
            doorbell(r.command << 16, 0);
            MUST(!psp.ring.on, "a command of the mailbox ends the mode");
        } else {
            if (r.flags & FLAG_FAR) {
                pa = RAM_LEN - n;
            }
            if (r.flags & FLAG_KEEP) {
                n = 0;
            } else if (!(r.flags & FLAG_FAR)) {
                memset(low + pa, 0, 128);
            }
            memcpy(low + pa, data, n);
            if (r.flags & FLAG_NOWHERE) {
                pa = HIGH - 4;
            }
            amd_psp_execute(&psp, r.command | (r.flags & FLAG_UNKNOWN ?
                                               0x700 : 0),
                            pa | (r.flags & FLAG_CBIT ? CBIT : 0),
                            r.flags & FLAG_CORRUPT ? r.len : -1);
            commands++;
            check_platform();
        }
        data += n;
        len -= n;
    }
    amd_psp_platform_reset(&psp);
    check_platform();
    return 0;
}

/*
 * Seeds
 */

#define PDH         0x5000
#define CHAIN       0x6000
#define ASK_ARK     0x4000
#define SESSION     0x8000
#define HEADER      0x8100
#define TRANS       0x9000
#define PAGE_A      0xa000
#define PAGE_B      0xb000
#define OUT         0xc000
#define NV          0x10000

/* Pages of both queues */
#define LOW         0xe000
#define HIGH_QUEUE  0x2000

#define SEED_ES     6
#define SEED_RING   7
#define SEEDS       8

static void give(GByteArray *out, uint8_t command, const uint8_t *b, uint8_t n)
{
    const uint8_t record[] = { n, command, 0 };

    g_byte_array_append(out, record, sizeof(record));
    g_byte_array_append(out, b, n);
}

/* A field of a command buffer */
typedef struct Field {
    uint8_t at;
    uint32_t value;
} Field;

#define GIVE(out, command, n, ...) do {                             \
        const Field fields[] = { __VA_ARGS__ };                     \
        uint8_t buffer[128] = { 0 };                                \
        for (size_t f = 0; f < ARRAY_SIZE(fields); f++) {           \
            stl_le_p(buffer + fields[f].at, fields[f].value);       \
        }                                                           \
        give(out, command, buffer, n);                              \
    } while (0)

static void seed_start(GByteArray *out)
{
    GIVE(out, AMD_PSP_INIT, 20, { 0, 0 });
    GIVE(out, AMD_PSP_DF_FLUSH, 0, { 0, 0 });
}

/* The first record of the seed gets FLAG_ES */
static void seed_start_es(GByteArray *out)
{
    guint first = out->len;

    GIVE(out, AMD_PSP_INIT, 20, { 0, 1 }, { 8, TMR }, { 16, TMR_LEN });
    out->data[first + 2] = FLAG_ES;
    GIVE(out, AMD_PSP_DF_FLUSH, 0, { 0, 0 });
}

static void seed_export(GByteArray *out)
{
    GIVE(out, AMD_PSP_PDH_CERT_EXPORT, 28, { 0, PDH }, { 8, 2084 },
         { 16, CHAIN }, { 24, 3 * 2084 });
}

/*
 * Return @vmsa if a guest with @policy has SEV-ES, otherwise @data.
 * @data: a command that processes pages
 * @vmsa: the corresponding command that processes the state of a vCPU
 */
static unsigned of_policy(uint32_t policy, unsigned data, unsigned vmsa)
{
    return policy & AMD_PSP_POLICY_ES ? vmsa : data;
}

static void seed_launch(GByteArray *out, uint32_t policy)
{
    GIVE(out, AMD_PSP_LAUNCH_START, 36, { 4, policy });
    GIVE(out, AMD_PSP_ACTIVATE, 8, { 0, 1 }, { 4, 1 });
    GIVE(out, of_policy(policy, AMD_PSP_LAUNCH_UPDATE_DATA,
                        AMD_PSP_LAUNCH_UPDATE_VMSA),
         20, { 0, 1 }, { 8, PAGE_A }, { 16, 4096 });
    GIVE(out, AMD_PSP_LAUNCH_MEASURE, 20, { 0, 1 }, { 8, OUT }, { 16, 48 });
    GIVE(out, AMD_PSP_LAUNCH_FINISH, 4, { 0, 1 });
}

static void seed_send(GByteArray *out, uint32_t policy)
{
    GIVE(out, AMD_PSP_SEND_START, 68, { 0, 1 }, { 8, PDH }, { 16, 2084 },
         { 24, CHAIN }, { 32, 3 * 2084 }, { 40, ASK_ARK }, { 48, 3200 },
         { 56, SESSION }, { 64, 128 });
    GIVE(out, of_policy(policy, AMD_PSP_SEND_UPDATE_DATA,
                        AMD_PSP_SEND_UPDATE_VMSA),
         52, { 0, 1 }, { 8, HEADER }, { 16, 52 }, { 24, PAGE_A },
         { 32, 4096 }, { 40, TRANS }, { 48, 4096 });
    GIVE(out, AMD_PSP_RECEIVE_START, 36, { 4, policy }, { 8, PDH },
         { 16, 2084 }, { 24, SESSION }, { 32, 128 });
    GIVE(out, AMD_PSP_ACTIVATE, 8, { 0, 2 }, { 4, 2 });
    GIVE(out, of_policy(policy, AMD_PSP_RECEIVE_UPDATE_DATA,
                        AMD_PSP_RECEIVE_UPDATE_VMSA),
         52, { 0, 2 }, { 8, HEADER }, { 16, 52 }, { 24, PAGE_B },
         { 32, 4096 }, { 40, TRANS }, { 48, 4096 });
}

/* Add a record that writes bytes to memory */
static void put(GByteArray *out, uint16_t at, const void *bytes, uint8_t n)
{
    const uint8_t record[] = { n + 2, 0, FLAG_DATA, at & 0xff, at >> 8 };

    g_byte_array_append(out, record, sizeof(record));
    g_byte_array_append(out, bytes, n);
}

static void put_entry(GByteArray *out, uint16_t at, uint16_t command,
                      uint16_t flags, uint64_t buffer)
{
    uint8_t entry[16] = { 0 };

    stw_le_p(entry, command);
    stw_le_p(entry + 2, flags);
    stq_le_p(entry + 8, buffer);
    put(out, at, entry, sizeof(entry));
}

static void ring(GByteArray *out, uint32_t control, uint32_t tail)
{
    GIVE(out, DOORBELL, 8, { 0, AMD_PSP_RING_ACTIVE | AMD_PSP_RING_OWNED |
                             control }, { 4, tail });
}

static void seed_ring(GByteArray *out)
{
    GIVE(out, AMD_PSP_RING_BUFFER, 40, { 0, LOW }, { 8, LOW + 0x1000 },
         { 16, HIGH_QUEUE }, { 24, HIGH_QUEUE + 0x1000 },
         { 32, 0x00020101 }, { 36, 0x00010001 });
    put_entry(out, LOW, AMD_PSP_PLATFORM_STATUS, 0, OUT);
    put_entry(out, LOW + 16, AMD_PSP_LAUNCH_START, 1, PAGE_A);
    put_entry(out, LOW + 32, AMD_PSP_GET_ID, 2, LOW);
    put_entry(out, LOW + 48, AMD_PSP_GET_ID, 0, LOW);
    put_entry(out, LOW + 64, AMD_PSP_PLATFORM_STATUS, 0, OUT);
    put_entry(out, LOW + 80, AMD_PSP_SHUTDOWN, 0, 0);
    put_entry(out, HIGH_QUEUE, AMD_PSP_DF_FLUSH, 3, 0);
    ring(out, 3, 5);
    ring(out, AMD_PSP_RING_CLEAR | AMD_PSP_RING_RESUME, 0x10005);
    ring(out, AMD_PSP_RING_CLEAR, 0x10005);
    /*
     * Leave ring buffer mode by a command in the mailbox, and enter the mode
     * again
     */
    GIVE(out, AMD_PSP_PLATFORM_STATUS, 12, { 0, 0 });
    GIVE(out, AMD_PSP_RING_BUFFER, 40, { 0, LOW }, { 8, LOW + 0x1000 },
         { 32, 0x00000001 }, { 36, 0x00010000 });
    ring(out, 0, 6);
    ring(out, AMD_PSP_RING_RESUME, 6);
    ring(out, 0, 6);
}

static void seed(unsigned which, GByteArray *out)
{
    static const uint32_t policies[] = { 0, 1, 0x30 };
    uint32_t policy = which == SEED_ES ? AMD_PSP_POLICY_ES :
                      policies[which % ARRAY_SIZE(policies)];

    if (which == 0) {
        GIVE(out, AMD_PSP_DOWNLOAD_FIRMWARE, 12, { 0, OUT }, { 8, 4096 });
        GIVE(out, AMD_PSP_INIT_EX, 36, { 0, 36 }, { 24, NV }, { 32, 0x8000 });
        GIVE(out, AMD_PSP_PLATFORM_STATUS, 12, { 0, 0 });
        GIVE(out, AMD_PSP_PEK_CSR, 12, { 0, OUT }, { 8, 2084 });
        seed_export(out);
        GIVE(out, AMD_PSP_PEK_CERT_IMPORT, 28, { 0, CHAIN }, { 8, 2084 },
             { 16, CHAIN + 2084 }, { 24, 2084 });
        GIVE(out, AMD_PSP_PDH_GEN, 0, { 0, 0 });
        GIVE(out, AMD_PSP_SHUTDOWN, 0, { 0, 0 });
        GIVE(out, AMD_PSP_INIT_EX, 36, { 0, 36 }, { 24, NV }, { 32, 0x8000 });
        return;
    }
    if (which == SEED_ES) {
        seed_start_es(out);
    } else {
        seed_start(out);
    }
    if (which == SEED_RING) {
        seed_ring(out);
        return;
    }
    if (which == 1) {
        GIVE(out, AMD_PSP_GET_ID, 12, { 0, OUT }, { 8, 64 });
        GIVE(out, AMD_PSP_PEK_GEN, 0, { 0, 0 });
        seed_launch(out, 0);
        GIVE(out, AMD_PSP_GUEST_STATUS, 13, { 0, 1 });
        GIVE(out, AMD_PSP_COPY, 24, { 0, 1 }, { 4, 4096 }, { 8, PAGE_A },
             { 16, PAGE_B });
        GIVE(out, AMD_PSP_DBG_DECRYPT, 28, { 0, 1 }, { 8, PAGE_A },
             { 16, OUT }, { 24, 4096 });
        GIVE(out, AMD_PSP_DBG_ENCRYPT, 28, { 0, 1 }, { 8, OUT },
             { 16, PAGE_A }, { 24, 4096 });
        GIVE(out, AMD_PSP_ATTESTATION, 36, { 0, 1 }, { 8, OUT }, { 32, 208 });
        GIVE(out, AMD_PSP_DEACTIVATE, 4, { 0, 1 });
        GIVE(out, AMD_PSP_ACTIVATE_EX, 24, { 0, 24 }, { 4, 1 }, { 8, 2 },
             { 12, 2 }, { 16, OUT });
        GIVE(out, AMD_PSP_DEACTIVATE, 4, { 0, 1 });
        GIVE(out, AMD_PSP_DECOMMISSION, 4, { 0, 1 });
        return;
    }
    seed_export(out);
    seed_launch(out, policy);
    seed_send(out, policy);
    if (which == 2) {
        GIVE(out, AMD_PSP_SEND_CANCEL, 4, { 0, 1 });
    } else {
        GIVE(out, AMD_PSP_SEND_FINISH, 4, { 0, 1 });
        GIVE(out, AMD_PSP_RECEIVE_FINISH, 4, { 0, 2 });
    }
}

static void write_seeds(const char *dir)
{
    for (unsigned i = 0; i < SEEDS; i++) {
        g_autoptr(GByteArray) out = g_byte_array_new();
        g_autofree char *name = g_strdup_printf("%s/seed-%u", dir, i);
        AmdPspPlatform *p = &psp;

        seed(i, out);
        LLVMFuzzerTestOneInput(out->data, out->len);
        MUST(p->last_handle >= (i == SEED_RING ? 1 : MIN(i, 2)),
             "guests in seed %u", i);
        MUST(i != SEED_RING ||
             (lduw_le_p(low + LOW + 0x1000 + 3 * 16) == 0x09 &&
              !p->initialized),
             "all of the queue in seed %u", i);
        g_assert(g_file_set_contents(name, (char *)out->data, out->len,
                                     NULL));
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const uint8_t id[AMD_PSP_SEED_LEN] = "a platform to be fuzzed";

    low = g_malloc0(RAM_LEN);
    checksums = g_malloc0(CHECKSUMS_LEN);
    high = g_malloc0(RAM_LEN);
    authority = amd_psp_authority_open("/b/fuzz/ark", &error_fatal);
    deterministic = true;
    g_assert(amd_psp_platform_init(&fresh, id, authority));
    /* The seeds need a destination that exports a complete certificate chain */
    fresh.export_signed_cek = true;
    if (getenv("FUZZ_SEEDS")) {
        write_seeds(getenv("FUZZ_SEEDS"));
        exit(0);
    }
    return 0;
}
