/*
 * The order of a migration's steps: is a page lost, or sent by the wrong road?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What is modelled, what is not and why that is sound, and the rules by their
 * letters: docs/devel/migration/ordering.rst.  tests/model/run runs it.
 *
 * With no macro: the kernel keeps the state (accel/kvm/kvm-page-enc.c), pages
 * go down one channel.
 *   STOCK        nobody keeps the state, the bitmap is the truth
 *   MULTIFD      two channels beside the stream, which carry what the migration
 *                thread has read; one page
 *   PAGES=2      runs; 1 if not given.  The first page is private and left
 *                alone, the second is as all others and may be taken along
 *   SLOTS        memory slots are removed and added meanwhile; no device
 *   MID_ROUND    the main thread syncs, too, while a round is under way
 *   LOG_FIRST    the dirty log is read before the state
 *   QEMU_MARKS   QEMU marks what it converts, as well as the kernel
 *   BY_KERNEL    a kernel that converts without QEMU: it must go wrong
 *   NO_RULE_x    all as before but rule x
 *
 * Contents are not numbers but freshness: wherever contents of a page are,
 * one bit says "this is what the source's page holds now".  Reading the page
 * sets it, any change of the page clears it everywhere.  So the guest may
 * write and convert, and the migration go round and begin again, for ever,
 * and the states are few all the same.
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
 * These look for what they add.  They leave out devices and cancelling, and
 * take as one step what KVM does to log and mappings, which the others do not.
 */
#if defined(MULTIFD) || PAGES > 1
#define COARSE
#endif

/* The guest */
bit running;                    /* vCPUs may run */
bit kind[PAGES];                /* by its own page tables: 1 is private */
byte handlers;                  /* what vCPUs and devices have to finish */

/* KVM */
#ifndef STOCK
bit attribute[PAGES];           /* guest_memfd's: 1 is private */
bit invalid;                    /* a conversion is under way: faults wait */
#endif
bit klogging;
bit klog[PAGES];                /* the slot's dirty bitmap */
bit writable[PAGES];            /* by KVM's page tables */
bit tlb[PAGES];                 /* as vCPUs see it */
#ifdef SLOTS
bit slot;                       /* there is one */
bit slots_lock;                 /* kvm_slots_lock(), and KVM's own */
bit inhibited;                  /* accel_ioctl_inhibit_begin() */
bit in_kvm_run;                 /* a vCPU has to get out first */
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
bit clear_bmap[PAGES];          /* RAMBlock.clear_bmap: a chunk ends between */
bit last_stage;
bit failed;

/* What is under way: by which road, and is it still what the source has */
bit road[PLACES * PAGES];
bit fresh[PLACES * PAGES];

/* The destination */
bit dst_private[PAGES];
bit dst_fresh[PAGES];

/* Whoever may be the truth */
#ifdef STOCK
#define STATE(p)        encbmap[p]
#else
#define STATE(p)        attribute[p]
#endif

/* A page holds something else from now on; in a d_step */
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
 * A vCPU that writes.  KVM marks the page before the vCPU is back in the guest
 * or stopped, but maybe after another vCPU could write it (a fast page fault).
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

/* A device of QEMU's writes a shared page, and marks it then */
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
           /* The guest changes its page tables, and so the contents ... */
           kind[p] = !kind[p];
           change(p)
       }
end_stopped:
       /* ... and tells later; it may be stopped before that */
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
       /* kvm_set_phys_mem(): what the log has, then the slot goes */
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

/* kvm_log_clear(): of what was got */
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

#define BY_ITS_ROAD(p)  assert(is_private == STATE(p))

/* Not one step: what changes before read_end() makes it stale, too */
inline read_begin(p) {
    d_step {
        BY_ITS_ROAD(p);
        road[at * PAGES + p] = is_private;
        fresh[at * PAGES + p] = (kind[p] == is_private)
    }
}

inline read_end(p) {
    BY_ITS_ROAD(p)
}

/*
 * The platform's read, as what the page was when its road was chosen: without
 * the lock.  If it has been converted since, nothing of use is read.
 */
inline pack(p) {
    d_step {
        road[at * PAGES + p] = is_private;
        fresh[at * PAGES + p] = (kind[p] == is_private)
    }
}

/* The record has come to the destination, which does not say when */
inline arrive(p) {
    d_step {
        dst_private[p] = road[at * PAGES + p];
        dst_fresh[p] = fresh[at * PAGES + p];
        road[at * PAGES + p] = 0;
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
bit busy[PLACES];               /* a channel has work */
bit flush_due;                  /* there was a sync */

#define NO_WORK         (!busy[0] && !busy[1])

proctype channel(byte at)
{
end:
    do
    :: busy[at] ->
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

/* encrypted_pages_save() of page p */
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
       /* Queued by reference, read when the buffer is flushed */
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
       /* A sync need not wait for the platform or a channel */
       UNLOCK_BITMAP;
       if
       :: skip ->
          /* -EAGAIN: somebody has the page */
          if
          :: last_stage -> failed = 1
          :: else -> again(p); OF_RUN(again(1))
          fi
       :: skip ->
          pack(p);
          OF_RUN(pack(1));
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

/* encrypted_pages_synced() */
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

/* encbitmap_sync().  A generation only spares what would change nothing. */
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
/* cpu_throttle_dirty_sync_timer_tick(): its own sync, whatever is under way */
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
       /* find_dirty_block(): once around */
       p = 0;
       if :: CLEAN && !failed -> break :: else fi
    :: !last_stage -> break     /* time for a sync */
#ifndef COARSE
    :: UNLOCK_BITMAP; goto cancel   /* by the user, or for an error */
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
    /* encrypted_pages_save_final(), and what the destination makes of it */
    do
    :: q < PAGES ->
       assert(encbmap[q] == STATE(q));
       assert(dst_private[q] == encbmap[q]);
       /*
        * Between its page tables and its call the guest counts on nothing
        */
       assert(dst_fresh[q] || kind[q] != STATE(q));
       q++
    :: else -> goto done
    od;

cancel:
    /* The source runs on; another migration, to another destination */
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
     * The destination has the guest, or fails to run it: then the source
     * takes it back, and another migration begins
     */
    q = 0;
    if :: skip -> skip :: goto cancel fi
}
