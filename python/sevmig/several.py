# SPDX-License-Identifier: GPL-2.0-or-later
"""Run several test programs one after another in one emulated host.

  python3 -m sevmig.several PROGRAM [ARG...] [-- PROGRAM [ARG...]]...

Starting an emulated host takes longer than most test programs, so one host runs
several of them.  Each program prints TAP on stdout.  This program prints one
TAP document with the cases of all programs, which it numbers anew; it puts the
name of the program before the description of a case.  It adds a failed case for
a program

- that prints no plan, or another number of cases than its plan announces,
- whose exit status is not 0 although all of its cases passed,
- that runs for more than LIMIT seconds (SEVERAL_LIMIT in the environment).
"""
import os
import re
import signal
import subprocess
import sys
import threading
import time

LIMIT = int(os.environ.get('SEVERAL_LIMIT', '900'))

CASE = re.compile(r'(ok|not ok)\b\s*(\d+)?\s*(?:- )?(.*)')
PLAN = re.compile(r'1\.\.(\d+)\s*(?:# SKIP\s*(.*))?', re.I)
IGNORED = re.compile(r'TAP version \d+$')


class Document:
    """The TAP document of all programs."""

    def __init__(self):
        self.cases = self.failed = 0

    def case(self, good, text):
        self.cases += 1
        self.failed += not good
        print(f'{"ok" if good else "not ok"} {self.cases} - {text}', flush=True)

    @staticmethod
    def comment(text):
        print(text if text.startswith('#') else f'# {text}', flush=True)

    def end(self):
        print(f'1..{self.cases}', flush=True)


class Program:
    """One run of a test program."""

    def __init__(self, command, document):
        self.command = command
        self.name = os.path.basename(command[0])
        self.document = document
        self.cases = self.failed = 0
        self.planned = None
        self.stopped = False

    def case(self, good, text):
        self.cases += 1
        self.failed += not good
        self.document.case(good, f'{self.name}: {text}')

    def line(self, line):
        """Handle a line of the program's output."""
        if plan := PLAN.fullmatch(line):
            self.planned = int(plan[1])
            if not self.planned:
                self.document.case(True, f'{self.name} # SKIP {plan[2] or ""}')
        elif case := CASE.fullmatch(line):
            self.case(case[1] == 'ok', case[3])
        elif line.startswith('Bail out!'):
            self.case(False, line)
        elif not IGNORED.fullmatch(line):
            self.document.comment(line)

    def run(self):
        began = time.monotonic()
        with subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True,
                              errors='replace', start_new_session=True) as proc:
            def stop():
                self.stopped = True
                # Kill the program's children, too: run() reads the pipe until
                # the program and its children have closed it
                os.killpg(proc.pid, signal.SIGKILL)

            timer = threading.Timer(LIMIT, stop)
            timer.start()
            for line in proc.stdout:
                self.line(line.rstrip('\n'))
            status = proc.wait()
            timer.cancel()
        if self.stopped:
            self.case(False, f'killed after {LIMIT} seconds')
        elif self.planned is None:
            self.case(False, f'no plan, exit status {status}')
        elif self.planned != self.cases:
            self.case(False, f'{self.cases} cases of {self.planned}, '
                      f'exit status {status}')
        elif status and not self.failed:
            self.case(False, f'exit status {status}')
        self.document.comment(
            f'{self.name}: {time.monotonic() - began:.1f} s')


def commands(args):
    """Return the lists between the '--' of @args."""
    out = [[]]
    for arg in args:
        if arg == '--':
            out.append([])
        else:
            out[-1].append(arg)
    return [command for command in out if command]


def main():
    document = Document()
    print('TAP version 13')
    for command in commands(sys.argv[1:]):
        Program(command, document).run()
    document.end()
    return 1 if document.failed or not document.cases else 0


if __name__ == '__main__':
    sys.exit(main())
