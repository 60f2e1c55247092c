"""`benchmarks.progression.fidelity` on the folds that a source publishes: PTB-XL's, and LUDB's two halves.

Folds 1 to 6 of PTB-XL and the odd records of LUDB are for tuning: each fold (of LUDB, one of five by record) is judged
by what the others teach. Folds 7 and 8 and the even records are for one last judgement (`--final`), by what all tuning
ECGs teach. Superclasses and single labels are two questions with a macro AUROC each. Rivals, on the same rows: the same
encoder with random weights (five seeds), features made by hand with a linear probe and with boosting, and if asked the
encoder trained from nothing, this one fine-tuned, and a masked autoencoder's (`masked`).
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.intervals import Bootstrap, Interval, bootstrap_macro, difference
from benchmarks.progression.arms import fresh_encoder
from benchmarks.progression.hand_features import hand_features
from benchmarks.progression.masked import load_encoder
from benchmarks.progression.real_rivals import Cases, Scores, boosted, of_features, random_features, trained
from world_models.cardiac_jepa import probes
from world_models.cardiac_jepa.auroc import mean_of
from world_models.cardiac_jepa.encoder import XResNet1d
from world_models.data.ecg import ptbxl
from world_models.data.ecg.labelled import LabelledECGs, read_ludb, read_ptbxl
from world_models.data.ecg.scp import SUPERCLASSES
from world_models.plateau import Patience, Plateau

__all__ = ["Asked", "Halves", "halves_of_ludb", "judge_halves", "of_ptbxl", "table"]

TUNING_FOLDS, FINAL_FOLDS = tuple(ptbxl.SPLITS["train"]), tuple(ptbxl.SPLITS["valid"])
LUDB_FOLDS = 5  # that its odd records are dealt into
LUDB_NOTE = (
    "Of LUDB's 160 records 114 gave the oracle the heights of its waves, odd and even ones alike: an encoder trained "
    "on the oracle's ECGs has met their shapes, unlabelled"
)
MET_NOTE = "An encoder trained with --ptbxl or --ludb has met the tuning ECGs, without their labels"


class Halves:
    """ECGs for tuning and for the last judgement.

    Args:
        x: all of them, `x.fold` what each fold of the tuning ECGs is called.
        final: bool [N], those of the last judgement.
        groups: name -> labels that are one question.
        notes: what has to be said of them.
    """

    def __init__(self, x: LabelledECGs, final: Tensor, groups: Mapping[str, Sequence[str]], notes: Sequence[str]):
        self.x, self.final, self.groups, self.notes = x, final, groups, tuple(notes)
        self.patient = torch.arange(len(x.ecg)) if x.patient is None else x.patient

    def splits(self, last: bool) -> list[tuple[Tensor, Tensor]]:
        """(rows to learn from, rows to judge): each tuning fold by the others, or the final ECGs by all of them."""
        assert self.x.fold is not None
        tuning = (~self.final).nonzero()[:, 0]
        if last:
            return [(tuning, self.final.nonzero()[:, 0])]
        fold = self.x.fold[tuning]
        return [(tuning[fold != f], tuning[fold == f]) for f in fold.unique().tolist()]


@dataclass(frozen=True)
class Asked:
    """How the ECGs are judged."""

    final: bool = False
    least: int = 5  # judged ECGs with and without a label for it to count
    resamples: int = 1000  # of the patients
    seed: int = 0
    random_seeds: int = 5
    trained: bool = False  # also the encoder trained from nothing, and this one fine-tuned
    rates: tuple[float, ...] = (3e-4, 1e-3)
    patience: Patience = Patience(check=25, checks=6, least_steps=200, most_steps=3000, warm_up=20)
    masked: Path | None = None  # folder of a masked autoencoder
    work: Path | None = None  # where training goes on after a kill; None: nowhere


def of_ptbxl(folder: Path, final: bool, one_a_patient: bool) -> Halves:
    """PTB-XL's folds 1 to 6, and if it is the last judgement 7 and 8; the others are not opened.

    Raises:
        RecordError, ScpError: see `labelled.read_ptbxl`.
    """
    x = read_ptbxl(folder, (*TUNING_FOLDS, *(FINAL_FOLDS if final else ())), one_a_patient)
    assert x.fold is not None
    last = torch.isin(x.fold, torch.tensor(FINAL_FOLDS))
    groups = {"superclasses": SUPERCLASSES, "single_labels": [n for n in x.names if n not in SUPERCLASSES]}
    return Halves(x, last, groups, [MET_NOTE])


def halves_of_ludb(folder: Path, final: bool) -> Halves:
    """LUDB's odd records, dealt into folds by record, and if it is the last judgement its even ones.

    Raises:
        RecordError: the folder does not hold LUDB.
    """
    x = read_ludb(folder)
    number = torch.tensor([int(name) for name in x.record])
    last = number % 2 == 0
    keep = torch.ones_like(last) if final else ~last
    fold = torch.full((len(number),), -1)
    odd = (~last).nonzero()[:, 0]
    fold[odd] = probes.folds_of(number[odd], x.label[odd], min(LUDB_FOLDS, len(odd)))
    rows = keep.nonzero()[:, 0]
    kept = x._replace(
        ecg=x.ecg[rows],
        label=x.label[rows],
        record=tuple(x.record[i] for i in rows.tolist()),
        patient=number[rows],
        fold=fold[rows],
    )
    return Halves(kept, last[rows], {"single_labels": x.names}, [LUDB_NOTE, MET_NOTE])


def judge_halves(jepa: Any, halves: Halves, asked: Asked) -> dict[str, Any]:
    """The JSON's content. `jepa` is a CardiacJEPA.

    Raises:
        ValueError: no label that can be judged.
    """
    jepa.eval()
    x, splits = halves.x, halves.splits(asked.final)
    judged = torch.cat([test for _, test in splits])
    out: dict[str, Any] = {
        "source": x.source,
        "judged": "the last ECGs, once" if asked.final else "tuning folds, each by the others",
        "records": len(judged),
        "patients": len(halves.patient[judged].unique()),
        "tuning_records": int((~halves.final).sum()),
        "left_out": x.skipped,
        "notes": list(halves.notes),
        "bootstrap_draws": asked.resamples,
        "random_seeds": asked.random_seeds,
        "groups": {},
    }
    for name, wanted in halves.groups.items():
        columns = [x.names.index(n) for n in wanted if n in x.names]
        found = _judge_group(jepa, halves, columns, splits, judged, asked, name)
        if found is not None:
            out["groups"][name] = found
    if not out["groups"]:
        raise ValueError(
            f"no label has {asked.least} of the {len(judged)} judged ECGs with it and {asked.least} without; give more "
            "records, or --least"
        )
    return out


def _judge_group(
    jepa: Any,
    halves: Halves,
    columns: list[int],
    splits: list[tuple[Tensor, Tensor]],
    judged: Tensor,
    asked: Asked,
    name: str,
) -> dict[str, Any] | None:
    """The figures of one group of labels; None where none can be judged."""
    x = halves.x
    label = x.label[:, columns]
    positives = label[judged].sum(0)
    enough = (positives >= asked.least) & (len(judged) - positives >= asked.least)
    if not bool(enough.any()):
        return None
    cases = Cases(x.ecg, label[:, enough], halves.patient)
    told: dict[str, list[Plateau]] = {}
    with tempfile.TemporaryDirectory() as nowhere:
        work = (asked.work or Path(nowhere)) / f"{name}-{_mark(jepa, halves, cases, asked)}"
        methods = _methods(jepa, cases, (~halves.final).nonzero()[:, 0], asked, work, told)
        boots: dict[str, list[Bootstrap]] = {}
        for method, fitted in methods.items():
            boots[method] = []
            for scores in fitted:
                score = torch.cat([scores(train, test) - _usual(cases.label[train]) for train, test in splits])
                boots[method].append(
                    bootstrap_macro(
                        score,
                        cases.label[judged],
                        cases.patient[judged],
                        asked.resamples,
                        asked.seed,
                        asked.least,
                    )
                )
    found = {method: mean_of(each) for method, each in boots.items()}
    names = [x.names[c] for c, e in zip(columns, enough.tolist(), strict=True) if e]
    few = {x.names[c]: int(n) for c, n, e in zip(columns, positives, enough.tolist(), strict=True) if not e}
    return {
        "macro_auroc": {method: _plain(b.macro) for method, b in found.items()},
        "seed_range": {m: [min(v), max(v)] for m, v in _by_seed(boots).items() if len(v) > 1},
        "probe_minus": {m: _plain(difference(found["probe"], b)) for m, b in found.items() if m != "probe"},
        "labels": {
            n: {"positives": int(positives[enough][i])} | {m: _plain(b.label(i)) for m, b in found.items()}
            for i, n in enumerate(names)
        },
        "too_few": few,
        "training": {m: [_training(p) for p in each] for m, each in told.items()},
    }


def _mark(jepa: Any, halves: Halves, cases: Cases, asked: Asked) -> str:
    """Tells trainings apart that must not go on from each other: by encoder, records, labels and settings."""
    told = hashlib.sha256(repr((halves.x.record, asked.seed, asked.rates, asked.patience)).encode())
    for part in (cases.label, cases.patient, *jepa.encoder.state_dict().values()):
        told.update(part.detach().cpu().contiguous().numpy().tobytes())
    return told.hexdigest()[:10]


def _usual(label: Tensor) -> Tensor:
    """Logits [C] of the labels' shares in [N, C]. Taken off before folds are pooled: a fold that has more of a rare
    label than the others was taught that it is rarer, which alone would bring an AUROC under a half."""
    return torch.logit((label.sum(0) + 0.5) / (len(label) + 1.0))


def _by_seed(boots: Mapping[str, list[Bootstrap]]) -> dict[str, list[float]]:
    return {method: [b.macro.value for b in each] for method, each in boots.items()}


def _methods(
    jepa: Any, cases: Cases, tuning: Tensor, asked: Asked, work: Path, told: dict[str, list[Plateau]]
) -> dict[str, list[Scores]]:
    """name -> what scores, once for each seed."""
    config, rows = jepa.config, torch.arange(len(cases.ecg))
    h = probes.features(jepa.encoder, cases.ecg, rows, config.crop_samples)
    hand = hand_features(cases.ecg)
    methods: dict[str, list[Scores]] = {
        "probe": [of_features(cases, h, asked.seed)],
        "random_encoder": [
            of_features(cases, random_features(cases, config, asked.seed + i, tuning), asked.seed)
            for i in range(asked.random_seeds)
        ],
        "hand_features": [of_features(cases, hand, asked.seed)],
        "hand_features_boosted": [boosted(cases, hand, asked.seed)],
    }
    if asked.masked is not None:
        encoder, its = load_encoder(asked.masked)
        filled = probes.features(encoder, cases.ecg, rows, its.crop_samples)
        methods["masked_autoencoder"] = [of_features(cases, filled, asked.seed)]
    if asked.trained:

        def own() -> XResNet1d:
            encoder = XResNet1d.of(config)
            encoder.load_state_dict(jepa.encoder.state_dict())
            return encoder

        begins: dict[str, tuple[Callable[[], Any], Tensor | None]] = {
            "supervised": (lambda: fresh_encoder(config, asked.seed), None),
            "fine_tuned": (own, h),
        }
        for method, (begin, probed) in begins.items():
            given = config.crop_samples, asked.rates, asked.patience, work / method, asked.seed
            methods[method] = [trained(cases, begin, probed, *given, told.setdefault(method, []))]
    return methods


def _training(found: Plateau) -> dict[str, Any]:
    return {"rate": found.rate, "step": found.step, "cpu_s": round(found.cpu_s, 1), "capped": found.capped}


def _plain(x: Interval) -> dict[str, float]:
    return {"auroc": x.value, "low": x.low, "high": x.high}


def table(found: Mapping[str, Any]) -> str:
    """The JSON in tables."""
    lines = [f"{found['source']}: {found['records']} ECGs of {found['patients']} patients; {found['judged']}"]
    lines += found["notes"]
    for name, group in found["groups"].items():
        models = list(group["macro_auroc"])
        lines.append(f"{name:<28}{'n':>5}  " + "".join(f"{m:<23}" for m in models))
        for label, row in {"macro": {"positives": "", **group["macro_auroc"]}, **group["labels"]}.items():
            cells = (Interval(*(math.nan if v is None else v for v in row[m].values())) for m in models)
            lines.append(f"{label:<28}{row['positives']:>5}  " + "".join(f"{str(c):<23}" for c in cells))
        lines.append(
            "probe minus: " + "; ".join(f"{m} {Interval(*d.values())}" for m, d in group["probe_minus"].items())
        )
    return "\n".join(lines)
