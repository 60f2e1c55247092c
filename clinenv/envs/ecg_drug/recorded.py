"""Patients whose admission ECG was recorded: the WFDB records of a folder, chosen by the patients' keys."""

from __future__ import annotations

from pathlib import Path

import torch
from gymnasium import logger
from torch import Tensor

from world_models import keys, tree
from world_models.data.ecg.wfdb.completed import completed, eight_of, said_of
from world_models.data.ecg.wfdb.reader import Recording, folder_records, read_ecg
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg.recorded import in_fibrillation
from world_models.protocol import Chart, WorldModel

__all__ = ["RecordedPatients"]

SAMPLING_RATE_HZ = 500.0
SAMPLES = 5000  # ten seconds


class RecordedPatients:
    """The WFDB records of a folder and those below it: each new patient has the ECG of one of them, chosen by its key.

    What the records do not say (clearance, say, a missing age, the sinus rate of an ECG in fibrillation) is sampled as
    for a generated patient. Leads that are missing, flat or broken are made from the others, with a warning; a record
    is left out where its recorded leads alone cannot be trusted.

    Raises:
        ValueError: a world that draws no ECG, a record that lasts other than ten seconds or has fewer than two good
            leads, or no record whose intervals can be trusted.
    """

    def __init__(self, folder: str | Path, world: WorldModel) -> None:
        if "ecg_mv" not in {quantity.name for quantity in world.measures}:
            raise ValueError(
                f"patients={folder!r}: a folder of ECGs needs a world that draws them, and {world.name!r} does not; "
                'use "generated" or an object with factors(key)'
            )
        recordings: list[Recording] = []
        ecgs: list[Tensor] = []
        for path in folder_records(folder):
            recording = read_ecg(path, SAMPLING_RATE_HZ, whole=False)
            seconds = recording.ecg_mv.shape[-1] / SAMPLING_RATE_HZ
            if recording.ecg_mv.shape[-1] != SAMPLES:
                raise ValueError(f"{path} lasts {seconds:g} s, but a patient needs 10 s; take it out of the folder")
            for warning in recording.warnings:
                logger.warn(f"{path}: {warning}")
            whole, made = completed(recording)
            if made:
                logger.warn(f"{path}: {said_of(made)}")
            recordings.append(recording)
            ecgs.append(whole)
        chart: Chart = {
            "ecg_mv": torch.stack(ecgs),
            "age_years": torch.tensor([torch.nan if r.age_years is None else r.age_years for r in recordings]),
            "sex_female": torch.tensor([torch.nan if r.sex_female is None else 1.0 * r.sex_female for r in recordings]),
        }
        chart = tree.to(chart, world.device)
        why: dict[int, str] = {}
        marks = delineate(chart["ecg_mv"], SAMPLING_RATE_HZ)
        # leads that were made agree with the others by their making: trust is that of what was recorded
        alone = delineate(torch.stack([eight_of(r.ecg_mv) for r in recordings]).to(world.device), SAMPLING_RATE_HZ)
        fine = (marks.trusted & alone.trusted) | (in_fibrillation(marks) & in_fibrillation(alone))
        for row in (~fine).nonzero().flatten().tolist():
            why[row] = f"not measurable, quality {float(alone.quality[row]):.2f}"
        rows = [row for row in range(len(recordings)) if row not in why]
        factors = world.read(tree.take(chart, torch.tensor(rows, device=world.device))) if rows else {}
        for place, row in enumerate(rows):
            out = _out_of_range({name: value[place] for name, value in factors.items()}, world)
            if out:
                why[row] = out
        left_out = "; ".join(f"{recordings[row].name} ({words})" for row, words in list(why.items())[:5])
        kept = [place for place, row in enumerate(rows) if row not in why]
        if not kept:
            raise ValueError(f"no record in {folder} can be used: {left_out}; give cleaner 12-lead ECGs")
        if why:
            logger.warn(f"{len(why)} of {len(recordings)} records of {folder} left out: {left_out}")
        self.names = [recordings[rows[place]].name for place in kept]
        self._factors = tree.take(factors, torch.tensor(kept, device=world.device))

    def __len__(self) -> int:
        """How many records can be met."""
        return len(self.names)

    def factors(self, key: Tensor) -> dict[str, Tensor]:
        """The factors of one record for each key [B]; NaN where the record does not state one."""
        row = keys.bits(key, 0, "recorded patient") % len(self.names)
        return {name: value[row] for name, value in self._factors.items()}


def _out_of_range(read: dict[str, Tensor], world: WorldModel) -> str:
    """Why the world takes no such patient; empty if it does."""
    for quantity in world.factors:
        value = read.get(quantity.name)
        if value is not None and bool(((value < quantity.low) | (value > quantity.high)).any()):
            worst = float(value.flatten()[0])
            return f"{quantity.name} {worst:g} is outside {quantity.low:g}..{quantity.high:g} {quantity.unit}"
    return ""
