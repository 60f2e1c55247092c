"""xResNet1d: from a 12-lead ECG to features, as in the benchmarks on PTB-XL and MIMIC-IV-ECG.

He et al. 2019, "Bag of tricks" (doi 10.1109/CVPR.2019.00065): a stem of three convolutions, shortcuts that average
before they project, the last scale of each block at zero. In one dimension: Strodthoff et al. 2021 (doi
10.1109/JBHI.2020.3022989), where every stage has 64 channels inside and 256 out. Without head 886,400 parameters; with
the concatenated pooling head for 76 labels 926,412.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from world_models.cardiac_jepa.config import JEPAConfig
from world_models.cardiac_jepa.reduce import BatchNorm1d

__all__ = ["ConcatPoolHead", "LEAD_COUNT", "MIN_SAMPLES", "XResNet1d", "initialise"]

LEAD_COUNT = 12  # all of `world_models.ecg.lead_names`
MIN_SAMPLES = 100  # 1 s at 100 Hz: the last stage still has four positions

# Standard deviation (mV) of each lead about its median, I II III aVR aVL aVF V1..V6: medians over LUDB's 160 open
# records (doi 10.1109/ACCESS.2020.3029211). Fixed: a record scaled by itself would lose its voltage, which is a sign.
_SCALE_MV = (0.128, 0.155, 0.109, 0.131, 0.098, 0.116, 0.171, 0.244, 0.254, 0.262, 0.239, 0.203)
_LEAST_MV = 1e-3  # deviation that a flat lead is divided by where a record is scaled by itself


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True, zero: bool = False
) -> nn.Sequential:
    """Convolution without bias, BatchNorm (scale zero if `zero`), and ReLU if `relu`."""
    norm = BatchNorm1d(outputs)
    if zero:
        nn.init.zeros_(norm.weight)
    layers: list[nn.Module] = [nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False), norm]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class _Halve(nn.Module):
    """Mean of each two samples (an odd last one stays): AvgPool1d(2, ceil_mode=True), but far faster on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        even = x.shape[-1] // 2 * 2
        left, right = x[..., :even].unflatten(-1, (-1, 2)).unbind(-1)
        pairs = (left + right) * 0.5
        return pairs if even == x.shape[-1] else torch.cat([pairs, x[..., even:]], dim=-1)


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int, outputs: int, kernel: int, stride: int):
        super().__init__()
        self.path = nn.Sequential(
            _convolution(inputs, inner, 1),
            _convolution(inner, inner, kernel, stride),
            _convolution(inner, outputs, 1, relu=False, zero=True),
        )
        shortcut: list[nn.Module] = []
        if stride > 1:
            shortcut.append(_Halve())
        if inputs != outputs:
            shortcut.append(_convolution(inputs, outputs, 1, relu=False))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.path(x) + self.shortcut(x))


def _run(layers: nn.Module, x: Tensor) -> Tensor:
    return layers(x)


class XResNet1d(nn.Module):
    """ECG [B, 12, T] in mV at 100 Hz, T from 100 samples -> features [B, out, T'] or their mean over time [B, out].

    `scaling`: "leads", each by a fixed deviation, so that voltages count; "record", each by its own mean and deviation.
    """

    scale_mv: Tensor  # [1, 12, 1]

    def __init__(
        self,
        stem: tuple[int, int, int] = (32, 32, 64),
        inner: int = 64,
        out: int = 256,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        kernel: int = 5,
        scaling: str = "leads",
    ):
        super().__init__()
        self.out, self.scaling = out, scaling
        widths = (LEAD_COUNT, *stem)
        layers: list[nn.Module] = [
            _convolution(widths[i], widths[i + 1], kernel, stride=2 if i == 0 else 1) for i in range(len(stem))
        ]
        layers.append(nn.MaxPool1d(3, 2, 1))
        inputs = stem[-1]
        for stage, count in enumerate(blocks):
            for i in range(count):
                layers.append(_Bottleneck(inputs, inner, out, kernel, stride=2 if stage and i == 0 else 1))
                inputs = out
        self.layers = nn.Sequential(*layers)
        self.register_buffer("scale_mv", torch.tensor(_SCALE_MV).view(1, LEAD_COUNT, 1))
        self._quick: Callable[[nn.Module, Tensor], Tensor] | None = None

    def quicken(self) -> XResNet1d:
        """Train through compiled kernels from now on; needs a C++ compiler. Weights, names and evaluation stay as they
        are: what compiles is the pass that has a gradient."""
        # the layers are an argument, so that a copy of the encoder trains its own
        self._quick = torch.compile(_run, dynamic=False)
        return self

    @classmethod
    def of(cls, config: JEPAConfig) -> XResNet1d:
        """The encoder of a config."""
        return cls(config.stem, config.inner, config.out, config.blocks, config.kernel, config.scaling)

    def features(self, ecg: Tensor) -> Tensor:
        """[B, out, T'], one position every 32 samples.

        Raises:
            ValueError: another number of leads, or under a second.
        """
        if ecg.ndim != 3 or ecg.shape[1] != LEAD_COUNT or ecg.shape[2] < MIN_SAMPLES:
            raise ValueError(
                f"an ECG has shape [B, {LEAD_COUNT}, T] with T of at least {MIN_SAMPLES} samples at 100 Hz, got "
                f"{list(ecg.shape)}; resample, and give all twelve leads in the standard order"
            )
        if self.scaling == "record":
            spread = ecg.std(-1, keepdim=True, correction=0).clamp(min=_LEAST_MV)
            return self._through((ecg - ecg.mean(-1, keepdim=True)) / spread)
        return self._through(ecg / self.scale_mv)

    def _through(self, x: Tensor) -> Tensor:
        if self._quick is None or not self.training or not torch.is_grad_enabled():
            return self.layers(x)
        return self._quick(self.layers, x)

    def forward(self, ecg: Tensor) -> Tensor:
        """The features' mean over time [B, out]. Raises as `features`."""
        return self.features(ecg).mean(-1)


class ConcatPoolHead(nn.Module):
    """Logits [B, classes] from features [B, inputs, T']: maximum and mean over time, BatchNorm, dropout, linear."""

    def __init__(self, inputs: int = 256, classes: int = 76, dropout: float = 0.5):
        super().__init__()
        self.layers = nn.Sequential(BatchNorm1d(2 * inputs), nn.Dropout(dropout), nn.Linear(2 * inputs, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits [B, classes]."""
        return self.layers(torch.cat([features.amax(-1), features.mean(-1)], dim=-1))


def initialise(module: nn.Module, seed: int) -> None:
    """Sample the weights of every convolution and linear layer anew from `seed`, whatever the global generator did.

    He's normal for convolutions, torch's usual uniform for linear layers, biases zero. What stands at zero on purpose
    (a residual's last layer) stays there.
    """
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        # A skeleton on the meta device has shapes and no values.
        if isinstance(part, nn.Conv1d | nn.Linear) and not part.weight.is_meta and bool(part.weight.any()):
            sampled = torch.empty(part.weight.shape)
            if isinstance(part, nn.Conv1d):
                nn.init.kaiming_normal_(sampled, nonlinearity="relu", generator=generator)
            else:
                nn.init.kaiming_uniform_(sampled, a=5**0.5, generator=generator)
            with torch.no_grad():
                part.weight.copy_(sampled)
                if part.bias is not None:
                    part.bias.zero_()
