"""A test bed for the latent diffusion: pairs of ECG latents before and after drugs, and a problem of known answer.

`ecg_pairs`: courses of the oracle's patients (`ecg_wm.courses`); the prior is the shipped world's own latent ODE under
the mean of its belief from the first chart; T waves are drawn lower, broader and more skewed under a drug by a law of
this bed with a hidden sensitivity a patient (of about the size that Vicente 2015 saw, doi 10.1161/JAHA.114.001615), on
real beats' heights, measured (`t_wave`) and encoded by the shipped autoencoder. z = (u 6, T measures 5, m).
It is a bed for comparing samplers: no figure made on it is clinical.

`known_pairs`: a conditional distribution written down here, correlated, heteroscedastic and bimodal in one entry, so
that a sampler can be judged beside samples of the truth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from tqdm import tqdm

from world_models import catalog, keys
from world_models.ecg.along_time import read_between
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.st_t import TShape
from world_models.ecg.t_wave import TMarks, t_wave
from world_models.ecg.waveform import R_SHARE, Intervals, beat_template
from world_models.ecg_wm import beats, latent
from world_models.ecg_wm.courses import Courses, sample_courses
from world_models.ecg_wm.diffusion.condition import Part
from world_models.ecg_wm.diffusion.decoded import AFTER_MS, BEFORE_MS, PresentDecoder
from world_models.ecg_wm.diffusion.energy import read_measures
from world_models.ecg_wm.diffusion.latent_diffusion import Pairs
from world_models.ecg_wm.inference import infer
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.patients import patient_features
from world_models.protocol import History

__all__ = ["COORDINATES", "ECG_PARTS", "KNOWN_PARTS", "RATE_HZ", "ecg_pairs", "known_pairs", "known_post"]
__all__ += ["foreseen_reading", "lay_shapes", "world"]

RATE_HZ = 250.0  # of the beats that the energy reads
INTERVALS = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms")
STEPS, VISITS = 12, 2  # two-hour steps of a course; post-dose ECGs taken of it
# T measures as coordinates: log amplitude over 500 uV, asymmetry, flatness, ERD_30, LRD_30
T_CENTRE = (math.log(500.0), 0.20, 0.42, 46.0, 29.0)
T_SCALE = (0.35, 0.10, 0.07, 9.0, 6.0)
COORDINATES = len(latent.COORDINATES) + len(T_CENTRE)
# The bed's law acts on how a T wave is drawn (`st_t.TShape`): logarithms of gain, left_ms, crown, foot, right_power.
# Change of those at a full effect of each drug, how persons differ, and one ECG from the next:
T_CHANGE = {
    "dofetilide": (-0.30, 0.30, -0.05, -0.25, 0.15),
    "ranolazine": (-0.12, 0.10, 0.00, -0.05, 0.02),
    "verapamil": (-0.04, 0.03, 0.00, 0.00, 0.02),
    "quinidine": (-0.38, 0.35, -0.05, -0.30, 0.15),
}
T_PERSON, T_MOMENT = (0.25, 0.15, 0.08, 0.12, 0.08), (0.08, 0.05, 0.03, 0.05, 0.03)
SHARED = 0.5  # of the moment's variance is one factor: a T wave that is lower is broader too
FULL_LEVEL = 0.8  # effect-site level that counts as a full effect: a ninth decile of the courses
SENSITIVITY_LOG_SD = 0.35
GAUSSIAN_LEFT = 0.2112  # left_ms of the plain T wave as a share of J-Tpeak
ECG_PARTS = (
    Part("pre_coordinates", COORDINATES, "entries", 0.1),
    Part("pre_shape", 24, "whole", 0.05),
    Part("effect", 8, of_prior=True),
    Part("dose", 4),
    Part("since_dose", 4),
    Part("hours", 1),
    Part("patient", 5),
    Part("leads", 8, "entries", 0.05),
)
KNOWN_PARTS = (Part("x", 3),)
KNOWN_SIZE = 8


def world() -> ECGWorldModel:
    """The shipped learned world, for its prior and its autoencoder; two-hour steps."""
    model = catalog.load("ecg-wm-small", hours_per_step=2.0)
    assert isinstance(model, ECGWorldModel)
    return model.eval().requires_grad_(False)


def known_pairs(key: Tensor) -> Pairs:
    """Pairs [B] of keys [B] from the known distribution: x ~ U(-1, 1)^3, z_post by `known_post`."""
    x = 2 * keys.uniform(key, 0, "known/x", (3,)) - 1
    z_post = known_post(x, key)
    return Pairs(torch.zeros_like(z_post), _known_prior(x), z_post, {"x": x}, torch.full((len(key), 9), torch.nan))


def _known_prior(x: Tensor) -> Tensor:
    return torch.cat([x, x.flip(-1), x[:, :2]], dim=-1)


def known_post(x: Tensor, key: Tensor) -> Tensor:
    """z_post [B, 8] given x [B, 3]: the prior and what it does not know.

    Entries 0 to 3 are correlated (0.8 between neighbours), with a spread that grows from 0.3 to 1.5 along x_0, about a
    bend in x_2; entry 4 sits at +-1 with the sign of x_1 favoured 4 to 1; the rest are independent, of spread 0.5.
    """
    e = keys.normal(key, 0, "known/e", (KNOWN_SIZE,))
    chain = [e[:, 0]]
    for k in range(1, 4):
        chain.append(0.8 * chain[-1] + 0.6 * e[:, k])
    spread = (0.9 + 0.6 * x[:, :1]) * torch.stack(chain, dim=-1)
    side = torch.where(keys.uniform(key, 0, "known/side") < 0.8, 1.0, -1.0) * torch.sign(x[:, 1])
    two = (side + 0.2 * e[:, 4]).unsqueeze(-1)
    return _known_prior(x) + torch.cat([spread + x[:, 2:3].square(), two, 0.5 * e[:, 5:]], dim=-1)


@torch.no_grad()
def _expected(model: ECGWorldModel, data: Courses, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the prior expects at each step: u [B, T, 6], effect [B, T, 8]; and hours since each dose [B, T, 4]."""
    batch = data.u.shape[0]
    charts = {**latent.intervals_of(data.u), **data.charts}
    first = {name: value[:, :1] for name, value in charts.items()}
    history = History(first, torch.zeros_like(data.actions[:, :1]), torch.zeros(batch, 1))
    state = infer(model, history, key, {})
    state = model.live_by(state, state.belief.mean)
    us, effects, since = [], [], []
    for i in range(data.u.shape[1] - 1):
        state = model.transition(state, data.actions[:, i])
        us.append(state.rates.anchor + state.deviation)
        effects.append(model.prior.effect(state.amounts))
        since.append(state.hours_since_dose)
    return torch.stack(us, 1), torch.stack(effects, 1), torch.stack(since, 1)


def _t_law(key: Tensor, effect: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How the T wave is drawn before [B, 5], after [B, V, 5], and after as a prior foresees it [B, V, 5].

    effect: [B, V, 8], fast and slow site of each drug. The prior knows the typical sensitivity, not the person's.
    """
    visits = effect.shape[1]
    full = (effect[..., ::2] / FULL_LEVEL).clamp_max(1.5) @ torch.tensor(list(T_CHANGE.values()))
    sensitivity = torch.exp(SENSITIVITY_LOG_SD * keys.normal(key, 0, "bed/sensitivity"))[:, None, None]
    shared = keys.normal(key, 0, "bed/t_shared", (visits + 1, 1)) * torch.tensor([-1.0, 1.0, 1.0, -1.0, 1.0])
    own = keys.normal(key, 0, "bed/t_own", (visits + 1, 5))
    moment = (SHARED**0.5 * shared + (1 - SHARED) ** 0.5 * own) * torch.tensor(T_MOMENT)
    person = keys.normal(key, 0, "bed/t_person", (5,)) * torch.tensor(T_PERSON)
    before = person + moment[:, 0]
    return before, person.unsqueeze(1) + sensitivity * full + moment[:, 1:], before.unsqueeze(1) + full


@torch.no_grad()
def _drawn(u: Tensor, law: Tensor, heights: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Templates [B, 8, L], their T coordinates [B, 5] as measured, and intervals, for u [B, 6], law [B, 5], heights."""
    found = latent.intervals_of(u)
    intervals = Intervals.of(*(found[name] for name in INTERVALS))
    gain, left, crown, foot, power = law.exp().unbind(-1)
    shape = TShape(gain, left * GAUSSIAN_LEFT * intervals.jt_peak_ms, crown, foot, (2 * power).clamp_min(1.4))
    template = beat_template(intervals, heights, t_shape=shape)
    j_point = (1 - R_SHARE) * intervals.qrs_ms
    peak = j_point + intervals.jt_peak_ms
    marks = TMarks(-R_SHARE * intervals.qrs_ms, j_point, peak, peak + intervals.tpeak_tend_ms)
    read = t_wave(template, marks, beats.RATE_HZ, beats.AT_R)
    raw = torch.stack([(read.amplitude_uv + 1.0).log(), *read[1:]], dim=-1)
    t = (raw - torch.tensor(T_CENTRE)) / torch.tensor(T_SCALE)
    return template, torch.nan_to_num(t, nan=0.0).clamp(-8, 8), found


@torch.no_grad()
def _encoded(model: ECGWorldModel, template: Tensor, found: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """m [B, 24] of templates, and the beats [B, 8, L] on the energy's window."""
    onset = beats.AT_R - R_SHARE * found["qrs_ms"] * (beats.RATE_HZ / 1000)
    ends = beats.piece_ends(*(found[name] for name in INTERVALS[1:]))
    canonical = beats.to_canonical(template, ends, onset, beats.RATE_HZ)
    leads = torch.ones(len(template), beats.LEAD_COUNT, dtype=torch.bool)
    m, _ = model.vae.encode(canonical, leads, beats.valid_samples(ends, 60_000 / found["heart_rate_bpm"]))
    step = 1000 / RATE_HZ
    times = torch.arange(-round(BEFORE_MS / step), round(AFTER_MS / step) + 1) * step
    return m, read_between(template, onset.unsqueeze(-1) + times * (beats.RATE_HZ / 1000))


def ecg_pairs(model: ECGWorldModel, seed: int, patients: int) -> tuple[Pairs, Tensor]:
    """Pairs [patients * VISITS], a patient's next to each other, z_prior's shape still the pre-dose one (see
    `lay_shapes`); and the true post-dose beats [N, 8, L] at RATE_HZ."""
    parts, beats_mv = [], []
    for start in tqdm(range(0, patients, 512), desc="pairs", mininterval=1):
        key = keys.from_seed(seed + start, min(512, patients - start))
        made, beat = _chunk(model, key)
        parts.append(made)
        beats_mv.append(beat)
    joined = {name: torch.cat([p.parts[name] for p in parts]) for name in parts[0].parts}
    columns = (torch.cat([getattr(p, n) for p in parts]) for n in ("z_pre", "z_prior", "z_post"))
    z_pre, z_prior, z_post = columns
    return Pairs(z_pre, z_prior, z_post, joined, torch.cat([p.predicted for p in parts])), torch.cat(beats_mv)


def _chunk(model: ECGWorldModel, key: Tensor) -> tuple[Pairs, Tensor]:
    data = sample_courses(key, STEPS, 2.0)
    expected, effect, since = _expected(model, data, keys.fold(key, "bed/infer"))
    batch = len(key)
    at = torch.floor(keys.uniform(key, 0, "bed/at", (VISITS,)) * STEPS).long()
    row = torch.arange(batch).unsqueeze(-1)
    expected, effect, since = expected[row, at], effect[row, at], since[row, at]
    given = torch.cumsum(data.actions, 1)[row, at] / model.prior.reference_mg
    before, after, foreseen = _t_law(key, effect)
    heights = MorphologyBank.load().sample(keys.fold(key, "bed/heights"))
    template, t_pre, found = _drawn(data.u[:, 0], before, heights)
    m_pre, _ = _encoded(model, template, found)
    u_post, often = data.u[row, at + 1].flatten(0, 1), heights.repeat_interleave(VISITS, 0)
    template, t_post, found = _drawn(u_post, after.flatten(0, 1), often)
    m_post, beat = _encoded(model, template, found)
    _, t_prior, _ = _drawn(expected.flatten(0, 1), foreseen.flatten(0, 1), often)

    def twice(x: Tensor) -> Tensor:
        return x.repeat_interleave(VISITS, 0)

    z_pre = twice(torch.cat([data.u[:, 0], t_pre, m_pre], dim=-1))
    z_prior = torch.cat([expected.flatten(0, 1), t_prior, twice(m_pre)], dim=-1)
    age, sex, weight = (data.charts[n][:, 0] for n in ("age_years", "sex_female", "weight_kg"))
    parts = {
        "pre_coordinates": z_pre[:, :COORDINATES],
        "pre_shape": z_pre[:, COORDINATES:],
        "effect": effect.flatten(0, 1),
        "dose": given.flatten(0, 1),
        "since_dose": (since / 24.0).flatten(0, 1),
        "hours": ((at + 1).flatten() * 2.0 / 24.0).unsqueeze(-1),
        "patient": twice(patient_features(age, sex, weight, data.metaboliser)),
        "leads": torch.ones(batch * VISITS, beats.LEAD_COUNT),
    }
    nothing = torch.full((batch * VISITS, 9), torch.nan)
    return Pairs(z_pre, z_prior, torch.cat([u_post, t_post, m_post], dim=-1), parts, nothing), beat


def lay_shapes(model: ECGWorldModel, pairs: Pairs, law: Tensor | None = None) -> tuple[Pairs, Tensor]:
    """Pairs whose prior moves the shape too, with what it predicts the reader finds; and the law used.

    The shape's law [11, 24], change of m per change of the other coordinates, is fitted by ridge where none is given:
    to the training pairs alone.
    """
    change = pairs.z_post - pairs.z_pre
    if law is None:
        x, y = change[:, :COORDINATES], change[:, COORDINATES:]
        law = torch.linalg.solve(x.T @ x + 1e-2 * len(x) * torch.eye(COORDINATES), x.T @ y)
    foreseen = (pairs.z_prior - pairs.z_pre)[:, :COORDINATES]
    z_prior = torch.cat([pairs.z_prior[:, :COORDINATES], pairs.z_pre[:, COORDINATES:] + foreseen @ law], dim=-1)
    return pairs._replace(z_prior=z_prior, predicted=foreseen_reading(model, pairs.z_pre, z_prior)), law


@torch.no_grad()
def foreseen_reading(model: ECGWorldModel, z_pre: Tensor, z_prior: Tensor) -> Tensor:
    """What the reader finds on the pre-dose beat, plus the prior's change: [N, 9]."""
    decode = PresentDecoder(model.vae, COORDINATES, RATE_HZ)
    read = torch.cat([read_measures(decode(part)) for part in z_pre.split(1024)])
    return read + _charted(z_prior) - _charted(z_pre)


def _charted(z: Tensor) -> Tensor:
    """`energy.MEASURED` [N, 9] as the coordinates have them."""
    found = latent.intervals_of(z[:, : len(latent.COORDINATES)])
    raw = z[:, len(latent.COORDINATES) : COORDINATES] * torch.tensor(T_SCALE) + torch.tensor(T_CENTRE)
    intervals = torch.stack([found[n] for n in ("pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms")], dim=-1)
    return torch.cat([intervals, raw[:, :1].exp(), raw[:, 1:]], dim=-1)
