/*
 * The test guest's first and only program
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Options on the kernel's command line; only the first one is mandatory:
 *   workload.seed=TEXT       see workload.c
 *   workload.static=KIB      memory that never changes (default 16384)
 *   workload.dynamic=KIB     memory that is rewritten every tick (default 256)
 *   workload.cpus=N          CPUs that rewrite this memory (default 1)
 *   workload.period=MS       sleep between ticks (default 200)
 *   workload.churn=1         repeatedly unbind and bind the driver of /dev/vdb
 */
#include "workload.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

static char cmdline[4096];

static void mount_one(const char *type, const char *where)
{
    mkdir(where, 0755);
    if (mount(type, where, type, 0, NULL) && errno != EBUSY) {
        say("guest: mount %s: %s", where, strerror(errno));
    }
}

/* Return the value of NAME=VALUE on the kernel's command line, or NULL */
static const char *option(const char *name)
{
    static char copy[sizeof(cmdline)];
    size_t len = strlen(name);
    char *word, *state;

    memcpy(copy, cmdline, sizeof(copy));
    for (word = strtok_r(copy, " \n", &state); word;
         word = strtok_r(NULL, " \n", &state)) {
        if (!strncmp(word, name, len) && word[len] == '=') {
            return word + len + 1;
        }
    }
    return NULL;
}

static size_t option_size(const char *name, size_t def)
{
    const char *v = option(name);

    return v ? strtoul(v, NULL, 10) : def;
}

static int not_hidden(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

/*
 * Load the modules in the order of their names.  mkinitramfs.py puts a number
 * before each name, so that a module comes after the modules that it needs.
 */
static void load_modules(void)
{
    struct dirent **e;
    int n = scandir("/modules", &e, not_hidden, alphasort);

    for (int i = 0; i < n; i++) {
        char path[300];
        int fd;

        snprintf(path, sizeof(path), "/modules/%s", e[i]->d_name);
        fd = open(path, O_RDONLY);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0)) {
            say("guest: %s: %s", path, strerror(errno));
        }
        if (fd >= 0) {
            close(fd);
        }
    }
}

/* Print the kernel's messages about encryption and migration */
static void say_kernel_log(void)
{
    static const char * const wanted[] = {
        "Memory Encryption Features", "live migration", "software IO TLB",
    };
    char line[1024];
    int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
    ssize_t n;

    while (fd >= 0 && (n = read(fd, line, sizeof(line) - 1)) > 0) {
        char *text;

        line[n] = 0;
        text = strchr(line, ';');
        line[strcspn(line, "\n")] = 0;
        for (size_t i = 0; text && i < 3; i++) {
            if (strstr(text, wanted[i])) {
                say("kernel: %s", text + 1);
            }
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void wait_for(const char *path)
{
    for (int i = 0; i < 500 && access(path, F_OK); i++) {
        usleep(10000);
    }
}

int main(void)
{
    WorkloadOptions opt = {
        .disk = "/dev/vda",
    };
    struct utsname u;
    int fd;

    mount_one("proc", "/proc");
    mount_one("sysfs", "/sys");
    mount_one("devtmpfs", "/dev");
    fd = open("/proc/cmdline", O_RDONLY);
    if (fd < 0 || read(fd, cmdline, sizeof(cmdline) - 1) < 0) {
        say("guest: /proc/cmdline: %s", strerror(errno));
    }
    uname(&u);
    say("guest: Linux %s", u.release);
    load_modules();
    say_kernel_log();

    opt.seed = strdup(option("workload.seed") ?: "");
    opt.static_size = option_size("workload.static", 16384) << 10;
    opt.dynamic_size = option_size("workload.dynamic", 256) << 10;
    opt.cpus = option_size("workload.cpus", 1);
    opt.period_ms = option_size("workload.period", 200);
    opt.churn = option_size("workload.churn", 0) ? "/dev/vdb" : NULL;
    wait_for(opt.disk);
    if (opt.churn) {
        wait_for(opt.churn);
    }
    workload_run(&opt);
    reboot(RB_POWER_OFF);
    return 1;
}
