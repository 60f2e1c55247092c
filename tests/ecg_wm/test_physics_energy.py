"""The physics energy reads what is drawn, is nil where it should be, and has the gradient it claims."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from world_models import catalog, keys
from world_models.ecg.along_time import read_between
from world_models.ecg.mcsharry import McSharryWaves, gaussian_sum
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.t_wave import TMarks, t_wave
from world_models.ecg.waveform import R_SHARE, Intervals, beat_template
from world_models.ecg_wm.beat_data import sample_intervals
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.diffusion import mcsharry_fit
from world_models.ecg_wm.diffusion.condition import Part
from world_models.ecg_wm.diffusion.decoded import DecodedBeat, WorldDecoder
from world_models.ecg_wm.diffusion.energy import EPK, MEASURED, EnergyWeights, PhysicsEnergy, read_measures
from world_models.ecg_wm.diffusion.latent_diffusion import DiffusionConfig, Pairs
from world_models.ecg_wm.diffusion.marks import read_marks, read_t_wave
from world_models.ecg_wm.diffusion.mcsharry_fit import mcsharry_residual
from world_models.ecg_wm.diffusion.rectified_flow import RectifiedFlow
from world_models.ecg_wm.diffusion.single_dipole import DOWER, outside_dower, outside_rank
from world_models.ecg_wm.diffusion.train import fresh
from world_models.ecg_wm.latent import COORDS

COUNT = 96


def drawn(rate_hz: float = 500.0, seed: int = 5) -> tuple[DecodedBeat, Intervals]:
    """Drawn beats of LUDB's morphologies with QRS onset 400 ms into the window."""
    key = keys.from_seed(seed, COUNT)
    intervals = sample_intervals(key)
    template = beat_template(intervals, MorphologyBank.load().sample(key))
    at = round(0.4 * rate_hz)
    times = (torch.arange(at + round(0.8 * rate_hz) + 1) - at) * (1000 / rate_hz)
    beat = read_between(template, (times - R_SHARE * intervals.qrs_ms.unsqueeze(-1)) * 0.5 + 300)
    places = (intervals.pr_ms, intervals.qrs_ms, intervals.jt_peak_ms, intervals.tpeak_tend_ms)
    return DecodedBeat(beat, at, rate_hz, 60_000 / intervals.heart_rate_bpm, *places), intervals


@pytest.mark.parametrize("rate_hz", [250.0, 500.0])
def test_marks_are_where_they_were_drawn(rate_hz: float) -> None:
    beat, intervals = drawn(rate_hz)
    marks = read_marks(beat)
    errors = {
        "P onset": (marks.p_onset_ms + intervals.pr_ms, 2.0),
        "QRS onset": (marks.qrs_onset_ms, 4.0),
        "J point": (marks.j_point_ms - intervals.qrs_ms, 4.0),
        "T peak": (marks.t_peak_ms - intervals.qrs_ms - intervals.jt_peak_ms, 2.0),
        "T end": (marks.t_end_ms - intervals.qt_ms, 1.0),
    }
    wrong = {name: float(error.abs().median()) for name, (error, most) in errors.items() if error.abs().median() > most}
    assert not wrong, wrong
    assert float((marks.t_end_ms - intervals.qt_ms).abs().quantile(0.95)) < 5
    assert float((marks.t_peak_ms - intervals.qrs_ms - intervals.jt_peak_ms).abs().quantile(0.95)) < 6


def test_a_wave_put_elsewhere_is_still_read_where_it_is() -> None:
    """The decoder's own places say where to look, not what to find."""
    beat, intervals = drawn()
    away = beat._replace(jt_peak_ms=beat.jt_peak_ms + 12, qrs_ms=beat.qrs_ms - 6, pr_ms=beat.pr_ms + 10)
    here, there = read_marks(beat), read_marks(away)
    for name in ("t_peak_ms", "t_end_ms", "qrs_onset_ms"):
        assert float((getattr(here, name) - getattr(there, name)).abs().quantile(0.9)) < 1.5, name


def test_t_wave_is_that_of_the_true_marks() -> None:
    beat, intervals = drawn()
    found = read_t_wave(beat, read_marks(beat))
    peak = intervals.qrs_ms + intervals.jt_peak_ms
    true = TMarks(torch.zeros_like(peak), intervals.qrs_ms, peak, peak + intervals.tpeak_tend_ms)
    asked = t_wave(beat.beat_mv, true, 500.0, beat.at_onset)
    for name, most in (("amplitude_uv", 5.0), ("flatness", 0.01), ("erd_30_ms", 0.5), ("lrd_30_ms", 0.5)):
        assert float((getattr(found, name) - getattr(asked, name)).abs().nanmedian()) < most, name


def test_the_gradient_of_what_is_read_is_the_change_of_what_is_read() -> None:
    """Against central differences along a smooth change of the beat; where a search moves to another sample the
    derivative jumps, so the middle half of the rows is compared."""
    beat, _ = drawn()
    beat = beat._replace(beat_mv=beat.beat_mv.double())
    wave = torch.sin(torch.arange(beat.beat_mv.shape[-1], dtype=torch.float64) / 9)
    way = wave * keys.normal(keys.from_seed(1, COUNT), 0, "way", (8, 1)).double() * 0.05
    leads = beat.beat_mv.clone().requires_grad_(True)
    read = read_measures(beat._replace(beat_mv=leads))
    for k, name in enumerate(MEASURED):
        (slope,) = torch.autograd.grad(read[:, k].nansum(), leads, retain_graph=True)
        along = (slope * way).sum((1, 2))
        step = 0.002
        ahead, behind = (read_measures(beat._replace(beat_mv=beat.beat_mv + s * step * way))[:, k] for s in (1, -1))
        change = (ahead - behind) / (2 * step)
        known = torch.isfinite(change) & torch.isfinite(along)
        together = torch.corrcoef(torch.stack([along[known], change[known]]).clamp(-1e3, 1e3))[0, 1]
        off = ((along - change).abs() / (change.abs() + 0.05 * change.abs().nanmedian() + 1e-9))[known]
        assert float(off.median()) < 0.35 or float(together) > 0.9, (name, float(off.median()), float(together))


def test_single_dipole_leaves_nothing_outside_and_noise_leaves_its_share() -> None:
    key = keys.from_seed(0, 20)
    vcg = keys.normal(key, 0, "vcg", (3, 300))
    torso = torch.tensor(DOWER).expand(20, -1, -1)
    assert float(outside_dower(torso @ vcg).max()) < 1e-5
    other = keys.normal(key, 0, "torso", (8, 3))
    assert float(outside_rank(other @ vcg).max()) < 1e-5 < float(outside_dower(other @ vcg).min())
    noise = keys.normal(key, 0, "noise", (8, 3000))
    assert abs(float(outside_dower(noise).mean()) - 5 / 8) < 0.02
    assert 0.5 < float(outside_rank(noise).mean()) < 5 / 8
    assert float(outside_rank(torch.zeros(1, 8, 50))) == 0
    with pytest.raises(ValueError, match="rank=8"):
        outside_rank(noise, 8)


def test_mcsharry_solutions_leave_nothing_and_notches_do() -> None:
    beat, _ = drawn()
    centre, width = mcsharry_fit._places(beat)
    length = beat.beat_mv.shape[-1]
    per_ms = 2 * math.pi / (length * 2.0)
    heights = keys.normal(keys.from_seed(1, COUNT), 0, "a", (8, centre.shape[1]))
    waves = McSharryWaves(centre * per_ms, heights, width * per_ms)
    theta = ((torch.arange(length) - beat.at_onset) * 2.0 * per_ms).expand(COUNT, -1)
    made = gaussian_sum(theta, torch.full_like(theta, per_ms * 1000), waves)
    assert float(mcsharry_residual(beat._replace(beat_mv=made)).median()) < 0.01
    noisy = beat.beat_mv + 0.02 * keys.normal(keys.from_seed(2, COUNT), 0, "n", (8, length))
    plain, rough = mcsharry_residual(beat), mcsharry_residual(beat._replace(beat_mv=noisy))
    assert float(plain.median()) < 0.02 and bool((rough > plain).all()) and float(rough.median()) > 0.1


def test_a_calibrated_energy_is_one_on_true_beats_and_more_when_physics_is_broken() -> None:
    beat, _ = drawn()
    predicted = read_measures(beat) + keys.normal(keys.from_seed(3, COUNT), 0, "off", (9,)) * torch.tensor(
        [6.0, 3.0, 8.0, 5.0, 40.0, 0.05, 0.03, 5.0, 3.0]
    )
    energy = PhysicsEnergy()
    energy.calibrate(beat, predicted)
    parts = energy(beat, predicted)
    for part in parts:
        assert abs(float(part.mean()) - 1) < 1e-3
    far = energy(beat, predicted + torch.tensor([0.0, 0, 60, 0, 0, 0, 0, 0, 0]))
    assert float(far.measures.mean()) > 2 and torch.equal(far.dipole, parts.dipole)
    rough = beat._replace(beat_mv=beat.beat_mv + 0.05 * keys.normal(keys.from_seed(2, COUNT), 0, "n", (8, 601)))
    broken = energy(rough, predicted)
    assert float(broken.mcsharry.mean()) > 5 and float(broken.dipole.mean()) > 2
    nothing = energy(beat, torch.full_like(predicted, torch.nan))
    assert bool((nothing.measures == 0).all())
    total = parts.total(EnergyWeights(1.0, 0.5, 0.25))
    torch.testing.assert_close(total, parts.measures + 0.5 * parts.dipole + 0.25 * parts.mcsharry)
    with pytest.raises(ValueError, match="calibrate on more"):
        PhysicsEnergy().calibrate(beat, torch.full_like(predicted, torch.nan))
    with pytest.raises(ValueError, match="own or dower"):
        PhysicsEnergy("kors")


@pytest.mark.slow
def test_going_down_the_energy_brings_the_beat_to_what_the_prior_says() -> None:
    """z's intervals are pulled to the prior's through the decoded beat alone."""
    decode = WorldDecoder(catalog.load("ecg-wm-small").vae, 250.0)
    z = torch.zeros(32, COORDS + SMALL.morphology)
    z[:, :5] = 0.5 * keys.normal(keys.from_seed(4, 32), 0, "u", (5,))
    read = read_measures(decode(z))
    predicted = read + keys.normal(keys.from_seed(5, 32), 0, "p", (9,)) * torch.tensor([8.0, 2, 10, 8, 0, 0, 0, 0, 0])
    predicted[:, 4:] = torch.nan
    energy = PhysicsEnergy()
    energy.scale.copy_(torch.tensor([8.0, 2, 10, 8, 1, 1, 1, 1, 1]))
    epk = EPK(energy, decode, EnergyWeights(1.0, 0.0, 0.0))
    before = float(epk(z, predicted).mean())
    x = z.clone().requires_grad_(True)
    for _ in range(60):
        (slope,) = torch.autograd.grad(epk(x, predicted).sum(), x)
        x = (x - 0.05 * slope.clamp(-2, 2)).detach().requires_grad_(True)
    assert float(epk(x.detach(), predicted).mean()) < 0.35 * before


def test_a_row_of_the_energy_is_the_same_alone() -> None:
    beat, _ = drawn()
    predicted = read_measures(beat) + 3.0

    def rows(x: DecodedBeat, at: slice) -> DecodedBeat:
        return x._replace(**{n: v[at] for n, v in x._asdict().items() if isinstance(v, Tensor)})

    energy = PhysicsEnergy()
    whole = energy(beat, predicted)
    alone = energy(rows(beat, slice(7, 8)), predicted[7:8])
    for one, other in zip(whole, alone, strict=True):
        torch.testing.assert_close(one[7:8], other, atol=1e-4, rtol=1e-3)


def test_the_epk_term_reaches_teacher_and_student() -> None:
    """Its weight changes both losses, and a gradient arrives."""
    decode = WorldDecoder(catalog.load("ecg-wm-small").vae, 250.0)
    model = fresh(DiffusionConfig(32, 1, 16, 1, 1), COORDS + SMALL.morphology, (Part("dose", 1),), seed=1)
    key = keys.from_seed(0, 24)
    z = [0.5 * keys.normal(key, n, "z", (COORDS + SMALL.morphology,)) for n in range(3)]
    pairs = Pairs(z[0], z[1], z[2], {"dose": torch.ones(24, 1)}, read_measures(decode(z[1])))
    model.units.measure(z[2] - z[1])
    epk = EPK(model.energy, decode)
    for loss, parameters in (
        (lambda **more: model.teacher_loss(RectifiedFlow(), pairs, key, **more), model.teacher.parameters()),
        (lambda **more: model.student_loss(pairs, key, **more), model.student.parameters()),
    ):
        plain, held = loss(), loss(epk=epk, epk_weight=0.1, epk_rows=8)
        assert float(held.detach()) > float(plain.detach())
        slopes = torch.autograd.grad(held - plain, list(parameters), allow_unused=True)
        found = [slope for slope in slopes if slope is not None]
        assert all(bool(torch.isfinite(slope).all()) for slope in found)
        assert any(float(slope.abs().max()) > 0 for slope in found)
