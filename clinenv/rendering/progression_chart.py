"""The clinic over years: conditions and treatments as time lines, and the latent's way over a map of reference ECGs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image, ImageDraw

from clinenv.episodes import Episodes
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE, nice_ticks
from clinenv.rendering.pixels import OVERSAMPLE, font
from world_models.quantities.progression import CODES, CONDITIONS, DRUGS, TREATMENTS

__all__ = ["LatentMap", "explain_frame", "latent_map", "progression_frame"]

WIDTH, HEIGHT = 1060, 690
LANE, TOP, LEFT, SPLIT = 18, 82, 232, 690
CONDITION_LANES = 18
_BACK, _INK, _FAINT, _GRID = (255, 255, 255), (20, 20, 28), (105, 105, 115), (226, 226, 232)
_WAY, _ILL, _GIVEN, _WARN, _READ = (28, 84, 158), (176, 70, 60), (176, 120, 20), (176, 28, 46), (60, 120, 190)
_POINT, _LIKE = (200, 202, 210), (226, 150, 120)
Words = list[tuple[float, float, str, tuple[int, int, int], int, str]]


class LatentMap(NamedTuple):
    """The first two principal components of a world's reference latents."""

    centre: np.ndarray  # [Z]
    axes: np.ndarray  # [Z, 2]
    latents: np.ndarray  # [R, Z]
    points: np.ndarray  # [R, 2]
    conditions: np.ndarray  # bool [R, C]
    share: float  # of the references' variance that the map shows

    def place(self, latents: np.ndarray) -> np.ndarray:
        """[..., 2] of latents [..., Z]."""
        return (latents - self.centre) @ self.axes

    def nearest(self, latent: np.ndarray) -> int:
        """The reference whose whole latent lies nearest, not only its point on the map."""
        return int(np.square(self.latents - latent).sum(-1).argmin())


_maps: WeakKeyDictionary[Any, LatentMap] = WeakKeyDictionary()


def latent_map(world: Any) -> LatentMap | None:
    """The map of a world with `reference_latents()` [R, Z] and `reference_conditions()` [R, C]; None without them."""
    if not hasattr(world, "reference_latents"):
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


def _canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    fine = Image.new("RGB", (WIDTH * OVERSAMPLE, HEIGHT * OVERSAMPLE), _BACK)
    return fine, ImageDraw.Draw(fine)


def _finished(fine: Image.Image, words: Words) -> np.ndarray:
    image = fine.reduce(OVERSAMPLE)
    text = ImageDraw.Draw(image)
    for x, y, what, colour, size, anchor in words:
        text.text((x, y), what, fill=colour, font=font(size), anchor=anchor)
    text.text((WIDTH - 12, HEIGHT - 20), NOT_FOR_CLINICAL_USE, fill=_WARN, font=font(12), anchor="ra")
    return np.asarray(image)


def _short(code: str, longest: int = 28) -> str:
    words = CONDITIONS.get(code, "").split(" (")[0]
    return f"{code}  {words}" if len(words) <= longest else f"{code}  {words[: longest - 1].rstrip()}…"


def _bar(pen: ImageDraw.ImageDraw, x0: float, y0: float, x1: float, y1: float, colour: tuple[int, int, int]) -> None:
    pen.rectangle([x0 * OVERSAMPLE, y0 * OVERSAMPLE, max(x1, x0 + 1.5) * OVERSAMPLE, y1 * OVERSAMPLE], fill=colour)


def progression_frame(episodes: Episodes, moments: Sequence[Mapping[str, np.ndarray]], row: int) -> np.ndarray:
    """uint8 [H, W, 3] of one patient: recorded conditions (bars) with the probe's reading (line), treatments, map."""
    world, task = episodes.simulator.world, episodes.simulator.task
    years = np.array([m["years"][row] for m in moments], dtype=float)
    condition = np.stack([m["condition"][row] for m in moments]) > 0.5
    probe = np.stack([m["probe"][row] for m in moments])
    fine, pen = _canvas()
    now, dead = float(years[-1]), moments[-1]["dead"][row] > 0.5
    who = "woman" if float(episodes.now.chart["sex_female"][row]) > 0.5 else "man"
    words: Words = [
        (12, 10, f"{task.name} in {world.name}: year {now:.1f}, {'died' if dead else 'alive'}", _INK, 16, "la"),
        (12, 34, f"A {who} of {float(moments[-1]['age_years'][row]):.0f} years, visit {len(moments)}. "
         "Red bars: recorded conditions. Blue: what the probe reads in the ECG, 0 to 1.", _FAINT, 12, "la"),
    ]  # fmt: skip
    axis = max(10.0, now)

    def x_of(year: float) -> float:
        return LEFT + (SPLIT - LEFT - 14) * min(max(year, 0.0), axis) / axis

    # the time line shows what the patient ever had, then what the probe ever took for present
    ever, read = condition.any(0), probe.max(0)
    shown = sorted(range(len(CODES)), key=lambda c: (-int(ever[c]), -read[c]))[:CONDITION_LANES]
    shown = sorted(c for c in shown if ever[c] or read[c] > 0.5)
    bottom = TOP + CONDITION_LANES * LANE
    foot = bottom + 26 + len(TREATMENTS) * LANE
    for year in nice_ticks(0.0, axis, 10):
        x = x_of(year) * OVERSAMPLE
        pen.line([(x, TOP * OVERSAMPLE), (x, foot * OVERSAMPLE)], fill=_GRID, width=OVERSAMPLE)
        words.append((x_of(year), foot + 5, f"{year:g}", _FAINT, 10, "ma"))
    words.append((x_of(axis / 2), foot + 20, "years since the first visit", _FAINT, 10, "ma"))
    words += [(12, TOP - 20, "Conditions", _INK, 13, "la"), (12, bottom + 6, "Treatments", _INK, 13, "la")]
    if not shown:
        words.append((LEFT, TOP + 2, "none recorded, none read", _FAINT, 11, "la"))
    for lane, code in enumerate(shown):
        y = TOP + lane * LANE
        words.append((LEFT - 8, y + LANE / 2, _short(CODES[code]), _INK if ever[code] else _FAINT, 10, "rm"))
        for i in range(len(years)):
            end = years[i + 1] if i + 1 < len(years) else years[i] + 0.1
            if condition[i, code]:
                _bar(pen, x_of(years[i]), y + 3, x_of(end), y + LANE - 3, (238, 196, 188))
        line = [(x_of(t) * OVERSAMPLE, (y + LANE - 2 - (LANE - 5) * float(p)) * OVERSAMPLE)
                for t, p in zip(years, probe[:, code], strict=True)]  # fmt: skip
        if len(line) > 1:
            pen.line(line, fill=_READ, width=int(1.5 * OVERSAMPLE), joint="curve")
        px, py = line[-1]
        pen.ellipse([px - 5, py - 5, px + 5, py + 5], fill=_READ)
        pen.line([(LEFT * OVERSAMPLE, (y + LANE) * OVERSAMPLE), ((SPLIT - 14) * OVERSAMPLE, (y + LANE) * OVERSAMPLE)],
                 fill=_GRID, width=1)  # fmt: skip
    _treatments(pen, words, episodes, moments, row, x_of, bottom + 24)
    x = x_of(now) * OVERSAMPLE
    pen.line([(x, TOP * OVERSAMPLE), (x, foot * OVERSAMPLE)], fill=_WAY, width=OVERSAMPLE)
    for moment, year in zip(moments, years, strict=True):
        if moment["bleeding"][row] > 0.5:
            words.append((x_of(year), TOP - 14, "bleed", _WARN, 10, "ma"))
    if "latent" in moments[-1]:
        way = np.stack([m["latent"][row] for m in moments]).reshape(len(moments), -1)
        _map(pen, words, latent_map(world), way, condition[-1], None)
    return _finished(fine, words)


def _treatments(
    pen: ImageDraw.ImageDraw, words: Words, episodes: Episodes, moments: Sequence, row: int, x_of: Any, top: float
) -> None:
    """Drugs as bars from visit to visit, procedures as marks, crosses where an order was refused."""
    columns = {q.name: i for i, q in enumerate(episodes.simulator.world.orders)}
    for lane, name in enumerate(TREATMENTS):
        y = top + lane * LANE
        words.append((LEFT - 8, y + LANE / 2, name.replace("_", " "), _INK, 10, "rm"))
        pen.line([(LEFT * OVERSAMPLE, (y + LANE) * OVERSAMPLE), ((SPLIT - 14) * OVERSAMPLE, (y + LANE) * OVERSAMPLE)],
                 fill=_GRID, width=1)  # fmt: skip
        for before, after in zip(moments, moments[1:], strict=False):
            orders = after["orders"][row]
            start, stop = x_of(float(before["years"][row])), x_of(float(after["years"][row]))
            if len(orders) and orders[columns[name]] > 0:
                if name in DRUGS:
                    _bar(pen, start, y + 4, stop, y + LANE - 4, _GIVEN)
                else:
                    middle, arm = (y + LANE / 2) * OVERSAMPLE, 5 * OVERSAMPLE
                    x = start * OVERSAMPLE
                    pen.polygon([(x, middle - arm), (x + arm, middle), (x, middle + arm), (x - arm, middle)], _GIVEN)
            if "refused" in after and after["refused"][row][columns[name]]:
                words.append((start + 2, y + LANE / 2, "×", _WARN, 14, "mm"))


def _map(
    pen: ImageDraw.ImageDraw,
    words: Words,
    found: LatentMap | None,
    way: np.ndarray,
    present: np.ndarray,
    goal: np.ndarray | None,
) -> None:
    """The map with the way [N, Z] on it, and the reference nearest to its end (to `goal` [Z], where one is given)."""
    left, top, right, bottom = SPLIT + 12, TOP, WIDTH - 14, TOP + 344
    words.append((left, TOP - 20, "The ECG's latent", _INK, 13, "la"))
    if found is None:
        words.append((left, TOP + 4, "this world keeps no reference ECGs to draw it among", _FAINT, 11, "la"))
        return
    points = found.points
    path = found.place(way)
    # a few far references would shrink all the others into a corner: they may fall off the map, the patient may not
    usual = np.percentile(points, [1.0, 99.0], axis=0)
    every = np.concatenate([usual, path, found.place(goal[None])] if goal is not None else [usual, path])
    low, high = every.min(0), every.max(0)
    margin = 0.06 * (high - low) + 1e-6
    low, high = low - margin, high + margin

    def at(point: np.ndarray) -> tuple[float, float]:
        u = (point - low) / (high - low)
        return (left + (right - left) * u[0]) * OVERSAMPLE, (bottom - (bottom - top) * u[1]) * OVERSAMPLE

    def dot(point: np.ndarray, radius: float, colour: Any, outline: Any = None) -> None:
        x, y = at(point)
        r = radius * OVERSAMPLE
        pen.ellipse([x - r, y - r, x + r, y + r], fill=colour, outline=outline, width=2 * OVERSAMPLE)

    pen.rectangle([left * OVERSAMPLE, top * OVERSAMPLE, right * OVERSAMPLE, bottom * OVERSAMPLE], outline=_GRID, width=3)
    # the rarest of the patient's conditions tells most about the map
    prevalence = np.where(present, found.conditions.mean(0), np.inf)
    like = int(prevalence.argmin()) if present.any() else -1
    alike = found.conditions[:, like] if like >= 0 else np.zeros(len(points), bool)
    for mask, colour in ((~alike, _POINT), (alike, _LIKE)):
        for point in points[mask & ((points > low) & (points < high)).all(-1)]:
            dot(point, 2.2, colour)
    end = way[-1] if goal is None else goal
    near = found.nearest(end)
    if len(path) > 1:
        pen.line([at(p) for p in path], fill=_WAY, width=2 * OVERSAMPLE, joint="curve")
    for i, point in enumerate(path):
        share = (i + 1) / len(path)
        shade = tuple(int(b + (w - b) * (0.35 + 0.65 * share)) for b, w in zip(_BACK, _WAY, strict=True))
        dot(point, 3.0 if i + 1 < len(path) else 5.0, shade)
    x, y = at(path[0])
    start_above = y - top * OVERSAMPLE > 20 * OVERSAMPLE
    words.append((x / OVERSAMPLE, y / OVERSAMPLE + (-8 if start_above else 8), "first", _WAY, 11,
                  "md" if start_above else "ma"))  # fmt: skip
    if goal is not None:
        dot(found.place(goal), 6.0, None, _WARN)
        gx, gy = at(found.place(goal))
        words.append((gx / OVERSAMPLE + 9, gy / OVERSAMPLE, "goal", _WARN, 11, "lm"))
    if ((points[near] > low) & (points[near] < high)).all():
        dot(points[near], 5.0, None, _INK)
    codes = [code for code, has in zip(CODES, found.conditions[near], strict=False) if has]
    line = f"two principal components, {100 * found.share:.0f} % of the variance"
    words.append((left, bottom + 6, line, _FAINT, 11, "la"))
    if like >= 0:
        words.append((left, bottom + 22, f"orange: references with {_short(CODES[like], 24)}", (190, 100, 60), 11, "la"))
    whose = "the goal" if goal is not None else "now"
    words.append((left, bottom + 38, f"black ring: reference {near}, nearest to {whose}", _INK, 11, "la"))
    has = f"{', '.join(codes[:7]) or 'no condition'}{' …' if len(codes) > 7 else ''}"
    words.append((left, bottom + 54, f"it has {has}", _INK, 11, "la"))


def explain_frame(episodes: Episodes, moments: Sequence[Mapping[str, np.ndarray]], row: int) -> np.ndarray:
    """uint8 [H, W, 3] of one problem: the transitions so far, how near they lead, and the way on the map."""
    world, task = episodes.simulator.world, episodes.simulator.task
    codes = task.codes
    last = moments[-1]
    fine, pen = _canvas()
    distance = [float(m["distance"][row]) for m in moments]
    words: Words = [
        (12, 10, f"{task.name} in {world.name}: {len(moments) - 1} steps", _INK, 16, "la"),
        (12, 34, f"Squared distance to the goal: {distance[-1]:.2f} of that between the two ECGs.", _FAINT, 12, "la"),
        (12, TOP - 20, "Transitions proposed", _INK, 13, "la"),
    ]
    for i, (before, after) in enumerate(zip(moments, moments[1:], strict=False)):
        moved = after["found"][row] - before["found"][row]
        y = TOP + 8 + i * 34
        which = np.flatnonzero(moved)
        what = ", ".join(f"{'onset' if moved[c] > 0 else 'resolution'} of {_name(codes[c])}" for c in which)
        colour = _INK if len(which) else _FAINT
        words.append((14, y, f"{i + 1}.  {what or 'nothing moved (stop, or refused)'}", colour, 12, "la"))
        _bar(pen, 34, y + 19, 34 + 300 * min(distance[i + 1], 1.5) / 1.5, y + 25, _WAY if what else _POINT)
        words.append((342, y + 22, f"{distance[i + 1]:.2f}", _FAINT, 10, "lm"))
    had = [codes[c] for c in np.flatnonzero(last["condition_before"][row] > 0.5)]
    top = TOP + 8 + 34 * 8 + 24
    words.append((12, top, "Present at the first ECG", _INK, 13, "la"))
    for i, code in enumerate(had or [""]):
        y = top + 22 + 16 * i
        if y > HEIGHT - 30:
            words.append((14, y, f"and {len(had) - i} more", _FAINT, 11, "la"))
            break
        words.append((14, y, _name(code) if code else "none", _FAINT, 11, "la"))
    way = np.stack([m["z_now"][row] for m in moments])
    present = last["condition_before"][row] + last["found"][row] > 0.5
    _map(pen, words, latent_map(world.world), way, present, last["z_goal"][row])
    return _finished(fine, words)


def _name(code: str) -> str:
    return _short(code, 60).replace("  ", " ")
