/*
 * The lock of a RAMBlock's encryption bitmap, statement by statement
 * (migration/encrypted/encbitmap.c).  Does the lock keep converters and senders
 * apart, can a thread sleep forever, and can a sender enter while a conversion
 * waits?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * See docs/devel/ordering-model.rst.  The lock is a mutex with a condition
 * variable: a thread that waits sleeps until a broadcast and then takes the mutex
 * again; threads wake in any order.  Two threads send, and two convert.
 *
 *   NO_RULE_WAIT         a reader does not wait for waiting writers
 *   NO_RULE_WAKE_READER  the last reader does not broadcast
 *   NO_RULE_WAKE_WRITER  a writer does not broadcast
 *   UNREACHED            adds a statement that is never reached, for the control
 */
#define READERS 2
#define WRITERS 2

bit mutex;
bit asleep[READERS + WRITERS];
byte readers, writers_waiting;
bit writing;

/* Properties to check */
byte reading, converting;       /* number of threads that hold the lock */
bit waits[WRITERS];             /* the writer is counted as waiting */
byte passed[WRITERS];           /* readers that have entered since then */

#define LOCK            atomic { !mutex -> mutex = 1 }
#define UNLOCK          mutex = 0
/* Sleep and release the mutex in one step, as a condition variable does */
#define SLEEP(me)                                                       \
    d_step { asleep[me] = 1; mutex = 0 }                                \
    atomic { !asleep[me] && !mutex -> mutex = 1 }
#define WAKE_ALL                                                        \
    d_step { asleep[0] = 0; asleep[1] = 0; asleep[2] = 0; asleep[3] = 0 }

/*
 * A thread may end when it does not hold the lock.  Sleeping threads must therefore
 * not depend on it.
 */
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
       /* No reader enters while a writer waits */
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
