"""Pairs of ECGs around one dose, from the oracle: what models of the drug's effect on the wave learn and are judged on.

A patient of any cohort is charted and recorded, takes one dose of one drug or nothing, and is charted and recorded
again half an hour to a day later. Both beats are the oracle's own, drawn as its chart reads, without noise, on the
canonical axis (`ecg.beat_axis`), cut at the marks that a reader finds. Every row is a function of its key alone:
cohort, hours, drug and dose too. Kept are charts, beats, the order and the patient's factors (to be told to an oracle,
never to a learner); nothing of the hidden state.

The three splits are patients who never meet (`SPLIT_SEED`): learn on "train", choose on "validation", judge on "test".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from world_models import keys, tree
from world_models.ecg import beat_axis
from world_models.ecg.as_read import drawn_as_asked
from world_models.ecg.t_synthesis import own_wave
from world_models.ecg.waveform import R_SHARE, Intervals, beat_template
from world_models.ecg_wm.bending import asked_for
from world_models.ecg_wm.courses import oracle_of
from world_models.ecg_wm.t_measures import t_wave_asked
from world_models.ecg_wm.transitions import DOSE_LOW, NOTHING_SHARE, dose_limits
from world_models.oracles.ecg_drug.cohorts import COHORTS, FACTORS
from world_models.oracles.ecg_drug.drawing import t_wave_of
from world_models.oracles.ecg_drug.world import ECGDrugState
from world_models.protocol import Chart
from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.tensor_file import CheckpointError, read_tensors, save_tensors

__all__ = ["HOURS", "SPLIT_SEED", "Pairs", "cached_pairs", "in_sinus_rhythm"]
__all__ += ["canonical_beat", "load_pairs", "own_beat", "sample_pairs", "save_pairs", "split_pairs", "time_beat"]

HOURS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 24.0)  # after the dose, equally often
# One place for who learns, chooses and judges; 1e9 keys each, apart from every other benchmark's.
SPLIT_SEED = {"train": 30_000_000_000, "validation": 31_000_000_000, "test": 32_000_000_000}
MOST_PAIRS = 100_000_000  # of a split: what is drawn besides, for those in fibrillation, still lies within it
_CANDIDATES = 4096  # patients admitted at once
_DRAWN = 512  # beats drawn at once
_P_LATE_MS = 1.0  # a reader finds P this much later than it is drawn (`ecg.as_read`)
_LEAST_T = (1.0, 0.0, 0.05, 2.0, 2.0)  # uV, scores, ms: no change leads below
_TIMES = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms")
_LENGTH, _ONSET = 800, 300  # samples at 500 Hz of a beat in time, and where its QRS begins
FORM = 1  # of the file


class Pairs(NamedTuple):
    """N patients around one dose each."""

    key: Tensor  # int64 [N]
    factors: dict[str, Tensor]  # `cohorts.FACTORS`, each [N]: what is fixed of the patients, hidden ones included
    drug: Tensor  # int64 [N]: 0 nothing, else 1 + column of the orders
    dose_mg: Tensor  # [N], 0 where nothing was given
    hours: Tensor  # [N] from the dose, which is given right after the first ECG, to the second
    pre: Chart  # without `ecg_mv`
    post: Chart
    pre_beat: Tensor  # [N, 8, 200] mV on the canonical axis of the chart's own intervals
    post_beat: Tensor  # [N, 8, 200]

    def take(self, rows: Tensor | slice) -> Pairs:
        """The pairs at `rows` (int64 [M], bool [N] or a slice)."""
        return tree.take(self, rows)

    @property
    def size(self) -> int:
        """Number of pairs N."""
        return int(self.key.shape[0])


def _orders(key: Tensor) -> tuple[Tensor, Tensor]:
    """Drug int64 [B] and dose [B] mg of these patients."""
    low, high = dose_limits(key.device)
    shares = torch.tensor([NOTHING_SHARE] + [(1 - NOTHING_SHARE) / len(low)] * len(low), device=key.device)
    drug = keys.categorical(key, 0, "pairs/drug", shares)
    which = (drug - 1).clamp_min(0)
    dose = low[which] * torch.exp(keys.uniform(key, 0, "pairs/dose") * (high[which] / low[which]).log())
    return drug, torch.where(drug > 0, dose.minimum(high[which]), 0.0)


def _admitted(key: Tensor, cohort: Tensor) -> ECGDrugState:
    """Patients [B] of their cohorts (int64 [B], place in sorted(COHORTS)), in the order of the keys."""
    rows = [(cohort == c).nonzero().flatten() for c in range(len(COHORTS))]
    device = str(key.device)
    parts = [
        oracle_of(n, HOURS[0], device).initial(key[r]) for n, r in zip(sorted(COHORTS), rows, strict=True) if len(r)
    ]
    return tree.take(tree.cat(parts), torch.cat(rows).argsort())


def _after(before: ECGDrugState, hours: float, drug: Tensor, dose_mg: Tensor) -> ECGDrugState:
    """The patients [B] `hours` after the dose."""
    # Of the cohort, what acts after admission stands in the state. Each patient is admitted once, and not once for
    # every step of a batch, which would cost more than drawing the beats.
    oracle = oracle_of(sorted(COHORTS)[0], hours, str(drug.device))
    doses = dose_mg.unsqueeze(-1) * torch.nn.functional.one_hot(drug, len(ANTIARRHYTHMICS) + 1)[:, 1:]
    return oracle.transition(oracle.repaced(before), doses.to(torch.float32))


def in_sinus_rhythm(pairs: Pairs) -> Tensor:
    """bool [N]: neither ECG shows fibrillation."""
    return (pairs.pre["atrial_fibrillation"] < 0.5) & (pairs.post["atrial_fibrillation"] < 0.5)


def canonical_beat(chart: Chart, morphology: Tensor, residual: Tensor | None = None) -> Tensor:
    """The beat [B, 8, 200] in mV that the oracle draws for a chart [B], without noise; a P wave also where the chart
    shows fibrillation (there PR is taken as 160 ms).

    Args:
        morphology: [B, 8, W] heights in mV of the patient's waves.
        residual: [B, 8, 200] mV, what the waves leave of a recorded beat; with a morphology of zeros, all of it.
    """
    filled = {n: chart[n] for n in Intervals._fields if n != "pr_ms"}
    asked = Intervals(pr_ms=torch.nan_to_num(chart["pr_ms"], nan=160.0), **filled)
    wanted, parts = t_wave_of(chart), []
    for rows in torch.arange(len(morphology), device=morphology.device).split(_DRAWN):
        own = Intervals(*(x[rows] for x in asked))
        t_wave = None if wanted is None else type(wanted)(*(x[rows] for x in wanted))
        kept = None if residual is None else residual[rows]
        drawn = drawn_as_asked(own, morphology[rows], t_wave, kept)
        beat = beat_template(drawn.intervals, morphology[rows], beat_axis.RATE_HZ, drawn.t_shape, kept)
        # where a reader finds the QRS onset, from R: the generator's own, less what PR was moved for it
        onset = own.pr_ms - drawn.intervals.pr_ms - R_SHARE * drawn.intervals.qrs_ms
        onset = onset + (_P_LATE_MS if residual is None else 0.0)
        ends = beat_axis.piece_ends(own.pr_ms, own.qrs_ms, own.jt_peak_ms, own.tpeak_tend_ms)
        place = beat_axis.AT_R + onset * (beat_axis.RATE_HZ / 1000)
        parts.append(beat_axis.to_canonical(beat, ends, place, beat_axis.RATE_HZ, beat_axis.curved))
    return torch.cat(parts) if parts else morphology.new_zeros(0, beat_axis.LEAD_COUNT, beat_axis.SAMPLES)


def own_beat(chart: Chart, beat: Tensor, before: tuple[Chart, Tensor] | None = None) -> Tensor:
    """Canonical beats [B, 8, 200] mV with the T wave of a chart [B] at its intervals (their own where it has no T
    measures, and in what is NaN of them); the rest stays bit for bit. A PR of NaN counts for nothing.

    `before` is the patients' chart and beat at another time: what is read of that beat differs a little from its chart,
    and is then let differ as much from this one. The canonical axis is the intervals' own: what a reader finds of a
    drawn beat is no question here.
    """
    asked = t_wave_asked(chart)
    if asked is None or not len(beat):
        return beat
    times = _times(chart)
    if before is not None:
        then, was = t_wave_asked(before[0]), _times(before[0])
        assert then is not None, "a chart without a T wave tells nothing of how its beat differs"
        parts = zip(before[1].split(_DRAWN), was.split(_DRAWN), strict=True)
        read = torch.cat([torch.stack(own_wave(Intervals.of(*at.unbind(-1)), some), dim=-1) for some, at in parts])
        asked = torch.cat([read[:, :1] * asked[:, :1] / then[:, :1], read[:, 1:] + asked[:, 1:] - then[:, 1:]], dim=-1)
        asked = torch.maximum(asked, asked.new_tensor(_LEAST_T))
    return torch.cat([asked_for(*rows) for rows in zip(*(x.split(_DRAWN) for x in (beat, asked, times)), strict=True)])


def _times(chart: Chart) -> Tensor:
    return torch.stack([torch.nan_to_num(chart[n], nan=160.0) if n == "pr_ms" else chart[n] for n in _TIMES], dim=-1)


def time_beat(beat: Tensor, chart: Chart) -> Tensor:
    """Canonical beats [N, 8, 200] at the chart's intervals: [N, 8, 800] mV at 500 Hz, QRS onset at sample 300."""
    pr = torch.nan_to_num(chart["pr_ms"], nan=160.0)
    ends = beat_axis.piece_ends(pr, chart["qrs_ms"], chart["jt_peak_ms"], chart["tpeak_tend_ms"])
    onset = torch.full_like(pr, float(_ONSET))
    return beat_axis.from_canonical(beat, ends, onset, _LENGTH, beat_axis.RATE_HZ)


@torch.no_grad()
def sample_pairs(key: Tensor, fibrillation: bool = False) -> Pairs:
    """Pairs of the patients with these keys [B]; without `fibrillation` those who show it on either ECG are left out,
    so that fewer than B come back (about two fifths).

    Raises:
        ValueError: no keys.
    """
    if not len(key):
        raise ValueError("no keys were given; give at least one")
    hours = torch.tensor(HOURS, device=key.device)
    which = keys.categorical(key, 0, "pairs/hours", torch.ones_like(hours))
    cohort = keys.categorical(key, 0, "pairs/cohort", torch.ones(len(COHORTS), device=key.device))
    drug, dose = _orders(key)
    before = _admitted(key, cohort)
    rows = [(which == i).nonzero().flatten() for i in range(len(HOURS))]
    back = torch.cat(rows).argsort()
    oracles = [oracle_of(sorted(COHORTS)[0], h, str(key.device)) for h in HOURS]
    pre = oracles[0].observe(before)
    parts = [
        oracle.observe(_after(tree.take(before, r), h, drug[r], dose[r]))
        for oracle, h, r in zip(oracles, HOURS, rows, strict=True)
    ]
    post = tree.take(tree.cat(parts), back)
    factors = {q.name: before.factors[:, j].contiguous() for j, q in enumerate(FACTORS)}
    kept = torch.ones_like(drug, dtype=torch.bool)
    if not fibrillation:
        kept = (pre["atrial_fibrillation"] < 0.5) & (post["atrial_fibrillation"] < 0.5)
    factors, pre, post, morphology = tree.take((factors, pre, post, before.morphology), kept)
    both = canonical_beat(tree.cat([pre, post]), torch.cat([morphology, morphology]))
    before, after = both.split(len(morphology))
    return Pairs(key[kept], factors, drug[kept], dose[kept], hours[which][kept], pre, post, before, after)


def split_pairs(split: str, count: int, device: torch.device | str = "cpu", progress: bool = True) -> Pairs:
    """The first `count` pairs in sinus rhythm of a split; more of them begin with the same.

    Raises:
        ValueError: no such split, or a count that it does not have.
    """
    if split not in SPLIT_SEED:
        raise ValueError(f"split={split!r}; there are: {', '.join(SPLIT_SEED)}")
    if not 1 <= count <= MOST_PAIRS:
        raise ValueError(f"{count} pairs were asked for; give 1 to {MOST_PAIRS}")
    parts: list[Pairs] = []
    have, seed = 0, SPLIT_SEED[split]
    with tqdm(total=count, desc=f"pairs, {split}", mininterval=1, disable=not progress) as bar:
        while have < count:
            wanted = min(_CANDIDATES, 5 * (count - have) // 2 + 16)
            part = sample_pairs(keys.from_seed(seed, wanted, device))
            parts.append(part)
            seed, have = seed + wanted, have + part.size
            bar.update(min(part.size, count - bar.n))
    return tree.cat(parts).take(slice(count))


# ---- files


def _flat(pairs: Pairs) -> dict[str, Tensor]:
    found = {f: getattr(pairs, f) for f in ("key", "drug", "dose_mg", "hours")}
    found |= {f: getattr(pairs, f).to(torch.float16) for f in ("pre_beat", "post_beat")}
    for name in ("factors", "pre", "post"):
        # a file holds finite numbers: what a rhythm does not have is told apart
        for measure, value in getattr(pairs, name).items():
            found[f"{name}/{measure}"] = torch.nan_to_num(value, nan=0.0)
            if bool(value.isnan().any()):
                found[f"missing/{name}/{measure}"] = value.isnan()
    return found


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_pairs(path: Path, pairs: Pairs, meta: dict[str, str] | None = None) -> None:
    """To a safetensors file with a checksum, whole or not at all; beats in float16 (1 uV at 2 mV)."""
    tensors = _flat(pairs)
    save_tensors(path, tensors, {"form": str(FORM), "sha256": _checksum(tensors), **(meta or {})})


def load_pairs(path: Path, meta: dict[str, str] | None = None) -> Pairs:
    """Pairs of a file; where `meta` is given, only of one saved with just that.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is damaged, changed, or of something else.
    """
    tensors, told = read_tensors(path)
    if told.get("form") != str(FORM) or told.get("sha256") != _checksum(tensors):
        raise CheckpointError(f"{path} is damaged or no file of pairs: its checksum differs; delete it to make it anew")
    if meta is not None and any(told.get(k) != v for k, v in meta.items()):
        raise CheckpointError(f"{path} was made with {told}, not {meta}; delete it or name another folder")
    groups: dict[str, dict[str, Tensor]] = {"factors": {}, "pre": {}, "post": {}}
    for name, value in tensors.items():
        group, _, measure = name.partition("/")
        if group in groups and measure:
            gone = tensors.get(f"missing/{name}")
            groups[group][measure] = value if gone is None else torch.where(gone, torch.nan, value)
    beats = [tensors[n].to(torch.float32) for n in ("pre_beat", "post_beat")]
    return Pairs(tensors["key"], groups["factors"], tensors["drug"], tensors["dose_mg"], tensors["hours"],
                 groups["pre"], groups["post"], *beats)  # fmt: skip


def _recipe(parameters: Callable[[], list[Path]]) -> str:
    """Short checksum over the oracle's parameter files and what is drawn: other files, other pairs."""
    digest = hashlib.sha256(json.dumps([HOURS, NOTHING_SHARE, DOSE_LOW, SPLIT_SEED]).encode())
    for path in parameters():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _parameter_files() -> list[Path]:
    root = Path(beat_axis.__file__).parents[1]
    names = ["ecg/ludb_morphology.safetensors"]
    names += [f"oracles/ecg_drug/{name}" for name in ("fitted_scr002.json", "cohort_table.py", "cohorts.py")]
    return [root / n for n in names]


def cached_pairs(split: str, count: int, folder: Path) -> Pairs:
    """`split_pairs`, kept in `folder`; made anew there when the oracle's parameters are others than they were.

    Raises:
        CheckpointError: the file is damaged.
    """
    recipe = _recipe(_parameter_files)
    path = folder / f"pairs_{split}_{count}_{recipe}.safetensors"
    if not path.is_file():
        save_pairs(path, split_pairs(split, count), {"split": split, "recipe": recipe})
    return load_pairs(path, {"split": split, "recipe": recipe})
