"""Split conformal prediction: a model's bands widened, or narrowed, until they cover what they say they cover.

Conformalised quantile regression (Romano, Patterson & Candes 2019, arXiv 1905.03222): on patients kept for calibration
each observation y has the score max(low - y, y - high), how far it lies outside the model's band (negative: inside).
The band of a new patient is [low - Q, high + Q], Q the ceil((n + 1) level)-th smallest score. If the new patient is
exchangeable with the n, the band covers y with a probability from `level` to `level` + 1 / (n + 1), whatever the model.

With `scaled` the scores are in half-widths of the model's own band, so that a patient whom the model holds for unsure
gets the larger share of the correction. Groups (Mondrian: Vovk et al. 2005, doi 10.1007/b106715, section 4.5) have a Q
each, so coverage holds within every group; a group too small for one takes that of all.

Several measures are calibrated at once, each on its own: bands are marginal per measure, not joint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from world_models.tensor_file import CheckpointError, read_tensors, save_tensors

__all__ = ["Conformal", "covered", "fit"]

LEAST_WIDTH = 1e-6  # of a band, in the measure's unit: no division by a band of no width
_FORMAT = "conformal-1"
LEAST_LEVEL, MOST_LEVEL = 0.5, 0.999


@dataclass(frozen=True)
class Conformal:
    """What is added to a band: one number a measure and group."""

    level: float  # share to be covered
    scaled: bool  # whether `shift` is in half-widths of the model's band
    groups: tuple[str, ...]  # names; the last row of each shift is that of all
    shift: Mapping[str, Tensor]  # measure -> [G + 1], in the measure's unit or in half-widths

    def band(self, name: str, low: Tensor, high: Tensor, group: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Calibrated ends [N] of the band of a measure.

        Args:
            low, high: [N] the model's own quantiles.
            group: int64 [N] places in `groups`, -1 for none of them; None: the shift of all.

        Raises:
            ValueError: a measure that was not calibrated, or a group that is none.
        """
        if name not in self.shift:
            raise ValueError(f"{name} was not calibrated; there are: {', '.join(self.shift)}")
        row = torch.full_like(low, -1, dtype=torch.int64) if group is None else group
        if bool(((row < -1) | (row >= len(self.groups))).any()):
            raise ValueError(
                f"a group is outside -1 to {len(self.groups) - 1}; give its place in `groups`, -1 for none"
            )
        add = self.shift[name].to(low.device)[row]
        if self.scaled:
            add = add * _half_width(low, high)
        low, high = low - add, high + add
        middle = 0.5 * (low + high)
        # A model that is far too unsure is narrowed at most to a point, never turned inside out.
        return torch.minimum(low, middle), torch.maximum(high, middle)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all."""
        told = {"format": _FORMAT, "level": repr(self.level), "scaled": str(self.scaled)}
        save_tensors(Path(path), dict(self.shift), {**told, "groups": json.dumps(self.groups)})

    @classmethod
    def load(cls, path: str | Path) -> Conformal:
        """What `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is no such file, or damaged.
        """
        tensors, told = read_tensors(path)
        try:
            if told["format"] != _FORMAT:
                raise ValueError(f"its format is {told['format']!r}, not {_FORMAT!r}")
            groups, level = tuple(json.loads(told["groups"])), float(told["level"])
            if not all(isinstance(g, str) for g in groups) or not LEAST_LEVEL <= level <= MOST_LEVEL:
                raise ValueError("its groups are no names, or its level is no share")
            if not tensors or any(t.shape != (len(groups) + 1,) for t in tensors.values()):
                raise ValueError(f"a measure has not {len(groups) + 1} shifts")
            return cls(level, {"True": True, "False": False}[told["scaled"]], groups, tensors)
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} holds no conformal calibration ({error}); fit it again") from None


def fit(
    low: Mapping[str, Tensor],
    high: Mapping[str, Tensor],
    observed: Mapping[str, Tensor],
    level: float = 0.9,
    group: Tensor | None = None,
    groups: Sequence[str] = (),
    scaled: bool = True,
) -> Conformal:
    """Calibrate on N observations of patients whom the model never met.

    Several observations of one patient are not exchangeable with each other; coverage then holds on average over the
    same number of observations of new patients.

    Args:
        low, high: measure -> [N] the model's quantiles, (1 - level) / 2 and (1 + level) / 2 say.
        observed: measure -> [N], NaN where nothing was measured.
        group: int64 [N] places in `groups`; None: one calibration for all.
        scaled: see the module.

    Raises:
        ValueError: measures or shapes that do not go together, a level outside LEAST_LEVEL to MOST_LEVEL, a band turned
            round, or too few observations for the level.
    """
    if not LEAST_LEVEL <= level <= MOST_LEVEL:
        raise ValueError(f"level={level} is outside {LEAST_LEVEL} to {MOST_LEVEL}; 0.9 is usual")
    if not observed or not set(observed) == set(low) == set(high):
        raise ValueError("low, high and observed must name the same measures, one at least")
    if (group is None) != (not groups):
        raise ValueError("give both `group` and the names `groups`, or neither")
    shift = {}
    for name, y in observed.items():
        a, b = low[name].double(), high[name].double()
        if not a.shape == b.shape == y.shape or y.ndim != 1 or (group is not None and group.shape != y.shape):
            raise ValueError(f"{name}: low, high, observed and group must be [N] of one length")
        if bool((a > b).any()):
            raise ValueError(f"{name}: a band's low end is above its high end; sort the quantiles")
        score = torch.maximum(a - y.double(), y.double() - b)
        if scaled:
            score = score / _half_width(a, b)
        seen = ~score.isnan()
        every = _quantile(score[seen], level)
        if not math.isfinite(every):
            raise ValueError(
                f"{name}: {int(seen.sum())} observations cannot say what covers {level:g}; give at least "
                f"{math.ceil(round(level / (1 - level), 6))}"
            )
        rows = [] if group is None else [_quantile(score[seen & (group == g)], level) for g in range(len(groups))]
        rows = [r if math.isfinite(r) else every for r in rows]
        shift[name] = torch.tensor([*rows, every], dtype=torch.float32)
    return Conformal(level, scaled, tuple(groups), shift)


def covered(low: Tensor, high: Tensor, observed: Tensor) -> Tensor:
    """bool [...]: within the band; a missing observation counts as covered by none, so leave those out first."""
    return (observed >= low) & (observed <= high)


def _half_width(low: Tensor, high: Tensor) -> Tensor:
    return (0.5 * (high - low)).clamp_min(LEAST_WIDTH)


def _quantile(score: Tensor, level: float) -> float:
    """The ceil((n + 1) level)-th smallest of n scores; infinite where that is more than n."""
    # (n + 1) * level is 90.00000000000001 for n = 99 and 0.9
    place = math.ceil(round((len(score) + 1) * level, 9))
    return float(score.sort().values[place - 1]) if 0 < place <= len(score) else math.inf
