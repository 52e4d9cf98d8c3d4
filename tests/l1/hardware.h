/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Access to the emulated SEV platform through the QMP of the QEMU that
 * emulates the host: counters of firmware commands, and injection of faults.
 * Only a host that was started with scripts/l1 --qmp has this access.
 */
#ifndef TESTS_L1_HARDWARE_H
#define TESTS_L1_HARDWARE_H

#include <fcntl.h>
#include <glob.h>
#include <unistd.h>
#include "harness.h"

static int hardware_fd = -1;
static char hardware_answer[1 << 16];

/* Send a QMP command; the answer is in hardware_answer */
static void hardware_cmd(const char *request)
{
    static unsigned id;
    char line[1024], want[32];
    size_t n = 0;

    snprintf(want, sizeof(want), "\"id\": %u", ++id);
    n = snprintf(line, sizeof(line), "{%s, %s}\n", want, request);
    if (write(hardware_fd, line, n) != (ssize_t)n) {
        bail("QMP: %s", strerror(errno));
    }
    /* Skip the greeting and events */
    for (n = 0;;) {
        ssize_t got = read(hardware_fd, hardware_answer + n,
                           sizeof(hardware_answer) - 1 - n);
        char *end;

        if (got <= 0) {
            bail("QMP: %s", got ? strerror(errno) : "closed");
        }
        n += got;
        hardware_answer[n] = 0;
        while ((end = strchr(hardware_answer, '\n'))) {
            char *mine = strstr(hardware_answer, want);

            *end = 0;
            if (mine && mine < end) {
                return;
            }
            n -= end + 1 - hardware_answer;
            memmove(hardware_answer, end + 1, n + 1);
        }
    }
}

/*
 * Connect to the QMP of the QEMU that emulates this host.  Returns false if
 * this host has no virtio-serial port named "qmp".
 */
static bool hardware_open(void)
{
    char name[16];
    glob_t names;

    if (glob("/sys/class/virtio-ports/*/name", 0, NULL, &names)) {
        return false;
    }
    for (size_t i = 0; hardware_fd < 0 && i < names.gl_pathc; i++) {
        FILE *f = fopen(names.gl_pathv[i], "r");
        char path[32], port[16];

        if (f && fscanf(f, "%15s", name) == 1 && !strcmp(name, "qmp") &&
            sscanf(names.gl_pathv[i], "/sys/class/virtio-ports/%15[^/]",
                   port) == 1) {
            snprintf(path, sizeof(path), "/dev/%s", port);
            hardware_fd = open(path, O_RDWR);
        }
        if (f) {
            fclose(f);
        }
    }
    globfree(&names);
    if (hardware_fd >= 0) {
        hardware_cmd("\"execute\": \"qmp_capabilities\"");
    }
    return hardware_fd >= 0;
}

/* Find the value of the first member @key at or after @from, or NULL */
static char *hardware_value(char *from, const char *key)
{
    char *value = strstr(from, key);

    return value ? value + strlen(key) : NULL;
}

/* Number of times that the firmware has received @command */
static unsigned long __attribute__((unused))
hardware_count(const char *command)
{
    char key[64], *at, *count;

    hardware_cmd("\"execute\": \"query-sev-platform\"");
    snprintf(key, sizeof(key), "\"command\": \"%s\"", command);
    at = strstr(hardware_answer, key);
    /* Go back to the beginning of the JSON object that contains @key */
    while (at && at > hardware_answer && *at != '{') {
        at--;
    }
    count = at ? hardware_value(at, "\"count\": ") : NULL;
    return count ? strtoul(count, NULL, 10) : 0;
}

/* Whether the firmware is in ring buffer mode */
static bool __attribute__((unused)) hardware_ring(void)
{
    hardware_cmd("\"execute\": \"query-sev-platform\"");
    return strstr(hardware_answer, "\"ring\": true");
}

/*
 * Replace the faults of the emulated firmware by one fault.  @fault: the
 * members of a SevPlatformFault in JSON, without braces, or "" for no fault.
 */
static void __attribute__((unused)) hardware_fault(const char *fault)
{
    char request[512], *path;

    hardware_cmd("\"execute\": \"query-sev-platform\"");
    path = hardware_value(hardware_answer, "\"qom-path\": \"");
    if (!path) {
        bail("no emulated SEV platform: %s", hardware_answer);
    }
    *strchr(path, '"') = 0;
    snprintf(request, sizeof(request), "\"execute\": \"qom-set\", "
             "\"arguments\": {\"path\": \"%s\", \"property\": \"faults\", "
             "\"value\": [%s%s%s]}", path, *fault ? "{" : "", fault,
             *fault ? "}" : "");
    hardware_cmd(request);
    if (strstr(hardware_answer, "\"error\"")) {
        bail("QMP: %s", hardware_answer);
    }
}

#endif
