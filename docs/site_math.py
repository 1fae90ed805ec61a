"""Sphinx extension: formulas as MathML, which browsers show without scripts or network."""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)

_ACCENT = r"\\(?:hat|bar|tilde|dot|vec|overline)(?![a-zA-Z])"
_REPLACED = {
    r"\\dots(?![a-zA-Z])": r"\\ldots",
    r"\\[bB]igg?[lr]?(?![a-zA-Z])": "",
    # Or else an index of what has an accent would be set below it, not next to it.
    rf"({_ACCENT}\s*(?:\\[a-zA-Z]+|\{{[^{{}}]*\}}|[a-zA-Z]))": r"{\1\\hspace{0em}}",
}
"""Patterns of LaTeX that docutils does not know or sets badly, and their replacements."""


def mathml(formula: str, as_block: bool) -> str:
    """Return a LaTeX formula as MathML.

    Raises:
        MathError: If it contains a command that cannot be converted.
    """
    for pattern, known in _REPLACED.items():
        formula = re.sub(pattern, known, formula)
    return tex2mathml(formula, as_block=as_block)


def _visit(translator: Any, node: nodes.Element) -> None:
    as_block = isinstance(node, nodes.math_block)
    tag = "div" if as_block else "span"
    try:
        content = mathml(node.astext(), as_block)
    except MathError as error:
        logger.warning("cannot convert a formula: %s", error, location=node, type="math")
        content = f"<code>{html.escape(node.astext())}</code>"
    translator.body.append(f'<{tag} class="math">{content}</{tag}>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (_visit, None), (_visit, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
