"""
The exit statuses of sev-migrate, and the errors that end it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

OK = 0              # the command succeeded and found nothing wrong
PROBLEM = 1         # the user has to do something first; nothing was changed
USAGE = 2           # wrong arguments (argparse uses this status, too)
UNUSABLE = 3        # a file, a monitor or a device cannot be used
FAILED = 4          # run: the migration failed, the guest stays at the source
CANCELLED = 5       # run: cancelled by the user, the guest stays at the source
TIME_LIMIT = 6      # run: cancelled at the time limit, the guest stays there
UNCERTAIN = 7       # run: the user has to find out which host has the guest

MEANINGS = {
    OK: 'done, nothing is wrong',
    PROBLEM: 'something has to be done first; nothing was changed',
    USAGE: 'wrong arguments',
    UNUSABLE: 'a file, a monitor or a device cannot be used',
    FAILED: 'the migration failed; the guest stays at the source',
    CANCELLED: 'the migration was cancelled; the guest stays at the source',
    TIME_LIMIT: 'the time limit was reached; the guest stays at the source',
    UNCERTAIN: 'the guest has left the source, but does not run at the '
               'destination, or the tool has lost the connection',
}


class Stop(Exception):
    """An error that ends sev-migrate; str() is the message for the user."""

    def __init__(self, text, status=UNUSABLE):
        super().__init__(text)
        self.status = status


class Refused(Exception):
    """A QMP command, or libvirt, answered with an error."""
