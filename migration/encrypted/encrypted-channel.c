/*
 * Protection of the migration channel of a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The platform encrypts private pages and authenticates each packet.  It does
 * not notice that packets are reordered, moved to another page or dropped.
 * Shared pages and the state of devices are in the stream as plain bytes.
 * Only TLS protects the whole stream.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "qapi/qapi-types-sockets.h"
#include "encrypted-channel.h"
#include "io/channel-socket.h"

#define WARNING "the migration channel is TCP without TLS: others on the " \
                "network can read and change the guest's shared memory, and " \
                "exchange, repeat or drop its private pages unnoticed: set " \
                "the migration parameter tls-creds on both sides"

/*
 * This function returns false for a channel with TLS, because such a channel is
 * not a QIOChannelSocket but a QIOChannelTLS that contains one.
 */
static bool is_plain_network(QIOChannel *ioc)
{
    g_autoptr(SocketAddress) peer = NULL;

    if (!object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_SOCKET)) {
        return false;
    }
    peer = qio_channel_socket_get_remote_address(QIO_CHANNEL_SOCKET(ioc),
                                                 NULL);
    return peer && peer->type == SOCKET_ADDRESS_TYPE_INET;
}

void encrypted_channel_check(QEMUFile *f, EncryptedStats *stats)
{
    if (is_plain_network(qemu_file_get_ioc(f))) {
        encrypted_stats_warn(stats, WARNING);
        warn_report("A confidential guest is migrated: %s", WARNING);
    }
}
