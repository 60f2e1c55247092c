"""Fit the model that makes lost leads: `python -m world_models.ecg.lead_repair_fit --ludb DIR --ptbxl DIR --out FILE`.

The median beats of LUDB's odd records and of PTB-XL's patients of folds 1 to 6; the even records and folds 7 and up are
left for judging. Written are a mean, components and covariances of all beats together, no signal of anybody. With
`--cross-validate` the number of components and the temper are tried out on fifths of the patients first: the shipped
values lie on a plateau.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from world_models.data.ecg import ludb
from world_models.data.ecg.wfdb.reader import RecordError, read_ecg
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg.lead_repair import WAVES, LeadModel, axis_beats, lost_leads, rebuild_beats
from world_models.files import write_bytes

__all__ = ["RATE_HZ", "correlation", "fit_leads", "main", "read_beats", "read_records"]

RATE_HZ, SAMPLES = 500.0, 5000
COMPONENTS, TEMPER = 60, 40.0
TRIED = tuple(itertools.product((20, 40, 60, 100), (10.0, 40.0, 160.0)))
FOLDS = 5  # of the cross-validation, and of those that tell what the components leave of beats they have not met
PTBXL_FOLDS = range(1, 7)
_JITTER = 1e-6  # of a beat's mean square: keeps a covariance invertible


def read_records(
    ludb_folder: Path | None, ptbxl: Path | None, odd: bool = True, folds: Iterable[int] = PTBXL_FOLDS
) -> tuple[Tensor, list[str]]:
    """ECGs [N, 12, 5000] mV of LUDB's odd (or even) records and PTB-XL's folds, and whose each is (for splitting).

    Raises:
        RecordError: a folder that does not hold its data set.
        ValueError: no record of ten seconds.
    """
    ecgs, whose = [], []
    for name in ludb.record_names(ludb_folder) if ludb_folder is not None else ():
        if int(name) % 2 == odd:
            ecgs.append(ludb.read_record(ludb_folder, name).ecg_mv)  # type: ignore[arg-type]
            whose.append(f"ludb {name}")
    if ptbxl is not None:
        for path, patient in _ptbxl(ptbxl, set(folds)):
            ecgs.append(read_ecg(path, RATE_HZ).ecg_mv)
            whose.append(f"ptbxl {patient}")
    kept = [i for i, ecg in enumerate(ecgs) if ecg.shape[-1] == SAMPLES]
    if not kept:
        raise ValueError("no record of ten seconds was found; give the folders of LUDB 1.0.1 and PTB-XL 1.0.3")
    return torch.stack([ecgs[i] for i in kept]), [whose[i] for i in kept]


def _ptbxl(folder: Path, folds: set[int]) -> list[tuple[Path, str]]:
    table = folder / "ptbxl_database.csv"
    if not table.is_file():
        raise RecordError(f"no ptbxl_database.csv in {folder}; give the folder of PTB-XL 1.0.3")
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["strat_fold"]) in folds]
    found = [(folder / row["filename_hr"], row["patient_id"]) for row in rows]
    return [(path, patient) for path, patient in found if path.with_suffix(".hea").is_file()]  # a part of it may do


def read_beats(ecg_mv: Tensor) -> tuple[Tensor, Tensor]:
    """Median beats [N, 8, AXIS] of ECGs [N, 12, T], and which can be learned from: measurable, no lead lost."""
    marks = delineate(ecg_mv, RATE_HZ)
    whole = ~lost_leads(ecg_mv[:, [0, 1, 6, 7, 8, 9, 10, 11]]).any(-1)
    return axis_beats(marks), marks.measurable & whole


def _principal(beats: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    mean = beats.mean(0)
    _, size, direction = torch.linalg.svd((beats - mean).flatten(1), full_matrices=False)
    return mean, direction[:count], size[:count] / len(beats) ** 0.5


def _covariance(left: Tensor) -> Tensor:
    """[len(WAVES), 8, 8] of [N, 8, AXIS]."""
    pieces = left.split(WAVES, -1)
    each = [torch.einsum("nls,nms->lm", p, p) / (p.shape[0] * p.shape[-1]) for p in pieces]
    return torch.stack(each) + _JITTER * torch.eye(left.shape[1], dtype=left.dtype)


def fit_leads(beats_mv: Tensor, components: int = COMPONENTS, temper: float = TEMPER) -> LeadModel:
    """The model of beats [N, 8, AXIS].

    What components leave over is taken from beats that these components were not made of.

    Raises:
        ValueError: fewer beats than components.
    """
    if len(beats_mv) * (FOLDS - 1) // FOLDS <= components:
        raise ValueError(f"{len(beats_mv)} beats are too few for {components} components; give more records")
    beats = beats_mv.to(torch.float64)
    beats = beats / beats.square().mean((1, 2), keepdim=True).sqrt()
    left = torch.zeros_like(beats)
    fold = torch.arange(len(beats)) % FOLDS
    for k in range(FOLDS):
        mean, direction, _ = _principal(beats[fold != k], components)
        off = (beats[fold == k] - mean).flatten(1)
        left[fold == k] = (off - off @ direction.T @ direction).unflatten(1, beats.shape[1:])
    mean, direction, size = _principal(beats, components)
    return LeadModel(
        mean,
        (direction * size.unsqueeze(-1)).unflatten(1, beats.shape[1:]),
        _covariance(left),
        torch.einsum("nls,nms->lm", beats, beats) / (len(beats) * beats.shape[-1]),
        torch.tensor(temper, dtype=torch.float64),
    )


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's r along the last axis, of [..., T] and [..., T]: [...]."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt().clamp_min(1e-12)


def _cross_validate(beats: Tensor, whose: list[str]) -> list[dict[str, float]]:
    """Median r of the made leads, two and four lost, for each of TRIED, patients kept apart."""
    people = {name: i for i, name in enumerate(dict.fromkeys(whose))}
    fold = torch.tensor([people[name] % FOLDS for name in whose])
    rows = []
    for components, temper in TRIED:
        row: dict[str, float] = {"components": components, "temper": temper}
        for count in (2, 4):
            made = []
            for k in range(FOLDS):
                model = fit_leads(beats[fold != k], components, temper)
                for lost in list(itertools.combinations(range(len(INDEPENDENT_LEADS)), count))[::5]:
                    good = torch.ones(int((fold == k).sum()), len(INDEPENDENT_LEADS), dtype=torch.bool)
                    good[:, list(lost)] = False
                    again = rebuild_beats(beats[fold == k], good, model)
                    made.append(correlation(again[:, list(lost)], beats[fold == k][:, list(lost)]).flatten())
            row[f"median_r_{count}_lost"] = round(float(torch.cat(made).median()), 4)
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code: 2 where a folder cannot be read or the file not be written."""
    from safetensors.torch import save

    parser = argparse.ArgumentParser(description="Fit the model that makes lost leads from the others.")
    parser.add_argument("--ludb", required=True, type=Path, help="folder with ludb.csv and data/")
    parser.add_argument("--ptbxl", required=True, type=Path, help="folder with ptbxl_database.csv and records500/")
    parser.add_argument("--out", required=True, type=Path, help="the .safetensors to write (a .json beside it)")
    parser.add_argument("--cross-validate", action="store_true", help="first try numbers of components (a minute)")
    options = parser.parse_args(arguments)
    if not options.out.parent.is_dir():
        print(f"error: {options.out.parent} is not a folder; create it first", file=sys.stderr)
        return 2
    try:
        ecg, whose = read_records(options.ludb, options.ptbxl)
        beats, kept = read_beats(ecg)
        model = fit_leads(beats[kept])
    except (RecordError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.cross_validate:
        for row in _cross_validate(beats[kept], [w for w, k in zip(whose, kept.tolist(), strict=True) if k]):
            print(row)
    # float16 for the components: their rounding is a thousandth of what they leave over
    held = {name: value.to(torch.float32).contiguous() for name, value in model._asdict().items()}
    held["components"] = model.components.to(torch.float16).contiguous()
    content = save(held, metadata={"leads": ",".join(INDEPENDENT_LEADS)})
    card = {
        "what": "mean, components and covariances of 8-lead beats: no signal, age, sex or record id",
        "made_by": "python -m world_models.ecg.lead_repair_fit",
        "records": len(whose),
        "beats": int(kept.sum()),
        "people": len({w for w, k in zip(whose, kept.tolist(), strict=True) if k}),
        "components": COMPONENTS,
        "temper": TEMPER,
        "sources": [
            {
                "name": "LUDB 1.0.1, odd records",
                "licence": "ODC-By 1.0",
                "citation": "Kalyakulina 2020, doi 10.1109/ACCESS.2020.3029211",
            },
            {
                "name": "PTB-XL 1.0.3, folds 1 to 6 of the records at hand",
                "licence": "CC BY 4.0",
                "citation": "Wagner 2020, doi 10.1038/s41597-020-0495-6",
            },
            {"name": "PhysioNet", "citation": "Goldberger 2000, doi 10.1161/01.CIR.101.23.e215"},
        ],
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_bytes(options.out, content)
    write_bytes(options.out.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
    print(f"{card['beats']} beats of {card['people']} people: wrote {options.out} ({len(content) // 1024} KB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
