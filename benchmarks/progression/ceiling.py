"""How well could anybody foretell these latents? `python -m benchmarks.progression.ceiling --world cardiac-jepa-small`.

The progression oracle knows what a model cannot, so it can say how far short of the possible a model falls. Fresh
patients of the oracle (a seed of their own), latents of whole records by the world's encoder.

_error.csv   changed pairs of visits: mean-square error of the next latent as the model foretells it, with the true
             action and with none; the same for a foreseer who knows the person (anatomy, every form of disease that
             the first visit could show) and neither the day's chance nor the form of what has yet to come: the mean
             over --many ECGs, with the variance of that mean taken off. The foreseer's error with no action is that
             of the mean over ECGs of the first visit. Ratios with 95 % intervals over patients.
_onset.csv   the onset of one code in patients without it whose ECG is not read as having it, all else the same: share
             read as having it by the world's probe and threshold in the model's foretold latent, in the latent of the
             oracle's ECG after that onset, and in the mean over --many of those. What the oracle's own ECG does not
             show, no faithful model can foretell.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.intervals import ratio_interval
from benchmarks.common.results import RESULTS, made_by, write_tables
from benchmarks.progression.actions import jepa_world
from world_models import keys, tree
from world_models.cardiac_jepa.model import Reader
from world_models.oracles.progression.ecg.shown import FORMS, Shown, shown_on_ecg
from world_models.oracles.progression.ecg.synthesis import synthesise_progression_ecg
from world_models.oracles.progression.visits import MOST_VISITS, Visits, consecutive, make_visits
from world_models.quantities.progression import CODES

__all__ = ["errors", "main", "onsets", "redrawn"]

SEED, OTHERS_SEED = 7_000_000, 7_500_000
# whose ECG shows a form that goes by another name than its code
OF_FORM = {"territory": ("I21", "I25"), "pathway": ("I45",), "ectopic": ("I49",)}


def redrawn(key: Tensor, other: Tensor, t: Tensor, had: Tensor, condition: Tensor) -> Shown:
    """What ECGs [B] show if conditions not among `had` [B, C] take the forms and the visibility of other persons."""
    mine, theirs = shown_on_ecg(key, t, condition), shown_on_ecg(other, t, condition)
    forms = {}
    for name in FORMS:
        known = had[:, [CODES.index(c) for c in OF_FORM.get(name, (name,))]].any(1)
        forms[name] = torch.where(known, mine.forms[name], theirs.forms[name])
    return mine._replace(weight=torch.where(had, mine.weight, theirs.weight), forms=forms)


def _latents(reader: Reader, who: Visits, had: Tensor | None = None, day: int = 0, chunk: int = 512) -> Tensor:
    """[N, Z] of ECGs of these visits; `day` above 0: on another day. `had`: forms of all else are another person's."""
    out = []
    others = keys.from_seed(OTHERS_SEED + day * len(who.key), len(who.key))
    for rows in torch.arange(len(who.key)).split(chunk):
        v = tree.take(who, rows)
        t = v.t + MOST_VISITS * day
        shown = None if had is None else redrawn(v.key, others[rows], t, had[rows], v.condition)
        ecg = synthesise_progression_ecg(v.key, t, v.condition, v.age_years, v.sex_female, v.treated, shown=shown)
        out.append(reader.latents(ecg))
    return torch.cat(out)


def _of_many_days(reader: Reader, who: Visits, many: int, had: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean latent [N, Z] of `many` days, and the mean square by which it misses the mean of all days, [N]."""
    drawn = torch.stack([_latents(reader, who, had, 1 + i) for i in tqdm(range(many), desc="days", leave=False)])
    return drawn.mean(0), drawn.var(0).mean(1) / many


@torch.no_grad()
def errors(world: Any, visits: Visits, many: int, most: int, number: int, seed: int) -> list[dict[str, Any]]:
    """Rows of _error.csv."""
    pairs = consecutive(visits)
    pairs = pairs[(visits.condition[pairs[:, 0]] != visits.condition[pairs[:, 1]]).any(1)]
    pairs = pairs[torch.linspace(0, len(pairs) - 1, min(most, len(pairs))).long()]
    before, after = (tree.take(visits, rows) for rows in pairs.unbind(1))
    reader, jepa = world.reader, world.jepa
    z_a, z_b = _latents(reader, before), _latents(reader, after)
    action, days = after.condition.float() - before.condition.float(), after.days - before.days
    ideal, spread = _of_many_days(reader, after, many, before.condition)
    still, spread_still = _of_many_days(reader, before, many)
    told = {
        "model": (
            (jepa.predict(z_a, action, days) - z_b).square().mean(1),
            (jepa.predict(z_a, action * 0, days) - z_b).square().mean(1),
        ),
        "who knows the person": (
            (ideal - z_b).square().mean(1) - spread,
            (still - z_b).square().mean(1) - spread_still,
        ),
    }
    starts, ends = (action > 0).any(1), (action < 0).any(1)
    rows = []
    for change, mine in (
        ("any", starts | ends),
        ("onsets alone", starts & ~ends),
        ("resolutions alone", ends & ~starts),
    ):
        for who, (true, none) in told.items():
            found = ratio_interval(true[mine], none[mine], before.patient[mine], number, seed)._asdict()
            n = {"pairs": int(mine.sum()), "patients": len(before.patient[mine].unique())}
            error = {"error_true_action": float(true[mine].mean()), "error_no_action": float(none[mine].mean())}
            rows.append(
                {"change": change, "foretold_by": who, **error, **{f"ratio_{k}": x for k, x in found.items()}, **n}
            )
    return rows


@torch.no_grad()
def onsets(world: Any, visits: Visits, many: int, most: int) -> list[dict[str, Any]]:
    """Rows of _onset.csv."""
    reader = world.reader
    some = tree.take(visits, torch.linspace(0, len(visits.key) - 1, min(most, len(visits.key))).long())
    z = _latents(reader, some)
    read = reader.chances(z) >= reader.threshold
    rows: list[dict[str, Any]] = []
    for c, code in enumerate(tqdm(CODES, desc="onsets")):
        mine = (~some.condition[:, c] & ~read[:, c]).nonzero()[:, 0]
        if not len(mine):
            continue
        who = tree.take(some, mine)
        action = torch.zeros(len(mine), len(CODES))
        action[:, c] = 1
        later = who._replace(condition=who.condition | action.bool())
        foretold = world.jepa.predict(z[mine], action, torch.full((len(mine),), 180.0))
        found = {"model": foretold, "oracle_ecg": _latents(reader, later, day=many + 1)}
        found["mean_of_oracle_ecgs"] = _of_many_days(reader, later, many)[0]
        row: dict[str, Any] = {"code": code, "cases": len(mine), "threshold": float(reader.threshold[c])}
        for name, latent in found.items():
            chance = reader.chances(latent)[:, c]
            row |= {f"read_in_{name}": float((chance >= reader.threshold[c]).float().mean())}
        rows.append(row)
    total: dict[str, Any] = {"code": "all, pooled", "cases": sum(r["cases"] for r in rows)}
    for name in [n for n in rows[0] if n.startswith("read_in")]:
        total[name] = sum(r[name] * r["cases"] for r in rows) / total["cases"]
    plain: dict[str, Any] = {"code": "all, mean over codes", "cases": ""}
    plain |= {name: sum(r[name] for r in rows) / len(rows) for name in total if name.startswith("read_in")}
    return [*rows, total, plain]


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--world", default="cardiac-jepa-small", help="a catalogued world or its folder")
    parser.add_argument("--patients", type=int, default=3000)
    parser.add_argument("--pairs", type=int, default=1200, help="changed pairs at most")
    parser.add_argument("--ecgs", type=int, default=300, help="visits at most that every onset is tried on")
    parser.add_argument("--many", type=int, default=8, help="days on which each ECG is taken, 2 or more")
    parser.add_argument("--resamples", "--draws", type=int, default=1000, help="of the patients")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "cardiac_jepa_ceiling", help="PREFIX of the results")
    a = parser.parse_args(argv)
    for name, least in (("patients", 10), ("pairs", 2), ("ecgs", 2), ("many", 2), ("resamples", 1), ("threads", 1)):
        if getattr(a, name) < least:
            parser.error(f"--{name} is {getattr(a, name)}; give {least} or more")
    return a


def main(argv: list[str] | None = None) -> int:
    """Write both tables. Returns the exit status: 2 for a world that cannot be used."""
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    try:
        world = jepa_world(a.world)
        if tuple(world.codes) != tuple(CODES):
            raise ValueError(f"world {a.world!r} has other codes than the oracle; train one on the oracle's")
        visits = make_visits(a.seed, a.patients, "hospital")
        made = {
            "error": errors(world, visits, a.many, a.pairs, a.resamples, 0),
            "onset": onsets(world, visits, a.many, a.ecgs),
        }
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seeds = {"patients": a.seed, "other persons": OTHERS_SEED, "bootstrap": 0}
    told = made_by("benchmarks.progression.ceiling", argv, seeds, ["progression-oracle", a.world])
    write_tables(a.out, made, told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
