"""What orders do, in a learned ward and in truth: `python -m benchmarks.ward.effects --world ehr-ward-small`.

Patients of the oracle ward live under the plain clinician, who sees the chart alone, up to a branching point; there
the history branches into one arm with an order and one without (`effect_orders`), all else equal. Truth is the oracle:
the same hidden patient, the same random keys in both arms, the mean of several keys a patient; a patient's unit effect
is the difference of what the target's inquiry reports, whose noise is that of both arms. The learned ward knows the
recorded chart only, and answers with the mean of several paths, the same keys in both arms. Nobody dies or goes home
in the arms, in either world: an effect is that on who stays.

Beside the learned ward's PEHE (root mean square of the error of the unit effect; Hill 2011, doi
10.1198/jcgs.2010.08162) stand those of a model that denies the effect and of one that knows the mean effect on other
patients. `oracle_reliability` is the share of the oracle's unit effects that is the patient and not chance: the square
of the highest correlation anybody can reach.

`--world A B --dial 0 1`: worlds trained on clinicians of different confounding, on the same patients.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.results import RESULTS, made_by, write_csv, write_figure
from benchmarks.ward.effect_orders import CONTRASTS, Contrast, step_of
from benchmarks.ward.effect_scores import effects, reliability, row_of, summary
from benchmarks.ward.mortality import plain
from world_models import catalog, keys, tree
from world_models.ehr_world import ward_rollouts
from world_models.ehr_world.set_outcome.inference import believe
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.oracles.ward.clinician import clinician
from world_models.oracles.ward.world import WardOracle, WardState
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, inquiry_index, intervention_index

__all__ = ["BranchingPatients", "cohort", "judge", "learned_arms", "main", "oracle_arms"]

_I = len(INQUIRIES)
_VITALS = torch.tensor([q.kind == "vital" for q in INQUIRIES])
_HIGH = torch.tensor([float(q.high) for q in INTERVENTIONS])
_SETTING = torch.tensor([q.per_hour is None for q in INTERVENTIONS])
_ROWS = 2400  # of a batch in the learned ward: its log of amounts takes 12 kB a row


class BranchingPatients(NamedTuple):
    """Patients at a branching point."""

    stays: Stays  # what is recorded of them up to there
    state: WardState  # what they are
    chart: dict[str, Tensor]


def cohort(world: WardOracle, key: Tensor, step: int) -> BranchingPatients:
    """Patients with these keys after `step` steps under the plain clinician; the dead and the discharged left out."""
    stays = ward_rollouts.rollout(key, step, orders=plain, world=world)
    state = world.initial(key)
    for _ in range(step):
        state = world.transition(state, clinician(world.observe(state)))
    chart = world.observe(state)
    here = (chart["alive"] > 0.5) & (chart["discharged"] < 0.5)
    return BranchingPatients(*(tree.take(x, here) for x in (stays, state, chart)))


# ---- the arms


def _actions(contrast: Contrast, chart: dict[str, Tensor], step: int, ask: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Orders [B, A] of step 1, 2, ... in the arm without the order and in the one with it."""
    asked = _VITALS.to(torch.float32).clone()
    for name in ask:
        asked[inquiry_index(name)] = 1.0
    given = chart["treatment_share"] * _HIGH * _SETTING
    for name, amount in contrast.beside:
        given[:, intervention_index(name)] = amount
    column = intervention_index(contrast.intervention)
    without, with_it = given.clone(), given.clone()
    without[:, column] = 0.0
    with_it[:, column] = contrast.dose if contrast.given(step) else 0.0
    asked = asked.expand(len(given), -1)
    return torch.cat([asked, without], -1), torch.cat([asked, with_it], -1)


def _steps(contrast: Contrast) -> dict[int, int]:
    """Step -> horizon of the target's inquiries."""
    return {step_of(contrast.target, h): h for h in contrast.horizons_h}


@torch.no_grad()
def oracle_arms(world: WardOracle, contrast: Contrast, who: BranchingPatients, streams: int) -> dict[int, Tensor]:
    """Horizon -> reported target [2, B, streams] of both arms (without, with) in truth; NaN: the specimen was lost."""
    batch, item = len(who.state.key), inquiry_index(contrast.target)
    state = tree.repeat(who.state, streams)
    key = keys.fold(keys.fold(state.key, "effects"), torch.arange(streams).repeat(batch))
    state = world.rekey(state, key)
    arms, out, steps = tree.cat([state, state]), {}, _steps(contrast)
    chart = tree.repeat({"treatment_share": who.chart["treatment_share"]}, streams)
    for step in range(1, max(steps) + 1):
        course = arms.course._replace(
            alive=torch.ones_like(arms.course.alive), discharged=torch.zeros_like(arms.course.discharged)
        )
        pending = arms.records.pending.clone()
        if step in steps:  # an order while a specimen is out would be refused
            pending[:, item] = False
        arms = arms._replace(course=course, records=arms.records._replace(pending=pending))
        action = torch.cat(_actions(contrast, chart, step, [contrast.target] if step in steps else []))
        before = arms.records.pending_drawn_h[:, item]
        arms = world.transition(arms, action)
        if step in steps:
            taken = arms.records.pending_drawn_h[:, item] > before
            value = torch.where(taken, arms.records.pending_value[:, item], float("nan"))
            out[steps[step]] = value.view(2, batch, streams)
    return out


@torch.no_grad()
def learned_arms(model: EHRWorldModel, contrast: Contrast, who: BranchingPatients, paths: int) -> dict[int, Tensor]:
    """The same of a learned ward that knows only the record, [2, B, paths]."""
    item, steps, found = inquiry_index(contrast.target), _steps(contrast), []
    for rows in torch.arange(len(who.state.key)).split(max(1, _ROWS // (2 * paths))):
        part = tree.take(BranchingPatients(*who), rows)
        key = part.state.key
        state = tree.repeat(believe(model, part.stays, key, torch.zeros(len(key))), paths)
        path_key = keys.fold(keys.fold(state.key, "learned effects"), torch.arange(paths).repeat(len(key)))
        state = model.rekey(state, path_key)
        arms, out = tree.cat([state, state]), {}
        chart = tree.repeat({"treatment_share": part.chart["treatment_share"]}, paths)
        there = torch.ones_like(arms.alive)
        for step in range(1, max(steps) + 1):
            pending = arms.pending.clone()
            if step in steps:
                pending[:, item] = False
            arms = arms._replace(alive=there, home=~there, pending=pending)
            action = torch.cat(_actions(contrast, chart, step, [contrast.target] if step in steps else []))
            arms = model.transition(arms, action)
            if step in steps:
                out[steps[step]] = arms.pending_value[:, item].view(2, len(key), paths)
        found.append(out)
    return {h: torch.cat([f[h] for f in found], 1) for h in found[0]}


def judge(
    world: WardOracle,
    models: Sequence[tuple[EHRWorldModel, float]],
    contrast: Contrast,
    judged: BranchingPatients,
    others: BranchingPatients,
    patients: int,
    streams: int,
    paths: int,
) -> list[dict[str, Any]]:
    """Rows of one contrast, every horizon and world; none where fewer than ten patients have a use for the order."""
    chosen = _who(contrast, judged, patients)
    rest = _who(contrast, others, patients)
    if min(len(chosen.state.key), len(rest.state.key)) < 10:
        tqdm.write(
            f"{contrast.intervention}: only {len(chosen.state.key)} patients with {contrast.population}; left out"
        )
        return []
    truth = oracle_arms(world, contrast, chosen, streams)
    other = oracle_arms(world, contrast, rest, max(1, streams // 2))
    drug, target = INTERVENTIONS[intervention_index(contrast.intervention)], INQUIRIES[inquiry_index(contrast.target)]
    rows = []
    for model, dial in models:
        answer = learned_arms(model, contrast, chosen, paths)
        for h in contrast.horizons_h:
            times = "held" if contrast.setting else f"every {contrast.every_h} h" if contrast.every_h else "once"
            rows.append(
                {
                    "intervention": contrast.intervention,
                    "dose": contrast.dose,
                    "dose_unit": drug.unit,
                    "given": times,
                    "target": contrast.target,
                    "unit": target.unit,
                    "horizon_h": h,
                    "primary": int(h == contrast.horizon_h),
                    "population": contrast.population,
                    "why": contrast.why,
                    "model": model.name,
                    "dial": dial,
                    **row_of(effects(truth[h]), effects(answer[h]), float(effects(other[h]).nanmean())),
                    "oracle_reliability": reliability(truth[h]) if streams > 1 else float("nan"),
                    "without_oracle": float(truth[h][0].nanmean()),
                    "without_learned": float(answer[h][0].nanmean()),
                }
            )
    return rows


def _who(contrast: Contrast, among: BranchingPatients, patients: int) -> BranchingPatients:
    rows = contrast.who(among.chart).nonzero().squeeze(-1)[:patients]
    return BranchingPatients(*(tree.take(x, rows) for x in among))


def plot(rows: Sequence[dict[str, Any]], path: Path, made: dict[str, Any]) -> None:
    """Learned against oracle mean effects of the primary rows, each in its oracle's standard deviation or mean."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    primary = [r for r in rows if r["primary"]]
    dials = sorted({r["dial"] for r in primary})
    orders = list(dict.fromkeys(r["intervention"] for r in primary))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 0.27 * len(orders) + 2), gridspec_kw={"width_ratios": [1, 1.15]}
    )
    for i, dial in enumerate(dials):
        mine = [r for r in primary if r["dial"] == dial]
        # |effect| over its own spread between patients and keys: orders of any unit on one axis
        scale = [max(r["unit_sd_oracle"], 0.05 * abs(r["effect_oracle"]), 1e-9) for r in mine]
        x = [r["effect_oracle"] / s for r, s in zip(mine, scale, strict=True)]
        y = [r["effect_learned"] / s for r, s in zip(mine, scale, strict=True)]
        xe = _whiskers(mine, "effect_oracle", "oracle", scale)
        ye = _whiskers(mine, "effect_learned", "learned", scale)
        label = f"confounding dial {dial:g}"
        left.errorbar(x, y, xerr=xe, yerr=ye, fmt="os^"[i % 3], ms=4, lw=0.8, color=f"C{i}", label=label)
        place = [orders.index(r["intervention"]) + 0.22 * (i - (len(dials) - 1) / 2) for r in mine]
        clipped = [min(max(r["ratio"], -1.0), 3.0) for r in mine]
        ends = [
            [max(0.0, c - max(r["ratio_low"], -1.2)) for c, r in zip(clipped, mine, strict=True)],
            [max(0.0, min(r["ratio_high"], 3.2) - c) for c, r in zip(clipped, mine, strict=True)],
        ]
        right.errorbar(clipped, place, xerr=ends, fmt="os^"[i % 3], ms=4, lw=0.8, color=f"C{i}", label=label)
    span = max(max(abs(v) for v in left.get_xlim()), max(abs(v) for v in left.get_ylim()))
    line = torch.linspace(-span, span, 201).tolist()
    left.plot(line, line, color="0.4", lw=0.8)
    left.fill_between(
        line, [0.75 * v for v in line], [1.25 * v for v in line], color="0.9", zorder=0, label="within 25 %"
    )
    left.set_xscale("symlog", linthresh=1.0)
    left.set_yscale("symlog", linthresh=1.0)
    left.set(xlabel="effect in the oracle, SD of unit effects", ylabel="effect in the learned ward, same scale")
    left.legend(loc="upper left", fontsize=8)
    right.axvspan(0.75, 1.25, color="0.9", zorder=0)
    right.axvline(1.0, color="0.4", lw=0.8)
    right.axvline(0.0, color="0.4", lw=0.8, ls=":")
    first = {r["intervention"]: r for r in reversed(primary)}
    names = [f"{o} → {first[o]['target']}, {first[o]['horizon_h']} h" for o in orders]
    right.set_yticks(range(len(orders)), names, fontsize=7)
    right.invert_yaxis()
    right.set(xlim=(-1.2, 3.2), xlabel="learned effect / oracle's (95 % CI over patients; cut at -1 and 3)")
    figure.tight_layout()
    write_figure(path, figure, made, dpi=130)
    plt.close(figure)


def _whiskers(rows: Sequence[dict[str, Any]], mean: str, name: str, scale: Sequence[float]) -> list[list[float]]:
    low = [max(0.0, r[mean] - r[f"{name}_low"]) / s for r, s in zip(rows, scale, strict=True)]
    return [low, [max(0.0, r[f"{name}_high"] - r[mean]) / s for r, s in zip(rows, scale, strict=True)]]


def _line(r: dict[str, Any]) -> str:
    return (
        f"{r['intervention']:26s} {r['target']:19s} {r['horizon_h']:3d} h dial {r['dial']:g} n {r['patients']:4d} "
        f"oracle {r['effect_oracle']:9.3f} learned {r['effect_learned']:9.3f} ratio {r['ratio']:6.2f} "
        f"r {r['unit_correlation']:5.2f} pehe {r['pehe']:.3g} none {r['pehe_no_effect']:.3g} "
        f"mean {r['pehe_population_effect']:.3g}"
    )


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--world", nargs="+", default=["ehr-ward-small"], help="learned wards: names or folders")
    parser.add_argument(
        "--dial", nargs="+", type=float, default=[0.0], help="confounding of each one's training record"
    )
    parser.add_argument("--orders", nargs="+", help="only these interventions")
    parser.add_argument("--candidates", type=int, default=4000, help="patients among whom those of an order are sought")
    parser.add_argument("--patients", type=int, default=150, help="of an order, at most")
    parser.add_argument("--streams", "--lucks", type=int, default=8, help="random keys of a patient in the oracle")
    parser.add_argument("--paths", type=int, default=16, help="of a patient in the learned ward")
    parser.add_argument("--seed", type=int, default=ward_rollouts.TEST_SEED + 100_000, help="of the first patient")
    parser.add_argument("--out", type=Path, default=RESULTS / "effects_ehr_world.csv")
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args(argv)
    if len(a.world) != len(a.dial):
        parser.error(f"{len(a.world)} worlds and {len(a.dial)} dials: give one --dial for each --world")
    if len(set(a.dial)) < len(a.dial):
        parser.error(f"--dial {a.dial}: rows are told apart by the dial, so each must differ")
    unknown = sorted(set(a.orders or []) - {c.intervention for c in CONTRASTS})
    if unknown:
        parser.error(f"no contrast for {', '.join(unknown)}; there are: {', '.join(c.intervention for c in CONTRASTS)}")
    for name in ("candidates", "patients", "streams", "paths"):
        if getattr(a, name) < 1:
            parser.error(f"--{name} {getattr(a, name)} must be at least 1")
    return a


def main(argv: list[str] | None = None) -> None:
    """Judge every order and write table and figure."""
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    models = [(catalog.load(w), d) for w, d in zip(a.world, a.dial, strict=True)]
    for (model, _), name in zip(models, a.world, strict=True):
        if not isinstance(model, EHRWorldModel):
            raise SystemExit(f"--world {name} is no learned ward (set_outcome); name one, or its folder")
    world, rows = WardOracle(), []
    chosen = [c for c in CONTRASTS if not a.orders or c.intervention in a.orders]
    branches = sorted({c.branch for c in chosen})
    judged = {s: cohort(world, keys.from_seed(a.seed, a.candidates), s) for s in branches}
    others = {s: cohort(world, keys.from_seed(a.seed + a.candidates, a.candidates), s) for s in branches}
    for contrast in tqdm(chosen, desc="orders", mininterval=1):
        at = contrast.branch
        found = judge(world, models, contrast, judged[at], others[at], a.patients, a.streams, a.paths)
        rows += found
        for r in found:
            if r["primary"]:
                tqdm.write(_line(r))
    if not rows:
        raise SystemExit(f"no order found ten patients among {a.candidates} candidates; raise --candidates")
    ends = [summary(rows, dial) for dial in a.dial]
    rows += ends
    seeds = {"first judged patient": a.seed, "first of the others": a.seed + a.candidates, "bootstrap": 31}
    made = made_by("benchmarks.ward.effects", argv, seeds, ["ward-oracle", *a.world])
    write_csv(a.out, rows, made)
    plot(rows, a.out.with_suffix(".png"), made)
    for r in ends:
        print(f"dial {r['dial']:g}: {r['population']}; median unit correlation {r['unit_correlation']:.2f}")


if __name__ == "__main__":
    main()
