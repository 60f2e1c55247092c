"""What the page asks of the learned world, as networks of tensors alone: a step with its task, and an ECG in parts.

An ECG's T wave is bent by a search whose rounds are as many as it takes, so its drawing is cut where the rounds are:
`Beat` and `Bend` begin, `Begin` and `Round` search, `Draw` ends. All are of one patient. The page runs them in the
order of `drawn`, which is the same in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clinenv.play.game import Game
from clinenv.simulator import Simulator
from world_models import tree
from world_models.ecg import beat_axis
from world_models.ecg.as_read import drawn_as_read
from world_models.ecg.beat_train import PRE_MS, beat_samples, beats_needed
from world_models.ecg.fibrillation import fibrillation_beats, fibrillation_waves
from world_models.ecg.t_reader import Beats, free_shape
from world_models.ecg.t_synthesis import QUICK, SCALE, Search, begun, cost, posed, search_begun, search_round
from world_models.ecg.t_wave import TWave
from world_models.ecg.waveform import Intervals, beat_template
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.recorded import INTERVALS
from world_models.ecg_wm.state import ECGWorldState
from world_models.ecg_wm.synthesis import HRV_MS, NO_PR_MS, SAMPLES, decoded_beat
from world_models.ecg_wm.t_measures import T_MEASURES, t_wave_asked

__all__ = ["Named", "StepOfGame", "drawing", "drawn", "named", "state_from"]

Named = dict[str, Tensor]  # a tree's tensors by their places in it: "present.u"
_RATE_HZ = 500.0
_HIGHEST_BPM = 250.0  # of a chart: as many beats as a drawing may need


def named(made_of: Any, prefix: str = "") -> Named:
    """The tensors of a state by their places in it, such as "present.u"."""
    if isinstance(made_of, Tensor):
        return {prefix: made_of}
    pairs = made_of.items() if isinstance(made_of, dict) else zip(made_of._fields, made_of, strict=True)
    found: Named = {}
    for name, part in pairs:
        found |= named(part, f"{prefix}.{name}" if prefix else name)
    return found


def state_from(tensors: Mapping[str, Tensor], like: ECGWorldState) -> ECGWorldState:
    """A state of the structure of `like`, of `named` tensors; those that are not among them are those of `like`."""
    names = iter(named(like))

    def taken(leaf: Tensor) -> Tensor:
        return tensors.get(next(names), leaf)

    return tree.map_leaves(taken, like)


class StepOfGame(nn.Module):
    """A step of one patient and what the page shows of it.

    Args:
        game: whose rows are shown.
        simulator: the learned world with the game's task.
        numbers: a chart -> the rows' values [1, R] (`clinenv.play.drug_game.numbers`).
        like: a state, for its structure.
    """

    def __init__(self, game: Game, simulator: Simulator, numbers: Callable[[Any], Tensor], like: ECGWorldState) -> None:
        super().__init__()
        assert isinstance(simulator.world, ECGWorldModel)
        self.world, self.simulator, self.numbers, self.like = simulator.world, simulator, numbers, like
        self.rows = tuple(row.key for row in game.rows)

    def forward(self, state: Named, dose_mg: Tensor) -> Named:
        """What the step of a state (`named`, [1, ...] each) under a dose [1, D] changes of it, and under "shown.*" what
        the page shows (`shown`), reward and cost with their parts, and the end."""
        before = state_from(state, self.like)
        out = self.simulator.step(before, self.world.observe(before), dose_mg)
        old, new = named(before), named(out.state)
        changed = {name: value for name, value in new.items() if name in state and value is not old[name]}
        return {
            **changed,
            **self.shown(out.state, out.chart),
            "shown.reward": out.reward,
            "shown.terms": torch.stack(list(out.terms.values()), -1),
            "shown.cost": out.cost,
            "shown.costs": torch.stack(list(out.cost_parts.values()), -1),
            "shown.terminated": out.terminated,
        }

    def shown(self, state: ECGWorldState, chart: Any) -> Named:
        """Hours, the rows' values and their spread [1, R] (NaN: not known), and whether the world was fitted here."""
        spread = self.world.spread(state)
        unknown = torch.full_like(state.hours, torch.nan)
        return {
            "shown.hours": self.simulator.task.clock(chart),
            "shown.values": self.numbers(chart),
            "shown.spread": torch.stack([spread.get(row, unknown) for row in self.rows], -1),
            "shown.support": self.world.support(state),
        }


class Beat(nn.Module):
    """The beat to be drawn, and with which intervals, so that a reader finds those of the chart."""

    def __init__(self, world: ECGWorldModel) -> None:
        super().__init__()
        self.vae = world.vae

    def forward(self, shape: Tensor, first_shape: Tensor, intervals: Tensor, t_wave: Tensor) -> Named:
        """Of latents [1, M], the chart's INTERVALS and T_MEASURES [1, 5] each: the beat [1, 8, 200] mV, the intervals
        to draw with [1, 6], and what is to be bent for (`t_reader.Beats`)."""
        chart = {
            **dict(zip(INTERVALS, intervals.unbind(-1), strict=True)),
            **dict(zip(T_MEASURES, t_wave.unbind(-1), strict=True)),
        }
        asked = t_wave_asked(chart)
        assert asked is not None
        residual = decoded_beat(self.vae, shape, first_shape, None, asked)
        pr = torch.nan_to_num(chart["pr_ms"], nan=NO_PR_MS)
        wanted = Intervals.of(*({**chart, "pr_ms": pr}[name] for name in INTERVALS))
        draw_with, marks = drawn_as_read(wanted, None, residual)
        beats = posed(draw_with, None, TWave(*asked.unbind(-1)), residual, marks)
        return {"beat": residual, "draw_with": torch.stack(draw_with, -1), **named(beats, "beats")}


class Bend(nn.Module):
    """The first guesses of the T wave's bend."""

    def forward(self, beats: Named) -> Named:
        """Where the search stands, and the misses' squares "left" [1] that decide whether it goes on."""
        at = begun(_beats(beats))
        return {**named(at, "at"), "left": cost(at.off[:, : len(SCALE)])}


class Begin(nn.Module):
    """What the first round of the search starts from."""

    def forward(self, beats: Named, at: Named) -> Named:
        """Where the search stands, its slopes and damping."""
        return _searched(*search_begun(_beats(beats), _search(at)))


class Round(nn.Module):
    """A round of the search for the T wave's bend."""

    def forward(self, beats: Named, at: Named, slope: Tensor, damping: Tensor) -> Named:
        """Where the search stands then, its slopes and damping."""
        return _searched(*search_round(_beats(beats), _search(at), slope, damping))


class Draw(nn.Module):
    """Twelve leads of ten seconds at 500 Hz."""

    def forward(
        self, key: Tensor, t: Tensor, draw_with: Tensor, beat: Tensor, x: Tensor, gain: Tensor, fibrillating: Tensor
    ) -> Named:
        """ECG [1, 12, 5000] mV of a beat [1, 8, 200] mV with intervals [1, 6] and the bend found: `x` [1, FREE], its
        gain [1]; key and t [1] are the state's."""
        intervals = Intervals(*draw_with.unbind(-1))
        rate = intervals.heart_rate_bpm
        count = beats_needed(torch.tensor([_HIGHEST_BPM]))
        no_p = torch.arange(beat.shape[-1]) < beat_axis.QRS_START
        beat = torch.where(fibrillating[:, None, None] & no_p, 0.0, beat)
        template = beat_template(intervals, None, _RATE_HZ, free_shape(x, gain), beat)
        regular = beat_samples(key, t, rate, hrv_ms=HRV_MS, count=count)
        r = torch.where(fibrillating.unsqueeze(-1), fibrillation_beats(key, t, rate, count), regular)
        eight = _laid(template, r)
        waves = fibrillation_waves(key, t, SAMPLES, _RATE_HZ)
        eight = torch.where(fibrillating[:, None, None], eight + waves, eight)
        one, two = eight[:, :1], eight[:, 1:2]
        limb = (two - one, (one + two) * -0.5, one - two * 0.5, two - one * 0.5)
        return {"ecg_mv": torch.cat((one, two, *limb, eight[:, 2:]), dim=1)}


def _laid(template: Tensor, r_samples: Tensor) -> Tensor:
    """`beat_train.tile` of one patient as a convolution: what overlaps is added up in another order."""
    length = template.shape[-1]
    at_r = int(PRE_MS * _RATE_HZ / 1000.0)
    whole = torch.arange(length) % (length - 1) != 0  # the template's ends hold nothing but a cut tail
    moments = torch.arange(-(length - 1), SAMPLES)
    starts = ((r_samples - at_r).unsqueeze(-1) == moments).sum(1, keepdim=True).to(template.dtype)
    kernel = (template * whole).flip(-1).transpose(0, 1)
    return nn.functional.conv1d(starts, kernel)


def _beats(tensors: Named) -> Beats:
    return Beats(**{name.removeprefix("beats."): value for name, value in tensors.items()})


def _search(tensors: Named) -> Search:
    return Search(**{name.removeprefix("at."): value for name, value in tensors.items()})


def _searched(at: Search, slope: Tensor, damping: Tensor) -> Named:
    return {**named(at, "at"), "slope": slope, "damping": damping}


def drawing(world: ECGWorldModel) -> dict[str, nn.Module]:
    """The parts of a drawing by name, in the order in which they are asked."""
    parts = {"beat": Beat(world), "bend": Bend(), "begin": Begin(), "round": Round(), "draw": Draw()}
    return {name: part.eval() for name, part in parts.items()}


def drawn(
    run: Callable[[str, Named], Named], state: Named, chart: Mapping[str, Tensor], all_parts: bool = False
) -> Tensor:
    """The ECG [1, 12, 5000] mV of a state and its chart, asked part by part; `assets/ecg.js` does the same.

    Args:
        run: name of a part and its inputs, of which it takes those that it knows -> its outputs.
        all_parts: search in any case.
    """
    held = {
        **state,
        "intervals": torch.stack([chart[name] for name in INTERVALS], -1),
        "t_wave": torch.stack([chart[name] for name in T_MEASURES], -1),
        "fibrillating": state["present.fibrillating"],
    }
    rounds, enough = QUICK
    held |= run("beat", held)
    held |= run("bend", held)
    if all_parts or float(held["left"]) > enough:
        held |= run("begin", held)
        for _ in range(rounds):
            held |= run("round", held)
    held |= {"x": held["at.x"], "gain": held["at.gain"]}
    return run("draw", held)["ecg_mv"]
