"""The calibration that needs many samples of each patient: conformal bands, and how much of a spread is chance.

On patients whom no stage of the training met (as `calibration`), known by the baseline chart alone, each on one drug or
none, in a single dose or a label's regimen. A band is that of patients dosed so: exchangeability is all that a
conformal band rests on, so plans far from these (overdoses, two drugs) keep no promise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.ecg_wm import conformal
from world_models.ecg_wm.bands import AT_A_VISIT, BAND_LEVEL, BAND_OF, BANDS, GROUPS, over_a_course
from world_models.ecg_wm.calibration import CALIBRATE_SEED
from world_models.ecg_wm.chance import chance_sd
from world_models.ecg_wm.courses import oracle_of
from world_models.ecg_wm.model import SPREAD_OF, ECGWorldModel
from world_models.ecg_wm.start_rates import REFERENCE_MG
from world_models.oracles.ecg_drug.cohorts import COHORTS
from world_models.protocol import Chart, History
from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.quantities.ecg_drug import ORDERS
from world_models.uncertainty import decompose

__all__ = ["calibrate_bands", "calibrate_chance"]

HOURS = 24.0
JUDGED_AT = (2.0, 6.0, 12.0, 24.0)  # h: the visits that calibrate the bands
SINGLE_SHARE, FULL_SHARE = 0.5, 0.5  # of the patients with a drug
SHORT_INTERVALS_H, TWICE_A_DAY_H = (6.0, 8.0), 12.0  # between doses, where a label's day holds more than two; else
# Apart from the seeds of `calibration`: it takes the first millions.
_BANDS_SEED, _CHANCE_SEED = CALIBRATE_SEED + 50_000_000, CALIBRATE_SEED + 60_000_000
_CHUNK = 128  # patients at once


@torch.no_grad()
def calibrate_bands(model: ECGWorldModel, patients: int = 4500, samples: int = 64) -> dict[str, float]:
    """Fit the shifts of the bands; `patients` are spread evenly over all cohorts and over drugs and none.

    Returns:
        `band_shift_<name>`: that of all, in half-widths.
    """
    model.band_shift.zero_()
    found: dict[str, list[list[Tensor]]] = {name: [[], [], []] for name in BAND_OF}
    groups: list[Tensor] = []
    for start in range(0, patients, _CHUNK):
        key = keys.from_seed(_BANDS_SEED + start, min(_CHUNK, patients - start), model.device)
        group, charts, particles = _courses(model, key, start, samples)
        groups.append(group)
        real, seen = _judged(charts, model.hours_per_step), _judged(particles, model.hours_per_step)
        for name in BAND_OF:
            # [visits, B]
            several = torch.stack([chart[name] for chart in seen[name]]).unflatten(1, (len(key), samples))
            low, high = several.nanquantile(torch.tensor(BANDS, device=key.device), dim=-1)
            for place, part in enumerate((low, high, torch.stack([chart[name] for chart in real[name]]))):
                found[name][place].append(part)
    group = torch.cat(groups)
    for row, name in enumerate(BAND_OF):
        low, high, y = (torch.cat(part, dim=1) for part in found[name])
        known = ~(low.isnan() | y.isnan())
        who = group.expand_as(y)[known]
        made = conformal.fit(
            {name: low[known]}, {name: high[known]}, {name: y[known]}, BAND_LEVEL, who, GROUPS, scaled=True
        )
        model.band_shift[row] = made.shift[name]
    return {f"band_shift_{n}": float(v) for n, v in zip(BAND_OF, model.band_shift[:, -1], strict=True)}


def _courses(model: ECGWorldModel, key: Tensor, first: int, samples: int) -> tuple[Tensor, list[Chart], list[Chart]]:
    """Groups int64 [B], the oracle's charts [B] and the model's [B * samples] over HOURS, of patients `first` on."""
    number = torch.arange(first, first + len(key), device=key.device)
    hours = model.hours_per_step
    steps, drugs = round(HOURS / hours), len(REFERENCE_MG)
    oracles = [oracle_of(name, hours, str(key.device)) for name in sorted(COHORTS)]
    cohort = number % len(oracles)
    state = oracles[0].initial(key)
    for i, oracle in enumerate(oracles):
        rows = (cohort == i).nonzero().flatten()
        if len(rows):
            state = tree.put(state, rows, oracle.initial(key[rows]))
    which = torch.div(number, len(oracles), rounding_mode="floor") % (drugs + 1)  # 0: no drug
    doses = _doses(key, which, steps, hours)
    charts = [oracles[0].observe(state)]
    for i in range(steps):
        state = oracles[0].transition(state, doses[:, i])
        charts.append(oracles[0].observe(state))
    many = _particles(model, charts[0], key, samples)
    seen = [model.observe(many)]
    for i in range(steps):
        many = model.transition(many, doses[:, i].repeat_interleave(samples, 0))
        seen.append(model.observe(many))
    # as GROUPS stand: nothing, then drug, dose and sex
    place = torch.where(which > 0, 2 * (2 * (which - 1) + _full(key).long()) + 2, 0)
    return place + charts[0]["sex_female"].long(), charts, seen


def _full(key: Tensor) -> Tensor:
    """bool [B]: who takes the whole dose, and not half of it."""
    return keys.uniform(key, 0, "bands/full") < FULL_SHARE


def _doses(key: Tensor, which: Tensor, steps: int, hours_per_step: float) -> Tensor:
    """[B, steps, D] mg: one drug (0: none), the trial's single dose or a label's regimen, the whole of it or half."""
    device = key.device
    single = keys.uniform(key, 0, "bands/single") < SINGLE_SHARE
    often = torch.tensor([0.0, *(d.largest_daily_mg > 2 * d.largest_single_mg for d in ANTIARRHYTHMICS)], device=device)
    short = torch.where(keys.uniform(key, 0, "bands/every") < 0.5, *SHORT_INTERVALS_H)
    every = torch.where(often[which] > 0, short, TWICE_A_DAY_H) / hours_per_step
    step = torch.arange(steps, device=device)
    again = torch.remainder(step, every.unsqueeze(-1)) < 1
    due = torch.where(single.unsqueeze(-1), step == 0, again).to(torch.float32)
    once, label = (
        torch.tensor([0.0, *row], device=device)[which]
        for row in (REFERENCE_MG, [d.largest_single_mg for d in ANTIARRHYTHMICS])
    )
    # half of the label's dose also where the trial gave more than that
    amount = torch.where(_full(key), torch.where(single, once, label), 0.5 * label)
    column = torch.nn.functional.one_hot((which - 1).clamp_min(0), len(REFERENCE_MG)).to(torch.float32)
    return (due * amount.unsqueeze(-1)).unsqueeze(-1) * column.unsqueeze(1)


def _particles(model: ECGWorldModel, first: Chart, key: Tensor, samples: int):
    """`samples` states of each patient, each with unknowns of its own, after the baseline chart alone."""
    history = History(
        {name: value.unsqueeze(1) for name, value in first.items()},
        torch.zeros(len(key), 1, len(ORDERS), device=key.device),
        torch.zeros(len(key), 1, device=key.device),
    )
    many = tree.repeat(model.infer(history, keys.fold(key, "bands/model")), samples)
    number = torch.arange(samples, device=key.device).repeat(len(key))
    return model.rekey(many, keys.fold(keys.fold(many.key, "bands/sample"), number))


def _judged(charts: list[Chart], hours_per_step: float) -> dict[str, list[Chart]]:
    """Of each of BAND_OF the charts it is read off: visits at JUDGED_AT, or the whole course as one."""
    visits = [charts[round(hour / hours_per_step)] for hour in JUDGED_AT]
    whole = [over_a_course(charts)]
    return {name: visits if name in AT_A_VISIT else whole for name in BAND_OF}


@torch.no_grad()
def calibrate_chance(model: ECGWorldModel, patients: int = 320) -> dict[str, float]:
    """Fit how many times the residual's own variation chance is, by nested particles over a day with and without drug.

    Patients without an arrhythmia, as a spread is that of a prediction whose rhythm is given: sinus rhythm here.

    Returns:
        `chance_scale_<measure>`.
    """
    model.chance_scale.fill_(1.0)
    key = keys.from_seed(_CHANCE_SEED, patients, model.device)
    steps = round(HOURS / model.hours_per_step)
    which = torch.arange(patients, device=model.device) % (len(REFERENCE_MG) + 1)
    doses = _doses(key, which, steps, model.hours_per_step)
    state = model.initial(key, {"baseline_burden": torch.zeros(patients, device=key.device)})
    nested = decompose(model, state, doses, keys.fold(key, "chance"), SPREAD_OF, patients=8, chances=4)
    direct: dict[str, list[Tensor]] = {name: [] for name in SPREAD_OF}
    for i in range(steps):
        state = model.transition(state, doses[:, i])
        for name, sd in chance_sd(state.present, model.log_noise).items():
            if name in direct:
                direct[name].append(sd)
    for row, name in enumerate(SPREAD_OF):
        exact, quick = nested[name].aleatoric.square().nanmean(), torch.stack(direct[name]).square().mean()
        model.chance_scale[row] = (exact / quick).sqrt()
    return {f"chance_scale_{n}": float(v) for n, v in zip(SPREAD_OF, model.chance_scale, strict=True)}
