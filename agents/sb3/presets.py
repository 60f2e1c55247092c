"""Hyperparameters for clinical courses of some 24 steps, and the networks SB3 makes from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

__all__ = ["DQN", "EXPLAIN_PPO", "PPO", "PRESETS", "PROGRESSION_PPO", "Preset", "preset_for"]


@dataclass(frozen=True)
class Preset:
    """Everything that decides a training run, saved as JSON beside the policy it made."""

    algo: str  # ppo or dqn
    num_envs: int  # patients treated at once
    cost_weight: float  # a Lagrange multiplier: what one unit of safety cost is worth in return
    net_arch: tuple[int, ...]  # hidden widths, of actor and critic alike
    decay: bool = False  # the learning rate falls linearly to 0 over the run
    settings: dict[str, Any] = field(default_factory=dict)  # arguments of SB3's class

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    def but(self, **changes: Any) -> Preset:
        """A copy with other values."""
        return replace(self, **changes)


# One rollout is one whole course (24 steps) of every patient; gamma 1 in all but name, because the course is short
# and the hour is in the chart.
PPO = Preset(
    algo="ppo",
    num_envs=256,
    cost_weight=0.2,
    net_arch=(64, 64),
    decay=True,
    settings={
        "n_steps": 24,
        "batch_size": 512,
        "n_epochs": 8,
        "learning_rate": 1e-3,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "ent_coef": 0.02,  # with less, the policy settles on one drug before it has tried the others
        "clip_range": 0.2,
    },
)

DQN = Preset(
    algo="dqn",
    num_envs=64,
    cost_weight=0.2,
    net_arch=(128, 128),
    settings={
        "learning_rate": 5e-4,
        "buffer_size": 100_000,
        "learning_starts": 5_000,
        "batch_size": 256,
        "train_freq": 1,
        "gradient_steps": 4,
        "target_update_interval": 2_000,
        "gamma": 0.99,
        "exploration_fraction": 0.3,
        "exploration_final_eps": 0.03,
    },
)

PRESETS: dict[str, Preset] = {"ppo": PPO, "dqn": DQN}

# Ten years are 10 to 120 visits, and treatments act slowly. No discount: one a visit would pay for short intervals. The
# cost is worth what a major bleed or a forbidden drug costs in QALYs, about. Ten levels are chosen at once, so
# exploration needs no more.
PROGRESSION_PPO = PPO.but(
    cost_weight=0.03,
    settings={
        **PPO.settings,
        "n_steps": 32,
        "batch_size": 1024,
        "learning_rate": 5e-4,
        "gamma": 1.0,
        "ent_coef": 0.003,
    },
)

# At most eight steps, most of the reward in the first two.
EXPLAIN_PPO = PPO.but(cost_weight=0.0, net_arch=(256, 256), settings={**PPO.settings, "n_steps": 8, "ent_coef": 0.01})

_BY_ENVIRONMENT: dict[tuple[str, str], Preset] = {
    ("ppo", "ECGProgression-v0"): PROGRESSION_PPO,
    ("ppo", "ECGExplain-v0"): EXPLAIN_PPO,
}


def preset_for(algo: str, env_id: str) -> Preset:
    """The preset of an algorithm for an environment: its own where there is one, else the algorithm's."""
    return _BY_ENVIRONMENT.get((algo, env_id), PRESETS[algo])
