"""When atria and ventricles beat: one grid of beats with two modes, so that rhythms combine as they do in people.

The atria are in sinus rhythm, fibrillate, flutter, or cannot be seen (supraventricular tachycardia). The ventricles
follow them, follow them irregularly (fibrillation), follow every second to fourth wave (flutter), drop beats (second
degree), keep their own slow rate (third degree, with or without fibrillation), run away (ventricular tachycardia) or
are paced. Premature beats are laid on top: ventricular ones leave the grid as it is (full compensatory pause), atrial
ones reset it.

Rates (k, textbooks): fibrillation 70-130 bpm untreated with RR varying by a fifth; flutter 250-320 a minute conducted
2:1 to 4:1; supraventricular tachycardia 150-220; ventricular 130-210; junctional escape 40-55, ventricular 28-42. A
beta-blocker slows fibrillation by a fifth and makes 4:1 likelier.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg.fibrillation import fibrillation_waves, irregular
from world_models.ecg.waveform import R_SHARE
from world_models.oracles.progression.ecg.beats import SAMPLING_RATE_HZ, TICKS_PER_SECOND
from world_models.oracles.progression.ecg.shown import Shown

__all__ = ["BeatTimes", "Rhythm", "atrial_waves", "beats_of", "is_paced", "rhythm_of"]

_SHORTEST_RR_S = 0.27
_LEAD_IN_S = 1.0  # beats before the recording lend it their tails
_PREMATURE = 0.38  # of the RR by which a ventricular extrasystole comes early
_PURPOSES = (
    "rhythm/first", "rhythm/fast", "rhythm/af_rate", "rhythm/cycle", "rhythm/ratio", "rhythm/phase", "rhythm/forced",
    "rhythm/breath", "rhythm/breath_phase", "rhythm/sinus_under",
)  # fmt: skip
_PERSON_PURPOSES = (
    "rhythm/escape",
    "rhythm/often",
    "rhythm/grouping",
    "rhythm/slow",
    "rhythm/variability",
    "rhythm/wenckebach",
)


class Rhythm(NamedTuple):
    """Modes and rates of B patients' recordings."""

    fibrillating: Tensor  # bool [B]
    fluttering: Tensor  # bool [B]
    decoupled: Tensor  # bool [B]: P waves at their own rate
    p_visible: Tensor  # bool [B]
    wide: Tensor  # bool [B]: every beat is the ventricular focus's
    rr_s: Tensor  # float32 [B] mean RR of conducted beats
    day: Tensor  # [B, 10] uniforms of the day
    person: Tensor  # [B, 6] uniforms of the person


class BeatTimes(NamedTuple):
    """Where waves start; K and M events, in ticks of 5 ms from the recording's start."""

    r_ticks: Tensor  # int64 [B, K]
    kind: Tensor  # int64 [B, K]: 0 conducted (or paced), 1 from the ventricular focus
    gain: Tensor  # [B, K]
    p_ticks: Tensor  # int64 [B, K]
    p_gain: Tensor  # [B, K]


def is_paced(shown: Shown, treated: dict[str, Tensor]) -> Tensor:
    """bool [B]: the ventricles are stimulated.

    With resynchronisation always; with a pacemaker or a defibrillator where the block of high degree or the sick sinus
    is there that it paces in.
    """
    block = shown.is_form("I44", "second_degree") | shown.is_form("I44", "third_degree")
    need = (shown.has("I44") & block) | (shown.has("I49") & shown.is_form("I49", "sick_sinus"))
    return (need & ((treated["pacemaker"] > 0) | (treated["icd"] > 0))) | (treated["crt"] > 0)


def rhythm_of(
    key: Tensor, t: Tensor, shown: Shown, treated: dict[str, Tensor], paced: Tensor, sinus_bpm: Tensor
) -> Rhythm:
    """Modes and rate of recordings [B]; `sinus_bpm` [B] is the sinus rate with what conditions and drugs did to it."""
    u, person = keys.uniforms(key, t, _PURPOSES), keys.uniforms(key, 0, _PERSON_PURPOSES)
    beta = treated["beta_blocker"]
    vt = shown.sees("I47", "ventricular") & ~paced
    fibrillating = shown.sees("I48", "fibrillation")
    fluttering = shown.sees("I48", "flutter")
    svt = shown.sees("I47", "supraventricular") & ~fibrillating & ~fluttering & ~paced
    third = shown.sees("I44", "third_degree") & ~paced & ~vt
    svt = svt & ~third
    sick = shown.sees("I49", "sick_sinus") & ~paced

    rate = torch.where(sick, 37.0 + 12.0 * person[:, 3], sinus_bpm)
    af_rate = (66.0 + 62.0 * u[:, 2]) * (1.0 - 0.2 * beta) + 0.35 * (sinus_bpm - 70.0)
    slow_node = shown.sees("I44", "second_degree") | shown.sees("I44", "first_degree") | sick
    rate = torch.where(fibrillating, torch.where(slow_node, 0.65 * af_rate, af_rate).clamp(40.0, 150.0), rate)
    cycle = 0.19 + 0.045 * u[:, 3]
    four = u[:, 4] > 0.5 - 0.3 * beta
    three = u[:, 4] > 0.9
    ratio = torch.where(three, 3.0, torch.where(four | slow_node, 4.0, 2.0))
    rate = torch.where(fluttering, 60.0 / (cycle * ratio), rate)
    rate = torch.where(svt, 150.0 + 65.0 * u[:, 1], rate)
    junctional = person[:, 0] < 0.45
    escape = torch.where(junctional, 41.0 + 13.0 * u[:, 1], 29.0 + 12.0 * u[:, 1])
    rate = torch.where(third, escape, rate)
    rate = torch.where(paced, rate.clamp_min(60.0 + 8.0 * person[:, 3]), rate)
    rate = torch.where(paced & (fibrillating | fluttering), 62.0 + 10.0 * person[:, 3], rate)
    rate = torch.where(vt, 135.0 + 70.0 * u[:, 1], rate)
    return Rhythm(
        fibrillating,
        fluttering,
        decoupled=third | vt,
        p_visible=~(fibrillating | fluttering | svt),
        wide=vt | (third & ~junctional),
        rr_s=60.0 / rate.clamp(27.0, 215.0),
        day=u,
        person=person,
    )


def _premature(key: Tensor, t: Tensor, shown: Shown, free: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ventricular and atrial premature beats, pauses: each bool [B, K]."""
    u = keys.uniform(key, t, "rhythm/premature", (3, count))
    person, day = keys.uniform(key, 0, "rhythm/often"), keys.uniform(key, t, "rhythm/forced")
    index = torch.arange(count, device=key.device)
    forced = index == (3.0 + torch.floor(4.0 * day)).unsqueeze(-1)  # a recording that shows it shows one at least

    def beats(row: int, seen: Tensor, often: Tensor, else_rate: Tensor) -> Tensor:
        chance = torch.where(seen, often, else_rate)
        return ((u[:, row] < chance.unsqueeze(-1)) | (forced & seen.unsqueeze(-1))) & free.unsqueeze(-1)

    damaged = (shown.has("I50") | shown.has("I42") | shown.has("I25")).to(torch.float32)
    pvc = beats(0, shown.sees("I49", "ventricular_beats"), 0.08 + 0.3 * person, 0.001 + 0.015 * damaged)
    early = beats(1, shown.sees("I49", "atrial_beats"), 0.08 + 0.2 * person, 0.002 + 0.02 * shown.has("I48"))
    pause = beats(2, shown.sees("I49", "sick_sinus"), 0.05 + 0.15 * person, torch.zeros_like(person))
    none = torch.zeros_like(pvc[:, :1])
    pvc = pvc & ~torch.cat((none, pvc[:, :-1]), dim=1)  # no couplets: two in a row would overtake the grid
    pvc = pvc & ~torch.cat((none, pvc[:, :-1]), dim=1)
    beside = pvc | torch.cat((none, pvc[:, :-1]), dim=1) | torch.cat((pvc[:, 1:], none), dim=1)
    early = early & ~beside
    early = early & ~torch.cat((none, early[:, :-1]), dim=1)
    return pvc, early, pause & ~beside & ~early


def beats_of(
    key: Tensor, t: Tensor, shown: Shown, rhythm: Rhythm, paced: Tensor, pr_ms: Tensor, qrs_ms: Tensor, age: Tensor,
    samples: int,
) -> BeatTimes:  # fmt: skip
    """Times of all beats around recordings of `samples`; pr_ms and qrs_ms [B] of conducted beats."""
    seconds = samples / SAMPLING_RATE_HZ
    count = int(math.ceil((seconds + _LEAD_IN_S + 0.5) / _SHORTEST_RR_S)) + 4
    u, rr = rhythm.day, rhythm.rr_s.unsqueeze(-1)
    af = rhythm.fibrillating & ~rhythm.decoupled & ~paced
    regular = rhythm.decoupled | paced | rhythm.fluttering | (rhythm.rr_s < 0.41)
    free = ~regular & ~rhythm.wide
    second = shown.sees("I44", "second_degree") & ~paced & ~rhythm.fibrillating & ~regular
    pvc, early, pause = _premature(key, t, shown, free & ~second, count)
    n = keys.normal(key, t, "rhythm/rr", (count,))
    index = torch.arange(count, dtype=torch.float32, device=key.device)

    # Respiratory arrhythmia fades with age; fibrillation has none of it.
    height = ((0.055 - 0.0005 * (age - 20.0)).clamp(0.012, 0.06) * (0.5 + rhythm.person[:, 4])).unsqueeze(-1)
    height = torch.where(free.unsqueeze(-1), height, 0.1 * height)
    breath_hz = 0.2 + 0.12 * u[:, 7:8]
    angle = 2.0 * math.pi * (breath_hz * rr * index + u[:, 8:9])
    breath = torch.sin(angle)
    spread = 1.0 + height * breath + 0.01 * n * free.unsqueeze(-1)
    spread = torch.where(af.unsqueeze(-1), irregular(n), spread)
    # Flutter: in a third of recordings the ratio changes from beat to beat by one wave.
    varied = (rhythm.fluttering & ~paced & ~rhythm.decoupled & (u[:, 5] < 0.35)).unsqueeze(-1)
    spread = torch.where(varied & (n > 0.7), spread * 1.5, spread)
    step = spread * torch.where(early, 0.66, 1.0) * torch.where(pause, 2.1, 1.0)
    step = (step * rr).clamp_min(_SHORTEST_RR_S)
    # Sequential sums over a row, so a row alone adds up in the same order.
    grid = torch.cumsum(step.to(torch.float64), dim=1).to(torch.float32)
    grid = grid - step[:, :1] - _LEAD_IN_S - u[:, 0:1] * rr

    group = 2.0 + torch.floor(3.0 * rhythm.person[:, 2]).unsqueeze(-1)  # 2:1, 3:2 or 4:3
    place = torch.remainder(index + torch.floor(4.0 * u[:, 5:6]), group)
    dropped = (place == group - 1.0) & second.unsqueeze(-1)
    lengthens = (second & (rhythm.person[:, 5] < 0.6)).unsqueeze(-1) * (group > 2.0)
    r = grid - _PREMATURE * pvc * rr + 0.055 * place * lengthens
    r_ticks = torch.round(r * TICKS_PER_SECOND).to(torch.int64)

    kind = (pvc | rhythm.wide.unsqueeze(-1)).to(torch.int64)
    alternate = (shown.of("I31") > 1.05).unsqueeze(-1)  # a large effusion lets the heart swing at every second beat
    swing = torch.where(torch.remainder(index, 2.0) > 0, 1.28, 0.72)
    gain = (1.0 + 0.045 * breath) * torch.where(alternate, swing, 1.0)
    gain = gain * ~dropped

    before = (pr_ms + R_SHARE * qrs_ms).unsqueeze(-1) * 1e-3
    # Dissociated atria keep a sinus rate of their own, quickened by the low output.
    own = 60.0 / (68.0 + 30.0 * u[:, 9:10])
    p = torch.where(rhythm.decoupled.unsqueeze(-1), own * index - _LEAD_IN_S - own * u[:, 6:7], grid - before)
    p_ticks = torch.round(p * TICKS_PER_SECOND).to(torch.int64)
    hidden = pvc & ~rhythm.decoupled.unsqueeze(-1)
    p_gain = (rhythm.p_visible.unsqueeze(-1) & ~hidden).to(torch.float32) * (1.0 + 0.03 * breath)
    return BeatTimes(r_ticks, kind, gain, p_ticks, p_gain)


def atrial_waves(key: Tensor, t: Tensor, fluttering: Tensor, cycle_u: Tensor, samples: int) -> Tensor:
    """Fibrillation's or flutter's waves in mV, [B, 8, samples], for patients in one of them.

    Fibrillation: see `ecg.fibrillation`. Flutter: a sawtooth, steep up and slowly down in II (inferior leads), small in
    I, upright in V1.
    """
    fibrillation = fibrillation_waves(key, t, samples, SAMPLING_RATE_HZ)
    own = keys.uniforms(key, 0, ("waves/rate", "waves/size", ("waves/lead", 16)))
    u = keys.uniforms(key, t, (("waves/phase", 6), "waves/drift"))
    seconds = torch.arange(samples, dtype=torch.float32, device=key.device) / SAMPLING_RATE_HZ
    turn = 2.0 * math.pi
    lead = 0.6 + 0.8 * own[:, 2:18]
    phase = torch.remainder(seconds / (0.19 + 0.045 * cycle_u.unsqueeze(-1)) + u[:, 4:5], 1.0)
    saw = torch.where(phase < 0.25, phase * 8.0 - 1.0, 1.0 - (phase - 0.25) * (2.0 / 0.75))
    saw = saw + 0.25 * torch.sin(turn * phase)
    sizes = torch.tensor((-0.02, -0.13, 0.09, 0.05, 0.02, -0.02, -0.03, -0.04), device=key.device)
    flutter = (sizes * lead[:, :8] * (0.7 + 0.6 * own[:, 1:2])).unsqueeze(-1) * saw.unsqueeze(1)
    return torch.where(fluttering.reshape(-1, 1, 1), flutter, fibrillation)
