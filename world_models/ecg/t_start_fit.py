"""Make the network of `t_start`: `python -m world_models.ecg.t_start_fit [--out FILE]`; a few minutes of one core.

Beats of the shipped bank, their T waves bent and blended at random, are asked for what other such waves measure at the
same intervals, and a little beside it; the loss is what the guessed bend misses. No other data is read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from world_models import keys
from world_models.ecg import t_reader as reader
from world_models.ecg import t_start
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.t_bend import bent_st_t, own_place, own_st_t
from world_models.ecg.t_start import FREE, INPUTS, LARGEST
from world_models.ecg.waveform import WAVES
from world_models.files import replacing
from world_models.nn.mlp import sample_weights

__all__ = ["StartNetwork", "fit_start", "random_beats"]

SEED = 2_700_000_000
STRIDE = 1_000  # seeds from one step's batch to the next's
WIDTH = 64
# Intervals are sampled evenly: QRS, J-Tpeak, Tpeak-Tend, ms; how far the J point and the T end that are read lie off.
QRS_MS, JT_PEAK_MS, TPEAK_TEND_MS = (70.0, 140.0), (120.0, 420.0), (45.0, 185.0)
J_OFF_MS, END_OFF = 3.0, 0.08
BEND_SD = (0.5, 0.65)  # of the logarithms of the own wave's slopes, and of those of the wave that is asked for
ASK_SD = (0.03, 0.01, 1.5, 1.5)  # beside what that wave measures: asymmetry, flatness, ERD_30, LRD_30
BLEND = 0.6  # largest share of a second wave, and of the waves that have one: leads then do not peak together
MISS = (0.015, 0.006, 0.9, 0.9, 0.5, 0.6)  # that counts as one in the loss, as `Beats.target`
STRAIN, UNEVEN = 0.02, 0.06  # cost of a bend by the mean square of its parameters, and of their change between knots
LEARNING_RATE = 5e-3


class StartNetwork(nn.Module):
    """The network of `t_start` to be trained: the same formula in matrix products."""

    def __init__(self, width: int = WIDTH):
        super().__init__()
        sizes = (INPUTS, width, width, FREE)
        self.linear = [nn.Linear(i, o) for i, o in zip(sizes, sizes[1:], strict=False)]
        self.layers = nn.ModuleList(self.linear)
        nn.init.zeros_(self.linear[-1].weight)

    def forward(self, asked: Tensor, own: Tensor) -> Tensor:
        """Parameters [B, FREE] of bends: asked [B, 6] and own [B, INPUTS - 6] on the network's scale."""
        hidden = torch.cat((asked, own), dim=-1)
        for layer in self.linear[:-1]:
            hidden = torch.tanh(layer(hidden))
        return LARGEST * torch.tanh(self.linear[-1](hidden) / LARGEST)

    def tensors(self) -> dict[str, Tensor]:
        """What `t_start.layers` reads."""
        found = {f"weight_{i}": x.weight.detach().T.contiguous() for i, x in enumerate(self.linear)}
        return found | {f"bias_{i}": x.bias.detach() for i, x in enumerate(self.linear)}


def _bends(key: Tensor, name: str, spread: float) -> Tensor:
    """Random parameters [B, FREE] of bends, neighbouring knots alike."""
    x = spread * keys.uniform(key, 0, f"{name}/size").unsqueeze(-1) * keys.normal(key, 0, name, (FREE,))
    left, right = reader.LEFT_FREE, FREE - 1
    for first, last in ((0, left), (left, right)):
        x[:, first + 1 : last] = 0.6 * x[:, first : last - 1] + 0.7 * x[:, first + 1 : last]
    x[:, -1] = 0.3 * x[:, -1]
    return x


def _own(bank: MorphologyBank, key: Tensor, bend: Tensor) -> Tensor:
    """Tables [B, 8, N] of the own ST and T of the bank's beats, bent."""
    own = own_st_t(bank.sample(key)[..., WAVES.index("ST") :])
    left, right = (torch.arange(n, dtype=torch.float32) / d for n, d in ((96, 96), (own.shape[-1] - 96, 32)))
    zero, one = torch.zeros(len(key), 1), torch.ones(len(key), 1)
    still = reader.free_shape(bend, one[:, 0])._replace(shift_ms=zero[:, 0])
    return bent_st_t(own, own_place(torch.cat((left, 1.0 + right)), zero, one, one, still), one[:, 0])


@torch.no_grad()
def random_beats(bank: MorphologyBank, key: Tensor) -> reader.Beats:
    """Beats to be bent, and what for, about as many as keys [B]: those that cannot be read are left out."""
    u = keys.uniform(key, 0, "start", (7,))
    span = (QRS_MS, JT_PEAK_MS, TPEAK_TEND_MS)
    qrs, jt, tail = (low + (high - low) * u[:, i] for i, (low, high) in enumerate(span))
    mine = _bends(key, "start/own", BEND_SD[0])
    share = (BLEND * u[:, 3] * (u[:, 4] < BLEND)).view(-1, 1, 1)
    own = _own(bank, key, mine) + share * _own(bank, keys.fold(key, "blend"), mine.roll(5, 0))
    j_point = 0.58 * qrs
    drawn = torch.stack((j_point, jt, tail), dim=-1)
    end = j_point + jt + tail * (1.0 + END_OFF * (2.0 * u[:, 6] - 1.0))
    marks = reader.Marks(j_point + J_OFF_MS * (2.0 * u[:, 5] - 1.0), j_point + jt, end)
    other = torch.where((keys.uniform(key, 0, "start/other") < 0.5)[:, None, None], own.roll(1, 0), own)
    one = torch.ones(len(key))
    nothing = torch.full((len(key), len(MISS)), torch.nan)
    theirs = reader.beats_of(other, drawn, marks, nothing, one)
    read, height = reader.read_bent(theirs, reader.free_shape(_bends(key, "start/asked", BEND_SD[1]), one))
    target = read.clone()
    target[:, 4], target[:, 5] = 0.0, marks.t_end - marks.t_peak
    target[:, :4] += torch.tensor(ASK_SD) * keys.normal(key, 0, "start/beside", (4,))
    low, high = torch.tensor((0.01, 0.2, 8.0, 8.0)), torch.tensor((1.3, 0.7, 200.0, 150.0))
    target[:, :4] = torch.minimum(torch.maximum(target[:, :4], low), high)
    known = torch.isfinite(read).all(-1) & ((read[:, 5] - target[:, 5]).abs() < 40.0)
    whole = reader.beats_of(own, drawn, marks, target, height)
    return reader.Beats(*(column[known] for column in whole))


def fit_start(steps: int, batch: int, width: int = WIDTH) -> StartNetwork:
    """The network after so many steps."""
    bank = MorphologyBank.load()
    network = StartNetwork(width)
    sample_weights(network, SEED)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, steps, pct_start=0.1)
    unit = torch.tensor(MISS)
    progress = tqdm(range(steps), mininterval=5.0)
    for step in progress:
        beats = random_beats(bank, keys.from_seed(SEED + step * STRIDE, batch))
        one = torch.ones(len(beats.drawn))
        plain, _ = reader.read_bent(beats, reader.free_shape(torch.zeros(len(one), FREE), one))
        asked, mine = (t_start.asks(x, beats.drawn) for x in (beats.target, plain))
        found = network(asked, torch.cat((mine, t_start.own_form(beats.channels, beats.drawn)), dim=-1))
        read, _ = reader.read_bent(beats, reader.free_shape(found, one))
        # A wave off which a measure cannot be read has no gradient either.
        read.register_hook(lambda g: torch.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0).clamp(-1.0, 1.0))
        off = torch.nan_to_num((read - beats.target) / unit)
        loss = nn.functional.smooth_l1_loss(off, torch.zeros_like(off))
        loss = loss + STRAIN * found.square().mean() + UNEVEN * reader.unevenness(found).square().mean()
        optimiser.zero_grad()
        loss.backward()
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}")
    return network


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=t_start.START_FILE)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=320)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    network = fit_start(options.steps, options.batch)
    with replacing(options.out) as path:
        save_file(network.tensors(), str(path))
    print(options.out)


if __name__ == "__main__":
    main()
