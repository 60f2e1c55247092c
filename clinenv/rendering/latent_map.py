"""A map of a world's reference latents: their first two principal components, and a patient's way over it."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from clinenv.rendering.labels import condition_label
from clinenv.rendering.pixels import BACKGROUND, BLUE, FAINT, GRID, INK, OVERSAMPLE, WARNING, Box, Colour, Word
from world_models.quantities.progression import CODES

__all__ = ["HasReferences", "LatentMap", "latent_map", "paint_map"]

_POINT, _LIKE, _LIKE_INK = (200, 202, 210), (226, 150, 120), (190, 100, 60)
_MARGIN = 0.06  # of the extent
_USUAL = (1.0, 99.0)  # percentiles of the references that the map has to hold
_SMALL, _STEP, _LAST, _GOAL = 2.2, 3.0, 5.0, 6.0  # px, radius of a reference, a visit, the last visit, the goal
_FIRST_SHADE = 0.35  # of the way's colour, where it begins
_ROOM_ABOVE = 20  # px over the first point that the word "first" needs; else it stands below
_LINE = 16  # px from one line of the caption to the next
_MOST_CODES = 7  # of the nearest reference, in the caption


@runtime_checkable
class HasReferences(Protocol):
    """A world that keeps latents of R patients, to see others among them."""

    def reference_latents(self) -> Tensor:
        """[R, Z]."""

    def reference_conditions(self) -> Tensor:
        """bool or 0/1 [R, C]: what each of them has."""


class LatentMap(NamedTuple):
    """The first two principal components of R reference latents."""

    centre: np.ndarray  # [Z]
    axes: np.ndarray  # [Z, 2]
    latents: np.ndarray  # [R, Z]
    points: np.ndarray  # [R, 2]
    conditions: np.ndarray  # bool [R, C]
    share: float  # of the references' variance that the map shows

    def place(self, latents: np.ndarray) -> np.ndarray:
        """Points [..., 2] of latents [..., Z]."""
        return (latents - self.centre) @ self.axes

    def nearest(self, latent: np.ndarray) -> int:
        """The reference whose whole latent lies nearest to [Z], not only its point on the map."""
        return int(np.square(self.latents - latent).sum(-1).argmin())


_maps: WeakKeyDictionary[object, LatentMap] = WeakKeyDictionary()  # by world: made once, kept as long as it is


def latent_map(world: object) -> LatentMap | None:
    """The map of a world's references; None where it has none (`HasReferences`)."""
    if not isinstance(world, HasReferences):
        return None
    if world not in _maps:
        with torch.no_grad():
            latents = world.reference_latents().cpu().numpy().astype(np.float64)
            conditions = world.reference_conditions().cpu().numpy() > 0.5
        centre = latents.mean(0)
        _, sizes, axes = np.linalg.svd(latents - centre, full_matrices=False)
        axes = axes[:2].T
        share = float(np.square(sizes[:2]).sum() / max(np.square(sizes).sum(), 1e-12))
        _maps[world] = LatentMap(centre, axes, latents, (latents - centre) @ axes, conditions, share)
    return _maps[world]


class _Plane:
    """A stretch of the map in a box of pixels: where a point lies, and dots on it."""

    def __init__(self, pen: ImageDraw.ImageDraw, box: Box, low: np.ndarray, high: np.ndarray) -> None:
        self._pen, self._box, self._low, self._high = pen, box, low, high

    def at(self, point: np.ndarray) -> tuple[float, float]:
        """Place of a point [2] on the fine canvas."""
        left, top, right, bottom = self._box
        u = (point - self._low) / (self._high - self._low)
        return (left + (right - left) * u[0]) * OVERSAMPLE, (bottom - (bottom - top) * u[1]) * OVERSAMPLE

    def holds(self, points: np.ndarray) -> np.ndarray:
        """bool [...]: which of the points [..., 2] lie on the map."""
        return np.asarray(((points > self._low) & (points < self._high)).all(-1))

    def dot(self, point: np.ndarray, radius: float, fill: Colour | None, outline: Colour | None = None) -> None:
        """A dot, or a ring, of `radius` px."""
        x, y = self.at(point)
        r = radius * OVERSAMPLE
        self._pen.ellipse([x - r, y - r, x + r, y + r], fill=fill, outline=outline, width=2 * OVERSAMPLE)


def paint_map(
    pen: ImageDraw.ImageDraw,
    box: Box,
    found: LatentMap | None,
    way: np.ndarray,
    present: np.ndarray,
    goal: np.ndarray | None = None,
) -> list[Word]:
    """Paint the map with the way on it, and the reference nearest to its end; gives back the words around it.

    Args:
        pen: of the fine canvas.
        box: of the map in px of the true size; the caption stands below it.
        found: None: nothing is painted, and the words say so.
        way: [N, Z] latents, the last is now.
        present: bool [C] conditions now.
        goal: [Z] latent that the way is to lead to; the nearest reference is then the goal's.
    """
    left, top, right, bottom = box
    words = [Word(left, top - 20, "The ECG's latent", INK, 13, "la")]
    if found is None:
        return [*words, Word(left, top + 4, "this world keeps no reference ECGs to draw it among", FAINT, 11, "la")]
    path = found.place(way)
    # a few far references would shrink all the others into a corner: they may fall off the map, the patient may not
    usual = np.percentile(found.points, _USUAL, axis=0)
    every = np.concatenate([usual, path, found.place(goal[None])] if goal is not None else [usual, path])
    low, high = every.min(0), every.max(0)
    margin = _MARGIN * (high - low) + 1e-6
    plane = _Plane(pen, box, low - margin, high + margin)
    pen.rectangle([edge * OVERSAMPLE for edge in box], outline=GRID, width=3)
    like = _paint_references(plane, found, present)
    words.append(_paint_way(pen, plane, path, top))
    if goal is not None:
        plane.dot(found.place(goal), _GOAL, None, WARNING)
        x, y = plane.at(found.place(goal))
        words.append(Word(x / OVERSAMPLE + 9, y / OVERSAMPLE, "goal", WARNING, 11, "lm"))
    near = found.nearest(way[-1] if goal is None else goal)
    if plane.holds(found.points[near]):
        plane.dot(found.points[near], _LAST, None, INK)
    codes = [code for code, has in zip(CODES, found.conditions[near], strict=False) if has]
    variance = f"two principal components, {100 * found.share:.0f} % of the variance"
    words.append(Word(left, bottom + 6, variance, FAINT, 11, "la"))
    if like >= 0:
        label = f"orange: references with {condition_label(CODES[like], 24)}"
        words.append(Word(left, bottom + 6 + _LINE, label, _LIKE_INK, 11, "la"))
    whose = "the goal" if goal is not None else "now"
    nearest = f"black ring: reference {near}, nearest to {whose}"
    words.append(Word(left, bottom + 6 + 2 * _LINE, nearest, INK, 11, "la"))
    has = f"{', '.join(codes[:_MOST_CODES]) or 'no condition'}{' …' if len(codes) > _MOST_CODES else ''}"
    words.append(Word(left, bottom + 6 + 3 * _LINE, f"it has {has}", INK, 11, "la"))
    return words


def _paint_references(plane: _Plane, found: LatentMap, present: np.ndarray) -> int:
    """Every reference as a point; gives back the condition by which they are coloured, -1 for none.

    That is the rarest of the patient's conditions: it tells most about the map.
    """
    prevalence = np.where(present, found.conditions.mean(0), np.inf)
    like = int(prevalence.argmin()) if present.any() else -1
    alike = found.conditions[:, like] if like >= 0 else np.zeros(len(found.points), bool)
    for mask, colour in ((~alike, _POINT), (alike, _LIKE)):
        for point in found.points[mask & plane.holds(found.points)]:
            plane.dot(point, _SMALL, colour)
    return like


def _paint_way(pen: ImageDraw.ImageDraw, plane: _Plane, path: np.ndarray, top: float) -> Word:
    """The way [N, 2] as a line, darker towards its end; gives back the word at its beginning."""
    if len(path) > 1:
        pen.line([plane.at(p) for p in path], fill=BLUE, width=2 * OVERSAMPLE, joint="curve")
    for i, point in enumerate(path):
        share = _FIRST_SHADE + (1 - _FIRST_SHADE) * (i + 1) / len(path)
        red, green, blue = (int(b + (w - b) * share) for b, w in zip(BACKGROUND, BLUE, strict=True))
        plane.dot(point, _STEP if i + 1 < len(path) else _LAST, (red, green, blue))
    x, y = plane.at(path[0])
    above = y - top * OVERSAMPLE > _ROOM_ABOVE * OVERSAMPLE
    return Word(x / OVERSAMPLE, y / OVERSAMPLE + (-8 if above else 8), "first", BLUE, 11, "md" if above else "ma")
