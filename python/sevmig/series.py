# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the patch series for QEMU; see docs/devel/series.rst.

    scripts/series DIR      write each series NAME to DIR/NAME, in the format of
                            git format-patch

SIGNOFF in the environment, "Name <address>", is the person who signs the
patches off.
"""
import collections
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile

from sevmig import BUILD, REPO

# The directory with the files for QEMU_SERIES: this repository for the default
# series, and for another series a copy that scripts/build/qemu-base makes
BASE = subprocess.run([os.path.join(REPO, 'scripts/build/qemu-base')], check=True,
                      stdout=subprocess.PIPE, text=True).stdout.strip()
TREE = os.path.join(BUILD, 'qemu-src')
SERIES = os.path.join(BASE, 'series')
FIXES = os.path.join(BASE, 'patches')
# The series of the emulated platform.  tests/series/series limits the number
# of lines that hooks add to QEMU.  write() does not count the lines of this
# series, so the limit does not apply to them.
PLATFORM = 'platform'
HELP = 'see docs/devel/series.rst'

# A patch of series/.  where: path of its file.  series: name of its series.
# content: list of (path, regular expression or None), one for each line after
# ---
Patch = collections.namedtuple('Patch', 'where series message content')
# A line of a hook: kind is ' ' (unchanged), '-' or '+'
Line = collections.namedtuple('Line', 'kind text')


class Wrong(Exception):
    """Errors in the files of series/ or in the sign-off, one per line"""


def read(path):
    """Return the bytes of the file @path of BASE."""
    with open(os.path.join(BASE, path), 'rb') as f:
        return f.read()


def lines_of(data):
    """Return the lines of @data, which may contain any bytes."""
    return re.findall(r'[^\n]*\n|[^\n]+',
                      data.decode('utf-8', 'surrogateescape'))


def run(*cmd, data=None, env=None, cwd=None):
    """Run a command; return its output, or raise Wrong if it fails."""
    done = subprocess.run(cmd, input=data, env=env, cwd=cwd, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise Wrong(f'{" ".join(cmd[:6])}: ' +
                    (done.stdout + done.stderr).decode(errors='replace'))
    return done.stdout


# Contents of the repository

def listed(what):
    """
    Return the files of QEMU that this repository changes (@what is 'hooks') or
    adds ('news').
    """
    tool = os.path.join(BASE, 'scripts/qemu-tree')
    return run(tool, 'list', what).decode().split()


def read_patch(path, series):
    """
    Read a file of series/: a message, the line ---, and a patch's content.
    """
    where = os.path.relpath(path, os.path.dirname(SERIES))
    with open(path, encoding='utf-8') as f:
        message, sep, listing = f.read().partition('\n---\n')
    if not sep or not listing.split():
        raise Wrong(f'{where}: no line "---" with the contents after it')
    lines = []
    for line in listing.splitlines():
        if line.strip():
            name, _, regexp = line.strip().partition(': ')
            lines.append((name, regexp.strip() or None))
    return Patch(where, series, message.strip() + '\n', lines)


def read_fix(path):
    """Return the Patch of a file of patches/, which has no content here."""
    with open(path, encoding='utf-8') as f:
        message = f.read().partition('\n---\n')[0]
    message = re.sub(r'\ASubject: (\[PATCH\] )?', '', message)
    subject, sep, body = message.partition('\n\n')
    message = re.sub(r'\n\s+', ' ', subject) + sep + body
    return Patch(path, 'fixes', message.strip() + '\n', None)


def read_all(directory=SERIES):
    """
    Return the series as [(name, cover letter, [Patch])], in the order in which
    they apply.
    """
    out = []
    for entry in sorted(os.listdir(directory)):
        top = os.path.join(directory, entry)
        name = entry.partition('-')[2]
        files = sorted(os.listdir(top))
        files.remove('cover')
        with open(os.path.join(top, 'cover'), encoding='utf-8') as f:
            cover = f.read()
        patches = [read_patch(os.path.join(top, f), name) for f in files]
        if not out:
            patches = [read_fix(os.path.join(FIXES, f))
                       for f in sorted(os.listdir(FIXES))]
        out.append((name, cover, patches))
    return out


def hooked(path, base):
    """
    Return the lines of a file of QEMU as [Line], with the changes of its hook.
    """
    was = lines_of(base)
    out, at = [], 0
    hook = read(path + '.patch')
    for hunk in re.split(rb'^@@ -', hook, flags=re.M)[1:]:
        first, *text = lines_of(hunk)
        text = [Line(t[0], t[1:]) for t in text]
        old = [t.text for t in text if t.kind != '+']
        # The hunk's line number is right only for the fixes (patches/) with
        # which the hook was made.  Other fixes may move the lines.  Of the
        # places with the hunk's old lines, use the nearest to this number.
        says = int(re.match(r'\d+', first).group()) - 1
        where = min((i for i in range(at, len(was) - len(old) + 1)
                     if was[i:i + len(old)] == old),
                    key=lambda i, says=says: abs(i - says), default=None)
        if where is None:
            raise Wrong(f'{path}.patch does not apply: @@ -{first.rstrip()}')
        out += [Line(' ', t) for t in was[at:where]] + text
        at = where + len(old)
    return out + [Line(' ', t) for t in was[at:]]


# Assignment of changed lines to patches

def matches(regexp, lines, block, i):
    """
    Return whether @regexp matches line @i.  If @regexp contains a newline,
    return whether it matches the text of @block from line @i on.
    """
    if '\\n' in regexp:
        return re.match(regexp, ''.join(lines[n].text for n in block if n >= i))
    return re.search(regexp, lines[i].text.rstrip('\n'))


def segments(path, lines, block, claims, used):
    """
    Assign each line of @block, contiguous changed lines, to a patch.  A part of
    the block begins at a line that an expression matches and ends before the
    next such line.  Lines before the first match belong to the first part.

    @claims: list of (patch, expression) for this file
    @used: set to which this function adds the expressions that match
    Returns number of a line -> patch.
    """
    owner = {}
    for i in block:
        mine = [(p, r) for p, r in claims if matches(r, lines, block, i)]
        used.update((p.where, r) for p, r in mine)
        found = {p.where: p for p, _ in mine}
        if len(found) > 1:
            raise Wrong(f'{path}: assigned twice, in '
                        f'{" and ".join(sorted(found))}: '
                        f'{lines[i].text.strip()}')
        if found:
            owner[i] = next(iter(found.values()))
    if not owner:
        text = ''.join('  ' + lines[i].kind + lines[i].text for i in block[:8])
        raise Wrong(f'{path}: assigned to no patch of series/; add '
                    f'"{path}: EXPRESSION" to one, {HELP}:\n{text.rstrip()}')
    now = owner[min(owner)]
    for i in block:
        now = owner.setdefault(i, now)
    # The loop above has assigned an empty line between two parts of the block
    # to the first part.  Assign this line to the second part in two cases:
    # - The block begins with an empty line.  The second part then begins with
    #   an empty line, too.
    # - The block ends at the end of the file.  Otherwise, a patch that adds
    #   only the first part would leave an empty line at the end of the file.
    if not lines[block[0]].text.strip() or block[-1] == len(lines) - 1:
        for i in reversed(block[:-1]):
            if not lines[i].text.strip():
                owner[i] = owner[i + 1]
    return owner


def assign(files, series):
    """
    Assign each changed line of QEMU to a patch.

    @files: path -> [Line]
    @series: the result of read_all()
    Returns path -> (number of a line -> patch).  Raises Wrong with all errors.
    """
    wrong, out = [], {}
    claims, used = collections.defaultdict(list), set()
    lines = [(p, *line) for s in series for p in s[2]
             for line in p.content or []]
    named = {name for _, name, _ in lines}
    for p, name, regexp in lines:
        # @name is a path or a pattern.  A pattern stands for all files that
        # match it, except those whose path is the name in another line.
        found = [name] if name in files else \
            [f for f in fnmatch.filter(files, name) if f not in named]
        for path in found:
            claims[path].append((p, regexp))
        if not found:
            wrong.append(f'{p.where}: there is no {name} (any more): '
                         'remove the line')
    for path, lines in files.items():
        changed = [i for i, line in enumerate(lines) if line.kind != ' ']
        if not claims[path]:
            wrong.append(f'{path}: assigned to no patch of series/; add its '
                         f'path to the one that it belongs to, {HELP}')
            continue
        if any(r is None for _, r in claims[path]):
            if len(claims[path]) > 1:
                wrong.append(f'{path}: assigned twice, in ' + ' and '.join(
                    sorted({p.where for p, _ in claims[path]})))
            out[path] = dict.fromkeys(changed, claims[path][0][0])
            continue
        out[path] = {}
        while changed:
            end = next((n for n, i in enumerate(changed)
                        if i != changed[0] + n), len(changed))
            try:
                out[path].update(segments(path, lines, changed[:end],
                                          claims[path], used))
            except Wrong as e:
                wrong.append(str(e))
            changed = changed[end:]
        for p, regexp in claims[path]:
            if (p.where, regexp) not in used:
                wrong.append(f'{p.where}: "{path}: {regexp}" matches no '
                             'change: remove or correct it')
    if wrong:
        raise Wrong('\n'.join(wrong))
    return out


# Patches

class Git:
    """
    A bare git repository in @tmp, which shares the objects of the assembled
    tree.  Its commits have the author @who.
    """
    def __init__(self, tmp, who):
        self.dir = os.path.join(tmp, 'git')
        name, _, mail = who.rpartition(' <')
        self.env = dict(os.environ, GIT_DIR=self.dir, GIT_CONFIG_GLOBAL='/dev/null',
                        GIT_INDEX_FILE=os.path.join(tmp, 'index'),
                        GIT_AUTHOR_NAME=name, GIT_AUTHOR_EMAIL=mail[:-1],
                        GIT_COMMITTER_NAME=name,
                        GIT_COMMITTER_EMAIL=mail[:-1])
        self('init', '-q', '--bare', self.dir)
        with open(os.path.join(self.dir, 'objects/info/alternates'), 'w',
                  encoding='utf-8') as f:
            f.write(os.path.join(TREE, '.git/objects') + '\n')
        self.fixes = run('git', '-C', TREE, 'rev-parse',
                         'fixes').decode().strip()

    def __call__(self, *args, data=None):
        return run('git', *args, data=data, env=self.env)

    def show(self, path):
        """Return the contents of @path in QEMU's source with our fixes."""
        return self('cat-file', 'blob', f'{self.fixes}:{path}')

    def put(self, path, data, mode):
        """Put @data into the index as @path; None removes @path"""
        if data is None:
            self('update-index', '--force-remove', path)
            return
        blob = self('hash-object', '-w', '--stdin', data=data).decode()
        self('update-index', '--add', '--cacheinfo',
             f'{mode},{blob.strip()},{path}')

    def commit(self, message, parent=None):
        """Commit the index"""
        tree = self('write-tree').decode().strip()
        return self('commit-tree', tree, *(['-p', parent] if parent else []),
                    data=message.encode()).decode().strip()


def read_tree(git):
    """Return path -> [Line] and path -> mode of all hooks and new files."""
    files, modes = {}, {}
    for path in listed('hooks'):
        files[path] = hooked(path, git.show(path))
        entry = git('ls-tree', git.fixes, path).decode()
        modes[path] = entry.split()[0]
    for path in listed('news'):
        full = os.path.join(BASE, path)
        files[path] = [Line('+', t) for t in lines_of(read(path))]
        modes[path] = '100755' if os.access(full, os.X_OK) else '100644'
    return files, modes


def content(lines, owner, done):
    """
    Return the contents of a file to which only the patches @done are applied,
    or None if the file does not exist then.
    """
    out = [line.text for i, line in enumerate(lines)
           if line.kind == ' ' or (owner[i].where in done) ==
           (line.kind == '+')]
    return ''.join(out).encode('utf-8', 'surrogateescape') if out else None


def commits(git, series, files, modes, owners, who):
    """
    Commit all patches, on one branch per series.  Returns a list of (name of
    the series, commit on which it is based).
    """
    trailer = f'\nSigned-off-by: {who}\n'
    paths = collections.defaultdict(set)
    for path, owner in owners.items():
        for p in owner.values():
            paths[p.where].add(path)
    git('read-tree', git.fixes)
    for p in reversed(series[0][2]):
        git('apply', '--cached', '-R', p.where)
    at = git.commit('pristine\n')
    git('tag', 'pristine', at)
    out, done = [], set()
    for name, cover, patches in series:
        parent = at
        for p in patches:
            if p.content is None:
                git('apply', '--cached', p.where)
            done.add(p.where)
            for path in sorted(paths[p.where]):
                git.put(path, content(files[path], owners[path], done),
                        modes[path])
            at = git.commit(p.message + trailer, at)
        git('branch', name, at)
        git('config', f'branch.{name}.description', cover)
        out.append((name, parent))
    return out


def write(out, who):
    """
    Write each series NAME to @out/NAME.  Returns path -> number of lines that
    its hook adds, without lines of the emulated platform's series.
    """
    series = read_all()
    with tempfile.TemporaryDirectory() as tmp:
        git = Git(tmp, who)
        files, modes = read_tree(git)
        owners = assign(files, series)
        shutil.rmtree(out, ignore_errors=True)
        os.makedirs(out)
        for name, parent in commits(git, series, files, modes, owners, who):
            git('format-patch', '-q', '-o', os.path.join(out, name),
                '--cover-letter', '--cover-from-description=subject',
                '--no-renames', '--zero-commit', '--no-signature',
                f'{parent}..{name}')
    added = collections.Counter()
    for path in listed('hooks'):
        added[path] = sum(line.kind == '+' and
                          owners[path][i].series != PLATFORM
                          for i, line in enumerate(files[path]))
    return +added


def written(out):
    """
    Return the paths of the patches below @out without the cover letters, in the
    order in which they apply.
    """
    return [os.path.join(out, name, f) for name, _, _ in read_all()
            for f in sorted(os.listdir(os.path.join(out, name)))
            if not f.startswith('0000-')]


def kind(path):
    """Return the group of hooks to which the hook of @path belongs."""
    base = os.path.basename(path)
    if path.startswith(('docs/', 'tests/')):
        return 'docs and tests'
    if base == 'trace-events':
        return 'trace events'
    if base in ('meson.build', 'Kconfig'):
        return 'lists of files'
    if path.startswith('qapi/'):
        return 'QAPI schema'
    if path.startswith('migration/') and base != 'ram.c':
        return 'code: the rest of migration/'
    if '/kvm/' in path:
        return 'code: KVM'
    if path in ('migration/ram.c', 'target/i386/sev.c'):
        return f'code: {path}'
    return 'code: memory, monitor, class of confidential guests'


def signer():
    """Return the person who signs off."""
    who = os.environ.get('SIGNOFF', '')
    if not re.fullmatch(r'[^<>\n]+ <[^<>\s]+@[^<>\s]+>', who):
        raise Wrong("nobody to sign the patches off: set git's user.name and "
                    "user.email, or SIGNOFF='Name <address>'")
    return who


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith('-'):
        sys.exit(__doc__)
    out = os.path.abspath(sys.argv[1])
    try:
        added = write(out, signer())
    except Wrong as e:
        sys.exit('\n'.join('series: ' + line if not line.startswith(' ')
                           else line for line in str(e).splitlines()))
    for name in sorted(os.listdir(out)):
        print(f'{len(os.listdir(os.path.join(out, name))) - 1:3} patches and '
              f'a cover letter in {os.path.join(out, name)}')
    print('Lines that they add to files of QEMU, but for the platform:')
    sums = collections.Counter()
    for path, n in added.items():
        sums[kind(path)] += n
    for what in sorted(sums, key=lambda k: -sums[k]):
        print(f'{sums[what]:5} {what}')
    print(f'{sum(sums.values()):5} in all')
