/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inject a secret into a guest_memfd with LAUNCH_SECRET.  The guest's owner
 * encrypts the secret for the measured guest.  KVM finds the private page by
 * its host address, and the firmware writes the secret to this page and to no
 * other.
 *
 * Links with: -lhogweed -lnettle -lgmp
 */
#define _GNU_SOURCE
#include "guest.h"
#include "guest-owner.h"
#include "sev-transport.h"

#define LAUNCHED        0x40000ULL
#define SECRET_GPA      0x20100ULL
#define BAD_MEASUREMENT 0x0b

static const uint8_t secret[64] =
    "what only the guest may know, and nobody else on its host does.";

static int inject(struct vm *vm, const uint8_t *address, const uint8_t *sealed,
                  const struct owner_header *header)
{
    struct kvm_sev_launch_secret args = {
        .hdr_uaddr = (uintptr_t)header, .hdr_len = sizeof(*header),
        .guest_uaddr = (uintptr_t)address, .guest_len = sizeof(secret),
        .trans_uaddr = (uintptr_t)sealed, .trans_len = sizeof(secret),
    };

    return sev_cmd(vm, KVM_SEV_LAUNCH_SECRET, &args);
}

/*
 * Does the measurement prove that memory with this digest was launched on this
 * firmware?
 */
static bool measured(const struct owner *owner, const uint8_t measure[48],
                     const uint8_t digest[SHA256_DIGEST_SIZE])
{
    struct sev_user_data_status status;
    struct sev_issue_cmd cmd = {
        .cmd = SEV_PLATFORM_STATUS, .data = (uintptr_t)&status,
    };

    CHECK(ioctl(sev_fd, SEV_ISSUE_CMD, &cmd));
    return owner_expects(owner, measure, status.api_major, status.api_minor,
                         status.build, digest);
}

static void launch(struct vm *vm, struct owner *owner,
                   uint8_t digest[SHA256_DIGEST_SIZE])
{
    struct kvm_sev_launch_start start = {
        .policy = owner->policy,
        .dh_uaddr = (uintptr_t)owner->cert, .dh_len = sizeof(owner->cert),
        .session_uaddr = (uintptr_t)&owner->session,
        .session_len = sizeof(owner->session),
    };
    struct kvm_sev_launch_update_data low = {
        .uaddr = (uintptr_t)vm->mem, .len = GUEST_SHARED,
    }, high = {
        .uaddr = (uintptr_t)vm->mem + GUEST_SHARED + PAGE,
        .len = LAUNCHED - GUEST_SHARED - PAGE,
    };
    struct sha256_ctx sum;

    /* Hash all launched memory, beginning with the guest's code and tables */
    guest_install(vm);
    sha256_init(&sum);
    sha256_update(&sum, low.len, (uint8_t *)(uintptr_t)low.uaddr);
    sha256_update(&sum, high.len, (uint8_t *)(uintptr_t)high.uaddr);
    sha256_digest(&sum, SHA256_DIGEST_SIZE, digest);

    MUST(vm_convert(vm, 0, GUEST_SHARED, PRIVATE));
    MUST(vm_convert(vm, GUEST_SHARED + PAGE, vm->size - GUEST_SHARED - PAGE,
                    PRIVATE));
    SEV_MUST(vm, KVM_SEV_LAUNCH_START, &start);
    SEV_MUST(vm, KVM_SEV_LAUNCH_UPDATE_DATA, &low);
    SEV_MUST(vm, KVM_SEV_LAUNCH_UPDATE_DATA, &high);
}

/*
 * LAUNCH_SECRET fails if the packet or the address is wrong.  KVM then keeps no
 * reference to a page, so the pages can still be converted.
 */
static void refused(struct vm *vm, const struct owner *owner,
                    const uint8_t measure[48])
{
    uint8_t *page = vm->mem + SECRET_GPA, sealed[sizeof(secret)], other[32];
    struct owner_header header;
    int r;

    memcpy(other, measure, sizeof(other));
    other[31] ^= 1;
    owner_seal(owner, other, secret, sizeof(secret), sealed, &header);
    r = inject(vm, page, sealed, &header);
    ok(r == -EIO && sev_error == BAD_MEASUREMENT,
       "LAUNCH_SECRET sealed for another measurement fails with "
       "BAD_MEASUREMENT");

    owner_seal(owner, measure, secret, sizeof(secret), sealed, &header);
    sealed[0] ^= 1;
    r = inject(vm, page, sealed, &header);
    ok(r == -EIO && sev_error == BAD_MEASUREMENT,
       "LAUNCH_SECRET of a changed secret fails with BAD_MEASUREMENT");
    sealed[0] ^= 1;

    ok(inject(vm, vm->mem + vm->size - 32, sealed, &header) < 0,
       "LAUNCH_SECRET that reaches past the end of the memory is refused");
    ok(inject(vm, vm->mem + vm->size, sealed, &header) < 0,
       "LAUNCH_SECRET where there is no memory is refused");
    ok(!vm_convert(vm, 0, LAUNCHED, SHARED) &&
       !vm_convert(vm, 0, GUEST_SHARED, PRIVATE) &&
       !vm_convert(vm, GUEST_SHARED + PAGE, LAUNCHED - GUEST_SHARED - PAGE,
                   PRIVATE),
       "LAUNCH_SECRET that was refused leaves no page held");
}

int main(void)
{
    uint8_t measure[48], digest[SHA256_DIGEST_SIZE], sealed[sizeof(secret)];
    struct kvm_sev_launch_measure get = {
        .uaddr = (uintptr_t)measure, .len = sizeof(measure),
    };
    static struct platform platform;
    struct owner_header header;
    struct owner owner;
    struct vm vm;
    uint64_t i;
    bool same = true;

    vm_require(VM_SEV);
    /* vm_init() makes KVM initialize the firmware, which then has a PDH */
    vm_init(&vm, VM_SEV, GUEST_SIZE);
    platform_export(&platform);
    if (!ok(owner_init(&owner, 0, platform.pdh),
            "the owner creates a session for this firmware")) {
        return done_testing();
    }
    launch(&vm, &owner, digest);
    guest_vcpu(&vm);
    SEV_MUST(&vm, KVM_SEV_LAUNCH_MEASURE, &get);
    ok(measured(&owner, measure, digest),
       "the measurement of the guest is what the owner expects");
    digest[0] ^= 1;
    ok(!measured(&owner, measure, digest),
       "the owner notices that the measurement is of another guest");

    refused(&vm, &owner, measure);
    owner_seal(&owner, measure, secret, sizeof(secret), sealed, &header);
    ok(!inject(&vm, vm.mem + SECRET_GPA, sealed, &header),
       "LAUNCH_SECRET into a private page by its host address succeeds");
    ok(touch(vm.mem + SECRET_GPA) == SIGBUS,
       "the host cannot access the private page that has the secret");
    SEV_MUST(&vm, KVM_SEV_LAUNCH_FINISH, NULL);
    ok(inject(&vm, vm.mem + SECRET_GPA, sealed, &header) < 0,
       "LAUNCH_SECRET fails after LAUNCH_FINISH");
    if (!ok(!guest_run(&vm), "a guest with an injected secret runs")) {
        return done_testing();
    }
    for (i = 0; i < sizeof(secret); i += 8) {
        same &= guest_read(&vm, SECRET_GPA + i) == *(uint64_t *)(secret + i);
    }
    ok(same, "the guest reads the injected secret");
    ok(guest_read(&vm, SECRET_GPA - 8) == 0 &&
       guest_read(&vm, SECRET_GPA + sizeof(secret)) == 0,
       "LAUNCH_SECRET did not change the bytes before and after the secret");
    MUST(vm_convert(&vm, SECRET_GPA & -PAGE, PAGE, SHARED));
    ok(!memmem(vm.mem + (SECRET_GPA & -PAGE), PAGE, secret, 16) &&
       !memmem(sealed, sizeof(sealed), secret, 16),
       "the host does not find the secret in the ciphertext or in the sealed "
       "packet");
    vm_destroy(&vm);
    return done_testing();
}
