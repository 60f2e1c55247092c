"""The rivals of a table by name: trained, fitted or taken as they are, each with what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common.spent import spent
from benchmarks.ecg_drug.own_beats import beat_factors, beat_of
from benchmarks.ecg_drug.rivals.charts import CHART_RIVALS, fit_chart_rival
from benchmarks.ecg_drug.rivals.frame import Rival
from benchmarks.ecg_drug.rivals.training import Trained, still_falling, to_plateau, tuned
from benchmarks.ecg_drug.rivals.waveform import WAVEFORM_RIVALS
from benchmarks.ecg_drug.rivals.world import WorldRival
from world_models import catalog
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.pairs import Pairs

__all__ = ["NAMES", "Entry", "entries", "world_entry"]

NAMES: tuple[str, ...] = (*CHART_RIVALS, *WAVEFORM_RIVALS)


class Entry(NamedTuple):
    """A row's model."""

    rival: Rival
    told: dict[str, Any]  # what stands in its rows: model, where it was stopped, cost


def _told(trained: Trained, at: str, paper: str) -> dict[str, Any]:
    best = min(trained.curve, key=lambda r: r["score"])
    return {
        "model": trained.rival.name,
        "at": at,
        "paper": paper,
        "cpu_s": round(trained.cpu_s, 1),
        "tuning_cpu_s": round(trained.tuning_cpu_s, 1),
        "rate": trained.rate,
        "steps": int(best["step"]),
        "validation_score": best["score"],
        "still_falling": still_falling(trained.curve),
    }


def _network(name: str, pairs: Pairs, validation: Pairs, budget_s: float, most: float, folder: Path) -> list[Entry]:
    """A network at the budget, and where its validation curve still falls there, once more at its plateau."""
    build = WAVEFORM_RIVALS[name]
    trained = tuned(build, pairs, validation, folder, budget_s)
    found = [Entry(trained.rival, _told(trained, "budget", build.paper))]
    if most > 1 and still_falling(trained.curve):
        whole, plateau = folder / "whole", folder / "plateau"
        more = to_plateau(build, pairs, validation, plateau, whole, trained.rate, most * budget_s)
        more = more._replace(tuning_cpu_s=trained.tuning_cpu_s)
        found.append(Entry(more.rival, _told(more, "plateau", build.paper)))
    return found


def entries(
    names: Sequence[str], pairs: Pairs, validation: Pairs, budget_s: float, most: float, folder: Path
) -> Iterator[Entry]:
    """The rivals of these names, one after the other.

    Args:
        budget_s: processor time of each network, and of boosting.
        most: times the budget that a network may go on to its plateau; 1: none does.
        folder: where training is kept, a folder a rival: a run goes on there.

    Raises:
        ValueError: a name that there is not.
    """
    for name in names:
        if name in WAVEFORM_RIVALS:
            yield from _network(name, pairs, validation, budget_s, most, folder / name)
        else:
            begin = time.process_time()
            rival, _ = fit_chart_rival(name, pairs, validation, budget_s, folder / name / "fit")
            cost = time.process_time() - begin
            yield Entry(rival, {"model": rival.name, "at": "fit", "cpu_s": round(max(cost, 0.0), 1)})


def world_entry(name: str) -> Entry:
    """A catalogued world, or one from a folder, as a rival.

    Raises:
        ValueError, FileNotFoundError: as `catalog.load`.
    """
    first = catalog.load(name, hours_per_step=2.0)  # before anything is trained
    title = "oracle, told what the chart shows" if name == "oracle" else Path(name).name
    own: dict[str, Any] = {}
    if isinstance(first, ECGWorldModel):  # it is shown the beat, and draws its own
        own = {"beats": beat_of, "reads": beat_factors}
    rival = WorldRival(lambda hours: catalog.load(name, hours_per_step=hours), title, **own)
    return Entry(rival, {"model": title, "at": "as shipped", "cpu_s": spent(Path(name))})
