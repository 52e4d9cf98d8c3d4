/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KVM allocates the other pages of a gmem block together with the requested
 * page, so that one firmware command can process all pages of the gmem block.
 * KVM must not allocate the other pages if the VM is not an SEV guest or if
 * user space has punched a hole.  KVM must not allocate them, either, if they
 * would use up the memory of the control group, because the kernel would then
 * kill a task of the group.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "vm.h"

#define CGROUP  "/run/optional-pages"
#define GROUP   CGROUP "/vm"
#define SIZE    (64ULL << 20)
/*
 * The test requests every fourth page, which is one page of each gmem block.
 * KVM then allocates 16 MiB, or 64 MiB if it allocates whole gmem blocks.
 */
#define STRIDE  (4 * PAGE)
#define LIMIT   (40ULL << 20)

static bool put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    bool done = fd >= 0 && write(fd, text, strlen(text)) ==
                (ssize_t)strlen(text);

    if (fd >= 0) {
        close(fd);
    }
    return done;
}

static long long get(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    long long value = -1;
    char name[64];

    if (!f) {
        bail("%s", path);
    }
    if (!key) {
        value = fscanf(f, "%lld", &value) == 1 ? value : -1;
    } else {
        while (fscanf(f, "%63s %lld", name, &value) == 2 && strcmp(name, key)) {
            value = -1;
        }
    }
    fclose(f);
    return value;
}

/*
 * Write to every fourth page.  Returns by how many KiB the memory use of the
 * control group has grown.
 */
static long touch_some(struct vm *vm)
{
    long long before = get(GROUP "/memory.current", NULL);

    for (uint64_t at = 0; at < SIZE; at += STRIDE) {
        vm->mem[at] = 1;
    }
    return (get(GROUP "/memory.current", NULL) - before) >> 10;
}

/*
 * Call touch_some() in a child process in the control group, because the OOM
 * killer may kill it.  Returns the child's result, or -1.
 */
static long in_group(enum vm_type type, bool punch)
{
    long kib = -1;
    int status, answer[2];

    CHECK(pipe(answer));
    fflush(stdout);
    if (!fork()) {
        struct vm vm;

        put(GROUP "/cgroup.procs", "0");
        vm_create(&vm, type, SIZE);
        if (punch) {
            CHECK(fallocate(vm.gmem, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                            0, PAGE));
        }
        kib = touch_some(&vm);
        if (write(answer[1], &kib, sizeof(kib)) != sizeof(kib)) {
            _exit(1);
        }
        _exit(0);
    }
    CHECK(wait(&status));
    if (WIFSIGNALED(status)) {
        note("killed by signal %d", WTERMSIG(status));
    } else if (read(answer[0], &kib, sizeof(kib)) != sizeof(kib)) {
        kib = -1;
    }
    close(answer[0]);
    close(answer[1]);
    return kib;
}

int main(void)
{
    const long some = (SIZE / STRIDE * PAGE) >> 10, all = SIZE >> 10;
    char limit[32];
    long kib;

    vm_require(VM_SW_PROTECTED);
    vm_require(VM_SEV);
    mkdir(CGROUP, 0700);
    if (mount("cgroup2", CGROUP, "cgroup2", 0, NULL) ||
        !put(CGROUP "/cgroup.subtree_control", "+memory") ||
        (mkdir(GROUP, 0700) && errno != EEXIST) ||
        !put(GROUP "/memory.max", "max")) {
        skip_all("no memory control group: %s", strerror(errno));
    }

    kib = in_group(VM_SEV, false);
    ok(kib > all - some,
       "an SEV VM allocates blocks of four pages if memory allows it: %ld KiB",
       kib);
    kib = in_group(VM_SW_PROTECTED, false);
    ok(kib >= 0 && kib < 2 * some,
       "a VM without firmware allocates only the pages that are used: %ld KiB",
       kib);
    kib = in_group(VM_SEV, true);
    ok(kib >= 0 && kib < 2 * some,
       "an SEV VM whose user space punches holes keeps only the used pages: "
       "%ld KiB", kib);

    snprintf(limit, sizeof(limit), "%lld", (long long)LIMIT);
    if (!put(GROUP "/memory.max", limit)) {
        bail("memory.max");
    }
    kib = in_group(VM_SEV, false);
    ok(kib > some / 2 && get(GROUP "/memory.events", "oom_kill") == 0,
       "a control group that has room only for the used pages gets %ld KiB, "
       "and nobody is killed", kib);
    rmdir(GROUP);
    umount(CGROUP);
    return done_testing();
}
