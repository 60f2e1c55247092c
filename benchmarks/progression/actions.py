"""Does a cardiac JEPA use its actions? `python -m benchmarks.progression.actions --world NAME --data FILE.h5`.

On the test patients (fold 19) of a monolith. Labels are read off the latent z by the world's own linear probe and
thresholds, or by a probe fitted on folds 0-17 with thresholds from fold 18 (`--threshold`: Youden's, or as many read as
have the label).

_error.csv     squared error of the predicted latent on changed pairs with the true action, none, and another changed
               pair's; ratios with 95 % intervals over patients; all, and for each code that starts or resolves.
_onset.csv     constructed: test ECGs without a code and not read as having it, its onset applied, read again; beside it
               another code's onset. others_stay: every other label is read as before. recorded: pairs in whose record
               just that onset happened, read in the predicted latent and in the latent of the real next ECG.
_rollout.csv   a chain of visits, the patient's recorded transitions and then drawn ones: the nearest in labels of 128
               recorded pairs, whatever is impossible left out; effective rank, and the probe's macro AUROC against
               the labels of that visit.
_reversal.csv  |Dyn(Dyn(z, a), -a) - z|^2 / |Dyn(z, a) - z|^2, for changes that nature undoes and those it does not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.intervals import ratio_interval
from benchmarks.common.results import RESULTS, made_by, write_tables
from benchmarks.progression.arms import SplitCohort, cohort_of
from world_models import catalog, keys
from world_models.cardiac_jepa import probes
from world_models.cardiac_jepa.auroc import auroc, judged_labels, macro_auroc
from world_models.cardiac_jepa.collapse import effective_rank
from world_models.cardiac_jepa.dynamics import reversible
from world_models.cardiac_jepa.jepa import CardiacJEPA
from world_models.cardiac_jepa.model import CardiacJEPAWorld, Reader
from world_models.cardiac_jepa.reading import ReadOracle
from world_models.data.ecg.monolith import read_monolith
from world_models.quantities.progression import IRREVERSIBLE

__all__ = ["Read", "Setup", "errors", "jepa_world", "latents", "main", "onsets", "reversals", "rollout", "set_up"]

CANDIDATES = 128  # recorded pairs that a drawn transition is chosen from
FEWEST = 20  # cases of a code for a row of its own


class Setup(NamedTuple):
    """A model, the cohort, its latents, and what reads labels from them."""

    jepa: CardiacJEPA
    cohort: SplitCohort
    z: Tensor  # [N, Z] of the test rows; zeros elsewhere
    probe: probes.Probe
    threshold: Tensor  # [C] on the probe's logits; NaN: the label cannot be read
    number: int  # resamples of the patients, for intervals
    seed: int

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """Rows of the test patients' consecutive pairs."""
        c = self.cohort
        keep = torch.isin(c.first, c.test)
        return c.first[keep], c.second[keep]


class Read(NamedTuple):
    """Decisions [B, C] that the probe takes on latents."""

    logits: Tensor
    has: Tensor  # bool; False where there is no threshold


def jepa_world(name: str) -> CardiacJEPAWorld | ReadOracle:
    """A catalogued world with a JEPA, or that of a folder.

    Raises:
        ValueError: it has none.
    """
    world = catalog.load(name)
    if not isinstance(world, CardiacJEPAWorld | ReadOracle):
        raise ValueError(f"world {name!r} is no cardiac JEPA; name one, such as cardiac-jepa-small, or its folder")
    return world


def latents(jepa: CardiacJEPA, ecg: Tensor, rows: Tensor, batch: int = 128) -> Tensor:
    """z [M, Z] of rows of ECGs: the mean over the crops that tile a record, as the world's reader takes it."""
    with torch.no_grad():
        parts = [
            probes.crop_features(jepa.latent, ecg[some].float(), jepa.config.crop_samples) for some in rows.split(batch)
        ]
    return torch.cat(parts)


def set_up(
    jepa: CardiacJEPA,
    cohort: SplitCohort,
    reader: Reader | None = None,
    rows: int = 20_000,
    threshold: str = "youden",
    number: int = 1000,
    seed: int = 0,
) -> Setup:
    """Latents of the test ECGs, and what reads them.

    Args:
        reader: its probe and thresholds are used; None: a probe of at most `rows` training ECGs, with thresholds of
            fold 18 by `threshold`, "youden" or "prevalence".

    Raises:
        ValueError: the model's codes are not the data's.
    """
    m = cohort.data
    if tuple(jepa.config.codes) != tuple(m.codes):
        lacking = sorted(set(jepa.config.codes) ^ set(m.codes))
        raise ValueError(
            f"model and data name other codes or another order; in one of them only: {', '.join(lacking) or 'none'}"
        )
    jepa.eval()
    z = torch.zeros(len(m.ecg), jepa.config.latent)
    z[cohort.test] = latents(jepa, m.ecg, cohort.test)
    if reader is not None:
        return Setup(jepa, cohort, z, reader.probe, torch.logit(reader.threshold), number, seed)
    train, valid = (r[torch.linspace(0, len(r) - 1, min(rows, len(r))).long()] for r in (cohort.train, cohort.valid))
    z_valid = latents(jepa, m.ecg, valid)
    probe = probes.fit_probe(latents(jepa, m.ecg, train), m.label[train], (z_valid, m.label[valid]))
    score = probes.apply(probe, z_valid)
    limit = probes.youden(score, m.label[valid]) if threshold == "youden" else _as_many(score, m.label[valid])
    return Setup(jepa, cohort, z, probe, limit, number, seed)


def _as_many(score: Tensor, label: Tensor) -> Tensor:
    """Thresholds at which as many are read as have the label; NaN where none or all have it."""
    out = torch.full((score.shape[1],), float("nan"))
    for c, count in enumerate(label.sum(0).tolist()):
        if 0 < count < len(label):
            out[c] = score[:, c].sort(descending=True).values[count - 1]
    return out


def read(s: Setup, z: Tensor) -> Read:
    """What the probe reads in latents [B, Z]."""
    logits = probes.apply(s.probe, z)
    return Read(logits, logits >= s.threshold)  # a NaN threshold reads nothing


@torch.no_grad()
def predict(s: Setup, z: Tensor, action: Tensor, days: Tensor) -> Tensor:
    """Latents [B, Z] after actions [B, C] over days [B]."""
    parts = zip(z.split(4096), action.float().split(4096), days.float().split(4096), strict=True)
    return torch.cat([s.jepa.predict(*part) for part in parts])


def errors(s: Setup) -> list[dict[str, Any]]:
    """Rows of _error.csv."""
    m = s.cohort.data
    first, second = s.pairs
    action = m.label[second].float() - m.label[first].float()
    changed = (action != 0).any(1)
    if int(changed.sum()) < 2:
        raise ValueError(f"{int(changed.sum())} changed pairs among the test patients; give more patients")
    first, second, action = first[changed], second[changed], action[changed]
    days, patient = m.days[second] - m.days[first], m.patient[first]
    order = keys.uniform(keys.from_seed(s.seed), 0, "other pair", (len(first),))[0].argsort()
    other = torch.empty_like(order)
    other[order] = order.roll(1)  # one cycle: nobody keeps his own

    def error(a: Tensor) -> Tensor:
        return (predict(s, s.z[first], a, days) - s.z[second]).square().mean(1)

    true, none, shuffled = error(action), error(torch.zeros_like(action)), error(action[other])
    still = (s.z[first] - s.z[second]).square().mean(1)
    against = {"true / zero action": none, "true / shuffled action": shuffled, "true / persistence": still}
    rows = []
    which = {("all", "changed"): torch.ones(len(first), dtype=torch.bool)}
    for c, code in enumerate(m.codes):
        which |= {(code, "onset"): action[:, c] > 0, (code, "resolution"): action[:, c] < 0}
        which[code, "onset alone"] = (action[:, c] > 0) & (action.abs().sum(1) == 1)
    for (code, change), mine in which.items():
        if int(mine.sum()) >= (2 if code == "all" else FEWEST):
            n = {"pairs": int(mine.sum()), "patients": len(patient[mine].unique())}
            for name, rival in against.items():
                found = ratio_interval(true[mine], rival[mine], patient[mine], s.number, s.seed)._asdict()
                told = {"error_true": float(true[mine].mean()), "error_other": float(rival[mine].mean())}
                rows.append({"code": code, "change": change, "ratio": name, **found, **told, **n})
    return rows


def onsets(s: Setup, most: int = 1000) -> list[dict[str, Any]]:
    """Rows of _onset.csv: each code that can be read, then all of them together."""
    m = s.cohort.data
    first, second = s.pairs
    action = m.label[second].long() - m.label[first].long()
    days = m.days[second] - m.days[first]
    counts = m.label[s.cohort.test].sum(0)
    area = auroc(probes.apply(s.probe, s.z[s.cohort.test]), m.label[s.cohort.test])
    can = [c for c in range(len(m.codes)) if s.threshold[c] == s.threshold[c]]
    rows: list[dict[str, Any]] = []
    for c in can:
        others = [i for i in can if i != c]
        usual = days[action[:, c] > 0]
        gap = float((usual if len(usual) else days).median()) if len(days) else 180.0
        without = s.cohort.test[~m.label[s.cohort.test, c]]
        without = (
            without[torch.linspace(0, len(without) - 1, min(most, len(without))).long()] if len(without) else without
        )
        row: dict[str, Any] = {"code": m.codes[c], "irreversible": m.codes[c] in IRREVERSIBLE}
        row |= {"test_ecgs_with": int(counts[c]), "probe_auroc": float(area[c]), "days": gap}
        if len(without):
            row |= _constructed(s, without, c, others, gap)
        just = (action[:, c] == 1) & (action.abs().sum(1) == 1)
        row |= {"recorded": int(just.sum())}
        if bool(just.any()):
            z = predict(s, s.z[first[just]], action[just], days[just])
            row["recorded_read_before"] = float(read(s, s.z[first[just]]).has[:, c].float().mean())
            row["recorded_read_predicted"] = float(read(s, z).has[:, c].float().mean())
            row["recorded_read_in_next_ecg"] = float(read(s, s.z[second[just]]).has[:, c].float().mean())
        rows.append(row)
    total: dict[str, Any] = {"code": "all, mean over codes"}
    shares = [n for row in rows for n in row if n.startswith(("onset_", "control_", "others_"))]
    for name in dict.fromkeys(
        [*shares, "recorded_read_before", "recorded_read_predicted", "recorded_read_in_next_ecg"]
    ):
        known = [row[name] for row in rows if isinstance(row.get(name), float)]
        total[name] = sum(known) / len(known) if known else ""
    for name, share, weight in (
        ("onset_read_if_others_stay_pooled", "onset_read_if_others_stay", "cases_others_stay"),
        ("recorded_read_predicted_pooled", "recorded_read_predicted", "recorded"),
        ("recorded_read_in_next_ecg_pooled", "recorded_read_in_next_ecg", "recorded"),
    ):
        cases = [(row[share], row[weight]) for row in rows if isinstance(row.get(share), float)]
        total[name] = sum(x * n for x, n in cases) / sum(n for _, n in cases) if cases else ""
    return [*rows, total]


def _constructed(s: Setup, rows: Tensor, c: int, others: list[int], gap: float) -> dict[str, Any]:
    """The onset of code c in ECGs [B] that lack it, read before and after; and another absent code's onset."""
    label, z = s.cohort.data.label[rows], s.z[rows]
    before = read(s, z)
    eligible = ~before.has[:, c]
    label, z, before = label[eligible], z[eligible], Read(*(x[eligible] for x in before))
    told: dict[str, Any] = {"cases": len(z)}
    if not len(z):
        return told
    action = torch.zeros(label.shape)
    action[:, c] = 1
    days = torch.full((len(z),), gap)
    after = read(s, predict(s, z, action, days))
    stay = (before.has[:, others] == after.has[:, others]).all(1)
    chance = keys.uniform(keys.from_seed(s.seed), c, "other onset", tuple(label.shape))[0].masked_fill(label, -1.0)
    chance[:, c] = -1.0
    another = torch.zeros(label.shape).scatter_(1, chance.argmax(1, keepdim=True), 1.0)
    control = read(s, predict(s, z, another, days))
    same = (before.has[:, others] == control.has[:, others]).all(1)
    told |= {"cases_others_stay": int(stay.sum()), "others_stay": float(stay.float().mean())}
    told["others_kept"] = float((before.has[:, others] == after.has[:, others]).float().mean()) if others else 1.0
    told["onset_read"] = float(after.has[:, c].float().mean())
    told["control_read"] = float(control.has[:, c].float().mean())
    if bool(stay.any()):
        told["onset_read_if_others_stay"] = float(after.has[stay, c].float().mean())
    if bool(same.any()):
        told["control_read_if_others_stay"] = float(control.has[same, c].float().mean())
    told["logit_change"] = float((after.logits - before.logits)[:, c].mean())
    return told


def rollout(s: Setup, visits: int = 20, most: int = 4000) -> list[dict[str, Any]]:
    """Rows of _rollout.csv: visit 0 (the encoded first ECGs) to the last."""
    m = s.cohort.data
    test = s.cohort.test
    order = test[torch.from_numpy(np.lexsort((m.days[test].numpy(), m.patient[test].numpy())))]
    start = torch.ones(len(order), dtype=torch.bool)
    start[1:] = m.patient[order[1:]] != m.patient[order[:-1]]
    place = start.nonzero()[:most, 0]
    pool_a, pool_b = s.cohort.first, s.cohort.second
    keep = torch.isin(pool_a, s.cohort.train)
    pool_a, pool_b = pool_a[keep], pool_b[keep]
    if not len(pool_a):
        raise ValueError("no training pairs to draw transitions from; give patients with more than one ECG")
    irreversible = torch.tensor([code in IRREVERSIBLE for code in m.codes])
    row, z, label = order[place], s.z[order[place]], m.label[order[place]].clone()
    judged = judged_labels(label, 10)
    key = keys.fold(keys.from_seed(s.seed), "rollout").expand(len(place))
    key = keys.fold(key, torch.arange(len(place)))
    followed = torch.ones(len(place), dtype=torch.bool)
    rows = [_visit(s, 0, z, label, judged, 1.0)]
    for k in range(1, visits + 1):
        nxt = (place + k).clamp(max=len(order) - 1)
        followed &= (place + k < len(order)) & (m.patient[order[nxt]] == m.patient[row])
        then = m.label[order[nxt]]
        gap = m.days[order[nxt]] - m.days[order[(place + k - 1).clamp(max=len(order) - 1)]]
        some = keys.bits(key, k, "candidates", (CANDIDATES,)) % len(pool_a)
        far = (m.label[pool_a[some]] != label[:, None]).sum(-1)
        near = some.gather(1, far.argmin(1, keepdim=True))[:, 0]
        change = m.label[pool_b[near]].long() - m.label[pool_a[near]].long()
        made = torch.where(change > 0, True, torch.where((change < 0) & ~irreversible, False, label))
        then = torch.where(followed[:, None], then, made)
        days = torch.where(followed, gap, m.days[pool_b[near]] - m.days[pool_a[near]])
        z = predict(s, z, then.long() - label.long(), days)
        label = then
        rows.append(_visit(s, k, z, label, judged, float(followed.float().mean())))
    for r in rows[1:]:
        r |= {"rank_to_one_step": r["effective_rank"] / rows[1]["effective_rank"]}
        r |= {"auroc_to_one_step": r["probe_macro_auroc"] / rows[1]["probe_macro_auroc"]}
    return rows


def _visit(s: Setup, k: int, z: Tensor, label: Tensor, judged: Tensor, followed: float) -> dict[str, Any]:
    score = probes.apply(s.probe, z)[:, judged]
    return {
        "visit": k,
        "patients": len(z),
        "recorded_share": followed,
        "effective_rank": effective_rank(z),
        "std": float(z.std(0).mean()),
        "probe_macro_auroc": macro_auroc(score, label[:, judged], 10),
        "labels_a_patient": float(label.float().sum(1).mean()),
    }


def reversals(s: Setup) -> list[dict[str, Any]]:
    """Rows of _reversal.csv: changed test pairs, by whether -a may follow a."""
    m = s.cohort.data
    first, second = s.pairs
    action = m.label[second].float() - m.label[first].float()
    changed = (action != 0).any(1)
    first, second, action = first[changed], second[changed], action[changed]
    days, z = m.days[second] - m.days[first], s.z[first]
    there = predict(s, z, action, days)
    back = predict(s, there, -action, days)
    moved, left = (there - z).square().mean(1), (back - z).square().mean(1)
    may = reversible(action, m.codes)
    rows = []
    for name, mine in (("may be undone", may), ("may not be undone", ~may), ("all", torch.ones_like(may))):
        if bool(mine.any()):
            found = ratio_interval(left[mine], moved[mine], m.patient[first][mine], s.number, s.seed)._asdict()
            rows.append(
                {"changes": name, "pairs": int(mine.sum()), **{f"reversal_error_{n}": x for n, x in found.items()}}
            )
    return rows


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--world", default="cardiac-jepa-small", help="a catalogued world or its folder")
    parser.add_argument(
        "--data", type=Path, required=True, help="a monolith of patients that the world was not trained on in fold 19"
    )
    parser.add_argument(
        "--threshold",
        choices=("world", "youden", "prevalence"),
        default="world",
        help="world: its own probe and thresholds; the others: a probe fitted here, thresholds from fold 18",
    )
    parser.add_argument("--visits", type=int, default=20)
    parser.add_argument(
        "--probe-rows", type=int, default=20_000, help="training ECGs that the probe is fitted on at most"
    )
    parser.add_argument("--resamples", "--draws", type=int, default=1000, help="of the patients, for intervals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "cardiac_jepa_actions", help="PREFIX of the results")
    a = parser.parse_args(argv)
    if not a.data.is_file():
        parser.error(f"--data {a.data} is no file; check the path")
    if min(a.visits, a.probe_rows, a.resamples, a.threads) < 1:
        parser.error("visits, probe-rows, resamples and threads must be 1 or more")
    return a


def main(argv: list[str] | None = None) -> int:
    """Write the four tables. Returns the exit status: 2 for a world or data that cannot be used."""
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    try:
        world = jepa_world(a.world)
        reader = world.reader if a.threshold == "world" else None
        s = set_up(world.jepa, cohort_of(read_monolith(a.data)), reader, a.probe_rows, a.threshold, a.resamples, a.seed)
        made = {"error": errors(s), "onset": onsets(s), "rollout": rollout(s, a.visits), "reversal": reversals(s)}
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    told = made_by("benchmarks.progression.actions", argv, {"other pairs, chains, bootstrap": a.seed}, [a.world])
    write_tables(a.out, made, told, {"error": 3})
    return 0


if __name__ == "__main__":
    sys.exit(main())
