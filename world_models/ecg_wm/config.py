"""The sizes and constants of one ECG world model; saved as JSON beside the weights it made."""

from __future__ import annotations

from dataclasses import dataclass

from world_models.config_json import check_sizes

__all__ = ["ECGWorldConfig", "LARGE", "SMALL"]


@dataclass(frozen=True)
class ECGWorldConfig:
    """Everything `ECGWorldModel` needs besides its weights.

    Raises:
        ValueError: a size below 1 or far beyond what is ever trained, or steps that are no length of time.
    """

    name: str = "ecg-wm-small"
    hours_per_step: float = 2.0  # h; the default step, any other can be asked for when the world is loaded
    eta: int = 24  # random effects: what differs between patients in kinetics, sensitivity and daily rhythm
    drift_width: int = 64  # hidden width of the neural part of the latent ODE
    event_width: int = 32  # hidden width of the head that says how likely an AV block is
    teacher_width: int = 256  # hidden width of the diffusion that the few-step sampler stands for
    flow_width: int = 64  # hidden width of the few-step sampler
    flow_steps: int = 1  # its function evaluations
    belief_width: int = 64  # hidden width of the recurrent encoder that reads a patient's history
    spread_width: int = 64  # hidden width of the head that says how unsure the model is
    morphology: int = 32  # latent size of the beat's shape
    beat_width: int = 256  # hidden width of the beat encoder and decoder
    dose_log: int = 36  # past steps whose doses a state remembers, to redo them when its unknowns are sampled anew

    def __post_init__(self) -> None:
        parts = ("drift", "teacher", "flow", "belief", "spread", "beat", "event")
        widths = [f"{part}_width" for part in parts]
        check_sizes(self, **dict.fromkeys(widths, 65_536))
        check_sizes(self, eta=1024, flow_steps=1000, morphology=1024, dose_log=10_000)
        if not 0 < self.hours_per_step <= 8784:
            raise ValueError(f"hours_per_step={self.hours_per_step} must be above 0 h and at most 8784 h, a year")


SMALL = ECGWorldConfig()
LARGE = ECGWorldConfig(
    name="ecg-wm-large",
    eta=24,
    drift_width=512,
    teacher_width=512,
    flow_width=256,
    flow_steps=3,
    belief_width=256,
    spread_width=128,
    morphology=48,
    beat_width=1024,
)
