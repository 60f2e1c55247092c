"""Hyperparameters for clinical courses of some 24 steps, and the networks SB3 makes from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

__all__ = ["A2C", "DQN", "EXPLAIN_PPO", "MASKABLE_PPO", "PPO", "PRESETS", "PROGRESSION_PPO", "QRDQN", "RECURRENT_PPO"]
__all__ += ["TRPO", "WARD_MASKABLE_PPO", "Preset", "preset_for"]


@dataclass(frozen=True)
class Preset:
    """Everything that decides a training run, saved as JSON beside the policy it made."""

    algo: str  # a name of `agents.sb3.algorithms.ALGORITHMS`
    num_envs: int  # patients treated at once
    cost_weight: float  # what one unit of safety cost is worth in return; with a limit: at first
    net_arch: tuple[int, ...]  # hidden widths, of actor and critic alike
    decay: bool = False  # the learning rate falls linearly to 0 over the run
    settings: dict[str, Any] = field(default_factory=dict)  # arguments of the algorithm's class
    policy: dict[str, Any] = field(default_factory=dict)  # further sizes of the policy: `agents.sb3.algorithms.SIZES`
    cost_limit: float | None = None  # mean cost of a course that is allowed: a multiplier takes the weight's place
    multiplier_rate: float = 0.05  # what an update adds to the multiplier for one unit of cost beyond the limit

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

# One gradient step a rollout: many short rollouts instead of few long ones.
A2C = Preset(
    algo="a2c",
    num_envs=256,
    cost_weight=0.2,
    net_arch=(64, 64),
    decay=True,
    settings={"n_steps": 6, "learning_rate": 2e-3, "gamma": 0.99, "gae_lambda": 0.95, "ent_coef": 0.02},
)

TRPO = Preset(
    algo="trpo",
    num_envs=256,
    cost_weight=0.2,
    net_arch=(64, 64),
    settings={
        "n_steps": 24,
        "batch_size": 512,
        "learning_rate": 1e-3,  # of the critic; the policy moves by its KL
        "target_kl": 0.02,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "n_critic_updates": 8,
    },
)

# The LSTM reads what a chart does not repeat: how the QT of this patient answered the doses before.
RECURRENT_PPO = PPO.but(
    algo="recurrent-ppo",
    settings={**PPO.settings, "batch_size": 1536, "n_epochs": 4},
    policy={"lstm_hidden_size": 32, "n_lstm_layers": 1},
)

MASKABLE_PPO = PPO.but(algo="maskable-ppo")

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

QRDQN = DQN.but(algo="qrdqn", policy={"n_quantiles": 25})

PRESETS: dict[str, Preset] = {
    preset.algo: preset for preset in (PPO, A2C, TRPO, RECURRENT_PPO, MASKABLE_PPO, DQN, QRDQN)
}

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

# A stay is some 28 steps of four hours and discharge a week away must still count; with 69 switches chosen at once the
# ratio of policies runs away unless an update's epochs end in time, and exploration needs no more.
WARD_PPO = PPO.but(
    cost_weight=0.0,
    settings={**PPO.settings, "n_steps": 28, "batch_size": 1024, "n_epochs": 6, "learning_rate": 5e-4}
    | {"ent_coef": 0.0, "target_kl": 0.03},
)
WARD_MASKABLE_PPO = WARD_PPO.but(algo="maskable-ppo")

# What the courses of an id ask of every algorithm.
_OF_COURSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # fields, settings
    "ECGProgression-v0": ({"cost_weight": 0.03}, {"gamma": 1.0}),
    "ECGExplain-v0": ({"cost_weight": 0.0, "net_arch": (256, 256)}, {}),
    "EHRWard-v0": ({"cost_weight": 0.0}, {}),
    "EHRWardDose-v0": ({"cost_weight": 0.0}, {}),
    "EHRReplay-v0": ({"cost_weight": 0.0}, {}),
}

_BY_ENVIRONMENT: dict[tuple[str, str], Preset] = {
    ("ppo", "ECGProgression-v0"): PROGRESSION_PPO,
    ("maskable-ppo", "ECGProgression-v0"): PROGRESSION_PPO.but(algo="maskable-ppo"),
    ("ppo", "ECGExplain-v0"): EXPLAIN_PPO,
    ("maskable-ppo", "ECGExplain-v0"): EXPLAIN_PPO.but(algo="maskable-ppo"),
    **{("ppo", f"EHR{name}-v0"): WARD_PPO for name in ("Ward", "WardDose", "Replay")},
    **{("maskable-ppo", f"EHR{name}-v0"): WARD_MASKABLE_PPO for name in ("Ward", "Replay")},
}


def preset_for(algo: str, env_id: str) -> Preset:
    """The preset of an algorithm for an environment: its own where there is one, else the algorithm's with what the
    environment's courses ask of every algorithm.

    Raises:
        KeyError: an algorithm that there is not.
    """
    if (algo, env_id) in _BY_ENVIRONMENT:
        return _BY_ENVIRONMENT[algo, env_id]
    preset = PRESETS[algo]
    if env_id not in _OF_COURSES:
        return preset
    fields, settings = _OF_COURSES[env_id]
    return preset.but(**fields, settings={**preset.settings, **settings})
