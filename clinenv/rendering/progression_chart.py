"""The clinic over years: conditions and treatments as time lines beside the latent's way over the references' map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from clinenv.episodes import Episodes
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE, condition_label, nice_ticks
from clinenv.rendering.latent_map import latent_map, paint_map
from clinenv.rendering.pixels import (
    BACKGROUND,
    BLUE,
    DOSE,
    FAINT,
    GRID,
    INK,
    OVERSAMPLE,
    WARNING,
    Box,
    Colour,
    Word,
    font,
    write_words,
)
from world_models.cardiac_jepa.explain import MAX_STEPS, ExplainWorld
from world_models.quantities.progression import CODES, DRUGS, TREATMENTS

__all__ = ["explain_frame", "progression_frame"]

# The layout, in px: time lines from LEFT to SPLIT, names left of them, the map right of them.
WIDTH, HEIGHT = 1060, 690
LANE, TOP, LEFT, SPLIT = 18, 82, 232, 690
LINE_END = SPLIT - 14
MAP: Box = (SPLIT + 12, TOP, WIDTH - 14, TOP + 344)
CONDITION_LANES = 18
TREATMENTS_TOP = TOP + CONDITION_LANES * LANE  # where the treatments' heading stands
_SHORTEST_BAR = 1.5

# The explanation's, in px.
PROPOSAL, BAR_LEFT, BAR_WIDTH, PRESENT_LINE = 34, 34, 300, 16
LARGEST_DISTANCE = 1.5  # of that between the two ECGs, at the bar's end

SHORTEST_AXIS_YEARS = 10.0
LAST_VISIT_YEARS = 0.1  # length of the last visit's bar, which nothing follows
_ILL, _READ, _NOTHING = (238, 196, 188), (60, 120, 190), (200, 202, 210)


def _canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    fine = Image.new("RGB", (WIDTH * OVERSAMPLE, HEIGHT * OVERSAMPLE), BACKGROUND)
    return fine, ImageDraw.Draw(fine)


def _finished(fine: Image.Image, words: Sequence[Word]) -> np.ndarray:
    image = fine.reduce(OVERSAMPLE)
    text = write_words(image, words)
    text.text((WIDTH - 12, HEIGHT - 20), NOT_FOR_CLINICAL_USE, fill=WARNING, font=font(12), anchor="ra")
    return np.asarray(image)


def _bar(pen: ImageDraw.ImageDraw, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    corners = (x0, y0, max(x1, x0 + _SHORTEST_BAR), y1)
    pen.rectangle([corner * OVERSAMPLE for corner in corners], fill=colour)


def _lane_foot(pen: ImageDraw.ImageDraw, y: float) -> None:
    """The thin line under the lane that begins at y."""
    foot = (y + LANE) * OVERSAMPLE
    pen.line([(LEFT * OVERSAMPLE, foot), (LINE_END * OVERSAMPLE, foot)], fill=GRID, width=1)


def progression_frame(episodes: Episodes, moments: Sequence[Mapping[str, np.ndarray]], row: int) -> np.ndarray:
    """uint8 [H, W, 3] of one patient: recorded conditions (bars) with the probe's reading (line), treatments, map."""
    world, task = episodes.simulator.world, episodes.simulator.task
    years = np.array([m["years"][row] for m in moments], dtype=float)
    now, dead = float(years[-1]), moments[-1]["dead"][row] > 0.5
    who = "woman" if float(episodes.running.chart["sex_female"][row]) > 0.5 else "man"
    age = f"{float(moments[-1]['age_years'][row]):.0f} years"
    legend = "Red bars: recorded conditions. Blue: what the probe reads in the ECG, 0 to 1."
    words = [
        Word(12, 10, f"{task.name} in {world.name}: year {now:.1f}, {'died' if dead else 'alive'}", INK, 16, "la"),
        Word(12, 34, f"A {who} of {age}, visit {len(moments)}. {legend}", FAINT, 12, "la"),
    ]
    axis = max(SHORTEST_AXIS_YEARS, now)

    def x_of(year: float) -> float:
        return LEFT + (LINE_END - LEFT) * min(max(year, 0.0), axis) / axis

    foot = TREATMENTS_TOP + 26 + len(TREATMENTS) * LANE
    fine, pen = _canvas()
    for year in nice_ticks(0.0, axis, 10):
        x = x_of(year) * OVERSAMPLE
        pen.line([(x, TOP * OVERSAMPLE), (x, foot * OVERSAMPLE)], fill=GRID, width=OVERSAMPLE)
        words.append(Word(x_of(year), foot + 5, f"{year:g}", FAINT, 10, "ma"))
    words.append(Word(x_of(axis / 2), foot + 20, "years since the first visit", FAINT, 10, "ma"))
    words += _conditions(pen, moments, row, x_of)
    words += _treatments(pen, [order.name for order in world.orders], moments, row, x_of)
    x = x_of(now) * OVERSAMPLE
    pen.line([(x, TOP * OVERSAMPLE), (x, foot * OVERSAMPLE)], fill=BLUE, width=OVERSAMPLE)
    for moment, year in zip(moments, years, strict=True):
        if moment["bleeding"][row] > 0.5:
            words.append(Word(x_of(year), TOP - 14, "bleed", WARNING, 10, "ma"))
    if "latent" in moments[-1]:
        way = np.stack([m["latent"][row] for m in moments]).reshape(len(moments), -1)
        words += paint_map(pen, MAP, latent_map(world), way, np.asarray(moments[-1]["condition"][row] > 0.5))
    return _finished(fine, words)


def _conditions(
    pen: ImageDraw.ImageDraw, moments: Sequence[Mapping[str, np.ndarray]], row: int, x_of: Callable[[float], float]
) -> list[Word]:
    """A lane for each condition the patient ever had, and for each that the probe ever took for present."""
    years = np.array([m["years"][row] for m in moments], dtype=float)
    condition = np.stack([m["condition"][row] > 0.5 for m in moments])
    probe = np.stack([m["probe"][row] for m in moments])
    ever, read = condition.max(0), probe.max(0)
    shown = sorted(range(len(CODES)), key=lambda c: (-int(ever[c]), -read[c]))[:CONDITION_LANES]
    shown = sorted(c for c in shown if ever[c] or read[c] > 0.5)
    words = [Word(12, TOP - 20, "Conditions", INK, 13, "la")]
    if not shown:
        words.append(Word(LEFT, TOP + 2, "none recorded, none read", FAINT, 11, "la"))
    ends = [*years[1:], years[-1] + LAST_VISIT_YEARS]
    for lane, code in enumerate(shown):
        y = TOP + lane * LANE
        label = condition_label(CODES[code])
        words.append(Word(LEFT - 8, y + LANE / 2, label, INK if ever[code] else FAINT, 10, "rm"))
        for year, end, has in zip(years, ends, condition[:, code], strict=True):
            if has:
                _bar(pen, x_of(year), y + 3, x_of(end), y + LANE - 3, _ILL)
        line = [
            (x_of(year) * OVERSAMPLE, (y + LANE - 2 - (LANE - 5) * float(chance)) * OVERSAMPLE)
            for year, chance in zip(years, probe[:, code], strict=True)
        ]
        if len(line) > 1:
            pen.line(line, fill=_READ, width=int(1.5 * OVERSAMPLE), joint="curve")
        px, py = line[-1]
        pen.ellipse([px - 5, py - 5, px + 5, py + 5], fill=_READ)
        _lane_foot(pen, y)
    return words


def _treatments(
    pen: ImageDraw.ImageDraw,
    orders: Sequence[str],
    moments: Sequence[Mapping[str, np.ndarray]],
    row: int,
    x_of: Callable[[float], float],
) -> list[Word]:
    """Drugs as bars from visit to visit, procedures as marks, crosses where an order was refused."""
    words = [Word(12, TREATMENTS_TOP + 6, "Treatments", INK, 13, "la")]
    for lane, name in enumerate(TREATMENTS):
        y = TREATMENTS_TOP + 24 + lane * LANE
        column = orders.index(name)
        words.append(Word(LEFT - 8, y + LANE / 2, name.replace("_", " "), INK, 10, "rm"))
        _lane_foot(pen, y)
        for before, after in zip(moments, moments[1:], strict=False):
            given = after["orders"][row]
            start, stop = x_of(float(before["years"][row])), x_of(float(after["years"][row]))
            if len(given) and given[column] > 0:
                if name in DRUGS:
                    _bar(pen, start, y + 4, stop, y + LANE - 4, DOSE)
                else:
                    x, middle, arm = start * OVERSAMPLE, (y + LANE / 2) * OVERSAMPLE, 5 * OVERSAMPLE
                    pen.polygon([(x, middle - arm), (x + arm, middle), (x, middle + arm), (x - arm, middle)], DOSE)
            if "refused" in after and after["refused"][row][column]:
                words.append(Word(start + 2, y + LANE / 2, "×", WARNING, 14, "mm"))
    return words


def explain_frame(episodes: Episodes, moments: Sequence[Mapping[str, np.ndarray]], row: int) -> np.ndarray:
    """uint8 [H, W, 3] of one problem: the transitions so far, how near they lead, and the way on the map."""
    world, task = episodes.simulator.world, episodes.simulator.task
    assert isinstance(world, ExplainWorld), "only explanations have a problem to show"
    last = moments[-1]
    distance = [float(m["distance"][row]) for m in moments]
    so_far = f"Squared distance to the goal: {distance[-1]:.2f} of that between the two ECGs."
    words = [
        Word(12, 10, f"{task.name} in {world.name}: {len(moments) - 1} steps", INK, 16, "la"),
        Word(12, 34, so_far, FAINT, 12, "la"),
        Word(12, TOP - 20, "Transitions proposed", INK, 13, "la"),
    ]
    fine, pen = _canvas()
    for i, (before, after) in enumerate(zip(moments, moments[1:], strict=False)):
        moved = after["found"][row] - before["found"][row]
        y = TOP + 8 + i * PROPOSAL
        which = np.flatnonzero(moved).tolist()
        what = ", ".join(f"{'onset' if moved[c] > 0 else 'resolution'} of {_name(world.codes[c])}" for c in which)
        proposal = f"{i + 1}.  {what or 'nothing moved (stop, or refused)'}"
        words.append(Word(14, y, proposal, INK if which else FAINT, 12, "la"))
        length = BAR_WIDTH * min(distance[i + 1], LARGEST_DISTANCE) / LARGEST_DISTANCE
        _bar(pen, BAR_LEFT, y + 19, BAR_LEFT + length, y + 25, BLUE if what else _NOTHING)
        words.append(Word(BAR_LEFT + BAR_WIDTH + 8, y + 22, f"{distance[i + 1]:.2f}", FAINT, 10, "lm"))
    words += _present(last["condition_before"][row] > 0.5, world.codes)
    way = np.stack([m["z_now"][row] for m in moments])
    present = last["condition_before"][row] + last["found"][row] > 0.5
    words += paint_map(pen, MAP, latent_map(world.world), way, present, last["z_goal"][row])
    return _finished(fine, words)


def _present(condition: np.ndarray, codes: Sequence[str]) -> list[Word]:
    """What the patient had at the first ECG, below the room for the proposals."""
    had = [code for code, has in zip(codes, condition, strict=True) if has]
    top = TOP + 8 + PROPOSAL * MAX_STEPS + 24
    words = [Word(12, top, "Present at the first ECG", INK, 13, "la")]
    for i, code in enumerate(had or [""]):
        y = top + 22 + PRESENT_LINE * i
        if y > HEIGHT - 30:
            return [*words, Word(14, y, f"and {len(had) - i} more", FAINT, 11, "la")]
        words.append(Word(14, y, _name(code) if code else "none", FAINT, 11, "la"))
    return words


def _name(code: str) -> str:
    return condition_label(code, 60).replace("  ", " ")
