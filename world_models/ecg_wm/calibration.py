"""Calibration of a trained world on patients that no stage has met: how wide its spread and its beliefs are."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg_wm import latent
from world_models.ecg_wm.courses import Courses, DrawCourses, sample_courses
from world_models.ecg_wm.inference import infer
from world_models.ecg_wm.model import SPREAD_OF, ECGWorldModel
from world_models.protocol import Chart, History

__all__ = ["calibrate"]

CALIBRATE_SEED = 2_000_000_000


def new_patients(key: Tensor, steps: int, hours_per_step: float) -> Courses:
    """Courses of every cohort's patients, whose clearances nobody is told."""
    return sample_courses(key, steps, hours_per_step, known=0.0)


@torch.no_grad()
def calibrate(model: ECGWorldModel, batch: int = 2048, draw: DrawCourses = new_patients) -> dict[str, float]:
    """Scale the spread so that its normal 90 % interval covers 90 % of new patients; note the drug levels met.

    The patients' courses are those that `draw` gives; of what it never gives, nothing counts as met.
    """
    data = draw(keys.from_seed(CALIBRATE_SEED, batch, model.device), 24, 2.0)
    model.spread_scale.fill_(1.0)
    charts = data.charts
    first = {name: value[:, :1] for name, value in charts.items()}
    hours = torch.zeros(batch, 1, device=model.device)
    key = keys.from_seed(CALIBRATE_SEED + batch, batch, model.device)
    state = infer(model, History(first, torch.zeros_like(data.actions[:, :1]), hours), key, {})
    middle = model.live_by(state, state.belief.mean)
    wide, levels = [], []
    for i in range(24):
        middle = model.transition(middle, data.actions[:, i])
        levels.append(model.prior.central(middle.rates, middle.amounts))
        expected = latent.intervals_of(
            middle.rates.anchor + middle.deviation, charts["atrial_fibrillation"][:, i + 1] > 0.5
        )
        sd = model.spread_of(middle, scaled=False)
        error = torch.stack([charts[n][:, i + 1] - expected[n] for n in SPREAD_OF], dim=-1)
        wide.append((error / sd).abs())
    z = torch.cat(wide).nanquantile(0.9, dim=0)
    model.spread_scale.copy_(z / 1.645)
    model.amount_limit.copy_(torch.cat(levels).amax(0) * 1.05)
    model.temperature.fill_(_temperature(model, data, charts, min(384, batch // 5)))
    figures = {f"spread_scale_{n}": float(v) for n, v in zip(SPREAD_OF, model.spread_scale, strict=True)}
    return {"temperature": float(model.temperature), **figures}


def _temperature(model: ECGWorldModel, data: Courses, charts: Chart, patients: int, samples: int = 64) -> float:
    """The temperature whose 90 % band over particles, from the baseline on, covers nearest to 90 % of new patients."""
    rows = slice(0, patients)
    first = {name: value[rows, :1].repeat_interleave(samples, 0) for name, value in charts.items()}
    actions = data.actions[rows].repeat_interleave(samples, 0)
    key = keys.from_seed(CALIBRATE_SEED + 10_000_000, patients * samples, model.device)
    history = History(first, torch.zeros_like(actions[:, :1]), torch.zeros_like(actions[:, :1, 0]))
    # With n particles the quantiles of a right band lie a little inside it: aim at what they can cover.
    aim, best = 0.9 * (samples - 1) / (samples + 1), (1.0, 1.0)
    for temperature in (0.9, 1.0, 1.1, 1.2, 1.3, 1.4):
        model.temperature.fill_(temperature)
        state = infer(model, history, key, {})
        covered = []
        for i in range(24):
            state = model.transition(state, actions[:, i])
            seen = model.observe(state)
            for name in ("qtcf_ms", "pr_ms", "jt_peak_c_ms", "tpeak_tend_ms"):
                ends = torch.tensor([0.05, 0.95], device=key.device)
                low, high = seen[name].reshape(patients, samples).nanquantile(ends, dim=1)
                real = charts[name][rows, i + 1]
                inside = (real >= low) & (real <= high)
                covered.append(inside[~real.isnan()].float().mean())
        best = min(best, (abs(float(torch.stack(covered).mean()) - aim), temperature))
    return best[1]
