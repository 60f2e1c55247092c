"""Which drug was given, and how much: inverse dynamics beside the oracle's own posterior, and on a real trial.

    python -m benchmarks.ecg_drug.inverse [--weights FOLDER] [--trial CSV] [--patients N] [--out DIR]

Writes inverse.csv (simulated pairs that no training met) and inverse_trial.csv (ECGRDVQ: the weights were trained on
the oracle, whose population was fitted to this trial; no pair of it was trained on). Only what an ECG holds is shown
(no cuff pressure, no burden), and age, sex, weight; hours are those since the dose.

- "drug right" is the likeliest of nothing and the four drugs, equally likely beforehand as in training (nothing 0.2).
- "dose" is the posterior's median, for the drug that was given, against the dose that was given, any from 0.15 of the
  trial's single dose to the order's limit; "menu right" is the likeliest entry of the environment's menu among pairs
  whose order stands on it.
- "6 ECGs": the mean log-probability of six pairs that share their first ECG (accuracy; no calibrated probability).
- "bound": the posterior that the oracle itself implies, by Monte Carlo: for a pair's own first chart and cohort,
  patients are drawn (kinetics, sensitivities, variation), each takes every drug in every dose and, with the same luck,
  nothing; the differences are what drugs do, and what is left is normal. It knows the cohort, which the network does
  not; with few draws it is noisier than what it bounds, so read it as a floor of what can be reached, beside the
  network. It is shown for pairs with a large effect alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.intervals import wilson
from benchmarks.common.results import RESULTS, TRIAL_FIT, made_by
from benchmarks.ecg_drug.delineation import write
from world_models import keys, tree
from world_models.checkpoint import WEIGHTS
from world_models.ecg_wm import latent
from world_models.ecg_wm.courses import oracle_of
from world_models.ecg_wm.inverse import ECG_ONLY, SHIPPED, Inferred, InverseDynamics, menu_probabilities, project_dose
from world_models.ecg_wm.transitions import (
    COVARIATES,
    HOURS,
    NOTHING_SHARE,
    Transition,
    dose_limits,
    oracle_pairs,
    pooled,
    sample_transitions,
)
from world_models.inputs import admit
from world_models.oracles.ecg_drug.cohorts import COHORTS
from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.quantities.ecg_drug import DRUGS

TEST_SEED, BOUND_SEED, DRAW_SEED, MENU_SEED = 7_100_000_000, 7_200_000_000, 7_300_000_000, 7_400_000_000
LARGE_MS = 20.0  # of QTcF: from where on the target holds
WITHIN = 0.25
TARGET = 0.9
DOSES, DRAWS = 8, 1024  # of the Monte Carlo posterior
SERIES_SEED, SERIES_H, SERIES_STEPS = 7_500_000_000, 1.0, 6  # several ECGs after one dose
BOUND_COHORTS, BOUND_HOURS = ("healthy", "typical"), (2.0, 4.0)
FIRST_CHART = {f"baseline_{n}": n for n in ("heart_rate_bpm", "pr_ms", "qrs_ms", "qtcf_ms", "tpeak_tend_ms")}
FIRST_CHART |= {f"baseline_{n}": n for n in latent.T_WAVE}
FIRST_CHART |= {"age_years": "age_years", "sex_female": "sex_female", "weight_kg": "weight_kg"}
FIRST_CHART |= {"admission_clock_hour": "clock_hour"}


def ecg_only(data: Transition) -> Transition:
    """The pairs with only what two ECGs hold."""
    lost = ~torch.tensor(ECG_ONLY)
    return data._replace(before=data.before.masked_fill(lost, torch.nan), after=data.after.masked_fill(lost, torch.nan))


def _infer(model: InverseDynamics, data: Transition) -> Inferred:
    return model.infer(data.before, data.after, data.hours, data.covariates)


def median_dose(found: Inferred, drug: Tensor) -> Tensor:
    """The posterior's median dose [B] of the drug [B] that was given."""
    sure = torch.nn.functional.one_hot(drug, found.drug.shape[-1]).to(found.drug.dtype)
    return project_dose(found._replace(drug=sure)).amax(-1)


def _calibration(drug: Tensor, truth: Tensor, bins: int = 10) -> float:
    """Expected calibration error of the likeliest answer."""
    sure, said = drug.max(-1)
    right = (said == truth).double()
    place = (sure * bins).long().clamp_max(bins - 1)
    off = 0.0
    for k in range(bins):
        inside = place == k
        if inside.any():
            off += float(inside.double().mean()) * abs(float(right[inside].mean() - sure[inside].double().mean()))
    return off


def row_of(what: str, method: str, found: Inferred, data: Transition, chosen: Tensor) -> dict:
    """One row of the table over the pairs `chosen` [B] bool."""
    drug, truth = found.drug[chosen], data.drug[chosen]
    right = drug.argmax(-1) == truth
    low, high = wilson(int(right.sum()), len(right))
    given = chosen & (data.drug > 0)
    off = (median_dose(found, data.drug)[given] / data.dose_mg[given] - 1.0).abs()
    k_block = torch.isin(truth, torch.tensor([1 + DRUGS.index(n) for n in ("dofetilide", "quinidine")]))
    says_block = torch.isin(drug.argmax(-1), torch.tensor([1 + DRUGS.index(n) for n in ("dofetilide", "quinidine")]))
    return {
        "pairs_of": what,
        "method": method,
        "pairs": len(right),
        "drug_right": round(float(right.double().mean()), 3),
        "ci_low": round(low, 3),
        "ci_high": round(high, 3),
        "ikr_blockers_confused": round(float((k_block & says_block & ~right).double().mean()), 3),
        "log_loss_nats": round(float(-drug.gather(-1, truth[:, None]).clamp_min(1e-12).log().mean()), 3),
        "calibration_error": round(_calibration(drug, truth), 3),
        "dose_median_off": round(float(off.median()), 3) if len(off) else "",
        f"dose_within_{round(100 * WITHIN)}_percent": round(float((off <= WITHIN).double().mean()), 3)
        if len(off)
        else "",
    }


def _rows(what: str, method: str, found: Inferred, data: Transition) -> list[dict]:
    """All pairs, and by drug those with a large effect."""
    large = data.effect_ms > LARGE_MS
    parts = [(f"{what}, all", torch.ones_like(large)), (f"{what}, effect over {LARGE_MS:g} ms", large)]
    parts += [
        (f"{what}, effect over {LARGE_MS:g} ms, {name}", large & (data.drug == 1 + i)) for i, name in enumerate(DRUGS)
    ]
    return [row_of(words, method, found, data, chosen) for words, chosen in parts if int(chosen.sum()) >= 20]


def simulated(model: InverseDynamics, each: int) -> list[dict]:
    """Rows on `each` pairs for every number of hours, all cohorts; and on single orders of the menu."""
    whole = pooled(TEST_SEED, each)
    data = ecg_only(whole)
    rows = _rows("simulated", "network", _infer(model, data), data)
    rows += [r for r in _rows("simulated, with pressure and burden", "network", _infer(model, whole), whole)][:2]
    no_t = torch.tensor([name in latent.T_WAVE for name in latent.COORDINATES])
    bare = data._replace(before=data.before.masked_fill(no_t, torch.nan), after=data.after.masked_fill(no_t, torch.nan))
    rows += _rows("simulated, intervals alone", "network", _infer(model, bare), bare)[:2]
    for hours in HOURS:
        some = data.hours == hours
        part = Transition(*(v[some] for v in data[:-1]))
        rows += _rows(f"simulated, {hours:g} h", "network", _infer(model, part), part)[1:2]
    return [*rows, _series_row(model, each), _menu_row(model, each * len(HOURS))]


@torch.no_grad()
def _series_row(model: InverseDynamics, count: int) -> dict:
    """Six ECGs, an hour apart, after one dose: the mean evidence of the pairs with the first ECG."""
    key = keys.from_seed(SERIES_SEED, count)
    seen = ecg_only(sample_transitions(key, SERIES_H))  # the orders, and the ECG one hour after them
    oracle = oracle_of(sorted(COHORTS)[0], SERIES_H, "cpu")
    parts = zip(sorted(COHORTS), key.chunk(len(COHORTS)), strict=False)
    state = tree.cat([admit(oracle_of(n, SERIES_H, "cpu"), k, {}) for n, k in parts])
    bare = state
    dose = seen.dose_mg.unsqueeze(-1) * torch.nn.functional.one_hot(seen.drug, 1 + len(DRUGS))[:, 1:]
    evidence, effect = torch.zeros(count, 1 + len(DRUGS)), torch.zeros(count)
    doses = torch.zeros(count, len(DRUGS), model.config.bins)
    for step in range(1, SERIES_STEPS + 1):
        given = dose if step == 1 else torch.zeros_like(dose)
        state, bare = oracle.transition(state, given), oracle.transition(bare, torch.zeros_like(dose))
        chart = oracle.observe(state)
        effect = torch.maximum(effect, chart["qtcf_ms"] - oracle.observe(bare)["qtcf_ms"])
        hours = torch.full((count,), step * SERIES_H)
        pair = ecg_only(seen._replace(after=latent.standardise(chart), hours=hours, charts=({}, {})))
        found = _infer(model, pair)
        evidence += found.drug.clamp_min(1e-9).log() / SERIES_STEPS
        doses += found.dose.clamp_min(1e-9).log() / SERIES_STEPS
    joined = Inferred(evidence.softmax(-1), doses.softmax(-1), found.edges_mg)
    whole = pair._replace(effect_ms=effect)
    what = f"simulated, {SERIES_STEPS} ECGs an hour apart, largest effect over {LARGE_MS:g} ms"
    return row_of(what, "network, mean evidence", joined, whole, effect > LARGE_MS)


def menu_mg() -> Tensor:
    """The environment's menu [M, D] in mg, nothing first."""
    entries = [[0.0] * len(DRUGS)]
    for i, drug in enumerate(ANTIARRHYTHMICS):
        entries += [[mg if j == i else 0.0 for j in range(len(DRUGS))] for mg in drug.menu_mg]
    return torch.tensor(entries)


def _menu_row(model: InverseDynamics, count: int) -> dict:
    """Orders of the menu, equally likely: is the projected entry the one that was given?"""
    menu = menu_mg()
    key = keys.from_seed(MENU_SEED, count)
    entry = (keys.uniform(key, 0, "menu") * len(menu)).long().clamp_max(len(menu) - 1)
    drug = torch.where((menu > 0).any(-1), 1 + menu.argmax(-1), 0)[entry]
    hours = HOURS[4]
    data = ecg_only(oracle_pairs(key, hours, drug, menu.amax(-1)[entry]))
    found = menu_probabilities(_infer(model, data), menu)
    large = data.effect_ms > LARGE_MS
    said = found.argmax(-1)
    right_drug = torch.where((menu > 0).any(-1), 1 + menu.argmax(-1), 0)[said] == drug
    low, high = wilson(int(right_drug[large].sum()), int(large.sum()))
    return {
        "pairs_of": f"simulated, menu at {hours:g} h, effect over {LARGE_MS:g} ms",
        "method": "network",
        "pairs": int(large.sum()),
        "drug_right": round(float(right_drug[large].double().mean()), 3),
        "ci_low": round(low, 3),
        "ci_high": round(high, 3),
        "ikr_blockers_confused": "",
        "log_loss_nats": round(float(-found[large].gather(-1, entry[large, None]).clamp_min(1e-12).log().mean()), 3),
        "calibration_error": round(_calibration(found[large], entry[large]), 3),
        "dose_median_off": round(float((menu.amax(-1)[said] / menu.amax(-1)[entry] - 1).abs()[large].median()), 3),
        f"dose_within_{round(100 * WITHIN)}_percent": round(float((said == entry)[large].double().mean()), 3),
    }


@torch.no_grad()
def oracle_posterior(data: Transition, cohort: str, hours: float, draws: int = DRAWS) -> Inferred:
    """The posterior that the oracle implies for pairs of one cohort and number of hours. See the module's text."""
    oracle = oracle_of(cohort, hours, "cpu")
    count, drugs = len(data.hours), len(DRUGS)
    first = data.charts[0]
    known = {q.name for q in oracle.factors}
    factors = {f: first[n].repeat_interleave(draws) for f, n in FIRST_CHART.items() if f in known and n in first}
    # both ECGs are in sinus rhythm, so that all draws are to be: least burden (no ECG shows it), and the few that
    # fibrillate all the same, in which rate and PR are NaN, count for nothing
    factors["baseline_burden"] = torch.zeros(count * draws)
    state = admit(oracle, keys.from_seed(DRAW_SEED, count * draws), factors)
    nothing = torch.zeros(count * draws, drugs)
    columns = torch.tensor(ECG_ONLY) & ~(data.before.isnan() | data.after.isnan()).any(0)
    start = data.before[:, columns].double()

    def seen(dose: Tensor) -> Tensor:
        after = latent.standardise(oracle.observe(oracle.transition(state, dose)))[:, columns].double()
        return after.unflatten(0, (count, draws)) - start[:, None]

    without = seen(nothing)
    mean = without.nanmean(1)
    left = (without - mean[:, None]).flatten(0, 1)
    left = left[~left.isnan().any(-1)]
    law = torch.distributions.MultivariateNormal(
        torch.zeros(left.shape[-1]).double(), left.T @ left / len(left) + 1e-9 * torch.eye(left.shape[-1]).double()
    )
    change = data.after[:, columns].double() - start
    none = law.log_prob(change - mean)
    low, high = dose_limits()
    edges = low[:, None] * (high / low)[:, None] ** torch.linspace(0, 1, DOSES + 1)
    log = torch.zeros(count, drugs, DOSES).double()
    for i in range(drugs):
        for k in range(DOSES):
            dose = nothing.clone()
            dose[:, i] = (edges[i, k] * edges[i, k + 1]).sqrt()
            effect = seen(dose) - without  # the same luck: what the drug does, no more
            off = change[:, None] - mean[:, None] - effect
            each = law.log_prob(off.nan_to_num()).masked_fill(off.isnan().any(-1), -torch.inf)
            log[:, i, k] = each.logsumexp(-1) - np.log(draws)
    of_drug = log.logsumexp(-1) - np.log(DOSES)
    share = torch.tensor([NOTHING_SHARE] + [(1 - NOTHING_SHARE) / drugs] * drugs).double().log()
    posterior = (torch.cat([none[:, None], of_drug], -1) + share).softmax(-1)
    return Inferred(posterior.float(), log.softmax(-1).float(), edges)


def beside_the_bound(model: InverseDynamics, patients: int) -> list[dict]:
    """The network and the oracle's posterior on the same pairs, patients of one cohort and hour at a time."""
    found: dict[str, list[Inferred]] = {"network": [], "bound": []}
    pairs = []
    for i, cohort in enumerate(tqdm(BOUND_COHORTS, desc="bound", mininterval=5)):
        for j, hours in enumerate(BOUND_HOURS):
            key = keys.from_seed(BOUND_SEED + (10 * i + j) * 100_000, patients)
            data = ecg_only(sample_transitions(key, hours, cohort))
            # the oracle is told the first chart's sinus rate, and compares rates: both ECGs show sinus rhythm
            sinus = (torch.stack([chart["atrial_fibrillation"] for chart in data.charts]) < 0.5).all(0)
            data = tree.take(data, ((data.effect_ms > LARGE_MS) & sinus).nonzero().flatten())
            found["network"].append(_infer(model, data))
            found["bound"].append(oracle_posterior(data, cohort, hours))
            pairs.append(Transition(*data[:-1]))
    whole = Transition(*(torch.cat(c) for c in list(zip(*pairs, strict=True))[:-1]))
    rows = []
    for method, parts in found.items():
        joined = Inferred(torch.cat([p.drug for p in parts]), torch.cat([p.dose for p in parts]), parts[0].edges_mg)
        rows += _rows(
            f"{' and '.join(BOUND_COHORTS)}, {' and '.join(f'{h:g}' for h in BOUND_HOURS)} h", method, joined, whole
        )
    return rows


def trial(model: InverseDynamics, table: Path) -> list[dict]:
    """Rows on the real trial's triplicate means, each beside the period's own mean before the dose."""
    from benchmarks.ecg_drug.trial import pre_dose_rows
    from world_models.data.ecg.ecgrdvq import load_trial

    frame = load_trial(table)
    names = [n for n in latent.COORDINATES if n in frame.columns]
    before = frame[frame["hour"] < 0].groupby(["randid", "drug", "period"], dropna=False)[names].mean()
    rows = pre_dose_rows(frame)
    rows = rows[rows["qtcf_ms"].notna()].reset_index(drop=True)
    index = list(zip(rows["randid"], rows["drug"], rows["period"], strict=True))

    def chart(values) -> Tensor:
        return latent.standardise({n: torch.tensor(values[n].to_numpy(dtype=np.float32)) for n in names})

    columns = [
        torch.tensor(rows[n].to_numpy(dtype=np.float32)) if n in rows else torch.full((len(rows),), torch.nan)
        for n in COVARIATES
    ]
    drug = torch.tensor([0 if d == "placebo" else 1 + DRUGS.index(d) for d in rows["drug"]])
    change = rows["qtcf_ms"] - rows["pre_qtcf_ms"]
    placebo = rows.assign(change=change)[rows["drug"] == "placebo"].groupby(["randid", "hour"])["change"].mean()
    corrected = change.to_numpy() - np.array(
        [placebo.get(k, np.nan) for k in zip(rows["randid"], rows["hour"], strict=True)]
    )
    data = ecg_only(
        Transition(
            chart(before.loc[index]),
            chart(rows),
            torch.tensor(rows["hour"].to_numpy(dtype=np.float32)),
            torch.stack(columns, -1),
            drug,
            torch.tensor(rows["dose_mg"].to_numpy(dtype=np.float32)),
            torch.tensor(np.nan_to_num(corrected), dtype=torch.float32),
        )
    )
    return _trial_rows(model, data, rows["randid"].to_numpy(), rows["period"].to_numpy())


def _trial_rows(model: InverseDynamics, data: Transition, subject: np.ndarray, period: np.ndarray) -> list[dict]:
    found = _infer(model, data)
    arms = torch.cat([torch.zeros(1, len(DRUGS)), torch.diag(torch.tensor([d.trial_dose_mg for d in ANTIARRHYTHMICS]))])
    of_arm = menu_probabilities(found, arms)
    right = of_arm.argmax(-1) == data.drug
    large = data.effect_ms > LARGE_MS
    early = (data.hours >= 1.5) & (data.hours <= 6.0)
    rows = []

    def add(what: str, hits: Tensor) -> None:
        low, high = wilson(int(hits.sum()), len(hits))
        share = round(float(hits.double().mean()), 3)
        rows.append(
            {"what": what, "cases": len(hits), "right": share, "ci_low": round(low, 3), "ci_high": round(high, 3)}
        )

    add("one pair, all hours", right)
    add("one pair, 1.5 to 6 h", right[early])
    add(f"one pair, QTcF over placebo by more than {LARGE_MS:g} ms", right[large])
    for i, name in enumerate(("placebo", *DRUGS)):
        add(f"one pair, 1.5 to 6 h, {name}", right[early & (data.drug == i)])
        if int((large & (data.drug == i)).sum()) >= 10:
            add(f"one pair, over {LARGE_MS:g} ms, {name}", right[large & (data.drug == i)])
    # a period's pairs share its first ECG and its person, so their evidence is averaged, not added
    whose = np.array([f"{s}/{p}" for s, p in zip(subject, period, strict=True)])
    hits, block = [], []
    for one in np.unique(whose):
        some = torch.tensor(whose == one) & early
        if some.any():
            said = int(of_arm[some].clamp_min(1e-9).log().mean(0).argmax())
            hits.append(said == int(data.drug[some][0]))
            block.append(int(data.drug[some][0]))
    add("one period (pairs of 1.5 to 6 h together)", torch.tensor(hits))
    for i, name in enumerate(("placebo", *DRUGS)):
        add(f"one period, {name}", torch.tensor([h for h, b in zip(hits, block, strict=True) if b == i]))
    given = early & (data.drug > 0)
    off = (median_dose(found, data.drug)[given] / data.dose_mg[given] - 1).abs()
    add(f"dose within {WITHIN:.0%}, one pair, 1.5 to 6 h, the drug known", off <= WITHIN)
    return rows


def main(argv: list[str] | None = None) -> None:
    """Both tables, and whether the target is met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, help="folder of `inverse_training` (default: what ships)")
    parser.add_argument("--trial", type=Path, help="the clinical table of ECGRDVQ, or its folder")
    parser.add_argument(
        "--patients",
        type=int,
        default=200,
        help="a cohort and hour, of whom those with a large effect are set beside the bound",
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = InverseDynamics.load(options.weights)
    files = [TRIAL_FIT] if options.weights else [TRIAL_FIT, f"world_models/weights/{SHIPPED}/{WEIGHTS}"]
    made = made_by("benchmarks.ecg_drug.inverse", argv, {"pairs": TEST_SEED, "bound": BOUND_SEED}, files=files)
    made["inverse_weights"] = model.weights_sha256
    rows = simulated(model, 2000) + beside_the_bound(model, options.patients)
    write(options.out / "inverse.csv", rows, made)
    if options.trial is not None:
        write(options.out / "inverse_trial.csv", trial(model, options.trial), made)
    else:
        print("no --trial: its table is left out")
    large = next(r for r in rows if r["pairs_of"] == f"simulated, effect over {LARGE_MS:g} ms")
    print(f"\ndrug right in {large['drug_right']} where the effect exceeds {LARGE_MS:g} ms (at least {TARGET} wanted)")


if __name__ == "__main__":
    main()
