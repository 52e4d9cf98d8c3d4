/*
 * The order of a migration's steps: is a page lost, or sent by the wrong path?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * docs/devel/ordering-model.rst explains what the model leaves out and why that
 * is sound.  docs/devel/migration/ordering.rst has the rules.  tests/model/run
 * runs the model.
 *
 * Without a macro, KVM keeps the state (accel/kvm/kvm-page-enc.c), and pages take
 * the main channel.
 *   STOCK        only QEMU's bitmap has the state
 *   MULTIFD      two more channels send what the migration thread has read; the
 *                model has one page
 *   SEALS        a channel of MULTIFD packs a private page itself, when it gets
 *                to it; the migration thread only gives it the job
 *   PAGES=2      two pages instead of one.  The first page stays private and is
 *                not changed; a run may include the second page
 *   SLOTS        memory slots are removed and added during the migration; the
 *                model has no device
 *   MID_ROUND    the main thread syncs as well, during a round
 *   LOG_FIRST    QEMU reads the dirty log before the state
 *   QEMU_MARKS   QEMU marks converted pages in addition to the kernel
 *   BY_KERNEL    the kernel converts pages without QEMU: an error must be found
 *   NO_RULE_x    rule x is removed
 *
 * A copy of a page has no contents but one bit: "this is what the source's page
 * contains now".  Reading the page sets the bit of the copy.  A change of the page
 * clears the bits of all copies.  The number of states is therefore small, even
 * though writes, conversions, rounds and migrations repeat without a limit.
 */
#ifndef PAGES
#define PAGES   1
#endif

#ifdef MULTIFD
#define PLACES  2
#else
#define PLACES  1
#endif

/*
 * These variants search for errors of runs, channels and slots.  To stay small,
 * they have no devices and no cancellation, and treat the changes of KVM's log and
 * mappings as one step.  The other variants cover these.
 */
#if defined(MULTIFD) || PAGES > 1
#define COARSE
#endif

/* The guest */
bit running;                    /* vCPUs may run */
bit kind[PAGES];                /* in the guest's page tables: 1 is private */
byte handlers;                  /* operations in progress of vCPUs and devices */

/* KVM */
#ifndef STOCK
bit attribute[PAGES];           /* in the guest_memfd: 1 is private */
bit invalid;                    /* a conversion is in progress: faults wait */
#endif
bit klogging;
bit klog[PAGES];                /* the slot's dirty bitmap */
bit writable[PAGES];            /* writable in KVM's page tables */
bit tlb[PAGES];                 /* writable in the vCPU's TLB */
#ifdef SLOTS
bit slot;                       /* the slot exists */
bit slots_lock;                 /* kvm_slots_lock() and KVM's slots_lock */
bit inhibited;                  /* accel_ioctl_inhibit_begin() */
bit in_kvm_run;                 /* in KVM_RUN; inhibiting waits for its end */
#endif

/* QEMU */
#if defined(SLOTS) || defined(MID_ROUND)
bit bql;
#endif
#ifdef MID_ROUND
bit bitmap_mutex;               /* RAMState's, for bmap */
#endif
bit encbmap[PAGES];             /* RAMBlock.encbmap */
bit writer;                     /* the block's lock */
byte readers;
bit logging;                    /* global_dirty_tracking */
bit memlog[PAGES];              /* DIRTY_MEMORY_MIGRATION */
bit bmap[PAGES];                /* RAMBlock.bmap */
bit got[PAGES];                 /* KVMSlot.dirty_bmap */
bit clear_bmap[PAGES];          /* RAMBlock.clear_bmap; a chunk is one page */
bit last_stage;
bit failed;

/* Copies in the channels: their path, and whether they are still current */
bit path[PLACES * PAGES];
bit fresh[PLACES * PAGES];

/* The destination */
bit dst_private[PAGES];
bit dst_fresh[PAGES];

/* The state of a page, from the component that keeps it */
#ifdef STOCK
#define STATE(p)        encbmap[p]
#else
#define STATE(p)        attribute[p]
#endif

/* The contents of a page change; used in a d_step */
inline change(p) {
    dst_fresh[p] = 0;
    fresh[p] = 0;
#ifdef MULTIFD
    fresh[PAGES + p] = 0;
#endif
}

#ifdef SLOTS
#define IN_GUEST        (running && !inhibited)
#define KLOGS           (klogging && slot)
#define CAN_FAULT       (IN_GUEST && !invalid && slot)
#define ENTER           in_kvm_run = 1; handlers++
#define LEAVE           in_kvm_run = 0; handlers--
#else
#define IN_GUEST        running
#define KLOGS           klogging
#ifdef STOCK
#define CAN_FAULT       IN_GUEST
#else
#define CAN_FAULT       (IN_GUEST && !invalid)
#endif
#define ENTER           handlers++
#define LEAVE           handlers--
#endif

/*
 * A vCPU that writes.  KVM marks the page before the vCPU enters the guest again
 * or stops, but possibly after another vCPU could write it (fast page fault).
 */
#define WRITES(page)                                                    \
    :: d_step { IN_GUEST && tlb[page] -> change(page) }                 \
    :: d_step {                                                         \
           CAN_FAULT && !tlb[page] ->                                   \
           writable[page] = 1; tlb[page] = 1; ENTER                     \
       }                                                                \
       d_step { klog[page] = klog[page] | KLOGS; LEAVE }
#define WRITES_COARSE(page)                                             \
    :: d_step { IN_GUEST && tlb[page] -> change(page) }                 \
    :: d_step {                                                         \
           CAN_FAULT && !tlb[page] ->                                   \
           tlb[page] = 1; klog[page] = klog[page] | KLOGS;              \
           change(page)                                                 \
       }

active proctype vcpu_writes()
{
end:
    do
#ifndef COARSE
    WRITES(0)
#else
    WRITES_COARSE(PAGES - 1)
#endif
    od
}

/* A device of QEMU writes a shared page and then marks it dirty */
#define DEVICE_WRITES(page)                                             \
    :: d_step { running && !STATE(page) -> change(page); handlers++ }   \
       d_step { memlog[page] = memlog[page] | logging; handlers-- }

#if !defined(COARSE) && !defined(SLOTS)
active proctype device()
{
end:
    do
    DEVICE_WRITES(0)
    od
}
#endif

/* A vCPU that converts: encbitmap_convert() */
active proctype vcpu_converts()
{
    byte p;

end:
    do
    :: d_step {
           IN_GUEST ->
           p = PAGES - 1;
           /* The guest changes its page tables, which changes the contents ... */
           kind[p] = !kind[p];
           change(p)
       }
end_stopped:
       /* ... and requests the conversion later; it may be stopped in between */
       d_step { IN_GUEST -> handlers++ }
#ifdef NO_RULE_A_LOCKED
# define NO_RULE_A
       d_step {
           klog[p] = klog[p] | KLOGS;
           memlog[p] = memlog[p] | logging
       }
#endif
#ifndef BY_KERNEL
       d_step { !writer && !readers -> writer = 1 }
#endif
#ifdef STOCK
# ifndef NO_RULE_A
       memlog[p] = memlog[p] | logging;
# endif
       d_step { encbmap[p] = kind[p]; change(p) }
#else
       /* gmem_change() */
       d_step { invalid = 1; writable[p] = 0; tlb[p] = 0 }
       d_step { attribute[p] = kind[p]; change(p) }
# ifndef NO_RULE_A
       klog[p] = klog[p] | KLOGS;
# endif
       invalid = 0;
# ifdef QEMU_MARKS
       memlog[p] = memlog[p] | logging;
# endif
# ifndef BY_KERNEL
       /* convert_locked() */
       encbmap[p] = kind[p];
# endif
#endif
#ifdef BY_KERNEL
       d_step { handlers--; p = 0 }
#else
       d_step { writer = 0; handlers--; p = 0 }
#endif
    od
}

#ifdef SLOTS
#define LOCK_SLOTS      d_step { !slots_lock -> slots_lock = 1 }
#define UNLOCK_SLOTS    slots_lock = 0

/* A vCPU that changes the memory map: kvm_region_commit() */
active proctype vcpu_maps()
{
    byte p;

end:
    do
    :: d_step { running && !bql -> bql = 1; handlers++ }
       LOCK_SLOTS;
       d_step { !in_kvm_run -> inhibited = 1 }
       /* kvm_set_phys_mem(): reads the log, then removes the slot */
       p = 0;
       do
       :: p < PAGES ->
          d_step {
              got[p] = klog[p];
              memlog[p] = memlog[p] | (got[p] & logging);
              p++
          }
       :: else -> break
       od;
       p = 0;
       slot = 0;
       d_step {
           do
           :: p < PAGES ->
              klog[p] = 0; got[p] = 0; writable[p] = 0; tlb[p] = 0; p++
           :: else -> break
           od;
           p = 0
       }
       d_step {
           slot = 1;
# ifndef NO_RULE_J
           do :: p < PAGES -> klog[p] = klogging; p++ :: else -> break od;
# endif
           p = 0
       }
       inhibited = 0;
       UNLOCK_SLOTS;
       d_step { bql = 0; handlers-- }
    od
}
#else
#define LOCK_SLOTS      skip
#define UNLOCK_SLOTS    skip
#endif

/* kvm_log_clear(): clears the bits that were read */
inline clear_log(p) {
#ifdef COARSE
    d_step {
        if
        :: clear_bmap[p] && got[p] -> klog[p] = 0; tlb[p] = 0; got[p] = 0
        :: else
        fi;
        clear_bmap[p] = 0
    }
#else
    if
    :: clear_bmap[p] ->
       clear_bmap[p] = 0;
       LOCK_SLOTS;
       if
       :: got[p] ->
          klog[p] = 0;
          writable[p] = 0;
          d_step { tlb[p] = 0; got[p] = 0 }
       :: else
       fi;
       UNLOCK_SLOTS
    :: else
    fi
#endif
}

/* migration_bitmap_clear_dirty() */
inline clear_dirty(p) {
#ifndef NO_RULE_C_LOG
    clear_log(p);
#endif
    bmap[p] = 0
}

inline lock() {
#ifndef NO_RULE_B
    d_step { !writer -> readers++ }
#else
    skip
#endif
}

inline unlock() {
#ifndef NO_RULE_B
    readers--
#else
    skip
#endif
}

#define BY_ITS_PATH(p)  assert(is_private == STATE(p))

/* A read takes time: a change before read_end() makes the copy stale */
inline read_begin(p) {
    d_step {
        BY_ITS_PATH(p);
        path[at * PAGES + p] = is_private;
        fresh[at * PAGES + p] = (kind[p] == is_private)
    }
}

inline read_end(p) {
    BY_ITS_PATH(p)
}

/*
 * The platform reads the page without the lock, as a page of the state in which
 * the sender found it.  If the page was converted since, the copy is useless.
 */
inline pack(p, found) {
    d_step {
        path[at * PAGES + p] = found;
        fresh[at * PAGES + p] = (kind[p] == found)
    }
}

/* pack_pages() of the migration thread, or send_by_channel() */
inline pack_or_give(p) {
#ifdef SEALS
    job[at] = 1
#else
    pack(p, is_private)
#endif
}

/* The record arrives at the destination at any time */
inline arrive(p) {
    d_step {
        dst_private[p] = path[at * PAGES + p];
        dst_fresh[p] = fresh[at * PAGES + p];
        path[at * PAGES + p] = 0;
        fresh[at * PAGES + p] = 0
    }
}

/* send_again() */
inline again(p) {
#ifndef NO_RULE_F
    memlog[p] = memlog[p] | logging
#else
    skip
#endif
}

#ifdef MID_ROUND
#define LOCK_BITMAP     d_step { !bitmap_mutex -> bitmap_mutex = 1 }
#define UNLOCK_BITMAP   bitmap_mutex = 0
#else
#define LOCK_BITMAP     skip
#define UNLOCK_BITMAP   skip
#endif

#ifdef MULTIFD
bit busy[PLACES];               /* a channel has a record or a job */
# ifdef SEALS
bit job[PLACES];                /* it is a job: to pack a private page */
# endif
bit flush_due;                  /* a sync has requested a flush */

#define NO_WORK         (!busy[0] && !busy[1])

proctype channel(byte at)
{
end:
    do
    :: busy[at] ->
# ifdef SEALS
       if
       :: job[at] -> pack(0, 1); job[at] = 0
       :: else
       fi;
# endif
       arrive(0);
       busy[at] = 0
    od
}

/* prepare_channels(): waits for channels without the mutex */
inline find_room() {
#ifndef NO_RULE_E_ORDER
    if
    :: flush_due ->
# ifndef NO_RULE_E_NOTED
       flush_due = 0;
# endif
       UNLOCK_BITMAP;
       NO_WORK;
       LOCK_BITMAP;
# ifdef NO_RULE_E_NOTED
       flush_due = 0
# endif
    :: else
    fi;
#endif
    UNLOCK_BITMAP;
    atomic {
        if
        :: !busy[0] -> at = 0
        :: !busy[1] -> at = 1
        fi
    }
    LOCK_BITMAP
}

#define deliver(p)      busy[at] = 1
#else
#define NO_WORK         true
#define find_room()     skip
#define deliver(p)      arrive(p)
#endif

#if PAGES > 1
#define OF_RUN(what)    if :: pair -> what :: else fi
#else
#define OF_RUN(what)    skip
#endif

/* encrypted_save_page() of page p */
inline send(p) {
    find_room();
#ifdef NO_RULE_B_TEST
    is_private = encbmap[p];
    lock();
#else
    lock();
    is_private = encbmap[p];
#endif
    if
    :: !is_private ->
#ifdef NO_RULE_B_COPY
       /* The page is queued by reference and read when the buffer is flushed */
       unlock();
       read_begin(p);
       read_end(p);
#else
       read_begin(p);
       read_end(p);
       unlock();
#endif
       deliver(p)
    :: is_private ->
#if PAGES > 1
       pair = (p == 0 && bmap[1] && encbmap[1]);
# if !defined(NO_RULE_C_RUN) && !defined(NO_RULE_C_LOCKED)
       OF_RUN(clear_dirty(1));
# endif
#endif
       unlock();
#ifdef NO_RULE_C_LOCKED
       OF_RUN(clear_dirty(1));
#endif
       /* The mutex is dropped, so that a sync need not wait for the platform or a channel */
       UNLOCK_BITMAP;
       if
       :: skip ->
          /* Packing fails with -EAGAIN, because somebody holds the page */
          if
          :: last_stage -> failed = 1
          :: else -> again(p); OF_RUN(again(1))
          fi
       :: skip ->
          pack_or_give(p);
          OF_RUN(pack(1, is_private));
#ifdef NO_RULE_G
          encbmap[p] = 0;
#endif
#ifdef NO_RULE_C_RUN
          OF_RUN(clear_dirty(1));
#endif
          deliver(p);
          OF_RUN(deliver(1))
       fi;
       LOCK_BITMAP
    fi;
    d_step { is_private = 0; pair = 0 }
}

#if defined(SLOTS) || defined(MID_ROUND)
#define LOCK_BQL        d_step { !bql -> bql = 1 }
#define UNLOCK_BQL      if :: !last_stage -> bql = 0 :: else fi
#else
#define LOCK_BQL        skip
#define UNLOCK_BQL      skip
#endif

/* encrypted_save_synced() */
#ifdef MULTIFD
#define FLUSH_IS_DUE    flush_due = 1
#else
#define FLUSH_IS_DUE    skip
#endif

/* kvm_log_sync(), cpu_physical_memory_sync_dirty_bitmap() */
#ifdef COARSE
#define EACH_PAGE(what)                                                 \
    d_step {                                                            \
        do :: q < PAGES -> what; q++ :: else -> break od;               \
        q = 0                                                           \
    }
#else
#define EACH_PAGE(what)                                                 \
    do :: q < PAGES -> d_step { what; q++ } :: else -> break od;        \
    q = 0
#endif

inline sync_log() {
    LOCK_SLOTS;
    EACH_PAGE(got[q] = klog[q]; memlog[q] = memlog[q] | got[q]);
    UNLOCK_SLOTS;
    LOCK_BITMAP;
    EACH_PAGE(bmap[q] = bmap[q] | memlog[q]; memlog[q] = 0; clear_bmap[q] = 1);
#ifndef NO_RULE_E_MUTEX
    FLUSH_IS_DUE;
#endif
    UNLOCK_BITMAP
}

/* encbitmap_sync().  Generations only avoid reads that change nothing. */
inline sync_state() {
#ifdef STOCK
    skip
#else
# ifndef NO_RULE_H
    d_step { !writer && !readers -> writer = 1 }
# endif
    EACH_PAGE(new[q] = attribute[q]);
    EACH_PAGE(encbmap[q] = new[q]; new[q] = 0);
# ifndef NO_RULE_H
    writer = 0
# endif
#endif
}

inline sync() {
#ifdef NO_RULE_E_MUTEX
    FLUSH_IS_DUE;
#endif
#ifdef LOG_FIRST
    sync_log();
    sync_state()
#else
    sync_state();
    sync_log()
#endif
}

#ifdef MID_ROUND
/* cpu_throttle_dirty_sync_timer_tick(): syncs at any time */
active proctype main_thread()
{
    byte q;
    bit new[PAGES];

end:
    do
    :: d_step { klogging && !bql -> bql = 1 }
       sync();
       bql = 0
    od
}
#endif

inline stop_guest() {
    running = 0;
#ifndef NO_RULE_D_DRAIN
    handlers == 0
#endif
}

#if PAGES > 1
#define CLEAN   (!bmap[0] && !bmap[1])
#else
#define CLEAN   (!bmap[0])
#endif

active proctype migration()
{
    byte p, q;
    bit new[PAGES];
    bit is_private, pair;
    byte at;
#ifdef MULTIFD
    atomic { run channel(0); run channel(1) }
#endif
#if PAGES > 1
    d_step {
        kind[0] = 1; encbmap[0] = 1;
# ifndef STOCK
        attribute[0] = 1
# endif
    }
#endif
#ifdef SLOTS
    slot = 1;
#endif
    running = 1;

setup:
    skip;
    /* ram_init_bitmaps() */
    LOCK_BQL;
#ifndef NO_RULE_I
    do :: q < PAGES -> bmap[q] = 1; q++ :: else -> break od;
    q = 0;
#endif
    logging = 1;
    LOCK_SLOTS;
    d_step {
        klogging = 1;
#if !defined(NO_RULE_I) && !defined(NO_RULE_J)
        /* KVM_DIRTY_LOG_INITIALLY_SET */
        do :: q < PAGES -> klog[q] = 1; q++ :: else -> break od;
        q = 0
#else
        do :: q < PAGES -> writable[q] = 0; tlb[q] = 0; q++ :: else -> break od;
        q = 0
#endif
    }
    UNLOCK_SLOTS;

round:
    sync();
#ifdef NO_RULE_D
    if :: last_stage -> stop_guest() :: else fi;
#endif
    UNLOCK_BQL;
    LOCK_BITMAP;
    do
    :: failed -> UNLOCK_BITMAP; goto cancel
#ifdef MID_ROUND
    :: !failed -> UNLOCK_BITMAP; LOCK_BITMAP    /* ram_save_iterate() ends */
#endif
    :: !failed && p < PAGES && bmap[p] ->
#ifndef NO_RULE_C
       clear_dirty(p);
       send(p);
#else
       send(p);
       clear_dirty(p);
#endif
#ifdef NO_RULE_C_LOG
       clear_log(p);
#endif
       p++
    :: !failed && p < PAGES && !bmap[p] -> p++
    :: !failed && p == PAGES ->
       /* find_dirty_block(): the search has reached its start */
       p = 0;
       if :: CLEAN && !failed -> break :: else fi
    :: !last_stage -> break     /* the migration thread syncs again */
#ifndef COARSE
    :: UNLOCK_BITMAP; goto cancel   /* cancelled by the user or by an error */
#endif
    od;
    UNLOCK_BITMAP;
    if
    :: last_stage -> goto final
    :: else
    fi;
    LOCK_BQL;
    if
    :: skip
    :: skip;
#ifndef NO_RULE_D
       stop_guest();
#endif
       last_stage = 1
    fi;
    goto round;

final:
#ifndef NO_RULE_E_FINAL
    NO_WORK;
#endif
    /* encrypted_save_final(), and the checks that the destination makes */
    do
    :: q < PAGES ->
       assert(encbmap[q] == STATE(q));
       assert(dst_private[q] == encbmap[q]);
       /*
        * Between the change of its page tables and its request, the guest
        * does not rely on the contents of the page
        */
       assert(dst_fresh[q] || kind[q] != STATE(q));
       q++
    :: else -> goto done
    od;

cancel:
    /* The source continues; another migration to another destination begins */
    NO_WORK;
#if defined(MID_ROUND) && !defined(COARSE)
    if :: !last_stage -> LOCK_BQL :: else fi;
#endif
    do
    :: q < PAGES ->
       d_step {
           klog[q] = 0; got[q] = 0; bmap[q] = 0; clear_bmap[q] = 0;
           dst_fresh[q] = 0; dst_private[q] = 0;
           q++
       }
    :: else -> break
    od;
    p = 0;
    d_step { q = 0; klogging = 0; logging = 0; failed = 0 }
#ifdef MID_ROUND
    bql = 0;
#elif defined(SLOTS)
    if :: last_stage -> bql = 0 :: else fi;
#endif
    last_stage = 0;
    running = 1;
    goto setup;

done:
    /*
     * The destination has the guest.  If the destination fails to run the
     * guest, the source takes the guest back, and another migration begins.
     */
    q = 0;
    if :: skip -> skip :: goto cancel fi
}
