/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Seal and open a batch of pages
 */
#include "helper.h"

/*
 * The index from which index_iv() makes the IV for the batch header.  The IVs
 * for the pages have the indices 0 to MH_BATCH_PAGES - 1.
 */
#define HEADER_INDEX 0xffffffffU

#define HEADER_SIZE offsetof(MhBatch, tag)

/* The page's tag covers these data in addition to the contents of the page */
typedef struct MhPageData {
    uint8_t session[16];
    uint64_t sequence;
    uint64_t gpa;
    uint32_t channel;
    uint32_t index;
    uint32_t count;
    uint32_t kind;
} MhPageData;

_Static_assert(HEADER_SIZE == 192 && sizeof(MhPageData) == 48,
               "additional data is a multiple of 16 bytes");

static MhPageData page_data(const MhBatch *batch, uint32_t index, uint64_t gpa)
{
    MhPageData data = {
        .sequence = batch->sequence,
        .gpa = gpa,
        .channel = batch->channel,
        .index = index,
        .count = batch->count,
        .kind = batch->kind,
    };

    __builtin_memcpy(data.session, batch->session, sizeof(data.session));
    return data;
}

static void index_iv(uint8_t iv[MH_IV_SIZE], const MhBatch *batch,
                     uint32_t index)
{
    uint32_t last;

    __builtin_memcpy(iv, batch->nonce + 12, MH_IV_SIZE);
    __builtin_memcpy(&last, iv + 8, 4);
    last ^= __builtin_bswap32(index);
    __builtin_memcpy(iv + 8, &last, 4);
}

static void use_subkey(MhHelper *helper, MhCpu *cpu)
{
    uint8_t key[MH_KEY_SIZE];

    mh_subkey(&helper->key, cpu->batch.nonce, key);
    mh_cipher_init(&cpu->cipher, cpu->impl, key);
}

/* Copy a page like mh_copy() does, but with four vector registers */
static void copy_page(void *dst, const void *src)
{
    typedef long long Block __attribute__((vector_size(16), aligned(16),
                                           may_alias));
    Block *d = dst;
    const Block *s = src;
    int i;

    for (i = 0; i < (int)(MH_PAGE_SIZE / sizeof(Block)); i += 4) {
        Block b0 = s[i], b1 = s[i + 1], b2 = s[i + 2], b3 = s[i + 3];

        d[i] = b0;
        d[i + 1] = b1;
        d[i + 2] = b2;
        d[i + 3] = b3;
    }
    asm volatile("" : : "r"(dst) : "memory");
}

static bool is_in(uint64_t gpa, uint64_t base, uint64_t size)
{
    return gpa >= base && gpa - base < size;
}

/*
 * Is @gpa the address of a page of the guest, and not of the helper's memory?
 */
static bool is_guest_page(const MhImage *image, uint64_t gpa)
{
    return !(gpa & (MH_PAGE_SIZE - 1)) && gpa < image->gpa_limit &&
           !is_in(gpa, image->private_gpa, MH_PRIVATE_SIZE) &&
           !is_in(gpa, image->shared_gpa, MH_SHARED_SIZE);
}

static MhStatus seal_page(MhCpu *cpu, unsigned n, const MhImage *image,
                          const MhShared *shared, uint32_t i)
{
    uint64_t gpa = MH_READ(shared->pages[i].gpa);
    MhPageData ad = page_data(&cpu->batch, i, gpa);
    uint8_t iv[MH_IV_SIZE], tag[MH_TAG_SIZE];

    if (!is_guest_page(image, gpa)) {
        return MH_ERR_ADDRESS;
    }
    index_iv(iv, &cpu->batch, i);
    mh_seal(&cpu->cipher, cpu->impl, iv, &ad, sizeof(ad),
            mh_guest_page(n, image, gpa), cpu->page, MH_PAGE_SIZE, tag);
    copy_page(shared->data + i * MH_PAGE_SIZE, cpu->page);
    mh_copy(shared->pages[i].tag, tag, sizeof(tag));
    return MH_OK;
}

MhStatus mh_seal_batch(MhHelper *helper, unsigned n, const MhImage *image,
                       const MhShared *shared, MhKind kind, uint32_t channel,
                       uint32_t count, uint32_t *done)
{
    MhCpu *cpu = &helper->cpu[n];
    MhBatch *batch = &cpu->batch;
    uint8_t iv[MH_IV_SIZE];
    MhStatus status;

    *batch = (MhBatch) {
        .version = MH_VERSION,
        .kind = kind,
        .count = count,
        .channel = channel,
        .sequence = helper->channel[channel].sequence,
    };
    __builtin_memcpy(batch->session, helper->session, sizeof(batch->session));
    __builtin_memcpy(batch->after, helper->after, sizeof(batch->after));
    if (!mh_random(batch->nonce, sizeof(batch->nonce))) {
        return MH_ERR_ENTROPY;
    }
    use_subkey(helper, cpu);
    for (*done = 0; *done < count; ++*done) {
        status = seal_page(cpu, n, image, shared, *done);
        if (status) {
            return status;
        }
    }
    index_iv(iv, batch, HEADER_INDEX);
    mh_seal(&cpu->cipher, cpu->impl, iv, batch, HEADER_SIZE, NULL, NULL, 0,
            batch->tag);
    mh_copy(&shared->mailbox->batch, batch, sizeof(*batch));
    helper->channel[channel].sequence++;
    return MH_OK;
}

static MhStatus open_page(MhCpu *cpu, unsigned n, const MhImage *image,
                          const MhShared *shared, uint64_t alias, uint32_t i)
{
    uint64_t gpa = MH_READ(shared->pages[i].gpa);
    MhPageData ad = page_data(&cpu->batch, i, gpa);
    uint8_t iv[MH_IV_SIZE], tag[MH_TAG_SIZE];

    if (!is_guest_page(image, gpa) || !is_guest_page(image, gpa + alias)) {
        return MH_ERR_ADDRESS;
    }
    mh_copy(tag, shared->pages[i].tag, sizeof(tag));
    copy_page(cpu->page, shared->data + i * MH_PAGE_SIZE);
    index_iv(iv, &cpu->batch, i);
    if (!mh_open(&cpu->cipher, cpu->impl, iv, &ad, sizeof(ad), cpu->page,
                 cpu->page, MH_PAGE_SIZE, tag)) {
        return MH_ERR_TAG;
    }
    copy_page(mh_guest_page(n, image, gpa + alias), cpu->page);
    return MH_OK;
}

/*
 * Does the batch belong to the receiver's session?  If the receiver has no
 * session yet, this function sets the session to that of the batch.  The caller
 * must have checked the batch's tag, because otherwise a forged batch could set
 * the session.
 */
static bool is_session(MhHelper *helper, const MhBatch *batch)
{
    bool same;

    while (__atomic_exchange_n(&helper->session_lock, 1, __ATOMIC_ACQUIRE)) {
        __builtin_ia32_pause();
    }
    if (!helper->has_session) {
        __builtin_memcpy(helper->session, batch->session,
                         sizeof(helper->session));
        helper->has_session = true;
    }
    same = !__builtin_memcmp(helper->session, batch->session,
                             sizeof(helper->session));
    __atomic_store_n(&helper->session_lock, 0, __ATOMIC_RELEASE);
    return same;
}

static uint64_t opened(const MhHelper *helper, unsigned channel)
{
    return __atomic_load_n(&helper->channel[channel].sequence,
                           __ATOMIC_ACQUIRE);
}

static MhStatus check_pages(const MhHelper *helper, const MhBatch *batch)
{
    uint64_t next = opened(helper, batch->channel);
    unsigned i;

    if (helper->channel[batch->channel].broken) {
        return MH_ERR_BROKEN;
    }
    if (batch->sequence != next) {
        return batch->sequence < next ? MH_ERR_REPLAYED : MH_ERR_MISSING;
    }
    for (i = 0; i < MH_CHANNELS; i++) {
        if (opened(helper, i) < batch->after[i]) {
            return MH_ERR_BEHIND;
        }
    }
    return MH_OK;
}

static MhStatus check_end(const MhHelper *helper, const MhBatch *batch)
{
    unsigned i;

    for (i = 0; i < MH_CHANNELS; i++) {
        if (helper->channel[i].broken) {
            return MH_ERR_BROKEN;
        }
    }
    for (i = 0; i < MH_CHANNELS; i++) {
        if (batch->after[i] != opened(helper, i)) {
            return batch->after[i] < opened(helper, i) ? MH_ERR_REPLAYED :
                                                         MH_ERR_MISSING;
        }
    }
    return MH_OK;
}

static MhStatus check_resume(const MhHelper *helper, const MhBatch *batch)
{
    unsigned i;

    for (i = 0; i < MH_CHANNELS; i++) {
        if (batch->after[i] < opened(helper, i)) {
            return MH_ERR_REPLAYED;
        }
    }
    return MH_OK;
}

static MhStatus check_order(const MhHelper *helper, const MhBatch *batch)
{
    switch (batch->kind) {
    case MH_KIND_PAGES:
        return check_pages(helper, batch);
    case MH_KIND_END:
        return check_end(helper, batch);
    default:
        return check_resume(helper, batch);
    }
}

static void resume(MhHelper *helper, const MhBatch *batch)
{
    unsigned i;

    for (i = 0; i < MH_CHANNELS; i++) {
        helper->channel[i].sequence = batch->after[i];
        helper->channel[i].broken = false;
    }
}

MhStatus mh_open_batch(MhHelper *helper, unsigned n, const MhImage *image,
                       const MhShared *shared, uint64_t alias, uint32_t *done)
{
    MhCpu *cpu = &helper->cpu[n];
    MhBatch *batch = &cpu->batch;
    MhChannel *channel = &helper->channel[batch->channel];
    uint8_t iv[MH_IV_SIZE];
    MhStatus status;

    use_subkey(helper, cpu);
    index_iv(iv, batch, HEADER_INDEX);
    if (!mh_open(&cpu->cipher, cpu->impl, iv, batch, HEADER_SIZE, NULL, NULL,
                 0, batch->tag)) {
        return MH_ERR_TAG;
    }
    if (!is_session(helper, batch)) {
        return MH_ERR_SESSION;
    }
    status = check_order(helper, batch);
    if (status) {
        return status;
    }
    if (batch->kind == MH_KIND_RESUME) {
        resume(helper, batch);
    }
    for (*done = 0; *done < batch->count; ++*done) {
        status = open_page(cpu, n, image, shared, alias, *done);
        if (status) {
            /*
             * The guest may already have changed the pages that this call
             * opened, so the helper must not open the same batch again
             */
            channel->broken = true;
            return status;
        }
    }
    __atomic_store_n(&channel->sequence, channel->sequence + 1,
                     __ATOMIC_RELEASE);
    return MH_OK;
}
