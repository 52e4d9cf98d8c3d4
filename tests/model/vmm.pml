/*
 * A VMM that migrates a guest without a lock of its own.  It uses only the dirty
 * log and KVM_GET_PAGE_ENC_BITMAP.  Is the page always sent in its last state?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * See docs/specs/kvm-page-enc.rst, "Order of the dirty log and the bitmap".  There
 * is one page, which a vCPU converts any number of times.  The conversion follows
 * gmem_change() statement by statement.
 *
 *   STATE_FIRST      the VMM reads the state before the log
 *   CLEAR_LATE       the VMM gets the log, reads the state, and clears the log after
 *                    that (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
 *   CLEAR_EARLY      the VMM clears the log by hand, before it reads the state
 *   GENERATION_LAST  the kernel changes the generation after the mark
 *   NO_LOCK          the bitmap can be read while a conversion is in progress and
 *                    the generation has changed already
 */
bit stopped;                    /* the guest is stopped, for the last round */
bit attribute;                  /* the page's state */
bit mark = 1;                   /* bit of the dirty log; set at first */
bit page_enc_lock;              /* page_enc_lock is held for writing */
bit current;                    /* the VMM's generation is the current one */

/* The destination's copy: the state in which it was sent, and is it current? */
bit sent_state, sent_fresh;

active proctype vcpu()
{
end:
    do
    :: d_step { !stopped && !page_enc_lock -> page_enc_lock = 1 }
#ifndef GENERATION_LAST
       current = 0;
#endif
       d_step { attribute = !attribute; sent_fresh = 0 }
       mark = 1;
#ifdef GENERATION_LAST
       current = 0;
#endif
       page_enc_lock = 0
    od
}

inline read_state() {
    if
    :: current          /* KVM_PAGE_ENC_BITMAP_UNCHANGED, without the lock */
    :: else ->
#ifdef NO_LOCK
       d_step { state = attribute; current = 1 }
#else
       d_step { !page_enc_lock -> state = attribute; current = 1 }
#endif
    fi
}

inline read_log() {
#if defined(CLEAR_LATE) || defined(CLEAR_EARLY)
    dirty = mark
#else
    d_step { dirty = mark; mark = 0 }
#endif
}

inline clear_log() {
#if defined(CLEAR_LATE) || defined(CLEAR_EARLY)
    if
    :: dirty -> mark = 0
    :: else
    fi
#else
    skip
#endif
}

active proctype vmm()
{
    bit dirty, state, last;

    do
    :: if
       :: skip
       :: /* The last round: the guest stops between two conversions */
          d_step { !page_enc_lock -> stopped = 1 }
          last = 1
       fi;
#ifdef STATE_FIRST
       read_state();
       read_log();
#else
       read_log();
# ifndef CLEAR_LATE
       clear_log();
# endif
       read_state();
# ifdef CLEAR_LATE
       clear_log();
# endif
#endif
       if
       :: dirty ->
          d_step { sent_state = state; sent_fresh = (state == attribute) }
       :: else
       fi;
       d_step { dirty = 0 };
       if
       :: last -> break
       :: else
       fi
    od;
    assert(sent_state == attribute && sent_fresh)
}
