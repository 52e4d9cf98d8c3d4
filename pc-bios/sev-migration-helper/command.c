/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands of the VMM, and the state in which each is allowed
 */
#include "helper.h"

static void wipe(void *p, size_t size)
{
    __builtin_memset(p, 0, size);
    /* The compiler must not remove the writes */
    asm volatile("" : : "r"(p) : "memory");
}

static void forget_key(MhHelper *helper)
{
    unsigned i;

    wipe(&helper->key, sizeof(helper->key));
    for (i = 0; i < MH_CPUS; i++) {
        wipe(&helper->cpu[i].cipher, sizeof(helper->cpu[i].cipher));
    }
    helper->state = MH_LAUNCHED;
}

static void forget_session(MhHelper *helper)
{
    wipe(helper->session, sizeof(helper->session));
    wipe(helper->after, sizeof(helper->after));
    wipe(helper->channel, sizeof(helper->channel));
    helper->has_session = false;
}

static MhStatus new_key(MhHelper *helper)
{
    uint8_t key[MH_KEY_SIZE];

    forget_key(helper);
    forget_session(helper);
    if (!mh_random(key, sizeof(key))) {
        return MH_ERR_ENTROPY;
    }
    mh_master_key_init(&helper->key, key);
    wipe(key, sizeof(key));
    helper->state = MH_KEYED;
    return MH_OK;
}

static MhStatus become_sender(MhHelper *helper)
{
    if (!mh_random(helper->session, sizeof(helper->session))) {
        return MH_ERR_ENTROPY;
    }
    helper->state = MH_SENDER;
    return MH_OK;
}

static void begin_round(MhHelper *helper)
{
    unsigned i;

    for (i = 0; i < MH_CHANNELS; i++) {
        helper->after[i] = helper->channel[i].sequence;
    }
}

/*
 * Return the only state in which @command is allowed, or MH_LAUNCHED if
 * @command is allowed in every state
 */
static MhState needed_state(uint32_t command)
{
    switch (command) {
    case MH_SEND:
    case MH_RECEIVE:
        return MH_KEYED;
    case MH_SEAL:
    case MH_ROUND:
    case MH_SEAL_END:
    case MH_SEAL_RESUME:
        return MH_SENDER;
    case MH_OPEN:
        return MH_RECEIVER;
    default:
        return MH_LAUNCHED;
    }
}

static bool is_exclusive(uint32_t command, const MhBatch *batch)
{
    switch (command) {
    case MH_QUERY:
    case MH_SEAL:
        return false;
    case MH_OPEN:
        return batch->kind != MH_KIND_PAGES;
    default:
        return true;
    }
}

static bool begin(MhHelper *helper, bool exclusive)
{
    uint32_t none = 0;

    if (exclusive) {
        return __atomic_compare_exchange_n(&helper->users, &none,
                                           MH_EXCLUSIVE, false,
                                           __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    }
    if (__atomic_fetch_add(&helper->users, 1, __ATOMIC_ACQUIRE) <
        MH_EXCLUSIVE) {
        return true;
    }
    __atomic_fetch_sub(&helper->users, 1, __ATOMIC_RELAXED);
    return false;
}

static void end(MhHelper *helper, bool exclusive)
{
    __atomic_fetch_sub(&helper->users, exclusive ? MH_EXCLUSIVE : 1,
                       __ATOMIC_RELEASE);
}

static bool is_well_formed(const MhBatch *batch)
{
    bool pages = batch->kind == MH_KIND_PAGES;

    return batch->version == MH_VERSION && !batch->zero &&
           (pages || batch->kind == MH_KIND_END ||
            batch->kind == MH_KIND_RESUME) &&
           (pages ? batch->count && batch->count <= MH_BATCH_PAGES :
                    !batch->count);
}

static MhStatus seal(MhHelper *helper, unsigned n, const MhImage *image,
                     const MhShared *shared, uint32_t command, uint32_t *done)
{
    uint32_t number = MH_READ(shared->mailbox->channel);
    uint32_t count = command == MH_SEAL ? MH_READ(shared->mailbox->count) : 0;
    MhKind kind = command == MH_SEAL ? MH_KIND_PAGES :
        command == MH_SEAL_END ? MH_KIND_END : MH_KIND_RESUME;
    MhStatus status;

    if (number >= MH_CHANNELS) {
        return MH_ERR_CHANNEL;
    }
    if (command == MH_SEAL && (!count || count > MH_BATCH_PAGES)) {
        return MH_ERR_COUNT;
    }
    if (__atomic_exchange_n(&helper->channel[number].busy, 1,
                            __ATOMIC_ACQUIRE)) {
        return MH_ERR_BUSY;
    }
    if (command != MH_SEAL) {
        begin_round(helper);
    }
    status = mh_seal_batch(helper, n, image, shared, kind, number, count,
                           done);
    if (!status && command != MH_SEAL) {
        /*
         * Copy the channels' sequence numbers to @helper->after again.  They
         * now count this batch, too.  Each later batch contains the copy, so
         * the receiver opens this batch before it opens a later one.
         */
        begin_round(helper);
    }
    __atomic_store_n(&helper->channel[number].busy, 0, __ATOMIC_RELEASE);
    return status;
}

static MhStatus open(MhHelper *helper, unsigned n, const MhImage *image,
                     const MhShared *shared, uint32_t *done)
{
    MhBatch *batch = &helper->cpu[n].batch;
    uint32_t *busy;
    MhStatus status;

    if (!is_well_formed(batch)) {
        return MH_ERR_FORMAT;
    }
    if (batch->channel >= MH_CHANNELS) {
        return MH_ERR_CHANNEL;
    }
    busy = &helper->channel[batch->channel].busy;
    if (__atomic_exchange_n(busy, 1, __ATOMIC_ACQUIRE)) {
        return MH_ERR_BUSY;
    }
    status = mh_open_batch(helper, n, image, shared,
                           MH_READ(shared->mailbox->alias), done);
    __atomic_store_n(busy, 0, __ATOMIC_RELEASE);
    if (!status && batch->kind == MH_KIND_END) {
        forget_key(helper);
        helper->state = MH_ENDED;
    }
    return status;
}

static MhStatus run(MhHelper *helper, unsigned n, const MhImage *image,
                    const MhShared *shared, uint32_t command, uint32_t *done)
{
    MhState needed = needed_state(command);

    if (needed != MH_LAUNCHED && helper->state != needed) {
        return MH_ERR_STATE;
    }
    switch (command) {
    case MH_QUERY:
        return MH_OK;
    case MH_NEW_KEY:
        return new_key(helper);
    case MH_SEND:
        return become_sender(helper);
    case MH_RECEIVE:
        helper->state = MH_RECEIVER;
        return MH_OK;
    case MH_SEAL:
    case MH_SEAL_END:
    case MH_SEAL_RESUME:
        return seal(helper, n, image, shared, command, done);
    case MH_OPEN:
        return open(helper, n, image, shared, done);
    case MH_ROUND:
        begin_round(helper);
        return MH_OK;
    case MH_FORGET:
        forget_key(helper);
        forget_session(helper);
        return MH_OK;
    default:
        return MH_ERR_COMMAND;
    }
}

void mh_command(MhHelper *helper, unsigned n, const MhImage *image,
                void *memory)
{
    const MhShared shared = {
        .mailbox = (void *)((uint8_t *)memory + MH_MAILBOX),
        .pages = (void *)((uint8_t *)memory + MH_PAGES),
        .data = (uint8_t *)memory + MH_DATA,
    };
    MhMailbox *mailbox = shared.mailbox;
    MhCpu *cpu = &helper->cpu[n];
    uint32_t command = MH_READ(mailbox->command), done = 0;
    MhStatus status = MH_ERR_BUSY;
    bool exclusive;

    if (command == MH_OPEN) {
        mh_copy(&cpu->batch, &mailbox->batch, sizeof(cpu->batch));
    }
    exclusive = is_exclusive(command, &cpu->batch);
    if (!cpu->impl) {
        status = MH_ERR_CPU;
    } else if (begin(helper, exclusive)) {
        status = run(helper, n, image, &shared, command, &done);
        end(helper, exclusive);
    }
    mailbox->done = done;
    mailbox->state = helper->state;
    mailbox->impl = cpu->impl;
    /*
     * Write the status last.  The VMM may read the mailbox as soon as it sees
     * the status, which can be before this vCPU exits.
     */
    __atomic_store_n(&mailbox->status, status, __ATOMIC_RELEASE);
}
