# SPDX-License-Identifier: GPL-2.0-or-later
"""Sphinx configuration of this repository's manual; docs/make runs it.

The source directory is the top of the repository, so that README.rst and the
other pages there belong to the manual.  The manual also has the pages that are
contributed to QEMU.  In these pages, this configuration replaces references to
pages that only QEMU has by plain text.
"""
import os

from docutils import nodes
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# QEMU's docs directory.  A reference to a page that is neither in this manual
# nor in QEMU_DOCS is an error.
QEMU_DOCS = os.environ.get('QEMU_DOCS', os.path.join(TOP, 'build/qemu-src/docs'))

with open(os.path.join(TOP, 'VERSION'), encoding='ascii') as version_file:
    version = release = version_file.read().strip()
project = 'Live migration for SEV guests'
author = 'the authors of the commits'
language = 'en'
master_doc = 'docs/index'
include_patterns = ['*.rst', 'docs/**.rst', 'kvm-module/README.rst',
                    'tools/sev-migrate/*.rst']
# docs/make also builds the manual page
man_pages = [('tools/sev-migrate/sev-migrate', 'sev-migrate',
              'migrate SEV guests between hosts', [], 1)]
exclude_patterns = ['build', 'issues']
html_theme = 'sphinx_rtd_theme'
html_show_copyright = False
# QEMU's manual defines this substitution for all of its pages
rst_prolog = '.. |qemu_system_x86| replace:: qemu-system-x86_64\n'

logger = logging.getLogger(__name__)


def link_pages(app, doctree, docname):
    """
    Replace each reference `<PATH.rst>`_ by a link to the page of the manual.
    The pages have such references because they also work in a view of the
    repository.
    """
    here = os.path.dirname(os.path.join(TOP, docname))
    for node in doctree.findall(nodes.reference):
        uri = node.get('refuri', '')
        if not uri.endswith('.rst') or '://' in uri:
            continue
        page = os.path.relpath(os.path.join(here, uri), TOP)[:-len('.rst')]
        if page not in app.env.found_docs:
            logger.warning('%s is not a page of this manual', uri, location=node)
        elif app.builder.format == 'html':
            node['refuri'] = app.builder.get_relative_uri(docname, page)


def page_of_qemu(app, env, node, contnode):
    """
    Resolve a reference that is meant for QEMU's manual.  For :doc:`/PAGE`,
    return a link to docs/PAGE, because the top of QEMU's manual is docs/.  For
    a page that only QEMU has, return plain text.
    """
    if node.get('reftype') != 'doc':
        return None
    target = node['reftarget']
    if 'docs' + target in env.found_docs:
        return make_refnode(app.builder, node['refdoc'], 'docs' + target, '', contnode)
    name, _ = env.relfn2path(target + '.rst', node['refdoc'])
    page = os.path.join(QEMU_DOCS, os.path.relpath(name, 'docs'))
    return contnode if os.path.exists(page) else None


def setup(app):
    """Sphinx calls this function in order to set up the extension."""
    app.connect('doctree-resolved', link_pages)
    app.connect('missing-reference', page_of_qemu)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
