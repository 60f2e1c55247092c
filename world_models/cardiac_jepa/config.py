"""The sizes and constants of a cardiac JEPA and of the world around it; saved as JSON beside the weights they made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from world_models.config_json import check_sizes
from world_models.quantities.progression import CODES

__all__ = ["FULL", "JEPAConfig", "NARROW", "WorldConfig", "as_authors", "as_paper", "naive", "with_inverse", "with_ode"]
__all__ += ["with_vicreg"]

_CHOICES = {
    "regulariser": ("sigreg", "vicreg"),
    "conditioning": ("action", "none"),
    "action": ("embedded", "binary"),
    "layers": ("own", "authors"),
    "scaling": ("leads", "record"),
    "dynamics": ("mlp", "ode"),
}


@dataclass(frozen=True)
class JEPAConfig:
    """Everything `CardiacJEPA` needs besides its weights.

    Raises:
        ValueError: a choice that is none, a size below one or far beyond what is ever trained, or codes that repeat.
    """

    name: str = "cardiac-jepa-full"
    codes: tuple[str, ...] = CODES  # ICD-10, of any chapter and level: the columns of an action
    stem: tuple[int, int, int] = (32, 32, 64)  # channels of the encoder's three first convolutions
    inner: int = 64  # channels inside a bottleneck
    out: int = 256  # channels out of every stage: the size of h
    blocks: tuple[int, ...] = (3, 4, 6, 3)  # bottlenecks a stage
    kernel: int = 5  # samples
    projector: int = 256  # hidden width of the projector's three layers
    latent: int = 256  # size of z
    final_norm: bool = True  # the projector ends in BatchNorm without affine; off for VICReg, whose hinge it would fill
    action: str = "embedded"  # "embedded": onset, resolution, ICD-10 tree and elapsed time; "binary": the paper's MLP
    embedding: int = 128  # size of the action's embedding
    action_hidden: int = 256  # hidden width of its MLP
    own_penalty: float = 1e-3  # on the squares of codes' own vectors: what a code does not need it takes from above
    dynamics_hidden: int = 512  # width of the predictor
    dynamics_blocks: int = 2  # residual blocks in it
    regulariser: str = "sigreg"
    weight: float = 0.05  # lambda of SIGReg; its gradient grows with the batch, so retune it when that changes
    slices: int = 256  # random directions that SIGReg looks along
    inverse: float = 0.0  # weight of inverse dynamics (`inverse.py`); 0: the paper's loss
    conditioning: str = "action"  # "none": naive self-supervision, the predictor is told neither action nor time
    crop_samples: int = 250  # of a training crop, 2.5 s at 100 Hz
    # "authors": projector, action projector and predictor as in their public code: BatchNorm and GELU after each hidden
    # layer, an affine BatchNorm at the projector's end, no residual around the predictor
    layers: str = "own"
    scaling: str = "leads"  # "record": each lead by its own mean and deviation over the record, as in their code
    dynamics: str = "mlp"  # "ode": the predictor flows through the elapsed time (`ode_dynamics.py`)

    def __post_init__(self) -> None:
        for name in ("codes", "stem", "blocks"):  # JSON has no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_choices()
        if len(set(self.codes)) != len(self.codes) or not self.codes:
            raise ValueError(f"codes must be given, each once; got {len(self.codes)}, {len(set(self.codes))} different")
        if len(self.stem) != 3:
            raise ValueError(f"stem needs three widths, got {self.stem}")
        check_sizes(
            self,
            inner=65_536,
            out=65_536,
            kernel=1025,
            projector=65_536,
            latent=65_536,
            embedding=65_536,
            action_hidden=65_536,
            dynamics_hidden=65_536,
            dynamics_blocks=256,
            slices=65_536,
            crop_samples=1 << 20,
        )
        for name, limit in (("stem", 65_536), ("blocks", 256)):
            each = getattr(self, name)
            if not 1 <= len(each) <= 16 or not all(type(n) is int and 1 <= n <= limit for n in each):
                raise ValueError(f"{name} is {each}; it needs 1 to 16 whole numbers from 1 to {limit:,}")
        if not 0.0 < self.weight < 1.0:
            raise ValueError(f"weight (lambda) is {self.weight}; it must lie between 0 and 1, 0.02 to 0.1 is usual")
        if not 0.0 <= self.inverse <= 1e6:
            raise ValueError(
                f"inverse (weight of inverse dynamics) is {self.inverse}; give 0 (none) to 1e6, 1 to 3 is usual"
            )
        if not 0.0 <= self.own_penalty <= 1e6:
            raise ValueError(f"own_penalty is {self.own_penalty}; give 0 (none) to 1e6, 1e-3 is usual")

    def _check_choices(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        if self.dynamics == "ode" and self.layers == "authors":
            raise ValueError("dynamics 'ode' is a form of our own layers; choose layers 'own' with it")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


@dataclass(frozen=True)
class WorldConfig:
    """Sizes of the world around its JEPA.

    Raises:
        ValueError: a size below 1, or far beyond what is ever trained.
    """

    name: str = "cardiac-jepa-small"
    jepa: Mapping[str, Any] = field(default_factory=dict)  # a JEPAConfig as plain values
    label_hidden: int = 64
    bank: int = 2048  # first visits that new patients are sampled from
    bank_ecgs: int = 512  # of these, the first so many with 2.5 s of their ECG: what a latent's neighbours look like
    pairs: int = 2048  # pairs of visits that ECGExplain asks about

    def __post_init__(self) -> None:
        check_sizes(self, label_hidden=65_536, bank=1 << 24)
        check_sizes(self, least=0, bank_ecgs=1 << 24, pairs=1 << 24)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


FULL = JEPAConfig()
NARROW = JEPAConfig(
    name="cardiac-jepa-small",
    stem=(16, 16, 16),
    inner=32,
    out=128,
    blocks=(1, 1, 1, 1),
    projector=128,
    latent=128,
    embedding=64,
    action_hidden=128,
    dynamics_hidden=256,
)


def naive(config: JEPAConfig) -> JEPAConfig:
    """The same model told nothing of what changed: self-supervision by a patient's invariance."""
    return replace(config, name=f"{config.name}-naive", conditioning="none")


def with_inverse(config: JEPAConfig) -> JEPAConfig:
    """The same model with inverse dynamics and a quarter of the latent, so that what actions change has a place in it.

    Chosen among three (latent, weight) on validation patients of the progression cohort (docs/log.md).
    """
    return replace(config, name=f"{config.name}-inverse", inverse=3.0, latent=max(1, config.latent // 4))


def as_paper(config: JEPAConfig) -> JEPAConfig:
    """The paper's exact form: the binary transition, no elapsed time, its loss and no more.

    Its text gives no lambda; 0.1 is that of the authors' code. Its pairs come in their natural numbers.
    """
    return replace(config, name=f"{config.name}-paper", action="binary", inverse=0.0, weight=0.1)


def as_authors(config: JEPAConfig, samples: int = 1000) -> JEPAConfig:
    """The authors' public code, where it differs from the paper's text: layers, widths, whole records, scaling.

    Records of 10 s at 100 Hz where theirs have 500.
    """
    return replace(
        as_paper(config),
        name=f"{config.name}-authors",
        layers="authors",
        scaling="record",
        projector=2048,
        latent=256,
        embedding=256,
        action_hidden=512,
        dynamics_hidden=512,
        crop_samples=samples,
    )


def with_ode(config: JEPAConfig) -> JEPAConfig:
    """The same model whose predictor is a Neural ODE in elapsed time."""
    return replace(config, name=f"{config.name}-ode", dynamics="ode")


def with_vicreg(config: JEPAConfig) -> JEPAConfig:
    """The same model kept from collapse by VICReg, as its authors use it: on latents that no BatchNorm has scaled."""
    return replace(config, name=f"{config.name}-vicreg", regulariser="vicreg", final_norm=False)
