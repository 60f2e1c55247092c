"""What a cardiac JEPA's encoder knows of anybody's labelled ECGs, training nothing of it.

`python -m benchmarks.progression.fidelity --records DIR --labels CSV --world cardiac-jepa-small --out metrics.json`,
DIR WFDB records, CSV a column `record`, a column of 0 and 1 a label, and `patient` where patients have several; or
`--ludb DIR`, `--challenge DIR`, or both together on the labels that both know.

AUROC of every label with 95 % intervals over patients, by a linear probe of the frozen features fitted in
cross-validation by patient, the scores of all folds pooled. Beside it, in the same folds: the world's latent, an
encoder of the same shape with random weights, features made by hand (each lead's mean, SD, extremes, slope; RR
intervals), and with `--supervised` that encoder trained from scratch. A label with fewer than `--least` ECGs on either
side is null, with the reason. Input that cannot be read: exit code 2, nothing written. Not for clinical use.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.intervals import Bootstrap, Interval, bootstrap_macro, difference
from benchmarks.common.results import made_by, rounded, write_json
from benchmarks.progression.actions import jepa_world
from benchmarks.progression.arms import fresh_encoder, settle_norms
from benchmarks.progression.hand_features import hand_features
from benchmarks.progression.held_out import Asked, halves_of_ludb, judge_halves, of_ptbxl, table
from world_models.cardiac_jepa import probes
from world_models.cardiac_jepa.config import JEPAConfig
from world_models.cardiac_jepa.finetune import FinetuneRecipe, LabelledRows, predict, supervised
from world_models.data.ecg.labelled import LabelledECGs, read_challenge, read_ludb, read_table

__all__ = ["joined", "judge", "main", "supervised_scores"]

NOTE = "Not for clinical use: a research benchmark of learned features"


def joined(parts: list[LabelledECGs]) -> LabelledECGs:
    """Several sources as one, on the labels that all of them know, patients kept apart.

    Raises:
        ValueError: they share no label.
    """
    if len(parts) == 1:
        return parts[0]
    names = tuple(n for n in parts[0].names if all(n in p.names for p in parts))
    if not names:
        raise ValueError(f"{' and '.join(p.source for p in parts)} share no label; judge them one by one")
    people, first = [], 0
    for p in parts:
        mine = patients(p).unique(return_inverse=True)[1] + first
        people.append(mine)
        first = int(mine.max()) + 1
    label = torch.cat([p.label[:, [p.names.index(n) for n in names]] for p in parts])
    return LabelledECGs(
        torch.cat([p.ecg for p in parts]),
        label,
        names,
        sum((p.record for p in parts), ()),
        torch.cat(people),
        "; ".join(p.source for p in parts),
        {k: n for p in parts for k, n in p.unmapped.items()},
        {k: n for p in parts for k, n in p.skipped.items()},
    )


def patients(x: LabelledECGs) -> Tensor:
    """int64 [N]; without names every record is another patient."""
    return torch.arange(len(x.ecg)) if x.patient is None else x.patient


def supervised_scores(
    x: LabelledECGs,
    label: Tensor,
    group: Tensor,
    config: JEPAConfig,
    folds: int,
    seed: int,
    steps: int,
    rates: tuple[float, ...],
) -> Tensor:
    """Logits [N, C] of the encoder trained from scratch, each fold by the others; a quarter of them chooses check and
    rate."""
    fold, out = probes.folds_of(group, label, folds, seed), torch.empty(label.shape)
    for f in range(folds):
        rest = (fold != f).nonzero()[:, 0]
        choose = probes.folds_of(group[rest], label[rest], min(4, len(group[rest].unique())), seed + 1) == 0
        train, valid = (LabelledRows(x.ecg, label, rest[m]) for m in (~choose, choose))
        with tempfile.TemporaryDirectory() as folder:
            recipe = FinetuneRecipe(steps, 32, rates[0], crop=config.crop_samples, seed=seed)
            model, _, _ = supervised(fresh_encoder(config, seed), train, valid, Path(folder), recipe, rates)
        rows = (fold == f).nonzero()[:, 0]
        out[rows] = predict(model, x.ecg, rows, config.crop_samples)
    return out


def judge(
    jepa: Any,
    x: LabelledECGs,
    folds: int = 5,
    least: int = 5,
    number: int = 1000,
    seed: int = 0,
    supervised_steps: int = 0,
    rates: tuple[float, ...] = (1e-4, 1e-3),
) -> dict[str, Any]:
    """The JSON's content. `jepa` is a CardiacJEPA; `supervised_steps` 0: no encoder is trained.

    Raises:
        ValueError: no label that can be judged, or fewer patients than folds.
    """
    group, positives = patients(x), x.label.sum(0)
    enough = (positives >= least) & (len(x.label) - positives >= least)
    if not bool(enough.any()):
        told = ", ".join(f"{n} {int(p)}" for n, p in zip(x.names, positives, strict=True))
        raise ValueError(
            f"no label has {least} of the {len(x.label)} ECGs with it and {least} without ({told}); "
            "give more, or --least"
        )
    label, names = x.label[:, enough], [n for n, e in zip(x.names, enough.tolist(), strict=True) if e]
    rows, config = torch.arange(len(x.ecg)), jepa.config
    jepa.eval()
    h = probes.features(jepa.encoder, x.ecg, rows, config.crop_samples)
    with torch.no_grad():
        z = torch.cat(
            [probes.crop_features(jepa.latent, part.float(), config.crop_samples) for part in x.ecg.split(128)]
        )
    random = fresh_encoder(config, seed)
    settle_norms(random, x.ecg, rows, config.crop_samples)
    inputs = {
        "probe": h,
        "probe_of_latent": z,
        "random_encoder": probes.features(random, x.ecg, rows, config.crop_samples),
        "hand_features": hand_features(x.ecg),
    }
    scores = {name: probes.cross_validated(value, label, group, folds, seed) for name, value in inputs.items()}
    if supervised_steps:
        scores["supervised"] = supervised_scores(x, label, group, config, folds, seed, supervised_steps, rates)
    found = {name: bootstrap_macro(score, label, group, number, seed, least) for name, score in scores.items()}
    return {
        "note": NOTE,
        "source": x.source,
        "records": len(x.ecg),
        "patients": len(group.unique()),
        "left_out": x.skipped,
        "folds": folds,
        "bootstrap_draws": number,
        "macro_auroc": {name: _plain(b.macro) for name, b in found.items()},
        "probe_minus": {name: _plain(difference(found["probe"], b)) for name, b in found.items() if name != "probe"},
        "labels": {
            name: _label(name, names, int(positives[i]), found, least, len(x.ecg)) for i, name in enumerate(x.names)
        },
    }


def _label(
    name: str, names: list[str], positives: int, found: dict[str, Bootstrap], least: int, count: int
) -> dict[str, Any]:
    told: dict[str, Any] = {"positives": positives}
    if name not in names:
        why = f"{positives} of {count} ECGs have it; at least {least} with it and {least} without are needed"
        return told | dict.fromkeys(found) | {"note": why}
    return told | {who: _plain(b.label(names.index(name))) for who, b in found.items()}


def _plain(x: Interval) -> dict[str, float]:
    return {"auroc": x.value, "low": x.low, "high": x.high}


def read_all(a: argparse.Namespace) -> LabelledECGs:
    """The ECGs of every source that was given, joined. Raises ValueError, OSError: unreadable, or no common label."""
    parts = [read_table(a.records, a.labels)] if a.records else []
    parts += [read_ludb(a.ludb)] if a.ludb else []
    parts += [read_challenge(a.challenge)] if a.challenge else []
    return joined(parts)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, help="folder of WFDB records, with --labels")
    parser.add_argument("--labels", type=Path, help="CSV: record, 0/1 a label, patient if they have several ECGs")
    parser.add_argument("--ludb", type=Path, help="folder of LUDB")
    parser.add_argument("--challenge", type=Path, help="folder of Challenge-2021 records")
    parser.add_argument("--ptbxl", type=Path, help="folder of PTB-XL, judged on its published folds")
    parser.add_argument(
        "--halves", action="store_true", help="with --ludb: its odd records tune, its even ones are last"
    )
    parser.add_argument("--one-ecg-a-patient", action="store_true", help="of PTB-XL; default: all, grouped by patient")
    parser.add_argument(
        "--judge-folds", type=int, nargs="+", help="of PTB-XL: 1 2 3 4 5 6 (default), or 7 8 with --final"
    )
    parser.add_argument(
        "--final", action="store_true", help="judge what is kept for the end: once, and nothing after it"
    )
    parser.add_argument("--masked", type=Path, help="folder of a masked autoencoder (benchmarks.progression.masked)")
    parser.add_argument("--work", type=Path, help="folder where training goes on after a kill")
    parser.add_argument("--world", default="cardiac-jepa-small", help="a catalogued cardiac JEPA or its folder")
    parser.add_argument("--out", type=Path, required=True, help="metrics.json")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--least", type=int, default=5, help="ECGs with and without a label for it to be judged")
    parser.add_argument("--resamples", "--draws", type=int, default=1000, help="of the patients")
    parser.add_argument(
        "--supervised", action="store_true", help="also the same encoder trained from scratch in each fold"
    )
    parser.add_argument("--supervised-steps", type=int, default=300)
    parser.add_argument("--supervised-rates", type=float, nargs="+", default=[1e-4, 1e-3], help="validation chooses")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args(argv)
    if (a.records is None) != (a.labels is None):
        parser.error("--records and --labels go together")
    if all(path is None for path in (a.records, a.ludb, a.challenge, a.ptbxl)):
        parser.error("give --records DIR --labels CSV, --ludb DIR, --challenge DIR or --ptbxl DIR")
    for path in (a.records, a.ludb, a.challenge, a.ptbxl, a.masked):
        if path is not None and not path.is_dir():
            parser.error(f"{path} is no folder; check the path")
    _check_halves(a, parser)
    if a.labels is not None and not a.labels.is_file():
        parser.error(f"--labels {a.labels} is no file; check the path")
    if a.folds < 2 or min(a.least, a.resamples, a.supervised_steps, a.threads) < 1:
        parser.error("--folds must be 2 or more; least, resamples, supervised-steps and threads 1 or more")
    return a


def _check_halves(a: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse what would judge the last ECGs by the way, or judge them twice."""
    kept = a.ptbxl is not None or a.halves
    two = (
        a.records or a.challenge or (a.ptbxl is not None) == (a.ludb is not None) or (a.ptbxl is not None and a.halves)
    )
    if kept and two:
        parser.error("--ptbxl DIR and --ludb DIR --halves are judged one at a time, and without other sources")
    if not kept and (a.final or a.judge_folds or a.one_ecg_a_patient or a.masked or a.work):
        parser.error(
            "--final, --judge-folds, --one-ecg-a-patient, --masked and --work go with --ptbxl or --ludb --halves"
        )
    folds = set(a.judge_folds or ())
    if folds and (a.ptbxl is None or folds not in ({1, 2, 3, 4, 5, 6}, {7, 8})):
        parser.error(f"--judge-folds {sorted(folds)}: with --ptbxl, 1 2 3 4 5 6 or 7 8")
    if folds & {7, 8} and not a.final:
        parser.error("folds 7 and 8 are judged once, at the end: add --final, or judge folds 1 to 6")
    if a.final and folds & {1}:
        parser.error("--final judges folds 7 and 8; leave --judge-folds out, or --final")
    if a.final and a.out.exists():
        parser.error(f"--final: {a.out} is there already, and the last ECGs are judged once; keep it, or name another")


def _judge_kept(a: argparse.Namespace, jepa: Any) -> dict[str, Any]:
    """The figures of PTB-XL's published folds, or LUDB's halves."""
    halves = halves_of_ludb(a.ludb, a.final) if a.halves else of_ptbxl(a.ptbxl, a.final, a.one_ecg_a_patient)
    asked = Asked(
        a.final,
        a.least,
        a.resamples,
        a.seed,
        trained=a.supervised,
        rates=tuple(a.supervised_rates),
        masked=a.masked,
        work=a.work,
    )
    return {"note": NOTE, **judge_halves(jepa, halves, asked)}


def told(found: dict[str, Any]) -> str:
    """The JSON in a table."""
    models = list(found["macro_auroc"])
    lines = [
        f"{found['source']}: {found['records']} ECGs of {found['patients']} patients, {found['folds']} folds",
        NOTE,
    ]
    lines.append(f"{'label':<28}{'n':>5}  " + "".join(f"{m:<24}" for m in models))
    for name, row in {"macro": {"positives": "", **found["macro_auroc"]}, **found["labels"]}.items():
        if row[models[0]] is not None:
            cells = (Interval(*(v if v is not None else float("nan") for v in row[m].values())) for m in models)
            lines.append(f"{name:<28}{row['positives']:>5}  " + "".join(f"{str(c):<24}" for c in cells))
    few = [name for name, row in found["labels"].items() if "note" in row]
    return "\n".join([*lines, *([f"too few of: {', '.join(few)}"] if few else [])])


def main(argv: list[str] | None = None) -> int:
    """Judge and write. Returns the exit status: 2 for input that cannot be read."""
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    try:
        world = jepa_world(a.world)
        steps = a.supervised_steps if a.supervised else 0
        kept = a.ptbxl is not None or a.halves
        rest = a.folds, a.least, a.resamples, a.seed, steps, tuple(a.supervised_rates)
        found = _judge_kept(a, world.jepa) if kept else judge(world.jepa, read_all(a), *rest)
        found = {"world": a.world, **found}
        seeds = {"folds, random encoder, bootstrap": a.seed}
        write_json(a.out, rounded(found), made_by("benchmarks.progression.fidelity", argv, seeds, [a.world]))
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(found) if kept else told(found))
    print(a.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
