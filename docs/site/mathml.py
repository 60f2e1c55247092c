"""Formulas as MathML, which browsers draw themselves: no script, no network.

Docutils, on which Sphinx stands, translates LaTeX; a formula that it cannot translate stops the build.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import matplotlib
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def _mathml(node: nodes.Element, block: bool) -> str:
    try:
        return str(tex2mathml(node.astext(), as_block=block))
    except MathError as error:
        raise ExtensionError(f"this formula is not LaTeX that docutils knows: {node.astext()!r}: {error}") from error


def _inline(writer: Any, node: nodes.Element) -> None:
    writer.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def _display(writer: Any, node: nodes.Element) -> None:
    writer.body.append(f'<div class="formula" tabindex="0">{_mathml(node, block=True)}</div>')
    raise nodes.SkipNode


def _copy_fonts(app: Sphinx, error: Exception | None) -> None:
    """STIX, as Matplotlib brings it (its licence allows that), beside the style sheet that asks for it."""
    if error is None:
        folder = Path(app.outdir) / "_static" / "fonts"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("STIXGeneral.ttf", "STIXGeneralItalic.ttf"):
            shutil.copy(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, folder / name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry point: a renderer of formulas by the name `mathml`."""
    app.connect("build-finished", _copy_fonts)
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
