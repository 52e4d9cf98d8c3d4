/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * While the firmware processes a page, the page can become shared, but cannot
 * become private again: the conversion fails with EAGAIN and reports the page.
 * The test needs slow firmware:
 *
 *   L1_HW='-global amd-psp.cost-command-ns=100000000'
 */
#define _GNU_SOURCE
#include <pthread.h>
#include "sev-transport.h"

#define AT      0xa000          /* private, encrypted by the launch */
#define LAUNCH  0xc000

static struct vm from, to;
static struct packet packet;

static int send_page(void)
{
    return transport_send(&from, AT, &packet);
}

static int receive_page(void)
{
    return transport_receive(&to, AT, &packet);
}

static void *run_command(void *command)
{
    return (void *)(intptr_t)((int (*)(void))command)();
}

static void during(const char *what, struct vm *vm, int (*command)(void))
{
    pthread_t thread;
    int first, second, r;
    uint64_t held;
    void *result;

    pthread_create(&thread, NULL, run_command, command);
    usleep(20000);
    r = vm_convert(vm, AT, PAGE, SHARED);
    first = vm_convert(vm, AT, PAGE, PRIVATE);
    second = vm_convert(vm, GUEST_SHARED + PAGE, 8 * PAGE, PRIVATE);
    held = convert_held;
    pthread_join(thread, &result);
    ok(!r, "a page becomes shared while %s uses it", what);
    ok(first == -EAGAIN,
       "a page does not become private while %s uses it", what);
    ok(second == -EAGAIN && held == AT,
       "a range with a page that %s uses does not become private, and "
       "error_offset names the page", what);
    ok(!result, "conversions of its page do not disturb %s", what);
    ok(!vm_convert(vm, AT, PAGE, PRIVATE),
       "the page becomes private after %s has ended", what);
}

int main(void)
{
    double start;

    vm_require(VM_SEV);
    vm_init(&from, VM_SEV, GUEST_SIZE);
    vm_init(&to, VM_SEV, GUEST_SIZE);
    MUST(guest_launch(&from, LAUNCH));
    MUST(transport_start(&from, &to));
    MUST(vm_convert(&to, AT, PAGE, PRIVATE));

    start = now();
    MUST(send_page());
    if (now() - start < 0.080) {
        skip_all("the firmware is too fast; see the head of sev-held.c");
    }
    during("SEND_UPDATE_DATA", &from, send_page);
    during("RECEIVE_UPDATE_DATA", &to, receive_page);
    vm_destroy(&to);
    vm_destroy(&from);
    return done_testing();
}
