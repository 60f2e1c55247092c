"""Who comes to the door: patients whose baselines were recorded, drawn by their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from gymnasium import logger
from torch import Tensor

from world_models import keys
from world_models.protocol import Chart, WorldModel

__all__ = ["Patients", "RecordedPatients"]

SAMPLING_RATE_HZ = 500.0
SAMPLES = 5000


class Patients(Protocol):
    """Anything that says what is fixed about new patients."""

    def factors(self, key: Tensor) -> dict[str, Tensor]:
        """Factors of the world for new patients: name -> [B, *shape] for keys [B]; the others are drawn. Pure."""


class RecordedPatients:
    """The WFDB records of a folder and those below it: each new patient has the ECG of one of them, drawn by its key.

    What the records do not say (clearance, say, or a missing age) is drawn as for a generated patient.

    Raises:
        ValueError: a record that is no 12-lead ECG of ten seconds, or no record whose intervals can be trusted.
    """

    def __init__(self, folder: str | Path, world: WorldModel) -> None:
        from world_models.data.wfdb_reader import folder_records, read_ecg

        self.names: list[str] = []
        found: list[dict[str, Tensor]] = []
        left_out: list[str] = []
        for path in folder_records(folder):
            recording = read_ecg(path, SAMPLING_RATE_HZ)
            seconds = recording.ecg_mv.shape[-1] / SAMPLING_RATE_HZ
            if recording.ecg_mv.shape[-1] != SAMPLES:
                raise ValueError(f"{path} lasts {seconds:g} s, a patient needs 10 s; take it out of the folder")
            for warning in recording.warnings:
                logger.warn(f"{path}: {warning}")
            chart: Chart = {"ecg_mv": recording.ecg_mv[None].to(world.device)}
            if recording.age_years is not None:
                chart["age_years"] = torch.tensor([recording.age_years], device=world.device)
            if recording.sex_female is not None:
                chart["sex_female"] = torch.tensor([float(recording.sex_female)], device=world.device)
            why = _unusable(chart["ecg_mv"])
            read = {} if why else world.read(chart)
            why = why or _out_of_range(read, world)
            if why:
                left_out.append(f"{path.name} ({why})")
            else:
                self.names.append(recording.name)
                found.append(read)
        if not found:
            raise ValueError(f"no record in {folder} can be used: {'; '.join(left_out[:5])}; give cleaner 12-lead ECGs")
        if left_out:
            logger.warn(f"{len(left_out)} of {len(left_out) + len(found)} records left out: {'; '.join(left_out[:5])}")
        names = sorted(set().union(*found))
        self._factors = {name: torch.cat([_row(read, name, found) for read in found]) for name in names}

    def __len__(self) -> int:
        return len(self.names)

    def factors(self, key: Tensor) -> dict[str, Tensor]:
        """The factors of one record for each key [B]."""
        row = keys.bits(key, 0, "recorded patient") % len(self.names)
        return {name: value[row] for name, value in self._factors.items()}


def _row(read: dict[str, Tensor], name: str, found: list[dict[str, Tensor]]) -> Tensor:
    """One record's factor [1, *shape]; NaN, which a world draws, where this record does not state it."""
    if name in read:
        return read[name].to(torch.float32)
    return torch.full_like(next(other[name] for other in found if name in other).to(torch.float32), torch.nan)


def _unusable(ecg_mv: Tensor) -> str:
    """Why the intervals of this ECG [1, 12, T] cannot be trusted; empty if they can."""
    from world_models.oracles.delineation import delineate

    marks = delineate(ecg_mv, SAMPLING_RATE_HZ)
    return "" if bool(marks.trusted[0]) else f"not measurable, quality {float(marks.quality[0]):.2f}"


def _out_of_range(read: dict[str, Tensor], world: WorldModel) -> str:
    """Why the world takes no such patient; empty if it does."""
    for quantity in world.factors:
        value = read.get(quantity.name)
        if value is not None and bool(((value < quantity.low) | (value > quantity.high)).any()):
            worst = float(value.flatten()[0])
            return f"{quantity.name} {worst:g} is outside {quantity.low:g}..{quantity.high:g} {quantity.unit}"
    return ""
