# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of sev-migrate."""

import argparse
import sys

from . import (
    VERSION, check, errors, estimate, export, measure, run, varstore,
    verify)

COMMANDS = {'check': check, 'export': export, 'verify': verify,
            'measure': measure, 'estimate': estimate, 'run': run,
            'vars': varstore}


def parser():
    """Return the parser of the whole command line."""
    p = argparse.ArgumentParser(
        prog='sev-migrate', description='Migrate SEV guests between hosts.',
        epilog='exit status: ' + '; '.join(
            f'{n}: {text}' for n, text in errors.MEANINGS.items()),
        allow_abbrev=False)
    p.add_argument('--version', action='version',
                   version=f'sev-migrate {VERSION}')
    commands = p.add_subparsers(required=True, metavar='COMMAND',
                                dest='command')
    for name, module in COMMANDS.items():
        sub = commands.add_parser(name, help=module.HELP,
                                  description=module.__doc__.partition('SPDX')[0],
                                  allow_abbrev=False)
        module.add(sub)
        sub.set_defaults(run=module.run)
    return p


def main(argv=None):
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except errors.Stop as e:
        print(f'sev-migrate {args.command}: {e}', file=sys.stderr)
        return e.status
    except errors.Refused as e:
        print(f'sev-migrate {args.command}: QEMU answers: {e}',
              file=sys.stderr)
        return errors.UNUSABLE
    except KeyboardInterrupt:
        print(f'sev-migrate {args.command}: interrupted', file=sys.stderr)
        return errors.CANCELLED
    except BrokenPipeError:
        return errors.UNUSABLE


if __name__ == '__main__':
    sys.exit(main())
