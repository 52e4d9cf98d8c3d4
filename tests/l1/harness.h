/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Functions that every test program of this directory uses: TAP output, time,
 * and memory accesses that may raise SIGBUS.  Each program is one C file, which
 * includes this header once.
 */
#ifndef TESTS_L1_HARNESS_H
#define TESTS_L1_HARNESS_H

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int tap_cases, tap_failed;

/* ok - report a test case, which passes if @cond is true.  Returns @cond. */
static bool __attribute__((format(printf, 2, 3)))
ok(bool cond, const char *fmt, ...)
{
    va_list ap;

    printf("%s %d - ", cond ? "ok" : "not ok", ++tap_cases);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    tap_failed += !cond;
    return cond;
}

/* note - print a comment that helps to understand a failed case */
static void __attribute__((format(printf, 1, 2), unused))
note(const char *fmt, ...)
{
    va_list ap;

    printf("# ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

/* now - monotonic time in seconds */
static double __attribute__((unused)) now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec + ts.tv_nsec * 1e-9;
}

/* skip_all - report why this program cannot run here, and end it */
static void __attribute__((noreturn, format(printf, 1, 2), unused))
skip_all(const char *fmt, ...)
{
    va_list ap;

    printf("1..0 # SKIP ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    exit(0);
}

/* bail - end the program because its setup failed; prints errno */
static void __attribute__((noreturn, format(printf, 1, 2), unused))
bail(const char *fmt, ...)
{
    int err = errno;
    va_list ap;

    printf("Bail out! ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf(": %s\n", strerror(err));
    exit(1);
}

#define CHECK(call) ({                                                  \
    __typeof__(call) ret_ = (call);                                     \
    if ((long)ret_ == -1) {                                             \
        bail("%s:%d: %s", __FILE__, __LINE__, #call);                   \
    }                                                                   \
    ret_;                                                               \
})

/* Like CHECK(), for calls that return 0 or -errno */
#define MUST(call) do {                                                 \
    long ret_ = (call);                                                 \
    if (ret_) {                                                         \
        errno = -ret_;                                                  \
        bail("%s:%d: %s", __FILE__, __LINE__, #call);                   \
    }                                                                   \
} while (0)

static int __attribute__((unused)) done_testing(void)
{
    printf("1..%d\n", tap_cases);
    return !tap_cases || tap_failed;
}

/*
 * One per thread, because the kernel sends SIGBUS to the thread that accesses
 * the page
 */
static __thread sigjmp_buf harness_bus;

static void harness_on_bus(int sig)
{
    siglongjmp(harness_bus, sig);
}

/* touch - read a byte.  Returns 0, or the signal that the access raised. */
static int __attribute__((unused)) touch(const volatile void *p)
{
    int sig = sigsetjmp(harness_bus, 1);

    if (!sig) {
        (void)*(const volatile uint8_t *)p;
    }
    return sig;
}

/* poke - write a byte.  Returns 0, or the signal that the access raised. */
static int __attribute__((unused)) poke(volatile void *p, uint8_t byte)
{
    int sig = sigsetjmp(harness_bus, 1);

    if (!sig) {
        *(volatile uint8_t *)p = byte;
    }
    return sig;
}

static void __attribute__((constructor)) harness_init(void)
{
    struct sigaction sa = { .sa_handler = harness_on_bus };

    setvbuf(stdout, NULL, _IOLBF, 0);
    sigaction(SIGBUS, &sa, NULL);
}

#endif
