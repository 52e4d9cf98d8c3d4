/*
 * Emulated AMD Platform Security Processor: interfaces inside the firmware
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A file of this list calls functions of files below it only:
 *
 *   amd-psp-commands.c     finds a command and checks states
 *   amd-psp-platform.c     commands for the platform, its keys and certificates
 *   amd-psp-transport.c    commands that send and receive guests
 *   amd-psp-debug.c        commands that copy guest memory
 *   amd-psp-guest.c        guest contexts, and commands that launch guests
 *   amd-psp-vmsa.c         the slots for checksums of VMSAs
 *   amd-psp-memory.c       access to the machine's memory
 */

#ifndef HW_MISC_AMD_PSP_FIRMWARE_H
#define HW_MISC_AMD_PSP_FIRMWARE_H

#include "qemu/bitops.h"
#include "hw/misc/amd-psp.h"

/* Maximum bytes of guest memory that one command sends, receives or copies */
#define PACKET_MAX          (16 * 1024)

/* Bytes of memory that INIT requires for SEV-ES */
#define TMR_LEN             (1024 * 1024)

/*
 * PDH_CERT_EXPORT exports the certificate of the PDH and, separately, a chain
 * of three certificates.  These are the length of this chain and the offsets of
 * its certificates, in bytes.
 */
#define CHAIN_LEN           (3 * AMD_PSP_CERT_LEN)
#define CHAIN_PEK           0
#define CHAIN_OCA           AMD_PSP_CERT_LEN
#define CHAIN_CEK           (2 * AMD_PSP_CERT_LEN)

/* Sets of guest states and of platform states, for PspCommand */
#define GUEST_IN(state)     BIT(AMD_PSP_GUEST_##state)
#define GUEST_IN_ANY        (GUEST_IN(LUPDATE) | GUEST_IN(LSECRET) | \
                             GUEST_IN(RUNNING) | GUEST_IN(SUPDATE) | \
                             GUEST_IN(RUPDATE) | GUEST_IN(SENT))
#define PLATFORM_IN(state)  BIT(AMD_PSP_PLATFORM_##state)
#define PLATFORM_IN_ANY     (PLATFORM_IN(UNINIT) | PLATFORM_IN(INIT) | \
                             PLATFORM_IN(WORKING))

/*
 * The results of a command after which the emulated firmware writes its copy of
 * the command buffer back to the host's memory.  According to its source code,
 * AMD's firmware writes the buffer back after the same results.
 */
typedef enum PspReply {
    PSP_REPLY_NEVER,
    PSP_REPLY_SUCCESS,
    PSP_REPLY_LENGTH,       /* after success, and after INVALID_LEN */
} PspReply;

/**
 * PspCommandFn: execute a command
 * @g: the guest whose handle is in the buffer; NULL if PspCommand.states is 0
 * @b: copy of the command buffer, which may be changed
 */
typedef AmdPspStatus PspCommandFn(AmdPspPlatform *p, AmdPspGuest *g,
                                  uint8_t *b);

typedef struct PspCommand {
    uint32_t id;                /* AmdPspCommand */
    const char *name;           /* as in the API; NULL ends a table */
    PspCommandFn *fn;
    uint8_t buffer_len;
    PspReply reply;
    /* Called before the platform's state is checked, with @g == NULL */
    PspCommandFn *before_state;
    /* Called before the guest is checked; @g is NULL if there is no guest */
    PspCommandFn *first;
    /* Allowed guest states; 0: the buffer has no handle of a guest */
    uint8_t states;
    /* The guest must be active */
    bool active;
    /* AMD_PSP_POLICY_ES must be set in the guest's policy */
    bool es;
    /*
     * Allowed platform states.  The value 0 stands for WORKING if @states is
     * not 0, and for INIT and WORKING if @states is 0.
     */
    uint8_t platform;
    /* Offset of the handle in the buffer */
    uint8_t handle_at;
    /* The command calls sev_memory_clear_key(), so no vCPU may run */
    bool stops_cpus;
} PspCommand;

extern const PspCommand psp_platform_commands[];
extern const PspCommand psp_guest_commands[];
extern const PspCommand psp_transport_commands[];
extern const PspCommand psp_debug_commands[];

/**
 * psp_guest_find: the guest context with @handle; NULL if there is none
 */
AmdPspGuest *psp_guest_find(AmdPspPlatform *p, uint32_t handle);

/**
 * psp_guest_count: the number of guest contexts
 * @active: set to the number of those that have an ASID
 */
unsigned psp_guest_count(AmdPspPlatform *p, unsigned *active);

/**
 * psp_guest_free_all: deactivate and free all guest contexts
 *
 * No vCPU may run, see sev_memory_clear_key().
 */
void psp_guest_free_all(AmdPspPlatform *p);

/**
 * psp_guest_start: execute LAUNCH_START or RECEIVE_START
 * @b: the command buffer
 * @state: the state in which the guest begins
 */
AmdPspStatus psp_guest_start(AmdPspPlatform *p, uint8_t *b,
                             AmdPspGuestState state);

/**
 * psp_guest_finish: end the launch or the reception of @g
 *
 * After the call, the guest can run as soon as it is active.
 */
void psp_guest_finish(AmdPspGuest *g);

/**
 * psp_vmsa_set_up: make @vmsa a state from which a vCPU of @g can start
 * @vmsa: plaintext of @len bytes; the function changes it
 *
 * Assigns a slot for the checksum of @vmsa, writes the address of the slot into
 * @vmsa, and stores the checksum in the slot.
 */
AmdPspStatus psp_vmsa_set_up(AmdPspPlatform *p, AmdPspGuest *g, uint8_t *vmsa,
                             size_t len);

/**
 * psp_vmsa_is_valid: check a VMSA that is to be sent
 * @vmsa: plaintext of @len bytes
 *
 * Returns true if psp_vmsa_set_up() has set up @vmsa for @g, and only the vCPU
 * that uses @vmsa has changed @vmsa since.
 */
bool psp_vmsa_is_valid(AmdPspPlatform *p, AmdPspGuest *g, const uint8_t *vmsa,
                       size_t len);

/**
 * psp_vmsa_free: free the slots for checksums that psp_vmsa_set_up() has
 * assigned to VMSAs of @g
 */
void psp_vmsa_free(AmdPspPlatform *p, const AmdPspGuest *g);

/**
 * psp_address: read an address from a command buffer
 *
 * The host may pass the address with or without the C-bit.
 */
hwaddr psp_address(const uint8_t *b, size_t offset);

/**
 * psp_read: read memory for a command
 *
 * Like sev_memory_read(), but also returns false if the range contains a part
 * of the ring's queues.
 */
bool psp_read(AmdPspPlatform *p, hwaddr pa, unsigned asid, void *buf,
              size_t len);

/**
 * psp_write: write output of a command to memory
 *
 * Like sev_memory_write(), but also returns false if the range contains a part
 * of the ring's queues.  An injected fault may flip a bit of the output.
 */
bool psp_write(AmdPspPlatform *p, hwaddr pa, unsigned asid, const void *buf,
               size_t len);

/**
 * psp_is_ram: whether all of [@pa, @pa + @len) is RAM, and none of it is a part
 * of the ring's queues
 *
 * psp_read() and psp_write() fail for any other range.
 */
bool psp_is_ram(AmdPspPlatform *p, hwaddr pa, size_t len);

/**
 * psp_random: fill @buf with random bytes
 *
 * Returns false on failure, after reporting the error.
 */
bool psp_random(void *buf, size_t len);

#endif
