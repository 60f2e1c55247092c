"""Beats for the autoencoder: from the oracle's generator on LUDB's morphologies, and as the delineator sees them.

Two kinds in every batch. Clean beats are the generator's template under its own intervals. Read beats went the whole
way that a user's ECG goes: a noisy ten-second recording, delineated, its median beat cut at the fiducials that were
found; their target is the clean beat, so the encoder learns to see through noise and small errors of the cut. With a
LUDB folder a share of real beats is added (odd record numbers; the even ones are kept for judging).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from world_models import keys
from world_models.checkpoint import save_tensors
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.waveform import R_SHARE, Intervals, beat_template, synthesise_ecg
from world_models.ecg_wm import beats
from world_models.ecg_wm.beats import AT_R, RATE_HZ
from world_models.ecg_wm.encode import canonical_beats

__all__ = ["BeatSource", "sample_intervals"]

READ_SEED = 3_000_000_000


def sample_intervals(key: Tensor) -> Intervals:
    """Intervals [B] well beyond what drugs do, each sampled on its own."""

    def between(name: str, low: float, high: float) -> Tensor:
        return low + (high - low) * keys.uniform(key, 0, f"beats/{name}")

    rate = between("rate", 42, 120)
    stretch = (60 / rate) ** 0.5
    return Intervals.of(
        rate,
        between("pr", 100, 280),
        between("qrs", 70, 140),
        between("jt", 150, 330) * stretch,
        between("tail", 55, 150),
    )


class BeatSource:
    """Batches of beats.

    Args:
        folder: where the read beats are kept once they are made (some minutes of work).
        pipeline: how many read beats to make.
        ludb: a LUDB folder, or None.
    """

    def __init__(self, folder: Path, device: str = "cpu", ludb: Path | None = None, pipeline: int = 2048):
        self.bank = MorphologyBank.load(device=device)
        self.read = self._read(folder, pipeline, device)
        self.real = _real_beats(ludb, device) if ludb else None

    def clean(self, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clean canonical beats [B, 8, 200] mV, with all leads [B, 8] and the samples [B, 200] that stand alone."""
        intervals = sample_intervals(key)
        ends = beats.piece_ends(intervals.pr_ms, intervals.qrs_ms, intervals.jt_peak_ms, intervals.tpeak_tend_ms)
        canonical = _canonical(self.bank.sample(keys.fold(key, "beats/shape")), intervals, ends)
        leads = torch.ones(key.shape[0], beats.LEAD_COUNT, dtype=torch.bool, device=key.device)
        return canonical, leads, beats.valid_samples(ends, 60_000 / intervals.heart_rate_bpm)

    def sample(self, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(what the encoder sees, what the decoder must give, leads seen, samples seen), for keys [B]."""
        half = key.shape[0] // 2
        target, leads, samples = self.clean(key[:half])
        noise = 0.015 * keys.normal(key[:half], 0, "beats/noise", tuple(target.shape[1:]))
        index = torch.floor(keys.uniform(key[half:], 0, "beats/read") * self.read["seen"].shape[0]).long()
        taken = {name: value[index] for name, value in self.read.items()}
        seen = torch.cat([target + noise, taken["seen"]])
        target = torch.cat([target, taken["target"]])
        leads = torch.cat([leads, taken["leads"].bool()])
        samples = torch.cat([samples, taken["samples"].bool()])
        if self.real is not None:
            count = key.shape[0] // 6
            index = torch.floor(keys.uniform(key[:count], 0, "beats/real") * self.real["beat"].shape[0]).long()
            size = torch.exp(0.15 * keys.normal(key[:count], 0, "beats/size"))[:, None, None]
            beat = self.real["beat"][index] * size
            # Where a real beat overlaps its neighbours nobody knows it: there it is its own target, and zero.
            beat = torch.where(self.real["samples"][index].unsqueeze(1), beat, 0.0)
            seen, target = torch.cat([beat, seen[count:]]), torch.cat([beat, target[count:]])
            samples = torch.cat([self.real["samples"][index], samples[count:]])
            leads = torch.cat([self.real["leads"][index], leads[count:]])
        # In a third of the beats one lead in four is lost, as electrodes are.
        lost = keys.uniform(key, 0, "beats/lost", (beats.LEAD_COUNT,)) < 0.25
        lost = lost & (keys.uniform(key, 0, "beats/loses") < 0.33).unsqueeze(-1)
        leads = leads & ~lost
        return seen, target, leads, samples

    def _read(self, folder: Path, count: int, device: str) -> dict[str, Tensor]:
        path = folder / f"read_beats_{count}.safetensors"
        if path.exists():
            return load_file(path, device=device)
        parts: list[dict[str, Tensor]] = []
        for start in tqdm(range(0, count, 64), desc="read beats", mininterval=1):
            key = keys.from_seed(READ_SEED + start, min(64, count - start), device)
            intervals = sample_intervals(key)
            heights = self.bank.sample(keys.fold(key, "beats/shape"))
            noise = 5 + 20 * keys.uniform(key, 0, "beats/level")
            ecg = synthesise_ecg(key, 0, intervals, heights, noise_uv=noise, wander_uv=4 * noise)
            measured = delineate(ecg, RATE_HZ)
            seen, leads, samples = canonical_beats(ecg, measured)
            ends = beats.piece_ends(intervals.pr_ms, intervals.qrs_ms, intervals.jt_peak_ms, intervals.tpeak_tend_ms)
            good = (
                measured.trusted
                & ((measured.qt_ms - intervals.qt_ms).abs() < 30)
                & ((measured.pr_ms - intervals.pr_ms).abs() < 25)
            )
            part = {"seen": seen, "target": _canonical(heights, intervals, ends), "leads": leads, "samples": samples}
            parts.append({name: value[good].clone() for name, value in part.items()})
        whole = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
        save_tensors(path, {k: v.to(torch.uint8) if v.dtype == torch.bool else v for k, v in whole.items()})
        return load_file(path, device=device)


def _canonical(heights: Tensor, intervals: Intervals, ends: Tensor) -> Tensor:
    template = beat_template(intervals, heights)
    return beats.to_canonical(template, ends, AT_R - R_SHARE * intervals.qrs_ms * (RATE_HZ / 1000), RATE_HZ)


def _real_beats(folder: Path, device: str) -> dict[str, Tensor]:
    """Canonical median beats of LUDB's odd records that the delineator trusts and that have a P wave.

    Raises:
        ValueError: there is none.
    """
    from world_models.data.ecg import ludb

    ecgs = [record.ecg_mv for record in ludb.iterate(folder) if int(record.name) % 2 == 1]
    if not ecgs:
        raise ValueError(
            f"{folder} has no odd record of LUDB, whose beats are those trained on; give the whole database"
        )
    ecg = torch.stack([torch.as_tensor(e) for e in ecgs]).to(device)
    measured = delineate(ecg, RATE_HZ)
    beat, leads, samples = canonical_beats(ecg, measured)
    good = measured.trusted & ~measured.pr_ms.isnan()
    if not bool(good.any()):
        raise ValueError(f"of {len(ecgs)} odd records in {folder} none can be delineated; is the database whole?")
    return {"beat": beat[good], "leads": leads[good], "samples": samples[good]}
