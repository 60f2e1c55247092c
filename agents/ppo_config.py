"""The settings of `agents.ppo`, and those that each environment is trained with by default."""

from __future__ import annotations

from dataclasses import dataclass, replace

from world_models.config_json import check_sizes

__all__ = ["PRESETS", "PPOConfig", "preset_for"]


@dataclass(frozen=True)
class PPOConfig:
    """Everything that decides a training run but its seed, kept as JSON beside the policy it made.

    Raises:
        ValueError: a number out of its range.
    """

    num_envs: int = 1024  # patients treated at once
    n_steps: int = 24  # of each between two updates
    minibatch: int = 512  # rows of one gradient step
    epochs: int = 8  # times that an update sees each row
    learning_rate: float = 1e-3  # of Adam, falling linearly to 0 over the run
    gamma: float = 0.99  # discount of a step
    gae_lambda: float = 0.95  # of the advantages: 0 trusts the value, 1 the return that came
    clip: float = 0.2  # of the ratio of the new policy's chance of an action to the old one's
    entropy: float = 0.02  # worth of one nat of it: with less, a policy settles before it has tried everything
    value_weight: float = 0.5  # of the squared error of the value beside the policy's loss
    max_norm: float = 0.5  # the gradient is scaled down to it
    target_kl: float | None = None  # an update ends with the epoch that moved the policy further, in nats
    cost_weight: float = 0.2  # what one unit of safety cost is worth in return; with a limit: at first
    cost_limit: float | None = None  # mean cost of a course that is allowed: a multiplier takes the weight's place
    multiplier_rate: float = 0.05  # what an update adds to the multiplier for one unit of cost beyond the limit
    hidden: tuple[int, ...] = (64, 64)  # widths of the tanh layers, of actor and critic alike
    history: int = 1  # observations that the policy sees: this one, and those before it
    compile: bool = False  # gradient steps as machine code (`clinenv.compiled`), other in the last bits than without
    log_sd: float = -0.5  # of amounts: logarithm of the first exploration's SD, in half widths of the action space

    def __post_init__(self) -> None:
        check_sizes(self, num_envs=1 << 20, n_steps=1 << 16, minibatch=1 << 24, epochs=1000, history=1000)
        for width in self.hidden:
            if type(width) is not int or not 1 <= width <= 1 << 16:
                raise ValueError(f"hidden={self.hidden}: widths are whole numbers from 1 to {1 << 16}")
        ranges = {"gamma": (0, 1), "gae_lambda": (0, 1), "clip": (1e-6, 1e6), "learning_rate": (0, 1e3)}
        ranges |= {n: (0, 1e6) for n in ("entropy", "value_weight", "cost_weight", "multiplier_rate")}
        ranges |= {"max_norm": (1e-9, 1e9), "log_sd": (-20, 20)}
        ranges |= {n: (0, 1e9) for n in ("target_kl", "cost_limit") if getattr(self, n) is not None}
        for name, (least, most) in ranges.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name}={getattr(self, name)!r} must lie in {least:g}..{most:g}")


# One rollout is one whole course of every patient; gamma 1 in all but name, for the course is short and the hour in the
# chart.
_DRUG = PPOConfig(num_envs=512)
# Sixty-nine switches at once: the ratio of policies runs away unless an update's epochs end in time, and exploration
# needs no more. A rollout is about one usual stay; discharge a week away must still count.
_WARD = PPOConfig(
    num_envs=256, n_steps=28, minibatch=1024, epochs=6, learning_rate=5e-4, entropy=0.0, target_kl=0.03, cost_weight=0.0
)
PRESETS: dict[str, PPOConfig] = {
    "ECGDrug-v0": _DRUG,
    "ECGDrugContinuous-v0": replace(_DRUG, entropy=0.002),
    "EHRWard-v0": _WARD,
    "EHRWardDose-v0": _WARD,
    "EHRReplay-v0": _WARD,
    # No discount: one a visit would pay for short intervals. The cost is worth what a major bleed or a forbidden drug
    # costs in QALYs, about.
    "ECGProgression-v0": PPOConfig(
        num_envs=512, n_steps=32, minibatch=1024, learning_rate=5e-4, gamma=1.0, entropy=0.003, cost_weight=0.03
    ),
    # At most eight steps, most of the reward in the first two.
    "ECGExplain-v0": PPOConfig(n_steps=8, hidden=(256, 256), entropy=0.01, cost_weight=0.0),
}


def preset_for(env_id: str) -> PPOConfig:
    """The settings that an environment's PPO is trained with by default."""
    return PRESETS.get(env_id, PPOConfig())
