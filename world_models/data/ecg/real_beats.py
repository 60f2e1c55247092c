"""Median beats of real ECGs with their marks, to train and judge models of a beat on: PTB-XL, LUDB, Challenge 2021.

Whoever is trained on is never judged on. By patient: PTB-XL's folds 1 to 6 train and 7 and 8 validate (9 and 10, its
authors' own, are "test"); of LUDB, one ECG a person, odd records train and even ones validate; Challenge records train.
The Challenge's HR records are PTB-XL's under another name (HR06000 is ECG 6000 (k)): where PTB-XL's table has that
number its patient and fold count, and of an ECG that both hold the Challenge's copy is left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from world_models.data.ecg import ludb, ptbxl
from world_models.data.ecg.wfdb.reader import RecordError, folder_records, read_ecg
from world_models.ecg.delineation.delineate import Delineation, delineate, median_beats
from world_models.tensor_file import save_tensors

__all__ = ["AFTER_S", "BEFORE_S", "R_SAMPLE", "SAMPLES", "SPLITS", "RealBeats", "real_beats"]

RATE_HZ, SECONDS = 500.0, 10.0
BEFORE_S, AFTER_S = 0.6, 1.0  # of the R peak, as the learned world cuts a beat out
R_SAMPLE, SAMPLES = round(BEFORE_S * RATE_HZ), round((BEFORE_S + AFTER_S) * RATE_HZ)
SPLITS = ("train", "valid", "test")
MOST_UNREADABLE = 0.05
BLOCK = 32  # recordings delineated at once
VERSION = 1  # of what is kept in the cache; raise it when a beat or a mark would come out otherwise
log = logging.getLogger(__name__)


class RealBeats(NamedTuple):
    """N trusted median beats, one an ECG, by source, then patient and time."""

    beat_mv: Tensor  # [N, 8, 800] float32 at 500 Hz: I, II, V1-V6; R at sample 300; zero where a lead is unusable
    measured: Delineation  # [N] each, "tangent" convention, marks in ms from R; median_beat is left out: [N, 8, 0]
    patient: list[str]  # "ptbxl/15709", "ludb/7", "challenge/JS20008": what to split by
    source: list[str]  # "ptbxl", "ludb" or "challenge"
    record: list[str]  # the record's name in its source
    age_years: Tensor  # [N] float32, NaN where unknown
    sex_female: Tensor  # [N] float32: 0, 1, NaN
    fold: Tensor  # [N] int64: PTB-XL's fold; 0 in other sources


class _Ecg(NamedTuple):
    """One ECG that belongs to the split."""

    source: str
    record: str
    patient: str
    fold: int
    age_years: float | None
    sex_female: bool | None
    path: Path  # without extension


def _of_ptbxl(entry: ptbxl.PtbxlEntry, source: str, path: Path) -> _Ecg:
    patient = f"ptbxl/{entry.patient_id}"
    return _Ecg(source, path.name, patient, entry.fold, entry.age_years, entry.sex_female, path)


def _ludb(folder: Path, split: str) -> Iterator[_Ecg]:
    wanted = {"train": 1, "valid": 0}.get(split)
    for name in ludb.record_names(folder):
        if int(name) % 2 == wanted:
            yield _Ecg("ludb", name, f"ludb/{name}", 0, None, None, folder / "data" / name)


def _challenge(folder: Path, split: str, table: ptbxl.PtbxlTable) -> Iterator[_Ecg]:
    both = {entry.ecg_id for entry in table.entries}
    known = {entry.ecg_id: entry for entry in table.without_record}
    for base in folder_records(folder):
        copy = re.fullmatch(r"HR0*(\d{1,9})", base.name)
        number = int(copy[1]) if copy else None
        if number in both:
            continue
        if number in known:
            if known[number].fold in ptbxl.SPLITS[split]:
                yield _of_ptbxl(known[number], "challenge", base)
        elif split == "train":
            yield _Ecg("challenge", base.name, f"challenge/{base.name}", 0, None, None, base)


def _listed(sources: dict[str, Path], split: str) -> list[_Ecg]:
    """The split's ECGs. Raises RecordError where a folder does not hold what it should, or there is none."""
    found: list[_Ecg] = []
    table = ptbxl.read_table(sources["ptbxl"]) if "ptbxl" in sources else ptbxl.PtbxlTable((), ())
    found.extend(_of_ptbxl(e, "ptbxl", e.record) for e in table.entries if e.fold in ptbxl.SPLITS[split])
    if "ludb" in sources:
        found.extend(_ludb(sources["ludb"], split))
    if "challenge" in sources:
        found.extend(_challenge(sources["challenge"], split, table))
    if not found:
        said = ", ".join(f"{name} {path}" for name, path in sources.items()) or "no source"
        raise RecordError(f"no ECG of the split {split!r} in {said}; give a folder that has some")
    return found


def _key(ecgs: list[_Ecg], split: str) -> str:
    """Changes with what would be read: names, sizes and times of the records, and the version of this file."""
    lines = [f"{VERSION} {split} {BEFORE_S} {AFTER_S}"]
    for ecg in ecgs:
        header = ecg.path.with_name(ecg.path.name + ".hea")
        data = next((p for p in (header.with_suffix(".dat"), header.with_suffix(".mat")) if p.is_file()), header)
        lines.append(f"{ecg[:6]} {data.stat().st_size} {data.stat().st_mtime_ns} {header.stat().st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _measure(ecgs: list[_Ecg], quiet: bool) -> RealBeats:
    """Read, delineate and keep what is trusted, a block at a time."""
    parts: list[RealBeats] = []
    failed: list[str] = []
    with tqdm(total=len(ecgs), desc="real beats", unit=" ECGs", disable=quiet, mininterval=1) as bar:
        for start in range(0, len(ecgs), BLOCK):
            block = ecgs[start : start + BLOCK]
            read: list[tuple[_Ecg, Tensor]] = []
            for ecg in block:
                try:
                    recording = read_ecg(ecg.path, RATE_HZ, SECONDS)
                    if recording.ecg_mv.shape[1] != round(RATE_HZ * SECONDS):
                        raise RecordError(f"{ecg.path}: shorter than {SECONDS:g} s without a gap")
                    told = ecg._replace(
                        age_years=recording.age_years if ecg.age_years is None else ecg.age_years,
                        sex_female=recording.sex_female if ecg.sex_female is None else ecg.sex_female,
                    )
                    read.append((told, recording.ecg_mv))
                except RecordError as error:
                    failed.append(str(error))
            if read:
                parts.append(_beats(read))
            bar.update(len(block))
    if len(failed) > MOST_UNREADABLE * len(ecgs):
        raise RecordError(
            f"{len(failed)} of {len(ecgs)} records cannot be read, more than {MOST_UNREADABLE:.0%}; the first: "
            f"{failed[0]}"
        )
    for reason in failed:
        log.warning("left out: %s", reason)
    return _joined(parts)


def _beats(read: list[tuple[_Ecg, Tensor]]) -> RealBeats:
    """The trusted ones of a block."""
    ecg = torch.stack([wave for _, wave in read])
    measured = delineate(ecg, RATE_HZ)
    beat = median_beats(ecg, measured.r_samples, RATE_HZ, BEFORE_S, AFTER_S)
    measured = measured._replace(median_beat=beat[..., :0])
    good = measured.trusted
    kept = [told for (told, _), trusted in zip(read, good.tolist(), strict=True) if trusted]
    return RealBeats(
        beat_mv=beat[good],
        measured=Delineation(*(column[good] for column in measured)),
        patient=[told.patient for told in kept],
        source=[told.source for told in kept],
        record=[told.record for told in kept],
        age_years=_column([told.age_years for told in kept]),
        sex_female=_column([told.sex_female for told in kept]),
        fold=torch.tensor([told.fold for told in kept], dtype=torch.int64),
    )


def _column(values: list[float | None] | list[bool | None]) -> Tensor:
    return torch.tensor([float("nan") if value is None else float(value) for value in values], dtype=torch.float32)


def _joined(parts: list[RealBeats]) -> RealBeats:
    def texts(of: Callable[[RealBeats], list[str]]) -> list[str]:
        return [text for part in parts for text in of(part)]

    return RealBeats(
        beat_mv=torch.cat([part.beat_mv for part in parts]),
        measured=Delineation(*(torch.cat(c) for c in zip(*(part.measured for part in parts), strict=True))),
        patient=texts(lambda part: part.patient),
        source=texts(lambda part: part.source),
        record=texts(lambda part: part.record),
        age_years=torch.cat([part.age_years for part in parts]),
        sex_female=torch.cat([part.sex_female for part in parts]),
        fold=torch.cat([part.fold for part in parts]),
    )


def _save(path: Path, beats: RealBeats) -> None:
    plain = {"beat_mv": beats.beat_mv, "age_years": beats.age_years, "sex_female": beats.sex_female, "fold": beats.fold}
    marks = {f"measured.{name}": value for name, value in beats.measured._asdict().items() if name != "median_beat"}
    as_bytes = {n: v.to(torch.uint8) if v.dtype == torch.bool else v for n, v in {**plain, **marks}.items()}
    texts = {"patient": beats.patient, "source": beats.source, "record": beats.record}
    words = torch.frombuffer(bytearray(json.dumps(texts).encode()), dtype=torch.uint8)
    save_tensors(path, {**as_bytes, "texts": words})


def _load(path: Path) -> RealBeats:
    """What `_save` kept. Raises SafetensorError, KeyError or ValueError where it is something else."""
    found = load_file(path)
    texts = json.loads(bytes(found["texts"].tolist()))
    marks = {name: found[f"measured.{name}"] for name in Delineation._fields if name != "median_beat"}
    marks.update({name: marks[name].bool() for name in ("trusted", "measurable")})
    beat = found["beat_mv"]
    if beat.shape[1:] != (8, SAMPLES) or any(len(texts[name]) != len(beat) for name in ("patient", "source", "record")):
        raise ValueError(f"{path} holds other beats than these")
    return RealBeats(
        beat_mv=beat,
        measured=Delineation(**marks, median_beat=beat[..., :0]),
        patient=texts["patient"],
        source=texts["source"],
        record=texts["record"],
        age_years=found["age_years"],
        sex_female=found["sex_female"],
        fold=found["fold"],
    )


def real_beats(
    ptbxl: str | Path | None,
    ludb: str | Path | None,
    challenge: str | Path | None,
    split: str,
    cache: str | Path | None = None,
    quiet: bool = True,
) -> RealBeats:
    """The trusted median beats of a split; a rhythm without P wave is among them, with PR NaN.

    Args:
        ptbxl, ludb, challenge: folders of the databases, or None.
        split: "train", "valid" or "test" (see the module's text; "test" is PTB-XL's folds 9 and 10 alone).
        cache: a folder where the beats are kept, under a name that changes with the records; None keeps nothing.
        quiet: no progress bar.

    Raises:
        ValueError: another split.
        RecordError: a folder that does not hold its database, no ECG of the split, none trusted, or over 5 % of the
            records cannot be read.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; there are {', '.join(SPLITS)}")
    given = {"ptbxl": ptbxl, "ludb": ludb, "challenge": challenge}
    ecgs = _listed({name: Path(path) for name, path in given.items() if path is not None}, split)
    path = None if cache is None else Path(cache) / f"real_beats_{split}_{_key(ecgs, split)}.safetensors"
    if path is not None and path.is_file():
        try:
            return _load(path)
        except (SafetensorError, KeyError, ValueError) as error:
            log.warning("%s cannot be used (%s) and is made again", path, error)
    found = _measure(ecgs, quiet)
    if not len(found.beat_mv):
        raise RecordError(f"none of {len(ecgs)} ECGs of the split {split!r} can be delineated; are they whole?")
    if path is not None:
        _save(path, found)
    return found
