"""What the pictures made of pixels share: colours, typeface, words in place, and lines finer than a pixel."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "BACKGROUND",
    "BLUE",
    "DOSE",
    "FAINT",
    "GRID",
    "INK",
    "OVERSAMPLE",
    "WARNING",
    "Box",
    "Colour",
    "Word",
    "font",
    "write_words",
]

Colour: TypeAlias = tuple[int, int, int]  # RGB, 0 to 255
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom in px of the true size

BACKGROUND, INK, FAINT, GRID = (255, 255, 255), (20, 20, 28), (105, 105, 115), (226, 226, 232)
BLUE, DOSE, WARNING = (28, 84, 158), (176, 120, 20), (176, 28, 46)

OVERSAMPLE = 3  # lines are painted on a canvas this much finer and averaged down: Pillow's own have jagged edges


class Word(NamedTuple):
    """Text that is written once the finer canvas has been averaged down to its true size."""

    x: float  # px
    y: float  # px
    text: str
    colour: Colour
    size: int  # px
    anchor: str  # which point of the text lies at (x, y): Pillow's two letters, horizontal and vertical


@lru_cache(maxsize=8)
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries (found without importing it); else Pillow's own."""
    spec = importlib.util.find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.exists():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def write_words(image: Image.Image, words: Iterable[Word]) -> ImageDraw.ImageDraw:
    """Write `words` on `image`; gives back the pen, to write more with."""
    pen = ImageDraw.Draw(image)
    for word in words:
        pen.text((word.x, word.y), word.text, fill=word.colour, font=font(word.size), anchor=word.anchor)
    return pen
