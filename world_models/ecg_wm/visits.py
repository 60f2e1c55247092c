"""What the diffusion learns from: single steps of patients' courses, as the latent sees both ends of them.

A patient's course is gone through with random effects sampled from the belief after its last visit, as in the evidence
bound; of each course a few steps between two ECGs in sinus rhythm are taken, with the beats that the oracle draws of
the admission and of both ends, encoded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg_wm import beats, latent
from world_models.ecg_wm.courses import Courses, DrawCourses, sample_courses
from world_models.ecg_wm.diffusion.decoded import WorldDecoder
from world_models.ecg_wm.diffusion.energy import MEASURED, read_measures
from world_models.ecg_wm.diffusion.latent_diffusion import Pairs
from world_models.ecg_wm.inference import course
from world_models.ecg_wm.latent import COORDS
from world_models.ecg_wm.losses import begin, posterior
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.pairs import canonical_beat
from world_models.ecg_wm.residual import Told, length_told
from world_models.protocol import Chart

__all__ = ["measured_by", "sample_steps"]

READ_AT_ONCE = 256


def measured_by(chart: Chart) -> Tensor:
    """`energy.MEASURED` [B, 9] as a chart [B] says them."""
    return torch.stack([chart[name] for name in MEASURED], dim=-1)


@torch.no_grad()
def sample_steps(
    model: ECGWorldModel,
    key: Tensor,
    hours: float,
    steps: int = 24,
    each: int = 2,
    draw: DrawCourses = sample_courses,
) -> tuple[Pairs, Tensor]:
    """Pairs [N] around steps of `hours` of the patients with these keys [B], at most `each` of one, and keys [N].

    Their courses are what `draw` gives. Patients of whose course no two ECGs in a row are in sinus rhythm are left out.
    """
    data = draw(key, steps, hours)
    batch, visits = data.u.shape[:2]
    gaps = torch.full((batch, visits), hours, device=key.device)
    gaps[:, 0] = 0
    state = begin(model, data, key)
    mean, sd = posterior(model, data, state, gaps)
    unknown = mean + sd * keys.normal(key, 0, "steps/unknown", (mean.shape[-1],))
    amounts, _, deviation = course(
        model, state._replace(unknown=unknown), unknown[:, : model.config.eta], data.actions, gaps
    )
    anchor = model.anchor(state.measured, unknown)
    rates = model.prior.individual(unknown[:, : model.config.eta], state.rates.patient, anchor)
    effect = model.prior.effects(rates, amounts.transpose(1, 2))

    row, at = _chosen(data, key, each)
    pick = torch.arange(len(row), device=key.device)
    shape = _shapes(model, data, row, torch.stack([torch.zeros_like(at), at, at + 1]))
    u = torch.where(at.unsqueeze(-1) == 0, data.measured[row], data.u[row, at])
    then = data.u[row, at + 1]
    # what a rhythm does not show is where the prior has it, give or take
    chance = keys.normal(keys.fold(key[row], at), 0, "steps/unseen", (2, COORDS)) * model.log_noise.exp()
    u = torch.where(u.isnan(), anchor[row] + deviation[row, at] + chance[:, 0], u)
    residual = u - anchor[row] - deviation[row, at]
    moved = deviation[row, at + 1]
    memory = torch.exp(-hours / model.log_memory.exp())
    foreseen = anchor[row] + moved + memory * residual
    then = torch.where(then.isnan(), foreseen + chance[:, 1], then)
    told = Told(
        residual=residual,
        deviation=moved,
        effect=effect[row, at + 1],
        patient=state.rates.patient[row],
        length=length_told(residual, hours),
        dose=data.actions[row, at] / model.prior.reference_mg,
        measured=data.measured[row],
        first_shape=shape[0],
    )
    before = torch.cat([u, shape[1]], dim=-1)
    given = model.residual.given(foreseen, shape[0], moved)
    pairs = Pairs(
        before, given, torch.cat([then, shape[2]], dim=-1), told.parts(), torch.zeros(len(row), len(MEASURED))
    )
    return pairs._replace(predicted=_foreseen_reading(model, pairs)), keys.fold(keys.fold(key[row], at), pick)


def _chosen(data: Courses, key: Tensor, each: int) -> tuple[Tensor, Tensor]:
    """Rows [N] and visits [N] from which steps start: at most `each` a patient, in sinus rhythm at both ends."""
    sinus = data.charts["atrial_fibrillation"] < 0.5
    both = sinus[:, :-1] & sinus[:, 1:]
    order = torch.where(both, keys.uniform(key, 0, "steps/at", (both.shape[1],)), 2.0)
    chosen = order.argsort(-1)[:, :each]
    kept = both.gather(1, chosen)
    row = torch.arange(len(both), device=key.device).unsqueeze(-1).expand_as(chosen)
    return row[kept], chosen[kept]


def _shapes(model: ECGWorldModel, data: Courses, row: Tensor, at: Tensor) -> Tensor:
    """m [3, N, morphology] of the beats that the oracle draws at visits [3, N]."""
    rows = row.repeat(len(at))
    charts = {name: value[rows, at.flatten()] for name, value in data.charts.items()}
    charts |= latent.intervals_of(_filled(data, rows, at.flatten()))
    beat = canonical_beat(charts, data.morphology[rows])
    names = ("pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms")
    ends = beats.piece_ends(*(charts[name] for name in names))
    alone = beats.valid_samples(ends, 60_000 / charts["heart_rate_bpm"])
    leads = torch.ones(len(rows), beats.LEAD_COUNT, dtype=torch.bool, device=row.device)
    parts = zip(beat.split(READ_AT_ONCE), leads.split(READ_AT_ONCE), alone.split(READ_AT_ONCE), strict=True)
    return torch.cat([model.vae.encode(*part)[0] for part in parts]).unflatten(0, (len(at), -1))


def _filled(data: Courses, row: Tensor, at: Tensor) -> Tensor:
    """u [N, COORDS] at visits; what the rhythm does not show as at admission (an admission ECG may fibrillate)."""
    u = data.u[row, at]
    return torch.where(u.isnan(), data.measured[row], u)


def _foreseen_reading(model: ECGWorldModel, pairs: Pairs) -> Tensor:
    """What the energy's reader should find [N, 9]: on the beat before the step, plus the change the prior foresees.

    So a reader's own bias for a shape cancels.
    """
    decode = WorldDecoder(model.vae)
    read = torch.cat([read_measures(decode(z)) for z in pairs.z_pre.split(READ_AT_ONCE)])
    before, after = (measured_by(latent.intervals_of(z[:, :COORDS])) for z in (pairs.z_pre, pairs.z_prior))
    return read + after - before
