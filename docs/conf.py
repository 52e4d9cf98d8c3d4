# SPDX-License-Identifier: GPL-2.0-or-later
"""Sphinx configuration of this repository's manual; docs/make runs it.

The source directory is the top of the repository, so that README.rst and the
other pages there belong to the manual.  The pages that also go to QEMU are part
of it, too: references to pages that only QEMU has become plain text.
"""
import os

from docutils import nodes
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# QEMU's docs directory, to tell its pages from pages that do not exist
QEMU_DOCS = os.environ.get('QEMU_DOCS', os.path.join(TOP, 'build/qemu-src/docs'))

with open(os.path.join(TOP, 'VERSION'), encoding='ascii') as version_file:
    version = release = version_file.read().strip()
project = 'Live migration for SEV guests'
author = 'the authors of the commits'
language = 'en'
master_doc = 'docs/index'
include_patterns = ['*.rst', 'docs/**.rst', 'kvm-module/README.rst',
                    'tools/sev-migrate/*.rst']
# docs/make writes the manual page as well
man_pages = [('tools/sev-migrate/sev-migrate', 'sev-migrate',
              'migrate SEV guests between hosts', [], 1)]
exclude_patterns = ['build', 'issues']
html_theme = 'sphinx_rtd_theme'
html_show_copyright = False
# QEMU's manual defines it for all of its pages
rst_prolog = '.. |qemu_system_x86| replace:: qemu-system-x86_64\n'

logger = logging.getLogger(__name__)


def link_pages(app, doctree, docname):
    """`<PATH.rst>`_, which a reader of the repository can follow, as a page"""
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
    :doc:`/PAGE`, which in QEMU's manual begins in docs/, and :doc:`PAGE` of a page
    that only QEMU has, as plain text
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
    """Called by Sphinx"""
    app.connect('doctree-resolved', link_pages)
    app.connect('missing-reference', page_of_qemu)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
