/*
 * The lock of a block's encryption bitmap, statement by statement
 * (migration/encrypted/encbitmap.c): does it exclude, does it ever stop, and how long
 * does a conversion wait?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * docs/devel/ordering-model.rst.  A mutex with a condition variable: who
 * waits sleeps until a broadcast, and has to take the mutex again, in any
 * order.  Two senders (multifd), two that convert.
 *
 *   NO_RULE_WAIT         a reader does not wait for writers that wait
 *   NO_RULE_WAKE_READER  the last reader does not wake
 *   NO_RULE_WAKE_WRITER  a writer does not
 *   UNREACHED            a statement that no run comes to, for the control
 */
#define READERS 2
#define WRITERS 2

bit mutex;
bit asleep[READERS + WRITERS];
byte readers, writers_waiting;
bit writing;

/* What is asked for */
byte reading, converting;       /* who is inside */
bit waits[WRITERS];             /* this one has said that it waits, */
byte passed[WRITERS];           /* and so many readers came in since */

#define LOCK            atomic { !mutex -> mutex = 1 }
#define UNLOCK          mutex = 0
/* Sleeps and lets go of the mutex in one step, as a condition variable does */
#define SLEEP(me)                                                       \
    d_step { asleep[me] = 1; mutex = 0 }                                \
    atomic { !asleep[me] && !mutex -> mutex = 1 }
#define WAKE_ALL                                                        \
    d_step { asleep[0] = 0; asleep[1] = 0; asleep[2] = 0; asleep[3] = 0 }

/* Whoever is out may stay out: who sleeps then has to be woken by the others */
active [READERS] proctype sender()
{
    do
    :: break
    :: /* encbitmap_send_lock() */
       LOCK;
       do
#ifdef NO_RULE_WAIT
       :: writing -> SLEEP(_pid)
#else
       :: writing || writers_waiting -> SLEEP(_pid)
#endif
       :: else -> break
       od;
       readers++;
       d_step {
           reading++;
           if :: waits[0] -> passed[0]++ :: else fi;
           if :: waits[1] -> passed[1]++ :: else fi
       }
       /* Nobody comes in while another waits for the writer's lock */
       assert(passed[0] == 0 && passed[1] == 0);
       UNLOCK;

       assert(!converting);
       reading--;

       /* encbitmap_send_unlock() */
       LOCK;
       assert(readers);
       readers--;
#ifdef UNREACHED
       if :: converting -> converting = 0 :: else fi;
#endif
       if
#ifndef NO_RULE_WAKE_READER
       :: !readers -> WAKE_ALL
#endif
       :: else
       fi;
       UNLOCK
    od
}

active [WRITERS] proctype converter()
{
    byte me = _pid - READERS;

    do
    :: break
    :: /* write_lock() */
       LOCK;
       d_step { writers_waiting++; waits[me] = 1; passed[me] = 0 }
       do
       :: readers || writing -> SLEEP(_pid)
       :: else -> break
       od;
       writers_waiting--;
       writing = 1;
       d_step { converting++; waits[me] = 0; passed[me] = 0 }
       UNLOCK;

       assert(!reading && converting == 1);
       converting--;

       /* write_unlock() */
       LOCK;
       assert(writing);
       writing = 0;
#ifndef NO_RULE_WAKE_WRITER
       WAKE_ALL;
#endif
       UNLOCK
    od
}
