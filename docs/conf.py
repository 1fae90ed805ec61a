"""Settings of the documentation site; ``site_pages.py`` writes the pages that are generated."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from sphinx.util import logging
from sphinx.util.nodes import make_refnode

import ctxrecon

sys.path.append(str(Path(__file__).resolve().parent))
site_pages = import_module("site_pages")
logger = logging.getLogger(__name__)

site_pages.write_pages()
for name in ctxrecon.__all__:  # imported lazily, but autodoc documents what is already there
    setattr(ctxrecon, name, getattr(ctxrecon, name))

project = "ctxrecon"
author = copyright = "ctxrecon developers"
version = release = ctxrecon.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "site_math",
]
exclude_patterns = ["_build", "jupyter_execute"]
templates_path = ["_templates"]
smartquotes_action = "q"  # dashes would change the names of options

# Markdown and notebooks
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm in notebooks without widgets
# Generated pages of results may skip a level of headings.
suppress_warnings = ["myst.header"]

# API reference
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# HTML
html_theme = "furo"
html_math_renderer = "mathml"
html_title = "ctxrecon"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def _rewrite_links(app: Any, docname: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(docname)).relative_to(app.srcdir).as_posix()
    if not page.endswith(".rst"):
        source[0] = site_pages.site_links(source[0], page)


def _resolve(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Resolve a Python name by its last parts: ``InputError``, or a class by its private module.

    Where there is no such name, pages that are written by hand are warned of.
    """
    target = node["reftarget"]
    if node.get("refdomain") != "py" or ("." in target and not target.startswith("ctxrecon.")):
        return None
    objects = env.get_domain("py").objects
    parts = target.split(".")
    for count in (2, 1) if len(parts) > 1 else (1,):
        tail = "." + ".".join(parts[-count:])
        found = [name for name in objects if name.endswith(tail)]
        if found and (count == 2 or node["reftype"] != "meth"):
            name = min(found, key=lambda name: (name.count("."), name))
            entry = objects[name]
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, name
            )
    if not node["refdoc"].startswith("reference/"):
        logger.warning("unknown name in the API: %s", target, location=node, type="ref")
    return None


def _finish(app: Any, exception: Exception | None) -> None:
    if exception is None:
        executed = Path(app.outdir).parent / "jupyter_execute" / "tutorials"
        site_pages.write_thumbnails(executed, Path(app.outdir))


def setup(app: Any) -> None:
    """Register the rewriting of links, the resolution of names, and the pictures of the gallery."""
    app.connect("build-finished", _finish)
    app.connect("source-read", _rewrite_links)
    app.connect("missing-reference", _resolve)
