"""A rival of the JEPA on the same ECGs: the same encoder, pre-trained by filling in what was masked.

    python -m benchmarks.progression.masked --out DIR [--ptbxl DIR] [--ludb DIR]

Masked autoencoding after ECG-FM's fashion (McKeen 2024, arXiv 2408.05178, for masks over time and whole leads; He 2022,
doi 10.1109/CVPR52688.2022.01553, for the loss on masked samples alone), at the encoder's own small size: of every ECG
half of the quarter-seconds and a quarter of the leads are set to zero, and a linear decoder of the features tells them
from the rest. It meets the ECGs, the batches and the steps that `world_models.cardiac_jepa.train` meets by its
defaults, and learns neither label nor pair. Run the same command again after a kill.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.common.spent import spending
from world_models import command_line, keys, tree
from world_models.cardiac_jepa.config import NARROW, JEPAConfig
from world_models.cardiac_jepa.encoder import LEAD_COUNT, XResNet1d, initialise
from world_models.cardiac_jepa.pretrain import PairBatches, renew_norms
from world_models.cardiac_jepa.real_ecgs import MixedPairs, SingleECGs, tuning_ecgs
from world_models.cardiac_jepa.simulated_pairs import SimulatedPairs, simulated_visits
from world_models.cardiac_jepa.train import BATCH, PAIRS_PATIENTS, PAIRS_SEED, RATE, STEPS
from world_models.command_line import MOST_BATCH, MOST_THREADS, number, whole
from world_models.config_json import from_json, parse_json
from world_models.files import write_text
from world_models.oracles.progression.visits import consecutive
from world_models.tensor_file import save_tensors
from world_models.training import Schedule, fit

__all__ = ["MaskedAutoencoder", "load_encoder", "main", "train"]

STRIDE = 32  # samples of one position of the encoder's features
SPAN = 25  # samples of a masked stretch, 0.25 s
TIME_SHARE, LEAD_SHARE = 0.5, 0.25  # of the stretches, and of the leads, that are masked
NORM_BATCHES = 20


class MaskedAutoencoder(nn.Module):
    """The encoder, and one linear map of each position of its features to the samples there.

    Args:
        config: of the JEPA whose encoder it has.
        seed: of the first weights.
    """

    def __init__(self, config: JEPAConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.encoder = XResNet1d.of(config)
        self.decoder = nn.Conv1d(config.out, LEAD_COUNT * STRIDE, 1)
        initialise(self, seed)

    def masks(self, rows: int, samples: int, step: int) -> Tensor:
        """bool [rows, 12, samples], true where an ECG is hidden: a function of the step."""
        key = keys.fold(keys.from_seed(0, 1).expand(rows), torch.arange(rows))
        stretches = -(-samples // SPAN)
        in_time = keys.uniform(key, step, "masked time", (stretches,)) < TIME_SHARE
        leads = keys.uniform(key, step, "masked leads", (LEAD_COUNT,)) < LEAD_SHARE
        return in_time.repeat_interleave(SPAN, 1)[:, None, :samples] | leads[:, :, None]

    def forward(self, ecg: Tensor, step: int) -> Tensor:
        """Mean square error, in units of the leads' deviations, of the hidden samples of ECGs [B, 12, T] mV."""
        hidden = self.masks(len(ecg), ecg.shape[-1], step).to(ecg.device)
        features = self.encoder.features(ecg.masked_fill(hidden, 0.0))
        told = self.decoder(features).unflatten(1, (LEAD_COUNT, STRIDE)).transpose(2, 3).flatten(2)
        wrong = (told[..., : ecg.shape[-1]] - ecg / self.encoder.scale_mv).square()
        return (wrong * hidden).sum() / hidden.sum().clamp(min=1)


def train(
    config: JEPAConfig,
    source: PairBatches,
    out: Path,
    steps: int,
    batch: int,
    rate: float = RATE,
    device: str = "cpu",
    compiled: bool = False,
) -> nn.Module:
    """Train in `out`, where progress is kept; the encoder, in evaluation mode, is saved there with its config.

    Args:
        compiled: through compiled kernels, which round otherwise in the last bits.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: `out` holds another run.
    """
    wanted = {"config": config.to_dict(), "pairs": len(source), "steps": steps, "batch": batch, "rate": rate}
    told = out / "run.json"
    if told.exists() and parse_json(told.read_text(encoding="utf-8"), str(told)) != wanted:
        raise ValueError(f"{out} holds a run with other settings; delete it or name another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_text(told, json.dumps(wanted, indent=1))
    model = MaskedAutoencoder(config).to(device).train()
    if compiled:
        model.encoder.quicken()

    def ecgs(step: int) -> Tensor:
        return torch.cat(source.batch(step, batch)[:2]).to(device)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        value = model(ecgs(step), step)
        return value, {"masked": float(value.detach())}

    with spending(out):
        fit(model, loss, Schedule(steps, rate, weight_decay=1e-2, shape="onecycle"), out, "masked")
        renew_norms(model, lambda i: model(ecgs(steps + i), steps + i), NORM_BATCHES)
    save_tensors(out / "encoder.safetensors", model.encoder.state_dict())
    write_text(out / "config.json", json.dumps(config.to_dict(), indent=1))
    return model.encoder.eval()


def load_encoder(folder: str | Path) -> tuple[nn.Module, JEPAConfig]:
    """A trained encoder, in evaluation mode, and its config.

    Raises:
        ValueError: the folder holds none, or one that does not fit its config.
    """
    folder = Path(folder)
    if not (folder / "encoder.safetensors").is_file() or not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no masked autoencoder; make one with python -m benchmarks.progression.masked")
    where = str(folder / "config.json")
    config = from_json(JEPAConfig, parse_json((folder / "config.json").read_text(encoding="utf-8"), where), where)
    encoder = XResNet1d.of(config)
    try:
        encoder.load_state_dict(load_file(folder / "encoder.safetensors"))
    except RuntimeError as error:
        raise ValueError(f"{folder}: the encoder does not fit its config ({error}); make it again") from None
    return encoder.eval(), config


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    about = (__doc__ or "").splitlines()[0]
    p = argparse.ArgumentParser(prog="python -m benchmarks.progression.masked", description=about)
    p.add_argument("--out", type=command_line.folder, required=True, help="folder of the encoder, and of its progress")
    p.add_argument("--ptbxl", type=Path, help="folder of PTB-XL: its folds 1 to 6, unlabelled")
    p.add_argument("--ludb", type=Path, help="folder of LUDB: its odd records likewise")
    p.add_argument("--real-share", type=number(0, 0.9, above=True), default=0.25, help="of a batch: real ECGs")
    p.add_argument("--drawn", type=whole(100), default=PAIRS_PATIENTS, help="simulated patients")
    p.add_argument("--steps", type=whole(1), default=STEPS)
    p.add_argument("--batch", type=whole(2, MOST_BATCH), default=BATCH, help="pairs of ECGs")
    p.add_argument("--compile", action="store_true", help="through compiled kernels (needs g++)")
    p.add_argument("--device", type=command_line.device, default="cpu")
    p.add_argument("--threads", type=whole(1, MOST_THREADS), default=1)
    a = p.parse_args(argv)
    for name in ("ptbxl", "ludb"):
        if getattr(a, name) is not None and not getattr(a, name).is_dir():
            p.error(f"--{name} {getattr(a, name)} is no folder; correct the path")
    return a


def main(argv: list[str] | None = None) -> int:
    """The command line; the process' exit code: 2 for input that cannot be used."""
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    try:
        ecg = None if a.ptbxl is None and a.ludb is None else tuning_ecgs(a.ptbxl, a.ludb)
        visits = tree.to(simulated_visits(a.out / "visits", PAIRS_SEED, a.drawn), a.device)
        source: PairBatches = SimulatedPairs(visits, *consecutive(visits).unbind(1), crop=NARROW.crop_samples)
        if ecg is not None:
            singles = SingleECGs(ecg, len(NARROW.codes), NARROW.crop_samples)
            source = MixedPairs(source, singles, a.real_share)
        train(NARROW, source, a.out, a.steps, a.batch, device=a.device, compiled=a.compile)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(a.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
