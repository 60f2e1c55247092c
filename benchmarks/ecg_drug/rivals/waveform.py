"""The waveform rivals by name."""

from __future__ import annotations

from benchmarks.ecg_drug.rivals.cecg_gan import CECGGAN
from benchmarks.ecg_drug.rivals.dadm import DADM
from benchmarks.ecg_drug.rivals.diffusets import DiffuSETS
from benchmarks.ecg_drug.rivals.network import PairNetwork
from benchmarks.ecg_drug.rivals.ode_gan import ODEGAN
from benchmarks.ecg_drug.rivals.stylegan import StyleGAN1D
from benchmarks.ecg_drug.rivals.tts_cgan import TTSCGAN
from benchmarks.ecg_drug.rivals.wgan_gp import WGANGP

__all__ = ["WAVEFORM_RIVALS"]

WAVEFORM_RIVALS: dict[str, type[PairNetwork]] = {
    "wgan-gp": WGANGP,
    "stylegan": StyleGAN1D,
    "ode-gan": ODEGAN,
    "tts-cgan": TTSCGAN,
    "cecg-gan": CECGGAN,
    "diffusets": DiffuSETS,
    "dadm": DADM,
}
