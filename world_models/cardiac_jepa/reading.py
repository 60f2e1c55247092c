"""The progression oracle as a clinic sees it: its ECGs read by a trained encoder and probe.

A policy trained on what the probe of the learned world says can then be judged in the oracle on what the same probe
says of the oracle's ECGs. Everything else, `truth` included, is the oracle's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.cardiac_jepa.jepa import CardiacJEPA
from world_models.cardiac_jepa.labels import LabelModel
from world_models.cardiac_jepa.model import CardiacJEPAWorld, ExplainPairs, Reader, read_measures
from world_models.inputs import check_also
from world_models.oracles.progression.state import ProgressionState
from world_models.oracles.progression.world import ProgressionOracle
from world_models.protocol import Chart, Factors
from world_models.quantities.progression import INTERVALS_MONTHS, ORDERS
from world_models.quantity import DAYS_PER_MONTH

__all__ = ["ReadOracle"]

TRIES = 4  # visits looked at for a change, when a pair with one is asked for


class _Parts(NamedTuple):
    """What the steps of a visit cost: functions of a state and orders, of a state, and of ECGs."""

    move: Callable[[ProgressionState, Tensor], ProgressionState]
    draw: Callable[[ProgressionState], Tensor]
    read: Callable[[Tensor], tuple[Tensor, Tensor]]


class ReadOracle:
    """`ProgressionOracle` whose chart also holds `probe`, and `latent` on request.

    Args:
        reader: a trained encoder and probe, on `device`.
        cohort: of the oracle.
        labels: the trained world's process of the labels, for those who explain; nothing here depends on it.
    """

    def __init__(
        self,
        reader: Reader,
        device: torch.device | str = "cpu",
        cohort: str = "clinic",
        labels: LabelModel | None = None,
    ) -> None:
        self.oracle = ProgressionOracle(device=device, cohort=cohort)
        self.reader, self.labels = reader, labels
        self.weights_sha256: str | None = None  # the seal of the folder that the reader is from
        self.cohort = self.oracle.cohort
        config = reader.jepa.config
        self.codes = config.codes
        self.name = self.oracle.name
        self.measures = (*self.oracle.measures, *read_measures(config.latent, config.codes))
        self.orders, self.factors = self.oracle.orders, self.oracle.factors
        self.hours_per_step, self.device = self.oracle.hours_per_step, torch.device(device)
        self._compiled: _Parts | None = None

    def in_parts(self, compiled: Callable[[Callable[..., Any], str], Callable[..., Any]]) -> ReadOracle:
        """The same world, whose parts are what `compiled(function, what it does)` makes of them.

        As one graph its months, drawing and reading are 6,000 operations, of which torch 2.13 makes a library in a
        quarter of an hour that ends the process when it is called. Each by itself compiles.
        """
        made = copy.copy(self)
        names = ("the clinic's months", "the clinic's ECGs", "the reading of the clinic's ECGs")
        made._compiled = _Parts(*(compiled(part, name) for part, name in zip(self._parts(), names, strict=True)))
        return made

    def _parts(self) -> _Parts:
        return self._compiled or _Parts(self.oracle.transition, self.oracle.draw, self._reading)

    def _reading(self, ecg: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and chances of the labels, of ECGs."""
        latent = self.reader.latents(ecg)
        return latent, self.reader.chances(latent)

    @classmethod
    def shipped(cls, device: torch.device | str = "cpu", cohort: str = "clinic") -> ReadOracle:
        """With the reader of the weights that ship."""
        from world_models.catalog import weights_folder

        return cls.by(weights_folder("cardiac-jepa-small"), device, cohort)

    @classmethod
    def by(cls, folder: str | Path, device: torch.device | str = "cpu", cohort: str = "clinic") -> ReadOracle:
        """With the reader of a cardiac JEPA's folder."""
        world = CardiacJEPAWorld.load(folder, device)
        made = cls(world.reader, device, cohort, world.labels)
        made.weights_sha256 = world.weights_sha256
        return made

    @property
    def jepa(self) -> CardiacJEPA:
        """Encoder, projector and dynamics of the reader."""
        return self.reader.jepa

    def initial(self, key: Tensor, factors: Factors | None = None) -> ProgressionState:
        """The oracle's patients [B] at their first visit. Raises ValueError: a factor that the oracle refuses."""
        return self.oracle.initial(key, factors)

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors that the oracle takes from a chart."""
        return self.oracle.read(chart)

    def transition(self, state: ProgressionState, action: Tensor) -> ProgressionState:
        """The oracle's next visit after orders [B, ORDERS]. Raises ValueError: an order outside its bounds."""
        return self._parts().move(state, action)

    @torch.no_grad()
    def observe(self, state: ProgressionState, also: Sequence[str] = ()) -> Chart:
        """The oracle's chart with this visit's ECG read; the waveform itself only on request.

        Raises:
            ValueError: `also` names something that is no measure.
        """
        check_also(self.measures, also)
        chart = self.oracle.observe(state, [name for name in also if name not in ("ecg_mv", "latent")])
        ecg = self._parts().draw(state)
        latent, chart["probe"] = self._parts().read(ecg)
        asked = {"ecg_mv": ecg, "latent": latent}
        return {**chart, **{name: asked[name] for name in also if name in asked}}

    def rekey(self, state: ProgressionState, key: Tensor) -> ProgressionState:
        """The oracle's patients under other random keys [B]."""
        return self.oracle.rekey(state, key)

    def spread(self, state: ProgressionState) -> dict[str, Tensor]:
        """The oracle's: standard deviations [B] of what it is unsure of."""
        return self.oracle.spread(state)

    def support(self, state: ProgressionState) -> Tensor:
        """bool [B]: the oracle's own."""
        return self.oracle.support(state)

    def truth(self, state: ProgressionState) -> dict[str, Tensor]:
        """The oracle's hidden quantities, for judging only."""
        return self.oracle.truth(state)

    @torch.no_grad()
    def explain_pairs(self, key: Tensor) -> ExplainPairs:
        """Pairs [B] of two visits half a year or a year apart whose conditions differ, by key, with no orders between.

        Of up to four visits the first that brought a change is taken; where none did, the last pair with no change.
        """
        state = self.oracle.initial(key)
        # what is kept of a patient: state before, state after, change, days
        kept: tuple[ProgressionState, ProgressionState, Tensor, Tensor] | None = None
        for visit in range(TRIES):
            action = torch.zeros(len(key), len(ORDERS), device=self.device)
            long = keys.uniform(key, visit, "pair interval") < 0.5
            months = torch.where(long, INTERVALS_MONTHS[-1], INTERVALS_MONTHS[-2])
            action[:, -1] = months
            after = self.oracle.transition(state, action)
            now = self.oracle.observe(after)
            change = now["condition"] - self.oracle.observe(state)["condition"]
            found = (state, after, change, months * DAYS_PER_MONTH)
            if kept is not None:
                open_ = (kept[2] == 0).all(-1) & ~(now["dead"] > 0.5)
                found = tree.where(open_, found, kept)
            kept, state = found, after
        assert kept is not None
        before, after, change, days = kept
        charts = [self.oracle.observe(s, ("ecg_mv",)) for s in (before, after)]  # ECGs of these two visits alone
        z_before, z_after = (self.reader.latents(chart["ecg_mv"]) for chart in charts)
        return ExplainPairs(z_before, z_after, charts[0]["condition"] > 0.5, change, days)
