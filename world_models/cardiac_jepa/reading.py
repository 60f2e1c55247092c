"""The progression oracle as a clinic sees it: its ECGs read by a trained encoder and probe.

A policy trained on what the probe of the learned world says can then be judged in the oracle on what the same probe
says of the oracle's ECGs. Everything else, `truth` included, is the oracle's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
        return self.oracle.transition(state, action)

    @torch.no_grad()
    def observe(self, state: ProgressionState, also: Sequence[str] = ()) -> Chart:
        """The oracle's chart with this visit's ECG read; the waveform itself only on request.

        Raises:
            ValueError: `also` names something that is no measure.
        """
        check_also(self.measures, also)
        chart = self.oracle.observe(state, ("ecg_mv", *(n for n in also if n not in ("ecg_mv", "latent"))))
        latent = self.reader.latents(chart["ecg_mv"])
        chart["probe"] = self.reader.chances(latent)
        if "latent" in also:
            chart["latent"] = latent
        if "ecg_mv" not in also:
            del chart["ecg_mv"]
        return chart

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
