"""Patients with a recorded stay: their chart is the record's until the branching hour, then a world goes on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clinenv.arguments import check_options
from clinenv.envs.ehr_ward.record import history_of
from world_models import keys, tree
from world_models.data.ehr.episode import PatientEpisode
from world_models.protocol import Chart, History, SupportsInfer, WorldModel

__all__ = ["RecordedStays", "StayStart"]


class StayStart(NamedTuple):
    """Stays that a patient may be, each from the same hour."""

    stays: list[PatientEpisode]
    record: History  # [stays, T] up to that hour


class RecordedStays:
    """Starts patients of `world` from recorded stays; each new patient is one of them, chosen by its key.

    Args:
        source: a MEDS folder or file, {"eicu": DIR} or another source of `world_models.data.ehr.load`, or episodes.
        world: that can `infer`; its steps are the record's.
        hour: of the branching point, a whole number of steps since the stay's start; stays that end, or whose patient
            dies, less than a step later are left out.

    Raises:
        ValueError: a world that cannot go on from a record, no stay that is long enough, or an hour between two steps.
    """

    def __init__(
        self, source: str | Path | Mapping[str, Any] | Sequence[PatientEpisode], world: WorldModel, hour: float = 24.0
    ) -> None:
        if not isinstance(world, SupportsInfer):
            raise ValueError(
                f"world {world.name!r} cannot go on from a record: only a learned world has a belief about a patient "
                'whose body nobody wrote down (infer); use world="ehr-mimic-demo-small", or '
                "EHRWard-v0 for generated patients"
            )
        self.world: WorldModel[Any] = world
        self._infer = world.infer
        width = world.hours_per_step
        self.episodes = [e if e.hours_per_step == width else e.regrid(width) for e in _read(source, width)]
        self.hour = hour
        self._all = self._start(self._long_enough(hour), hour)

    def __len__(self) -> int:
        """Stays that are long enough."""
        return len(self._all.stays)

    def choose(self, options: Any) -> tuple[StayStart | None, dict[str, Any]]:
        """Where "stay_id" and "hour" of a reset's options ask to start (None: any stay, the constructor's hour), and
        the options left.

        Raises:
            ValueError: options that are no mapping, no such stay, or one too short.
        """
        left = dict(check_options(options))
        stay_id, hour = left.pop("stay_id", None), left.pop("hour", None)
        if stay_id is None and hour is None:
            return None, left
        if stay_id is not None and (isinstance(stay_id, bool) or not isinstance(stay_id, int | np.integer)):
            raise ValueError(f"stay_id={stay_id!r} is no whole number; give the number of a stay")
        if hour is not None and (isinstance(hour, bool) or not isinstance(hour, int | float | np.number)):
            raise ValueError(f"hour={hour!r} is no number; give the hours since the stay's start")
        hour = self.hour if hour is None else float(hour)
        stays = self._long_enough(hour)
        if stay_id is not None:
            stays = [e for e in stays if e.stay_id == int(stay_id)]
            if not stays:
                known = sorted(e.stay_id for e in self.episodes)
                raise ValueError(
                    f"there is no stay {stay_id} of at least {hour + self.world.hours_per_step:g} h; known stays are "
                    f"{', '.join(map(str, known[:8]))}{', ...' if len(known) > 8 else ''}"
                )
        return self._start(stays, hour), left

    def record(self, key: Tensor, start: StayStart | None) -> tuple[list[int], History]:
        """Stay ids and the record up to the branching point, of the patients with these keys [B]."""
        among = self._all if start is None else start
        rows = _chosen(key, among)
        return [among.stays[i].stay_id for i in rows.tolist()], tree.take(among.record, rows)

    def factors(self, key: Tensor) -> dict[str, Tensor]:
        """Nothing is fixed: the record says it."""
        return {}

    def begin(self, key: Tensor, factors: dict[str, Tensor], start: StayStart | None) -> tuple[Any, Chart]:
        """The world's belief at the branching point, and the chart there: the record's where it says anything."""
        _, history = self.record(key, start)
        state = self._infer(history, key, factors or None)
        chart = self.world.observe(state)
        last = {name: value[:, -1] for name, value in history.charts.items() if name in chart}
        return state, {n: torch.where(last[n].isnan(), x, last[n]) if n in last else x for n, x in chart.items()}

    def _long_enough(self, hour: float) -> list[PatientEpisode]:
        if not self.episodes:
            raise ValueError("there are no stays; give at least one PatientEpisode, or a MEDS folder or file")
        if isinstance(hour, bool) or not isinstance(hour, Real) or not hour >= 0:
            raise ValueError(
                f"hour={hour!r} must be a number from 0 up: the hours since the stay's start, in whole steps"
            )
        least = hour + self.world.hours_per_step
        stays = [e for e in self.episodes if e.hours_alive >= least]
        if not stays:
            longest = max(e.hours_alive for e in self.episodes)
            raise ValueError(
                f"none of {len(self.episodes)} stays lasts {least:g} h, a step beyond hour={hour:g}; the longest lasts "
                f"{longest:.0f} h: give an earlier hour"
            )
        return stays

    def _start(self, stays: list[PatientEpisode], hour: float) -> StayStart:
        return StayStart(stays, tree.to(history_of(stays, hour), self.world.device))


def _read(source: Any, hours_per_step: float) -> list[PatientEpisode]:
    """The stays of a MEDS folder or file, of another source told by its name, or those given."""
    if isinstance(source, str | Path):
        source = {"meds": source}
    if isinstance(source, Mapping):
        try:
            from world_models.data.ehr.load import load_episodes
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"reading stays from files needs {error.name}, of the extra ehr: pip install -e '.[ehr]' in "
                "the checkout"
            ) from error

        known = set(inspect.signature(load_episodes).parameters) - {"hours_per_step"}
        if not source or not set(source) <= known:
            raise ValueError(f"stays={dict(source)!r:.80} must name sources: {', '.join(sorted(known))}")
        found, flow = load_episodes(**source, hours_per_step=hours_per_step)
        if not found:
            where = ", ".join(map(str, source.values()))
            raise ValueError(f"{where} holds no stay that can be read; what became of its rows:\n{flow.diagram()}")
        return found
    if not isinstance(source, Sequence) or not all(isinstance(e, PatientEpisode) for e in source):
        raise ValueError(
            f'stays={source!r:.80} must be a MEDS folder or file, {{"eicu": DIR}} or the like, or a list of '
            "PatientEpisode"
        )
    return list(source)


def _chosen(key: Tensor, among: StayStart) -> Tensor:
    """Which of the stays [B] the patients with these keys are."""
    return keys.bits(key, 0, "recorded stay") % len(among.stays)
