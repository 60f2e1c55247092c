"""The pre-dose ECG through a frozen encoder: our Cardiac JEPA's, a Hugging Face model on disk, or any torch module.

    extractor = load_extractor("cardiac-jepa-small")          # or a folder, or an nn.Module
    extractor = extractor.fitted(training_ecgs, 500.0)        # centre and spread of each feature
    h = extractor(chart["ecg_mv"], 500.0)                     # [B, F], about zero, no gradient

What reaches the encoder: the leads it wants in the order it wants, at its sampling rate, cut or padded to its length,
each lead about its median. Nothing is fetched from the net and no code of a folder's own is run; weights are
safetensors, never a pickle (so no TorchScript either: load such a module yourself and pass it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_models.cardiac_jepa.features import load_features, resampled
from world_models.catalog import WORLDS
from world_models.config_json import ConfigError, parse_json
from world_models.ecg.lead_names import LEADS

__all__ = ["ENCODER_INPUTS", "EncoderInput", "FeatureExtractor", "load_extractor", "local_model", "pooled_states"]

JEPA_KIND = "cardiac-jepa"
ENCODER_INPUTS = ("input_values", "past_values", "pixel_values")  # what models of transformers may be fed with
_LEAST_SPREAD = 1e-4
_AT_ONCE = 32  # ECGs that an encoder is given at once


@dataclass(frozen=True)
class EncoderInput:
    """How an encoder wants its ECG."""

    sampling_rate_hz: float = 100.0
    samples: int | None = None  # cut to the middle ones, or padded with zeros; None: as long as it comes
    leads: tuple[str, ...] = LEADS
    pooling: str = "mean"  # of an output that has a time axis: "mean", "max" or "mean+std"
    time_axis: int = 1  # of such an output [B, ...]

    def __post_init__(self) -> None:
        unknown = [name for name in self.leads if name not in LEADS]
        if unknown or not self.leads:
            raise ValueError(f"leads {', '.join(unknown) or '()'} are not known; choose from {', '.join(LEADS)}")
        if self.pooling not in ("mean", "max", "mean+std"):
            raise ValueError(f"pooling={self.pooling!r} is not known; choose mean, max or mean+std")
        if not self.sampling_rate_hz > 0 or (self.samples is not None and self.samples < 1):
            raise ValueError(
                f"sampling_rate_hz={self.sampling_rate_hz} and samples={self.samples} must be above 0 for an encoder"
            )


def pooled_states(states: Tensor, pooling: str, time_axis: int = 1) -> Tensor:
    """[B, F] of an encoder's output [B, F], or [B, ..., F] with a time axis that is pooled; other axes are averaged.

    Raises:
        ValueError: an output without a batch and a feature axis.
    """
    if states.ndim < 2:
        raise ValueError(f"the encoder gave {tuple(states.shape)}; its output must be [B, F] or [B, ..., F]")
    if states.ndim == 2:
        return states
    axis = time_axis % states.ndim
    if pooling == "max":
        out = states.amax(axis)
    else:
        out = states.mean(axis)
    if pooling == "mean+std":
        out = torch.cat([out, states.std(axis, unbiased=False)], -1)
    if out.ndim > 2:
        out = out.flatten(2).mean(-1) if axis == states.ndim - 1 else out.flatten(1, -2).mean(1)
    return out


@dataclass(frozen=True)
class FeatureExtractor:
    """A frozen encoder with what goes in and comes out. Call it, or take `fitted` first."""

    encode: Callable[[Tensor, float], Tensor]  # (ecg_mv [B, 12, T], Hz) -> [B, F]
    source: str  # where it came from, for a model card
    centre: Tensor | None = None  # [F]
    spread: Tensor | None = None  # [F]

    @torch.no_grad()
    def raw(self, ecg_mv: Tensor, sampling_rate_hz: float) -> Tensor:
        """Features [B, F] as the encoder gives them.

        Raises:
            ValueError: an ECG that is not [B, 12, T] and finite, or an encoder whose output is not [B, F] and finite.
        """
        if ecg_mv.ndim != 3 or ecg_mv.shape[1] != len(LEADS):
            raise ValueError(f"ecg_mv must be [B, 12, T] in mV, got {tuple(ecg_mv.shape)}")
        if not bool(torch.isfinite(ecg_mv).all()):
            raise ValueError(
                "ecg_mv holds NaN or infinity; reconstruct lost leads first (world_models.ecg.lead_repair)"
            )
        parts = [self.encode(part, sampling_rate_hz) for part in ecg_mv.split(_AT_ONCE)]
        out = torch.cat(parts).to(torch.float32)
        if out.ndim != 2 or len(out) != len(ecg_mv) or not bool(torch.isfinite(out).all()):
            raise ValueError(f"encoder {self.source} gave {tuple(out.shape)}, not finite [B, F]; take another one")
        return out

    def __call__(self, ecg_mv: Tensor, sampling_rate_hz: float = 500.0) -> Tensor:
        """Features [B, F], standardised where `fitted` was called. Raises as `raw`."""
        out = self.raw(ecg_mv, sampling_rate_hz)
        if self.centre is None or self.spread is None:
            return out
        return (out - self.centre.to(out)) / self.spread.to(out)

    def fitted(self, ecg_mv: Tensor, sampling_rate_hz: float = 500.0) -> FeatureExtractor:
        """The same extractor, standardised on these (training) ECGs. Raises as `raw`."""
        out = self.raw(ecg_mv, sampling_rate_hz)
        return replace(self, centre=out.mean(0), spread=out.std(0, unbiased=False).clamp_min(_LEAST_SPREAD))


def _shaped(ecg_mv: Tensor, rate: float, wants: EncoderInput) -> Tensor:
    """[B, leads, samples] as the encoder wants it."""
    ecg = ecg_mv[:, [LEADS.index(name) for name in wants.leads]].to(torch.float32)
    ecg = ecg - ecg.median(-1, keepdim=True).values
    if wants.sampling_rate_hz > rate:
        length = round(ecg.shape[-1] * wants.sampling_rate_hz / rate)
        ecg = F.interpolate(ecg, length, mode="linear", align_corners=False)
    else:
        ecg = resampled(ecg, rate, wants.sampling_rate_hz)
    if wants.samples is None:
        return ecg
    over = ecg.shape[-1] - wants.samples
    if over < 0:
        return F.pad(ecg, (0, -over))
    return ecg[..., over // 2 : over // 2 + wants.samples]


def load_extractor(
    features: str | Path | nn.Module, wants: EncoderInput | None = None, device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """The extractor of `features`.

    Args:
        features: a name of the catalogue or a folder that holds a Cardiac JEPA; a folder of a transformers model
            (config.json and safetensors) whose main input is one of ENCODER_INPUTS; or a torch module that takes
            [B, leads, samples].
        wants: how the encoder wants its ECG (not for a Cardiac JEPA, which knows).

    Raises:
        FileNotFoundError: no such folder, or no config.json in it.
        ValueError: a folder that holds no such encoder, or damaged or missing weights; a JEPA with `wants`.
    """
    if isinstance(features, nn.Module):
        return _of_module(features.to(device), wants or EncoderInput(), type(features).__name__)
    name = str(features)
    if name in WORLDS or _config(Path(name)).get("kind") == JEPA_KIND:
        if wants is not None:
            raise ValueError(f"{name} is a Cardiac JEPA, which knows what it wants; leave `wants` out")
        return FeatureExtractor(load_features(name, device), name)
    return _of_transformers(Path(name), wants, device)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"no encoder at {folder}: {'it has no config.json' if folder.is_dir() else 'no such folder'}; give the "
            f"folder of a transformers model or a Cardiac JEPA, or one of {', '.join(n for n in WORLDS if 'jepa' in n)}"
        )
    try:
        return parse_json(path.read_bytes(), str(path))
    except ConfigError as error:
        raise ValueError(f"{path} is not JSON ({error}); restore the folder") from error


def _of_module(module: nn.Module, wants: EncoderInput, source: str) -> FeatureExtractor:
    module = module.eval().requires_grad_(False)

    def encode(ecg_mv: Tensor, rate: float) -> Tensor:
        place = next((p.device for p in module.parameters()), ecg_mv.device)
        out = module(_shaped(ecg_mv, rate, wants).to(place))
        return pooled_states(out, wants.pooling, wants.time_axis)

    return FeatureExtractor(encode, source)


def local_model(folder: Path, auto: str = "AutoModel") -> Any:
    """A transformers model of a folder, frozen; from safetensors on this disk alone.

    Raises:
        ValueError: the folder holds none, or its weights are missing, damaged or of another shape.
    """
    import transformers

    if _config(folder).get("model_type") is None:
        raise ValueError(f"{folder / 'config.json'} names no model_type; give the folder of a transformers model")
    try:
        model, info = getattr(transformers, auto).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers and safetensors raise many kinds on a stranger's files
        raise ValueError(f"{folder} cannot be loaded as a transformers model ({error}); restore the folder") from error
    if info["missing_keys"] or info["mismatched_keys"]:
        lost = ", ".join(sorted(str(k) for k in [*info["missing_keys"], *info["mismatched_keys"]])[:3])
        raise ValueError(f"{folder}: the weights lack {lost} ...; they are of another model than config.json says")
    return model.eval().requires_grad_(False)


def _of_transformers(folder: Path, wants: EncoderInput | None, device: torch.device | str) -> FeatureExtractor:
    model = local_model(folder).to(device)
    kind = model.main_input_name
    if kind not in ENCODER_INPUTS:
        raise ValueError(
            f"{folder} holds a model that is fed with {kind!r}; an ECG encoder is fed with {', '.join(ENCODER_INPUTS)}"
        )
    wants = _fitting(model.config, kind, wants or EncoderInput())

    def encode(ecg_mv: Tensor, rate: float) -> Tensor:
        ecg = _shaped(ecg_mv, rate, wants).to(device)
        try:
            states = _states(model, kind, ecg)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{folder}: the model takes no ECG of {tuple(ecg.shape)} ({error}); set `wants`"
            ) from error
        if kind == "input_values":  # lead by lead
            return pooled_states(states, wants.pooling).unflatten(0, (len(ecg_mv), -1)).flatten(1)
        return pooled_states(states, wants.pooling, 2 if states.ndim == 4 else 1)

    return FeatureExtractor(encode, str(folder))


def _fitting(config: Any, kind: str, wants: EncoderInput) -> EncoderInput:
    """What a model's config asks for, in place of what was left open."""
    if kind == "past_values" and wants.samples is None:
        wants = replace(wants, samples=getattr(config, "context_length", None))
    channels = getattr(config, "num_input_channels", None)
    if kind == "past_values" and channels is not None and channels != len(wants.leads):
        raise ValueError(f"the model takes {channels} channels, `wants` names {len(wants.leads)} leads; name as many")
    return wants


def _states(model: Any, kind: str, ecg: Tensor) -> Tensor:
    """The last hidden states of [B, leads, samples]."""
    scale = ecg.std((1, 2), keepdim=True).clamp_min(1e-3)
    ecg = ecg / scale
    if kind == "input_values":  # a model of sounds hears each lead by itself
        return model(input_values=ecg.flatten(0, 1)).last_hidden_state
    if kind == "past_values":
        return model(past_values=ecg.transpose(1, 2)).last_hidden_state
    size = model.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    picture = F.interpolate(ecg.unsqueeze(1), (height, width), mode="bilinear", align_corners=False, antialias=True)
    return model(pixel_values=picture.expand(-1, model.config.num_channels, -1, -1)).last_hidden_state
